# SPDX-License-Identifier: Apache-2.0
"""What does it cost to remove what one killed VM left?

    process                        a process that does it, from its start to its end
    library                        the call, in a process that stands ready
    library, less the link delete  the same without the time in which the kernel deletes the link

The kernel deletes a link in 10 to 30 ms, nearly all of which it waits for its RCU. There is another
pod with redirects of its own, as on any node that has work: with the last of the whole machine the
kernel also patches its code, which takes 0.1 ms (net_dec_ingress_queue(), net/core/dev.c).
"""

import random
import time

from . import lab
from .timing import Row, in_turn

# How often one that stands ready has done it before: CPython adapts a function's bytecode in its
# first eight calls.
WARM = 8

# The task of each that stands ready.
TASKS = {lab.NLRAW: "cleanup", lab.GO: "cleanup", lab.MNL: "cleanup", lab.PYROUTE2: "cleanup"}


def measure(laboratory):
    turns, seconds = (9, 15) if laboratory.quick else (31, 30)
    with laboratory.pod() as other, laboratory.pod() as pod:
        for each in (other, pod):
            each.uplink()
        other.orphan()
        whole = {who: _process(pod, who, argv) for who, argv in laboratory.cleanups().items()}
        workers = {who: laboratory.worker(who, pod) for who in TASKS if who in laboratory.peers}
        try:
            samples = in_turn(whole, turns, seconds)
            ready = {who: _library(pod, who, worker, TASKS[who]) for who, worker in workers.items()}
            ready["split"] = _library(pod, lab.NLRAW, workers[lab.NLRAW], "cleanup-split")
            told = in_turn(ready, turns, seconds)
        finally:
            for worker in workers.values():
                worker.close()
    rows = [Row("cleanup", "process", 1, who, taken) for who, taken in samples.items()]
    split = told.pop("split")
    for who, answers in told.items():
        rows.append(Row("cleanup", "library", 1, who, [answer["seconds"] for answer in answers]))
        if who == lab.NLRAW:
            answers = split
        if "deleting" in answers[0]:
            less = [answer["seconds"] - answer["deleting"] / 1e9 for answer in answers]
            rows.append(Row("cleanup", "library, less the link delete", 1, who, less))
    return rows


def rest():
    """Wait until the kernel is done with the making of the orphan, as one that is found has.

    The wait ends at no tick of the kernel's clock (4 ms at 250 Hz), as the kernel's own waits do.
    """
    time.sleep(random.uniform(0.2, 0.21))


def _process(pod, who, argv):
    def turn():
        pod.orphan()
        rest()
        seconds = lab.spawn_well(argv, pod)
        pod.check_clean(who)
        return seconds

    return turn


def _library(pod, who, worker, task):
    def turn():
        pod.orphan()
        told = worker.do(task, removed=1)
        pod.check_clean(who)
        return told

    for _ in range(WARM):
        turn()
    return turn

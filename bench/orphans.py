# SPDX-License-Identifier: Apache-2.0
"""What does it cost to remove many orphans of one namespace?

nlraw does all that a cleanup does. Its peers do no more than delete the links, one after the other.
"""

import shutil

from . import lab
from .timing import Row, in_turn

SIZES = (1, 10, 100, 500, 1000)
QUICK_SIZES = (1, 10, 500)

# From so many on a quick run leaves the slow peers out, and a full one gives each a turn alone.
MANY = 100


def measure(laboratory):
    rows = []
    with laboratory.pod() as pod:
        pod.uplink()
        here = [
            who for who in (lab.NLRAW, lab.FLOOR, lab.GO, lab.PYROUTE2) if who in laboratory.peers
        ]
        workers = {who: laboratory.worker(who, pod) for who in here}
        try:
            for size in QUICK_SIZES if laboratory.quick else SIZES:
                many = size >= MANY
                contenders = {
                    who: _ready(pod, size, who, worker) for who, worker in workers.items()
                }
                if shutil.which("ip"):
                    contenders[lab.IPROUTE2] = _script(pod, size)
                if many and laboratory.quick:
                    contenders = {
                        who: contenders[who] for who in (lab.NLRAW, lab.FLOOR) if who in contenders
                    }
                turns = 5 if not many else 1 if laboratory.quick else 2
                samples = in_turn(contenders, turns, 60)
                rows += [
                    Row("orphans", "remove", size, who, taken) for who, taken in samples.items()
                ]
        finally:
            for worker in workers.values():
                worker.close()
    return rows


def _ready(pod, size, who, worker):
    def turn():
        pod.taps(size)
        if who == lab.NLRAW:
            seconds = worker.do("cleanup", removed=size)["seconds"]
        else:
            seconds = worker.do("delete", links=size)["seconds"]
        pod.check_clean(who)
        return seconds

    return turn


def _script(pod, size):
    names = " ".join("tap%d_urunc" % number for number in range(size))
    script = "for tap in %s; do ip link del dev $tap; done" % names

    def turn():
        pod.taps(size)
        seconds = lab.spawn_well(["/bin/sh", "-e", "-c", script], pod)
        pod.check_clean(lab.IPROUTE2)
        return seconds

    return turn

# SPDX-License-Identifier: Apache-2.0
"""What does it cost to set up the network of a VM, by one that stands ready?

    library         in the namespace that the process is in, as a runtime is by then
    library, other  in another one, which takes a thread that enters it

Both contenders do the same, on one socket each:

    search    the lists of links and qdiscs, decoded; there are no leftovers
    facts     the uplink's addresses, routes and permanent neighbours of both families, MACs and
              MTU, as text and numbers; link-local ones are left out
    create    a TAP with the same flags, owner and group, read back for its MAC
    connect   the uplink's MTU, up, both ingress qdiscs, both redirects, by u32
    persist   the TAP outlives its descriptor

The library of Go sends each change by itself, nlraw all in one datagram. Only nlraw takes turns
with other writers, hears of changes to what it lists, and undoes it all if a step fails.
`Go, no search` is the same without the search. The Python floor makes the system calls of nlraw
with requests made beforehand, and decodes nothing: that is as fast as Python can be.

The uplink is as in any pod: an MTU of its own, an address and a gateway of each family, a permanent
neighbour. What a turn makes is removed by nlraw before the next one.
"""

import nlraw

from . import lab
from .timing import Row, in_turn

NO_SEARCH = "Go, no search"

# How often one that stands ready has done it before: CPython adapts a function's bytecode in its
# first eight calls.
WARM = 8

# What is measured and who does it; the peer and its task.
TASKS = {
    ("library", lab.NLRAW): (lab.NLRAW, "setup"),
    ("library", lab.PYTHON_FLOOR): (lab.NLRAW, "setup-floor"),
    ("library", lab.GO): (lab.GO, "setup"),
    ("library", NO_SEARCH): (lab.GO, "setup-alone"),
    ("library, other", lab.NLRAW): (lab.NLRAW, "setup-other"),
    ("library, other", lab.GO): (lab.GO, "setup-other"),
}

# What a contender has to find on the uplink.
FACTS = {"addresses": 2, "gateways": 2, "neighbours": 1}


def measure(laboratory):
    turns, seconds = (31, 15) if laboratory.quick else (101, 45)
    with laboratory.pod() as other, laboratory.pod() as pod:
        for each in (other, pod):
            each.uplink()
        other.orphan()  # a node that has work: see `cleanup`
        pod.configure()
        peers = {peer for peer, _ in TASKS.values() if peer in laboratory.peers}
        workers = {peer: laboratory.worker(peer, pod) for peer in peers}
        try:
            contenders = {
                key: _turn(pod, workers[peer], peer, task, {} if lab.PYTHON_FLOOR in key else FACTS)
                for key, (peer, task) in TASKS.items()
                if peer in peers
            }
            samples = in_turn(contenders, turns, seconds)
        finally:
            for worker in workers.values():
                worker.close()
    return [Row("setup", what, 1, who, taken) for (what, who), taken in samples.items()]


def _turn(pod, worker, who, task, facts):
    def turn():
        seconds = worker.do(task, **facts)["seconds"]
        pod.check_set_up(who)
        nlraw.cleanup(pod.path)
        pod.check_clean(who)
        return seconds

    for _ in range(WARM):
        turn()
    return turn

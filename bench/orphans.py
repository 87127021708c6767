# SPDX-License-Identifier: Apache-2.0
"""What does it cost to remove many orphans of one namespace?

nlraw does all that a cleanup does. Its peers only delete the links, one after the other.
`C floor, by group` deletes them as nlraw does: it puts them into a group, checks in a list of all
links that the group holds nothing else, and deletes the group with one request. It looks for no
in-use TAP and no TC state, and confirms nothing.
"""

import shutil

from . import lab
from .timing import Row, in_turn

SIZES = (1, 10, 100, 500, 1000)
QUICK_SIZES = (1, 10, 500)

BY_GROUP = "C floor, by group"

# From so many on a full run measures only these three, and a quick run already from fewer: a link
# takes the kernel as long, whoever asks.
MANY, QUICK_MANY = 1000, 100
OF_MANY = (lab.NLRAW, lab.FLOOR, BY_GROUP)

# What each does; the peer and its task.
TASKS = {
    lab.NLRAW: (lab.NLRAW, "cleanup"),
    BY_GROUP: (lab.FLOOR, "delete-group"),
    lab.FLOOR: (lab.FLOOR, "delete"),
    lab.GO: (lab.GO, "delete"),
    lab.PYROUTE2: (lab.PYROUTE2, "delete"),
}


def measure(laboratory):
    quick, rows = laboratory.quick, []
    with laboratory.pod() as pod:
        pod.uplink()
        here = [who for who, (peer, _) in TASKS.items() if peer in laboratory.peers]
        workers = {who: laboratory.worker(TASKS[who][0], pod) for who in here}
        try:
            for size in QUICK_SIZES if quick else SIZES:
                contenders = {who: _ready(pod, size, who, workers[who]) for who in here}
                if shutil.which("ip"):
                    contenders[lab.IPROUTE2] = _script(pod, size)
                if size >= (QUICK_MANY if quick else MANY):
                    contenders = {who: contenders[who] for who in OF_MANY if who in contenders}
                # a slow one drops out after its first turn of many
                samples = in_turn(contenders, 5 if quick else 9, 30, least=1)
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
        # nlraw reports what it removed, the others what they found
        seconds = worker.do(TASKS[who][1], removed=size, links=size)["seconds"]
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

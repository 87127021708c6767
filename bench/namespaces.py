# SPDX-License-Identifier: Apache-2.0
"""What does it cost to clean up many namespaces, or to find nothing to do in them?

    remove       the orphan of each
    remove 64    64 orphans, each in one of so many namespaces: a node on which some VMs were killed
    look         where there is none

`nlraw.sweep` removes many at a time; its peers, and `nlraw.cleanup` called in a row, one after the
other. The floor of `remove` is the deletions alone, which were planned before: it says how much of
a sweep the kernel takes.
"""

from . import lab
from .timing import Row, in_turn

SIZES = (1, 4, 16, 64, 256, 1000)
QUICK_SIZES = (1, 64)

# From so many on a full run gives each a single turn.
MANY = 256

# From so many on it measures only these two: the kernel takes as long, whoever asks.
MOST, OF_MOST = 1000, (lab.NLRAW, lab.MNL)

# How many orphans there are on a node with more namespaces.
SOME = 64

IN_SEQUENCE = "nlraw, one after the other"


def measure(laboratory):
    sizes = QUICK_SIZES if laboratory.quick else SIZES
    rows, pods = [], []
    home = laboratory.pod()
    tasks = {lab.NLRAW: (lab.NLRAW, "sweep"), IN_SEQUENCE: (lab.NLRAW, "in-sequence")}
    tasks[lab.PYTHON_FLOOR] = (lab.NLRAW, "sweep-floor")
    tasks.update(
        (who, (who, "sweep")) for who in (lab.GO, lab.MNL, lab.PYROUTE2) if who in laboratory.peers
    )
    workers = {who: laboratory.worker(peer, home) for who, (peer, _) in tasks.items()}
    try:
        for size in sizes:
            while len(pods) < size:
                pods.append(laboratory.pod())
                pods[-1].uplink()
            directory = laboratory.directory_of(pods)
            rows += _look(workers[lab.NLRAW], directory, size, laboratory.directory_of(pods[:1]))
            whats = {"remove": size, "remove 64": SOME} if size > SOME else {"remove": size}
            for what, orphans in whats.items():
                here = [who for who in tasks if who != lab.PYTHON_FLOOR or size <= SOME]
                if orphans >= MOST:
                    here = [who for who in here if who in OF_MOST]
                contenders = {
                    who: _turn(pods, orphans, directory, who, workers[who], tasks[who][1])
                    for who in here
                }
                turns = (
                    3 if laboratory.quick else 5 if size < MANY else 2 if what == "remove 64" else 1
                )
                samples = in_turn(contenders, turns, 300)
                rows += [
                    Row("namespaces", what, size, who, taken) for who, taken in samples.items()
                ]
    finally:
        for worker in workers.values():
            worker.close()
        for pod in pods + [home]:
            pod.close()
    return rows


def _look(worker, directory, size, directory_of_one):
    """What it costs to look, and what each namespace adds to the first."""

    def look(directory, namespaces):
        return worker.do("sweep-dry", directory, namespaces=namespaces, removed=0)["seconds"]

    samples = in_turn(
        {"one": lambda: look(directory_of_one, 1), "many": lambda: look(directory, size)}, 21, 60
    )
    rows = [Row("namespaces", "look", size, lab.NLRAW, samples["many"])]
    if size > 1:
        added = [(many - one) / (size - 1) for one, many in zip(samples["one"], samples["many"])]
        rows.append(Row("namespaces", "look, one more", size, lab.NLRAW, added))
    return rows


def _turn(pods, orphans, directory, who, worker, task):
    def turn():
        for pod in pods[:: len(pods) // orphans][:orphans]:
            pod.orphan()
        seconds = worker.do(task, directory, removed=orphans, namespaces=len(pods))["seconds"]
        for pod in pods:
            pod.check_clean(who)
        return seconds

    return turn

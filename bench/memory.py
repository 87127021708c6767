# SPDX-License-Identifier: Apache-2.0
"""How much memory does a process need that has cleaned up one orphan, at its peak?"""

from . import lab
from .coldstart import BARE
from .timing import Row

# Answers once as a peer does, and waits.
WAITING = lab.ISOLATED + [
    "-c",
    "import sys; sys.stdin.readline(); print('{\"ns\": 0}', flush=True); sys.stdin.readline()",
]


def measure(laboratory):
    rows = []
    with laboratory.pod() as pod:
        pod.uplink()
        with lab.Worker(WAITING, pod) as bare:
            bare.do("nothing")
            floor = bare.peak()
        rows.append(Row("memory", "peak", 1, BARE, [floor], "KiB"))
        for who in (lab.NLRAW, lab.PYROUTE2, lab.GO, lab.MNL):
            if who in laboratory.peers:
                pod.orphan()
                with laboratory.worker(who, pod) as worker:
                    worker.do("cleanup", removed=1)
                    pod.check_clean(who)
                    peak = worker.peak()
                rows.append(Row("memory", "peak", 1, who, [peak], "KiB"))
                if who in (lab.NLRAW, lab.PYROUTE2):
                    rows.append(
                        Row(
                            "memory",
                            "peak above the bare interpreter",
                            1,
                            who,
                            [peak - floor],
                            "KiB",
                        )
                    )
    return rows

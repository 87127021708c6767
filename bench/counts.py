# SPDX-License-Identifier: Apache-2.0
"""How many system calls, how many instructions? Python's are exact on any machine.

System calls by strace, instructions by callgrind. What an interpreter does to start cancels out
where the same is done so often and then more often. The calls by which the C library manages memory
and threads do not count. Those of Go vary: its runtime looks after its threads by the clock.
"""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

from . import codec, lab
from .coldstart import BARE
from .timing import Row

PLUMBING = {"brk", "futex", "madvise", "mmap", "mprotect", "munmap"}

FEW, MANY = 5, 35


def measure(laboratory):
    rows = []
    if shutil.which("strace"):
        rows += _system_calls(laboratory)
    else:
        laboratory.skipped["strace"] = "not installed"
    if shutil.which("valgrind"):
        rows += _instructions(laboratory)
    else:
        laboratory.skipped["valgrind"] = "not installed"
    return rows


# ---------------------------------------------------------------- system calls


def _system_calls(laboratory):
    rows = []
    with laboratory.pod() as pod:
        pod.uplink()
        directory = laboratory.directory_of([pod])
        worker = laboratory.peers[lab.NLRAW]

        def each(*tasks):
            lines = [task + " 1" for task in tasks]
            few, many = (_traced(pod, worker, lines * times) for times in (FEW, MANY))
            return (many - few) // (MANY - FEW)

        def row(what, who, count):
            rows.append(Row("system calls", what, 1, who, [count], "calls"))

        row("scan", lab.NLRAW, each("scan"))
        row("scan of another namespace", lab.NLRAW, each("scan-other"))
        clean = each("cleanup")
        row("cleanup, nothing to do", lab.NLRAW, clean)
        sweeps = [
            _traced(pod, worker, ["sweep-dry %s" % directory] * times) for times in (FEW, MANY)
        ]
        row(
            "sweep of one namespace, nothing to do",
            lab.NLRAW,
            (sweeps[1] - sweeps[0]) // (MANY - FEW),
        )
        nothing = _traced(pod, worker, ["cleanup 1"])
        pod.orphan()
        cleaned = clean + _traced(pod, worker, ["cleanup 1"]) - nothing
        row("cleanup, one orphan", lab.NLRAW, cleaned)
        pod.check_clean(lab.NLRAW)
        row("setup", lab.NLRAW, each("setup", "cleanup") - cleaned)
        row("process", BARE, _traced(pod, lab.ISOLATED + ["-c", "pass"]))
        for who, argv in laboratory.cleanups().items():
            pod.orphan()
            row("process, one orphan", who, _traced(pod, argv))
            pod.check_clean(who)
    return rows


def _traced(pod, argv, lines=()):
    """The number of system calls of a process and its children, which is fed these lines."""
    trace = pod.path + ".strace"
    strace = ["strace", "-f", "-c", "-U", "calls,name", "-o", trace] + argv
    fed = "".join(line + "\n" for line in lines).encode("ascii")
    options = {"env": lab.ENVIRONMENT, "stdout": subprocess.DEVNULL, "check": True}
    pod.run(lambda: subprocess.run(strace, input=fed, **options))
    with open(trace) as file:
        counts = [line.split() for line in file if re.match(r" *\d+ [a-z]", line)]
    os.unlink(trace)
    return sum(int(calls) for calls, name in counts if name not in PLUMBING and name != "total")


# ---------------------------------------------------------------- instructions


def _instructions(laboratory):
    runs = {("start", BARE): lambda: _counted(["-c", "pass"])}
    with laboratory.pod() as pod, ThreadPoolExecutor(2) as pool:
        pod.uplink()
        command = laboratory.nlraw("cleanup", "-n", "current")[len(lab.ISOLATED) :]
        runs["cleanup, nothing to do", lab.NLRAW] = lambda: pod.run(lambda: _counted(command))
        path = codec.message(laboratory)
        places = {lab.NLRAW: laboratory.copy}
        if lab.PYROUTE2 in laboratory.peers:
            places[lab.PYROUTE2] = laboratory.peers[lab.PYROUTE2][-2]
        for who, place in places.items():
            for times in (FEW, MANY):
                argv = [codec.PEER, place, path, who, str(times)]
                runs[times, who] = lambda argv=argv: _counted(argv)
        counted = dict(zip(runs, pool.map(lambda run: run(), runs.values())))
    rows = []
    for who in places:
        each = (counted.pop((MANY, who)) - counted.pop((FEW, who))) // (MANY - FEW)
        rows.append(Row("instructions", "build and parse", 1, who, [each], "instructions"))
    return rows + [
        Row("instructions", what, 0, who, [count], "instructions")
        for (what, who), count in counted.items()
    ]


def _counted(arguments):
    """The instructions of a bare Python.

    Not with `-I`, under which PYTHONHASHSEED would not count.
    """
    argv = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        lab.PYTHON,
        "-S",
    ] + arguments
    environment = {"PYTHONHASHSEED": "0", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
    )
    return int(re.search(rb"Collected : (\d+)", done.stderr).group(1))

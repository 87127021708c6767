# SPDX-License-Identifier: Apache-2.0
"""What does a process cost that looks at a namespace without an orphan and ends?

All Pythons are the same interpreter, outside of any virtual environment, with bytecode caches:

    start                  python3 -I -S -c pass
    cleanup                python3 -I -S .../nlraw/__main__.py cleanup, started in the namespace
    cleanup, one file      the same, of what `nlraw.bundle` makes
    hook                   the same with hook, started outside, as a container runtime starts one
    ... with site          both without -S: Python loads the module `site` if started without flags
"""

import json
import os
import shutil
import subprocess

from . import lab
from .timing import Row, in_turn

BARE = "bare interpreter"


def commands(laboratory, pod):
    """What is started in the pod, by (what, who)."""
    one_file = os.path.join(laboratory.directory, "nlraw.pyz")
    subprocess.run([lab.PYTHON, "-m", "nlraw.bundle", one_file], cwd=laboratory.copy, check=True)
    found = {
        ("start", BARE): lab.ISOLATED + ["-c", "pass"],
        ("cleanup", lab.NLRAW): laboratory.nlraw("cleanup", "-n", "current"),
        ("cleanup of another namespace", lab.NLRAW): laboratory.nlraw("cleanup", "-n", pod.path),
        ("cleanup, one file", lab.NLRAW): lab.ISOLATED + [one_file, "cleanup", "-n", "current"],
        ("start, with site", BARE): [lab.PYTHON, "-I", "-c", "pass"],
        ("cleanup, with site", lab.NLRAW): [lab.PYTHON, "-I"]
        + laboratory.nlraw("cleanup", "-n", "current")[len(lab.ISOLATED) :],
        ("import", lab.NLRAW): lab.ISOLATED
        + ["-c", "import sys; sys.path.insert(0, %r); import nlraw" % laboratory.copy],
    }
    if lab.PYROUTE2 in laboratory.peers:
        place = laboratory.peers[lab.PYROUTE2][-2]
        found["import", lab.PYROUTE2] = lab.ISOLATED + [
            "-c",
            "import sys; sys.path.insert(0, %r); import pyroute2" % place,
        ]
    if shutil.which("ip"):
        found["list TAPs", lab.IPROUTE2] = [shutil.which("ip"), "-j", "link", "show", "type", "tun"]
    return found


def measure(laboratory):
    with laboratory.pod() as pod, laboratory.pod() as node, laboratory.worker(
        lab.NLRAW, pod
    ) as inside:
        pod.uplink()
        starts = {name: _start(argv, pod) for name, argv in commands(laboratory, pod).items()}
        starts["hook", lab.NLRAW] = _start(
            laboratory.nlraw("hook"), node, state_of(laboratory, inside.process.pid)
        )
        samples = in_turn(starts, *((21, 20) if laboratory.quick else (101, 40)))
    return [Row("coldstart", what, 0, who, taken) for (what, who), taken in samples.items()]


def state_of(laboratory, pid):
    """A file with what a runtime tells a hook before the container's start."""
    path = os.path.join(laboratory.directory, "state.json")
    with open(path, "w") as file:
        json.dump(
            {
                "ociVersion": "1.0.2",
                "id": "c1",
                "status": "created",
                "pid": pid,
                "bundle": laboratory.directory,
            },
            file,
        )
    return path


def _start(argv, pod, fed=os.devnull):
    lab.spawn_well(argv, pod, fed=fed)  # the first one writes bytecode caches
    return lambda: lab.spawn_well(argv, pod, fed=fed)

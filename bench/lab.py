# SPDX-License-Identifier: Apache-2.0
"""What a bench measures with: an installed copy of nlraw, the peers, and their processes."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata

import nlraw

from .pods import NotDone, Pod, hide_mounts

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = os.path.join(HERE, "peers")
BUILD = os.path.join(PEERS, "build")

# The interpreter itself, where the bench runs in a virtual environment: that is what a host has.
PYTHON = getattr(sys, "_base_executable", None) or sys.executable
ISOLATED = [PYTHON, "-I", "-S"]

NLRAW, PYROUTE2, IPROUTE2 = "nlraw", "pyroute2", "iproute2"
GO, MNL, FLOOR = "Go, vishvananda/netlink", "C, libmnl", "C floor"
PYTHON_FLOOR = "Python floor"

# The node on which VMMs die, and the floor of what removes their TAPs.
NODE, REAPER = "C, a node", "C floor of watch"

# How a compiled peer is built, and what has to be there.
GOCODE = "/usr/share/gocode"
COMPILED = {
    FLOOR: ("floor", ["cc", "-O2", "-o", "build/floor", "floor.c"], ["cc"]),
    NODE: ("node", ["cc", "-O2", "-o", "build/node", "node.c"], ["cc"]),
    REAPER: ("reaper", ["cc", "-O2", "-pthread", "-o", "build/reaper", "reaper.c"], ["cc"]),
    MNL: (
        "mnl",
        ["cc", "-O2", "-o", "build/mnl", "mnl.c", "-lmnl"],
        ["cc", "/usr/include/libmnl/libmnl.h"],
    ),
    GO: (
        "go",
        ["go", "build", "-o", "build/go", "peer.go"],
        ["go", GOCODE + "/src/github.com/vishvananda/netlink"],
    ),
}


class Lab:
    """Everything that is set up once.

    ``peers`` are the commands of those that are here, ``skipped`` says why others are not.
    """

    def __init__(self, quick):
        self.quick = quick
        hide_mounts()
        self._directory = tempfile.TemporaryDirectory(prefix="nlraw-bench-")
        self.directory = self._directory.name
        self.copy = os.path.join(self.directory, "installed")
        source, no_cache = os.path.dirname(nlraw.__file__), shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, os.path.join(self.copy, "nlraw"), ignore=no_cache)
        subprocess.run(ISOLATED + ["-m", "compileall", "-q", self.copy], check=True)
        self.peers, self.skipped = _peers(self.copy)
        self.pods = []

    def pod(self, directory=None):
        path = os.path.join(directory or self.directory, "pod%d" % len(self.pods))
        self.pods.append(Pod(path))
        return self.pods[-1]

    def worker(self, who, pod):
        return Worker(self.peers[who], pod)

    def new_directory(self):
        return tempfile.mkdtemp(dir=self.directory)

    def directory_of(self, pods):
        """A directory with a link to each of these pods, as `sweep` takes it."""
        directory = self.new_directory()
        for pod in pods:
            os.symlink(pod.path, os.path.join(directory, os.path.basename(pod.path)))
        return directory

    def nlraw(self, *arguments):
        """The command line of an installed copy, bytecode cached, as bare as can be started."""
        start = os.path.join(self.copy, "nlraw", "__main__.py")
        return ISOLATED + [start] + list(arguments)

    def cleanups(self):
        """The command of each contender that cleans up its own namespace and exits, by name."""
        commands = {NLRAW: self.nlraw("cleanup", "-n", "current")}
        if shutil.which("ip") and shutil.which("tc"):
            commands["ip/tc script"] = ["/bin/sh", os.path.join(PEERS, "iproute2_cleanup.sh")]
        commands.update(
            (who, self.peers[who] + ["cleanup"]) for who in (PYROUTE2, GO, MNL) if who in self.peers
        )
        return commands

    def close(self):
        for pod in self.pods:
            pod.close()
        self._directory.cleanup()


class Worker:
    """A peer that stands ready in a pod: imports done, process started."""

    def __init__(self, argv, pod):
        pipes = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "universal_newlines": True,
            "bufsize": 1,
        }
        self.argv = argv
        self.process = pod.run(lambda: subprocess.Popen(argv, env=ENVIRONMENT, **pipes))

    def do(self, task, argument=1, **expected):
        """Do a task, and return what it told, "seconds" among it.

        Raises `NotDone` if that is not what was expected.
        """
        self.process.stdin.write("%s %s\n" % (task, argument))
        answer = self.process.stdout.readline()
        if not answer:
            raise NotDone("%s died over %s" % (self.argv[0], task))
        told = json.loads(answer)
        for name, value in expected.items():
            if told.get(name, value) != value:
                raise NotDone(
                    "%s, %s: %s is %d and not %d" % (self.argv[0], task, name, told[name], value)
                )
        told["seconds"] = told["ns"] / 1e9
        return told

    def peak(self):
        """The most memory that was resident, in KiB (VmHWM in /proc/PID/status)."""
        with open("/proc/%d/status" % self.process.pid) as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# What a child gets of the caller's environment: no switch of Python's.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def spawn(argv, output=os.devnull, fed=os.devnull):
    """Start a process that reads one file and writes another, and wait for it.

    The seconds that took, and its exit status.
    """
    files = [
        (os.POSIX_SPAWN_OPEN, 0, fed, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    ]
    begun = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=files)
    status = os.waitpid(pid, 0)[1]
    return time.perf_counter() - begun, os.WEXITSTATUS(status) if os.WIFEXITED(
        status
    ) else -os.WTERMSIG(status)


def spawn_well(argv, pod, output=os.devnull, fed=os.devnull):
    """`spawn` in a pod; the seconds. Raises `NotDone` for an exit status that is not 0."""
    seconds, status = pod.run(lambda: spawn(argv, output, fed))
    if status:
        raise NotDone("%s ended with %d" % (" ".join(argv[:4]), status))
    return seconds


def _peers(copy):
    ours = ISOLATED + [os.path.join(PEERS, "nlraw_peer.py"), copy, PEERS]
    peers, skipped = {NLRAW: ours, PYTHON_FLOOR: ours}, {}
    try:
        found = str(metadata.distribution("pyroute2").locate_file(""))
        peers[PYROUTE2] = ISOLATED + [os.path.join(PEERS, "pyroute2_peer.py"), found, PEERS]
    except metadata.PackageNotFoundError:
        skipped[PYROUTE2] = "not installed; see bench/requirements.txt"
    os.makedirs(BUILD, exist_ok=True)
    go = {"GO111MODULE": "off", "GOPATH": GOCODE, "GOCACHE": os.path.join(BUILD, "go-cache")}
    for who, (name, command, needs) in COMPILED.items():
        missing = [need for need in needs if not (shutil.which(need) or os.path.exists(need))]
        if missing:
            skipped[who] = "not installed: %s" % ", ".join(missing)
            continue
        subprocess.run(command, cwd=PEERS, env=dict(ENVIRONMENT, **go), check=True)
        peers[who] = [os.path.join(BUILD, name)]
    if not shutil.which("ip"):
        skipped[IPROUTE2] = "not installed: ip"
    return peers, skipped

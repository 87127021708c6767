# SPDX-License-Identifier: Apache-2.0
"""The command line as its users meet it: real processes, with streams as a shell sets them."""

import collections
import os
import signal
import subprocess
import sys
import uuid

import nlraw as package

PACKAGE = os.path.dirname(os.path.abspath(package.__file__))

# Where Python finds it: one above, and one more for each dot in its name where it is vendored (see
# test_vendored.py).
ROOT = os.path.abspath(os.path.join(PACKAGE, *[os.pardir] * len(package.__name__.split("."))))
MODULE = (sys.executable, "-m", package.__name__)
BUNDLE = (sys.executable, "-m", package.__name__ + ".bundle")

# What is waited for is over in less than a second; one that takes this many hangs.
PATIENCE = 60

Done = collections.namedtuple("Done", "status out err")


def environment(**more):
    """The environment of a process that imports the nlraw under test.

    No PYTHONUNBUFFERED or the like hides a fault in it.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return dict(dict(plain, PYTHONPATH=ROOT), **more)


def nlraw(*arguments, argv=MODULE, streams="", stdout=subprocess.PIPE, env=(), stdin=None):
    """Run a command line to its end.

    ``streams`` are redirections in the shell's words, ``stdin`` bytes for a pipe. It never ends in
    a traceback.
    """
    argv = list(argv) + list(arguments)
    if streams:
        argv = ["sh", "-c", 'exec "$0" "$@" ' + streams] + argv
    # in no directory that holds another copy
    options = {
        "stdout": stdout,
        "stderr": subprocess.PIPE,
        "cwd": "/",
        "env": environment(**dict(env)),
        "timeout": PATIENCE,
    }
    done = subprocess.run(argv, input=stdin, **options)
    err = done.stderr.decode("utf-8")
    assert "Traceback" not in err and "Exception ignored" not in err, err
    return Done(done.returncode, (done.stdout or b"").decode("utf-8"), err)


def was_aborted(status, err):
    """True if glibc ended the process.

    In old CPythons a thread ends by pthread_exit(), whose library glibc may be unable to load.
    """
    return status == -signal.SIGABRT and "libgcc_s.so.1 must be installed" in err


class Marked:
    """A mark in the environment by which a process and all its descendants are known."""

    def __init__(self):
        self.value = uuid.uuid4().hex
        self.env = {"NLRAW_TEST_MARK": self.value}

    def alive(self):
        """The processes that carry it, this one aside."""
        return [
            pid
            for pid in os.listdir("/proc")
            if pid.isdigit() and int(pid) != os.getpid() and self._marks(pid)
        ]

    def _marks(self, pid):
        try:
            with open("/proc/%s/environ" % pid, "rb") as file:
                return self.value.encode() in file.read()
        except OSError:  # it has ended
            return False

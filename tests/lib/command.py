# SPDX-License-Identifier: Apache-2.0
"""Programs, run to their end or beside a test; above all the command line as its users meet it.

run      a program that must succeed: what it printed
attempt  a program that may fail: how it ended
nlraw    the command line under test, a real process, with streams as a shell sets them
start    the same, running, for `finish` to wait for
"""

import collections
import json
import os
import signal
import subprocess
import sys
import uuid

import nlraw as package

PACKAGE = os.path.dirname(os.path.abspath(package.__file__))

# Where Python finds it: one above, and one more for each dot in its name where it is vendored (see
# repo/test_vendored.py).
ROOT = os.path.abspath(os.path.join(PACKAGE, *[os.pardir] * len(package.__name__.split("."))))
MODULE = (sys.executable, "-m", package.__name__)
MAIN = os.path.join(PACKAGE, "__main__.py")  # as a runtime starts it: by its path
BUNDLE = (sys.executable, "-m", package.__name__ + ".bundle")

# What stderr advises on a TAP in use, unless its holders are named.
ADVICE = "; `--who` names its holder, `--wait SECONDS` waits for it"

# What an error says about a path at which there is no namespace.
WHERE = "one is at /proc/PID/ns/net or /run/netns/NAME"

# What an error says about a directory of --dir that is missing.
NO_DIRECTORY = "No such file or directory; `--dir` takes one that exists"

# What is waited for is over in less than a second; one that takes this many hangs.
PATIENCE = 60


class Done(collections.namedtuple("Done", "status out err")):
    """How a program ended: its exit status, what it printed, and what it complained of."""

    __slots__ = ()

    @property
    def document(self):
        """The JSON that it printed."""
        return json.loads(self.out)


def environment(**more):
    """The environment of a process that imports the nlraw under test.

    No PYTHONUNBUFFERED or the like hides a fault in it.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return dict(dict(plain, PYTHONPATH=ROOT), **more)


def attempt(*argv, **options):
    """Run a program to its end; text in and out, and as subprocess.run() has it."""
    options = dict({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}, **options)
    done = subprocess.run(argv, universal_newlines=True, **options)
    return Done(done.returncode, done.stdout, done.stderr)


def run(*argv, **options):
    """Run a program to its end and return what it printed.

    A failure raises, with all that it said.
    """
    status, out, err = attempt(*argv, **dict({"env": dict(os.environ, LC_ALL="C")}, **options))
    if status:
        said = "\n".join(text.strip() for text in (err, out) if text)
        raise RuntimeError("%s: exit %d: %s" % (" ".join(argv), status, said))
    return out


def nlraw(
    *arguments,
    argv=MODULE,
    before=(),
    streams="",
    stdout=subprocess.PIPE,
    env=(),
    stdin=None,
    encoding="utf-8",
):
    """Run a command line to its end.

    ``before`` is the argv of what runs it, ``streams`` are redirections in the shell's words,
    ``stdin`` is bytes for a pipe. It never ends in a traceback.
    """
    argv = list(before) + list(argv) + list(arguments)
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
    err = done.stderr.decode(encoding)
    assert "Traceback" not in err and "Exception ignored" not in err, err
    return Done(done.returncode, (done.stdout or b"").decode(encoding), err)


def start(*arguments, argv=MODULE, stdin=None):
    """Start a command line, its output and its complaints in pipes of bytes."""
    return subprocess.Popen(
        tuple(argv) + arguments,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env=environment(),
    )


def finish(process, patience=PATIENCE):
    """Wait for what was started."""
    out, err = process.communicate(timeout=patience)
    return Done(process.returncode, out.decode("utf-8"), err.decode("utf-8"))


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

# SPDX-License-Identifier: Apache-2.0
"""Faults put into a running command line by strace: failing system calls, signals and death.

A process is started that imports what a command does and stops itself. strace is attached there: so
the system calls of its first thread are counted from main() on, whatever the interpreter did to
start, and those of other threads from their birth. A fault named by a system call and a number
strikes that one of each thread that gets so far.
"""

import collections
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

from lib import command

# Wait here, with all imports done, until strace is there.
LAUNCH = """
import importlib, os, signal, sys
del sys.path[0]
from nlraw.cli import program
for name in sys.argv.pop(1).split():
    importlib.import_module("nlraw." + name)
# a shell in the background has us ignore it
signal.signal(signal.SIGINT, signal.default_int_handler)
os.kill(os.getpid(), signal.SIGSTOP)
program()
"""

# The errors that a call can give: interrupted, no room, refused, no descriptor left, broken, gone.
# What is not named never fails (rt_sigprocmask), or is the C library's own affair, which ends the
# process itself if the kernel breaks the law (futex): those calls get signals alone.
ERRORS = {
    "openat": "EINTR ENOMEM EACCES EMFILE ENFILE EIO ENOENT",
    "open": "EINTR ENOMEM EACCES EMFILE ENFILE EIO ENOENT",
    "read": "EINTR ENOMEM EACCES EIO",
    "fstat": "ENOMEM EIO",
    "newfstatat": "ENOMEM EACCES EIO ENOENT",
    "stat": "ENOMEM EACCES EIO ENOENT",
    "lstat": "ENOMEM EACCES EIO ENOENT",
    "access": "ENOMEM EACCES EIO ENOENT",
    "readlink": "ENOMEM EACCES EIO ENOENT",
    "getdents64": "EINTR ENOMEM EIO ENOENT",
    "lseek": "EINVAL",
    "ioctl": "EINTR ENOMEM EPERM EIO EINVAL ENODEV EBUSY",
    "close": "EINTR EIO",
    "mmap": "ENOMEM EPERM EAGAIN",
    "mprotect": "ENOMEM EACCES",
    "munmap": "ENOMEM EINVAL",
    "brk": "ENOMEM",
    "madvise": "ENOMEM EINVAL",
    "clone3": "ENOMEM EPERM EAGAIN ENOSYS",
    "clone": "ENOMEM EPERM EAGAIN",
    "setns": "ENOMEM EPERM EINVAL ENOSYS",
    "socket": "ENOMEM ENOBUFS EPERM EMFILE ENFILE EAFNOSUPPORT",
    "setsockopt": "ENOMEM EPERM ENOPROTOOPT",
    "bind": "ENOMEM EPERM EADDRINUSE EINVAL",
    "connect": "ENOMEM EPERM ECONNREFUSED EINVAL",
    "getsockname": "ENOBUFS",
    "sendto": "EINTR ENOMEM ENOBUFS EPERM EIO ECONNREFUSED",
    "recvfrom": "EINTR ENOMEM ENOBUFS EPERM EIO EAGAIN",
    "poll": "EINTR ENOMEM",
    "write": "EINTR EIO ENOSPC EPIPE",
    "getrandom": "EINTR ENOSYS",
}
SIGNALS = ("INT", "TERM", "KILL")

# What is waited for is over in a second or two; one that takes this many seconds hangs.
PATIENCE = 20

# A command line, the bytes that it can read, and the modules that are imported ahead.
Line = collections.namedtuple("Line", "arguments stdin modules")

Call = collections.namedtuple("Call", "name number text")
Fault = collections.namedtuple("Fault", "call kind")  # the kind is an errno or a signal, by name


def missing():
    """Why nothing can be put in here, in one line, or None."""
    if shutil.which("strace") is None:
        return "no strace"
    if (
        b"attached"
        not in _traced(
            ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"], os.devnull, []
        )[3]
    ):
        return "strace may not trace here"
    return None


def record(log, line):
    """Run a command line undisturbed.

    Return how it ended, and its calls from main() on, each with its number.
    """
    ended, calls = _run(log, line, [])
    counts, found = collections.Counter(), collections.OrderedDict()
    for thread, name, text in calls:
        counts[thread, name] += 1
        # of two threads' the earlier one is shown
        found.setdefault((name, counts[thread, name]), text)
    return ended, [Call(name, number, text) for (name, number), text in found.items()]


def faults(calls):
    """Every fault that the calls can meet."""
    return [
        Fault(call, kind)
        for call in calls
        for kind in ERRORS.get(call.name, "").split() + list(SIGNALS)
    ]


def strike(log, fault, line):
    """Run a command line with a fault in it.

    Return how it ended, and whether it came to that call.
    """
    name, number, _ = fault.call
    what = ("signal=" if fault.kind in SIGNALS else "error=") + fault.kind
    if what == "error=ENOMEM" and name == "brk":
        # it fails by returning too low an address; an errno is so high a one that the C library
        # believes it
        what = "retval=0"
    options = ["-e", "trace=" + name, "-e", "inject=%s:%s:when=%d" % (name, what, number)]
    ended, calls = _run(log, line, options)
    counts = collections.Counter(thread for thread, called, _ in calls if called == name)
    return ended, any(count >= number for count in counts.values())


def _run(log, line, options):
    argv = ["-c", LAUNCH, " ".join(line.modules)] + list(line.arguments)
    status, out, err, _ = _traced(argv, log, options, line.stdin)
    with open(str(log), errors="replace") as file:
        # one call may be written in two lines, with another thread's between: the first has all
        # that is needed
        calls = re.findall(r"^(\d+) +(\w+)\((.*)$", file.read(), re.MULTILINE)
    return command.Done(status, out.decode(), err.decode()), calls


def _traced(arguments, log, options, stdin=b""):
    """Run Python under strace from where it stops itself; ``stdin`` is what it can read.

    Return its status, output, complaints, and those of strace.
    """
    environment = command.environment(PYTHONHASHSEED="0")
    process = subprocess.Popen(
        [sys.executable, "-s", "-S"] + arguments,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env=environment,
    )
    alarm = threading.Timer(PATIENCE, process.kill)
    alarm.start()
    if stdin:  # which fits the pipe
        process.stdin.write(stdin)
        process.stdin.close()
        process.stdin = None
    try:
        os.waitpid(process.pid, os.WUNTRACED)
        argv = ["strace", "-f", "-o", str(log), "-p", str(process.pid)] + options
        strace = subprocess.Popen(argv, stderr=subprocess.PIPE)
        said = strace.stderr.readline()  # that it is attached, or why not
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate()
        said += strace.communicate()[1]
        err += b"" if alarm.is_alive() else b"Traceback: still not done after %d s" % PATIENCE
    finally:
        alarm.cancel()
    return process.returncode, out, err, said

# SPDX-License-Identifier: Apache-2.0
"""If setns(2) is filtered out: the refusal is explained, the current namespace still works."""

import errno
import os
import struct
import sys

import pytest

from lib import command
from lib.rights import SYS_ADMIN

# Refuse one system call, by its number, with an errno, and run the rest of the arguments
# (linux/seccomp.h, linux/filter.h).

REFUSING = """
import ctypes, os, struct, sys
number, refusal = int(sys.argv[1]), int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, number)]
rules += [(0x06, 0, 0, 0x00050000 | refusal), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
program = struct.pack("@HP", len(rules), ctypes.addressof(code))
# PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit("no seccomp: %d" % ctypes.get_errno())
os.execv(sys.executable, [sys.executable] + sys.argv[3:])
"""

SETNS = {"x86_64": 308, "aarch64": 268, "s390x": 339, "ppc64le": 350, "riscv64": 268}


@pytest.fixture
def refusing_setns():
    """A command line under a filter that refuses setns(2) with an errno."""
    number = SETNS.get(os.uname().machine)
    if number is None or struct.calcsize("P") != 8:
        pytest.skip("the number of setns(2) is not known here")
    argv = (sys.executable, "-c", REFUSING, str(number))
    probe = command.attempt(*argv, "1", "-c", "")
    if probe.status:
        pytest.skip(probe.err.strip())
    return lambda refusal: argv + (str(refusal), "-m", "nlraw")


@pytest.mark.parametrize(
    "refusal, words",
    [
        (errno.EPERM, "Operation not permitted; " + SYS_ADMIN),
        (errno.ENOSYS, "Function not implemented"),
    ],
)
def test_where_setns_is_filtered_out_the_step_and_the_reason_are_told(
    pod, tmp_path, refusing_setns, refusal, words
):
    pod.add_orphan()
    before = pod.state()
    for name in ("scan", "cleanup", "setup"):
        done = command.nlraw(name, "-n", pod.path, argv=refusing_setns(refusal))
        assert (done.status, done.err) == (1, "nlraw: enter namespace %s: %s\n" % (pod.path, words))
    (tmp_path / "pod").symlink_to(pod.path)
    done = command.nlraw("sweep", "--dir", str(tmp_path), argv=refusing_setns(refusal))
    assert (done.status, done.err) == (
        1,
        "nlraw: enter namespace %s: %s\n" % (tmp_path / "pod", words),
    )
    assert pod.state() == before


def test_where_setns_is_filtered_out_the_current_namespace_can_be_used(pod, refusing_setns):
    before = pod.state()
    pod.add_orphan()
    argv = ("ip", "netns", "exec", pod.name) + refusing_setns(errno.EPERM)
    assert command.nlraw("setup", "-n", "current", argv=argv).status == 0
    pod.check_pair()
    assert command.nlraw("cleanup", "-n", "current", argv=argv).status == 0
    assert pod.state() == before

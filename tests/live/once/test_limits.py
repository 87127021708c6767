# SPDX-License-Identifier: Apache-2.0
"""Few descriptors, closed or full streams: all is done or nothing, and the status is right."""

import errno
import os
import sys

import pytest

import nlraw
from lib import command, pods

TAP = pods.TAP

# ---------------------------------------------------------------- descriptors

# As `ulimit -n` does, from main() on: with fewer than a handful the interpreter itself does not
# start.

LIMITED = """
import resource, sys
from nlraw.cli import program
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
program()
"""


@pytest.mark.parametrize("name", ["scan", "cleanup", "setup", "sweep"])
def test_at_any_limit_of_descriptors_all_is_done_or_nothing(pod, tmp_path, name):
    clean = pod.state()
    (tmp_path / "netns").mkdir()
    (tmp_path / "netns" / "pod").symlink_to(pod.path)
    where = (
        ("--dir", str(tmp_path / "netns"), "--include-fresh")
        if name == "sweep"
        else ("-n", pod.path)
    )
    told = []
    for limit in range(3, 10):
        pod.add_orphan()
        before = pod.state()
        status, _, err = command.nlraw(
            name, *where, argv=(sys.executable, "-s", "-S", "-c", LIMITED, str(limit))
        )
        told.append("%d: %d %s" % (limit, status, err))
        if status == 0:
            assert err == "" and (name == "scan") == (pod.state() == before), told
        else:
            assert command.was_aborted(status, err) or (
                status == 1 and err.startswith("nlraw: ") and os.strerror(errno.EMFILE) in err
            ), told
            # a setup may have done its cleanup
            assert pod.state() in ([before, clean] if name == "setup" else [before]), told
        nlraw.cleanup(netns=pod.path)
        assert pod.state() == clean
    assert " 0 " in told[-1] and " 1 " in told[0], told


# ---------------------------------------------------------------- streams

STREAMS = [
    "<&-",
    ">&-",
    "2>&-",
    ">/dev/full",
    "2>/dev/full",
    "<&- >&- 2>&-",
    ">/dev/full 2>/dev/full",
]


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("name", ["scan", "setup", "sweep"])
def test_whatever_the_streams_are_the_status_is_right_and_the_work_done_or_not_begun(
    pod, tmp_path, name, streams
):
    (tmp_path / "pod").symlink_to(pod.path)
    where = ("--dir", str(tmp_path)) if name == "sweep" else ("-n", pod.path)
    pod.add_orphan()
    before = pod.state()
    status, out, err = command.nlraw(name, *where, streams=streams)
    stdout_fails = ">&-" in streams.split() or ">/dev/full" in streams.split()
    assert status == (1 if stdout_fails else 0)
    assert bool(out) == (not stdout_fails)
    assert err == "" or (
        stdout_fails and err.startswith("nlraw: the result could not be written: ")
    )
    # what it would make has nowhere to be told
    if name == "scan" or (name == "setup" and ">&-" in streams.split()):
        assert pod.state() == before
    elif name == "setup":
        pod.check_pair()
    else:
        assert TAP not in pod.links() and pod.qdiscs() == []

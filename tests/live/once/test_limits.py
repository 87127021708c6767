# SPDX-License-Identifier: Apache-2.0
"""Few descriptors, little to read, closed or full streams: all is done or nothing.

And the status is right.
"""

import errno
import os
import sys

import pytest

import nlraw
from lib import command, pods
from nlraw import observe, removal
from nlraw.connection import Connection
from nlraw.errors import TooMuch
from nlraw.netns import Namespace
from nlraw.pod import remove
from nlraw.transport import Allowance
from nlraw.verdict import Target

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


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("orphans", [1, removal.GROUP_FROM], ids=["one by one", "as a group"])
def test_at_any_limit_of_what_is_read_all_is_done_or_nothing(pod, orphans):
    def add_orphans():
        for number in range(orphans):
            pod.add_orphan("tap%d_urunc" % number)
        return pod.state()

    clean, target, outcomes = pod.state(), Target(), []
    before = add_orphans()
    while outcomes.count("cleaned") < 3:
        limit = Allowance(messages=len(outcomes))
        groups = observe.groups_of(target)
        with Namespace(pod.path) as here, Connection(here, True, groups, allowance=limit) as asking:
            report = remove(asking, target)
        outcomes.append(report.outcome)
        if report.error is None:
            assert pod.state() == clean
            before = add_orphans()
        else:
            assert (report.outcome, type(report.error)) == ("failed", TooMuch)
            assert not any(tap.deleted for tap in report.taps) and report.tc_removed == ()
            assert pod.state() == before, len(outcomes)
    assert outcomes.count("failed") > 10


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
        if stdout_fails:
            assert err == "" or err.endswith("; made and left there: tap0_urunc\n")
    else:
        assert TAP not in pod.links() and pod.qdiscs() == []

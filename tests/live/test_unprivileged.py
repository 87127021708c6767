# SPDX-License-Identifier: Apache-2.0
"""Without privileges: looking works, changes are refused, and the capability is named."""

import errno
import json
import os

import pytest

import nlraw
from lib import pods

# Runs inside a pod. Everything it needs is loaded before it becomes nobody: the files of Python may
# be root's alone.
NOBODY = """
import _ctypes, fcntl, json, os, select, sys
sys.path.insert(0, sys.argv[1])
import nlraw
from nlraw import libc, pod, removal, threads
os.setgroups([]), os.setgid(65534), os.setuid(65534)
netns = sys.argv[2] or None
told = {}
try:
    told["taps"] = [tap.verdict for tap in nlraw.scan(netns=netns)]
    told["outcome"] = nlraw.cleanup(netns=netns).outcome
except nlraw.Error as error:
    told["error"] = dict(kind=type(error).__name__, errno=error.errno, words=str(error))
    told["error"].update(step=error.step, object=error.object)
    told["report"] = error.report and error.report.outcome
print("ready", flush=True)
print(json.dumps(told), flush=True)
"""


@pytest.fixture
def as_nobody():
    """Scan and clean up inside a pod as uid 65534 without capabilities; return what came of it."""

    def run(pod, netns=""):
        directory = os.path.dirname(os.path.dirname(nlraw.__file__))
        return json.loads(pod.child(NOBODY, directory, netns).read())

    return run


def test_anybody_may_scan_and_nobody_may_clean_up(pod, as_nobody):
    pod.add_orphan()
    before = pod.state()
    told = as_nobody(pod)
    assert told["taps"] == ["orphan"]
    assert (told["error"]["kind"], told["error"]["errno"]) == ("Refused", errno.EPERM)
    assert "CAP_NET_ADMIN" in told["error"]["words"]
    assert told["report"] == "failed"
    assert pod.state() == before


def test_with_nothing_to_do_no_capability_is_needed(pod, as_nobody):
    assert as_nobody(pod) == {"taps": [], "outcome": "clean"}


def test_a_tap_in_use_is_told_to_anybody(pod, as_nobody):
    pod.add_tap()
    pod.hold()
    assert as_nobody(pod)["error"]["kind"] == "TapInUse"


def test_entering_a_namespace_takes_another_capability(pod, make_pod, as_nobody):
    other = make_pod()
    other.add_orphan()
    error = as_nobody(pod, other.path)["error"]
    assert (error["kind"], error["errno"]) == ("Refused", errno.EPERM)
    assert (error["step"], error["object"]) == ("enter namespace", other.path)
    assert "CAP_SYS_ADMIN" in error["words"]
    assert pods.TAP in other.links()


def test_the_namespace_of_a_process_of_others_is_out_of_reach(pod, as_nobody):
    error = as_nobody(pod, str(pod.child().pid))["error"]
    assert (error["kind"], error["errno"], error["step"]) == (
        "Refused",
        errno.EACCES,
        "open namespace",
    )
    assert error["words"].endswith("; it takes CAP_SYS_PTRACE, unless the process is this user's")

# SPDX-License-Identifier: Apache-2.0
"""Setups at once, and setups that are killed: at every system call, from the opening of the namespace on."""

import collections
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

import command
import nlraw
import pods
import setups
from nlraw import route

TAP = pods.TAP
ROUNDS = 50

pytestmark = pytest.mark.slow

# Works at once whenever it is told to, with the rest of its imports done, and says what came of it.
RIVAL = """
import sys, nlraw
print("ready", flush=True)
for line in sys.stdin:
    try:
        report = getattr(nlraw, sys.argv[1])(netns=sys.argv[2])
        ifindex = report.tap.ifindex if sys.argv[1] == "setup" else 0
    except nlraw.Error as error:
        report, ifindex = error.report, 0
    print(report.outcome, ifindex, flush=True)
"""


class Rivals:
    """Processes that wait for the word, one for each named function of the library."""

    def __init__(self, pod, *functions):
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-S", "-c", RIVAL, function, pod.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                universal_newlines=True,
                env=command.environment(),
            )
            for function in functions
        ]
        for process in self.processes:
            assert process.stdout.readline() == "ready\n"

    def go(self):
        """Let all work at once; return outcome and the TAP's ifindex of each."""
        for process in self.processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.stdout.readline().split() for process in self.processes]
        return [(outcome, int(ifindex)) for outcome, ifindex in told]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.communicate()


def check_one_whole_or_nothing(pod, outcomes):
    """Make sure that one of the TAPs that were reported is left with its one pair of redirects, or none if all failed."""
    created = [ifindex for outcome, ifindex in outcomes if outcome == "created"]
    if created:
        assert setups.check_pair(pod) in created, outcomes
    else:
        assert TAP not in pod.links() and pod.qdiscs() == [], outcomes


def by_outcome(outcomes):
    return dict(collections.Counter(outcome for outcome, _ in outcomes))


@pytest.mark.parametrize(
    "rivals, start",
    [(2, "nothing"), (2, "what the last round left"), (4, "what the last round left")],
)
def test_of_setups_at_once_one_is_left_whole(pod, rivals, start):
    before, seen = pod.state(), []
    with Rivals(pod, *["setup"] * rivals) as processes:
        for _ in range(ROUNDS):
            if start == "nothing":
                nlraw.cleanup(netns=pod.path)
            outcomes = processes.go()
            check_one_whole_or_nothing(pod, outcomes)
            seen += outcomes
    nlraw.cleanup(netns=pod.path)
    assert pod.state() == before
    print("%d rounds of %d setups: %s" % (ROUNDS, rivals, by_outcome(seen)))
    assert set(by_outcome(seen)) <= {"created", "in-use"}


def test_of_command_lines_at_once_one_is_left_whole(pod):
    before, seen = pod.state(), []
    for _ in range(ROUNDS):
        processes = [setups.start("-n", pod.path, "-j") for _ in range(2)]
        told = [setups.finish(process) for process in processes]
        assert {result.status for result in told} <= {0, 3}, [result.err for result in told]
        outcomes = [(result.document["outcome"], (result.document["tap"] or {}).get("ifindex", 0)) for result in told]
        check_one_whole_or_nothing(pod, outcomes)
        seen += outcomes
    nlraw.cleanup(netns=pod.path)
    assert pod.state() == before
    print("%d rounds of 2 command lines: %s" % (ROUNDS, by_outcome(seen)))


def test_of_a_setup_and_a_cleanup_at_once_either_all_is_left_or_nothing(pod):
    before, seen = pod.state(), []
    with Rivals(pod, "setup", "cleanup") as processes:
        for _ in range(ROUNDS):
            outcomes = processes.go()
            assert outcomes[0][0] == "created" and outcomes[1][0] in ("clean", "cleaned", "in-use")
            if TAP in pod.links():
                assert setups.check_pair(pod) == outcomes[0][1]
            else:
                assert pod.state() == before
            seen.append(outcomes[1])
    print("%d rounds of a setup and a cleanup, which ended: %s" % (ROUNDS, by_outcome(seen)))


def test_a_tap_that_a_vmm_attached_to_survives_every_later_setup(pod):
    with Rivals(pod, "setup", "setup") as processes:
        processes.go()
        pod.hold()
        before = pod.state()
        assert {outcome for outcome, _ in processes.go()} == {"in-use"}
    assert pod.state() == before


def test_a_stranger_on_the_port_that_setups_take_turns_by_does_not_stop_them(pod, monkeypatch):
    monkeypatch.setattr(route, "PATIENCE", 0.05)

    def sit():
        stranger = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        stranger.bind((route.PORT, 0))
        return stranger

    with pod.run(sit):
        assert nlraw.setup(netns=pod.path).outcome == "created"
    setups.check_pair(pod)


# ---------------------------------------------------------------- signals at every system call

# What a setup calls from the opening of the namespace on.
CALLS = "openat,?fstat,?newfstatat,ioctl,setns,socket,setsockopt,bind,getsockname,sendto,recvmsg,close,write,exit_group"

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")

Call = collections.namedtuple("Call", "name count text")


class Victim:
    """A setup under strace that gets a signal as one of its system calls begins; ``path`` limits them to those on a file."""

    def __init__(self, pod, log, signal, path=None):
        self.log = log
        self.signal = signal
        self.path = path
        # by its path it is entered on threads, whose calls are counted apart
        self.arguments = ["-n", pod.path] if path else []
        self.before = [] if path else ["ip", "netns", "exec", pod.name]

    def strace(self, *options):
        """Run a setup; return its exit status, and its calls as (thread, name, text)."""
        argv = self.before + ["strace", "-f", "-qq", "-o", str(self.log)] + (["-P", self.path] if self.path else [])
        status = setups.setup(*self.arguments, before=argv + list(options)).status
        calls = re.findall(r"^(\d+) +(\w+)\((.*)$", self.log.read_text(errors="replace"), re.MULTILINE)
        return status, calls

    def calls(self):
        """The calls of a whole setup from the opening of the namespace on, each with how many there were of its name."""
        status, calls = self.strace("-e", "trace=" + CALLS)
        assert status == 0
        counts, found = collections.Counter(), collections.OrderedDict()
        for thread, name, text in calls:
            counts[thread, name] += 1
            if found or self.path or name == "socket":
                # of two threads' first calls of a name the earlier one gets the signal
                found.setdefault((name, counts[thread, name]), text)
        return [Call(name, count, text) for (name, count), text in found.items()]

    def run(self, call):
        """Send the signal at one call; return the exit status."""
        inject = "inject=%s:signal=%s:when=%d" % (call.name, self.signal, call.count)
        return self.strace("-e", "trace=" + call.name, "-e", inject)[0]


def nothing(pod):
    """There is no TAP."""


def an_orphan(pod):
    """There is a TAP with its redirects, as the setup before left it."""
    nlraw.setup(netns=pod.path)


def a_foreign_filter(pod):
    """There is somebody else's filter in the uplink's ingress."""
    if not pod.qdiscs("eth0"):
        pod.tc("qdisc", "add", "dev", "eth0", "ingress")
        pod.tc(*"filter add dev eth0 ingress pref 7 protocol ip u32 match ip dport 22 0xffff flowid 1:7".split())


def signal_everywhere(pod, victim, start, check):
    """Send the signal at each call in turn; each time check what is left, set up, clean up, and find all as at first.

    Returns the number of signals that hit.
    """
    setups.setup("-n", pod.path)  # the first one ever also writes the bytecode of what it imports
    nlraw.cleanup(netns=pod.path)
    start(pod)
    calls = victim.calls()
    nlraw.cleanup(netns=pod.path)
    first = pod.state()
    for call in calls:
        start(pod)
        old = pod.links().get(TAP, {}).get("ifindex")
        check(call, calls, victim.run(call), old)
        nlraw.setup(netns=pod.path)
        assert setups.redirects(pod, "eth0", TAP) == setups.redirects(pod, TAP, "eth0") == 1, call
        nlraw.cleanup(netns=pod.path)
        assert pod.state() == first, call
    return len(calls)


def place(calls, call, text):
    """Where a call stands before (-1) or after (1) the first call with that text, or at it (0)."""
    at = next(number for number, found in enumerate(calls) if text in found.text)
    return (calls.index(call) > at) - (calls.index(call) < at)


def killed(pod):
    """A check that the setup was killed, and left a TAP only if it had come to persist it, which is when it was whole."""

    def check(call, calls, status, old):
        assert status == -signal.SIGKILL, call
        left = pod.links().get(TAP, {}).get("ifindex")
        if place(calls, call, "TUNSETPERSIST") > 0:
            assert left not in (None, old), call
            assert setups.redirects(pod, "eth0", TAP) == setups.redirects(pod, TAP, "eth0") == 1, call
        else:
            assert left in (None, old), call

    return check


@needs_strace
@pytest.mark.parametrize("start", [nothing, an_orphan, a_foreign_filter])
def test_killed_at_any_system_call_the_next_setup_makes_it_good(pod, tmp_path, start):
    hits = signal_everywhere(pod, Victim(pod, tmp_path / "log", "KILL"), start, killed(pod))
    print("killed at %d system calls" % hits)
    assert hits >= 30


@needs_strace
def test_killed_while_it_enters_a_namespace_by_its_path_it_changed_nothing(pod, tmp_path):
    def check(call, calls, status, old):
        assert status == -signal.SIGKILL, call
        # the namespace is closed last of all
        assert (TAP in pod.links()) == (call.name == "close"), call

    hits = signal_everywhere(pod, Victim(pod, tmp_path / "log", "KILL", pod.path), nothing, check)
    print("killed at %d system calls on the namespace" % hits)
    assert hits >= 5


@needs_strace
def test_killed_on_the_thread_that_makes_the_tap_the_next_setup_makes_it_good(pod, tmp_path):
    hits = signal_everywhere(pod, Victim(pod, tmp_path / "log", "KILL", "/dev/net/tun"), nothing, killed(pod))
    print("killed at %d system calls on the TAP" % hits)
    assert hits >= 5


@pytest.fixture
def interruptible():
    """Our children do not inherit that SIGINT is ignored, as it is where a shell runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@needs_strace
def test_interrupted_at_any_system_call_all_is_left_or_nothing(pod, tmp_path, interruptible):
    before = pod.state()

    def check(call, calls, status, old):
        assert status == (0 if call.name == "exit_group" else 130), call
        if TAP in pod.links():
            assert place(calls, call, "TUNSETPERSIST") >= 0, call
            setups.check_pair(pod)
        else:
            assert pod.state() == before, call

    hits = signal_everywhere(pod, Victim(pod, tmp_path / "log", "INT"), nothing, check)
    print("interrupted at %d system calls" % hits)
    assert hits >= 30

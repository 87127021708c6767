# SPDX-License-Identifier: Apache-2.0
"""Setups at once.

What becomes of one that fails or is killed is in live/test_setup_faults.py and long/test_faults.py.
"""

import collections
import socket
import subprocess
import sys

import pytest

import nlraw
from lib import command, pods
from nlraw import provision
from nlraw.transport import WRITER_PORT, Patience
from nlraw.verdict import Target

TAP = pods.TAP
ROUNDS = 50

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
    """Check that one reported TAP is left with its pair of redirects, or none if all failed."""
    created = [ifindex for outcome, ifindex in outcomes if outcome == "created"]
    if created:
        assert pod.check_pair() in created, outcomes
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
        processes = [command.start("setup", "-n", pod.path, "-j") for _ in range(2)]
        told = [command.finish(process) for process in processes]
        assert {result.status for result in told} <= {0, 3}, [result.err for result in told]
        outcomes = [
            (result.document["outcome"], (result.document["tap"] or {}).get("ifindex", 0))
            for result in told
        ]
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
                assert pod.check_pair() == outcomes[0][1]
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


def test_a_stranger_on_the_port_that_setups_take_turns_by_does_not_stop_them(pod):
    def sit():
        stranger = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        stranger.bind((WRITER_PORT, 0))
        return stranger

    with pod.run(sit):
        made = provision.set_up(pod.path, provision.Wanted(Target()), Patience(0.05))
    assert made.outcome == "created"
    pod.check_pair()

# SPDX-License-Identifier: Apache-2.0
"""Setups at once.

What becomes of one that fails or is killed is in test_setup_faults.py and long/test_faults.py.
"""

import collections
import json
import socket
import subprocess
import sys

import pytest

import nlraw
from lib import command, pods
from nlraw import provision
from nlraw.transport import WRITER_PORT, Patience
from nlraw.verdict import Target
from nlraw.wanted import Wanted

TAP = pods.TAP
ROUNDS = 50

# Works at once whenever it is told to, with the rest of its imports done, and says what came of it:
# the outcome, and the indices of the TAPs made.
RIVAL = """
import json, sys, nlraw
function, options = sys.argv[1], json.loads(sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    try:
        report = getattr(nlraw, function)(**options)
    except nlraw.Error as error:
        report = error.report
    if function == "sweep":
        (report,) = report.namespaces
    made = [pair.tap.ifindex for pair in report.pairs] if function == "setup" else []
    print(json.dumps([report.outcome, made]), flush=True)
"""


class Rivals:
    """Processes that wait for the word, one for each named function of the library.

    The options are those of all setups. ``directory`` is what a sweep visits.
    """

    def __init__(self, pod, *functions, directory=None, **options):
        self.processes = []
        for function in functions:
            given = dict(options) if function == "setup" else {}
            if function == "sweep":
                given.update(dirs=[directory], include_fresh=True)
            else:
                given.update(netns=pod.path)
            if "uplink" in options:
                given.update(uplink=options["uplink"])
            argv = [sys.executable, "-S", "-c", RIVAL, function, json.dumps(given)]
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                universal_newlines=True,
                env=command.environment(),
            )
            self.processes.append(process)
        for process in self.processes:
            assert process.stdout.readline() == "ready\n"

    def go(self):
        """Let all work at once; return outcome and the TAPs' indices of each."""
        self.start()
        return self.results()

    def start(self):
        for process in self.processes:
            process.stdin.write("go\n")
            process.stdin.flush()

    def results(self):
        return [json.loads(process.stdout.readline()) for process in self.processes]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.communicate()


def check_one_whole_or_nothing(pod, outcomes, pairs=((TAP, "eth0"),)):
    """Check that the TAPs of one setup are left with their redirects, or none if all failed."""
    created = [made for outcome, made in outcomes if outcome == "created"]
    if created:
        assert pod.check_pairs(pairs) in created, outcomes
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
            (
                result.document["outcome"],
                [pair["tap"]["ifindex"] for pair in result.document["pairs"]],
            )
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
                assert [pod.check_pair()] == outcomes[0][1]
            else:
                assert pod.state() == before
            seen.append(outcomes[1])
    print("%d rounds of a setup and a cleanup, which ended: %s" % (ROUNDS, by_outcome(seen)))


# ---------------------------------------------------------------- two NICs


PAIRS = ((TAP, "eth0"), ("tap1_urunc", "net1"))
NICS = [uplink for _, uplink in PAIRS]


@pytest.fixture
def two(make_pod):
    """A pod with two NICs."""
    pod = make_pod()
    pod.batch("link add net1 type veth peer name far1", "link set net1 up")
    return pod


def test_of_setups_of_two_nics_at_once_one_is_left_whole(two):
    before, seen = two.state(), []
    with Rivals(two, "setup", "setup", "setup", uplink=NICS) as processes:
        for _ in range(ROUNDS):
            outcomes = processes.go()
            check_one_whole_or_nothing(two, outcomes, PAIRS)
            seen += outcomes
    nlraw.cleanup(netns=two.path, uplink=NICS)
    assert two.state() == before
    print("%d rounds of 3 setups of two NICs: %s" % (ROUNDS, by_outcome(seen)))
    assert set(by_outcome(seen)) <= {"created", "in-use"}


@pytest.mark.parametrize("rival", ["cleanup", "sweep"])
def test_of_a_setup_of_two_nics_and_a_rival_at_once_either_all_is_left_or_nothing(
    two, tmp_path, rival
):
    (tmp_path / "pod").symlink_to(two.path)
    before, seen = two.state(), []
    with Rivals(two, "setup", rival, directory=str(tmp_path), uplink=NICS) as processes:
        for _ in range(ROUNDS):
            (outcome, made), other = processes.go()
            assert outcome == "created" and other[0] in ("clean", "cleaned", "in-use"), other
            if TAP in two.links():
                assert two.check_pairs(PAIRS) == made
            else:
                assert two.state() == before
            seen.append(other)
    print("%d rounds of a setup and a %s, which ended: %s" % (ROUNDS, rival, by_outcome(seen)))


def test_of_a_setup_of_two_nics_and_one_of_one_either_is_left_whole(two):
    before, seen = two.state(), []
    with Rivals(two, "setup", uplink=NICS) as both, Rivals(two, "setup", uplink="net1") as single:
        for _ in range(ROUNDS):
            for rivals in (both, single):
                rivals.start()
            outcomes = both.results() + single.results()
            assert set(by_outcome(outcomes)) <= {"created", "in-use"}
            if len(two.links()) == len(before["links"]) + 2:
                assert two.check_pairs(PAIRS) == outcomes[0][1]
            else:
                assert two.check_pairs([(TAP, "net1")]) == outcomes[1][1]
            seen += outcomes
    nlraw.cleanup(netns=two.path, uplink=NICS)
    assert two.state() == before
    print("%d rounds of a setup of two NICs and one: %s" % (ROUNDS, by_outcome(seen)))


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
        made = provision.set_up(pod.path, Wanted(Target()), Patience(0.05))
    assert made.outcome == "created"
    pod.check_pair()

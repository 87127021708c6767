# SPDX-License-Identifier: Apache-2.0
"""The restart story with a real VM: killed, made ready by `nlraw setup`, and back again.

Each guest has a TTL of its own, since the pod's kernel answers at the same address wherever the
redirect is missing. What was measured is printed (pytest -rP).
"""

import errno
import os
import time

import pytest

import nlraw
from lib import command, guest, pods
from nlraw import netns, tap

TAP = pods.TAP
BOOT = 60  # seconds


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    reason = pods.missing() or guest.missing()
    if reason is not None:
        pytest.skip("needs a guest: " + reason)
    return guest.build(tmp_path_factory.mktemp("image"))


def enter(pod):
    return ["ip", "netns", "exec", pod.name]


class Story:
    """A pod behind a veth pair whose other end is in a node."""

    def __init__(self, make_pod, image, directory):
        self.node = make_pod(uplink=None)
        self.pod = make_pod(node=self.node)
        self.image = image
        self.directory = directory
        self.consoles = 0
        self.pod.ip("link", "set", "eth0", "mtu", "1450")
        self.node.ip("link", "set", "peer0", "mtu", "1450")
        # the node asks by ARP
        self.node.ip("neighbour", "flush", "dev", "peer0", "nud", "permanent")
        self.pod.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
        self.pod.batch("link set other0 up", "link set other1 up")

    def setup(self):
        """Run `nlraw setup`; return what it made and the seconds that it took."""
        began = time.monotonic()
        told = command.nlraw("setup", "-n", self.pod.path, "-j")
        took = time.monotonic() - began
        assert told.status == 0, told.err
        return told.document, took

    def boot(self, uplink, ttl):
        """Start QEMU on the TAP with the uplink's MAC and address."""
        self.consoles += 1
        console = self.directory / ("console%d" % self.consoles)
        address = "%s/%d" % (uplink["local"], uplink["prefixlen"])
        return guest.Guest(
            enter(self.pod),
            self.image,
            console,
            guest.card(TAP, uplink["address"], uplink["mtu"]),
            guest.commands(address),
            ttl,
        )

    def pinger(self):
        return guest.Pinger(enter(self.node), pods.POD_ADDRESS, self.directory / "pings")

    def is_up(self, dev):
        return {"UP", "LOWER_UP"} <= set(self.pod.links()[dev]["flags"])

    def is_held(self):
        return [found.verdict for found in nlraw.scan(netns=self.pod.path)] == ["in-use"]


@pytest.fixture
def story(make_pod, image, tmp_path):
    return Story(make_pod, image, tmp_path)


def first_answer(pinger, vm, ttl):
    """The first ping that a guest answers; where none comes, the error has the guest's console."""
    try:
        return pinger.wait_for(ttl, BOOT)
    except TimeoutError as error:
        raise AssertionError("%s\n%s" % (error, vm.console())) from None


# ---------------------------------------------------------------- a VM is killed and comes back


class Restart(Story):
    """The steps of one restart, each of which finds what the one before left."""

    def the_first_vm_answers(self):
        self.made, took = self.setup()
        self.vm = self.boot(self.made["uplink"], 71)
        self.first = first_answer(self.pings, self.vm, 71)
        assert self.is_up(TAP)
        print(
            "1 setup %.0f ms; the first VM answers with its TTL, its TAP is LOWER_UP" % (took * 1e3)
        )

    def a_second_setup_and_a_cleanup_are_refused(self):
        before = self.pod.state()
        for refused in ("setup", "cleanup"):
            told = command.nlraw(refused, "-n", self.pod.path)
            assert (told.status, "in use (carrier on), nothing was changed" in told.err) == (
                3,
                True,
            )
        assert self.pod.state() == before
        time.sleep(0.2)  # for the answers to the last ones
        sent = [
            ping
            for ping in self.pings.pings()
            if self.first.sent <= ping.sent < time.monotonic() - 0.1
        ]
        assert {ping.ttl for ping in sent} == {71}
        print(
            "2 a second setup and a cleanup: exit 3 each, nothing changed, 0 of %d pings lost"
            % len(sent)
        )

    def it_is_killed_and_a_start_without_cleanup_fails(self):
        # after news of one link the kernel puts off those of any other for up to a second
        # (net/core/link_watch.c)
        self.pod.batch("link set other1 down", "link set other1 up")
        self.killed = time.monotonic()
        self.vm.kill()
        reaped = time.monotonic() - self.killed
        (left,) = nlraw.scan(netns=self.pod.path)
        assert left.carrier is False
        with netns.Namespace(self.pod.path) as namespace, pytest.raises(nlraw.Refused) as busy:
            tap.create(namespace, TAP)
        with pytest.raises(RuntimeError, match="Device or resource busy"):
            self.pod.ip("tuntap", "add", "dev", TAP, "mode", "tap")
        assert busy.value.errno == errno.EBUSY
        facts = (reaped * 1e3, left.operstate, ",".join(left.flags), busy.value)
        print(
            "3 kill -9, reaped after %.0f ms: carrier off at once, yet operstate %s, %s; a start "
            "fails: %s" % facts
        )

    def setup_makes_the_pod_ready(self):
        started = time.monotonic() - self.killed
        old, (self.made, took) = self.made["tap"]["ifindex"], self.setup()
        assert started < 0.1
        new = self.made["tap"]["ifindex"]
        assert new == self.pod.check_pair() != old
        print(
            "4 setup, started %.0f ms after the kill, took %.0f ms: ifindex %d after %d"
            % (started * 1e3, took * 1e3, new, old)
        )

    def the_second_vm_answers(self):
        with self.boot(self.made["uplink"], 72) as vm:
            back = first_answer(self.pings, vm, 72)
            assert self.is_up(TAP) and self.is_up("eth0")
        took = back.received - self.killed
        print(
            "5 the second VM answers at the same address %.1f s after the kill; eth0 and TAP are "
            "LOWER_UP" % took
        )

    def a_start_that_dies_before_its_vmm_attaches_is_replaced(self):
        once, twice = self.setup()[0], self.setup()[0]
        assert [(found["ifname"], found["fresh"]) for found in twice["cleanup"]["taps"]] == [
            (TAP, True)
        ]
        old, new = once["tap"]["ifindex"], twice["tap"]["ifindex"]
        assert new == self.pod.check_pair() != old
        print(
            "6 a start that died between setup and attach: the next setup replaces its TAP, "
            "ifindex %d after %d" % (new, old)
        )


def test_a_vm_that_is_killed_comes_back_at_the_same_address(make_pod, image, tmp_path):
    story = Restart(make_pod, image, tmp_path)
    with story.pinger() as story.pings:
        story.the_first_vm_answers()
        try:
            story.a_second_setup_and_a_cleanup_are_refused()
            story.it_is_killed_and_a_start_without_cleanup_fails()
        finally:
            story.vm.kill()
        story.setup_makes_the_pod_ready()
        story.the_second_vm_answers()
    story.a_start_that_dies_before_its_vmm_attaches_is_replaced()


# ---------------------------------------------------------------- many crashes


def counts(pod):
    """How many links, qdiscs and filters there are in a namespace."""
    qdiscs = pod.qdiscs()
    filters = [
        found for dev in sorted({qdisc["dev"] for qdisc in qdiscs}) for found in pod.filters(dev)
    ]
    return len(pod.links()), len(qdiscs), len(filters)


def crash(story):
    """Set up in this process, let a VM attach, kill it.

    Return the seconds that the setup took, and how many things there are.
    """
    began = time.monotonic()
    made = nlraw.setup(netns=story.pod.path)
    took = time.monotonic() - began
    ours = (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")))
    there = counts(story.pod) + counts(story.node) + ours
    with story.boot(made.uplink.fields(), 80):
        deadline = time.monotonic() + 10
        while not story.is_held():
            assert time.monotonic() < deadline, "QEMU did not attach"
            time.sleep(0.005)
    return took, there


def test_ten_crashes_in_a_row_leave_nothing_that_adds_up(story):
    pod, node = story.pod, story.node
    before = pod.state(), node.state()
    crash(story)  # what is imported late is there now
    took, there = zip(*[crash(story) for _ in range(10)])
    assert len(set(there)) == 1
    made = nlraw.setup(netns=pod.path)
    with story.pinger() as pinger, story.boot(made.uplink.fields(), 81) as vm:
        first_answer(pinger, vm, 81)
    nlraw.cleanup(netns=pod.path)
    assert (pod.state(), node.state()) == before
    print(
        "7 ten crashes, %.0f-%.0f ms a setup; each time pod %d links, %d qdiscs, %d filters; node "
        "%d, %d, %d; "
        "this process %d descriptors, %d threads" % ((1e3 * min(took), 1e3 * max(took)) + there[-1])
    )
    print("  then a VM answers, and after a cleanup both namespaces are as they were at first")

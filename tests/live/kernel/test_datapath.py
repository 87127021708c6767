# SPDX-License-Identifier: Apache-2.0
"""Packets go the way that setup makes, both ways: node, veth, redirect, TAP and its holder."""

import json
import os
import socket
import time

import pytest

import nlraw
from lib import guest, pods, standin

POD_TTL = 64
GUEST_TTL = 77

with open(standin.__file__) as file:
    STAND_IN = file.read()


@pytest.fixture
def node(make_pod):
    return make_pod(uplink=None)


@pytest.fixture
def pod(make_pod, node):
    """A pod behind a veth pair whose other end is in the node.

    The node asks by ARP, and its own TTL is known.
    """
    pod = make_pod(node=node)
    pod.sysctl("net/ipv4/ip_default_ttl", POD_TTL)
    node.ip("neighbour", "flush", "dev", "peer0", "nud", "permanent")
    return pod


def enter(pod):
    return ["ip", "netns", "exec", pod.name]


def boot(pod, made, ttl=GUEST_TTL, *target):
    """Attach a stand-in for a guest that has the pod's MAC and address."""
    return pod.child(
        STAND_IN, made.tap.ifname, made.uplink.address, made.uplink.local, str(ttl), *target
    )


@pytest.fixture
def pinger(node, tmp_path):
    with guest.Pinger(enter(node), pods.POD_ADDRESS, tmp_path / "pings", interval=0.01) as pinger:
        yield pinger


def sent(pinger, count):
    """Wait until so many more pings are sent; return them.

    A slow machine takes its time to begin.
    """
    first = len(pinger.pings()) + 1  # one may be under way
    deadline = time.monotonic() + 20
    while len(pinger.pings()) < first + count:
        assert time.monotonic() < deadline, "no pings are sent"
        time.sleep(0.01)
    return pinger.pings()[first:]


def packets(pod, dev):
    """How many packets a device received, and how many it sent."""
    shown = json.loads(pod.ip("-s", "-j", "link", "show", dev))[0]["stats64"]
    return shown["rx"]["packets"], shown["tx"]["packets"]


def test_without_setup_the_pods_own_kernel_answers(pod, pinger):
    pinger.wait_for(POD_TTL, seconds=5)


def test_after_setup_who_holds_the_tap_answers_and_nobody_else(pod, pinger):
    boot(pod, nlraw.setup(netns=pod.path))
    first = pinger.wait_for(GUEST_TTL, seconds=5).sequence
    sent(pinger, 20)
    assert {ping.ttl for ping in pinger.stop()[first:]} == {GUEST_TTL}
    assert all(packets(pod, pods.TAP))


def test_after_setup_with_nobody_on_the_tap_nobody_answers(pod, node, tmp_path):
    nlraw.setup(netns=pod.path)
    with guest.Pinger(enter(node), pods.POD_ADDRESS, tmp_path / "unheard", interval=0.01) as pinger:
        sent(pinger, 20)
        assert {ping.ttl for ping in pinger.stop()} == {None}


def test_the_holder_reaches_the_node(pod):
    child = boot(pod, nlraw.setup(netns=pod.path), GUEST_TTL, pods.NODE_ADDRESS)
    child.answer(pods.NODE_ADDRESS + " answered")


def test_frames_of_the_full_mtu_pass_both_ways(pod, node):
    for place, dev in ((pod, "eth0"), (node, "peer0")):
        place.ip("link", "set", dev, "mtu", "1450")
    boot(pod, nlraw.setup(netns=pod.path))
    assert node.run(lambda: echo(1450 - 28)) == 1450 - 28


def echo(size):
    """Send one ICMP echo of that many bytes, not to be fragmented; return how many came back."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(5)
        raw.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        body = os.urandom(size)
        head = standin.ICMP.pack(standin.ECHO, 0, 0, 9, 9)
        raw.sendto(
            standin.ICMP.pack(standin.ECHO, 0, standin.checksum(head + body), 9, 9) + body,
            (pods.POD_ADDRESS, 0),
        )
        while True:
            packet = raw.recv(65536)
            if packet[8] == GUEST_TTL and packet[28:] == body:
                return len(packet) - 28


# ---------------------------------------------------------------- after a crash


def test_the_next_holder_answers_after_a_crash_and_a_setup(pod, pinger):
    child = boot(pod, nlraw.setup(netns=pod.path), 71)
    pinger.wait_for(71, seconds=5)
    child.kill()
    boot(pod, nlraw.setup(netns=pod.path), 72)
    pinger.wait_for(72, seconds=5)


def test_not_one_ping_is_lost_to_a_setup_and_a_cleanup_that_are_refused(pod, pinger):
    boot(pod, nlraw.setup(netns=pod.path))
    first = pinger.wait_for(GUEST_TTL, seconds=5).sequence
    for _ in range(10):
        for refused in (nlraw.setup, nlraw.cleanup):
            with pytest.raises(nlraw.TapInUse):
                refused(netns=pod.path)
    assert {ping.ttl for ping in pinger.stop()[first:]} == {GUEST_TTL}


def test_the_pods_own_kernel_answers_again_after_a_cleanup(pod, pinger):
    boot(pod, nlraw.setup(netns=pod.path)).kill()
    nlraw.cleanup(netns=pod.path)
    pinger.wait_for(POD_TTL, seconds=5)


def test_a_dead_redirect_swallows_everything_until_setup_replaces_it(pod, pinger):
    boot(pod, nlraw.setup(netns=pod.path)).kill()
    pod.ip("link", "del", pods.TAP)
    assert {ping.ttl for ping in sent(pinger, 20)} == {None}
    boot(pod, nlraw.setup(netns=pod.path))
    pinger.wait_for(GUEST_TTL, seconds=5)


@pytest.mark.parametrize("qdisc", ["ingress", "clsact"])
def test_packets_pass_through_a_foreign_qdisc_with_a_filter_that_lets_them(pod, pinger, qdisc):
    pod.tc("qdisc", "add", "dev", "eth0", qdisc)
    pod.tc(
        *"filter add dev eth0 ingress pref 7 protocol ip u32 match ip dport 22 0xffff flowid "
        "1:7".split()
    )
    boot(pod, nlraw.setup(netns=pod.path))
    pinger.wait_for(GUEST_TTL, seconds=5)


def test_a_filter_ahead_takes_its_packets_before_the_redirect_sees_them(pod, node, pinger):
    pinger.wait_for(POD_TTL, seconds=5)
    mac = node.links()["peer0"]["address"]  # the guest gets the answer to what the pod asks by ARP
    pod.ip(
        "neighbour", "replace", pods.NODE_ADDRESS, "lladdr", mac, "dev", "eth0", "nud", "permanent"
    )
    pod.tc("qdisc", "add", "dev", "eth0", "clsact")
    pod.tc(
        *"filter add dev eth0 ingress pref 7 protocol ip u32 match ip protocol 1 0xff flowid "
        "1:7".split()
    )
    made = nlraw.setup(netns=pod.path)
    boot(pod, made)
    first = sent(pinger, 20)[0].sequence
    assert {ping.ttl for ping in pinger.stop()[first:]} == {POD_TTL}
    assert [found.kind for found in made.ahead] == ["u32"]

# SPDX-License-Identifier: Apache-2.0
"""Pods with several NICs: the search for redirects is as wide as the deletion of their targets.

A TAP that goes leaves every redirect to it dead, on whatever device, and that swallows all traffic.
"""

import select
import socket

import pytest

import nlraw
from lib import command, pods
from lib.watch import Watch

TAPS = ("tap0_urunc", "tap1_urunc", "tap2_urunc")
NICS = ("eth0", "net1", "net2")
MATCH_ALL = "protocol all u32 match u32 0 0"
SSH = "filter add dev %s ingress pref 5 protocol ip u32 match ip dport 22 0xffff flowid 1:7"


def add_nics(pod, *names):
    pod.batch(*["link add %s type veth peer name far_%s" % (name, name) for name in names])


def connect(pod, nic, tap):
    """Redirect between a NIC and a TAP, both ways, as a runtime does."""
    for dev, target in ((nic, tap), (tap, nic)):
        pod.add_ingress(dev)
        pod.redirect(dev, target)


def add_vm(pod, nics=NICS, taps=TAPS):
    """What a dead VM with several NICs left."""
    for nic, tap in zip(nics, taps):
        pod.add_orphan(tap, redirect=False)
        connect(pod, nic, tap)


def removed(report):
    return ["%s %s %s" % (gone.dev, gone.object, gone.kind) for gone in report.tc_removed]


@pytest.fixture
def pod(make_pod):
    pod = make_pod()
    add_nics(pod, *NICS[1:])
    return pod


# ---------------------------------------------------------------- all NICs are searched


@pytest.mark.parametrize("count", [1, 2, 3], ids=["one", "two", "three, as a group"])
def test_the_redirects_on_every_nic_go_with_their_taps(pod, count):
    before = pod.state()
    add_vm(pod, NICS[-count:], TAPS[:count])
    report = nlraw.cleanup(netns=pod.path)
    assert report.outcome == "cleaned" and [tap.deleted for tap in report.taps] == [True] * count
    on_nics = [
        "%s %s" % (nic, what) for nic in NICS[-count:] for what in ("filter u32", "qdisc ingress")
    ]
    assert sorted(removed(report)) == sorted(
        on_nics + ["%s qdisc ingress" % tap for tap in TAPS[:count]]
    )
    assert pod.state() == before
    assert nlraw.cleanup(netns=pod.path).outcome == "clean"


def test_a_dry_run_and_a_scan_report_what_the_run_does(pod):
    add_vm(pod)
    dry = nlraw.cleanup(netns=pod.path, dry_run=True)
    scanned = Watch().preview(pod)
    done = nlraw.cleanup(netns=pod.path)
    assert (dry.outcome, scanned.outcome, done.outcome) == ("would-clean", "would-clean", "cleaned")
    assert dry.tc_removed == scanned.tc_removed == done.tc_removed
    assert [tap.ifname for tap in dry.taps] == [tap.ifname for tap in done.taps]


@pytest.mark.parametrize("place", ["ingress", "egress"])
def test_from_a_clsact_of_another_nic_the_redirect_goes_alone(pod, place):
    pod.tc("qdisc", "add", "dev", "net1", "clsact")
    pod.tc(*(SSH % "net1").split())
    before = pod.state()
    pod.add_orphan()
    pod.redirect("net1", pods.TAP, place)
    assert "net1 filter u32" in removed(nlraw.cleanup(netns=pod.path))
    assert pod.state() == before


def test_an_ingress_of_another_nic_with_a_foreign_filter_stays(pod):
    pod.add_ingress("net1")
    pod.tc(*(SSH % "net1").split())
    before = pod.state()
    add_vm(pod)
    assert "net1 qdisc ingress" not in removed(nlraw.cleanup(netns=pod.path))
    assert pod.state() == before


def test_an_empty_ingress_of_another_nic_stays(pod):
    pod.add_ingress("net1")
    before = pod.state()
    pod.add_orphan()
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert pod.state() == before


def test_a_redirect_under_another_qdisc_of_another_nic_goes(pod):
    pod.tc(*"qdisc add dev net1 root handle 1: htb default 10".split())
    pod.tc(*"class add dev net1 parent 1: classid 1:10 htb rate 100mbit".split())
    before = pod.state()
    pod.add_orphan()
    line = "filter add dev net1 parent 1: %s action mirred egress redirect dev %s"
    pod.tc(*(line % (MATCH_ALL, pods.TAP)).split())
    assert "net1 filter u32" in removed(nlraw.cleanup(netns=pod.path))
    assert pod.state() == before


def test_several_redirects_to_one_tap_go_from_several_nics(pod):
    before = pod.state()
    pod.add_orphan()
    for nic in NICS[1:]:
        pod.add_ingress(nic)
        for _ in range(3):
            pod.redirect(nic, pods.TAP)
    gone = removed(nlraw.cleanup(netns=pod.path))
    assert [gone.count("%s filter u32" % nic) for nic in NICS] == [1, 3, 3]
    assert pod.state() == before


def test_between_two_orphans_redirects_are_not_deleted_one_by_one(pod):
    before = pod.state()
    add_vm(pod)
    pod.redirect(TAPS[0], TAPS[1])
    pod.redirect(TAPS[1], TAPS[0])
    report = nlraw.cleanup(netns=pod.path)
    assert not [gone for gone in removed(report) if "tap" in gone and "filter" in gone]
    assert pod.state() == before


def test_a_redirect_from_a_tap_of_another_name_goes_with_its_target(pod):
    pod.add_tap("vm0", redirect=False)
    pod.add_ingress("vm0")
    pod.tc(*(SSH % "vm0").split())
    before = pod.state()
    pod.add_orphan()
    pod.redirect("vm0", pods.TAP)
    assert "vm0 filter u32" in removed(nlraw.cleanup(netns=pod.path))
    assert pod.state() == before


def test_filters_of_other_nics_that_lead_elsewhere_stay(pod):
    pod.add_tap("vm0", redirect=False)
    pod.add_ingress("net1")
    pod.redirect("net1", "vm0")
    line = "filter add dev net1 ingress protocol all u32 match u32 0 0 action mirred egress %s"
    pod.tc(*(line % "mirror dev far_net1").split())
    before = pod.state()
    add_vm(pod, ("eth0", "net2"), TAPS)
    nlraw.cleanup(netns=pod.path)
    assert pod.state() == before


def test_a_name_that_a_terminal_would_obey_is_no_obstacle(pod):
    nic = "n\x1b[31m"
    add_nics(pod, nic)
    before = pod.tc("qdisc", "show")
    pod.add_taps([pods.TAP])
    pod.tc("qdisc", "add", "dev", nic, "ingress")
    pod.redirect(nic, pods.TAP)
    done = command.nlraw("cleanup", "-n", pod.path)
    assert done.status == 0 and "n\\x1b[31m" in done.out and "\x1b" not in done.out
    assert pod.tc("qdisc", "show") == before


# ---------------------------------------------------------------- packets pass


def received(pod, nic, far, number):
    """How many of some UDP datagrams, sent to a NIC from its other end, arrive."""
    receiver = pod.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender = far.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with receiver, sender:
        receiver.bind(("10.8.%d.2" % number, 0))
        for each in range(5):
            sender.sendto(b"%d" % each, receiver.getsockname())
        arrived = 0
        while arrived < 5 and select.select([receiver], [], [], 0.3)[0]:
            receiver.recv(16)
            arrived += 1
        return arrived


def test_packets_arrive_on_every_nic_once_the_vm_is_gone(make_pod):
    pod, far = make_pod(), make_pod(uplink=None)
    for number, nic in enumerate(NICS[1:]):
        pod.ip(*("link add %s type veth peer name %s netns %s" % (nic, nic, far.name)).split())
        for place, last in ((pod, 2), (far, 1)):
            place.ip("address", "add", "10.8.%d.%d/24" % (number, last), "dev", nic)
            place.ip("link", "set", nic, "up")
        mac = pod.links()[nic]["address"]
        entry = "neighbour add 10.8.%d.2 lladdr %s dev %s nud permanent" % (number, mac, nic)
        far.ip(*entry.split())
    assert [received(pod, nic, far, number) for number, nic in enumerate(NICS[1:])] == [5, 5]
    add_vm(pod, NICS)
    assert [received(pod, nic, far, number) for number, nic in enumerate(NICS[1:])] == [0, 0]
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert [received(pod, nic, far, number) for number, nic in enumerate(NICS[1:])] == [5, 5]


# ---------------------------------------------------------------- dead redirects, several uplinks


def test_a_dead_redirect_goes_from_every_uplink_that_is_named_and_from_no_other(pod):
    add_vm(pod)
    for tap in TAPS:
        pod.ip("link", "del", tap)
    report = nlraw.cleanup(netns=pod.path, uplink=["eth0", "net1"])
    assert removed(report) == [
        "eth0 filter u32",
        "eth0 qdisc ingress",
        "net1 filter u32",
        "net1 qdisc ingress",
    ]
    assert {gone.target for gone in report.tc_removed} == {None}
    assert len(pod.filters("net2")) == 1
    assert nlraw.cleanup(netns=pod.path, uplink=["eth0", "net1"]).outcome == "clean"
    assert nlraw.cleanup(netns=pod.path, uplink="net2").outcome == "cleaned"


def test_one_uplink_of_several_is_enough_and_none_is_skipped(pod):
    pod.add_orphan(redirect=False)
    report = nlraw.cleanup(netns=pod.path, uplink=["eth8", "eth9"])
    assert (report.outcome, report.uplink) == ("skipped", "eth8")
    report = nlraw.cleanup(netns=pod.path, uplink=["eth9", "net1"])
    assert (report.outcome, report.uplink) == ("cleaned", "net1")


def test_an_uplink_by_the_name_of_a_tap_is_never_one(pod):
    pod.add_orphan("tap1_urunc", redirect=False)
    report = nlraw.cleanup(netns=pod.path, uplink=["tap1_urunc", "eth0"])
    assert report.taps == () and "tap1_urunc" in pod.links()


def test_dead_redirects_of_an_uplink_are_reported_beside_a_tap_in_use(pod):
    add_vm(pod, ("eth0", "net1"))
    pod.ip("link", "del", TAPS[1])
    pod.hold(TAPS[0])
    before = pod.state()
    report = Watch().preview(pod, uplink=["eth0", "net1"])
    assert [(dead.dev, dead.kind) for dead in report.dead_redirects] == [("net1", "u32")]
    status, _, _ = command.nlraw("cleanup", "-n", pod.path, "-u", "eth0", "-u", "net1")
    assert status == 3
    assert pod.state() == before


# ---------------------------------------------------------------- setup, sweep, second run


def test_a_setup_clears_every_nic_of_the_dead_vm(pod):
    add_vm(pod)
    made = nlraw.setup(netns=pod.path)
    assert made.cleanup.outcome == "cleaned"
    assert pod.redirects("eth0", pods.TAP) == 1
    assert pod.qdiscs("net1") == pod.qdiscs("net2") == []


def test_a_second_setup_for_another_nic_leaves_no_dead_redirect_behind(pod):
    nlraw.setup(netns=pod.path)
    made = nlraw.setup(netns=pod.path, tap=TAPS[1], uplink="net1")
    assert [(tap.ifname, tap.deleted) for tap in made.cleanup.taps] == [(TAPS[0], True)]
    assert removed(made.cleanup)[0] == "eth0 filter u32"
    assert pod.qdiscs("eth0") == [] and pod.redirects("net1", TAPS[1]) == 1


def test_a_sweep_clears_every_nic(make_pod, node):
    paths = []
    for number in range(3):
        pod = make_pod()
        add_nics(pod, *NICS[1:])
        before = pod.state()
        add_vm(pod)
        paths.append((pod, before))
        node.pin("pod%d" % number, pod.path)
    swept = nlraw.sweep(dirs=[node.directory])
    assert [report.outcome for report in swept.namespaces] == ["cleaned"] * 3
    assert [pod.state() == before for pod, before in paths] == [True] * 3

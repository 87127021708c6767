# SPDX-License-Identifier: Apache-2.0
"""`nlraw setup` of several NICs, of none, of TAPs with several queues, and with an MTU too large.

What is common to every setup is in test_setup.py, what fails in once/test_setup_faults.py.
"""

import fcntl
import json
import os
import struct

import pytest

import nlraw
from lib import command, taps
from nlraw import uapi

NICS = ("eth0", "net1")
NAMES = ("tap0_urunc", "tap1_urunc")
SSH = "filter add dev %s ingress pref 7 protocol ip u32 match ip dport 22 0xffff flowid 1:7"


@pytest.fixture
def pod(make_pod):
    """A pod with two NICs, and no TAP."""
    pod = make_pod()
    add_nic(pod, "net1", 1450, "10.1.1.2/24")
    return pod


def add_nic(pod, name, mtu, address):
    pod.batch(
        "link add %s mtu %d type veth peer name far-%s" % (name, mtu, name),
        "link set %s up" % name,
        "address add %s dev %s" % (address, name),
    )


def create(pod, **options):
    made = nlraw.setup(netns=pod.path, **dict({"uplink": NICS}, **options))
    assert (made.outcome, made.error) == ("created", None)
    return made


def check_pairs(pod, names=NAMES, nics=NICS):
    """Check that each TAP is up, persistent, and the one partner of its uplink."""
    pod.check_pairs(list(zip(names, nics)))


# ---------------------------------------------------------------- several NICs


def test_each_uplink_gets_a_tap_and_redirects(pod):
    made = create(pod)
    check_pairs(pod)
    links = pod.links()
    assert [(pair.tap.ifname, pair.uplink.ifname) for pair in made.pairs] == list(zip(NAMES, NICS))
    for pair in made.pairs:
        for device in (pair.tap, pair.uplink):
            shown = links[device.ifname]
            assert (device.ifindex, device.address, device.mtu) == (
                shown["ifindex"],
                shown["address"],
                shown["mtu"],
            )
    assert [(pair.tap.mtu, pair.uplink.local) for pair in made.pairs] == [
        (1500, "10.9.8.2"),
        (1450, "10.1.1.2"),
    ]
    assert (made.tap, made.uplink) == (made.pairs[0].tap, made.pairs[0].uplink)
    assert [pair.uplink.gateway for pair in made.pairs] == ["10.9.8.1", None]


def test_the_order_is_that_of_the_uplinks_named(pod):
    made = create(pod, uplink=["net1", "eth0"], tap=["tap7_urunc", "tap3_urunc"])
    assert [(pair.tap.ifname, pair.uplink.ifname) for pair in made.pairs] == [
        ("tap7_urunc", "net1"),
        ("tap3_urunc", "eth0"),
    ]
    check_pairs(pod, ["tap7_urunc", "tap3_urunc"], ["net1", "eth0"])


def test_one_cleanup_takes_all_that_a_setup_of_several_nics_made(pod):
    before = pod.state()
    create(pod)
    report = nlraw.cleanup(netns=pod.path)  # the search is as wide as the deletion
    assert [tap.deleted for tap in report.taps] == [True, True]
    assert pod.state() == before


def test_a_setup_in_a_row_replaces_both_and_one_of_a_single_nic_leaves_nothing_of_the_other(pod):
    before = pod.state()
    old = [pair.tap.ifindex for pair in create(pod).pairs]
    made = create(pod)
    assert [tap.deleted for tap in made.cleanup.taps] == [True, True]
    assert not {pair.tap.ifindex for pair in made.pairs} & set(old)
    check_pairs(pod)
    create(pod, uplink="net1")
    check_pairs(pod, ["tap0_urunc"], ["net1"])
    assert (pod.qdiscs("eth0"), pod.filters("eth0")) == ([], [])
    nlraw.cleanup(netns=pod.path, uplink="net1")
    assert pod.state() == before


@pytest.mark.parametrize("used", NAMES)
def test_if_one_of_the_taps_is_in_use_nothing_is_changed(pod, used):
    create(pod)
    pod.hold(used)
    before = pod.state()
    told = command.nlraw("setup", "-n", pod.path, "-u", "eth0", "-u", "net1", "-j")
    assert (told.status, told.document["outcome"], told.document["pairs"]) == (3, "in-use", [])
    assert pod.state() == before


def test_if_one_uplink_is_missing_nothing_is_changed(pod):
    create(pod)
    before = pod.state()
    told = command.nlraw("setup", "-n", pod.path, "-u", "eth0", "-u", "net9", "-u", "net8", "-j")
    words = "there is no such uplink: this is no pod's namespace, or it is not ready"
    words += "; `-u` names the uplink"
    assert (told.status, told.err) == (1, "nlraw: %s: look up link net9: %s\n" % (pod.path, words))
    cleanup = told.document["cleanup"]
    assert (cleanup["outcome"], cleanup["uplink"]) == ("skipped", "net9")
    assert [tap["deleted"] for tap in cleanup["taps"]] == [False, False]
    assert pod.state() == before


def test_a_foreign_qdisc_on_one_of_the_uplinks_is_used_and_kept(pod):
    pod.tc("qdisc", "add", "dev", "net1", "clsact")
    pod.tc(*(SSH % "net1").split())
    before = pod.state()
    made = create(pod)
    assert [(found.dev, found.kind) for found in made.ahead] == [("net1", "u32")]
    assert [qdisc["kind"] for qdisc in pod.qdiscs("net1")] == ["clsact"]
    assert pod.redirects("net1", "tap1_urunc") == 1
    nlraw.cleanup(netns=pod.path, uplink=NICS)
    assert pod.state() == before


def test_thirty_nics_take_more_than_one_datagram(make_pod):
    pod = make_pod()
    nics = ["net%d" % number for number in range(30)]
    pod.batch(*["link add %s type veth peer name far-%s" % (nic, nic) for nic in nics])
    before = pod.state()
    made = create(pod, uplink=nics)
    names = ["tap%d_urunc" % number for number in range(30)]
    assert [pair.tap.ifname for pair in made.pairs] == names
    check_pairs(pod, names, nics)
    nlraw.cleanup(netns=pod.path, uplink=nics)
    assert pod.state() == before


def test_text_has_a_line_for_each(pod):
    told = command.nlraw("setup", "-n", pod.path, "-u", "eth0", "-u", "net1")
    assert (told.status, told.err) == (0, "")
    roles = [line.split()[:3] for line in told.out.splitlines() if line.startswith("  ")]
    assert [role for role in roles if role[1] == "ifname"] == [
        ["TAP", "ifname", "tap0_urunc,"],
        ["uplink", "ifname", "eth0,"],
        ["TAP", "ifname", "tap1_urunc,"],
        ["uplink", "ifname", "net1,"],
    ]


def test_what_attaches_a_vmm_can_be_printed_instead(pod):
    argv = ["setup", "-n", pod.path, "-u", "eth0", "-u", "net1"]
    told = command.nlraw(*argv, "--print", "qemu")
    assert (told.status, told.err, told.out.count("\n")) == (0, "", 1)
    assert [name in told.out for name in NAMES] == [True, True]
    arguments = told.out.rstrip("\n")
    told = command.nlraw(*argv, "--print", "cmdline", "--print", "qemu", "-j")
    document, cmdline, again = told.out.splitlines()
    assert [pair["tap"]["ifname"] for pair in json.loads(document)["pairs"]] == list(NAMES)
    assert (cmdline[:12], again) == ("ip=10.9.8.2:", arguments)
    assert told.err == "nlraw: %s: net1: ip= cannot express 1 IPv4 address: %s\n" % (
        pod.path,
        "configure the guest from the JSON",
    )
    pod.hold("tap1_urunc")
    told = command.nlraw(*argv, "--print", "qemu")
    assert (told.status, told.out) == (3, "")
    told = command.nlraw(*argv, "--print", "qemu", "-j")
    assert (told.status, told.document["outcome"]) == (3, "in-use")


# ---------------------------------------------------------------- no uplink


def test_a_tap_alone_gets_its_address_and_nothing_else_is_made(make_pod):
    pod = make_pod(uplink=None)
    before = pod.state()
    made = create(pod, uplink="none", address="172.16.1.1/30")
    assert (made.uplink, [pair.uplink for pair in made.pairs]) == (None, [None])
    link = pod.links()["tap0_urunc"]
    assert "UP" in link["flags"] and link["linkinfo"]["info_data"]["persist"]
    assert (made.tap.mtu, link["mtu"]) == (1500, 1500)
    assert [found["local"] for found in pod.state()["addresses"]["tap0_urunc"]] == ["172.16.1.1"]
    assert pod.qdiscs() == []
    nlraw.cleanup(netns=pod.path, uplink="none")
    assert pod.state() == before


def test_an_uplink_that_is_there_is_left_alone(pod):
    pod.tc("qdisc", "add", "dev", "eth0", "ingress")
    pod.ip("link", "add", "gone0", "type", "veth", "peer", "name", "gone1")
    pod.redirect("eth0", "gone0")
    pod.ip("link", "del", "gone0")
    before = pod.state()
    told = command.nlraw("setup", "-n", pod.path, "-u", "none", "-j")
    assert (told.status, told.err, told.document["uplink"]) == (0, "", None)
    assert told.document["pairs"] == [{"tap": told.document["tap"], "uplink": None}]
    pod.ip("link", "del", "tap0_urunc")
    assert pod.state() == before  # its dead redirect is that of an uplink that nobody named


def test_a_tap_alone_replaces_one_that_had_an_uplink_with_its_redirects(pod):
    before = pod.state()
    create(pod)
    made = create(pod, uplink="none", tap="tap5_urunc")
    assert [tap.deleted for tap in made.cleanup.taps] == [True, True]
    assert made.cleanup.uplink is None
    pod.ip("link", "del", "tap5_urunc")
    assert pod.state() == before


def test_a_tap_alone_is_refused_while_another_is_in_use(pod):
    create(pod, uplink="none")
    pod.hold("tap0_urunc")
    before = pod.state()
    with pytest.raises(nlraw.TapInUse):
        create(pod, uplink="none")
    assert pod.state() == before


def test_text_says_that_there_is_no_uplink(pod):
    told = command.nlraw("setup", "-n", pod.path, "-u", "none")
    assert (told.status, told.err, told.out.splitlines()[-1]) == (0, "", "  uplink  none")


# ---------------------------------------------------------------- several queues


def attach(name, multi_queue=True):
    flags = uapi.IFF_TAP | uapi.IFF_VNET_HDR | (uapi.IFF_MULTI_QUEUE if multi_queue else 0)
    return taps.attach(name, flags)


def test_a_multi_queue_tap_takes_several_queues_and_is_in_use_until_the_last_is_closed(pod):
    made = create(pod, multi_queue=True)
    assert [pair.tap.multi_queue for pair in made.pairs] == [True, True]
    check_pairs(pod)
    found = pod.links()["tap1_urunc"]["linkinfo"]["info_data"]
    assert (found["multi_queue"], found["numqueues"], found["numdisabled"]) == (True, 0, 0)
    assert verdicts(pod) == ["orphan", "orphan"]

    def hold_and_let_go():
        fds = [attach("tap1_urunc") for _ in range(4)]
        seen = [verdicts(pod)]
        detach = struct.pack("=16sH22x", b"tap1_urunc", 0x0400)  # IFF_DETACH_QUEUE
        for fd in fds:
            fcntl.ioctl(fd, 0x400454D9, detach)  # TUNSETQUEUE
        seen.append(verdicts(pod))
        for fd in fds:
            os.close(fd)
            seen.append(verdicts(pod))
        return seen

    used, free = ["orphan", "in-use"], ["orphan", "orphan"]
    assert pod.run(hold_and_let_go) == [used] * 5 + [free]
    assert [tap.fresh for tap in nlraw.scan(netns=pod.path)] == [True, False]


def verdicts(pod):
    return [tap.verdict for tap in nlraw.scan(netns=pod.path)]


def test_each_kind_of_tap_takes_only_those_who_ask_for_it(pod):
    create(pod, uplink="eth0", multi_queue=True)
    with pytest.raises(OSError, match="Invalid argument"):
        pod.run(lambda: attach("tap0_urunc", multi_queue=False))
    create(pod, uplink="eth0")
    with pytest.raises(OSError, match="Invalid argument"):
        pod.run(lambda: attach("tap0_urunc", multi_queue=True))


def test_a_tap_of_several_queues_in_use_is_exit_3_and_an_orphan_is_replaced(pod):
    argv = ["setup", "-n", pod.path, "--multi-queue", "-j"]
    old = command.nlraw(*argv).document["tap"]
    assert old["multi_queue"] is True
    holders = [pod.hold(multi_queue=True) for _ in range(2)]
    before = pod.state()
    assert command.nlraw(*argv).status == 3
    holders[0].kill()
    holders[1].detach()
    assert command.nlraw(*argv).status == 3
    holders[1].kill()
    told = command.nlraw(*argv)
    cleanup = told.document["cleanup"]
    assert (told.status, [tap["deleted"] for tap in cleanup["taps"]]) == (0, [True])
    # the kernel's own qdisc of each queue is no object of ours
    assert ["%(dev)s %(kind)s" % removed for removed in cleanup["tc_removed"]] == [
        "eth0 u32",
        "eth0 ingress",
        "tap0_urunc ingress",
    ]
    assert told.document["tap"]["ifindex"] != old["ifindex"]
    assert len(pod.state()["links"]) == len(before["links"])


def test_owner_and_group_of_a_tap_of_several_queues_are_those_asked_for(pod):
    create(pod, multi_queue=True, owner=1000, group=1001)
    listed = sorted(pod.ip("tuntap", "list").splitlines())
    assert listed == [
        "%s: tap multi_queue vnet_hdr persist user 1000 group 1001" % name for name in NAMES
    ]


# ---------------------------------------------------------------- an MTU too large


def test_an_mtu_that_no_tap_can_have_is_lowered_and_that_is_said(pod):
    pod.ip("link", "set", "net1", "mtu", "65535")
    told = command.nlraw("setup", "-n", pod.path, "-u", "eth0", "-u", "net1", "-j")
    largest = pod.links()["tap1_urunc"]["mtu"]
    assert largest == pod.links()["tap1_urunc"]["max_mtu"] == 65535 - 14
    words = "tap1_urunc cannot have the MTU of net1, 65535: it has %d" % largest
    assert (told.status, told.err) == (0, "nlraw: %s: %s\n" % (pod.path, words))
    assert [(pair["tap"]["mtu"], pair["uplink"]["mtu"]) for pair in told.document["pairs"]] == [
        (1500, 1500),
        (largest, 65535),
    ]
    check_pairs(pod)

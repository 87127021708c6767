# SPDX-License-Identifier: Apache-2.0
"""What belongs to others stays as it was: qdiscs, filters, blocks and actions, everywhere.

The pattern of most tests: build what is foreign, note the state, add an orphan and what redirects
to it, clean up, and find the state that was noted.
"""

import select
import socket

import pytest

import nlraw
from lib import pods

MATCH_ALL = "u32 match u32 0 0"
SSH = "u32 match ip dport 22 0xffff"
TO_CLASS = "flowid 1:7"
TO_TAP = "action mirred egress redirect dev tap0_urunc"
ACCEPT = "1,6 0 0 4294967295"  # classic BPF: return -1


def add(pod, *commands):
    """Run `tc filter add dev eth0 ...` and the like, one a line."""
    for command in commands:
        pod.tc(*command.split())


def bpf(pod, place, *options):
    pod.tc(
        *("filter add dev eth0 %s" % place).split()
        + list(options)
        + ["bpf", "da", "bytecode", ACCEPT]
    )


def clean(pod, **options):
    """Clean up, and say what was removed, as "dev object kind"."""
    report = nlraw.cleanup(netns=pod.path, **options)
    assert pods.TAP not in pod.links()
    return [
        "%s %s %s" % (removed.dev, removed.object, removed.kind) for removed in report.tc_removed
    ]


# ---------------------------------------------------------------- clsact


def foreign_clsact(pod):
    add(
        pod,
        "qdisc add dev eth0 clsact",
        "filter add dev eth0 ingress pref 7 protocol ip %s %s" % (SSH, TO_CLASS),
        "filter add dev eth0 egress pref 7 protocol ip %s %s" % (SSH, TO_CLASS),
    )
    bpf(pod, "ingress", "pref", "3")
    bpf(pod, "egress", "pref", "3")
    return pod.state()


def test_a_foreign_clsact_is_left_as_it_was(pod):
    before = foreign_clsact(pod)
    pod.add_orphan(redirect=False)
    assert clean(pod) == []
    assert pod.state() == before


@pytest.mark.parametrize("place", ["ingress", "egress"])
def test_a_redirect_in_a_foreign_clsact_goes_alone(pod, place):
    before = foreign_clsact(pod)
    pod.add_orphan(redirect=False)
    pod.redirect("eth0", pods.TAP, place, "pref", "9")
    assert clean(pod) == ["eth0 filter u32"]
    assert pod.state() == before


def test_an_empty_clsact_stays(pod):
    add(pod, "qdisc add dev eth0 clsact")
    before = pod.state()
    pod.add_orphan()
    assert clean(pod) == ["eth0 filter u32", "tap0_urunc qdisc ingress"]
    assert pod.state() == before


@pytest.mark.parametrize("prefs", [(5, 6), (5, 5)], ids=["two priorities", "one priority"])
def test_redirects_from_both_sides_of_a_clsact_go(pod, prefs):
    add(pod, "qdisc add dev eth0 clsact")
    before = pod.state()
    pod.add_orphan(redirect=False)
    pod.redirect("eth0", pods.TAP, "ingress", "pref", str(prefs[0]))
    pod.redirect("eth0", pods.TAP, "egress", "pref", str(prefs[1]))
    removed = clean(pod)
    assert pod.state() == before
    assert removed == ["eth0 filter u32"] * 2


def test_a_foreign_filter_of_the_same_priority_on_the_other_side_of_a_clsact_stays_alone(pod):
    # the kernel lists the u32 filters of a priority on either side, whichever they are on
    # (tc_u_common_ptr(), cls_u32.c)
    add(
        pod,
        "qdisc add dev eth0 clsact",
        "filter add dev eth0 egress pref 5 protocol all %s %s" % (SSH, TO_CLASS),
    )
    before = pod.state()
    pod.add_orphan(redirect=False)
    pod.redirect("eth0", pods.TAP, "ingress", "pref", "5")
    assert clean(pod) == ["eth0 filter u32"]
    assert pod.state() == before


def test_a_setup_keeps_out_of_the_priorities_of_the_other_side_of_a_clsact(pod):
    add(
        pod,
        "qdisc add dev eth0 clsact",
        "filter add dev eth0 egress protocol all %s %s" % (SSH, TO_CLASS),
    )
    before = pod.state()
    for _ in range(3):
        nlraw.setup(netns=pod.path)
        assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
        assert pod.state() == before


# ---------------------------------------------------------------- ingress


def test_an_ingress_qdisc_with_a_foreign_filter_stays(pod):
    add(
        pod,
        "qdisc add dev eth0 ingress",
        "filter add dev eth0 ingress pref 5 protocol ip %s %s" % (SSH, TO_CLASS),
    )
    bpf(pod, "ingress", "pref", "6")
    before = pod.state()
    pod.add_orphan()
    assert clean(pod) == ["eth0 filter u32", "tap0_urunc qdisc ingress"]
    assert pod.state() == before


@pytest.mark.parametrize("place", ["ingress", "ingress chain 5"])
def test_of_two_filters_in_one_priority_only_the_redirect_goes(pod, place):
    add(
        pod,
        "qdisc add dev eth0 ingress",
        "filter add dev eth0 %s pref 5 protocol all %s %s" % (place, SSH, TO_CLASS),
    )
    before = pod.state()
    pod.add_orphan(redirect=False)
    pod.redirect("eth0", pods.TAP, *place.split() + ["pref", "5"])
    assert clean(pod) == ["eth0 filter u32"]
    assert pod.state() == before


@pytest.mark.parametrize("ours", ["in the root table", "in the foreign table"])
def test_a_foreign_hash_table_in_our_priority_stays(pod, ours):
    add(
        pod,
        "qdisc add dev eth0 ingress",
        "filter add dev eth0 ingress pref 5 protocol all handle 2: u32 divisor 16",
        "filter add dev eth0 ingress pref 5 protocol all handle 2:3:1 u32 ht 2:3: match ip dport "
        "22 0xffff " + TO_CLASS,
    )
    before = pod.state()
    pod.add_orphan(redirect=False)
    place = "" if ours == "in the root table" else "ht 2:4: "
    add(
        pod,
        "filter add dev eth0 ingress pref 5 protocol all u32 %smatch u32 0 0 %s" % (place, TO_TAP),
    )
    assert clean(pod) == ["eth0 filter u32"]
    assert pod.state() == before


def test_an_empty_foreign_hash_table_beside_other_filters_stays(pod):
    add(
        pod,
        "qdisc add dev eth0 ingress",
        "filter add dev eth0 ingress pref 5 protocol all handle 2: u32 divisor 16",
        "filter add dev eth0 ingress pref 6 protocol ip %s %s" % (SSH, TO_CLASS),
    )
    before = pod.state()
    pod.add_orphan(redirect=False)
    pod.redirect("eth0", pods.TAP, "ingress", "pref", "5")
    assert clean(pod) == ["eth0 filter u32"]
    assert pod.state() == before


@pytest.mark.parametrize(
    "filter",
    [
        "ingress protocol all chain 5 %s %s" % (MATCH_ALL, TO_TAP),
        "ingress protocol ip %s %s" % (MATCH_ALL, TO_TAP),
        "ingress protocol ip %s %s" % (SSH, TO_TAP),
        "ingress protocol all %s action mirred egress mirror dev peer0 pipe %s"
        % (MATCH_ALL, TO_TAP),
        "ingress protocol all %s action mirred ingress redirect dev tap0_urunc" % MATCH_ALL,
        "ingress protocol all pref 1 handle ::77 %s %s" % (MATCH_ALL, TO_TAP),
        "ingress protocol all u32 ht 800: indev eth0 match u8 0 0 %s" % TO_TAP,
    ],
    ids=[
        "another chain",
        "one protocol",
        "one port",
        "second action",
        "into its ingress",
        "own handle",
        "one device",
    ],
)
def test_any_redirect_to_an_orphan_goes(pod, filter):
    before = pod.state()
    pod.add_orphan(redirect=False)
    add(pod, "qdisc add dev eth0 ingress", "filter add dev eth0 " + filter)
    assert clean(pod) == ["eth0 filter u32", "eth0 qdisc ingress"]
    assert pod.state() == before


def test_a_redirect_by_bpf_goes(pod):
    before = pod.state()
    pod.add_orphan(redirect=False)
    add(pod, "qdisc add dev eth0 ingress")
    pod.tc(*"filter add dev eth0 ingress bpf bytecode".split() + [ACCEPT] + TO_TAP.split())
    assert clean(pod) == ["eth0 filter bpf", "eth0 qdisc ingress"]
    assert pod.state() == before


@pytest.mark.parametrize("qdisc", ["ingress", "clsact"])
def test_a_dead_filter_of_another_chain_stays_though_ours_lists_it_as_of_every_protocol(pod, qdisc):
    pod.add_tap("tap0_other", redirect=False)
    add(
        pod,
        "qdisc add dev eth0 " + qdisc,
        "filter add dev eth0 ingress pref 5 protocol all u32 match ip dst 192.0.2.1 " + TO_CLASS,
        "filter add dev eth0 ingress pref 5 chain 7 protocol ip %s action mirred egress redirect "
        "dev tap0_other" % MATCH_ALL,
    )
    pod.ip("link", "del", "tap0_other")
    before = pod.state()
    assert clean(pod) == []
    assert pod.state() == before


def test_redirects_of_two_chains_in_one_priority_are_reported_once_and_leave_nothing(pod):
    before = pod.state()
    pod.add_orphan(redirect=False)
    add(pod, "qdisc add dev eth0 ingress")
    for chain in ("0", "2"):
        pod.redirect("eth0", pods.TAP, "ingress", "pref", "5", "chain", chain)
    assert clean(pod) == ["eth0 filter u32", "eth0 filter u32", "eth0 qdisc ingress"]
    assert pod.state() == before


@pytest.mark.parametrize("ours, foreign", [("0", "7"), ("7", "0")])
def test_a_redirect_beside_a_foreign_filter_of_another_chain_in_its_priority_goes_alone(
    pod, ours, foreign
):
    add(
        pod,
        "qdisc add dev eth0 ingress",
        "filter add dev eth0 ingress pref 5 chain %s protocol ip %s %s" % (foreign, SSH, TO_CLASS),
    )
    before = pod.state()
    pod.add_orphan(redirect=False)
    pod.redirect("eth0", pods.TAP, "ingress", "pref", "5", "chain", ours)
    assert clean(pod) == ["eth0 filter u32"]
    assert pod.state() == before


def test_a_chain_that_somebody_made_stays(pod):
    add(pod, "qdisc add dev eth0 clsact", "chain add dev eth0 ingress chain 5 protocol all")
    before = pod.tc("chain", "show", "dev", "eth0", "ingress")
    pod.add_orphan(redirect=False)
    pod.redirect("eth0", pods.TAP, "ingress", "chain", "5")
    assert clean(pod) == ["eth0 filter u32"]
    assert pod.tc("chain", "show", "dev", "eth0", "ingress") == before


def test_a_mirror_to_an_orphan_is_no_redirect(pod):
    pod.add_orphan(redirect=False)
    add(
        pod,
        "qdisc add dev eth0 ingress",
        "filter add dev eth0 ingress protocol all %s action mirred egress mirror dev tap0_urunc"
        % MATCH_ALL,
    )
    assert clean(pod) == []
    assert [filter["options"]["actions"][0]["mirred_action"] for filter in pod.filters("eth0")] == [
        "mirror"
    ]


def test_an_empty_ingress_qdisc_goes_beside_an_orphan_alone(pod):
    before = pod.state()
    add(pod, "qdisc add dev eth0 ingress")
    with_ingress = pod.state()
    assert nlraw.cleanup(netns=pod.path).outcome == "clean"
    assert pod.state() == with_ingress
    pod.add_orphan(redirect=False)
    assert clean(pod) == ["eth0 qdisc ingress"]
    assert pod.state() == before


def test_a_redirect_to_a_tap_of_another_name_stays(pod):
    pod.add_tap("vm0")
    before = pod.state()
    pod.add_orphan()
    assert clean(pod) == ["eth0 filter u32", "tap0_urunc qdisc ingress"]
    assert pod.state() == before


def test_nothing_piles_up_in_ten_rounds_beside_a_foreign_filter(pod):
    add(
        pod,
        "qdisc add dev eth0 ingress",
        "filter add dev eth0 ingress pref 5 protocol ip %s %s" % (SSH, TO_CLASS),
    )
    before = pod.state()
    for _ in range(10):
        pod.add_orphan()
        clean(pod)
        assert pod.state() == before


# ---------------------------------------------------------------- other qdiscs


def test_an_htb_on_the_uplink_stays_without_the_redirect_in_it(pod):
    add(
        pod,
        "qdisc add dev eth0 root handle 1: htb default 10",
        "class add dev eth0 parent 1: classid 1:10 htb rate 100mbit",
        "class add dev eth0 parent 1: classid 1:20 htb rate 10mbit",
        "filter add dev eth0 parent 1: pref 5 protocol ip %s flowid 1:20" % SSH,
    )
    before = pod.state()
    pod.add_orphan()
    add(pod, "filter add dev eth0 parent 1: pref 6 protocol all %s %s" % (MATCH_ALL, TO_TAP))
    assert sorted(clean(pod)) == sorted(
        ["eth0 filter u32"] * 2 + ["eth0 qdisc ingress", "tap0_urunc qdisc ingress"]
    )
    assert pod.state() == before


@pytest.mark.parametrize("kind", ["ingress", "clsact"])
def test_of_a_shared_block_the_redirect_to_an_orphan_goes_alone(pod, kind):
    add(
        pod,
        "qdisc add dev eth0 ingress_block 22 " + kind,
        "filter add block 22 protocol ip pref 5 %s %s" % (SSH, TO_CLASS),
    )
    before = pod.state()
    pod.add_orphan(redirect=False)
    add(pod, "filter add block 22 protocol all pref 6 %s %s" % (MATCH_ALL, TO_TAP))
    assert clean(pod) == ["block 22 filter u32"]
    assert pod.state() == before


def test_an_orphan_goes_with_all_qdiscs_of_its_own(pod):
    before = pod.state()
    pod.add_orphan()
    add(
        pod,
        "qdisc add dev tap0_urunc root handle 1: htb default 10",
        "class add dev tap0_urunc parent 1: classid 1:10 htb rate 100mbit",
        "qdisc add dev tap0_urunc parent 1:10 handle 10: pfifo limit 5",
    )
    removed = clean(pod)
    assert removed[:2] == ["eth0 filter u32", "eth0 qdisc ingress"]
    assert sorted(removed[2:]) == ["tap0_urunc qdisc htb", "tap0_urunc qdisc ingress"]
    assert pod.state() == before


def test_the_tc_of_other_devices_stays(pod):
    add(
        pod,
        "qdisc add dev peer0 ingress",
        "filter add dev peer0 ingress protocol ip %s %s" % (SSH, TO_CLASS),
    )
    before = pod.state()
    pod.add_orphan()
    clean(pod)
    assert pod.state() == before


# ---------------------------------------------------------------- dead redirects


def received(node, pod, datagrams=5):
    """How many of some UDP datagrams that the node sends to the pod arrive."""
    receiver = pod.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender = node.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with receiver, sender:
        receiver.bind((pods.POD_ADDRESS, 0))
        for number in range(datagrams):
            sender.sendto(b"%d" % number, receiver.getsockname())
        arrived = 0
        while arrived < datagrams and select.select([receiver], [], [], 0.3)[0]:
            receiver.recv(16)
            arrived += 1
        return arrived


@pytest.mark.parametrize("kind", ["ingress", "clsact"])
def test_a_dead_redirect_swallows_all_traffic_until_it_is_removed(make_pod, kind):
    node = make_pod(uplink=None)
    pod = make_pod(node=node)
    assert received(node, pod) == 5
    if kind == "clsact":
        add(pod, "qdisc add dev eth0 clsact")
    before = pod.state()
    pod.add_orphan()
    pod.ip("link", "del", pods.TAP)
    assert received(node, pod) == 0
    report = nlraw.cleanup(netns=pod.path)
    assert (report.outcome, report.taps) == ("cleaned", ())
    assert received(node, pod) == 5
    assert pod.state() == before


def test_a_dead_redirect_goes_beside_an_orphan_too(pod):
    before = pod.state()
    pod.add_orphan("tap1_urunc")
    pod.ip("link", "del", "tap1_urunc")
    pod.add_orphan()
    assert clean(pod) == [
        "eth0 filter u32",
        "eth0 filter u32",
        "eth0 qdisc ingress",
        "tap0_urunc qdisc ingress",
    ]
    assert pod.state() == before


def test_a_dead_redirect_beside_a_foreign_filter_goes_alone(pod):
    add(
        pod,
        "qdisc add dev eth0 ingress",
        "filter add dev eth0 ingress pref 5 protocol ip %s %s" % (SSH, TO_CLASS),
    )
    before = pod.state()
    pod.add_orphan()
    pod.ip("link", "del", pods.TAP)
    assert clean(pod) == ["eth0 filter u32"]
    assert pod.state() == before


@pytest.mark.parametrize(
    "filter",
    [
        "ingress protocol ip %s %s" % (MATCH_ALL, TO_TAP),
        "ingress protocol all %s %s" % (SSH, TO_TAP),
        "ingress protocol all u32 match u32 0 0 match ip src 10.0.0.0/8 %s" % TO_TAP,
        "ingress protocol all u32 ht 800: indev eth0 match u8 0 0 %s" % TO_TAP,
        "ingress protocol all %s action mirred egress mirror dev peer0 pipe %s"
        % (MATCH_ALL, TO_TAP),
        "ingress protocol all %s %s action mirred egress mirror dev peer0" % (MATCH_ALL, TO_TAP),
        "ingress protocol all %s action mirred egress mirror dev tap0_urunc" % MATCH_ALL,
        "ingress protocol all %s action mirred ingress redirect dev tap0_urunc" % MATCH_ALL,
    ],
    ids=[
        "protocol",
        "port",
        "address",
        "device",
        "action before",
        "action behind",
        "mirror",
        "into the ingress",
    ],
)
def test_a_dead_redirect_of_another_shape_stays(pod, filter):
    pod.add_tap(redirect=False)
    add(pod, "qdisc add dev eth0 ingress", "filter add dev eth0 " + filter)
    pod.ip("link", "del", pods.TAP)
    before = pod.state()
    assert nlraw.cleanup(netns=pod.path).outcome == "clean"
    assert pod.state() == before


@pytest.mark.parametrize("place", ["egress", "parent 1:"])
def test_a_dead_redirect_that_swallows_nothing_coming_in_stays(pod, place):
    add(pod, "qdisc add dev eth0 clsact", "qdisc add dev eth0 root handle 1: htb default 10")
    pod.add_tap(redirect=False)
    pod.redirect("eth0", pods.TAP, *place.split())
    pod.ip("link", "del", pods.TAP)
    before = pod.state()
    assert nlraw.cleanup(netns=pod.path).outcome == "clean"
    assert pod.state() == before


def test_a_dead_redirect_of_one_mark_stays(pod):
    pod.add_tap(redirect=False)
    add(
        pod,
        "qdisc add dev eth0 ingress",
        "filter add dev eth0 ingress protocol all u32 match mark 7 0xff " + TO_TAP,
    )
    if "mark" not in pod.tc("filter", "show", "dev", "eth0", "ingress"):
        pytest.skip("this kernel's u32 drops marks in silence (no CONFIG_CLS_U32_MARK)")
    pod.ip("link", "del", pods.TAP)
    before = pod.state()
    assert nlraw.cleanup(netns=pod.path).outcome == "clean"
    assert pod.state() == before

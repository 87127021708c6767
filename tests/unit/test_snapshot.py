# SPDX-License-Identifier: Apache-2.0
"""nlraw.snapshot: what one look saw, and the keys of what can be deleted."""

import pytest

from lib import build
from lib.random_pods import CLSACT_IN, CLSACT_OUT, HTB, INGRESS
from nlraw import uapi
from nlraw.snapshot import (
    AttachmentPoint,
    Snapshot,
    filter_key,
    link_key,
    place_key,
    priority_key,
    qdisc_key,
)
from nlraw.verdict import Target


def tap(ifindex, **facts):
    return build.as_link(build.link_payload(ifindex, "tap%d_urunc" % ifindex, **facts))


def qdisc(ifindex=2, kind="ingress", **fields):
    return build.as_qdisc(build.qdisc_payload(ifindex, kind, **fields))


def a_filter(ifindex=2, **header):
    return build.as_filter(build.redirect_payload(ifindex, "u32", 4, **header))


ORPHAN, FRESH, USED, BELOW = tap(4), tap(5, up_count=0), tap(6, carrier=1), tap(7)
SEEN = Snapshot(taps=[ORPHAN, FRESH, USED, BELOW], uppers={7: ("mac0", "vlan1"), 6: ("x",)})


def test_what_was_not_seen_is_empty():
    empty = Snapshot()
    assert (empty.uplinks, empty.taps, empty.ignored, empty.names) == ((), (), (), {})
    assert (empty.uppers, empty.default_taps, empty.qdiscs, empty.points) == ({}, (), (), ())
    assert (empty.in_use(), empty.keys(), empty.evidence([])) == ([], set(), "")


def test_the_taps_in_use_are_those_with_a_holder_or_something_stacked_on_them():
    assert SEEN.in_use() == [USED, BELOW]
    assert (SEEN.uppers_of(BELOW), SEEN.uppers_of(ORPHAN)) == (("mac0", "vlan1"), ())


@pytest.mark.parametrize("spare_fresh, orphans", [(False, [ORPHAN, FRESH]), (True, [ORPHAN])])
def test_the_orphans_are_those_that_are_to_go(spare_fresh, orphans):
    assert SEEN.orphans(Target(spare_fresh=spare_fresh)) == orphans


def test_each_evidence_is_named_once():
    assert SEEN.evidence([BELOW, USED, tap(8, carrier=1)]) == (
        "carrier off, mac0, vlan1 stacked on it; carrier on; carrier on, x stacked on it"
    )


def test_tc_is_added_to_what_was_seen():
    seen = Snapshot([ORPHAN], [USED], ["ignored"], {4: "a"}, {4: ("b",)}, ["c"])
    listed = seen.with_tc(["qdisc"], ["point"])
    assert (listed.qdiscs, listed.points) == (("qdisc",), ("point",))
    assert (seen.qdiscs, seen.points) == ((), ())
    for name in ("uplinks", "taps", "ignored", "names", "uppers", "default_taps"):
        assert getattr(listed, name) == getattr(seen, name) and getattr(seen, name)


def test_the_ingress_of_a_device_is_its_ingress_or_clsact():
    others = [qdisc(3), qdisc(2, "htb", handle=HTB, parent=uapi.TC_H_ROOT)]
    for kind in ("ingress", "clsact"):
        mine = qdisc(2, kind)
        seen = Snapshot(qdiscs=others + [mine])
        assert seen.ingress_of(build.as_link(build.link_payload(2, "eth0"))) is mine
    assert Snapshot(qdiscs=others).ingress_of(build.as_link(build.link_payload(2))) is None


# ---------------------------------------------------------------- attachment points


@pytest.mark.parametrize(
    "kind, parent, is_ingress, is_incoming",
    [
        ("ingress", INGRESS, True, True),
        ("clsact", CLSACT_IN, False, True),
        ("clsact", CLSACT_OUT, False, False),
        ("htb", HTB, False, False),
        (None, 7, False, False),
        (None, CLSACT_IN, False, False),  # the number of a block, not a side
    ],
)
def test_what_an_attachment_point_is(kind, parent, is_ingress, is_incoming):
    point = AttachmentPoint("eth0", kind and qdisc(2, kind), parent, [])
    assert (point.is_ingress, point.is_incoming, point.is_uplink) == (
        is_ingress,
        is_incoming,
        False,
    )


@pytest.mark.parametrize(
    "chains, has",
    [(None, False), ([], False), ([0, 3], False), ([0], False), ([0, 3, 5], True), ([5], True)],
)
def test_a_chain_without_a_filter_was_created_explicitly(chains, has):
    point = AttachmentPoint("eth0", qdisc(), INGRESS, [a_filter(), a_filter(chain=3)], True)
    listed = point.with_chains(chains)
    assert listed.has_explicit_chain is has and listed.chains == chains
    for name in ("dev", "qdisc", "parent", "filters", "is_uplink"):
        assert getattr(listed, name) == getattr(point, name) and getattr(point, name)


# ---------------------------------------------------------------- keys


def test_the_keys_are_those_of_everything_that_can_be_deleted():
    point = AttachmentPoint("eth0", qdisc(), INGRESS, [a_filter(), a_filter(handle=2)])
    seen = Snapshot(taps=[ORPHAN], qdiscs=[qdisc()], points=[point])
    assert seen.keys() == {
        link_key(ORPHAN),
        qdisc_key(qdisc()),
        priority_key(point, a_filter()),
        filter_key(point, a_filter()),
        filter_key(point, a_filter(handle=2)),
    }


def test_the_same_object_read_again_has_the_same_key_and_any_other_has_another():
    point = AttachmentPoint("eth0", qdisc(), INGRESS, [])
    assert link_key(tap(4)) == link_key(tap(4, carrier=1)) != link_key(tap(5))
    others = [qdisc(3), qdisc(kind="clsact"), qdisc(handle=1), qdisc(parent=1)]
    assert len({qdisc_key(each) for each in others + [qdisc(), qdisc()]}) == 5
    others = [
        a_filter(chain=3),
        a_filter(priority=7),
        a_filter(protocol=0x0800),
        build.as_filter(build.redirect_payload(2, "matchall", 4)),
    ]
    keys = [priority_key(point, each) for each in others + [a_filter(), a_filter(handle=9)]]
    assert len(set(keys)) == 5
    keys = [filter_key(point, each) for each in others + [a_filter(), a_filter(handle=9)]]
    assert len(set(keys)) == 6
    elsewhere = AttachmentPoint("net1", qdisc(3), INGRESS, [])
    assert filter_key(point, a_filter()) != filter_key(elsewhere, a_filter())


def test_the_key_of_a_place_begins_that_of_its_filters():
    for point, ifindex in (
        (AttachmentPoint("eth0", qdisc(), INGRESS, []), 2),
        (AttachmentPoint("block 7", None, INGRESS, []), build.BLOCK),
    ):
        assert place_key(point) == (ifindex, INGRESS)
        assert priority_key(point, a_filter())[1:3] == place_key(point)
        assert filter_key(point, a_filter())[1:3] == place_key(point)

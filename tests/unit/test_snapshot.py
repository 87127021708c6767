# SPDX-License-Identifier: Apache-2.0
"""nlraw.snapshot: what one look saw, and the keys of what can be deleted."""

import pytest

from lib import build
from lib.random_pods import CLSACT_IN, CLSACT_OUT, HTB, INGRESS
from nlraw import uapi
from nlraw.snapshot import (
    AttachmentPoint,
    Snapshot,
    divide,
    filter_key,
    link_key,
    place_key,
    priority_key,
    qdisc_key,
    shared_priorities,
)
from nlraw.verdict import Target


def tap(ifindex, **facts):
    return build.as_link(build.link_payload(ifindex, "tap%d_urunc" % ifindex, **facts))


def qdisc(ifindex=2, kind="ingress", **fields):
    return build.as_qdisc(build.qdisc_payload(ifindex, kind, **fields))


def a_filter(ifindex=2, **header):
    return build.as_filter(build.redirect_payload(ifindex, "u32", 4, **header))


ORPHAN, FRESH, USED, BELOW = tap(4), tap(5, up_count=0), tap(6, carrier=1), tap(7)
CLSACT = qdisc(kind="clsact")
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


# ---------------------------------------------------------------- u32 priorities listed together


FIRST, SECOND = 0x80000000, 0x80100000  # root tables


def u32(handle, **header):
    return build.as_filter(build.redirect_payload(2, "u32", 4, handle=handle, **header))


def table(handle, **header):
    return build.as_filter(
        build.filter_payload(2, "u32", build.ROOT_TABLE, handle=handle, **header)
    )


def bare(**header):
    return build.as_filter(build.filter_payload(2, "u32", handle=0, **header))


def matchall(**header):
    return build.as_filter(build.redirect_payload(2, "matchall", 4, **header))


def listed(handles, **header):
    """A priority as it is listed: itself, then tables and filters by their handles."""
    return [bare(**header)] + [
        (u32 if handle & 0xFFF else table)(handle, **header) for handle in handles
    ]


def handles(point):
    return [(entry.chain, entry.handle) for entry in point.filters]


ONE, TWO = FIRST | 0x800, SECOND | 0x800
BOTH = [FIRST, ONE, SECOND, TWO]


def test_u32_priorities_of_one_number_in_several_chains_or_sides_are_listed_together():
    clsact = qdisc(kind="clsact")
    chains = AttachmentPoint("eth0", qdisc(), INGRESS, listed(BOTH) + listed(BOTH, chain=3))
    sides = [
        AttachmentPoint("eth0", clsact, parent, listed(BOTH, parent=parent))
        for parent in (CLSACT_IN, CLSACT_OUT)
    ]
    block = AttachmentPoint("block 7", None, 7, listed(BOTH) + listed(BOTH, chain=3))
    found = shared_priorities([chains] + sides + [block])
    assert [(point.dev, point.parent, entry.chain, entry.handle) for point, entry in found] == [
        ("eth0", INGRESS, 0, 0),
        ("eth0", INGRESS, 3, 0),
        ("eth0", CLSACT_IN, 0, 0),
        ("eth0", CLSACT_OUT, 0, 0),
        ("block 7", 7, 0, 0),
        ("block 7", 7, 3, 0),
    ]


@pytest.mark.parametrize(
    "others",
    [
        listed([FIRST, ONE], chain=3, priority=7),
        [matchall(chain=3)],
        listed([SECOND, TWO]),  # the same one
    ],
)
def test_other_priorities_are_listed_by_themselves(others):
    point = AttachmentPoint("eth0", qdisc(), INGRESS, listed([FIRST, ONE]) + others)
    assert shared_priorities([point]) == []


def test_the_same_number_on_another_qdisc_or_in_a_block_is_another_priority():
    points = [
        AttachmentPoint("eth0", qdisc(), INGRESS, listed([FIRST, ONE])),
        AttachmentPoint("net1", qdisc(3), INGRESS, listed([FIRST, ONE])),
        AttachmentPoint("block 7", None, 7, listed([FIRST, ONE])),
        AttachmentPoint("block 8", None, 8, listed([FIRST, ONE])),
    ]
    assert shared_priorities(points) == []


def divided(points, *roots):
    shared = shared_priorities(points)
    keys = [priority_key(point, entry) for point, entry in shared]
    return divide(points, shared, {key: root for key, root in zip(keys, roots) if root})


def test_each_place_keeps_what_is_in_its_own_root_table():
    foreign = [matchall(chain=3, handle=9), u32(FIRST | 0x801, priority=7)]
    entries = listed(BOTH) + listed(BOTH, chain=3) + foreign
    point = AttachmentPoint("eth0", qdisc(), INGRESS, entries, True)
    (found,) = divided([point], FIRST, SECOND)
    assert handles(found) == [
        (0, 0),
        (0, FIRST),
        (0, ONE),
        (3, 0),
        (3, SECOND),
        (3, TWO),
        (3, 9),
        (0, FIRST | 0x801),
    ]
    for name in ("dev", "qdisc", "parent", "is_uplink"):
        assert getattr(found, name) == getattr(point, name)


def test_a_priority_whose_root_table_is_gone_has_nothing_but_its_own_entry():
    point = AttachmentPoint("eth0", qdisc(), INGRESS, listed(BOTH) + listed(BOTH, chain=3))
    (found,) = divided([point], FIRST, None)
    assert handles(found)[:3] == [(0, 0), (0, FIRST), (0, ONE)]
    assert (3, 0) in handles(found)
    assert not [entry for entry in handles(found) if entry[0] == 3 and entry[1]]


def test_another_table_is_everybodys_and_a_filter_in_it_stays_where_it_is_listed_first():
    linked = 0x00100000
    entries = BOTH + [linked, linked | 0x800]
    points = [
        AttachmentPoint("eth0", CLSACT, parent, listed(entries, parent=parent))
        for parent in (CLSACT_IN, CLSACT_OUT)
    ]
    blocks = [
        AttachmentPoint("block 7", None, 7, listed(entries) + listed(entries, chain=3)),
    ]
    found = divided(points + blocks, FIRST, SECOND, FIRST, SECOND)
    assert [handle for _, handle in handles(found[0])] == [0, FIRST, ONE, linked, linked | 0x800]
    assert [handle for _, handle in handles(found[1])] == [0, SECOND, TWO, linked]
    assert handles(found[2]) == [
        (0, 0),
        (0, FIRST),
        (0, ONE),
        (0, linked),
        (0, linked | 0x800),
        (3, 0),
        (3, SECOND),
        (3, TWO),
        (3, linked),
    ]


def test_a_table_with_the_number_of_a_root_table_elsewhere_is_everybodys():
    third = SECOND + 0x100000
    entries = [FIRST, ONE, third, third | 0x800, SECOND, SECOND | 0x800]
    points = [
        AttachmentPoint("eth0", qdisc(number), INGRESS, listed(entries) + listed(entries, chain=3))
        for number in (2, 3)
    ]
    first, second = divided(points, FIRST, third, FIRST, SECOND)
    assert [handle for chain, handle in handles(first) if chain == 0] == [
        0,
        FIRST,
        ONE,
        SECOND,
        SECOND | 0x800,
    ]
    assert [handle for chain, handle in handles(first) if chain == 3] == [
        0,
        third,
        third | 0x800,
        SECOND,
    ]
    assert (3, SECOND | 0x800) in handles(second) and (0, third | 0x800) in handles(second)


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

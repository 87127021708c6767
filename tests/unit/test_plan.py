# SPDX-License-Identifier: Apache-2.0
"""nlraw.plan: what has to go, in which order, and above all what is never touched."""

import pytest

from lib import build, golden
from lib.random_pods import CLSACT_IN, CLSACT_OUT, INGRESS
from nlraw import tc, uapi
from nlraw.plan import Change, Plan, is_dead, plan, plan_undo
from nlraw.report import DeadRedirect, TcObject
from nlraw.snapshot import AttachmentPoint, Snapshot
from nlraw.verdict import Target

# ---------------------------------------------------------------- is_dead


@golden.needs_little_endian
@pytest.mark.parametrize(
    "name, dead",
    [
        ("filters-redirect-dead", [False, False, True]),
        ("filters-redirect", [False, False, False]),
        ("filters-redirect-own", [False, False, False]),
        # its ifindex is 0, but it sends to the devices of a block
        ("filters-redirect-block", [False, False, False]),
        ("filters-siblings", [False, False, False, True]),
        ("filters-foreign", [False] * 6),
        ("filters-mirror-dead", [False] * 3),
        ("filters-bpf", [False] * 2),
        ("filters-root-table", [False] * 5),
    ],
)
def test_of_captured_filters_only_a_redirect_of_all_to_nowhere_is_dead(name, dead):
    (reply,) = golden.play(name, tc.dump_filters(2, INGRESS, "eth0"))
    assert [is_dead(filter) for filter in tc.filters(reply.answer())] == dead


@pytest.mark.parametrize(
    "kind, actions, dead",
    [
        ("u32", [build.mirred(0)], True),
        ("matchall", [build.mirred(0)], True),
        ("flower", [build.mirred(0)], True),
        ("bpf", [build.mirred(0)], False),
        ("matchall", [build.mirred(4)], False),
        ("matchall", [build.mirred(0), build.mirred(0)], False),
        ("matchall", [build.action("gact"), build.mirred(0)], False),
        ("matchall", [build.mirred(0, uapi.TCA_INGRESS_REDIR)], False),
        ("matchall", [build.mirred(0, 2)], False),
        ("matchall", [build.mirred(0, control=3)], False),
        ("matchall", [build.mirred(0, block=22)], False),
        ("matchall", [], False),
    ],
)
def test_dead_is_only_what_has_the_shape_that_runtimes_make(kind, actions, dead):
    options = [build.actions(kind, *actions)] + ([build.selector(0)] if kind == "u32" else [])
    assert is_dead(build.as_filter(build.filter_payload(2, kind, *options))) is dead


@pytest.mark.parametrize(
    "options, header",
    [
        ([build.FLOWER_KEY], {}),
        ([], {"protocol": 0x0800}),
    ],
)
def test_a_flower_with_a_condition_is_not_dead(options, header):
    acts = build.actions("flower", build.mirred(0))
    found = build.as_filter(build.filter_payload(2, "flower", acts, *options, **header))
    assert is_dead(found) is False


def test_a_hash_table_or_a_priority_is_no_dead_redirect():
    options = [build.actions("u32", build.mirred(0)), build.selector(0), build.ROOT_TABLE]
    assert not is_dead(build.as_filter(build.filter_payload(2, "u32", *options)))
    assert not is_dead(build.as_filter(build.filter_payload(2, "matchall", handle=0)))


# ---------------------------------------------------------------- plan


TAP = build.as_link(build.link_payload(4, "tap0_urunc"))
OTHER_TAP = build.as_link(build.link_payload(5, "tap1_urunc"))
FRESH_TAP = build.as_link(build.link_payload(6, "tap2_urunc", up_count=0))
USED_TAP = build.as_link(build.link_payload(7, "tap3_urunc", carrier=1))
ETH0 = build.as_link(build.link_payload(2, "eth0", kind="veth"))
NAMES = {2: "eth0", 3: "net1", 4: "tap0_urunc", 5: "tap1_urunc", 9: "vm0"}
INGRESS_QDISC = build.as_qdisc(build.qdisc_payload(2, "ingress"))
CLSACT_QDISC = build.as_qdisc(build.qdisc_payload(2, "clsact"))
ALL, SPARING = Target(), Target(spare_fresh=True)


def filters(*payloads):
    return [build.as_filter(payload) for payload in payloads]


def redirect(target, kind="matchall", ifindex=2, **header):
    return build.redirect_payload(ifindex, kind, target, **header)


def bare(kind="matchall", **header):
    return build.filter_payload(2, kind, handle=0, **header)


def table(**header):
    return build.filter_payload(2, "u32", build.ROOT_TABLE, **header)


def place(*payloads, qdisc=INGRESS_QDISC, parent=INGRESS, dev="eth0", chains=None):
    """An attachment point; that of eth0 is an uplink's."""
    return AttachmentPoint(dev, qdisc, parent, filters(*payloads), dev == "eth0", chains)


def snapshot(*points, taps=(TAP,), qdiscs=(), uplinks=(ETH0,), uppers=None):
    return Snapshot(uplinks, taps, (), NAMES, uppers, (), qdiscs, points)


def steps(changes):
    """The changes, each as in "delete u32 filter eth0"."""
    return ["%s %s" % (each.request.step, each.request.object) for each in changes]


def planned(*payloads, taps=(TAP,), qdisc=INGRESS_QDISC, parent=INGRESS, qdiscs=(), target=ALL):
    """The steps where the uplink has one attachment point with these filters."""
    point = place(*payloads, qdisc=qdisc, parent=parent)
    return steps(plan(snapshot(point, taps=taps, qdiscs=qdiscs), target).changes)


@pytest.mark.parametrize("qdisc, parent", [("ingress", INGRESS), ("clsact", CLSACT_IN)])
def test_nothing_has_to_go_from_a_bare_snapshot(qdisc, parent):
    """`pod.remove` reports such a namespace without a plan."""
    found = {"ingress": INGRESS_QDISC, "clsact": CLSACT_QDISC}[qdisc]
    bare = snapshot(place(qdisc=found, parent=parent), taps=(), qdiscs=(found,))
    assert bare.is_bare
    made = plan(bare, ALL)
    assert (made.changes, made.undecided, made.dead_redirects) == ((), (), ())


def test_filters_go_first_then_the_ingress_qdisc_then_of_each_orphan_its_qdiscs_and_the_link():
    qdiscs = [build.as_qdisc(build.qdisc_payload(ifindex, "ingress")) for ifindex in (4, 5)]
    assert planned(
        bare("u32"),
        table(),
        redirect(4, "u32"),
        redirect(5, priority=7),
        taps=[TAP, OTHER_TAP],
        qdiscs=qdiscs,
    ) == [
        "delete u32 filters of priority 49152 on eth0",
        "delete matchall filter eth0",
        "delete ingress qdisc eth0",
        "delete ingress qdisc tap0_urunc",
        "delete link tap0_urunc",
        "delete ingress qdisc tap1_urunc",
        "delete link tap1_urunc",
    ]


def test_nothing_is_planned_for_nothing():
    assert planned(taps=()) == []
    assert planned(redirect(9), taps=()) == []


def test_a_filter_that_redirects_elsewhere_stays_and_so_does_its_qdisc():
    assert planned(redirect(4), redirect(9, handle=2)) == [
        "delete matchall filter eth0",
        "delete link tap0_urunc",
    ]


def test_an_ingress_qdisc_that_is_empty_beside_an_orphan_goes():
    assert planned() == ["delete ingress qdisc eth0", "delete link tap0_urunc"]


def test_a_bare_priority_or_a_root_table_leaves_an_ingress_qdisc_empty():
    assert planned(bare("u32"), table()) == ["delete ingress qdisc eth0", "delete link tap0_urunc"]


@pytest.mark.parametrize(
    "others",
    [[bare("bpf"), build.filter_payload(2, "bpf", handle=1)], [table(), table(handle=2)], [bare()]],
)
def test_whatever_may_be_somebodys_keeps_an_ingress_qdisc(others):
    assert "delete ingress qdisc eth0" not in planned(redirect(4, "u32", priority=7), *others)


def test_clsact_is_never_deleted():
    assert planned(redirect(4), qdisc=CLSACT_QDISC, parent=CLSACT_IN) == [
        "delete matchall filter eth0",
        "delete link tap0_urunc",
    ]


def test_a_dead_redirect_goes_with_or_without_an_orphan_and_takes_its_emptied_qdisc():
    assert planned(redirect(0), taps=()) == [
        "delete matchall filter eth0",
        "delete ingress qdisc eth0",
    ]
    assert planned(redirect(0), taps=(), qdisc=CLSACT_QDISC, parent=CLSACT_IN) == [
        "delete matchall filter eth0"
    ]


def test_a_dead_redirect_of_what_goes_out_is_nobodys_of_ours():
    assert planned(redirect(0), taps=(), qdisc=CLSACT_QDISC, parent=CLSACT_OUT) == []


def test_the_priority_goes_where_u32_would_leave_its_root_table_and_not_where_a_sibling_stays():
    assert planned(table(), redirect(4, "u32"))[:2] == [
        "delete u32 filters of priority 49152 on eth0",
        "delete ingress qdisc eth0",
    ]
    assert planned(table(), redirect(4, "u32"), redirect(9, "u32", handle=2))[:2] == [
        "delete u32 filter eth0",
        "delete link tap0_urunc",
    ]


def test_what_goes_with_a_priority_is_reported_filter_by_filter():
    point = place(table(), redirect(4, "u32"), redirect(5, "u32", handle=0x80000801))
    first = plan(snapshot(point, taps=[TAP, OTHER_TAP]), ALL).changes[0]
    assert first.request.step == "delete u32 filters of priority 49152 on"
    fields = {"dev": "eth0", "object": "filter", "kind": "u32", "priority": 49152}
    assert list(first.removes) == [
        TcObject(target="tap0_urunc", **fields),
        TcObject(target="tap1_urunc", **fields),
    ]


def test_priorities_of_other_chains_and_numbers_are_kept_apart():
    assert planned(
        redirect(4, "u32", chain=3, priority=7),
        redirect(9, "u32", handle=2, priority=7),
        redirect(9, "u32", chain=3, priority=8),
    ) == ["delete u32 filters of priority 7 on eth0", "delete link tap0_urunc"]


@pytest.mark.parametrize("side, goes", [(CLSACT_IN, True), (CLSACT_OUT, False)])
def test_what_redirects_to_an_orphan_goes_from_either_side_and_a_dead_one_from_the_incoming(
    side, goes
):
    point = place(redirect(4), redirect(0, "u32"), qdisc=CLSACT_QDISC, parent=side)
    assert steps(plan(snapshot(point), ALL).changes) == ["delete matchall filter eth0"] + [
        "delete u32 filters of priority 49152 on eth0"
    ] * goes + ["delete link tap0_urunc"]


def test_of_an_orphans_qdiscs_only_the_uppermost_are_deleted_and_none_of_the_kernels_own():
    rows = [
        (4, "noqueue", 0, uapi.TC_H_ROOT),
        (4, "htb", 0x10000, uapi.TC_H_ROOT),
        (4, "sfq", 0x20000, 0x10001),
        (5, "htb", 0x10000, uapi.TC_H_ROOT),
    ]
    qdiscs = [build.as_qdisc(build.qdisc_payload(*row)) for row in rows]
    assert steps(plan(snapshot(qdiscs=qdiscs, uplinks=()), ALL).changes) == [
        "delete htb qdisc tap0_urunc",
        "delete link tap0_urunc",
    ]


def test_a_group_is_deleted_behind_all_others_and_named_by_its_taps():
    qdiscs = [build.as_qdisc(build.qdisc_payload(ifindex, "ingress")) for ifindex in (4, 5)]
    made = plan(snapshot(taps=[TAP, OTHER_TAP], qdiscs=qdiscs), ALL).by_group(7)
    assert [(each.request.step, each.request.object, list(each.taps)) for each in made] == [
        ("delete ingress qdisc", "tap0_urunc", []),
        ("delete ingress qdisc", "tap1_urunc", []),
        ("delete links", "tap0_urunc, tap1_urunc", [TAP, OTHER_TAP]),
    ]
    assert set(made[-1].keys) == {("link", 4), ("link", 5)}
    parts = made[-1].parts()
    assert [(part.keys, part.taps) for part in parts] == [
        ((("link", 4),), (TAP,)),
        ((("link", 5),), (OTHER_TAP,)),
    ]
    assert all(part.request is made[-1].request and part.removes == () for part in parts)
    assert made[0].parts() == [made[0]] and parts[0].parts() == [parts[0]]


def test_a_plan_and_a_change_of_nothing_have_nothing():
    empty = Plan()
    assert (empty.changes, empty.is_whole) == ((), True)
    assert (empty.dead_redirects, empty.undecided) == ((), ())
    change = Change(tc.dump_qdiscs(), [])
    assert (change.keys, change.removes, change.taps) == ((), (), ())


# ---------------------------------------------------------------- as wide as the deletion


NET1_QDISC = build.as_qdisc(build.qdisc_payload(3, "ingress"))


def on_net1(*payloads, **others):
    return place(*payloads, qdisc=NET1_QDISC, dev="net1", **others)


def test_a_redirect_to_an_orphan_goes_from_every_device_with_the_ingress_that_it_empties():
    points = [place(redirect(4, "u32")), on_net1(redirect(4, ifindex=3), redirect(5, ifindex=3))]
    made = plan(snapshot(*points, taps=[TAP, OTHER_TAP]), ALL)
    assert steps(made.changes) == [
        "delete u32 filters of priority 49152 on eth0",
        "delete ingress qdisc eth0",
        "delete matchall filter net1",
        "delete matchall filter net1",
        "delete ingress qdisc net1",
        "delete link tap0_urunc",
        "delete link tap1_urunc",
    ]
    removed = [removed for change in made.changes for removed in change.removes]
    assert [(each.dev, each.kind, each.target) for each in removed] == [
        ("eth0", "u32", "tap0_urunc"),
        ("eth0", "ingress", None),
        ("net1", "matchall", "tap0_urunc"),
        ("net1", "matchall", "tap1_urunc"),
        ("net1", "ingress", None),
    ]


@pytest.mark.parametrize(
    "others", [[], [redirect(0, ifindex=3)], [redirect(9, ifindex=3), redirect(0, ifindex=3)]]
)
def test_what_is_on_another_device_and_leads_to_no_orphan_is_somebody_elses(others):
    assert steps(plan(snapshot(on_net1(*others)), ALL).changes) == ["delete link tap0_urunc"]


@pytest.mark.parametrize("uplinks", [(), (ETH0,)])
def test_a_foreign_filter_beside_keeps_the_ingress_of_another_device(uplinks):
    point = on_net1(redirect(4, ifindex=3), redirect(9, ifindex=3, handle=2))
    assert steps(plan(snapshot(point, uplinks=uplinks), ALL).changes) == [
        "delete matchall filter net1",
        "delete link tap0_urunc",
    ]


def in_block(*payloads):
    return place(*payloads, qdisc=None, parent=22, dev="block 22")


def block_redirect(target, **header):
    return redirect(target, "u32", build.BLOCK, parent=22, **header)


def test_of_a_shared_block_only_the_redirects_to_an_orphan_go_addressed_by_the_block():
    point = in_block(block_redirect(4, priority=7), block_redirect(9), block_redirect(0))
    made = plan(snapshot(point), ALL)
    assert steps(made.changes) == [
        "delete u32 filters of priority 7 on block 22",
        "delete link tap0_urunc",
    ]
    asked = tc.Filter(build.received(uapi.RTM_DELTFILTER, made.changes[0].request.payload))
    assert (asked.ifindex, asked.parent, asked.priority) == (-1, 22, 7)
    assert made.changes[0].removes == (
        TcObject(dev="block 22", object="filter", kind="u32", priority=7, target="tap0_urunc"),
    )
    assert made.dead_redirects == ()


def test_an_ingress_whose_filters_are_a_shared_blocks_is_never_deleted_for_them():
    # its own list is not read, so that nothing shows what it holds: there is no point for it
    made = plan(snapshot(in_block(block_redirect(4)), qdiscs=[INGRESS_QDISC]), ALL)
    assert "delete ingress qdisc eth0" not in steps(made.changes)


def test_what_is_stacked_on_a_tap_keeps_it_and_all_that_leads_to_it():
    made = plan(snapshot(place(redirect(4)), uppers={4: ("eth1",)}), ALL)
    assert made.changes == ()


# ---------------------------------------------------------------- beside TAPs that stay


def test_beside_a_tap_in_use_the_orphans_go_with_what_is_theirs_and_nothing_else():
    filters = [redirect(4, "u32"), redirect(7, handle=2)]
    assert planned(*filters, taps=[TAP, USED_TAP]) == [
        "delete u32 filters of priority 49152 on eth0",
        "delete link tap0_urunc",
    ]
    assert planned(redirect(4, "u32"), taps=[TAP, USED_TAP]) == [
        "delete u32 filters of priority 49152 on eth0",
        "delete ingress qdisc eth0",
        "delete link tap0_urunc",
    ]


def test_an_empty_ingress_beside_a_tap_in_use_may_be_its_setups():
    assert planned(taps=[TAP, USED_TAP]) == ["delete link tap0_urunc"]


def test_a_dead_redirect_seen_while_a_tap_is_in_use_is_reported_and_left():
    point = place(redirect(0, "u32", priority=7), redirect(4, handle=2))
    made = plan(snapshot(point, taps=[TAP, USED_TAP]), ALL)
    assert steps(made.changes) == ["delete matchall filter eth0", "delete link tap0_urunc"]
    assert made.dead_redirects == (DeadRedirect(dev="eth0", kind="u32", priority=7),)


def test_a_dead_redirect_that_goes_is_not_one_that_is_left():
    made = plan(snapshot(place(redirect(0, "u32"), redirect(0, handle=2)), taps=()), ALL)
    assert len(made.changes) == 3 and made.dead_redirects == ()


def test_dead_redirects_that_look_alike_are_reported_once_and_only_those_of_uplinks():
    point = place(redirect(0, "u32"), redirect(0, "u32", handle=2), redirect(0, "bpf", handle=3))
    made = plan(snapshot(point, on_net1(redirect(0, ifindex=3)), taps=[USED_TAP]), ALL)
    assert made.changes == ()
    assert made.dead_redirects == (DeadRedirect(dev="eth0", kind="u32", priority=49152),)


def test_a_dead_redirect_of_what_goes_out_is_not_reported():
    point = place(redirect(0), qdisc=CLSACT_QDISC, parent=CLSACT_OUT)
    assert plan(snapshot(point, taps=[USED_TAP]), ALL).dead_redirects == ()


@pytest.mark.parametrize("dead", [False, True])
def test_while_a_fresh_tap_is_spared_every_ingress_of_a_living_device_stays(dead):
    taps = [TAP, FRESH_TAP]
    point = place(*[redirect(4, "u32")] + [redirect(0, handle=2)] * dead)
    others = on_net1(redirect(4, ifindex=3))
    own = [build.as_qdisc(build.qdisc_payload(4, "ingress"))]
    made = steps(plan(snapshot(point, others, taps=taps, qdiscs=own), SPARING).changes)
    assert made == [
        "delete u32 filters of priority 49152 on eth0",
    ] + ["delete matchall filter eth0"] * dead + [
        "delete matchall filter net1",
        "delete ingress qdisc tap0_urunc",
        "delete link tap0_urunc",
    ]
    gone = steps(plan(snapshot(point, others, taps=taps, qdiscs=own), ALL).changes)
    assert {"delete ingress qdisc eth0", "delete ingress qdisc net1"} < set(gone)


def test_an_empty_ingress_beside_a_spared_fresh_tap_is_that_of_the_start_in_progress():
    assert planned(taps=[TAP, FRESH_TAP], target=SPARING) == ["delete link tap0_urunc"]
    assert "delete ingress qdisc eth0" in planned(taps=[TAP, FRESH_TAP])


def test_an_empty_ingress_of_another_device_is_no_setups_of_ours():
    assert steps(plan(snapshot(on_net1()), ALL).changes) == ["delete link tap0_urunc"]


# ---------------------------------------------------------------- chains


def test_an_ingress_with_an_explicit_chain_is_not_empty():
    chains = [0, 5]
    made = plan(snapshot(place(redirect(4), chains=chains)), ALL)
    assert steps(made.changes) == ["delete matchall filter eth0", "delete link tap0_urunc"]
    assert made.undecided == () and made.is_whole
    for taps in ([TAP], []):
        made = plan(snapshot(place(redirect(0), chains=chains), taps=taps), ALL)
        assert "delete ingress qdisc eth0" not in steps(made.changes)
    assert steps(plan(snapshot(place(chains=[0])), ALL).changes) == ["delete link tap0_urunc"]


@pytest.mark.parametrize("chains", [(), (0,)])
def test_a_chain_that_has_filters_is_not_known_to_be_explicit(chains):
    made = plan(snapshot(place(redirect(4), chains=chains)), ALL)
    assert "delete ingress qdisc eth0" in steps(made.changes)
    assert made.undecided == ()


def test_a_plan_names_the_points_whose_chains_decide():
    goes, stays = place(redirect(4)), on_net1(redirect(9, ifindex=3))
    clsact = place(redirect(4), qdisc=CLSACT_QDISC, parent=CLSACT_IN)
    assert plan(snapshot(goes, stays, clsact), ALL).undecided == (goes,)
    assert plan(snapshot(stays, clsact), ALL).undecided == ()


def test_a_first_plan_reports_what_stays_and_names_the_points_whose_chains_decide():
    first = place(redirect(4, ifindex=3, chain=3), qdisc=NET1_QDISC, dev="net1")
    dead = place(redirect(0, priority=5), qdisc=CLSACT_QDISC, parent=CLSACT_IN)
    made = plan(snapshot(first, dead, taps=(TAP, USED_TAP)), Target(keep_in_use=True))
    assert steps(made.changes) == ["delete matchall filter net1"] and not made.is_whole
    assert made.dead_redirects == (DeadRedirect(dev="eth0", kind="matchall", priority=5),)
    assert made.undecided == (first,)


def test_filters_in_another_chain_go_before_the_rest_for_the_chain_may_be_explicit():
    points = [
        place(redirect(4, "u32", chain=3, priority=7), redirect(4, handle=2)),
        on_net1(redirect(4, ifindex=3)),
    ]
    made = plan(snapshot(*points), ALL)
    assert steps(made.changes) == ["delete u32 filters of priority 7 on eth0"]
    assert not made.is_whole
    at_once = plan(snapshot(*points), ALL, at_once=True)
    assert at_once.is_whole
    assert steps(at_once.changes) == [
        "delete u32 filters of priority 7 on eth0",
        "delete matchall filter eth0",
        "delete ingress qdisc eth0",
        "delete matchall filter net1",
        "delete ingress qdisc net1",
        "delete link tap0_urunc",
    ]


@pytest.mark.parametrize("chains, goes", [((), True), ((0, 3), False)])
@pytest.mark.parametrize("taps", [[TAP], [TAP, USED_TAP], [], [FRESH_TAP]])
def test_an_ingress_that_was_emptied_before_goes_unless_a_chain_was_explicit(chains, goes, taps):
    eth0, net1 = place(chains=chains), on_net1(chains=chains)
    vacated = {(2, INGRESS), (3, INGRESS)}
    made = plan(snapshot(eth0, net1, taps=taps), SPARING, vacated=vacated)
    gone = ["delete ingress qdisc eth0", "delete ingress qdisc net1"]
    spared = FRESH_TAP in taps
    assert [each for each in steps(made.changes) if each in gone] == gone * (goes and not spared)
    assert made.undecided == ()
    assert len(plan(snapshot(eth0, net1, taps=[]), SPARING).changes) == 0


def test_filters_in_another_chain_go_with_the_rest_if_no_ingress_goes():
    filters = [redirect(4, chain=3), redirect(9, handle=2)]
    for point in (place(*filters), place(*filters[:1], qdisc=CLSACT_QDISC, parent=CLSACT_IN)):
        made = plan(snapshot(point), ALL)
        assert made.is_whole
        assert steps(made.changes) == ["delete matchall filter eth0", "delete link tap0_urunc"]


# ---------------------------------------------------------------- what a failed setup made


def undone(*points, had_ingress=()):
    return steps(plan_undo(snapshot(*points, taps=[TAP]), [TAP], had_ingress))


def test_an_undo_takes_the_redirect_to_its_tap_and_the_qdisc_that_it_added():
    assert undone(place(redirect(4, "u32"))) == [
        "delete u32 filters of priority 49152 on eth0",
        "delete ingress qdisc eth0",
    ]
    assert undone(place(redirect(4, "u32")), had_ingress={2}) == [
        "delete u32 filters of priority 49152 on eth0"
    ]


def test_an_undo_takes_an_ingress_that_it_added_and_that_is_still_empty():
    assert undone(place()) == ["delete ingress qdisc eth0"]
    assert undone(place(), had_ingress={2}) == []


def test_an_undo_leaves_what_others_have_added_meanwhile():
    assert undone(place(redirect(4), redirect(5, handle=2))) == ["delete matchall filter eth0"]
    assert undone(place(redirect(5))) == []


def test_an_undo_leaves_a_clsact_dead_redirects_other_devices_and_blocks():
    assert undone(place(redirect(4), qdisc=CLSACT_QDISC, parent=CLSACT_IN)) == [
        "delete matchall filter eth0"
    ]
    assert undone(place(redirect(0))) == []
    assert undone(on_net1(redirect(4, ifindex=3)), in_block(block_redirect(4))) == []


def test_an_undo_of_several_taps_takes_what_it_added_on_each_uplink():
    on_net1 = AttachmentPoint(
        "net1", NET1_QDISC, INGRESS, filters(redirect(5, "u32", ifindex=3)), is_uplink=True
    )
    found = snapshot(place(redirect(4, "u32")), on_net1, taps=[TAP, OTHER_TAP])
    assert steps(plan_undo(found, [TAP, OTHER_TAP], {3})) == [
        "delete u32 filters of priority 49152 on eth0",
        "delete ingress qdisc eth0",
        "delete u32 filters of priority 49152 on net1",
    ]
    assert steps(plan_undo(found, [OTHER_TAP], {2})) == [
        "delete u32 filters of priority 49152 on net1",
        "delete ingress qdisc net1",
    ]

# SPDX-License-Identifier: Apache-2.0
"""nlraw.orphans: which links are orphans, what goes with them, and above all what is never touched.

The namespaces are made up (`build.Namespace`): they answer datagrams with datagrams. Against the
kernel it is tried in tests/live.
"""

import contextlib
import copy
import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import build, golden, random_pods
from lib.build import a_filter, a_link, a_qdisc
from lib.random_pods import CLSACT_IN, CLSACT_OUT, HTB, INGRESS
from nlraw import link, orphans, report, tc, uapi
from nlraw.errors import Error, Interrupted, Invalid, Lost, Refused, TapInUse
from nlraw.orphans import IN_USE, ORPHAN, Hook, Target

# ---------------------------------------------------------------- judge


JUDGED = {
    "tap-fresh": ORPHAN,
    "tap-held-up": IN_USE,
    "tap-held-down": IN_USE,
    "tap-released-up": ORPHAN,
    "tap-released-down": ORPHAN,
    "tap-just-released": ORPHAN,  # whatever RUNNING says
    "tap-just-attached": IN_USE,  # whatever RUNNING says
    "tap-queues-attached": IN_USE,
    "tap-queues-half-detached": IN_USE,
    "tap-queues-detached": IN_USE,
    "tap-queues-released": ORPHAN,
    "tun-mode": None,
    "veth": None,
    "bridge": None,
    "macvtap": None,
}


def captured(name):
    (found,) = link.links(golden.messages(name))
    return found


@golden.needs_little_endian
@pytest.mark.parametrize("name", sorted(JUDGED))
def test_the_verdict_on_a_captured_link(name):
    assert orphans.judge(captured(name)) == JUDGED[name]


@golden.needs_little_endian
@pytest.mark.parametrize("name", sorted(JUDGED))
def test_only_the_orphan_that_was_never_opened_again_is_fresh(name):
    assert orphans.as_tap(captured(name)).fresh is (name == "tap-fresh")


UP, RUNNING, LOWER_UP = uapi.IFF_UP, uapi.IFF_RUNNING, uapi.IFF_LOWER_UP
OPER_DOWN, OPER_UP = 2, uapi.IF_OPER_UP


@pytest.mark.parametrize(
    "facts, verdict",
    [
        ({"carrier": 1}, IN_USE),
        ({"carrier": 1, "flags": 0}, IN_USE),
        ({"carrier": 0}, ORPHAN),
        ({"carrier": 0, "flags": 0}, ORPHAN),
        ({"carrier": 0, "flags": UP | RUNNING | LOWER_UP, "operstate": OPER_UP}, ORPHAN),
        ({"carrier": 0, "queues": 1}, IN_USE),
        ({"carrier": 0, "disabled_queues": 1}, IN_USE),
        ({"carrier": 0, "queues": 0, "disabled_queues": 0}, ORPHAN),
        ({"carrier": None, "flags": UP}, ORPHAN),
        ({"carrier": None, "flags": UP, "operstate": OPER_DOWN}, ORPHAN),
        ({"carrier": None, "flags": UP | RUNNING}, IN_USE),
        ({"carrier": None, "flags": UP | LOWER_UP}, IN_USE),
        ({"carrier": None, "flags": UP, "operstate": OPER_UP}, IN_USE),
        ({"carrier": None, "flags": 0}, IN_USE),
        ({"carrier": None, "flags": UP, "queues": 1}, IN_USE),
        ({"carrier": 0, "mode": uapi.IFF_TUN}, None),
        ({"carrier": 0, "mode": None}, None),
        ({"carrier": 0, "kind": "veth"}, None),
        ({"carrier": 0, "kind": None}, None),
        ({"carrier": 0, "kind": ""}, None),
    ],
)
def test_the_verdict_by_its_evidence(facts, verdict):
    assert orphans.judge(build.as_link(build.link_payload(**facts))) == verdict


@pytest.mark.parametrize(
    "count, carrier, fresh", [(0, 0, True), (None, 0, True), (1, 0, False), (0, 1, False)]
)
def test_fresh_is_an_orphan_whose_carrier_never_came_on(count, carrier, fresh):
    assert (
        orphans.as_tap(build.as_link(build.link_payload(up_count=count, carrier=carrier))).fresh
        is fresh
    )


@pytest.mark.parametrize(
    "facts, words",
    [
        ({"carrier": 1}, "carrier on"),
        (
            {"carrier": 0, "queues": 1, "disabled_queues": 2},
            "carrier off, 1 queues attached, 2 detached",
        ),
        ({"carrier": 0, "queues": 1}, "carrier off, 1 queues attached, 0 detached"),
        ({"carrier": 0, "flags": 0}, "carrier off"),
        ({"carrier": None, "flags": 0}, "no carrier to read, down"),
    ],
)
def test_the_evidence_is_told_in_words(facts, words):
    assert orphans.evidence(build.as_link(build.link_payload(**facts))) == words


# ---------------------------------------------------------------- matches


@pytest.mark.parametrize(
    "pattern, name",
    [
        ("tap*_urunc", "tap0_urunc"),
        ("tap*_urunc", "tap_urunc"),
        ("tap*_urunc", "tap_urunc_urunc"),
        ("tap?", "tap0"),
        ("*", ""),
        ("**", "x"),
        ("", ""),
        ("a*b*c", "a-b-b-c"),
        ("*a", "aaa"),
        ("t[0]", "t[0]"),
        ("t.p", "t.p"),
        ("*\udcff", "tap\udcff"),
    ],
)
def test_names_that_fit(pattern, name):
    assert orphans.matches(pattern, name)


@pytest.mark.parametrize(
    "pattern, name",
    [
        ("tap*_urunc", "tap0_urunc2"),
        ("tap*_urunc", "xtap0_urunc"),
        ("tap*_urunc", "tap0"),
        ("tap*_urunc", "TAP0_urunc"),
        ("tap?", "tap"),
        ("tap?", "tap10"),
        ("", "x"),
        ("t[0]", "t0"),
        ("t.p", "tap"),
        ("a*b", "a\nc"),
        ("*ab*ba*", "xaba"),
    ],
)
def test_names_that_do_not_fit(pattern, name):
    assert not orphans.matches(pattern, name)


def matches_by_definition(pattern, name):
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(matches_by_definition(pattern[1:], name[skip:]) for skip in range(len(name) + 1))
    return (
        bool(name) and pattern[0] in ("?", name[0]) and matches_by_definition(pattern[1:], name[1:])
    )


@build.patient
@given(st.text("ab*?", max_size=7), st.text("ab*?", max_size=7))
def test_a_name_fits_if_the_definition_says_so(pattern, name):
    assert orphans.matches(pattern, name) == matches_by_definition(pattern, name)


def test_a_pattern_of_many_stars_is_no_burden():
    assert not orphans.matches("*a" * 500, "a" * 499 + "b" * 500)


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
    assert [orphans.is_dead(filter) for filter in tc.filters(reply.answer())] == dead


@pytest.mark.parametrize(
    "kind, actions, dead",
    [
        ("u32", [build.mirred(0)], True),
        ("matchall", [build.mirred(0)], True),
        ("flower", [build.mirred(0)], False),
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
def test_dead_is_only_what_has_the_shape_of_ours(kind, actions, dead):
    options = [build.actions(kind, *actions)] + ([build.selector(0)] if kind == "u32" else [])
    assert orphans.is_dead(build.as_filter(build.filter_payload(2, kind, *options))) is dead


# ---------------------------------------------------------------- plan


TAP = build.as_link(build.link_payload(4, "tap0_urunc"))
OTHER_TAP = build.as_link(build.link_payload(5, "tap1_urunc"))
ETH0 = build.as_link(build.link_payload(2, "eth0", kind="veth"))
INGRESS_QDISC = build.as_qdisc(build.qdisc_payload(2, "ingress"))
CLSACT_QDISC = build.as_qdisc(build.qdisc_payload(2, "clsact"))


def filters(*payloads):
    return [build.as_filter(payload) for payload in payloads]


def redirect(target, kind="matchall", **header):
    return build.redirect_payload(2, kind, target, **header)


def bare(kind="matchall", **header):
    return build.filter_payload(2, kind, handle=0, **header)


def table(**header):
    return build.filter_payload(2, "u32", build.ROOT_TABLE, **header)


def planned(*payloads, taps=(TAP,), qdisc=INGRESS_QDISC, parent=INGRESS, qdiscs=(), uplink=ETH0):
    """The steps, each as in "delete u32 filter eth0"."""
    hooks = [Hook(qdisc, parent, filters(*payloads))]
    return [
        "%s %s" % (step.request.step, step.request.object)
        for step in orphans.plan(uplink, taps, qdiscs, hooks)
    ]


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
        "delete u32 filters of priority 49152 eth0",
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
        "delete u32 filters of priority 49152 eth0",
        "delete ingress qdisc eth0",
    ]
    assert planned(table(), redirect(4, "u32"), redirect(9, "u32", handle=2))[:2] == [
        "delete u32 filter eth0",
        "delete link tap0_urunc",
    ]


def test_what_goes_with_a_priority_is_told_filter_by_filter():
    hooks = [
        Hook(
            INGRESS_QDISC,
            INGRESS,
            filters(table(), redirect(4, "u32"), redirect(5, "u32", handle=0x80000801)),
        )
    ]
    first = orphans.plan(ETH0, [TAP, OTHER_TAP], (), hooks)[0]
    assert first.request.step == "delete u32 filters of priority 49152"
    assert list(first.removes) == [report.TcObject(dev="eth0", object="filter", kind="u32")] * 2


def test_priorities_of_other_chains_and_numbers_are_told_apart():
    steps = planned(
        redirect(4, "u32", chain=3, priority=7),
        redirect(9, "u32", handle=2, priority=7),
        redirect(9, "u32", chain=3, priority=8),
    )
    assert steps == ["delete u32 filters of priority 7 eth0", "delete link tap0_urunc"]


def of_chains(*makers):
    """The same in chains 0 and 3, as two chains list it that share one priority's tables."""
    return [make(**chain) for chain in ({}, {"chain": 3}) for make in makers]


def test_what_two_chains_list_goes_once_if_it_redirects_to_an_orphan_and_the_priority_of_both():
    ours = of_chains(
        table,
        lambda **chain: table(handle=2, **chain),
        lambda **chain: redirect(4, "u32", handle=3, **chain),
    )
    assert planned(*ours) == [
        "delete u32 filter eth0",
        "delete u32 filters of priority 49152 eth0",
        "delete u32 filters of priority 49152 eth0",
        "delete ingress qdisc eth0",
        "delete link tap0_urunc",
    ]
    foreign = of_chains(lambda **chain: redirect(9, "u32", handle=4, **chain))
    assert planned(*ours[:3], foreign[0], *ours[3:], foreign[1]) == [
        "delete u32 filter eth0",
        "delete link tap0_urunc",
    ]
    assert planned(*ours, table(handle=5)) == [
        "delete u32 filter eth0",
        "delete u32 filters of priority 49152 eth0",  # of the chain without a third table
        "delete link tap0_urunc",
    ]


def test_what_two_chains_list_goes_once_from_each_qdisc():
    root = build.as_qdisc(build.qdisc_payload(2, "htb", HTB, uapi.TC_H_ROOT))
    both = filters(*of_chains(table, lambda **chain: redirect(4, "u32", handle=3, **chain)))
    hooks = [Hook(CLSACT_QDISC, CLSACT_IN, both), Hook(root, HTB, both)]
    steps = [step.request.step for step in orphans.plan(ETH0, [TAP], (), hooks)]
    assert steps.count("delete u32 filter") == 2


def test_a_dead_filter_that_two_chains_list_may_be_of_either_and_stays():
    assert planned(*of_chains(lambda **chain: redirect(0, "u32", **chain)), taps=()) == []


def test_of_an_orphans_qdiscs_only_the_uppermost_are_deleted_and_none_of_the_kernels_own():
    rows = [
        (4, "noqueue", 0, uapi.TC_H_ROOT),
        (4, "htb", 0x10000, uapi.TC_H_ROOT),
        (4, "sfq", 0x20000, 0x10001),
        (5, "htb", 0x10000, uapi.TC_H_ROOT),
    ]
    qdiscs = [build.as_qdisc(build.qdisc_payload(*row)) for row in rows]
    assert planned(qdiscs=qdiscs, uplink=None) == [
        "delete htb qdisc tap0_urunc",
        "delete link tap0_urunc",
    ]


def test_without_an_uplink_no_filter_is_planned():
    assert planned(redirect(4), uplink=None) == ["delete link tap0_urunc"]


def planned_of_sides(incoming, outgoing, taps=(), other=CLSACT_QDISC):
    """The steps for both sides of a clsact, or for ingress and a place on another qdisc."""
    hooks = [
        Hook(CLSACT_QDISC, CLSACT_IN, filters(*incoming)),
        Hook(other, CLSACT_OUT, filters(*outgoing)),
    ]
    return [
        "%s %s" % (step.request.step, step.request.object)
        for step in orphans.plan(ETH0, taps, (), hooks)
    ]


def test_a_filter_that_both_sides_of_a_clsact_list_goes_once_if_it_redirects_to_an_orphan():
    both = [table(), table(handle=2), redirect(4, "u32", handle=3)]
    assert planned_of_sides(both, both, [TAP]) == [
        "delete u32 filter eth0",
        "delete u32 filters of priority 49152 eth0",
        "delete u32 filters of priority 49152 eth0",
        "delete link tap0_urunc",
    ]
    assert planned_of_sides([table(handle=4)] + both, both, [TAP]) == [
        "delete u32 filter eth0",
        "delete u32 filters of priority 49152 eth0",  # of the side without a third table
        "delete link tap0_urunc",
    ]


def test_a_dead_filter_that_both_sides_of_a_clsact_list_may_be_the_other_sides_and_stays():
    assert planned_of_sides([redirect(0, "u32")], [redirect(0, "u32")]) == []


@pytest.mark.parametrize(
    "own, others",
    [
        ([redirect(0, "u32")], [redirect(0, "u32", priority=7)]),
        ([redirect(0, "u32")], [redirect(0, "u32", handle=2)]),
        ([bare("u32"), redirect(0, "u32")], [bare("u32")]),
        ([redirect(0)], [redirect(0)]),
        ([redirect(0)], [redirect(0, "u32")]),
    ],
)
def test_a_dead_filter_of_the_incoming_side_alone_goes(own, others):
    gone = {
        "u32": "delete u32 filters of priority 49152 eth0",
        "matchall": "delete matchall filter eth0",
    }
    assert planned_of_sides(own, others) == [gone[filters(*own)[-1].kind]]


def test_only_the_sides_of_one_qdisc_share_filters():
    other = build.as_qdisc(build.qdisc_payload(2, "htb", HTB, uapi.TC_H_ROOT))
    assert planned_of_sides([redirect(0, "u32")], [redirect(0, "u32")], other=other) == [
        "delete u32 filters of priority 49152 eth0"
    ]


def test_what_only_u32_shares_goes_from_either_side_of_other_classifiers():
    assert planned_of_sides([redirect(4)], [redirect(4)], [TAP]) == [
        "delete matchall filter eth0"
    ] * 2 + ["delete link tap0_urunc"]


def test_a_group_is_deleted_behind_all_others_and_named_by_its_taps():
    qdiscs = [build.as_qdisc(build.qdisc_payload(ifindex, "ingress")) for ifindex in (4, 5)]
    steps = orphans.plan(ETH0, [TAP, OTHER_TAP], qdiscs, [], group=7)
    assert [(step.request.step, step.request.object, set(step.taps)) for step in steps] == [
        ("delete ingress qdisc", "tap0_urunc", set()),
        ("delete ingress qdisc", "tap1_urunc", set()),
        ("delete links", "tap0_urunc, tap1_urunc", {4, 5}),
    ]
    assert [step.taps for step in steps[-1].parts()] in ([{4}, {5}], [{5}, {4}])
    assert steps[0].parts() == [steps[0]]


# ---------------------------------------------------------------- remove, in a made-up namespace


def pod(*taps, kind="u32"):
    """A pod: the uplink with a redirect to each TAP, and each TAP with one back."""
    made = build.Namespace(
        [
            a_link(1, "lo", kind=None),
            a_link(2, "eth0", kind="veth"),
            a_link(3, "peer0", kind="veth"),
        ]
    )
    made.links += taps
    made.qdiscs = [a_qdisc(2, "noqueue", 0, uapi.TC_H_ROOT)] + [
        a_qdisc(each.ifindex, "ingress") for each in [made.links[1]] + list(taps)
    ]
    for number, tap in enumerate(taps):
        made.filters.append(a_filter(2, kind, tap.ifindex, handle=number + 1))
        made.filters.append(a_filter(tap.ifindex, kind, 2))
    return made


def tap(ifindex=4, name="tap0_urunc", **facts):
    return a_link(ifindex, name, **facts)


def state(made):
    return repr(made)


def removed(made, match="tap*_urunc", uplink="eth0", dry_run=False, **target):
    return orphans.remove(made, Target(match, uplink, **target), dry_run)


def names(made):
    return [each.name for each in made.links]


def test_an_orphan_goes_with_its_redirect_and_the_emptied_ingress_qdisc():
    made = pod(tap())
    report = removed(made)
    assert names(made) == ["lo", "eth0", "peer0"]
    assert made.filters == [] and [each.kind for each in made.qdiscs] == ["noqueue"]
    assert (report.outcome, report.netns, report.uplink, report.error) == (
        "cleaned",
        made.path,
        "eth0",
        None,
    )
    assert [(each.ifname, each.deleted) for each in report.taps] == [("tap0_urunc", True)]
    assert [(each.dev, each.object, each.kind) for each in report.tc_removed] == [
        ("eth0", "filter", "u32"),
        ("eth0", "qdisc", "ingress"),
        ("tap0_urunc", "qdisc", "ingress"),
    ]


def test_the_changes_are_one_datagram():
    made = pod(tap())
    seen = []
    made.before = lambda requests: seen.append([request.type for request in requests])
    removed(made)
    assert [uapi.RTM_DELTFILTER, uapi.RTM_DELQDISC, uapi.RTM_DELQDISC, uapi.RTM_DELLINK] in seen
    assert (
        sum(
            any(
                type in (uapi.RTM_DELLINK, uapi.RTM_DELQDISC, uapi.RTM_DELTFILTER) for type in types
            )
            for types in seen
        )
        == 1
    )


def test_what_is_asked_is_told_in_words():
    made = pod(tap())
    asked = []
    made.before = lambda requests: asked.append(
        ", ".join("%s %s" % (each.step, each.object) for each in requests)
    )
    removed(made)
    assert asked == [
        "look up link eth0, list links tun",
        "list qdiscs of all links",
        "list filters eth0",
        "list links tun",
        "read link tap0_urunc",
        "delete u32 filters of priority 49152 eth0, delete ingress qdisc eth0, "
        "delete ingress qdisc tap0_urunc, delete link tap0_urunc",
    ]


def test_a_report_describes_a_tap():
    (found,) = removed(pod(tap(carrier=0, operstate=OPER_DOWN, flags=UP)), dry_run=True).taps
    assert found == report.Tap(
        ifname="tap0_urunc",
        ifindex=4,
        verdict="orphan",
        fresh=False,
        carrier=False,
        operstate="DOWN",
        flags=("UP",),
        deleted=False,
    )


def test_run_twice_the_second_run_finds_nothing():
    made = pod(tap())
    removed(made)
    made.changes.clear()
    assert removed(made).outcome == "clean"
    assert made.changes == []


def test_two_orphans_go_one_by_one():
    made = pod(tap(), tap(5, "tap1_urunc"))
    assert removed(made).outcome == "cleaned"
    assert (made.changes.count(uapi.RTM_DELLINK), uapi.RTM_SETLINK in made.changes) == (2, False)


@pytest.mark.parametrize(
    "random, group", [(b"\0\0\0\0", 1), (b"\xff\xff\xff\xff", 0x7FFFFFFF), (b"\1\2\3\4", 0x810183)]
)
def test_the_number_of_the_group_is_random_and_neither_0_nor_negative(monkeypatch, random, group):
    monkeypatch.setattr(orphans.posix, "urandom", lambda size: random[:size])
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(3)])
    seen = []
    made.before = meanwhile(
        uapi.RTM_DELLINK, lambda: seen.extend(each.group for each in made.links)
    )
    removed(made)
    assert seen == [0, 0, 0] + [group] * 3


@pytest.mark.parametrize("count", [3, 20])
def test_many_orphans_go_at_once(count):
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(count)])
    report = removed(made)
    assert names(made) == ["lo", "eth0", "peer0"]
    assert made.changes.count(uapi.RTM_DELLINK) == 1
    assert len(report.taps) == count and all(each.deleted for each in report.taps)


def test_one_that_is_in_use_stops_everything():
    made = pod(tap(), tap(5, "tap1_urunc", carrier=1))
    before = state(made)
    with pytest.raises(TapInUse) as caught:
        removed(made)
    assert state(made) == before and made.changes == []
    assert str(caught.value) == "clean up tap1_urunc: in use (carrier on), nothing was changed"
    assert caught.value.report.outcome == "in-use" and caught.value.report.error is caught.value
    assert [(each.ifname, each.verdict, each.deleted) for each in caught.value.report.taps] == [
        ("tap0_urunc", "orphan", False),
        ("tap1_urunc", "in-use", False),
    ]


def test_all_that_are_in_use_are_named_and_each_evidence_once():
    made = pod(tap(carrier=1), tap(5, "tap1_urunc", queues=1), tap(6, "tap2_urunc", carrier=1))
    with pytest.raises(TapInUse) as caught:
        removed(made)
    assert (caught.value.step, caught.value.object) == (
        "clean up",
        "tap0_urunc, tap1_urunc, tap2_urunc",
    )
    assert (
        caught.value.message
        == "in use (carrier off, 1 queues attached, 0 detached; carrier on), nothing was changed"
    )


def test_without_the_uplink_nothing_is_touched():
    made = pod(tap())
    before = state(made)
    report = removed(made, uplink="eth7")
    assert (report.outcome, report.uplink, state(made), made.changes) == (
        "skipped",
        "eth7",
        before,
        [],
    )
    assert [each.ifname for each in report.taps] == ["tap0_urunc"]


def test_an_uplink_found_by_an_alternative_name_is_somebody_elses():
    made = pod(tap())
    made.links[2].facts["altname"] = "eth7"
    assert removed(made, uplink="eth7").outcome == "skipped"
    assert made.changes == []


def test_with_the_uplink_none_the_links_go_and_no_tc_state_of_others():
    made = pod(tap())
    report = removed(made, uplink="none")
    assert report.outcome == "cleaned" and report.uplink is None
    assert names(made) == ["lo", "eth0", "peer0"]
    assert [each.targets for each in made.filters] == [[0]]


@pytest.mark.parametrize(
    "routes, uplink",
    [
        ([(2, 2)], "eth0"),
        ([(10, 2)], "eth0"),
        ([(10, 3), (2, 2)], "eth0"),  # by IPv4 first
        ([(2, 2), (2, 2), (10, 2)], "eth0"),
        ([(2, 9), (2, 2), (2, 3)], "eth0"),  # one that is gone meanwhile
        ([(2, 4), (2, 2)], "eth0"),  # an orphan may have a default route too
        ([(2, 4)], None),
        ([], None),
    ],
)
def test_the_uplink_auto_is_the_device_of_the_first_default_route(routes, uplink):
    made = pod(tap())
    made.routes = routes
    asked = []
    made.before = lambda requests: asked.extend((each.step, each.object) for each in requests)
    report = removed(made, uplink="auto", dry_run=True)
    assert (report.outcome, report.uplink) == ("would-clean" if uplink else "skipped", uplink)
    assert len(report.tc_removed) == (3 if uplink else 0)
    assert asked.count(("read link", "of the default route")) == len(
        {ifindex for _, ifindex in routes}
    )


def test_an_uplink_that_matches_the_pattern_is_no_candidate():
    made = pod(tap())
    made.links[1].name = "tap9_urunc"
    made.links[1].facts = {"kind": "tun", "carrier": 0}
    removed(made, uplink="tap9_urunc")
    assert names(made) == ["lo", "tap9_urunc", "peer0"]


def test_a_name_given_for_a_setup_counts_as_matching():
    made = pod(tap(4, "vm0"))
    assert removed(made, tap="vm0").outcome == "cleaned"
    assert "vm0" not in names(made)


def test_a_dry_run_changes_nothing_and_tells_what_would_go():
    made = pod(tap())
    before = state(made)
    report = removed(made, dry_run=True)
    assert (report.outcome, state(made), made.changes) == ("would-clean", before, [])
    assert len(report.tc_removed) == 3 and not report.taps[0].deleted


def test_to_inspect_is_to_say_what_would_go_and_no_error_where_one_is_in_use():
    used = pod(tap(carrier=1))
    found = orphans.inspect(used, Target("tap*_urunc", "eth0"))
    assert (found.outcome, found.error, [each.verdict for each in found.taps]) == (
        "in-use",
        None,
        [IN_USE],
    )
    made = pod(tap())
    found = orphans.inspect(made, Target("tap*_urunc", "eth0"))
    assert (found.outcome, len(found.tc_removed)) == ("would-clean", 3)
    assert used.changes + made.changes == []


def test_a_fresh_orphan_is_spared_where_that_is_asked_for():
    made = pod(tap(up_count=0), tap(5, "tap1_urunc", up_count=1))
    report = removed(made, spare_fresh=True)
    assert names(made) == ["lo", "eth0", "peer0", "tap0_urunc"]
    told = sorted((each.ifname, each.fresh, each.deleted) for each in report.taps)
    assert told == [("tap0_urunc", True, False), ("tap1_urunc", False, True)]
    assert [each.targets for each in made.filters] == [[4], [2]]


def test_a_spared_fresh_orphan_that_comes_into_use_before_the_second_look_stops_everything():
    made = pod(tap(up_count=0), tap(5, "tap1_urunc", up_count=1))

    def before(requests):
        if requests[0].step == "list links":
            made.links[-2].facts["carrier"] = 1

    made.before = before
    with pytest.raises(TapInUse) as caught:
        removed(made, spare_fresh=True)
    assert (caught.value.object, made.changes) == ("tap0_urunc", [])


def test_a_tap_that_comes_into_use_once_a_dead_redirect_was_seen_stops_its_removal():
    made = pod()
    made.filters = [a_filter(2, "u32", 0)]

    def before(requests):
        if requests[0].step == "list filters":
            made.links.append(tap(30, "tap30_urunc", carrier=1))

    made.before = before
    with pytest.raises(TapInUse) as caught:
        removed(made)
    assert (caught.value.object, made.changes) == ("tap30_urunc", [])


def test_what_was_done_when_memory_runs_out_is_known_to_who_goes_on():
    made = pod(tap())
    cleanup = orphans.Cleanup(made, Target("tap*_urunc", "eth0"))
    assert cleanup.prepare() is None
    real = made.change

    def change(*requests):
        replies = real(*requests)
        if requests[-1].step == "delete link":
            raise MemoryError
        return replies

    made.change = change
    with pytest.raises(MemoryError):
        cleanup.finish()
    made.change, made.is_quiet = real, False
    report = cleanup.finish(later=True)
    assert (report.outcome, [each.deleted for each in report.taps]) == ("cleaned", [True])
    assert [gone.object for gone in report.tc_removed] == ["filter", "qdisc", "qdisc"]


def test_what_was_settled_when_memory_runs_out_is_not_settled_again():
    made = pod(tap())
    cleanup = orphans.Cleanup(made, Target("tap*_urunc", "eth0"))
    assert cleanup.prepare() is None
    real, asked = made.change, []

    def change(*requests):
        if requests[-1].step != "delete link":
            return real(*requests)
        made.change = real
        real(*requests[:-1])
        raise Lost(errno.ENOBUFS, "")

    def before(requests):
        asked.extend(request.step for request in requests)
        if asked.count("list qdiscs") == 2:  # the first is to settle what was lost
            raise MemoryError

    made.change, made.before = change, before
    with pytest.raises(MemoryError):
        cleanup.finish()
    made.before, made.is_quiet = lambda requests: None, False
    report = cleanup.finish(later=True)
    assert (report.outcome, [each.deleted for each in report.taps]) == ("cleaned", [True])
    assert [gone.object for gone in report.tc_removed] == ["filter", "qdisc", "qdisc"]


def test_a_dead_redirect_alone_is_removed():
    made = pod()
    made.filters = [a_filter(2, "u32", 0)]
    assert removed(made, dry_run=True).outcome == "would-clean"
    assert removed(made).outcome == "cleaned"
    assert made.filters == [] and [each.kind for each in made.qdiscs] == ["noqueue"]


def test_an_empty_ingress_qdisc_without_an_orphan_is_left_alone():
    made = pod()
    assert [removed(made, dry_run=dry_run).outcome for dry_run in (True, False)] == [
        "clean",
        "clean",
    ]
    assert [each.kind for each in made.qdiscs] == ["noqueue", "ingress"]


def test_a_shared_block_is_foreign():
    made = pod(tap())
    made.qdiscs[1].blocks = {"ingress_block": 7}
    removed(made)
    assert [(each.ifindex, each.kind) for each in made.qdiscs] == [(2, "noqueue"), (2, "ingress")]
    assert [each.targets for each in made.filters] == [[0]]


# ---------------------------------------------------------------- things that happen meanwhile


def meanwhile(type, event):
    """Call ``event`` ahead of the first answer to a request of that type that is no dump."""
    fired = []

    def before(requests):
        if not fired and any(
            request.type == type and not request.dumps and request.step != "look up link"
            for request in requests
        ):
            fired.append(True)
            event()

    return before


@pytest.mark.parametrize("count", [1, 5])
def test_a_tap_that_comes_into_use_before_the_second_look_stops_everything(count):
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(count)])
    made.links[-1].group = 7
    second_look = uapi.RTM_GETLINK if count == 1 else uapi.RTM_SETLINK
    made.before = meanwhile(second_look, lambda: made.links[-1].facts.update(carrier=1))
    with pytest.raises(TapInUse):
        removed(made)
    assert len(made.links) == 3 + count
    assert not set(made.changes) - {uapi.RTM_SETLINK}
    assert [each.group for each in made.links] == [0] * (2 + count) + [7]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_another_tap_that_comes_into_use_stops_what_is_carried_out_later(count):
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(count)])
    if not count:
        made.filters.append(a_filter(2, "matchall", 0))  # a dead redirect, which alone is work too
    cleanup = orphans.Cleanup(made, Target("tap*_urunc", "eth0"))
    assert cleanup.prepare() is None
    made.links.append(tap(30, "tap30_urunc", carrier=1))
    with pytest.raises(TapInUse) as caught:
        cleanup.finish(later=True)
    assert caught.value.object == "tap30_urunc"
    assert [each.verdict for each in caught.value.report.taps] == ["orphan"] * count + ["in-use"]
    assert made.changes == []


@pytest.mark.parametrize("quiet", [True, False])
def test_what_is_carried_out_later_is_planned_anew_unless_all_was_quiet(quiet):
    made = pod(tap())
    cleanup = orphans.Cleanup(made, Target("tap*_urunc", "eth0"))
    assert cleanup.prepare() is None
    asked, made.is_quiet = [], quiet
    made.before = lambda requests: asked.extend(
        each.step for each in requests if each.step.startswith(("li", "lo", "re"))
    )
    assert cleanup.finish(later=True).outcome == "cleaned"
    again = [] if quiet else ["look up link", "list links", "list qdiscs", "list filters"]
    assert asked == ["list links"] + again + ["list links", "read link"]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
@pytest.mark.parametrize("held", [True, False])
def test_what_the_kernel_leaves_out_of_a_quick_list_is_seen_by_a_cleanup(count, held):
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(count)])
    made.links += [tap(30, "tap30_urunc"), tap(31, "tap31_urunc", carrier=int(held))]
    made.too_long = ("tap30_urunc",)
    made.filters.append(a_filter(2, "u32", 0))
    assert len(orphans.inspect(made, Target("tap*_urunc", "eth0")).taps) == count
    if held:
        for dry_run in (True, False):
            with pytest.raises(TapInUse) as caught:
                removed(made, dry_run=dry_run)
            assert caught.value.object == "tap31_urunc"
        assert len(made.links) == 5 + count and made.changes == []
    else:
        assert len(removed(made, dry_run=True).taps) == len(removed(made).taps) == 2 + count
        assert names(made) == ["lo", "eth0", "peer0"]


@pytest.mark.parametrize("uplink, left", [("eth0", "cleaned"), ("eth7", "skipped")])
def test_what_turns_out_later_to_be_done_or_none_of_our_business_is_told(uplink, left):
    made = pod(tap())
    cleanup = orphans.Cleanup(made, Target("tap*_urunc", "eth0"))
    assert cleanup.prepare() is None
    made.is_quiet = False
    made.links[1].name = uplink
    assert (cleanup.finish(later=True).outcome, len(made.changes)) == (
        left,
        4 if left == "cleaned" else 0,
    )


def test_what_a_plan_stands_on_is_listened_for():
    groups = uapi.RTMGRP_LINK | uapi.RTMGRP_TC
    assert [Target("*", uplink).groups for uplink in ("eth0", "none")] == [groups, groups]
    assert Target("*", "auto").groups == groups | uapi.RTMGRP_IPV4_ROUTE | uapi.RTMGRP_IPV6_ROUTE


def test_another_tap_that_comes_into_use_before_the_proof_of_a_group_stops_everything():
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(5)])
    made.before = meanwhile(
        uapi.RTM_SETLINK, lambda: made.links.append(tap(30, "tap30_urunc", carrier=1))
    )
    with pytest.raises(TapInUse):
        removed(made)
    assert len(made.links) == 3 + 6
    assert set(made.changes) == {uapi.RTM_SETLINK} and {each.group for each in made.links} == {0}


@pytest.mark.parametrize("change", [{"name": "vm0"}, {"ifindex": 9}])
def test_a_tap_that_is_renamed_or_replaced_before_the_second_look_is_looked_at_again(change):
    made = pod(tap())
    victim = made.links[-1]
    made.before = meanwhile(uapi.RTM_GETLINK, lambda: victim.__dict__.update(change))
    report = removed(made)
    assert ("vm0" in names(made)) is ("name" in change)
    assert [each.ifindex for each in report.taps if each.deleted] == (
        [] if "name" in change else [9]
    )


def test_what_is_gone_when_it_is_to_be_deleted_is_success():
    made = pod(tap())
    made.before = meanwhile(uapi.RTM_DELLINK, lambda: made.delete_link(made.links[-1]))
    report = removed(made)
    assert report.outcome == "cleaned" and report.taps[0].deleted


def test_a_refusal_tells_what_was_not_done_and_the_report_what_was():
    made = pod(tap())
    made.refuse = {uapi.RTM_DELLINK: errno.EPERM}
    with pytest.raises(Refused) as caught:
        removed(made)
    assert caught.value.errno == errno.EPERM
    assert str(caught.value) == "delete link tap0_urunc: EPERM; not done: delete link tap0_urunc"
    assert caught.value.report.outcome == "failed"
    assert len(caught.value.report.tc_removed) == 3 and not caught.value.report.taps[0].deleted


def test_a_refusal_tells_all_that_was_not_done():
    made = pod(tap())
    made.refuse = {uapi.RTM_DELLINK: errno.EPERM, uapi.RTM_DELQDISC: errno.EINVAL}
    with pytest.raises(Refused) as caught:
        removed(made)
    assert str(caught.value) == (
        "delete ingress qdisc eth0: EINVAL; "
        "not done: delete ingress qdisc eth0, delete ingress qdisc tap0_urunc, delete link "
        "tap0_urunc"
    )


def test_a_refused_priority_is_not_done_while_anything_of_it_is_there():
    made = pod(tap())
    made.refuse = {uapi.RTM_DELTFILTER: errno.EPERM, uapi.RTM_DELQDISC: errno.EPERM}
    with pytest.raises(Refused) as caught:
        removed(made)
    assert str(caught.value) == (
        "delete u32 filters of priority 49152 eth0: EPERM; "
        "not done: delete u32 filters of priority 49152 eth0, delete ingress qdisc eth0"
    )
    # whose qdisc went with it
    assert [each.dev for each in caught.value.report.tc_removed] == ["tap0_urunc"]


def test_one_that_comes_into_use_after_a_change_is_not_said_to_have_changed_nothing():
    made = pod(tap())
    made.refuse = {uapi.RTM_DELLINK: errno.EBUSY}
    made.before = lambda requests: made.links[-1].facts.update(
        carrier=int(uapi.RTM_DELLINK in made.changes)
    )
    with pytest.raises(TapInUse) as caught:
        removed(made)
    assert str(caught.value) == "clean up tap0_urunc: in use (carrier on)"
    assert (caught.value.report.outcome, len(caught.value.report.tc_removed)) == ("in-use", 3)


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EINTR, errno.EAGAIN])
def test_a_refusal_that_passes_is_tried_again(number):
    made = pod(tap())
    made.refuse = {uapi.RTM_DELLINK: number}
    made.before = lambda requests: (
        made.refuse.clear() if made.changes.count(uapi.RTM_DELLINK) == 2 else None
    )
    assert removed(made).outcome == "cleaned"
    assert names(made) == ["lo", "eth0", "peer0"]


def test_where_the_uplink_goes_in_the_middle_the_report_tells_what_was_done():
    made = pod(tap())
    made.refuse = {uapi.RTM_DELLINK: errno.EBUSY}
    made.before = lambda requests: made.links[1].__dict__.update(
        name="gone0" if made.changes else "eth0"
    )
    report = removed(made)
    assert (report.outcome, report.uplink, len(report.tc_removed)) == ("cleaned", "eth0", 3)
    assert [each.deleted for each in report.taps] == [False]


def test_a_refusal_that_does_not_pass_ends_in_failure():
    made = pod(tap())
    made.refuse = {uapi.RTM_DELLINK: errno.EBUSY}
    with pytest.raises(Refused):
        removed(made)
    assert names(made) == ["lo", "eth0", "peer0", "tap0_urunc"]
    # and each look finds it still there
    assert made.changes.count(uapi.RTM_DELLINK) == orphans.ROUNDS


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("carried_out", [True, False])
def test_a_lost_answer_is_settled_by_looking_again(count, carried_out):
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(count)])
    change, lost = made.change, []

    def losing(*requests):
        if any(request.type == uapi.RTM_DELLINK for request in requests) and not lost:
            lost.append(True)
            if carried_out:
                change(*requests)
            raise Lost(errno.ENOBUFS, "")
        return change(*requests)

    made.change = losing
    report = removed(made)
    assert report.outcome == "cleaned" and names(made) == ["lo", "eth0", "peer0"]
    assert len(report.taps) == count and all(each.deleted for each in report.taps)


def test_a_tap_that_goes_while_the_group_is_made_is_success():
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(5)])
    made.before = meanwhile(uapi.RTM_SETLINK, lambda: made.delete_link(made.links[-1]))
    assert removed(made).outcome == "cleaned"
    assert names(made) == ["lo", "eth0", "peer0"]


def test_a_group_that_cannot_be_made_is_a_failure():
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(5)])
    made.refuse = {uapi.RTM_SETLINK: errno.EPERM}
    with pytest.raises(Refused) as caught:
        removed(made)
    assert (caught.value.errno, caught.value.object) == (errno.EPERM, "tap0_urunc")
    assert len(made.links) == 8 and set(made.changes) == {uapi.RTM_SETLINK}


def test_a_group_is_undone_where_its_members_cannot_be_listed():
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(5)])
    made.links[-1].group = 7
    query, failed = made.query, []

    def failing(*requests):
        if made.changes and not failed:
            failed.append(True)
            raise Lost(errno.ETIMEDOUT, "")
        return query(*requests)

    made.query = failing
    with pytest.raises(Lost):
        removed(made)
    assert [each.group for each in made.links] == [0] * 7 + [7]


def test_a_namespace_that_changes_each_time_is_given_up():
    made = pod(tap())
    victim = made.links[-1]

    def before(requests):
        if requests[0].step == "read link":
            victim.ifindex += 1

    made.before = before
    with pytest.raises(Interrupted) as caught:
        removed(made)
    assert made.changes == []
    assert (
        str(caught.value)
        == "clean up /run/netns/made-up: the namespace changed each time it was looked at"
    )
    assert caught.value.report.outcome == "failed"
    assert victim.ifindex == 4 + 10


# ---------------------------------------------------------------- targets


def test_the_names_and_words_of_the_contract():
    assert (orphans.MATCH, orphans.TAP, orphans.UPLINK) == ("tap*_urunc", "tap0_urunc", "eth0")
    assert (IN_USE, ORPHAN) == ("in-use", "orphan")


def test_a_pattern_must_be_one_and_an_uplink_be_a_name():
    for match, uplink in (("", "eth0"), ("tap*", ""), ("tap*", "a" * 16), ("tap*", "a/b")):
        with pytest.raises(Invalid) as caught:
            Target(match, uplink)
        if not match:
            assert str(caught.value) == "check pattern: an empty pattern matches nothing"


# ---------------------------------------------------------------- the public functions


def test_what_is_not_said_is_to_act_on_all_and_to_tell_all():
    target = Target("tap*_urunc", "eth0")
    assert (target.tap, target.spare_fresh) == (None, False)
    assert len(orphans.inspect(pod(tap()), target).tc_removed) == 3
    for act in (orphans.remove, lambda made, target: orphans.Cleanup(made, target).remove()):
        made = pod(tap())
        assert act(made, target).outcome == "cleaned" and made.changes
    assert orphans.as_tap(TAP).deleted is False


def test_a_failure_before_anything_was_seen_has_its_report():
    for call in (orphans.cleanup, orphans.survey):
        with pytest.raises(Error) as caught:
            call(netns="/nonexistent/x", uplink="eth7")
        assert caught.value.report == report.Report(
            netns="/nonexistent/x",
            uplink="eth7",
            outcome="failed",
            taps=(),
            tc_removed=(),
            error=caught.value,
        )


def test_only_what_may_change_something_asks_to_be_alone(monkeypatch):
    opened = []

    @contextlib.contextmanager
    def opens(*arguments):
        opened.append(arguments)
        yield pod(tap())

    monkeypatch.setattr(orphans, "Namespace", opens)
    monkeypatch.setattr(orphans, "Route", lambda namespace, alone=False: opens("route", alone))
    outcomes = [
        orphans.cleanup("pod").outcome,
        orphans.cleanup("pod", dry_run=True).outcome,
        orphans.survey("pod").outcome,
    ]
    assert outcomes == ["cleaned", "would-clean", "would-clean"]
    assert [each.ifname for each in orphans.scan("pod")] == ["tap0_urunc"]
    assert opened == [
        each for alone in (True, False, False, False) for each in (("pod",), ("route", alone))
    ]


# ---------------------------------------------------------------- any namespace


@settings(build.patient, max_examples=300)
@given(random_pods.namespaces(), st.booleans())
def test_whatever_a_namespace_holds_only_orphans_and_what_is_theirs_goes(made, spare_fresh):
    before = copy.deepcopy(made)
    candidates = [each for each in before.links if random_pods.is_ours(each)]
    uplink_there = before.links[0].name == "eth0"
    try:
        report = removed(made, spare_fresh=spare_fresh)
    except TapInUse:
        assert uplink_there and any(random_pods.is_used(each) for each in candidates)
        assert state(made) == state(before) and made.changes == []
        return
    if not uplink_there:
        assert report.outcome == "skipped"
        assert state(made) == state(before) and made.changes == []
        return
    assert not any(random_pods.is_used(each) for each in candidates)

    doomed = random_pods.doomed(before, spare_fresh)
    gone = random_pods.gone(before, doomed)
    if not doomed and not gone:
        assert report.outcome == "clean" and made.changes == []
    random_pods.check_all_gone(before, made, doomed)
    random_pods.check_nothing_else_gone(before, made, doomed)

    made.changes.clear()
    assert removed(made, spare_fresh=spare_fresh).outcome == "clean"
    assert made.changes == []

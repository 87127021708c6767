# SPDX-License-Identifier: Apache-2.0
"""nlraw.observe: what is listed of a namespace, and what is made of the lists."""

import errno

import pytest

from lib import build
from lib.build import a_filter, a_link, a_qdisc
from lib.random_pods import CLSACT_IN, CLSACT_OUT, HTB, INGRESS
from nlraw import observe, uapi
from nlraw.errors import Refused
from nlraw.report import Ignored
from nlraw.verdict import Target

AUTO = Target(uplink="auto")


def links_of(*made):
    return [
        build.as_link(build.link_payload(each.ifindex, each.name, **each.facts)) for each in made
    ]


ETH0, NET1 = a_link(2, "eth0", kind="veth"), a_link(3, "net1", kind="veth")
TAP, USED = a_link(4, "tap0_urunc"), a_link(5, "tap1_urunc", carrier=1)


def names(links):
    return [each.ifname for each in links]


# ---------------------------------------------------------------- links


def test_what_a_plan_stands_on_is_listened_for():
    groups = uapi.RTMGRP_LINK | uapi.RTMGRP_TC
    for uplink in ("eth0", "none", ["eth0", "net1"]):
        assert observe.groups_of(Target("*", uplink)) == groups
    routes = uapi.RTMGRP_IPV4_ROUTE | uapi.RTMGRP_IPV6_ROUTE
    assert observe.groups_of(Target("*", "auto")) == groups | routes


def test_a_snapshot_has_the_uplinks_in_their_order_and_the_taps_in_the_kernels():
    links = links_of(TAP, ETH0, USED, NET1)
    seen = observe.snapshot_of(links, Target(uplink=["net1", "gone0", "eth0"]))
    assert names(seen.uplinks) == ["net1", "eth0"]
    assert names(seen.taps) == ["tap0_urunc", "tap1_urunc"]
    assert seen.names == {2: "eth0", 3: "net1", 4: "tap0_urunc", 5: "tap1_urunc"}
    assert (seen.ignored, seen.uppers, seen.default_taps) == ((), {}, ())
    assert observe.snapshot_of(links, Target(uplink="none")).uplinks == ()


def test_links_that_match_and_are_no_taps_are_ignored_by_name():
    links = links_of(
        TAP,
        a_link(6, "tap2_urunc", kind="macvtap"),
        a_link(7, "tap3_urunc", mode=uapi.IFF_TUN),
        a_link(8, "tap4_urunc", kind=None, mode=None),
        a_link(9, "paused0_urunc", kind="veth"),
    )
    seen = observe.snapshot_of(links, Target("*_urunc", exclude="paused*"))
    assert names(seen.taps) == ["tap0_urunc"]
    assert seen.ignored == (
        Ignored(ifname="tap2_urunc", kind="macvtap"),
        Ignored(ifname="tap3_urunc", kind="tun"),
        Ignored(ifname="tap4_urunc", kind="unknown"),
    )


def test_what_is_stacked_on_a_link_of_this_namespace_is_its_upper():
    links = links_of(
        TAP,
        a_link(6, "mac0", kind="macvlan", lower=4),
        a_link(7, "vlan0", kind="vlan", lower=4),
        a_link(8, "there0", kind="macvlan", lower=4, lower_netnsid=0),
        a_link(9, "self0", kind="veth", lower=9),
        a_link(10, "none0", kind="vlan", lower=0),
    )
    assert observe.snapshot_of(links, Target()).uppers == {4: ["mac0", "vlan0"]}


@pytest.mark.parametrize(
    "routes, uplinks, default_taps",
    [
        ([], [], []),
        ([2], ["eth0"], []),
        ([3, 2], ["net1"], []),  # the first one alone
        ([9, 2], ["eth0"], []),  # one that is gone meanwhile
        ([4, 5, 3], ["net1"], ["tap0_urunc", "tap1_urunc"]),  # a TAP may have one too
        ([4], [], ["tap0_urunc"]),
    ],
)
def test_the_uplink_auto_is_the_first_default_route_that_is_no_tap(routes, uplinks, default_taps):
    seen = observe.snapshot_of(links_of(TAP, ETH0, USED, NET1), AUTO, routes)
    assert names(seen.uplinks) == uplinks and list(seen.default_taps) == default_taps


def test_the_uplink_auto_is_not_ignored_for_its_name():
    links = links_of(a_link(2, "tap7_urunc", kind="veth"), a_link(3, "tap8_urunc", kind="veth"))
    seen = observe.snapshot_of(links, AUTO, [2, 3])
    assert names(seen.uplinks) == ["tap7_urunc"] and names(seen.ignored) == ["tap8_urunc"]


def test_the_default_routes_are_listed_only_for_auto_ipv4_first():
    made = build.Namespace([TAP, ETH0, NET1])
    made.routes = [(10, 3), (2, 2), (2, 2)]
    asked = []
    made.before = lambda requests: asked.extend(each.step for each in requests)
    assert names(observe.observe_links(made, AUTO).uplinks) == ["eth0"]
    assert len(asked) == 3 and asked[-1] == "list links"
    del asked[:]
    assert names(observe.observe_links(made, Target()).uplinks) == ["eth0"]
    assert asked == ["list links"]


# ---------------------------------------------------------------- TC


def pod():
    """Three devices with qdiscs of all sorts, and a TAP with its own."""
    made = build.Namespace([ETH0, NET1, TAP])
    made.qdiscs = [
        a_qdisc(2, "noqueue", 0, uapi.TC_H_ROOT),
        a_qdisc(2, "clsact"),
        a_qdisc(3, "ingress", ingress_block=22),
        a_qdisc(3, "htb", HTB, uapi.TC_H_ROOT),
        a_qdisc(4, "ingress", ingress_block=33),
        a_qdisc(9, "clsact", egress_block=11),
    ]
    made.filters = [
        a_filter(2, "u32", 4, parent=CLSACT_IN),
        a_filter(build.BLOCK, "u32", 4, parent=22),
    ]
    return made


def places(seen):
    return [(each.dev, each.parent, len(each.filters), each.is_uplink) for each in seen.points]


def observed(made, target):
    return observe.observe_tc(made, observe.observe_links(made, target), target)


def test_with_an_orphan_the_filters_of_all_devices_and_blocks_are_listed():
    seen = observed(pod(), Target())
    assert places(seen) == [
        ("eth0", CLSACT_IN, 1, True),
        ("eth0", CLSACT_OUT, 0, True),
        ("net1", HTB, 0, False),
        ("ifindex 9", CLSACT_IN, 0, False),  # it came after the links were listed
        ("block 11", 11, 0, False),
        ("block 22", 22, 1, False),
    ]
    assert [each.qdisc is None for each in seen.points] == [False] * 4 + [True] * 2
    assert len(seen.qdiscs) == 6 and all(each.chains is None for each in seen.points)


@pytest.mark.parametrize("target", [Target("none*"), Target(spare_fresh=True)])
def test_without_an_orphan_to_go_those_of_the_uplinks_alone_are_listed(target):
    made = pod()
    made.links[2] = a_link(4, "tap0_urunc", up_count=0)
    assert places(observed(made, target)) == [
        ("eth0", CLSACT_IN, 1, True),
        ("eth0", CLSACT_OUT, 0, True),
    ]
    made.qdiscs[1].blocks = {"egress_block": 7}
    assert places(observed(made, target)) == [("eth0", CLSACT_IN, 1, True)]


def test_everything_is_listed_while_a_change_is_open():
    made = pod()
    made.links.pop()
    seen = observe.observe_links(made, Target())
    few = observe.observe_tc(made, seen, Target())
    assert [each.dev for each in few.points] == ["eth0", "eth0"]
    everything = observe.observe_tc(made, seen, Target(), True)
    assert [each.dev for each in everything.points] == [
        "eth0",
        "eth0",
        "net1",
        "ifindex 9",
        "block 11",
        "block 22",
        "block 33",
    ]


def shared():
    """A pod with u32 filters of one number on both sides of a clsact, each with its root table."""
    made = pod()
    made.filters = []
    for number, parent in enumerate((CLSACT_IN, CLSACT_OUT), 1):
        made.filters.append(a_filter(2, "u32", handle=9 + number, parent=parent, table=True))
        made.filters.append(a_filter(2, "u32", 4, handle=number, parent=parent))
    return made


def test_u32_priorities_that_are_listed_together_are_divided_by_their_root_tables():
    made, steps = shared(), []
    made.before = lambda requests: steps.append([each.step for each in requests])
    seen = observed(made, Target())
    incoming, outgoing = seen.points[:2]
    tables = [[entry.table for entry in point.filters] for point in (incoming, outgoing)]
    assert tables == [[0x80000000] * 2, [0x80100000] * 2]
    assert steps[-1] == ["read root table of priority 49152"] * 2


def test_a_u32_priority_that_is_gone_when_its_root_table_is_read_has_no_filter():
    made = shared()

    def before(requests):
        if requests[0].step.startswith("read root table"):
            made.filters = [each for each in made.filters if each.parent == CLSACT_IN]

    made.before = before
    incoming, outgoing = observed(made, Target()).points[:2]
    assert outgoing.filters == []
    assert [entry.table for entry in incoming.filters if entry.is_filter][:1] == [0x80000000]


@pytest.mark.parametrize(
    "number, groups, quiet, gone",
    [
        (errno.ENOENT, 9, True, True),
        (errno.EINVAL, 9, False, True),  # with its chain, qdisc or block, which was announced
        (errno.EINVAL, 9, True, False),
        (errno.EINVAL, 0, False, False),
        (errno.EPERM, 9, False, False),
    ],
)
def test_a_root_table_that_is_not_gone_and_cannot_be_read_is_a_failure(number, groups, quiet, gone):
    made = shared()
    ask = made.ask

    def refusing(*requests):
        replies = ask(*requests)
        if requests[0].step.startswith("read root table"):
            made.is_quiet, made.groups = quiet, groups
            replies[1].error = Refused(number, "")
        return replies

    made.ask = refusing
    if not gone:
        with pytest.raises(Refused):
            observed(made, Target())
        return
    incoming, outgoing = observed(made, Target()).points[:2]
    assert outgoing.filters == [] and len(incoming.filters) > 1


def test_a_filter_that_the_kernel_cannot_list_is_named_as_such():
    made = pod()
    made.refuse = {uapi.RTM_GETTFILTER: errno.EMSGSIZE}
    with pytest.raises(Refused) as caught:
        observed(made, Target())
    assert (caught.value.errno, caught.value.object) == (errno.EMSGSIZE, "eth0")
    assert "too long for the kernel to list" in caught.value.message
    made.refuse = {uapi.RTM_GETTFILTER: errno.ENOMEM}
    with pytest.raises(Refused) as caught:
        observed(made, Target())
    assert str(caught.value) == "list filters eth0: ENOMEM"


def test_chains_are_listed_of_those_points_alone_that_are_asked_about():
    made = pod()
    made.qdiscs[1] = a_qdisc(2, "ingress")
    made.filters[0].parent = INGRESS
    made.chains = [(2, INGRESS, 5), (3, HTB, 6)]
    seen = observed(made, Target())
    asked = []
    made.before = lambda requests: asked.extend((each.step, each.object) for each in requests)
    block = seen.points[-1]
    listed = observe.observe_chains(made, seen, [seen.points[0], block])
    assert asked == [("list chains", "eth0")]
    assert [each.chains for each in listed.points] == [[0, 5]] + [None] * (len(seen.points) - 1)
    assert listed.points[1:] == seen.points[1:] and listed.qdiscs == seen.qdiscs


def test_a_kernel_that_knows_no_chains_has_no_explicit_one():
    made = pod()
    seen = observed(made, Target())
    made.refuse = {uapi.RTM_GETCHAIN: errno.EOPNOTSUPP}
    listed = observe.observe_chains(made, seen, seen.points[:1])
    assert listed.points[0].chains == ()
    made.refuse = {uapi.RTM_GETCHAIN: errno.EPERM}
    with pytest.raises(Refused):
        observe.observe_chains(made, seen, seen.points[:1])

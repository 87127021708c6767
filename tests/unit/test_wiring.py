# SPDX-License-Identifier: Apache-2.0
"""nlraw.wiring: the requests that connect TAPs to uplinks, and where a redirect goes."""

import errno

import pytest

from lib import build
from lib.random_pods import CLSACT_IN, CLSACT_OUT, INGRESS
from nlraw import link, tc, uapi
from nlraw.errors import Refused
from nlraw.exchange import Reply
from nlraw.report import TcObject
from nlraw.snapshot import AttachmentPoint, Snapshot
from nlraw.wiring import Wiring, mtu_for


def a_device(ifindex, name, **facts):
    return build.as_link(build.link_payload(ifindex, name, **dict({"mtu": 1500}, **facts)))


ETH0, NET1 = a_device(2, "eth0", kind="veth", mtu=1450), a_device(3, "net1", kind="veth")
TAP, OTHER_TAP = a_device(30, "tap0_urunc"), a_device(31, "tap1_urunc")
KINDS = {2: "eth0", 3: "net1"}


def seen(ifindex=2, kind=None, incoming=(), outgoing=()):
    """A snapshot whose uplink has a qdisc of that kind, with filters of these priorities."""
    if kind is None:
        return Snapshot([ETH0, NET1])
    qdisc = build.as_qdisc(build.qdisc_payload(ifindex, kind))
    sides = [(INGRESS, incoming)]
    if kind == "clsact":
        sides = [(CLSACT_IN, incoming), (CLSACT_OUT, outgoing)]
    points = [
        AttachmentPoint(
            KINDS[ifindex],
            qdisc,
            parent,
            [
                build.as_filter(build.redirect_payload(ifindex, "matchall", 9, priority=number))
                for number in priorities
            ],
            is_uplink=True,
        )
        for parent, priorities in sides
    ]
    return Snapshot([ETH0, NET1], qdiscs=[qdisc], points=points)


def steps(wiring):
    return ["%s %s" % (each.step, each.object) for each in wiring.requests]


def redirects(wiring):
    """Device, parent, priority and target of each redirect, in order."""
    found = [
        tc.Filter(build.received(uapi.RTM_NEWTFILTER, each.payload))
        for each in wiring.requests
        if each.type == uapi.RTM_NEWTFILTER
    ]
    return [
        (each.ifindex, each.parent, each.priority, each.actions()[0].redirect) for each in found
    ]


# ---------------------------------------------------------------- what is asked for


def test_each_stage_is_for_all_taps_and_traffic_starts_with_the_uplinks_redirects():
    wiring = Wiring(seen(), [(TAP, ETH0), (OTHER_TAP, NET1)])
    assert steps(wiring) == [
        "set up link tap0_urunc",
        "set up link tap1_urunc",
        "create qdisc (ingress) eth0",
        "create qdisc (ingress) net1",
        "create qdisc (ingress) tap0_urunc",
        "create qdisc (ingress) tap1_urunc",
        "create redirect (u32, mirred) tap0_urunc",
        "create redirect (u32, mirred) tap1_urunc",
        "create redirect (u32, mirred) eth0",
        "create redirect (u32, mirred) net1",
    ]
    assert redirects(wiring) == [
        (30, INGRESS, 0, 2),
        (31, INGRESS, 0, 3),
        (2, INGRESS, 0, 30),
        (3, INGRESS, 0, 31),
    ]
    mtus = [
        link.Link(build.received(uapi.RTM_NEWLINK, each.payload)).mtu
        for each in wiring.requests[:2]
    ]
    assert mtus == [1450, 1500]
    assert wiring.had_ingress() == set()


def test_an_uplink_that_has_a_qdisc_gets_no_other():
    wiring = Wiring(seen(3, "clsact"), [(TAP, ETH0), (OTHER_TAP, NET1)])
    assert "create qdisc (ingress) net1" not in steps(wiring)
    assert redirects(wiring)[-1] == (3, CLSACT_IN, 0, 31)
    assert wiring.had_ingress() == {3}


def test_a_tap_alone_gets_its_address_and_no_qdisc():
    wiring = Wiring(Snapshot(), [(TAP, None)], (b"\x0a\x09\x08\x01", 24))
    assert steps(wiring) == ["set up link tap0_urunc", "put address on tap0_urunc"]
    assert wiring.had_ingress() == set() and wiring.ahead([]) == ()


@pytest.mark.parametrize(
    "mtu, largest, expected",
    [(1450, 65521, 1450), (65535, 65521, 65521), (65535, 0, 65535), (65535, None, 65535)],
)
def test_an_mtu_that_is_too_large_is_lowered_to_what_the_kernel_takes(mtu, largest, expected):
    tap = a_device(30, "tap0_urunc", max_mtu=largest)
    assert mtu_for(tap, a_device(2, "eth0", mtu=mtu)) == expected


def test_without_an_uplink_the_mtu_stays():
    assert mtu_for(a_device(30, "tap0_urunc", mtu=1500, max_mtu=65521), None) == 1500
    assert mtu_for(a_device(30, "tap0_urunc", mtu=None), None) == 0


# ---------------------------------------------------------------- where the redirect goes


@pytest.mark.parametrize(
    "incoming, outgoing, priority",
    [
        ([], [], 0),  # the kernel picks one
        ([0xC000], [], 0xBFFF),
        ([1, 7], [], 0xC000),
        ([0xC000], [0xBFFF], 0xBFFE),
        ([0x8000], [0x7FFF], 0x7FFE),
        ([0x8000, 2, 3], [0x7FFF, 0x7FFE], 0x7FFD),
        ([], range(2, 0x8001), 1),
        ([], range(1, 0x8001), 0),  # none is left: the kernel is asked for one
    ],
)
def test_the_redirect_goes_ahead_of_others_where_neither_side_uses_the_priority(
    incoming, outgoing, priority
):
    wiring = Wiring(seen(2, "clsact", incoming, outgoing), [(TAP, ETH0)])
    assert redirects(wiring)[-1] == (2, CLSACT_IN, priority, 30)


@pytest.mark.parametrize("incoming, expected", [((), [False, False]), ((7,), [False, True])])
def test_a_redirect_is_reported_only_beside_others(incoming, expected):
    wiring = Wiring(seen(kind="ingress", incoming=incoming), [(TAP, ETH0)])
    made = [each for each in wiring.requests if each.type == uapi.RTM_NEWTFILTER]
    assert [bool(each.flags & uapi.NLM_F_ECHO) for each in made] == expected


def test_the_priorities_of_another_uplink_do_not_count():
    wiring = Wiring(seen(3, "ingress", [0xC000]), [(TAP, ETH0), (OTHER_TAP, NET1)])
    assert redirects(wiring)[-2:] == [(2, INGRESS, 0, 30), (3, INGRESS, 0xBFFF, 31)]


# ---------------------------------------------------------------- what was answered


def replied(wiring, priorities, refused=(), number=errno.EEXIST):
    """A reply to each request; the last ones report redirects of these priorities."""
    replies = [Reply(request) for request in wiring.requests]
    for reply in replies:
        if "%s %s" % (reply.request.step, reply.request.object) in refused:
            reply.error = Refused(number, "refused", "", "")
    for reply, priority in zip(replies[len(replies) - len(priorities) :], priorities):
        payload = build.redirect_payload(2, "u32", 30, priority=priority)
        reply.messages.append(build.received(uapi.RTM_NEWTFILTER, payload))
    return replies


def test_a_qdisc_that_was_refused_is_somebody_elses():
    wiring = Wiring(seen(), [(TAP, ETH0), (OTHER_TAP, NET1)])
    assert wiring.had_ingress(replied(wiring, [])) == set()
    refused = ["create qdisc (ingress) net1"]
    assert wiring.had_ingress(replied(wiring, [], refused)) == {3}
    assert wiring.had_ingress(replied(wiring, [], refused, errno.EPERM)) == set()
    # that of a TAP is no uplink's
    assert wiring.had_ingress(replied(wiring, [], ["create qdisc (ingress) tap0_urunc"])) == set()


def test_of_each_uplink_the_foreign_filters_ahead_of_its_redirect_are_reported():
    wiring = Wiring(seen(2, "clsact", [5, 7, 50000], [3]), [(TAP, ETH0), (OTHER_TAP, NET1)])
    found = TcObject(dev="eth0", object="filter", kind="matchall")
    assert wiring.ahead(replied(wiring, [49152, 49152])) == (found, found)
    assert wiring.ahead(replied(wiring, [6, 49152])) == (found,)
    wiring = Wiring(seen(3, "ingress", [5]), [(TAP, ETH0), (OTHER_TAP, NET1)])
    assert [each.dev for each in wiring.ahead(replied(wiring, [49152, 49152]))] == ["net1"]


def test_a_redirect_that_was_not_reported_has_nothing_ahead():
    wiring = Wiring(seen(2, "clsact", [5], []), [(TAP, ETH0)])
    assert wiring.ahead(replied(wiring, [])) == ()

# SPDX-License-Identifier: Apache-2.0
"""nlraw.nexthop: next hops in routes, and objects, in captured replies and made ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import build, golden, lists
from nlraw import inet, nexthop, uapi, wire
from nlraw.errors import Malformed


def facts(hops):
    return [(hop.ifindex, hop.gateway, hop.weight, hop.is_onlink) for hop in hops]


def test_dump_bytes():
    assert build.sent(nexthop.dump()) == build.native(
        """
        u32=24 u16=106 u16=0x301 u32=1 u32=0                   # RTM_GETNEXTHOP, REQUEST | DUMP
        u8=0 u8=0 u8=0 u8=0 u32=0                              # nhmsg
        """
    )
    request = nexthop.dump()
    assert (request.step, request.object, request.fixed) == ("list next hops", "", 8)


# ---------------------------------------------------------------- in routes


@golden.needs_little_endian
def test_the_next_hops_of_captured_routes():
    (reply,) = golden.play("routes-of-guest", inet.dump_routes(inet.AF_UNSPEC))
    found = [
        facts(nexthop.hops(route))
        for route in inet.routes(reply.answer())
        if route.table == uapi.RT_TABLE_MAIN and route.protocol in (3, 77)
    ]
    assert found == [
        [(3, "169.254.1.1", 1, False)],
        [(3, "fe80::1", 1, False)],
        [(3, "172.16.0.1", 1, True)],
        [
            (3, "169.254.1.1", 3, False),
            (2, "10.9.7.1", 1, False),
            (3, "fe80::5", 1, True),
        ],
        [],  # the blackhole
        [(3, None, 1, False)],
        [(3, None, 1, False)],
        [(1, None, 1, False)],  # IPv6 routes to nowhere have the device lo
        [(3, None, 1, False)],
        [(3, "fd00::1", 2, False), (3, "fd00::9", 1, False)],
    ]


def test_a_gateway_of_a_family_that_is_unknown_is_none():
    value = (17).to_bytes(2, build.sys.byteorder) + bytes(6)
    payload = uapi.rtmsg.pack(2, 0, 0, 0, 254, 3, 0, 1, 0) + wire.attribute(uapi.RTA_VIA, value)
    payload += wire.attribute_u32(uapi.RTA_OIF, 2)
    (route,) = inet.routes([build.received(uapi.RTM_NEWROUTE, payload)])
    assert facts(nexthop.hops(route)) == [(2, None, 1, False)]


@pytest.mark.parametrize("size, offset", [(0, 0), (7, 0), (9, 0), (16, 8)], ids=str)
def test_a_next_hop_of_an_impossible_length_is_malformed(size, offset):
    good = lists.a_hop(3) if offset else b""
    bad = uapi.rtnexthop.pack(size, 0, 0, 3)
    route = lists.a_route(oif=None, hops=[good, bad])
    with pytest.raises(Malformed) as caught:
        nexthop.hops(route)
    start, end = route.attributes.span(uapi.RTA_MULTIPATH)
    assert caught.value.offset == start + offset
    words = "next hop length %d with %d bytes left" % (size, end - start - offset)
    assert caught.value.message.startswith(words + ", at")


def test_the_rest_of_a_next_hop_is_malformed():
    with pytest.raises(Malformed):
        nexthop.hops(lists.a_route(oif=None, hops=[lists.a_hop(3), bytes(4)]))


def test_a_hop_shows_what_it_is():
    (hop,) = nexthop.hops(lists.a_route(gateway="10.9.8.1", flags=uapi.RTNH_F_ONLINK))
    assert repr(hop) == "Hop(ifindex=2, gateway=10.9.8.1, weight=1, flags=0x4)"


# ---------------------------------------------------------------- objects


@golden.needs_little_endian
def test_captured_routes_and_the_objects_that_they_refer_to():
    (reply,) = golden.play("next-hops", nexthop.dump())
    known = {each.id: each for each in nexthop.objects(reply.answer())}
    assert sorted(known) == [1, 2, 3, 4, 10, 20]
    (reply,) = golden.play("routes-by-object", inet.dump_routes(inet.AF_UNSPEC))
    routes = [
        route for route in inet.routes(reply.answer()) if nexthop.object_id(route) is not None
    ]
    assert [nexthop.hops(route) for route in routes] == [[]] * 5
    assert [facts(nexthop.resolve(known, nexthop.object_id(route))) for route in routes] == [
        [(3, "169.254.1.1", 1, False)],
        [(3, "fe80::33", 1, True)],
        [(3, "169.254.1.1", 3, False), (2, "10.9.7.1", 20, False)],
        [],
        [(3, "fd00::44", 1, False)],
    ]


def test_a_weight_may_need_both_bytes():
    known = {
        1: lists.an_object(1, 2, "10.9.8.1"),
        2: lists.an_object(2, 3),
        9: lists.an_object(9, group=[(1, 256), (2, 65536)]),
    }
    assert facts(nexthop.resolve(known, 9)) == [
        (2, "10.9.8.1", 256, False),
        (3, None, 65536, False),
    ]


def test_an_object_that_is_not_known_is_a_key_error():
    with pytest.raises(KeyError):
        nexthop.resolve({}, 1)
    with pytest.raises(KeyError):
        nexthop.resolve({9: lists.an_object(9, group=[(1, 1)])}, 9)


def test_an_object_shows_what_it_is():
    found = lists.an_object(9, 2, "10.9.8.1")
    hop = "Hop(ifindex=2, gateway=10.9.8.1, weight=1, flags=0x0)"
    assert repr(found) == "NextHopObject(9: %s, members=[])" % hop
    group = lists.an_object(9, group=[(1, 7)])
    assert repr(group) == "NextHopObject(9: None, members=[(1, 7)])"
    (nameless,) = nexthop.objects([build.received(uapi.RTM_NEWNEXTHOP, bytes(8))])
    assert nameless.id == 0
    assert nexthop.objects([build.received(uapi.RTM_NEWROUTE, bytes(12))]) == []


def test_a_group_with_half_a_member_is_malformed():
    payload = uapi.nhmsg.pack(0, 0, 0, 0) + wire.attribute(uapi.NHA_GROUP, bytes(12))
    (found,) = nexthop.objects([build.received(uapi.RTM_NEWNEXTHOP, payload)])
    with pytest.raises(Malformed):
        found.members()


# ---------------------------------------------------------------- any bytes


def attributes(types):
    return st.lists(st.tuples(st.sampled_from(types), st.binary(max_size=40)), max_size=5).map(
        lambda row: b"".join(wire.attribute(type, value) for type, value in row)
    )


@build.patient
@given(attributes([4, 5, 9, 18, 30]), st.sampled_from([2, 10, 7]))
def test_any_bytes_are_next_hops_or_malformed(row, family):
    payload = uapi.rtmsg.pack(family, 0, 0, 0, 254, 0, 0, 1, 0) + row
    (route,) = inet.routes([build.received(uapi.RTM_NEWROUTE, payload)])
    try:
        repr(nexthop.hops(route)), nexthop.object_id(route)
    except Malformed:
        pass


@build.patient
@given(attributes([1, 2, 5, 6]), st.sampled_from([2, 10, 7]))
def test_any_bytes_are_an_object_or_malformed(row, family):
    payload = uapi.nhmsg.pack(family, 0, 0, 0) + row
    (found,) = nexthop.objects([build.received(uapi.RTM_NEWNEXTHOP, payload)])
    try:
        repr(found)
    except Malformed:
        pass

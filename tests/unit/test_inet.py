# SPDX-License-Identifier: Apache-2.0
"""nlraw.inet: the requests byte for byte.

Addresses and default routes as they are in captured replies.
"""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import build, golden
from nlraw import inet, link, uapi, wire
from nlraw.errors import Malformed

# ---------------------------------------------------------------- requests


@pytest.mark.parametrize("family", [inet.AF_UNSPEC, inet.AF_INET, inet.AF_INET6])
def test_dump_routes_bytes(family):
    assert build.sent(inet.dump_routes(family)) == build.native(
        """
        u32=28 u16=26 u16=0x301 u32=1 u32=0                         # RTM_GETROUTE, REQUEST | DUMP
        u8=%d u8=0 u8=0 u8=0 u8=0 u8=0 u8=0 u8=0 u32=0              # rtmsg: family
        """
        % family
    )


def test_dump_addresses_bytes():
    assert build.sent(inet.dump_addresses()) == build.native(
        """
        u32=24 u16=22 u16=0x301 u32=1 u32=0                         # RTM_GETADDR, REQUEST | DUMP
        u8=0 u8=0 u8=0 u8=0 u32=0                                   # ifaddrmsg: AF_UNSPEC
        """
    )


def test_create_address_bytes():
    assert build.sent(inet.create_address(7, b"\x0a\x09\x08\x02", 24, "tap0")) == build.native(
        """
        u32=40 u16=20 u16=0x605 u32=1 u32=0            # RTM_NEWADDR, REQUEST | ACK | CREATE | EXCL
        u8=2 u8=24 u8=0 u8=0 u32=7                     # ifaddrmsg: AF_INET, prefix length, index
        u16=8 u16=2 0a 09 08 02                                     # IFA_LOCAL
        u16=8 u16=1 0a 09 08 02                                     # IFA_ADDRESS
        """
    )


def test_create_ipv6_address_bytes():
    address = bytes.fromhex("fd00" + "00" * 13 + "02")
    value = "fd 00" + " 00" * 13 + " 02"
    assert build.sent(inet.create_address(7, address, 64, "tap0")) == build.native(
        """
        u32=64 u16=20 u16=0x605 u32=1 u32=0            # RTM_NEWADDR, REQUEST | ACK | CREATE | EXCL
        u8=10 u8=64 u8=0 u8=0 u32=7                    # ifaddrmsg: AF_INET6, prefix length, index
        u16=20 u16=2 %s
        u16=20 u16=1 %s
        """
        % (value, value)
    )


# ---------------------------------------------------------------- addresses as text


def text(address):
    family = inet.AF_INET if len(address) == 4 else inet.AF_INET6
    return inet.address_text(family, b"xx" + address + b"xx", (2, 2 + len(address)))


@pytest.mark.parametrize(
    "address",
    """:: ::1 1:: 1::8 0:0:1:: 1:0:0:2:0:0:0:3 1:0:0:2:0:0:3:4 1:0:2:3:4:5:6:7 0:1:2:3:4:5:6:7
    1:2:3:4:5:6:7:0 fe80::1 ff02::16 ::ffff:10.9.8.2 ::10.9.8.2 ::ffff:0:10.9.8.2 ::0.0.1.2 ::1:2:3
    64:ff9b::10.9.8.2 2001:db8::5 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ::ffff 1:0::""".split(),
)
def test_an_ipv6_address_is_written_as_the_c_library_does(address):
    packed = socket.inet_pton(socket.AF_INET6, address)
    assert text(packed) == socket.inet_ntop(socket.AF_INET6, packed)


words = st.lists(st.sampled_from([0, 0, 0, 1, 0xFFFF, 0xA0B]), min_size=8, max_size=8)


@build.patient
@given(st.one_of(words.map(lambda row: struct.pack(">8H", *row)), st.binary(min_size=16)))
def test_any_ipv6_address_is_written_as_the_c_library_does(packed):
    assert text(packed[:16]) == socket.inet_ntop(socket.AF_INET6, packed[:16])


@build.patient
@given(st.binary(min_size=4, max_size=4))
def test_any_ipv4_address_is_written_as_the_c_library_does(packed):
    assert text(packed) == socket.inet_ntop(socket.AF_INET, packed)


def test_an_address_of_another_family_has_no_text_and_one_that_is_cut_is_malformed():
    assert inet.address_text(17, bytes(16), (0, 16)) is None
    for family, size in ((inet.AF_INET, 3), (inet.AF_INET6, 15)):
        with pytest.raises(Malformed) as caught:
            inet.address_text(family, bytes(20), (2, 2 + size))
        assert caught.value.offset == 2


# ---------------------------------------------------------------- captured


@golden.needs_little_endian
def test_captured_ipv4_default_routes_are_those_of_the_main_table_by_metric():
    (reply,) = golden.play("routes-ipv4", inet.dump_routes(inet.AF_INET))
    found = inet.default_routes(reply.answer())
    assert [(route.ifindex, route.metric) for route in found] == [(2, 10), (3, 20)]


@golden.needs_little_endian
def test_a_captured_ipv6_default_route_is_one_too():
    (reply,) = golden.play("routes-ipv6", inet.dump_routes(inet.AF_INET6))
    found = inet.default_routes(reply.answer())
    assert [(route.ifindex, route.metric) for route in found] == [(3, 1024)]


@golden.needs_little_endian
def test_captured_addresses_of_both_families_with_far_ends_and_broadcasts():
    (reply,) = golden.play("addresses-of-guest", inet.dump_addresses())
    found = inet.addresses(reply.answer())
    assert [
        (each.local, each.prefixlen, each.far_end, each.broadcast, each.scope, each.is_secondary)
        for each in found
        if each.ifindex == 3 and not each.local.startswith("fe80")
    ] == [
        ("169.254.7.7", 16, None, None, 253, False),
        ("10.9.8.2", 24, None, "10.9.8.255", 0, False),
        ("10.9.9.2", 32, "10.9.9.1", None, 0, False),
        ("10.9.8.3", 24, None, None, 0, True),
        ("fd00::1:2", 128, "fd00::1:1", None, 0, False),
        ("fd00::2", 64, None, None, 0, False),
    ]
    assert [each.local for each in found if each.scope == 253 and each.family == inet.AF_INET6]


# ---------------------------------------------------------------- made


def route(
    *attributes, family=inet.AF_INET, length=0, table=uapi.RT_TABLE_MAIN, kind=uapi.RTN_UNICAST
):
    payload = uapi.rtmsg.pack(family, length, 0, 0, table, 0, 0, kind, 0) + b"".join(attributes)
    return build.received(uapi.RTM_NEWROUTE, payload)


OIF = wire.attribute_u32(uapi.RTA_OIF, 3)


def found(*messages):
    return [(each.ifindex, each.metric) for each in inet.default_routes(messages)]


def test_a_route_without_a_metric_is_of_metric_0():
    assert found(route(OIF)) == [(3, 0)]


@pytest.mark.parametrize(
    "other",
    [
        route(OIF, length=8),
        route(OIF, table=255),
        route(OIF, kind=7),
        route(OIF, wire.attribute_u32(uapi.RTA_TABLE, 1000)),
        route(),
        build.received(uapi.RTM_NEWLINK, build.link_payload()),
    ],
)
def test_what_is_no_default_route_of_the_main_table_is_left_out(other):
    assert found(other) == []


def test_routes_of_the_local_table_can_be_left_out():
    main, local, big = route(OIF), route(OIF, table=255), route(OIF, table=252)
    other = build.received(uapi.RTM_NEWLINK, build.link_payload())
    found = inet.routes_but_local([other, local, main, big])
    assert [each.table for each in found] == [254, 252]
    with pytest.raises(Malformed):
        inet.routes_but_local([build.received(uapi.RTM_NEWROUTE, bytes(4))])


def test_the_table_attribute_counts_more_than_the_byte_in_the_header():
    assert found(route(OIF, wire.attribute_u32(uapi.RTA_TABLE, 254), table=252)) == [(3, 0)]


def test_routes_of_one_metric_stay_in_the_kernels_order():
    assert [
        each[0]
        for each in found(*[route(wire.attribute_u32(uapi.RTA_OIF, index)) for index in (5, 3, 4)])
    ] == [5, 3, 4]


@pytest.mark.parametrize("number", [1, 2**31 - 1, 2**31, 2**32 - 1])
def test_whatever_ifindex_a_route_has_that_device_can_be_asked_for(number):
    ((ifindex, _),) = found(route(wire.attribute_u32(uapi.RTA_OIF, number)))
    assert ifindex & 0xFFFFFFFF == number
    assert link.get(ifindex, "of the default route").payload[4:8] == struct.pack("=I", number)


def next_hop(ifindex, *attributes):
    value = b"".join(attributes)
    return struct.pack("=HBBi", 8 + len(value), 0, 0, ifindex) + value


def test_of_a_multipath_route_the_first_next_hop_counts():
    hops = wire.attribute(uapi.RTA_MULTIPATH, next_hop(7) + next_hop(8))
    assert found(route(hops)) == [(7, 0)]


def test_an_address_without_a_far_end_is_its_local_one():
    payload = uapi.ifaddrmsg.pack(inet.AF_INET, 24, 0, 0, 3) + wire.attribute(
        uapi.IFA_ADDRESS, bytes([10, 9, 8, 2])
    )
    (address,) = inet.addresses([build.received(uapi.RTM_NEWADDR, payload)])
    assert (address.ifindex, address.local, address.prefixlen) == (3, "10.9.8.2", 24)


def test_an_ipv6_address_is_either_of_both_values():
    for type in (uapi.IFA_LOCAL, uapi.IFA_ADDRESS):
        payload = uapi.ifaddrmsg.pack(inet.AF_INET6, 64, 0, 0, 3)
        payload += wire.attribute(type, bytes(15) + b"\2")
        (address,) = inet.addresses([build.received(uapi.RTM_NEWADDR, payload)])
        assert (address.local, address.far_end, address.broadcast) == ("::2", None, None)


def test_addresses_of_another_family_or_without_a_value_are_left_out():
    other = uapi.ifaddrmsg.pack(17, 8, 0, 0, 3) + wire.attribute(uapi.IFA_LOCAL, bytes(16))
    none = uapi.ifaddrmsg.pack(inet.AF_INET, 24, 0, 0, 3)
    for payload in (other, none):
        assert inet.addresses([build.received(uapi.RTM_NEWADDR, payload)]) == []


def test_messages_that_are_no_addresses_are_left_out():
    payload = uapi.ifaddrmsg.pack(inet.AF_INET, 24, 0, 0, 3) + wire.attribute(
        uapi.IFA_LOCAL, bytes([10, 9, 8, 2])
    )
    assert (
        inet.addresses(
            [build.received(type, payload) for type in (uapi.RTM_NEWROUTE, uapi.NLMSG_DONE)]
        )
        == []
    )


def test_a_route_and_an_address_show_what_they_are():
    hop = wire.attribute_u32(uapi.RTA_OIF, 7) + wire.attribute_u32(uapi.RTA_PRIORITY, 100)
    route = build.received(uapi.RTM_NEWROUTE, uapi.rtmsg.pack(2, 24, 0, 0, 254, 0, 0, 1, 0) + hop)
    (found,) = inet.routes([route, build.received(uapi.RTM_NEWLINK, build.link_payload())])
    assert repr(found) == "Route(family=2, prefixlen=24, table=254, ifindex=7, metric=100)"
    assert found.is_default is False and inet.default_routes([route]) == []
    local = wire.attribute(uapi.IFA_LOCAL, bytes([10, 9, 8, 1]))
    payload = uapi.ifaddrmsg.pack(2, 24, 0, 0, 7) + local
    (address,) = inet.addresses([build.received(uapi.RTM_NEWADDR, payload)])
    assert repr(address) == "Address(10.9.8.1/24, ifindex=7)"
    assert (address.family, address.is_secondary) == (inet.AF_INET, False)


# ---------------------------------------------------------------- malformed


def parse_all(payload):
    try:
        inet.default_routes([build.received(uapi.RTM_NEWROUTE, payload)])
    except Malformed:
        pass
    try:
        inet.addresses([build.received(uapi.RTM_NEWADDR, payload)])
    except Malformed:
        pass


def test_a_route_shorter_than_its_fixed_part_is_malformed():
    with pytest.raises(Malformed) as caught:
        inet.default_routes([build.received(uapi.RTM_NEWROUTE, bytes(11))])
    assert caught.value.offset == 16


near_routes = st.lists(
    st.tuples(st.sampled_from([1, 4, 5, 6, 9, 15]), st.binary(max_size=24)), max_size=5
).map(
    lambda row: (
        uapi.rtmsg.pack(2, 0, 0, 0, 254, 0, 0, 1, 0)
        + b"".join(wire.attribute(type, value) for type, value in row)
    )
)


@build.patient
@given(st.one_of(st.binary(max_size=100), near_routes))
def test_any_bytes_are_routes_and_addresses_or_malformed(payload):
    parse_all(payload)


@golden.needs_little_endian
@build.patient
@given(
    st.sampled_from(["routes-ipv4", "routes-ipv6", "routes-of-guest", "addresses-of-guest"]),
    st.data(),
)
def test_captured_routes_and_addresses_with_bytes_changed_are_such_or_malformed(name, data):
    payload = bytearray(data.draw(st.sampled_from(golden.messages(name)[:-1])).payload)
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    parse_all(bytes(payload))

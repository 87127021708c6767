# SPDX-License-Identifier: Apache-2.0
"""nlraw.link: the requests byte for byte, and links as they are in captured replies."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import build, golden
from nlraw import exchange, link, uapi, wire
from nlraw.errors import Invalid, Malformed, Refused

# ---------------------------------------------------------------- requests


def test_get_bytes():
    assert build.sent(link.get(7, "tap0")) == build.native(
        """
        u32=32 u16=18 u16=0x1 u32=1 u32=0   # RTM_GETLINK, REQUEST
        u8=0 00 u16=0 s32=7 u32=0 u32=0     # ifinfomsg: index
        """
    )


def test_find_bytes():
    assert build.sent(link.find("eth0")) == build.native(
        """
        u32=44 u16=18 u16=0x1 u32=1 u32=0   # RTM_GETLINK, REQUEST
        u8=0 00 u16=0 s32=0 u32=0 u32=0     # ifinfomsg
        # IFLA_IFNAME, alone: a second name would make the kernel choose
        u16=9 u16=3 'eth0' 00 00 00 00
        """
    )


def test_dump_bytes():
    assert build.sent(link.dump()) == build.native(
        """
        u32=40 u16=18 u16=0x301 u32=1 u32=0 # RTM_GETLINK, REQUEST | DUMP
        u8=0 00 u16=0 s32=0 u32=0 u32=0     # ifinfomsg
        u16=8 u16=29 u32=8                  # IFLA_EXT_MASK: RTEXT_FILTER_SKIP_STATS
        """
    )


def test_dump_of_a_kind_bytes():
    assert build.sent(link.dump("tun")) == build.native(
        """
        u32=44 u16=18 u16=0x301 u32=1 u32=0 # RTM_GETLINK, REQUEST | DUMP
        u8=0 00 u16=0 s32=0 u32=0 u32=0     # ifinfomsg
        u16=12 u16=0x8012                   # IFLA_LINKINFO, nested; no IFLA_EXT_MASK beside it
        u16=7 u16=1 'tun' 00                # IFLA_INFO_KIND, without its NUL
        """
    )


def test_complete_dump_of_a_kind_bytes():
    assert build.sent(link.dump("tun", complete=True)) == build.native(
        """
        u32=52 u16=18 u16=0x301 u32=1 u32=0 # RTM_GETLINK, REQUEST | DUMP
        u8=0 00 u16=0 s32=0 u32=0 u32=0     # ifinfomsg
        u16=8 u16=29 u32=8                  # IFLA_EXT_MASK: RTEXT_FILTER_SKIP_STATS
        u16=12 u16=0x8012                   # IFLA_LINKINFO, nested
        u16=7 u16=1 'tun' 00                # IFLA_INFO_KIND, without its NUL
        """
    )


def test_delete_bytes_have_no_flag_but_request_and_ack():
    assert build.sent(link.delete(7, "tap0")) == build.native(
        """
        u32=32 u16=17 u16=0x5 u32=1 u32=0   # RTM_DELLINK, REQUEST | ACK: 0x200 would be NLM_F_BULK
        u8=0 00 u16=0 s32=7 u32=0 u32=0     # ifinfomsg: index, and no name or group beside it
        """
    )


def test_set_group_bytes():
    assert build.sent(link.set_group(7, "tap0", 0x12345679)) == build.native(
        """
        u32=40 u16=19 u16=0x5 u32=1 u32=0   # RTM_SETLINK, REQUEST | ACK
        u8=0 00 u16=0 s32=7 u32=0 u32=0     # ifinfomsg: index, and no flag to change
        u16=8 u16=27 u32=0x12345679         # IFLA_GROUP
        """
    )


def test_delete_group_bytes():
    assert build.sent(link.delete_group(0x12345679, "tap0, tap1")) == build.native(
        """
        u32=40 u16=17 u16=0x5 u32=1 u32=0   # RTM_DELLINK, REQUEST | ACK
        u8=0 00 u16=0 s32=0 u32=0 u32=0     # ifinfomsg: no index, which would come before the group
        u16=8 u16=27 u32=0x12345679         # IFLA_GROUP
        """
    )


def test_set_up_bytes():
    assert build.sent(link.set_up(7, "tap0")) == build.native(
        """
        u32=32 u16=19 u16=0x5 u32=1 u32=0   # RTM_SETLINK, REQUEST | ACK
        u8=0 00 u16=0 s32=7 u32=1 u32=1     # ifinfomsg: IFF_UP of IFF_UP, no other flag
        """
    )


def test_set_up_with_an_mtu_bytes():
    assert build.sent(link.set_up(7, "tap0", mtu=1450)) == build.native(
        """
        u32=40 u16=19 u16=0x5 u32=1 u32=0   # RTM_SETLINK, REQUEST | ACK
        u8=0 00 u16=0 s32=7 u32=1 u32=1     # ifinfomsg
        u16=8 u16=4 u32=1450                # IFLA_MTU
        """
    )


def test_create_veth_bytes():
    assert build.sent(link.create_veth("eth0", "peer0")) == build.native(
        """
        u32=92 u16=16 u16=0x605 u32=1 u32=0 # RTM_NEWLINK, REQUEST | ACK | CREATE | EXCL
        u8=0 00 u16=0 s32=0 u32=0 u32=0     # ifinfomsg
        u16=9 u16=3 'eth0' 00 00 00 00      # IFLA_IFNAME
        u16=48 u16=0x8012                   # IFLA_LINKINFO
        u16=8 u16=1 'veth'                  # IFLA_INFO_KIND
        u16=36 u16=0x8002                   # IFLA_INFO_DATA
        u16=32 u16=0x8001                   # VETH_INFO_PEER
        u8=0 00 u16=0 s32=0 u32=0 u32=0     # ifinfomsg of the peer
        u16=10 u16=3 'peer0' 00 00 00       # IFLA_IFNAME of the peer
        """
    )


def test_requests_say_what_they_do_to_what():
    expected = {
        link.get(7, "tap0"): "read link tap0",
        link.find("eth0"): "look up link eth0",
        link.dump(): "list links of every kind",
        link.dump("tun"): "list links tun",
        link.delete(7, "tap0"): "delete link tap0",
        link.set_group(7, "tap0", 9): "set group of link tap0",
        link.delete_group(9, "tap0, tap1"): "delete links tap0, tap1",
        link.set_up(7, "tap0"): "set up link tap0",
        link.create_veth("eth0", "peer0"): "create veth eth0",
    }
    assert {each: "%s %s" % (each.step, each.object) for each in expected} == expected


def test_what_is_asked_by_a_request_of_one_link_ends_with_the_one_message():
    assert [each.flags for each in (link.get(7, "tap0"), link.find("eth0"))] == [
        uapi.NLM_F_REQUEST
    ] * 2


@pytest.mark.parametrize(
    "request_", [link.get(7, "a"), link.find("eth0"), link.dump("tun"), link.create_veth("a", "b")]
)
def test_the_attributes_of_a_request_begin_where_it_says(request_):
    assert request_.fixed == 16
    list(wire.attributes(request_.payload, request_.fixed, len(request_.payload)))


# ---------------------------------------------------------------- links, captured


def captured(name):
    """The one link of a capture."""
    (found,) = link.links(golden.messages(name))
    return found


# By capture: carrier, how often it came on, operational state, UP, RUNNING, and of a TUN device the
# mode and its queues.
LINKS = {
    "tap-fresh": (False, 0, "DOWN", True, False, (uapi.IFF_TAP, 0, 0)),
    "tap-held-up": (True, 1, "UP", True, True, (uapi.IFF_TAP, 0, 0)),
    "tap-held-down": (True, 1, "DOWN", False, False, (uapi.IFF_TAP, 0, 0)),
    "tap-released-up": (False, 1, "DOWN", True, False, (uapi.IFF_TAP, 0, 0)),
    "tap-released-down": (False, 1, "DOWN", False, False, (uapi.IFF_TAP, 0, 0)),
    "tap-just-released": (False, 1, "UP", True, True, (uapi.IFF_TAP, 0, 0)),
    # the count depends on the tries
    "tap-just-attached": (True, None, "DOWN", True, False, (uapi.IFF_TAP, 0, 0)),
    "tap-queues-attached": (True, 1, "UP", True, True, (uapi.IFF_TAP, 2, 0)),
    "tap-queues-half-detached": (True, 1, "UP", True, True, (uapi.IFF_TAP, 1, 1)),
    "tap-queues-detached": (True, 1, "UP", True, True, (uapi.IFF_TAP, 0, 2)),
    "tap-queues-released": (False, 1, "DOWN", True, False, (uapi.IFF_TAP, 0, 0)),
    "tun-mode": (False, 0, "DOWN", True, False, (uapi.IFF_TUN, 0, 0)),
    "veth": (False, 0, "LOWERLAYERDOWN", True, False, None),
    "bridge": (True, 0, "UNKNOWN", True, True, None),
    "macvtap": (True, 0, "UP", True, True, None),
}


@golden.needs_little_endian
@pytest.mark.parametrize("name", sorted(LINKS))
def test_a_captured_link(name):
    carrier, count, operstate, up, running, tun = LINKS[name]
    found = captured(name)
    assert found.ifname == "tap0_urunc"
    assert found.carrier is carrier
    assert count is None or found.carrier_up_count == count
    assert link.operstate_name(found.operstate) == operstate
    assert (bool(found.flags & uapi.IFF_UP), bool(found.flags & uapi.IFF_RUNNING)) == (up, running)
    facts = found.tun()
    assert (facts and (facts.type, facts.queues, facts.disabled_queues)) == tun


@golden.needs_little_endian
@pytest.mark.parametrize(
    "name, kind",
    [("tap-fresh", "tun"), ("veth", "veth"), ("bridge", "bridge"), ("macvtap", "macvtap")],
)
def test_a_captured_kind(name, kind):
    assert captured(name).kind == kind


@golden.needs_little_endian
def test_what_else_a_captured_link_has():
    found = captured("tap-fresh")
    assert (found.mtu, found.group, len(found.address.split(":"))) == (1500, 0, 6)
    assert found.max_mtu == 0xFFFF - 14  # tun_net_init(), drivers/net/tun.c
    assert found.ifindex > 1
    assert repr(found) == "Link(%d: 'tap0_urunc', kind='tun', flags=%#x)" % (
        found.ifindex,
        found.flags,
    )


@golden.needs_little_endian
def test_captured_flags_are_named_as_ip_names_them():
    assert link.flag_names(captured("tap-held-up").flags) == (
        "BROADCAST",
        "MULTICAST",
        "UP",
        "RUNNING",
        "LOWER_UP",
    )
    assert link.flag_names(captured("tap-released-down").flags) == ("BROADCAST", "MULTICAST")


@golden.needs_little_endian
def test_a_captured_dump_of_all_links():
    (reply,) = golden.play("links-all", link.dump())
    assert [found.kind for found in link.links(reply.answer())] == [
        None,
        "veth",
        "veth",
        "tun",
        "tun",
        "tun",
        "tun",
    ]
    assert not any(
        message.flags & uapi.NLM_F_DUMP_FILTERED for message in build.named(reply.messages)
    )


@golden.needs_little_endian
def test_a_captured_dump_that_the_kernel_filtered():
    (reply,) = golden.play("links-tun", link.dump("tun"))
    assert [found.ifname for found in link.links(reply.answer())] == [
        "tap0_urunc",
        "tap1_urunc",
        "tun0",
    ]
    assert all(message.flags & uapi.NLM_F_DUMP_FILTERED for message in build.named(reply.messages))


@golden.needs_little_endian
def test_a_captured_dump_of_nothing():
    (reply,) = golden.play("links-none", link.dump("tun"))
    assert link.links(reply.answer()) == []


# ---------------------------------------------------------------- links, made


def test_what_is_absent_is_none():
    found = build.as_link(uapi.ifinfomsg.pack(0, 0, 3, 1, 0))
    assert (found.ifindex, found.flags, found.ifname) == (3, 1, "")
    assert (found.address, found.mtu, found.group, found.operstate) == (None, None, None, None)
    assert found.max_mtu is None
    assert (found.carrier, found.carrier_up_count, found.kind, found.tun()) == (
        None,
        None,
        None,
        None,
    )


def test_only_the_kind_tun_has_the_facts_of_a_tun():
    assert build.as_link(build.link_payload(kind="tun", mode=1)).tun().type == 1
    assert build.as_link(build.link_payload(kind="veth", mode=2)).tun() is None
    assert build.as_link(build.link_payload(kind="tunnel")).tun() is None


def test_the_facts_of_a_tun_are_read_once():
    found = build.as_link(build.link_payload())
    assert found.tun() is found.tun() is not None


@pytest.mark.parametrize(
    "facts, lower",
    [
        ({}, None),
        ({"lower": 7}, 7),
        ({"lower": 0}, 0),  # in another namespace, by an older kernel
        ({"lower": 4}, None),  # itself
        ({"lower": 7, "lower_netnsid": 0}, None),  # the index is another namespace's
        ({"lower": 7, "lower_netnsid": 5}, None),
    ],
)
def test_the_link_below_is_one_of_this_namespace(facts, lower):
    assert build.as_link(build.link_payload(4, **facts)).lower == lower


def test_a_tun_without_its_data_has_neither_mode_nor_queues():
    linkinfo = wire.attribute_nested(
        uapi.IFLA_LINKINFO, wire.attribute(uapi.IFLA_INFO_KIND, b"tun")
    )
    facts = build.as_link(uapi.ifinfomsg.pack(0, 0, 3, 1, 0) + linkinfo).tun()
    assert (facts.type, facts.queues, facts.disabled_queues) == (None, 0, 0)


def test_a_name_of_any_bytes_is_kept():
    assert build.as_link(build.link_payload(name="tap\udcff\x1b[2J")).ifname == "tap\udcff\x1b[2J"


def test_flags_without_a_name_are_one_number():
    assert link.flag_names(0x1 | 0x80000 | 0x100000) == ("UP", "0x180000")
    assert link.flag_names(0) == ()


def test_flags_are_named_alike_each_time_and_no_more_of_it_is_kept_than_links_have(monkeypatch):
    monkeypatch.setattr(link, "cached_flag_names", {})
    assert link.flag_names(0x1003) is link.flag_names(0x1003)
    numbers = [1 << 20 | number for number in range(200)]
    expected = [link.flag_names(number) for number in numbers]
    assert [link.flag_names(number) for number in numbers] == expected and len(set(expected)) == 200
    assert len(link.cached_flag_names) <= link.MOST_CACHED_FLAGS


@pytest.mark.parametrize(
    "state, name", [(0, "UNKNOWN"), (2, "DOWN"), (6, "UP"), (7, "0x7"), (255, "0xff"), (None, None)]
)
def test_operational_states_are_named_as_ip_names_them(state, name):
    assert link.operstate_name(state) == name


def test_a_link_layer_address_is_in_hex():
    payload = build.link_payload() + wire.attribute(uapi.IFLA_ADDRESS, b"\x02\xab\x00\x0c\xff\x10")
    assert build.as_link(payload).address == "02:ab:00:0c:ff:10"


def test_links_are_picked_from_among_other_messages():
    row = [
        (uapi.NLMSG_DONE, bytes(4)),
        (uapi.RTM_NEWLINK, build.link_payload()),
        (uapi.RTM_DELLINK, b""),
    ]
    datagram = b"".join(wire.message(type, 0, 1, payload) for type, payload in row)
    assert [found.ifname for found in link.links(wire.messages(datagram))] == ["tap0_urunc"]


def reply_of(count):
    reply = exchange.Reply(link.get(4, "tap0"))
    reply.messages = [build.received(uapi.RTM_NEWLINK, build.link_payload())] * count
    return reply


def test_only_is_the_one_link_of_a_reply():
    assert link.only(reply_of(1)).ifindex == 4


@pytest.mark.parametrize("count", [0, 2])
def test_only_refuses_none_and_several(count):
    with pytest.raises(Malformed) as caught:
        link.only(reply_of(count))
    assert (
        str(caught.value)
        == "parse netlink message: expected one link, found %d, at offset 0" % count
    )


def test_only_raises_the_refusal():
    reply = reply_of(0)
    reply.error = Refused(errno.ENODEV, "")
    with pytest.raises(Refused):
        link.only(reply)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    ["eth0", "tap0_urunc", "X", "a" * 15, "\u00e9" * 7, "tap\udcff", "*", "-x", "..."]
    + ["a\u3000b", "a\u2028b"],  # a space to Unicode, not to the kernel
)
def test_what_a_link_can_be_called(name):
    link.check_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a" * 16, "\u00e9" * 8, "a/b", "a:b", "a b", "a\tb", "a\nb", "a\0b"]
    + ["a\vb", "a\fb", "a\rb", "a\udca0b", "a\u00e0b"]  # the last byte of that is 0xA0
    + ["a\ud800"],  # no bytes at all
)
def test_what_a_link_cannot_be_called(name):
    with pytest.raises(Invalid) as caught:
        link.check_name(name)
    size = len(name.encode("utf-8", "replace"))
    too_long = "an interface name has at most 15 bytes, this one has %d" % size
    assert caught.value.message == (
        too_long
        if size > 15
        else "no interface has such a name: empty, . or .., or with a slash, colon or white space"
    )
    assert (caught.value.step, caught.value.object) == ("check name", name)


# ---------------------------------------------------------------- malformed


@pytest.mark.parametrize("size", [0, 1, 15])
def test_a_link_shorter_than_its_fixed_part_is_malformed(size):
    with pytest.raises(Malformed) as caught:
        build.as_link(bytes(size))
    assert caught.value.message == "expected 16 bytes, found %d, at offset 16" % size
    assert caught.value.offset == 16


@pytest.mark.parametrize(
    "type, value, read",
    [
        (uapi.IFLA_MTU, b"\0\0\0", "mtu"),
        (uapi.IFLA_MAX_MTU, b"\0\0\0", "max_mtu"),
        (uapi.IFLA_GROUP, b"", "group"),
        (uapi.IFLA_OPERSTATE, b"", "operstate"),
        (uapi.IFLA_CARRIER, b"", "carrier"),
        (uapi.IFLA_CARRIER_UP_COUNT, b"\0\0", "carrier_up_count"),
        (uapi.IFLA_LINKINFO, b"\0\0\0", "kind"),
    ],
)
def test_an_attribute_too_short_for_its_type_is_malformed_when_it_is_read(type, value, read):
    found = build.as_link(bytes(16) + wire.attribute(type, value))
    with pytest.raises(Malformed) as caught:
        getattr(found, read)
    assert caught.value.offset == 36


def read_all(found):
    """Read every fact of a link."""
    for name in (
        "ifname",
        "address",
        "mtu",
        "max_mtu",
        "group",
        "operstate",
        "carrier",
        "carrier_up_count",
        "kind",
    ):
        getattr(found, name)
    found.tun()
    link.operstate_name(found.operstate)
    link.flag_names(found.flags)
    repr(found)


near_links = st.lists(
    st.tuples(st.sampled_from([1, 3, 4, 16, 18, 27, 33, 47, 99]), st.binary(max_size=24)),
    max_size=6,
).map(lambda row: bytes(16) + b"".join(wire.attribute(type, value) for type, value in row))


@build.patient
@given(st.one_of(st.binary(max_size=120), near_links))
def test_any_bytes_are_a_link_or_malformed(payload):
    try:
        read_all(build.as_link(payload))
    except Malformed:
        pass


@golden.needs_little_endian
@build.patient
@given(st.sampled_from(sorted(LINKS)), st.data())
def test_a_captured_link_with_bytes_changed_is_a_link_or_malformed(name, data):
    payload = bytearray(golden.messages(name)[0].payload)
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_all(build.as_link(bytes(payload)))
    except Malformed:
        pass

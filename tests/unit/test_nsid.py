# SPDX-License-Identifier: Apache-2.0
"""nlraw.nsid: the requests byte for byte, and IDs as they are in replies and events."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import build
from nlraw import exchange, link, nsid, uapi, wire
from nlraw.errors import Malformed, Refused

# ---------------------------------------------------------------- requests


def test_assign_bytes():
    assert build.sent(nsid.assign(1000, 7, "/run/netns/pod1")) == build.native(
        """
        u32=36 u16=88 u16=0x5 u32=1 u32=0   # RTM_NEWNSID, REQUEST | ACK
        00 00 00 00                         # rtgenmsg, padded
        u16=8 u16=1 u32=1000                # NETNSA_NSID
        u16=8 u16=3 u32=7                   # NETNSA_FD
        """
    )


def test_get_bytes():
    assert build.sent(nsid.get(7, "/run/netns/pod1")) == build.native(
        """
        u32=28 u16=90 u16=0x1 u32=1 u32=0   # RTM_GETNSID, REQUEST
        00 00 00 00                         # rtgenmsg, padded
        u16=8 u16=3 u32=7                   # NETNSA_FD
        """
    )


def test_requests_have_words_for_errors():
    requests = nsid.assign(1, 3, "pod1"), nsid.get(3, "pod1")
    assert [(each.step, each.object) for each in requests] == [
        ("assign ID to", "pod1"),
        ("read ID of", "pod1"),
    ]


# ---------------------------------------------------------------- replies and events


def entry(*attributes, type=uapi.RTM_NEWNSID):
    return build.received(type, bytes(4) + b"".join(attributes))


def numbered(number, type=uapi.RTM_NEWNSID):
    return entry(wire.attribute(uapi.NETNSA_NSID, struct.pack("=i", number)), type=type)


def test_entries_come_in_their_order_and_other_messages_are_skipped():
    messages = [
        numbered(5, uapi.RTM_DELNSID),
        build.received(uapi.RTM_NEWLINK, build.link_payload()),
        numbered(5),
        numbered(2**31 - 1),
    ]
    found = nsid.nsids(messages)
    assert [(each.number, each.is_deleted) for each in found] == [
        (5, True),
        (5, False),
        (2**31 - 1, False),
    ]
    assert [repr(each) for each in found[:2]] == ["Nsid(5, deleted)", "Nsid(5)"]


def test_a_namespace_without_an_id_has_none():
    (found,) = nsid.nsids([numbered(-1)])
    assert found.number is None
    (found,) = nsid.nsids([entry()])
    assert found.number is None


def answered(*messages, sequence=9):
    conversation = exchange.Exchange([nsid.get(3, "pod1")], 7, sequence)
    for message in messages:
        conversation.receive(message)
    return conversation.replies[0]


def test_the_answer_to_get():
    payload = bytes(4) + wire.attribute_u32(uapi.NETNSA_NSID, 17)
    reply = answered(wire.message(uapi.RTM_NEWNSID, 0, 9, payload, 7))
    assert nsid.only(reply).number == 17


def test_another_answer_to_get_is_malformed():
    with pytest.raises(Malformed):
        nsid.only(answered(wire.message(uapi.RTM_NEWLINK, 0, 9, build.link_payload(), 7)))


def test_a_refusal_is_raised():
    payload = build.refusal_payload(22, bytes(16))
    with pytest.raises(Refused) as caught:
        nsid.only(answered(wire.message(uapi.NLMSG_ERROR, uapi.NLM_F_CAPPED, 9, payload, 7)))
    assert (caught.value.errno, caught.value.step) == (22, "read ID of")


# ---------------------------------------------------------------- links of another namespace


def test_dump_of_a_namespace_by_its_id_bytes():
    assert build.sent(link.dump("tun", nsid=1000)) == build.native(
        """
        u32=52 u16=18 u16=0x301 u32=1 u32=0 # RTM_GETLINK, REQUEST | DUMP
        u8=0 00 u16=0 s32=0 u32=0 u32=0     # ifinfomsg
        u16=8 u16=46 u32=1000               # IFLA_TARGET_NETNSID
        u16=12 u16=0x8012                   # IFLA_LINKINFO, nested
        u16=7 u16=1 'tun' 00                # IFLA_INFO_KIND, without its NUL
        """
    )
    assert build.sent(link.dump(nsid=0)) == build.native(
        """
        u32=48 u16=18 u16=0x301 u32=1 u32=0 # RTM_GETLINK, REQUEST | DUMP
        u8=0 00 u16=0 s32=0 u32=0 u32=0     # ifinfomsg
        u16=8 u16=46 u32=0                  # IFLA_TARGET_NETNSID
        u16=8 u16=29 u32=8                  # IFLA_EXT_MASK: RTEXT_FILTER_SKIP_STATS
        """
    )


def test_how_often_the_carrier_went_off():
    counted = build.link_payload() + wire.attribute_u32(uapi.IFLA_CARRIER_DOWN_COUNT, 3)
    assert build.as_link(counted).carrier_down_count == 3
    assert build.as_link(build.link_payload()).carrier_down_count is None


# ---------------------------------------------------------------- malformed


def test_an_entry_shorter_than_its_fixed_part_is_malformed():
    with pytest.raises(Malformed) as caught:
        nsid.nsids([build.received(uapi.RTM_DELNSID, bytes(3))])
    assert caught.value.offset == 16


@build.patient
@given(
    st.one_of(
        st.binary(max_size=40),
        st.binary(max_size=8).map(lambda value: bytes(4) + wire.attribute(1, value)),
    )
)
def test_any_bytes_are_an_entry_or_malformed(payload):
    try:
        (found,) = nsid.nsids([build.received(uapi.RTM_NEWNSID, payload)])
        assert found.number is None or isinstance(found.number, int)
    except Malformed:
        pass

# SPDX-License-Identifier: Apache-2.0
"""nlraw.neighbour: the request byte for byte, and neighbours as they are in a captured reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import build, golden, lists
from nlraw import neighbour, uapi
from nlraw.errors import Malformed


def test_dump_bytes():
    assert build.sent(neighbour.dump(7, "eth0")) == build.native(
        """
        u32=36 u16=30 u16=0x301 u32=1 u32=0                    # RTM_GETNEIGH, REQUEST | DUMP
        u8=0 u8=0 u16=0 u32=0 u16=0 u8=0 u8=0                  # ndmsg: AF_UNSPEC
        u16=8 u16=8 u32=7                                      # NDA_IFINDEX
        """
    )
    request = neighbour.dump(7, "eth0")
    assert (request.step, request.object, request.fixed) == ("list neighbours of", "eth0", 12)


@golden.needs_little_endian
def test_captured_neighbours_are_permanent_or_not():
    (reply,) = golden.play("neighbours", neighbour.dump(3, "eth0"))
    found = neighbour.neighbours(reply.answer())
    assert [
        (each.dst, each.lladdr, each.is_permanent) for each in found if each.dst[:4] != "ff02"
    ] == [
        ("169.254.1.1", "02:00:00:00:00:01", True),
        ("10.9.8.9", "02:00:00:00:00:03", False),
        ("10.9.8.8", "02:00:00:00:00:04", False),
        ("fd00::1", "02:00:00:00:00:02", True),
    ]
    assert {each.ifindex for each in found} == {3}


def test_a_neighbour_may_lack_what_others_have():
    assert lists.a_neighbour("10.9.8.1", "02:00:00:00:ab:cd").lladdr == "02:00:00:00:ab:cd"
    assert lists.a_neighbour("10.9.8.1", None).lladdr is None
    (found,) = neighbour.neighbours(
        [build.received(uapi.RTM_NEWNEIGH, uapi.ndmsg.pack(7, 2, uapi.NUD_PERMANENT, 0, 0))]
    )
    assert (found.dst, found.lladdr, found.is_permanent) == (None, None, True)


def test_other_messages_are_left_out():
    (_, flags, sequence, port, data, start, end) = lists.neighbour_message("10.9.8.1")
    other = (uapi.RTM_NEWROUTE, flags, sequence, port, data, start, end)
    assert neighbour.neighbours([other]) == []


def test_a_neighbour_shows_what_it_is():
    found = lists.a_neighbour("10.9.8.1", ifindex=7)
    assert repr(found) == "Neighbour(10.9.8.1, ifindex=7, state=0x80)"


def test_a_neighbour_shorter_than_its_fixed_part_is_malformed():
    with pytest.raises(Malformed) as caught:
        neighbour.neighbours([build.received(uapi.RTM_NEWNEIGH, bytes(11))])
    assert caught.value.offset == 16


@build.patient
@given(st.binary(max_size=80))
def test_any_bytes_are_a_neighbour_or_malformed(payload):
    try:
        for found in neighbour.neighbours([build.received(uapi.RTM_NEWNEIGH, payload)]):
            repr(found), found.lladdr, found.is_permanent
    except Malformed:
        pass

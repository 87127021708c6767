# SPDX-License-Identifier: Apache-2.0
"""nlraw.wire: bytes to messages and attributes, and back.

No byte string may do worse than raise `Malformed`.
"""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import build, golden
from nlraw import wire
from nlraw.errors import Malformed

u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
types = st.integers(0, 0x3FFF)
values = st.binary(max_size=64)
headers = st.tuples(u16, u16, u32, u32, values)  # type, flags, sequence, port, payload

# Trees of attributes: a value is bytes, or a row of attributes.
rows = st.recursive(
    st.lists(st.tuples(types, values), max_size=4),
    lambda below: st.lists(st.tuples(types, st.one_of(values, below)), max_size=4),
    max_leaves=12,
)


def header(length, type=16, flags=0, sequence=1, port=0):
    return struct.pack("=IHHII", length, type, flags, sequence, port)


def attribute_header(length, type=1):
    return struct.pack("=HH", length, type)


def bounded(walked, data):
    """The items of a walk, or a failure if it stands still and would hang."""
    found = list(itertools.islice(walked, len(data) + 1))
    assert len(found) <= len(data) // 4
    return found


def walk(data):
    return bounded(wire.attributes(data, 0, len(data)), data)


def walk_messages(datagram):
    return bounded(build.messages(datagram), datagram)


def encode(row):
    return b"".join(
        wire.attribute_nested(type, encode(value))
        if isinstance(value, list)
        else wire.attribute(type, value)
        for type, value in row
    )


def decode(data, span, row):
    """The attributes of a span, in the shape of ``row``."""
    found = list(wire.attributes(data, span[0], span[1]))
    assert len(found) == len(row)
    return [
        (type, decode(data, (start, end), value) if isinstance(value, list) else data[start:end])
        for (type, (start, end)), (_, value) in zip(found, row)
    ]


# ---------------------------------------------------------------- bytes, literally


def test_the_fields_of_a_literal_are_in_the_order_of_the_host():
    assert (
        build.native("u8=1 u16=2 s32=-1 'ab' 00 ff be16=3 # u8=9")
        == struct.pack("=BHi", 1, 2, -1) + b"ab\x00\xff\x00\x03"
    )


@pytest.mark.parametrize("length, aligned", [(0, 0), (1, 4), (3, 4), (4, 4), (5, 8), (17, 20)])
def test_lengths_are_rounded_up_to_four(length, aligned):
    assert wire.align(length) == aligned


def test_a_message_is_a_header_and_its_padded_payload():
    expected = build.native("u32=19 u16=16 u16=5 u32=7 u32=9 'abc' 00")
    assert wire.message(16, 5, 7, b"abc", port=9) == expected


@golden.needs_little_endian
def test_a_message_in_the_bytes_of_a_little_endian_host():
    assert (
        wire.message(16, 0x305, 7, b"abcd").hex()
        == "14000000" + "1000" + "0503" + "07000000" + "00000000" + "61626364"
    )


def test_an_attribute_is_a_header_and_its_padded_value_and_the_padding_does_not_count():
    assert wire.attribute(3, b"lo\0") == build.native("u16=7 u16=3 'lo' 00 00")


def test_a_nested_attribute_is_marked_and_holds_its_children():
    expected = build.native("u16=20 u16=0x8012  u16=7 u16=1 'tun' 00  u16=8 u16=2 u32=5")
    assert (
        wire.attribute_nested(18, wire.attribute(1, b"tun"), wire.attribute_u32(2, 5)) == expected
    )


def test_numbers_and_strings_have_their_own_attributes():
    assert wire.attribute_u16(1, 0x102) == build.native("u16=6 u16=1 u16=0x102 00 00")
    assert wire.attribute_u32(1, 0x1020304) == build.native("u16=8 u16=1 u32=0x1020304")
    assert wire.attribute_u32(1, 0xFFFFFFFE) == build.native("u16=8 u16=1 u32=0xFFFFFFFE")
    assert wire.attribute_string(1, "abc") == build.native("u16=8 u16=1 'abc' 00")


def test_messages_of_one_datagram_come_in_order_with_their_spans():
    datagram = wire.message(16, 2, 7, b"abc", port=9) + wire.message(3, 0, 8, b"")
    one, two = build.messages(datagram)
    assert (one.type, one.flags, one.sequence, one.port, one.payload) == (16, 2, 7, 9, b"abc")
    assert (one.start, one.end, two.start, two.end) == (16, 19, 36, 36)


def test_the_last_message_and_the_last_attribute_need_no_padding():
    (message,) = build.messages(header(19) + b"abc")
    assert message.payload == b"abc"
    assert walk(attribute_header(7) + b"abc") == [(1, (4, 7))]


def test_an_empty_datagram_has_no_messages_and_an_empty_span_no_attributes():
    assert walk_messages(b"") == []
    assert walk(b"") == []


def test_the_flag_bits_of_an_attribute_type_are_masked():
    assert walk(attribute_header(4, 0xC000 | 18)) == [(18, (4, 4))]


def test_a_row_is_read_by_type():
    inner = wire.attribute_u32(7, 70000) + wire.attribute(8, b"\xff")
    data = (
        b"...."
        + wire.attribute_u16(1, 258)
        + wire.attribute_nested(2, inner)
        + wire.attribute_string(3, "lo")
    )
    row = wire.Attributes(data, 4, len(data))
    assert (list(row), len(row), 2 in row, 4 in row) == ([1, 2, 3], 3, True, False)
    assert (row.u16(1), row.raw(1), row.span(1), row.string(3)) == (258, data[8:10], (8, 10), "lo")
    assert (row.nested(2).u32(7), row.nested(2).u8(8)) == (70000, 255)


def test_of_several_attributes_of_one_type_the_last_counts():
    data = wire.attribute(1, b"one") + wire.attribute(2, b"two") + wire.attribute(1, b"three")
    row = wire.Attributes(data, 0, len(data))
    assert {type: row.raw(type) for type in row} == {1: b"three", 2: b"two"}


def test_an_attribute_that_is_not_there_is_none_and_holds_none():
    row = wire.Attributes(b"", 0, 0)
    assert (row.u8(1), row.u16(1), row.u32(1), row.string(1), row.raw(1), row.span(1)) == (
        None,
    ) * 6
    assert not row.nested(1)


def test_a_string_ends_at_its_nul_or_at_its_end():
    for value in (b"lo\0junk", b"lo\0ju\0nk", b"lo\0", b"lo"):
        data = wire.attribute(1, value)
        assert wire.Attributes(data, 0, len(data)).string(1) == "lo"


def test_a_number_is_signed_or_not_as_it_is_read():
    data = wire.attribute(1, b"\xff" * 4)
    row = wire.Attributes(data, 0, len(data))
    assert (row.u8(1), row.u16(1), row.u32(1), row.s32(1)) == (0xFF, 0xFFFF, 0xFFFFFFFF, -1)


def test_a_string_without_a_nul_does_not_go_on_into_what_follows():
    data = wire.attribute(1, b"eth0") + wire.attribute_string(2, "x")
    assert wire.Attributes(data, 0, len(data)).string(1) == "eth0"


# ---------------------------------------------------------------- layouts that were met before


def contents(data, start):
    """What a row holds, walked without regard to any other."""
    found = wire.attributes(data, start, len(data))
    return {type: data[at:end] for type, (at, end) in found}


@build.patient
@given(rows.map(encode), st.binary(min_size=4, max_size=4), st.integers(0, 3))
def test_a_row_of_a_known_layout_has_its_own_values(data, other, words):
    again = bytearray(b"...." * words + data)
    for _, (at, end) in wire.attributes(bytes(again), 4 * words, len(again)):
        again[at:end] = (other * 200)[: end - at]
    for datagram, start in ((data, 0), (bytes(again), 4 * words), (data, 0)):
        row = wire.Attributes(datagram, start, len(datagram))
        assert {type: row.raw(type) for type in row} == contents(datagram, start)


def test_a_row_as_long_as_another_has_its_own_layout():
    one = wire.attribute(1, b"12345678") + wire.attribute(2, b"1234")
    other = wire.attribute(3, b"1234") + wire.attribute(1, b"87654321")
    # the same, but for the padding
    shorter = wire.attribute(1, b"1234567") + wire.attribute(2, b"123")
    for data in (one, other, shorter, one, other, shorter):
        row = wire.Attributes(data, 0, len(data))
        assert {type: row.raw(type) for type in row} == contents(data, 0)


def test_a_row_that_cannot_be_true_is_malformed_though_one_of_its_length_is_known():
    good = wire.attribute(1, b"1234") + wire.attribute(2, b"1234")
    wire.Attributes(good, 0, len(good))
    bad = good[:8] + attribute_header(9, 2) + good[12:]
    with pytest.raises(Malformed) as caught:
        wire.Attributes(bad, 0, len(bad))
    assert caught.value.offset == 8


def test_a_row_of_a_known_layout_is_not_walked(monkeypatch):
    data = wire.attribute(1, b"1234") + wire.attribute(2, b"1234")
    wire.layouts.clear()
    wire.Attributes(data, 0, len(data))
    monkeypatch.setattr(wire, "attributes", None)
    assert list(wire.Attributes(data, 0, len(data))) == [1, 2]


def test_the_layout_of_a_row_is_that_of_the_place_where_it_stands():
    one = wire.attribute(1, b"1234") + wire.attribute(2, b"1234")
    other = wire.attribute(3, b"12345678") + wire.attribute(4, b"")
    for first in (0, 16):
        wire.layouts.clear()
        for start in (first, 16 - first, first):
            row = wire.Attributes(one + other, start, start + 16)
            assert list(row) == ([3, 4] if start else [1, 2])


def test_the_layout_of_a_row_is_for_rows_of_its_length():
    data = wire.attribute(1, b"1234") + wire.attribute(1, b"1234") + wire.attribute(2, b"1234")
    wire.layouts.clear()
    assert list(wire.Attributes(data, 8, 16)) == [1]
    assert list(wire.layouts) == [8]
    assert list(wire.Attributes(data, 0, 24)) == [1, 2]


def test_few_layouts_are_kept():
    for size in range(300):
        for type in range(12):
            data = wire.attribute(type, bytes(4 * size))
            assert wire.Attributes(data, 0, len(data)).span(type) == (4, len(data))
            assert len(wire.layouts) <= wire.MOST_LAYOUTS
        assert len(wire.layouts[len(data)]) == wire.MOST_LAYOUTS_OF_SIZE


def test_bytes_that_are_not_utf_8_survive_a_round_trip():
    data = wire.attribute(1, b"tap\xff\xfe\0")
    assert wire.Attributes(data, 0, len(data)).string(1) == "tap\udcff\udcfe"
    assert wire.attribute_string(1, "tap\udcff\udcfe") == build.native(
        "u16=10 u16=1 'tap' ff fe 00 00 00"
    )


def test_numbers_are_read_from_the_start_of_a_value_that_may_be_longer():
    data = wire.attribute(1, struct.pack("=I", 0x01020304) + b"more")
    row = wire.Attributes(data, 0, len(data))
    assert wire.Attributes(wire.attribute(1, b"\xff" * 4), 0, 8).u32(1) == 0xFFFFFFFF
    assert (row.u32(1), row.u16(1), row.u8(1)) == (
        0x01020304,
        struct.unpack("=H", data[4:6])[0],
        data[4],
    )


@build.patient
@given(u16)
def test_network_order_is_big_endian_on_every_host(number):
    assert struct.pack("=H", wire.network_u16(number)) == struct.pack(">H", number)
    assert wire.network_u16(wire.network_u16(number)) == number


# ---------------------------------------------------------------- malformed, and where


@pytest.mark.parametrize(
    "datagram, offset",
    [
        (b"\0", 0),
        (header(16)[:15], 0),
        (header(0), 0),
        (header(15), 0),
        (header(17), 0),
        (header(0xFFFFFFFF), 0),
        (header(16) + header(0), 16),
        (header(16) + b"\0\0\0\0", 16),
        (header(19) + b"abc\0" + header(20), 20),
    ],
)
def test_a_message_header_that_cannot_be_true_raises_with_its_offset(datagram, offset):
    with pytest.raises(Malformed) as caught:
        walk_messages(datagram)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    "data, offset",
    [
        (b"\0", 0),
        (b"\0\0\0", 0),
        (attribute_header(0), 0),
        (attribute_header(3), 0),
        (attribute_header(5), 0),
        (attribute_header(0xFFFF), 0),
        (attribute_header(4) + attribute_header(0), 4),
        (attribute_header(5) + b"a\0\0\0" + b"\0\0\0", 8),
    ],
)
def test_an_attribute_header_that_cannot_be_true_raises_with_its_offset(data, offset):
    with pytest.raises(Malformed) as caught:
        walk(data)
    assert caught.value.offset == offset


def test_offsets_count_from_the_start_of_the_datagram():
    data = b"........" + attribute_header(4) + attribute_header(2)
    with pytest.raises(Malformed) as caught:
        list(wire.attributes(data, 8, len(data)))
    assert caught.value.offset == 12


def test_an_attribute_may_not_reach_beyond_its_span_into_its_neighbour():
    data = attribute_header(8) + b"abcd"
    with pytest.raises(Malformed):
        list(wire.attributes(data, 0, 6))


@pytest.mark.parametrize(
    "read, size", [(wire.Attributes.u8, 1), (wire.Attributes.u16, 2), (wire.Attributes.u32, 4)]
)
def test_a_value_too_short_for_its_number_raises_with_its_offset(read, size):
    data = b"...." + attribute_header(4 + size - 1) + b"\0" * 12
    with pytest.raises(Malformed) as caught:
        read(wire.Attributes(data, 4, 8 + size - 1), 1)
    assert caught.value.offset == 8


@pytest.mark.parametrize(
    "read, data, said",
    [
        (
            wire.messages,
            header(16) + b"\0",
            "expected a message header of 16 bytes, found 1, at offset 16",
        ),
        (
            wire.messages,
            header(16) + header(15),
            "message length 15 with 16 bytes left, at offset 16",
        ),
        (
            walk,
            attribute_header(4) + b"\0",
            "expected an attribute header of 4 bytes, found 1, at offset 4",
        ),
        (
            walk,
            attribute_header(4) + attribute_header(5),
            "attribute length 5 with 4 bytes left, at offset 4",
        ),
        (
            lambda data: wire.Attributes(data, 0, len(data)).u32(1),
            attribute_header(6) + b"ab",
            "expected 4 bytes, found 2, at offset 4",
        ),
        (
            lambda data: wire.fixed(struct.Struct("=I"), data, (2, 5)),
            bytes(9),
            "expected 4 bytes, found 3, at offset 2",
        ),
    ],
)
def test_what_is_malformed_is_said(read, data, said):
    with pytest.raises(Malformed) as caught:
        read(data)
    assert str(caught.value) == "parse netlink message: " + said


# ---------------------------------------------------------------- the path to an attribute


NEST = wire.attribute(3, b"v0\0") + wire.attribute_nested(
    18, wire.attribute(1, b"veth"), wire.attribute_nested(2, wire.attribute(1, b"four"))
)


@pytest.mark.parametrize(
    "offset, path",
    [
        (0, (3,)),
        (8, (18,)),
        (12, (18, 1)),
        (20, (18, 2)),
        (24, (18, 2, 1)),
        (4, ()),
        (14, ()),
        (28, ()),
        (32, ()),
        (-4, ()),
        (999, ()),
    ],
)
def test_the_path_leads_to_the_attribute_whose_header_stands_there(offset, path):
    assert wire.path(NEST, 0, len(NEST), offset) == path


def test_the_path_may_be_as_deep_as_a_datagram_holds():
    nest = b"".join(attribute_header(length, 1) for length in range(1 << 16, 0, -4)[1:])
    assert wire.path(nest, 0, len(nest), len(nest) - 4) == (1,) * (len(nest) // 4)


# ---------------------------------------------------------------- properties


@build.patient
@given(st.lists(headers, max_size=5))
def test_messages_come_out_as_they_went_in(row):
    datagram = b"".join(
        wire.message(type, flags, sequence, payload, port)
        for type, flags, sequence, port, payload in row
    )
    found = [
        (each.type, each.flags, each.sequence, each.port, each.payload)
        for each in build.messages(datagram)
    ]
    assert found == row


@build.patient
@given(rows)
def test_trees_of_attributes_come_out_as_they_went_in(row):
    data = encode(row)
    assert decode(data, (0, len(data)), row) == row


@build.patient
@given(st.binary(max_size=64).filter(lambda raw: b"\0" not in raw))
def test_names_come_out_as_they_went_in_whatever_their_bytes(raw):
    name = raw.decode("utf-8", "surrogateescape")
    row = wire.Attributes(wire.attribute_string(3, name), 0, 5 + len(raw))
    assert row.raw(3) == raw + b"\0"
    assert row.string(3) == name


@build.patient
@given(st.binary(max_size=256))
def test_arbitrary_bytes_are_messages_within_the_datagram_or_malformed(data):
    try:
        for message in walk_messages(data):
            assert 16 <= message.start <= message.end <= len(data)
    except Malformed as error:
        assert 0 <= error.offset < len(data)


@build.patient
@given(st.binary(max_size=256), st.integers(0, 64))
def test_arbitrary_bytes_are_attributes_within_the_span_or_malformed(data, words):
    start = min(4 * words, len(data))  # the fixed parts of all families are whole words
    try:
        for _, (value, end) in bounded(wire.attributes(data, start, len(data)), data):
            assert start + 4 <= value <= end <= len(data)
    except Malformed as error:
        assert start <= error.offset < len(data)


@build.patient
@given(st.binary(max_size=256), st.integers(-4, 256))
def test_arbitrary_bytes_have_a_path_or_are_malformed(data, offset):
    try:
        assert all(type <= 0x3FFF for type in wire.path(data, 0, len(data), offset))
    except Malformed:
        pass


def test_no_datagram_makes_more_messages_than_it_has_room_for():
    assert len(walk_messages(header(16) * 4096)) == 4096
    assert len(walk(attribute_header(4) * 4096)) == 4096


# ---------------------------------------------------------------- captures


@golden.needs_little_endian
@pytest.mark.parametrize("name", golden.names())
def test_a_capture_written_again_is_the_same_bytes(name):
    for datagram in golden.datagrams(name):
        again = [
            wire.message(each.type, each.flags, each.sequence, each.payload, each.port)
            for each in build.messages(datagram)
        ]
        assert b"".join(again) == datagram


def test_a_line_missing_in_a_capture_is_noticed():
    with pytest.raises(ValueError):
        golden.parse("datagram\n0000: 01 02\n0003: 04\n")
    assert golden.parse("# 01\ndatagram  # 02\n0000: 01 02 # 03\n  0002:   04\n") == [
        b"\x01\x02\x04"
    ]

# SPDX-License-Identifier: Apache-2.0
"""Bytes to messages and attributes, and back.

A datagram is a series of messages. A message is a header, the fixed part of its family, and a
series of attributes. The value of an attribute may be a series of attributes again:

    | nlmsghdr | ifinfomsg, tcmsg ... | nlattr value pad | nlattr ( nlattr value pad | ... ) |
    '- the length of the message covers all of it -------------------------------------------'

Parsing copies nothing: a span is a pair ``(start, end)`` of offsets in the datagram, so that an
error can report its offset. Lengths are checked in this file, with two exceptions: `link.Link`
checks its fixed part, and `exchange` the request that an ERROR quotes. Unknown messages and
attributes pass through unchanged. Sources: linux/netlink.h, RFC 3549.
"""

from _struct import Struct

from . import uapi
from .errors import Malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterator, List, Optional, Tuple

    # Type, flags, sequence number, port, and the payload as data, start and end. A plain tuple,
    # because a dump may hold thousands of messages and an object takes longer to make.
    Message = Tuple[int, int, int, int, bytes, int, int]
    Span = Tuple[int, int]
    Places = Dict[int, Span]  # by type: offset of the value in the series, and its size
    Layout = Tuple[Callable[[bytes, int], Tuple[int, ...]], Tuple[int, ...], Places]

_u16 = Struct("=H")
_u32 = Struct("=I")

_HEADER = uapi.nlmsghdr.size
_ATTRIBUTE = uapi.nlattr.size
_unpack_header = uapi.nlmsghdr.unpack_from
_unpack_attribute = uapi.nlattr.unpack_from
_pack_header, _pack_attribute = uapi.nlmsghdr.pack, uapi.nlattr.pack
_PADDINGS = (b"", b"\0", b"\0\0", b"\0\0\0")


def align(length: int) -> int:
    """Round up to a multiple of four bytes (NLMSG_ALIGN, NLA_ALIGN)."""
    return (length + 3) & ~3


# ---------------------------------------------------------------- bytes to messages and attributes


def messages(datagram: bytes) -> "List[Message]":
    """Split a datagram into its messages.

    Raises `Malformed` at the first header with an impossible length.
    """
    found = []
    at, total = 0, len(datagram)
    while at < total:
        if total - at < _HEADER:
            raise Malformed(
                "expected a message header of %d bytes, found %d" % (_HEADER, total - at), at
            )
        length, type, flags, sequence, port = _unpack_header(datagram, at)
        end = at + length
        if length < _HEADER or end > total:
            raise Malformed("message length %d with %d bytes left" % (length, total - at), at)
        found.append((type, flags, sequence, port, datagram, at + _HEADER, end))
        at = end + 3 & ~3  # align(), without the call
    return found


def attributes(data: bytes, start: int, end: int) -> "List[Tuple[int, Span]]":
    """Split a series of attributes into their types, without flag bits, and their values' spans.

    Raises `Malformed` at the first header with an impossible length.
    """
    found = []
    at = start
    while at < end:
        if end - at < 4:  # the size of nlattr
            raise Malformed(
                "expected an attribute header of %d bytes, found %d" % (_ATTRIBUTE, end - at), at
            )
        length, type = _unpack_attribute(data, at)
        stop = at + length
        if length < 4 or stop > end:
            raise Malformed("attribute length %d with %d bytes left" % (length, end - at), at)
        found.append((type & 0x3FFF, (at + 4, stop)))  # NLA_TYPE_MASK
        at = stop + 3 & ~3  # align(), without the call
    return found


def fixed(layout: Struct, data: bytes, span: "Span") -> "Tuple[int, ...]":
    """Unpack a layout at the start of a span. Raises `Malformed` if the span is too short."""
    start, end = span
    if end - start < layout.size:
        raise too_short(layout.size, end - start, start)
    return layout.unpack_from(data, start)


def too_short(expected: int, found: int, offset: int) -> Malformed:
    """The error for a layout or number that is longer than the bytes that hold it."""
    return Malformed("expected %d bytes, found %d" % (expected, found), offset)


def _number(layout: Struct) -> "Callable[[Attributes, int], Optional[int]]":
    """Make a method of `Attributes` that reads one number."""
    size, unpack = layout.size, layout.unpack_from

    def read(self: "Attributes", type: int) -> "Optional[int]":
        place = self._places.get(type)
        if place is None:
            return None
        offset, length = place
        if length < size:
            raise too_short(size, length, self.start + offset)
        number: int = unpack(self.data, self.start + offset)[0]
        return number

    return read


class Attributes:
    """A series of attributes, read by type.

    An absent attribute reads as None. If a type occurs more than once, the last attribute counts,
    as in the kernel's nla_parse(). The constructor raises `Malformed` for an impossible length;
    reading a number raises it for a value that is too short.
    """

    # Each method below looks its attribute up by itself: a helper would cost one call per value.

    __slots__ = ("data", "start", "_places")

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self.data = data
        self.start = start
        for unpack, headers, places in layouts.get(end - start, ()):
            if unpack(data, start) == headers:
                self._places = places
                return
        self._places = _learn(data, start, end)

    def __iter__(self) -> "Iterator[int]":
        """Iterate over the types of the attributes."""
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, type: int) -> bool:
        return type in self._places

    u8 = _number(Struct("=B"))
    u16 = _number(_u16)
    u32 = _number(_u32)
    s32 = _number(Struct("=i"))

    def string(self, type: int) -> "Optional[str]":
        """Read a string, up to its NUL.

        Bytes that are not UTF-8 become lone surrogates, as with os.fsdecode().
        """
        place = self._places.get(type)
        if place is None:
            return None
        at = self.start + place[0]
        value = self.data[at : at + place[1]]
        return value.partition(b"\0")[0].decode("utf-8", "surrogateescape")

    def raw(self, type: int) -> "Optional[bytes]":
        """Read a value as bytes."""
        place = self._places.get(type)
        if place is None:
            return None
        at = self.start + place[0]
        return self.data[at : at + place[1]]

    def span(self, type: int) -> "Optional[Span]":
        """The span of a value in the datagram."""
        place = self._places.get(type)
        if place is None:
            return None
        at = self.start + place[0]
        return at, at + place[1]

    def nested(self, type: int) -> "Attributes":
        """Read a value that is a series of attributes; an empty series if the value is absent."""
        place = self._places.get(type)
        if place is None:
            return _EMPTY
        at = self.start + place[0]
        return Attributes(self.data, at, at + place[1])


# A cache of layouts, by the size of a series in bytes. A layout has three parts: a function that
# unpacks only the headers; the headers; the places of the values. The kernel writes objects of one
# kind alike. So a series with the same headers as an earlier one is not walked: a walk takes ten
# times as long.
layouts: "Dict[int, List[Layout]]" = {}

# Limits of the cache: the number of sizes, and of layouts of one size.
MOST_LAYOUTS, MOST_LAYOUTS_OF_SIZE = 64, 4


def _learn(data: bytes, start: int, end: int) -> "Places":
    """Walk a series of attributes, and add its layout to the cache if there is room."""
    found = attributes(data, start, end)
    places = {type: (at - start, stop - at) for type, (at, stop) in found}
    known = layouts.get(end - start, [])
    if found and len(known) < MOST_LAYOUTS_OF_SIZE:
        # the headers, without the values between them: "=HH8xHH4xHH"
        gaps = [after - at - _ATTRIBUTE for (_, (at, _)), (_, (after, _)) in zip(found, found[1:])]
        unpack = Struct("=HH" + "".join("%dxHH" % gap for gap in gaps)).unpack_from
        if len(layouts) >= MOST_LAYOUTS:
            layouts.clear()
        layouts[end - start] = known + [(unpack, unpack(data, start), places)]
    return places


_EMPTY = Attributes(b"", 0, 0)


class Decoded:
    """Base class for an object decoded from one message: a fixed part, and attributes.

    A subclass sets ``_layout``. Its constructor calls `_decode` and keeps the fields that it needs;
    its properties read the attributes, which are parsed at the first use.
    """

    __slots__ = ("_message", "_attributes")

    _layout: Struct  # of the fixed part

    def _decode(self, message: "Message") -> "Tuple[int, ...]":
        """Keep the message; return the fields of its fixed part."""
        _, _, _, _, data, start, end = message
        layout = self._layout
        if end - start < layout.size:
            raise too_short(layout.size, end - start, start)
        self._message = message
        self._attributes: Optional[Attributes] = None
        return layout.unpack_from(data, start)

    @property
    def attributes(self) -> Attributes:
        """All attributes of the message."""
        found = self._attributes
        if found is None:
            _, _, _, _, data, start, end = self._message
            found = self._attributes = Attributes(data, start + self._layout.size, end)
        return found


def network_u16(number: int) -> int:
    """Convert a 16-bit number from host to network byte order, or back (htons, ntohs)."""
    return int.from_bytes(_u16.pack(number), "big")


# ---------------------------------------------------------------- messages and attributes to bytes


def attribute(type: int, value: bytes) -> bytes:
    """Build an attribute with its padding. The value may have up to 65,531 bytes."""
    length = _ATTRIBUTE + len(value)
    return _pack_attribute(length, type) + value + _PADDINGS[-length & 3]


def attribute_nested(type: int, *children: bytes) -> bytes:
    """Build an attribute whose value is the series of the given attributes."""
    return attribute(type | uapi.NLA_F_NESTED, b"".join(children))


def attribute_u16(type: int, number: int) -> bytes:
    """Build an attribute with a 16-bit number."""
    return attribute(type, _u16.pack(number))


def attribute_u32(type: int, number: int) -> bytes:
    """Build an attribute with a 32-bit number."""
    return attribute(type, _u32.pack(number))


def attribute_string(type: int, text: str) -> bytes:
    """Build an attribute with a string and its NUL.

    Lone surrogates become the bytes that they stand for.
    """
    return attribute(type, text.encode("utf-8", "surrogateescape") + b"\0")


def message(type: int, flags: int, sequence: int, payload: bytes, port: int = 0) -> bytes:
    """Build a message. ``port`` is the sender's; 0 lets the kernel fill it in."""
    length = _HEADER + len(payload)
    return _pack_header(length, type, flags, sequence, port) + payload + _PADDINGS[-length & 3]


def path(data: bytes, start: int, end: int, offset: int) -> "Tuple[int, ...]":
    """The types that lead to the attribute whose header is at ``offset``; empty if there is none.

    For example ``(18, 1)``: the attribute 1 in the value of the attribute 18.
    """
    types: List[int] = []
    while True:
        try:
            found = attributes(data, start, end)
        except Malformed:
            if types:  # this value is not a series of attributes
                return ()
            raise
        around = [each for each in found if each[1][0] - _ATTRIBUTE <= offset < each[1][1]]
        if not around:
            return ()
        ((type, (start, end)),) = around
        types.append(type)
        if offset == start - _ATTRIBUTE:
            return tuple(types)

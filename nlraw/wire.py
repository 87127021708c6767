# SPDX-License-Identifier: Apache-2.0
"""Bytes to messages and attributes, and back.

A datagram is a row of messages, a message is a header, a fixed part of its family's and a row of
attributes, and the value of an attribute may be a row of attributes again:

    | nlmsghdr | ifinfomsg, tcmsg ... | nlattr value pad | nlattr ( nlattr value pad | nlattr value ) | ...
    '- len covers all of it ---------------------------------------------------------------------'

Nothing is copied while walking: a span is a pair ``(start, end)`` of offsets into the datagram, so that an
error can say where in the datagram it happened. Lengths are checked here and nowhere else; what is not
known passes through untouched. Sources: linux/netlink.h, RFC 3549.
"""

from struct import Struct

from . import uapi
from .errors import Malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterator, List, Optional, Tuple

    # type, flags, sequence number, port, and the payload: data, start, end. It is taken apart where it is read, for there may be
    # thousands of them, and to make an object takes longer than that.
    Message = Tuple[int, int, int, int, bytes, int, int]
    Span = Tuple[int, int]
    Places = Dict[int, Span]  # by type: offset from the start of the row, and size
    Layout = Tuple[Callable[[bytes, int], Tuple[int, ...]], Tuple[int, ...], Places]

_u16 = Struct("=H")
_u32 = Struct("=I")

_HEADER = uapi.nlmsghdr.size
_ATTRIBUTE = uapi.nlattr.size
_unpack_header = uapi.nlmsghdr.unpack_from
_unpack_attribute = uapi.nlattr.unpack_from


def align(length: int) -> int:
    """Round up to the next boundary of four bytes (NLMSG_ALIGN, NLA_ALIGN)."""
    return (length + 3) & ~3


def messages(datagram: bytes) -> "List[Message]":
    """The messages of a datagram, each as its type, flags, sequence number and port, and its payload as data, start and end.

    Raises `Malformed` at the first header that cannot be true.
    """
    found = []
    at, total = 0, len(datagram)
    while at < total:
        if total - at < _HEADER:
            raise Malformed("%d bytes where a message header of %d belongs" % (total - at, _HEADER), at)
        length, type, flags, sequence, port = _unpack_header(datagram, at)
        end = at + length
        if length < _HEADER or end > total:
            raise Malformed("message length %d with %d bytes left" % (length, total - at), at)
        found.append((type, flags, sequence, port, datagram, at + _HEADER, end))
        at = end + 3 & ~3  # align(), without the call
    return found


def attributes(data: bytes, start: int, end: int) -> "List[Tuple[int, Span]]":
    """A row of attributes in their order: the type of each, without its flag bits, and the span of its value."""
    found = []
    at = start
    while at < end:
        if end - at < 4:  # the size of nlattr
            raise Malformed("%d bytes where an attribute header of %d belongs" % (end - at, _ATTRIBUTE), at)
        length, type = _unpack_attribute(data, at)
        stop = at + length
        if length < 4 or stop > end:
            raise Malformed("attribute length %d with %d bytes left" % (length, end - at), at)
        found.append((type & 0x3FFF, (at + 4, stop)))  # NLA_TYPE_MASK
        at = stop + 3 & ~3  # align(), without the call
    return found


def _number(layout: Struct) -> "Callable[[Row, int], Optional[int]]":
    """A method that reads a number of a row's."""
    size, unpack = layout.size, layout.unpack_from

    def read(row: "Row", type: int) -> "Optional[int]":
        place = row._places.get(type)
        if place is None:
            return None
        at = row.start + place[0]
        if place[1] < size:
            raise Malformed("%d bytes where %d belong" % (place[1], size), at)
        number: int = unpack(row.data, at)[0]
        return number

    return read


class Row:
    """A row of attributes, to be read by type. What is not there is None; of several of one type the last counts, as in the
    kernel's nla_parse(). Raises `Malformed` for a row that cannot be true, and for a value too short for its type when read.
    """

    __slots__ = ("data", "start", "_places")

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self.data = data
        self.start = start
        for unpack, headers, places in _layouts.get(end - start, ()):
            if unpack(data, start) == headers:
                self._places = places
                return
        self._places = _learn(data, start, end)

    def __iter__(self) -> "Iterator[int]":
        """The types of the attributes that are there."""
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
        """A string up to its NUL. Bytes that are not UTF-8 become lone surrogates, as os.fsdecode() has it."""
        place = self._places.get(type)
        if place is None:
            return None
        at = self.start + place[0]
        return self.data[at : at + place[1]].partition(b"\0")[0].decode("utf-8", "surrogateescape")

    def raw(self, type: int) -> "Optional[bytes]":
        place = self._places.get(type)
        if place is None:
            return None
        at = self.start + place[0]
        return self.data[at : at + place[1]]

    def span(self, type: int) -> "Optional[Span]":
        """Where in the datagram the value stands."""
        place = self._places.get(type)
        if place is None:
            return None
        at = self.start + place[0]
        return at, at + place[1]

    def row(self, type: int) -> "Row":
        """The attributes that the value is a row of; none where it is not there."""
        place = self._places.get(type)
        if place is None:
            return _NONE
        at = self.start + place[0]
        return Row(self.data, at, at + place[1])


# Layouts that were met, by the size of the row. The kernel tells of one kind of thing always alike: where all headers are those
# of a row that was walked before, this one needs no walk. That takes a tenth of the time.
_layouts: "Dict[int, List[Layout]]" = {}

# How many are kept, of all sizes and of one.
_LAYOUTS, _LAYOUTS_OF_SIZE = 64, 4


def _learn(data: bytes, start: int, end: int) -> "Places":
    """Walk a row, and keep its layout."""
    found = attributes(data, start, end)
    places = {type: (at - start, stop - at) for type, (at, stop) in found}
    alike = _layouts.get(end - start, [])
    if found and len(alike) < _LAYOUTS_OF_SIZE:
        # the headers and nothing else: "=HH8xHH4xHH"
        gaps = [after - at - _ATTRIBUTE for (_, (at, _)), (_, (after, _)) in zip(found, found[1:])]
        unpack = Struct("=HH" + "".join("%dxHH" % gap for gap in gaps)).unpack_from
        if len(_layouts) >= _LAYOUTS:
            _layouts.clear()
        _layouts[end - start] = alike + [(unpack, unpack(data, start), places)]
    return places


_NONE = Row(b"", 0, 0)


class Told:
    """What one message tells of a thing: a fixed part, which a subclass reads, and attributes, parsed when they are asked for."""

    __slots__ = ("_message", "_row")

    _fixed: int  # the size of the fixed part

    def __init__(self, message: "Message") -> None:
        self._message = message
        self._row: Optional[Row] = None

    @property
    def attributes(self) -> Row:
        """All the attributes that were told."""
        if self._row is None:
            _, _, _, _, data, start, end = self._message
            self._row = Row(data, start + self._fixed, end)
        return self._row


def fixed(layout: Struct, data: bytes, span: "Span") -> "Tuple[int, ...]":
    """The fixed part at the beginning of a span."""
    start, end = span
    if end - start < layout.size:
        raise Malformed("%d bytes where %d belong" % (end - start, layout.size), start)
    return layout.unpack_from(data, start)


def network_u16(number: int) -> int:
    """Swap a 16-bit number between the host's order and the network's (htons, ntohs)."""
    return int.from_bytes(_u16.pack(number), "big")


def attribute(type: int, value: bytes) -> bytes:
    """One attribute, padded to the next boundary. A value of over 65,531 bytes does not fit its length field."""
    length = _ATTRIBUTE + len(value)
    return uapi.nlattr.pack(length, type) + value + bytes(-length & 3)


def nested(type: int, *children: bytes) -> bytes:
    """An attribute whose value is the given row of attributes."""
    return attribute(type | uapi.NLA_F_NESTED, b"".join(children))


def attribute_u16(type: int, number: int) -> bytes:
    return attribute(type, _u16.pack(number))


def attribute_u32(type: int, number: int) -> bytes:
    return attribute(type, _u32.pack(number))


def attribute_string(type: int, text: str) -> bytes:
    """A string with its closing NUL; lone surrogates turn back into the bytes they came from."""
    return attribute(type, text.encode("utf-8", "surrogateescape") + b"\0")


def message(type: int, flags: int, sequence: int, payload: bytes, port: int = 0) -> bytes:
    """One message. ``port`` is the sender's; 0 leaves it to the kernel, which knows."""
    length = _HEADER + len(payload)
    return uapi.nlmsghdr.pack(length, type, flags, sequence, port) + payload + bytes(-length & 3)


def path(data: bytes, start: int, end: int, offset: int) -> "Tuple[int, ...]":
    """The types on the way down to the attribute whose header stands at ``offset``; empty if there is none."""
    types: List[int] = []
    while True:
        try:
            row = attributes(data, start, end)
        except Malformed:
            if types:  # a value that is no row of attributes
                return ()
            raise
        around = [found for found in row if found[1][0] - _ATTRIBUTE <= offset < found[1][1]]
        if not around:
            return ()
        ((type, (start, end)),) = around
        types.append(type)
        if offset == start - _ATTRIBUTE:
            return tuple(types)

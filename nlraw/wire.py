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
    from typing import Dict, Iterator, List, Optional, Tuple

    Span = Tuple[int, int]

_u8 = Struct("=B")
_u16 = Struct("=H")
_u32 = Struct("=I")

_HEADER = uapi.nlmsghdr.size
_ATTRIBUTE = uapi.nlattr.size
_unpack_header = uapi.nlmsghdr.unpack_from
_unpack_attribute = uapi.nlattr.unpack_from


def align(length: int) -> int:
    """Round up to the next boundary of four bytes (NLMSG_ALIGN, NLA_ALIGN)."""
    return (length + 3) & ~3


class Message:
    """One message of a datagram: the header's fields, and the span of the payload in ``data``."""

    __slots__ = ("type", "flags", "sequence", "port", "data", "start", "end")

    def __init__(self, type: int, flags: int, sequence: int, port: int, data: bytes, start: int, end: int) -> None:
        self.type = type
        self.flags = flags
        self.sequence = sequence
        self.port = port
        self.data = data
        self.start = start
        self.end = end

    @property
    def payload(self) -> bytes:
        return self.data[self.start : self.end]

    def __repr__(self) -> str:
        return "Message(type=%d, flags=%#x, sequence=%d, port=%d, payload=%s)" % (
            self.type,
            self.flags,
            self.sequence,
            self.port,
            self.payload.hex(),
        )


def messages(datagram: bytes) -> "Iterator[Message]":
    """Walk the messages of a datagram. Raises `Malformed` at the first header that cannot be true."""
    at, total = 0, len(datagram)
    while at < total:
        if total - at < _HEADER:
            raise Malformed("%d bytes where a message header of %d belongs" % (total - at, _HEADER), at)
        length, type, flags, sequence, port = _unpack_header(datagram, at)
        if length < _HEADER or length > total - at:
            raise Malformed("message length %d with %d bytes left" % (length, total - at), at)
        yield Message(type, flags, sequence, port, datagram, at + _HEADER, at + length)
        at += align(length)


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


def spans(data: bytes, span: "Optional[Span]") -> "Dict[int, Span]":
    """A row of attributes by type. Of several of one type the last counts, as in the kernel's nla_parse().

    None, the span of an attribute that is not there, holds no attributes.
    """
    if span is None:
        return {}
    return dict(attributes(data, span[0], span[1]))


def fixed(layout: Struct, data: bytes, span: "Span") -> "Tuple[int, ...]":
    """The fixed part at the beginning of a span."""
    start, end = span
    if end - start < layout.size:
        raise Malformed("%d bytes where %d belong" % (end - start, layout.size), start)
    return layout.unpack_from(data, start)


def read_u8(data: bytes, span: "Span") -> int:
    return fixed(_u8, data, span)[0]


def read_u16(data: bytes, span: "Span") -> int:
    return fixed(_u16, data, span)[0]


def read_u32(data: bytes, span: "Span") -> int:
    return fixed(_u32, data, span)[0]


def read_string(data: bytes, span: "Span") -> str:
    """A string up to its NUL. Bytes that are not UTF-8 become lone surrogates, as os.fsdecode() has it."""
    return data[span[0] : span[1]].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def network_u16(number: int) -> int:
    """Swap a 16-bit number between the host's order and the network's (htons, ntohs)."""
    return int.from_bytes(_u16.pack(number), "big")


def attribute(type: int, value: bytes) -> bytes:
    """One attribute, padded to the next boundary. A value of over 65,531 bytes does not fit its length field."""
    length = _ATTRIBUTE + len(value)
    return uapi.nlattr.pack(length, type) + value + bytes(align(length) - length)


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
    return uapi.nlmsghdr.pack(length, type, flags, sequence, port) + payload + bytes(align(length) - length)


def path(data: bytes, start: int, end: int, offset: int) -> "Tuple[int, ...]":
    """The types on the way down to the attribute whose header stands at ``offset``; empty if there is none."""
    for type, (value, stop) in attributes(data, start, end):
        if offset == value - _ATTRIBUTE:
            return (type,)
        if value <= offset < stop:
            try:
                below = path(data, value, stop, offset)
            except Malformed:  # a value that is no row of attributes
                return ()
            return (type,) + below if below else ()
    return ()

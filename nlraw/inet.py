# SPDX-License-Identifier: Apache-2.0
"""RTM_*ROUTE and RTM_*ADDR: the requests, and the decoded `Route` and `Address` (rtnetlink(7))."""

from _struct import Struct

from . import uapi, wire
from .exchange import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Optional, Sequence

AF_UNSPEC = 0  # in a request for a list: of every family
AF_INET = 2
AF_INET6 = 10

_RTM_TABLE = 4  # where it is in rtmsg

_ipv4 = Struct("=4B")
_ipv6 = Struct(">8H")


# ---------------------------------------------------------------- addresses as text


def address_text(family: int, data: bytes, span: "wire.Span") -> "Optional[str]":
    """An address as text; None for a family that is neither IPv4 nor IPv6."""
    if family == AF_INET:
        return "%d.%d.%d.%d" % wire.fixed(_ipv4, data, span)
    return _ipv6_text(wire.fixed(_ipv6, data, span)) if family == AF_INET6 else None


def read_address(attributes: wire.Attributes, type: int, family: int) -> "Optional[str]":
    """Read an address as text; None if it is absent, or of another family."""
    span = attributes.span(type)
    return None if span is None else address_text(family, attributes.data, span)


def _ipv6_text(words: "Sequence[int]") -> str:
    """As inet_ntop(3) of glibc writes it: the first longest run of zeros is "::" (RFC 5952)."""
    text = ":%x:%x:%x:%x:%x:%x:%x:%x:" % tuple(words)
    for length in range(8, 1, -1):
        at = text.find(":0" * length + ":")
        if at >= 0:
            break
    else:
        return text[1:-1]
    if not at and (length == 6 or (length == 5 and words[5] == 0xFFFF)):  # holds an IPv4 address
        head = "" if length == 6 else "ffff:"
        return "::%s%d.%d.%d.%d" % (head, *divmod(words[6], 256), *divmod(words[7], 256))
    return "%s::%s" % (text[1:at], text[at + 2 * length + 1 : -1])


# ---------------------------------------------------------------- decoded from replies


class Route(wire.Decoded):
    """One route to a destination of ``prefixlen`` bits. ``type`` is RTN_*.

    It applies to packets of one ``tos``, unless that is 0, and from a source of ``src_prefixlen``
    bits. ``protocol`` is RTPROT_*, ``scope`` RT_SCOPE_*, ``flags`` are RTM_F_*, and RTNH_F_* of its
    only next hop.
    """

    __slots__ = (
        "family",
        "prefixlen",
        "src_prefixlen",
        "tos",
        "protocol",
        "scope",
        "type",
        "flags",
        "_table",
    )

    _layout = uapi.rtmsg

    def __init__(self, message: "wire.Message") -> None:
        fields = self._decode(message)
        self.family, self.prefixlen, self.src_prefixlen, self.tos, self._table = fields[:5]
        self.protocol, self.scope, self.type, self.flags = fields[5:]

    @property
    def table(self) -> int:
        """The number of the table. Only the attribute can hold a number above 255."""
        return self.attributes.u32(uapi.RTA_TABLE) or self._table

    @property
    def is_default(self) -> bool:
        """True for a unicast route of the main table to every destination."""
        if self.prefixlen or self.type != uapi.RTN_UNICAST:
            return False
        return self.table == uapi.RT_TABLE_MAIN

    @property
    def metric(self) -> int:
        """The metric; the route with the lowest one is used."""
        return self.attributes.u32(uapi.RTA_PRIORITY) or 0

    @property
    def ifindex(self) -> int:
        """The device of the only next hop, or of the first; 0 if it has none."""
        hops = self.attributes.span(uapi.RTA_MULTIPATH)
        if hops is not None:
            return wire.fixed(uapi.rtnexthop, self.attributes.data, hops)[3]
        return self.attributes.s32(uapi.RTA_OIF) or 0  # signed, as it is in ifinfomsg

    def __repr__(self) -> str:
        facts = (self.family, self.prefixlen, self.table, self.ifindex, self.metric)
        return "Route(family=%d, prefixlen=%d, table=%d, ifindex=%d, metric=%d)" % facts


class Address(wire.Decoded):
    """One address of a device, in a network of ``prefixlen`` bits. ``scope`` is RT_SCOPE_*."""

    __slots__ = ("family", "prefixlen", "flags", "scope", "ifindex", "_local")

    _layout = uapi.ifaddrmsg

    def __init__(self, message: "wire.Message") -> None:
        fields = self._decode(message)
        self.family, self.prefixlen, self.flags, self.scope, self.ifindex = fields
        self._local: Optional[str] = None

    @property
    def is_known(self) -> bool:
        """True if it has an address, of IPv4 or IPv6."""
        if self.family not in (AF_INET, AF_INET6):
            return False
        return uapi.IFA_ADDRESS in self.attributes or uapi.IFA_LOCAL in self.attributes

    @property
    def local(self) -> "Optional[str]":
        """The address of the device; None for a family that is neither IPv4 nor IPv6."""
        if self._local is None:
            # IFA_ADDRESS is the far end of a point-to-point link (linux/if_addr.h)
            self._local = self._read(uapi.IFA_LOCAL) or self._read(uapi.IFA_ADDRESS)
        return self._local

    @property
    def far_end(self) -> "Optional[str]":
        """The address at the far end of a point-to-point link; None if it is no such address."""
        far_end, local = self.attributes.raw(uapi.IFA_ADDRESS), self.attributes.raw(uapi.IFA_LOCAL)
        return self._read(uapi.IFA_ADDRESS) if local and far_end != local else None

    @property
    def broadcast(self) -> "Optional[str]":
        """The broadcast address of the network, if one was assigned."""
        return self._read(uapi.IFA_BROADCAST)

    @property
    def is_secondary(self) -> bool:
        """True if the device has an earlier address in the same network."""
        return self.flags & uapi.IFA_F_SECONDARY != 0

    def _read(self, type: int) -> "Optional[str]":
        return read_address(self.attributes, type, self.family)

    def __repr__(self) -> str:
        return "Address(%s/%d, ifindex=%d)" % (self.local, self.prefixlen, self.ifindex)


def routes(messages: "Iterable[wire.Message]") -> "List[Route]":
    """Decode the routes of a reply; skip other messages."""
    return [Route(message) for message in messages if message[0] == uapi.RTM_NEWROUTE]


def routes_but_local(messages: "Iterable[wire.Message]") -> "List[Route]":
    """Decode the routes of all tables but the kernel's local one, which has most of them."""
    found = []
    for message in messages:
        type, _, _, _, data, start, end = message
        if type == uapi.RTM_NEWROUTE:
            is_whole = end - start >= uapi.rtmsg.size
            if not (is_whole and data[start + _RTM_TABLE] == uapi.RT_TABLE_LOCAL):
                found.append(Route(message))
    return found


def default_routes(messages: "Iterable[wire.Message]") -> "List[Route]":
    """Decode the default routes of the main table that have a device, lowest metric first."""
    found = [route for route in routes(messages) if route.is_default and route.ifindex]
    return sorted(found, key=lambda route: route.metric)


def addresses(messages: "Iterable[wire.Message]") -> "List[Address]":
    """Decode the IPv4 and IPv6 addresses of a reply, in the kernel's order."""
    found = [Address(message) for message in messages if message[0] == uapi.RTM_NEWADDR]
    return [each for each in found if each.is_known]


# ---------------------------------------------------------------- requests


def _request(
    type: int, flags: int, step: str, object: str, attributes: bytes = b"", *, fixed: bytes
) -> Request:
    """Build a request. ``fixed`` is the fixed part: rtmsg or ifaddrmsg."""
    return Request(type, flags, fixed + attributes, len(fixed), step, object)


def dump_routes(family: int) -> Request:
    """List the routes of one family, or of every family, of all tables."""
    fixed = uapi.rtmsg.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    return _request(uapi.RTM_GETROUTE, uapi.NLM_F_DUMP, "list routes", "", fixed=fixed)


def dump_addresses() -> Request:
    """List the addresses of all devices, of every family."""
    fixed = uapi.ifaddrmsg.pack(AF_UNSPEC, 0, 0, 0, 0)
    return _request(uapi.RTM_GETADDR, uapi.NLM_F_DUMP, "list addresses", "", fixed=fixed)


def create_address(ifindex: int, address: bytes, prefixlen: int, dev: str) -> Request:
    """Add an address, of 4 or 16 bytes, to a device. Refused if the device has it."""
    family = AF_INET if len(address) == 4 else AF_INET6
    local = wire.attribute(uapi.IFA_LOCAL, address)
    return _request(
        uapi.RTM_NEWADDR,
        uapi.NLM_F_CREATE | uapi.NLM_F_EXCL | uapi.NLM_F_ACK,
        "put address on",
        dev,
        local + wire.attribute(uapi.IFA_ADDRESS, address),
        fixed=uapi.ifaddrmsg.pack(family, prefixlen, 0, 0, ifindex),
    )

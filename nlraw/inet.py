# SPDX-License-Identifier: Apache-2.0
"""RTM_*ROUTE and RTM_*ADDR: the requests, and the decoded `Route` and `Address` (rtnetlink(7))."""

from _struct import Struct

from . import uapi, wire
from .exchange import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Optional, Tuple

AF_INET = 2
AF_INET6 = 10

_ipv4 = Struct("=4B")


# ---------------------------------------------------------------- decoded from replies


class Route(wire.Decoded):
    """One route to a destination of ``prefixlen`` bits. ``type`` is RTN_*."""

    __slots__ = ("family", "prefixlen", "type", "_table", "_hop")

    _layout = uapi.rtmsg

    def __init__(self, message: "wire.Message") -> None:
        fields = self._decode(message)
        self.family, self.prefixlen, _, _, self._table, _, _, self.type, _ = fields
        self._hop: Optional[Tuple[int, wire.Attributes]] = None

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
        """The device of the first next hop; 0 if it has none."""
        return self._next_hop()[0]

    @property
    def gateway(self) -> "Optional[str]":
        """The IPv4 gateway of the first next hop, as dotted decimal; None for other families."""
        if self.family != AF_INET:
            return None
        return _dotted(self._next_hop()[1], uapi.RTA_GATEWAY)

    def _next_hop(self) -> "Tuple[int, wire.Attributes]":
        """The ifindex and the attributes of the only next hop, or of the first."""
        if self._hop is None:
            attributes = self.attributes
            ifindex = attributes.s32(uapi.RTA_OIF) or 0  # signed, as it is in ifinfomsg
            hops = attributes.span(uapi.RTA_MULTIPATH)
            if hops is not None:
                data, (start, end) = attributes.data, hops
                size, _, _, ifindex = wire.fixed(uapi.rtnexthop, data, hops)
                first = start + uapi.rtnexthop.size
                attributes = wire.Attributes(data, first, min(start + size, end))
            self._hop = ifindex, attributes
        return self._hop

    def __repr__(self) -> str:
        facts = (self.family, self.prefixlen, self.table, self.ifindex, self.metric)
        return "Route(family=%d, prefixlen=%d, table=%d, ifindex=%d, metric=%d)" % facts


class Address(wire.Decoded):
    """One address of a device, in a network of ``prefixlen`` bits."""

    __slots__ = ("family", "prefixlen", "flags", "ifindex", "_local")

    _layout = uapi.ifaddrmsg

    def __init__(self, message: "wire.Message") -> None:
        self.family, self.prefixlen, self.flags, _, self.ifindex = self._decode(message)
        self._local: Optional[str] = None

    @property
    def local(self) -> "Optional[str]":
        """The IPv4 address of the device, as dotted decimal; None for other families."""
        if self._local is None and self.family == AF_INET:
            # IFA_ADDRESS is the far end of a point-to-point link (linux/if_addr.h)
            found = self.attributes
            self._local = _dotted(found, uapi.IFA_LOCAL) or _dotted(found, uapi.IFA_ADDRESS)
        return self._local

    @property
    def is_secondary(self) -> bool:
        """True if the device has an earlier address in the same network."""
        return self.flags & uapi.IFA_F_SECONDARY != 0

    def __repr__(self) -> str:
        return "Address(%s/%d, ifindex=%d)" % (self.local, self.prefixlen, self.ifindex)


def routes(messages: "Iterable[wire.Message]") -> "List[Route]":
    """Decode the routes of a reply; skip other messages."""
    return [Route(message) for message in messages if message[0] == uapi.RTM_NEWROUTE]


def default_routes(messages: "Iterable[wire.Message]") -> "List[Route]":
    """Decode the default routes of the main table that have a device, lowest metric first."""
    found = [route for route in routes(messages) if route.is_default and route.ifindex]
    return sorted(found, key=lambda route: route.metric)


def addresses(messages: "Iterable[wire.Message]") -> "List[Address]":
    """Decode the primary IPv4 addresses of a reply, in the kernel's order."""
    found = [Address(message) for message in messages if message[0] == uapi.RTM_NEWADDR]
    return [each for each in found if not each.is_secondary and each.local is not None]


def _dotted(attributes: wire.Attributes, type: int) -> "Optional[str]":
    """Read an IPv4 address as dotted decimal; None if it is absent."""
    span = attributes.span(type)
    return None if span is None else "%d.%d.%d.%d" % wire.fixed(_ipv4, attributes.data, span)


# ---------------------------------------------------------------- requests


def _request(
    type: int, flags: int, step: str, object: str, attributes: bytes = b"", *, fixed: bytes
) -> Request:
    """Build a request. ``fixed`` is the fixed part: rtmsg or ifaddrmsg."""
    return Request(type, flags, fixed + attributes, len(fixed), step, object)


def dump_routes(family: int) -> Request:
    """List the routes of one family, of all tables."""
    fixed = uapi.rtmsg.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    return _request(uapi.RTM_GETROUTE, uapi.NLM_F_DUMP, "list routes", "", fixed=fixed)


def dump_addresses() -> Request:
    """List the IPv4 addresses of all devices."""
    fixed = uapi.ifaddrmsg.pack(AF_INET, 0, 0, 0, 0)
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

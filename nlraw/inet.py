# SPDX-License-Identifier: Apache-2.0
"""RTM_*ADDR and RTM_*ROUTE: the requests, and what replies tell of addresses and default routes (rtnetlink(7))."""

from struct import Struct

from . import uapi, wire
from .exchange import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Optional

_IPV4 = Struct("=4B")

AF_INET = 2
AF_INET6 = 10


class DefaultRoute:
    """A unicast default route of the main table: the device it leaves by, its metric, and the IPv4 gateway as dotted
    decimal, None where there is none or it is of another family."""

    __slots__ = ("ifindex", "metric", "gateway")

    def __init__(self, ifindex: int, metric: int, gateway: "Optional[str]") -> None:
        self.ifindex = ifindex
        self.metric = metric
        self.gateway = gateway


def dump_routes(family: int) -> Request:
    """Read the routes of one family, of all tables."""
    fixed = uapi.rtmsg.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    return Request(uapi.RTM_GETROUTE, uapi.NLM_F_DUMP, fixed, len(fixed), "list routes", "")


def default_routes(messages: "Iterable[wire.Message]") -> "List[DefaultRoute]":
    """The default routes of the main table, lowest metric first; of a multipath route its first next hop."""
    found = []
    for type, _, _, _, data, start, end in messages:
        if type != uapi.RTM_NEWROUTE:
            continue
        family, length, _, _, table, _, _, kind, _ = wire.fixed(uapi.rtmsg, data, (start, end))
        told = wire.Row(data, start + uapi.rtmsg.size, end)
        table = told.u32(uapi.RTA_TABLE) or table
        if length or kind != uapi.RTN_UNICAST or table != uapi.RT_TABLE_MAIN:
            continue
        metric = told.u32(uapi.RTA_PRIORITY) or 0
        ifindex = told.s32(uapi.RTA_OIF)  # signed, as in ifinfomsg, by which the device is asked for
        hops = told.span(uapi.RTA_MULTIPATH)
        if hops is not None:
            size, _, _, ifindex = wire.fixed(uapi.rtnexthop, data, hops)
            told = wire.Row(data, hops[0] + uapi.rtnexthop.size, min(hops[0] + size, hops[1]))
        if ifindex is None:
            continue
        gateway = told.span(uapi.RTA_GATEWAY)
        dotted = _dotted(data, gateway) if family == AF_INET and gateway is not None else None
        found.append(DefaultRoute(ifindex, metric, dotted))
    return sorted(found, key=lambda route: route.metric)


class Address:
    """An address of a device: its ifindex, IPv4 as dotted decimal, the length of its prefix."""

    __slots__ = ("ifindex", "local", "prefixlen")

    def __init__(self, ifindex: int, local: str, prefixlen: int) -> None:
        self.ifindex = ifindex
        self.local = local
        self.prefixlen = prefixlen


def dump_addresses() -> Request:
    """Read the IPv4 addresses of all devices."""
    return Request(
        uapi.RTM_GETADDR,
        uapi.NLM_F_DUMP,
        uapi.ifaddrmsg.pack(AF_INET, 0, 0, 0, 0),
        uapi.ifaddrmsg.size,
        "list addresses",
        "",
    )


def addresses(messages: "Iterable[wire.Message]") -> "List[Address]":
    """The primary IPv4 addresses among the messages of a reply, in the kernel's order."""
    found = []
    for type, _, _, _, data, start, end in messages:
        if type != uapi.RTM_NEWADDR:
            continue
        family, prefixlen, flags, _, ifindex = wire.fixed(uapi.ifaddrmsg, data, (start, end))
        told = wire.Row(data, start + uapi.ifaddrmsg.size, end)
        # IFA_ADDRESS is the far end of a point-to-point link, IFA_LOCAL always ours (if_addr.h)
        local = told.span(uapi.IFA_LOCAL) or told.span(uapi.IFA_ADDRESS)
        if family == AF_INET and local is not None and not flags & uapi.IFA_F_SECONDARY:
            found.append(Address(ifindex, _dotted(data, local), prefixlen))
    return found


def create_address(ifindex: int, address: bytes, prefixlen: int, dev: str) -> Request:
    """Put an address, of 4 or 16 bytes, on a device that does not have it."""
    family = AF_INET if len(address) == 4 else AF_INET6
    return Request(
        uapi.RTM_NEWADDR,
        uapi.NLM_F_CREATE | uapi.NLM_F_EXCL | uapi.NLM_F_ACK,
        uapi.ifaddrmsg.pack(family, prefixlen, 0, 0, ifindex)
        + wire.attribute(uapi.IFA_LOCAL, address)
        + wire.attribute(uapi.IFA_ADDRESS, address),
        uapi.ifaddrmsg.size,
        "put address on",
        dev,
    )


def _dotted(data: bytes, span: "wire.Span") -> str:
    return "%d.%d.%d.%d" % wire.fixed(_IPV4, data, span)

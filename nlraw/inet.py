# SPDX-License-Identifier: Apache-2.0
"""RTM_*ADDR and RTM_*ROUTE: the requests, and what replies tell of addresses and default routes (rtnetlink(7))."""

from . import uapi, wire
from .exchange import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Optional

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
    for message in messages:
        if message.type != uapi.RTM_NEWROUTE:
            continue
        data, span = message.data, (message.start, message.end)
        family, length, _, _, table, _, _, kind, _ = wire.fixed(uapi.rtmsg, data, span)
        told = wire.spans(data, (message.start + uapi.rtmsg.size, message.end))
        if uapi.RTA_TABLE in told:
            table = wire.read_u32(data, told[uapi.RTA_TABLE])
        if length or kind != uapi.RTN_UNICAST or table != uapi.RT_TABLE_MAIN:
            continue
        metric = wire.read_u32(data, told[uapi.RTA_PRIORITY]) if uapi.RTA_PRIORITY in told else 0
        if uapi.RTA_MULTIPATH in told:
            start, end = told[uapi.RTA_MULTIPATH]
            size, _, _, ifindex = wire.fixed(uapi.rtnexthop, data, (start, end))
            told = wire.spans(data, (start + uapi.rtnexthop.size, min(start + size, end)))
        elif uapi.RTA_OIF in told:
            ifindex = wire.read_u32(data, told[uapi.RTA_OIF])
        else:
            continue
        gateway = None
        if family == AF_INET and uapi.RTA_GATEWAY in told:
            gateway = _dotted(data, told[uapi.RTA_GATEWAY])
        found.append(DefaultRoute(ifindex, metric, gateway))
    return sorted(found, key=lambda route: route.metric)


def _dotted(data: bytes, span: "wire.Span") -> str:
    return ".".join(str(byte) for byte in data[span[0] : span[1]])

# SPDX-License-Identifier: Apache-2.0
"""The next hops of a route: `hops` in the route itself, and objects that it refers to by an ID.

    RTA_OIF, RTA_GATEWAY or RTA_VIA    the only next hop
    RTA_MULTIPATH                      several:  | rtnexthop | attributes | rtnexthop | ...
    RTA_NH_ID                          an object, or a group of objects (RTM_GETNEXTHOP)

For a route that refers to an object the kernel lists the next hops too, unless the sysctl
net.ipv4.nexthop_compat_mode is 0. Sources: linux/rtnetlink.h; linux/nexthop.h, since Linux 5.3.
"""

from _struct import Struct

from . import inet, uapi, wire
from .errors import Malformed
from .exchange import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Mapping, Optional, Tuple

_family = Struct("=H")  # the head of rtvia; the address follows


class Hop:
    """One next hop. ``gateway`` is None if the destination is on the link. ``flags``: RTNH_F_*."""

    __slots__ = ("ifindex", "gateway", "weight", "flags")

    def __init__(self, ifindex: int, gateway: "Optional[str]", weight: int, flags: int) -> None:
        self.ifindex = ifindex
        self.gateway = gateway
        self.weight = weight
        self.flags = flags

    @property
    def is_onlink(self) -> bool:
        """True if the gateway counts as on the link, although no route leads to it."""
        return self.flags & uapi.RTNH_F_ONLINK != 0

    def __repr__(self) -> str:
        facts = (self.ifindex, self.gateway, self.weight, self.flags)
        return "Hop(ifindex=%d, gateway=%s, weight=%d, flags=%#x)" % facts


def hops(route: inet.Route) -> "List[Hop]":
    """The next hops in a route itself; none if it has no device, or only the ID of an object."""
    attributes = route.attributes
    span = attributes.span(uapi.RTA_MULTIPATH)
    if span is None:
        ifindex = attributes.s32(uapi.RTA_OIF)
        if ifindex is None:
            return []
        return [Hop(ifindex, _gateway(attributes, route.family), 1, route.flags)]
    found = []
    data, (at, end) = attributes.data, span
    while at < end:
        size, flags, weight, ifindex = wire.fixed(uapi.rtnexthop, data, (at, end))
        if not uapi.rtnexthop.size <= size <= end - at:
            raise Malformed("next hop length %d with %d bytes left" % (size, end - at), at)
        own = wire.Attributes(data, at + uapi.rtnexthop.size, at + size)
        found.append(Hop(ifindex, _gateway(own, route.family), weight + 1, flags))
        at += wire.align(size)
    return found


def object_id(route: inet.Route) -> "Optional[int]":
    """The ID of the object that a route refers to."""
    return route.attributes.u32(uapi.RTA_NH_ID)


def _gateway(attributes: wire.Attributes, family: int) -> "Optional[str]":
    """The gateway of a next hop, in the route's address family or in another one."""
    span = attributes.span(uapi.RTA_VIA)
    if span is None:
        return inet.read_address(attributes, uapi.RTA_GATEWAY, family)
    (family,) = wire.fixed(_family, attributes.data, span)
    return inet.address_text(family, attributes.data, (span[0] + _family.size, span[1]))


# ---------------------------------------------------------------- objects


class NextHopObject(wire.Decoded):
    """One object: a next hop, a blackhole, or a group of objects. ``flags`` are RTNH_F_*."""

    __slots__ = ("family", "flags")

    _layout = uapi.nhmsg

    def __init__(self, message: "wire.Message") -> None:
        self.family, _, _, self.flags = self._decode(message)

    @property
    def id(self) -> int:
        """The number that routes and groups refer to."""
        return self.attributes.u32(uapi.NHA_ID) or 0

    def hop(self) -> "Optional[Hop]":
        """The next hop; None for a blackhole or a group."""
        ifindex = self.attributes.s32(uapi.NHA_OIF)
        if ifindex is None:
            return None
        gateway = inet.read_address(self.attributes, uapi.NHA_GATEWAY, self.family)
        return Hop(ifindex, gateway, 1, self.flags)

    def members(self) -> "List[Tuple[int, int]]":
        """The IDs and weights of a group's members; none if it is no group."""
        span = self.attributes.span(uapi.NHA_GROUP)
        if span is None:
            return []
        found = []
        at, end = span
        while at < end:
            number, low, high = wire.fixed(uapi.nexthop_grp, self.attributes.data, (at, end))
            found.append((number, (high << 8 | low) + 1))
            at += uapi.nexthop_grp.size
        return found

    def __repr__(self) -> str:
        return "NextHopObject(%d: %r, members=%r)" % (self.id, self.hop(), self.members())


def objects(messages: "Iterable[wire.Message]") -> "List[NextHopObject]":
    """Decode the objects of a reply; skip other messages."""
    return [NextHopObject(each) for each in messages if each[0] == uapi.RTM_NEWNEXTHOP]


def resolve(known: "Mapping[int, NextHopObject]", number: int) -> "List[Hop]":
    """The next hops of an object or a group; none for a blackhole.

    Raises `KeyError` if an object is not known.
    """
    found = known[number]
    members = found.members() or [(number, 1)]
    hops = []
    for member, weight in members:
        hop = known[member].hop()
        if hop is not None:
            hops.append(Hop(hop.ifindex, hop.gateway, weight, hop.flags))
    return hops


def dump() -> Request:
    """List the objects of the namespace, groups included."""
    fixed = uapi.nhmsg.pack(inet.AF_UNSPEC, 0, 0, 0)
    step = "list next hops"
    return Request(uapi.RTM_GETNEXTHOP, uapi.NLM_F_DUMP, fixed, len(fixed), step, "")

# SPDX-License-Identifier: Apache-2.0
"""What a guest needs of an uplink, from the kernel's lists. Pure: lists in, an `Uplink` out.

Not included is what a guest's kernel creates or learns by itself: IPv6 link-local addresses, routes
to link-local destinations, neighbours that are not permanent. Not included either are routes
without a device (blackhole, unreachable, prohibit, throw), and tables other than the main one.
"""

from . import inet, nexthop, uapi
from .guest import GuestAddress, GuestNeighbour, GuestRoute, NextHop, Uplink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Mapping, Optional, Sequence

    from .link import Link
    from .neighbour import Neighbour

FAMILIES = {inet.AF_INET: "inet", inet.AF_INET6: "inet6"}

# iproute2's names (lib/rt_names.c, ip/rtm_map.c). Any other number is shown as a number.
TYPES = (
    "none unicast local broadcast anycast multicast blackhole unreachable prohibit throw nat "
    "xresolve"
).split()
SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
PROTOCOLS = {
    0: "unspec",
    1: "redirect",
    2: "kernel",
    3: "boot",
    4: "static",
    8: "gated",
    9: "ra",
    10: "mrt",
    11: "zebra",
    12: "bird",
    13: "dnrouted",
    14: "xorp",
    15: "ntk",
    16: "dhcp",
    18: "keepalived",
    42: "babel",
    99: "openr",
    186: "bgp",
    187: "isis",
    188: "ospf",
    189: "rip",
    192: "eigrp",
}

_ADDRESS_BITS = {inet.AF_INET: 32, inet.AF_INET6: 128}


def describe_uplink(
    uplink: "Link",
    addresses: "Iterable[inet.Address]",
    routes: "Sequence[inet.Route]",
    neighbours: "Iterable[Neighbour]",
    names: "Mapping[int, str]",
    objects: "Mapping[int, nexthop.NextHopObject]",
) -> Uplink:
    """Return the `Uplink` record of a link, from the lists of a whole namespace.

    ``names`` are those of all devices, by ifindex. ``objects`` are the next hop objects, by ID;
    `needs_objects` returns whether they are needed. Raises `KeyError` if a route refers to an
    object that is missing.
    """
    own = [each for each in addresses if each.ifindex == uplink.ifindex]
    primary = [each for each in own if each.family == inet.AF_INET and not each.is_secondary]
    found = [_describe_route(each, uplink, names, objects) for each in routes if _is_usual(each)]
    leading = tuple([each for each in found if each is not None])
    return Uplink(
        ifname=uplink.ifname,
        ifindex=uplink.ifindex,
        address=uplink.address,
        mtu=uplink.mtu or 0,
        local=primary[0].local if primary else None,
        prefixlen=primary[0].prefixlen if primary else None,
        gateway=_ipv4_gateway(leading, uplink.ifname),
        addresses=tuple([_describe_address(each) for each in own if not _is_link_local(each)]),
        routes=leading,
        neighbours=tuple(
            [
                GuestNeighbour(dst=each.dst, lladdr=each.lladdr)
                for each in neighbours
                if each.ifindex == uplink.ifindex and each.is_permanent and each.family in FAMILIES
            ]
        ),
    )


# ---------------------------------------------------------------- addresses


def _is_link_local(address: inet.Address) -> bool:
    """True for an address that an IPv6 guest makes itself. IPv4 ones (169.254/16) are assigned."""
    return address.family == inet.AF_INET6 and SCOPES.get(address.scope) == "link"


def _describe_address(address: inet.Address) -> GuestAddress:
    return GuestAddress(
        family=FAMILIES[address.family],
        local=address.local,
        prefixlen=address.prefixlen,
        address=address.far_end,
        broadcast=address.broadcast,
        scope=_name(SCOPES, address.scope),
    )


# ---------------------------------------------------------------- routes


def needs_objects(routes: "Iterable[inet.Route]") -> bool:
    """True if a route refers to a next hop object, and its next hops are not listed with it."""
    referring = [route for route in routes if uapi.RTA_NH_ID in route.attributes]
    return any(_is_usual(route) and not nexthop.hops(route) for route in referring)


def _is_usual(route: inet.Route) -> bool:
    """True for an IPv4 or IPv6 route of the main table that is not a cached copy of another."""
    is_cached = route.flags & uapi.RTM_F_CLONED
    return not is_cached and route.family in FAMILIES and route.table == uapi.RT_TABLE_MAIN


def _describe_route(
    route: inet.Route,
    uplink: "Link",
    names: "Mapping[int, str]",
    objects: "Mapping[int, nexthop.NextHopObject]",
) -> "Optional[GuestRoute]":
    """The record of a route; None if it is not through the uplink, or to a link-local prefix."""
    hops = nexthop.hops(route)
    if not hops:
        number = nexthop.object_id(route)
        hops = [] if number is None else nexthop.resolve(objects, number)
    if uplink.ifindex not in [hop.ifindex for hop in hops] or _is_to_link_local(route):
        return None
    attributes = route.attributes
    only = hops[0] if len(hops) == 1 else None
    source = _prefix(route, uapi.RTA_SRC, route.src_prefixlen)
    fields = {
        "family": FAMILIES[route.family],
        "type": TYPES[route.type] if route.type < len(TYPES) else str(route.type),
        "dst": _prefix(route, uapi.RTA_DST, route.prefixlen),
        "gateway": only and only.gateway,
        "protocol": _name(PROTOCOLS, route.protocol),
        "scope": _name(SCOPES, route.scope),
        "src": inet.read_address(attributes, uapi.RTA_PREFSRC, route.family),
        "metric": attributes.u32(uapi.RTA_PRIORITY),
        "mtu": attributes.nested(uapi.RTA_METRICS).u32(uapi.RTAX_MTU),
        "onlink": only is not None and only.is_onlink,
        "tos": "%#04x" % route.tos if route.tos else None,
        "from": source if route.src_prefixlen else None,
        "nexthops": () if only else tuple([_describe_hop(hop, names) for hop in hops]),
    }
    return GuestRoute(**fields)


def _describe_hop(hop: nexthop.Hop, names: "Mapping[int, str]") -> NextHop:
    dev = names.get(hop.ifindex)
    return NextHop(gateway=hop.gateway, dev=dev, weight=hop.weight, onlink=hop.is_onlink)


def _is_to_link_local(route: inet.Route) -> bool:
    """True for a destination in fe80::/10: a guest gets that route when its NIC comes up."""
    if route.family != inet.AF_INET6 or route.prefixlen < 10:
        return False
    head = (route.attributes.raw(uapi.RTA_DST) or b"")[:2]
    return int.from_bytes(head, "big") & 0xFFC0 == 0xFE80


def _prefix(route: inet.Route, type: int, length: int) -> str:
    """A destination or source as iproute2 writes it."""
    if not length:
        return "default"
    address = inet.read_address(route.attributes, type, route.family) or "0"
    return address if length == _ADDRESS_BITS[route.family] else "%s/%d" % (address, length)


def _ipv4_gateway(routes: "Iterable[GuestRoute]", ifname: str) -> "Optional[str]":
    """The IPv4 gateway of the IPv4 default route; if there are several, of the one in use."""
    found: List[GuestRoute] = [
        route
        for route in routes
        if (route.family, route.type, route.dst, route.tos) == ("inet", "unicast", "default", None)
    ]
    if not found:
        return None
    used = min(found, key=lambda route: route.metric or 0)
    gateways = [hop.gateway for hop in used.nexthops if hop.dev == ifname] or [used.gateway]
    return None if gateways[0] is None or ":" in gateways[0] else gateways[0]


def _name(names: "Mapping[int, str]", number: int) -> str:
    return names.get(number) or str(number)

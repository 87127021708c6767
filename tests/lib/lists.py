# SPDX-License-Identifier: Apache-2.0
"""Make the messages of lists: addresses, routes, neighbours, next hop objects.

Addresses are text, as inet_pton(3) takes it; IPv6 if it holds a colon.
"""

import socket

from lib import build
from nlraw import inet, neighbour, nexthop, uapi, wire


def family_of(address):
    return inet.AF_INET6 if ":" in address else inet.AF_INET


def packed(address):
    return socket.inet_pton(
        socket.AF_INET6 if ":" in address else socket.AF_INET, address
    )  # not family_of(): the numbers are the kernel's only on Linux


def _value(type, address):
    return b"" if address is None else wire.attribute(type, packed(address))


# ---------------------------------------------------------------- addresses


def address_message(local, prefixlen, ifindex=2, scope=0, flags=0, far_end=None, broadcast=None):
    payload = uapi.ifaddrmsg.pack(family_of(local), prefixlen, flags, scope, ifindex)
    payload += _value(uapi.IFA_ADDRESS, far_end or local)
    if far_end or "." in local:  # of IPv6 only a point-to-point address has both
        payload += _value(uapi.IFA_LOCAL, local)
    return build.received(uapi.RTM_NEWADDR, payload + _value(uapi.IFA_BROADCAST, broadcast))


def an_address(*arguments, **options):
    (found,) = inet.addresses([address_message(*arguments, **options)])
    return found


# ---------------------------------------------------------------- routes


def via(gateway):
    """The value of RTA_VIA."""
    return family_of(gateway).to_bytes(2, build.sys.byteorder) + packed(gateway)


def _gateway(gateway, family):
    if gateway is None or family_of(gateway) == family:
        return _value(uapi.RTA_GATEWAY, gateway)
    return wire.attribute(uapi.RTA_VIA, via(gateway))


def a_hop(ifindex, gateway=None, weight=1, flags=0, family=inet.AF_INET):
    """One entry of RTA_MULTIPATH."""
    value = _gateway(gateway, family)
    return uapi.rtnexthop.pack(8 + len(value), flags, weight - 1, ifindex) + value


def route_message(
    dst=None,
    oif=2,
    gateway=None,
    family=None,
    source=None,
    src=None,
    metric=None,
    mtu=None,
    hops=(),
    object_id=None,
    table=uapi.RT_TABLE_MAIN,
    type=uapi.RTN_UNICAST,
    protocol=3,
    scope=0,
    tos=0,
    flags=0,
):
    """``dst`` and ``source`` are prefixes, "10.9.0.0/16"; None is every address."""
    if family is None:
        family = family_of(dst or gateway or "0.0.0.0")
    lengths, payload = [], b""
    for kind, prefix in ((uapi.RTA_DST, dst), (uapi.RTA_SRC, source)):
        address, _, length = (prefix or "/0").partition("/")
        lengths.append(int(length))
        payload += _value(kind, address or None)
    head = (family, lengths[0], lengths[1], tos, min(table, 252 if table > 255 else 255))
    payload = uapi.rtmsg.pack(*head, protocol, scope, type, flags) + payload
    payload += wire.attribute_u32(uapi.RTA_TABLE, table)
    for kind, number in (
        (uapi.RTA_OIF, oif),
        (uapi.RTA_PRIORITY, metric),
        (uapi.RTA_NH_ID, object_id),
    ):
        if number is not None:
            payload += wire.attribute_u32(kind, number)
    payload += _gateway(gateway, family) + _value(uapi.RTA_PREFSRC, src)
    if mtu is not None:
        payload += wire.attribute_nested(uapi.RTA_METRICS, wire.attribute_u32(uapi.RTAX_MTU, mtu))
    if hops:
        payload += wire.attribute(uapi.RTA_MULTIPATH, b"".join(hops))
    return build.received(uapi.RTM_NEWROUTE, payload)


def a_route(*arguments, **options):
    (found,) = inet.routes([route_message(*arguments, **options)])
    return found


# ---------------------------------------------------------------- next hop objects


def object_message(number, oif=None, gateway=None, group=(), flags=0):
    """``group`` are IDs and weights."""
    family = family_of(gateway) if gateway else inet.AF_INET
    payload = uapi.nhmsg.pack(family, 0, 0, flags) + wire.attribute_u32(uapi.NHA_ID, number)
    if oif is not None:
        payload += wire.attribute_u32(uapi.NHA_OIF, oif)
    payload += _value(uapi.NHA_GATEWAY, gateway)
    if group:
        rows = [
            uapi.nexthop_grp.pack(member, weight - 1 & 0xFF, weight - 1 >> 8)
            for member, weight in group
        ]
        payload += wire.attribute(uapi.NHA_GROUP, b"".join(rows))
    return build.received(uapi.RTM_NEWNEXTHOP, payload)


def an_object(*arguments, **options):
    (found,) = nexthop.objects([object_message(*arguments, **options)])
    return found


# ---------------------------------------------------------------- neighbours


def neighbour_message(dst, lladdr="02:00:00:00:00:01", ifindex=2, state=uapi.NUD_PERMANENT):
    payload = uapi.ndmsg.pack(family_of(dst), ifindex, state, 0, 1) + _value(uapi.NDA_DST, dst)
    if lladdr is not None:
        payload += wire.attribute(uapi.NDA_LLADDR, bytes.fromhex(lladdr.replace(":", "")))
    return build.received(uapi.RTM_NEWNEIGH, payload)


def a_neighbour(*arguments, **options):
    (found,) = neighbour.neighbours([neighbour_message(*arguments, **options)])
    return found

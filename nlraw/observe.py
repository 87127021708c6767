# SPDX-License-Identifier: Apache-2.0
"""Take a snapshot of a namespace: the uplink, the matching TAPs, then TC."""

from . import link, tc, uapi
from .connection import Connection
from .link import Link
from .plan import AttachmentPoint, Snapshot
from .verdict import Target, matching

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Optional

    from .exchange import Request

# The kernel may end the quick list early (see `link.dump`): enough to report, not to act on.
QUICK_LIST = link.dump("tun")
COMPLETE_LIST = link.dump("tun", complete=True)

_LIST_QDISCS = tc.dump_qdiscs()


def groups_of(target: Target) -> int:
    """The multicast groups (RTMGRP_*) that announce changes to what a plan for it stands on.

    They announce a carrier late.
    """
    routes = uapi.RTMGRP_IPV4_ROUTE | uapi.RTMGRP_IPV6_ROUTE if target.uplink == "auto" else 0
    return uapi.RTMGRP_LINK | uapi.RTMGRP_TC | routes


def observe_links(
    connection: Connection, target: Target, list_taps: "Request" = COMPLETE_LIST
) -> Snapshot:
    """Look for the uplink and the matching TAPs, in one datagram; TC is not listed yet.

    With the uplink "auto" the default routes are asked for first.
    """
    requests = []
    if target.uplink == "auto":
        routes = _default_routes(connection)
        requests = [link.get(ifindex, "of the default route") for ifindex in routes]
    elif target.uplink_name is not None:
        requests = [link.find(target.uplink_name)]
    *named, listed = connection.ask(*requests, list_taps)
    taps = matching(link.links(listed.answer()), target)
    found = [link.only(reply) for reply in named if reply.error is None or not reply.error.is_gone]
    if target.uplink_name is None:  # an orphan may have a default route too
        found = [each for each in found if each.ifindex not in {tap.ifindex for tap in taps}]
    else:  # one found by an alternative name is somebody else's device
        found = [each for each in found if each.ifname == target.uplink_name]
    return Snapshot(found[0] if found else None, taps)


def observe_tc(connection: Connection, seen: Snapshot) -> Snapshot:
    """The same snapshot with the qdiscs, and with the filters of the uplink."""
    (listed,) = connection.ask(_LIST_QDISCS)  # alone: while a dump is running another is refused
    qdiscs = tc.qdiscs(listed.answer())
    points = _attachment_points(connection, seen.uplink, qdiscs)
    return Snapshot(seen.uplink, seen.taps, qdiscs, points)


def _default_routes(connection: Connection) -> "List[int]":
    """The devices of the default routes, best first: IPv4, then IPv6."""
    from . import inet

    ifindexes: List[int] = []
    for family in (inet.AF_INET, inet.AF_INET6):
        (reply,) = connection.ask(inet.dump_routes(family))
        ifindexes += [found.ifindex for found in inet.default_routes(reply.answer())]
    return list(dict.fromkeys(ifindexes))


def _attachment_points(
    connection: Connection, uplink: "Optional[Link]", qdiscs: "Iterable[tc.Qdisc]"
) -> "List[AttachmentPoint]":
    """The attachment points of the uplink. A shared block is somebody else's and not listed."""
    found = []
    for qdisc in qdiscs:
        if uplink is None or qdisc.ifindex != uplink.ifindex or qdisc.handle == 0:
            continue
        parents = [] if qdisc.ingress_block else [qdisc.handle]
        if qdisc.kind == "clsact":
            sides = (
                (uapi.TC_H_MIN_INGRESS, qdisc.ingress_block),
                (uapi.TC_H_MIN_EGRESS, qdisc.egress_block),
            )
            parents = [qdisc.handle | side for side, block in sides if not block]
        for parent in parents:
            (reply,) = connection.ask(tc.dump_filters(uplink.ifindex, parent, uplink.ifname))
            filters = tc.filters(reply.answer())
            found.append(AttachmentPoint(uplink.ifname, qdisc, parent, filters))
    return found

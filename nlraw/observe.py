# SPDX-License-Identifier: Apache-2.0
"""Take a snapshot of a namespace: its links, then TC."""

import errno

from . import link, tc, uapi
from .connection import Connection
from .errors import Refused
from .report import Ignored
from .snapshot import AttachmentPoint, Snapshot, divide, priority_key, shared_priorities
from .verdict import Target, is_tap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, List, Sequence, Set

    from .link import Link

LIST_LINKS = link.dump()
_LIST_QDISCS = tc.dump_qdiscs()


def groups_of(target: Target) -> int:
    """The multicast groups (RTMGRP_*) that announce changes to what a plan depends on.

    They announce a change of a carrier late.
    """
    routes = uapi.RTMGRP_IPV4_ROUTE | uapi.RTMGRP_IPV6_ROUTE if target.uplink == "auto" else 0
    return uapi.RTMGRP_LINK | uapi.RTMGRP_TC | routes


# ---------------------------------------------------------------- links


def list_links(connection: Connection) -> "List[Link]":
    """Every link of the namespace, from a list that the kernel neither filters nor cuts."""
    (listed,) = connection.ask(LIST_LINKS)
    return link.links(listed.answer())


def observe_links(connection: Connection, target: Target) -> Snapshot:
    """Look for the uplinks and the matching TAPs; TC is not listed yet.

    With the uplink "auto" the default routes are listed first.
    """
    routes = _default_routes(connection) if target.uplink == "auto" else []
    return snapshot_of(list_links(connection), target, routes)


def snapshot_of(
    links: "Iterable[Link]", target: Target, default_routes: "Sequence[int]" = ()
) -> Snapshot:
    """The snapshot of a list of links. ``default_routes`` are ifindexes, the best route first."""
    names: Dict[int, str] = {}
    uppers: Dict[int, List[str]] = {}
    devices: Dict[object, Link] = {}
    taps, ignored = [], []
    wanted: Set[object] = set(target.uplinks or default_routes)
    for found in links:
        name, ifindex = found.ifname, found.ifindex
        names[ifindex] = name
        lower = found.lower
        if lower:
            uppers.setdefault(lower, []).append(name)
        if target.fits(name):
            if is_tap(found):
                taps.append(found)
            else:
                ignored.append(Ignored(ifname=name, kind=found.kind or "unknown"))
        if name in wanted or ifindex in wanted:
            devices[name if target.uplinks else ifindex] = found
    taken = {tap.ifindex for tap in taps}  # a TAP may have a default route too
    order = target.uplinks or [each for each in default_routes if each not in taken]
    uplinks = [devices[key] for key in order if key in devices]
    if not target.uplinks:
        del uplinks[1:]
        ignored = [each for each in ignored if each.ifname not in {up.ifname for up in uplinks}]
    default_taps = [tap.ifname for tap in taps if tap.ifindex in default_routes]
    return Snapshot(uplinks, taps, ignored, names, uppers, default_taps)


def _default_routes(connection: Connection) -> "List[int]":
    """The devices of the default routes, best first: IPv4, then IPv6."""
    from . import inet

    ifindexes: List[int] = []
    for family in (inet.AF_INET, inet.AF_INET6):
        (reply,) = connection.ask(inet.dump_routes(family))
        ifindexes += [found.ifindex for found in inet.default_routes(reply.answer())]
    return list(dict.fromkeys(ifindexes))


# ---------------------------------------------------------------- TC


def observe_tc(
    connection: Connection, seen: Snapshot, target: Target, everywhere: bool = False
) -> Snapshot:
    """The same snapshot with TC listed.

    Lists the filters of the uplinks. If there is an orphan to remove, or if ``everywhere``, it also
    lists those of all other devices, except the orphans, and of all shared blocks.
    """
    # alone: while a dump is running, the kernel refuses another one
    (listed,) = connection.ask(_LIST_QDISCS)
    qdiscs = tc.qdiscs(listed.answer())
    going = {orphan.ifindex for orphan in seen.orphans(target)}
    everywhere = everywhere or bool(going)
    uplinks = {uplink.ifindex for uplink in seen.uplinks}
    points: List[AttachmentPoint] = []
    blocks: Set[int] = set()
    for qdisc in qdiscs:
        is_uplink = qdisc.ifindex in uplinks
        if qdisc.handle == 0 or qdisc.ifindex in going or not (everywhere or is_uplink):
            continue
        dev = seen.names.get(qdisc.ifindex, "ifindex %d" % qdisc.ifindex)
        blocks.update((qdisc.ingress_block, qdisc.egress_block))
        for parent in _parents(qdisc):
            filters = _list_filters(connection, qdisc.ifindex, parent, dev)
            points.append(AttachmentPoint(dev, qdisc, parent, filters, is_uplink))
    for block in sorted(blocks - {0} if everywhere else ()):
        dev = "block %d" % block
        filters = _list_filters(connection, uapi.TCM_IFINDEX_MAGIC_BLOCK, block, dev)
        points.append(AttachmentPoint(dev, None, block, filters))
    return seen.with_tc(qdiscs, _divided(connection, points))


def _divided(
    connection: Connection, points: "Sequence[AttachmentPoint]"
) -> "Sequence[AttachmentPoint]":
    """The same points, each with its own filters, where the kernel lists those of others too."""
    shared = shared_priorities(points)
    if not shared:
        return points
    requests = [tc.get_root_table(each, point.parent, point.dev) for point, each in shared]
    roots = {}
    for (point, each), reply in zip(shared, connection.ask(*requests)):
        if reply.error is None or not _is_gone(connection, reply.error):
            roots[priority_key(point, each)] = tc.only(reply).handle
    return divide(points, shared, roots)


def _is_gone(connection: Connection, error: Refused) -> bool:
    """True if what was asked for has gone since it was listed.

    If its chain, qdisc or block has gone the refusal is EINVAL (tc_get_tfilter(), cls_api.c), and
    that was announced.
    """
    is_announced = connection.groups != 0 and not connection.is_quiet
    return error.is_gone or (error.errno == errno.EINVAL and is_announced)


def _list_filters(connection: Connection, ifindex: int, parent: int, dev: str) -> "List[tc.Filter]":
    (reply,) = connection.ask(tc.dump_filters(ifindex, parent, dev))
    if reply.error is not None and reply.error.errno == errno.EMSGSIZE:
        words = "one of them is too long for the kernel to list: %s" % reply.error.message
        raise Refused(errno.EMSGSIZE, words, "list filters of", dev)
    return tc.filters(reply.answer())


def _parents(qdisc: tc.Qdisc) -> "List[int]":
    """The parents that a qdisc's filters are listed under, without those of a shared block."""
    if qdisc.kind != "clsact":
        return [] if qdisc.ingress_block else [qdisc.handle]
    sides = (
        (uapi.TC_H_MIN_INGRESS, qdisc.ingress_block),
        (uapi.TC_H_MIN_EGRESS, qdisc.egress_block),
    )
    return [qdisc.handle | side for side, block in sides if not block]


def observe_chains(
    connection: Connection, seen: Snapshot, points: "Sequence[AttachmentPoint]"
) -> Snapshot:
    """The same snapshot with the chains of some attachment points."""
    found, wanted = [], set(points)
    for point in seen.points:
        if point in wanted and point.qdisc is not None:
            request = tc.dump_chains(point.qdisc.ifindex, point.parent, point.dev)
            (reply,) = connection.ask(request)
            is_unknown = reply.error is not None and reply.error.errno == errno.EOPNOTSUPP
            # a kernel before 4.19 has no explicit chains
            point = point.with_chains(() if is_unknown else tc.chains(reply.answer()))
        found.append(point)
    return seen.with_tc(seen.qdiscs, found)

# SPDX-License-Identifier: Apache-2.0
"""What one look at a namespace saw: links, and the places where filters attach. No system calls.

Each object that can be deleted has a key. A later look shows by the keys which are still there.
"""

from . import tc, uapi
from .report import Report
from .verdict import IN_USE, ORPHAN, describe_tap, evidence, judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import (
        Container,
        Dict,
        Hashable,
        Iterable,
        List,
        Mapping,
        Optional,
        Sequence,
        Set,
        Tuple,
    )

    from .errors import Error
    from .link import Link
    from .report import DeadRedirect, Ignored, TcObject
    from .verdict import Target

    Key = Tuple[Hashable, ...]


class AttachmentPoint:
    """A place where filters attach: under a parent of a device's qdisc, or in a shared block.

    ``dev`` is the device's name, or "block N". ``qdisc`` is None for a block. ``parent`` is the one
    that the filters are listed under; for a block its number. ``chains`` are the numbers of the
    chains, None if they were not listed.
    """

    __slots__ = ("dev", "qdisc", "parent", "filters", "is_uplink", "chains")

    def __init__(
        self,
        dev: str,
        qdisc: "Optional[tc.Qdisc]",
        parent: int,
        filters: "Sequence[tc.Filter]",
        is_uplink: bool = False,
        chains: "Optional[Sequence[int]]" = None,
    ) -> None:
        self.dev = dev
        self.qdisc = qdisc
        self.parent = parent
        self.filters = filters
        self.is_uplink = is_uplink
        self.chains = chains

    @property
    def is_ingress(self) -> bool:
        """True for an `ingress` qdisc, which is deleted if it is left without content."""
        return self.qdisc is not None and self.qdisc.kind == "ingress"

    @property
    def is_incoming(self) -> bool:
        """True if its filters see what the device receives, as the redirect to a TAP must."""
        is_ingress_side = self.parent & 0xFFFF == uapi.TC_H_MIN_INGRESS
        return self.is_ingress or (self.qdisc is not None and is_ingress_side)

    @property
    def has_explicit_chain(self) -> bool:
        """True if a listed chain has no filter: somebody created it."""
        return not {filter.chain for filter in self.filters}.issuperset(self.chains or ())

    def with_chains(self, chains: "Sequence[int]") -> "AttachmentPoint":
        """The same attachment point with its chains."""
        return AttachmentPoint(
            self.dev, self.qdisc, self.parent, self.filters, self.is_uplink, chains
        )


def shared_priorities(
    points: "Iterable[AttachmentPoint]",
) -> "List[Tuple[AttachmentPoint, tc.Filter]]":
    """The u32 priorities that the kernel lists together: the point and the first entry of each.

    These are priorities of one number in several chains of a qdisc, or on both sides of a clsact.
    The kernel lists the tables of all of them in each place (tc_u_common, net/sched/cls_u32.c).
    """
    users: Dict[Key, Dict[Key, Tuple[AttachmentPoint, tc.Filter]]] = {}
    for point in points:
        for filter in point.filters:
            if filter.kind == "u32":
                found = users.setdefault((_owner(point), filter.priority), {})
                found.setdefault(priority_key(point, filter), (point, filter))
    return [each for found in users.values() if len(found) > 1 for each in found.values()]


def _owner(point: AttachmentPoint) -> "Hashable":
    """The qdisc or block that u32 tables belong to; their handles are unique within it."""
    return point.parent if point.qdisc is None else point.qdisc


def divide(
    points: "Sequence[AttachmentPoint]",
    shared: "Iterable[Tuple[AttachmentPoint, tc.Filter]]",
    roots: "Mapping[Key, int]",
) -> "List[AttachmentPoint]":
    """Keep the filters of shared priorities only where they belong, as the root tables show.

    ``roots`` are the root tables, by `priority_key`; a priority without one is gone. A filter in a
    root table is kept at the priority that owns the table. A filter in another table is kept where
    it is listed first. The other table itself is kept wherever it is listed.
    """
    owners = {priority_key(point, each): _owner(point) for point, each in shared}
    tables = {(owner, roots[key]) for key, owner in owners.items() if key in roots}
    seen: Set[Key] = set()

    def is_own(point: AttachmentPoint, entry: tc.Filter) -> bool:
        key = priority_key(point, entry)
        if key not in owners or entry.is_priority:
            return True
        if key not in roots:
            return False
        owner = owners[key]
        if (owner, entry.table) in tables:
            return entry.table == roots[key]
        if entry.is_table:
            return True
        is_first = (owner, entry.handle) not in seen
        seen.add((owner, entry.handle))
        return is_first

    return [
        AttachmentPoint(
            point.dev,
            point.qdisc,
            point.parent,
            [entry for entry in point.filters if is_own(point, entry)],
            point.is_uplink,
        )
        for point in points
    ]


class Snapshot:
    """What one look at a namespace saw. Immutable.

    ``uplinks`` are those that exist. ``taps`` are the matching TAPs, ``ignored`` the other matching
    links. ``names`` are the names of all devices, by ifindex; ``uppers`` the names of the devices
    that are stacked on each, by its ifindex. ``default_taps`` are the names of the TAPs that have a
    default route, for the uplink "auto". ``qdiscs`` and ``points`` are empty until TC is listed.
    """

    __slots__ = (
        "uplinks",
        "taps",
        "ignored",
        "names",
        "uppers",
        "default_taps",
        "qdiscs",
        "points",
    )

    def __init__(
        self,
        uplinks: "Sequence[Link]" = (),
        taps: "Sequence[Link]" = (),
        ignored: "Sequence[Ignored]" = (),
        names: "Optional[Mapping[int, str]]" = None,
        uppers: "Optional[Mapping[int, Sequence[str]]]" = None,
        default_taps: "Sequence[str]" = (),
        qdiscs: "Sequence[tc.Qdisc]" = (),
        points: "Sequence[AttachmentPoint]" = (),
    ) -> None:
        self.uplinks = tuple(uplinks)
        self.taps = tuple(taps)
        self.ignored = tuple(ignored)
        self.names = names or {}
        self.uppers = uppers or {}
        self.default_taps = tuple(default_taps)
        self.qdiscs = tuple(qdiscs)
        self.points = tuple(points)

    def with_tc(
        self, qdiscs: "Sequence[tc.Qdisc]", points: "Sequence[AttachmentPoint]"
    ) -> "Snapshot":
        """The same snapshot with TC listed."""
        return Snapshot(
            self.uplinks,
            self.taps,
            self.ignored,
            self.names,
            self.uppers,
            self.default_taps,
            qdiscs,
            points,
        )

    def may_act(self, target: "Target") -> bool:
        """True if there is an uplink, or none is required."""
        return bool(self.uplinks) or target.uplink == "none"

    @property
    def is_bare(self) -> bool:
        """True if there is no matching TAP and no filter, so that there is nothing to remove."""
        return not self.taps and not any(point.filters for point in self.points)

    def uppers_of(self, tap: "Link") -> "Sequence[str]":
        """The names of the devices that are stacked on a TAP."""
        return self.uppers.get(tap.ifindex, ())

    def in_use(self) -> "List[Link]":
        """The TAPs that are in use."""
        return [tap for tap in self.taps if judge(tap, self.uppers_of(tap)) == IN_USE]

    def evidence(self, taps: "Iterable[Link]") -> str:
        """The facts behind the verdicts on some TAPs."""
        return "; ".join(sorted({evidence(tap, self.uppers_of(tap)) for tap in taps}))

    def orphans(self, target: "Target") -> "List[Link]":
        """The orphans to remove: those that are not spared."""
        found = [tap for tap in self.taps if judge(tap, self.uppers_of(tap)) == ORPHAN]
        return [tap for tap in found if not target.spares(tap)]

    def keys(self) -> "Set[Key]":
        """The keys of all objects that can be deleted."""
        found: Set[Key] = {link_key(tap) for tap in self.taps}
        found.update(qdisc_key(qdisc) for qdisc in self.qdiscs)
        for point in self.points:
            for filter in point.filters:
                found.add(filter_key(point, filter))
                found.add(priority_key(point, filter))
        return found

    def ingress_of(self, device: "Link") -> "Optional[tc.Qdisc]":
        """The device's `ingress` or `clsact` qdisc."""
        found = (
            qdisc
            for qdisc in self.qdiscs
            if qdisc.ifindex == device.ifindex and qdisc.parent == uapi.TC_H_INGRESS
        )
        return next(found, None)

    def report(
        self,
        path: str,
        target: "Target",
        outcome: str,
        error: "Optional[Error]" = None,
        taps: "Optional[Iterable[Link]]" = None,
        deleted: "Container[int]" = (),
        tc_removed: "Iterable[TcObject]" = (),
        dead_redirects: "Iterable[DeadRedirect]" = (),
    ) -> Report:
        """The report on this namespace, with other ``taps`` if given; ``deleted`` are ifindexes."""
        return Report(
            netns=path,
            uplink=self.uplinks[0].ifname if self.uplinks else target.uplink_name,
            outcome=outcome,
            taps=tuple(
                describe_tap(tap, self.uppers_of(tap), tap.ifindex in deleted)
                for tap in (self.taps if taps is None else taps)
            ),
            tc_removed=tuple(tc_removed),
            ignored=self.ignored,
            dead_redirects=tuple(dead_redirects),
            error=error,
        )


def failure(path: str, target: "Target", error: "Error") -> Report:
    """The report on a namespace that could not be looked at."""
    return Snapshot().report(path, target, "failed", error)


# ---------------------------------------------------------------- keys


def link_key(link: "Link") -> "Key":
    return "link", link.ifindex


def qdisc_key(qdisc: tc.Qdisc) -> "Key":
    return "qdisc", qdisc.ifindex, qdisc.parent, qdisc.handle, qdisc.kind


def place_key(point: AttachmentPoint) -> "Key":
    ifindex = uapi.TCM_IFINDEX_MAGIC_BLOCK if point.qdisc is None else point.qdisc.ifindex
    return ifindex, point.parent


def priority_key(point: AttachmentPoint, filter: tc.Filter) -> "Key":
    return ("priority",) + place_key(point) + (filter.chain, filter.info, filter.kind)


def filter_key(point: AttachmentPoint, filter: tc.Filter) -> "Key":
    return ("filter",) + priority_key(point, filter)[1:] + (filter.handle,)

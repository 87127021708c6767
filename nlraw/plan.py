# SPDX-License-Identifier: Apache-2.0
"""What has to go, and in which order. Pure: a snapshot in, a list of changes out.

    plan       the orphans, the TC state that belongs to them, and dead redirects on the uplink
    plan_undo  what a failed setup made on the uplink

Every deletion in the product is a `Change` that is made here. Never in a plan: a link that is not
an orphan; a qdisc other than `ingress` on the uplink and an orphan's own; a filter that neither
redirects to an orphan nor is a dead redirect of the shape that runtimes make.
"""

from . import link, tc, uapi
from .report import TcObject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Hashable, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

    from .exchange import Request
    from .link import Link

    Key = Tuple[Hashable, ...]


class AttachmentPoint:
    """A place on a device where filters attach: the qdisc, the parent they are listed under."""

    __slots__ = ("dev", "qdisc", "parent", "filters")

    def __init__(
        self, dev: str, qdisc: tc.Qdisc, parent: int, filters: "Sequence[tc.Filter]"
    ) -> None:
        self.dev = dev
        self.qdisc = qdisc
        self.parent = parent
        self.filters = filters

    @property
    def is_incoming(self) -> bool:
        """True if its filters see incoming packets, as the redirect to a TAP must."""
        is_ingress_side = self.parent & 0xFFFF == uapi.TC_H_MIN_INGRESS
        return self.qdisc.kind == "ingress" or is_ingress_side


class Snapshot:
    """What one look at a namespace saw. Immutable.

    ``uplink`` is None if there is none. ``taps`` are the matching TAPs. ``qdiscs`` are those of all
    devices, ``points`` the attachment points of the uplink; both are empty until TC was listed.
    """

    __slots__ = ("uplink", "taps", "qdiscs", "points")

    def __init__(
        self,
        uplink: "Optional[Link]" = None,
        taps: "Sequence[Link]" = (),
        qdiscs: "Sequence[tc.Qdisc]" = (),
        points: "Sequence[AttachmentPoint]" = (),
    ) -> None:
        self.uplink = uplink
        self.taps = tuple(taps)
        self.qdiscs = tuple(qdiscs)
        self.points = tuple(points)

    def keys(self) -> "Set[Key]":
        """The key of every deletion that still has an object."""
        found: Set[Key] = {_link_key(tap) for tap in self.taps}
        found.update(_qdisc_key(qdisc) for qdisc in self.qdiscs)
        for point in self.points:
            for filter in point.filters:
                found.add(_filter_key(point, filter))
                found.add(_priority_key(point, filter))
        return found

    def ingress_of(self, device: "Link") -> "Optional[tc.Qdisc]":
        """The device's `ingress` or `clsact` qdisc."""
        found = (
            qdisc
            for qdisc in self.qdiscs
            if qdisc.ifindex == device.ifindex and qdisc.parent == uapi.TC_H_INGRESS
        )
        return next(found, None)


class Change:
    """One deletion: the request, and the keys of the objects that it deletes.

    ``removes`` are the TC objects to report, ``taps`` the links. Both are empty for a deletion that
    is not worth a report.
    """

    __slots__ = ("request", "keys", "removes", "taps")

    def __init__(
        self,
        request: "Request",
        keys: "Sequence[Key]",
        removes: "Sequence[TcObject]" = (),
        taps: "Sequence[Link]" = (),
    ) -> None:
        self.request = request
        self.keys = tuple(keys)
        self.removes = tuple(removes)
        self.taps = tuple(taps)

    def parts(self) -> "List[Change]":
        """The same change for each TAP, because one may be gone while another is left."""
        if len(self.taps) <= 1:
            return [self]
        return [Change(self.request, [_link_key(tap)], taps=[tap]) for tap in self.taps]


def plan(snapshot: Snapshot, orphans: "Sequence[Link]", group: int = 0) -> "List[Change]":
    """Return what has to go with the orphans, in order.

    First the uplink's filters and its `ingress` qdisc; then, for each orphan, its own qdiscs and
    the link. If ``group`` is given, which must hold the orphans and nothing else, one last request
    deletes all links.
    """
    changes = _plan_points(snapshot.points, {orphan.ifindex for orphan in orphans})
    for orphan in orphans:
        changes += [
            _delete_qdisc(qdisc, orphan.ifname)
            for qdisc in snapshot.qdiscs
            if qdisc.ifindex == orphan.ifindex
            and qdisc.handle != 0  # the kernel's own default
            and qdisc.parent in (uapi.TC_H_ROOT, uapi.TC_H_INGRESS)  # takes those below along
        ]
        if not group:
            request = link.delete(orphan.ifindex, orphan.ifname)
            changes.append(Change(request, [_link_key(orphan)], taps=[orphan]))
    if group:
        names = ", ".join(orphan.ifname for orphan in orphans)
        keys = [_link_key(orphan) for orphan in orphans]
        changes.append(Change(link.delete_group(group, names), keys, taps=orphans))
    return changes


def plan_undo(snapshot: Snapshot, tap: "Link", had_ingress: bool) -> "List[Change]":
    """Return what a failed setup made on the uplink: the redirect to its TAP, the qdisc it added.

    The TAP itself, and what is on it, goes with its last descriptor.
    """
    points = [point for point in snapshot.points if point.qdisc.ifindex != tap.ifindex]
    return _plan_points(points, {tap.ifindex}, with_dead=False, with_ingress=not had_ingress)


# ---------------------------------------------------------------- attachment points


def _plan_points(
    points: "Sequence[AttachmentPoint]",
    targets: "Set[int]",
    with_dead: bool = True,
    with_ingress: bool = True,
) -> "List[Change]":
    """Delete redirects to the targets (by ifindex), and dead ones; then an `ingress` left empty."""
    changes: List[Change] = []
    sent: Set[Key] = set()  # filters that the tables of several priorities share
    sharing = _count_sharing(points)
    for point in points:
        is_emptied = True
        for priority in _priorities(point, sharing):
            doomed = priority.doomed(targets, with_dead)
            is_emptied = is_emptied and priority.is_vacated_by(doomed)
            changes += priority.deletions(doomed, sent)
        if is_emptied and with_ingress and point.qdisc.kind == "ingress" and (changes or targets):
            changes.append(_delete_qdisc(point.qdisc, point.dev))
    return changes


class _Priority:
    """The filters of an attachment point that have chain, priority, protocol and kind in common.

    u32 priorities of one number in several chains of a qdisc, or on both sides of a clsact, share
    their tables, and the kernel lists in each what is in all (tc_u_common, net/sched/cls_u32.c).
    Nobody can say then which of them a filter belongs to. ``sharing`` counts the other ones.
    """

    __slots__ = ("point", "entries", "filters", "tables", "sharing")

    def __init__(
        self, point: AttachmentPoint, entries: "Sequence[tc.Filter]", sharing: int
    ) -> None:
        self.point = point
        self.entries = entries
        self.filters = [entry for entry in entries if entry.is_filter]
        self.tables = sum(entry.is_table for entry in entries)
        self.sharing = sharing

    def doomed(self, targets: "Set[int]", with_dead: bool) -> "List[tc.Filter]":
        """The filters to delete. A dead one in shared tables stays: it may be somebody else's."""
        dead = with_dead and self.point.is_incoming and not self.sharing
        return [
            filter
            for filter in self.filters
            if _redirects_to(filter, targets) or (dead and is_dead(filter))
        ]

    def is_vacated_by(self, doomed: "Sequence[tc.Filter]") -> bool:
        """True if nobody's filter is left. A root table is nobody's, one more is somebody's."""
        all_go = len(doomed) == len(self.filters) and self.tables <= 1 + self.sharing
        return all_go and bool(self.tables or doomed)

    def deletions(self, doomed: "Sequence[tc.Filter]", sent: "Set[Key]") -> "List[Change]":
        """Delete the filters; of u32 the whole priority if that vacates it.

        Its root table may outlive the last filter. Tables that are not shared go with the priority,
        filters and all. A filter in shared tables is deleted once; its key is added to ``sent``.
        """
        is_whole = bool(doomed) and self.entries[0].kind == "u32" and self.is_vacated_by(doomed)
        if self.sharing:
            doomed = [filter for filter in doomed if self._is_first(filter, sent)]
        dev = self.point.dev
        removes = [TcObject(dev=dev, object="filter", kind=filter.kind) for filter in doomed]
        changes: List[Change] = []
        if self.sharing or not is_whole:
            changes += [
                Change(
                    tc.delete_filter(filter, self.point.parent, dev),
                    [_filter_key(self.point, filter)],
                    [removed],
                )
                for filter, removed in zip(doomed, removes)
            ]
        if is_whole:
            changes.append(
                Change(
                    tc.delete_priority(self.entries[0], self.point.parent, dev),
                    [_priority_key(self.point, self.entries[0])],
                    [] if self.sharing else removes,
                )
            )
        return changes

    def _is_first(self, filter: tc.Filter, sent: "Set[Key]") -> bool:
        key = (self.point.qdisc, filter.priority, filter.handle)
        is_first = key not in sent
        sent.add(key)
        return is_first


def _priorities(point: AttachmentPoint, sharing: "Dict[Key, int]") -> "Iterator[_Priority]":
    """The priorities of an attachment point, in the kernel's order."""
    groups: Dict[Key, List[tc.Filter]] = {}
    for filter in point.filters:
        groups.setdefault((filter.chain, filter.info, filter.kind), []).append(filter)
    for entries in groups.values():
        first = entries[0]
        others = sharing.get((point.qdisc, first.priority), 1) - 1 if first.kind == "u32" else 0
        yield _Priority(point, entries, others)


def _count_sharing(points: "Iterable[AttachmentPoint]") -> "Dict[Key, int]":
    """How many chains and sides of a qdisc have u32 filters of a priority number."""
    users: Dict[Key, Set[Key]] = {}
    for point in points:
        for filter in point.filters:
            if filter.kind == "u32":
                user = (point.parent, filter.chain)
                users.setdefault((point.qdisc, filter.priority), set()).add(user)
    return {key: len(found) for key, found in users.items()}


def _redirects_to(filter: tc.Filter, ifindexes: "Set[int]") -> bool:
    return any(action.redirect in ifindexes for action in filter.actions())


def is_dead(filter: tc.Filter) -> bool:
    """True for a redirect whose target is gone, in the shape that nlraw and the runtimes make.

    That is match-all, with mirred egress redirect and "stolen" as its only action. It swallows
    every packet.
    """
    actions = filter.actions()
    return (
        filter.matches_all
        and len(actions) == 1
        and actions[0].redirect == 0
        and actions[0].eaction == uapi.TCA_EGRESS_REDIR
        and actions[0].control == uapi.TC_ACT_STOLEN
    )


# ---------------------------------------------------------------- keys


def _delete_qdisc(qdisc: tc.Qdisc, dev: str) -> Change:
    removed = TcObject(dev=dev, object="qdisc", kind=qdisc.kind)
    return Change(tc.delete_qdisc(qdisc, dev), [_qdisc_key(qdisc)], [removed])


def _link_key(link: "Link") -> "Key":
    return "link", link.ifindex


def _qdisc_key(qdisc: tc.Qdisc) -> "Key":
    return "qdisc", qdisc.ifindex, qdisc.parent, qdisc.handle, qdisc.kind


def _priority_key(point: AttachmentPoint, filter: tc.Filter) -> "Key":
    place = (filter.ifindex, point.parent, filter.chain)
    return ("priority",) + place + (filter.info, filter.kind)


def _filter_key(point: AttachmentPoint, filter: tc.Filter) -> "Key":
    return ("filter",) + _priority_key(point, filter)[1:] + (filter.handle,)

# SPDX-License-Identifier: Apache-2.0
"""What has to go, and in which order. Pure: a snapshot in, a plan out.

    plan       the orphans, the TC state that belongs to them, and dead redirects on the uplinks
    plan_undo  what a failed setup made on the uplinks

Every request that deletes something is a `Change` that is made here. `plan` deletes no link but
orphans; no qdisc but those of an orphan, and an `ingress` that is left without content; no filter
but redirects to an orphan, and dead redirects of the shape that runtimes make.
"""

from . import link, tc, uapi
from .report import DeadRedirect, TcObject
from .snapshot import filter_key, link_key, place_key, priority_key, qdisc_key
from .verdict import listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Container, Dict, Iterable, Iterator, List, Mapping, Sequence, Set, Tuple

    from .exchange import Request
    from .link import Link
    from .snapshot import AttachmentPoint, Key, Snapshot
    from .verdict import Target


class Change:
    """One deletion: the request, and the keys of the objects that it deletes.

    ``removes`` are the TC objects to report, ``taps`` the links.
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
        return [Change(self.request, [link_key(tap)], taps=[tap]) for tap in self.taps]


class Plan:
    """What has to go: ``changes``, in order.

    ``is_whole`` is False if another look has to follow. ``dead_redirects`` are those that stay.
    ``undecided`` are the points whose `ingress` is deleted, unless somebody created a chain there.
    """

    __slots__ = ("changes", "is_whole", "dead_redirects", "undecided")

    def __init__(
        self,
        changes: "Sequence[Change]" = (),
        is_whole: bool = True,
        dead_redirects: "Sequence[DeadRedirect]" = (),
        undecided: "Sequence[AttachmentPoint]" = (),
    ) -> None:
        self.changes = tuple(changes)
        self.is_whole = is_whole
        self.dead_redirects = tuple(dead_redirects)
        self.undecided = tuple(undecided)

    def by_group(self, group: int) -> "List[Change]":
        """The same changes, with one last request that deletes all links of a group.

        The group must hold the orphans and nothing else.
        """
        orphans = [tap for change in self.changes for tap in change.taps]
        names = listed([orphan.ifname for orphan in orphans])
        keys = [link_key(orphan) for orphan in orphans]
        last = Change(link.delete_group(group, names), keys, taps=orphans)
        return [change for change in self.changes if not change.taps] + [last]


def plan(
    snapshot: "Snapshot",
    target: "Target",
    at_once: bool = False,
    vacated: "Container[Key]" = (),
) -> Plan:
    """Plan what has to go.

    First the filters that redirect to an orphan, on every device and in every shared block, with
    each `ingress` qdisc that is left without content, and the dead redirects on the uplinks. Then,
    for each orphan, its own qdiscs and the link.

    A chain other than 0 that holds only filters to delete may have been created explicitly. This
    shows only when the filters are gone. So the plan is then these filters alone, and another look
    has to follow, unless all must go ``at_once``. ``vacated`` are the places (`Journal.places`)
    from which filters were deleted before.
    """
    orphans = snapshot.orphans(target)
    purges = _purges(snapshot, target, vacated)
    dead = _dead_redirects(purges)
    undecided = [each.point for each in purges if each.takes_ingress and each.point.chains is None]
    first = [each for each in purges if each.takes_ingress and each.uses_other_chains]
    if first and not at_once:
        changes = [change for each in first for change in each.filter_changes(other_chains=True)]
        return Plan(changes, False, dead, undecided)
    changes = [change for each in purges for change in each.changes()]
    qdiscs: Dict[int, List[tc.Qdisc]] = {}
    for qdisc in snapshot.qdiscs:
        # not the kernel's own default; its children go with it
        if qdisc.handle != 0 and qdisc.parent in (uapi.TC_H_ROOT, uapi.TC_H_INGRESS):
            qdiscs.setdefault(qdisc.ifindex, []).append(qdisc)
    for orphan in orphans:
        changes += [_delete_qdisc(each, orphan.ifname) for each in qdiscs.get(orphan.ifindex, ())]
        request = link.delete(orphan.ifindex, orphan.ifname)
        changes.append(Change(request, [link_key(orphan)], taps=[orphan]))
    return Plan(changes, True, dead, undecided)


def plan_undo(
    snapshot: "Snapshot", taps: "Sequence[Link]", had_ingress: "Container[int]"
) -> "List[Change]":
    """Plan to delete what a failed setup made on the uplinks: redirects to its TAPs, and qdiscs.

    A qdisc that was there before stays: ``had_ingress`` are the ifindexes of those uplinks. The
    kernel deletes a TAP, and what is on it, with its last descriptor.
    """
    ifindexes = {tap.ifindex for tap in taps}
    changes: List[Change] = []
    for point in snapshot.points:
        if point.is_uplink and point.qdisc is not None:
            purge = _Purge(point, snapshot.names, ifindexes, with_dead=False)
            is_ours = point.is_ingress and point.qdisc.ifindex not in had_ingress
            purge.takes_ingress = is_ours and purge.is_emptied
            changes += purge.changes()
    return changes


def _delete_qdisc(qdisc: tc.Qdisc, dev: str) -> Change:
    removed = TcObject(dev=dev, object="qdisc", kind=qdisc.kind)
    return Change(tc.delete_qdisc(qdisc, dev), [qdisc_key(qdisc)], [removed])


# ---------------------------------------------------------------- attachment points


def _purges(snapshot: "Snapshot", target: "Target", vacated: "Container[Key]") -> "List[_Purge]":
    """What goes at each attachment point.

    While a TAP is in use a dead redirect stays. While a fresh TAP is spared every `ingress` stays:
    the start in progress may be about to use it.
    """
    orphans = snapshot.orphans(target)
    ifindexes = {orphan.ifindex for orphan in orphans}
    kept = [tap for tap in snapshot.taps if tap.ifindex not in ifindexes]
    used = snapshot.in_use()
    purges = []
    for point in snapshot.points:
        with_dead = point.is_uplink and point.is_incoming and not used
        purge = _Purge(point, snapshot.names, ifindexes, with_dead)
        if point.is_ingress and purge.is_emptied and not point.has_explicit_chain:
            if purge.doomed or place_key(point) in vacated:
                purge.takes_ingress = len(kept) == len(used)
            else:  # a killed setup left it
                purge.takes_ingress = point.is_uplink and bool(orphans) and not kept
        purges.append(purge)
    return purges


class _Purge:
    """What goes at one attachment point: filters, and the `ingress` qdisc if it ``takes_ingress``.

    ``targets`` are the TAPs to delete, by ifindex; ``with_dead`` deletes dead redirects too.
    """

    def __init__(
        self,
        point: "AttachmentPoint",
        names: "Mapping[int, str]",
        targets: "Set[int]",
        with_dead: bool,
    ) -> None:
        self.point = point
        self.takes_ingress = False
        self.is_emptied = True
        self.doomed: List[Tuple[_Priority, List[Change]]] = []
        for priority in _priorities(point):
            doomed = priority.doomed(targets, with_dead)
            self.is_emptied = self.is_emptied and priority.is_vacated_by(doomed)
            if doomed:
                self.doomed.append((priority, priority.deletions(doomed, names)))

    @property
    def uses_other_chains(self) -> bool:
        """True if a filter to delete is in another chain than 0."""
        return any(priority.first.chain for priority, _ in self.doomed)

    def changes(self) -> "List[Change]":
        """The deletions, in order."""
        changes = self.filter_changes()
        if self.takes_ingress and self.point.qdisc is not None:
            changes.append(_delete_qdisc(self.point.qdisc, self.point.dev))
        return changes

    def filter_changes(self, other_chains: bool = False) -> "List[Change]":
        """The deletions of filters, all of them or only those in other chains than 0."""
        return [
            change
            for priority, changes in self.doomed
            if priority.first.chain or not other_chains
            for change in changes
        ]


class _Priority:
    """The filters of an attachment point that have chain, priority, protocol and kind in common."""

    __slots__ = ("point", "first", "filters", "tables")

    def __init__(self, point: "AttachmentPoint", entries: "Sequence[tc.Filter]") -> None:
        self.point = point
        self.first = entries[0]
        self.filters = [entry for entry in entries if entry.is_filter]
        self.tables = sum(entry.is_table for entry in entries)

    def doomed(self, targets: "Set[int]", with_dead: bool) -> "List[tc.Filter]":
        """The filters to delete."""
        return [
            filter
            for filter in self.filters
            if _redirects_to(filter, targets) or (with_dead and is_dead(filter))
        ]

    def is_vacated_by(self, doomed: "Sequence[tc.Filter]") -> bool:
        """True if these are all filters. One table is the root table; other tables are foreign."""
        all_go = len(doomed) == len(self.filters) and self.tables <= 1
        return all_go and bool(self.tables or doomed)

    def deletions(
        self, doomed: "Sequence[tc.Filter]", names: "Mapping[int, str]"
    ) -> "List[Change]":
        """Delete the filters; of u32 a whole priority, with its root table, if no filter stays."""
        dev, parent, first = self.point.dev, self.point.parent, self.first
        removes = [_describe_filter(filter, dev, names) for filter in doomed]
        if first.kind == "u32" and self.is_vacated_by(doomed):
            request = tc.delete_priority(first, parent, dev)
            return [Change(request, [priority_key(self.point, first)], removes)]
        return [
            Change(
                tc.delete_filter(filter, parent, dev), [filter_key(self.point, filter)], [removed]
            )
            for filter, removed in zip(doomed, removes)
        ]


def _priorities(point: "AttachmentPoint") -> "Iterator[_Priority]":
    """The priorities of an attachment point, in the kernel's order."""
    groups: Dict[Key, List[tc.Filter]] = {}
    for filter in point.filters:
        groups.setdefault((filter.chain, filter.info, filter.kind), []).append(filter)
    for entries in groups.values():
        yield _Priority(point, entries)


def _redirects_to(filter: tc.Filter, ifindexes: "Set[int]") -> bool:
    return any(action.redirect in ifindexes for action in filter.actions())


def is_dead(filter: tc.Filter) -> bool:
    """True for a redirect whose target is gone, in the shape that nlraw and the runtimes make.

    That is match-all, with mirred egress redirect and "stolen" as its only action. It swallows
    every packet.
    """
    actions = filter.actions()
    return (
        len(actions) == 1
        and actions[0].redirect == 0
        and actions[0].eaction == uapi.TCA_EGRESS_REDIR
        and actions[0].control == uapi.TC_ACT_STOLEN
        and filter.is_filter
        and filter.matches_all
    )


def _dead_redirects(purges: "Iterable[_Purge]") -> "List[DeadRedirect]":
    """The dead redirects that stay on the uplinks."""
    left = []
    for purge in purges:
        point = purge.point
        going = {key for change in purge.filter_changes() for key in change.keys}
        for filter in point.filters if point.is_uplink and point.is_incoming else ():
            keys = {filter_key(point, filter), priority_key(point, filter)}
            if is_dead(filter) and going.isdisjoint(keys):
                found = DeadRedirect(dev=point.dev, kind=filter.kind, priority=filter.priority)
                left.append(found)
    return list(dict.fromkeys(left))


def _describe_filter(filter: tc.Filter, dev: str, names: "Mapping[int, str]") -> TcObject:
    redirects = [action.redirect for action in filter.actions() if action.redirect is not None]
    return TcObject(
        dev=dev,
        object="filter",
        kind=filter.kind,
        priority=filter.priority,
        target=names.get(redirects[0]) if redirects else None,
    )

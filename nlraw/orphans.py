# SPDX-License-Identifier: Apache-2.0
"""Which TAPs are orphans, and how they are removed. The whole destructive policy is on this page.

    judge   one link: in use, an orphan, or no business of ours         pure
    plan    what has to go, in which order                              pure
    Cleanup look, judge, plan; make sure once more; send one datagram

What is never touched: a link that is no TAP or does not match, a TAP in use and everything else in its namespace, a qdisc
that is not `ingress` on the uplink, a filter that neither redirects to an orphan nor is a dead redirect of our own shape.

What is assumed: one VM per namespace. What cannot be seen: a holder that turned its own carrier off, and one that
attaches between the second look and the delete: some 0.1 ms, and more for each change that goes ahead of it, and for others'
changes that it has to wait for. The README has figures.
"""

import errno
import posix

from . import link, tc, uapi
from .errors import Error, Interrupted, Invalid, Lost, Refused, TapInUse
from .link import Link
from .netns import Namespace, describe
from .report import Report, Tap, TcObject
from .route import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterable, List, Optional, Sequence, Tuple

    from .exchange import Request
    from .netns import NetnsArgument

MATCH = "tap*_urunc"
TAP = "tap0_urunc"
UPLINK = "eth0"

IN_USE = "in-use"
ORPHAN = "orphan"

# The kernel may end the quick list early (link.dump()): enough to tell of, not to act on.
_LIST_TAPS = link.dump("tun")
_LIST_ALL_TAPS = link.dump("tun", complete=True)
_LIST_QDISCS = tc.dump_qdiscs()

# From how many orphans on they are deleted as a group. Three deletes take three waits of 10 to 30 ms, a group one.
GROUP_FROM = 3

# How often to look again when the namespace changed underfoot, or an answer was lost.
ROUNDS = 10


# ---------------------------------------------------------------- judge


def judge(link: Link) -> "Optional[str]":
    """IN_USE, ORPHAN, or None for a link that is no TAP.

    The carrier decides: it follows open and close at once, while RUNNING, LOWER_UP and the operational state wait for
    a deferred worker (linkwatch_event(), net/core/link_watch.c). They count only where there is no carrier to read.
    """
    tun, carrier = link.tun(), link.carrier
    if tun is None or tun.type != uapi.IFF_TAP:
        return None
    if carrier or tun.queues or tun.disabled_queues:  # a queue has a holder, attached or not, whatever the carrier
        return IN_USE
    if carrier is None:
        running = link.flags & (uapi.IFF_RUNNING | uapi.IFF_LOWER_UP) or link.operstate == uapi.IF_OPER_UP
        if running or not link.flags & uapi.IFF_UP:  # down shows nothing either way: not provably an orphan
            return IN_USE
    return ORPHAN


def is_tap(link: Link) -> bool:
    """Whether it is a TUN device in TAP mode."""
    tun = link.tun()
    return tun is not None and tun.type == uapi.IFF_TAP


def evidence(link: Link) -> str:
    """The facts behind a verdict, for people."""
    tun = link.tun()
    facts = ["no carrier to read" if link.carrier is None else "carrier on" if link.carrier else "carrier off"]
    if tun is not None and (tun.queues or tun.disabled_queues):
        facts.append("%d queues attached, %d detached" % (tun.queues, tun.disabled_queues))
    if link.carrier is None and not link.flags & uapi.IFF_UP:
        facts.append("down")
    return ", ".join(facts)


def is_fresh(orphan: Link) -> bool:
    """One that no second open ever attached to: the leftover of a failed start, or a start under way."""
    return not orphan.carrier_up_count


def matches(pattern: str, name: str) -> bool:
    """Whether the whole name fits a pattern of literal characters, ``*`` (any number) and ``?`` (just one)."""
    head, *middle = pattern.split("*")
    if not middle:
        return _fits(head, name)
    tail = middle.pop()
    end = len(name) - len(tail)
    if end < len(head) or not _fits(head, name[: len(head)]) or not _fits(tail, name[end:]):
        return False
    at = len(head)
    for part in middle:  # each at the first place where it fits leaves most to the others
        places = (place for place in range(at, end - len(part) + 1) if _fits(part, name[place : place + len(part)]))
        place = next(places, -1)
        if place < 0:
            return False
        at = place + len(part)
    return True


def _fits(part: str, text: str) -> bool:
    if "?" not in part:
        return part == text
    return len(part) == len(text) and all(mark in ("?", char) for mark, char in zip(part, text))


# ---------------------------------------------------------------- plan


class Hook:
    """A place on the uplink where filters hang: the qdisc, the parent to name it by, and what hangs there."""

    __slots__ = ("qdisc", "parent", "filters")

    def __init__(self, qdisc: tc.Qdisc, parent: int, filters: "Sequence[tc.Filter]") -> None:
        self.qdisc = qdisc
        self.parent = parent
        self.filters = filters

    @property
    def incoming(self) -> bool:
        """Whether it sees what comes in on the uplink, as the redirect to a TAP must."""
        return self.qdisc.kind == "ingress" or self.parent & 0xFFFF == uapi.TC_H_MIN_INGRESS


class Step:
    """One change: the request, and what it takes away: TC objects, or TAPs by ifindex. Neither: not worth a report."""

    __slots__ = ("request", "removes", "taps")

    def __init__(self, request: "Request", removes: "Sequence[TcObject]" = (), taps: "Iterable[int]" = ()) -> None:
        self.request = request
        self.removes = removes
        self.taps = frozenset(taps)

    def parts(self) -> "List[Step]":
        """The same change for each TAP by itself: what became of one says nothing about another."""
        return [Step(self.request, taps=[ifindex]) for ifindex in self.taps] or [self]


def plan(
    uplink: "Optional[Link]",
    orphans: "Sequence[Link]",
    qdiscs: "Sequence[tc.Qdisc]",
    hooks: "Sequence[Hook]",
    group: int = 0,
) -> "List[Step]":
    """What has to go, in that order: the uplink's filters, its `ingress` qdisc, of each orphan its qdiscs and the link.

    With a ``group``, which must hold the orphans and nothing else, one request behind all others deletes the links.
    """
    steps: List[Step] = []
    if uplink is not None:
        steps += unhook(hooks, uplink.ifname, {orphan.ifindex for orphan in orphans})
    for orphan in orphans:
        steps += [
            Step(tc.delete_qdisc(qdisc, orphan.ifname), [TcObject(dev=orphan.ifname, object="qdisc", kind=qdisc.kind)])
            for qdisc in qdiscs
            if qdisc.ifindex == orphan.ifindex
            and qdisc.handle != 0  # the kernel's own default
            and qdisc.parent in (uapi.TC_H_ROOT, uapi.TC_H_INGRESS)  # those below go with these
        ]
        if not group:
            steps.append(Step(link.delete(orphan.ifindex, orphan.ifname), taps=[orphan.ifindex]))
    if group:
        names = ", ".join(orphan.ifname for orphan in orphans)
        steps.append(Step(link.delete_group(group, names), taps=[orphan.ifindex for orphan in orphans]))
    return steps


def unhook(hooks: "Sequence[Hook]", dev: str, orphans: "set[int]") -> "List[Step]":
    """Of the uplink: redirects to orphans, dead ones of our own shape, and the `ingress` qdisc if that leaves it empty.

    The chains of a qdisc and the two sides of a clsact share the tables of u32 where they use the same priority, and each lists
    what is in all (tc_u_common, net/sched/cls_u32.c). Whose a filter is cannot be told then: one that redirects to an orphan
    goes, once; a dead one may be another's and stays; the priority goes only if all that is in it goes. Where nothing is shared,
    that one deletion takes the filters along.
    """
    steps: List[Step] = []
    sent: set[Tuple[tc.Qdisc, int, int]] = set()
    listed = {hook: _priorities(hook.filters) for hook in hooks}
    for hook in hooks:
        of_qdisc = [priority for other in hooks if other.qdisc is hook.qdisc for priority in listed[other]]
        empty = True
        for priority in listed[hook]:
            sharing = [other for other in of_qdisc if other is not priority and _share(other, priority)]
            shared = bool(sharing)
            filters = [filter for filter in priority if not filter.bare and not filter.table]
            doomed = [
                filter for filter in filters if _redirects(filter, orphans) or (hook.incoming and not shared and is_dead(filter))
            ]
            # the root table of a u32 priority is nobody's; one more table is somebody's
            tables = sum(filter.table for filter in priority)
            vacant = len(doomed) == len(filters) and tables <= 1 + len(sharing) and bool(tables or doomed)
            empty = empty and vacant
            once = [filter for filter in doomed if not shared or (hook.qdisc, filter.priority, filter.handle) not in sent]
            sent.update((hook.qdisc, filter.priority, filter.handle) for filter in once)
            removes = [TcObject(dev=dev, object="filter", kind=filter.kind) for filter in once]
            whole = vacant and bool(doomed) and priority[0].kind == "u32"  # its root table may outlive the last filter
            if shared or not whole:
                steps += [Step(tc.delete_filter(filter, hook.parent, dev), [gone]) for filter, gone in zip(once, removes)]
            if whole:
                steps.append(Step(tc.delete_priority(priority[0], hook.parent, dev), [] if shared else removes))
        if empty and hook.qdisc.kind == "ingress" and (steps or orphans):
            steps.append(Step(tc.delete_qdisc(hook.qdisc, dev), [TcObject(dev=dev, object="qdisc", kind="ingress")]))
    return steps


def _redirects(filter: tc.Filter, ifindexes: "set[int]") -> bool:
    return any(action.redirect in ifindexes for action in filter.actions())


def is_dead(filter: tc.Filter) -> bool:
    """A redirect whose target is gone and which swallows every packet, in the shape that this product and the runtimes make:
    match-all, with mirred egress redirect and "stolen" as its only action."""
    actions = filter.actions()
    return (
        filter.matches_all
        and len(actions) == 1
        and actions[0].redirect == 0
        and actions[0].eaction == uapi.TCA_EGRESS_REDIR
        and actions[0].control == uapi.TC_ACT_STOLEN
    )


def _priorities(filters: "Iterable[tc.Filter]") -> "List[List[tc.Filter]]":
    """The filters of a hook by chain, priority and classifier, in the kernel's order."""
    groups: Dict[Tuple[int, int, str], List[tc.Filter]] = {}
    for filter in filters:
        groups.setdefault((filter.chain, filter.info, filter.kind), []).append(filter)
    return list(groups.values())


def _share(one: "Sequence[tc.Filter]", other: "Sequence[tc.Filter]") -> bool:
    """Whether two priorities of a qdisc list the same, which only u32 does."""
    return one[0].kind == other[0].kind == "u32" and not _handles(one).isdisjoint(_handles(other))


def _handles(priority: "Iterable[tc.Filter]") -> "set[Tuple[int, int]]":
    return {(filter.priority, filter.handle) for filter in priority if not filter.bare}


# ---------------------------------------------------------------- remove


class Target:
    """What to look for: TAPs whose name fits ``match`` or is ``tap``; the uplink by its name, "auto" or "none".

    ``spare_fresh`` leaves fresh orphans alone. Raises `Invalid` for what can be no name.
    """

    __slots__ = ("match", "uplink", "name", "tap", "spare_fresh")

    def __init__(self, match: str, uplink: str, tap: "Optional[str]" = None, spare_fresh: bool = False) -> None:
        if not match:
            raise Invalid("an empty pattern matches nothing", "check pattern")
        link.check_name(uplink)
        self.match = match
        self.uplink = uplink
        self.name = None if uplink in ("auto", "none") else uplink
        self.tap = tap
        self.spare_fresh = spare_fresh

    @property
    def groups(self) -> int:
        """The groups that the kernel tells of changes to all that a plan stands on, but for a carrier (RTMGRP_*)."""
        routes = uapi.RTMGRP_IPV4_ROUTE | uapi.RTMGRP_IPV6_ROUTE if self.uplink == "auto" else 0
        return uapi.RTMGRP_LINK | uapi.RTMGRP_TC | routes

    def fits(self, name: str) -> bool:
        """Whether a TAP of that name is meant; the uplink never is."""
        return name != self.name and (name == self.tap or matches(self.match, name))


def look(route: Route, target: Target, list_taps: "Request" = _LIST_ALL_TAPS) -> "Tuple[Optional[Link], List[Link]]":
    """The uplink, None where there is none, and the matching TAPs. Both are asked for in one datagram, behind the default
    routes where they have to tell the uplink."""
    requests = []
    if target.uplink == "auto":
        requests = [link.get(ifindex, "of the default route") for ifindex in _default_routes(route)]
    elif target.name is not None:
        requests = [link.find(target.name)]
    *named, listed = route.query(*requests, list_taps)
    taps = matching(link.links(listed.answer()), target)
    found = [link.only(reply) for reply in named if not is_gone(reply.error)]
    if target.name is None:  # an orphan may have a default route too
        found = [device for device in found if device.ifindex not in {tap.ifindex for tap in taps}]
    else:  # one found by an alternative name is somebody else's device
        found = [device for device in found if device.ifname == target.name]
    return found[0] if found else None, taps


def matching(links: "Iterable[Link]", target: Target) -> "List[Link]":
    """The matching TAPs among links."""
    return [found for found in links if target.fits(found.ifname) and is_tap(found)]


def in_use(taps: "Iterable[Link]") -> "List[Link]":
    """Those of the TAPs that somebody holds."""
    return [tap for tap in taps if judge(tap) == IN_USE]


def _default_routes(route: Route) -> "List[int]":
    """The devices of the default routes, best first: by IPv4, then by IPv6."""
    from . import inet

    ifindexes: List[int] = []
    for family in (inet.AF_INET, inet.AF_INET6):
        (reply,) = route.query(inet.dump_routes(family))
        ifindexes += [found.ifindex for found in inet.default_routes(reply.answer())]
    return list(dict.fromkeys(ifindexes))


def hooks(route: Route, uplink: Link, qdiscs: "Iterable[tc.Qdisc]") -> "List[Hook]":
    """The places on the uplink where filters hang. A shared block is somebody else's and not looked into."""
    found = []
    for qdisc in qdiscs:
        if qdisc.ifindex != uplink.ifindex or qdisc.handle == 0:
            continue
        parents = [] if qdisc.ingress_block else [qdisc.handle]
        if qdisc.kind == "clsact":
            sides = ((uapi.TC_H_MIN_INGRESS, qdisc.ingress_block), (uapi.TC_H_MIN_EGRESS, qdisc.egress_block))
            parents = [qdisc.handle | side for side, block in sides if not block]
        for parent in parents:
            (reply,) = route.query(tc.dump_filters(uplink.ifindex, parent, uplink.ifname))
            found.append(Hook(qdisc, parent, tc.filters(reply.answer())))
    return found


def is_gone(error: "Optional[Refused]") -> bool:
    return error is not None and error.errno in (errno.ENODEV, errno.ENOENT)


class Cleanup:
    """One cleanup of one namespace: what was seen last, what is to be done about that, and what was done so far."""

    def __init__(self, route: Route, target: Target, list_taps: "Request" = _LIST_ALL_TAPS) -> None:
        self.route = route
        self.target = target
        self.list_taps = list_taps
        self.name = target.name
        self.uplink: Optional[Link] = None
        self.taps: Dict[int, Link] = {}
        self.qdiscs: List[tc.Qdisc] = []
        self.hooks: List[Hook] = []
        self.orphans: List[Link] = []
        self.steps: List[Step] = []
        self.done: List[Step] = []
        self.unsettled: List[Tuple[Step, Optional[Refused]]] = []

    def remove(self, dry_run: bool = False) -> Report:
        """Remove the orphans, or say what would be removed: `prepare`, and `finish` if there is something to do.

        Raises `TapInUse`, having changed nothing, or another `Error`; what was seen and done by then is its ``report``.
        """
        return self.prepare(dry_run) or self.finish()

    def prepare(self, dry_run: bool = False) -> "Optional[Report]":
        """Look, judge and plan, which changes nothing. Returns the report if there is nothing to `finish`."""
        try:
            return self.look_and_plan(ROUNDS, dry_run)
        except Error as error:
            self.add_report(error)
            raise

    def finish(self, later: bool = False) -> Report:
        """Carry out what was prepared; what is not done then is looked at again, and so on.

        ``later``: some time has passed since then, and what was seen may no longer be so.
        """
        try:
            report = self.renew() if later else None
            if report is not None:
                return report
            for rounds_left in reversed(range(ROUNDS)):
                if self.carry_out():
                    return self.report("cleaned", self.done)
                report = self.look_and_plan(rounds_left)
                if report is not None:
                    return report
            raise Interrupted("the namespace changed each time it was looked at", "clean up", self.route.path)
        except Error as error:
            self.add_report(error)
            raise

    def add_report(self, error: Error) -> None:
        error.report = self.report("in-use" if isinstance(error, TapInUse) else "failed", self.done, error)

    def look_and_plan(self, rounds_left: int, dry_run: bool = False) -> "Optional[Report]":
        taps = self.look()
        if self.unsettled:
            self.look_at_tc()
            self.settle(_deletable(taps, self.qdiscs, self.hooks), rounds_left)
        if self.uplink is None and self.target.uplink != "none":
            return self.report("cleaned" if self.done else "skipped", self.done)
        self.refuse_if_used(taps)
        self.look_at_tc()
        self.orphans = [tap for tap in taps if not (self.target.spare_fresh and is_fresh(tap))]
        self.steps = plan(self.uplink, self.orphans, self.qdiscs, self.hooks)
        if dry_run:
            return self.report("would-clean" if self.steps else "clean", self.steps)
        return None if self.steps else self.report("cleaned" if self.done else "clean", self.done)

    def renew(self) -> "Optional[Report]":
        """Look again, unless the kernel has told of no change: then only for a TAP that came into use, which it tells late."""
        (listed,) = self.route.query(_LIST_ALL_TAPS)
        unchanged = self.route.is_quiet
        self.route.stop_listening()
        if not unchanged:
            return self.look_and_plan(ROUNDS)
        taps = matching(link.links(listed.answer()), self.target)
        self.see(taps)
        self.refuse_if_used(taps)
        return None

    def look(self) -> "List[Link]":
        self.uplink, taps = look(self.route, self.target, self.list_taps)
        if self.uplink is not None:
            self.name = self.uplink.ifname
        self.see(taps)
        return taps

    def see(self, taps: "Sequence[Link]") -> None:
        """Note what the TAPs are now; what became of those that were to go is kept."""
        sent = self.deleted().union(*[step.taps for step, _ in self.unsettled])
        kept = [tap for tap in self.taps.values() if tap.ifindex in sent]
        self.taps = {tap.ifindex: tap for tap in kept + list(taps)}

    def look_at_tc(self) -> None:
        (listed,) = self.route.query(_LIST_QDISCS)  # by itself: while one dump is under way the kernel refuses another
        self.qdiscs = tc.qdiscs(listed.answer())
        self.hooks = [] if self.uplink is None else hooks(self.route, self.uplink, self.qdiscs)

    def deleted(self) -> "set[int]":
        return {ifindex for step in self.done for ifindex in step.taps}

    def refuse_if_used(self, taps: "Sequence[Link]") -> None:
        used = in_use(taps)
        if used:
            why = "in use (%s)" % "; ".join(sorted({evidence(tap) for tap in used}))
            names = ", ".join(tap.ifname for tap in used)
            raise TapInUse(why if self.done else why + ", nothing was changed", "clean up", names)

    def carry_out(self) -> bool:
        """Make sure once more, then send every change; tell whether all is done."""
        if len(self.orphans) >= GROUP_FROM:
            return self.carry_out_by_group()
        return self.holds() and self.send(self.steps)

    def holds(self) -> bool:
        """Is there nothing new to see? Then read every orphan once more by itself: same index, same name, still an orphan?"""
        (listed,) = self.route.query(_LIST_ALL_TAPS)
        if self.shows_more(matching(link.links(listed.answer()), self.target)):
            return False
        if not self.orphans:
            return True
        replies = self.route.query(*[link.get(orphan.ifindex, orphan.ifname) for orphan in self.orphans])
        return not any(is_gone(reply.error) for reply in replies) and _are_orphans(map(link.only, replies), self.orphans)

    def shows_more(self, taps: "Sequence[Link]") -> bool:
        """Whether a list has a TAP that was not seen before, or is in use."""
        return bool(in_use(taps)) or any(tap.ifindex not in self.taps for tap in taps)

    def carry_out_by_group(self) -> bool:
        """The same, with one wait of the kernel's for all links instead of one for each.

        The orphans are marked with a random group, and a list of *all* links must show right before the delete that the group
        holds them, each still an orphan, and nothing else. Until that is proven nothing else is changed; where it is not, each
        gets its former group back, and the next look takes another number.
        """
        orphans = self.orphans
        group = int.from_bytes(posix.urandom(4), "big") >> 1 | 1  # never 0, where every link is at first
        done = False
        try:
            self.set_groups([(orphan, group) for orphan in orphans])
            links = self.links()
            proven = _are_orphans([found for found in links if found.group == group], orphans)
            proven = proven and not self.shows_more(matching([found for found in links if found.group != group], self.target))
            done = proven and self.send(plan(self.uplink, orphans, self.qdiscs, self.hooks, group))
        finally:
            if not done:
                self.restore_groups(orphans, group)
        return done

    def restore_groups(self, orphans: "Sequence[Link]", group: int) -> None:
        """Give each of the orphans that is still in the group its former group back."""
        former = {orphan.ifindex: orphan.group or 0 for orphan in orphans}
        for _ in range(ROUNDS):
            left = [found for found in self.links() if found.group == group and found.ifindex in former]
            if not left:
                return
            self.set_groups([(member, former[member.ifindex]) for member in left])

    def links(self) -> "List[Link]":
        """Every link, from a list that no kernel has filtered."""
        (reply,) = self.route.query(link.dump())
        return link.links(reply.answer())

    def set_groups(self, groups: "Sequence[Tuple[Link, int]]") -> None:
        """Put links into groups. Whether an answer was lost does not matter: the list of members tells what became of it."""
        try:
            replies = self.route.change(*[link.set_group(found.ifindex, found.ifname, group) for found, group in groups])
        except Lost:
            return
        for reply in replies:
            if not is_gone(reply.error):
                reply.answer()

    def send(self, steps: "Sequence[Step]") -> bool:
        """Send every change in one datagram; tell whether all is done. What is not is settled by the next look."""
        self.unsettled = [(part, None) for step in steps for part in step.parts()]  # until every answer was read
        try:
            replies = self.route.change(*[step.request for step in steps])
        except Lost:
            return False
        answers = [(step, None if is_gone(reply.error) else reply.error) for step, reply in zip(steps, replies)]
        done = self.done + [step for step, error in answers if error is None]
        self.done, self.unsettled = done, [(part, error) for step, error in answers if error for part in step.parts()]
        return not self.unsettled

    def settle(self, deletable: "set[object]", rounds_left: int) -> None:
        """Of what was sent and not confirmed: what is no longer there is done; what was refused and is there has failed."""
        still = [(step, error) for step, error in self.unsettled if _is_there(step, deletable)]
        self.done += [step for step, _ in self.unsettled if not _is_there(step, deletable)]
        self.unsettled = []
        for _, error in still:
            if error is not None and not (error.errno in _PASSING and rounds_left):
                left = ", ".join("%s %s" % (step.request.step, step.request.object) for step, _ in still)
                words = "%s; not done: %s" % (error.message, left)
                raise Refused(error.errno or 0, words, error.step, error.object)

    def report(self, outcome: str, steps: "Sequence[Step]", error: "Optional[Error]" = None) -> Report:
        """``steps`` are what was done, or what would be."""
        deleted = self.deleted()
        return Report(
            netns=self.route.path,
            uplink=self.name,
            outcome=outcome,
            taps=tuple(as_tap(tap, tap.ifindex in deleted) for tap in self.taps.values()),
            tc_removed=tuple(gone for step in steps for gone in step.removes),
            error=error,
        )


def _are_orphans(now: "Iterable[Link]", before: "Sequence[Link]") -> bool:
    """Whether these are the same links, by index and name, and orphans still."""
    return {(found.ifindex, found.ifname, judge(found)) for found in now} == {
        (orphan.ifindex, orphan.ifname, ORPHAN) for orphan in before
    }


# Refusals that pass: worth another round.
_PASSING = (errno.EBUSY, errno.EINTR, errno.EAGAIN)


def _deletable(taps: "Sequence[Link]", qdiscs: "Sequence[tc.Qdisc]", hooks: "Sequence[Hook]") -> "set[object]":
    """The payload of every deletion of TC state that there still is something for, and the ifindex of every TAP."""
    requests = [tc.delete_qdisc(qdisc, "") for qdisc in qdiscs]
    for hook in hooks:
        requests += [tc.delete_filter(filter, hook.parent, "") for filter in hook.filters]
        requests += [tc.delete_priority(filter, hook.parent, "") for filter in hook.filters]
    there: set[object] = {request.payload for request in requests}
    return there.union(tap.ifindex for tap in taps)


def _is_there(step: Step, deletable: "set[object]") -> bool:
    return step.request.payload in deletable or not deletable.isdisjoint(step.taps)


def remove(route: Route, target: Target, dry_run: bool = False) -> Report:
    """`Cleanup.remove`, for who does not care what was seen."""
    return Cleanup(route, target).remove(dry_run)


def inspect(route: Route, target: Target) -> Report:
    """What `remove` would do, "in-use" being an outcome like others; by the quick list, as `scan`."""
    try:
        return Cleanup(route, target, _LIST_TAPS).remove(dry_run=True)
    except TapInUse as error:
        report = error.report
        if not isinstance(report, Report):
            raise
        return report.replace(error=None)


# ---------------------------------------------------------------- the public functions


def scan(netns: "NetnsArgument" = None, match: str = MATCH, uplink: str = UPLINK) -> "Tuple[Tap, ...]":
    """List the matching TAPs of a namespace with their verdicts, uplink or not. Changes nothing, and wakes nobody.

    The quick way: Linux 6.18 leaves out a TAP with very many alternative names, and those behind it (`link.dump`); a `cleanup`,
    also a dry one, sees them.

    ``netns``: None is the current one; an int or a string of digits a PID; an object with ``fileno()`` a descriptor; a
    string with a slash, or a path object, a path; any other string a name as in ``ip netns``. ``match`` is a glob of ``*`` and
    ``?``. ``uplink`` is the container interface, which is never listed.
    """
    target = Target(match, uplink)
    with Namespace(netns) as namespace, Route(namespace) as route:
        (listed,) = route.query(_LIST_TAPS)
        return tuple(map(as_tap, matching(link.links(listed.answer()), target)))


def cleanup(netns: "NetnsArgument" = None, match: str = MATCH, uplink: str = UPLINK, dry_run: bool = False) -> Report:
    """Remove the orphan TAPs of a namespace and the TC state that belongs to them; ``dry_run`` says what would go.

    ``netns`` and ``match`` are as for `scan`. ``uplink`` is the container interface: without it nothing is touched; "auto" takes
    the one of the default route, "none" requires none and touches no TC state on any. Raises `TapInUse` if any matching TAP is
    in use, having changed nothing, and other kinds of `Error`; what was seen and done by then is the error's ``report``.
    """
    target = Target(match, uplink)
    return _reporting(netns, target, not dry_run, lambda route: remove(route, target, dry_run))


def survey(netns: "NetnsArgument" = None, match: str = MATCH, uplink: str = UPLINK) -> Report:
    """The report that `cleanup` would make, "in-use" being an outcome like others. Changes nothing, and wakes nobody."""
    target = Target(match, uplink)
    return _reporting(netns, target, False, lambda route: inspect(route, target))


def _reporting(netns: "NetnsArgument", target: Target, alone: bool, act: "Callable[[Route], Report]") -> Report:
    path = describe(netns)
    try:
        with Namespace(netns) as namespace, Route(namespace, alone) as route:
            return act(route)
    except Error as error:
        if error.report is None:
            error.report = failure(path, target, error)
        raise


def failure(path: str, target: Target, error: Error) -> Report:
    """The report on a namespace that nothing could be learnt about."""
    return Report(netns=path, uplink=target.name, outcome="failed", taps=(), tc_removed=(), error=error)


def as_tap(tap: Link, deleted: bool = False) -> Tap:
    """What a report tells of a TAP."""
    verdict = judge(tap)
    return Tap(
        ifname=tap.ifname,
        ifindex=tap.ifindex,
        verdict=verdict,
        fresh=verdict == ORPHAN and is_fresh(tap),
        carrier=tap.carrier,
        operstate=link.operstate_name(tap.operstate),
        flags=link.flag_names(tap.flags),
        deleted=deleted,
    )

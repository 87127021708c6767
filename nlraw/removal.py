# SPDX-License-Identifier: Apache-2.0
"""Remove orphans from one namespace: look, plan, confirm, send, settle.

`verdict` and `plan` decide what goes; here it is carried out: every orphan is read once more right
before the changes are sent, and what was sent without an answer is looked up afterwards.

A holder that attaches between that second look and the delete is not seen. The README has figures.
"""

import posix

from . import link
from .connection import Connection
from .errors import Error, Lost, TapInUse
from .journal import Journal
from .link import Link
from .netns import Namespace, describe
from .observe import COMPLETE_LIST, QUICK_LIST, observe_links, observe_tc
from .plan import Snapshot, plan
from .report import Report, Tap
from .verdict import (
    MATCH,
    ORPHAN,
    UPLINK,
    Target,
    describe_tap,
    evidence,
    in_use,
    judge,
    matching,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Iterable, List, Optional, Sequence, Tuple

    from .exchange import Request
    from .netns import NetnsArgument
    from .plan import Change
    from .transport import Patience

# From this number of orphans on they are deleted as a group: the kernel waits 10 to 30 ms for each
# deletion, and once for a group.
GROUP_FROM = 3

# How often to look again when the namespace changed meanwhile, or an answer was lost.
ROUNDS = 10


# ---------------------------------------------------------------- remove


class Removal:
    """One cleanup of one namespace: the last snapshot, the plan made from it, and the journal."""

    def __init__(
        self, connection: Connection, target: Target, list_taps: "Request" = COMPLETE_LIST
    ) -> None:
        self.connection = connection
        self.target = target
        self.list_taps = list_taps
        self.snapshot = Snapshot()
        self.changes: Sequence[Change] = ()
        self.journal = Journal()

    def run(self, dry_run: bool = False) -> Report:
        """Remove the orphans, or report what would be removed."""
        return self.prepare(dry_run) or self.finish()

    def prepare(self, dry_run: bool = False) -> "Optional[Report]":
        """Look and plan, which changes nothing. Return a report if there is nothing to `finish`."""
        return self._reporting(lambda: self._look_and_plan(ROUNDS, dry_run))

    def finish(self, is_stale: bool = False) -> Report:
        """Carry out the plan, then look again until nothing is left to do.

        ``is_stale``: some time has passed since the look, and the namespace may have changed.
        """
        report = self._reporting(lambda: self._finish(is_stale))
        assert report is not None
        return report

    def _reporting(self, act: "Callable[[], Optional[Report]]") -> "Optional[Report]":
        """Run `act`; turn an error into a failed report."""
        try:
            return act()
        except Error as error:
            return self.report("failed", error)

    def _finish(self, is_stale: bool) -> Report:
        report = self._plan_again() if is_stale else None
        for rounds_left in reversed(range(ROUNDS)):
            if report is not None:
                return report
            if self._carry_out():
                return self.report("cleaned")
            report = self._look_and_plan(rounds_left)
        if report is not None:
            return report
        words = "the namespace changed each time it was looked at"
        return self.report("failed", Error(words, "clean up", self.connection.path))

    def _look_and_plan(self, rounds_left: int, dry_run: bool = False) -> "Optional[Report]":
        """Look, settle what was sent, and plan. Returns a report if nothing is left to do."""
        self.snapshot = observe_links(self.connection, self.target, self.list_taps)
        has_uplink = self.snapshot.uplink is not None or self.target.uplink == "none"
        used = in_use(self.snapshot.taps)
        if self.journal.is_open or (has_uplink and not used):
            self.snapshot = observe_tc(self.connection, self.snapshot)
            refusal = self.journal.settle(self.snapshot.keys(), rounds_left > 0)
            if refusal is not None:
                return self.report("failed", refusal)
        if not has_uplink:
            return self.report("cleaned" if self.journal.done else "skipped")
        if used:
            return self._report_in_use(used)
        self.changes = plan(self.snapshot, self._orphans())
        if dry_run:
            return self.report("would-clean" if self.changes else "clean")
        if self.changes:
            return None
        return self.report("cleaned" if self.journal.done else "clean")

    def _plan_again(self) -> "Optional[Report]":
        """Plan again if any change was announced.

        Otherwise check only for TAPs in use, because a carrier is announced late.
        """
        (listed,) = self.connection.ask(COMPLETE_LIST)
        is_unchanged = self.connection.is_quiet
        self.connection.leave_groups()
        if not is_unchanged:
            return self._look_and_plan(ROUNDS)
        used = in_use(matching(link.links(listed.answer()), self.target))
        return self._report_in_use(used) if used else None

    def _orphans(self) -> "List[Link]":
        return [tap for tap in self.snapshot.taps if self.target.is_removable(tap)]

    # ------------------------------------------------------------ report

    def _report_in_use(self, used: "Sequence[Link]") -> Report:
        """The report on TAPs in use: a failure if something was removed before that."""
        why = "; ".join(sorted({evidence(tap) for tap in used}))
        names = ", ".join(tap.ifname for tap in used)
        if self.journal.done:
            gone = self.journal.summary()
            words = "came into use (%s) after something was removed: %s" % (why, gone)
            return self.report("failed", Error(words, "clean up", names))
        words = "in use (%s), nothing was changed" % why
        return self.report("in-use", TapInUse(words, "clean up", names))

    def report(self, outcome: str, error: "Optional[Error]" = None) -> Report:
        """What was seen, and what was done, or would be."""
        taps = {tap.ifindex: tap for tap in self.journal.taps()}
        taps.update((tap.ifindex, tap) for tap in self.snapshot.taps)
        deleted = self.journal.deleted()
        changes = self.changes if outcome == "would-clean" else self.journal.done
        uplink = self.snapshot.uplink
        return Report(
            netns=self.connection.path,
            uplink=self.target.uplink_name if uplink is None else uplink.ifname,
            outcome=outcome,
            taps=tuple(describe_tap(tap, tap.ifindex in deleted) for tap in taps.values()),
            tc_removed=tuple(removed for change in changes for removed in change.removes),
            error=error,
        )

    # ------------------------------------------------------------ carry out

    def _carry_out(self) -> bool:
        """Confirm the plan and send every change; return True if all is done."""
        if len(self._orphans()) >= GROUP_FROM:
            return self._carry_out_by_group()
        return self._is_confirmed() and self._send(self.changes)

    def _is_confirmed(self) -> bool:
        """True if no other TAP has appeared and each orphan, read again, is unchanged."""
        orphans = self._orphans()
        (listed,) = self.connection.ask(COMPLETE_LIST)
        if self._has_more(matching(link.links(listed.answer()), self.target)):
            return False
        if not orphans:
            return True
        replies = self.connection.ask(*[link.get(each.ifindex, each.ifname) for each in orphans])
        if any(reply.error is not None and reply.error.is_gone for reply in replies):
            return False
        return _are_orphans(map(link.only, replies), orphans)

    def _has_more(self, taps: "Sequence[Link]") -> bool:
        """True if a list has a TAP that was not seen before, or one that is in use."""
        known = {tap.ifindex for tap in self.journal.taps() + list(self.snapshot.taps)}
        return bool(in_use(taps)) or any(tap.ifindex not in known for tap in taps)

    def _send(self, changes: "Sequence[Change]") -> bool:
        """Send every change in one datagram; return True if all are confirmed."""
        self.journal.begin(changes)
        try:
            replies = self.connection.change(*[change.request for change in changes])
        except Lost:
            return False
        self.journal.record(changes, replies)
        return not self.journal.is_open

    # ------------------------------------------------------------ delete as a group

    def _carry_out_by_group(self) -> bool:
        """The same, with one wait of the kernel for all links instead of one for each.

        The orphans are marked with a random group. A list of *all* links must show right before the
        delete that the group holds them, each still an orphan, and nothing else. Nothing else is
        changed before that is proven; if it is not, each gets its former group back, and the next
        round takes another number.
        """
        orphans = self._orphans()
        group = int.from_bytes(posix.urandom(4), "big") >> 1 | 1  # never 0, the group of every link
        is_done = False
        try:
            self._set_groups([(orphan, group) for orphan in orphans])
            links = self._list_links()
            members = [found for found in links if found.group == group]
            others = matching([found for found in links if found.group != group], self.target)
            if _are_orphans(members, orphans) and not self._has_more(others):
                is_done = self._send(plan(self.snapshot, orphans, group))
        finally:
            if not is_done:
                self._restore_groups(orphans, group)
        return is_done

    def _restore_groups(self, orphans: "Sequence[Link]", group: int) -> None:
        """Give each orphan that is still in the group its former group back."""
        former = {orphan.ifindex: orphan.group or 0 for orphan in orphans}
        for _ in range(ROUNDS):
            links = self._list_links()
            left = [each for each in links if each.group == group and each.ifindex in former]
            if not left:
                return
            self._set_groups([(member, former[member.ifindex]) for member in left])

    def _list_links(self) -> "List[Link]":
        """Every link of the namespace, from a list that no kernel has filtered."""
        (reply,) = self.connection.ask(link.dump())
        return link.links(reply.answer())

    def _set_groups(self, groups: "Sequence[Tuple[Link, int]]") -> None:
        """Put links into groups. A lost answer does not matter: the next list shows the members."""
        requests = [link.set_group(each.ifindex, each.ifname, group) for each, group in groups]
        try:
            replies = self.connection.change(*requests)
        except Lost:
            return
        for reply in replies:
            if reply.error is not None and not reply.error.is_gone:
                raise reply.error


def _are_orphans(now: "Iterable[Link]", before: "Sequence[Link]") -> bool:
    """True if these are the same links, by index and name, and all of them are orphans."""
    return {(found.ifindex, found.ifname, judge(found)) for found in now} == {
        (orphan.ifindex, orphan.ifname, ORPHAN) for orphan in before
    }


def remove(connection: Connection, target: Target, dry_run: bool = False) -> Report:
    """Run a cleanup and return its report; nothing is raised but what is no `Error`."""
    return Removal(connection, target).run(dry_run)


def preview(connection: Connection, target: Target) -> Report:
    """The report that a cleanup would make, by the quick list. "in-use" is no error here."""
    report = Removal(connection, target, QUICK_LIST).run(dry_run=True)
    return report.replace(error=None) if report.outcome == "in-use" else report


# ---------------------------------------------------------------- by namespace


def scan(
    netns: "NetnsArgument" = None, match: str = MATCH, uplink: str = UPLINK
) -> "Tuple[Tap, ...]":
    """List the matching TAPs of a namespace with their verdicts. Changes nothing, wakes nobody.

    ``netns``: None is the current one; an int or a string of digits a PID; an object with
    ``fileno()`` a descriptor; a string with a slash, or a path object, a path; any other string a
    name as in ``ip netns``. ``match`` is a glob of ``*`` and ``?``. ``uplink`` is the container
    interface, which is never listed; it need not exist.

    It takes the quick way: Linux 6.18 leaves out a TAP with very many alternative names, and those
    after it (`link.dump`). `cleanup` sees them, also a dry one.
    """
    target = Target(match, uplink)
    with Namespace(netns) as namespace, Connection(namespace) as connection:
        return list_taps(connection, target)


def list_taps(connection: Connection, target: Target) -> "Tuple[Tap, ...]":
    """The matching TAPs, by the quick list."""
    (listed,) = connection.ask(QUICK_LIST)
    return tuple(map(describe_tap, matching(link.links(listed.answer()), target)))


def cleanup(
    netns: "NetnsArgument" = None, match: str = MATCH, uplink: str = UPLINK, dry_run: bool = False
) -> Report:
    """Remove the orphan TAPs of a namespace and the TC state that belongs to them.

    ``netns`` and ``match`` are as for `scan`; ``dry_run`` only reports what would go. ``uplink`` is
    the container interface: without it nothing is touched; "auto" takes that of the default route,
    "none" requires none and touches no TC state on any. Raises `TapInUse` if a matching TAP is in
    use, having changed nothing, and other kinds of `Error`; each carries a `Report`, ``report``.
    """
    return clean_up(netns, Target(match, uplink), dry_run).checked()


def clean_up(
    netns: "NetnsArgument",
    target: Target,
    dry_run: bool = False,
    patience: "Optional[Patience]" = None,
) -> Report:
    """`cleanup` without raising: an error is the ``error`` of the report."""

    def act(namespace: Namespace) -> Report:
        with Connection(namespace, exclusive=not dry_run, patience=patience) as connection:
            return remove(connection, target, dry_run)

    return _report_on(netns, target, act)


def preview_of(netns: "NetnsArgument", target: Target) -> Report:
    """`preview` of a namespace; an error is the ``error`` of the report."""

    def act(namespace: Namespace) -> Report:
        with Connection(namespace) as connection:
            return preview(connection, target)

    return _report_on(netns, target, act)


def _report_on(
    netns: "NetnsArgument", target: Target, act: "Callable[[Namespace], Report]"
) -> Report:
    """Run `act` in a namespace; turn an error into a failed report."""
    path = describe(netns)
    try:
        with Namespace(netns) as namespace:
            return act(namespace)
    except Error as error:
        return failure(path, target, error)


def failure(path: str, target: Target, error: Error) -> Report:
    """The report on a namespace that could not be looked at."""
    return Report(
        netns=path,
        uplink=target.uplink_name,
        outcome="failed",
        taps=(),
        tc_removed=(),
        error=error,
    )

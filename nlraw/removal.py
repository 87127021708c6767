# SPDX-License-Identifier: Apache-2.0
"""Remove orphans from one namespace: look, plan, confirm, send, settle.

`verdict` and `plan` decide what is deleted, this file deletes it. Every orphan is read once more
right before the changes are sent. If an answer is lost, another look shows what was done.

A holder that attaches between that last read and the delete is not seen. The README has figures.
"""

from . import link
from .connection import Connection
from .errors import Error, Lost, TapInUse
from .journal import Journal
from .link import Link
from .marks import is_marked, new_mark, restore_groups, set_groups
from .observe import (
    LIST_LINKS,
    list_links,
    observe_chains,
    observe_links,
    observe_tc,
    snapshot_of,
)
from .plan import Plan, plan
from .snapshot import Snapshot
from .verdict import ORPHAN, Target, judge, listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Iterable, List, Optional, Sequence, Set

    from .plan import Change
    from .report import Report

# The least number of orphans that are deleted as a group: the kernel waits 10 to 30 ms for each
# deletion, but only once for a group.
GROUP_FROM = 3

# How many times to look again when the namespace changed meanwhile, or an answer was lost.
ROUNDS = 10


# ---------------------------------------------------------------- remove


class Removal:
    """One cleanup of one namespace: the last snapshot, the plan made from it, and the journal.

    ``seen`` is the first look, if the caller has taken it.
    """

    def __init__(
        self, connection: Connection, target: Target, seen: "Optional[Snapshot]" = None
    ) -> None:
        self.connection = connection
        self.target = target
        self.snapshot = seen or Snapshot()
        self._has_looked = seen is not None
        self.plan = Plan()
        self.journal = Journal()
        self._begun: Set[int] = set()  # orphans whose filters may be gone before they are

    def run(self, dry_run: bool = False) -> "Report":
        """Remove the orphans, or report what would be removed."""
        return self.prepare(dry_run) or self.finish()

    def prepare(self, dry_run: bool = False) -> "Optional[Report]":
        """Look and plan; change nothing but old marks. Return a report if nothing is left to do."""
        return self._reporting(lambda: self._dry_run() if dry_run else self._look_and_plan(ROUNDS))

    def finish(self) -> "Report":
        """Carry out the plan; look again until all is confirmed."""
        self.connection.resume()
        report = self._reporting(self._finish)
        assert report is not None
        return report

    def _reporting(self, act: "Callable[[], Optional[Report]]") -> "Optional[Report]":
        """Run `act`; turn an error into a failed report."""
        try:
            return act()
        except Error as error:
            return self.report("failed", error)

    def _finish(self) -> "Report":
        for rounds_left in reversed(range(ROUNDS)):
            if self._carry_out() and self.plan.is_whole:
                return self._report_done()
            report = self._look_and_plan(rounds_left)
            if report is not None:
                return report
        return self.report("failed", self._unsteady())

    def _unsteady(self) -> Error:
        words = "the namespace changed each time it was looked at; try again"
        return Error(words, "clean up", self.connection.path)

    # ------------------------------------------------------------ look and plan

    def _look(self, has_open: bool = False) -> None:
        """Take a snapshot. TC is listed only if it matters, or if changes are open."""
        if self._has_looked:
            self._has_looked = False
            return
        self.connection.begin_look()
        self.snapshot = observe_links(self.connection, self.target)
        if has_open or self.snapshot.may_act(self.target):
            self.snapshot = observe_tc(self.connection, self.snapshot, self.target, has_open)

    def _make_plan(self, at_once: bool = False) -> None:
        vacated = self.journal.places()
        self.plan = plan(self.snapshot, self.target, at_once, vacated)
        if self.plan.undecided:
            points = self.plan.undecided
            self.snapshot = observe_chains(self.connection, self.snapshot, points)
            self.plan = plan(self.snapshot, self.target, at_once, vacated)
        self.connection.check_allowance()

    def _look_and_plan(self, rounds_left: int) -> "Optional[Report]":
        """Look, settle what was sent, and plan. Return a report if nothing is left to do."""
        self._look(self.journal.is_open)
        if self.journal.is_open and self._is_torn() and rounds_left:
            return self._look_and_plan(rounds_left - 1)  # what is left out is not gone
        if self.journal.is_open:
            refusal = self.journal.settle(self.snapshot.keys(), rounds_left > 0)
            if refusal is not None:
                return self.report("failed", refusal)
        if not self.snapshot.may_act(self.target):
            return self.report("cleaned" if self.journal.done else "skipped")
        self._take_marks_off()
        used = self.snapshot.in_use()
        if used and not self.target.keep_in_use:
            return self._report_in_use(used)
        self._make_plan()
        if self.plan.changes:
            return None
        if self._is_torn():
            if rounds_left:
                return self._look_and_plan(rounds_left - 1)
            return self.report("failed", self._unsteady())
        return self._report_done()

    def _is_torn(self) -> bool:
        return self.connection.groups != 0 and self.connection.is_torn

    def _dry_run(self) -> "Report":
        """Report what would be done. A list that changed while it was read is read again."""
        for _ in range(ROUNDS):
            self._look()
            if not self.snapshot.may_act(self.target):
                return self.report("skipped")
            self._make_plan(at_once=True)
            if self._is_torn():
                continue
            used = self.snapshot.in_use()
            if used and not self.target.keep_in_use:
                return self._report_in_use(used)
            return self.report("would-clean" if self.plan.changes else "clean")
        return self.report("failed", self._unsteady())

    # ------------------------------------------------------------ report

    def _report_done(self) -> "Report":
        """The report on a cleanup at its end: a failure if a TAP that stays lost a redirect."""
        targets = {each.target for change in self.journal.done for each in change.removes}
        used = [tap for tap in self.snapshot.in_use() if tap.ifindex in self._begun]
        robbed = [tap for tap in used if tap.ifname in targets]
        if robbed:
            return self._report_in_use(robbed)
        return self.report("cleaned" if self.journal.done else "clean")

    def _report_in_use(self, used: "Sequence[Link]") -> "Report":
        """The report on TAPs in use: a failure if something was removed before that."""
        why = self.snapshot.evidence(used)
        names = listed([tap.ifname for tap in used])
        if self.journal.done:
            gone = self.journal.summary()
            words = "came into use (%s) after something was removed: %s" % (why, gone)
            return self.report("failed", Error(words, "clean up", names))
        self.plan = Plan(dead_redirects=plan(self.snapshot, self.target).dead_redirects)
        words = "in use (%s), nothing was changed" % why
        return self.report("in-use", TapInUse(words, "clean up", names))

    def report(self, outcome: str, error: "Optional[Error]" = None) -> "Report":
        """What was seen, and what was done, or would be."""
        taps = {tap.ifindex: tap for tap in self.journal.taps()}
        taps.update((tap.ifindex, tap) for tap in self.snapshot.taps)
        changes = self.plan.changes if outcome == "would-clean" else self.journal.done
        return self.snapshot.report(
            self.connection.path,
            self.target,
            outcome,
            error,
            taps=taps.values(),
            deleted=set(self.journal.deleted()),
            tc_removed=[removed for change in changes for removed in change.removes],
            dead_redirects=self.plan.dead_redirects,
        )

    # ------------------------------------------------------------ carry out

    def _carry_out(self) -> bool:
        """Confirm the plan and send every change; return True if all are confirmed."""
        if not self._is_confirmed():
            return False
        self.connection.leave_groups()
        if self.plan.is_whole and len(self._orphans()) >= GROUP_FROM:
            return self._carry_out_by_group()
        if not self.plan.is_whole:
            self._begun.update(orphan.ifindex for orphan in self._orphans())
        return self._send(self.plan.changes)

    def _orphans(self) -> "List[Link]":
        return self.snapshot.orphans(self.target)

    def _is_confirmed(self) -> bool:
        """True if nothing has changed since the look, as far as that is announced or listed.

        Every change of TC state and routes is announced at once. The links are listed again, and
        each orphan is read again by itself.
        """
        orphans = self._orphans()
        requests = [link.get(each.ifindex, each.ifname) for each in orphans]
        whole, *replies = self.connection.ask(LIST_LINKS, *requests)
        now = snapshot_of(link.links(whole.answer()), self.target)
        if self._has_more(now) or not self._has_same_uplinks(now):
            return False
        if any(reply.error is not None and reply.error.is_gone for reply in replies):
            return False
        if self._is_torn() or (self.connection.groups and not self.connection.is_quiet):
            return False
        # a list that was torn was read again, later than the single links
        is_same = _are_orphans(now.orphans(self.target), orphans)
        return is_same and _are_orphans(map(link.only, replies), orphans)

    def _has_more(self, now: Snapshot) -> bool:
        """True if there is a TAP that was not seen before, or one that has come into use."""
        known = {tap.ifindex for tap in self.journal.taps() + list(self.snapshot.taps)}
        used = {tap.ifindex for tap in self.snapshot.in_use()}
        if any(tap.ifindex not in used for tap in now.in_use()):
            return True
        return any(tap.ifindex not in known for tap in now.taps)

    def _has_same_uplinks(self, now: Snapshot) -> bool:
        """True if the uplinks are those that were seen. A change of routes is announced."""
        seen = [(uplink.ifindex, uplink.ifname) for uplink in self.snapshot.uplinks]
        if self.target.uplinks:
            return [(uplink.ifindex, uplink.ifname) for uplink in now.uplinks] == seen
        return all(now.names.get(ifindex) == name for ifindex, name in seen)

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
        """Carry out the plan with one wait of the kernel for all links; return True if confirmed.

        The orphans are marked with a random group. Right before the delete, a list of all links
        must show that the group holds only them, and that all are still orphans. If not, their
        former groups are restored, and the next round uses another mark.
        """
        orphans = self._orphans()
        mark = new_mark()
        is_done = False
        self.connection.renew_allowance()
        try:
            set_groups(self.connection, [(orphan, mark) for orphan in orphans])
            links = list_links(self.connection)
            now = snapshot_of(links, self.target)
            members = [found for found in links if found.group == mark]
            if _are_orphans(members, orphans) and not self._has_more(now):
                is_done = self._send(self.plan.by_group(mark))
        finally:
            if not is_done:
                restore_groups(self.connection, orphans, mark)
        return is_done

    def _take_marks_off(self) -> None:
        """Put TAPs that stay, but have a mark, into group 0; a killed cleanup left the mark."""
        going = {orphan.ifindex for orphan in self._orphans()}
        if self.snapshot.in_use() and not self.target.keep_in_use:
            going = set()
        left = [tap for tap in self.snapshot.taps if is_marked(tap) and tap.ifindex not in going]
        if left and self.connection.is_exclusive:
            set_groups(self.connection, [(tap, 0) for tap in left])


def _are_orphans(now: "Iterable[Link]", before: "Sequence[Link]") -> bool:
    """True if these are the same links, by index and name, and all of them are orphans."""
    return {(found.ifindex, found.ifname, judge(found)) for found in now} == {
        (orphan.ifindex, orphan.ifname, ORPHAN) for orphan in before
    }

# SPDX-License-Identifier: Apache-2.0
"""What the agent of a node knows, and what it has to do next. No clock, no system calls.

`agent` reports what happened, each time with ``now``, a time in seconds of any steady clock:

    appeared, gone      a namespace was found, or has gone
    heard, lost         events arrived, or were lost
    looked, unseen      a look by ID succeeded, or failed
    finished            a visit has ended
    resync              a look at everything was requested

and asks what to do:

    visits    enter these namespaces, look, and clean up: `visit.Visit`
    looks     list the TAPs of these namespaces by ID, without entering
    mutes, unmutes    stop and resume listening to these namespaces
    deadline  when to ask again, if nothing happens before

An event only marks a namespace for a visit. One worker at a time visits a namespace; events during
the visit cause another visit or look. A namespace that has used up its quota of visits must wait,
and comes after the others. One that has used up its quota of events is muted for a while.
"""

from .errors import Invalid
from .known import LONGEST_MUTE, LOOK, NOTHING, VISIT, VISITS_FOR_A_SECOND, Known, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Collection, Dict, List, Mapping, Optional

    from .known import Fall, Key

JOBS = 64
RESYNC = 30.0

# Minimum seconds between two looks at everything after events were lost.
AFTER_LOSS = 0.05

# The most TAPs of a namespace that are remembered, to notice it if one vanishes.
MOST_TAPS = 1000

# Seconds until the number of visits at a time may grow, after the system lacked resources.
CROWDED = 1.0

# Seconds until a failed look is repeated, and a failed visit, doubled after each further failure.
UNSEEN, RETRY = 1.0, 0.05


class Agenda:
    """What the agent knows and has to do. See the head of this file.

    ``jobs`` is the number of visits at a time, ``resync`` the seconds between two looks at
    everything, ``grace`` the age in seconds from which on an orphan is removed.
    """

    def __init__(
        self, now: float, jobs: int = JOBS, resync: float = RESYNC, grace: float = 0.0
    ) -> None:
        self.jobs = jobs
        self.interval = resync
        self.grace = grace
        self.known: Dict[int, Known] = {}
        self.busy = 0
        self._room = jobs  # visits at a time that the system has resources for
        self._more_room = now  # when it may grow again
        self._ids: Dict[Key, int] = {}
        self._next_id = 1
        # dicts as ordered sets
        self._urgent: Dict[int, None] = {}  # visits that answer an event
        self._routine: Dict[int, None] = {}  # other visits
        self._held: Dict[int, float] = {}  # visits that must wait until a time
        self._looks: Dict[int, None] = {}
        self._first_looks: Dict[int, None] = {}  # looks that answer an event
        self._graces: Dict[int, float] = {}  # when an orphan is old enough: look again
        self._loud: Dict[int, None] = {}  # to be muted
        self._muted: Dict[int, float] = {}  # until when
        self.resyncs = 0  # how many have begun
        self._resync_due = now + resync
        self._loss_due: Optional[float] = None
        self._last_loss = now - AFTER_LOSS

    # ------------------------------------------------------------ what happened

    def new_id(self) -> int:
        """Return an ID that was never returned before, from 1 on."""
        self._next_id += 1
        return self._next_id - 1

    def id_of(self, key: "Key") -> "Optional[int]":
        """The ID of a namespace by its device and inode; None if it is not known."""
        return self._ids.get(key)

    def appeared(self, id: int, key: "Key", path: str, now: float) -> None:
        """Add a namespace that was found and has this ID; request a visit.

        It replaces one that is known by the same key: inode numbers are reused.
        """
        for old in (id, self._ids.get(key, id)):
            self.gone(old, now)
        self.known[id] = Known(id, key, path, now)
        self._ids[key] = id
        self._want_visit(self.known[id], self._routine)
        if self.grace:
            self._first_looks[id] = None

    def gone(self, id: int, now: float) -> "Optional[Known]":
        """Forget a namespace that has gone or has no path; return what was known of it."""
        known = self.known.pop(id, None)
        if known is None:
            return None
        del self._ids[known.key]
        for place in (self._urgent, self._routine, self._looks, self._first_looks, self._loud):
            place.pop(id, None)
        for waiting in (self._held, self._graces, self._muted):
            waiting.pop(id, None)
        return known

    def heard(self, id: int, count: int, now: float) -> None:
        """Count events of a namespace; request a visit or look. An unknown ID has gone."""
        known = self.known.get(id)
        if known is None or known.is_muted:
            return
        known.events.spend(count, now)
        if known.events.left(now) < 0:
            self._loud[id] = None
        if known.since is None:
            known.since = now
        if known.is_busy and known.later is None:
            known.later = now
        if self._held.get(id, now) > now + RETRY and known.failures:
            self._held[id] = now + RETRY
        if self.grace:
            self._want_look(known, self._first_looks)
        elif known.is_busy:
            known.heard += count
        else:
            self._want_visit(known, self._urgent)

    def lost(self, now: float) -> None:
        """Request a look at everything soon, because events were lost."""
        if self._loss_due is None:
            self._loss_due = max(now, self._last_loss + AFTER_LOSS)

    def resync(self, now: float) -> None:
        """Request a look at everything, and a visit to each namespace, now."""
        self._begin_resync(now)
        for known in self.known.values():
            self._want_visit(known, self._routine)
        self._held = dict.fromkeys(self._held, now)

    def looked(self, id: int, taps: "Mapping[Fall, bool]", now: float) -> None:
        """Take what a look by ID saw: the matching TAPs; True for an orphan that is not spared.

        Request a visit if an orphan is old enough, or if a TAP has vanished since the last look: a
        redirect to it may be left.
        """
        known = self.known.get(id)
        if known is None:
            return
        if known.is_busy:  # the look may be older than what the visit changes
            self._want_look(known, self._looks)
            return
        indexes = frozenset([ifindex for ifindex, _ in taps])
        has_vanished = not indexes >= known.taps
        known.taps = indexes
        place = self._routine if known.since is None else self._urgent
        if not self.grace:
            if has_vanished or any(taps.values()):
                self._want_visit(known, place)
            else:
                known.since = None
            return
        falls = [fall for fall, is_orphan in taps.items() if is_orphan]
        known.falls = {fall: known.falls.get(fall, now) for fall in falls}
        young = [since for since in known.falls.values() if not self._is_old(since, now)]
        self._graces.pop(id, None)
        if young:
            self._graces[id] = min(young) + self.grace
        if has_vanished or len(young) < len(falls):
            self._want_visit(known, place)
        elif not young:
            known.since = None

    def unseen(self, id: int, now: float) -> None:
        """Request a visit, and with a grace another look, because a look by ID failed."""
        if id in self.known:
            self._want_visit(self.known[id], self._routine)
            if self.grace:
                self._graces[id] = now + UNSEEN

    def finished(
        self,
        id: int,
        now: float,
        left: "Collection[int]" = (),
        deleted: int = 0,
        seconds: float = 0.0,
        has_failed: bool = False,
        is_crowded: bool = False,
    ) -> None:
        """Record the end of a visit that `visits` began; it took ``seconds`` of processor time.

        ``left`` are the indexes of the matching TAPs that are left, ``deleted`` is the number of
        those that were removed. A failed visit is repeated later. It ``is_crowded`` if other visits
        held a resource that it needed: then it is repeated when one of them has ended.
        """
        self.busy -= 1
        known = self.known.get(id)
        if known is None:
            return
        known.is_busy = False
        known.visits.spend(VISITS_FOR_A_SECOND * seconds, now)
        if is_crowded:
            self._room = max(1, self.busy)
            self._more_room = now + CROWDED
        elif now >= self._more_room:
            self._room = min(self.jobs, self._room + 1)
        if is_crowded and self.busy:
            self._urgent[id] = None
            return
        again, heard, later = known.again, known.heard, known.later
        known.again, known.heard, known.later = NOTHING, 0, None
        if again and self.grace:  # only looks record since when a TAP has been an orphan
            self._want_look(known, self._first_looks)
        if has_failed:
            known.failures += 1
            # 2.0**1100 is too large
            wait = min(self.interval, RETRY * 2.0 ** min(known.failures - 1, 30))
            self._hold(known, now + wait)
            return
        known.failures = 0
        known.since = later
        # a namespace with more is visited instead: root in it can make any number of TAPs
        known.taps = frozenset(left if len(left) < MOST_TAPS else ())
        # each removed orphan causes two more events: one by the deferred link watch
        # (net/core/link_watch.c), and one by its deletion
        if heard > 2 * deleted:
            again = VISIT
        elif heard:
            again = max(again, LOOK)
        if again == VISIT:
            self._want_visit(known, self._urgent if heard else self._routine)
        elif again == LOOK:
            self._want_look(known, self._first_looks if heard else self._looks)

    # ------------------------------------------------------------ what to do

    def visits(self, now: float) -> "List[Task]":
        """Begin visits: first those that answer an event, last those that had to wait.

        The namespaces are busy until `finished`. Other visits begin only while few are in progress.
        """
        for id in [id for id, due in self._held.items() if due <= now]:
            del self._held[id]
            self._routine[id] = None
        tasks: List[Task] = []
        self._take(self._urgent, self._room, now, tasks)
        self._take(self._routine, self._most_routine, now, tasks)
        return tasks

    def _take(self, place: "Dict[int, None]", most: int, now: float, tasks: "List[Task]") -> None:
        for id in _first(place, most - self.busy):
            del place[id]
            known = self.known[id]
            due = known.visits.due(1.0, now)
            if due > now:
                self._held[id] = due
                continue
            known.visits.spend(1.0, now)
            known.is_busy = True
            self.busy += 1
            ready = None
            if self.grace:
                falls = known.falls.items()
                ready = frozenset([fall for fall, at in falls if self._is_old(at, now)])
            tasks.append(Task(id, known.key, known.path, known.since, ready))

    def looks(self, now: float, most: int) -> "List[int]":
        """Return the IDs of at most so many namespaces to look at by ID."""
        if self._loss_due is not None and self._loss_due <= now:
            self._loss_due = None
            self._last_loss = now
            self._begin_resync(now)
        elif self._resync_due <= now:
            self._begin_resync(now)
        for id in [id for id, due in self._graces.items() if due <= now]:
            del self._graces[id]
            self._want_look(self.known[id], self._first_looks)
        found: List[int] = []
        for place in (self._first_looks, self._looks):
            for id in _first(place, most - len(found)):
                del place[id]
                known = self.known[id]
                if known.is_busy:
                    known.again = max(known.again, LOOK)
                elif self.grace or not self._is_due(id):
                    found.append(id)  # else a visit is due, and sees the same
        return found

    @property
    def _most_routine(self) -> int:
        return min(self._room, max(1, self.jobs // 4))

    @property
    def muted(self) -> int:
        """How many namespaces are muted."""
        return len(self._muted)

    @property
    def is_resyncing(self) -> bool:
        """True while namespaces wait for a look by ID."""
        return bool(self._looks)

    def mutes(self, now: float) -> "List[Known]":
        """Mute the namespaces that cause too many events; return them."""
        muted = [self.known[id] for id in self._loud]
        self._loud.clear()
        for known in muted:
            known.is_muted = True
            self._muted[known.id] = now + known.mute
            known.mute = min(LONGEST_MUTE, 2 * known.mute)
        return muted

    def unmutes(self, now: float) -> "List[Known]":
        """Unmute the namespaces whose time is over; return them."""
        ended = [self.known[id] for id, until in self._muted.items() if until <= now]
        for known in ended:
            del self._muted[known.id]
            known.is_muted = False
            self._want_look(known, self._looks)
        return ended

    def deadline(self, now: float, is_looking: bool = False) -> float:
        """When to call `looks`, `visits`, `mutes` and `unmutes`, if nothing happens before.

        It is ``now``, or earlier, if one has something at once. While the caller ``is_looking``,
        times for `looks` do not count, because the caller will not call it.
        """
        if self._loud or (not is_looking and (self._looks or self._first_looks)):
            return now
        if self._urgent and self.busy < self._room:
            return now
        if self._routine and self.busy < self._most_routine:
            return now
        dues = [*self._held.values(), *self._muted.values()]
        if not is_looking:
            dues += [self._resync_due, *self._graces.values()]
            if self._loss_due is not None:
                dues.append(self._loss_due)
        return min(dues, default=now + self.interval)

    # ------------------------------------------------------------ places

    def _is_due(self, id: int) -> bool:
        return id in self._urgent or id in self._routine or id in self._held

    def _want_visit(self, known: Known, place: "Dict[int, None]") -> None:
        id = known.id
        if known.is_busy:
            known.again = VISIT
        elif id in self._held or id in self._urgent:
            pass
        else:
            self._routine.pop(id, None)
            place[id] = None

    def _want_look(self, known: Known, place: "Dict[int, None]") -> None:
        if known.is_busy:
            known.again = max(known.again, LOOK)
        elif known.id not in self._first_looks:
            self._looks.pop(known.id, None)
            place[known.id] = None

    def _hold(self, known: Known, due: float) -> None:
        self._urgent.pop(known.id, None)
        self._routine.pop(known.id, None)
        self._held[known.id] = due

    def _begin_resync(self, now: float) -> None:
        self.resyncs += 1
        self._resync_due = now + self.interval
        for known in self.known.values():
            self._want_look(known, self._looks)

    def _is_old(self, since: float, now: float) -> bool:
        return now >= since + self.grace  # the sum that is in `_graces`: a difference is rounded


def _first(place: "Dict[int, None]", most: int) -> "List[int]":
    """The first keys of a dict, at most so many."""
    return [id for id, _ in zip(place, range(most))]


def check(jobs: "Optional[int]", resync: float, grace: float) -> None:
    """Raise `Invalid` for numbers that make no sense."""
    if jobs is not None and jobs < 1:
        raise Invalid("at least one job is needed", "check jobs", str(jobs))
    for name, number, fits in (("resync", resync, resync > 0), ("grace", grace, grace >= 0)):
        if not fits:
            raise Invalid("more seconds are needed, such as 30", "check " + name, "%g" % number)

# SPDX-License-Identifier: Apache-2.0
"""The agent of a node: it removes an orphan when its VMM dies.

    discovery   finds namespaces
    listener    hears their events, and looks at them by ID
    looker      runs these looks on another thread
    agenda      decides which namespaces are looked at and visited next
    workers     visit namespaces, as a sweep does

One thread calls all of these. It keeps no state outside of this process, so the agent may be killed
at any time.
"""

import errno
import select
import time

from .agenda import JOBS, RESYNC, Agenda, check
from .discovery import RETRY, Discovery
from .errors import GONE, BadNamespace, Error, Invalid
from .listener import Listener
from .looker import Looker
from .metrics import Watched
from .verdict import MATCH, UPLINK, Target
from .workers import STUCK, News, Outcome, Workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterable, Iterator, List, Optional, Union

    from .known import Key
    from .report import Report
    from .verdict import Names
    from .workers import Result

# Seconds between two looks at everything if events cannot be heard.
DEAF_RESYNC = 5.0

# The most events that are read in one step: a flood from one namespace must not delay the others.
EVENTS_AT_A_TIME = 1000

# The most looks by ID that the looker gets at a time. Each takes about 20 us.
LOOKS_AT_A_TIME = 64

# The most namespaces that get an ID in a new room before the sockets are read again.
MOVES_AT_A_TIME = 32

# A lack of descriptors or memory is reported if it lasts for more than so many seconds.
UNREPORTED = 0.5

NO_NAMESPACE = (
    "%s is no namespace: if a runtime made it, its mount does not arrive here; the directory has to"
    " be mounted with propagation (HostToContainer)"
)

# The most seconds to wait for the visits in progress at the end.
LAST = 0.8


class Agent:
    """Call `step` again and again, then `finish` and `close`.

    ``note`` is called with a line for the log about the agent itself. ``watched`` has the metrics.
    Raises `Refused` if the agent cannot work here, and for a directory of ``dirs`` that cannot be
    read. The other arguments are those of `watch`.
    """

    def __init__(
        self,
        target: Target,
        dirs: "Optional[Iterable[str]]" = None,
        include_node: bool = False,
        jobs: int = JOBS,
        resync: float = RESYNC,
        grace: float = 0.0,
        note: "Optional[Callable[[str], None]]" = None,
    ) -> None:
        now = time.monotonic()
        self.watched = Watched()
        self._note = note or (lambda text: None)
        self._noted: Dict[str, None] = {}
        self._news = News()
        self._is_stopped = False
        self._wants_resync = False
        self._resync_begin: Optional[float] = None
        self._listen_due = float("inf")
        self._resyncs = 0
        self._crowded = now  # since when no visit has had what it needs
        self._parts: List[Union[Listener, Looker, Workers, Discovery]] = []
        try:
            self._listener = Listener(target)
            self._parts.append(self._listener)
            self._workers = Workers(target)
            self._parts.append(self._workers)
            self._looker = Looker(self._listener.look, self._workers.wake)
            self._parts.insert(0, self._looker)  # it uses the others until it is closed
            self._discovery = Discovery(dirs, include_node, now)
            self._parts.append(self._discovery)
            if self._listener.deafness is not None:
                resync = min(resync, DEAF_RESYNC)
                words = "events cannot be heard (%s); looking every %g seconds instead"
                self._note(words % (self._listener.deafness, resync))
            self.agenda = Agenda(now, jobs, resync, grace)
            self._take_in(self._discovery.find(now), now)
            if self._discovery.refusal is not None:
                raise self._discovery.refusal
        except BaseException:
            self.close()
            raise

    @property
    def waker(self) -> int:
        """A descriptor: a byte that is written to it ends the wait of `step`."""
        return self._workers.waker

    # ------------------------------------------------------------ requests from outside

    def resync(self) -> None:
        """Visit every namespace soon. A signal handler may call this."""
        self._wants_resync = True
        self._workers.wake()

    def stop(self) -> None:
        """Begin no more visits. A signal handler may call this."""
        self._is_stopped = True
        self._workers.wake()

    # ------------------------------------------------------------ the loop

    def step(self, until: float) -> "List[Outcome]":
        """Wait until something happens, or until a time of `time.monotonic`; do what is due.

        Returns the visits that saw or did something new.
        """
        self._wait(until)
        now = time.monotonic()
        if self._is_stopped:
            return self._settle(now)
        if self._wants_resync:
            self._wants_resync = False
            self._discovery.search_at(now)
            self.agenda.resync(now)
        self._hear(now)
        outcomes = self._settle(now)
        self._begin(now)
        self._read_ends(now)
        if self._discovery.due is not None and self._discovery.due <= now:
            self._search(now)
            self._begin(now)
        self._look(now)
        self._mute(now)
        self.watched.namespaces = len(self.agenda.known)
        self.watched.muted = self.agenda.muted
        return outcomes

    def finish(self, seconds: float = LAST) -> "List[Outcome]":
        """Begin no more visits, and wait at most ``seconds`` for those in progress."""
        self._is_stopped = True
        outcomes = []
        until = time.monotonic() + seconds
        while self._workers.count and time.monotonic() < until:
            outcomes += self.step(until)
        return outcomes

    def close(self) -> None:
        """Close all descriptors. Visits in progress end by themselves."""
        for part in self._parts:
            part.close()

    def _wait(self, until: float) -> None:
        due = until
        poll = select.poll()
        poll.register(self._workers, select.POLLIN)
        mounts = self._discovery.fileno()
        if not self._is_stopped:
            at = self.agenda.deadline(time.monotonic(), self._looker.is_busy)
            due = 0.0 if self._listener.is_moving else min(due, at, self._listen_due)
            due = min(due, self._workers.deadline())
            poll.register(self._listener.ends, select.POLLIN)
            if self._listener.events is not None:
                poll.register(self._listener.events, select.POLLIN)
            if self._discovery.due is None:
                poll.register(mounts, select.POLLPRI)
            else:
                due = min(due, self._discovery.due)
        # rounded up: a wait that ends too early would be repeated
        milliseconds = max(0, -int((time.monotonic() - due) * 1000 // 1))
        try:
            found = poll.poll(milliseconds)
        except OSError:  # no memory: go on, and not too fast
            time.sleep(0.01)
            return
        if mounts in [fd for fd, _ in found]:
            self._discovery.mounts_changed()

    # ------------------------------------------------------------ hear

    def _hear(self, now: float) -> None:
        try:
            counts, is_lossy = self._listener.read_events(EVENTS_AT_A_TIME)
        except Error as error:
            self._note_once("%s; listening again" % error)
            if not self._listener.is_moving:
                self._listen(now)
            return
        for id, count in counts.items():
            self.watched.events += count
            self.agenda.heard(id, count, now)
        if is_lossy:
            self.watched.overruns += 1
            self.agenda.lost(now)

    def _read_ends(self, now: float) -> None:
        try:
            gone, is_lossy = self._listener.read_ends()
        except Error as error:
            self._note_once(str(error))
            gone, is_lossy = [], True
        for id in gone:
            self._forget(id, now)
        if is_lossy:  # a look by ID finds what is gone
            self.agenda.lost(now)

    def _forget(self, id: int, now: float) -> None:
        self.agenda.gone(id, now)
        self._news.forget(id)
        self._listener.forget(id)

    def _listen(self, now: float) -> None:
        """Begin to listen to the namespaces that are not muted, on a new socket."""
        self._listen_due = float("inf")
        try:
            known = [each for each in self.agenda.known.values() if not each.is_muted]
            self._listener.begin_move(known)
        except Error as error:
            self._note_once("%s; trying again" % error)
            self._listen_due = now + RETRY

    def _mute(self, now: float) -> None:
        muted = self.agenda.mutes(now)
        for known in muted:
            self.watched.mutes += 1
            words = "%s: too many events; it is looked at every %g seconds for a while"
            self._note(words % (known.path, self.agenda.interval))
        if muted or self._listen_due <= now:
            self._listen(now)
        for known in self.agenda.unmutes(now):
            self._listener.listen_again(known)
        if self._listener.move(MOVES_AT_A_TIME):
            self.agenda.lost(now)

    def _note_once(self, text: str) -> None:
        """Note something that may come again and again."""
        if text not in self._noted and len(self._noted) < 1000:
            self._noted[text] = None
            self._note(text)

    # ------------------------------------------------------------ look by ID

    def _look(self, now: float) -> None:
        for id, sight in self._looker.take():
            if not isinstance(sight, Error):
                self.agenda.looked(id, sight, now)
            elif sight.errno != errno.EINVAL:
                self.agenda.unseen(id, now)
            else:  # no such ID
                self._forget(id, now)
                self._discovery.search_at(now)
            if id not in self.agenda.known:  # it was forgotten meanwhile
                self._listener.forget(id)
        if not self._looker.is_busy:
            self._looker.begin(self.agenda.looks(now, LOOKS_AT_A_TIME))
        # a resync with nothing to look at begins and ends here
        if self._resyncs != self.agenda.resyncs:
            self._resyncs = self.agenda.resyncs
            self._resync_begin = now if self._resync_begin is None else self._resync_begin
        if not (self._resync_begin is None or self.agenda.is_resyncing or self._looker.is_busy):
            self.watched.resynced(time.monotonic() - self._resync_begin, time.time())
            self._resync_begin = None
            self._discovery.search_at(now)

    # ------------------------------------------------------------ find namespaces

    def _search(self, now: float) -> None:
        found = self._discovery.find(now)
        if self._discovery.refusal is not None:
            self._note_once("%s; trying again" % self._discovery.refusal)
        # after the search, which may have found the reused inode number of a dead namespace
        self._read_ends(now)
        self._take_in(found, now)
        other = self._discovery.lasting_other(now - self.agenda.interval)
        if other is not None:
            self._note_once(NO_NAMESPACE % other)

    def _take_in(self, found: "Dict[Key, str]", now: float) -> None:
        """Add the namespaces that were found; forget those without a path, if all were read."""
        for id, known in list(self.agenda.known.items()):
            if known.key in found:
                known.path = found[known.key]
            elif self._discovery.refusal is None:
                self._forget(id, now)
        for key, path in found.items():
            if self.agenda.id_of(key) is None:
                self._add(key, path, now)

    def _add(self, key: "Key", path: str, now: float) -> None:
        try:
            id, identity = self._listener.assign(self.agenda.new_id(), path)
        except BadNamespace:
            self._discovery.is_no_namespace(key, path, now)
        except Error as error:
            if error.errno not in GONE:
                self._note_once("%s; trying again" % error)
                self._discovery.search_at(now + RETRY)
        else:
            if identity == key:
                self.agenda.appeared(id, key, path, now)
            else:  # another namespace is there by now
                self._discovery.search_at(now)

    # ------------------------------------------------------------ visits

    def _begin(self, now: float) -> None:
        for task in self.agenda.visits(now):
            self.watched.visits += 1
            self._workers.begin(task, now)

    def _settle(self, now: float) -> "List[Outcome]":
        """Take the results of visits that have ended; return those that are news."""
        found = [self._settle_one(result, now) for result in self._workers.take()]
        for task in self._workers.give_up(now):
            self.agenda.finished(task.id, now, has_failed=True)
            self._note("%s: a visit has not ended after %g seconds" % (task.path, STUCK))
        return [outcome for outcome in found if outcome is not None]

    def _settle_one(self, result: "Result", now: float) -> "Optional[Outcome]":
        task, report = result.task, result.report
        known = self.agenda.known.get(task.id)
        is_outdated = known is not None and known.heard > 0  # it will be visited or looked at again
        if not result.is_crowded:
            self._crowded = now
        is_quiet = result.is_crowded and now - self._crowded < UNREPORTED
        figures = (result.left, result.deleted, result.seconds)
        self.agenda.finished(task.id, now, *figures, result.has_failed, result.is_crowded)
        self.watched.failed += result.has_failed
        self.watched.deleted += result.deleted
        if report is None:
            self._discovery.search_at(now)
            return None
        seconds = None if task.since is None else time.monotonic() - task.since
        if result.has_changed and seconds is not None:
            self.watched.removed(seconds)
        is_dull = is_quiet or known is None or (is_outdated and not result.has_failed)
        if (is_dull and not result.has_changed) or not self._news.is_new(task.id, report):
            return None
        return Outcome(report, time.time(), seconds)


# ---------------------------------------------------------------- the function


def watch(
    dirs: "Optional[Iterable[str]]" = None,
    match: "Names" = MATCH,
    uplink: "Names" = UPLINK,
    include_fresh: bool = False,
    jobs: "Optional[int]" = None,
    exclude: "Names" = (),
    keep_in_use: bool = False,
    include_node: bool = False,
    resync: float = RESYNC,
    grace: float = 0.0,
    note: "Optional[Callable[[str], None]]" = None,
) -> "Iterator[Report]":
    """Watch the namespaces under the runtimes' directories, or ``dirs``; remove orphans at once.

    Returns a generator of reports: one for each visit that removed something, found a TAP in use
    or failed. It waits in `next`; closing it ends the watch. Each namespace is visited when it
    appears and when a TAP in it loses its holder, and all are looked at every ``resync`` seconds.
    An orphan is removed only after it has been one for ``grace`` seconds. The other
    arguments are those of `sweep`. ``note`` is called with lines about the watch itself.
    """
    target = Target(match, uplink, exclude, not include_fresh, keep_in_use)
    check(jobs, resync, grace)
    if isinstance(dirs, str):
        raise Invalid("directories are a list of paths, not one", "check directories", dirs)

    def reports() -> "Iterator[Report]":
        agent = Agent(target, dirs, include_node, jobs or JOBS, resync, grace, note)
        try:
            while True:
                for outcome in agent.step(time.monotonic() + resync):
                    yield outcome.report
        finally:
            agent.finish()
            agent.close()

    return reports()

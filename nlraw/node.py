# SPDX-License-Identifier: Apache-2.0
"""Many namespaces at once: find them, look at each, and remove in parallel.

One thread goes from namespace to namespace, looks and plans: nothing in this has to wait. The plans
are then carried out for many namespaces at once, each on a thread of its own: a delete waits about
15 ms for the kernel's RCU, and in different namespaces these waits overlap. No other namespace is
looked at meanwhile: that would wait for the kernel's one lock for all links (rtnl), and for the one
lock of the interpreter.
"""

import errno
import os
import stat
import time

from . import netns, threads
from .connection import Connection
from .errors import GONE, Invalid, Refused, refused
from .report import Record, Report
from .transport import Patience
from .verdict import IN_USE, MATCH, ORPHAN, UPLINK, Target
from .visit import Visit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Iterable, Iterator, List, Optional, Sequence, Set, Tuple, Type

    from .verdict import Names

    Identity = Tuple[int, int]
    Progress = Callable[[str, int, int], None]

# Namespaces at a time. Each takes a thread and two descriptors; twice as many gain nothing.
JOBS = 64

# Seconds after which the plans are carried out, however few there are: a plan grows stale, and
# other writers in its namespace wait.
PLAN_AGE = 0.2

# Seconds that a sweep waits, in all, for other writers. Such namespaces come last, and this is
# short: whoever is root in a namespace may hold its writer port for ever.
PATIENCE = 0.5


class Totals(Record):
    """Sums over all namespaces of a sweep.

    ``namespaces``, ``skipped`` and ``failed`` count namespaces, the others TAPs.
    """

    __slots__ = ("namespaces", "orphans", "deleted", "spared", "in_use", "skipped", "failed")

    if TYPE_CHECKING:
        namespaces: int
        orphans: int
        deleted: int
        spared: int
        in_use: int
        skipped: int
        failed: int


class Sweep(Record):
    """What a sweep saw and did: a `Report` for each namespace, and the `Totals`."""

    __slots__ = ("namespaces", "totals")

    if TYPE_CHECKING:
        namespaces: Tuple[Report, ...]
        totals: Totals


def sweep(
    dirs: "Optional[Iterable[str]]" = None,
    proc: bool = False,
    match: "Names" = MATCH,
    uplink: "Names" = UPLINK,
    include_fresh: bool = False,
    jobs: "Optional[int]" = None,
    dry_run: bool = False,
    progress: "Optional[Progress]" = None,
    exclude: "Names" = (),
    keep_in_use: bool = False,
    include_node: bool = False,
) -> Sweep:
    """Clean up the namespaces under the runtimes' directories, or ``dirs``, or of all processes.

    ``dirs`` are paths; ``proc`` stands for all processes. Each namespace is visited once, whatever
    the number of its names. The namespaces of the caller and of process 1 are the node's own, and
    are not visited; ``include_node`` adds the caller's. A namespace with a TAP in use is left
    alone, which is not an error; with ``keep_in_use`` only its orphans are removed. Fresh orphans
    are spared unless ``include_fresh``. A failure in one namespace is the ``error`` of its report,
    and the others go on. ``jobs`` is the number of namespaces to clean up at a time. ``progress``
    is called with what is being done ("looked at", "cleaned up"), the number of namespaces for
    which it is done, and the number of all.

    Raises `Refused` for a directory that cannot be read. After an interrupt nothing more is begun;
    what is in progress ends before the interrupt is raised.
    """
    target = Target(match, uplink, exclude, not include_fresh, keep_in_use)
    if jobs is not None and jobs < 1:
        raise Invalid("at least one job is needed", "check jobs", str(jobs))
    if isinstance(dirs, str):
        raise Invalid("directories are a list of paths, not one", "check directories", dirs)
    paths = list(distinct(candidates(dirs, proc), netns.nodes_own()))
    if include_node:
        # the ID of this thread: the thread that opens the path has changed its namespace
        paths.append("/proc/%s/ns/net" % os.readlink("/proc/thread-self"))
    return sweep_paths(paths, target, jobs or JOBS, dry_run, progress)


def sweep_paths(
    paths: "Iterable[str]",
    target: Target,
    jobs: int = JOBS,
    dry_run: bool = False,
    progress: "Optional[Progress]" = None,
    connect: "Type[Connection]" = Connection,
    start: "Callable[..., Callable[[], object]]" = threads.start,
) -> Sweep:
    """Clean up the namespaces at some paths. ``connect`` opens a connection, ``start`` a thread."""
    patience = Patience(PATIENCE)
    visits = [Visit(path, target, patience, connect) for path in paths]
    rounds = _Rounds(visits, jobs, dry_run, progress or (lambda doing, done, total: None), start)
    wait = threads.start(rounds.run)
    try:
        wait()
    except BaseException:  # an interrupt
        rounds.stop()
        wait()
        raise
    found = tuple([visit.report for visit in visits if visit.report is not None])
    return Sweep(namespaces=found, totals=_totals(found, target))


# ---------------------------------------------------------------- find

# What to do about a directory that cannot be listed.
UNLISTED = {
    errno.ENOENT: "`--dir` takes one that exists",
    errno.EACCES: "it takes CAP_DAC_READ_SEARCH, unless this user may read it",
}


def candidates(dirs: "Optional[Iterable[str]]", proc: bool) -> "Iterator[str]":
    """Every path at which a namespace may be."""
    if proc:
        for name in os.listdir("/proc"):
            if name.isdecimal():
                yield "/proc/%s/ns/net" % name
    if dirs is None and proc:
        return
    for directory in netns.DIRECTORIES if dirs is None else map(os.fspath, dirs):
        try:
            names = sorted(os.listdir(directory))
        except ValueError as error:  # a NUL in it
            raise Invalid(str(error), "list namespaces in", repr(directory)) from None
        except OSError as error:
            if dirs is None and isinstance(error, FileNotFoundError):
                continue
            raise refused(error, "list namespaces in", directory or '""', UNLISTED) from None
        for name in names:
            yield os.path.join(directory, name)


def distinct(paths: "Iterable[str]", without: "Set[Identity]") -> "Iterator[str]":
    """One path for each namespace, except those in ``without`` (device and inode)."""
    return (path for path, _ in identified(paths, without))


def identified(
    paths: "Iterable[str]", without: "Set[Identity]"
) -> "Iterator[Tuple[str, Optional[Identity]]]":
    """As `distinct`, each with its device and inode; None if they cannot be seen."""
    seen = set(without)
    for path in paths:
        try:
            found = os.stat(path)
        except OSError as error:
            if error.errno not in GONE:  # opening it will show what is wrong
                yield path, None
            continue
        identity = (found.st_dev, found.st_ino)
        if stat.S_ISREG(found.st_mode) and identity not in seen:
            seen.add(identity)
            yield path, identity


# ---------------------------------------------------------------- many namespaces


class _Rounds:
    """Look at one namespace after the other; clean up when ``jobs`` have work, or a plan is old.

    Namespaces in which another writer is at work are cleaned up last: no other waits for them.
    """

    def __init__(
        self,
        visits: "Sequence[Visit]",
        jobs: int,
        dry_run: bool,
        progress: "Progress",
        start: "Callable[..., Callable[[], object]]",
    ) -> None:
        self.visits = visits
        self.jobs = jobs
        self.dry_run = dry_run
        self.progress = progress
        self.start = start
        self.working: List[Visit] = []  # looked at, with work to do
        self.late: List[Visit] = []  # likewise, but another writer has the turn
        self.cleaned = 0
        self.is_stopped = False

    def stop(self) -> None:
        """Begin nothing more."""
        self.is_stopped = True
        self.close()

    def close(self) -> None:
        """Close what waits for its removal."""
        for waiting in (self.working, self.late):
            for visit in _taken(waiting):
                visit.close()

    def run(self) -> None:
        """Visit all. Moves the calling thread from namespace to namespace."""
        due = 0.0
        total = len(self.visits)
        try:
            for number, visit in enumerate(self.visits):
                self.progress("looked at", number, total)
                visit.look(self.dry_run)
                if visit.is_crowded and (self.working or self.late):  # make room
                    self.clean_up(self.working)
                    self.clean_up(self.late)
                    visit.look(self.dry_run)
                if visit.is_work and visit.has_turn:
                    due = due if self.working else time.monotonic() + PLAN_AGE
                    self.working.append(visit)
                elif visit.is_work:
                    self.late.append(visit)
                if self.is_stopped:
                    return
                is_old = bool(self.working) and time.monotonic() > due
                if is_old or len(self.working) == self.jobs:
                    self.clean_up(self.working)
                if len(self.late) == self.jobs:
                    self.clean_up(self.late)
                if self.is_stopped:
                    return
            self.progress("looked at", total, total)
            self.clean_up(self.working)
            self.clean_up(self.late)
        finally:
            self.close()

    def clean_up(self, waiting: "List[Visit]") -> None:
        """Clean up several namespaces at once, the calling thread too, which it moves."""
        count = len(waiting)
        total = self.cleaned + count
        finished: List[Visit] = []

        def work() -> None:
            for visit in _taken(waiting):
                visit.clean_up()
                finished.append(visit)
                if len(finished) < count:  # the waiting thread reports the final count
                    self.progress("cleaned up", self.cleaned + len(finished), total)

        waits: List[Callable[[], object]] = []
        while len(waits) < count - 1:
            try:
                waits.append(self.start(work))
            except Refused:  # no more threads can be started
                break
        work()
        for wait in waits:
            try:
                wait()
            except Refused:  # the thread never ran, and another one did its work
                pass
        for visit in finished:
            if visit.is_crowded:  # the others have made room
                visit.clean_up()
            visit.close()
        if count:
            self.progress("cleaned up", total, total)
        self.cleaned = total


def _taken(waiting: "List[Visit]") -> "Iterator[Visit]":
    """Take one visit after the other; several threads may do this at once."""
    while True:
        try:
            yield waiting.pop()
        except IndexError:
            return


def _totals(reports: "Sequence[Report]", target: Target) -> Totals:
    seen = [(report, tap) for report in reports for tap in report.taps]
    done = ("clean", "cleaned", "would-clean")
    left = [tap for report, tap in seen if report.outcome in done and not tap.deleted]
    return Totals(
        namespaces=len(reports),
        orphans=sum(tap.verdict == ORPHAN for _, tap in seen),
        deleted=sum(tap.deleted for _, tap in seen),
        spared=sum(tap.fresh for tap in left) if target.spare_fresh else 0,
        in_use=sum(tap.verdict == IN_USE for _, tap in seen),
        skipped=sum(report.outcome == "skipped" for report in reports),
        failed=sum(report.outcome == "failed" for report in reports),
    )

# SPDX-License-Identifier: Apache-2.0
"""Many namespaces at once: find them, look at each, and remove in parallel where there is something to remove.

One thread goes from namespace to namespace, looks and plans, which waits for nothing. What is planned is then carried out for
many at once, each on a thread of its own: a delete waits some 15 ms for the kernel's RCU, and in different namespaces these
waits overlap. Nobody goes on looking meanwhile: that would wait for the kernel's one lock for all links (rtnl), and Python's.
"""

import errno
import os
import stat
import time

from . import netns, orphans
from .errors import BadNamespace, Error, Invalid, Refused, TapInUse
from .netns import Namespace
from .orphans import Target
from .report import Record, Report
from .route import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Iterable, Iterator, List, Optional, Sequence, Tuple

    Progress = Callable[[str, int, int], None]

# Namespaces at a time. Each takes a thread and two descriptors; twice as many gain nothing.
JOBS = 64

# Seconds after which a plan is carried out, however few there are: it grows stale, and others who clean up there wait for it.
PLAN_AGE = 0.2

# What says that a path leads to nothing, or no longer does.
_NOTHING = (errno.ENOENT, errno.ESRCH, errno.ENOTDIR, errno.ELOOP)

# What says that there are too many at a time: they are done one by one in the end.
_CROWDED = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)


class Totals(Record):
    """Sums over all namespaces: of namespaces (``namespaces``, ``skipped``, ``failed``) and of TAPs (the others)."""

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
    match: str = orphans.MATCH,
    uplink: str = orphans.UPLINK,
    include_fresh: bool = False,
    jobs: "Optional[int]" = None,
    dry_run: bool = False,
    progress: "Optional[Progress]" = None,
) -> Sweep:
    """Clean up every namespace under the runtimes' directories, or under ``dirs`` (paths), or of all processes (``proc``).

    Each namespace is visited once, whatever the number of its names. One with a TAP in use is left alone, which is no error.
    Fresh orphans are spared unless ``include_fresh``. What fails in one namespace is the ``error`` of its report, and the
    others go on. ``jobs`` is the number of namespaces to clean up at a time. ``progress`` is called with what is being done
    ("looked at", "cleaned up"), for how many namespaces that is done, and of how many by then. Raises `Refused` for a
    directory that cannot be read. On an interrupt nothing more is begun, and what is under way ends before it is handed on.
    """
    target = Target(match, uplink, spare_fresh=not include_fresh)
    if jobs is not None and jobs < 1:
        raise Invalid("at least one job is needed", "check jobs", str(jobs))
    if isinstance(dirs, str):
        raise Invalid("directories are a list of paths, not one", "check directories", dirs)
    tell = progress or (lambda doing, done, total: None)
    paths = list(_distinct(_candidates(dirs, proc)))
    visits = [_Visit(path, target) for path in paths]
    working: List[_Visit] = []
    wait = netns.start(lambda: _visit_all(visits, working, jobs or JOBS, dry_run, tell))
    try:
        wait()
    except BaseException:  # an interrupt: what is under way comes to its end, and nothing more is begun
        del visits[:]
        for visit in _taken(working):
            visit.close()
        wait()
        raise
    found = tuple([visit.report for visit in visits if visit.report is not None])
    return Sweep(namespaces=found, totals=_totals(found, target))


def _candidates(dirs: "Optional[Iterable[str]]", proc: bool) -> "Iterator[str]":
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
            raise Refused(error.errno or 0, os.strerror(error.errno or 0), "list namespaces in", directory) from None
        for name in names:
            yield os.path.join(directory, name)


def _distinct(paths: "Iterable[str]") -> "Iterator[str]":
    """Of several paths to one namespace the first; nothing that is certainly no namespace."""
    seen = set()
    for path in paths:
        try:
            found = os.stat(path)
        except OSError as error:
            if error.errno not in _NOTHING:  # whatever it is, opening it will tell
                yield path
            continue
        identity = (found.st_dev, found.st_ino)
        if stat.S_ISREG(found.st_mode) and identity not in seen:
            seen.add(identity)
            yield path


class _Visit:
    """One namespace: `look` at it, and `clean_up` if there is ``work``. Both move the calling thread into it, for good.

    ``report`` stays None where there is no namespace, or no longer.
    """

    __slots__ = ("path", "target", "report", "work", "_namespace", "_route", "_cleanup")

    def __init__(self, path: str, target: Target) -> None:
        self.path = path
        self.target = target
        self.report: Optional[Report] = None
        self.work = False
        self._namespace: Optional[Namespace] = None
        self._route: Optional[Route] = None
        self._cleanup: Optional[orphans.Cleanup] = None

    def look(self, dry_run: bool) -> None:
        """Look and plan; what that takes stays open as long as there is ``work``."""
        try:
            self.report = self._safely(lambda: self._prepared(dry_run))
        finally:
            if not self.work:
                self.close()

    def clean_up(self) -> None:
        """Carry out what is planned. One that is `crowded` then may be called again: it knows what it has done."""
        self.work = False
        try:
            self.report = self._safely(self._finished)
        finally:
            self._close_route()
            if not self.crowded:
                self.close()

    def _prepared(self, dry_run: bool) -> "Optional[Report]":
        self._namespace = Namespace(self.path)
        here = self._namespace.enter()
        self._route = Route(here, alone=not dry_run, patience=0, listen=0 if dry_run else self.target.groups)
        self._cleanup = orphans.Cleanup(self._route, self.target)
        report = self._cleanup.prepare(dry_run)
        self.work = report is None
        return report

    def _finished(self) -> Report:
        assert self._namespace is not None and self._route is not None and self._cleanup is not None
        here = self._namespace.enter()
        if self._route.is_alone:
            return self._cleanup.finish(later=True)
        with Route(here, alone=True) as self._cleanup.route:  # another worked here, and may have changed everything
            return self._cleanup.finish(later=True)

    def _safely(self, act: "Callable[[], Optional[Report]]") -> "Optional[Report]":
        """What came of it; whatever fails is the ``error`` of the report."""
        try:
            return act()
        except BadNamespace:
            return None
        except Error as error:
            if error.step == netns.OPEN and error.errno in _NOTHING:
                return None
            report = error.report
            if not isinstance(report, Report):
                return orphans.failure(self.path, self.target, error)
            return report.replace(error=None) if isinstance(error, TapInUse) else report
        except MemoryError:
            refused = Refused(errno.ENOMEM, os.strerror(errno.ENOMEM), "clean up", self.path)
            if self._cleanup is None:
                return orphans.failure(self.path, self.target, refused)
            return self._cleanup.report("failed", self._cleanup.done, refused)

    @property
    def crowded(self) -> bool:
        """Whether it failed for want of something that others hold."""
        error = self.report.error if self.report is not None else None
        return error is not None and error.errno in _CROWDED

    def _close_route(self) -> None:
        if self._route is not None:
            self._route.close()

    def close(self) -> None:
        self._close_route()
        if self._namespace is not None:
            self._namespace.close()


def _visit_all(visits: "Sequence[_Visit]", working: "List[_Visit]", jobs: int, dry_run: bool, tell: "Progress") -> None:
    """Look at one after the other, and clean up whenever there is work in ``jobs`` of them, or a plan is old. Those with work are
    ``working`` until then. Moves the calling thread."""
    cleaned, due = 0, 0.0
    try:
        for number, visit in enumerate(visits):
            tell("looked at", number, len(visits))
            visit.look(dry_run)
            if visit.crowded and working:  # make room
                cleaned = _clean_up(working, cleaned, tell)
                visit.look(dry_run)
            if visit.work:
                due = due if working else time.monotonic() + PLAN_AGE
                working.append(visit)
            if visits and (len(working) == jobs or (working and time.monotonic() > due)):
                cleaned = _clean_up(working, cleaned, tell)
            if not visits:  # the sweep was interrupted
                return
        tell("looked at", len(visits), len(visits))
        _clean_up(working, cleaned, tell)
    finally:
        for visit in _taken(working):
            visit.close()


def _clean_up(working: "List[_Visit]", cleaned: int, tell: "Progress") -> int:
    """Clean up all of these at once, which leaves the list empty. Returns how many are ``cleaned`` then. Moves the calling
    thread, which does its share."""
    count = len(working)
    total = cleaned + count
    finished: List[_Visit] = []

    def work() -> None:
        for visit in _taken(working):
            visit.clean_up()
            finished.append(visit)
            if len(finished) < count:  # the last word is for who waits for all
                tell("cleaned up", cleaned + len(finished), total)

    threads: List[Callable[[], None]] = []
    while len(threads) < count - 1:
        try:
            threads.append(netns.start(work))
        except Refused:  # there can be no more of them
            break
    work()
    for wait in threads:
        try:
            wait()
        except Refused:  # it never ran; another took what it would have taken
            pass
    for visit in finished:
        if visit.crowded:  # the others have made room
            visit.clean_up()
        visit.close()
    if count:
        tell("cleaned up", total, total)
    return total


def _taken(waiting: "List[_Visit]") -> "Iterator[_Visit]":
    """Take one after the other, as several threads may do at once."""
    while True:
        try:
            yield waiting.pop()
        except IndexError:
            return


def _totals(reports: "Sequence[Report]", target: Target) -> Totals:
    seen = [(report, tap) for report in reports for tap in report.taps]
    left = [tap for report, tap in seen if report.outcome in ("clean", "cleaned", "would-clean") and not tap.deleted]
    return Totals(
        namespaces=len(reports),
        orphans=sum(tap.verdict == orphans.ORPHAN for _, tap in seen),
        deleted=sum(tap.deleted for _, tap in seen),
        spared=sum(tap.fresh for tap in left) if target.spare_fresh else 0,
        in_use=sum(tap.verdict == orphans.IN_USE for _, tap in seen),
        skipped=sum(report.outcome == "skipped" for report in reports),
        failed=sum(report.outcome == "failed" for report in reports),
    )

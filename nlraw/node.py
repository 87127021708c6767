# SPDX-License-Identifier: Apache-2.0
"""Many namespaces at once: find them, look at each, then remove in parallel where there is something to remove.

The looking is done by one thread that goes from namespace to namespace; it waits for nothing. The removing is done by many: each
delete waits some 15 ms for the kernel's RCU, and in different namespaces these waits overlap.
"""

import errno
import os
import stat

from . import netns, orphans
from .errors import BadNamespace, Error, Invalid, Refused, TapInUse
from .netns import Namespace
from .orphans import Target
from .report import Record, Report
from .route import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

    Progress = Callable[[str, int, int], None]

# Namespaces at a time. Each takes a thread and two descriptors; twice as many gain nothing.
JOBS = 64

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
    others go on. ``jobs`` is the number of namespaces to clean up at a time. ``progress`` is called with what is being done,
    how many namespaces that is done for, and how many there are. Raises `Refused` for a directory that cannot be read.
    """
    target = Target(match, uplink, spare_fresh=not include_fresh)
    if jobs is not None and jobs < 1:
        raise Invalid("at least one job is needed", "check jobs", str(jobs))
    if isinstance(dirs, str):
        raise Invalid("directories are a list of paths, not one", "check directories", dirs)
    tell = progress or (lambda doing, done, total: None)
    paths = list(_distinct(_candidates(dirs, proc)))
    reports = netns.start(lambda: _look_at_all(paths, target, not dry_run, tell))()
    if not dry_run:
        _remove(reports, target, jobs or JOBS, tell)
    found = tuple(reports.values())
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


def _look_at_all(paths: "Sequence[str]", target: Target, briefly: bool, tell: "Progress") -> "Dict[str, Report]":
    """What a cleanup of each would do; ``briefly``, whether anything. Moves the calling thread through all of them."""
    reports = {}
    for number, path in enumerate(paths):
        tell("looked at", number, len(paths))
        report = _inside(path, target, lambda route: orphans.inspect(route, target, briefly), alone=False)
        if report is not None:
            reports[path] = report
    tell("looked at", len(paths), len(paths))
    return reports


def _remove(reports: "Dict[str, Report]", target: Target, jobs: int, tell: "Progress") -> None:
    """Clean up where that would do something, ``jobs`` namespaces at a time, and replace their reports."""
    waiting = [path for path, report in reports.items() if report.outcome == "would-clean"][::-1]
    late: List[str] = []
    finished: List[str] = []
    total = len(waiting)

    def work(waiting: "List[str]", late: "Optional[List[str]]") -> None:
        for path in _taken(waiting):
            report = _inside(path, target, lambda route: orphans.remove(route, target), alone=True)
            if report is None:
                del reports[path]
            elif late is not None and report.error is not None and report.error.errno in _CROWDED:
                late.append(path)
            else:
                reports[path] = report
            finished.append(path)
            if len(finished) < total:  # the last word is for who waits for all
                tell("cleaned up", len(finished), total)

    threads: List[Callable[[], None]] = []
    while len(threads) < min(jobs, total):
        try:
            threads.append(netns.start(lambda: work(waiting, late)))
        except Refused:  # there can be no more of them
            break
    for wait in threads:
        try:
            wait()
        except Refused:  # it never ran; what it would have taken is still waiting, or another took it
            pass
    late += waiting  # all of it, if there can be no thread beside this one now
    if late:
        netns.start(lambda: work(late, None))()
    tell("cleaned up", total, total)


def _taken(waiting: "List[str]") -> "Iterator[str]":
    """Take one after the other, as several threads may do at once."""
    while True:
        try:
            yield waiting.pop()
        except IndexError:
            return


def _inside(path: str, target: Target, act: "Callable[[Route], Report]", alone: bool) -> "Optional[Report]":
    """Act in one namespace, which the calling thread moves into. None where there is no namespace, or no longer."""
    try:
        with Namespace(path) as namespace, Route(namespace.enter(), alone) as route:
            return act(route)
    except BadNamespace:
        return None
    except Error as error:
        if error.step == netns.OPEN and error.errno in _NOTHING:
            return None
        report = error.report
        if not isinstance(report, Report):
            return orphans.failure(path, target, error)
        return report.replace(error=None) if isinstance(error, TapInUse) else report
    except MemoryError:
        words = os.strerror(errno.ENOMEM)
        return orphans.failure(path, target, Refused(errno.ENOMEM, words, "clean up", path))


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

# SPDX-License-Identifier: Apache-2.0
"""Visits on threads of their own. Each thread ends inside the namespace that it visited.

A thread that waited there would keep the namespace alive, and `ip netns del` would free nothing.
"""

import os

from . import netns, threads
from .errors import Error
from .listener import open_known
from .snapshot import failure
from .transport import SYSTEM, Patience
from .verdict import Target
from .visit import Visit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, FrozenSet, Iterator, List, Optional

    from .known import Fall, Task
    from .link import Link
    from .report import Report

# Seconds that a visit waits for other writers in its namespace.
PATIENCE = 0.5

# Seconds after which a visit counts as failed, whatever its thread does.
STUCK = 60.0


class PatientTarget(Target):
    """A target that spares every orphan that is not in ``ready``: it is too young."""

    __slots__ = ("_ready",)

    def __init__(self, target: Target, ready: "FrozenSet[Fall]") -> None:
        uplinks = target.uplinks or target.uplink
        super().__init__(
            target.match, uplinks, target.exclude, target.spare_fresh, target.keep_in_use
        )
        self._ready = ready

    def spares(self, orphan: "Link") -> bool:
        fall = (orphan.ifindex, orphan.carrier_down_count or 0)
        return fall not in self._ready or super().spares(orphan)


class Result:
    """A visit that has ended. ``report`` is None if the namespace is gone, or no thread started.

    ``is_crowded``: it failed because others hold a resource that it needs. ``seconds`` is its
    processor time.
    """

    __slots__ = ("task", "report", "is_crowded", "seconds")

    def __init__(
        self, task: "Task", report: "Optional[Report]", is_crowded: bool, seconds: float
    ) -> None:
        self.task = task
        self.report = report
        self.is_crowded = is_crowded
        self.seconds = seconds

    @property
    def has_failed(self) -> bool:
        return self.is_crowded or (self.report is not None and self.report.outcome == "failed")

    @property
    def left(self) -> "List[int]":
        """The indexes of the matching TAPs that are left."""
        taps = () if self.report is None else self.report.taps
        return [tap.ifindex for tap in taps if not tap.deleted]

    @property
    def deleted(self) -> int:
        """How many TAPs were removed."""
        return 0 if self.report is None else sum(tap.deleted for tap in self.report.taps)

    @property
    def has_changed(self) -> bool:
        """True if something was removed."""
        return self.deleted > 0 or (self.report is not None and bool(self.report.tc_removed))


class Workers:
    """The visits in progress. ``count`` is their number."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._begun: Dict[Task, float] = {}
        self._ended: List[Result] = []
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    @property
    def count(self) -> int:
        return len(self._begun)

    def fileno(self) -> int:
        """A descriptor to poll for POLLIN: it wakes when a visit has ended, and after `wake`."""
        return self._read

    @property
    def waker(self) -> int:
        """A descriptor: a byte that is written to it does what `wake` does."""
        return self._write

    def wake(self) -> None:
        """End the wait of a poll."""
        try:
            os.write(self._write, b"\0")
        except OSError:  # it is full, so there is something to read; or it is closed
            pass

    def begin(self, task: "Task", now: float) -> None:
        """Begin a visit. Never raises: if no thread can be started, the visit has ended."""
        self._begun[task] = now
        try:
            threads.start(lambda: self._run(task))
        except Error:
            self._ended.append(Result(task, None, True, 0.0))
            self.wake()

    def _run(self, task: "Task") -> None:
        result = self._visit(task)
        result.seconds = SYSTEM.thread_time()
        self._ended.append(result)
        self.wake()

    def _visit(self, task: "Task") -> Result:
        target = self._target if task.ready is None else PatientTarget(self._target, task.ready)
        visit = Visit(
            task.path,
            target,
            Patience(PATIENCE),
            open_namespace=lambda path: open_known(path, task.key),
        )
        try:
            visit.look(False)
            if visit.is_work:
                visit.clean_up()
            return Result(task, visit.report, visit.is_crowded, 0.0)
        except Exception as error:  # a bug that one namespace triggers must not end the agent
            unexpected = Error(repr(error), "visit", task.path)
            return Result(task, failure(task.path, target, unexpected), False, 0.0)
        finally:
            visit.close()

    def take(self) -> "Iterator[Result]":
        """The visits that have ended since the last call."""
        try:
            os.read(self._read, 4096)
        except OSError:  # there is nothing to read; or no memory, and it is read the next time
            pass
        while self._ended:
            result = self._ended.pop(0)
            if self._begun.pop(result.task, None) is not None:  # else it was given up
                yield result

    def give_up(self, now: float) -> "List[Task]":
        """Return the visits that take too long; from now on they count as ended."""
        stuck = [task for task, begin in self._begun.items() if begin + STUCK <= now]
        for task in stuck:
            del self._begun[task]
        return stuck

    def deadline(self) -> float:
        """When to call `give_up`; infinity if no visit is in progress."""
        return min(self._begun.values(), default=float("inf")) + STUCK

    def close(self) -> None:
        """Close the descriptors. Visits in progress end by themselves."""
        read, write = self._read, self._write
        self._read = self._write = -1  # a late worker must not write to another file
        netns.close(read)
        netns.close(write)


# ---------------------------------------------------------------- what is reported


class Outcome:
    """What a visit saw or did. ``time`` is when it ended, in seconds since 1970.

    ``seconds`` is the time from the event that it answered to its end, None without an event.
    """

    __slots__ = ("report", "time", "seconds")

    def __init__(self, report: "Report", time: float, seconds: "Optional[float]") -> None:
        self.report = report
        self.time = time
        self.seconds = seconds


class News:
    """The last state of each namespace, by its ID: a state that lasts is reported once."""

    def __init__(self) -> None:
        self._said: Dict[int, Optional[int]] = {}

    def is_new(self, id: int, report: "Report") -> bool:
        """True if something was removed, or if there is a state to report that is new."""
        taps = frozenset([(tap.ifindex, tap.verdict) for tap in report.taps if not tap.deleted])
        state: Optional[int] = None
        is_skipped = report.outcome == "skipped" and bool(taps)
        if report.outcome in ("in-use", "failed") or is_skipped or report.dead_redirects:
            # a hash, because that has a bounded size
            state = hash((report.outcome, taps, report.dead_redirects, str(report.error)))
        is_same = state is None or self._said.get(id) == state
        self._said[id] = state
        return report.outcome == "cleaned" or bool(report.tc_removed) or not is_same

    def forget(self, id: int) -> None:
        """The namespace is gone."""
        self._said.pop(id, None)

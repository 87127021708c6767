# SPDX-License-Identifier: Apache-2.0
"""Metrics of a sweep and of a watch, for the textfile collector of Prometheus' node_exporter.

A sweep has gauges of its result. A watch also has counters, which begin at its start, and a
histogram. The format is the Prometheus text format, version 0.0.4.

The file is written under another name and then renamed: a reader sees the complete new file, or the
complete old one. The file is not synced to disk: if the machine crashes, the next sweep or watch
writes it again.
"""

import os
import stat

from .errors import UNWRITABLE, Invalid, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List

    from .node import Totals

# A field of `Totals`, the metric's name, and its help.
TOTALS = (
    ("namespaces", "namespaces", "Network namespaces that the last sweep visited."),
    ("skipped", "namespaces_skipped", "Network namespaces left alone: they have no uplink."),
    ("failed", "namespaces_failed", "Network namespaces in which something failed."),
    ("orphans", "orphans", "Orphan TAPs that the last sweep found."),
    ("deleted", "orphans_removed", "Orphan TAPs that the last sweep removed."),
    (
        "spared",
        "orphans_spared",
        "Orphan TAPs that the last sweep spared, because a VM may be about to attach.",
    ),
    ("in_use", "taps_in_use", "Matching TAPs that were in use."),
)


def text(totals: "Totals", duration: float, end: float) -> str:
    """Return the content of the file.

    ``duration`` is how long the sweep took, in seconds; ``end`` is when, in seconds since 1970.
    """
    lines: List[str] = []
    for field, name, help in TOTALS:
        _describe(lines, "sweep_" + name, "gauge", help, "%d" % getattr(totals, field))
    help = "How long the last sweep took."
    _describe(lines, "sweep_duration_seconds", "gauge", help, "%.6f" % duration)
    help = "When the last sweep ended, in seconds since 1970."
    _describe(lines, "sweep_timestamp_seconds", "gauge", help, "%.3f" % end)
    return "\n".join(lines) + "\n"


def _describe(lines: "List[str]", name: str, type: str, help: str, value: str) -> None:
    """Add the help, the type and the value of a metric; without the value if it is empty."""
    lines.append("# HELP nlraw_%s %s" % (name, help))
    lines.append("# TYPE nlraw_%s %s" % (name, type))
    if value:
        lines.append("nlraw_%s %s" % (name, value))


# ---------------------------------------------------------------- watch

# A field of `Watched`, the metric's name, its type, its format and its help.
WATCHED = (
    ("namespaces", "namespaces", "gauge", "%d", "Network namespaces that are watched."),
    (
        "muted",
        "namespaces_muted",
        "gauge",
        "%d",
        "Network namespaces that cause too many events and are not listened to for a while.",
    ),
    ("events", "events_total", "counter", "%d", "Events that may have been about an orphan."),
    ("overruns", "overruns_total", "counter", "%d", "How often events were lost."),
    ("visits", "visits_total", "counter", "%d", "Visits to a network namespace."),
    ("failed", "visits_failed_total", "counter", "%d", "Visits in which something failed."),
    ("deleted", "orphans_removed_total", "counter", "%d", "Orphan TAPs that were removed."),
    ("mutes", "mutes_total", "counter", "%d", "How often a network namespace was muted."),
    ("resyncs", "resyncs_total", "counter", "%d", "How often all network namespaces were seen."),
    (
        "resync_duration",
        "resync_duration_seconds",
        "gauge",
        "%.6f",
        "How long it took to see all network namespaces, last time.",
    ),
    (
        "resync_end",
        "resync_timestamp_seconds",
        "gauge",
        "%.3f",
        "When all network namespaces had been seen, last time, in seconds since 1970; 0: never.",
    ),
)

# Upper bounds of the histogram, in seconds.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Watched:
    """What a watch has seen and done: the fields of `WATCHED`, to be changed in place.

    Counters only grow. A duration is in seconds, a time in seconds since 1970.
    """

    __slots__ = (
        "namespaces",
        "muted",
        "events",
        "overruns",
        "visits",
        "failed",
        "deleted",
        "mutes",
        "resyncs",
        "resync_duration",
        "resync_end",
        "_removals",
        "_seconds",
    )

    def __init__(self) -> None:
        self.namespaces = self.muted = 0
        self.events = self.overruns = self.visits = self.failed = self.deleted = 0
        self.mutes = self.resyncs = 0
        self.resync_duration = self.resync_end = 0.0
        self._removals = [0] * (len(BOUNDS) + 1)  # by the first bound that is not below the time
        self._seconds = 0.0

    def resynced(self, seconds: float, end: float) -> None:
        """Count a look at everything: how long it took, and when it ended."""
        self.resyncs += 1
        self.resync_duration, self.resync_end = seconds, end

    def removed(self, seconds: float) -> None:
        """Count a visit that removed something, ``seconds`` after the event that led to it."""
        place = 0
        while place < len(BOUNDS) and seconds > BOUNDS[place]:
            place += 1
        self._removals[place] += 1
        self._seconds += seconds

    def text(self, now: float) -> str:
        """Return the content of the file. ``now`` is in seconds since 1970."""
        lines: List[str] = []
        for field, name, type, format, help in WATCHED:
            _describe(lines, "watch_" + name, type, help, format % getattr(self, field))
        name, help = "watch_removal_seconds", "Time from an event to the end of the removal."
        _describe(lines, name, "histogram", help, "")
        count = 0
        for bound, number in zip(["%g" % bound for bound in BOUNDS] + ["+Inf"], self._removals):
            count += number
            lines.append('nlraw_%s_bucket{le="%s"} %d' % (name, bound, count))
        lines.append("nlraw_%s_sum %.6f" % (name, self._seconds))
        lines.append("nlraw_%s_count %d" % (name, count))
        help = "When the watch wrote its metrics, in seconds since 1970."
        _describe(lines, "watch_timestamp_seconds", "gauge", help, "%.3f" % now)
        return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- the file


def write(path: str, content: str) -> None:
    """Create or replace a file as a whole; every user may read it.

    Raises `Refused`, or `Invalid` if something other than a regular file is there.
    """
    step = "write metrics to"
    if not path:
        raise Invalid("the name of a file is needed", step, path)
    target = os.path.realpath(path)  # a symbolic link stays: what it leads to is replaced
    # The collector reads *.prom only. The name is random because two sweeps may write at once.
    new = "%s.%s.tmp" % (target, os.urandom(4).hex())
    try:
        if os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode):
            raise Invalid("it exists and is not a regular file", step, path)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "w", encoding="ascii") as file:
                file.write(content)
                os.fchmod(fd, 0o644)  # whatever the umask: the collector is another user
            os.rename(new, target)
        except BaseException:
            os.unlink(new)
            raise
    except OSError as error:
        raise refused(error, step, path, UNWRITABLE) from None

# SPDX-License-Identifier: Apache-2.0
"""The result of the last sweep as gauges, for the textfile collector of Prometheus' node_exporter.

The file is written under another name and then renamed: a reader sees the whole result of the last
sweep or of the one before. The file is not synced to disk: if the machine crashes, the next sweep
writes it again.
"""

import os
import stat

from .errors import Invalid, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List

    from .report import Totals

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

    `duration` is that of the sweep in seconds, `end` the time when it ended, in seconds since 1970.
    """
    lines: List[str] = []

    def gauge(name: str, help: str, value: str) -> None:
        name = "nlraw_sweep_" + name
        lines.append("# HELP %s %s" % (name, help))
        lines.append("# TYPE %s gauge" % name)
        lines.append("%s %s" % (name, value))

    for field, name, help in TOTALS:
        gauge(name, help, "%d" % getattr(totals, field))
    gauge("duration_seconds", "How long the last sweep took.", "%.6f" % duration)
    help = "When the last sweep ended, in seconds since 1970."
    gauge("timestamp_seconds", help, "%.3f" % end)
    return "\n".join(lines) + "\n"


def write(path: str, content: str) -> None:
    """Create or replace a file as a whole; every user may read it.

    Raises `Refused`, or `Invalid` if something other than a regular file is there.
    """
    step = "write metrics to"
    target = os.path.realpath(path)  # a symbolic link stays one
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
        raise refused(error, step, path) from None

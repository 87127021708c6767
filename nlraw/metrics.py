# SPDX-License-Identifier: Apache-2.0
"""What a sweep saw and did, as the textfile collector of Prometheus' node_exporter reads it: gauges that tell of the last sweep.

The file is written beside itself and renamed, so that its reader sees the last sweep or the one before, never half of one.
It is not synced to disk: after a crash of the machine the next sweep writes it anew.
"""

import os
import stat

from .errors import Invalid, Refused
from .report import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List

# A field of `Totals`, and the metric's name and help.
TOTALS = (
    ("namespaces", "namespaces", "Network namespaces that the last sweep visited."),
    ("skipped", "namespaces_skipped", "Those of them that have no uplink and were left alone."),
    ("failed", "namespaces_failed", "Those of them in which something failed."),
    ("orphans", "orphans", "Orphan TAPs that the last sweep found."),
    ("deleted", "orphans_removed", "Those of them that it removed."),
    ("spared", "orphans_spared", "Those of them that it spared, because a VM may be about to attach."),
    ("in_use", "taps_in_use", "Matching TAPs that were in use."),
)


def text(totals: Record, duration: float, end: float) -> str:
    """The file's content: sums, seconds that the sweep took, and when it ended, in seconds since 1970."""
    lines: List[str] = []

    def gauge(name: str, help: str, value: str) -> None:
        name = "nlraw_sweep_" + name
        lines.extend(("# HELP %s %s" % (name, help), "# TYPE %s gauge" % name, "%s %s" % (name, value)))

    for field, name, help in TOTALS:
        gauge(name, help, "%d" % getattr(totals, field))
    gauge("duration_seconds", "How long the last sweep took.", "%.6f" % duration)
    gauge("timestamp_seconds", "When the last sweep ended, in seconds since 1970.", "%.3f" % end)
    return "\n".join(lines) + "\n"


def write(path: str, content: str) -> None:
    """Replace a file, or make it, as a whole; everybody may read it. Raises `Refused`, or `Invalid` for what is no plain file."""
    step = "write metrics to"
    target = os.path.realpath(path)  # a symbolic link stays one
    # no name that the collector reads (*.prom); one of its own, since two sweeps may write at once
    new = "%s.%s.tmp" % (target, os.urandom(4).hex())
    try:
        if os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode):
            raise Invalid("this is there already, and is no plain file", step, path)
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
        raise Refused(error.errno or 0, os.strerror(error.errno or 0), step, path) from None

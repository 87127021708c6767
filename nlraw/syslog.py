# SPDX-License-Identifier: Apache-2.0
"""Write a line to the system log: a datagram to /dev/log in the format of RFC 3164 (section 4.1).

The line has no host name, as with syslog(3). If there is no log socket, or if its queue is full,
the line is lost: a log is not worth a wait.
"""

import posix
from _socket import AF_UNIX, MSG_NOSIGNAL, SOCK_DGRAM, socket  # the C half of socket

from .output import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .report import Report

# The severities in use (sys/syslog.h).
ERROR = 3
WARNING = 4
NOTICE = 5

SOCKET = "/dev/log"

# The most bytes of a packet (RFC 3164).
LIMIT = 1024

_DAEMON = 3 << 3  # LOG_DAEMON
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def log(priority: int, text: str, path: str = SOCKET) -> None:
    """Send a line to the system log, escaped, and cut if it is too long. Never raises or waits."""
    try:
        sender = socket(AF_UNIX, SOCK_DGRAM)
        try:
            sender.setblocking(False)
            sender.sendto(line(priority, text), MSG_NOSIGNAL, path)
        finally:
            sender.close()
    except OSError:
        pass


def line(priority: int, text: str) -> bytes:
    """Return the packet: priority, local time, the name and the ID of this process, the text."""
    import time

    now = time.localtime()
    date = "%s %2d %02d:%02d:%02d" % ((_MONTHS[now.tm_mon - 1],) + now[2:6])
    whole = "<%d>%s nlraw[%d]: %s" % (_DAEMON | priority, date, posix.getpid(), escape(text))
    return (whole if len(whole) <= LIMIT else whole[: LIMIT - 3] + "...").encode("ascii")


# How many changes a line lists.
_LISTED = 8


def log_report(report: "Report", prefix: str) -> None:
    """Log what failed or was refused in a namespace, and what was done; no line for nothing."""
    words = summary(report)
    if words:
        grave = {"failed": ERROR, "in-use": WARNING}
        log(grave.get(report.outcome, NOTICE), "%s%s: %s" % (prefix, report.netns, words))


def summary(report: "Report") -> str:
    """Return what failed or was refused in a namespace, and what was done; "" for nothing."""
    parts = [] if report.error is None else [str(report.error)]
    done = ["deleted " + tap.ifname for tap in report.taps if tap.deleted]
    done += [
        "removed %s %s on %s" % (each.kind, each.object, each.dev) for each in report.tc_removed
    ]
    if len(done) > _LISTED:
        done[_LISTED:] = ["%d more" % (len(done) - _LISTED)]
    if done:
        parts.append(", ".join(done))
    for tap in report.taps:
        if tap.holders and report.error is not None:
            held = ", ".join("%s (PID %s)" % (each.comm, each.pid) for each in tap.holders)
            parts.append("%s is held by %s" % (tap.ifname, held))
    return "; ".join(parts)

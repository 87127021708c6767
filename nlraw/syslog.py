# SPDX-License-Identifier: Apache-2.0
"""Write lines to the system log, as the identifier "nlraw": one for each namespace with news.

If systemd has connected stderr to the journal, a line goes there, with its priority in front.
Otherwise it is a datagram to /dev/log in the format of RFC 3164 (section 4.1), without a host name,
as with syslog(3). If there is no log socket, or if its queue is full, the line is lost: a log is
not worth a wait.
"""

import posix
from _socket import AF_UNIX, MSG_NOSIGNAL, SOCK_DGRAM, socket  # the C half of socket

from .output import (
    ERROR,
    NOTICE,
    WARNING,
    can_say,
    complain_about,
    escape,
    hint,
    is_journal,
    is_news,
    why_left,
)
from .verdict import ORPHAN, listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional, Sequence, Tuple

    from .report import Report, TcObject

    # A priority, and a text that is not escaped yet.
    Entry = Tuple[int, str]

SOCKET = "/dev/log"

# The most bytes of a packet (RFC 3164), and of a line to the journal.
LIMIT = 1024

_DAEMON = 3 << 3  # LOG_DAEMON
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def record(priority: int, text: str, waits: bool = True) -> None:
    """Log a line, once: on stderr if that is the journal, else as `log` does. Never raises.

    ``waits``: until stderr takes the line.
    """
    printed = _cut("<%d>%s" % (priority, escape(text))) + "\n"
    is_open = is_journal(is_complaint=True) and (waits or can_say(is_complaint=True))
    if not (is_open and hint(printed)):
        log(priority, text)


def log_too(priority: int, text: str) -> None:
    """Log a line that is printed on stderr as well, unless that is the journal."""
    if not is_journal(is_complaint=True):
        log(priority, text)


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
    return _cut(whole).encode("ascii")


def _cut(line: str) -> str:
    return line if len(line) <= LIMIT else line[: LIMIT - 3] + "..."


# ---------------------------------------------------------------- what a line says


def publish(report: "Report", uplinks: "Sequence[str]" = ()) -> None:
    """Log the entry of a report, and print what it complains about on stderr."""
    if not is_journal(is_complaint=True):  # else the entry is there
        complain_about(report, uplinks=uplinks)
    found = entry(report, "", uplinks)
    if found is not None:
        record(*found)


def log_report(report: "Report", prefix: str, uplinks: "Sequence[str]" = ()) -> None:
    """Log the entry of a report as `log` does; no line for nothing."""
    found = entry(report, prefix, uplinks)
    if found is not None:
        log(*found)


def entry(report: "Report", prefix: str = "", uplinks: "Sequence[str]" = ()) -> "Optional[Entry]":
    """Return the line about a namespace, with the TAPs and the reason; None if there is no news.

    ``uplinks`` are those requested.
    """
    if not is_news(report):
        return None
    if report.outcome == "failed":
        priority = ERROR
    elif report.error is not None or report.outcome == "skipped" or report.dead_redirects:
        priority = WARNING
    else:
        priority = NOTICE
    return priority, "%s%s: %s" % (prefix, report.netns, "; ".join(_parts(report, uplinks)))


def _parts(report: "Report", uplinks: "Sequence[str]") -> "List[str]":
    """What is wrong, then what was done, then what stays."""
    parts = []
    error = report.error
    if error is not None and error.object == report.netns:  # the line begins with it
        parts.append(": ".join([part for part in (error.step, error.message) if part]))
    elif error is not None:
        parts.append(str(error))
    deleted = [tap.ifname for tap in report.taps if tap.deleted]
    if len(deleted) == 1:
        parts.append("deleted orphan %s (nobody held it)" % deleted[0])
    elif deleted:
        parts.append("deleted orphans %s (nobody held them)" % listed(deleted))
    if report.tc_removed:
        parts.append("removed " + listed([_removed(each) for each in report.tc_removed]))
    left = [tap.ifname for tap in report.taps if tap.verdict == ORPHAN and not tap.deleted]
    if report.outcome == "skipped" and left:
        parts.append(why_left(report, uplinks))
    elif report.outcome == "failed" and left:
        parts.append("these orphans stay: " + listed(left))
    if report.dead_redirects:
        words = "these filters redirect to nothing, swallow packets, and stay: %s"
        dead = ["%s filter on %s" % (each.kind, each.dev) for each in report.dead_redirects]
        parts.append(words % listed(dead))
    for tap in report.taps:
        if tap.holders and error is not None:
            held = [
                "perhaps others" if each.pid is None else "%s (PID %d)" % (each.comm, each.pid)
                for each in tap.holders
            ]
            parts.append("%s is held by %s" % (tap.ifname, ", ".join(held)))
    return parts


def _removed(found: "TcObject") -> str:
    words = "%s %s on %s" % (found.kind, found.object, found.dev)
    if found.object == "filter":
        words += " (it redirected to %s)" % (found.target or "nothing")
    return words

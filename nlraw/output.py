# SPDX-License-Identifier: Apache-2.0
"""The streams that results are printed on, results as JSON, and the line on one namespace.

This is the only file that prints. `text` makes all other text; it is imported only if there is more
to show than that line. Names are bytes from outside: text shows them escaped, JSON holds them as
they are.
"""

import posix
import sys
from errno import EAGAIN, errorcode
from io import RawIOBase

from .errors import Error
from .report import Record, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional, Sequence, Union

    from .guest import Setup
    from .selftest import Check


# The severities of lines in the system log (sys/syslog.h).
ERROR, WARNING, NOTICE = 3, 4, 5


# ---------------------------------------------------------------- text


def escape(text: str) -> str:
    r"""Return text as printable ASCII: any other byte becomes ``\xNN``, a backslash two."""
    return "".join(char if " " <= char <= "~" and char != "\\" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char == "\\":
        return "\\\\"
    # a lone surrogate of this range stands for a byte that is not UTF-8; only a text from JSON may
    # hold any other lone surrogate
    is_byte = "\udc80" <= char <= "\udcff"
    data = char.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
    return "".join("\\x%02x" % number for number in data)


_OUTCOMES = {
    "clean": "clean, nothing to remove",
    "cleaned": "cleaned",
    "would-clean": "would clean",
    "in-use": "in use, nothing changed",
    "skipped": "skipped, there is no uplink",
    "failed": "failed",
}


def head(report: "Report") -> str:
    """The line on one namespace: the outcome, and the uplink or the reason of a failure."""
    about = ""
    if report.outcome == "failed" and report.error is not None:
        about = ": " + escape(reason(report))
    elif report.uplink is not None:
        form = " %s" if report.outcome == "skipped" else " (uplink %s)"
        about = form % escape(report.uplink)
    words = _OUTCOMES[report.outcome]
    if report.outcome == "clean" and any(tap.verdict == "orphan" for tap in report.taps):
        words = "clean, fresh orphans are spared"
    return "%s: %s%s" % (escape(report.netns), words, about)


def reason(report: "Union[Report, Setup]") -> str:
    """Why a namespace failed, for a line that begins with the namespace: it is not named again."""
    error = report.error
    if error is None:
        return "nothing done"
    if error.step and error.object == report.netns:
        return "%s: %s" % (error.step, error.message)
    return str(error)


def is_bare(report: "Report") -> bool:
    """True if the line of `head` is all there is to show."""
    return not (report.taps or report.tc_removed or report.ignored or report.dead_redirects)


def is_news(report: "Report") -> bool:
    """True if the system log gets a line: something was done, has failed, or needs an operator."""
    return report.outcome != "would-clean" and bool(
        report.error
        or report.tc_removed
        or report.dead_redirects
        or any(tap.deleted for tap in report.taps)
        or orphans_left(report)
    )


def orphans_left(report: "Report") -> "Sequence[str]":
    """The names of the orphans that stay because there is no uplink."""
    if report.outcome != "skipped":
        return ()
    return [tap.ifname for tap in report.taps if tap.verdict == "orphan"]


def check_in_text(check: "Check") -> str:
    """Return one check of the self-test as text: its result, its duration, what was seen."""
    if check.ok is None:
        mark = ""
    elif check.ok:
        mark = "ok"
    else:
        mark = "FAILED" if check.remedy else "not run"
    took = "%.1f ms" % (check.seconds * 1e3) if check.seconds else ""
    seen = list(check.seen)
    if check.remedy:
        seen.append("remedy: " + check.remedy)
    head = "%-7s %9s  %s" % (mark, took, escape(check.step))
    return "\n".join([head] + [" " * 19 + escape(line) for line in seen])


# ---------------------------------------------------------------- JSON


def in_json(value: "object") -> str:
    """Return a report, or any value that JSON can hold, as one JSON document in ASCII.

    A byte that is not UTF-8 becomes a lone surrogate. The layout is that of json.dumps(). The
    module json is not used: Debian's python3-minimal lacks it, and its import takes longer than a
    cleanup.
    """
    if isinstance(value, Error):
        value = _error_fields(value)
    elif isinstance(value, Record):
        value = value.document()
    if isinstance(value, dict):
        pairs = ["%s: %s" % (in_json(name), in_json(field)) for name, field in value.items()]
        return "{%s}" % ", ".join(pairs)
    if isinstance(value, (list, tuple)):
        return "[%s]" % ", ".join(map(in_json, value))
    if isinstance(value, str):
        return '"%s"' % "".join(map(_json_character, value))
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    raise TypeError(value)


def _error_fields(error: Error) -> "object":
    name = None if error.errno is None else errorcode.get(error.errno, str(error.errno))
    return {"step": error.step, "object": error.object, "errno": name, "message": error.message}


def _json_character(char: str) -> str:
    if " " <= char <= "~":
        return "\\" + char if char in '"\\' else char
    data = char.encode("utf-16-be", "surrogatepass")  # above U+FFFF a pair of surrogates
    return "".join("\\u%02x%02x" % pair for pair in zip(data[::2], data[1::2]))


# ---------------------------------------------------------------- the streams


class Unwritten(Exception):
    """A result that could not be written to stdout."""


def has_colour() -> bool:
    """True if stdout is a terminal, and the user has not set NO_COLOR (no-color.org)."""
    if sys.stdout is None or posix.environ.get(b"NO_COLOR"):
        return False
    return sys.stdout.isatty()


def need_stdout() -> None:
    """Raise `Unwritten` if stdout is closed, for a command whose result must not be lost."""
    if sys.stdout is None:
        raise Unwritten("stdout is closed; nothing was done")


def say(text: str, end: str = "\n") -> None:
    """Print a result on stdout, flushed. Raises `Unwritten` if not all of it could be written."""
    if sys.stdout is None:
        raise Unwritten("stdout is closed")
    try:
        if isinstance(getattr(sys.stdout, "buffer", None), RawIOBase):
            _write_unbuffered((text + end).encode(sys.stdout.encoding, "backslashreplace"))
        else:
            sys.stdout.write(text + end)
            sys.stdout.flush()
    except OSError as error:
        sys.stdout = open("/dev/null", "w")  # else the interpreter writes again when it ends
        raise Unwritten("stdout: %s" % error.strerror) from None


def can_say(is_complaint: bool = False) -> bool:
    """True unless `say` would wait, because nobody reads stdout and it is full.

    With ``is_complaint``, the same for `complain` and stderr.
    """
    import select

    try:
        poll = select.poll()
        poll.register((sys.stderr if is_complaint else sys.stdout).fileno(), select.POLLOUT)
    except (AttributeError, OSError, ValueError):  # closed, or no file: the write shows it
        return True
    return bool(poll.poll(0))


def _write_unbuffered(rest: bytes) -> None:
    """Write all bytes to an unbuffered stdout (`python -u`).

    RawIOBase.write() may write only a part, and a text stream above it drops the rest silently.
    """
    while rest:
        written = sys.stdout.buffer.write(rest)
        if not written:
            raise OSError(EAGAIN, posix.strerror(EAGAIN))
        rest = rest[written:]


def is_journal(is_complaint: bool = False) -> bool:
    """True if systemd has connected stdout to the journal (JOURNAL_STREAM in systemd.exec(5)).

    With ``is_complaint``, the same for stderr. A line there begins with its priority, such as "<4>"
    (sd-daemon(3)).
    """
    named = posix.environ.get(b"JOURNAL_STREAM")
    if not named:
        return False
    try:
        found = posix.fstat((sys.stderr if is_complaint else sys.stdout).fileno())
    except (AttributeError, OSError, ValueError):  # closed, or no file
        return False
    return named == b"%d:%d" % (found.st_dev, found.st_ino)


def complain(text: str, priority: int = WARNING) -> None:
    """Print a line on stderr, escaped. If that fails, the work goes on."""
    head = "<%d>" % priority if is_journal(is_complaint=True) else "nlraw: "
    hint(head + escape(text) + "\n")


def complain_about(
    report: "Union[Report, Setup]", prefix: str = "", uplinks: "Sequence[str]" = ()
) -> None:
    """Print the error of a report on stderr, if it has one, with its namespace.

    If orphans stay because there is no uplink, print a warning; ``uplinks`` are those requested.
    """
    error = report.error
    if error is not None:
        if error.object != report.netns:  # else the error names the namespace itself
            prefix += report.netns + ": "
        priority = ERROR if report.outcome == "failed" else WARNING
        complain(prefix + str(error) + _advice(report), priority)
    elif isinstance(report, Report) and orphans_left(report):
        complain("%s%s: warning: %s" % (prefix, report.netns, why_left(report, uplinks)))


def _advice(report: "Union[Report, Setup]") -> str:
    """What to do about a TAP in use whose holders are not known; else nothing."""
    seen = report if isinstance(report, Report) else report.cleanup
    if report.outcome != "in-use" or any(tap.holders is not None for tap in seen.taps):
        return ""
    return "; `--who` names its holder, `--wait SECONDS` waits for it"


def complain_about_setup(made: "Setup") -> None:
    """Print on stderr the error of a setup, or warnings about its result."""
    complain_about(made)
    for found in dict.fromkeys(made.ahead):
        words = "%s: a foreign %s filter on %s sees packets before the redirect does"
        complain(words % (made.netns, found.kind, found.dev))
    for pair in made.pairs:
        tap, uplink = pair.tap, pair.uplink
        if uplink is not None and tap.mtu < uplink.mtu:
            words = "%s: %s cannot have the MTU of %s, %d: it has %d"
            complain(words % (made.netns, tap.ifname, uplink.ifname, uplink.mtu, tap.mtu))
        if uplink is not None and uplink.local is None:
            kind = "IPv4 address" if uplink.addresses else "address"
            words = "%s: %s has no %s, so the guest gets none"
            complain(words % (made.netns, uplink.ifname, kind))


def why_left(report: "Report", uplinks: "Sequence[str]") -> str:
    """Return why orphans stay, and which ones; ``uplinks`` are those requested."""
    if report.uplink is None:
        why = "`-u auto` finds no uplink"
    else:
        why = "there is no uplink " + (", ".join(uplinks) or report.uplink)
    from .verdict import listed  # not above: `cli` imports this file before it handles interrupts

    words = "%s, so these orphans stay: %s; `-u none` needs no uplink"
    return words % (why, listed(orphans_left(report)))


def hint(text: str) -> bool:
    """Print text on stderr as it is; return True if it was written. Never raises."""
    if sys.stderr is None:
        return False
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        sys.stderr = open("/dev/null", "w")
        return False
    return True


def progress() -> "Optional[Callable[[str, int, int], None]]":
    """Return a function that shows progress in one line of stderr, None if that is no terminal.

    The function takes what is being done, the number of namespaces done, and the number of all. The
    line appears after a second, changes at most every 0.1 s, and vanishes at the end.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    import time

    begin = time.monotonic() + 1.0
    last: Optional[float] = None  # when the line was last written, None if it is not shown

    def show(doing: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total and last is not None:
            last = None
            hint("\r\x1b[K")
        elif done < total and now > (begin if last is None else last + 0.1):
            last = now
            hint("\r\x1b[Knlraw: %s %d of %d namespaces" % (doing, done, total))

    return show

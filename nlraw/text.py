# SPDX-License-Identifier: Apache-2.0
"""Results as text: a row for each TAP and each change, and a line that sums them up.

    NETNS  TAP  VERDICT  ACTION  details
    NETNS  DEV  OBJECT   ACTION  details

Each row has its namespace, so that grep finds it. A namespace with nothing to report has no row.
Names are bytes from outside, and are shown escaped.
"""

from .output import escape, head, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Sequence, Tuple, Union

    from .guest import CreatedTap, Setup, Uplink
    from .node import Sweep
    from .report import DeadRedirect, Holder, Report, Tap, TcObject

    Row = Tuple[str, str, str, str, str]

# The words of the last line, in their order.
_COUNTED = {
    "clean": "clean",
    "cleaned": "cleaned",
    "would-clean": "to be cleaned",
    "in-use": "in use",
    "skipped": "without an uplink",
    "failed": "failed",
}

# SGR parameters (ECMA-48) by the first word of a verdict: yellow, green, red.
_COLOURS = {"orphan": "33", "in-use": "32", "failed": "31"}


# ---------------------------------------------------------------- whole results


def in_text(
    reports: "Sequence[Report]",
    verbose: bool = False,
    spares_fresh: bool = False,
    has_colour: bool = False,
    prefix: str = "",
) -> str:
    """Return reports as text: the rows of all, aligned, and a line that sums them up.

    ``verbose`` adds what the kernel reports of each TAP. ``spares_fresh``: fresh orphans stay.
    ``has_colour``: for a terminal. ``prefix`` is put before the last line.
    """
    if len(reports) != 1:
        return _in_text(reports, verbose, spares_fresh, has_colour)
    shown = _aligned(rows(reports[0], verbose, spares_fresh), has_colour)
    return "\n".join(shown + [escape(prefix) + head(reports[0])])


def sweep_in_text(
    swept: "Sweep", verbose: bool = False, spares_fresh: bool = False, has_colour: bool = False
) -> str:
    """Return a sweep as text, as `in_text` does."""
    return _in_text(swept.namespaces, verbose, spares_fresh, has_colour)


def _in_text(
    reports: "Sequence[Report]", verbose: bool, spares_fresh: bool, has_colour: bool
) -> str:
    found = [row for report in reports for row in rows(report, verbose, spares_fresh)]
    found += [_failure(report) for report in reports if report.outcome == "failed"]
    return "\n".join(_aligned(found, has_colour) + [_sum(reports, spares_fresh)])


def _sum(reports: "Sequence[Report]", spares_fresh: bool) -> str:
    """The last line: the outcomes of many namespaces."""
    outcomes = [report.outcome for report in reports]
    counts = [(outcomes.count(outcome), words) for outcome, words in _COUNTED.items()]
    said = ", ".join(["%d %s" % (number, words) for number, words in counts if number])
    line = "%s: %s" % (count(len(reports), "namespace"), said or "nothing to do")
    actions = [_action(report, tap, spares_fresh) for report in reports for tap in report.taps]
    parts = [
        "%s %s" % (count(actions.count(action), "orphan"), action)
        for action in ("deleted", "to be deleted", "spared", "left")
        if action in actions
    ]
    used = actions.count("left alone")
    parts += [count(used, "TAP") + " in use"] if used else []
    return line + ("; " + ", ".join(parts) if parts else "")


def count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 orphan", "2 orphans"."""
    return "%d %s%s" % (number, noun, "" if number == 1 else "s")


# ---------------------------------------------------------------- rows


def rows(report: "Report", verbose: bool = False, spares_fresh: bool = False) -> "List[Row]":
    """The rows of a report. Its cells are not escaped yet."""
    found = [_tap_row(report, tap, verbose, spares_fresh) for tap in report.taps]
    found += [
        (report.netns, each.ifname, each.kind or "no kind", "not judged", "")
        for each in report.ignored
    ]
    found += [_tc_row(report, each) for each in report.tc_removed]
    return found + [_dead_row(report.netns, each) for each in report.dead_redirects]


def lines(report: "Report", verbose: bool = False) -> "List[str]":
    """The rows of a report that is printed by itself, as `watch` does; at least one."""
    found = rows(report, verbose, spares_fresh=True)
    if report.outcome == "failed" or not found:
        found.append(_failure(report))
    return _aligned(found)


def _action(report: "Report", tap: "Tap", spares_fresh: bool) -> str:
    """What became of a TAP, or would."""
    if tap.deleted:
        return "deleted"
    if tap.verdict == "in-use":
        return "left alone"
    if tap.fresh and (spares_fresh or report.outcome in ("clean", "cleaned")):
        return "spared"
    return "to be deleted" if report.outcome == "would-clean" else "left"


def _tap_row(report: "Report", tap: "Tap", verbose: bool, spares_fresh: bool) -> "Row":
    verdict = tap.verdict + (" (fresh)" if tap.fresh else "")
    details = []
    if tap.holders is not None and (tap.holders or tap.verdict == "in-use"):
        details.append("held by " + _holders(tap.holders))
    if verbose:
        carrier = "unknown" if tap.carrier is None else "on" if tap.carrier else "off"
        facts = "ifindex %d, carrier %s, operstate %s, %s"
        details.append(facts % (tap.ifindex, carrier, tap.operstate, ",".join(tap.flags)))
    action = _action(report, tap, spares_fresh)
    return report.netns, tap.ifname, verdict, action, "; ".join(details)


def _holders(holders: "Iterable[Holder]") -> str:
    """The processes that hold a TAP. One without a process ID stands for more of them."""
    names = [
        "perhaps others: the search was cut short"
        if holder.pid is None
        else "%s (PID %d)" % (holder.comm or "?", holder.pid)
        for holder in holders
    ]
    return ", ".join(names) or "no process that /proc shows"


def _tc_row(report: "Report", found: "TcObject") -> "Row":
    details = ""
    if found.priority is not None:
        details = "priority %d, redirects to %s" % (found.priority, found.target or "nothing")
    action = "to be removed" if report.outcome == "would-clean" else "removed"
    return report.netns, found.dev, "%s %s" % (found.kind, found.object), action, details


def _dead_row(netns: str, found: "DeadRedirect") -> "Row":
    details = "priority %d, redirects to nothing: it swallows packets" % found.priority
    return netns, found.dev, "%s filter" % found.kind, "left", details


def _failure(report: "Report") -> "Row":
    return report.netns, "-", report.outcome, reason(report), ""


def _aligned(rows: "Sequence[Row]", has_colour: bool = False) -> "List[str]":
    """The rows as lines with aligned columns."""
    cells = [tuple(map(escape, row)) for row in rows]
    # the last cell of a row, such as the reason of a failure, makes no column wider
    ends = [max([at for at, cell in enumerate(row) if cell]) for row in cells]
    widths = [
        max([len(row[at]) for row, end in zip(cells, ends) if at < end], default=0)
        for at in range(5)
    ]
    lines = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, widths)]
        colour = _COLOURS.get(row[2].partition(" ")[0])
        if has_colour and colour:
            padded[2] = "\x1b[%sm%s\x1b[0m" % (colour, padded[2])
        lines.append("  ".join(padded).rstrip())
    return lines


# ---------------------------------------------------------------- a setup


def setup_in_text(made: "Setup", verbose: bool = False) -> str:
    """Return a setup as text: a line on the namespace, then what to configure a VMM with.

    That is a line on each TAP, one on its uplink, and one on each address, route and neighbour of
    the uplink, in the words that `ip` takes.
    """
    outcome = "in use, nothing changed" if made.outcome == "in-use" else made.outcome
    lines = ["%s: %s" % (escape(made.netns), outcome)]
    if made.outcome == "failed" and made.error is not None:
        lines[0] += ": " + escape(reason(made))
    lines += ["  before that: " + line for line in _cleanup_in_text(made, verbose)]
    for pair in made.pairs:
        lines.append("  TAP     " + _facts(pair.tap))
        lines.append("  uplink  " + ("none" if pair.uplink is None else _facts(pair.uplink)))
        if pair.uplink is not None:
            lines += _guest_lines(pair.uplink)
    return "\n".join(lines)


def _facts(device: "Union[CreatedTap, Uplink]") -> str:
    """What is known about a device, without lists; of a fact that is True only the name."""
    facts = [
        name if value is True else "%s %s" % (name, escape(str(value)))
        for name, value in device.fields().items()
        if value is not None and value is not False and not isinstance(value, tuple)
    ]
    return ", ".join(facts)


def _guest_lines(uplink: "Uplink") -> "List[str]":
    """The lines on what a guest is configured with."""
    lines = [("address", each.words()) for each in uplink.addresses]
    lines += [("route", each.words()) for each in uplink.routes]
    lines += [("neighbour", each.words()) for each in uplink.neighbours]
    return ["    %-9s  %s" % (what, escape(words)) for what, words in lines]


def _cleanup_in_text(made: "Setup", verbose: bool) -> "List[str]":
    """The lines on the cleanup before a setup; none if they have nothing to add."""
    cleanup = made.cleanup
    if cleanup is None:
        return []
    lines = _aligned(rows(cleanup, verbose))
    has_reason = cleanup.error is not None and cleanup.error is not made.error
    # else the first line has the reason, or there is none
    return lines + [head(cleanup)] if has_reason or cleanup.outcome == "cleaned" else lines

# SPDX-License-Identifier: Apache-2.0
"""A run's figures for people: Markdown tables, and for programs: results.json."""

import json
import os
import re
import textwrap

from . import summary
from .charts import draw, duration

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

# What `machine.describe` found, in a sentence; what is not here has its own name.
NAMES = {
    "processor": "%s",
    "processors": "%s processors",
    "kernel": "Linux %s",
    "python": "Python %s",
    "go": "Go %s",
    "load": "load average %s at the start",
}


def document(machine, quick, skipped, rows, judged):
    return {
        "quick": quick,
        "machine": machine,
        "skipped": skipped,
        "budgets": judged,
        "rows": [row.summary() for row in rows],
    }


def write(found, directory, raw, readme):
    """Write the pictures and results.md, a summary, into a directory, and all rows into another.

    The table of budgets of the page ``readme`` is replaced, if there is such a page.
    """
    for each in (directory, raw):
        os.makedirs(each, exist_ok=True)
    with open(os.path.join(raw, "results.json"), "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
        file.write("\n")
    _write(os.path.join(raw, "rows.md"), in_markdown(found))
    _write(os.path.join(directory, "results.md"), summary_in_markdown(found))
    draw(found["rows"], directory)
    if os.path.exists(readme):
        with open(readme, encoding="utf-8") as file:
            text = file.read()
        between = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
        page = "%s\n\n%s\n%s" % (BEGIN, budgets_in_markdown(found), END)
        _write(readme, between.sub(lambda _: page, text))


def _write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def in_markdown(found):
    return "%s\n%s" % (budgets_in_markdown(found), rows_in_markdown(found))


def summary_in_markdown(found):
    """The budgets, and the rows that people ask for, side by side."""
    titles = [title for title, _ in summary.COLUMNS]
    lines = [
        "| median | %s | others |" % " | ".join(titles),
        "| --- |%s --- |" % (" --- |" * len(titles)),
    ]
    for text, rows, others in summary.lines(found["rows"]):
        cells = ["" if row is None else amount(row["median"], row["unit"]) for row in rows]
        rest = ["%s: %s" % (who, amount(row["median"], row["unit"])) for who, row in others.items()]
        lines.append("| %s | %s | %s |" % (text, " | ".join(cells), "; ".join(rest)))
    return "# What the last full run measured\n\n%s\n%s\n" % (
        budgets_in_markdown(found),
        "\n".join(lines),
    )


def budgets_in_markdown(found):
    """Promises and results: the median of the ratios of each turn, and their quartiles."""
    lines = [
        "| what; beside what | measured | quartiles | promised | | what limits it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_budget_in_markdown(budget) for budget in found["budgets"]]
    lines += ["", *textwrap.wrap(_circumstances(found), 100)]
    return "\n".join(lines) + "\n"


def _budget_in_markdown(budget):
    value, low, high, limit = (
        amount(budget[name], budget["unit"]) for name in ("value", "low", "high", "limit")
    )
    why = budget["why"]
    if budget["best"] is not None:
        why = "%s at best: %s" % (amount(budget["best"], budget["unit"]), why)
    return "| %s | **%s** | %s | %s %s | %s | %s |" % (
        budget["what"],
        value,
        "" if low == high else "%s to %s" % (low, high),
        "at least" if budget["at least"] else "at most",
        limit,
        "kept" if budget["kept"] else "lost",
        why,
    )


def _circumstances(found):
    """What it was measured on and beside, and what was not measured."""
    machine = found["machine"]
    parts = [NAMES.get(name, name + " %s") % machine[name] for name in machine if machine[name]]
    text = "A ratio is the median of turns taken one after the other. Measured on %s." % (
        ", ".join(parts)
    )
    for who, why in sorted(found["skipped"].items()):
        text += " Not measured: %s (%s)." % (who, why)
    return text


def rows_in_markdown(found):
    lines = [
        "| bench | what | of how many | who | median | quartiles |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        median, low, high = (amount(row[name], row["unit"]) for name in ("median", "low", "high"))
        size = "{:,}".format(row["size"]) if row["size"] else ""
        lines.append(
            "| %s | %s | %s | %s | %s | %s |"
            % (
                row["bench"],
                row["what"],
                size,
                row["who"],
                median,
                "" if low == high else "%s to %s" % (low, high),
            )
        )
    return "\n".join(lines) + "\n"


def amount(number, unit):
    if unit == "s":
        return duration(number)
    if unit == "x":
        return "%.3gx" % number if number < 100 else "{:,.0f}x".format(number)
    return "{:,.0f} {}".format(number, unit)

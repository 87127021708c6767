# SPDX-License-Identifier: Apache-2.0
"""A run's figures for people: Markdown tables, and for programs: results.json."""

import json
import os
import re

from .charts import draw, duration

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def document(machine, quick, skipped, rows, judged):
    return {
        "quick": quick,
        "machine": machine,
        "skipped": skipped,
        "budgets": judged,
        "rows": [row.summary() for row in rows],
    }


def write(found, directory, readme):
    """Write results.json, results.md and the pictures, and the tables of the page, if any."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "results.json"), "w") as file:
        json.dump(found, file, indent=1)
        file.write("\n")
    tables = in_markdown(found)
    pictures = "".join("\n![](%s)\n" % name for name in draw(found["rows"], directory))
    with open(os.path.join(directory, "results.md"), "w") as file:
        file.write("# What the last full run measured\n\n%s%s" % (tables, pictures))
    if not os.path.exists(readme):
        return
    with open(readme) as file:
        text = file.read()
    with open(readme, "w") as file:
        between = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
        file.write(
            between.sub(lambda _: "%s\n\n%s\n%s" % (BEGIN, budgets_in_markdown(found), END), text)
        )


def in_markdown(found):
    return "%s\n%s" % (budgets_in_markdown(found), rows_in_markdown(found))


def budgets_in_markdown(found):
    """Promises and results: the median of the ratios of each turn, and their quartiles."""
    lines = [
        "| what, and beside what | measured | quartiles | promised | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for budget in found["budgets"]:
        value, low, high, limit = (
            amount(budget[name], budget["unit"]) for name in ("value", "low", "high", "limit")
        )
        promise = "%s %s" % ("at least" if budget["at least"] else "at most", limit)
        kept = (
            "kept" if budget["kept"] else "lost" + (": " + budget["why"] if budget["why"] else "")
        )
        lines.append(
            "| %s | **%s** | %s to %s | %s | %s |"
            % (budget["what"], value, low, high, promise, kept)
        )
    machine = found["machine"]
    told = ", ".join("%s: %s" % (name, machine[name]) for name in machine if machine[name])
    lines += [
        "",
        "A ratio is the median over turns taken one after the other. Measured on %s." % told,
    ]
    lines += [
        "Not measured: %s (%s)." % (who, why) for who, why in sorted(found["skipped"].items())
    ]
    return "\n".join(lines) + "\n"


def rows_in_markdown(found):
    lines = [
        "| bench | what | of how many | who | median | quartiles |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        median, low, high = (amount(row[name], row["unit"]) for name in ("median", "low", "high"))
        size = "{:,}".format(row["size"]) if row["size"] else ""
        lines.append(
            "| %s | %s | %s | %s | %s | %s to %s |"
            % (row["bench"], row["what"], size, row["who"], median, low, high)
        )
    return "\n".join(lines) + "\n"


def amount(number, unit):
    if unit == "s":
        return duration(number)
    if unit == "x":
        return "%.3gx" % number if number < 100 else "{:,.0f}x".format(number)
    return "{:,.0f} {}".format(number, unit)

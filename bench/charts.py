# SPDX-License-Identifier: Apache-2.0
"""Pictures of how the cost grows with links, orphans and namespaces, on logarithmic axes."""

import os

from . import lab
from .namespaces import IN_SEQUENCE
from .orphans import BY_GROUP
from .watch import HOOK, SWEEP

# Colours that the colour-blind can tell apart (Okabe and Ito); nlraw's lines are the thick ones.
COLOURS = {
    lab.NLRAW: "#0072B2",
    IN_SEQUENCE: "#56B4E9",
    lab.PYROUTE2: "#D55E00",
    lab.IPROUTE2: "#CC79A7",
    lab.GO: "#009E73",
    lab.MNL: "#E69F00",
    lab.FLOOR: "#999999",
    BY_GROUP: "#000000",
    HOOK: "#56B4E9",
    SWEEP: "#CC79A7",
}

# File, title, name of the x axis, and the panels: title, bench, what. What ends in "floor" is drawn
# with the rest.
PICTURES = (
    (
        "links.svg",
        "List the links of a namespace",
        "links in the namespace",
        (
            ("find the TAPs", "dump", ("taps", "taps, floor")),
            ("all links into objects", "dump", ("all", "all, floor")),
        ),
    ),
    (
        "orphans.svg",
        "Remove the orphans of one namespace",
        "orphan TAPs in the namespace",
        (("", "orphans", ("remove",)),),
    ),
    (
        "namespaces.svg",
        "Remove the orphans of many namespaces",
        "namespaces",
        (
            ("an orphan in each", "namespaces", ("remove",)),
            ("64 orphans in all", "namespaces", ("remove 64",)),
        ),
    ),
    (
        "watch.svg",
        "From SIGKILL of the VMMs",
        "VMMs killed at once",
        (
            ("until the names of all TAPs are free", "watch", ("name free",)),
            ("until the kernel is done with all TAPs", "watch", ("link gone",)),
        ),
    ),
    (
        "agent.svg",
        "What an agent takes that has nothing to remove",
        "namespaces",
        (
            ("from its start until it watches", "watch", ("start",)),
            ("processor time of a look at all", "watch", ("resync",)),
        ),
    ),
)


def draw(summaries, directory):
    """Write the pictures that these summaries of rows have the points for.

    Return the names of the files.
    """
    drawn = []
    for name, title, x_axis, panels in PICTURES:
        lines = [(panel, _lines(summaries, bench, whats)) for panel, bench, whats in panels]
        if all(found for _, found in lines):
            drawn.append((name, title, x_axis, lines))
    if not drawn:
        return []
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {
            "svg.hashsalt": "nlraw",
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.size": 10,
        }
    )
    from matplotlib import pyplot

    for name, title, x_axis, lines in drawn:
        figure, axes = pyplot.subplots(
            1, len(lines), figsize=(4 + 3 * len(lines), 4.4), sharey=True, squeeze=False
        )
        for axis, (panel, found) in zip(axes[0], lines):
            _panel(axis, panel, x_axis, found)
        axes[0][0].set_ylabel("time")
        figure.suptitle(title)
        handles = {line.get_label(): line for axis in axes[0] for line in axis.get_lines()}
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=2 + len(lines),
            frameon=False,
        )
        figure.set_layout_engine("constrained")
        figure.savefig(os.path.join(directory, name), metadata={"Date": None})
        pyplot.close(figure)
    return [name for name, *_ in drawn]


def _lines(summaries, bench, whats):
    """By contender: its rows, by size."""
    lines = {}
    for row in summaries:
        if row["bench"] == bench and row["what"] in whats:
            lines.setdefault(row["who"], []).append(row)
    return {who: sorted(lines[who], key=lambda row: row["size"]) for who in COLOURS if who in lines}


def _panel(axis, title, x_axis, lines):
    for who, rows in lines.items():
        sizes = [row["size"] for row in rows]
        ours = who == lab.NLRAW
        axis.plot(
            sizes,
            [row["median"] for row in rows],
            label=who,
            color=COLOURS[who],
            linewidth=3 if ours else 1.5,
            linestyle=":" if who in (lab.FLOOR, BY_GROUP) else "-",
            marker="o",
            markersize=5 if ours else 3,
            zorder=3 if ours else 2,
        )
        low, high = ([row[name] for row in rows] for name in ("low", "high"))
        axis.fill_between(sizes, low, high, color=COLOURS[who], alpha=0.15, linewidth=0)
    axis.set_xscale("log")
    axis.set_yscale("log")
    sizes = sorted({row["size"] for rows in lines.values() for row in rows})
    axis.set_xticks(sizes, ["{:,}".format(size) for size in sizes])
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda seconds, _: duration(seconds))
    axis.set_xlabel(x_axis)
    axis.set_title(title, fontsize=10)
    axis.grid(True, color="#dddddd", linewidth=0.5)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def duration(seconds):
    """Three digits and a unit."""
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 0.9995 or unit == "µs":
            return "%.3g %s" % (seconds * factor, unit)
    return None

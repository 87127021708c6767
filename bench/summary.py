# SPDX-License-Identifier: Apache-2.0
"""The rows of a run that people ask for: nlraw and its peers side by side, one line for each thing.

A line is its text, the bench, the names that the bench has for it, and of how many. The name with
"floor" is that of programs that make no objects; no contender has both.
"""

from . import lab

COLUMNS = (
    ("nlraw", (lab.NLRAW,)),
    ("C, no library", (lab.FLOOR,)),
    ("C, libmnl", (lab.MNL,)),
    ("Go", (lab.GO,)),
    ("pyroute2", (lab.PYROUTE2,)),
    ("ip, tc", (lab.IPROUTE2, "ip/tc script")),
)

FOUND = "find the TAPs among {} links"
REMOVED = "remove {} orphans of one namespace"
SWEPT = "remove the orphan of each of {} namespaces"

LINES = (
    (FOUND, "dump", ("taps", "taps, floor"), 1004),
    ("the same, judged, with a new socket", "dump", ("scan", "scan, floor"), 1004),
    (FOUND, "dump", ("taps", "taps, floor"), 5000),
    ("list all of {} links", "dump", ("all", "all, floor"), 1004),
    ("build and parse a message", "codec", ("build and parse",), 1),
    ("remove an orphan, a process from start to end", "cleanup", ("process",), 1),
    ("remove an orphan, a process that stands ready", "cleanup", ("library",), 1),
    ("the same, less the link delete", "cleanup", ("library, less the link delete",), 1),
    ("set up the network of a VM", "setup", ("library",), 1),
    (REMOVED, "orphans", ("remove",), 10),
    (REMOVED, "orphans", ("remove",), 500),
    (REMOVED, "orphans", ("remove",), 1000),
    (SWEPT, "namespaces", ("remove",), 64),
    (SWEPT, "namespaces", ("remove",), 1000),
    ("look at {} namespaces without an orphan", "namespaces", ("look",), 1000),
    ("SIGKILL of a VMM to its TAP gone", "watch", ("link gone",), 1),
    ("SIGKILL of {} VMMs to all TAPs gone", "watch", ("link gone",), 64),
    ("process with nothing to do", "coldstart", ("cleanup", "start"), 0),
    ("process that imports the library", "coldstart", ("import",), 0),
    ("memory at its peak", "memory", ("peak",), 1),
    ("system calls of a process with an orphan", "system calls", ("process, one orphan",), 1),
)

# Those that have no column of their own stand in the last one.
KNOWN = {who for _, names in COLUMNS for who in names}


def lines(rows):
    """Yield the lines that there are rows for: a text, a row or None a column, and the others.

    ``rows`` are summaries of rows; the others are by contender.
    """
    for text, bench, whats, size in LINES:
        found = {
            row["who"]: row
            for row in rows
            if row["bench"] == bench and row["what"] in whats and row["size"] == size
        }
        if found:
            cells = [
                next((found[who] for who in names if who in found), None) for _, names in COLUMNS
            ]
            others = {who: found[who] for who in sorted(found) if who not in KNOWN}
            yield text.format("{:,}".format(size)), cells, others

# SPDX-License-Identifier: Apache-2.0
"""What nlraw promises: ratios of two rows of the same run, and a few absolute limits.

`--check` grants each its room, a factor: where two figures are measured in turn on a busy machine
the ratio still moves, where something is counted it does not.
"""

from statistics import median

from . import lab
from .coldstart import BARE
from .namespaces import IN_SEQUENCE
from .orphans import BY_GROUP
from .timing import quartiles

SCRIPT = "ip/tc script"

# Room for what is timed: a process and its children, many calls in turn, one long run.
PROCESS, CALLS, ONCE, EXACT = 1.25, 1.2, 1.3, 1.0


class Budget:
    """``ours`` and ``theirs`` are the keys of rows, (bench, what, size, who).

    One of the limits is given:

    ``at_most``: ours is at most so many times theirs, or at most so much where there is no theirs;
    ``faster``: theirs is at least so many times ours.

    ``best`` is the key of a row that shows what is possible at best. ``why`` says in a few words
    what that row is, or what else limits the figure. ``bound`` is what `--check` holds if that is
    more than the limit.
    """

    def __init__(
        self,
        text,
        ours,
        theirs=None,
        at_most=None,
        faster=None,
        room=CALLS,
        bound=None,
        best=None,
        why="",
    ):
        self.text = text
        self.ours = ours
        self.theirs = theirs
        self.at_most = at_most
        self.faster = faster
        self.room = room
        self.bound = bound
        self.best = best
        self.why = why

    def judge(self, rows):
        """What came of it in a run, as a dictionary; None if a row is missing."""
        ours, theirs = rows.get(self.ours), rows.get(self.theirs)
        if ours is None or (theirs is None and self.theirs is not None):
            return None
        values = self._values(ours, theirs)
        value, (low, high) = median(values), quartiles(values)
        best = rows.get(self.best)
        return {
            "what": self.text,
            "value": value,
            "low": low,
            "high": high,
            "unit": "x" if theirs is not None else ours.unit,
            "limit": self.faster or self.at_most,
            "at least": self.faster is not None,
            "kept": value >= self.faster if self.faster else value <= self.at_most,
            "best": None if best is None else median(self._values(best, theirs)),
            "why": self.why,
            "kept with room": self._holds(value),
        }

    def _values(self, row, theirs):
        """What the row measured each turn, or the ratios to what theirs did in that turn.

        For a turn that one of them did not take, being slow, its median stands.
        """
        if theirs is None:
            return row.samples
        turns = range(max(len(row.samples), len(theirs.samples)))
        pairs = [[one.of_turn(turn) for one in (row, theirs)] for turn in turns]
        return [b / a if self.faster else a / b for a, b in pairs]

    def _holds(self, value):
        if self.faster is not None:
            return value * self.room >= (self.bound or self.faster)
        return value <= (self.bound or self.at_most) * self.room


BUDGETS = (
    Budget(
        "list the TAPs among 1,004 links, into objects; C floor of the same request",
        ("dump", "taps", 1004, lab.NLRAW),
        ("dump", "taps, floor", 1004, lab.FLOOR),
        at_most=1.5,
        best=("dump", "taps, flat", 1004, lab.PYTHON_FLOOR),
        why="one Python function with the same checks",
    ),
    Budget(
        "scan of that namespace, socket opened and closed; C floor of the same",
        ("dump", "scan", 1004, lab.NLRAW),
        ("dump", "scan, floor", 1004, lab.FLOOR),
        at_most=3.5,
        best=("dump", "scan, unchecked", 1004, lab.PYTHON_FLOOR),
        why="Python that checks nothing and knows the place of each value",
    ),
    Budget(
        "list all 1,004 links, into objects; Go, vishvananda/netlink",
        ("dump", "all", 1004, lab.NLRAW),
        ("dump", "all", 1004, lab.GO),
        at_most=1,
    ),
    Budget(
        "the same, and six values of each link read; Go, which parses all it knows",
        ("dump", "all, read", 1004, lab.NLRAW),
        ("dump", "all", 1004, lab.GO),
        at_most=1.2,
    ),
    Budget(
        "build and parse a message; pyroute2",
        ("codec", "build and parse", 1, lab.NLRAW),
        ("codec", "build and parse", 1, lab.PYROUTE2),
        faster=30,
    ),
    Budget(
        "cleanup of one orphan, less the link delete",
        ("cleanup", "library, less the link delete", 1, lab.NLRAW),
        at_most=1e-3,
        room=ONCE,
        bound=1.2e-3,
        why="a third is the kernel's: TC state, a thread",
    ),
    Budget(
        "setup: no leftovers found, TAP, qdiscs, redirects, facts; Go, vishvananda/netlink",
        ("setup", "library", 1, lab.NLRAW),
        ("setup", "library", 1, lab.GO),
        at_most=1.6,
        room=ONCE,
        best=("setup", "library", 1, lab.PYTHON_FLOOR),
        why="the system calls alone",
    ),
    Budget(
        "remove 500 orphans of one namespace; one delete after another",
        ("orphans", "remove", 500, lab.NLRAW),
        ("orphans", "remove", 500, lab.FLOOR),
        faster=50,
        room=ONCE,
    ),
    Budget(
        "remove 500 orphans of one namespace; a C program that also deletes them by group",
        ("orphans", "remove", 500, lab.NLRAW),
        ("orphans", "remove", 500, BY_GROUP),
        at_most=2,
        room=ONCE,
        why="the C program judges no TAP, reads none again, plans and confirms nothing",
    ),
    Budget(
        "remove the orphan of each of 64 namespaces; one cleanup after another",
        ("namespaces", "remove", 64, lab.NLRAW),
        ("namespaces", "remove", 64, IN_SEQUENCE),
        faster=15,
        room=ONCE,
        best=("namespaces", "remove", 64, lab.PYTHON_FLOOR),
        why="64 threads that only send the deletions",
    ),
    Budget(
        "scan of one more namespace in a sweep",
        ("namespaces", "look, one more", 64, lab.NLRAW),
        at_most=100e-6,
        room=ONCE,
        bound=130e-6,
    ),
    Budget(
        "SIGKILL of a VMM to its TAP gone, by `watch`; the kernel's own delete",
        ("watch", "link gone", 1, lab.NLRAW),
        ("watch", "link gone", 1, lab.FLOOR),
        at_most=1.3,
    ),
    Budget(
        "the same, 95th percentiles",
        ("watch", "link gone, 95th percentile", 1, lab.NLRAW),
        ("watch", "link gone, 95th percentile", 1, lab.FLOOR),
        at_most=1.3,
        room=ONCE,
    ),
    Budget(
        "SIGKILL of a VMM to the name of its TAP free, by `watch`",
        ("watch", "name free", 1, lab.NLRAW),
        at_most=8e-3,
    ),
    Budget(
        "64 VMMs killed at once, all TAPs gone",
        ("watch", "link gone", 64, lab.NLRAW),
        at_most=0.2,
        room=ONCE,
    ),
    Budget(
        "20 VMMs killed each second, the latest TAP gone",
        ("watch", "deaths each second, the latest", 20, lab.NLRAW),
        at_most=0.1,
        room=ONCE,
    ),
    Budget(
        "processor time of a look at 1,000 namespaces by id, without an orphan",
        ("watch", "resync", 1000, lab.NLRAW),
        at_most=0.05,
        room=ONCE,
    ),
    Budget(
        "processor time of `watch` in a second between two looks, 1,000 namespaces",
        ("watch", "idle", 1000, lab.NLRAW),
        at_most=0,
        room=EXACT,
    ),
    Budget(
        "processor time of `watch` in a second in which 2,000 veths flap",
        ("watch", "flapping", 2000, lab.NLRAW),
        at_most=0.01,
    ),
    Budget(
        "resident memory of `watch`, 1,000 namespaces",
        ("watch", "resident", 1000, lab.NLRAW),
        at_most=20 << 10,
        room=EXACT,
    ),
    Budget(
        "process with nothing to do, -I -S; bare interpreter",
        ("coldstart", "cleanup", 0, lab.NLRAW),
        ("coldstart", "start", 0, BARE),
        at_most=1.4,
        room=PROCESS,
    ),
    Budget(
        "hook with nothing to do, -I -S; bare interpreter",
        ("coldstart", "hook", 0, lab.NLRAW),
        ("coldstart", "start", 0, BARE),
        at_most=1.6,
        room=PROCESS,
    ),
    Budget(
        "process that removes one orphan; ip/tc script",
        ("cleanup", "process", 1, lab.NLRAW),
        ("cleanup", "process", 1, SCRIPT),
        at_most=1,
        room=PROCESS,
        why="two thirds of either is the kernel's wait",
    ),
    Budget(
        "process that removes one orphan; pyroute2 script",
        ("cleanup", "process", 1, lab.NLRAW),
        ("cleanup", "process", 1, lab.PYROUTE2),
        faster=5,
        room=PROCESS,
    ),
    Budget(
        "memory above the bare interpreter",
        ("memory", "peak above the bare interpreter", 1, lab.NLRAW),
        at_most=4096,
        room=EXACT,
    ),
    # What is counted is held where it stands: one more has to be meant.
    Budget("system calls of a scan", ("system calls", "scan", 1, lab.NLRAW), at_most=9, room=EXACT),
    Budget(
        "system calls of a cleanup with nothing to do",
        ("system calls", "cleanup, nothing to do", 1, lab.NLRAW),
        at_most=27,
        room=EXACT,
    ),
    Budget(
        "system calls of a cleanup of one orphan",
        ("system calls", "cleanup, one orphan", 1, lab.NLRAW),
        at_most=44,
        room=EXACT,
    ),
    Budget(
        "system calls of a setup",
        ("system calls", "setup", 1, lab.NLRAW),
        at_most=39,
        room=EXACT,
    ),
    Budget(
        "instructions of a process with nothing to do; bare interpreter",
        ("instructions", "cleanup, nothing to do", 0, lab.NLRAW),
        ("instructions", "start", 0, BARE),
        at_most=1.5,
        room=EXACT,
    ),
    Budget(
        "instructions to build and parse a message; pyroute2",
        ("instructions", "build and parse", 1, lab.NLRAW),
        ("instructions", "build and parse", 1, lab.PYROUTE2),
        faster=20,  # 24 to 25, as the interpreter was built
        room=EXACT,
    ),
)


def judged(rows):
    """The budgets that the rows of a run say something about, judged."""
    by_key = {row.key: row for row in rows}
    found = [budget.judge(by_key) for budget in BUDGETS]
    return [one for one in found if one is not None]


def unmeasured(rows):
    """The texts of the budgets that the rows of a run say nothing about."""
    known = {one["what"] for one in judged(rows)}
    return [budget.text for budget in BUDGETS if budget.text not in known]


def keys_of(texts):
    """The keys of the rows that the budgets with these texts are about."""
    return {budget.ours for budget in BUDGETS if budget.text in texts}

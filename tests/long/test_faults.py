# SPDX-License-Identifier: Apache-2.0
"""Injected faults: every system call from main() on fails, meets a signal, or is the last.

About 9,500 runs in half an hour or more, with a table of what came of them:

    pytest -s tests/long/test_faults.py
    NLRAW_JOBS=4 pytest -s tests/long/test_faults.py

The ordinary suite takes a fixed sample (tests/live/once/test_faults.py).
"""

import os

import pytest

from lib import faults
from lib.faults import PLAYS, run_everywhere

# Processes that play at once, each in pods of its own.
JOBS = int(os.environ.get("NLRAW_JOBS", "2"))

COLUMNS = ("untouched", "finished", "finished by the next run", "not met")


def table(name, counts):
    """How many faults of each kind each call met, and what they left."""
    rows = [("call", "fault", "tried") + COLUMNS]
    for call, kind in sorted({key[:2] for key in counts}):
        numbers = [counts[call, kind, came] for came in COLUMNS]
        rows.append((call, kind, sum(numbers)) + tuple(numbers))
    total = [sum(row[column] for row in rows[1:]) for column in range(2, len(rows[0]))]
    rows.append(("all", "") + tuple(total))
    lines = ["  %-14s %-7s %6s  %9s  %8s  %24s  %7s" % row for row in rows]
    return "\n".join([name] + lines)


@pytest.fixture(autouse=True)
def prepared():
    faults.prepare()


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.__doc__.split(":")[0].rstrip("."))
def test_at_every_system_call(tmp_path, play):
    counts, wrong = run_everywhere(play, tmp_path, JOBS)
    print("\n" + table(play.__doc__, counts))
    print("\n".join(wrong))
    assert wrong == []
    assert (
        sum(number for key, number in counts.items() if key[2] == "not met")
        < sum(counts.values()) / 50
    )

# SPDX-License-Identifier: Apache-2.0
"""What the benches make of the rows of a run: budgets, the summary that is committed, the rest."""

import json
import os
import sys

import pytest

from lib import readme

sys.path.append(readme.TREE)  # behind the nlraw under test

from bench import budgets, report
from bench.orphans import BY_GROUP
from bench.timing import Row, in_turn

BENCH = os.path.join(readme.TREE, "bench")

OURS, FLOOR, BEST = ("b", "w", 1, "ours"), ("b", "w", 1, "floor"), ("b", "w", 1, "best")


def rows(**samples):
    return {("b", "w", 1, who): Row("b", "w", 1, who, of) for who, of in samples.items()}


def document(judged, measured=()):
    machine = {"processor": "P", "processors": 2, "kernel": "6.1", "python": "3.11", "go": None}
    return report.document(machine, False, {"pyroute2": "not installed"}, measured, judged)


# ---------------------------------------------------------------- budgets


def test_a_ratio_is_the_median_of_the_turns():
    found = budgets.Budget("t", OURS, FLOOR, at_most=2).judge(rows(ours=[2, 9, 2], floor=[1, 3, 4]))
    assert (found["value"], found["kept"], found["unit"]) == (2, True, "x")


def test_for_the_turns_that_a_slow_one_did_not_take_its_median_stands():
    found = budgets.Budget("t", OURS, FLOOR, faster=1).judge(rows(ours=[1, 2, 4], floor=[8]))
    assert (found["value"], found["low"], found["high"]) == (4, 2, 8)


def test_what_is_faster_is_the_other_way_round():
    measured = rows(ours=[1, 1, 1], floor=[49, 49, 49])
    found = budgets.Budget("t", OURS, FLOOR, faster=50, room=1.3).judge(measured)
    assert (found["value"], found["kept"], found["kept with room"]) == (49, False, True)


def test_a_bound_is_for_the_check_alone():
    measured = rows(ours=[3], floor=[1])
    found = budgets.Budget("t", OURS, FLOOR, at_most=2, bound=3, room=1).judge(measured)
    assert (found["kept"], found["kept with room"]) == (False, True)
    found = budgets.Budget("t", OURS, FLOOR, at_most=2, room=1).judge(measured)
    assert (found["kept"], found["kept with room"]) == (False, False)


def test_what_is_possible_at_best_is_a_ratio_too():
    budget = budgets.Budget("t", OURS, FLOOR, at_most=4, best=BEST, why="a row")
    measured = rows(ours=[3], floor=[1], best=[2])
    assert budget.judge(measured)["best"] == 2
    del measured[BEST]
    assert budget.judge(measured)["best"] is None


def test_a_budget_without_its_rows_is_named():
    assert budgets.unmeasured([]) == [budget.text for budget in budgets.BUDGETS]
    assert budgets.judged([]) == []


def test_budgets_have_one_limit_each_and_texts_of_their_own():
    assert len({budget.text for budget in budgets.BUDGETS}) == len(budgets.BUDGETS)
    for budget in budgets.BUDGETS:
        assert (budget.at_most is None) != (budget.faster is None), budget.text


def test_the_group_delete_is_compared_with_a_group_delete():
    (budget,) = [each for each in budgets.BUDGETS if each.theirs and each.theirs[3] == BY_GROUP]
    assert budget.ours == ("orphans", "remove", 500, "nlraw")


def test_a_slow_contender_drops_out_and_a_quick_one_goes_on():
    samples = in_turn({"slow": lambda: sleep(0.03), "quick": lambda: 0}, 5, 0.04, least=1)
    assert (len(samples["slow"]), len(samples["quick"])) == (1, 5)


def sleep(seconds):
    import time

    time.sleep(seconds)


# ---------------------------------------------------------------- tables


def test_a_budget_is_a_short_line():
    budget = budgets.Budget("this; that", OURS, FLOOR, at_most=2, best=BEST, why="a row")
    found = document([budget.judge(rows(ours=[3, 3], floor=[1, 1], best=[1.5, 1.5]))])
    _, _, line, _, *text = report.budgets_in_markdown(found).splitlines()
    assert line == "| this; that | **3x** |  | at most 2x | lost | 1.5x at best: a row |"
    assert " ".join(text) == (
        "A ratio is the median of turns taken one after the other. "
        "Measured on P, 2 processors, Linux 6.1, Python 3.11. "
        "Not measured: pyroute2 (not installed)."
    )


def test_the_summary_has_contenders_side_by_side():
    measured = [
        Row("orphans", "remove", 500, "nlraw", [0.1]),
        Row("orphans", "remove", 500, "C floor", [8]),
        Row("orphans", "remove", 500, "pyroute2", [9]),
        Row("orphans", "remove", 500, BY_GROUP, [0.08]),
        Row("orphans", "remove", 7, "nlraw", [1]),
        Row("dump", "taps, floor", 1004, "C floor", [1e-6]),
    ]
    lines = report.summary_in_markdown(document([], measured)).splitlines()
    assert lines[0] == "# What the last full run measured"
    assert lines[-2:] == [
        "| find the TAPs among 1,004 links |  | 1 µs |  |  |  |  |  |",
        "| remove 500 orphans of one namespace | 100 ms | 8 s |  |  | 9 s |  | C floor, by group: "
        "80 ms |",
    ]


def test_all_rows_and_the_summary_go_where_they_belong(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("# before\n%s\nold\n%s\nafter\n" % (report.BEGIN, report.END))
    found = document([], [Row("cleanup", "process", 1, "nlraw", [0.1])])
    report.write(found, str(tmp_path / "bench"), str(tmp_path / "raw"), str(page))
    assert {each.name for each in (tmp_path / "bench").iterdir()} == {"results.md"}
    assert {each.name for each in (tmp_path / "raw").iterdir()} == {"results.json", "rows.md"}
    assert json.loads((tmp_path / "raw" / "results.json").read_text())["rows"][0]["median"] == 0.1
    assert "| cleanup | process | 1 | nlraw | 100 ms |  |" in (
        (tmp_path / "raw" / "rows.md").read_text(encoding="utf-8")
    )
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# before\n%s\n\n| what" % report.BEGIN)
    assert text.endswith("%s\nafter\n" % report.END)
    assert "old" not in text


# ---------------------------------------------------------------- what is committed


def test_only_a_summary_is_committed():
    assert not os.path.exists(os.path.join(BENCH, "results.json"))
    with open(os.path.join(BENCH, "results.md"), encoding="utf-8") as file:
        assert len(file.readlines()) <= 75


@pytest.mark.parametrize("page", [readme.BENCH, "bench/results.md"])
def test_the_committed_tables_are_as_a_run_writes_them(page):
    header = report.budgets_in_markdown(document([])).splitlines()[0]
    text = readme.text(page)
    assert header in text.splitlines()
    if page == readme.BENCH:
        assert text.index(report.BEGIN) < text.index(header) < text.index(report.END)


def test_the_gate_prints_where_the_rows_are():
    with open(os.path.join(readme.TREE, ".ci", "run"), encoding="utf-8") as file:
        gate = file.read()
    assert "NLRAW_RESULTS:-$(mktemp -d " in gate
    assert '--output "$results"' in gate
    assert 'all rows are in $results"' in gate

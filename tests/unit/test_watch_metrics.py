# SPDX-License-Identifier: Apache-2.0
"""nlraw.metrics: the text of a watch's metrics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import build
from lib.prometheus import watched
from nlraw import metrics

FIELDS = [field for field, *_ in metrics.WATCHED]


def filled():
    """Different numbers in all fields, by field."""
    made = metrics.Watched()
    for number, field in enumerate(FIELDS, 3):
        assert getattr(made, field) == 0
        setattr(made, field, number)
    return made


def test_each_field_has_its_metric_and_its_type():
    types, values = watched(filled().text(1700000000.25))
    for number, (_, name, type, _, _) in enumerate(metrics.WATCHED, 3):
        name = "nlraw_watch_" + name
        assert values.pop((name,)) == number
        family = name[: -len("_total")] if type == "counter" else name  # as the parser has it
        assert types.pop(family) == type
    assert values.pop(("nlraw_watch_timestamp_seconds",)) == 1700000000.25
    assert types == {
        "nlraw_watch_timestamp_seconds": "gauge",
        "nlraw_watch_removal_seconds": "histogram",
    }
    assert {name for name, *_ in values} == {
        "nlraw_watch_removal_seconds_bucket",
        "nlraw_watch_removal_seconds_sum",
        "nlraw_watch_removal_seconds_count",
    }


def test_every_field_is_shown_once_and_only_counters_are_totals():
    slots = [name for name in metrics.Watched.__slots__ if not name.startswith("_")]
    assert sorted(slots) == sorted(FIELDS)
    for _, name, type, _, help in metrics.WATCHED:
        assert (type == "counter") is name.endswith("_total")
        assert not name.endswith(("_count", "_sum", "_bucket", "_info")), "these mean other things"
        assert help.endswith(".") and "\\" not in help and "\n" not in help


def buckets(made):
    """The numbers of the buckets, by bound; the sum and the count."""
    values = watched(made.text(0.0))[1]
    name = "nlraw_watch_removal_seconds"
    counts = {key[1]: value for key, value in values.items() if key[0] == name + "_bucket"}
    return counts, values[(name + "_sum",)], values[(name + "_count",)]


def test_nothing_removed_is_an_empty_histogram():
    counts, total, count = buckets(metrics.Watched())
    assert set(counts.values()) == {0.0} and total == count == 0
    bounds = list(counts)
    assert (bounds[0], bounds[-1]) == ("0.005", "+Inf")
    assert list(map(float, bounds)) == sorted(map(float, bounds))


@pytest.mark.parametrize("bound", metrics.BOUNDS)
def test_a_bound_belongs_to_its_bucket(bound):
    made = metrics.Watched()
    made.removed(bound)
    counts, total, count = buckets(made)
    assert {each for each, number in counts.items() if number} == {
        each for each in counts if float(each) >= bound
    }
    assert (total, count) == (bound, 1)


@build.patient
@given(st.lists(st.floats(0, 100), max_size=30))
def test_buckets_are_cumulative_and_count_all(seconds):
    made = metrics.Watched()
    for each in seconds:
        made.removed(each)
    counts, total, count = buckets(made)
    for bound, number in counts.items():
        assert number == len([each for each in seconds if each <= float(bound)])
    assert count == counts["+Inf"] == len(seconds)
    assert abs(total - sum(seconds)) < 1e-4


def test_each_metric_stands_together_with_its_help_and_type_first():
    lines = filled().text(1.0).splitlines()
    seen = []
    for line in lines:
        name = line.split()[2] if line.startswith("#") else line.split("{")[0].split()[0]
        for suffix in ("_bucket", "_sum", "_count"):
            name = name[: -len(suffix)] if name.endswith(suffix) else name
        if not seen or seen[-1] != name:
            assert line == "# HELP %s %s" % (name, line.split(" ", 3)[3])
            seen.append(name)
    assert len(seen) == len(set(seen)) == len(metrics.WATCHED) + 2
    assert lines[1].startswith("# TYPE ")

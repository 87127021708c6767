# SPDX-License-Identifier: Apache-2.0
"""Cleanups of many orphans against a model kernel that changes between any two requests.

Hypothesis picks what happens and when. The model holds every RTM_DELLINK against what the cleanup
had read by then: what has not changed since must have been proven an orphan. Only what changed
after the last look may be deleted by mistake: that window is the documented one. Real are
nlraw.orphans, nlraw.route and the codec; the socket is not.
"""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import nlraw.route
from lib.model import (
    DISTURBANCES,
    ETH0,
    EVENTS,
    FIRST_TAP,
    PEER0,
    STRANGER,
    Killed,
    Place,
    a_kernel,
    cleaned,
    is_orphan,
    played,
)
from nlraw import link, orphans
from nlraw.errors import Interrupted, Lost, Refused, TapInUse
from nlraw.route import Route

TAPS = st.lists(
    st.tuples(st.sampled_from([0, 0, 77, 4000000000]), st.booleans()), min_size=1, max_size=6
)
MANY_TAPS = st.lists(
    st.tuples(st.sampled_from([0, 77]), st.booleans()), min_size=orphans.GROUP_FROM, max_size=6
)
MOMENTS = st.integers(0, 45)


def events(*names):
    return st.lists(st.tuples(MOMENTS, st.sampled_from(names), st.integers(0, 5)), max_size=8)


WINDOWS = st.sampled_from([1, 4, nlraw.route.WINDOW])
ALIVE = sorted(EVENTS) + sorted(set(DISTURBANCES) - {"killed"})
thorough = settings(deadline=None, max_examples=400)


@thorough
@given(TAPS, events(*ALIVE), WINDOWS, st.booleans())
# the list of the proof leaves out the stranger
@example([(0, False)] * 3, [(7, "intrude", 0), (7, "torn", 0)], 128, False)
def test_whatever_happens_nothing_is_deleted_that_was_not_proven_an_orphan(
    taps, happening, window, spare_fresh
):
    kernel = a_kernel(taps, happening)
    report, error = cleaned(kernel, window, spare_fresh)  # the rules are held by the kernel
    assert [each.targets for each in kernel.filters if each.handle == each.priority == 1] == [
        [PEER0]
    ]
    if error is None:
        assert report.outcome in ("clean", "cleaned")
    else:
        assert isinstance(error, (TapInUse, Interrupted, Refused, Lost))
        assert report.outcome == ("in-use" if isinstance(error, TapInUse) else "failed")


@thorough
@given(MANY_TAPS, events(*ALIVE), WINDOWS, st.booleans())
@example([(77, False)] * 3, [(7, "attach", 0)], 128, False)  # before the proof
# and the look at what is to be put back is lost
@example([(77, False)] * 3, [(7, "attach", 0), (8, "unsent", 0)], 128, False)
# and what puts it back does not get out
@example([(77, False)] * 3, [(7, "attach", 0), (9, "unsent", 0)], 128, False)
def test_whatever_happens_all_that_are_left_are_in_their_former_groups(
    taps, happening, window, spare_fresh
):
    kernel = a_kernel(taps, happening)
    cleaned(kernel, window, spare_fresh)
    for each in kernel.links:
        assert each.home in (None, each.group), each


@thorough
@given(MANY_TAPS, events(*ALIVE), WINDOWS)
# some TC state has gone, the rest was never asked to
@example([(0, False)] * 3, [(10, "unsent", 0), (11, "attach", 0)], 2)
@example([(0, False)] * 3, [(14, "unanswered", 0), (15, "recreate", 0)], 128)
def test_a_cleanup_that_says_that_nothing_was_changed_has_changed_nothing(taps, happening, window):
    kernel = a_kernel(taps, happening)
    _, error = cleaned(kernel, window)
    if "nothing was changed" in str(error):
        assert kernel.deletions == 0


@thorough
@given(TAPS, events(*ALIVE), WINDOWS, st.booleans())
@example([(0, False)], [(5, "unanswered", 0)], 128, False)
@example([(0, False)] * 3, [(8, "unanswered", 0)], 128, False)
# one stays, the others are deleted
@example([(0, False)] * 3, [(8, "regroup", 0), (8, "unanswered", 0)], 128, False)
def test_what_was_deleted_is_reported_and_what_is_reported_is_gone(
    taps, happening, window, spare_fresh
):
    kernel = a_kernel(taps, happening)
    report, _ = cleaned(kernel, window, spare_fresh)
    reported = {tap.ifindex for tap in report.taps if tap.deleted}
    assert set(kernel.deleted) - {STRANGER} <= reported
    assert not reported & {each.ifindex for each in kernel.links if not each.changed}


@thorough
@given(MANY_TAPS, events(*EVENTS), st.integers(0, 45), WINDOWS)
def test_after_a_kill_at_any_moment_the_next_run_finishes(taps, happening, moment, window):
    kernel = a_kernel(taps, happening + [(moment, "killed", 0)])
    try:
        cleaned(kernel, window)
    except Killed:
        pass
    kernel.dead, kernel.events = False, []
    report, error = cleaned(kernel)
    if error is None:
        assert report.outcome in ("clean", "cleaned")
        assert not any(is_orphan(each) for each in kernel.links)
        assert not any(0 in each.targets for each in kernel.filters)
    else:
        assert isinstance(error, TapInUse)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 500])
def test_undisturbed_all_orphans_go_and_nothing_else_does(count):
    kernel = a_kernel([(77 * (number % 2), False) for number in range(count)])
    report, error = cleaned(kernel)
    assert error is None and report.outcome == "cleaned"
    assert len(kernel.deleted) == len(report.taps) == count
    assert [each.name for each in kernel.links] == ["eth0", "peer0", "vm0"]
    assert [each.targets for each in kernel.filters] == [[PEER0]]
    assert [each.ifindex for each in kernel.qdiscs] == [ETH0]


# ---------------------------------------------------------------- the model can object


def mark_and_delete(kernel, *between):
    """What a cleanup without care would do: mark all TAPs, ask something, delete the group."""
    marks = [
        link.set_group(each.ifindex, each.name, 7)
        for each in kernel.links
        if each.ifindex >= FIRST_TAP
    ]
    with played(kernel), Route(Place(kernel)) as route:
        for requests in [marks, list(between), [link.delete_group(7, "")]]:
            route.change(*requests)


def test_the_model_objects_to_a_delete_without_a_proof():
    with pytest.raises(AssertionError, match="without a look"):
        mark_and_delete(a_kernel([(0, False)] * 3))


def test_the_model_objects_to_a_proof_from_a_filtered_list():
    with pytest.raises(AssertionError, match="does not come right before"):
        mark_and_delete(a_kernel([(0, False)] * 3), link.dump("tun"))


def test_the_model_objects_to_a_tap_in_use_in_the_group():
    with pytest.raises(AssertionError, match="in use when"):
        mark_and_delete(a_kernel([(0, False)] * 3, [(1, "attach", 0)]), link.dump())


def test_the_model_objects_to_a_redirect_that_is_left():
    with pytest.raises(AssertionError, match="outlives"):
        mark_and_delete(a_kernel([(0, False)] * 3), link.dump())

# SPDX-License-Identifier: Apache-2.0
"""Cleanups of many orphans against a model kernel that changes between any two requests.

Hypothesis picks what happens and when. The model holds every RTM_DELLINK against what the cleanup
had read by then: what has not changed since must have been proven an orphan. Only what changed
after the last look may be deleted by mistake: that window is the documented one. All of nlraw is
real; the socket is not.
"""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lib import build
from lib.model import ETH0, FIRST_TAP, PEER0, Place, a_kernel, cleaned, connect
from lib.model_runs import (
    ANY_TAPS,
    CHANGES_BY_OTHERS,
    HAPPENING,
    LIMITS,
    MANY_TAPS,
    WINDOWS,
    allowance_of,
    check_claim,
    check_deleted,
    check_groups,
    check_outcome,
    is_unsteady,
    with_a_kill,
)
from nlraw import link, tc, uapi
from nlraw.errors import TooMuch
from nlraw.marks import MARK
from nlraw.observe import LIST_LINKS
from nlraw.pod import remove
from nlraw.verdict import Target

# The numbers of some requests of a cleanup of three orphans.
CONFIRM, MARKING, PROOF, CHANGES, DELETE = 5, 9, 12, 13, 21


# The same examples each time: tests/long looks for new ones.
quick = settings(deadline=None, derandomize=True, max_examples=100)


@quick
@given(ANY_TAPS, HAPPENING, st.booleans(), WINDOWS, st.booleans())
# the list of the proof leaves out the stranger
@example([(0, False)] * 3, [(PROOF, "intrude", 0), (PROOF, "torn", 0)], True, 128, False)
# the list of the confirm is read again, and shows what the single link does not
@example([(0, False)], [(0, "add chain", 0), (8, "torn", 0), (14, "rename", 0)], True, 1, False)
# between the list of the confirm and the single link
@example([(0, False)], [(CONFIRM + 1, "attach", 0)], True, 128, False)
# a chain is created when all filters are listed
@example([(0, False)], [(5, "add chain", 0)], False, 128, False)
def test_whatever_happens_nothing_is_deleted_that_was_not_proven_an_orphan(
    taps, happening, is_shared, window, spare_fresh
):
    kernel = a_kernel(taps, happening, is_shared)
    report = cleaned(kernel, window, spare_fresh)  # the kernel holds the rules
    check_outcome(kernel, report)


@quick
@given(MANY_TAPS, HAPPENING, WINDOWS, st.booleans())
@example([(77, False)] * 3, [(PROOF, "attach", 0)], 128, False)  # before the proof
# and the look at what is to be put back is lost
@example([(77, False)] * 3, [(PROOF, "attach", 0), (PROOF + 1, "unsent", 0)], 128, False)
# and what puts it back does not get out
@example([(77, False)] * 3, [(PROOF, "attach", 0), (PROOF + 2, "unsent", 0)], 128, False)
def test_whatever_happens_all_that_are_left_are_in_their_former_groups(
    taps, happening, window, spare_fresh
):
    kernel = a_kernel(taps, happening)
    cleaned(kernel, window, spare_fresh)
    check_groups(kernel)


@quick
@given(MANY_TAPS, HAPPENING, WINDOWS)
# some TC state has gone, the rest was never asked to
@example([(0, False)] * 3, [(CHANGES + 2, "unsent", 0), (CHANGES + 3, "attach", 0)], 2)
@example([(0, False)] * 3, [(DELETE, "unanswered", 0), (DELETE + 1, "recreate", 0)], 128)
def test_a_cleanup_that_says_that_nothing_was_changed_has_changed_nothing(taps, happening, window):
    kernel = a_kernel(taps, happening)
    check_claim(kernel, cleaned(kernel, window))


@quick
@given(ANY_TAPS, HAPPENING, WINDOWS, st.booleans())
@example([(0, False)], [(7, "unanswered", 0)], 128, False)
@example([(0, False)] * 3, [(CHANGES, "unanswered", 0)], 128, False)
# one stays, the others are deleted
@example([(0, False)] * 3, [(CHANGES, "regroup", 0), (CHANGES, "unanswered", 0)], 128, False)
def test_what_was_deleted_is_reported_and_what_is_reported_is_gone(
    taps, happening, window, spare_fresh
):
    kernel = a_kernel(taps, happening)
    check_deleted(kernel, cleaned(kernel, window, spare_fresh))


@quick
@given(MANY_TAPS, CHANGES_BY_OTHERS, st.booleans(), st.integers(0, 45), WINDOWS)
def test_after_a_kill_at_any_moment_the_next_run_finishes(
    taps, happening, is_shared, moment, window
):
    with_a_kill(taps, happening, is_shared, moment, window)


def test_the_requests_of_a_cleanup_have_the_numbers_that_the_examples_need():
    kernel = a_kernel([(0, False)] * 3)
    steps = []
    groups = uapi.RTMGRP_LINK | uapi.RTMGRP_TC
    with connect(
        Place(kernel),
        groups=groups,
        on_request=lambda requests: steps.extend(request.step for request in requests),
    ) as connection:
        remove(connection, Target())
    assert [number for number, step in enumerate(steps) if step == "list links"] == [
        0,
        CONFIRM,
        PROOF,
    ]
    assert steps[CONFIRM + 1 : MARKING] == ["read link"] * 3
    assert steps[MARKING:PROOF] == ["set group of link"] * 3
    assert steps[CHANGES] == "delete matchall filter"
    assert steps[DELETE:] == ["delete links"]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 500])
def test_undisturbed_all_orphans_go_and_nothing_else_does(count):
    kernel = a_kernel([(77 * (number % 2), False) for number in range(count)])
    report = cleaned(kernel)
    assert report.error is None and report.outcome == "cleaned"
    assert len(kernel.deleted) == len(report.taps) == count
    assert [each.name for each in kernel.links] == ["eth0", "peer0", "vm0"]
    assert [each.targets for each in kernel.filters] == [[PEER0], [PEER0]]
    assert [each.ifindex for each in kernel.qdiscs] == [ETH0, PEER0]


def test_the_marks_of_a_killed_cleanup_are_taken_off_what_stays():
    kernel = a_kernel([(MARK | 5, False)] * 3, [(0, "attach", 1)])
    assert cleaned(kernel).outcome == "in-use"
    assert [each.group for each in kernel.links] == [0] * 6


@quick
@given(ANY_TAPS, LIMITS, WINDOWS)
def test_whatever_the_limit_is_what_is_done_is_reported(taps, limits, window):
    kernel = a_kernel(taps)
    report = cleaned(kernel, window, allowance=allowance_of(limits))
    assert report.error is None or isinstance(report.error, TooMuch)
    assert {tap.ifindex for tap in report.taps if tap.deleted} == set(kernel.deleted)
    assert len(kernel.deleted) in (0, len(taps))
    assert [each.group for each in kernel.links if each.home is not None] == [
        each.home for each in kernel.links if each.home is not None
    ]


@pytest.mark.parametrize("chance", range(6))
def test_what_a_torn_list_leaves_out_is_not_taken_for_gone(chance):
    kernel = a_kernel([(0, False)], is_shared=False)
    kernel.faults = [("right", 0)] * 7 + [("unsent", 0)] + [("right", 0)] * 2
    kernel.faults.append(("resumed", chance))  # the list of the uplink's filters
    report = cleaned(kernel)
    assert report.outcome == "cleaned"
    assert (kernel.met["unsent"], kernel.met["resumed"]) == (1, 1)
    check_deleted(kernel, report)


@pytest.mark.parametrize("chance", range(6))
def test_a_namespace_whose_lists_are_torn_each_time_is_not_called_clean(chance):
    kernel = a_kernel([], is_shared=False)
    kernel.filters.append(build.a_filter(ETH0, "matchall", 0))  # left out each time
    kernel.filters[-1].since = 0
    kernel.faults = [("resumed", chance)] * 200
    report = cleaned(kernel)
    assert report.outcome == "failed" and is_unsteady(report.error)
    assert kernel.changes == []


# ---------------------------------------------------------------- the model can object


def mark_and_delete(kernel, *between, group=MARK | 7):
    """What a cleanup without care would do: mark all TAPs, ask something, delete the group."""
    marks = [
        link.set_group(each.ifindex, each.name, group)
        for each in kernel.links
        if each.ifindex >= FIRST_TAP
    ]
    with connect(Place(kernel)) as connection:
        connection.ask(tc.dump_qdiscs())
        connection.ask(LIST_LINKS)
        connection.change(*marks)
        for request in between:
            connection.ask(request)
        connection.change(link.delete_group(group, ""))


def test_the_model_objects_to_a_delete_without_a_proof():
    with pytest.raises(AssertionError, match="without a look"):
        mark_and_delete(a_kernel([(0, False)] * 3))


def test_the_model_objects_to_a_proof_from_a_filtered_list():
    with pytest.raises(AssertionError, match="does not come right before"):
        mark_and_delete(a_kernel([(0, False)] * 3), link.dump("tun"))


def test_the_model_objects_to_a_tap_in_use_in_the_group():
    with pytest.raises(AssertionError, match="in use when"):
        mark_and_delete(a_kernel([(0, False)] * 3, [(3, "attach", 0)]), LIST_LINKS)


def test_the_model_objects_to_a_redirect_that_is_left():
    with pytest.raises(AssertionError, match="outlives"):
        mark_and_delete(a_kernel([(0, False)] * 3), LIST_LINKS)


def test_the_model_objects_to_a_group_that_may_be_somebody_elses():
    with pytest.raises(AssertionError, match="no mark"):
        mark_and_delete(a_kernel([(0, False)] * 3), LIST_LINKS, group=7)


def test_the_model_objects_to_a_stranger_in_the_group():
    happening = [(4, "intrude", 0)]
    with pytest.raises(AssertionError, match="not all orphans"):
        mark_and_delete(a_kernel([(0, False)] * 3, happening), LIST_LINKS)

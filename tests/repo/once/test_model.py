# SPDX-License-Identifier: Apache-2.0
"""Everything that asks the kernel, against a model whose answers are late, torn or forged.

The same examples each time, for about 30 seconds, which is more than tests/unit may take.
tests/long/test_model.py looks for new ones.
"""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.model_runs import (
    ALL,
    ANY_TAPS,
    CHANGES_BY_OTHERS,
    CHANGING,
    EVENTS,
    FIT,
    HAPPENING,
    HOSTILE,
    LIMITS,
    MANY_TAPS,
    TAKEN,
    TAPS,
    WAYS,
    WINDOWS,
    faults,
    kernels,
    questions,
    with_a_kill,
    with_an_allowance,
    with_any_answers,
    with_events,
    with_lies,
    with_many,
    with_one_lie,
    with_questions,
    with_right_answers,
)

# The same examples each time: tests/long looks for new ones.
ordinary = settings(
    deadline=None, derandomize=True, max_examples=250, suppress_health_check=list(HealthCheck)
)


@ordinary
@given(kernels(), st.sampled_from(sorted(WAYS)), faults(*ALL), TAKEN)
def test_whatever_happens_to_the_answers_only_what_is_doomed_goes_and_it_ends(
    kernel, name, happening, taken
):
    with_any_answers(kernel, name, happening, taken)


@ordinary
@given(kernels(), st.sampled_from(sorted(WAYS)), faults(*FIT), TAKEN)
def test_answers_that_are_only_late_in_pieces_or_among_strangers_are_understood(
    kernel, name, happening, taken
):
    with_right_answers(kernel, name, happening, taken)


@ordinary
@given(kernels(), st.sampled_from(CHANGING), faults(*FIT), TAKEN, st.integers(0, 9))
def test_one_wrong_answer_is_not_enough_to_delete_what_is_in_use_or_not_ours(
    kernel, name, happening, taken, place
):
    with_one_lie(kernel, name, happening, taken, place)


@ordinary
@given(kernels(), st.sampled_from(sorted(WAYS)), faults(*HOSTILE), TAKEN)
def test_hostile_answers_end_in_a_result_or_in_one_of_our_errors(kernel, name, happening, taken):
    with_lies(kernel, name, happening, taken)


@ordinary
@given(kernels(), questions(), faults(*ALL), WINDOWS)
def test_an_answer_is_the_one_that_the_kernel_meant(kernel, asked, happening, window):
    with_questions(kernel, asked, happening, window)


@ordinary
@given(TAPS, EVENTS, st.booleans(), st.sampled_from(sorted(WAYS)), faults(*ALL), WINDOWS)
def test_whatever_happens_to_the_answers_and_meanwhile_no_link_goes_unproven(
    taps, events, is_shared, name, happening, window
):
    with_events(taps, events, is_shared, name, happening, window)


@ordinary
@given(kernels(), st.sampled_from(sorted(WAYS)), faults(*FIT), LIMITS)
def test_what_was_done_before_a_limit_was_exceeded_is_reported(kernel, name, happening, limits):
    with_an_allowance(kernel, name, happening, limits)


@ordinary
@given(ANY_TAPS, HAPPENING, st.booleans(), WINDOWS, st.booleans())
def test_whatever_happens_meanwhile_a_cleanup_does_no_harm_and_reports_what_it_did(
    taps, happening, is_shared, window, spare_fresh
):
    with_many(taps, happening, is_shared, window, spare_fresh)


@ordinary
@given(MANY_TAPS, CHANGES_BY_OTHERS, st.booleans(), st.integers(0, 45), WINDOWS)
def test_after_a_kill_at_any_moment_the_next_run_finishes(
    taps, happening, is_shared, moment, window
):
    with_a_kill(taps, happening, is_shared, moment, window)

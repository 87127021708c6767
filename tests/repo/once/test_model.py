# SPDX-License-Identifier: Apache-2.0
"""Everything that asks the kernel, against a model whose answers are late, torn or forged.

The same examples each time, for some 20 seconds, which is more than tests/unit may take. New
examples are looked for by tests/long/test_model.py.
"""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.model_runs import (
    ALL,
    CHANGING,
    EVENTS,
    FIT,
    HOSTILE,
    TAKEN,
    TAPS,
    WAYS,
    WINDOWS,
    faults,
    kernels,
    questions,
    with_any_answers,
    with_events,
    with_lies,
    with_one_lie,
    with_questions,
    with_right_answers,
)

# The same examples each time: what is new is looked for by the long tests below.
ordinary = settings(
    deadline=None, derandomize=True, max_examples=250, suppress_health_check=list(HealthCheck)
)


@ordinary
@given(kernels(), st.sampled_from(sorted(WAYS)), faults(*ALL), TAKEN)
def test_whatever_befalls_the_answers_only_what_is_doomed_goes_and_it_ends(
    kernel, name, befalling, taken
):
    with_any_answers(kernel, name, befalling, taken)


@ordinary
@given(kernels(), st.sampled_from(sorted(WAYS)), faults(*FIT), TAKEN)
def test_answers_that_are_only_late_in_pieces_or_among_strangers_are_understood(
    kernel, name, befalling, taken
):
    with_right_answers(kernel, name, befalling, taken)


@ordinary
@given(kernels(), st.sampled_from(CHANGING), faults(*FIT), TAKEN, st.integers(0, 9))
def test_one_wrong_answer_is_not_enough_to_delete_what_is_in_use_or_not_ours(
    kernel, name, befalling, taken, place
):
    with_one_lie(kernel, name, befalling, taken, place)


@ordinary
@given(kernels(), st.sampled_from(sorted(WAYS)), faults(*HOSTILE), TAKEN)
def test_hostile_answers_end_in_a_result_or_in_one_of_our_errors(kernel, name, befalling, taken):
    with_lies(kernel, name, befalling, taken)


@ordinary
@given(kernels(), questions(), faults(*ALL), WINDOWS)
def test_an_answer_is_the_one_that_the_kernel_meant(kernel, asked, befalling, window):
    with_questions(kernel, asked, befalling, window)


@ordinary
@given(TAPS, EVENTS, st.sampled_from(sorted(WAYS)), faults(*ALL), WINDOWS)
def test_whatever_befalls_the_answers_and_happens_meanwhile_no_link_goes_unproven(
    taps, events, name, befalling, window
):
    with_events(taps, events, name, befalling, window)

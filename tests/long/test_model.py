# SPDX-License-Identifier: Apache-2.0
"""Everything that asks the kernel, against a model of it, at length: new examples each time.

    pytest -s tests/long/test_model.py

It prints how many there were, and what came of them.
"""

import time

import pytest
from hypothesis import HealthCheck, Phase, given, settings
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
    TALLY,
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


def at_length(property_, *strategies):
    """Try a property for a minute and a half, with examples that are new each time."""
    TALLY.clear()
    until = time.monotonic() + 90
    rounds = 0

    @settings(
        deadline=None,
        database=None,
        max_examples=1000,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(st.tuples(*strategies))
    def many(drawn):
        property_(*drawn)

    while time.monotonic() < until:
        many()
        rounds += 1
    print("\n%s: %d examples" % (property_.__name__, rounds * 1000))
    for name in sorted(TALLY):
        print("    %-32s %9d" % (name, TALLY[name]))


@pytest.mark.parametrize(
    "property_, strategies",
    [
        (with_any_answers, (kernels(), st.sampled_from(sorted(WAYS)), faults(*ALL), TAKEN)),
        (with_right_answers, (kernels(), st.sampled_from(sorted(WAYS)), faults(*FIT), TAKEN)),
        (
            with_one_lie,
            (kernels(), st.sampled_from(CHANGING), faults(*FIT), TAKEN, st.integers(0, 9)),
        ),
        (with_lies, (kernels(), st.sampled_from(sorted(WAYS)), faults(*HOSTILE), TAKEN)),
        (with_questions, (kernels(), questions(), faults(*ALL), WINDOWS)),
        (
            with_an_allowance,
            (kernels(), st.sampled_from(sorted(WAYS)), faults(*FIT), LIMITS),
        ),
        (with_many, (ANY_TAPS, HAPPENING, st.booleans(), WINDOWS, st.booleans())),
        (with_a_kill, (MANY_TAPS, CHANGES_BY_OTHERS, st.booleans(), st.integers(0, 45), WINDOWS)),
        (
            with_events,
            (TAPS, EVENTS, st.booleans(), st.sampled_from(sorted(WAYS)), faults(*ALL), WINDOWS),
        ),
    ],
    ids=[
        "any answers",
        "right answers",
        "one lie",
        "lies",
        "questions",
        "limits",
        "many",
        "kill",
        "events",
    ],
)
def test_the_same_at_length(property_, strategies):
    at_length(property_, *strategies)

# SPDX-License-Identifier: Apache-2.0
"""`scan` and `cleanup` of thousands of random pods, against predictions from the contract alone.

    pytest -s tests/long/test_podmodel.py
    NLRAW_SEEDS=10000 pytest -s tests/long/test_podmodel.py
    NLRAW_SEEDS=5000-9000 pytest -s tests/long/test_podmodel.py

What a pod may have is in tests/lib/podgen.py, what is predicted in tests/lib/podmodel.py.
"""

import os

import pytest

from lib import podrun

SEEDS = os.environ.get("NLRAW_SEEDS", "2000")


def seeds():
    """The range of seeds: NLRAW_SEEDS is a number of them, or FIRST-LAST without LAST."""
    first, joined, last = SEEDS.partition("-")
    return (int(first), int(last)) if joined else (0, int(first))


@pytest.fixture(autouse=True)
def can_run():
    if podrun.missing() is not None:
        pytest.skip("needs a network namespace of its own: " + podrun.missing())


def test_the_model_agrees_with_ip_and_tc():
    """The model, checked first: what it predicts is done with `ip` and `tc` instead of nlraw."""
    failures, sums, _ = podrun.check_seeds(*seeds(), by_hand=True)
    print("\n%s" % podrun.summary(sums))
    assert not failures, "\n\n".join(failure["text"] for failure in failures[:3])


def test_nlraw_does_as_predicted():
    failures, sums, options = podrun.check_seeds(*seeds())
    print("\n%s" % podrun.summary(sums))
    assert not failures, podrun.explain(failures, sums, options)

# SPDX-License-Identifier: Apache-2.0
"""`scan` and `cleanup` of some random pods, against predictions from the contract alone.

tests/long/test_podmodel.py has thousands. What a pod may have is in tests/lib/podgen.py.
"""

import pytest

from lib import podrun

SEEDS = 40


def test_nlraw_does_as_predicted():
    if podrun.missing() is not None:
        pytest.skip("needs a network namespace of its own: " + podrun.missing())
    failures, sums, options = podrun.check_seeds(0, SEEDS)
    assert sums["seeds"] == SEEDS
    assert not failures, podrun.explain(failures, sums, options, count=1)

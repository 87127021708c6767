# SPDX-License-Identifier: Apache-2.0
"""Rounds around a running cleanup: as many as take seconds of tests/long/test_rounds.py."""

import pytest

from lib import pods
from lib.nics import Nics
from lib.rounds import Ground, around_cleanups, play


@pytest.fixture(autouse=True)
def can_run():
    if pods.missing() is not None:
        pytest.skip("needs a network namespace of its own: " + pods.missing())


@pytest.mark.parametrize("make", [Ground, Nics], ids=["one NIC", "several NICs"])
def test_some_rounds_around_a_running_cleanup(make):
    play("cleanup", around_cleanups, make, 100, jobs=1)

# SPDX-License-Identifier: Apache-2.0
"""Rounds around a running cleanup: as many as take seconds of tests/long/test_rounds.py."""

import pytest

from lib import rounds


@pytest.fixture
def make_ground(make_pod, monkeypatch):
    yield from rounds.grounds(make_pod, monkeypatch)


def test_some_rounds_around_a_running_cleanup(make_ground):
    rounds.play_around_cleanups(make_ground(), 150)

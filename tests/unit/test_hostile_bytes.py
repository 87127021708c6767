# SPDX-License-Identifier: Apache-2.0
"""Thousands of nearly right datagrams, the same each time, fed to everything that reads bytes.

tests/lib/junk.py makes and feeds them.
"""

import random
import signal

import pytest

from lib import junk

PATIENCE = 60  # seconds for what takes one


@pytest.fixture
def bounded():
    """What goes on without end ends here as a failure."""

    def ring(*_):
        raise AssertionError("not done after %d seconds" % PATIENCE)

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("seed", range(4))
def test_bytes_that_are_nearly_right_are_a_value_or_malformed(seed, bounded):
    chance, seeds = random.Random(seed), junk.corpus()
    for _ in range(1000):
        data = junk.mutate(chance.choice(seeds), chance, seeds)
        assert junk.feed(data) == [], data.hex()
        if chance.randrange(3) == 0:  # what was made may be changed again
            seeds.append(data)


def test_what_was_captured_breaks_nothing():
    for data in junk.corpus():
        assert junk.feed(data) == []

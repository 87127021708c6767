# SPDX-License-Identifier: Apache-2.0
"""Injected faults: a fixed sample of those of tests/long/test_faults.py."""

import pytest

from lib import faults
from lib.faults import PLAYS, Setup, run

# Of all faults the ordinary suite tries each one that this divides; and death of a setup at each
# call by which it changes things.
SAMPLE = 47
CHANGES = ("ioctl", "sendto", "close", "write", "exit_group")


@pytest.fixture(autouse=True)
def prepared():
    faults.prepare()


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.__doc__.split(":")[0].rstrip("."))
def test_at_some_system_calls(make_pod, tmp_path, play):
    def sample(every):
        dying = [
            fault
            for fault in every
            if fault.kind == "KILL" and fault.call.name in CHANGES and issubclass(play, Setup)
        ]
        # another place in each play, so that together they meet most calls
        return dying + every[PLAYS.index(play) :: SAMPLE]

    (tmp_path / "netns").mkdir()
    counts, wrong = run(play(make_pod, tmp_path / "netns"), tmp_path / "log", sample)
    assert wrong == []
    assert sum(counts.values()) >= 5

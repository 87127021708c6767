# SPDX-License-Identifier: Apache-2.0
"""The agent of a node is refused something in each of its system calls.

    pytest -s tests/long/test_watch_faults.py

What has to come of it is in tests/live/once/test_watch_faults.py.
"""

from live.once import test_watch_faults as sample

prepared, scene = sample.prepared, sample.scene  # the fixtures


def test_errors_of_all_system_calls(scene, tmp_path):
    sample.play_errors(scene, tmp_path / "log")

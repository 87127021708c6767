# SPDX-License-Identifier: Apache-2.0
"""A part of the suite against a vendored copy: no kernel, a little of the kernel, some children."""

from lib.vendor import stage, suite

PART = ["unit", "live/test_connection.py", "live/test_selftest.py"]


def test_a_part_of_the_suite_passes_against_a_vendored_copy(tmp_path):
    status, printed = suite(stage(tmp_path), PART)
    assert status == 0, printed

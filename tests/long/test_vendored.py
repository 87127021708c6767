# SPDX-License-Identifier: Apache-2.0
"""The suite against a vendored copy.

    python -m pytest -s tests/long/test_vendored.py

It prints what that printed.
"""

from lib.vendor import stage, suite

# Of the sources or of the distribution, and the same whatever the name.
SAME = [
    "repo/test_packaging.py",
    "repo/test_bundle.py",
    "repo/test_vendored.py",
    "repo/once/test_vendored.py",
]


def test_the_suite_passes_against_a_vendored_copy(tmp_path):
    status, printed = suite(stage(tmp_path), ["unit", "live", "repo"], SAME)
    print("\n" + printed)
    assert status == 0

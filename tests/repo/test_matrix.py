# SPDX-License-Identifier: Apache-2.0
"""The command that runs this suite elsewhere.

What it runs takes an hour; that it is in order is seen here.
"""

import os
import re
import sys

from lib import command
from tools import matrix


def test_it_lists_its_rows():
    listed = command.attempt(sys.executable, matrix.__file__, "--list")
    assert listed.status == 0, listed.err
    assert [line.split(None, 1) for line in listed.out.splitlines()] == [
        [row.name, row.about] for row in matrix.ROWS
    ]


def test_each_test_file_is_in_one_part_and_no_row_leaves_all_out():
    files = matrix.suite()
    assert sorted(files) == sorted(
        os.path.relpath(os.path.join(parent, name), matrix.TESTS)
        for parent, _, names in os.walk(matrix.TESTS)
        for name in names
        if re.match(r"test_.*\.py$", name)
        and not {"once", "long"} & set(os.path.relpath(parent, matrix.TESTS).split(os.sep))
    )
    parts = {matrix.part_of(name) for name in files}
    for row in matrix.ROWS:
        run = {matrix.part_of(name) for name in files if not matrix.left_out(row, name)}
        assert run >= parts - {"unit", "repo"}

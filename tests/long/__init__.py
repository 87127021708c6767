# SPDX-License-Identifier: Apache-2.0
"""Tests that take minutes, run by hand: `pytest -s tests/long`. They print what they counted."""

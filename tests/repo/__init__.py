# SPDX-License-Identifier: Apache-2.0
"""Tests of the tree: imports, packaging, the bundle, a vendored copy, the README, the matrix."""

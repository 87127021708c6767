# SPDX-License-Identifier: Apache-2.0
"""Tests on the live kernel, in namespaces of their own: one file for each promise."""

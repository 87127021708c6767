# SPDX-License-Identifier: Apache-2.0
"""Tests that need neither root nor a kernel: one file for each file of nlraw, by its name.

Beside them: hostile bytes, and runs against a model of the kernel that take seconds.
"""

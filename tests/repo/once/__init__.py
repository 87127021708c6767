# SPDX-License-Identifier: Apache-2.0
"""The same, but slow and independent of the interpreter: run once, not under each."""

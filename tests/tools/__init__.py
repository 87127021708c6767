# SPDX-License-Identifier: Apache-2.0
"""Programs for whoever works on the tests; see the head of each."""

# SPDX-License-Identifier: Apache-2.0
"""Live tests that take seconds and do not depend on the interpreter: run once, not under each."""

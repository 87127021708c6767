# SPDX-License-Identifier: Apache-2.0
"""Live tests of what depends on the kernel, not on the interpreter: run on each kernel once."""

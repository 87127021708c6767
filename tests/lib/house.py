# SPDX-License-Identifier: Apache-2.0
"""The files of nlraw: a file imports only from files above it; the first ones touch no system."""

PURE = ["uapi", "report", "errors", "wire", "exchange", "link", "tc", "inet"]
ORDER = (
    PURE
    + "netns route tap orphans provision node hook metrics selftest".split()
    + "cli __init__ __main__ bundle".split()
)

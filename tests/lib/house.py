# SPDX-License-Identifier: Apache-2.0
"""The files of nlraw: a file imports only from files above it; the first ones touch no system."""

PURE = (
    "uapi errors wire exchange link tc inet nsid report guest oci verdict bpf".split()
    + "snapshot plan journal known agenda".split()
)
ORDER = (
    PURE
    + "threads libc netns holders transport connection observe marks removal pod".split()
    + "tap provision visit node container metrics notify listener discovery workers".split()
    + "agent selftest mistakes options output vmm syslog hook service commands cli".split()
    + "__init__ __main__ bundle".split()
)

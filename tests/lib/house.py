# SPDX-License-Identifier: Apache-2.0
"""The files of nlraw: a file imports only from files above it; the first ones touch no system."""

PURE = (
    "uapi errors wire exchange link tc inet nsid report guest".split()
    + "oci verdict bpf snapshot plan journal known agenda".split()
)
ORDER = (
    PURE
    + "threads libc netns holders transport connection observe marks removal pod".split()
    + "tap provision visit node container metrics notify".split()
    + "listener discovery workers agent selftest".split()
    + "mistakes options output syslog hook service commands cli __init__ __main__ bundle".split()
)

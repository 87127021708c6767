# SPDX-License-Identifier: Apache-2.0
"""The files of nlraw: a file imports only from files above it; the first ones touch no system."""

PURE = (
    "uapi errors wire exchange link tc inet neighbour nexthop nsid report guest".split()
    + "facts oci verdict bpf snapshot plan wiring journal known agenda".split()
)
ORDER = (
    PURE
    + "threads libc netns holders transport connection observe marks removal".split()
    + "uplinks pod tap wanted provision visit node container metrics notify".split()
    + "listener looker discovery workers agent selftest mistakes options output text vmm".split()
    + "deployment syslog hook service commands cli __init__ __main__ bundle".split()
)

# SPDX-License-Identifier: Apache-2.0
"""TAPs as a runtime and its VMM make and leave them, by /dev/net/tun alone.

All of it is done in the namespace of the thread that calls: see `Pod.run` and `Namespace.run`.
Nobody holds a TAP that was made; it is an orphan once somebody has let go of it, and is called
fresh until somebody has held it.
"""

import fcntl
import os
import struct

# linux/if_tun.h
IFF_TUN = 0x0001
IFF_TAP = 0x0002
IFF_MULTI_QUEUE = 0x0100
IFF_NO_PI = 0x1000
IFF_TUN_EXCL = 0x8000
TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETIFINDEX = 0x400454DA


def attach(name, flags=IFF_TAP, ifindex=0):
    """Attach to a TAP, which makes it if there is none; return the descriptor that holds it.

    One that is made has the index, if that is given.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        if ifindex:
            fcntl.ioctl(fd, TUNSETIFINDEX, struct.pack("=I", ifindex))
        request = struct.pack("=16sH22x", os.fsencode(name), flags | IFF_NO_PI)
        fcntl.ioctl(fd, TUNSETIFF, request)
    except BaseException:
        os.close(fd)
        raise
    return fd


def make(name, flags=IFF_TAP):
    """Make a persistent TAP that nobody has held yet."""
    fd = attach(name, flags | IFF_TUN_EXCL)
    try:
        fcntl.ioctl(fd, TUNSETPERSIST, 1)
    finally:
        os.close(fd)


def leave(name, flags=IFF_TAP):
    """Hold a TAP for a moment, as a VMM that is gone has done."""
    os.close(attach(name, flags))

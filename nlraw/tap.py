# SPDX-License-Identifier: Apache-2.0
"""Make a TAP, and hold it: /dev/net/tun and its ioctls (Documentation/networking/tuntap.rst).

A descriptor of the TUN driver belongs to the namespace in which it was opened, and its TAP to the descriptor:
without `persist` the kernel takes the TAP away when the last descriptor closes.
"""

import errno
import fcntl
import os

from . import uapi
from .errors import Refused
from .netns import Namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional, TypeVar

    T = TypeVar("T")

DEVICE = "/dev/net/tun"


def create(namespace: Namespace, name: str) -> int:
    """Create a TAP and return the descriptor that holds it. Refused with EBUSY where any link has the name.

    IFF_TUN_EXCL makes that refusal the kernel's; IFF_ONE_QUEUE has no meaning since Linux 3.8 and stays for what compares flags.
    """
    flags = uapi.IFF_TAP | uapi.IFF_NO_PI | uapi.IFF_VNET_HDR | uapi.IFF_ONE_QUEUE | uapi.IFF_TUN_EXCL
    return namespace.run(lambda: _attached(name, flags, "create TAP"))


def attach(namespace: Namespace, name: str) -> int:
    """Attach to a TAP as a VMM does and return the descriptor that holds it."""
    return namespace.run(lambda: _attached(name, uapi.IFF_TAP | uapi.IFF_NO_PI | uapi.IFF_VNET_HDR, "attach to TAP"))


def _attached(name: str, flags: int, step: str) -> int:
    fd = _call(lambda: os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC), "open", DEVICE)
    try:
        request = uapi.ifreq.pack(name.encode("utf-8", "surrogateescape"), flags)
        _call(lambda: fcntl.ioctl(fd, uapi.TUNSETIFF, request), step, name)
    except BaseException:
        os.close(fd)
        raise
    return fd


def set_owner(fd: int, name: str, owner: "Optional[int]", group: "Optional[int]") -> None:
    """Say which user and which group may attach; the kernel wants both to match where both are set. None sets none."""
    if owner is not None:
        _call(lambda: fcntl.ioctl(fd, uapi.TUNSETOWNER, owner), "set owner %d of TAP" % owner, name)
    if group is not None:
        _call(lambda: fcntl.ioctl(fd, uapi.TUNSETGROUP, group), "set group %d of TAP" % group, name)


def persist(fd: int, name: str) -> None:
    """Let the TAP outlive its descriptors."""
    _call(lambda: fcntl.ioctl(fd, uapi.TUNSETPERSIST, 1), "persist TAP", name)


def _call(function: "Callable[[], T]", step: str, object: str) -> "T":
    try:
        return function()
    except OSError as error:
        number = error.errno or 0
        words = os.strerror(number)
        if number == errno.EPERM:
            words += "; it takes CAP_NET_ADMIN in the user namespace that owns the network namespace"
        raise Refused(number, words, step, object) from None

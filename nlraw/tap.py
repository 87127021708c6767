# SPDX-License-Identifier: Apache-2.0
"""Make a TAP, and hold it: /dev/net/tun and its ioctls (Documentation/networking/tuntap.rst).

A descriptor of the TUN driver belongs to the namespace in which it was opened, and its TAP to the descriptor:
without `persist` the kernel takes the TAP away when the last descriptor closes.
"""

import errno
import posix

from . import uapi
from .errors import Refused
from .netns import Namespace, close, ioctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional, TypeVar

    T = TypeVar("T")

DEVICE = "/dev/net/tun"

# What to do about a refusal, beyond the C library's word for it.
_OPEN = {
    errno.ENOENT: "load the module tun; where the node is missing, mknod %s c 10 200" % DEVICE,
    errno.ENODEV: "load the module tun, or enable CONFIG_TUN",
    errno.ENXIO: "load the module tun, or enable CONFIG_TUN",
    errno.EACCES: "this user must be allowed to open it",
    errno.EPERM: "the device cgroup must allow c 10:200",
}
_ATTACH = {errno.EPERM: "it takes CAP_NET_ADMIN in the user namespace that owns the network namespace, or the TAP's owner"}
_OWN = {errno.EINVAL: "there is no such ID in this user namespace"}


def create(namespace: Namespace, name: str) -> int:
    """Create a TAP and return the descriptor that holds it. Refused with EBUSY where any link has the name.

    That refusal is the kernel's (IFF_TUN_EXCL). IFF_ONE_QUEUE has had no meaning since Linux 3.8.
    """
    flags = uapi.IFF_TAP | uapi.IFF_NO_PI | uapi.IFF_VNET_HDR | uapi.IFF_ONE_QUEUE | uapi.IFF_TUN_EXCL
    return namespace.run(lambda: _attached(name, flags, "create TAP"))


def attach(namespace: Namespace, name: str) -> int:
    """Attach to a TAP as a VMM does and return the descriptor that holds it."""
    return namespace.run(lambda: _attached(name, uapi.IFF_TAP | uapi.IFF_NO_PI | uapi.IFF_VNET_HDR, "attach to TAP"))


def _attached(name: str, flags: int, step: str) -> int:
    fd = _call(lambda: posix.open(DEVICE, posix.O_RDWR | posix.O_CLOEXEC), "open", DEVICE, _OPEN)
    try:
        request = uapi.ifreq.pack(name.encode("utf-8", "surrogateescape"), flags)
        _call(lambda: ioctl(fd, uapi.TUNSETIFF, request), step, name, _ATTACH)
    except BaseException:
        close(fd)
        raise
    return fd


def set_owner(fd: int, name: str, owner: "Optional[int]", group: "Optional[int]") -> None:
    """Say which user and which group may attach; the kernel wants both to match where both are set. None sets none."""
    if owner is not None:
        _set_id(fd, uapi.TUNSETOWNER, owner, "set owner %d of TAP" % owner, name)
    if group is not None:
        _set_id(fd, uapi.TUNSETGROUP, group, "set group %d of TAP" % group, name)


def _set_id(fd: int, request: int, number: int, step: str, name: str) -> None:
    argument = number - (1 << 32) if number >= 1 << 31 else number  # fcntl.ioctl() takes a C int
    _call(lambda: ioctl(fd, request, argument), step, name, _OWN)


def persist(fd: int, name: str, on: bool = True) -> None:
    """Let the TAP outlive its descriptors, or not."""
    _call(lambda: ioctl(fd, uapi.TUNSETPERSIST, int(on)), "persist TAP", name, {})


def _call(function: "Callable[[], T]", step: str, object: str, remedies: "dict[int, str]") -> "T":
    try:
        return function()
    except OSError as error:
        number = error.errno or 0
        words = "; ".join(filter(None, (posix.strerror(number), remedies.get(number))))
        raise Refused(number, words, step, object) from None

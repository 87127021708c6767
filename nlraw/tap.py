# SPDX-License-Identifier: Apache-2.0
"""Make TAPs and hold them: /dev/net/tun and its ioctls (Documentation/networking/tuntap.rst).

A descriptor of the TUN driver belongs to the namespace in which it was opened. The TAP belongs to
its descriptors: without `persist` the kernel deletes it when the last one closes.
"""

import errno
import posix

from . import uapi
from .errors import refused
from .netns import Namespace, close, ioctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Sequence

DEVICE = "/dev/net/tun"

# What to do about a refusal.
_OTHER_FILE = "%s is another file: remove it, then mknod %s c 10 200" % (DEVICE, DEVICE)
_OPEN = {
    errno.ENOENT: "load the module tun; where the node is missing, mknod %s c 10 200" % DEVICE,
    errno.ENODEV: "load the module tun, or enable CONFIG_TUN",
    errno.ENXIO: "load the module tun, or enable CONFIG_TUN",
    errno.EACCES: "let this user open it (chmod 666 %s), or run this as root" % DEVICE,
    errno.EPERM: "the device cgroup must allow c 10:200",
    errno.EISDIR: _OTHER_FILE,
}
_OPEN_AS_ROOT = dict(_OPEN)
_OPEN_AS_ROOT[errno.EACCES] = (
    "its mount has the option nodev, or this is root of a user namespace: chmod 666 %s" % DEVICE
)
_CREATE = {
    errno.ENOTTY: _OTHER_FILE,
    errno.EPERM: "it takes CAP_NET_ADMIN in the user namespace that owns the network namespace",
}
_ATTACH = {errno.EPERM: _CREATE[errno.EPERM] + ", or the TAP's owner"}
_OWN = {errno.EINVAL: "there is no such ID in this user namespace"}


def create(namespace: Namespace, name: str) -> int:
    """Create a TAP and return the descriptor that holds it. Raises as `create_all` does."""
    return create_all(namespace, (name,))[0]


def create_all(
    namespace: Namespace, names: "Sequence[str]", multi_queue: bool = False
) -> "List[int]":
    """Create TAPs, all or none, and return the descriptors that hold them.

    Raises `Refused`, with EBUSY if any link has the name: the kernel checks that (IFF_TUN_EXCL).
    With ``multi_queue`` each later open adds a queue, and the kernel refuses one that does not set
    IFF_MULTI_QUEUE. IFF_ONE_QUEUE has had no effect since Linux 3.8.
    """
    flags = uapi.IFF_TAP | uapi.IFF_NO_PI | uapi.IFF_VNET_HDR | uapi.IFF_TUN_EXCL
    flags |= uapi.IFF_MULTI_QUEUE if multi_queue else uapi.IFF_ONE_QUEUE

    def create() -> "List[int]":
        fds: List[int] = []
        try:
            for name in names:
                fds.append(_attached(name, flags, "create TAP", _CREATE))
        except BaseException:
            release(fds)
            raise
        return fds

    return namespace.run(create)


def release(fds: "Sequence[int]") -> None:
    """Close descriptors, the last one first. The TAPs go with them, unless they are persistent."""
    for fd in reversed(fds):
        close(fd)


def attach(namespace: Namespace, name: str) -> int:
    """Attach to a TAP as a VMM does; return the descriptor that holds it. Raises `Refused`.

    If there is no link of that name, the kernel creates a TAP.
    """
    flags = uapi.IFF_TAP | uapi.IFF_NO_PI | uapi.IFF_VNET_HDR
    return namespace.run(lambda: _attached(name, flags, "attach to TAP", _ATTACH))


def _attached(name: str, flags: int, step: str, of_attach: "Dict[int, str]") -> int:
    try:
        fd = posix.open(DEVICE, posix.O_RDWR | posix.O_CLOEXEC)
    except OSError as error:
        remedies = _OPEN if posix.geteuid() else _OPEN_AS_ROOT
        raise refused(error, "open", DEVICE, remedies) from None
    try:
        request = uapi.ifreq.pack(name.encode("utf-8", "surrogateescape"), flags)
        _control(fd, uapi.TUNSETIFF, request, step, name, of_attach)
    except BaseException:
        close(fd)
        raise
    return fd


def set_owner(fd: int, name: str, owner: "Optional[int]", group: "Optional[int]") -> None:
    """Set which user and which group may attach without privilege; None leaves one unset.

    If both are set, the kernel requires both. Raises `Refused`.
    """
    if owner is not None:
        _set_id(fd, uapi.TUNSETOWNER, owner, "set owner %d of TAP" % owner, name)
    if group is not None:
        _set_id(fd, uapi.TUNSETGROUP, group, "set group %d of TAP" % group, name)


def _set_id(fd: int, number: int, id: int, step: str, name: str) -> None:
    argument = id - (1 << 32) if id >= 1 << 31 else id  # fcntl.ioctl() takes a C int
    _control(fd, number, argument, step, name, _OWN)


def persist(fd: int, name: str, on: bool = True) -> None:
    """Let the TAP outlive its descriptors; with ``on=False``, no longer. Raises `Refused`."""
    _control(fd, uapi.TUNSETPERSIST, int(on), "persist TAP", name, {})


def _control(
    fd: int, number: int, argument: "Any", step: str, name: str, remedies: "Dict[int, str]"
) -> None:
    try:
        ioctl(fd, number, argument)
    except OSError as error:
        raise refused(error, step, name, remedies) from None

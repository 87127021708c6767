# SPDX-License-Identifier: Apache-2.0
"""Name, open, enter and create network namespaces.

What the current namespace does not need is imported where it is used: threads, the C library.

A namespace is opened once and held by its descriptor: it stays the same one, whatever happens to
its path or its process. `Namespace.run` enters it on a thread of its own, which ends inside: the
caller's thread does not move. Only `Namespace.enter` and `unshare` move the calling thread.
"""

import errno
import posix  # the part of os in C; the import of os takes a quarter of an interpreter's start

from . import uapi
from .errors import BadNamespace, Invalid, Refused, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType
    from typing import Any, Callable, Optional, Protocol, Set, Tuple, Type, TypeVar, Union

    class HasFileno(Protocol):
        def fileno(self) -> int: ...

    NetnsArgument = Union[None, int, str, "PathLike[str]", HasFileno]
    T = TypeVar("T")

# The step that fails if there is no such namespace.
OPEN = "open namespace"

# Where `ip netns` and others pin namespaces by name.
NAMED = ("/run/netns", "/var/run/netns")

# Where container runtimes pin namespaces.
DIRECTORIES = NAMED + ("/run/docker/netns", "/var/run/docker/netns")

# What to do about a path at which there is none.
WHERE = "one is at /proc/PID/ns/net or /run/netns/NAME"

_MACHINE = posix.uname().machine


def describe(netns: "NetnsArgument") -> str:
    """Return the path by which a namespace is opened and reported; "current" for None.

    Opens nothing. A string stands for its UTF-8 bytes in every locale, a lone surrogate in it for a
    byte that is not UTF-8. Raises `Invalid` for another type and `BadNamespace` for a closed file.
    """
    if netns is None:
        return "current"
    if isinstance(netns, int) and not isinstance(netns, bool):
        return "/proc/%d/ns/net" % netns
    if isinstance(netns, str):
        if netns.isdecimal():
            return "/proc/%s/ns/net" % netns
        return netns if "/" in netns else _path_of(netns)
    if hasattr(netns, "fileno"):
        return "/proc/self/fd/%d" % _fileno(netns)
    if hasattr(netns, "__fspath__"):
        path = netns.__fspath__()
        return path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    raise Invalid("a namespace is a PID, a path, a name or a descriptor, not %r" % (netns,))


def _path_of(name: str) -> str:
    """Return the path of a named namespace; the first candidate if there is none."""
    candidates = [directory + "/" + name for directory in NAMED]
    present = (path for path in candidates if posix.access(_encode(path), posix.F_OK))
    return next(present, candidates[0])


def _fileno(file: "Any") -> int:
    try:
        return int(file.fileno())
    except (OSError, ValueError) as error:  # the file is closed, or has no descriptor
        raise BadNamespace(str(error), OPEN, repr(file)) from error


def _encode(path: str) -> bytes:
    try:
        data = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = b"\0"
    if b"\0" in data:
        raise BadNamespace("this cannot be a path", OPEN, repr(path))
    return data


class Namespace:
    """A network namespace that is held open. The current one needs no descriptor.

    ``Namespace(netns)`` opens what the public functions take as ``netns``. Close it, or use it in a
    ``with`` statement. ``path`` is that of `describe`. Raises `Refused`, `BadNamespace`, `Invalid`.
    """

    __slots__ = ("path", "_fd")

    def __init__(self, netns: "NetnsArgument" = None) -> None:
        self.path = describe(netns)
        self._fd: Optional[int] = None
        if netns is None:
            return
        if netns == "":  # of a variable that is not set, perhaps
            raise BadNamespace("the name is empty; give a PID, a path or a name", OPEN, self.path)
        self._fd = _open(self.path, netns)
        try:
            _check(self._fd, self.path)
        except BaseException:
            self.close()
            raise

    def identity(self) -> "Tuple[int, int]":
        """Return the device and inode numbers, the same for every path to the namespace."""
        own = "/proc/thread-self/ns/net"
        try:
            found = posix.stat(own) if self._fd is None else posix.fstat(self._fd)
        except OSError as error:
            raise refused(error, "look at", own if self._fd is None else self.path) from None
        return found.st_dev, found.st_ino

    def run(self, function: "Callable[[], T]") -> "T":
        """Call a function inside the namespace; return what it returns, raise what it raises."""
        if self._fd is None:
            return function()

        def inside() -> "T":
            self.enter()
            return function()

        from . import threads

        return threads.on_own_thread(inside)

    def enter(self) -> "Namespace":
        """Move the calling thread into the namespace for good; return the current `Namespace`.

        Use it only on a thread that was started for this purpose. That thread may enter another
        namespace later.
        """
        step = "enter namespace"
        if self.fileno() < 0:
            raise Refused(errno.EBADF, "it is closed, or the current one", step, self.path)
        from . import libc

        libc.call("setns", step, self.path, self.fileno(), uapi.CLONE_NEWNET)
        here = Namespace()
        here.path = self.path
        return here

    def fileno(self) -> int:
        """Return the descriptor; -1 for the current namespace, and after `close`."""
        return -1 if self._fd is None else self._fd

    def close(self) -> None:
        if self.fileno() >= 0:
            close(self.fileno())
            self._fd = -1  # not None, which would mean the current namespace

    def __enter__(self) -> "Namespace":
        return self

    def __exit__(
        self,
        kind: "Optional[Type[BaseException]]",
        error: "Optional[BaseException]",
        trace: "Optional[TracebackType]",
    ) -> None:
        self.close()


def identity_of(path: str) -> "Optional[Tuple[int, int]]":
    """Device and inode of what is at a path; None if it cannot be seen."""
    try:
        found = posix.stat(path)
    except (OSError, ValueError):  # a NUL in it
        return None
    return found.st_dev, found.st_ino


def nodes_own() -> "Set[Tuple[int, int]]":
    """The node's own namespaces, by device and inode: that of the caller and that of process 1.

    The latter is left out if it cannot be seen; a user who may not look at it cannot enter it.
    """
    found = {Namespace().identity()}
    first = identity_of("/proc/1/ns/net")
    if first is not None:
        found.add(first)
    return found


def close(fd: int) -> None:
    """Close a descriptor, and ignore an error: the descriptor is gone all the same (close(2))."""
    try:
        posix.close(fd)
    except OSError:
        pass


def _open(path: str, netns: "NetnsArgument") -> int:
    try:
        if netns is not None and not isinstance(netns, (int, str)) and hasattr(netns, "fileno"):
            return posix.dup(_fileno(netns))  # children do not inherit it (PEP 446)
        # O_NONBLOCK: a FIFO at that path must not make this process wait
        return posix.open(_encode(path), posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError as error:
        words = _why_missing(netns) if error.errno == errno.ENOENT else ""
        if words:
            raise Refused(errno.ENOENT, words, OPEN, path) from error
        raise _not_opened(error, path) from error


def _not_opened(error: OSError, path: str) -> Refused:
    from . import libc

    remedies = dict(libc.REMEDIES)
    remedies[errno.ENOENT] = WHERE
    if path.startswith("/proc/"):
        remedies[errno.EACCES] = "it takes CAP_SYS_PTRACE, unless the process is this user's"
    return refused(error, OPEN, path, remedies)


def _why_missing(netns: "NetnsArgument") -> str:
    """Say what is missing: a process or a name; "" for a path."""
    if isinstance(netns, (int, str)) and str(netns).isdecimal():
        return "there is no process %s, or it has ended; `lsns -t net` lists PIDs" % netns
    if isinstance(netns, str) and "/" not in netns:
        words = "there is no namespace of that name in %s; `ip netns` lists them"
        return words % " or ".join(NAMED)
    return ""


def _check(fd: int, path: str) -> None:
    """Raise `BadNamespace` unless a descriptor is that of a network namespace (ioctl_ns(2))."""
    try:
        kind = _kind(fd)
    except OSError as error:
        raise _not_opened(error, path) from None
    if kind is None:
        file = posix.fstat(fd)
        is_empty = file.st_mode & uapi.S_IFMT == uapi.S_IFREG and file.st_size == 0
        # what is left of a pinned namespace without its mount
        words = "this is an empty file: no namespace is mounted here"
        words = words if is_empty else "this is not a namespace; " + WHERE
        raise BadNamespace(words, OPEN, path)
    if kind != uapi.CLONE_NEWNET:
        found = uapi.CLONE_NAMES.get(kind, "unknown")
        words = "this is a namespace of the %s kind, not a network namespace" % found
        raise BadNamespace(words, OPEN, path)


def _kind(fd: int) -> "Optional[int]":
    """Return the CLONE_NEW* flag of a namespace's kind; None for any other file."""
    # The files of nsfs are regular files. No other kind of file gets the ioctl: to a device the
    # same number may mean another request.
    if posix.fstat(fd).st_mode & uapi.S_IFMT != uapi.S_IFREG:
        return None
    try:
        return int(ioctl(fd, uapi.NS_GET_NSTYPE))
    except OSError as error:
        if error.errno == errno.ENOTTY:
            return None
        raise


def ioctl(fd: int, number: int, argument: "Any" = 0) -> "Any":
    """Call fcntl.ioctl() with the number that the request has on this machine."""
    import fcntl

    return fcntl.ioctl(fd, uapi.ioctl(number, _MACHINE), argument)


def create() -> Namespace:
    """Make a network namespace. It exists as long as the result, or anything else, holds it."""

    def inside() -> Namespace:
        unshare(uapi.CLONE_NEWNET)
        return Namespace("/proc/thread-self/ns/net")

    from . import threads

    return threads.on_own_thread(inside)


def unshare(kinds: int) -> None:
    """Move the calling thread into new namespaces of these kinds (CLONE_NEW*; unshare(2)).

    With CLONE_NEWUSER this must be the only thread of its process.
    """
    names = [name for bit, name in uapi.CLONE_NAMES.items() if kinds & bit]
    noun = "namespace" if len(names) == 1 else "namespaces"
    from . import libc

    libc.call("unshare", "create", "%s %s" % (", ".join(names), noun), kinds)

# SPDX-License-Identifier: Apache-2.0
"""Find, name and enter network namespaces.

A namespace is opened once and held by its descriptor, so that whatever happens to its path or its process
meanwhile, it stays the one that was meant. It is entered on a thread of its own, which ends inside: the
caller's thread never moves, and nothing has to be restored.
"""

import _thread
import errno
import fcntl
import posix  # what os is made of; os itself takes a quarter of an interpreter's start to import
from _weakref import ref

from . import uapi
from .errors import BadNamespace, Error, Invalid, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType
    from typing import Any, Callable, Dict, List, Optional, Protocol, Tuple, Type, TypeVar, Union

    class HasFileno(Protocol):
        def fileno(self) -> int: ...

    NetnsArgument = Union[None, int, str, "PathLike[str]", HasFileno]
    T = TypeVar("T")

# The step in which a namespace that is not there shows.
OPEN = "open namespace"

# Where `ip netns` and its like pin namespaces by name.
NAMED = ("/run/netns", "/var/run/netns")

# Where container runtimes pin namespaces.
DIRECTORIES = NAMED + ("/run/docker/netns", "/var/run/docker/netns")


def describe(netns: "NetnsArgument") -> str:
    """The path by which a namespace is opened and reports speak of it; "current" for None. Opens nothing.

    Text stands for its UTF-8 bytes, a lone surrogate for a byte that is none, whatever the locale.
    """
    if netns is None:
        return "current"
    if isinstance(netns, int) and not isinstance(netns, bool):
        return "/proc/%d/ns/net" % netns
    if isinstance(netns, str):
        if netns.isdecimal():
            return "/proc/%s/ns/net" % netns
        if "/" in netns:
            return netns
        candidates = [directory + "/" + netns for directory in NAMED]
        return next((path for path in candidates if posix.access(_encode(path), posix.F_OK)), candidates[0])
    if hasattr(netns, "fileno"):
        return "/proc/self/fd/%d" % _fileno(netns)
    if hasattr(netns, "__fspath__"):
        path = netns.__fspath__()
        return path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    raise Invalid("a namespace is a PID, a path, a name or a descriptor, not %r" % (netns,))


def _fileno(file: "Any") -> int:
    try:
        return int(file.fileno())
    except (OSError, ValueError) as error:  # closed, or no file behind it
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
    """A network namespace held open; ``path`` is for people. The current one needs no descriptor.

    ``Namespace(netns)`` opens what the public functions take as ``netns``; close it, or use it in a ``with``.
    """

    __slots__ = ("path", "_fd")

    def __init__(self, netns: "NetnsArgument" = None) -> None:
        self.path = describe(netns)
        self._fd: Optional[int] = None
        if netns is None:
            return
        self._fd = _open(self.path, netns)
        try:
            _check(self._fd, self.path)
        except BaseException:
            self.close()
            raise

    def identity(self) -> "tuple[int, int]":
        """Device and inode: two paths to one namespace have the same."""
        found = posix.stat("/proc/thread-self/ns/net") if self._fd is None else posix.fstat(self._fd)
        return found.st_dev, found.st_ino

    def run(self, function: "Callable[[], T]") -> "T":
        """Call a function inside the namespace and hand on what it returns or raises."""
        if self._fd is None:
            return function()

        def inside() -> "T":
            self.enter()
            return function()

        return on_own_thread(inside)

    def enter(self) -> "Namespace":
        """Move the calling thread into the namespace for good, and return it as the current one.

        For a thread of one's own, which may go on to enter another, and ends some day.
        """
        if self.fileno() < 0:
            raise Refused(errno.EBADF, "it is closed, or the current one", "enter namespace", self.path)
        _call("setns", "enter namespace", self.path, self.fileno(), uapi.CLONE_NEWNET)
        here = Namespace()
        here.path = self.path
        return here

    def fileno(self) -> int:
        """The descriptor; -1 for the current namespace, or once closed."""
        return -1 if self._fd is None else self._fd

    def close(self) -> None:
        if self.fileno() >= 0:
            close(self.fileno())
            self._fd = -1  # not None, which would mean the current namespace

    def __enter__(self) -> "Namespace":
        return self

    def __exit__(
        self, kind: "Optional[Type[BaseException]]", error: "Optional[BaseException]", trace: "Optional[TracebackType]"
    ) -> None:
        self.close()


def close(fd: int) -> None:
    """Close a descriptor. Whatever is answered it is gone (close(2)), and nothing is left to be told or done."""
    try:
        posix.close(fd)
    except OSError:
        pass


def _open(path: str, netns: "NetnsArgument") -> int:
    try:
        if netns is not None and not isinstance(netns, (int, str)) and hasattr(netns, "fileno"):
            return posix.dup(_fileno(netns))  # not inherited by a child, like all of Python's
        # O_NONBLOCK: a FIFO of that name must not make us wait
        return posix.open(_encode(path), posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except FileNotFoundError as error:
        words = posix.strerror(errno.ENOENT)
        if isinstance(netns, (int, str)) and str(netns).isdecimal():
            words = "there is no process %s, or it has ended" % netns
        elif isinstance(netns, str) and "/" not in netns:
            words = "there is no namespace of that name in %s" % " or ".join(NAMED)
        raise Refused(errno.ENOENT, words, OPEN, path) from error
    except OSError as error:
        raise _refused(error, OPEN, path) from error


def _check(fd: int, path: str) -> None:
    """Make sure that a descriptor is a network namespace's (NS_GET_NSTYPE, ioctl_ns(2))."""
    try:
        # asked of a regular file alone, as nsfs has them: a device might take the number for something else
        kind = ioctl(fd, uapi.NS_GET_NSTYPE) if posix.fstat(fd).st_mode & uapi.S_IFMT == uapi.S_IFREG else None
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise _refused(error, OPEN, path) from None
        kind = None
    if kind is None:
        raise BadNamespace("this is no namespace", OPEN, path)
    if kind != uapi.CLONE_NEWNET:
        found = uapi.CLONE_NAMES.get(kind, "unknown")
        raise BadNamespace("this is a namespace of the %s kind, not a network namespace" % found, OPEN, path)


def ioctl(fd: int, number: int, argument: "Any" = 0) -> "Any":
    """fcntl.ioctl(), with the number that it has on this machine."""
    return fcntl.ioctl(fd, uapi.ioctl(number, _MACHINE), argument)


def create() -> Namespace:
    """Make a new network namespace, which lives as long as the descriptor returned, or whatever else holds it."""

    def inside() -> Namespace:
        unshare(uapi.CLONE_NEWNET)
        return Namespace("/proc/thread-self/ns/net")

    return on_own_thread(inside)


def unshare(kinds: int) -> None:
    """Move the calling thread into new namespaces; with CLONE_NEWUSER it must be the only one of its process (unshare(2))."""
    names = [name for bit, name in uapi.CLONE_NAMES.items() if kinds & bit]
    _call("unshare", "create namespace", ", ".join(names), kinds)


# Seconds after which it is looked whether a thread that has not ended ever began.
_STILLBORN = 1.0


def start(function: "Callable[[], T]") -> "Callable[[], T]":
    """Call a function on a thread of its own. Returns a function that waits for it, and hands on what it returned or raised."""
    returned: List[T] = []
    raised: List[BaseException] = []
    ended = _thread.allocate_lock()
    ended.acquire()

    def body() -> None:
        try:
            returned.append(function())
        except BaseException as error:
            raised.append(error)
        finally:
            ended.release()

    # Where there is no memory for body's frame, CPython ends the thread and tells nobody. That shows by its letting go of the
    # arguments of what it called: not of body, which some versions then never let go of, but of next(), which has no frame.
    argument: set[object] = set()
    alive = ref(argument)

    def wait() -> "T":
        while not ended.acquire(timeout=_STILLBORN) and alive() is not None:
            pass
        if raised:
            raise raised[0]
        if not returned:
            raise Refused(errno.ENOMEM, posix.strerror(errno.ENOMEM), "start thread")
        return returned[0]

    try:
        _thread.start_new_thread(next, (iter(body, None), argument))
    except (RuntimeError, MemoryError):
        raise Refused(errno.EAGAIN, "no thread could be started", "enter namespace") from None
    return wait


def on_own_thread(function: "Callable[[], T]") -> "T":
    """Call a function on a thread that ends with it."""
    return start(function)()


def _call(name: str, step: str, object: str, *numbers: int) -> None:
    """Make one of the system calls that Python has since 3.12 (os.setns, os.unshare), else the C library through ctypes."""
    try:
        function = getattr(posix, name, None)
        if function is None:
            try:
                function = _from_libc(name)
            except ImportError as error:
                raise Error(
                    "this Python has neither os.%s (3.12 and newer) nor ctypes (Debian: libpython3-stdlib); "
                    "only the current namespace can be used (%s)" % (name, error),
                    step,
                    object,
                ) from None
        function(*numbers)
    except OSError as error:
        raise _refused(error, step, object) from None


_MACHINE = posix.uname().machine

# What was found in the C library: looking it up takes longer than a call.
_libc: "Dict[str, Callable[..., None]]" = {}


def _from_libc(name: str) -> "Callable[..., None]":
    """A function of the C library that takes numbers and returns 0, or raises OSError."""
    if name not in _libc:
        try:
            function, errno_of = _by_half_of_ctypes(name)
        except (ImportError, AttributeError):  # not CPython
            from ctypes import CDLL, get_errno

            function, errno_of = getattr(CDLL(None, use_errno=True), name), get_errno

        def call(*numbers: int) -> None:
            if function(*numbers) != 0:
                raise OSError(errno_of(), name)

        _libc[name] = call
    return _libc[name]


def _by_half_of_ctypes(name: str) -> "Tuple[Callable[..., int], Callable[[], int]]":
    """The function, and what tells its errno, by the C half of ctypes alone: its Python half takes half a cold start to import,
    and does with these names no more than this (Lib/ctypes/__init__.py)."""
    import _ctypes as half

    kinds: Any = half  # private, so its names are in no stub
    integer = type("integer", (kinds._SimpleCData,), {"_type_": "i"})
    flags = kinds.FUNCFLAG_CDECL | kinds.FUNCFLAG_USE_ERRNO
    kind: Any = type("kind", (kinds.CFuncPtr,), {"_flags_": flags, "_restype_": integer})
    return kind(kinds.dlsym(kinds.dlopen(None, 0), name)), kinds.get_errno


def _refused(error: OSError, step: str, object: str) -> Refused:
    number = error.errno or 0
    words = posix.strerror(number)
    if number == errno.EPERM:
        words += "; it takes CAP_SYS_ADMIN, here and in the user namespace that owns it"
    return Refused(number, words, step, object)

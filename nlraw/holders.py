# SPDX-License-Identifier: Apache-2.0
"""Find the processes that hold a TAP. This is for people to read; no verdict depends on it.

The fdinfo of a TUN descriptor names its TAP (tun_chr_show_fdinfo(), drivers/net/tun.c), but not the
TAP's namespace, and a descriptor may have been passed to a process of another namespace. Where the
kernel allows it, the descriptor is duplicated for a moment, to ask the kernel for the namespace.
Otherwise a TAP is taken to be in the process's own namespace if a link of that name is there, else
in the namespace of the search.

Not visible here: a descriptor that no process has open, because vhost-net, an io_uring or a message
in flight holds it; one whose queue is detached; processes that /proc does not show.
"""

import errno
import posix

from . import uapi
from .errors import Error
from .netns import Namespace, close, ioctl
from .report import Holder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

    Identity = Tuple[int, int]

    # Takes a process ID, a descriptor of that process, and a TAP's name. Returns the TAP's
    # namespace, `NOWHERE` if the descriptor is no longer attached to that TAP, or None if that
    # cannot be known.
    NamespaceOf = Callable[[int, int, str], Optional[Identity]]

# The last holder of a TAP whose search was cut short: there may be more.
MORE = Holder(pid=None, comm=None)

# No namespace has this device and inode.
NOWHERE = (0, 0)

# Seconds that one search may take, and holders of one TAP to name.
SECONDS = 2.0
HOLDERS = 64

# The first descriptors of each process, which are looked at before any others: so one process with
# a million of them does not use up the time.
FIRST = 1024

# The most bytes to read of a file in /proc.
LIMIT = 1 << 20

# asm/unistd.h. The same on all machines except mips, which has three sets, and those in OFFSETS.
PIDFD_OPEN = 434
PIDFD_GETFD = 438
OFFSETS = {"alpha": 110, "ia64": 1024}

# linux/if_tun.h
TUNGETIFF = 0x800454D2
TUNGETDEVNETNS = 0x54E3

# Documentation/admin-guide/devices.txt
TUN_MAJOR, TUN_MINOR = 10, 200


def find(namespace: Namespace, names: "Iterable[str]") -> "Dict[str, Tuple[Holder, ...]]":
    """Return the holders of each of these TAPs of a namespace, sorted by process ID.

    Processes that end meanwhile, or that may not be read, are left out. Raises nothing. If the
    search was cut short, `MORE` is the last holder.
    """
    import time

    names = list(names)
    if not names:
        return {}
    try:
        identity = namespace.identity()
    except Error:
        return dict.fromkeys(names, (MORE,))
    search = Search(identity, names, namespace_of=_namespace_of(), clock=time.monotonic)
    search.run()
    return search.result()


class Search:
    """One search through ``proc``, for the TAPs ``names`` of the namespace ``identity``."""

    def __init__(
        self,
        identity: "Identity",
        names: "Iterable[str]",
        namespace_of: "Optional[NamespaceOf]",
        clock: "Callable[[], float]",
        proc: str = "/proc",
    ) -> None:
        self.identity = identity
        self.found: Dict[str, Dict[int, Holder]] = {name: {} for name in names}
        self.crowded: Set[str] = set()  # TAPs with more holders than are named
        self.namespace_of = namespace_of
        self.clock = clock
        self.deadline = clock() + SECONDS
        self.proc = proc
        self.is_cut = False

    def run(self) -> None:
        """Look at the first descriptors of every process, then at all others."""
        long = []
        for pid in self._processes():
            if self._is_late():
                return
            if self._look_at(pid, 0, FIRST):
                long.append(pid)
        for pid in long:
            self._look_at(pid, FIRST)

    def result(self) -> "Dict[str, Tuple[Holder, ...]]":
        """The holders by TAP."""
        result = {}
        for name, holders in self.found.items():
            named = [holders[pid] for pid in sorted(holders)]
            is_short = self.is_cut or name in self.crowded
            result[name] = tuple(named + [MORE] if is_short else named)
        return result

    def _processes(self) -> "Iterator[int]":
        """Every process, those in the namespace first: there the holders are most likely."""
        others = []
        for entry in _entries(self.proc):
            if not entry.isdecimal():
                continue
            if _identity("%s/%s" % (self.proc, entry)) == self.identity:
                yield int(entry)
            else:
                others.append(int(entry))
            if self._is_late():
                return
        yield from others

    def _path(self, pid: int) -> str:
        return "%s/%d" % (self.proc, pid)

    def _is_late(self) -> bool:
        self.is_cut = self.is_cut or self.clock() > self.deadline
        return self.is_cut

    def _look_at(self, pid: int, begin: int, end: "Optional[int]" = None) -> bool:
        """Look at some descriptors of a process; return True if it has more."""
        path = self._path(pid)
        has_any = False
        for at, entry in enumerate(_entries(path + "/fd")):
            has_any = True
            if self._is_late() or at == end:
                return True
            if at >= begin:
                self._look_at_descriptor(pid, path, entry)
        if not has_any:
            self._look_at_threads(pid, path)
        return False

    def _look_at_threads(self, pid: int, path: str) -> None:
        """Look at the descriptors of a process through its threads, if the first one has ended."""
        for thread in _entries(path + "/task"):
            task = "%s/task/%s" % (path, thread)
            for entry in _entries(task + "/fd"):
                if self._is_late():
                    return
                self._look_at_descriptor(pid, task, entry)

    def _look_at_descriptor(self, pid: int, path: str, entry: str) -> None:
        name = _tap_of(path, entry)
        if name is None or name not in self.found:
            return
        holders = self.found[name]
        if pid in holders or not self._is_meant(pid, path, int(entry), name):
            return
        if len(holders) < HOLDERS:
            holders[pid] = Holder(pid=pid, comm=_comm(self._path(pid)))
        else:
            self.crowded.add(name)

    def _is_meant(self, pid: int, path: str, fd: int, name: str) -> bool:
        """True if a descriptor's TAP of that name is in the namespace, as far as can be known."""
        if self.namespace_of is not None and path == self._path(pid):  # not the path of a thread
            exact = self.namespace_of(pid, fd, name)
            if exact is not None:
                return exact == self.identity
        if _identity(path) == self.identity:
            return True
        links = _links_of(path)
        return links is not None and name not in links


# ---------------------------------------------------------------- /proc


def _entries(directory: str) -> "Iterator[str]":
    """The names in a directory, read as they are needed; fewer if it cannot be read to its end."""
    try:
        with posix.scandir(directory) as entries:
            for entry in entries:
                yield entry.name
    except OSError:
        return


def _identity(path: str) -> "Optional[Identity]":
    """The network namespace of the process or thread at that path; None if it cannot be known."""
    try:
        found = posix.stat(path + "/ns/net")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _tap_of(path: str, entry: str) -> "Optional[str]":
    """The name of the TAP that a descriptor is attached to; None if there is none.

    The device's node may be anywhere: in a chroot, or unlinked. Its name must begin with "tun".
    """
    try:
        target = posix.readlink("%s/fd/%s" % (path, entry))
    except OSError:
        return None
    if not target.rpartition("/")[2].startswith("tun"):
        return None
    for line in (_read("%s/fdinfo/%s" % (path, entry)) or b"").split(b"\n"):
        if line.startswith(b"iff:\t"):
            return _decode(line[5:])
    return None


def _comm(path: str) -> str:
    """The command name of a process; empty if it has ended."""
    name = _read(path + "/comm") or b""
    return _decode(name[:-1] if name.endswith(b"\n") else name)


def _links_of(path: str) -> "Optional[List[str]]":
    """The names of the links in a process's namespace; None if they cannot all be read."""
    content = _read(path + "/net/dev")
    if not content or len(content) >= LIMIT:
        return None
    lines = [line for line in content.split(b"\n") if b":" in line]
    return [_decode(line.partition(b":")[0].strip()) for line in lines]


def _read(path: str) -> "Optional[bytes]":
    """The content of a file, at most `LIMIT` bytes; None if it cannot be read."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    chunks = []
    size = 0
    try:
        while size < LIMIT:
            chunk = posix.read(fd, LIMIT - size)
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
    except OSError:
        return None
    finally:
        close(fd)
    return b"".join(chunks)


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# ---------------------------------------------------------------- ask the kernel


def _namespace_of() -> "Optional[NamespaceOf]":
    """Return the function that asks the kernel for a TAP's namespace; None if Python cannot.

    None too on mips, and if /proc shows another PID namespace, in which the same IDs are those of
    other processes.
    """
    machine = posix.uname().machine
    try:
        if machine.startswith("mips") or posix.readlink("/proc/self") != str(posix.getpid()):
            return None
        from ctypes import CDLL, c_long, get_errno

        syscall = CDLL(None, use_errno=True).syscall
    except (ImportError, OSError, AttributeError):
        return None
    syscall.restype = c_long
    offset = OFFSETS.get(machine, 0)

    def call(number: int, *arguments: int) -> int:
        """Make a system call that returns a descriptor; raises OSError."""
        fd = int(syscall(c_long(number + offset), *map(c_long, arguments)))
        if fd < 0:
            raise OSError(get_errno(), "")
        return fd

    def namespace_of(pid: int, fd: int, name: str) -> "Optional[Identity]":
        try:
            process = call(PIDFD_OPEN, pid, 0)
            try:
                copy = call(PIDFD_GETFD, process, fd, 0)
            finally:
                close(process)
            try:
                return _namespace_of_tap(copy, name)
            finally:
                close(copy)  # at once: while it is open the TAP stays in use
        except OSError as error:
            return NOWHERE if error.errno in (errno.ESRCH, errno.EBADF, errno.EBADFD) else None

    return namespace_of


def _namespace_of_tap(fd: int, name: str) -> "Identity":
    """The namespace of the TAP that a descriptor is attached to; `NOWHERE` if it is another TAP.

    The process may have ended meanwhile, and its ID may belong to another process. So the
    descriptor may be of any file, and only that of a TUN device gets the ioctl: to another device
    the same number may mean another request. Raises OSError.
    """
    device = posix.fstat(fd).st_rdev
    if (posix.major(device), posix.minor(device)) != (TUN_MAJOR, TUN_MINOR):
        return NOWHERE
    request = ioctl(fd, TUNGETIFF, bytes(uapi.ifreq.size))
    if _decode(request[: uapi.IFNAMSIZ].rstrip(b"\0")) != name:
        return NOWHERE
    namespace = ioctl(fd, TUNGETDEVNETNS)
    try:
        found = posix.fstat(namespace)
    finally:
        close(namespace)
    return found.st_dev, found.st_ino

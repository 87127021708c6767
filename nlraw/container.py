# SPDX-License-Identifier: Apache-2.0
"""A container, as a hook sees it: its annotations, and its network namespace.

The rules by which `Container.namespace` finds the namespace:

- It is never the hook's own namespace, which is the node's, and never that of process 1.
- It is that of the container's process, while this is alive; else that at the path in the config.
- In a pod that path is often ``/proc/PID/ns/net``, where PID is the sandbox's process. The path in
  the sandbox's own config is better if it is a mount. A process ID alone may belong to another
  process by now: it counts if the process started before the container's config was written.
- In doubt nothing is done, and the reason is reported.

`oci` interprets state and config. This file makes the system calls; what it reads is limited in
size and time.
"""

import errno
import posix

from . import oci, uapi
from .errors import GONE, BadNamespace, Error, Refused, refused
from .netns import Namespace, close, identity_of, nodes_own
from .oci import Config, State
from .verdict import matches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional, Sequence, Tuple

    from .oci import Sandbox

    # Annotations that a container must have: key, and glob of the value.
    Wanted = Sequence[Tuple[str, str]]

# The most bytes to read. A pod on Kubernetes has at most 256 KiB of annotations; JSON may need six
# bytes for one byte.
LIMIT = 2 << 20

# Seconds in which all input must arrive. A runtime writes the state at once and closes the pipe.
PATIENCE = 5.0

_CLOCK_BOOTTIME = 7  # linux/time.h; Python has the name since 3.7


class LeftAlone(Exception):
    """A container is left alone; the text says why.

    ``is_doubt``: there may be something to do, but it is not certain in which namespace.
    """

    def __init__(self, why: str, is_doubt: bool = False) -> None:
        super().__init__(why)
        self.is_doubt = is_doubt


def shorten(text: str) -> str:
    """Cut a text from outside to `_SHOWN` characters."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


# The most characters that a message has of a text from outside.
_SHOWN = 100


# ---------------------------------------------------------------- read


def read(fd: int, step: str, object: str) -> bytes:
    """Read a descriptor to its end, within `LIMIT` bytes and `PATIENCE` seconds; raises `Error`."""
    import select
    import time

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + PATIENCE
    chunks: List[bytes] = []
    size = 0
    while size <= LIMIT:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(int(left * 1000) + 1):
            raise Error("it did not end within %d seconds" % PATIENCE, step, object)
        try:
            chunk = posix.read(fd, 1 << 16)
        except OSError as error:
            raise refused(error, step, object) from None
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
    raise Error("it is longer than %d bytes" % LIMIT, step, object)


def read_config(directory: str, *names: str) -> "Tuple[Config, float]":
    """Read the config.json in a directory, or in one below it: the config and its st_ctime.

    None of the names may be a symbolic link, config.json neither. Raises `Refused` if it cannot be
    opened, `Error` if it cannot be a config, and `LeftAlone` if it belongs neither to root nor to
    this user: its owner could name any namespace in it.
    """
    path = "/".join((directory,) + names + (CONFIG,))
    fd = -1
    at = directory + "/"  # of the first name; each other one is looked up in the one before
    try:
        for name in names:
            # O_DIRECTORY: a device of that name is not opened, which might do something
            fd, at = _open_in(fd, at + name, posix.O_DIRECTORY), ""
        fd = _open_in(fd, at + CONFIG, 0)
        file = posix.fstat(fd)
        if not _is_regular(file):
            raise Error("it is not a regular file", oci.READ_CONFIG, path)
        if file.st_uid not in (0, posix.geteuid()):
            words = "%s belongs to user %d, and not to root" % (path, file.st_uid)
            raise LeftAlone(words, is_doubt=True)
        return oci.config(read(fd, oci.READ_CONFIG, path), path), file.st_ctime
    except Refused:
        raise
    except OSError as error:
        raise refused(error, oci.READ_CONFIG, path, {} if names else _NO_BUNDLE) from None
    finally:
        close(fd)


def _open_in(directory: int, name: str, more: int) -> int:
    """Open a name in a directory (-1: an absolute path), and close the directory."""
    # O_NONBLOCK: a FIFO of that name must not make us wait
    flags = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOFOLLOW | more
    if directory < 0:
        return posix.open(oci.encode(name), flags)
    found = posix.open(oci.encode(name), flags, dir_fd=directory)
    close(directory)
    return found


CONFIG = "config.json"

# What to do about a bundle without a config.
_NO_BUNDLE = dict.fromkeys(
    (errno.ENOENT, errno.ENOTDIR), '"bundle" in the state names its directory'
)


# ---------------------------------------------------------------- the container


class Container:
    """A container: its state, and the config in its bundle, which is read when it is needed."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._config: Optional[Config] = None
        self._changed = 0.0  # when the config was last changed, on the real-time clock

    def config(self) -> Config:
        """Return the config; raises `Error` or `LeftAlone`."""
        if self._config is None:
            self._config, self._changed = read_config(self.state.bundle)
        return self._config

    def check(self, wanted: "Wanted") -> None:
        """Raise `LeftAlone` unless the container has all annotations that are wanted.

        An annotation that the state lacks is looked up in the config. Raises `Error` too.
        """
        for key, pattern in wanted:
            value = self._annotation(key)
            if value is None:
                raise LeftAlone("it has no annotation %s" % key)
            if not matches(pattern, value):
                words = "its annotation %s is %s, not %s"
                raise LeftAlone(words % (key, shorten(value), pattern))

    def _annotation(self, key: str) -> "Optional[str]":
        if key in self.state.annotations:
            return self.state.annotations[key]
        return self.config().annotations.get(key)

    def namespace(self) -> Namespace:
        """Return the container's network namespace, open. Raises `LeftAlone` or `Error`.

        A process in the node's namespace either shares the host's network or belongs to a VM
        runtime. A VM runtime puts the VM into the namespace that the config names.
        """
        nodes = nodes_own()
        process = None if self.state.pid is None else _open_process(_visible(self.state.pid))
        if process is not None:
            if process.identity() not in nodes:
                return process
            process.close()
        try:
            path = self.config().network
        except Error:
            if process is None:
                raise
            path = None
        if not path:
            is_new = path is not None and process is None
            raise LeftAlone(oci.NAMESPACE_GONE if is_new else oci.HOST_NETWORK)
        pid = oci.process_of(path)
        found = _open(path) if pid is None else self._of_sandbox(pid)
        if found is None:
            raise LeftAlone(oci.NAMESPACE_GONE)
        try:
            if found.identity() in nodes:
                raise LeftAlone(oci.HOST_NETWORK)
            if pid is None and self.state.status not in oci.ALIVE and not _is_pinned(found):
                raise LeftAlone(oci.NAMED_BY_PROCESS, is_doubt=True)
        except BaseException:
            found.close()
            raise
        return found

    # ------------------------------------------------------------ a pod

    def _of_sandbox(self, pid: int) -> Namespace:
        """Return the namespace of a pod; ``pid`` is the process of its sandbox."""
        pinned = self._pinned()
        try:
            process = self._of_process(pid)
        except LeftAlone:
            if pinned is None:
                raise
            return pinned
        if pinned is None:
            return process
        is_same = pinned.identity() == process.identity()
        process.close()
        if not is_same:
            pinned.close()
            raise LeftAlone(oci.TWO_NAMESPACES, is_doubt=True)
        return pinned

    def _pinned(self) -> "Optional[Namespace]":
        """Return the namespace at the mount that the sandbox's config names, None without one."""
        annotations = dict(self.config().annotations, **self.state.annotations)
        sandbox = oci.sandbox(self.state, annotations)
        if sandbox is None:
            return None
        path = self._path_of(sandbox)
        found = _open(path) if path else None
        if found is not None and not _is_pinned(found):
            found.close()
            return None
        return found

    def _path_of(self, sandbox: "Sandbox") -> "Optional[str]":
        try:
            config, _ = read_config(sandbox.directory, *sandbox.names)
        except Refused as error:
            if error.errno == errno.ENOENT:  # the manager keeps the config elsewhere, or it is gone
                return None
            raise
        if not oci.is_sandbox(sandbox, config):
            raise LeftAlone("%s is not its sandbox" % sandbox.names[0], is_doubt=True)
        return config.network

    def _of_process(self, pid: int) -> Namespace:
        """Return the namespace of a process that the config names.

        The process must have started before the config was written, and must still be in that
        namespace. Both are checked after the namespace was opened: if the ID had passed to another
        process, this one would have started later.
        """
        found = _open_process(pid)
        if found is None:
            raise LeftAlone(oci.NAMESPACE_GONE)
        try:
            if not self._is_meant(pid) or identity_of(found.path) != found.identity():
                raise LeftAlone(oci.NAMED_BY_PROCESS, is_doubt=True)
        except BaseException:
            found.close()
            raise
        return found

    def _is_meant(self, pid: int) -> bool:
        import time

        try:
            fd = posix.open("/proc/%d/stat" % pid, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:  # it has ended
            return False
        try:
            status = posix.read(fd, 4096)
        except OSError:
            return False
        finally:
            close(fd)
        ticks = posix.sysconf("SC_CLK_TCK")
        boot = time.clock_gettime(_CLOCK_BOOTTIME)
        return oci.is_older(status, ticks, boot, time.time(), self._changed)


# ---------------------------------------------------------------- namespaces


def _visible(pid: int) -> int:
    """Return a process ID if /proc shows the PID namespace that it belongs to; else raise `Error`.

    The hook createContainer runs in the container's PID namespace, in which the container's process
    is 1. The node's /proc is still mounted then; in it, process 1 is the node's first process.
    """
    try:
        shown = posix.readlink("/proc/self")
    except OSError as error:
        raise refused(error, "look at", "/proc/self") from None
    if shown != str(posix.getpid()):
        words = "/proc shows another PID namespace; is this createRuntime, prestart or poststop?"
        raise Error(words, "find process", str(pid))
    return pid


def _open_process(pid: int) -> "Optional[Namespace]":
    """Open the namespace of a process; None if it has ended."""
    return _open("/proc/%d/ns/net" % pid)


def _open(path: str) -> "Optional[Namespace]":
    """Open a namespace; None if it is gone."""
    try:
        return Namespace(path)
    except Refused as error:
        if error.is_gone:
            return None
        raise
    except BadNamespace:
        if _was_mounted_on(path):
            return None
        raise


def _was_mounted_on(path: str) -> bool:
    """True if a pinned namespace left an empty file, between umount and unlink, or nothing."""
    try:
        file = posix.stat(oci.encode(path))
        directory = posix.stat(oci.encode(path.rpartition("/")[0] + "/"))
    except OSError as error:
        return error.errno in GONE
    return _is_regular(file) and file.st_size == 0 and file.st_dev == directory.st_dev


def _is_regular(file: "posix.stat_result") -> bool:
    return file.st_mode & uapi.S_IFMT == uapi.S_IFREG


def _is_pinned(namespace: Namespace) -> bool:
    """True if a namespace was opened at a mount of its own.

    If it was opened through a process, by any link, the path of the descriptor is a name such as
    ``net:[4026531840]`` (d_path(), fs/d_path.c).
    """
    path = "/proc/self/fd/%d" % namespace.fileno()
    try:
        return posix.readlink(path).startswith("/")
    except OSError as error:
        raise refused(error, "look at", path) from None

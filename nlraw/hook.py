# SPDX-License-Identifier: Apache-2.0
"""The hook of an OCI runtime: read the container's state, find its network namespace, clean it up.

Two rules. Never touch the hook's own namespace, which is the node's. Never find a namespace by the
process of a stopped container: its number may belong to another process by now. If that leaves no
namespace, there is nothing to do.

`oci` interprets state and config. This file makes the system calls; what it reads is limited in
size and time.
"""

import posix

from . import oci, uapi
from .connection import Connection
from .errors import GONE, BadNamespace, Error, Refused, refused
from .netns import Namespace, close
from .oci import State
from .removal import remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional, Tuple, Union

    from .report import Report
    from .verdict import Target

# Bytes. A pod on Kubernetes has at most 256 KiB of annotations; JSON may need six bytes for one.
LIMIT = 2 << 20

# Seconds in which the whole state must arrive. A runtime writes it at once and closes the pipe.
PATIENCE = 5.0


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


def read_state(fd: int) -> State:
    """Read the container's state from a descriptor; raises `Error`.

    A terminal is refused at once: a person who starts the hook by hand need not wait.
    """
    if posix.isatty(fd):
        words = "it is a terminal; a container runtime writes the container's state here"
        raise Error(words, oci.READ_STATE, oci.STDIN)
    return oci.state(read(fd, oci.READ_STATE, oci.STDIN))


def read_network(bundle: str) -> "Optional[str]":
    """Read the config in a bundle and return what `oci.network` returns; raises `Error`."""
    path = bundle + "/config.json"
    try:
        # O_NONBLOCK: a FIFO at that path must not make us wait
        fd = posix.open(oci.encode(path), posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError as error:
        raise refused(error, oci.READ_CONFIG, path) from None
    try:
        if not _is_regular(posix.fstat(fd)):
            raise Error("it is not a regular file", oci.READ_CONFIG, path)
        return oci.network(read(fd, oci.READ_CONFIG, path), path)
    finally:
        close(fd)


def find(state: State) -> "Tuple[Optional[Namespace], str]":
    """Return the container's network namespace, open; else None and why there is nothing to do.

    It is the namespace of the container's process, else the one in its config. A process in the
    hook's own namespace shares the host's network, or belongs to a VM runtime, which puts the VM
    into the namespace in the config. Raises `Error`.
    """
    own = Namespace().identity()
    process = None if state.pid is None else _open(_visible(state.pid))
    if process is not None:
        if process.identity() != own:
            return process, ""
        process.close()
    try:
        path = read_network(state.bundle)
    except Error:
        if process is None:
            raise
        path = None
    if path is None:
        return None, oci.HOST_NETWORK
    if not path:
        return None, oci.NAMESPACE_GONE if process is None else oci.HOST_NETWORK
    found = _open(path)
    if found is None:
        return None, oci.NAMESPACE_GONE
    if found.identity() == own:
        why = oci.HOST_NETWORK
    elif state.status in oci.ALIVE or _is_pinned(found):
        return found, ""
    else:
        why = oci.NAMED_BY_PROCESS
    found.close()
    return None, why


def clean(namespace: Namespace, target: "Target") -> "Report":
    """Clean up an open namespace and close it; a failure is the ``error`` of the report."""
    with namespace, Connection(namespace, exclusive=True) as connection:
        return remove(connection, target)


def _visible(pid: int) -> int:
    """Return a process ID if /proc shows the PID namespace that it belongs to; else raise `Error`.

    createContainer runs in the container's PID namespace, in which the container's process is 1.
    The node's /proc is still mounted then, and its process 1 is the node's first one.
    """
    try:
        shown = posix.readlink("/proc/self")
    except OSError as error:
        raise refused(error, "look at", "/proc/self") from None
    if shown != str(posix.getpid()):
        words = "/proc shows another PID namespace; is this createRuntime, prestart or poststop?"
        raise Error(words, "find process", str(pid))
    return pid


def _open(netns: "Union[int, str]") -> "Optional[Namespace]":
    """Open a namespace; None if it is gone."""
    try:
        return Namespace(netns)
    except Refused as error:
        if error.is_gone:
            return None
        raise
    except BadNamespace:
        if isinstance(netns, str) and _was_mounted_on(netns):
            return None
        raise


def _was_mounted_on(path: str) -> bool:
    """True for what is left of a pinned namespace between its umount and unlink: an empty file."""
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

    If it was opened through a process, by whatever link, its path is a name such as
    ``net:[4026531840]`` (d_path(), fs/d_path.c).
    """
    path = "/proc/self/fd/%d" % namespace.fileno()
    try:
        return posix.readlink(path).startswith("/")
    except OSError as error:
        raise refused(error, "look at", path) from None

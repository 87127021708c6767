# SPDX-License-Identifier: Apache-2.0
"""An OCI runtime's hook: which namespace a container's state means, and a cleanup of it.

The law: never the hook's own namespace, which is the node's, and never by the process of a stopped container, whose number may
be another's by now. Where that leaves no namespace nothing is done.

    parse, state, network   text to JSON to what it means           pure
    read, find, clean       the state, the namespace, the work

What is read comes from outside: each thing has a type, a size and a time, or is refused with a word on what is wrong.
Source: the OCI runtime specification, runtime.md (State) and config-linux.md (Namespaces).
"""

import errno
import posix

from . import orphans, uapi
from .errors import BadNamespace, Error, Refused
from .netns import Namespace
from .orphans import Target
from .report import Record
from .route import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple, Union

    from .report import Report

# A pod has at most 256 KiB of annotations on Kubernetes, and JSON may need six bytes for one.
LIMIT = 2 << 20

# Seconds until all of the state must have come. A runtime writes it at once and closes the pipe.
PATIENCE = 5.0

# While the container is in one of these its process is there, and is the runtime's own child.
ALIVE = ("creating", "created", "running")

# Linux' limits: of a process ID (linux/threads.h, PID_MAX_LIMIT) and of a path (linux/limits.h, PATH_MAX).
_PID_MAX = 4 << 20
_PATH_MAX = 4096

# What says that a namespace is no longer at its path.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESRCH)

READ_STATE = "read container state from"
READ_CONFIG = "read container config"

STDIN = "stdin"

# Why there may be nothing to do.
HOST = "it has the host's network, which is left alone"
GONE = "its network namespace is gone"
OTHERS = "its network namespace is that of a process, which may be another's by now"


# ---------------------------------------------------------------- what the text means


class State(Record):
    """Of a container's state: its ``id``, its ``bundle`` (an absolute path), its ``status``, and ``pid``, the process whose
    namespaces are the container's; None where there is none, or none that counts."""

    __slots__ = ("id", "status", "pid", "bundle")

    if TYPE_CHECKING:
        id: str
        status: str
        pid: Optional[int]
        bundle: str


def parse(data: bytes) -> "object":
    """The JSON value that a text in UTF-8 stands for; raises ValueError for anything else, and for a key that stands twice."""
    text = data.decode("utf-8")
    try:
        # `json` takes as long to import as the interpreter to start, its scanner hardly any time. It raises whatever comes to it.
        from _json import make_scanner

        begin = len(text) - len(text.lstrip(_BLANK))
        value, end = make_scanner(_Rules)(text, begin)  # type: ignore[arg-type] # the stub asks for json's own decoder
        if not text[end:].strip(_BLANK):
            return value
    except Exception:
        pass  # a Python without that module, or a text that is wrong, which `json` explains
    import json

    return json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)


_BLANK = " \t\n\r"


def _object(pairs: "List[Tuple[str, object]]") -> "Dict[str, object]":
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20:  # more than 64 bits, and the time to convert it is quadratic
        raise ValueError("a number of %d digits" % len(digits))
    return int(digits)


def _constant(name: str) -> "object":
    raise ValueError("%s is no JSON" % name)


class _Rules:
    """What the scanner of `json` asks its decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = _object
    array_hook = None  # from 3.15 on
    parse_float = float
    parse_int = _integer
    parse_constant = _constant


def state(data: bytes) -> State:
    """The state that a runtime hands to a hook; raises `Error` if it is none.

    runc leaves the ``pid`` of a stopped container out, crun says 0. Whatever it says is no longer the container's.
    """
    found = _document(data, READ_STATE, STDIN)
    try:
        status = found.get("status")
        if not isinstance(status, str):  # Kata's is empty
            raise ValueError('there is no "status"')
        return State(
            id=_string(found, "id"),
            status=status,
            pid=_process(found.get("pid")) if status in ALIVE else None,
            bundle=_path(found, "bundle"),
        )
    except ValueError as error:
        raise Error(str(error), READ_STATE, STDIN) from None


def network(data: bytes, path: str) -> "Optional[str]":
    """The path of the network namespace in a container's config, which was at ``path``; "" for a new one, None for the host's."""
    found: Any = _document(data, READ_CONFIG, path)
    try:
        for key, kind in (("linux", dict), ("namespaces", list)):
            found = found.get(key)
            if found is None:  # Go writes null for an empty list
                return None
            if not isinstance(found, kind):
                raise ValueError('"%s" is of the wrong type' % key)
        if not all(isinstance(entry, dict) for entry in found):
            raise ValueError('"namespaces" holds what is no object')
        entries = [entry for entry in found if entry.get("type") == "network"]
        if len(entries) > 1:
            raise ValueError("there are two network namespaces")
        if not entries:
            return None
        return _path(entries[0], "path") if entries[0].get("path") else ""
    except ValueError as error:
        raise Error(str(error), READ_CONFIG, path) from None


def _document(data: bytes, step: str, object: str) -> "Dict[str, Any]":
    if not data.strip():
        raise Error("it is empty", step, object)
    try:
        found = parse(data)
    except RecursionError:
        raise Error("it is nested too deeply", step, object) from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise Error("it is no JSON: %s" % error, step, object) from None
    except ImportError:
        raise Error("this Python has no json module (Debian: libpython3-stdlib)", step, object) from None
    if not isinstance(found, dict):
        raise Error("it is no JSON object", step, object)
    return found


def _string(found: "Dict[str, Any]", key: str) -> str:
    value = found.get(key)
    if not isinstance(value, str) or not 0 < len(value) < _PATH_MAX:
        what = "there is no" if value is None else "not a text of 1 to %d characters:" % (_PATH_MAX - 1)
        raise ValueError('%s "%s"' % (what, key))
    return value


def _path(found: "Dict[str, Any]", key: str) -> str:
    value = _string(found, key)
    try:
        data = _encode(value)
    except UnicodeEncodeError:
        data = b""
    if data[:1] != b"/" or b"\0" in data:
        raise ValueError('"%s" is no absolute path' % key)
    return value


def _encode(path: str) -> bytes:
    """The bytes of a path, whatever the locale."""
    return path.encode("utf-8", "surrogateescape")


def _process(value: "object") -> "Optional[int]":
    if value is None or (type(value) is int and value == 0):
        return None
    if type(value) is not int or not 0 < value <= _PID_MAX:  # True is an int, too
        raise ValueError('"pid" is no process ID')
    return value


# ---------------------------------------------------------------- the system


def read(fd: int, step: str, object: str) -> bytes:
    """All there is to read, within `LIMIT` bytes and `PATIENCE` seconds; raises `Error`."""
    import select
    import time

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    end = time.monotonic() + PATIENCE
    chunks: List[bytes] = []
    size = 0
    while size <= LIMIT:
        left = end - time.monotonic()
        if left <= 0 or not poll.poll(int(left * 1000) + 1):
            raise Error("it did not end within %d seconds" % PATIENCE, step, object)
        try:
            chunk = posix.read(fd, 1 << 16)
        except OSError as error:
            raise _refused(error, step, object) from None
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
    raise Error("it is longer than %d bytes" % LIMIT, step, object)


def read_state(fd: int) -> State:
    """The state that comes from a descriptor. Whoever starts a hook by hand is told at once what it waits for."""
    if posix.isatty(fd):
        raise Error("it is a terminal; a container runtime writes the container's state here", READ_STATE, STDIN)
    return state(read(fd, READ_STATE, STDIN))


def read_network(bundle: str) -> "Optional[str]":
    """What `network` says of the config in a bundle."""
    path = bundle + "/config.json"
    try:
        # O_NONBLOCK: a FIFO of that name must not make us wait
        fd = posix.open(_encode(path), posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError as error:
        raise _refused(error, READ_CONFIG, path) from None
    try:
        if not _is_regular(posix.fstat(fd)):
            raise Error("it is no regular file", READ_CONFIG, path)
        return network(read(fd, READ_CONFIG, path), path)
    finally:
        posix.close(fd)


def find(state: State) -> "Tuple[Optional[Namespace], str]":
    """The container's network namespace, held open; else None, and why there is nothing to do.

    It is the one that the container's process is in, or else the one in its config. A process in the hook's own namespace
    shares the host's network, or is a VM runtime's own, which puts the VM into the one in the config.
    """
    own = _own()
    inside = None if state.pid is None else _open(_shown(state.pid))
    if inside is not None:
        if inside.identity() != own:
            return inside, ""
        inside.close()
    try:
        path = read_network(state.bundle)
    except Error:
        if inside is None:
            raise
        path = None
    if path is None:
        return None, HOST
    if not path:
        return None, HOST if inside is not None else GONE
    found = _open(path)
    if found is None:
        return None, GONE
    if found.identity() != own and (state.status in ALIVE or _is_pinned(found)):
        return found, ""
    why = HOST if found.identity() == own else OTHERS
    found.close()
    return None, why


def _shown(pid: int) -> int:
    """The process ID, if /proc shows ours. In the container's PID namespace, where createContainer runs, the container's process
    is 1; in the node's /proc, which is still mounted then, that is the node's first process."""
    try:
        shown = posix.readlink("/proc/self")
    except OSError as error:
        raise _refused(error, "look at", "/proc/self") from None
    if shown != str(posix.getpid()):
        words = "/proc shows another PID namespace; is this createRuntime, prestart or poststop?"
        raise Error(words, "find process", str(pid))
    return pid


def _own() -> "Tuple[int, int]":
    try:
        return Namespace().identity()
    except OSError as error:
        raise _refused(error, "look at", "/proc/thread-self/ns/net") from None


def _open(netns: "Union[int, str]") -> "Optional[Namespace]":
    """The namespace, None if it is gone."""
    try:
        return Namespace(netns)
    except Refused as error:
        if error.errno in _GONE:
            return None
        raise
    except BadNamespace:
        if isinstance(netns, str) and _was_mounted_on(netns):
            return None
        raise


def _was_mounted_on(path: str) -> bool:
    """Whether a path is what remains of a pinned namespace between its umount and its unlink: an empty file."""
    try:
        file, directory = posix.stat(_encode(path)), posix.stat(_encode(path.rpartition("/")[0] + "/"))
    except OSError as error:
        return error.errno in _GONE
    return _is_regular(file) and file.st_size == 0 and file.st_dev == directory.st_dev


def _is_regular(file: "posix.stat_result") -> bool:
    return file.st_mode & uapi.S_IFMT == uapi.S_IFREG


def _is_pinned(namespace: Namespace) -> bool:
    """Whether it was opened at a mount of its own. Of one that was opened by a process the kernel has no path, but a name such as
    ``net:[4026531840]``, whatever link led there (d_path(), fs/d_path.c)."""
    return posix.readlink("/proc/self/fd/%d" % namespace.fileno()).startswith("/")


def _refused(error: OSError, step: str, object: str) -> Refused:
    return Refused(error.errno or 0, posix.strerror(error.errno or 0), step, object)


def clean(namespace: Namespace, target: Target) -> "Report":
    """`orphans.cleanup` of a namespace that is held open, and closed in the end."""
    with namespace, Route(namespace, alone=True) as route:
        return orphans.remove(route, target)

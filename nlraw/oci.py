# SPDX-License-Identifier: Apache-2.0
"""What an OCI runtime writes: the state that a hook reads, and the config in a container's bundle.

This file makes no system call. Its input comes from outside: the type of each field is checked, and
a wrong text is refused with the reason. All but `parse` and `encode` raise only `Error`.

    parse        from a text: the JSON value
    state        from a text: the container's process, bundle and annotations
    config       from a text: the path of the network namespace, and the annotations
    sandbox      from annotations: the bundle of the pod's sandbox
    process_of   from a path: the process ID in it
    is_older     from /proc/PID/stat: whether a process started before a config was written

Source: the OCI runtime specification, runtime.md (State) and config-linux.md (Namespaces).
"""

from .errors import Error
from .report import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

# In these states the container's process exists.
ALIVE = ("creating", "created", "running")

READ_STATE = "read container state from"
READ_CONFIG = "read container config"
STDIN = "stdin"

# The reasons why there is nothing to do for a container.
HOST_NETWORK = "it has the host's network, which is left alone"
NAMESPACE_GONE = "its network namespace is gone"
NAMED_BY_PROCESS = "its network namespace is named by a process, which may be another one by now"
TWO_NAMESPACES = "the network namespace of its sandbox is not the one that its config names"

# Limits of Linux: of a process ID (linux/threads.h, PID_MAX_LIMIT), of a path (linux/limits.h).
_PID_MAX = 4 << 20
_PATH_MAX = 4096


class State(Record):
    """A container's state: ``id``, ``status``, ``pid``, ``bundle`` and ``annotations``, a dict.

    ``pid`` is the process whose namespaces are the container's, None if there is none. ``bundle``
    is an absolute path.
    """

    __slots__ = ("id", "status", "pid", "bundle", "annotations")

    if TYPE_CHECKING:
        id: str
        status: str
        pid: Optional[int]
        bundle: str
        annotations: Dict[str, str]


class Config(Record):
    """A container's config: the path of its ``network`` namespace, and its ``annotations``.

    ``network`` is "" for a new namespace, and None for the host's.
    """

    __slots__ = ("network", "annotations")

    if TYPE_CHECKING:
        network: Optional[str]
        annotations: Dict[str, str]


# ---------------------------------------------------------------- text to JSON


def parse(data: bytes) -> "object":
    """Return the JSON value of a text in UTF-8.

    Raises ValueError if it is not JSON or not UTF-8, or if an object has two equal keys. Raises
    RecursionError if it is nested too deeply, ImportError if this Python has no json module.
    """
    text = data.decode("utf-8")
    try:
        # The scanner that json itself uses. It takes hardly any time to import; json takes as long
        # as the start of the interpreter.
        from _json import make_scanner

        begin = len(text) - len(text.lstrip(_BLANK))
        scan = make_scanner(_Rules)  # type: ignore[arg-type] # the stub wants json's own decoder
        value, end = scan(text, begin)
        if not text[end:].strip(_BLANK):
            return value
    except Exception:  # without a decoder it raises errors of many kinds
        pass  # json reports what is wrong, or reads the text if there is no _json
    import json

    return json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)


_BLANK = " \t\n\r"


def _object(pairs: "List[Tuple[str, object]]") -> "Dict[str, object]":
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20:  # over 64 bits; the conversion takes quadratic time
        raise ValueError("a number of %d digits" % len(digits))
    return int(digits)


def _constant(name: str) -> "object":
    raise ValueError("%s is not JSON" % name)


class _Rules:
    """The attributes of a decoder that json's scanner reads."""

    strict = True
    object_hook = None
    object_pairs_hook = _object
    array_hook = None  # since 3.15
    parse_float = float
    parse_int = _integer
    parse_constant = _constant


def _document(data: bytes, step: str, object: str) -> "Dict[str, Any]":
    """Return the JSON object of a text; raises `Error`."""
    if not data.strip():
        raise Error("it is empty", step, object)
    try:
        found = parse(data)
    except RecursionError:
        raise Error("it is nested too deeply", step, object) from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise Error("it is not JSON: %s" % error, step, object) from None
    except ImportError:
        words = "this Python has no json module (Debian: libpython3-stdlib)"
        raise Error(words, step, object) from None
    if not isinstance(found, dict):
        raise Error("it is not a JSON object", step, object)
    return found


# ---------------------------------------------------------------- JSON to what it means


def state(data: bytes) -> State:
    """Return the state that a runtime writes to a hook's stdin; raises `Error`.

    The ``pid`` of a container that is not alive is ignored. runc leaves it out and crun writes 0;
    any other number may belong to another process by now.
    """
    found = _document(data, READ_STATE, STDIN)
    try:
        status = found.get("status")
        if not isinstance(status, str):  # it may be empty, as Kata's is
            raise ValueError('there is no "status"')
        return State(
            id=_string(found, "id"),
            status=status,
            pid=_process(found.get("pid")) if status in ALIVE else None,
            bundle=_path(found, "bundle"),
            annotations=_annotations(found),
        )
    except ValueError as error:
        raise Error(str(error), READ_STATE, STDIN) from None


def config(data: bytes, path: str) -> Config:
    """Return the config of a container; `path` is the file's, for the error. Raises `Error`."""
    found = _document(data, READ_CONFIG, path)
    try:
        return Config(network=_network(found), annotations=_annotations(found))
    except ValueError as error:
        raise Error(str(error), READ_CONFIG, path) from None


def _network(config: "Dict[str, Any]") -> "Optional[str]":
    entries = [entry for entry in _namespaces(config) if entry.get("type") == "network"]
    if len(entries) > 1:
        raise ValueError("there are two network namespaces")
    if not entries:
        return None
    return _path(entries[0], "path") if entries[0].get("path") else ""


def _namespaces(config: "Dict[str, Any]") -> "List[Dict[str, Any]]":
    found: Any = config
    for key, kind in (("linux", dict), ("namespaces", list)):
        found = found.get(key)
        if found is None:  # Go writes null for an empty list
            return []
        if not isinstance(found, kind):
            raise ValueError('"%s" has the wrong type' % key)
    if not all(isinstance(entry, dict) for entry in found):
        raise ValueError('"namespaces" has an entry that is not an object')
    return list(found)


def _annotations(found: "Dict[str, Any]") -> "Dict[str, str]":
    value = found.get("annotations")
    if value is None:  # Go writes null for an empty map
        return {}
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError('"annotations" is not an object of strings')
    return value


def _string(found: "Dict[str, Any]", key: str) -> str:
    value = found.get(key)
    if value is None:
        raise ValueError('there is no "%s"' % key)
    if not isinstance(value, str) or not 0 < len(value) < _PATH_MAX:
        raise ValueError('"%s" is not a string of 1 to %d characters' % (key, _PATH_MAX - 1))
    return value


def _path(found: "Dict[str, Any]", key: str) -> str:
    value = _string(found, key)
    try:
        data = encode(value)
    except UnicodeEncodeError:
        data = b""
    if data[:1] != b"/" or b"\0" in data:
        raise ValueError('"%s" is not an absolute path' % key)
    return value


def encode(path: str) -> bytes:
    """Return the bytes of a path, whatever the locale."""
    return path.encode("utf-8", "surrogateescape")


def _process(value: "object") -> "Optional[int]":
    if value is None or (type(value) is int and value == 0):
        return None
    if type(value) is not int or not 0 < value <= _PID_MAX:  # not isinstance: True is an int, too
        raise ValueError('"pid" is not a process ID')
    return value


# ---------------------------------------------------------------- a pod's sandbox

# How container managers announce the sandbox of a pod. An entry has the annotation with the
# sandbox's ID, the annotation with the kind of a container, and the path of a bundle below the
# directory that is named by the ID. The first entry is for Kubernetes pods under containerd, the
# second for pods of CRI-O and podman.
_MANAGERS = (
    ("io.kubernetes.cri.sandbox-id", "io.kubernetes.cri.container-type", ()),
    ("io.kubernetes.cri-o.SandboxID", "io.kubernetes.cri-o.ContainerType", ("userdata",)),
)


class Sandbox(Record):
    """Where the bundle of a pod's sandbox is: a ``directory``, and the ``names`` below it.

    The directories of a pod's containers are in one directory.
    """

    __slots__ = ("directory", "names")

    if TYPE_CHECKING:
        directory: str
        names: Tuple[str, ...]

    @property
    def path(self) -> str:
        return "/".join((self.directory,) + self.names)


def sandbox(state: State, annotations: "Dict[str, str]") -> "Optional[Sandbox]":
    """Return the sandbox that a container's annotations name, None if they name none.

    None too if the bundle's path has another layout. Annotations come from outside: raises `Error`
    for an ID that is not a plain file name.
    """
    for key, _, tail in _MANAGERS:
        if key not in annotations:
            continue
        name = annotations[key]
        if not is_plain(name):
            raise Error("this is not the name of a sandbox", "check annotation " + key, name)
        parts = state.bundle.rstrip("/").split("/")
        above = len(tail) + 1
        if len(parts) <= above or tuple(parts[len(parts) - len(tail) :]) != tail:
            continue  # another layout
        return Sandbox(directory="/".join(parts[:-above]) or "/", names=(name,) + tail)
    return None


def is_plain(name: str) -> bool:
    """True for the name of an entry in a directory: no path, and neither "." nor ".."."""
    try:
        return (
            0 < len(encode(name)) < 256 and name not in (".", "..") and not set(name) & set("/\0")
        )
    except UnicodeEncodeError:
        return False


def is_sandbox(found: Sandbox, config: Config) -> bool:
    """True unless a config says that it belongs to another container than this sandbox.

    The config of podman's infra container does not say what it is.
    """
    for key, kind, _ in _MANAGERS:
        own = config.annotations.get(key, found.names[0])
        if own != found.names[0] or config.annotations.get(kind, "sandbox") != "sandbox":
            return False
    return True


# ---------------------------------------------------------------- a process that a path names


def process_of(path: str) -> "Optional[int]":
    """Return the process ID in a path such as ``/proc/4242/ns/net``; None for another path."""
    head, _, rest = path[1:].partition("/")
    digits, _, tail = rest.partition("/")
    if head != "proc" or tail != "ns/net" or not digits.isdecimal() or len(digits) > 7:
        return None
    return int(digits) if str(int(digits)) == digits else None  # neither 007 nor non-ASCII digits


def is_older(status: bytes, ticks: int, boot: float, now: float, changed: float) -> bool:
    """True if a process is certain to have started before a file was last changed.

    ``status`` is the content of /proc/PID/stat. Its field 22 is the start of the process in ticks
    of the boot clock; ``ticks`` of them make a second. ``boot`` and ``now`` are the boot clock and
    the real-time clock at one moment, ``boot`` read first; ``changed`` is the file's st_ctime.
    """
    # the second field, the command, may hold any bytes; it ends with the last parenthesis
    fields = status.rpartition(b")")[2].split()
    if len(fields) < 20 or not fields[19].isdigit():
        return False
    started = int(fields[19]) / ticks + now - boot
    # A start is rounded down to a tick, and st_ctime to a timer tick of the kernel. A change in the
    # future means that the real-time clock was set back.
    return started + 2 / ticks < changed <= now + 2 / ticks

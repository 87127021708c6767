# SPDX-License-Identifier: Apache-2.0
"""What an OCI runtime writes: the state that a hook reads, and the config in a container's bundle.

This file makes no system call. Its input comes from outside: each field has a type and a size that
is checked, or the text is refused with the reason. It raises `Error` and nothing else.

    parse      text to JSON
    state      JSON to the container's process and bundle
    network    JSON to the path of the container's network namespace

Source: the OCI runtime specification, runtime.md (State) and config-linux.md (Namespaces).
"""

from .errors import Error
from .report import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

# In these states the container's process exists, and is a child of the runtime.
ALIVE = ("creating", "created", "running")

READ_STATE = "read container state from"
READ_CONFIG = "read container config"
STDIN = "stdin"

# The reasons why there is nothing to do for a container.
HOST_NETWORK = "it has the host's network, which is left alone"
NAMESPACE_GONE = "its network namespace is gone"
NAMED_BY_PROCESS = (
    "its network namespace is named by a process ID, which may belong to another process by now"
)

# Limits of Linux: of a process ID (linux/threads.h, PID_MAX_LIMIT), of a path (linux/limits.h).
_PID_MAX = 4 << 20
_PATH_MAX = 4096


class State(Record):
    """A container's state: its ``id``, ``status``, ``pid`` and ``bundle`` (an absolute path).

    ``pid`` is the process whose namespaces are the container's, None if there is none.
    """

    __slots__ = ("id", "status", "pid", "bundle")

    if TYPE_CHECKING:
        id: str
        status: str
        pid: Optional[int]
        bundle: str


# ---------------------------------------------------------------- text to JSON


def parse(data: bytes) -> "object":
    """Return the JSON value of a text in UTF-8.

    Raises ValueError for any other text, and for an object with two equal keys. Raises
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
        pass  # the text is wrong, or there is no such module: json explains, or reads it
    import json

    return json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)


_BLANK = " \t\n\r"


def _object(pairs: "List[Tuple[str, object]]") -> "Dict[str, object]":
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20:  # over 64 bits; and the time of the conversion is quadratic
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
    """Return the path of the network namespace in a container's config; raises `Error`.

    "" means a new namespace, None that of the host. `path` is that of the config, for the error.
    """
    found = _document(data, READ_CONFIG, path)
    try:
        entries = [entry for entry in _namespaces(found) if entry.get("type") == "network"]
        if len(entries) > 1:
            raise ValueError("there are two network namespaces")
        if not entries:
            return None
        return _path(entries[0], "path") if entries[0].get("path") else ""
    except ValueError as error:
        raise Error(str(error), READ_CONFIG, path) from None


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

# SPDX-License-Identifier: Apache-2.0
"""Call setns(2) and unshare(2): by Python's own functions, else through the C library.

Python has os.setns() and os.unshare() since 3.12. Before that, ctypes calls the C library. Where
possible only `_ctypes` is imported, the part of ctypes in C: the import of the part in Python takes
half of a cold start.
"""

import errno
import posix

from .errors import Error, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Tuple

    Function = Callable[..., None]

# What to do about a refusal.
REMEDIES = {
    errno.EPERM: "it takes CAP_SYS_ADMIN in this user namespace and in the one that owns it",
    errno.ENOSPC: "the sysctls user.max_*_namespaces have the limits",
}

# Functions found in the C library, by name: the search takes longer than the call. `find` looks
# here first, so a test may put a function of its own here.
FOUND: "Dict[str, Function]" = {}


def call(name: str, step: str, object: str, *numbers: int) -> None:
    """Make the system call `name` with integers; raises `Refused`, or `Error` if Python cannot."""
    try:
        find(name)(*numbers)
    except ImportError as error:
        raise Error(
            "this Python has neither os.%s (3.12 and newer) nor ctypes (Debian: libpython3-stdlib);"
            " only the current namespace can be used (%s)" % (name, error),
            step,
            object,
        ) from None
    except OSError as error:
        raise refused(error, step, object, REMEDIES) from None


def find(name: str, python: "Any" = posix) -> "Function":
    """Return a function that makes the system call `name` with integers, or raises OSError.

    Looks in `FOUND`, then in the module `python`, then in the C library. Raises ImportError if this
    Python cannot call the C library either.
    """
    function = FOUND.get(name) or getattr(python, name, None)
    if function is None:
        function = FOUND[name] = from_c_library(name)
    return function


def from_c_library(name: str) -> "Function":
    """Return a function that calls the C library's `name` with integers, or raises OSError.

    Raises ImportError if this Python has no ctypes.
    """
    try:
        function, errno_of_thread = _by_c_half(name)
    except (ImportError, AttributeError):  # not CPython
        from ctypes import CDLL, get_errno

        function, errno_of_thread = getattr(CDLL(None, use_errno=True), name), get_errno

    def call(*numbers: int) -> None:
        if function(*numbers) != 0:
            number = errno_of_thread()
            raise OSError(number, posix.strerror(number))

    return call


def _by_c_half(name: str) -> "Tuple[Callable[..., int], Callable[[], int]]":
    """Return the function, and one that returns its errno, made as in Lib/ctypes/__init__.py."""
    import _ctypes

    half: Any = _ctypes  # the stub lacks most of its names
    integer = type("integer", (half._SimpleCData,), {"_type_": "i"})
    flags = half.FUNCFLAG_CDECL | half.FUNCFLAG_USE_ERRNO
    kind: Any = type("kind", (half.CFuncPtr,), {"_flags_": flags, "_restype_": integer})
    return kind(half.dlsym(half.dlopen(None, 0), name)), half.get_errno

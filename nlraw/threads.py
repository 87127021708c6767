# SPDX-License-Identifier: Apache-2.0
"""Call a function on a thread of its own, and pass on what it returns or raises.

A thread that enters a namespace never has to return to the one before: it ends inside. This uses
`_thread` alone, because `threading` takes as long to import as a whole scan.
"""

import _thread
import errno
import posix
from _weakref import ref

from .errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Tuple, TypeVar

    StartNewThread = Callable[[Callable[..., object], Tuple[object, ...]], int]
    T = TypeVar("T")

START = "start thread"

# Seconds between two checks that find out if a thread has died without running.
STILLBORN = 1.0


def start(
    function: "Callable[[], T]", start_new_thread: "StartNewThread" = _thread.start_new_thread
) -> "Callable[[], T]":
    """Start `function` on a new thread; return a function that waits for it.

    The result is a function: it returns what `function` returned, or raises what `function` raised,
    or `Refused` (ENOMEM) if the thread died without running. `start` itself raises `Refused`
    (EAGAIN) if no thread can be started. `start_new_thread` is a parameter so that a test can pass
    one that fails.
    """
    returned: List[T] = []
    raised: List[BaseException] = []
    finished = _thread.allocate_lock()
    finished.acquire()

    def body() -> None:
        try:
            returned.append(function())
        except BaseException as error:
            raised.append(error)
        finally:
            finished.release()

    # If there is no memory for the frame of body, CPython ends the thread silently. The only trace
    # is that the arguments of the function that the thread was to call are released. Some versions
    # of CPython never release body then. So the thread calls next(), which needs no frame, and wait
    # watches the default value, which is an argument of next().
    default: set[object] = set()
    is_held = ref(default)

    def wait() -> "T":
        while not finished.acquire(timeout=STILLBORN) and is_held() is not None:
            pass
        if raised:
            raise raised[0]
        if not returned:
            raise Refused(errno.ENOMEM, posix.strerror(errno.ENOMEM), START)
        return returned[0]

    try:
        start_new_thread(next, (iter(body, None), default))
    except (RuntimeError, MemoryError):
        raise Refused(errno.EAGAIN, "no thread could be started", START) from None
    return wait


def on_own_thread(
    function: "Callable[[], T]", start_new_thread: "StartNewThread" = _thread.start_new_thread
) -> "T":
    """Call `function` on a new thread, wait for it, and return what it returned.

    Raises what `function` raised, or `Refused` as `start` does.
    """
    return start(function, start_new_thread)()

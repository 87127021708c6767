# SPDX-License-Identifier: Apache-2.0
"""Looks by ID on a thread of their own.

Each look may wait for the kernel's lock on all links (rtnl). While many links are deleted, that
takes 0.1 s and more. The thread that reads events must not wait for it.
"""

from . import threads
from .errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Mapping, Optional, Sequence, Tuple, Union

    from .known import Fall

    # The ID, and the TAPs that were seen, or the error.
    Sight = Tuple[int, Union[Mapping[Fall, bool], Error]]


class Looker:
    """Look at a list of namespaces, one list at a time.

    ``look`` returns what it sees of the namespace with an ID, or raises `Error`; ``wake`` is called
    when all have been looked at. Both are called on the looker's thread.
    """

    def __init__(self, look: "Callable[[int], Mapping[Fall, bool]]", wake: "Callable[[], None]"):
        self._look = look
        self._wake = wake
        self._sights: Optional[List[Sight]] = None
        self._wait: Optional[Callable[[], object]] = None

    @property
    def is_busy(self) -> bool:
        """True from `begin` until `take` has returned what was seen."""
        return self._wait is not None

    def begin(self, ids: "Sequence[int]") -> None:
        """Look at these namespaces, if any. Not to be called while it is busy."""
        if not ids:
            return
        try:
            self._wait = threads.start(lambda: self._run(ids))
        except Error:  # no thread can be started
            self._run(ids)
            self._wait = lambda: None

    def _run(self, ids: "Sequence[int]") -> None:
        sights: List[Sight] = []
        for id in ids:
            try:
                sights.append((id, self._look(id)))
            except Error as error:
                sights.append((id, error))
            except Exception as error:  # a bug must not end the looks
                sights.append((id, Error(repr(error), "look at", str(id))))
        self._sights = sights
        self._wake()

    def take(self) -> "Sequence[Sight]":
        """Return what was seen if all have been looked at, nothing before."""
        if self._sights is None:
            return ()
        sights, self._sights, self._wait = self._sights, None, None
        return sights

    def close(self) -> None:
        """Wait until the looks in progress have ended."""
        if self._wait is not None:
            self._wait()

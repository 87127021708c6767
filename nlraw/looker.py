# SPDX-License-Identifier: Apache-2.0
"""Looks by ID on a thread of their own.

Each look may wait for the kernel's lock for all links (rtnl), as long as others hold it: while many
links are deleted that is 0.1 s and more. Whoever listens to events must not wait for that.
"""

from . import threads
from .errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Mapping, Optional, Sequence, Tuple, Union

    from .known import Fall

    # The ID, and what was seen or why it could not be.
    Sight = Tuple[int, Union[Mapping[Fall, bool], Error]]


class Looker:
    """Looks at some namespaces, then at some others.

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
            except Exception as error:  # a mistake of ours is not to end the looks
                sights.append((id, Error(repr(error), "look at", str(id))))
        self._sights = sights
        self._wake()

    def take(self) -> "Sequence[Sight]":
        """What was seen, once all have been looked at; nothing before."""
        if self._sights is None:
            return ()
        sights, self._sights, self._wait = self._sights, None, None
        return sights

    def close(self) -> None:
        """Wait until nothing is being looked at."""
        if self._wait is not None:
            self._wait()

# SPDX-License-Identifier: Apache-2.0
"""Find the network namespaces of a node, and notice new ones.

A file appears before the namespace is mounted on it, and the mount changes neither the file nor its
directory. But the kernel wakes a poll of /proc/self/mounts (mounts_poll(), fs/proc_namespace.c).
"""

import os
import time

from . import netns, node
from .errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, List, Optional, Tuple

    from .known import Key

# Searches: the minimum seconds between two, and the maximum share of the time that they take. On a
# node that starts pods, the mount table changes hundreds of times a second.
PAUSE, SHARE = 0.01, 0.05

# Seconds until a search that failed is repeated.
RETRY = 1.0


class Discovery:
    """Where to search, and when. ``due`` is the time of the next search, None if there is none.

    ``dirs`` are directories, by default the runtimes'. The namespaces of the caller and of process
    1 are the node's own, and are never found; ``include_node`` adds the caller's. Paths to anything
    but a namespace are remembered, and left out.
    """

    def __init__(self, dirs: "Optional[Iterable[str]]", include_node: bool, now: float) -> None:
        self.due: Optional[float] = None
        self._dirs = None if dirs is None else [os.fspath(each) for each in dirs]
        self._nodes_own = netns.nodes_own()
        self._own: Dict[Key, str] = {}
        if include_node:
            path = "/proc/%s/ns/net" % os.readlink("/proc/thread-self")
            self._own[netns.Namespace().identity()] = path
        self._others: Dict[Key, Tuple[str, float]] = {}  # since when
        self._earliest = now
        self.refusal: Optional[Error] = None
        self._mounts = os.open("/proc/self/mounts", os.O_RDONLY | os.O_CLOEXEC)

    def fileno(self) -> int:
        """A descriptor to poll for POLLPRI: it wakes when the mount table changes."""
        return self._mounts

    def mounts_changed(self) -> None:
        """The mount table has changed: search as early as `PAUSE` and `SHARE` allow."""
        self.search_at(self._earliest)

    def search_at(self, moment: float) -> None:
        """Search at ``moment``, or earlier."""
        self.due = moment if self.due is None else min(self.due, moment)

    def find(self, now: float) -> "Dict[Key, str]":
        """Search: return the path of each namespace, without those of unreadable directories.

        ``refusal`` is then the `Error` about such a directory, else None. It is read again later.
        """
        self.due, self.refusal = None, None
        begin = time.monotonic()
        paths: List[str] = []
        for directory in self._distinct_dirs():
            try:
                paths += node.candidates([directory], False)
            except Error as error:
                self.refusal, self.due = error, now + RETRY
        found = {key: path for path, key in node.identified(paths, self._nodes_own) if key}
        found.update(self._own)
        end = time.monotonic()
        self._earliest = end + max(PAUSE, (end - begin) / SHARE)
        self._others = {key: other for key, other in self._others.items() if key in found}
        return {key: path for key, path in found.items() if key not in self._others}

    def _distinct_dirs(self) -> "List[str]":
        """The directories, each once; a default one is left out if it does not exist."""
        found: Dict[object, str] = {}
        for directory in netns.DIRECTORIES if self._dirs is None else self._dirs:
            identity = netns.identity_of(directory)
            if identity is not None or self._dirs is not None:
                found.setdefault(identity or directory, directory)
        return list(found.values())

    def is_no_namespace(self, key: "Key", path: str, now: float) -> None:
        """Remember a path to no namespace: `find` leaves it out until another file is there."""
        self._others[key] = (path, now)

    def lasting_other(self, since: float) -> "Optional[str]":
        """A path that has led to no namespace since a time or longer; None if there is none."""
        found = (path for path, begin in self._others.values() if begin <= since)
        return next(found, None)

    def close(self) -> None:
        netns.close(self._mounts)
        self._mounts = -1

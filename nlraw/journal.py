# SPDX-License-Identifier: Apache-2.0
"""The changes that were sent, and their results: confirmed, refused or lost. No system calls.

A change is *open* from the moment it is sent until its answer confirms it. `settle` closes it: if
its objects are gone it counts as done; if they are still there it was not carried out.
"""

import errno

from .errors import Refused
from .verdict import listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Container, List, Optional, Sequence, Set, Tuple

    from .exchange import Reply
    from .link import Link
    from .plan import Change
    from .snapshot import Key

# Refusals that are worth another round. EINVAL: the qdisc was gone, and may have been made again by
# somebody else since (tc_get_qdisc(), net/sched/sch_api.c).
_TEMPORARY = (errno.EBUSY, errno.EINTR, errno.EAGAIN, errno.EINVAL)


class Journal:
    """The changes that were made in one namespace: those ``done``, in order, and the open ones."""

    __slots__ = ("done", "_open")

    def __init__(self) -> None:
        self.done: List[Change] = []
        self._open: List[Tuple[Change, Optional[Refused]]] = []

    @property
    def is_open(self) -> bool:
        """True if it is unknown what became of a change."""
        return bool(self._open)

    def begin(self, changes: "Sequence[Change]") -> None:
        """Note that changes are about to be sent."""
        self._open = [(part, None) for change in changes for part in change.parts()]

    def record(self, changes: "Sequence[Change]", replies: "Sequence[Reply]") -> None:
        """Note the answer to each change. An object that is gone already counts as deleted."""
        self._open = []
        for change, reply in zip(changes, replies):
            if reply.error is None or reply.error.is_gone:
                self.done.append(change)
            else:
                self._open += [(part, reply.error) for part in change.parts()]

    def settle(self, present: "Container[Key]", may_retry: bool) -> "Optional[Refused]":
        """Close the open changes by the keys that are still present.

        Returns the first final refusal, or None. A temporary one is final unless ``may_retry``.
        """
        left = []
        for change, error in self._open:
            if any(key in present for key in change.keys):
                left.append((change.request, error))
            else:
                self.done.append(change)
        self._open = []
        for _, error in left:
            if error is not None and not (error.errno in _TEMPORARY and may_retry):
                names = ["%s %s" % (each.step, each.object) for each, _ in left]
                words = "%s; not done: %s" % (error.message, listed(names))
                return Refused(error.errno or 0, words, error.step, error.object)
        return None

    def taps(self) -> "List[Link]":
        """The TAPs whose deletion was sent."""
        changes = self.done + [change for change, _ in self._open]
        return [tap for change in changes for tap in change.taps]

    def deleted(self) -> "List[int]":
        """The TAPs that are gone, by ifindex."""
        return [tap.ifindex for change in self.done for tap in change.taps]

    def places(self) -> "Set[Key]":
        """The places from which filters are gone, as `place_key` has them."""
        keys = [key for change in self.done for key in change.keys]
        return {key[1:3] for key in keys if key[0] in ("filter", "priority")}

    def summary(self) -> str:
        """What is gone, for people."""
        names = []
        for change in self.done:
            names += ["%s %s on %s" % (each.kind, each.object, each.dev) for each in change.removes]
            names += [tap.ifname for tap in change.taps]
        return listed(names)

# SPDX-License-Identifier: Apache-2.0
"""One namespace as the agent of a node knows it, and a visit to it. No clock, no system calls.

Root in a namespace can cause events and work without end. So each namespace has two quotas: one of
visits, one of events.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, FrozenSet, Optional, Tuple

    # Device and inode numbers of a namespace.
    Key = Tuple[int, int]

    # A TAP and one of its losses of carrier: ifindex, IFLA_CARRIER_DOWN_COUNT.
    Fall = Tuple[int, int]

# The quota of visits: its size, and its growth per second. A VM that is started and killed 20
# times a second causes about 40. A second of processor time costs VISITS_FOR_A_SECOND visits.
VISITS, VISITS_PER_SECOND = 40.0, 60.0
VISITS_FOR_A_SECOND = 200.0

# The quota of events: its size, and its growth per second. An orphan causes three events until it
# is gone; a namespace may have 1,000 orphans.
EVENTS, EVENTS_PER_SECOND = 4000.0, 200.0

# Seconds for which a namespace is muted: the first time, doubled each time; and the maximum.
MUTE, LONGEST_MUTE = 60.0, 3600.0


# What has to follow the visit in progress.
NOTHING, LOOK, VISIT = 0, 1, 2


class Quota:
    """A token bucket: an amount that is spent, and grows back with time up to ``most``."""

    __slots__ = ("most", "rate", "_left", "_at")

    def __init__(self, most: float, rate: float, now: float) -> None:
        self.most = most
        self.rate = rate
        self._left = most
        self._at = now

    def left(self, now: float) -> float:
        """What is left; below zero if more was spent."""
        if now > self._at:
            self._left = min(self.most, self._left + (now - self._at) * self.rate)
            self._at = now
        return self._left

    def spend(self, amount: float, now: float) -> None:
        """Spend an amount, even if less is left."""
        self._left = self.left(now) - amount

    def due(self, amount: float, now: float) -> float:
        """When this amount will be left; ``now`` if it is left already."""
        return now + max(0.0, amount - self.left(now)) / self.rate


class Known:
    """A namespace that the agent knows.

    ``id`` never repeats; ``key`` is its device and inode, ``path`` one path to it. ``since``: the
    time of the first event that no visit has answered, None if there is none. ``taps``: the indexes
    of the matching TAPs that were seen last. ``falls``: when each orphan was first seen as one.
    ``failures``: how many visits have failed in a row.

    During a visit ``heard`` counts events, ``later`` is the time of the first, and ``again`` is
    what has to follow: NOTHING, LOOK or VISIT. ``visits`` and ``events`` are its quotas. ``mute``
    is for how many seconds it will be muted the next time.
    """

    __slots__ = (
        "id",
        "key",
        "path",
        "since",
        "taps",
        "falls",
        "failures",
        "is_busy",
        "is_muted",
        "later",
        "mute",
        "again",
        "heard",
        "visits",
        "events",
    )

    def __init__(self, id: int, key: "Key", path: str, now: float) -> None:
        self.id = id
        self.key = key
        self.path = path
        self.since: Optional[float] = None
        self.taps: FrozenSet[int] = frozenset()
        self.falls: Dict[Fall, float] = {}
        self.failures = 0
        self.is_busy = False
        self.is_muted = False
        self.later: Optional[float] = None
        self.mute = MUTE
        self.again = NOTHING
        self.heard = 0
        self.visits = Quota(VISITS, VISITS_PER_SECOND, now)
        self.events = Quota(EVENTS, EVENTS_PER_SECOND, now)


class Task:
    """A visit to begin. ``since`` is the time of the event that it answers, None if there is none.

    ``ready`` are the orphans that are old enough (`Fall`): no others may be removed. It is None if
    orphans of any age may be removed.
    """

    __slots__ = ("id", "key", "path", "since", "ready")

    def __init__(
        self,
        id: int,
        key: "Key",
        path: str,
        since: "Optional[float]",
        ready: "Optional[FrozenSet[Fall]]",
    ) -> None:
        self.id = id
        self.key = key
        self.path = path
        self.since = since
        self.ready = ready

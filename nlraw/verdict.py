# SPDX-License-Identifier: Apache-2.0
"""The verdict on a link: is it an orphan? Pure: a link in, a verdict out.

    judge     IN_USE, ORPHAN, or None for a link that is not a TAP
    evidence  the facts behind a verdict
    Target    which links and which uplinks a command is about

`plan` decides what is deleted with an orphan.

`judge` cannot see a holder that turned its own carrier off, nor one that attaches after the link
was read.
"""

from . import link, uapi
from .errors import Invalid
from .link import Link
from .report import Tap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional, Sequence, Tuple, Union

    Names = Union[str, Sequence[str]]

MATCH = "tap*_urunc"
TAP = "tap0_urunc"
UPLINK = "eth0"

# The most names that a message lists.
NAMES = 10

IN_USE = "in-use"
ORPHAN = "orphan"


def judge(link: Link, uppers: "Sequence[str]" = ()) -> "Optional[str]":
    """Return IN_USE, ORPHAN, or None for a link that is not a TAP.

    The carrier decides: it follows open and close at once. RUNNING, LOWER_UP and the operational
    state wait for a deferred worker (linkwatch_event(), net/core/link_watch.c); they count only if
    the kernel reports no carrier. A TAP with ``uppers``, devices stacked on it, is in use, because
    the kernel would delete them with it.
    """
    tun, carrier = link.tun(), link.carrier
    if tun is None or tun.type != uapi.IFF_TAP:
        return None
    if carrier or uppers:
        return IN_USE
    if tun.queues or tun.disabled_queues:  # a queue has a holder, attached or not
        return IN_USE
    if carrier is None:
        running = link.flags & (uapi.IFF_RUNNING | uapi.IFF_LOWER_UP)
        if running or link.operstate == uapi.IF_OPER_UP:
            return IN_USE
        if not link.flags & uapi.IFF_UP:  # a link that is down proves nothing
            return IN_USE
    return ORPHAN


def is_tap(link: Link) -> bool:
    """True for a TUN device in TAP mode."""
    tun = link.tun()
    return tun is not None and tun.type == uapi.IFF_TAP


def is_fresh(orphan: Link) -> bool:
    """True if no second open ever attached: a failed start left it, or a start is in progress.

    True too if the kernel does not count (IFLA_CARRIER_UP_COUNT).
    """
    return not orphan.carrier_up_count


def evidence(link: Link, uppers: "Sequence[str]" = ()) -> str:
    """The facts behind a verdict, for people."""
    tun, carrier = link.tun(), link.carrier
    facts = ["carrier on" if carrier else "carrier off"]
    if carrier is None:
        facts = ["no carrier to read"]
    if tun is not None and (tun.queues or tun.disabled_queues):
        facts.append("queues: %d attached, %d detached" % (tun.queues, tun.disabled_queues))
    if carrier is None and not link.flags & uapi.IFF_UP:
        facts.append("down")
    if uppers:
        facts.append("%s stacked on it" % listed(uppers))
    return ", ".join(facts)


def listed(names: "Sequence[str]") -> str:
    """Names for people, the first of them if there are many: a pod can make any number."""
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (" and %d more" % more if more > 0 else "")


def describe_tap(tap: Link, uppers: "Sequence[str]" = (), is_deleted: bool = False) -> Tap:
    """The `Tap` record of a TAP."""
    verdict = judge(tap, uppers)
    return Tap(
        ifname=tap.ifname,
        ifindex=tap.ifindex,
        verdict=verdict,
        fresh=verdict == ORPHAN and is_fresh(tap),
        carrier=tap.carrier,
        operstate=link.operstate_name(tap.operstate),
        flags=link.flag_names(tap.flags),
        deleted=is_deleted,
    )


# ---------------------------------------------------------------- matching


class Target:
    """What a command is about: which TAPs, by name, and which uplinks.

    ``match``, ``exclude`` and ``uplink`` are each a string or a sequence of strings. ``uplink`` is
    "auto", "none" or names; ``uplinks`` is empty for the first two. ``spare_fresh`` leaves fresh
    orphans alone, ``keep_in_use`` removes orphans beside TAPs in use. Raises `Invalid` for an
    impossible name or pattern.
    """

    __slots__ = ("match", "exclude", "uplink", "uplinks", "spare_fresh", "keep_in_use")

    def __init__(
        self,
        match: "Names" = MATCH,
        uplink: "Names" = UPLINK,
        exclude: "Names" = (),
        spare_fresh: bool = False,
        keep_in_use: bool = False,
    ) -> None:
        self.match = names_in(match)
        self.exclude = names_in(exclude)
        for pattern in self.match + self.exclude:
            check_pattern(pattern)
        names = names_in(uplink)
        if not self.match or not names:
            raise Invalid("at least one pattern and one uplink are needed", "check arguments")
        for name in names:
            link.check_name(name)
        self.uplink = names[0]
        if len(names) > 1 and not {"auto", "none"}.isdisjoint(names):
            words = '"auto" and "none" cannot be combined with other names'
            raise Invalid(words, "check uplink", ", ".join(names))
        self.uplinks = () if self.uplink in ("auto", "none") else names
        self.spare_fresh = spare_fresh
        self.keep_in_use = keep_in_use

    @property
    def uplink_name(self) -> "Optional[str]":
        """The first uplink named; None for "auto" and "none"."""
        return self.uplinks[0] if self.uplinks else None

    def fits(self, name: str) -> bool:
        """True if a TAP of that name is meant; a named uplink never is."""
        if name in self.uplinks or not any(matches(pattern, name) for pattern in self.match):
            return False
        return not any(matches(pattern, name) for pattern in self.exclude)

    def spares(self, orphan: Link) -> bool:
        """True if the orphan is fresh and fresh ones are spared."""
        return self.spare_fresh and is_fresh(orphan)


def names_in(given: "Names") -> "Tuple[str, ...]":
    """A string or a sequence of strings, as a tuple. Raises `Invalid` for anything else."""
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, (list, tuple)) or not all(isinstance(each, str) for each in given):
        raise Invalid("a string or a list of strings is needed", "check arguments", repr(given))
    return tuple(given)


def check_pattern(pattern: str) -> None:
    """Raise `Invalid` for a pattern that is empty, or has other special characters than * and ?."""
    if not pattern:
        raise Invalid("a pattern cannot be empty", "check pattern", pattern)
    if any(char in "[]{}" for char in pattern):
        words = "only * and ? are special in a pattern; give several patterns instead of [] and {}"
        raise Invalid(words, "check pattern", pattern)


def matches(pattern: str, name: str) -> bool:
    """True if the whole name fits a pattern of characters, ``*`` (any number) and ``?`` (one)."""
    head, *middle = pattern.split("*")
    if not middle:
        return _fits(head, name)
    tail = middle.pop()
    end = len(name) - len(tail)
    if end < len(head) or not _fits(head, name[: len(head)]) or not _fits(tail, name[end:]):
        return False
    at = len(head)
    for part in middle:  # the first place that fits leaves most of the name to the other parts
        stop = end - len(part) + 1
        fitting = (
            place for place in range(at, stop) if _fits(part, name[place : place + len(part)])
        )
        place = next(fitting, -1)
        if place < 0:
            return False
        at = place + len(part)
    return True


def _fits(part: str, text: str) -> bool:
    if "?" not in part:
        return part == text
    return len(part) == len(text) and all(mark in ("?", char) for mark, char in zip(part, text))

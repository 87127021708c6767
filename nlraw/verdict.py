# SPDX-License-Identifier: Apache-2.0
"""Is this link an orphan? Pure: a link in, a verdict out.

    judge     IN_USE, ORPHAN, or None for a link that is not a TAP
    evidence  the facts behind a verdict
    Target    which links and which uplink a command is about

`plan` decides what is deleted with an orphan.

Not visible here: a holder that turned its own carrier off, and one that attaches after the link was
read.
"""

from . import link, uapi
from .errors import Invalid
from .link import Link
from .report import Tap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Optional

MATCH = "tap*_urunc"
TAP = "tap0_urunc"
UPLINK = "eth0"

IN_USE = "in-use"
ORPHAN = "orphan"


def judge(link: Link) -> "Optional[str]":
    """Return IN_USE, ORPHAN, or None for a link that is not a TAP.

    The carrier decides: it follows open and close at once. RUNNING, LOWER_UP and the operational
    state wait for a deferred worker (linkwatch_event(), net/core/link_watch.c); they count only if
    the kernel reports no carrier.
    """
    tun, carrier = link.tun(), link.carrier
    if tun is None or tun.type != uapi.IFF_TAP:
        return None
    if carrier or tun.queues or tun.disabled_queues:  # a queue has a holder, attached or not
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
    """True if no second open ever attached: a failed start left it, or a start is in progress."""
    return not orphan.carrier_up_count


def evidence(link: Link) -> str:
    """The facts behind a verdict, for people."""
    tun, carrier = link.tun(), link.carrier
    facts = [
        "no carrier to read" if carrier is None else "carrier on" if carrier else "carrier off"
    ]
    if tun is not None and (tun.queues or tun.disabled_queues):
        facts.append("%d queues attached, %d detached" % (tun.queues, tun.disabled_queues))
    if carrier is None and not link.flags & uapi.IFF_UP:
        facts.append("down")
    return ", ".join(facts)


def describe_tap(tap: Link, is_deleted: bool = False) -> Tap:
    """The `Tap` record of a TAP."""
    verdict = judge(tap)
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
    """What a command is about: TAPs whose name matches ``match`` or is ``tap``, and the uplink.

    ``uplink`` is a name, "auto" or "none"; ``uplink_name`` is None for the last two.
    ``spare_fresh`` leaves fresh orphans alone. Raises `Invalid` for an impossible name.
    """

    __slots__ = ("match", "uplink", "uplink_name", "tap", "spare_fresh")

    def __init__(
        self, match: str, uplink: str, tap: "Optional[str]" = None, spare_fresh: bool = False
    ) -> None:
        if not match:
            raise Invalid("an empty pattern matches nothing", "check pattern")
        link.check_name(uplink)
        self.match = match
        self.uplink = uplink
        self.uplink_name = None if uplink in ("auto", "none") else uplink
        self.tap = tap
        self.spare_fresh = spare_fresh

    def fits(self, name: str) -> bool:
        """True if a TAP of that name is meant; the uplink never is."""
        return name != self.uplink_name and (name == self.tap or matches(self.match, name))

    def is_removable(self, orphan: Link) -> bool:
        """True unless the orphan is fresh and fresh ones are spared."""
        return not (self.spare_fresh and is_fresh(orphan))


def matching(links: "Iterable[Link]", target: Target) -> "List[Link]":
    """The TAPs among the links that the target names."""
    return [found for found in links if target.fits(found.ifname) and is_tap(found)]


def in_use(taps: "Iterable[Link]") -> "List[Link]":
    """The TAPs that have a holder."""
    return [tap for tap in taps if judge(tap) == IN_USE]


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

# SPDX-License-Identifier: Apache-2.0
"""What the caller of a setup wants: the TAPs to make, and the uplinks that they belong to.

Everything that can be refused without a look at the namespace is refused here.
"""

import posix
from _socket import inet_pton

from . import inet, link
from .errors import Invalid
from .verdict import TAP, Target, names_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional, Tuple

    from .verdict import Names

_DIGITS = "0123456789"


class Wanted:
    """The TAPs to make, one for each uplink of the ``target``; without an uplink one TAP alone.

    ``tap`` names them: one for each uplink, or the first, whose number is counted up for the others
    (`count_up`). ``owner`` and ``group`` are IDs. ``address`` is for a single TAP: the bytes and
    the prefix length, or None. ``multi_queue``: the TAPs take several queues.

    Raises `Invalid` for an impossible name, number of names, ID or address.
    """

    __slots__ = ("target", "names", "owner", "group", "address", "multi_queue")

    def __init__(
        self,
        target: Target,
        tap: "Names" = TAP,
        owner: "Optional[int]" = None,
        group: "Optional[int]" = None,
        address: "Optional[str]" = None,
        multi_queue: bool = False,
    ) -> None:
        uplinks = target.uplinks
        for name in uplinks:
            if uplinks.count(name) > 1:
                raise Invalid("an uplink has one TAP: name it once", "check uplink", name)
        self.target = target
        self.names = _names_of_taps(names_in(tap), len(uplinks) or 1)
        for name in self.names:
            if not target.fits(name):
                words = (
                    "no cleanup would find it: --match must match it, --exclude and --uplink"
                    " must not"
                )
                raise Invalid(words, "check TAP", name)
        for number in (owner, group):
            if number is not None and not 0 <= number < 0xFFFFFFFF:
                raise Invalid("an ID is a number from 0 to 4294967294", "check ID", str(number))
        self.owner = posix.getuid() if owner is None else owner
        self.group = posix.getgid() if owner is None and group is None else group
        self.address = None if address is None else _parse_cidr(address)
        if address is not None and len(self.names) > 1:
            words = "only a TAP that is the only one can have an address, and there are %d"
            raise Invalid(words % len(self.names), "check address", address)
        self.multi_queue = multi_queue


def _names_of_taps(given: "Tuple[str, ...]", count: int) -> "Tuple[str, ...]":
    """The names of ``count`` TAPs: those given, or the first one counted up."""
    names = given
    if len(given) == 1 and count > 1:
        check_name(given[0])
        names = tuple(count_up(given[0], number) for number in range(count))
    if len(names) != count:
        words = "there must be one name for each uplink, or one to count up: %d for %d"
        raise Invalid(words % (len(names), count), "check TAP", ", ".join(names) or None)
    for name in names:
        check_name(name)
        if names.count(name) > 1:
            raise Invalid("two TAPs cannot have one name", "check TAP", name)
    return names


def check_name(name: str) -> None:
    """Raise `Invalid` if no new interface can have this name."""
    link.check_name(name)
    if "%" in name:  # the kernel would put a number in its place
        words = "the name of a new interface cannot have a %: leave it out"
        raise Invalid(words, "check name", name)


def count_up(name: str, number: int) -> str:
    """The name with a number added to its first run of digits: "tap1_urunc" for "tap0_urunc".

    Leading zeros keep the width: "tap00" becomes "tap01". Raises `Invalid` for a name without a
    digit, because no pattern says where to put one.
    """
    start = next((at for at, char in enumerate(name) if char in _DIGITS), len(name))
    rest = name[start:].lstrip(_DIGITS)
    digits = name[start : len(name) - len(rest)]
    if not digits:
        raise Invalid("it has no number to count up: name every TAP", "check TAP", name)
    return name[:start] + str(int(digits) + number).zfill(len(digits)) + rest


def _parse_cidr(address: str) -> "Tuple[bytes, int]":
    """An address in CIDR notation as bytes and prefix length."""
    head, _, tail = address.partition("/")
    try:
        packed = inet_pton(inet.AF_INET6 if ":" in head else inet.AF_INET, head)
    except (OSError, ValueError):
        packed = b""
    if "\0" in head:  # PyPy reads no further
        packed = b""
    is_length = tail.isdecimal() and len(tail) <= 3
    if not packed or not is_length or int(tail) > 8 * len(packed):
        words = "this is not an address with a prefix length, such as 10.9.8.1/24"
        raise Invalid(words, "check address", address)
    if not any(packed):  # the kernel accepts it and drops it (__inet_insert_ifa(), devinet.c)
        raise Invalid("no device can have this address", "check address", address)
    return packed, int(tail)

# SPDX-License-Identifier: Apache-2.0
"""Mark links with a random group, so that one request deletes them all.

The kernel then waits once for all links, not once for each. A cleanup that is killed leaves its
mark, which the next one recognizes by its number.
"""

import posix

from . import link
from .connection import Connection
from .errors import Lost
from .link import Link
from .observe import list_links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, Sequence, Tuple

# A mark is this number and 16 random bits: "nl" in ASCII, which no other program should use.
MARK = 0x6E6C0000

# How many times to restore the groups of links whose answers are lost.
ATTEMPTS = 10


def new_mark() -> int:
    """A random mark: a group that very probably has no link."""
    return MARK | int.from_bytes(posix.urandom(2), "big")


def is_marked(found: Link) -> bool:
    """True if the link is in a group that is a mark."""
    return (found.group or 0) & ~0xFFFF == MARK


def set_groups(connection: Connection, groups: "Iterable[Tuple[Link, int]]") -> None:
    """Put links into groups. A lost answer does not matter: the next list shows the members."""
    requests = [link.set_group(each.ifindex, each.ifname, group) for each, group in groups]
    try:
        replies = connection.change(*requests)
    except Lost:
        return
    for reply in replies:
        if reply.error is not None and not reply.error.is_gone:
            raise reply.error


def restore_groups(connection: Connection, marked: "Sequence[Link]", mark: int) -> None:
    """Put links that still have the mark into their former groups; into 0 if that was a mark."""
    former = {each.ifindex: 0 if is_marked(each) else each.group or 0 for each in marked}
    for _ in range(ATTEMPTS):
        connection.renew_allowance()
        links = list_links(connection)
        left = [each for each in links if each.group == mark and each.ifindex in former]
        if not left:
            return
        set_groups(connection, [(member, former[member.ifindex]) for member in left])

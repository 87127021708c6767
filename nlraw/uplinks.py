# SPDX-License-Identifier: Apache-2.0
"""List what a guest needs of each uplink: addresses, routes, permanent neighbours.

A list in one datagram is complete. A longer one may lack entries, and no flag shows it: the kernel
resumes the lists of neighbours and IPv6 routes by position (neigh_dump_table(),
net/core/neighbour.c; fib6_dump_table(), net/ipv6/ip6_fib.c). Then all lists are read again, until
two readings in a row are alike and no change was announced meanwhile. It takes two, because all
namespaces share one table of neighbours, and changes in others are not announced here.
"""

from . import inet, nexthop, uapi
from .connection import Connection
from .errors import Error
from .facts import describe_uplink, needs_objects
from .neighbour import dump as dump_neighbours
from .neighbour import neighbours
from .removal import ROUNDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Mapping, Optional, Sequence

    from .exchange import Request
    from .guest import Uplink
    from .link import Link
    from .wire import Message

# The multicast groups that announce changes of these lists. Links and addresses are among them also
# because the kernel does not announce an IPv4 route that goes with its device or address
# (fib_table_flush(), net/ipv4/fib_trie.c).
GROUPS = (
    uapi.RTMGRP_LINK
    | uapi.RTMGRP_NEIGH
    | uapi.RTMGRP_IPV4_IFADDR
    | uapi.RTMGRP_IPV4_ROUTE
    | uapi.RTMGRP_IPV6_IFADDR
    | uapi.RTMGRP_IPV6_ROUTE
    | 1 << uapi.RTNLGRP_NEXTHOP - 1
)

_LIST_ADDRESSES = inet.dump_addresses()
_LIST_ROUTES = inet.dump_routes(inet.AF_UNSPEC)
_LIST_OBJECTS = nexthop.dump()


def observe_uplinks(
    connection: Connection, uplinks: "Sequence[Link]", names: "Mapping[int, str]"
) -> "List[Uplink]":
    """The `Uplink` records of some links. ``names`` are those of all devices, by ifindex.

    Raises an `Error` if no reading is complete.
    """
    if not uplinks:
        return []
    reading = _Reading(connection, names)
    found = reading.read(uplinks)
    if found is not None and reading.is_whole:
        return found
    groups = connection.groups
    connection.set_groups(groups | GROUPS)
    try:
        last: Optional[List[Uplink]] = None
        for _ in range(ROUNDS):
            connection.begin_look()
            found = reading.read(uplinks)
            if found is not None and found == last and not connection.is_torn:
                return found
            last = None if connection.is_torn else found
    finally:
        connection.set_groups(groups)
    words = "its addresses, routes or neighbours changed each time they were listed; try again"
    raise Error(words, "read uplink", ", ".join([uplink.ifname for uplink in uplinks]))


class _Reading:
    """One reading of all lists. ``is_whole``: each of them came in one datagram."""

    def __init__(self, connection: Connection, names: "Mapping[int, str]") -> None:
        self._connection = connection
        self._names = names
        self.is_whole = True

    def read(self, uplinks: "Sequence[Link]") -> "Optional[List[Uplink]]":
        """The records; None if a route refers to a next hop that has gone or come meanwhile."""
        addresses = inet.addresses(self._list(_LIST_ADDRESSES))
        routes = inet.routes_but_local(self._list(_LIST_ROUTES))
        known = {}
        if needs_objects(routes):
            known = {each.id: each for each in nexthop.objects(self._list(_LIST_OBJECTS))}
        found = []
        for uplink in uplinks:
            near = neighbours(self._list(dump_neighbours(uplink.ifindex, uplink.ifname)))
            try:
                each = describe_uplink(uplink, addresses, routes, near, self._names, known)
            except KeyError:
                return None
            found.append(each)
        return found

    def _list(self, request: "Request") -> "List[Message]":
        """The messages of a list, requested alone: only then an event in the middle is noticed."""
        (reply,) = self._connection.ask(request)
        messages = reply.answer()
        if messages and messages[0][4] is not messages[-1][4]:  # they are in several datagrams
            self.is_whole = False
        return messages

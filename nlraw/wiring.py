# SPDX-License-Identifier: Apache-2.0
"""The requests that connect new TAPs to their uplinks. Pure: a snapshot in, requests out.

They are for one datagram, in this order: each TAP up, with its uplink's MTU; the address; the
`ingress` qdiscs that are missing, on uplinks and TAPs; the redirects from each TAP to its uplink;
the redirects from each uplink to its TAP, which start the traffic. `plan_undo` undoes them.
"""

import errno

from . import inet, link, tc, uapi
from .report import TcObject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Sequence, Set, Tuple

    from .exchange import Reply, Request
    from .link import Link
    from .snapshot import Snapshot

# The kernel picks priorities downwards, from the first to the last (tcf_auto_prio(), cls_api.c).
_FIRST_PRIORITY, _LAST_PRIORITY = 0xC000, 0x8000


def mtu_for(tap: "Link", uplink: "Optional[Link]") -> int:
    """The uplink's MTU, or the largest MTU of the TAP if that is less.

    A veth allows 65535, a TAP 14 bytes less, for its header (tun_net_init(), tun.c). Without an
    uplink a TAP keeps its own MTU.
    """
    mtu = (uplink or tap).mtu or 0
    return min(mtu, tap.max_mtu) if tap.max_mtu else mtu


class Wiring:
    """The ``requests`` that connect TAPs, each with its uplink, or None for a TAP alone.

    ``snapshot`` has the TC state of the uplinks. ``address``, bytes and a prefix length, is put on
    the first TAP.
    """

    def __init__(
        self,
        snapshot: "Snapshot",
        pairs: "Sequence[Tuple[Link, Optional[Link]]]",
        address: "Optional[Tuple[bytes, int]]" = None,
    ) -> None:
        self._snapshot = snapshot
        connected = [(tap, uplink) for tap, uplink in pairs if uplink is not None]
        self._uplinks = [uplink for _, uplink in connected]
        self._qdiscs: Dict[Request, int] = {
            tc.create_ingress(uplink.ifindex, uplink.ifname): uplink.ifindex
            for uplink in self._uplinks
            if snapshot.ingress_of(uplink) is None
        }
        self.requests: List[Request] = [
            link.set_up(tap.ifindex, tap.ifname, mtu_for(tap, uplink)) for tap, uplink in pairs
        ]
        if address is not None:
            tap = pairs[0][0]
            self.requests.append(inet.create_address(tap.ifindex, *address, tap.ifname))
        self.requests += self._qdiscs
        self.requests += [tc.create_ingress(tap.ifindex, tap.ifname) for tap, _ in connected]
        self.requests += [
            tc.create_redirect(
                tap.ifindex,
                uapi.TC_H_INGRESS_HANDLE,
                uplink.ifindex,
                tap.ifname,
                reported=False,
            )
            for tap, uplink in connected
        ]
        self.requests += [self._redirect(tap, uplink) for tap, uplink in connected]

    def had_ingress(self, replies: "Sequence[Reply]" = ()) -> "Set[int]":
        """The ifindexes of the uplinks whose `ingress` or clsact these requests do not create.

        If somebody created one since the snapshot, the kernel refuses ours with EEXIST.
        """
        refused = {
            reply.request
            for reply in replies
            if reply.error is not None and reply.error.errno == errno.EEXIST
        }
        made = {self._qdiscs[request] for request in self._qdiscs if request not in refused}
        return {uplink.ifindex for uplink in self._uplinks} - made

    def ahead(self, replies: "Sequence[Reply]") -> "Tuple[TcObject, ...]":
        """The foreign filters on the uplinks that see a packet before the redirect does."""
        found: List[TcObject] = []
        for uplink, reply in zip(reversed(self._uplinks), reversed(replies)):
            ours = min((filter.priority for filter in tc.filters(reply.messages)), default=0)
            found[:0] = [
                TcObject(dev=uplink.ifname, object="filter", kind=filter.kind)
                for point in self._snapshot.points
                if point.is_incoming and point.dev == uplink.ifname
                for filter in point.filters
                if filter.priority < ours and not filter.chain and filter.is_filter
            ]
        return tuple(found)

    def _redirect(self, tap: "Link", uplink: "Link") -> "Request":
        """The uplink's redirect, placed so that other filters are listed as before.

        In an `ingress` it gets the parent that the others have, because the kernel lists all
        filters of a qdisc under the parent of the latest (tc_new_tfilter(), cls_api.c).

        Its priority is one that no other filter uses, on either side or in any chain, because u32
        filters of one priority share their tables (see `shared_priorities`). It is the one that the
        kernel would pick, or the next lower free one; if there are no others, the kernel picks it.
        """
        present = self._snapshot.ingress_of(uplink)
        others = [
            filter
            for point in self._snapshot.points
            if point.qdisc is not None and point.qdisc is present
            for filter in point.filters
        ]
        parent, priority = uapi.TC_H_INGRESS_HANDLE, 0
        if present is not None and present.kind == "clsact":
            parent |= uapi.TC_H_MIN_INGRESS
        elif others:
            parent = others[0].parent
        if others:
            used = {filter.priority for filter in others}
            picked = (number for number in used if number >= _LAST_PRIORITY)
            lowest = min(picked, default=_FIRST_PRIORITY + 1)
            free = (number for number in range(lowest - 1, 0, -1) if number not in used)
            priority = next(free, 0)  # if none is left the kernel refuses it
        return tc.create_redirect(
            uplink.ifindex,
            parent,
            tap.ifindex,
            uplink.ifname,
            priority,
            reported=bool(others),  # only its place among them is of interest
        )

# SPDX-License-Identifier: Apache-2.0
"""RTM_*NEIGH: the request for a list, and the decoded `Neighbour` (net/core/neighbour.c)."""

from . import inet, uapi, wire
from .exchange import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Optional


class Neighbour(wire.Decoded):
    """One neighbour of a device. ``state`` is NUD_*."""

    __slots__ = ("family", "ifindex", "state")

    _layout = uapi.ndmsg

    def __init__(self, message: "wire.Message") -> None:
        self.family, self.ifindex, self.state, _, _ = self._decode(message)

    @property
    def dst(self) -> "Optional[str]":
        """Its address; None for a family that is neither IPv4 nor IPv6."""
        return inet.read_address(self.attributes, uapi.NDA_DST, self.family)

    @property
    def lladdr(self) -> "Optional[str]":
        """Its link-layer address, as colon-separated hex; None if it has none."""
        lladdr = self.attributes.raw(uapi.NDA_LLADDR)
        return None if lladdr is None else ":".join(["%02x" % byte for byte in lladdr])

    @property
    def is_permanent(self) -> bool:
        """True if somebody set it, and the kernel neither checks nor forgets it."""
        return self.state & uapi.NUD_PERMANENT != 0

    def __repr__(self) -> str:
        return "Neighbour(%s, ifindex=%d, state=%#x)" % (self.dst, self.ifindex, self.state)


def neighbours(messages: "Iterable[wire.Message]") -> "List[Neighbour]":
    """Decode the neighbours of a reply; skip other messages."""
    return [Neighbour(message) for message in messages if message[0] == uapi.RTM_NEWNEIGH]


def dump(ifindex: int, dev: str) -> Request:
    """List the neighbours of one device, of every family. ``dev`` is for errors only.

    A kernel before 4.4 lists those of all devices: check the ifindex of each.
    """
    fixed = uapi.ndmsg.pack(inet.AF_UNSPEC, 0, 0, 0, 0)
    payload = fixed + wire.attribute_u32(uapi.NDA_IFINDEX, ifindex)
    step = "list neighbours of"
    return Request(uapi.RTM_GETNEIGH, uapi.NLM_F_DUMP, payload, len(fixed), step, dev)

# SPDX-License-Identifier: Apache-2.0
"""RTM_*NSID: the requests, and the decoded `Nsid` (net/core/net_namespace.c).

Each network namespace has a table of IDs for other network namespaces. An ID names a namespace in
requests (IFLA_TARGET_NETNSID) and in events (NETLINK_LISTEN_ALL_NSID). It does not keep that
namespace alive. When the namespace dies, the kernel announces RTM_DELNSID to RTNLGRP_NSID, and may
assign the ID to another namespace at once.
"""

from . import uapi, wire
from .errors import Malformed
from .exchange import Reply, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Optional

_fixed = uapi.rtgenmsg.pack(0)


# ---------------------------------------------------------------- decoded from replies


class Nsid(wire.Decoded):
    """One entry of the table. ``is_deleted`` is True if the message announces its end."""

    __slots__ = ("is_deleted",)

    _layout = uapi.rtgenmsg

    def __init__(self, message: "wire.Message") -> None:
        self._decode(message)
        self.is_deleted = message[0] == uapi.RTM_DELNSID

    @property
    def number(self) -> "Optional[int]":
        """The ID; None if the namespace has none."""
        number = self.attributes.s32(uapi.NETNSA_NSID)
        return None if number == uapi.NETNSA_NSID_NOT_ASSIGNED else number

    def __repr__(self) -> str:
        return "Nsid(%s%s)" % (self.number, ", deleted" if self.is_deleted else "")


def nsids(messages: "Iterable[wire.Message]") -> "List[Nsid]":
    """Decode the entries of a reply, or of events, in their order; skip other messages."""
    types = (uapi.RTM_NEWNSID, uapi.RTM_DELNSID)
    return [Nsid(message) for message in messages if message[0] in types]


def only(reply: Reply) -> Nsid:
    """The entry that answers `get`. Raises the refusal if there is one."""
    found = nsids(reply.answer())
    if len(found) != 1:
        raise Malformed("expected one namespace ID, found %d" % len(found), 0)
    return found[0]


# ---------------------------------------------------------------- requests


def _request(type: int, flags: int, step: str, object: str, attributes: bytes) -> Request:
    return Request(type, flags, _fixed + attributes, len(_fixed), step, object)


def assign(number: int, fd: int, path: str) -> Request:
    """Give the network namespace open as ``fd`` an ID, from 0 to 2**31 - 1.

    The kernel refuses it with EEXIST if the namespace has an ID, or if another has this ID.
    ``path`` is for errors only.
    """
    attributes = wire.attribute_u32(uapi.NETNSA_NSID, number)
    attributes += wire.attribute_u32(uapi.NETNSA_FD, fd)
    return _request(uapi.RTM_NEWNSID, uapi.NLM_F_ACK, "assign ID to", path, attributes)


def get(fd: int, path: str) -> Request:
    """Read the ID of the network namespace open as ``fd``. ``path`` is for errors only."""
    attributes = wire.attribute_u32(uapi.NETNSA_FD, fd)
    return _request(uapi.RTM_GETNSID, 0, "read ID of", path, attributes)

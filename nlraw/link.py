# SPDX-License-Identifier: Apache-2.0
"""RTM_*LINK: the requests, and `Link`, one device as a reply tells it (rtnetlink(7), net/core/rtnetlink.c)."""

from . import uapi, wire
from .errors import Invalid, Malformed
from .exchange import Reply, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, List, Optional, Tuple

_NEWLINK = uapi.RTM_NEWLINK
_FIXED = uapi.ifinfomsg.size
_unpack = uapi.ifinfomsg.unpack_from

_NAMED = sum(bit for bit, _ in uapi.IFF_NAMES)


class Link(wire.Told):
    """One network device. Attributes are parsed when they are first asked for; one that is absent is None.

    An attribute too short for its type raises `Malformed` when it is read, a bad layout when the first one is.
    """

    __slots__ = ("ifindex", "flags", "_ifname", "_tun")

    _fixed = _FIXED

    def __init__(self, message: "wire.Message") -> None:  # does what wire.Told would: there may be thousands
        _, _, _, _, data, start, end = message
        if end - start < _FIXED:
            raise Malformed("%d bytes where ifinfomsg belongs" % (end - start), start)
        _, _, self.ifindex, self.flags, _ = _unpack(data, start)
        self._message = message
        self._row: Optional[wire.Row] = None
        self._ifname: Optional[str] = None
        self._tun: Optional[Tun] = None

    @property
    def ifname(self) -> str:
        if self._ifname is None:
            self._ifname = self.attributes.string(uapi.IFLA_IFNAME) or ""
        return self._ifname

    @property
    def address(self) -> "Optional[str]":
        """The link-layer address as colon-separated hex."""
        address = self.attributes.raw(uapi.IFLA_ADDRESS)
        return None if address is None else ":".join(["%02x" % byte for byte in address])

    @property
    def mtu(self) -> "Optional[int]":
        return self.attributes.u32(uapi.IFLA_MTU)

    @property
    def group(self) -> "Optional[int]":
        return self.attributes.u32(uapi.IFLA_GROUP)

    @property
    def operstate(self) -> "Optional[int]":
        """RFC 2863 state, one of IF_OPER_*; it lags the carrier (net/core/link_watch.c)."""
        return self.attributes.u8(uapi.IFLA_OPERSTATE)

    @property
    def carrier(self) -> "Optional[bool]":
        state = self.attributes.u8(uapi.IFLA_CARRIER)
        return None if state is None else state != 0

    @property
    def carrier_up_count(self) -> "Optional[int]":
        """How often the carrier came on; a TAP's first open does not count (tun_attach(), drivers/net/tun.c)."""
        return self.attributes.u32(uapi.IFLA_CARRIER_UP_COUNT)

    @property
    def kind(self) -> "Optional[str]":
        """The driver's name for its kind of device: "tun", "veth", "bridge"."""
        return self.attributes.row(uapi.IFLA_LINKINFO).string(uapi.IFLA_INFO_KIND)

    def tun(self) -> "Optional[Tun]":
        """The TUN driver's facts, or None for another driver's device."""
        if self._tun is None:
            info = self.attributes.row(uapi.IFLA_LINKINFO)
            if info.string(uapi.IFLA_INFO_KIND) == "tun":
                self._tun = Tun(info.row(uapi.IFLA_INFO_DATA))
        return self._tun

    def __repr__(self) -> str:
        return "Link(%d: %r, kind=%r, flags=%#x)" % (self.ifindex, self.ifname, self.kind, self.flags)


class Tun:
    """What only a TUN device has (tun_fill_info() in drivers/net/tun.c)."""

    __slots__ = ("type", "queues", "disabled_queues")

    def __init__(self, attributes: wire.Row) -> None:
        self.type = attributes.u8(uapi.IFLA_TUN_TYPE)  # IFF_TUN or IFF_TAP
        self.queues = attributes.u32(uapi.IFLA_TUN_NUM_QUEUES) or 0  # of a multi-queue device alone
        self.disabled_queues = attributes.u32(uapi.IFLA_TUN_NUM_DISABLED_QUEUES) or 0


def flag_names(flags: int) -> "Tuple[str, ...]":
    """The flags of a link in iproute2's names and order; bits without a name as one hexadecimal number."""
    names = _flag_names.get(flags)
    if names is None:
        rest = flags & ~_NAMED
        names = tuple([name for bit, name in uapi.IFF_NAMES if flags & bit] + (["%#x" % rest] if rest else []))
        if len(_flag_names) < _MOST_FLAGS:
            _flag_names[flags] = names
    return names


# What was said of flags before: there are few that links have.
_flag_names: "Dict[int, Tuple[str, ...]]" = {}
_MOST_FLAGS = 64


def operstate_name(state: "Optional[int]") -> "Optional[str]":
    """The operational state in iproute2's names; a state without one as a hexadecimal number."""
    if state is None:
        return None
    return uapi.IF_OPER_NAMES[state] if state < len(uapi.IF_OPER_NAMES) else "%#x" % state


def links(messages: "Iterable[wire.Message]") -> "List[Link]":
    """The links among the messages of a reply."""
    return [Link(message) for message in messages if message[0] == _NEWLINK]


def only(reply: Reply) -> Link:
    """The link that answers `get` or `find`; raises the refusal, where there is one."""
    found = links(reply.answer())
    if len(found) != 1:
        raise Malformed("%d links where one was asked for" % len(found), 0)
    return found[0]


def check_name(name: str) -> None:
    """Raise `Invalid` for what no interface can be called (dev_valid_name(), net/core/dev.c)."""
    size = len(name.encode("utf-8", "surrogateescape"))
    if size >= uapi.IFNAMSIZ:
        raise Invalid("an interface name has at most 15 bytes, this one has %d" % size, "check name", name)
    if name in ("", ".", "..") or any(char in "/:\0" or char.isspace() for char in name):
        raise Invalid("this cannot be the name of an interface", "check name", name)


def _request(
    type: int, flags: int, step: str, object: str, attributes: bytes = b"", ifindex: int = 0, change: int = 0
) -> Request:
    fixed = uapi.ifinfomsg.pack(0, 0, ifindex, change, change)  # the flags to set, and the mask of those that change
    return Request(type, flags, fixed + attributes, _FIXED, step, object)


def get(ifindex: int, name: str) -> Request:
    """Read one link by its index; ``name`` is for the reader of an error."""
    return _request(uapi.RTM_GETLINK, 0, "read link", name, ifindex=ifindex)


def find(name: str) -> Request:
    """Read one link by its name, of at most 15 bytes. The kernel also finds it by an alternative name."""
    return _request(uapi.RTM_GETLINK, 0, "look up link", name, wire.attribute_string(uapi.IFLA_IFNAME, name))


def dump(kind: "Optional[str]" = None, complete: bool = False) -> Request:
    """Read all links, without their counters, or those of one kind.

    A kernel that filters says so in each message (NLM_F_DUMP_FILTERED). One that does not, or whose driver for the kind is
    not loaded, sends all: check the kind of each.

    Linux 6.18 ends a list, and says nothing of it, ahead of a link whose message does not fit the kernel's buffer: of 4 KiB for
    the first, else of 32 KiB. Some 20 or 250 alternative names make one so long. With IFLA_EXT_MASK the kernel makes the buffer
    large enough, but has to measure every link of the namespace, which takes 0.2 us each (rtnl_calcit(),
    net/core/rtnetlink.c): it is asked to for all links, and for those of one kind if the list must be ``complete``.
    """
    attributes = b""
    if kind is None or complete:
        attributes = wire.attribute_u32(uapi.IFLA_EXT_MASK, uapi.RTEXT_FILTER_SKIP_STATS)
    if kind is not None:
        attributes += wire.nested(uapi.IFLA_LINKINFO, wire.attribute(uapi.IFLA_INFO_KIND, kind.encode("ascii")))
    return _request(uapi.RTM_GETLINK, uapi.NLM_F_DUMP, "list links", kind or "of every kind", attributes)


def delete(ifindex: int, name: str) -> Request:
    """Delete one link by its index. No flag but REQUEST and ACK: NLM_F_EXCL is NLM_F_BULK here since Linux 5.19."""
    return _request(uapi.RTM_DELLINK, uapi.NLM_F_ACK, "delete link", name, ifindex=ifindex)


def set_group(ifindex: int, name: str, group: int) -> Request:
    """Put one link into a group of links, which is a number and nothing else."""
    attributes = wire.attribute_u32(uapi.IFLA_GROUP, group)
    return _request(uapi.RTM_SETLINK, uapi.NLM_F_ACK, "set group of link", name, attributes, ifindex)


def delete_group(group: int, names: str) -> Request:
    """Delete every link of a group at once, with one wait for all (rtnl_group_dellink(), net/core/rtnetlink.c)."""
    attributes = wire.attribute_u32(uapi.IFLA_GROUP, group)
    return _request(uapi.RTM_DELLINK, uapi.NLM_F_ACK, "delete links", names, attributes)


def set_up(ifindex: int, name: str, mtu: "Optional[int]" = None) -> Request:
    """Set one link administratively up, with that MTU if one is given."""
    attributes = b"" if mtu is None else wire.attribute_u32(uapi.IFLA_MTU, mtu)
    return _request(uapi.RTM_SETLINK, uapi.NLM_F_ACK, "set up link", name, attributes, ifindex, change=uapi.IFF_UP)


def create_veth(name: str, peer: str) -> Request:
    """Create a pair of veth devices, both down, in the same namespace; refused where a name is taken."""
    far = wire.nested(uapi.VETH_INFO_PEER, uapi.ifinfomsg.pack(0, 0, 0, 0, 0) + wire.attribute_string(uapi.IFLA_IFNAME, peer))
    attributes = wire.attribute_string(uapi.IFLA_IFNAME, name) + wire.nested(
        uapi.IFLA_LINKINFO, wire.attribute(uapi.IFLA_INFO_KIND, b"veth"), wire.nested(uapi.IFLA_INFO_DATA, far)
    )
    flags = uapi.NLM_F_CREATE | uapi.NLM_F_EXCL | uapi.NLM_F_ACK
    return _request(uapi.RTM_NEWLINK, flags, "create veth", name, attributes)

# SPDX-License-Identifier: Apache-2.0
"""RTM_*LINK: the requests, and the decoded `Link` (rtnetlink(7), net/core/rtnetlink.c)."""

from . import uapi, wire
from .errors import Invalid, Malformed
from .exchange import Reply, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, List, Optional, Tuple

_NEWLINK = uapi.RTM_NEWLINK
_FIXED = uapi.ifinfomsg.size
_unpack = uapi.ifinfomsg.unpack_from

_NAMED_FLAGS = sum(bit for bit, _ in uapi.IFF_NAMES)


# ---------------------------------------------------------------- decoded from replies


class Link(wire.Decoded):
    """One network device. ``flags`` are IFF_*. An absent attribute reads as None.

    The first read of an attribute raises `Malformed` if any attribute has an impossible length.
    Reading an attribute raises it if the value is too short.
    """

    __slots__ = ("ifindex", "flags", "_ifname", "_tun")

    _layout = uapi.ifinfomsg

    def __init__(self, message: "wire.Message") -> None:
        # wire.Decoded._decode(), without the call: a dump may hold thousands of links
        _, _, _, _, data, start, end = message
        if end - start < _FIXED:
            raise wire.too_short(_FIXED, end - start, start)
        _, _, self.ifindex, self.flags, _ = _unpack(data, start)
        self._message = message
        self._attributes: Optional[wire.Attributes] = None
        self._ifname: Optional[str] = None
        self._tun: Optional[Tun] = None

    @property
    def ifname(self) -> str:
        """The name; empty if absent."""
        if self._ifname is None:
            self._ifname = self.attributes.string(uapi.IFLA_IFNAME) or ""
        return self._ifname

    @property
    def address(self) -> "Optional[str]":
        """The link-layer address, as colon-separated hex."""
        address = self.attributes.raw(uapi.IFLA_ADDRESS)
        return None if address is None else ":".join(["%02x" % byte for byte in address])

    @property
    def mtu(self) -> "Optional[int]":
        """The largest payload of a frame, in bytes."""
        return self.attributes.u32(uapi.IFLA_MTU)

    @property
    def max_mtu(self) -> "Optional[int]":
        """The largest MTU that the kernel accepts, in bytes; 0 if the driver sets no limit."""
        return self.attributes.u32(uapi.IFLA_MAX_MTU)

    @property
    def lower(self) -> "Optional[int]":
        """The ifindex of the device below it in this namespace; None or 0 if there is none.

        The kernel deletes a macvlan, macvtap or VLAN with the device below it. A veth has its peer
        here.
        """
        if uapi.IFLA_LINK_NETNSID in self.attributes:
            return None
        lower = self.attributes.s32(uapi.IFLA_LINK)
        return None if lower == self.ifindex else lower

    @property
    def group(self) -> "Optional[int]":
        """The number of the group that the link is in (see `set_group`)."""
        return self.attributes.u32(uapi.IFLA_GROUP)

    @property
    def operstate(self) -> "Optional[int]":
        """The RFC 2863 state, IF_OPER_*. It changes later than the carrier (link_watch.c)."""
        return self.attributes.u8(uapi.IFLA_OPERSTATE)

    @property
    def carrier(self) -> "Optional[bool]":
        """True while the carrier is on."""
        state = self.attributes.u8(uapi.IFLA_CARRIER)
        return None if state is None else state != 0

    @property
    def carrier_up_count(self) -> "Optional[int]":
        """How many times the carrier came on; a TAP's first open does not count (tun_attach())."""
        return self.attributes.u32(uapi.IFLA_CARRIER_UP_COUNT)

    @property
    def carrier_down_count(self) -> "Optional[int]":
        """How many times the carrier went off; each release of a TAP that is up counts."""
        return self.attributes.u32(uapi.IFLA_CARRIER_DOWN_COUNT)

    @property
    def kind(self) -> "Optional[str]":
        """The driver's name for the kind of device: "tun", "veth", "bridge"."""
        return self.attributes.nested(uapi.IFLA_LINKINFO).string(uapi.IFLA_INFO_KIND)

    def tun(self) -> "Optional[Tun]":
        """The TUN driver's facts; None if another driver made the device."""
        if self._tun is None:
            info = self.attributes.nested(uapi.IFLA_LINKINFO)
            if info.string(uapi.IFLA_INFO_KIND) == "tun":
                self._tun = Tun(info.nested(uapi.IFLA_INFO_DATA))
        return self._tun

    def __repr__(self) -> str:
        facts = (self.ifindex, self.ifname, self.kind, self.flags)
        return "Link(%d: %r, kind=%r, flags=%#x)" % facts


class Tun:
    """The facts that only TUN devices have (tun_fill_info(), drivers/net/tun.c).

    ``type`` is IFF_TUN or IFF_TAP. Without multi-queue the numbers of queues are 0.
    """

    __slots__ = ("type", "queues", "disabled_queues")

    def __init__(self, attributes: wire.Attributes) -> None:
        self.type = attributes.u8(uapi.IFLA_TUN_TYPE)
        self.queues = attributes.u32(uapi.IFLA_TUN_NUM_QUEUES) or 0
        self.disabled_queues = attributes.u32(uapi.IFLA_TUN_NUM_DISABLED_QUEUES) or 0


def links(messages: "Iterable[wire.Message]") -> "List[Link]":
    """Decode the links of a reply; skip other messages."""
    return [Link(message) for message in messages if message[0] == _NEWLINK]


def only(reply: Reply) -> Link:
    """The link that answers `get` or `find`. Raises the refusal if there is one."""
    found = links(reply.answer())
    if len(found) != 1:
        raise Malformed("expected one link, found %d" % len(found), 0)
    return found[0]


# ---------------------------------------------------------------- names


def flag_names(flags: int) -> "Tuple[str, ...]":
    """The flags of a link, with iproute2's names and order.

    Bits without a name become one hexadecimal number.
    """
    names = cached_flag_names.get(flags)
    if names is None:
        rest = flags & ~_NAMED_FLAGS
        names = tuple([name for bit, name in uapi.IFF_NAMES if flags & bit])
        if rest:
            names += ("%#x" % rest,)
        if len(cached_flag_names) < MOST_CACHED_FLAGS:
            cached_flag_names[flags] = names
    return names


# Cache of flag names: few combinations occur.
cached_flag_names: "Dict[int, Tuple[str, ...]]" = {}
MOST_CACHED_FLAGS = 64


def operstate_name(state: "Optional[int]") -> "Optional[str]":
    """The operational state, with iproute2's name; a hexadecimal number if it has none."""
    if state is None:
        return None
    return uapi.IF_OPER_NAMES[state] if state < len(uapi.IF_OPER_NAMES) else "%#x" % state


# Bytes: "/", ":", NUL, and what the kernel takes for a space, the last one included (lib/ctype.c).
_NOT_IN_NAMES = frozenset(b"/:\0\t\n\v\f\r \xa0")


def check_name(name: str) -> None:
    """Raise `Invalid` if no interface can have this name (dev_valid_name(), net/core/dev.c)."""
    try:
        data = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = b""
    if len(data) >= uapi.IFNAMSIZ:
        words = "an interface name has at most 15 bytes, this one has %d" % len(data)
        raise Invalid(words, "check name", name)
    if data in (b"", b".", b"..") or not _NOT_IN_NAMES.isdisjoint(data):
        words = (
            "no interface has such a name: empty, . or .., or with a slash, colon or white space"
        )
        raise Invalid(words, "check name", name)


# ---------------------------------------------------------------- requests


def _request(
    type: int,
    flags: int,
    step: str,
    object: str,
    attributes: bytes = b"",
    ifindex: int = 0,
    change: int = 0,
) -> Request:
    """Build a request. ``change`` are the flags to set; no other flag changes."""
    fixed = uapi.ifinfomsg.pack(0, 0, ifindex, change, change)
    return Request(type, flags, fixed + attributes, _FIXED, step, object)


def get(ifindex: int, name: str) -> Request:
    """Read one link by its index. ``name`` is for errors only."""
    return _request(uapi.RTM_GETLINK, 0, "read link", name, ifindex=ifindex)


def find(name: str) -> Request:
    """Read one link by its name, of at most 15 bytes. An alternative name finds it too."""
    attributes = wire.attribute_string(uapi.IFLA_IFNAME, name)
    return _request(uapi.RTM_GETLINK, 0, "look up link", name, attributes)


def dump(
    kind: "Optional[str]" = None, complete: bool = False, nsid: "Optional[int]" = None
) -> Request:
    """List all links, or those of one kind, without statistics.

    A kernel that filters by kind marks each message with NLM_F_DUMP_FILTERED. An old kernel, or one
    that has not loaded the driver for the kind, lists all links: check the kind of each.

    Linux 6.18 silently ends a list before a link whose message does not fit the kernel's buffer: 4
    KiB for the first link, 32 KiB for others. About 20 alternative names make a message longer than
    4 KiB, about 250 longer than 32 KiB. If the request has an IFLA_EXT_MASK, the kernel makes the
    buffer large enough, but has to measure every link of the namespace, at 0.2 us each
    (rtnl_calcit(), net/core/rtnetlink.c). The request for all links has an IFLA_EXT_MASK. The
    request for one kind has it if ``complete``.

    ``nsid``: list the links of the network namespace that has this ID here, without entering it. An
    ID that no namespace has is refused with EINVAL.
    """
    attributes = b"" if nsid is None else wire.attribute_u32(uapi.IFLA_TARGET_NETNSID, nsid)
    if kind is None or complete:
        attributes += wire.attribute_u32(uapi.IFLA_EXT_MASK, uapi.RTEXT_FILTER_SKIP_STATS)
    if kind is not None:
        info_kind = wire.attribute(uapi.IFLA_INFO_KIND, kind.encode("ascii"))
        attributes += wire.attribute_nested(uapi.IFLA_LINKINFO, info_kind)
    object = kind or "of every kind"
    return _request(uapi.RTM_GETLINK, uapi.NLM_F_DUMP, "list links", object, attributes)


def delete(ifindex: int, name: str) -> Request:
    """Delete one link by its index.

    A delete has no flags but REQUEST and ACK: in it NLM_F_EXCL means NLM_F_BULK since Linux 5.19.
    """
    return _request(uapi.RTM_DELLINK, uapi.NLM_F_ACK, "delete link", name, ifindex=ifindex)


def set_group(ifindex: int, name: str, group: int) -> Request:
    """Put one link into a group. A group is a number that links share, and nothing else."""
    attributes = wire.attribute_u32(uapi.IFLA_GROUP, group)
    step = "set group of link"
    return _request(uapi.RTM_SETLINK, uapi.NLM_F_ACK, step, name, attributes, ifindex)


def delete_group(group: int, names: str) -> Request:
    """Delete all links of a group; the kernel waits once for all (rtnl_group_dellink())."""
    attributes = wire.attribute_u32(uapi.IFLA_GROUP, group)
    return _request(uapi.RTM_DELLINK, uapi.NLM_F_ACK, "delete links", names, attributes)


def set_up(ifindex: int, name: str, mtu: "Optional[int]" = None) -> Request:
    """Set one link administratively up, and set its MTU if one is given."""
    attributes = b"" if mtu is None else wire.attribute_u32(uapi.IFLA_MTU, mtu)
    return _request(
        uapi.RTM_SETLINK,
        uapi.NLM_F_ACK,
        "set up link",
        name,
        attributes,
        ifindex,
        change=uapi.IFF_UP,
    )


def create_veth(name: str, peer: str) -> Request:
    """Create a pair of veth devices, both down, in one namespace. Refused if a name is taken."""
    peer_info = wire.attribute_nested(
        uapi.VETH_INFO_PEER,
        uapi.ifinfomsg.pack(0, 0, 0, 0, 0) + wire.attribute_string(uapi.IFLA_IFNAME, peer),
    )
    link_info = wire.attribute_nested(
        uapi.IFLA_LINKINFO,
        wire.attribute(uapi.IFLA_INFO_KIND, b"veth"),
        wire.attribute_nested(uapi.IFLA_INFO_DATA, peer_info),
    )
    return _request(
        uapi.RTM_NEWLINK,
        uapi.NLM_F_CREATE | uapi.NLM_F_EXCL | uapi.NLM_F_ACK,
        "create veth",
        name,
        wire.attribute_string(uapi.IFLA_IFNAME, name) + link_info,
    )

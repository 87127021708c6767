# SPDX-License-Identifier: Apache-2.0
"""The records of a setup: what a VMM attaches to, and what its guest is configured with.

Attribute names are the keys of the JSON. They are iproute2's (`ip -j -d address`, `route` and
`neighbour`), with four exceptions in a route: ``src`` is iproute2's ``prefsrc``, ``mtu`` comes from
its ``metrics``, ``onlink`` from its ``flags``, and ``gateway`` from its ``via`` too. Every key is
always there. If iproute2 leaves a key out, the value is None, or an empty tuple of ``nexthops``.
"""

from .report import Record, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple

    from .report import Report, TcObject


class GuestAddress(Record):
    """One address of an uplink, without those that an IPv6 guest makes itself (fe80::/10).

    ``family`` is "inet" or "inet6", ``local`` the address, ``prefixlen`` its prefix length.
    ``address`` is the peer of a point-to-point address, ``broadcast`` the broadcast address.
    ``scope`` is "global", "link", "host", "site", "nowhere", or a number as text.
    """

    __slots__ = ("family", "local", "prefixlen", "address", "broadcast", "scope")

    def words(self) -> str:
        """The words that `ip address add` takes, without the device."""
        words = [self.local, "peer", self.address] if self.address else [self.local]
        words[-1] += "/%d" % self.prefixlen
        if self.broadcast:
            words += ["broadcast", self.broadcast]
        if self.scope != "global":
            words += ["scope", self.scope]
        return " ".join(words)

    if TYPE_CHECKING:
        family: str
        local: str
        prefixlen: int
        address: Optional[str]
        broadcast: Optional[str]
        scope: str


class NextHop(Record):
    """One of several next hops of a route. ``dev`` may be another device than the uplink.

    ``dev`` is None if the device is not in the list of devices: it came or went meanwhile.
    """

    __slots__ = ("gateway", "dev", "weight", "onlink")

    def words(self, family: str) -> str:
        """The words that `ip route add` takes, for a route of a family."""
        words = ["nexthop"] + _via(family, self.gateway)
        words += ["dev", self.dev] if self.dev else []
        words += ["weight", str(self.weight)]
        return " ".join(words + ["onlink"] * self.onlink)

    if TYPE_CHECKING:
        gateway: Optional[str]
        dev: Optional[str]
        weight: int
        onlink: bool


def _via(family: str, gateway: "Optional[str]") -> "List[str]":
    """The words for a gateway, which may be of the other family; none if there is none."""
    if gateway is None:
        return []
    own = "inet6" if ":" in gateway else "inet"
    return ["via", gateway] if own == family else ["via", own, gateway]


class GuestRoute(Record):
    """One route of the main table that leads through an uplink.

    ``family`` is "inet" or "inet6"; ``type`` is almost always "unicast". ``dst`` is
    "default", an address, or an address and its prefix length: "10.9.0.0/16". ``gateway`` may be of
    the other family (RTA_VIA); it is None for a destination on the link. ``protocol`` is the
    origin of the route; a "kernel" route comes with its address. ``src`` is the preferred source
    address. ``metric`` and ``mtu`` (bytes) are None if the route has none of its own. ``onlink``:
    the gateway counts as on the link, although no route leads to it. ``tos`` ("0x10") and ``from``
    (a prefix, as ``dst``) limit the route to some packets; None for almost every route.
    ``nexthops`` is a tuple of `NextHop`, empty unless there are several.
    """

    __slots__ = (
        "family",
        "type",
        "dst",
        "gateway",
        "protocol",
        "scope",
        "src",
        "metric",
        "mtu",
        "onlink",
        "tos",
        "from",
        "nexthops",
    )
    _defaults = (("tos", None), ("from", None), ("nexthops", ()))

    def words(self) -> str:
        """The words that `ip route add` takes, without the device."""
        words = [self.dst] if self.type == "unicast" else [self.type, self.dst]
        for name in ("from", "tos"):
            value: Optional[str] = getattr(self, name)
            words += [name, value] if value else []
        words += _via(self.family, self.gateway)
        if self.protocol != "boot":  # the default of `ip`
            words += ["proto", self.protocol]
        is_on_link = self.gateway is None and not self.nexthops
        if self.family == "inet" and self.scope != ("link" if is_on_link else "global"):
            words += ["scope", self.scope]
        for name in ("src", "metric", "mtu"):
            value = getattr(self, name)
            words += [] if value is None else [name, str(value)]
        words += ["onlink"] * self.onlink
        return " ".join(words + [hop.words(self.family) for hop in self.nexthops])

    if TYPE_CHECKING:
        family: str
        type: str
        dst: str
        gateway: Optional[str]
        protocol: str
        scope: str
        src: Optional[str]
        metric: Optional[int]
        mtu: Optional[int]
        onlink: bool
        tos: Optional[str]
        nexthops: Tuple[NextHop, ...]


class GuestNeighbour(Record):
    """One permanent neighbour of an uplink: address, and MAC as colon-separated hex."""

    __slots__ = ("dst", "lladdr")

    def words(self) -> str:
        """The words that `ip neighbour add` takes, without the device and the state."""
        return self.dst if self.lladdr is None else "%s lladdr %s" % (self.dst, self.lladdr)

    if TYPE_CHECKING:
        dst: str
        lladdr: Optional[str]


class CreatedTap(Record):
    """The TAP for a VMM to attach to: MAC as colon-separated hex, MTU in bytes.

    If ``multi_queue`` is true, the VMM must open it with several queues, otherwise with one: the
    kernel refuses any other open.
    """

    __slots__ = ("ifname", "ifindex", "address", "mtu", "multi_queue")
    _defaults = (("multi_queue", False),)

    if TYPE_CHECKING:
        ifname: str
        ifindex: int
        address: Optional[str]
        mtu: int
        multi_queue: bool


class Uplink(Record):
    """The container interface: MAC, MTU in bytes, and what its guest is configured with.

    ``addresses``, ``routes`` and ``neighbours`` are tuples of `GuestAddress`, `GuestRoute` and
    `GuestNeighbour`, in the kernel's order. ``local``, ``prefixlen`` and ``gateway`` are the first
    IPv4 address and the gateway of the IPv4 default route; None if it has none.
    """

    __slots__ = (
        "ifname",
        "ifindex",
        "address",
        "mtu",
        "local",
        "prefixlen",
        "gateway",
        "addresses",
        "routes",
        "neighbours",
    )
    _defaults = (("addresses", ()), ("routes", ()), ("neighbours", ()))

    if TYPE_CHECKING:
        ifname: str
        ifindex: int
        address: Optional[str]
        mtu: int
        local: Optional[str]
        prefixlen: Optional[int]
        gateway: Optional[str]
        addresses: Tuple[GuestAddress, ...]
        routes: Tuple[GuestRoute, ...]
        neighbours: Tuple[GuestNeighbour, ...]


class Pair(Record):
    """A TAP, and the uplink that it is connected to; None if it has none."""

    __slots__ = ("tap", "uplink")

    if TYPE_CHECKING:
        tap: CreatedTap
        uplink: Optional[Uplink]


class Setup(Result):
    """What a setup made. ``outcome`` is "created", "in-use" or "failed".

    ``cleanup`` is the `Report` of the cleanup before it. ``pairs`` is a tuple of `Pair`, empty
    unless created; ``tap`` and ``uplink`` are those of the first pair, or None. ``ahead`` is not in
    the JSON: the `TcObject` of each foreign filter on an uplink that sees a packet before the
    redirect does.
    """

    __slots__ = ("netns", "outcome", "cleanup", "tap", "uplink", "pairs", "error", "ahead")
    _defaults = (("pairs", ()),)

    def document(self) -> "Dict[str, object]":
        fields = self.fields()
        del fields["ahead"]
        return fields

    if TYPE_CHECKING:
        netns: str
        outcome: str
        cleanup: Report
        tap: Optional[CreatedTap]
        uplink: Optional[Uplink]
        pairs: Tuple[Pair, ...]
        ahead: Tuple[TcObject, ...]

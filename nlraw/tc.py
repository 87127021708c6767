# SPDX-License-Identifier: Apache-2.0
"""RTM_*QDISC, RTM_*TFILTER, RTM_*CHAIN: the requests, and the decoded `Qdisc` and `Filter`.

The parent of a filter is the handle of a qdisc, one of the two sides of a clsact, or the number of
a shared block. A parent has chains, a chain has priorities, a priority has filters. The classifier
gives each filter a handle. The kernel also lists priorities and u32 hash tables, as if they were
filters. The root table of a u32 priority stays when the last filter of the priority is deleted
(net/sched/cls_u32.c).
"""

from . import uapi, wire
from .errors import Malformed
from .exchange import Reply, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Optional

_FIXED = uapi.tcmsg.size

# The attribute in TCA_OPTIONS that holds the actions, by kind of classifier.
_ACTIONS = {
    "u32": uapi.TCA_U32_ACT,
    "matchall": uapi.TCA_MATCHALL_ACT,
    "flower": uapi.TCA_FLOWER_ACT,
    "bpf": uapi.TCA_BPF_ACT,
}

# The only attributes that the kernel lists for a flower filter without a condition.
_FLOWER_WITHOUT_KEYS = frozenset(
    (
        uapi.TCA_FLOWER_CLASSID,
        uapi.TCA_FLOWER_ACT,
        uapi.TCA_FLOWER_FLAGS,
        uapi.TCA_FLOWER_IN_HW_COUNT,
    )
)


# ---------------------------------------------------------------- decoded from replies


class _Tc(wire.Decoded):
    """What qdiscs and filters have in common: struct tcmsg, and the kind."""

    __slots__ = ("ifindex", "handle", "parent", "info", "_kind")

    _layout = uapi.tcmsg

    def __init__(self, message: "wire.Message") -> None:
        _, self.ifindex, self.handle, self.parent, self.info = self._decode(message)
        self._kind: Optional[str] = None

    @property
    def kind(self) -> str:
        """The name of the queueing discipline or classifier; empty if absent."""
        if self._kind is None:
            self._kind = self.attributes.string(uapi.TCA_KIND) or ""
        return self._kind


class Qdisc(_Tc):
    """One queueing discipline. A ``handle`` of 0 means that it is the kernel's default."""

    __slots__ = ()

    @property
    def ingress_block(self) -> int:
        """The shared block that holds the filters for incoming packets; 0 if none does."""
        return self.attributes.u32(uapi.TCA_INGRESS_BLOCK) or 0

    @property
    def egress_block(self) -> int:
        """The shared block that holds the filters for outgoing packets; 0 if none does."""
        return self.attributes.u32(uapi.TCA_EGRESS_BLOCK) or 0

    def __repr__(self) -> str:
        facts = (self.kind, self.ifindex, self.handle, self.parent)
        return "Qdisc(%s, ifindex=%d, handle=%#x, parent=%#x)" % facts


class Filter(_Tc):
    """One entry of a list of filters: a filter, a priority or a u32 hash table."""

    __slots__ = ("options", "_actions")

    def __init__(self, message: "wire.Message") -> None:
        super().__init__(message)
        self.options = self.attributes.nested(uapi.TCA_OPTIONS)
        self._actions: Optional[List[Action]] = None

    @property
    def priority(self) -> int:
        """The priority; the filter with the lowest number sees a packet first."""
        return self.info >> 16

    @property
    def protocol(self) -> int:
        """The EtherType that the filter matches; ETH_P_ALL for every packet."""
        return wire.network_u16(self.info & 0xFFFF)

    @property
    def chain(self) -> int:
        """The chain; 0 is the one that every packet enters."""
        return self.attributes.u32(uapi.TCA_CHAIN) or 0

    @property
    def is_table(self) -> bool:
        """True if the entry is a u32 hash table."""
        return self.kind == "u32" and uapi.TCA_U32_DIVISOR in self.options

    @property
    def is_priority(self) -> bool:
        """True if the entry is a priority, which the kernel lists ahead of its filters."""
        return self.handle == 0 and not self.options

    @property
    def is_filter(self) -> bool:
        """True if the entry is a filter: neither a hash table nor a priority."""
        return not self.is_priority and not self.is_table

    @property
    def table(self) -> int:
        """The hash table of a u32 filter, or a hash table itself, as a handle (TC_U32_HTID)."""
        return self.handle & uapi.TC_U32_ROOT

    @property
    def matches_all(self) -> bool:
        """True for a filter of every protocol: a matchall, or a u32 or flower without a condition.

        False for every bpf filter.
        """
        if self.protocol != uapi.ETH_P_ALL:
            return False
        if self.kind == "flower":
            return _FLOWER_WITHOUT_KEYS.issuperset(self.options)
        return self.kind == "matchall" or (self.kind == "u32" and self._u32_matches_all())

    def _u32_matches_all(self) -> bool:
        span = self.options.span(uapi.TCA_U32_SEL)
        if span is None or uapi.TCA_U32_MARK in self.options or uapi.TCA_U32_INDEV in self.options:
            return False
        data, end = self.options.data, span[1]
        flags, _, nkeys = wire.fixed(uapi.tc_u32_sel, data, span)[:3]
        first, size = span[0] + uapi.tc_u32_sel.size, uapi.tc_u32_key.size
        starts = range(first, first + nkeys * size, size)
        masks = [wire.fixed(uapi.tc_u32_key, data, (start, end))[0] for start in starts]
        return flags & uapi.TC_U32_TERMINAL != 0 and not any(masks)

    def actions(self) -> "List[Action]":
        """The actions, in the order in which they run; none if `_ACTIONS` lacks the classifier."""
        if self._actions is None:
            actions = self.options.nested(_ACTIONS.get(self.kind, -1))
            self._actions = [Action(actions.nested(order)) for order in sorted(actions)]
        return self._actions

    def __repr__(self) -> str:
        facts = (self.kind, self.ifindex, self.parent, self.chain, self.priority, self.handle)
        return "Filter(%s, ifindex=%d, parent=%#x, chain=%d, priority=%d, handle=%#x)" % facts


class Action:
    """One action of a filter.

    ``redirect`` is the ifindex to which a mirred action redirects packets, 0 if that device is
    gone; None for any other action or target. ``control`` is the verdict on the packet
    (TC_ACT_*) and ``eaction`` the operation and direction (TCA_*_REDIR, ...); both are None for
    other actions than mirred.
    """

    __slots__ = ("kind", "redirect", "control", "eaction")

    def __init__(self, attributes: wire.Attributes) -> None:
        self.kind = attributes.string(uapi.TCA_ACT_KIND) or ""
        self.redirect: Optional[int] = None
        self.control: Optional[int] = None
        self.eaction: Optional[int] = None
        if self.kind == "mirred":
            self._read_mirred(attributes.nested(uapi.TCA_ACT_OPTIONS))

    def _read_mirred(self, options: wire.Attributes) -> None:
        parms = options.span(uapi.TCA_MIRRED_PARMS)
        if parms is None:
            return
        fields = wire.fixed(uapi.tc_mirred, options.data, parms)
        _, _, self.control, _, _, self.eaction, ifindex = fields
        redirects = self.eaction in (uapi.TCA_EGRESS_REDIR, uapi.TCA_INGRESS_REDIR)
        # a redirect to a shared block (Linux 6.8) has ifindex 0 too, but its target is not gone
        if redirects and uapi.TCA_MIRRED_BLOCKID not in options:
            self.redirect = ifindex


def qdiscs(messages: "Iterable[wire.Message]") -> "List[Qdisc]":
    """Decode the qdiscs of a reply; skip other messages."""
    return [Qdisc(message) for message in messages if message[0] == uapi.RTM_NEWQDISC]


def filters(messages: "Iterable[wire.Message]") -> "List[Filter]":
    """Decode the filters of a reply, with the priorities and hash tables; skip other messages."""
    return [Filter(message) for message in messages if message[0] == uapi.RTM_NEWTFILTER]


def only(reply: Reply) -> Filter:
    """The entry that answers `get_root_table`. Raises the refusal if there is one."""
    found = filters(reply.answer())
    if len(found) != 1:
        raise Malformed("expected one filter, found %d" % len(found), 0)
    return found[0]


def chains(messages: "Iterable[wire.Message]") -> "List[int]":
    """Decode the numbers of the chains of a reply; skip other messages."""
    return [Filter(message).chain for message in messages if message[0] == uapi.RTM_NEWCHAIN]


# ---------------------------------------------------------------- requests


def _request(
    type: int,
    flags: int,
    step: str,
    object: str,
    attributes: bytes = b"",
    ifindex: int = 0,
    handle: int = 0,
    parent: int = 0,
    info: int = 0,
) -> Request:
    """Build a request. ``info`` is the priority and the protocol of a filter."""
    fixed = uapi.tcmsg.pack(0, ifindex, handle, parent, info)
    return Request(type, flags, fixed + attributes, _FIXED, step, object)


def dump_qdiscs() -> Request:
    """List the qdiscs of all devices.

    This is a dump, because the kernel sends the reply to a request for one qdisc to every listener
    of the TC group too.
    """
    return _request(uapi.RTM_GETQDISC, uapi.NLM_F_DUMP, "list qdiscs", "of all links")


def dump_filters(ifindex: int, parent: int, dev: str) -> Request:
    """List the filters of one parent, of every chain and priority.

    With an ifindex of `uapi.TCM_IFINDEX_MAGIC_BLOCK` the parent is the number of a shared block.
    """
    return _request(
        uapi.RTM_GETTFILTER,
        uapi.NLM_F_DUMP,
        "list filters",
        dev,
        ifindex=ifindex,
        parent=parent,
    )


def get_root_table(filter: Filter, parent: int, dev: str) -> Request:
    """Read the root table of the u32 priority that a filter was listed in.

    No listener of the TC group gets the reply.
    """
    step = "read root table of priority %d" % filter.priority
    return _name_filter(uapi.RTM_GETTFILTER, 0, filter, parent, uapi.TC_U32_ROOT, step, dev)


def dump_chains(ifindex: int, parent: int, dev: str) -> Request:
    """List the chains of one parent: those that have filters, and those created explicitly."""
    return _request(
        uapi.RTM_GETCHAIN,
        uapi.NLM_F_DUMP,
        "list chains",
        dev,
        ifindex=ifindex,
        parent=parent,
    )


def delete_qdisc(qdisc: Qdisc, dev: str) -> Request:
    """Delete one qdisc. The kernel refuses if its parent, handle or kind has changed."""
    return _request(
        uapi.RTM_DELQDISC,
        uapi.NLM_F_ACK,
        "delete %s qdisc" % qdisc.kind,
        dev,
        wire.attribute_string(uapi.TCA_KIND, qdisc.kind),
        ifindex=qdisc.ifindex,
        handle=qdisc.handle,
        parent=qdisc.parent,
    )


def delete_filter(filter: Filter, parent: int, dev: str) -> Request:
    """Delete one filter by its handle; the other filters of its priority stay.

    ``parent`` is the one under which the filter was listed. A filter may report another parent.
    """
    step = "delete %s filter" % filter.kind
    kind = uapi.RTM_DELTFILTER
    return _name_filter(kind, uapi.NLM_F_ACK, filter, parent, filter.handle, step, dev)


def delete_priority(filter: Filter, parent: int, dev: str) -> Request:
    """Delete the whole priority that a filter belongs to, with its root table."""
    step = "delete %s filters of priority %d on" % (filter.kind, filter.priority)
    return _name_filter(uapi.RTM_DELTFILTER, uapi.NLM_F_ACK, filter, parent, 0, step, dev)


def _name_filter(
    type: int, flags: int, filter: Filter, parent: int, handle: int, step: str, dev: str
) -> Request:
    """Build a request about an object of the priority that a filter was listed in."""
    attributes = wire.attribute_string(uapi.TCA_KIND, filter.kind)
    if filter.chain:
        attributes += wire.attribute_u32(uapi.TCA_CHAIN, filter.chain)
    return _request(
        type,
        flags,
        step,
        dev,
        attributes,
        ifindex=filter.ifindex,
        handle=handle,
        parent=parent,
        info=filter.info,
    )


# The steps of the two requests that fail if the kernel lacks a feature.
CREATE_INGRESS = "create qdisc (ingress)"
CREATE_REDIRECT = "create redirect (u32, mirred)"


def create_ingress(ifindex: int, dev: str) -> Request:
    """Create an ``ingress`` qdisc on a device. Refused if it has one, or a clsact."""
    return _request(
        uapi.RTM_NEWQDISC,
        uapi.NLM_F_CREATE | uapi.NLM_F_EXCL | uapi.NLM_F_ACK,
        CREATE_INGRESS,
        dev,
        wire.attribute_string(uapi.TCA_KIND, "ingress"),
        ifindex=ifindex,
        handle=uapi.TC_H_INGRESS_HANDLE,
        parent=uapi.TC_H_INGRESS,
    )


def create_redirect(
    ifindex: int, parent: int, target: int, dev: str, priority: int = 0, reported: bool = True
) -> Request:
    """Redirect every packet that a device receives to another device, which sends it.

    The filter is a u32 that matches all; its action is mirred egress redirect, "stolen". With a
    priority of 0 the kernel chooses one: ahead of those that it chose before, behind those below
    32768 that others chose (tcf_auto_prio(), net/sched/cls_api.c). If it is to be ``reported``,
    the kernel's reply has the filter, and so its priority (NLM_F_ECHO).
    """
    parms = uapi.tc_mirred.pack(0, 0, uapi.TC_ACT_STOLEN, 0, 0, uapi.TCA_EGRESS_REDIR, target)
    mirred = wire.attribute_nested(
        1,  # the first action
        wire.attribute_string(uapi.TCA_ACT_KIND, "mirred"),
        wire.attribute_nested(uapi.TCA_ACT_OPTIONS, wire.attribute(uapi.TCA_MIRRED_PARMS, parms)),
    )
    match_all = uapi.tc_u32_sel.pack(uapi.TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0)
    match_all += uapi.tc_u32_key.pack(0, 0, 0, 0)
    options = wire.attribute_nested(
        uapi.TCA_OPTIONS,
        wire.attribute(uapi.TCA_U32_SEL, match_all),
        wire.attribute_nested(uapi.TCA_U32_ACT, mirred),
    )
    return _request(
        uapi.RTM_NEWTFILTER,
        uapi.NLM_F_CREATE | uapi.NLM_F_EXCL | uapi.NLM_F_ACK | reported * uapi.NLM_F_ECHO,
        CREATE_REDIRECT,
        dev,
        wire.attribute_string(uapi.TCA_KIND, "u32") + options,
        ifindex=ifindex,
        parent=parent,
        info=priority << 16 | wire.network_u16(uapi.ETH_P_ALL),
    )

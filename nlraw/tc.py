# SPDX-License-Identifier: Apache-2.0
"""RTM_*QDISC and RTM_*TFILTER: the requests, and `Qdisc` and `Filter` as replies tell them.

A filter hangs under a parent: the qdisc's handle, or one of clsact's two hooks. It belongs to a chain,
there to a priority, and has a handle of its classifier's making. A u32 classifier also lists its hash
tables under the priority; the root table stays when the last key has gone (net/sched/cls_u32.c).
"""

from . import uapi, wire
from .exchange import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Optional

_FIXED = uapi.tcmsg.size

# Where a classifier keeps its actions, by kind: inside TCA_OPTIONS.
_ACTIONS = {
    "u32": uapi.TCA_U32_ACT,
    "matchall": uapi.TCA_MATCHALL_ACT,
    "flower": uapi.TCA_FLOWER_ACT,
    "bpf": uapi.TCA_BPF_ACT,
}


class _Tc(wire.Told):
    """The part that qdiscs and filters share: tcmsg and its attributes."""

    __slots__ = ("ifindex", "handle", "parent", "info", "_kind")

    _fixed = _FIXED

    def __init__(self, message: "wire.Message") -> None:
        super().__init__(message)
        _, _, _, _, data, start, end = message
        fixed = wire.fixed(uapi.tcmsg, data, (start, end))
        _, self.ifindex, self.handle, self.parent, self.info = fixed
        self._kind: Optional[str] = None

    @property
    def kind(self) -> str:
        """The name of the discipline or classifier."""
        if self._kind is None:
            self._kind = self.attributes.string(uapi.TCA_KIND) or ""
        return self._kind


class Qdisc(_Tc):
    """One queueing discipline. A handle of 0 marks one that the kernel put there by default."""

    __slots__ = ()

    @property
    def ingress_block(self) -> int:
        """The shared block that takes this qdisc's ingress filters; 0 for none."""
        return self.attributes.u32(uapi.TCA_INGRESS_BLOCK) or 0

    @property
    def egress_block(self) -> int:
        return self.attributes.u32(uapi.TCA_EGRESS_BLOCK) or 0

    def __repr__(self) -> str:
        return "Qdisc(%s, ifindex=%d, handle=%#x, parent=%#x)" % (self.kind, self.ifindex, self.handle, self.parent)


class Filter(_Tc):
    """One filter; or one u32 hash table (`table`), or a priority as such (`bare`), which the kernel lists alike."""

    __slots__ = ("options", "_actions")

    def __init__(self, message: "wire.Message") -> None:
        super().__init__(message)
        self.options = self.attributes.row(uapi.TCA_OPTIONS)
        self._actions: Optional[List[Action]] = None

    @property
    def priority(self) -> int:
        return self.info >> 16

    @property
    def protocol(self) -> int:
        """The EtherType it sees, ETH_P_ALL for every frame."""
        return wire.network_u16(self.info & 0xFFFF)

    @property
    def chain(self) -> int:
        return self.attributes.u32(uapi.TCA_CHAIN) or 0

    @property
    def table(self) -> bool:
        """A u32 hash table and no filter."""
        return self.kind == "u32" and uapi.TCA_U32_DIVISOR in self.options

    @property
    def bare(self) -> bool:
        """No filter either but the priority as such, which the kernel lists ahead of what is in it."""
        return self.handle == 0 and not self.options

    def actions(self) -> "List[Action]":
        """Its actions in the order in which they are run; none of a classifier not known here."""
        if self._actions is None:
            row = self.options.row(_ACTIONS.get(self.kind, -1))
            self._actions = [Action(row.row(order)) for order in sorted(row)]
        return self._actions

    @property
    def matches_all(self) -> bool:
        """Whether it is a matchall, or a u32 without a condition, for every protocol. No flower or bpf is called so."""
        if self.protocol != uapi.ETH_P_ALL:
            return False
        return self.kind == "matchall" or (self.kind == "u32" and self._u32_matches_all())

    def _u32_matches_all(self) -> bool:
        span = self.options.span(uapi.TCA_U32_SEL)
        if span is None or uapi.TCA_U32_MARK in self.options or uapi.TCA_U32_INDEV in self.options:
            return False
        data = self.options.data
        flags, _, nkeys = wire.fixed(uapi.tc_u32_sel, data, span)[:3]
        at = span[0] + uapi.tc_u32_sel.size
        masks = [wire.fixed(uapi.tc_u32_key, data, (at + key * uapi.tc_u32_key.size, span[1]))[0] for key in range(nkeys)]
        return flags & uapi.TC_U32_TERMINAL != 0 and not any(masks)

    def __repr__(self) -> str:
        return "Filter(%s, ifindex=%d, parent=%#x, chain=%d, priority=%d, handle=%#x)" % (
            self.kind,
            self.ifindex,
            self.parent,
            self.chain,
            self.priority,
            self.handle,
        )


class Action:
    """One action of a filter. ``redirect`` is the ifindex that a mirred redirect sends to, 0 where that device is gone, and
    None for any other action; ``control`` is its verdict on the packet (TC_ACT_*), ``eaction`` its direction."""

    __slots__ = ("kind", "redirect", "control", "eaction")

    def __init__(self, attributes: wire.Row) -> None:
        self.kind = attributes.string(uapi.TCA_ACT_KIND) or ""
        self.redirect: Optional[int] = None
        self.control: Optional[int] = None
        self.eaction: Optional[int] = None
        if self.kind == "mirred":
            self._read_mirred(attributes.row(uapi.TCA_ACT_OPTIONS))

    def _read_mirred(self, options: wire.Row) -> None:
        parms = options.span(uapi.TCA_MIRRED_PARMS)
        if parms is not None:
            _, _, self.control, _, _, self.eaction, ifindex = wire.fixed(uapi.tc_mirred, options.data, parms)
            # one to a shared block (Linux 6.8 and newer) has ifindex 0 too, and is alive
            redirects = self.eaction in (uapi.TCA_EGRESS_REDIR, uapi.TCA_INGRESS_REDIR)
            if redirects and uapi.TCA_MIRRED_BLOCKID not in options:
                self.redirect = ifindex


def qdiscs(messages: "Iterable[wire.Message]") -> "List[Qdisc]":
    """The qdiscs among the messages of a reply."""
    return [Qdisc(message) for message in messages if message[0] == uapi.RTM_NEWQDISC]


def filters(messages: "Iterable[wire.Message]") -> "List[Filter]":
    """The filters among the messages of a reply."""
    return [Filter(message) for message in messages if message[0] == uapi.RTM_NEWTFILTER]


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
    return Request(type, flags, uapi.tcmsg.pack(0, ifindex, handle, parent, info) + attributes, _FIXED, step, object)


def dump_qdiscs() -> Request:
    """Read the qdiscs of all devices. A single RTM_GETQDISC would wake everybody who listens to TC; a dump is silent."""
    return _request(uapi.RTM_GETQDISC, uapi.NLM_F_DUMP, "list qdiscs", "of all links")


def dump_filters(ifindex: int, parent: int, dev: str) -> Request:
    """Read the filters under one parent, of every chain and priority."""
    return _request(uapi.RTM_GETTFILTER, uapi.NLM_F_DUMP, "list filters", dev, ifindex=ifindex, parent=parent)


def delete_qdisc(qdisc: Qdisc, dev: str) -> Request:
    """Delete one qdisc; the kernel refuses if parent, handle or kind are no longer the same."""
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
    """Delete one filter by its handle, and no sibling of its priority."""
    return _delete_filter(filter, parent, filter.handle, "delete %s filter" % filter.kind, dev)


def delete_priority(filter: Filter, parent: int, dev: str) -> Request:
    """Delete the whole priority that a filter belongs to, root table and all."""
    return _delete_filter(filter, parent, 0, "delete %s filters of priority %d" % (filter.kind, filter.priority), dev)


def _delete_filter(filter: Filter, parent: int, handle: int, step: str, dev: str) -> Request:
    attributes = wire.attribute_string(uapi.TCA_KIND, filter.kind)
    if filter.chain:
        attributes += wire.attribute_u32(uapi.TCA_CHAIN, filter.chain)
    return _request(
        uapi.RTM_DELTFILTER,
        uapi.NLM_F_ACK,
        step,
        dev,
        attributes,
        ifindex=filter.ifindex,
        handle=handle,
        parent=parent,
        info=filter.info,
    )


# The names of two steps that a kernel may lack the feature for.
CREATE_INGRESS = "create qdisc (ingress)"
CREATE_REDIRECT = "create redirect (u32, mirred)"


def create_ingress(ifindex: int, dev: str) -> Request:
    """Put an ingress qdisc on a device that has none."""
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


def create_redirect(ifindex: int, parent: int, target: int, dev: str, priority: int = 0) -> Request:
    """Send every frame that comes in on a device out of another: u32 match-all, mirred egress redirect, stolen.

    For a priority of 0 the kernel picks one, ahead of others that it picked and behind those below 32768 that somebody
    chose (tcf_auto_prio(), net/sched/cls_api.c), and tells it in its reply (NLM_F_ECHO).
    """
    mirred = wire.nested(
        1,  # the first action of the row
        wire.attribute_string(uapi.TCA_ACT_KIND, "mirred"),
        wire.nested(
            uapi.TCA_ACT_OPTIONS,
            wire.attribute(
                uapi.TCA_MIRRED_PARMS,
                uapi.tc_mirred.pack(0, 0, uapi.TC_ACT_STOLEN, 0, 0, uapi.TCA_EGRESS_REDIR, target),
            ),
        ),
    )
    match_all = uapi.tc_u32_sel.pack(uapi.TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + uapi.tc_u32_key.pack(0, 0, 0, 0)
    options = wire.nested(uapi.TCA_OPTIONS, wire.attribute(uapi.TCA_U32_SEL, match_all), wire.nested(uapi.TCA_U32_ACT, mirred))
    return _request(
        uapi.RTM_NEWTFILTER,
        uapi.NLM_F_CREATE | uapi.NLM_F_EXCL | uapi.NLM_F_ACK | uapi.NLM_F_ECHO,
        CREATE_REDIRECT,
        dev,
        wire.attribute_string(uapi.TCA_KIND, "u32") + options,
        ifindex=ifindex,
        parent=parent,
        info=priority << 16 | wire.network_u16(uapi.ETH_P_ALL),
    )

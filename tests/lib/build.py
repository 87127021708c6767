# SPDX-License-Identifier: Apache-2.0
"""Build what a kernel would send, where no capture shows it; write requests in clear.

The payloads are made by nlraw.wire, which test_wire.py holds against literal bytes. matchall and
flower filters are made here and nowhere captured: the kernel of the captures has neither.
"""

import itertools
import struct
import sys
import typing

from hypothesis import HealthCheck, settings

from nlraw import exchange, link, tc, uapi, wire

# For tests of properties: a slow or busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# ---------------------------------------------------------------- literal bytes

_NUMBERS = {"u8": "=B", "u16": "=H", "s16": "=h", "u32": "=I", "s32": "=i", "be16": ">H"}


def info(priority, protocol):
    """The last field of a filter's tcmsg.

    A number in the host's order, with a protocol in the network's order in its low half.
    """
    return priority << 16 | int.from_bytes(struct.pack(">H", protocol), sys.byteorder)


def native(text):
    """Bytes as the host has them, from a text of fields: ``u16=8 u16=3 'lo' 00 00  # a comment``.

    Strings have no NUL but what is written; two hexadecimal digits are one byte; ``info=7/0x0003``
    is `info`.
    """
    made = b""
    for line in text.splitlines():
        for field in line.split("#", 1)[0].split():
            if "=" in field:
                layout, number = field.split("=")
                if layout == "info":
                    made += struct.pack("=I", info(*(int(part, 0) for part in number.split("/"))))
                else:
                    made += struct.pack(_NUMBERS[layout], int(number, 0))
            elif field.startswith("'"):
                made += field.strip("'").encode("ascii")
            else:
                made += bytes.fromhex(field)
    return made


class Message(typing.NamedTuple):
    """A message, as `wire.messages` has it, with names."""

    type: int
    flags: int
    sequence: int
    port: int
    data: bytes
    start: int
    end: int

    @property
    def payload(self):
        return self.data[self.start : self.end]


def messages(datagram):
    return named(wire.messages(datagram))


def named(messages):
    return [Message(*each) for each in messages]


def sent(request):
    """The bytes of one request that is sent first on a socket: sequence number 1, port 0."""
    return exchange.Exchange([request], 0, 1).datagram()


# ---------------------------------------------------------------- payloads of replies


def link_payload(
    ifindex=4,
    name="tap0_urunc",
    kind="tun",
    mode=uapi.IFF_TAP,
    flags=uapi.IFF_UP,
    carrier=0,
    up_count=1,
    down_count=None,
    operstate=None,
    queues=None,
    disabled_queues=None,
    lower=None,
    lower_netnsid=None,
    mtu=None,
    max_mtu=None,
    address=None,
):
    """The payload of an RTM_NEWLINK; None leaves an attribute out.

    ``lower`` is the ifindex of the device that it is stacked on, in this namespace unless there is
    a ``lower_netnsid``.
    """
    data = b""
    if mode is not None:
        data += wire.attribute(uapi.IFLA_TUN_TYPE, bytes([mode]))
    if queues is not None:
        data += wire.attribute_u32(uapi.IFLA_TUN_NUM_QUEUES, queues)
    if disabled_queues is not None:
        data += wire.attribute_u32(uapi.IFLA_TUN_NUM_DISABLED_QUEUES, disabled_queues)
    payload = uapi.ifinfomsg.pack(0, 1, ifindex, flags, 0) + wire.attribute_string(
        uapi.IFLA_IFNAME, name
    )
    if address is not None:
        payload += wire.attribute(uapi.IFLA_ADDRESS, address)
    if lower is not None:
        payload += wire.attribute_u32(uapi.IFLA_LINK, lower)
    if operstate is not None:
        payload += wire.attribute(uapi.IFLA_OPERSTATE, bytes([operstate]))
    if carrier is not None:
        payload += wire.attribute(uapi.IFLA_CARRIER, bytes([carrier]))
    if lower_netnsid is not None:
        payload += wire.attribute_u32(uapi.IFLA_LINK_NETNSID, lower_netnsid)
    for type, number in ((uapi.IFLA_MTU, mtu), (uapi.IFLA_MAX_MTU, max_mtu)):
        if number is not None:
            payload += wire.attribute_u32(type, number)
    if up_count is not None:
        payload += wire.attribute_u32(uapi.IFLA_CARRIER_UP_COUNT, up_count)
    if down_count is not None:
        payload += wire.attribute_u32(uapi.IFLA_CARRIER_DOWN_COUNT, down_count)
    if kind is not None:
        payload += wire.attribute_nested(
            uapi.IFLA_LINKINFO,
            wire.attribute_string(uapi.IFLA_INFO_KIND, kind),
            wire.attribute_nested(uapi.IFLA_INFO_DATA, data),
        )
    return payload


def qdisc_payload(
    ifindex,
    kind,
    handle=uapi.TC_H_INGRESS_HANDLE,
    parent=uapi.TC_H_INGRESS,
    ingress_block=0,
    egress_block=0,
):
    """The payload of an RTM_NEWQDISC."""
    payload = uapi.tcmsg.pack(0, ifindex, handle, parent, 1) + wire.attribute_string(
        uapi.TCA_KIND, kind
    )
    if ingress_block:
        payload += wire.attribute_u32(uapi.TCA_INGRESS_BLOCK, ingress_block)
    if egress_block:
        payload += wire.attribute_u32(uapi.TCA_EGRESS_BLOCK, egress_block)
    return payload


def mirred(target, eaction=uapi.TCA_EGRESS_REDIR, control=uapi.TC_ACT_STOLEN, block=None):
    """The value of one action, a mirred to a device, or to those of a shared block."""
    parms = wire.attribute(
        uapi.TCA_MIRRED_PARMS, uapi.tc_mirred.pack(1, 0, control, 1, 1, eaction, target)
    )
    if block is not None:
        parms += wire.attribute_u32(uapi.TCA_MIRRED_BLOCKID, block)
    return wire.attribute_string(uapi.TCA_ACT_KIND, "mirred") + wire.attribute_nested(
        uapi.TCA_ACT_OPTIONS, parms
    )


def action(kind):
    """The value of one action that redirects nothing."""
    return wire.attribute_string(uapi.TCA_ACT_KIND, kind) + wire.attribute_nested(
        uapi.TCA_ACT_OPTIONS
    )


_ACTIONS = {
    "u32": uapi.TCA_U32_ACT,
    "matchall": uapi.TCA_MATCHALL_ACT,
    "flower": uapi.TCA_FLOWER_ACT,
    "bpf": uapi.TCA_BPF_ACT,
    "cgroup": 1,  # TCA_CGROUP_ACT, of a kind that nlraw does not read
}


def actions(kind, *values):
    """The attribute in which a classifier keeps a row of actions."""
    return wire.attribute_nested(
        _ACTIONS[kind],
        *[wire.attribute_nested(order, value) for order, value in enumerate(values, 1)],
    )


def selector(*masks, terminal=True):
    """TCA_U32_SEL with one key for each mask."""
    flags = uapi.TC_U32_TERMINAL if terminal else 0
    value = uapi.tc_u32_sel.pack(flags, 0, len(masks), 0, 0, 0, 0, 0)
    return wire.attribute(
        uapi.TCA_U32_SEL, value + b"".join(uapi.tc_u32_key.pack(mask, 0, 16, 0) for mask in masks)
    )


# A flower's key, TCA_FLOWER_KEY_IP_PROTO: it matches TCP alone.
FLOWER_KEY = wire.attribute(9, b"\x06")
ROOT_TABLE = wire.attribute_u32(uapi.TCA_U32_DIVISOR, 1)


def filter_payload(
    ifindex,
    kind,
    *options,
    parent=uapi.TC_H_INGRESS_HANDLE,
    handle=1,
    priority=49152,
    protocol=uapi.ETH_P_ALL,
    chain=0,
):
    """The payload of an RTM_NEWTFILTER; its ``options`` are attributes."""
    payload = uapi.tcmsg.pack(
        0, ifindex, handle, parent, info(priority, protocol)
    ) + wire.attribute_string(uapi.TCA_KIND, kind)
    payload += wire.attribute_u32(uapi.TCA_CHAIN, chain)
    return payload + wire.attribute_nested(uapi.TCA_OPTIONS, *options) if options else payload


def chain_payload(ifindex, parent, chain):
    """The payload of an RTM_NEWCHAIN."""
    return uapi.tcmsg.pack(0, ifindex, 0, parent, 0) + wire.attribute_u32(uapi.TCA_CHAIN, chain)


def redirect_payload(ifindex, kind, target, **header):
    """The payload of an RTM_NEWTFILTER that redirects all, as nlraw and the runtimes make it."""
    options = [selector(0)] if kind == "u32" else []
    return filter_payload(ifindex, kind, *(options + [actions(kind, mirred(target))]), **header)


def refusal_payload(errno, request, *attributes):
    """The payload of an NLMSG_ERROR: the errno, then ``request``, a whole message or its header."""
    return struct.pack("=i", -errno) + request + b"".join(attributes)


# ---------------------------------------------------------------- what is read out of them


def received(type, payload, flags=0, sequence=1, port=0):
    """The one message of a datagram."""
    (found,) = messages(wire.message(type, flags, sequence, payload, port))
    return found


def as_link(payload):
    return link.Link(received(uapi.RTM_NEWLINK, payload))


def as_qdisc(payload):
    return tc.Qdisc(received(uapi.RTM_NEWQDISC, payload))


def as_filter(payload):
    return tc.Filter(received(uapi.RTM_NEWTFILTER, payload))


# ---------------------------------------------------------------- a namespace that answers


class Thing:
    """A link, qdisc or filter of a `Namespace`: the fields that its payload is built from."""

    def __init__(self, **fields):
        self.__dict__.update(fields)

    def __repr__(self):
        return "Thing(%s)" % ", ".join("%s=%r" % field for field in sorted(self.__dict__.items()))


def a_link(ifindex, name, **facts):
    return Thing(ifindex=ifindex, name=name, facts=facts, group=0)


def a_qdisc(ifindex, kind, handle=uapi.TC_H_INGRESS_HANDLE, parent=uapi.TC_H_INGRESS, **blocks):
    return Thing(ifindex=ifindex, kind=kind, handle=handle, parent=parent, blocks=blocks)


def a_filter(
    ifindex,
    kind,
    *targets,
    parent=uapi.TC_H_INGRESS_HANDLE,
    handle=1,
    priority=49152,
    protocol=uapi.ETH_P_ALL,
    chain=0,
    **shape,
):
    """A filter that redirects to ``targets``, by one action each.

    ``shape`` is mask (of a u32; a flower has a key if it is not 0), eaction, control, table.
    With an ifindex of BLOCK the parent is the number of a shared block.
    """
    return Thing(
        ifindex=ifindex,
        kind=kind,
        targets=list(targets),
        parent=parent,
        handle=handle,
        priority=priority,
        protocol=protocol,
        chain=chain,
        table=shape.get("table", False),
        mask=shape.get("mask", 0),
        eaction=shape.get("eaction", uapi.TCA_EGRESS_REDIR),
        control=shape.get("control", uapi.TC_ACT_STOLEN),
    )


BLOCK = uapi.TCM_IFINDEX_MAGIC_BLOCK


def _priority(each):
    return each.ifindex, each.parent, each.chain, each.priority, each.protocol, each.kind


def _tables(each):
    """What u32 filters have in common whose priorities have their tables together."""
    place = each.parent if each.ifindex == BLOCK else each.parent & ~0xFFFF
    return each.kind, each.ifindex, place, each.priority


class Namespace:
    """Links, qdiscs and filters that are asked and changed by datagrams, as the kernel's are.

    It stands in for nlraw.connection.Connection.

    ``changes`` are the types of the requests that changed something or tried to. ``refuse`` maps a
    type of request to the errno that it is answered with. ``before`` is called with every
    datagram's requests ahead of the answer, to change things meanwhile. ``routes`` are the default
    routes: pairs of family and ifindex. ``chains`` are those that were created explicitly: triples
    of ifindex, parent and number. ``is_quiet``: no event has arrived since the look began.
    ``torn_looks``: so many looks to come end with a torn list. ``looks`` counts them, ``renewals``
    how often the allowance was renewed between looks.
    """

    path = "/run/netns/made-up"
    port = 4321  # whom it answers to
    groups = uapi.RTMGRP_LINK | uapi.RTMGRP_TC
    is_exclusive = True
    is_joined = True
    is_quiet = True
    is_torn = False

    def __init__(self, links=(), qdiscs=(), filters=(), before=lambda requests: None):
        self.links = list(links)
        self.qdiscs = list(qdiscs)
        self.filters = list(filters)
        self.before = before
        self.routes = []
        self.refuse = {}
        self.changes = []
        self.datagrams = 0
        self.chains = []
        self.roots = {}  # of u32 priorities: the handles of their root tables
        self.looks = self.torn_looks = self.renewals = 0
        self.too_long = ()  # names of links ahead of which a list ends that is not measured

    def __repr__(self):
        return "Namespace(%r, %r, %r)" % (self.links, self.qdiscs, self.filters)

    def begin_look(self):
        self.looks += 1
        self.is_quiet = self.is_joined = True
        self.is_torn = self.torn_looks > 0
        self.torn_looks -= self.is_torn

    def renew_allowance(self):
        self.renewals += 1

    def resume(self):
        pass

    def check_allowance(self):
        pass

    def leave_groups(self):
        self.is_joined = False

    def ask(self, *requests):
        return self.change(*requests)

    def change(self, *requests):
        conversation = exchange.Exchange(requests, self.port, 0xFFFFFFFE)
        self.before(requests)
        self.datagrams += 1
        for message in messages(conversation.datagram()):
            conversation.receive(b"".join(self.answers(message)))
        assert conversation.is_finished
        return conversation.replies

    def answers(self, message):
        """The messages that answer one request."""

        def reply(type, payload, flags=0):
            return wire.message(type, flags, message.sequence, payload, self.port)

        if message.flags & uapi.NLM_F_DUMP == uapi.NLM_F_DUMP:
            for payload in self.listed(message):
                yield reply(message.type - 2, payload, uapi.NLM_F_MULTI)
            number = self.refuse.get(message.type, 0)  # a late refusal of a list
            yield reply(uapi.NLMSG_DONE, struct.pack("=i", -number), uapi.NLM_F_MULTI)
            return
        if message.type == uapi.RTM_GETLINK:
            found = self.link_of(message)
            if found is None:
                yield reply(uapi.NLMSG_ERROR, refusal_payload(19, bytes(16)), uapi.NLM_F_CAPPED)
            else:
                yield reply(uapi.RTM_NEWLINK, self.payload_of(found))
            return
        if message.type == uapi.RTM_GETTFILTER:
            found = self.priority_of(message)
            if not found:
                yield reply(uapi.NLMSG_ERROR, refusal_payload(2, bytes(16)), uapi.NLM_F_CAPPED)
                return
            table = filter_payload(0, "u32", ROOT_TABLE, handle=self.root_of(found[0]))
            yield reply(uapi.RTM_NEWTFILTER, table)
            return
        self.changes.append(message.type)
        number = self.refuse.get(message.type) or self.carry_out(message)
        if message.flags & uapi.NLM_F_ECHO and not number:
            yield reply(message.type, self.filter_payload_of(self.filters[-1], self.filters[-1]))
        yield reply(uapi.NLMSG_ERROR, refusal_payload(number, bytes(16)), uapi.NLM_F_CAPPED)

    def link_of(self, message):
        asked = link.Link(message)
        for found in self.links:
            if asked.ifindex == found.ifindex or (
                not asked.ifindex and asked.ifname in (found.name, found.facts.get("altname"))
            ):
                return found
        return None

    def payload_of(self, found):
        facts = {name: value for name, value in found.facts.items() if name != "altname"}
        return link_payload(found.ifindex, found.name, **facts) + wire.attribute_u32(
            uapi.IFLA_GROUP, found.group
        )

    def listed(self, message):
        """The payloads that a dump lists.

        Links of all kinds: a kernel may ignore the filter that was asked for.
        """
        if message.type == uapi.RTM_GETLINK:
            complete = uapi.IFLA_EXT_MASK in link.Link(message).attributes
            fitting = itertools.takewhile(
                lambda found: complete or found.name not in self.too_long, self.links
            )
            return [self.payload_of(found) for found in fitting]
        if message.type == uapi.RTM_GETQDISC:
            return [
                qdisc_payload(each.ifindex, each.kind, each.handle, each.parent, **each.blocks)
                for each in self.qdiscs
            ]
        if message.type == uapi.RTM_GETTFILTER:
            asked = tc.Filter(message)
            return [
                self.filter_payload_of(each, shown)
                for each, shown in self.shown(asked.ifindex, asked.parent)
            ]
        if message.type == uapi.RTM_GETCHAIN:
            asked = tc.Filter(message)
            place = (asked.ifindex, asked.parent)
            there = {each.chain for each in self.filters if (each.ifindex, each.parent) == place}
            there.update(chain for *where, chain in self.chains if tuple(where) == place)
            return [chain_payload(*(place + (chain,))) for chain in sorted(there)]
        if message.type in (uapi.RTM_GETADDR, uapi.RTM_GETNEIGH):
            return []
        assert message.type == uapi.RTM_GETROUTE
        return [
            uapi.rtmsg.pack(family, 0, 0, 0, 254, 0, 0, 1, 0)
            + wire.attribute_u32(uapi.RTA_OIF, ifindex)
            for family, ifindex in self.routes
            if message.payload[0] in (family, 0)  # any
        ]

    def shown(self, ifindex, parent):
        """The filters under a parent, each with the one whose chain and side it is shown in.

        u32 priorities of one number have their tables together: each shows what is in all of them.
        """
        users = set()
        for each in self.filters:
            if (each.ifindex, each.parent) == (ifindex, parent) and each.kind != "u32":
                yield each, each
            elif (each.ifindex, each.parent) == (ifindex, parent):
                user = each.chain, each.priority
                if user not in users:
                    users.add(user)
                    tables = _tables(each)
                    yield from ((one, each) for one in self.filters if _tables(one) == tables)

    def root_of(self, each):
        """The handle of the root table of a u32 filter's priority."""
        place = each.ifindex, each.parent, each.chain, each.priority
        return self.roots.setdefault(place, 0x80000000 + (len(self.roots) << 20))

    def handle_of(self, each):
        """The handle as the kernel shows it: that of a u32 filter begins with its root table."""
        if each.kind != "u32":
            return each.handle
        if not each.table:
            return self.root_of(each) | 0x800 + each.handle % 0x800
        tables = [one for one in self.filters if one.table and _priority(one) == _priority(each)]
        return self.root_of(each) if tables[0] is each else (1 + each.handle % 0x7FF) << 20

    def priority_of(self, message):
        """The filters of the priority that a request names."""
        asked = tc.Filter(message)
        named = asked.ifindex, asked.parent, asked.chain, asked.priority, asked.protocol, asked.kind
        return [each for each in self.filters if _priority(each) == named]

    def filter_payload_of(self, each, shown):
        if each.table:
            options = [ROOT_TABLE]
        else:
            values = [mirred(target, each.eaction, each.control) for target in each.targets]
            options = [actions(each.kind, *values)]
            if each.kind == "u32":
                options.append(selector(each.mask))
            elif each.kind == "flower":
                options.append(wire.attribute_u32(uapi.TCA_FLOWER_FLAGS, 0))
                options += [FLOWER_KEY] if each.mask else []
        header = {name: getattr(shown, name) for name in ("parent", "protocol", "chain")}
        header.update(handle=self.handle_of(each), priority=each.priority)
        return filter_payload(each.ifindex, each.kind, *options, **header)

    def carry_out(self, message):
        """Make one change; return the errno of its refusal, or 0."""
        if message.type == uapi.RTM_SETLINK:
            found = self.link_of(message)
            if found is None:
                return 19
            asked = link.Link(message)
            if asked.group is not None:
                found.group = asked.group
            return 0
        if message.type in (uapi.RTM_NEWQDISC, uapi.RTM_NEWTFILTER, uapi.RTM_NEWADDR):
            return self.create(message)
        if message.type == uapi.RTM_DELLINK:
            asked = link.Link(message)
            doomed = [
                each
                for each in self.links
                if each.ifindex == asked.ifindex or (asked.group and each.group == asked.group)
            ]
            for each in doomed:
                self.delete_link(each)
            return 0 if doomed else 19
        if message.type == uapi.RTM_DELQDISC:
            asked = tc.Qdisc(message)
            same = [
                each
                for each in self.qdiscs
                if (each.ifindex, each.handle, each.parent, each.kind)
                == (asked.ifindex, asked.handle, asked.parent, asked.kind)
            ]
            for each in same:
                self.qdiscs.remove(each)
                self.filters = [
                    one
                    for one in self.filters
                    if (one.ifindex, one.parent & ~0xFFFF) != (each.ifindex, each.handle & ~0xFFFF)
                ]
                self.chains = [
                    one
                    for one in self.chains
                    if (one[0], one[1] & ~0xFFFF) != (each.ifindex, each.handle & ~0xFFFF)
                ]
            self.drop_unused_blocks()
            return 0 if same else 2
        assert message.type == uapi.RTM_DELTFILTER
        asked, same = tc.Filter(message), self.priority_of(message)
        if asked.handle:
            tables = [_tables(each) for each in same if each.kind == "u32"]
            found = [each for each in self.filters if each in same or _tables(each) in tables]
            same = [each for each in found if self.handle_of(each) == asked.handle]
        self.filters = [each for each in self.filters if each not in same]
        return 0 if same else 2

    def create(self, message):
        """Make what a setup asks for; return the errno of its refusal, or 0. No address is kept."""
        if message.type == uapi.RTM_NEWQDISC:
            asked = tc.Qdisc(message)
            place = asked.ifindex, asked.parent
            if any((each.ifindex, each.parent) == place for each in self.qdiscs):
                return 17
            self.qdiscs.append(a_qdisc(asked.ifindex, asked.kind, asked.handle, asked.parent))
        elif message.type == uapi.RTM_NEWTFILTER:
            asked = tc.Filter(message)
            places = [(each.ifindex, each.handle & ~0xFFFF) for each in self.qdiscs]
            if (asked.ifindex, asked.parent & ~0xFFFF) not in places:
                return 22
            priorities = [each.priority for each in self.filters if each.ifindex == asked.ifindex]
            header = {"parent": asked.parent, "handle": 100 + len(self.filters)}
            header["priority"] = asked.priority or min(priorities + [0xC001]) - 1
            targets = [action.redirect for action in asked.actions()]
            self.filters.append(a_filter(asked.ifindex, asked.kind, *targets, **header))
        return 0

    def delete_link(self, doomed):
        """The link goes with its TC state and with what is stacked on it.

        A mirred that sends to it stays, aimed at nothing.
        """
        self.links.remove(doomed)
        self.qdiscs = [each for each in self.qdiscs if each.ifindex != doomed.ifindex]
        self.filters = [each for each in self.filters if each.ifindex != doomed.ifindex]
        self.chains = [each for each in self.chains if each[0] != doomed.ifindex]
        self.drop_unused_blocks()
        for each in self.filters:
            each.targets = [0 if target == doomed.ifindex else target for target in each.targets]
        for each in list(self.links):
            lower = each.facts.get("lower"), each.facts.get("lower_netnsid")
            if lower == (doomed.ifindex, None) and each in self.links:
                self.delete_link(each)

    def drop_unused_blocks(self):
        """A shared block goes with the last qdisc that uses it."""
        used = {block for each in self.qdiscs for block in each.blocks.values()}
        self.filters = [
            each for each in self.filters if each.ifindex != BLOCK or each.parent in used
        ]

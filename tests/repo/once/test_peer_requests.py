# SPDX-License-Identifier: Apache-2.0
"""nlraw builds what pyroute2 builds for the same intent, or the difference is explained.

Compared are type, flags, the fields of the fixed part and every attribute by its path; order,
padding and NLA_F_NESTED are not. pyroute2 compiles its requests (IPBatch) and sends none of them.
"""

import socket

import pytest

from lib import build
from nlraw import exchange, inet, link, tc, uapi, wire

peer = pytest.importorskip(
    "pyroute2", reason="needs pyroute2, the peer whose requests these are held against"
)

FIXED = {16: uapi.ifinfomsg, 20: uapi.ifaddrmsg, 24: uapi.rtmsg, 36: uapi.tcmsg, 44: uapi.tcmsg}

# Paths of attributes that hold attributes, by the kind of message; behind a fixed part, in one
# case.
NESTED = {
    16: {(18,): 0, (18, 2): 0, (18, 2, 1): uapi.ifinfomsg.size},
    44: {(2,): 0, (2, 7): 0, (2, 7, 1): 0, (2, 7, 1, 2): 0},
}


def flat(datagram):
    """One request as a dictionary: type, flags, fixed fields by name, attributes by path."""
    (message,) = build.messages(datagram)
    family = message.type & ~3  # the types of one family come in fours
    layout = FIXED[family]
    told = {
        "type": message.type,
        "flags": message.flags,
        "fixed": layout.unpack_from(message.payload),
    }

    def walk(data, path, start):
        for type, (at, end) in wire.attributes(data, start, len(data)):
            inner = path + (type,)
            value = data[at:end]
            if inner in NESTED.get(family, {}):
                before = NESTED[family][inner]
                if before:
                    told[inner] = value[:before]
                walk(value, inner, before)
            else:
                told[inner] = value

    walk(message.payload, (), layout.size)
    return told


@pytest.fixture
def batch():
    made = peer.IPBatch()
    yield made
    made.close()


ACK = "the peer asks for an ACK too; a get is answered by its one message"
KIND = (
    "the peer leaves the kind out; with it the kernel refuses where another classifier has the "
    "priority now"
)
NEWLINK = (
    "the peer sets with RTM_NEWLINK, which makes a link where there is none; RTM_SETLINK never does"
)
QDISC = build.as_qdisc(build.qdisc_payload(2, "ingress"))
HTB = build.as_qdisc(build.qdisc_payload(2, "htb", 0x10000, uapi.TC_H_ROOT))
U32 = build.as_filter(build.redirect_payload(2, "u32", 4, handle=0x80000800, priority=7))
IN = uapi.TC_H_INGRESS_HANDLE
INFO = build.info(7, uapi.ETH_P_ALL)
MIRRED = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": 4}

MADE = set()


def made(function, *arguments):
    """A request, of which it is noted who made it."""
    MADE.add(function)
    return function(*arguments)


INTENTS = {
    "get": (made(link.get, 7, ""), lambda ip: ip.link("get", index=7), {"flags": ACK}),
    "find": (made(link.find, "eth0"), lambda ip: ip.link("get", ifname="eth0"), {"flags": ACK}),
    "dump": (
        made(link.dump),
        lambda ip: ip.link("dump"),
        {(29,): "ours has the kernel make room for the longest message"},
    ),
    "dump of a kind": (
        made(link.dump, "tun"),
        lambda ip: ip.link("dump", kind="tun"),
        {(18, 1): "the peer lists all and filters in Python"},
    ),
    "delete": (made(link.delete, 7, ""), lambda ip: ip.link("del", index=7), {}),
    "set group": (
        made(link.set_group, 7, "", 77),
        lambda ip: ip.link("set", index=7, group=77),
        {"type": NEWLINK},
    ),
    "delete group": (made(link.delete_group, 77, ""), lambda ip: ip.link("del", group=77), {}),
    "set up": (
        made(link.set_up, 7, ""),
        lambda ip: ip.link("set", index=7, state="up"),
        {"type": NEWLINK},
    ),
    "set up with an mtu": (
        made(link.set_up, 7, "", 1450),
        lambda ip: ip.link("set", index=7, state="up", mtu=1450),
        {"type": NEWLINK},
    ),
    "create veth": (
        made(link.create_veth, "eth0", "peer0"),
        lambda ip: ip.link("add", ifname="eth0", kind="veth", peer="peer0"),
        {(18, 1): "the peer sends the NUL behind the kind; the kernel takes both"},
    ),
    "dump qdiscs": (made(tc.dump_qdiscs), lambda ip: ip.get_qdiscs(), {}),
    "dump filters": (
        made(tc.dump_filters, 2, IN, ""),
        lambda ip: ip.get_filters(index=2, parent=IN),
        {},
    ),
    "delete ingress": (
        made(tc.delete_qdisc, QDISC, ""),
        lambda ip: ip.tc("del", "ingress", index=2),
        {},
    ),
    "delete htb": (
        made(tc.delete_qdisc, HTB, ""),
        lambda ip: ip.tc("del", "htb", index=2, handle=0x10000, parent=uapi.TC_H_ROOT),
        {(2,): "the peer sends options, which a delete does not read"},
    ),
    "delete filter": (
        made(tc.delete_filter, U32, IN, ""),
        lambda ip: ip.tc(
            "del-filter", index=2, handle=0x80000800, parent=IN, prio=7, protocol=3, info=INFO
        ),
        {(1,): KIND},
    ),
    "delete priority": (
        made(tc.delete_priority, U32, IN, ""),
        lambda ip: ip.tc("del-filter", index=2, parent=IN, prio=7, protocol=3, info=INFO),
        {(1,): KIND},
    ),
    "create ingress": (
        made(tc.create_ingress, 2, ""),
        lambda ip: ip.tc("add", "ingress", index=2),
        {},
    ),
    "create redirect": (
        made(tc.create_redirect, 2, IN, 4, "", 7),
        lambda ip: ip.tc(
            "add-filter",
            "u32",
            index=2,
            parent=IN,
            prio=7,
            protocol=3,
            target=0,
            keys=["0x0/0x0+0"],
            action=MIRRED,
        ),
        {
            "flags": "ours asks for an echo, for the priority that the kernel picks",
            (2, 1): "the peer names a class, 0:0, of which there is none",
        },
    ),
    "dump routes": (
        made(inet.dump_routes, socket.AF_INET),
        lambda ip: ip.get_routes(family=socket.AF_INET),
        {
            "fixed": "the peer names the main table, which the kernel heeds only if asked "
            "to check strictly"
        },
    ),
    "dump addresses": (
        made(inet.dump_addresses),
        lambda ip: ip.get_addr(family=socket.AF_UNSPEC),
        {},
    ),
    "create address": (
        made(inet.create_address, 7, bytes([10, 9, 8, 1]), 24, ""),
        lambda ip: ip.addr("add", index=7, address="10.9.8.1", prefixlen=24),
        {},
    ),
    "create IPv6 address": (
        made(inet.create_address, 7, bytes.fromhex("fd000000000000000000000000000001"), 64, ""),
        lambda ip: ip.addr("add", index=7, address="fd00::1", prefixlen=64),
        {(2,): "the peer sends IFA_ADDRESS alone, which the kernel takes for both"},
    ),
}


def test_every_request_that_there_is_is_held_against_the_peers():
    functions = {
        function
        for module in (link, tc, inet)
        for function in vars(module).values()
        if callable(function)
    }
    made_by = (exchange.Request, "Request")
    makers = {
        function
        for function in functions
        if getattr(function, "__annotations__", {}).get("return") in made_by
    }
    assert makers >= MADE
    # the peer cannot ask for chains, or for the root table of a priority
    without = {tc.dump_chains, tc.get_root_table}
    assert {function.__name__ for function in makers - MADE - without} <= {
        "_request",
        "_name_filter",
    }


@pytest.mark.parametrize("name", list(INTENTS))
def test_a_request_is_the_one_that_pyroute2_builds_or_differs_for_a_reason(batch, name):
    request, ask, reasons = INTENTS[name]
    for _ in ask(batch) or ():
        pass
    ours, theirs = flat(build.sent(request)), flat(bytes(batch.batch))
    differs = {
        key: (ours.get(key), theirs.get(key))
        for key in set(ours) | set(theirs)
        if ours.get(key) != theirs.get(key)
    }
    assert {key: differs[key] for key in differs if key not in reasons} == {}
    assert set(reasons) <= set(differs), "no longer different"

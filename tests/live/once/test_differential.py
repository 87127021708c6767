# SPDX-License-Identifier: Apache-2.0
"""What nlraw reads is what `ip`, `tc`, sysfs and pyroute2 read, field by field.

The pods are made by chance with fixed seeds: links of all kinds with all sorts of settings, held
and not; qdiscs, shared blocks, filters in chains and priorities, alive and dead; addresses and
routes. What nlraw builds is compared in test_peer_requests.py.
"""

import json
import random
import socket
import sys
import time

import pytest

from lib import command, pods
from nlraw import inet, link, nexthop, tc, uapi
from nlraw.connection import Connection
from nlraw.netns import Namespace

SEEDS = (1, 2, 3)

SETTLED = 1.2  # seconds: the link watch works off its events once a second (net/core/link_watch.c)

NAMES = ["tap0_urunc", "tap1_urunc", "fifteen_bytes_x", "a.b-c_d", "x", "\u00e9t\u00e9", "T", "9"]
LINKS = {
    "tap": "tuntap add dev %s mode tap",
    "queues": "tuntap add dev %s mode tap multi_queue",
    "tun": "tuntap add dev %s mode tun",
    "bridge": "link add %s type bridge",
    "ifb": "link add %s type ifb",
    "macvtap": "link add link eth0 name %s type macvtap",
    "veth": "link add %s type veth peer name %.11s_far",
}
ROOTS = ("root handle 1: htb default 1", "root handle 7: tbf rate 1mbit burst 10k latency 50ms")
# its blanks are no blanks until it is split into words
BPF = "bpf bytecode 1,6\u00a00\u00a00\u00a01"
PROTOCOLS = {"all": uapi.ETH_P_ALL, "ip": 0x0800, "arp": 0x0806}
ITS_OWN = ("NO-CARRIER", "M-DOWN")
EACTIONS = {
    ("egress", "redirect"): 1,
    ("egress", "mirror"): 2,
    ("ingress", "redirect"): 3,
    ("ingress", "mirror"): 4,
}
CONTROLS = {"stolen": 4, "pipe": 3}
# the first is of IP
MATCHES = (
    "ip dport 22 0xffff",
    "u32 0 0",
    "u32 0 0",
    "u32 0x0a000000 0xff000000 at 16",
    "u32 0 0 at 12",
)


# ---------------------------------------------------------------- pods made by chance


class Maker:
    """Fills a pod by chance, with what this kernel has."""

    def __init__(self, pod, seed):
        self.pod = pod
        self.chance = random.Random(seed)
        self.kinds = [
            kind
            for kind in sorted(LINKS)
            if self.can("link del probe0", self.add_link, "probe0", kind)
        ]
        self.roots = [
            root for root in ROOTS if self.can("", self.tc, "qdisc replace dev lo " + root)
        ]
        if self.roots:
            self.tc("qdisc del dev lo root")
        self.tc("qdisc add dev lo ingress")
        self.hows = ["u32"] * 3 + ["bpf"] * self.can(
            "", self.tc, "filter add dev lo ingress prio 1 " + BPF
        )
        self.tc("qdisc del dev lo ingress")

    def can(self, undo, do, *arguments):
        """Whether something can be done here. ``undo`` is a command of `ip`."""
        try:
            do(*arguments)
        except RuntimeError:
            return False
        self.pod.batch(undo)
        return True

    def tc(self, line):
        self.pod.tc(*[word.replace("\u00a0", " ") for word in line.split(" ")])

    def add_link(self, name, kind):
        self.pod.batch(LINKS[kind] % ((name, name) if kind == "veth" else name))

    def fill(self):
        chance = self.chance
        for name in NAMES:
            kind = chance.choice(self.kinds + ["tap", "tap", "queues"])
            self.add_link(name, kind)
            self.set(name, kind)
            if kind in ("tap", "queues") and chance.randrange(2):
                self.hold(name, kind == "queues")
        for dev in NAMES + ["eth0", "peer0"]:
            self.add_tc(dev)
        add_addresses(self.pod, chance)

    def set(self, name, kind):
        chance = self.chance
        settings = [
            "mtu %d" % chance.choice((1280, 1400, 1450, 1500)),
            "group %d" % chance.choice((0, 77, 2**31 - 1)),
        ]
        settings += chance.sample(
            ["up", "promisc on", "allmulticast on", "multicast off", "arp off", "up"], 3
        )
        if kind in ("tap", "bridge", "veth") and chance.randrange(2):
            settings.append(
                "address 02:00:00:%02x:%02x:%02x" % tuple(chance.randrange(256) for _ in range(3))
            )
        self.pod.batch(*["link set dev %s %s" % (name, setting) for setting in settings])
        if chance.randrange(3) == 0:
            self.pod.batch("link property add dev %s altname other_name_of_%s" % (name, name))

    def hold(self, name, multi_queue):
        holder = self.pod.hold(name, multi_queue=multi_queue)
        ends = [holder.kill, holder.release, holder.carrier_off, lambda: None] + [holder.detach] * (
            2 * multi_queue
        )
        self.chance.choice(ends)()

    def add_tc(self, dev):
        chance = self.chance
        root = chance.choice([None] * 2 + self.roots)
        if root is not None:
            self.tc("qdisc add dev %s %s" % (dev, root))
            if "htb" in root:  # without an action, for a class
                self.tc(
                    "filter add dev %s parent 1: protocol ip prio 3 u32 match ip dport 22 0xffff "
                    "flowid 1:1" % dev
                )
        hook = chance.choice(
            (
                None,
                "ingress",
                "ingress",
                "clsact",
                "clsact",
                "ingress_block 7 ingress",
                "ingress_block 7 egress_block 8 clsact",
            )
        )
        if hook is None:
            return
        self.tc("qdisc add dev %s %s" % (dev, hook))
        sides = {"ingress": ["ingress"], "clsact": ["ingress", "egress"]}.get(hook, [])
        for number in range(chance.randrange(5) if sides else 0):
            place = (
                dev,
                chance.choice(sides),
                10 * number + chance.randrange(1, 9),
                chance.choice((0, 0, 3)),
            )
            self.tc("filter add dev %s %s prio %d chain %d " % place + self.any_filter())
        if sides and chance.randrange(2):
            self.tc("chain add dev %s %s protocol all chain 9" % (dev, chance.choice(sides)))
        if hook and not sides and chance.randrange(2):
            self.tc("filter add block 7 " + self.any_filter())

    def any_filter(self):
        chance = self.chance
        protocol = chance.choice(("all", "all", "ip", "arp"))
        how = BPF
        if chance.choice(self.hows) == "u32":
            how = "u32 match " + chance.choice(MATCHES[protocol != "ip" :])
        targets = NAMES + ["eth0", "peer0", "gone0", "gone0"]
        redirect = ("egress", "redirect", chance.choice(targets))
        mirred = chance.choice(
            [redirect] * 3 + [("ingress", "redirect", "eth0"), ("egress", "mirror", "peer0")]
        )
        return "protocol %s %s action mirred %s %s dev %s" % ((protocol, how) + mirred)


def add_addresses(pod, chance):
    pod.batch(
        "address add 10.9.8.%d/24 dev eth0" % chance.randrange(3, 200),  # a secondary one
        "address add 10.7.0.1 peer 10.7.0.2/32 dev eth0",
        "address add 192.168.%d.1/%d dev peer0" % (chance.randrange(256), chance.randrange(17, 30)),
        "route add default via 10.9.8.9 dev eth0 metric %d" % chance.randrange(1, 1000),
        "route add default dev peer0 metric 5000",
        "route add default metric 6000 nexthop via 10.9.8.7 dev eth0 nexthop via 10.9.8.6 dev eth0",
        "route add unreachable default metric 7000",
        "route add default via 10.9.8.5 dev eth0 table 99",
        "route add 10.55.0.0/16 via 10.9.8.5 dev eth0",
    )


@pytest.fixture(scope="module", params=SEEDS)
def crowd(request):
    """One pod for all tests of a seed: they only read."""
    reason = pods.missing()
    if reason is not None:
        pytest.skip("needs a network namespace of its own: " + reason)
    with pods.Pod() as pod:
        pod.ip("link", "add", "gone0", "type", "veth", "peer", "name", "gone1")
        Maker(pod, request.param).fill()
        pod.ip("link", "del", "gone0")  # what redirects to it is dead from now on
        time.sleep(SETTLED)
        yield pod


# ---------------------------------------------------------------- what nlraw reads


def asked(pod, *requests):
    with Namespace(pod.path) as namespace, Connection(namespace) as connection:
        return [reply.answer() for reply in connection.ask(*requests)]


def read_links(pod):
    (messages,) = asked(pod, link.dump())
    return {found.ifname: found for found in link.links(messages)}


def parents(qdisc):
    """Where the filters of a qdisc hang, those of a shared block aside."""
    if qdisc.kind == "clsact":
        sides = [(0xFFFFFFF2, qdisc.ingress_block), (0xFFFFFFF3, qdisc.egress_block)]
        return [parent for parent, block in sides if not block]
    return [qdisc.handle] if qdisc.handle and not qdisc.ingress_block else []


def read_filters(pod):
    """The filters at every place where there can be some, by device and parent."""
    links = {found.ifindex: name for name, found in read_links(pod).items()}
    (messages,) = asked(pod, tc.dump_qdiscs())
    found = {}
    for qdisc in tc.qdiscs(messages):
        for parent in parents(qdisc):
            name = links[qdisc.ifindex]
            (entry,) = asked(pod, tc.dump_filters(qdisc.ifindex, parent, name))
            found[name, parent] = tc.filters(entry)
    return found


# ---------------------------------------------------------------- what others read


def number(handle):
    """A handle as tc(8) writes it: "ffff:fff1" or "1:"."""
    major, minor = handle.split(":")
    return int(major or "0", 16) << 16 | int(minor or "0", 16)


def u32_handle(text):
    """A u32 handle as tc(8) writes it: table, hash and node, "800::800"."""
    table, hash, node = (text + "::").split(":")[:3]
    return int(table, 16) << 20 | int(hash or "0", 16) << 12 | int(node or "0", 16)


def sysfs(pod):
    """Of each link what /sys/class/net says of its carrier.

    Nothing of the carrier itself while the link is down.
    """
    program = (
        "import os, sys, json\n"
        "def read(name, file):\n"
        "    try: return int(open('/sys/class/net/%s/%s' % (name, file)).read(), 0)\n"
        "    except OSError: return None\n"
        "print(json.dumps([[name] + [read(name, file) for file in sys.argv[1:]] for name in "
        "os.listdir('/sys/class/net')]))"
    )
    files = ("ifindex", "carrier", "carrier_up_count", "mtu", "netdev_group")
    entry = command.run("ip", "netns", "exec", pod.name, sys.executable, "-c", program, *files)
    return {row[0]: dict(zip(files, row[1:])) for row in json.loads(entry)}


def filters_by_tc(pod, dev, parent):
    place = "parent %x:%x" % (parent >> 16, parent & 0xFFFF)
    return json.loads(pod.tc("-j", "filter", "show", "dev", dev, *place.split()))


# ---------------------------------------------------------------- links


def test_links_are_those_that_ip_and_sysfs_read(crowd):
    ours, theirs, files = read_links(crowd), crowd.links(), sysfs(crowd)
    assert set(ours) == set(theirs) == set(files) and len(ours) > 10
    for name, found in ours.items():
        entry = theirs[name]
        info = entry.get("linkinfo", {})
        assert found.ifindex == entry["ifindex"] == files[name]["ifindex"]
        assert found.mtu == entry["mtu"] == files[name]["mtu"]
        assert (
            found.group
            == (0 if entry["group"] == "default" else int(entry["group"]))
            == files[name]["netdev_group"]
        )
        assert found.address == entry.get("address")
        assert found.kind == info.get("info_kind")
        # iproute2 leaves RUNNING out and has two of its own, one of which says that it is missing
        flags = link.flag_names(found.flags)
        assert [flag for flag in flags if flag != "RUNNING"] == [
            flag for flag in entry["flags"] if flag not in ITS_OWN
        ]
        assert ("RUNNING" in flags) == (
            "UP" in entry["flags"] and "NO-CARRIER" not in entry["flags"]
        )
        assert link.operstate_name(found.operstate) == entry["operstate"]
        assert found.carrier_up_count == files[name]["carrier_up_count"]
        assert files[name]["carrier"] in (None, found.carrier)
        below = entry.get("link") if "link_netnsid" not in entry else None
        assert found.lower == (None if below is None else theirs[below]["ifindex"])
        tun = found.tun()
        assert (tun is None) == (info.get("info_kind") != "tun")
        if tun is not None:
            data = info["info_data"]
            assert {uapi.IFF_TUN: "tun", uapi.IFF_TAP: "tap"}[tun.type] == data["type"]
            assert (tun.queues, tun.disabled_queues) == (
                data.get("numqueues", 0),
                data.get("numdisabled", 0),
            )


def test_a_link_read_by_itself_is_the_one_in_the_list(crowd):
    for name, listed in read_links(crowd).items():
        for request in (link.get(listed.ifindex, name), link.find(name)):
            (alone,) = link.links(asked(crowd, request)[0])
            facts = (
                "ifindex",
                "flags",
                "ifname",
                "address",
                "mtu",
                "group",
                "operstate",
                "carrier",
                "carrier_up_count",
                "kind",
            )
            assert [getattr(alone, fact) for fact in facts] == [
                getattr(listed, fact) for fact in facts
            ]


def test_the_list_of_one_kind_is_that_part_of_the_whole_list(crowd):
    (messages,) = asked(crowd, link.dump("tun"))
    ours = {found.ifname for found in link.links(messages) if found.kind == "tun"}
    assert ours == {
        name
        for name, entry in crowd.links().items()
        if entry.get("linkinfo", {}).get("info_kind") == "tun"
    }


# ---------------------------------------------------------------- qdiscs and filters


def test_qdiscs_are_those_that_tc_reads(crowd):
    links = {found.ifindex: name for name, found in read_links(crowd).items()}
    (messages,) = asked(crowd, tc.dump_qdiscs())
    ours = [
        (
            links[found.ifindex],
            found.kind,
            found.handle,
            found.parent,
            found.ingress_block,
            found.egress_block,
        )
        for found in tc.qdiscs(messages)
    ]
    theirs = [
        (
            entry["dev"],
            entry["kind"],
            number(entry["handle"]),
            uapi.TC_H_ROOT if entry.get("root") else number(entry["parent"]),
            entry.get("ingress_block", 0),
            entry.get("egress_block", 0),
        )
        for entry in json.loads(crowd.tc("-j", "qdisc", "show"))
    ]
    assert sorted(ours) == sorted(theirs)


def test_filters_are_those_that_tc_reads(crowd):
    links = {name: found.ifindex for name, found in read_links(crowd).items()}
    seen = []
    for (dev, parent), ours in read_filters(crowd).items():
        theirs = filters_by_tc(crowd, dev, parent)
        assert len(ours) == len(theirs)
        for found, entry in zip(ours, theirs):
            options = entry.get("options", {})
            assert (found.ifindex, found.kind) == (links[dev], entry["kind"])
            assert (found.priority, found.chain) == (entry["pref"], entry["chain"])
            assert found.protocol == PROTOCOLS[entry["protocol"]]
            assert found.is_priority == (not options)
            assert found.is_table == ("ht_divisor" in options)
            if entry["kind"] == "u32":
                assert found.handle == u32_handle(options.get("fh", "0:"))
            elif options:
                assert found.handle == int(options["handle"], 0)
            match = options.get("match", {})
            assert found.matches_all == (entry["protocol"] == "all" and match.get("mask") == "0")
            for action, said in zip(found.actions(), options.get("actions", [None])):
                assert action.kind == said["kind"] == "mirred"
                assert action.eaction == EACTIONS[said["direction"], said["mirred_action"]]
                assert action.control == CONTROLS[said["control_action"]["type"]]
                target = links.get(said["to_dev"], 0)  # one that is gone has no name
                assert action.redirect == (target if said["mirred_action"] == "redirect" else None)
                seen.append(action.redirect)
            assert len(found.actions()) == len(options.get("actions", ()))
    assert len(seen) > 5


def test_filters_of_a_shared_block_are_those_that_tc_reads(crowd):
    (messages,) = asked(crowd, tc.dump_qdiscs())
    for block in {found.ingress_block for found in tc.qdiscs(messages)} - {0}:
        (listed,) = asked(crowd, tc.dump_filters(uapi.TCM_IFINDEX_MAGIC_BLOCK, block, "block"))
        theirs = json.loads(crowd.tc("-j", "filter", "show", "block", str(block)))
        assert [(found.kind, found.priority, found.chain) for found in tc.filters(listed)] == [
            (entry["kind"], entry["pref"], entry["chain"]) for entry in theirs
        ]


def test_chains_are_those_that_tc_reads(crowd):
    links = {found.ifindex: name for name, found in read_links(crowd).items()}
    (messages,) = asked(crowd, tc.dump_qdiscs())
    seen = set()
    for qdisc in tc.qdiscs(messages):
        dev = links[qdisc.ifindex]
        for parent in parents(qdisc) if qdisc.parent == uapi.TC_H_INGRESS else ():
            (entry,) = asked(crowd, tc.dump_chains(qdisc.ifindex, parent, dev))
            place = "parent %x:%x" % (parent >> 16, parent & 0xFFFF)
            shown = crowd.tc("chain", "show", "dev", dev, *place.split())
            chains = [int(line.split()[-1]) for line in shown.splitlines() if "chain" in line]
            assert tc.chains(entry) == chains
            seen.update(chains)
    assert 9 in seen


# ---------------------------------------------------------------- addresses and routes


def test_addresses_and_default_routes_are_those_that_ip_reads(crowd):
    links = {found.ifindex: name for name, found in read_links(crowd).items()}
    addresses, routes = asked(crowd, inet.dump_addresses(), inet.dump_routes(inet.AF_INET))
    ours = [
        (links[found.ifindex], found.local, found.prefixlen, found.is_secondary)
        for found in inet.addresses(addresses)
    ]
    theirs = [
        (entry["ifname"], found["local"], found["prefixlen"], found.get("secondary", False))
        for entry in json.loads(crowd.ip("-j", "address"))
        for found in entry["addr_info"]
    ]
    assert sorted(ours) == sorted(theirs) and len(ours) >= 4
    ours = [
        (links[found.ifindex], found.metric, nexthop.hops(found)[0].gateway)
        for found in inet.default_routes(routes)
    ]
    theirs = []
    for entry in json.loads(crowd.ip("-j", "-4", "route", "show", "table", "main")):
        if entry["dst"] == "default" and entry.get("type", "unicast") == "unicast":
            first = entry.get("nexthops", [entry])[0]
            theirs.append((first["dev"], entry.get("metric", 0), first.get("gateway")))
    assert ours == theirs and len(ours) == 4


# ---------------------------------------------------------------- pyroute2


@pytest.fixture
def peer(crowd):
    pyroute2 = pytest.importorskip(
        "pyroute2", reason="needs pyroute2, the peer that reads the same"
    )
    with pyroute2.IPRoute(netns=crowd.name) as peer:
        yield peer


def test_links_are_those_that_pyroute2_reads(crowd, peer):
    ours, theirs = read_links(crowd), {entry.get("ifname"): entry for entry in peer.get_links()}
    assert set(ours) == set(theirs)
    for name, found in ours.items():
        entry = theirs[name]
        assert (found.ifindex, found.flags) == (entry["index"], entry["flags"])
        assert (found.mtu, found.group, found.address) == (
            entry.get("mtu"),
            entry.get("group"),
            entry.get("address"),
        )
        assert link.operstate_name(found.operstate) == entry.get("operstate")
        assert (found.carrier, found.carrier_up_count) == (
            bool(entry.get("carrier")),
            entry.get("carrier_up_count"),
        )
        assert found.kind == entry.get(("linkinfo", "kind"))
        tun = found.tun()
        if tun is not None:
            data = [
                entry.get(("linkinfo", "data", name))
                for name in ("tun_type", "tun_num_queues", "tun_num_disabled_queues")
            ]
            assert [tun.type, tun.queues, tun.disabled_queues] == [
                data[0],
                data[1] or 0,
                data[2] or 0,
            ]


def test_qdiscs_and_filters_are_those_that_pyroute2_reads(crowd, peer):
    (messages,) = asked(crowd, tc.dump_qdiscs())
    ours = [
        (found.ifindex, found.kind, found.handle, found.parent, found.info)
        for found in tc.qdiscs(messages)
    ]
    theirs = [
        (entry["index"], entry.get("kind"), entry["handle"], entry["parent"], entry["info"])
        for entry in peer.get_qdiscs()
    ]
    assert ours == theirs
    links = {name: found.ifindex for name, found in read_links(crowd).items()}
    for (dev, parent), found in read_filters(crowd).items():
        theirs = list(peer.get_filters(index=links[dev], parent=parent))
        assert len(theirs) == len(found)
        for each, entry in zip(found, theirs):
            assert (each.ifindex, each.handle, each.parent) == (
                entry["index"],
                entry["handle"],
                entry["parent"],
            )
            assert (each.kind, each.priority) == (entry.get("kind"), entry["info"] >> 16)
            assert each.protocol == socket.ntohs(entry["info"] & 0xFFFF)
            # of chains and shared blocks pyroute2 knows nothing; tc does
            options = entry.get_attr("TCA_OPTIONS")
            assert each.is_priority == (options is None)
            assert each.is_table == (
                options is not None and options.get_attr("TCA_U32_DIVISOR") is not None
            )
            parms = options and mirred_by_pyroute2(options)
            actions = each.actions()
            assert len(actions) == (1 if parms else 0)
            for action in actions:
                assert (action.control, action.eaction) == (parms["action"], parms["eaction"])
                redirects = action.eaction in (uapi.TCA_EGRESS_REDIR, uapi.TCA_INGRESS_REDIR)
                assert action.redirect == (parms["ifindex"] if redirects else None)


def mirred_by_pyroute2(options):
    """The parameters of a filter's first and only action; None where it has none."""
    found = options.get_attr("TCA_U32_ACT") or options.get_attr("TCA_BPF_ACT")
    for name in ("TCA_ACT_PRIO_1", "TCA_ACT_OPTIONS", "TCA_MIRRED_PARMS"):
        found = found and found.get_attr(name)
    return found

# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/*.txt again from the running kernel: python3 tests/tools/capture.py.

It takes root, `ip` and `tc`.

Each capture is the raw answer to one datagram of requests, read in a network namespace that is made
for it and deleted afterwards. MAC addresses, ports, counters and times differ from run to run; no
test depends on them.
"""

import fcntl
import os
import socket
import struct
import sys
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [TESTS, os.path.dirname(TESTS)]

from lib import command, pods, taps
from nlraw import exchange, inet, link, neighbour, nexthop, tc, uapi, wire

DIRECTORY = os.path.join(TESTS, "golden")

IFF_DETACH_QUEUE = 0x0400
TUNSETQUEUE = 0x400454D9

IFLA_TARGET_NETNSID = 46

SETTLED = 1.5  # seconds: the link watch works off its events once a second (net/core/link_watch.c)

# ---------------------------------------------------------------- the namespace


class Pod(pods.Pod):
    """A pod with a veth pair, eth0 and peer0, both up, no address, whose answers are kept."""

    def __init__(self):
        super().__init__(uplink=None, ipv6=True)
        self.ip("link add eth0 type veth peer name peer0")
        self.ip("link set eth0 up")
        self.ip("link set peer0 up")

    def ip(self, *words):
        return super().ip(*" ".join(words).split())

    def tc(self, *words):
        return super().tc(*" ".join(words).split())

    def index(self, name):
        return self.run(lambda: socket.if_nametoindex(name))

    def open(self, name, flags=taps.IFF_TAP):
        """Open a queue of a TUN device, made persistent; return the file that holds it."""

        def inside():
            file = os.fdopen(taps.attach(name, flags), "r+b", buffering=0)
            fcntl.ioctl(file, taps.TUNSETPERSIST, 1)
            return file

        return self.run(inside)

    def make(self, name, flags=taps.IFF_TAP):
        """A persistent device that nobody holds, and that nobody ever opened again."""
        self.run(lambda: taps.make(name, flags))

    def ask(self, *requests, options=(uapi.NETLINK_EXT_ACK, uapi.NETLINK_CAP_ACK), buffer=1 << 16):
        """Send requests in one datagram and return the datagrams that answer it."""
        with self.run(lambda: self.connect(options)) as connection:
            return converse(
                connection, exchange.Exchange(requests, connection.getsockname()[0], 1), buffer
            )

    def connect(self, options=(uapi.NETLINK_EXT_ACK, uapi.NETLINK_CAP_ACK)):
        """A NETLINK_ROUTE socket in the namespace of the calling thread."""
        connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, uapi.NETLINK_ROUTE)
        for option in options:
            connection.setsockopt(uapi.SOL_NETLINK, option, 1)
        connection.bind((0, 0))
        return connection

    def get(self, name):
        return self.ask(link.get(self.index(name), name))


def converse(connection, conversation, buffer=1 << 16):
    connection.send(conversation.datagram())
    received = []
    while not conversation.is_finished:
        received.append(connection.recv(buffer))
        conversation.receive(received[-1])
    return received


# ---------------------------------------------------------------- what is captured


CAPTURES = []


def capture(state):
    """Mark a function of a pod that returns datagrams.

    The file gets its name, and ``state`` as its comment.
    """

    def mark(function):
        CAPTURES.append((function.__name__.replace("_", "-"), state, function))
        return function

    return mark


@capture("RTM_GETLINK of a TAP, made but never opened a second time, up")
def tap_fresh(pod):
    pod.make("tap0_urunc")
    pod.ip("link set tap0_urunc up")
    time.sleep(SETTLED)
    return pod.get("tap0_urunc")


@capture("RTM_GETLINK of a TAP that a second open holds, up")
def tap_held_up(pod):
    pod.make("tap0_urunc")
    pod.ip("link set tap0_urunc up")
    with pod.open("tap0_urunc"):
        time.sleep(SETTLED)
        return pod.get("tap0_urunc")


@capture("RTM_GETLINK of a TAP that a second open holds, admin-down")
def tap_held_down(pod):
    pod.make("tap0_urunc")
    with pod.open("tap0_urunc"):
        time.sleep(SETTLED)
        return pod.get("tap0_urunc")


@capture("RTM_GETLINK of a TAP that was held and is released, up")
def tap_released_up(pod):
    pod.make("tap0_urunc")
    pod.ip("link set tap0_urunc up")
    pod.open("tap0_urunc").close()
    time.sleep(SETTLED)
    return pod.get("tap0_urunc")


@capture("RTM_GETLINK of a TAP that was held and is released, admin-down")
def tap_released_down(pod):
    pod.make("tap0_urunc")
    pod.open("tap0_urunc").close()
    time.sleep(SETTLED)
    return pod.get("tap0_urunc")


@capture(
    "RTM_GETLINK dump of kind tun, right after the holder has closed: carrier off, RUNNING and "
    "operstate UP still"
)
def tap_just_released(pod):
    pod.make("tap0_urunc")
    pod.ip("link set tap0_urunc up")
    held = pod.open("tap0_urunc")
    time.sleep(SETTLED)
    pod.ip("link set peer0 down")  # a link event: the link watch has had its turn for this second
    pod.ip("link set peer0 up")
    held.close()
    return pod.ask(link.dump("tun"))


@capture("RTM_GETLINK dump of kind tun, right after a second open: carrier on, not RUNNING yet")
def tap_just_attached(pod):
    pod.make("tap0_urunc")
    pod.ip("link set tap0_urunc up")
    request = uapi.ifreq.pack(b"tap0_urunc", taps.IFF_TAP | uapi.IFF_NO_PI)

    def attach_and_ask():
        with open("/dev/net/tun", "r+b", buffering=0) as file, pod.connect() as connection:
            time.sleep(SETTLED)
            conversation = exchange.Exchange([link.dump("tun")], connection.getsockname()[0], 1)
            fcntl.ioctl(file, uapi.TUNSETIFF, request)
            return converse(connection, conversation)

    for _ in range(20):
        answer = pod.run(attach_and_ask)
        (found,) = link.links(wire.messages(b"".join(answer)))
        if found.carrier and not found.flags & uapi.IFF_RUNNING:
            return answer
    raise RuntimeError("the link watch was faster each time")


@capture("RTM_GETLINK of a multi-queue TAP with two queues attached, up")
def tap_queues_attached(pod):
    pod.make("tap0_urunc", taps.IFF_TAP | taps.IFF_MULTI_QUEUE)
    pod.ip("link set tap0_urunc up")
    with pod.open("tap0_urunc", taps.IFF_TAP | taps.IFF_MULTI_QUEUE), pod.open(
        "tap0_urunc", taps.IFF_TAP | taps.IFF_MULTI_QUEUE
    ):
        time.sleep(SETTLED)
        return pod.get("tap0_urunc")


@capture(
    "RTM_GETLINK of a multi-queue TAP with one queue attached and one detached (TUNSETQUEUE), up"
)
def tap_queues_half_detached(pod):
    return _detach(pod, 1)


@capture(
    "RTM_GETLINK of a multi-queue TAP, held by two descriptors, with both queues detached "
    "(TUNSETQUEUE), up"
)
def tap_queues_detached(pod):
    return _detach(pod, 2)


def _detach(pod, count):
    pod.make("tap0_urunc", taps.IFF_TAP | taps.IFF_MULTI_QUEUE)
    pod.ip("link set tap0_urunc up")
    with pod.open("tap0_urunc", taps.IFF_TAP | taps.IFF_MULTI_QUEUE) as one, pod.open(
        "tap0_urunc", taps.IFF_TAP | taps.IFF_MULTI_QUEUE
    ) as two:
        for queue in (one, two)[:count]:
            fcntl.ioctl(queue, TUNSETQUEUE, uapi.ifreq.pack(b"", IFF_DETACH_QUEUE))
        time.sleep(SETTLED)
        return pod.get("tap0_urunc")


@capture("RTM_GETLINK of a multi-queue TAP that was held by two and is released, up")
def tap_queues_released(pod):
    pod.make("tap0_urunc", taps.IFF_TAP | taps.IFF_MULTI_QUEUE)
    pod.ip("link set tap0_urunc up")
    with pod.open("tap0_urunc", taps.IFF_TAP | taps.IFF_MULTI_QUEUE), pod.open(
        "tap0_urunc", taps.IFF_TAP | taps.IFF_MULTI_QUEUE
    ):
        pass
    time.sleep(SETTLED)
    return pod.get("tap0_urunc")


@capture("RTM_GETLINK of a device of the TUN driver in TUN mode, called like a TAP, released, up")
def tun_mode(pod):
    pod.make("tap0_urunc", taps.IFF_TUN)
    pod.ip("link set tap0_urunc up")
    time.sleep(SETTLED)
    return pod.get("tap0_urunc")


@capture("RTM_GETLINK of a veth, called like a TAP, up; its peer is down")
def veth(pod):
    pod.ip("link add tap0_urunc type veth peer name tap0_peer")
    pod.ip("link set tap0_urunc up")
    time.sleep(SETTLED)
    return pod.get("tap0_urunc")


@capture("RTM_GETLINK of a bridge, called like a TAP, up, without a port")
def bridge(pod):
    pod.ip("link add tap0_urunc type bridge")
    pod.ip("link set tap0_urunc up")
    time.sleep(SETTLED)
    return pod.get("tap0_urunc")


@capture("RTM_GETLINK of a macvtap, called like a TAP, up")
def macvtap(pod):
    pod.ip("link add link eth0 name tap0_urunc type macvtap")
    pod.ip("link set tap0_urunc up")
    time.sleep(SETTLED)
    return pod.get("tap0_urunc")


@capture(
    "RTM_GETLINK dump of all links (lo, peer0, eth0, four TAPs), read with a buffer of 4,096 "
    "bytes: several datagrams"
)
def links_all(pod):
    for number in range(4):
        pod.make("tap%d_urunc" % number)
    return pod.ask(link.dump(), buffer=4096)


@capture(
    "RTM_GETLINK dump of kind tun (two TAPs, one device in TUN mode), which the kernel filters"
)
def links_tun(pod):
    pod.make("tap0_urunc")
    pod.make("tap1_urunc")
    pod.make("tun0", taps.IFF_TUN)
    return pod.ask(link.dump("tun"))


@capture("RTM_GETLINK dump of kind tun, where there is none: a DONE and no more")
def links_none(pod):
    return pod.ask(link.dump("tun"))


@capture("RTM_GETLINK of eth0 by name and a dump of kind tun (one TAP), in one datagram")
def look(pod):
    pod.make("tap0_urunc")
    return pod.ask(link.find("eth0"), link.dump("tun"))


@capture(
    "RTM_GETQDISC dump: noqueue, ingress, clsact, htb, ingress with a shared block, pfifo_fast"
)
def qdiscs(pod):
    pod.ip("link add br0 type bridge")
    pod.make("tap0_urunc")
    pod.ip("link set tap0_urunc up")  # the kernel gives it pfifo_fast
    pod.tc("qdisc add dev eth0 ingress")
    pod.tc("qdisc add dev peer0 clsact")
    pod.tc("qdisc add dev br0 root handle 1: htb")
    pod.tc("qdisc add dev br0 ingress_block 7 ingress")
    return pod.ask(tc.dump_qdiscs())


def _redirect(pod, target):
    pod.tc("qdisc add dev eth0 ingress")
    pod.tc(
        "filter add dev eth0 ingress protocol all u32 match u32 0 0 action mirred egress redirect "
        "dev " + target
    )


def _filters(pod, parent=uapi.TC_H_INGRESS_HANDLE, dev="eth0"):
    return pod.ask(tc.dump_filters(pod.index(dev), parent, dev))


@capture("RTM_GETTFILTER dump: u32 match-all, mirred egress redirect to a TAP, as `tc` makes it")
def filters_redirect(pod):
    pod.make("tap0_urunc")
    _redirect(pod, "tap0_urunc")
    return _filters(pod)


@capture(
    "RTM_GETTFILTER dump: u32 match-all, mirred egress redirect to a TAP, as "
    "nlraw.tc.create_redirect makes it"
)
def filters_redirect_own(pod):
    pod.make("tap0_urunc")
    index = pod.index("eth0")
    pod.ask(
        tc.create_ingress(index, "eth0"),
        tc.create_redirect(index, uapi.TC_H_INGRESS_HANDLE, pod.index("tap0_urunc"), "eth0"),
    )
    return _filters(pod)


@capture("RTM_GETTFILTER dump: u32 match-all, mirred egress redirect to a TAP deleted since")
def filters_redirect_dead(pod):
    pod.make("tap0_urunc")
    _redirect(pod, "tap0_urunc")
    pod.ip("link del tap0_urunc")
    return _filters(pod)


@capture(
    "RTM_GETTFILTER dump: u32 match-all, mirred egress redirect to the devices of a shared block "
    "(Linux 6.8 and newer)"
)
def filters_redirect_block(pod):
    pod.tc("qdisc add dev eth0 ingress")
    pod.tc("qdisc add dev peer0 egress_block 22 clsact")
    parms = uapi.tc_mirred.pack(0, 0, uapi.TC_ACT_STOLEN, 0, 0, uapi.TCA_EGRESS_REDIR, 0)
    to_block = wire.attribute(uapi.TCA_MIRRED_PARMS, parms) + wire.attribute_u32(
        uapi.TCA_MIRRED_BLOCKID, 22
    )
    action = wire.attribute_string(uapi.TCA_ACT_KIND, "mirred") + wire.attribute_nested(
        uapi.TCA_ACT_OPTIONS, to_block
    )
    match_all = uapi.tc_u32_sel.pack(
        uapi.TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0
    ) + uapi.tc_u32_key.pack(0, 0, 0, 0)
    selector = wire.attribute(uapi.TCA_U32_SEL, match_all)
    options = wire.attribute_nested(
        uapi.TCA_OPTIONS,
        selector,
        wire.attribute_nested(uapi.TCA_U32_ACT, wire.attribute_nested(1, action)),
    )
    request = tc.create_redirect(pod.index("eth0"), uapi.TC_H_INGRESS_HANDLE, 0, "eth0")
    request.payload = (
        request.payload[: request.fixed] + wire.attribute_string(uapi.TCA_KIND, "u32") + options
    )
    pod.ask(request)
    return _filters(pod)


@capture(
    "RTM_GETTFILTER dump: u32 for IPv4 to 10.0.0.1 that redirects to a TAP deleted since, and u32 "
    "with a class and no action"
)
def filters_foreign(pod):
    pod.make("tap0_urunc")
    pod.tc("qdisc add dev eth0 ingress")
    match = "protocol ip u32 match ip dst 10.0.0.1/32"
    pod.tc(
        "filter add dev eth0 ingress prio 10 %s action mirred egress redirect dev tap0_urunc"
        % match
    )
    pod.tc("filter add dev eth0 ingress prio 20 protocol all u32 match u32 0 0 flowid 1:1")
    pod.ip("link del tap0_urunc")
    return _filters(pod)


@capture("RTM_GETTFILTER dump: u32 match-all that mirrors to a TAP deleted since, and passes")
def filters_mirror_dead(pod):
    pod.make("tap0_urunc")
    pod.tc("qdisc add dev eth0 ingress")
    pod.tc(
        "filter add dev eth0 ingress protocol all u32 match u32 0 0 action mirred egress mirror "
        "dev tap0_urunc"
    )
    pod.ip("link del tap0_urunc")
    return _filters(pod)


@capture(
    "RTM_GETTFILTER dump: two u32 redirects of one priority, to peer0 and to a TAP deleted since"
)
def filters_siblings(pod):
    pod.make("tap0_urunc")
    pod.tc("qdisc add dev eth0 ingress")
    for target in ("peer0", "tap0_urunc"):
        pod.tc(
            "filter add dev eth0 ingress prio 7 protocol all u32 match u32 0 0 action mirred "
            "egress redirect dev " + target
        )
    pod.ip("link del tap0_urunc")
    return _filters(pod)


@capture("RTM_GETTFILTER dump: u32 in chain 3, two actions: mirror to peer0, redirect to a TAP")
def filters_two_actions(pod):
    pod.make("tap0_urunc")
    pod.tc("qdisc add dev eth0 ingress")
    pod.tc(
        "filter add dev eth0 ingress chain 3 protocol all u32 match u32 0 0"
        " action mirred egress mirror dev peer0 action mirred egress redirect dev tap0_urunc"
    )
    return _filters(pod)


@capture(
    "RTM_GETTFILTER dump: the root table that stays when a u32 filter is deleted by its handle "
    "beside a second priority's"
)
def filters_root_table(pod):
    pod.make("tap0_urunc")
    _redirect(pod, "tap0_urunc")
    pod.tc(
        "filter add dev eth0 ingress prio 10 protocol ip u32 match ip dst 10.0.0.1/32 flowid 1:1"
    )
    parent = uapi.TC_H_INGRESS_HANDLE
    found = tc.filters(wire.messages(b"".join(_filters(pod))))
    pod.ask(*[tc.delete_filter(filter, parent, "eth0") for filter in found if filter.actions()])
    return _filters(pod)


@capture("RTM_GETTFILTER dump: bpf direct-action on the ingress hook of clsact")
def filters_bpf(pod):
    pod.tc("qdisc add dev eth0 clsact")
    words = "filter add dev eth0 ingress bpf da bytecode".split() + ["1,6 0 0 4294967295"]
    command.run("tc", "-n", pod.name, *words)
    return _filters(pod, uapi.TC_H_INGRESS_HANDLE | uapi.TC_H_MIN_INGRESS)


@capture("RTM_GETTFILTER dump: none under an ingress qdisc")
def filters_none(pod):
    pod.tc("qdisc add dev eth0 ingress")
    return _filters(pod)


@capture(
    "RTM_GETROUTE dump of IPv4: default by eth0 (metric 20), default of two next hops (metric 10), "
    "and others"
)
def routes_ipv4(pod):
    pod.ip("address add 10.9.8.2/24 dev eth0")
    pod.ip("address add 10.9.7.2/24 dev peer0")
    pod.ip("route add default via 10.9.8.1 dev eth0 metric 20")
    pod.ip(
        "route add default metric 10 nexthop via 10.9.7.1 dev peer0 nexthop via 10.9.8.1 dev eth0"
    )
    pod.ip("route add unreachable default metric 5")
    pod.ip("route add default via 10.9.8.9 dev eth0 table 1000")
    return pod.ask(inet.dump_routes(inet.AF_INET))


@capture("RTM_GETROUTE dump of IPv6: default by eth0 (metric 1024), and others")
def routes_ipv6(pod):
    pod.ip("address add fd00::2/64 dev eth0 nodad")
    pod.ip("route add default via fd00::1 dev eth0")
    return pod.ask(inet.dump_routes(inet.AF_INET6))


@capture(
    "RTM_GETADDR dump of every family: on eth0 of IPv4 one with its broadcast address, one with a "
    "far end, one of scope link and a secondary, of IPv6 one and one with a far end"
)
def addresses_of_guest(pod):
    pod.ip("address add 10.9.8.2/24 broadcast + dev eth0")
    pod.ip("address add 10.9.9.2 peer 10.9.9.1/32 dev eth0")
    pod.ip("address add 169.254.7.7/16 scope link dev eth0")
    pod.ip("address add 10.9.8.3/24 dev eth0")
    pod.ip("address add fd00::2/64 dev eth0 nodad")
    pod.ip("address add fd00::1:2 peer fd00::1:1/128 dev eth0 nodad")
    return pod.ask(inet.dump_addresses())


def _add_routes(pod):
    pod.ip("address add 10.9.8.2/32 dev eth0")
    pod.ip("address add 10.9.7.2/24 dev peer0")
    pod.ip("address add fd00::2/64 dev eth0 nodad")
    pod.ip("route add 169.254.1.1 dev eth0")


@capture(
    "RTM_GETROUTE dump of every family: a default route by a gateway on the link (MTU 1450), one "
    "by an IPv6 gateway, one to a gateway without a route (onlink), next hops on two devices, a "
    "blackhole; IPv6 with two gateways, an MTU and a source"
)
def routes_of_guest(pod):
    _add_routes(pod)
    pod.ip("route add default via 169.254.1.1 dev eth0 mtu 1450 metric 5 src 10.9.8.2")
    pod.ip("route add 10.5.0.0/16 via inet6 fe80::1 dev eth0")
    pod.ip("route add 10.6.0.0/16 via 172.16.0.1 dev eth0 onlink proto 77 tos 0x10")
    pod.ip(
        "route add 10.7.0.0/16 nexthop via 169.254.1.1 dev eth0 weight 3 nexthop via 10.9.7.1 dev "
        "peer0 nexthop via inet6 fe80::5 dev eth0 onlink"
    )
    pod.ip("route add blackhole 10.8.0.0/16")
    pod.ip("route add 10.9.0.0/16 dev eth0 table 1000")
    pod.ip("route add default mtu 1400 nexthop via fd00::1 weight 2 nexthop via fd00::9")
    pod.ip("route add fd05::1 dev eth0 src fd00::2 metric 7")
    pod.ip("route add fe80::77 dev eth0")
    pod.ip("route add unreachable fd06::/64")
    return pod.ask(inet.dump_routes(inet.AF_UNSPEC))


def _add_objects(pod):
    _add_routes(pod)
    pod.ip("nexthop add id 1 via 169.254.1.1 dev eth0")
    pod.ip("nexthop add id 2 via fe80::33 dev eth0 onlink")
    pod.ip("nexthop add id 3 via 10.9.7.1 dev peer0")
    pod.ip("link set lo up")  # which a blackhole belongs to
    pod.ip("nexthop add id 4 blackhole")
    pod.ip("nexthop add id 10 group 1,3/3,20")
    pod.ip("nexthop add id 20 via fd00::44 dev eth0")


@capture("RTM_GETNEXTHOP dump: three next hops of IPv4, a blackhole, a group, one of IPv6")
def next_hops(pod):
    _add_objects(pod)
    return pod.ask(nexthop.dump())


@capture("RTM_GETROUTE dump of every family: routes that have the IDs of their next hops alone")
def routes_by_object(pod):
    _add_objects(pod)
    pod.sysctl("net/ipv4/nexthop_compat_mode", 0)
    pod.ip("route add default nhid 1")
    pod.ip("route add 10.5.0.0/16 nhid 2")
    pod.ip("route add 10.6.0.0/16 nhid 10")
    pod.ip("route add 10.7.0.0/16 nhid 4")
    pod.ip("route add fd05::/64 nhid 20")
    return pod.ask(inet.dump_routes(inet.AF_UNSPEC))


@capture(
    "RTM_GETNEIGH dump of eth0: permanent ones of both families, one that is reachable, one that "
    "needs no answer (NOARP)"
)
def neighbours(pod):
    pod.ip("neighbour add 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent")
    pod.ip("neighbour add fd00::1 lladdr 02:00:00:00:00:02 dev eth0 nud permanent router")
    pod.ip("neighbour add 10.9.8.9 lladdr 02:00:00:00:00:03 dev eth0 nud reachable")
    pod.ip("neighbour add 10.9.8.8 lladdr 02:00:00:00:00:04 dev eth0 nud noarp")
    pod.ip("neighbour add 10.9.7.1 lladdr 02:00:00:00:00:05 dev peer0 nud permanent")
    return pod.ask(neighbour.dump(pod.index("eth0"), "eth0"))


NO_SUCH_LINK = 0x7FFFFFFE

# A veth whose peer's attribute is too short: the kernel points at the attribute 18.2.1.
BAD_PEER = exchange.Request(
    uapi.RTM_NEWLINK,
    uapi.NLM_F_CREATE | uapi.NLM_F_EXCL | uapi.NLM_F_ACK,
    uapi.ifinfomsg.pack(0, 0, 0, 0, 0)
    + wire.attribute_string(uapi.IFLA_IFNAME, "v0")
    + wire.attribute_nested(
        uapi.IFLA_LINKINFO,
        wire.attribute(uapi.IFLA_INFO_KIND, b"veth"),
        wire.attribute_nested(uapi.IFLA_INFO_DATA, wire.attribute(uapi.VETH_INFO_PEER, b"four")),
    ),
    uapi.ifinfomsg.size,
    "create veth",
    "v0",
)

# A dump in a namespace that has no such number: the refusal is in the DONE.
BAD_DUMP = exchange.Request(
    uapi.RTM_GETLINK,
    uapi.NLM_F_DUMP,
    uapi.ifinfomsg.pack(0, 0, 0, 0, 0) + wire.attribute_u32(IFLA_TARGET_NETNSID, 4242),
    uapi.ifinfomsg.size,
    "list links",
    "elsewhere",
)


@capture("RTM_SETLINK of eth0, up: an ACK")
def ack(pod):
    return pod.ask(link.set_up(pod.index("eth0"), "eth0"))


@capture("RTM_SETLINK of eth0, up: an ACK on a socket without NETLINK_CAP_ACK")
def ack_uncapped(pod):
    return pod.ask(link.set_up(pod.index("eth0"), "eth0"), options=())


@capture("RTM_DELLINK of no link, on a socket with neither NETLINK_EXT_ACK nor NETLINK_CAP_ACK")
def refusal_plain(pod):
    return pod.ask(link.delete(NO_SUCH_LINK, "gone"), options=())


@capture("RTM_GETLINK of no link: a refusal without words, on a socket with both options")
def refusal_wordless(pod):
    return pod.ask(link.get(NO_SUCH_LINK, "gone"))


@capture("RTM_NEWLINK with a bad attribute 18.2.1, on a socket with neither option")
def refusal_attribute_plain(pod):
    return pod.ask(BAD_PEER, options=())


@capture("RTM_NEWLINK with a bad attribute 18.2.1, on a socket with NETLINK_CAP_ACK alone")
def refusal_attribute_capped(pod):
    return pod.ask(BAD_PEER, options=(uapi.NETLINK_CAP_ACK,))


@capture(
    "RTM_NEWLINK with a bad attribute 18.2.1, on a socket with NETLINK_EXT_ACK alone: behind the "
    "whole request"
)
def refusal_attribute_extended(pod):
    return pod.ask(BAD_PEER, options=(uapi.NETLINK_EXT_ACK,))


@capture(
    "RTM_NEWLINK with a bad attribute 18.2.1, on a socket with both options: behind the request's "
    "header"
)
def refusal_attribute_both(pod):
    return pod.ask(BAD_PEER)


@capture("RTM_DELQDISC of an ingress qdisc that is not there, on a socket with both options")
def refusal_qdisc(pod):
    payload = uapi.tcmsg.pack(0, pod.index("eth0"), uapi.TC_H_INGRESS_HANDLE, uapi.TC_H_INGRESS, 0)
    payload += wire.attribute_string(uapi.TCA_KIND, "ingress")
    return pod.ask(
        exchange.Request(
            uapi.RTM_DELQDISC,
            uapi.NLM_F_ACK,
            payload,
            uapi.tcmsg.size,
            "delete ingress qdisc",
            "eth0",
        )
    )


@capture(
    "RTM_GETLINK dump of a namespace number that is not there: the refusal is in the DONE, with "
    "its words"
)
def done_refusal(pod):
    return pod.ask(BAD_DUMP)


@capture(
    "RTM_GETLINK dump of a namespace number that is not there, on a socket without NETLINK_EXT_ACK"
)
def done_refusal_plain(pod):
    return pod.ask(BAD_DUMP, options=())


@capture("Two RTM_DELLINK in one datagram: a TAP, and a link that is not there")
def pipeline(pod):
    pod.make("tap0_urunc")
    return pod.ask(
        link.delete(pod.index("tap0_urunc"), "tap0_urunc"), link.delete(NO_SUCH_LINK, "gone")
    )


# ---------------------------------------------------------------- annotated hex


MESSAGES = {
    uapi.NLMSG_ERROR: "NLMSG_ERROR",
    uapi.NLMSG_DONE: "NLMSG_DONE",
    uapi.RTM_NEWLINK: "RTM_NEWLINK",
    uapi.RTM_NEWADDR: "RTM_NEWADDR",
    uapi.RTM_NEWROUTE: "RTM_NEWROUTE",
    uapi.RTM_NEWNEIGH: "RTM_NEWNEIGH",
    uapi.RTM_NEWNEXTHOP: "RTM_NEWNEXTHOP",
    uapi.RTM_NEWQDISC: "RTM_NEWQDISC",
    uapi.RTM_NEWTFILTER: "RTM_NEWTFILTER",
}

# By message: the fixed part, its name, and the family of the attributes behind it.
LAYOUTS = {
    uapi.RTM_NEWLINK: (uapi.ifinfomsg, "ifinfomsg", "IFLA"),
    uapi.RTM_NEWADDR: (uapi.ifaddrmsg, "ifaddrmsg", "IFA"),
    uapi.RTM_NEWROUTE: (uapi.rtmsg, "rtmsg", "RTA"),
    uapi.RTM_NEWNEIGH: (uapi.ndmsg, "ndmsg", "NDA"),
    uapi.RTM_NEWNEXTHOP: (uapi.nhmsg, "nhmsg", "NHA"),
    uapi.RTM_NEWQDISC: (uapi.tcmsg, "tcmsg", "TCA"),
    uapi.RTM_NEWTFILTER: (uapi.tcmsg, "tcmsg", "TCA"),
    uapi.NLMSG_DONE: (struct.Struct("=i"), "errno", "NLMSGERR_ATTR"),
}

# By family: the names of the types from 0 on, less the family's own (linux/if_link.h, rtnetlink.h,
# pkt_cls.h, netlink.h ...).
TYPES = {
    "IFLA": "UNSPEC ADDRESS BROADCAST IFNAME MTU LINK QDISC STATS COST PRIORITY MASTER WIRELESS"
    " PROTINFO TXQLEN MAP WEIGHT"
    " OPERSTATE LINKMODE LINKINFO NET_NS_PID IFALIAS NUM_VF VFINFO_LIST STATS64 VF_PORTS PORT_SELF "
    "AF_SPEC GROUP NET_NS_FD"
    " EXT_MASK PROMISCUITY NUM_TX_QUEUES NUM_RX_QUEUES CARRIER PHYS_PORT_ID CARRIER_CHANGES "
    "PHYS_SWITCH_ID LINK_NETNSID"
    " PHYS_PORT_NAME PROTO_DOWN GSO_MAX_SEGS GSO_MAX_SIZE PAD XDP EVENT NEW_NETNSID TARGET_NETNSID "
    "CARRIER_UP_COUNT"
    " CARRIER_DOWN_COUNT NEW_IFINDEX MIN_MTU MAX_MTU PROP_LIST ALT_IFNAME PERM_ADDRESS "
    "PROTO_DOWN_REASON PARENT_DEV_NAME"
    " PARENT_DEV_BUS_NAME GRO_MAX_SIZE TSO_MAX_SIZE TSO_MAX_SEGS ALLMULTI DEVLINK_PORT "
    "GSO_IPV4_MAX_SIZE GRO_IPV4_MAX_SIZE"
    " DPLL_PIN MAX_PACING_OFFLOAD_HORIZON NETNS_IMMUTABLE HEADROOM TAILROOM",
    "IFLA_INFO": "UNSPEC KIND DATA XSTATS SLAVE_KIND SLAVE_DATA",
    "IFLA_TUN": "UNSPEC OWNER GROUP TYPE PI VNET_HDR PERSIST MULTI_QUEUE NUM_QUEUES"
    " NUM_DISABLED_QUEUES",
    "IFLA_XDP": "UNSPEC FD ATTACHED",
    "IFA": "UNSPEC ADDRESS LOCAL LABEL BROADCAST ANYCAST CACHEINFO MULTICAST FLAGS RT_PRIORITY"
    " TARGET_NETNSID PROTO",
    "RTA": "UNSPEC DST SRC IIF OIF GATEWAY PRIORITY PREFSRC METRICS MULTIPATH PROTOINFO FLOW"
    " CACHEINFO SESSION MP_ALGO TABLE"
    " MARK MFC_STATS VIA NEWDST PREF ENCAP_TYPE ENCAP EXPIRES PAD UID TTL_PROPAGATE IP_PROTO SPORT "
    "DPORT NH_ID FLOWLABEL",
    "RTAX": "UNSPEC LOCK MTU WINDOW RTT RTTVAR SSTHRESH CWND ADVMSS REORDERING HOPLIMIT INITCWND"
    " FEATURES RTO_MIN INITRWND QUICKACK CC_ALGO FASTOPEN_NO_COOKIE",
    "NDA": "UNSPEC DST LLADDR CACHEINFO PROBES VLAN PORT VNI IFINDEX MASTER LINK_NETNSID SRC_VNI"
    " PROTOCOL NH_ID FDB_EXT_ATTRS FLAGS_EXT NDM_STATE_MASK NDM_FLAGS_MASK",
    "NHA": "UNSPEC ID GROUP GROUP_TYPE BLACKHOLE OIF GATEWAY ENCAP_TYPE ENCAP GROUPS MASTER FDB"
    " RES_GROUP RES_BUCKET OP_FLAGS GROUP_STATS HW_STATS_ENABLE HW_STATS_USED",
    "TCA": "UNSPEC KIND OPTIONS STATS XSTATS RATE FCNT STATS2 STAB PAD DUMP_INVISIBLE CHAIN"
    " HW_OFFLOAD INGRESS_BLOCK"
    " EGRESS_BLOCK",
    "TCA_U32": "UNSPEC CLASSID HASH LINK DIVISOR SEL POLICE ACT INDEV PCNT MARK FLAGS PAD",
    "TCA_BPF": "UNSPEC ACT POLICE CLASSID OPS_LEN OPS FD NAME FLAGS FLAGS_GEN TAG ID",
    "TCA_ACT": "UNSPEC KIND OPTIONS INDEX STATS PAD COOKIE FLAGS HW_STATS USED_HW_STATS"
    " IN_HW_COUNT",
    "TCA_MIRRED": "UNSPEC TM PARMS PAD BLOCKID",
    "NLMSGERR_ATTR": "UNUSED MSG OFFS COOKIE POLICY MISS_TYPE MISS_NEST",
}

# Attributes that hold attributes, and of which family. An "?" depends on the kind, which the kernel
# writes first.
WITHIN = {
    "IFLA_LINKINFO": "IFLA_INFO",
    "IFLA_INFO_DATA": "?",
    "IFLA_XDP": "IFLA_XDP",
    "RTA_METRICS": "RTAX",
    "TCA_OPTIONS": "?",
    "TCA_U32_ACT": "order",
    "order": "TCA_ACT",
    "TCA_ACT_OPTIONS": "?",
}
KINDS = {"tun": "IFLA_TUN", "u32": "TCA_U32", "bpf": "TCA_BPF", "mirred": "TCA_MIRRED"}


def type_name(family, type):
    if family == "order":
        return "order"
    names = TYPES[family].split()
    return family + "_" + (names[type] if type < len(names) else str(type))


def attribute_lines(data, at, end, family, depth):
    """Yield ``(offset, end, depth, comment)`` of every attribute.

    Of one that holds others, its header's and theirs.
    """
    kind = ""
    for type, (start, stop) in wire.attributes(data, at, end):
        name = type_name(family, type)
        if name in ("IFLA_INFO_KIND", "TCA_KIND", "TCA_ACT_KIND"):
            kind = data[start:stop].split(b"\0")[0].decode("ascii")
        inner = WITHIN.get(name)
        if inner == "?":
            inner = KINDS.get(kind)
        comment = name if name != "order" else "the action of order %d" % type
        if inner is None:
            yield (
                start - uapi.nlattr.size,
                min(wire.align(stop), end),
                depth,
                comment + shown(name, data[start:stop]),
            )
        else:
            yield start - uapi.nlattr.size, start, depth, comment
            yield from attribute_lines(data, start, stop, inner, depth + 1)


def shown(name, value):
    """A string or a small number in clear."""
    text = value[:-1] if value.endswith(b"\0") else value
    if name.endswith(("NAME", "KIND", "_MSG", "_LABEL", "IFLA_QDISC")):
        return " " + text.decode("ascii")
    if name in (
        "RTA_DST",
        "RTA_GATEWAY",
        "RTA_PREFSRC",
        "NDA_DST",
        "NHA_GATEWAY",
        "IFA_ADDRESS",
        "IFA_LOCAL",
        "IFA_BROADCAST",
    ):
        return " " + socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value)
    if len(value) in (1, 2, 4) and not name.endswith("ADDRESS"):
        return " %d" % int.from_bytes(value, sys.byteorder)
    return ""


def message_lines(message):
    type, flags, _, _, data, at, stop = message
    header = "%s, %d bytes, flags %#x" % (
        MESSAGES.get(type, str(type)),
        stop - at + uapi.nlmsghdr.size,
        flags,
    )
    yield at - uapi.nlmsghdr.size, at, 0, header
    if type == uapi.NLMSG_ERROR:
        yield at, at + 4, 0, "errno %d" % struct.unpack_from("=i", data, at)
        yield at + 4, at + 20, 0, "the request's nlmsghdr"
        at += 20
        if not flags & uapi.NLM_F_CAPPED:
            size = struct.unpack_from("=I", data, at - 16)[0] - 16
            if size and at < stop:
                yield at, at + wire.align(size), 0, "the request's payload"
                at += wire.align(size)
        family = "NLMSGERR_ATTR"
    else:
        layout, fixed, family = LAYOUTS[type]
        comment = fixed if fixed != "errno" else "errno %d" % layout.unpack_from(data, at)
        yield at, at + layout.size, 0, comment
        at += layout.size
    yield from attribute_lines(data, at, stop, family, 1)


def annotated(datagrams):
    for datagram in datagrams:
        yield "datagram"
        for message in wire.messages(datagram):
            for start, end, depth, comment in message_lines(message):
                for at in range(start, end, 32):
                    digits = " ".join("%02x" % byte for byte in datagram[at : min(at + 32, end)])
                    line = "%04x:  %s%s" % (at, "  " * depth, digits)
                    yield ("%-44s  # %s" % (line, comment)) if at == start else line


def main():
    if sys.byteorder != "little":
        sys.exit("the captures are kept little-endian")
    os.makedirs(DIRECTORY, exist_ok=True)
    origin = "Linux %s %s" % (os.uname().release.split("-")[0], os.uname().machine)
    wanted = sys.argv[1:]
    for name, state, function in CAPTURES:
        if wanted and name not in wanted:
            continue
        with Pod() as pod:
            lines = list(annotated(function(pod)))
        head = [
            "# SPDX-License-Identifier: Apache-2.0",
            "# %s" % state,
            "# %s, little-endian" % origin,
        ]
        with open(os.path.join(DIRECTORY, name + ".txt"), "w", encoding="ascii") as file:
            file.write("\n".join(head + lines) + "\n")


if __name__ == "__main__":
    main()

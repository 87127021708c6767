# SPDX-License-Identifier: Apache-2.0
"""Throwaway network namespaces, and what the benches are about in them.

They are bound to files, in a mount namespace that is the bench's own: when it ends, however it
ends, the kernel takes them away. Nothing is ever done in the network namespace of the machine.
"""

import ctypes
import os
import socket
import time

import nlraw
from nlraw import exchange, inet, link, netns, tap, tc, uapi, wire
from nlraw.connection import Connection

# linux/mount.h
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x40000, 2

# What `configure` puts on an uplink: its MTU, and address, gateway and prefix length.
POD_MTU = 1450
POD_IPV4 = "10.9.8.2", "10.9.8.1", 24
POD_IPV6 = "fd00:9::2", "fd00:9::1", 64


class NotDone(Exception):
    """A contender did not do the work, or not all of it: there is nothing to compare."""


def hide_mounts():
    """Move this process into a mount namespace of its own; to be called while it has one thread."""
    netns.unshare(uapi.CLONE_NEWNS)
    mount("none", "/", MS_REC | MS_PRIVATE)


def _pack(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_pton(family, address)


def _default_route(ifindex, gateway):
    """A request for a route to everywhere by a gateway (rtnetlink(7))."""
    family = inet.AF_INET if len(gateway) == 4 else inet.AF_INET6
    boot, everywhere = 3, 0  # RTPROT_BOOT, RT_SCOPE_UNIVERSE
    fixed = uapi.rtmsg.pack(
        family, 0, 0, 0, uapi.RT_TABLE_MAIN, boot, everywhere, uapi.RTN_UNICAST, 0
    )
    attributes = wire.attribute(uapi.RTA_GATEWAY, gateway)
    attributes += wire.attribute_u32(uapi.RTA_OIF, ifindex)
    return _create(uapi.RTM_NEWROUTE, fixed, attributes, "route")


def _neighbour(ifindex, address):
    """A request for a permanent neighbour; IPv4."""
    fixed = uapi.ndmsg.pack(inet.AF_INET, ifindex, uapi.NUD_PERMANENT, 0, 0)
    attributes = wire.attribute(uapi.NDA_DST, address)
    attributes += wire.attribute(uapi.NDA_LLADDR, b"\x02\0\0\0\0\1")
    return _create(uapi.RTM_NEWNEIGH, fixed, attributes, "neighbour")


def _create(kind, fixed, attributes, what):
    flags = uapi.NLM_F_CREATE | uapi.NLM_F_EXCL | uapi.NLM_F_ACK
    return exchange.Request(kind, flags, fixed + attributes, len(fixed), "create", what)


def mount(source, target, flags):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


class Pod:
    """A network namespace of our own.

    ``uplink()``, ``fill()`` and ``orphan()`` put into it what the bench is about.
    """

    def __init__(self, path):
        self.path = path
        self.namespace = netns.create()
        with open(path, "w"):
            pass
        mount("/proc/self/fd/%d" % self.namespace.fileno(), path, MS_BIND)
        self.namespace.close()
        self.pairs = 0
        self.held = []
        self.is_open = True

    def run(self, function):
        with netns.Namespace(self.path) as namespace:
            return namespace.run(function)

    def change(self, *requests):
        with netns.Namespace(self.path) as namespace, Connection(namespace) as connection:
            for reply in connection.change(*requests):
                reply.answer()

    def query(self, *requests):
        with netns.Namespace(self.path) as namespace, Connection(namespace) as connection:
            return [reply.answer() for reply in connection.ask(*requests)]

    def uplink(self):
        """A container interface: a veth that is up, whose other end is here too."""
        self.change(link.create_veth("eth0", "peer0"))
        eth0, peer0 = (
            link.links(found)[0] for found in self.query(link.find("eth0"), link.find("peer0"))
        )
        self.change(link.set_up(eth0.ifindex, "eth0"), link.set_up(peer0.ifindex, "peer0"))

    def configure(self):
        """Give the uplink what a pod's has: an MTU, and of each family an address and a gateway.

        The IPv4 gateway is a permanent neighbour.
        """
        eth0 = self.find("eth0").ifindex
        requests = [link.set_up(eth0, "eth0", POD_MTU)]
        for local, gateway, prefixlen in (POD_IPV4, POD_IPV6):
            packed = _pack(local)
            requests.append(inet.create_address(eth0, packed, prefixlen, "eth0"))
            requests.append(_default_route(eth0, _pack(gateway)))
        requests.append(_neighbour(eth0, _pack(POD_IPV4[1])))
        self.change(*requests)

    def fill(self, links):
        """Add pairs of veth until there are so many links."""
        there = len(self.links())
        assert (links - there) % 2 == 0, "veth come in pairs"
        pairs = range(self.pairs, self.pairs + (links - there) // 2)
        self.change(*[link.create_veth("a%d" % pair, "b%d" % pair) for pair in pairs])
        self.pairs = pairs.stop

    def held_taps(self, count):
        """TAPs in use, without any TC state. While one is an orphan a scan lists all links."""
        for number in range(count):
            name = "tap%d_urunc" % number
            with netns.Namespace(self.path) as namespace:
                self.held.append(tap.create(namespace, name))
            self.change(link.set_up(self.find(name).ifindex, name))
            self.settle(name, is_running=True)

    def taps(self, count):
        """Orphan TAPs, without any TC state: created, up, and let go of."""
        for number in range(count):
            self.tap("tap%d_urunc" % number)

    def tap(self, name):
        with netns.Namespace(self.path) as namespace:
            fd = tap.create(namespace, name)
            tap.persist(fd, name)
            os.close(fd)
        self.change(link.set_up(self.find(name).ifindex, name))
        self.settle(name)

    def orphan(self):
        """What a killed VM leaves: a TAP that it was attached to, with the redirects."""
        nlraw.setup(self.path)
        with netns.Namespace(self.path) as namespace:
            os.close(tap.attach(namespace, "tap0_urunc"))
        self.settle("tap0_urunc")

    def settle(self, name, is_running=False):
        """Wait until RUNNING follows the carrier: it is all that some of the peers look at."""
        deadline = time.monotonic() + 3
        while bool(self.find(name).flags & uapi.IFF_RUNNING) != is_running:
            if time.monotonic() > deadline:
                raise NotDone("RUNNING of %s does not follow its carrier" % name)
            time.sleep(0.001)

    def find(self, name):
        return link.links(self.query(link.find(name))[0])[0]

    def links(self, kind=None):
        return link.links(self.query(link.dump(kind))[0])

    def expected(self, kind=None):
        """What a contender should tell of the links."""
        found = [one for one in self.links(kind) if kind in (None, one.kind)]
        return {
            "links": len(found),
            "ifindexes": sum(one.ifindex for one in found),
            "names": sum(len(one.ifname) for one in found),
        }

    def check_clean(self, who):
        """Refuse to go on if a TAP or any TC state of the product's is left."""
        links, qdiscs = self.query(link.dump("tun"), tc.dump_qdiscs())
        left = [one.ifname for one in link.links(links) if one.kind == "tun"]
        left += [one.kind for one in tc.qdiscs(qdiscs) if one.kind == "ingress"]
        if left:
            raise NotDone("%s left %s" % (who, ", ".join(left)))

    def check_set_up(self, who):
        """Refuse to go on unless there is one TAP, up, with the uplink's MTU, redirected both ways.

        Return its ifindex.
        """
        links, qdiscs = self.query(link.dump("tun"), tc.dump_qdiscs())
        tap = next((one for one in link.links(links) if one.kind == "tun"), None)
        eth0 = self.find("eth0")
        if tap is None or not tap.flags & uapi.IFF_UP or tap.mtu != eth0.mtu:
            raise NotDone("%s made no TAP as it should be" % who)
        with_ingress = {one.ifindex for one in tc.qdiscs(qdiscs) if one.kind == "ingress"}
        wanted = {tap.ifindex: eth0.ifindex, eth0.ifindex: tap.ifindex}
        for ifindex, target in wanted.items():
            (found,) = self.query(tc.dump_filters(ifindex, uapi.TC_H_INGRESS_HANDLE, "ingress"))
            actions = [action for one in tc.filters(found) for action in one.actions()]
            targets = {action.redirect for action in actions}
            if ifindex not in with_ingress or targets != {target}:
                raise NotDone("%s made no redirects both ways" % who)
        return tap.ifindex

    def close(self):
        """Let go of the namespace; what is in it goes with it."""
        while self.held:
            os.close(self.held.pop())
        if self.is_open:
            self.is_open = False
            ctypes.CDLL(None).umount2(self.path.encode(), MNT_DETACH)
            os.unlink(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

# SPDX-License-Identifier: Apache-2.0
"""Throwaway network namespaces, and what the benches are about in them.

They are bound to files, in a mount namespace that is the bench's own: when it ends, however it
ends, the kernel takes them away. Nothing is ever done in the network namespace of the machine.
"""

import ctypes
import os
import time

import nlraw
from nlraw import link, netns, tap, tc, uapi
from nlraw.connection import Connection

# linux/mount.h
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x40000, 2


class NotDone(Exception):
    """A contender did not do the work, or not all of it: there is nothing to compare."""


def hide_mounts():
    """Move this process into a mount namespace of its own; to be called while it has one thread."""
    netns.unshare(uapi.CLONE_NEWNS)
    mount("none", "/", MS_REC | MS_PRIVATE)


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

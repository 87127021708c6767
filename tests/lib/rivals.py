# SPDX-License-Identifier: Apache-2.0
"""Rivals: child processes that change a pod while a cleanup or a sweep of it is running.

    TAPS  once a round it attaches to a TAP, releases, recreates or renames one
    TC    some times a round it adds and deletes filters and redirects

Once a round each reads what to do, prints "set", waits, acts, and reads a line when the cleanup has
ended. Then it prints how it went: when each act began, and when it was done, or 0 if it failed.
"""

import fcntl
import json
import os
import socket
import struct
import sys
import time

from lib import command
from nlraw import Error, link, tap, tc, uapi, wire
from nlraw.connection import Connection
from nlraw.exchange import Request
from nlraw.netns import Namespace

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

LAUNCH = """
import sys
sys.path[:0] = sys.argv[1:3]
from lib import rivals
getattr(rivals, sys.argv[3])()
"""

now = time.monotonic


class Rival:
    """The parent's end of a rival; ``play`` is the name of the function that the child runs."""

    def __init__(self, pod, play):
        self._child = pod.child(LAUNCH, command.ROOT, TESTS, play)

    def begin(self, *what):
        self._child.write(json.dumps(what))

    def wait_until_set(self):
        self._child.answer("set")

    def end(self):
        self._child.write("end")
        return json.loads(self._child.read())


def _rounds():
    """The child's end: yield what to do in each round."""
    print("ready", flush=True)
    for line in sys.stdin:
        yield json.loads(line)


def _wait_for_the_end():
    sys.stdin.readline()


# ---------------------------------------------------------------- TAPs


class Taps:
    """What a rival does to the TAPs of its own namespace."""

    def __init__(self):
        self.here = Namespace()
        self.connection = Connection(self.here)
        self.control = socket.socket()

    def find(self, name):
        (reply,) = self.connection.ask(link.find(name))
        return None if reply.error else link.only(reply).ifindex

    def attach(self, name):
        return tap.attach(self.here, name)

    def rename(self, name, other):
        # SIOCSIFNAME
        fcntl.ioctl(self.control, 0x8923, struct.pack("=16s16s8x", name.encode(), other.encode()))

    def recreate(self, name, ifindex, is_reused):
        """Make a TAP in place of another, as another user's, with the same index if wanted."""
        self.connection.change(link.delete(ifindex, name))  # whoever deletes it
        fd = os.open("/dev/net/tun", os.O_RDWR)
        try:
            if is_reused:
                fcntl.ioctl(fd, 0x400454DA, struct.pack("=I", ifindex))  # TUNSETIFINDEX
            # TUNSETIFF, exclusive
            fcntl.ioctl(fd, 0x400454CA, struct.pack("=16sH22x", name.encode(), 0x9002))
            fcntl.ioctl(fd, 0x400454CC, 1000)  # TUNSETOWNER
        except OSError:
            os.close(fd)
            raise
        return fd

    def act(self, kind, name, ifindex, fd):
        """Act once; return the descriptor of the TAP that is held, or -1."""
        if kind == "attach":
            return self.attach(name)
        if kind == "release":
            os.close(fd)
        elif kind == "rename":
            self.rename(name, "other")
        else:
            return self.recreate(name, ifindex, kind == "reuse")
        return -1

    def is_there(self, kind, name, ifindex, fd):
        """True if the device that was acted on is there. It gets its former name back."""
        if kind == "release":
            return self.find(name) == ifindex
        if kind == "rename":
            if self.find("other") != ifindex:
                return False
            self.rename("other", name)
            return True
        return fd >= 0 and _is_held(fd)


def _is_held(fd):
    try:
        fcntl.ioctl(fd, 0x800454D2, bytes(40))  # TUNGETIFF: EBADFD if the device has gone
        return True
    except OSError:
        return False


def play_taps():
    taps = Taps()
    for kind, name, delay in _rounds():
        ifindex, fd = taps.find(name), -1
        if kind == "release":
            fd = taps.attach(name)
        print("set", flush=True)
        time.sleep(delay)
        began = now()
        try:
            fd = taps.act(kind, name, ifindex, fd)
            done = now()
        except (OSError, Error):  # it has gone by now, or another of its name is there
            done = 0
        _wait_for_the_end()
        there = taps.is_there(kind, name, ifindex, fd)
        if fd >= 0:
            os.close(fd)
        print(json.dumps((kind, name, began, done, there)), flush=True)


# ---------------------------------------------------------------- TC


def _filter(type, flags, place, chain, priority, *attributes):
    """A request about filters of a priority; ``place`` is an ifindex and a parent."""
    info = priority << 16 | wire.network_u16(uapi.ETH_P_ALL)
    payload = uapi.tcmsg.pack(0, place[0], 0, place[1], info)
    payload += wire.attribute_string(uapi.TCA_KIND, "u32") + b"".join(attributes)
    if chain:
        payload += wire.attribute_u32(uapi.TCA_CHAIN, chain)
    return Request(type, flags | uapi.NLM_F_ACK, payload, uapi.tcmsg.size, "filter", "")


def _new_filter(place, chain, priority, *options):
    options = wire.attribute_nested(uapi.TCA_OPTIONS, *options)
    flags = uapi.NLM_F_CREATE | uapi.NLM_F_EXCL
    return _filter(uapi.RTM_NEWTFILTER, flags, place, chain, priority, options)


def add_foreign(place, chain, priority, number):
    """Add a filter that is nobody's business, recognized by its number (`number_of`)."""
    selector = uapi.tc_u32_sel.pack(uapi.TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0)
    selector += uapi.tc_u32_key.pack(0xFFFFFFFF, number, 16, 0)
    return _new_filter(
        place,
        chain,
        priority,
        wire.attribute_u32(1, 0x10007),  # TCA_U32_CLASSID
        wire.attribute(uapi.TCA_U32_SEL, selector),
    )


def number_of(found):
    """The number of a foreign filter; None for any other."""
    span = found.options.span(uapi.TCA_U32_SEL)
    if span is None:
        return None
    data, at = found.options.data, span[0] + uapi.tc_u32_sel.size
    mask, number, _, _ = uapi.tc_u32_key.unpack_from(data, at)
    return number if mask else None


def add_redirect(place, chain, priority, target):
    """Add a redirect as runtimes do, but in any chain."""
    model = tc.create_redirect(place[0], place[1], target, "", priority)
    payload = model.payload + (wire.attribute_u32(uapi.TCA_CHAIN, chain) if chain else b"")
    flags = model.flags & ~uapi.NLM_F_ECHO
    return Request(model.type, flags, payload, model.fixed, model.step, "")


def delete_priority(place, chain, priority):
    """Delete every filter of a priority."""
    return _filter(uapi.RTM_DELTFILTER, 0, place, chain, priority)


def delete_ingress(ifindex):
    payload = uapi.tcmsg.pack(0, ifindex, uapi.TC_H_INGRESS_HANDLE, uapi.TC_H_INGRESS, 0)
    payload += wire.attribute_string(uapi.TCA_KIND, "ingress")
    return Request(uapi.RTM_DELQDISC, uapi.NLM_F_ACK, payload, uapi.tcmsg.size, "qdisc", "")


class Gardener:
    """What a rival does to the filters of its own namespace. Raises `Error` if that is refused."""

    def __init__(self):
        self.taps = Taps()

    def _change(self, *requests):
        for reply in self.taps.connection.change(*requests):
            reply.answer()

    def foreign(self, place, chain, priority, number):
        """Add a foreign filter."""
        self._change(add_foreign(place, chain, priority, number))

    def redirect(self, place, chain, priority, name):
        """Redirect to the TAP that has a name; return its index."""
        ifindex = self.taps.find(name)
        self._change(add_redirect(place, chain, priority, ifindex or 0xFFFFFF))
        return ifindex

    def delete(self, place, chain, priority):
        """Delete a priority."""
        self._change(delete_priority(place, chain, priority))

    def replace(self, place, chain, priority, number):
        """Put a foreign filter in place of a redirect; both requests are in one datagram."""
        foreign = add_foreign(place, chain, priority, number)
        self.taps.connection.change(delete_priority(place, chain, priority), foreign)[-1].answer()

    def requeue(self, place, priority, number):
        """Put an `ingress` with a foreign filter in place of another."""
        again = (delete_ingress(place[0]), tc.create_ingress(place[0], ""))
        foreign = add_foreign(place, 0, priority, number)
        self.taps.connection.change(*again + (foreign,))[-1].answer()


def play_tc():
    gardener = Gardener()
    for acts in _rounds():
        print("set", flush=True)
        ended = []
        for delay, kind, arguments in acts:
            time.sleep(delay)
            began = now()
            result = None
            try:
                result = getattr(gardener, kind)(*arguments)
                done = now()
            except (OSError, Error):  # what it needs has gone by now
                done = 0
            ended.append((began, done, result))
        _wait_for_the_end()
        print(json.dumps(ended), flush=True)

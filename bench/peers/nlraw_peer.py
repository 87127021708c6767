# SPDX-License-Identifier: Apache-2.0
"""nlraw itself, as a peer.

Arguments: the directories to import it and the rest of this folder from.
"""

import fcntl
import os
import struct
import sys
import time

sys.path[:0] = sys.argv[1:]

from serve import serve, tally

# A cleanup imports removal once it has found something; imports do not count.
import nlraw
import nlraw.removal
from nlraw import connection, exchange, link, netns, observe, tap, threads, transport, uapi, wire
from nlraw.connection import MSG_DONTWAIT, Connection
from nlraw.plan import plan
from nlraw.verdict import Target

# The lists of a setup that come before it leaves the multicast groups: links and qdiscs.
LOOK = 2

# So a process enters its own namespace as it would any other: through a thread and setns().
OWN = "/proc/self/ns/net"


class SplitSocket(transport.Socket):
    """Sends the deletion of links by itself, and knows how long the kernel took over it."""

    __slots__ = ()
    deleting = 0

    def send(self, datagram):
        at = 0
        while at < len(datagram):
            length, kind = int.from_bytes(datagram[at : at + 4], sys.byteorder), datagram[at + 4]
            if kind == uapi.RTM_DELLINK:
                break
            at += (length + 3) & ~3
        if at:
            super().send(datagram[:at])
        begun = time.perf_counter_ns()
        if at < len(datagram):
            super().send(datagram[at:])
            SplitSocket.deleting += time.perf_counter_ns() - begun
        return len(datagram)


def open_socket():
    """A socket as `Connection` opens it, and its port."""
    return transport.open_socket(transport.SYSTEM, None, 0, False)


def names(found):
    return [(one.ifindex, one.ifname) for one in found]


def links(count, request, parse=link.links):
    """Ask on an open socket, get `Link` objects."""
    with netns.Namespace() as namespace, Connection(namespace) as asked:
        return tally(count, lambda: parse(asked.ask(request)[0].answer()), names)


def read(messages):
    """`Link` objects, and the values that the other peers parse: a Link parses when it is asked."""
    found = link.links(messages)
    for one in found:
        one.ifname, one.kind, one.mtu, one.address, one.operstate, one.carrier
    return found


def floor(count, anew):
    """The system calls of `links`, or of `scan` if the socket is opened ``anew``, nothing else."""
    asked = link.dump("tun").numbered(1)
    sockets = [] if anew else [open_socket()[0]]

    def once():
        socket = open_socket()[0] if anew else sockets[0]
        socket.send(asked)
        datagrams = []
        while not datagrams or datagrams[-1][4] != uapi.NLMSG_DONE:
            datagrams.append(socket.recvfrom(connection.BUFFER, MSG_DONTWAIT)[0])
        if anew:
            socket.close()
        return datagrams

    def links_of(datagrams):
        return names(
            link.links([message for datagram in datagrams for message in wire.messages(datagram)])
        )

    return tally(count, once, links_of)


class Seen:
    """The least that can be kept of a link."""

    __slots__ = ("ifindex", "flags", "datagram", "start", "end")


def unchecked_links(count):
    """`links` of TAPs in one straight line: no check, no strangers' messages, no refusal."""
    asked = link.dump("tun").numbered(1)
    socket = open_socket()[0]
    header, fixed = uapi.nlmsghdr.unpack_from, uapi.ifinfomsg.unpack_from

    def once():
        socket.send(asked)
        found = []
        while True:
            datagram, _ = socket.recvfrom(connection.BUFFER, MSG_DONTWAIT)
            at = 0
            while at < len(datagram):
                length, kind, _, _, _ = header(datagram, at)
                if kind == uapi.NLMSG_DONE:
                    return found
                seen = Seen()
                _, _, seen.ifindex, seen.flags, _ = fixed(datagram, at + 16)
                seen.datagram, seen.start, seen.end = datagram, at + 16, at + length
                found.append(seen)
                at += length + 3 & ~3

    def links_of(found):
        return [
            (
                one.ifindex,
                wire.Attributes(one.datagram, one.start + 16, one.end).string(uapi.IFLA_IFNAME),
            )
            for one in found
        ]

    return tally(count, once, links_of)


def flat_links(count):
    """`links` of TAPs with all checks, in one function: the rest is the price of the layers."""
    asked = link.dump("tun")
    socket, port = open_socket()
    header, sequences = uapi.nlmsghdr.unpack_from, iter(range(1, 1 << 31))

    def once():
        reply, sequence, finished = exchange.Reply(asked), next(sequences), False
        socket.send(asked.numbered(sequence))
        while not finished:
            datagram, sender = socket.recvfrom(connection.BUFFER, MSG_DONTWAIT)
            if sender[0] != 0:
                continue
            if len(datagram) == connection.BUFFER:
                raise nlraw.Malformed("cut", 0)
            at, total = 0, len(datagram)
            while at < total:
                if total - at < 16:
                    raise nlraw.Malformed("no header", at)
                length, kind, flags, number, to = header(datagram, at)
                end = at + length
                if length < 16 or end > total:
                    raise nlraw.Malformed("length", at)
                if number == sequence and to == port:
                    if flags & uapi.NLM_F_DUMP_INTR:
                        raise nlraw.Malformed("torn", at)
                    if kind > uapi.NLMSG_OVERRUN:
                        reply.messages.append((kind, flags, number, to, datagram, at + 16, end))
                    elif kind != uapi.NLMSG_DONE or any(datagram[at + 16 : end]):  # the errno
                        raise nlraw.Malformed("refused", at)
                    else:
                        finished = True
                at = end + 3 & ~3
        return link.links(reply.answer())

    return tally(count, once, names)


def unchecked_scan(count):
    """`scan` in one straight line: as above, each TAP laid out as the first, without queues."""
    asked = link.dump("tun").numbered(1)
    header, values, name, ifindex, flags, operstate, carrier, up_count = _layout_of_first()

    def once():
        socket = open_socket()[0]
        socket.send(asked)
        taps = []
        while True:
            datagram, _ = socket.recvfrom(connection.BUFFER, MSG_DONTWAIT)
            at = 0
            while at < len(datagram):
                length, kind, _, _, _ = header(datagram, at)
                if kind == uapi.NLMSG_DONE:
                    socket.close()
                    return tuple(taps)
                told = values(datagram, at + 16)
                taps.append(
                    nlraw.Tap(
                        ifname=told[name].decode(),
                        ifindex=told[ifindex],
                        verdict="in-use" if told[carrier] else "orphan",
                        fresh=not told[carrier] and not told[up_count],
                        carrier=told[carrier] != 0,
                        operstate=uapi.IF_OPER_NAMES[told[operstate]],
                        flags=link.flag_names(told[flags]),
                        deleted=False,
                    )
                )
                at += length + 3 & ~3

    return tally(count, once, lambda taps: names(tap for tap in taps if tap.verdict == "in-use"))


def _layout_of_first():
    """A reader of all values of a TAP that a report has, and where in it each one stands."""
    with netns.Namespace() as namespace, Connection(namespace) as asked:
        message = asked.ask(link.dump("tun"))[0].answer()[0]
    row, start = link.Link(message).attributes, message[5]
    kinds = {uapi.IFLA_OPERSTATE: "B", uapi.IFLA_CARRIER: "B", uapi.IFLA_CARRIER_UP_COUNT: "I"}
    kinds[uapi.IFLA_IFNAME] = "%ds" % len(row.string(uapi.IFLA_IFNAME))
    places = sorted((row.span(type)[0] - start, type, kind) for type, kind in kinds.items())
    format, at = "=4xiI", 12  # ifinfomsg, up to the flags
    for place, _, kind in places:
        format += "%dx%s" % (place - at, kind)
        at = place + struct.calcsize("=" + kind)
    order = ["ifindex", "flags"] + [type for _, type, _ in places]
    wanted = (
        uapi.IFLA_IFNAME,
        "ifindex",
        "flags",
        uapi.IFLA_OPERSTATE,
        uapi.IFLA_CARRIER,
        uapi.IFLA_CARRIER_UP_COUNT,
    )
    return (uapi.nlmsghdr.unpack_from, struct.Struct(format).unpack_from) + tuple(
        map(order.index, wanted)
    )


def scan(count, **where):
    return tally(
        count,
        lambda: nlraw.scan(**where),
        lambda taps: names(tap for tap in taps if tap.verdict == "in-use"),
    )


def cleanup(count):
    begun = time.perf_counter_ns()
    report = nlraw.cleanup(OWN)
    return {
        "ns": time.perf_counter_ns() - begun,
        "removed": sum(tap.deleted for tap in report.taps),
    }


def setup(where=None):
    begun = time.perf_counter_ns()
    uplink = nlraw.setup(where).uplink
    return {
        "ns": time.perf_counter_ns() - begun,
        "addresses": len(uplink.addresses),
        "gateways": sum(route.gateway is not None for route in uplink.routes),
        "neighbours": len(uplink.neighbours),
    }


# What a setup sends, each datagram with the number of those received then; the bytes in it that
# are the index of its TAP.
recorded = []
recorded_index = []


class RecordingSocket(transport.Socket):
    """Fills `recorded`."""

    __slots__ = ()

    def send(self, datagram):
        recorded.append([bytes(datagram), 0])
        return super().send(datagram)

    def recvfrom(self, *arguments):
        received = super().recvfrom(*arguments)
        recorded[-1][1] += 1
        return received


def record_setup():
    """Set up once, keep what that sends, and clean up."""
    plain, transport.Socket = transport.Socket, RecordingSocket
    try:
        recorded_index.append(struct.pack("=i", nlraw.setup().tap.ifindex))
    finally:
        transport.Socket = plain
    nlraw.cleanup(OWN)


def setup_floor():
    """The system calls of `setup` with requests made beforehand. Only the TAP's index is read."""
    if not recorded:
        record_setup()
    (*lists, find, connect), (index,) = recorded, recorded_index
    flags = uapi.IFF_TAP | uapi.IFF_NO_PI | uapi.IFF_VNET_HDR | uapi.IFF_TUN_EXCL
    wanted = uapi.ifreq.pack(b"tap0_urunc", flags | uapi.IFF_ONE_QUEUE)
    groups, patience = uapi.RTMGRP_LINK | uapi.RTMGRP_TC, transport.Patience()

    def exchange(datagram, receives):
        socket.send(datagram)
        for _ in range(receives):
            answer = socket.recvfrom(connection.BUFFER, MSG_DONTWAIT)[0]
        return answer

    begun = time.perf_counter_ns()
    socket, port = transport.open_socket(transport.SYSTEM, patience, groups, False)
    for number, each in enumerate(lists):
        if number == LOOK:
            socket.bind((port, 0))
        exchange(*each)
    fd = os.open(tap.DEVICE, os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, uapi.TUNSETIFF, wanted)
    fcntl.ioctl(fd, uapi.TUNSETOWNER, os.getuid())
    fcntl.ioctl(fd, uapi.TUNSETGROUP, os.getgid())
    made = exchange(*find)[20:24]
    exchange(connect[0].replace(index, made), connect[1])
    fcntl.ioctl(fd, uapi.TUNSETPERSIST, 1)
    os.close(fd)
    socket.close()
    return {"ns": time.perf_counter_ns() - begun}


def sweep(directory, dry_run=False):
    totals = nlraw.sweep(dirs=[directory], include_fresh=True, dry_run=dry_run).totals
    return {"removed": totals.deleted, "namespaces": totals.namespaces}


def sweep_floor(directory):
    """Send the deletions of a sweep, planned beforehand, each namespace's on its own thread."""
    target, planned, removed = Target(), [], 0
    for name in os.listdir(directory):
        namespace = netns.Namespace(os.path.join(directory, name))
        asked = Connection(namespace)
        seen = observe.observe_tc(asked, observe.observe_links(asked, target), target)
        changes = plan(seen, target).changes
        planned.append((namespace, asked, [change.request for change in changes]))
        removed += len(seen.taps)
    begun = time.perf_counter_ns()
    for wait in [
        threads.start(lambda asked=asked, requests=requests: asked.change(*requests))
        for _, asked, requests in planned
    ]:
        wait()
    told = {"ns": time.perf_counter_ns() - begun, "removed": removed, "namespaces": len(planned)}
    for namespace, asked, _ in planned:
        asked.close()
        namespace.close()
    return told


def in_sequence(directory):
    """What a sweep does, one namespace after the other."""
    reports = [nlraw.cleanup(os.path.join(directory, name)) for name in os.listdir(directory)]
    return {
        "removed": sum(tap.deleted for report in reports for tap in report.taps),
        "namespaces": len(reports),
    }


def set_up(path):
    """What a VMM starts with: a TAP, and the redirects."""
    nlraw.setup(path)
    return {}


def cleanup_split(count):
    """`cleanup` with the deletion of the link apart: ``ns`` is what is left without it."""
    plain, transport.Socket, SplitSocket.deleting = transport.Socket, SplitSocket, 0
    try:
        told = cleanup(count)
    finally:
        transport.Socket = plain
    told["deleting"] = SplitSocket.deleting
    return told


if __name__ == "__main__":
    serve(
        {
            "dump": lambda count: links(count, link.dump()),
            "read": lambda count: links(count, link.dump(), read),
            "taps": lambda count: links(count, link.dump("tun")),
            "taps-floor": lambda count: floor(count, anew=False),
            "scan-floor": lambda count: floor(count, anew=True),
            "taps-flat": flat_links,
            "taps-unchecked": unchecked_links,
            "scan-unchecked": unchecked_scan,
            "scan": scan,
            "scan-other": lambda count: scan(count, netns=OWN),
            "cleanup": cleanup,
            "cleanup-split": cleanup_split,
            "setup": lambda count: setup(),
            "setup-floor": lambda count: setup_floor(),
            "setup-other": lambda count: setup(OWN),
            "set-up": set_up,
            "sweep": sweep,
            "sweep-dry": lambda directory: sweep(directory, dry_run=True),
            "sweep-floor": sweep_floor,
            "in-sequence": in_sequence,
        }
    )

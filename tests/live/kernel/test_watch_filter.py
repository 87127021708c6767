# SPDX-License-Identifier: Apache-2.0
"""The socket filter of `watch` in the live kernel: what passes while a pod lives and dies.

An `Ear` listens to pods from a network namespace of its own, with filters and without one. What a
filter passed is held against what its program, run by the test, keeps of all that there was.
"""

import contextlib
import errno
import struct
import time
from socket import MSG_DONTWAIT

import pytest

import nlraw
from lib import bpf as machine
from lib import pods, taps
from nlraw import bpf, link, nsid, uapi, verdict, wire
from nlraw.errors import Refused
from nlraw.listener import Room
from nlraw.netns import Namespace

# linux/socket.h: what the kernel charges a socket for its options, in SO_MEMINFO
SO_MEMINFO, SK_MEMINFO_OPTMEM = 55, 6

# What a socket may hold of these before Linux 6.9, unless the host says otherwise.
OPTMEM = 20480


class Ear:
    """Hears all events of the pods that have an ID; `filter` makes one that hears fewer."""

    def __init__(self):
        self._room = Room()
        self._socket = self._room.socket(1, hears_all=True)
        self._filters = []
        self.heard = []  # pairs of ID and message

    def filter(self, *patterns, fresh=False):
        program = bpf.program(patterns or [verdict.MATCH], fresh)
        socket = self._room.socket(1, hears_all=True, program=program)
        self._filters.append(Filter(self, program, socket))
        return self._filters[-1]

    def listen(self):
        self.heard += _received(self._socket)

    def assign(self, id, pod):
        with Namespace(pod.path) as namespace:
            assert self._room.assign(id, namespace) == id

    def ask(self, request):
        return self._room.connection.ask(request)[0]

    def close(self):
        self._socket.close()
        for each in self._filters:
            each.socket.close()
        self._room.close()


class Filter:
    """A socket with a filter. ``socket`` is non-blocking."""

    def __init__(self, ear, program, socket):
        self.socket = socket
        self._ear = ear
        self._program = program
        self._at = 0

    def passed(self):
        """What has passed since the last call: triples of ID, type and link.

        Checks that it is what the program keeps of all that there was.
        """
        found, kept = [], None
        deadline = time.monotonic() + 5
        while found != kept and time.monotonic() < deadline:  # link watch has late events
            found += _received(self.socket)
            self._ear.listen()
            end = len(self._ear.heard)
            there = self._ear.heard[self._at : end]
            kept = [each for each in there if machine.run(self._program, each[1]) == bpf.PASS]
        assert found == kept
        self._at = end
        return [_decoded(*each) for each in found]


def _received(socket):
    """The events that wait: pairs of ID and message."""
    found = []
    while True:
        try:
            datagram, ancillary, flags, sender = socket.recvmsg(1 << 16, 64, MSG_DONTWAIT)
        except BlockingIOError:
            return found
        assert not flags and sender[0] == 0
        ((level, type, data),) = ancillary
        assert (level, type) == (uapi.SOL_NETLINK, uapi.NETLINK_LISTEN_ALL_NSID)
        found.append((struct.unpack("=i", data)[0], datagram))


def _decoded(id, datagram):
    (message,) = wire.messages(datagram)
    return id, message[0], link.Link(message)


def names(events):
    return [(type, each.ifname, each.carrier) for _, type, each in events]


def wait_until(condition):
    """The carrier falls before close(2) returns, but that of a process after its death."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def ear():
    reason = pods.missing()
    if reason is not None:
        pytest.skip("needs a network namespace of its own: " + reason)
    made = Ear()
    yield made
    made.close()


# ---------------------------------------------------------------- what passes


@pytest.mark.parametrize("name", ["veth0", "tap5_urunc"])
def test_a_veth_that_flaps_passes_nothing(ear, pod, name):
    # a link that is up can be renamed from Linux 6.2 on
    rename = "link set eth0 name %s" % name
    pod.batch("link set eth0 down", rename, "link set %s up" % name)
    filter = ear.filter()
    ear.assign(7, pod)
    for _ in range(20):
        pod.batch("link set peer0 down", "link set peer0 up")
    assert filter.passed() == []
    assert len(ear.heard) >= 40


def test_a_start_passes_nothing_and_a_death_passes(ear, pod):
    filter = ear.filter()
    ear.assign(7, pod)
    nlraw.setup(pod.path)
    holder = pod.hold()
    assert filter.passed() == []
    holder.kill()
    wait_until(lambda: "LOWER_UP" not in pod.links()[pods.TAP]["flags"])
    events = filter.passed()
    assert {id for id, _, _ in events} == {7}
    assert set(names(events)) == {(uapi.RTM_NEWLINK, pods.TAP, False)}
    assert nlraw.cleanup(pod.path).outcome == "cleaned"
    passed = names(filter.passed())  # the removal, and link watch up to a second after the death
    assert passed in ([passed[0]], [passed[0]] * 2)
    assert passed[0] == (uapi.RTM_NEWLINK, pods.TAP, False)


def test_a_fresh_one_passes_only_if_fresh_ones_count(ear, pod):
    filter, with_fresh = ear.filter(), ear.filter(fresh=True)
    ear.assign(7, pod)
    nlraw.setup(pod.path)
    passed = names(with_fresh.passed())
    assert passed and set(passed) == {(uapi.RTM_NEWLINK, pods.TAP, False)}
    assert filter.passed() == []


def test_a_tap_of_another_name_passes_nothing(ear, pod):
    filter, other = ear.filter(), ear.filter("fc?")
    ear.assign(7, pod)
    pod.add_orphan("fc0")
    pod.ip("link", "del", "fc0")
    assert filter.passed() == []
    assert other.passed()


def test_a_tap_that_gets_a_matching_name_passes(ear, pod):
    filter = ear.filter()
    ear.assign(7, pod)
    pod.add_orphan("fc0", redirect=False)
    pod.batch("link set fc0 down", "link set fc0 name tap9_urunc", "link set tap9_urunc up")
    assert (uapi.RTM_NEWLINK, "tap9_urunc", False) in names(filter.passed())


def test_a_multi_queue_tap_passes_once_no_queue_is_attached(ear, pod):
    filter = ear.filter()
    ear.assign(7, pod)
    pod.add_tap(flags=taps.IFF_TAP | taps.IFF_MULTI_QUEUE)
    first, second = pod.hold(multi_queue=True), pod.hold(multi_queue=True)
    first.release()
    assert filter.passed() == []
    second.release()
    assert (uapi.RTM_NEWLINK, pods.TAP, False) in names(filter.passed())


def test_each_pod_is_heard_by_its_id_and_one_without_an_id_is_not(ear, make_pod):
    filter = ear.filter()
    first, second, third = [make_pod() for _ in range(3)]
    ear.assign(1 << 30, first)
    ear.assign(2, second)
    for pod in (second, third, first):
        pod.add_orphan()
    found = [id for id, _, _ in filter.passed()]
    assert set(found) == {2, 1 << 30} and found == sorted(found)


@pytest.mark.parametrize(
    "pattern, name",
    [
        ("*", "a"),
        ("?ap*", "tap"),
        ("tap", "tap"),
        ("t*", "t"),
        ("fifteen_bytes__", "fifteen_bytes__"),
        ("fourteen_bytes*", "fourteen_bytes"),
        ("tap\udcff*", "tap\udcff\udc80x"),
        ("t\u00e4p?", "t\u00e4p0"),
    ],
)
def test_the_names_that_fit_a_pattern_pass(ear, pod, pattern, name):
    filter, other = ear.filter(pattern), ear.filter("tap_*")
    ear.assign(7, pod)
    pod.run(lambda: taps.make(name))
    with Namespace(pod.path) as namespace, nlraw.connection.Connection(namespace) as connection:
        found = link.only(connection.ask(link.find(name))[0])
        connection.change(link.set_up(found.ifindex, name))[0].answer()
    pod.run(lambda: taps.leave(name))
    assert verdict.matches(pattern, name)
    assert name in [each.ifname for _, _, each in filter.passed()]
    assert other.passed() == []


# ---------------------------------------------------------------- the whole story, many filters


def test_the_kernel_runs_each_program_as_the_test_does(ear, make_pod):
    programs = [((verdict.MATCH,), False), ((verdict.MATCH,), True), (("*",), False)]
    programs += [(("eth0", "mv0", "name7_x"), True), (("tap1_urunc", "tap0*", "x?"), False)]
    programs += [(tuple("name%d*" % number for number in range(200)), False)]
    filters = [ear.filter(*patterns, fresh=fresh) for patterns, fresh in programs]
    first, second = make_pod(), make_pod(ipv6=True)
    ear.assign(1, first)
    ear.assign(2, second)
    nlraw.setup(first.path)
    holder = first.hold()
    for number in range(3):
        second.add_orphan("tap%d_urunc" % number, up=number != 1)
    second.add_orphan("name7_x")
    second.ip("link", "set", "eth0", "mtu", "1400")
    second.ip("link", "add", "link", "tap0_urunc", "name", "mv0", "type", "macvlan")
    holder.carrier_off()
    first.ip("link", "set", pods.TAP, "down")
    holder.kill()
    nlraw.cleanup(first.path)
    second.ip("link", "set", "tap2_urunc", "netns", first.name)
    counts = [len(each.passed()) for each in filters]
    assert len(ear.heard) > 20 and all(counts)
    assert counts[0] <= counts[1] and counts[2] > counts[0]


# ---------------------------------------------------------------- what the kernel charges


@pytest.mark.parametrize("count", [1, 2, 45, 50, 55, 60, 100, 110, 120, 150, 1000])
def test_every_program_fits_what_a_socket_may_hold(ear, count):
    patterns = ["%03d-a-long-name" % (number % 1000) for number in range(count)]
    socket = ear.filter(*patterns).socket
    size = struct.Struct("=9I").size
    charged = struct.unpack("=9I", socket.getsockopt(1, SO_MEMINFO, size))[SK_MEMINFO_OPTMEM]
    assert 0 < charged < OPTMEM


# ---------------------------------------------------------------- IDs


def test_an_id_is_read_back_and_announced_and_ends_with_the_namespace(ear):
    with contextlib.closing(Room()) as room, contextlib.closing(
        room.socket(uapi.RTNLGRP_NSID)
    ) as ends:
        pod = pods.Pod(uplink=None)
        with Namespace(pod.path) as namespace:
            (reply,) = room.connection.ask(nsid.get(namespace.fileno(), pod.path))
            assert nsid.only(reply).number is None
            assert room.assign(2**31 - 1, namespace) == 2**31 - 1
            (reply,) = room.connection.ask(nsid.get(namespace.fileno(), pod.path))
            assert nsid.only(reply).number == 2**31 - 1
            assert room.assign(5, namespace) == 2**31 - 1  # it has one
        pod.close()
        seen = []
        deadline = time.monotonic() + 20
        while len(seen) < 2 and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                seen += nsid.nsids(wire.messages(ends.recv(4096, MSG_DONTWAIT)))
            time.sleep(0.005)
        assert [(each.number, each.is_deleted) for each in seen] == [
            (2**31 - 1, False),
            (2**31 - 1, True),
        ]
        with pytest.raises(Refused) as caught:
            room.connection.ask(link.dump("tun", nsid=2**31 - 1))[0].answer()
        assert caught.value.errno == errno.EINVAL


def test_links_are_listed_by_id_as_they_are_from_inside(ear, pod):
    ear.assign(7, pod)
    pod.add_orphan()
    pod.add_tap("tap1_urunc", up=False)
    by_id = link.links(ear.ask(link.dump("tun", nsid=7)).answer())
    with Namespace(pod.path) as namespace, nlraw.connection.Connection(namespace) as connection:
        inside = link.links(connection.ask(link.dump("tun"))[0].answer())

    def facts(each):
        described = verdict.describe_tap(each)
        counts = each.carrier_up_count, each.carrier_down_count
        return each.ifindex, each.ifname, described.verdict, described.fresh, counts

    assert [facts(each) for each in by_id] == [facts(each) for each in inside]
    assert len(by_id) == 2

# SPDX-License-Identifier: Apache-2.0
"""The socket against the kernel and intruders: spoofed, missing, cut answers, and signals."""

import errno
import signal
import socket
import struct
import threading
import time
from _socket import socket as Socket

import pytest

import nlraw
from lib import pods
from nlraw import connection as connecting
from nlraw import link, uapi, wire
from nlraw import pod as cleaning
from nlraw.connection import Connection
from nlraw.netns import Namespace
from nlraw.transport import SYSTEM, WRITER_PORT, Patience, System
from nlraw.verdict import Target


def add_orphans(pod, number):
    """Many TAPs that nobody holds."""
    names = ["tap%d_urunc" % each for each in range(number)]
    pod.add_taps(names)
    return names


class Known(Socket):
    """A socket that remembers what it sent, and how much it had room for."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.sent, self.sizes = [], []

    def send(self, datagram):
        self.sent.append(datagram)
        return super().send(datagram)

    def recvfrom(self, size, flags):
        self.sizes.append(size)
        return super().recvfrom(size, flags)

    def next_sequence(self):
        """The number of the next request."""
        return wire.messages(self.sent[-1])[-1][2] + 1

    def port(self):
        return self.getsockname()[0]


class Unconnected(Known):
    """A socket that others may send to, as all are for a moment."""

    def connect(self, address):
        self.bind(address)


class Mute(Known):
    """A socket whose requests go nowhere."""

    def send(self, datagram):
        return len(datagram)


class MuteUnconnected(Mute, Unconnected):
    pass


class Sockets(System):
    """Opens sockets, each of another class until the last, and keeps them."""

    def __init__(self, *kinds):
        self.kinds = list(kinds)
        self.opened = []

    def socket(self):
        kind = self.kinds.pop(0) if len(self.kinds) > 1 else self.kinds[0]
        self.opened.append(
            kind(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        )
        return self.opened[-1]


@pytest.fixture
def connect(pod):
    """Make connections into the pod."""
    with Namespace(pod.path) as namespace:
        made = []

        def connect(*kinds, **options):
            options = dict({"silence": 0.5, "system": Sockets(*(kinds or (Known,)))}, **options)
            made.append(options.pop("kind", Connection)(namespace, **options))
            return made[-1], options["system"]

        yield connect
        for each in made:
            each.close()


@pytest.fixture
def connection(connect):
    return connect()[0]


def name_of(reply):
    return link.only(reply).ifname


def names_of(reply):
    return [found.ifname for found in link.links(reply.answer())]


@pytest.fixture
def intruder(pod):
    """A netlink socket in the namespace. Root may send to anybody's port."""
    with pod.run(
        lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    ) as intruder:
        yield intruder


def refusal(target):
    """A message that refuses the next request on a socket, as the kernel would word it."""
    number, port = target.next_sequence(), target.port()
    header = uapi.nlmsghdr.pack(uapi.nlmsghdr.size, uapi.RTM_GETLINK, 0, number, port)
    payload = struct.pack("=i", -errno.EPERM) + header
    return wire.message(uapi.NLMSG_ERROR, 0, number, payload, port)


# ---------------------------------------------------------------- intruders


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_kernel_refuses_what_another_process_sends(connect, intruder, exclusive):
    connection, sockets = connect(exclusive=exclusive)
    connection.ask(link.find("eth0"))
    (target,) = sockets.opened
    with pytest.raises(ConnectionRefusedError):
        intruder.sendto(refusal(target), (target.port(), 0))
    (reply,) = connection.ask(link.find("eth0"))
    assert name_of(reply) == "eth0"


def test_an_answer_that_is_not_the_kernels_is_ignored(connect, intruder):
    connection, sockets = connect(Unconnected)
    connection.ask(link.find("eth0"))
    (target,) = sockets.opened
    for _ in range(3):
        intruder.sendto(refusal(target), (target.port(), 0))
        (reply,) = connection.ask(link.find("eth0"))
        assert name_of(reply) == "eth0"
    assert sockets.opened == [target]


def test_garbage_from_another_process_is_ignored(connect, intruder):
    connection, sockets = connect(Unconnected)
    connection.ask(link.find("eth0"))
    port = sockets.opened[0].port()
    intruder.sendto(b"\xff" * 300, (port, 0))
    intruder.sendto(b"\0" * 70000, (port, 0))  # larger than the buffer
    (reply,) = connection.ask(link.find("eth0"))
    assert name_of(reply) == "eth0"


def test_a_late_answer_to_an_earlier_request_is_skipped(connect):
    connection, sockets = connect()
    connection.ask(link.find("eth0"))
    (target,) = sockets.opened
    request = link.find("peer0")
    late = wire.message(request.type, request.flags, target.next_sequence() - 1, request.payload)
    Socket.send(target, late)  # its answer waits in the queue when the next question is asked
    (reply,) = connection.ask(link.find("eth0"))
    assert name_of(reply) == "eth0"


# ---------------------------------------------------------------- silence


def lost_after(connection):
    started = time.monotonic()
    with pytest.raises(nlraw.Lost) as caught:
        connection.ask(link.find("eth0"))
    assert caught.value.errno == errno.ETIMEDOUT
    assert (caught.value.step, caught.value.object) == ("look up link", "eth0")
    return time.monotonic() - started


def test_a_silent_peer_is_given_up_at_the_deadline(connect):
    assert 0.4 < lost_after(connect(Mute)[0]) < 2


def test_chatter_of_others_does_not_put_the_deadline_off(connect, intruder):
    connection, sockets = connect(MuteUnconnected)
    noop = wire.message(uapi.NLMSG_NOOP, 0, 0, b"")
    with chatter(lambda: sockets.opened and intruder.sendto(noop, (sockets.opened[0].port(), 0))):
        assert 0.4 < lost_after(connection) < 2


def test_events_do_not_put_the_deadline_off(connect, pod):
    heard = []
    connection, _ = connect(Mute, groups=uapi.RTMGRP_LINK, on_event=heard.append)
    with chatter(lambda: pod.ip("link", "set", "eth0", "alias", "x")):
        assert 0.4 < lost_after(connection) < 2
    assert heard


class chatter:
    """Something that is done again and again meanwhile."""

    def __init__(self, act):
        self.act = act
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.ended.wait(0.01):
            self.act()

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def test_a_connection_works_again_after_silence(connect):
    connection, _ = connect(Mute, Known)
    lost_after(connection)
    (reply,) = connection.ask(link.find("eth0"))
    assert name_of(reply) == "eth0"


# ---------------------------------------------------------------- small buffers


@pytest.fixture
def tiny_receive_buffer(monkeypatch):
    """Sockets with the smallest receive buffer that the kernel grants: most answers overrun it."""
    opened = []

    def tiny():
        opened.append(System.socket())
        opened[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        return opened[-1]

    monkeypatch.setattr(SYSTEM, "socket", tiny)
    return opened


def test_scan_and_cleanup_are_right_with_a_tiny_receive_buffer(pod, tiny_receive_buffer):
    before = pod.state()
    expected = add_orphans(pod, 40)
    pod.add_ingress("eth0")
    pod.redirect("eth0", "tap7_urunc")
    assert [tap.ifname for tap in nlraw.scan(netns=pod.path)] == expected
    report = nlraw.cleanup(netns=pod.path)
    assert report.outcome == "cleaned"
    assert [(tap.ifname, tap.deleted) for tap in report.taps] == [(name, True) for name in expected]
    assert [gone.kind for gone in report.tc_removed] == ["u32", "ingress"]
    assert pod.state() == before
    assert len(tiny_receive_buffer) > 2, "nothing overran"


def test_setup_and_sweep_are_right_with_a_tiny_receive_buffer(pod, tmp_path, tiny_receive_buffer):
    before = pod.state()
    (tmp_path / "pod").symlink_to(pod.path)
    for _ in range(2):
        try:
            made = nlraw.setup(netns=pod.path)
        except nlraw.Lost:  # a change is not asked for again
            assert pod.state() == before
            pytest.skip(
                "the smallest buffer here has no room for the answers to a setup, which has left "
                "nothing"
            )
        assert made.outcome == "created"
        pod.check_pair()
    swept = nlraw.sweep(dirs=[str(tmp_path)], include_fresh=True)
    assert [report.outcome for report in swept.namespaces] == ["cleaned"]
    assert pod.state() == before
    assert tiny_receive_buffer


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENOBUFS])
def test_a_list_that_is_refused_for_the_moment_is_asked_for_again(connect, number):
    # ENOBUFS: the buffer is full already, of what others send (netlink_dump(),
    # net/netlink/af_netlink.c)
    refusals = [number, number]

    class Busy(Connection):
        def change(self, *requests):
            replies = super().change(*requests)
            if refusals:
                replies[0].error = nlraw.Refused(refusals.pop(), "not now")
            return replies

    connection, sockets = connect(kind=Busy)
    (reply,) = connection.ask(link.dump())
    assert "eth0" in names_of(reply)
    # with no other dump under way an older one is stuck, and would be for as long as others fill
    # the buffer
    assert [len(each.sent) for each in sockets.opened] == [1, 1, 1]


def test_more_changes_than_fit_a_receive_buffer_travel_in_several_datagrams(connect, pod):
    expected = add_orphans(pod, 300)
    connection, sockets = connect()
    replies = connection.ask(*[link.find(name) for name in expected])
    assert [name_of(reply) for reply in replies] == expected
    assert sum(len(each.sent) for each in sockets.opened) >= 3


def test_a_datagram_that_does_not_fit_is_asked_for_again_with_more_room(connect, pod, monkeypatch):
    monkeypatch.setattr(connecting, "BUFFER", 512)
    expected = add_orphans(pod, 40)
    connection, sockets = connect()
    (reply,) = connection.ask(link.dump("tun"))
    assert names_of(reply) == expected
    sizes = [size for each in sockets.opened for size in each.sizes]
    assert sizes[0] == 512 < sizes[-1]


def test_scan_and_cleanup_are_right_with_a_small_buffer(pod, monkeypatch):
    monkeypatch.setattr(connecting, "BUFFER", 512)
    before = pod.state()
    pod.add_orphan()
    assert [tap.verdict for tap in nlraw.scan(netns=pod.path)] == ["orphan"]
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert pod.state() == before


# ---------------------------------------------------------------- signals


def test_signals_every_millisecond_disturb_nothing(pod):
    pod.add_tap(redirect=False)
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        for _ in range(200):
            assert [tap.ifname for tap in nlraw.scan(netns=pod.path)] == [pods.TAP]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung


# ---------------------------------------------------------------- what others change meanwhile

LINK_AND_TC = uapi.RTMGRP_LINK | uapi.RTMGRP_TC


@pytest.fixture
def listener(connect):
    time.sleep(1.2)  # until the kernel has announced all that made the pod
    listener, _ = connect(exclusive=True, groups=LINK_AND_TC)
    listener.ask(link.find("eth0"))
    return listener


def groups_of(pod):
    """The multicast groups that the socket with the port is in."""
    rows = [
        line.split()
        for line in pod.run(lambda: open("/proc/thread-self/net/netlink").read()).splitlines()
    ]
    return [
        int(row[3], 16) for row in rows if row[1:3] == [str(socket.NETLINK_ROUTE), str(WRITER_PORT)]
    ]


def test_who_listens_is_quiet_until_somebody_changes_something(listener, pod):
    for _ in range(3):
        listener.ask(link.dump("tun"))
        assert listener.is_quiet
    pod.tc("qdisc", "add", "dev", "eth0", "ingress")
    listener.ask(link.dump("tun"))
    assert not listener.is_quiet


@pytest.mark.parametrize(
    "change",
    [
        "link set eth0 down",
        "link property add dev peer0 altname other0",
        "link add veth0 type veth peer name veth1",
    ],
)
def test_links_that_change_are_announced_and_nothing_to_look_again_for(connect, pod, change):
    time.sleep(1.2)
    heard = []
    listener, _ = connect(groups=LINK_AND_TC, on_event=heard.append)
    listener.ask(link.find("eth0"))
    assert heard == []
    pod.ip(*change.split())
    listener.ask(link.dump("tun"))
    assert uapi.RTM_NEWLINK in [message[0] for message, _ in heard] and listener.is_quiet


def test_who_lost_the_socket_may_have_missed_something(listener):
    listener.close()
    assert not listener.is_exclusive and not listener.is_quiet
    listener.ask(link.find("eth0"))
    assert listener.is_exclusive and not listener.is_quiet


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EIO])
def test_who_lost_the_socket_by_a_failure_has_missed_something(connect, monkeypatch, number):
    heard = []
    connection, sockets = connect(groups=LINK_AND_TC, on_event=heard.append)
    connection.ask(link.find("eth0"))

    def fail(*_):
        monkeypatch.undo()
        raise OSError(number, "on purpose")

    monkeypatch.setattr(sockets.opened[0], "send", fail)
    with pytest.raises(nlraw.Refused):
        connection.change(link.find("eth0"))
    connection.change(link.find("eth0"))
    assert len(sockets.opened) == 2
    assert not connection.is_quiet and heard == [None]


def test_who_could_not_have_the_port_listens_without_it(connect, listener, pod):
    second, _ = connect(exclusive=True, patience=Patience(0), groups=uapi.RTMGRP_TC)
    second.ask(link.find("eth0"))
    assert not second.is_exclusive and second.is_quiet
    pod.tc("qdisc", "add", "dev", "eth0", "ingress")
    second.ask(link.find("eth0"))
    assert not second.is_quiet


def test_who_listens_no_more_hears_nothing_until_the_next_look(listener, pod):
    assert groups_of(pod) == [LINK_AND_TC]
    listener.leave_groups()
    assert groups_of(pod) == [0] and listener.is_exclusive
    listener.begin_look()
    assert groups_of(pod) == [LINK_AND_TC] and listener.is_exclusive and listener.is_quiet
    pod.tc("qdisc", "add", "dev", "eth0", "ingress")
    listener.ask(link.find("eth0"))
    assert not listener.is_quiet
    listener.begin_look()
    assert listener.is_quiet


def test_events_are_delivered_with_their_message(connect, pod):
    heard = []
    connection, _ = connect(groups=uapi.RTMGRP_TC, on_event=heard.append)
    assert not connection.receive_events(0.1) and heard == []
    pod.tc("qdisc", "add", "dev", "eth0", "ingress")
    assert connection.receive_events(5)
    assert [(message[0], nsid) for message, nsid in heard] == [(uapi.RTM_NEWQDISC, None)]


def test_events_that_are_too_many_are_announced_as_lost(connect, pod):
    heard = []
    connection, sockets = connect(groups=uapi.RTMGRP_LINK, on_event=heard.append)
    connection.receive_events()
    sockets.opened[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    add_orphans(pod, 20)
    assert connection.receive_events(5)
    assert None in heard and not connection.is_quiet
    pod.ip("link", "set", "eth0", "alias", "x")
    heard.clear()
    assert connection.receive_events(5) and heard
    assert len(sockets.opened) == 1


def test_events_of_all_namespaces_have_the_id_of_theirs(connect, make_pod, pod):
    other = make_pod(uplink=None)
    pod.ip("netns", "set", other.name, "17")
    heard = []
    connection, _ = connect(groups=uapi.RTMGRP_LINK, on_event=heard.append, all_namespaces=True)
    connection.receive_events()
    other.add_taps([pods.TAP])
    assert connection.receive_events(5)
    assert {nsid for _, nsid in heard} == {17}
    (reply,) = connection.ask(link.find("eth0"))
    assert name_of(reply) == "eth0"


# ---------------------------------------------------------------- what the kernel refuses


def test_a_refusal_leads_with_the_kernels_words(connection):
    (reply,) = connection.change(link.delete(1, "lo"))
    assert reply.error.errno == errno.EOPNOTSUPP
    assert str(reply.error).startswith("delete link lo: ")


def test_one_refusal_does_not_stop_the_others(connection, pod):
    first, second = add_orphans(pod, 2)
    indexes = {name: found["ifindex"] for name, found in pod.links().items()}
    replies = connection.change(
        link.delete(indexes[first], first),
        link.delete(9999, "missing"),
        link.delete(indexes[second], second),
    )
    assert [reply.error and reply.error.errno for reply in replies] == [None, errno.ENODEV, None]
    assert first not in pod.links() and second not in pod.links()


def test_a_socket_is_closed_after_a_failure_and_another_is_opened(connect):
    connection, sockets = connect()
    connection.ask(link.find("eth0"))
    sockets.opened[0].close()
    with pytest.raises(nlraw.Refused) as caught:
        connection.ask(link.find("eth0"))
    assert caught.value.errno == errno.EBADF
    connection.ask(link.find("eth0"))
    assert len(sockets.opened) == 2


# ---------------------------------------------------------------- one at a time


@pytest.fixture
def sitter(connect):
    """Somebody who has the port from which a namespace is changed."""
    connection, _ = connect(exclusive=True)
    connection.ask(link.find("eth0"))
    return connection


def test_who_changes_waits_for_another_who_does(pod, sitter):
    pod.add_orphan()
    threading.Timer(0.3, sitter.close).start()
    began = time.monotonic()
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert time.monotonic() - began >= 0.25


def test_nobody_waits_for_ever(pod, sitter):
    pod.add_orphan()
    began = time.monotonic()
    report = cleaning.clean_up(pod.path, Target(), patience=Patience(0.2))
    assert report.outcome == "cleaned" and 0.2 <= time.monotonic() - began < 2


def test_who_only_looks_does_not_wait(pod, sitter, monkeypatch):
    monkeypatch.setattr(SYSTEM, "sleep", lambda _: pytest.fail("it waits for the port"))
    pod.add_orphan()
    assert [tap.verdict for tap in nlraw.scan(netns=pod.path)] == ["orphan"]
    assert nlraw.cleanup(netns=pod.path, dry_run=True).outcome == "would-clean"

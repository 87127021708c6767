# SPDX-License-Identifier: Apache-2.0
"""The socket against the kernel and intruders: spoofed, missing, cut answers, and signals."""

import errno
import signal
import socket
import struct
import threading
import time

import pytest

import nlraw
import nlraw.route
from lib import pods
from nlraw import link, uapi, wire
from nlraw.netns import Namespace
from nlraw.route import Route


def add_orphans(pod, number):
    """Many TAPs that nobody holds."""
    names = ["tap%d_urunc" % each for each in range(number)]
    pod.add_taps(names)
    return names


@pytest.fixture
def route(pod):
    with Namespace(pod.path) as namespace, Route(namespace, silence=0.5) as route:
        yield route


def open_socket(pod, protocol):
    """A netlink socket in the namespace. Root may send to anybody's port."""
    return pod.run(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol))


@pytest.fixture
def intruder(pod):
    with open_socket(pod, socket.NETLINK_ROUTE) as intruder:
        yield intruder


def refusal(route):
    """A message that refuses the next request of a route, as the kernel would word it."""
    header = uapi.nlmsghdr.pack(
        uapi.nlmsghdr.size, uapi.RTM_GETLINK, 0, route._sequence, route._port
    )
    return wire.message(
        uapi.NLMSG_ERROR, 0, route._sequence, struct.pack("=i", -errno.EPERM) + header, route._port
    )


# ---------------------------------------------------------------- intruders


def test_the_kernel_refuses_what_another_process_sends(pod, intruder):
    for alone in (False, True):
        with Namespace(pod.path) as namespace, Route(namespace, alone) as route:
            route.query(link.find("eth0"))
            with pytest.raises(ConnectionRefusedError):
                intruder.sendto(refusal(route), (route._port, 0))
            (reply,) = route.query(link.find("eth0"))
            assert link.only(reply).ifname == "eth0"


@pytest.fixture
def unconnected(monkeypatch):
    """Sockets that others may send to, as all are for a moment."""

    class Unconnected(nlraw.route.Socket):
        def connect(self, address):
            self.bind(address)

    monkeypatch.setattr(nlraw.route, "Socket", Unconnected)


def test_an_answer_that_is_not_the_kernels_is_ignored(unconnected, route, intruder):
    route.query(link.find("eth0"))
    for _ in range(3):
        intruder.sendto(refusal(route), (route._port, 0))
        (reply,) = route.query(link.find("eth0"))
        assert link.only(reply).ifname == "eth0"


def test_garbage_from_another_process_is_ignored(unconnected, route, intruder):
    route.query(link.find("eth0"))
    intruder.sendto(b"\xff" * 300, (route._port, 0))
    intruder.sendto(b"\0" * 70000, (route._port, 0))  # larger than the buffer
    (reply,) = route.query(link.find("eth0"))
    assert link.only(reply).ifname == "eth0"


def test_a_late_answer_to_an_earlier_request_is_skipped(route):
    route.query(link.find("eth0"))
    request = link.find("peer0")
    late = wire.message(request.type, request.flags, route._sequence - 1, request.payload)
    route._socket.send(late)  # its answer waits in the queue when the next question is asked
    (reply,) = route.query(link.find("eth0"))
    assert link.only(reply).ifname == "eth0"


# ---------------------------------------------------------------- silence


def listen_to(monkeypatch, silent):
    monkeypatch.setattr(nlraw.route, "_open", lambda *_: (silent, 1))


def lost_after(route):
    started = time.monotonic()
    with pytest.raises(nlraw.Lost) as caught:
        route.query(link.find("eth0"))
    assert caught.value.errno == errno.ETIMEDOUT
    assert (caught.value.step, caught.value.object) == ("look up link", "eth0")
    return time.monotonic() - started


def test_a_silent_peer_is_given_up_at_the_deadline(route, monkeypatch):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        listen_to(monkeypatch, ours)
        assert 0.4 < lost_after(route) < 2


class Mute:
    """A netlink socket whose requests go nowhere."""

    def __init__(self, real):
        self._real = real

    def send(self, datagram):
        return len(datagram)

    def __getattr__(self, name):
        return getattr(self._real, name)


def test_chatter_of_others_does_not_put_the_deadline_off(route, pod, monkeypatch):
    with open_socket(pod, socket.NETLINK_USERSOCK) as ours, open_socket(
        pod, socket.NETLINK_USERSOCK
    ) as theirs:
        ours.bind((0, 0))
        listen_to(monkeypatch, Mute(ours))

        def chatter():
            for _ in range(300):
                theirs.sendto(wire.message(uapi.NLMSG_NOOP, 0, 0, b""), ours.getsockname())
                if ended.wait(0.01):
                    break

        ended = threading.Event()
        thread = threading.Thread(target=chatter)
        thread.start()
        try:
            assert 0.4 < lost_after(route) < 2
        finally:
            ended.set()
            thread.join()


def test_a_route_works_again_after_silence(route, monkeypatch):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        listen_to(monkeypatch, ours)
        lost_after(route)
    monkeypatch.undo()
    (reply,) = route.query(link.find("eth0"))
    assert link.only(reply).ifname == "eth0"


# ---------------------------------------------------------------- small buffers


@pytest.fixture
def tiny_receive_buffer(monkeypatch):
    """Sockets with the smallest receive buffer that the kernel grants: most answers overrun it."""
    opened = []
    real = nlraw.route._open

    def tiny(*arguments):
        fresh, port = real(*arguments)
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        opened.append(port)
        return fresh, port

    monkeypatch.setattr(nlraw.route, "_open", tiny)
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
def test_a_list_that_is_refused_for_the_moment_is_asked_for_again(route, monkeypatch, number):
    # ENOBUFS: the buffer is full already, of what others send (netlink_dump(),
    # net/netlink/af_netlink.c)
    real, refusals, sockets = Route.change, [number, number], []

    def refuse(self, *requests):
        replies = real(self, *requests)
        sockets.append(self._socket)
        if refusals:
            replies[0].error = nlraw.Refused(refusals.pop(), "not now")
        return replies

    monkeypatch.setattr(Route, "change", refuse)
    (reply,) = route.query(link.dump())
    assert "eth0" in [found.ifname for found in link.links(reply.answer())]
    # with no other dump under way an older one is stuck, and would be for as long as others fill
    # the buffer
    assert len(set(sockets)) == len(sockets) == 3


def test_more_changes_than_fit_a_receive_buffer_travel_in_several_datagrams(route, pod):
    expected = add_orphans(pod, 300)
    replies = route.query(*[link.find(name) for name in expected])
    assert [link.only(reply).ifname for reply in replies] == expected


def test_a_datagram_that_does_not_fit_is_asked_for_again_with_more_room(route, pod):
    expected = add_orphans(pod, 40)
    route._buffer = 512
    (reply,) = route.query(link.dump("tun"))
    assert [found.ifname for found in link.links(reply.answer())] == expected
    assert route._buffer > 512


def test_scan_and_cleanup_are_right_with_a_small_buffer(pod, monkeypatch):
    monkeypatch.setattr(nlraw.route, "BUFFER", 512)
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


@pytest.fixture
def listener(pod):
    time.sleep(1.2)  # until the kernel has told of all that made the pod
    groups = uapi.RTMGRP_LINK | uapi.RTMGRP_TC
    with Namespace(pod.path) as namespace, Route(namespace, alone=True, listen=groups) as listener:
        listener.query(link.find("eth0"))
        yield listener


def groups_of(pod):
    """The multicast groups that the socket with the port is in."""
    rows = [
        line.split()
        for line in pod.run(lambda: open("/proc/thread-self/net/netlink").read()).splitlines()
    ]
    return [
        int(row[3], 16)
        for row in rows
        if row[1:3] == [str(socket.NETLINK_ROUTE), str(nlraw.route.PORT)]
    ]


def test_who_listens_is_quiet_until_somebody_changes_something(listener, pod):
    for _ in range(3):
        listener.query(link.dump("tun"))
        assert listener.is_quiet
    pod.tc("qdisc", "add", "dev", "eth0", "ingress")
    listener.query(link.dump("tun"))
    assert not listener.is_quiet


@pytest.mark.parametrize(
    "change",
    [
        "link set eth0 down",
        "link property add dev peer0 altname other0",
        "link add veth0 type veth peer name veth1",
    ],
)
def test_who_listens_is_told_of_links(listener, pod, change):
    pod.ip(*change.split())
    listener.query(link.dump("tun"))
    assert not listener.is_quiet


def test_who_lost_the_socket_may_have_missed_something(listener):
    listener.close()
    assert not listener.is_alone
    listener.query(link.find("eth0"))
    assert listener.is_alone and not listener.is_quiet


def test_who_could_not_be_alone_does_not_listen(pod, listener):
    with Namespace(pod.path) as namespace, Route(
        namespace, alone=True, patience=0, listen=uapi.RTMGRP_TC
    ) as second:
        second.query(link.find("eth0"))
        assert not second.is_alone and not second.is_quiet


def test_who_listens_no_more_is_told_nothing(listener, pod):
    assert groups_of(pod) == [uapi.RTMGRP_LINK | uapi.RTMGRP_TC]
    listener.stop_listening()
    assert groups_of(pod) == [0] and listener.is_alone and not listener.is_quiet
    listener.query(link.find("eth0"))


# ---------------------------------------------------------------- what the kernel refuses


def test_a_refusal_leads_with_the_kernels_words(route):
    (reply,) = route.change(link.delete(1, "lo"))
    assert reply.error.errno == errno.EOPNOTSUPP
    assert str(reply.error).startswith("delete link lo: ")


def test_one_refusal_does_not_stop_the_others(route, pod):
    first, second = add_orphans(pod, 2)
    indexes = {name: found["ifindex"] for name, found in pod.links().items()}
    replies = route.change(
        link.delete(indexes[first], first),
        link.delete(9999, "missing"),
        link.delete(indexes[second], second),
    )
    assert [reply.error and reply.error.errno for reply in replies] == [None, errno.ENODEV, None]
    assert first not in pod.links() and second not in pod.links()


def test_a_route_is_closed_after_a_failure_and_opens_another_socket(route, monkeypatch):
    route.query(link.find("eth0"))
    first = route._socket
    first.close()
    with pytest.raises(nlraw.Refused) as caught:
        route.query(link.find("eth0"))
    assert caught.value.errno == errno.EBADF
    route.query(link.find("eth0"))
    assert route._socket is not first


# ---------------------------------------------------------------- one at a time


@pytest.fixture
def sitter(pod):
    """Somebody who has the port from which a namespace is changed."""
    with Namespace(pod.path) as namespace, Route(namespace, alone=True) as route:
        route.query(link.find("eth0"))
        yield route


def test_who_changes_waits_for_another_who_does(pod, sitter):
    pod.add_orphan()
    threading.Timer(0.3, sitter.close).start()
    began = time.monotonic()
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert time.monotonic() - began >= 0.25


def test_nobody_waits_for_ever(pod, sitter, monkeypatch):
    monkeypatch.setattr(nlraw.route, "PATIENCE", 0.2)
    pod.add_orphan()
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"


def test_who_only_looks_does_not_wait(pod, sitter, monkeypatch):
    monkeypatch.setattr(nlraw.route, "_bind_alone", lambda *_: pytest.fail("it waits for the port"))
    pod.add_orphan()
    assert [tap.verdict for tap in nlraw.scan(netns=pod.path)] == ["orphan"]
    assert nlraw.cleanup(netns=pod.path, dry_run=True).outcome == "would-clean"

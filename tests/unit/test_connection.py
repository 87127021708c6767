# SPDX-License-Identifier: Apache-2.0
"""nlraw.connection on a socket that is made up: events, torn lists, and what a look may read.

Against the kernel it is tried in tests/live.
"""

import errno
import struct

import pytest

from lib import build
from nlraw import connection, link, tc, uapi, wire
from nlraw.connection import Connection
from nlraw.errors import DumpInterrupted, Lost, Refused, TooMuch
from nlraw.transport import WRITER_PORT, Allowance

GROUPS = uapi.RTMGRP_LINK | uapi.RTMGRP_TC
PORT = 4321
QDISCS, LINKS = tc.dump_qdiscs(), link.dump()


class Socket:
    """A netlink socket; ``answer`` makes of each request the datagrams that answer it.

    An exception in the place of a datagram is raised.
    """

    def __init__(self, system):
        self.system = system
        self.inbox = []
        self.joined = []
        self.port = 0
        self.closed = False

    def setsockopt(self, *_):
        pass

    def bind(self, address):
        if self.system.bind_error:
            raise OSError(self.system.bind_error, "")
        self.port = address[0] or PORT
        self.joined.append(address[1])

    def connect(self, address):
        self.port = self.port or PORT

    def getsockname(self):
        return self.port, 0

    def send(self, datagram):
        self.system.sent.append(build.messages(datagram))
        for message in self.system.sent[-1]:
            self.inbox += self.system.answer(message, self.port)

    def recvfrom(self, size, flags):
        if not self.inbox:
            raise BlockingIOError
        found = self.inbox.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found if isinstance(found, tuple) else (found, (0, 0))

    def recvmsg(self, size, ancillary, flags):
        datagram, sender = self.recvfrom(size, flags)
        return datagram, self.system.ancillary, 0, sender

    def close(self):
        self.closed = True


class System:
    """The system of a connection: its sockets, and a clock that passes when somebody waits."""

    def __init__(self, answer):
        self.answer = answer
        self.now = 0.0
        self.sent = []
        self.sockets = []
        self.bind_error = 0
        self.ancillary = []

    def socket(self):
        self.sockets.append(Socket(self))
        return self.sockets[-1]

    def wait(self, socket, seconds):
        if not socket.inbox:
            self.now += seconds
        return bool(socket.inbox)

    def sleep(self, seconds):
        self.now += seconds

    def time(self):
        return 1000.0 + self.now

    def monotonic(self):
        return self.now

    thread_time = monotonic


class Place:
    """A namespace in which nothing has to be entered."""

    path = "/run/netns/made-up"

    @staticmethod
    def run(function):
        return function()


def part(message, port, payload, type=None, flags=0):
    """One message of a list."""
    number = message.type - 2 if type is None else type
    flags |= uapi.NLM_F_MULTI
    return wire.message(number, flags, message.sequence, payload, port)


def end(message, port, flags=0):
    return part(message, port, bytes(4), uapi.NLMSG_DONE, flags)


def event(type=uapi.RTM_NEWQDISC):
    return wire.message(type, 0, 0, build.qdisc_payload(2, "ingress"), 0)


def listing(datagrams, between=(), is_end_alone=True):
    """Answers with a list of so many datagrams, its end, and events after the first datagram."""

    def answer(message, port):
        parts = [part(message, port, build.qdisc_payload(2, "ingress"))] * datagrams
        if is_end_alone:
            parts.append(end(message, port))
        else:
            parts[-1] += end(message, port)
        return parts[:1] + list(between) + parts[1:]

    return answer


def connected(answer=None, **options):
    system = System(answer or listing(1))
    return Connection(Place(), system=system, **options), system


# ---------------------------------------------------------------- torn lists and quiet


@pytest.mark.parametrize(
    "datagrams, between, asked, torn",
    [
        (2, [event()], QDISCS, True),
        (9, [event(), event()], QDISCS, True),
        (2, [event(uapi.RTM_NEWLINK)], QDISCS, True),
        (1, [event()], QDISCS, None),  # what was left out may have been all of the second one
        (2, [], QDISCS, False),
        (2, [event()], LINKS, False),  # the kernel flags a list of links
    ],
)
@pytest.mark.parametrize("is_end_alone", [True, False])
def test_a_list_of_several_datagrams_is_torn_if_an_event_arrives_meanwhile(
    datagrams, between, asked, torn, is_end_alone
):
    one, _ = connected(listing(datagrams, between, is_end_alone), groups=GROUPS)
    one.begin_look()
    one.ask(asked)
    assert one.is_torn is (is_end_alone if torn is None else torn)
    one.begin_look()
    assert one.is_torn is False


def test_an_event_before_or_behind_a_list_does_not_tear_it():
    one, system = connected(listing(3), groups=GROUPS)
    one.ask(QDISCS)
    system.sockets[0].inbox.append(event())
    one.receive_events()
    assert (one.is_torn, one.is_quiet) == (False, False)
    one.ask(QDISCS)
    assert one.is_torn is False


@pytest.mark.parametrize(
    "type, quiet",
    [
        (uapi.RTM_NEWQDISC, False),
        (uapi.RTM_DELTFILTER, False),
        (uapi.RTM_NEWLINK, True),
        (uapi.RTM_DELLINK, True),
    ],
)
def test_links_that_come_and_go_do_not_break_the_quiet(type, quiet):
    one, system = connected(groups=GROUPS)
    one.begin_look()
    assert one.is_quiet is False  # nothing has been listened to yet
    one.ask(QDISCS)
    assert one.is_quiet is True
    system.sockets[0].inbox.append(event(type))
    one.ask(LINKS)
    assert one.is_quiet is quiet
    one.begin_look()
    assert one.is_quiet is True


def test_a_connection_that_joins_no_group_is_never_quiet():
    one, _ = connected()
    one.begin_look()
    one.ask(QDISCS)
    assert (one.is_quiet, one.is_torn, one.is_exclusive) == (False, False, False)


def test_a_connection_that_was_closed_has_missed_something():
    one, _ = connected(groups=GROUPS)
    with one:
        one.ask(QDISCS)
        assert one.is_quiet
    one.ask(QDISCS)
    assert one.is_quiet is False


def test_groups_are_left_for_own_changes_and_joined_again_by_the_next_look():
    one, system = connected(groups=GROUPS, exclusive=True)
    one.ask(QDISCS)
    assert one.is_exclusive
    one.leave_groups()
    one.leave_groups()
    one.begin_look()
    one.begin_look()
    (socket,) = system.sockets
    assert socket.joined == [GROUPS, 0, GROUPS] and socket.port == WRITER_PORT


def test_a_connection_without_groups_or_a_socket_leaves_nothing():
    for groups in (0, GROUPS):
        one, system = connected(groups=groups)
        if not groups:
            one.ask(QDISCS)
        one.leave_groups()
        one.begin_look()
        assert [socket.joined for socket in system.sockets] == ([] if groups else [[]])


def test_a_socket_that_is_opened_while_groups_are_left_joins_none():
    one, system = connected(groups=GROUPS)
    one.leave_groups()
    one.ask(QDISCS)
    assert system.sockets[0].joined == []
    one.begin_look()
    assert system.sockets[0].joined == [GROUPS]


@pytest.mark.parametrize("before", [0, GROUPS])
def test_other_groups_are_joined_by_the_next_look(before):
    one, system = connected(groups=before)
    one.ask(QDISCS)
    (socket,) = system.sockets
    first = [before] * bool(before)
    one.set_groups(GROUPS | 4)
    assert socket.joined == first + [0] * bool(before)
    one.begin_look()
    assert one.groups == GROUPS | 4 and socket.joined[-1] == GROUPS | 4
    one.set_groups(before)
    assert one.groups == before and socket.joined[-1] == 0
    one.begin_look()
    assert socket.joined[-1] == before


def test_groups_that_cannot_be_joined_again_cost_the_socket():
    one, system = connected(groups=GROUPS)
    one.ask(QDISCS)
    system.bind_error = errno.ENOMEM
    one.leave_groups()
    assert system.sockets[0].closed and one.is_quiet is False
    system.bind_error = 0
    one.begin_look()
    one.ask(QDISCS)
    assert len(system.sockets) == 2 and system.sockets[1].joined == [GROUPS]


# ---------------------------------------------------------------- events


@pytest.mark.parametrize("nsid", [None, 7])
def test_events_are_delivered_with_the_id_of_their_namespace(nsid):
    heard = []
    one, system = connected(groups=GROUPS, on_event=heard.append, all_namespaces=True)
    if nsid is not None:
        system.ancillary = [
            (uapi.SOL_NETLINK, 99, b"\1\0\0\0"),
            (uapi.SOL_NETLINK, uapi.NETLINK_LISTEN_ALL_NSID, struct.pack("=i", nsid)),
        ]
    one.receive_events()
    system.sockets[0].inbox += [event() + event(uapi.RTM_DELQDISC), (event(), (4242, 0))]
    assert one.receive_events(1.0) is True
    assert [(message[0], number) for message, number in heard] == [
        (uapi.RTM_NEWQDISC, nsid),
        (uapi.RTM_DELQDISC, nsid),
    ]
    system.sockets[0].inbox.append(event())
    one.ask(QDISCS)  # those that arrive between answers
    assert len(heard) == 3 and heard[-1][1] == nsid
    assert one.receive_events(2.5) is False and system.now == 2.5


def test_events_that_were_lost_are_announced():
    heard = []
    one, system = connected(groups=GROUPS, on_event=heard.append)
    one.ask(QDISCS)
    system.sockets[0].inbox += [OSError(errno.ENOBUFS, ""), event()]
    assert one.receive_events() is True
    assert heard[0] is None and heard[1][0][0] == uapi.RTM_NEWQDISC
    assert one.is_quiet is False and not system.sockets[0].closed


def test_events_are_taken_a_bounded_number_at_a_time(monkeypatch):
    heard = []
    monkeypatch.setattr(connection, "EVENTS_AT_A_TIME", 3)
    one, system = connected(groups=GROUPS, on_event=heard.append)
    one.receive_events()
    system.sockets[0].inbox += [event()] * 5
    assert [one.receive_events() for _ in range(3)] == [True, True, False]
    assert len(heard) == 5


def test_a_socket_that_fails_while_it_listens_is_closed():
    heard = []
    one, system = connected(groups=GROUPS, on_event=heard.append)
    one.ask(QDISCS)
    system.sockets[0].inbox.append(OSError(errno.EIO, "broken"))
    with pytest.raises(Refused) as caught:
        one.receive_events()
    assert str(caught.value) == "receive events in /run/netns/made-up: broken"
    assert heard == [None] and system.sockets[0].closed


# ---------------------------------------------------------------- what a look may read


def test_a_namespace_that_holds_too_much_is_an_error_and_costs_the_socket():
    one, system = connected(listing(8), allowance=Allowance(messages=20))
    one.ask(QDISCS)
    one.ask(QDISCS)
    with pytest.raises(TooMuch) as caught:
        one.ask(QDISCS)
    assert "over 20 links, qdiscs, filters and routes" in str(caught.value)
    assert system.sockets[0].closed
    one.begin_look()  # and another look may read as much again
    one.ask(QDISCS)


def interrupted(times):
    """Answers with a list that is flagged so often, then with a whole one."""
    left = [times]

    def answer(message, port):
        flags = uapi.NLM_F_DUMP_INTR if left[0] else 0
        left[0] -= bool(flags)
        whole = [part(message, port, build.qdisc_payload(2, "ingress"), flags=flags)] * 8
        return whole + [end(message, port)]

    return answer


def test_a_list_that_is_read_again_is_counted_once():
    one, _ = connected(interrupted(30), allowance=Allowance(messages=20))
    (reply,) = one.ask(QDISCS)
    assert len(reply.answer()) == 8


def test_a_list_that_is_torn_at_every_attempt_is_an_error():
    one, system = connected(interrupted(1000))
    with pytest.raises(DumpInterrupted) as caught:
        one.ask(QDISCS)
    assert (caught.value.step, caught.value.object) == ("list qdiscs", "of all links")
    assert len(system.sent) == connection.ATTEMPTS


# ---------------------------------------------------------------- what is sent


def test_requests_are_announced_before_they_are_sent():
    seen = []
    one, system = connected(on_request=lambda requests: seen.append((requests, len(system.sent))))
    one.ask(QDISCS)
    assert seen == [((QDISCS,), 0)]


def acknowledged(message, port):
    """An answer to a change."""
    payload = build.refusal_payload(0, bytes(16))
    return [wire.message(uapi.NLMSG_ERROR, uapi.NLM_F_CAPPED, message.sequence, payload, port)]


def test_many_requests_are_several_datagrams_in_order():
    one, system = connected(acknowledged)
    count = connection.WINDOW + 1
    replies = one.change(*[link.delete(number, "x") for number in range(1, count + 1)])
    assert [len(requests) for requests in system.sent] == [connection.WINDOW, 1]
    assert [reply.request.object for reply in replies] == ["x"] * count
    assert one.change() == []


def test_an_answer_that_does_not_come_is_lost_and_a_change_is_sent_once():
    one, system = connected(lambda message, port: [])
    with pytest.raises(Lost) as caught:
        one.change(link.delete(4, "tap0_urunc"))
    assert (caught.value.errno, caught.value.object) == (errno.ETIMEDOUT, "tap0_urunc")
    assert len(system.sent) == 1 and system.now >= connection.SILENCE


def test_a_list_whose_answer_overran_is_asked_for_again():
    answers = [[OSError(errno.ENOBUFS, "overrun")], None]

    def answer(message, port):
        return answers.pop(0) or listing(1)(message, port)

    one, system = connected(answer, groups=GROUPS)
    assert len(one.ask(QDISCS)[0].answer()) == 1
    assert [socket.closed for socket in system.sockets] == [True, False]
    assert one.is_quiet is False

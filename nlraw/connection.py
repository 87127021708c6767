# SPDX-License-Identifier: Apache-2.0
"""A NETLINK_ROUTE connection inside one namespace.

    ask      read; repeat after an overrun, a truncated datagram or a list that changed meanwhile
    change   send once; if the answer is lost, the caller has to look at what the kernel did
    receive_events   deliver multicast messages of the groups that the connection joined

A failure during an exchange closes the socket, and late answers are lost. The next request opens
another socket, inside the same namespace. Source: netlink(7).
"""

import errno
import posix
from _socket import MSG_DONTWAIT
from _struct import Struct

from . import uapi, wire
from .errors import DumpInterrupted, Error, Lost, Refused, refused
from .exchange import Exchange, Reply, Request
from .netns import Namespace
from .transport import (
    RESERVE,
    SYSTEM,
    WRITER_PORT,
    Allowance,
    Patience,
    Spending,
    System,
    close_socket,
    open_socket,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket
    from types import TracebackType
    from typing import Callable, Dict, List, Optional, Sequence, Tuple, Type

    # A multicast message and the ID of its namespace, which is None for the connection's own. None
    # instead of an event: events were lost, look at everything again.
    Event = Optional[Tuple[wire.Message, Optional[int]]]

# The kernel fills at most 32 KiB of a dump into a datagram (netlink_dump(), af_netlink.c).
BUFFER = 64 << 10
LARGEST_BUFFER = 16 << 20

# Requests in one datagram. Together their ACKs, of about 800 bytes each, must fit the receive
# buffer, usually 208 KiB.
WINDOW = 128

# Seconds to wait for an answer. This is long: the kernel answers before send() returns.
SILENCE = 5.0

# How many times to ask for a list, if it changes while it is read or if the answer is lost.
ATTEMPTS = 40

# Datagrams of events that one call of `receive_events` takes.
EVENTS_AT_A_TIME = 2000

_s32 = Struct("=i")


class Connection:
    """Requests to the kernel about one namespace, which must stay open as long as this does.

    ``exclusive``: hold the writer port; wait with ``patience`` while another socket has it.
    ``groups`` (RTMGRP_*): join these multicast groups; each event goes to ``on_event``, if given.
    ``all_namespaces``: also hear the namespaces that have an ID here (needs CAP_NET_BROADCAST).
    ``silence``: seconds after which an answer counts as lost. ``system``: the socket factory and
    clock. ``on_request`` is called with the requests of each datagram before it is sent.
    ``allowance`` limits what a look may read.

    Not to be used by two threads at a time. Each failure is an `Error`; a refusal of a request is
    in that request's `Reply`.
    """

    def __init__(
        self,
        namespace: Namespace,
        exclusive: bool = False,
        groups: int = 0,
        on_event: "Optional[Callable[[Event], None]]" = None,
        all_namespaces: bool = False,
        patience: "Optional[Patience]" = None,
        silence: float = SILENCE,
        system: System = SYSTEM,
        on_request: "Optional[Callable[[Sequence[Request]], None]]" = None,
        allowance: "Optional[Allowance]" = None,
    ) -> None:
        self.path = namespace.path
        self.groups = groups
        self._namespace = namespace
        self._patience = (patience or Patience()) if exclusive else None
        self._on_event = on_event
        self._hears_all = all_namespaces
        self._silence = silence
        self._system = system
        self._on_request = on_request
        self._allowance = allowance or Allowance.unlimited()
        self._is_joined = True
        self._is_quiet = groups != 0
        self._is_torn = False
        self._events = 0
        self._buffer = BUFFER
        self._window = WINDOW
        self._sequence = int(system.time())
        self._socket: Optional[Socket] = None
        self._port = 0

    @property
    def is_exclusive(self) -> bool:
        """True while this connection holds the writer port."""
        return self._socket is not None and self._port == WRITER_PORT

    @property
    def is_torn(self) -> bool:
        """True if a list since the look began may be incomplete.

        An event arrived between its first datagram and its end. The kernel does not flag such a
        list of qdiscs or filters: it resumes by position.
        """
        return self._is_torn

    @property
    def is_quiet(self) -> bool:
        """True if no TC or route event has arrived since the look began, and none was lost.

        Link events do not count: a list of links shows the changes that matter.
        """
        return self._is_quiet and self._socket is not None

    # ------------------------------------------------------------ requests

    def ask(self, *requests: Request) -> "List[Reply]":
        """Send requests that only read, and return a reply to each.

        Several dumps may be among them. While one is in progress on the socket the kernel refuses
        the next with EBUSY, or with ENOBUFS if other answers fill the receive buffer; it is asked
        for again. Raises `DumpInterrupted` for a list that changes at every attempt, `Lost` for an
        answer that is lost every time or does not come.
        """
        replies: Dict[Request, Reply] = {}
        asked, left = requests, ATTEMPTS
        while left:
            left -= 1
            try:
                answers = self.change(*asked)
            except Lost as error:
                if not left or error.errno == errno.ETIMEDOUT:
                    raise
                continue
            again = []
            for reply in answers:
                if reply.interrupted or (reply.error is not None and _is_put_off(reply)):
                    again.append(reply)
            if not again and asked is requests:
                return answers
            replies.update(zip(asked, answers))
            if not again:
                return [replies[request] for request in requests]
            self._allowance.refund()
            if all(map(_is_put_off, answers)):  # none of these dumps runs: an older one blocks them
                self._discard()
            asked = tuple([reply.request for reply in again])
        for reply in replies.values():
            if reply.interrupted:
                words = (
                    "the list changed while it was read, %d times in a row; try again" % ATTEMPTS
                )
                raise DumpInterrupted(words, reply.request.step, reply.request.object)
        return [replies[request] for request in requests]

    def change(self, *requests: Request) -> "List[Reply]":
        """Send requests once, at most `WINDOW` in a datagram, and return a reply to each.

        The kernel carries them out in order, and goes on after one that it refused. Raises `Lost`
        if it is unknown which were carried out.
        """
        if not 0 < len(requests) <= self._window:
            replies: List[Reply] = []
            while len(replies) < len(requests):
                replies += self.change(*requests[len(replies) : len(replies) + self._window])
            return replies
        if self._on_request is not None:
            self._on_request(requests)
        try:
            socket = self._socket or self._open()
            exchange = Exchange(requests, self._port, self._sequence)
            self._sequence += len(requests)
            self._converse(socket, exchange)
        except OSError as error:
            self._discard()
            if isinstance(error, Error):
                raise
            if error.errno != errno.ENOBUFS:
                raise refused(error, requests[0].step, requests[0].object) from None
            self._window = max(1, self._window // 4)
            raise refused(error, requests[0].step, requests[0].object, kind=Lost) from None
        except BaseException:
            self._discard()
            raise
        for reply in exchange.replies:
            if reply.error is not None:
                reply.error = _in_words(reply.error)
        return exchange.replies

    def _converse(self, socket: "Socket", exchange: Exchange) -> None:
        socket.send(exchange.datagram())
        receive = self._receive_from_all if self._hears_all else socket.recvfrom
        # only lists: other requests have one answer each, and that to a change must not be lost
        is_limited = any(reply.request.is_dump for reply in exchange.replies)
        spending = Spending(self._allowance, exchange, self._system)
        events: Optional[int] = None  # at the first datagram of the answer
        deadline = 0.0  # the clock is read once there is something to wait for
        while not exchange.is_finished:
            try:
                datagram, sender, *nsid = receive(self._buffer, MSG_DONTWAIT)
            except BlockingIOError:
                deadline = deadline or self._system.monotonic() + self._silence
                if not self._system.wait(socket, deadline - self._system.monotonic()):
                    raise _lost(errno.ETIMEDOUT, exchange) from None
                continue
            if sender[0] == 0:  # the kernel; before connect() another process may send to our port
                if len(datagram) == self._buffer:  # it fills the buffer, so it may be truncated
                    self._buffer = min(self._buffer * 4, LARGEST_BUFFER)
                    raise _lost(errno.EMSGSIZE, exchange)
                is_ours = exchange.receive(datagram)
                if is_limited:
                    spending.count(len(datagram))
                if is_ours:
                    deadline = 0.0
                    events = self._events if events is None else events
                    continue
                self._deliver(datagram, nsid[0] if nsid else None)
            now = self._system.monotonic()
            deadline = deadline or now + self._silence
            if now > deadline:
                raise _lost(errno.ETIMEDOUT, exchange)
        if is_limited:
            spending.settle()
        if len(exchange.replies) == 1 and self._events != events:
            # the kernel flags a list of links itself
            self._is_torn |= exchange.replies[0].request.type != uapi.RTM_GETLINK

    # ------------------------------------------------------------ events

    def receive_events(self, seconds: float = 0.0) -> bool:
        """Wait up to ``seconds`` for events, and deliver those that have arrived.

        They go to ``on_event``, a bounded number at a time. Returns True if there were any.
        """
        try:
            socket = self._socket or self._open()
            if not self._system.wait(socket, seconds):
                return False
            for _ in range(EVENTS_AT_A_TIME):
                try:
                    datagram, sender, nsid = self._receive_from_all(self._buffer, MSG_DONTWAIT)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    self._lose_events()
                    continue
                if sender[0] == 0 and len(datagram) == self._buffer:  # it may be truncated
                    self._lose_events()
                elif sender[0] == 0:
                    self._deliver(datagram, nsid)
            return True
        except OSError as error:
            self._discard()
            raise refused(error, "receive events in", self.path) from None

    def begin_look(self) -> None:
        """Begin another look: renew the allowance, join the groups again, forget old events."""
        self.resume()
        self._allowance.renew()
        self._is_quiet = self.groups != 0
        self._is_torn = False
        if not self._is_joined:
            self._bind(self.groups)
            self._is_joined = True

    def renew_allowance(self) -> None:
        """Allow what follows to read as much as a look, and to end what has begun."""
        self._allowance.renew(RESERVE)

    def resume(self) -> None:
        """Measure the processor time of the calling thread from the next check on."""
        self._allowance.begin()

    def check_allowance(self) -> None:
        """Spend the processor time until now; raise `TooMuch` if none is left."""
        if not self._allowance.is_small:
            self._allowance.check(self._system.thread_time())

    def leave_groups(self) -> None:
        """Leave the multicast groups until the next look: own changes then cause no events here."""
        if self._is_joined and self.groups:
            self._bind(0)
            self._is_joined = False

    def set_groups(self, groups: int) -> None:
        """Set the multicast groups (RTMGRP_*) that the next look joins; leave the others now."""
        self.leave_groups()
        self.groups = groups
        self._is_joined = False

    def _bind(self, groups: int) -> None:
        if self._socket is not None:
            try:
                self._socket.bind((self._port, groups))
            except OSError:  # for any reason: the next request opens another socket
                self._discard()

    def _receive_from_all(
        self, size: int, flags: int
    ) -> "Tuple[bytes, Tuple[int, int], Optional[int]]":
        """A datagram, its sender, and the ID of the namespace that an event comes from."""
        assert self._socket is not None
        datagram, ancillary, _, sender = self._socket.recvmsg(size, 64, flags)
        for level, type, data in ancillary:
            if (level, type) == (uapi.SOL_NETLINK, uapi.NETLINK_LISTEN_ALL_NSID):
                return datagram, sender, _s32.unpack_from(data)[0]
        return datagram, sender, None

    def _deliver(self, datagram: bytes, nsid: "Optional[int]") -> None:
        self._events += 1
        for message in wire.messages(datagram):
            if message[0] not in (uapi.RTM_NEWLINK, uapi.RTM_DELLINK):
                self._is_quiet = False
            if self._on_event is not None:
                self._on_event((message, nsid))

    def _lose_events(self) -> None:
        self._events += 1
        self._is_quiet = False
        if self._on_event is not None:
            self._on_event(None)

    # ------------------------------------------------------------ the socket

    def _open(self) -> "Socket":
        groups = self.groups if self._is_joined else 0
        self._socket, self._port = self._namespace.run(
            lambda: open_socket(self._system, self._patience, groups, self._hears_all)
        )
        return self._socket

    def _discard(self) -> None:
        """Close the socket after a failure: the events that it would have received are lost."""
        if self._socket is not None:
            self.close()
            if self.groups:
                self._lose_events()

    def close(self) -> None:
        """Close the socket; the next request opens another one."""
        if self._socket is not None:
            close_socket(self._socket)
            self._socket = None
            self._is_quiet = False  # what is announced from now on is missed

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self,
        kind: "Optional[Type[BaseException]]",
        error: "Optional[BaseException]",
        trace: "Optional[TracebackType]",
    ) -> None:
        self.close()


def _is_put_off(reply: Reply) -> bool:
    """True for a dump that was refused while another is running, or the receive buffer is full."""
    if reply.error is None or not reply.request.is_dump:
        return False
    return reply.error.errno in (errno.EBUSY, errno.ENOBUFS)


def _lost(number: int, exchange: Exchange) -> Lost:
    request = exchange.replies[0].request
    words = "the answer is lost (%s); try again" % posix.strerror(number)
    return Lost(number, words, request.step, request.object)


def _in_words(error: Refused) -> Refused:
    """The same refusal, with the C library's words if there are none; for EPERM the remedy too."""
    number = error.errno or 0
    words = error.words or posix.strerror(number)
    if number == errno.EPERM:
        words += "; it takes CAP_NET_ADMIN in the user namespace that owns the network namespace"
    return Refused(number, words, error.step, error.object, error.attribute)

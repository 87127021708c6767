# SPDX-License-Identifier: Apache-2.0
"""A NETLINK_ROUTE socket inside one namespace.

Two ways to use it. `Route.query` reads, and so may ask again: after an overrun, a truncated datagram or a torn list.
`Route.change` sends once: if its answer is lost, what the kernel did has to be looked up.

After any failure in mid-exchange the socket is thrown away with whatever may still arrive on it; the next
request opens another, inside the same namespace. Source: netlink(7).
"""

import errno
import posix
import time

# The C half of the socket module, without the enums that take longer to make than a scan.
from _socket import AF_NETLINK, MSG_DONTWAIT, SOCK_CLOEXEC, SOCK_RAW
from _socket import socket as Socket

from . import uapi
from .errors import Error, Interrupted, Lost, Refused
from .exchange import Exchange, Reply, Request
from .netns import Namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Dict, List, Optional, Tuple, Type

# The kernel fills at most 32 KiB of a dump into a datagram (netlink_dump(), net/netlink/af_netlink.c).
BUFFER = 64 << 10
LARGEST_BUFFER = 16 << 20

# Requests in one datagram. Their ACKs must fit the receive buffer together, at some 800 bytes each of the usual 208 KiB.
WINDOW = 128

# Seconds without a single message for us. The kernel answers before send() returns, so nobody waits for these.
SILENCE = 5.0

# Whoever changes a namespace does so from this port, "nlra" in ASCII and above every process ID: the kernel gives it to one
# socket of a namespace, and takes it back when the process dies. So of two at once, one waits until the other is done.
PORT = 0x6E6C7261

# Seconds to wait for that port. Then we go on without: no stranger can keep us from working by sitting on it.
PATIENCE = 5.0

# How often a list is asked for that changed while it was read, or whose answer was lost.
ATTEMPTS = 40


class Route:
    """Requests to the kernel about one namespace, which must stay open as long as this does.

    ``alone``: one who means to change something waits for others who do, for ``patience`` seconds (`PATIENCE`). ``listen``: while
    alone, be told of others' changes by the kernel's multicast groups (RTMGRP_*). Not to be used by two threads at a time.
    Each failure is an `Error`; a refusal of a request is in that request's `Reply`.
    """

    def __init__(
        self,
        namespace: Namespace,
        alone: bool = False,
        silence: float = SILENCE,
        patience: "Optional[float]" = None,
        listen: int = 0,
    ) -> None:
        self.path = namespace.path
        self._namespace = namespace
        self._patience = None if not alone else PATIENCE if patience is None else patience
        self._groups = listen
        self._quiet = listen != 0
        self._silence = silence
        self._buffer = BUFFER
        self._window = WINDOW
        self._sequence = int(time.time())
        self._socket: Optional[Socket] = None
        self._port = 0

    @property
    def is_alone(self) -> bool:
        """Whether others who mean to change something wait now."""
        return self._socket is not None and self._port == PORT

    @property
    def is_quiet(self) -> bool:
        """Whether nobody changed anything, from the first request to the last answer, of what is listened for."""
        return self._quiet and self.is_alone

    def stop_listening(self) -> None:
        self._quiet, self._groups = False, 0
        if self._socket is not None:
            try:
                self._socket.bind((self._port, 0))
            except OSError:  # whatever it is, the next request does without this socket
                self.close()

    def query(self, *requests: Request) -> "List[Reply]":
        """Send requests that only read, in one datagram, and return a reply to each.

        Several dumps may be among them: the kernel refuses one with EBUSY while it has not finished another on the same
        socket, or with ENOBUFS while other answers fill the receive buffer, and it is asked for again. Raises `Interrupted`
        for a list that is never whole, `Lost` for an answer that is lost each time.
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
            if all(map(_is_put_off, answers)):  # no dump of these is under way, so an older one is stuck
                self.close()
            asked = tuple([reply.request for reply in again])
        for reply in replies.values():
            if reply.interrupted:
                words = "the list changed while it was read, %d times in a row" % ATTEMPTS
                raise Interrupted(words, reply.request.step, reply.request.object)
        return [replies[request] for request in requests]

    def change(self, *requests: Request) -> "List[Reply]":
        """Send requests in one datagram, once, and return a reply to each.

        The kernel carries them out in order, and goes on behind one that it refused. Raises `Lost` where it is not known which
        were carried out. More than fit the receive buffer with their replies travel in several datagrams.
        """
        if not 0 < len(requests) <= self._window:
            replies: List[Reply] = []
            while len(replies) < len(requests):
                replies += self.change(*requests[len(replies) : len(replies) + self._window])
            return replies
        try:
            socket = self._socket or self._open()
            exchange = Exchange(requests, self._port, self._sequence)
            self._sequence += len(requests)
            self._converse(socket, exchange)
        except Error:
            self.close()
            raise
        except OSError as error:
            self.close()
            number, step, object = error.errno or 0, requests[0].step, requests[0].object
            if number == errno.ENOBUFS:
                self._window = max(1, self._window // 4)
            if number in (errno.ENOBUFS, errno.EMSGSIZE, errno.ETIMEDOUT):
                raise Lost(number, posix.strerror(number), step, object) from None
            raise Refused(number, posix.strerror(number), step, object) from None
        except BaseException:
            self.close()
            raise
        for reply in exchange.replies:
            if reply.error is not None:
                reply.error = _in_words(reply.error)
        return exchange.replies

    def _open(self) -> Socket:
        self._socket, self._port = self._namespace.run(lambda: _open(self._patience, self._groups))
        return self._socket

    def _converse(self, socket: Socket, exchange: Exchange) -> None:
        socket.send(exchange.datagram())
        deadline = 0.0  # the clock is read when there is something to wait for
        while not exchange.finished:
            try:
                datagram, sender = socket.recvfrom(self._buffer, MSG_DONTWAIT)
            except BlockingIOError:
                deadline = deadline or time.monotonic() + self._silence
                _wait(socket, deadline)
                continue
            if sender[0] == 0:  # the kernel; another process may have sent to our port before we were connected
                if len(datagram) == self._buffer:  # it fills the buffer, so it may have been cut
                    self._buffer = min(self._buffer * 4, LARGEST_BUFFER)
                    raise OSError(errno.EMSGSIZE, "")
                if exchange.receive(datagram):
                    deadline = 0.0
                    continue
                self._quiet = False
            now = time.monotonic()
            deadline = deadline or now + self._silence
            if now > deadline:
                raise OSError(errno.ETIMEDOUT, "")

    def close(self) -> None:
        if self._socket is not None:
            _close(self._socket)
            self._socket = None
            self._quiet = False  # whatever it would have been told

    def __enter__(self) -> "Route":
        return self

    def __exit__(
        self, kind: "Optional[Type[BaseException]]", error: "Optional[BaseException]", trace: "Optional[TracebackType]"
    ) -> None:
        self.close()


def _is_put_off(reply: Reply) -> bool:
    """Whether a dump was refused while another is under way, or while the receive buffer is full."""
    return reply.error is not None and reply.error.errno in (errno.EBUSY, errno.ENOBUFS) and reply.request.dumps


def _open(patience: "Optional[float]" = None, groups: int = 0) -> "Tuple[Socket, int]":
    """A socket in the namespace of the calling thread, and its port: the one that one at a time can have, and then in these
    groups, if it is to be had within so many seconds; any, where nobody is to be waited for."""
    socket = Socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, uapi.NETLINK_ROUTE)
    try:
        for option in (uapi.NETLINK_EXT_ACK, uapi.NETLINK_CAP_ACK):
            try:
                socket.setsockopt(uapi.SOL_NETLINK, option, 1)
            except OSError:  # a kernel without it says less, and all else holds
                pass
        if patience is not None:
            _bind_alone(socket, patience, groups)
        # takes a port where there is none yet; from now on the kernel refuses what other processes send to it, so that they
        # cannot fill the receive buffer (netlink_getsockbyportid(), net/netlink/af_netlink.c)
        socket.connect((0, 0))
        return socket, socket.getsockname()[0]
    except BaseException:
        _close(socket)
        raise


def _close(socket: Socket) -> None:
    """Close a socket. Whatever is answered it is gone (close(2))."""
    try:
        socket.close()
    except OSError:
        pass


def _bind_alone(socket: Socket, patience: float, groups: int) -> None:
    """Take the port that one socket of a namespace can have; wait for it, but not for ever."""
    deadline = time.monotonic() + patience
    while True:
        try:
            socket.bind((PORT, groups))
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        if time.monotonic() >= deadline:
            return
        time.sleep(0.001)


def _wait(socket: Socket, deadline: float) -> None:
    """Wait until something can be received. Never needed while the kernel answers in time."""
    import select

    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
        raise OSError(errno.ETIMEDOUT, "")


def _in_words(error: Refused) -> Refused:
    """The same refusal, in the C library's words where the kernel had none, and with the capability that was missing."""
    number = error.errno or 0
    words = error.words or posix.strerror(number)
    if number == errno.EPERM:
        words += "; it takes CAP_NET_ADMIN in the user namespace that owns the network namespace"
    return Refused(number, words, error.step, error.object, error.attribute)

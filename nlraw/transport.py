# SPDX-License-Identifier: Apache-2.0
"""The socket under a connection, the port of writers, and the limits of what is read."""

import _thread
import errno
import time

# The C half of the socket module, without the enums that take longer to make than a scan.
from _socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW
from _socket import socket as Socket

from . import uapi
from .errors import TooMuch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional, Tuple

    from .exchange import Exchange

# The port of a connection that changes something: "nlra" in ASCII, above every process ID. The
# kernel gives it to one socket of a namespace, and takes it back when the process dies. So two
# writers take turns.
WRITER_PORT = 0x6E6C7261

# What may be read of a namespace: messages and bytes in a look, seconds in a connection. 1,000
# orphans with their TC state are 6,000 messages and 4 MiB.
MESSAGES = 12000
BYTES = 16 << 20
SECONDS = 10.0
UNLIMITED = 1 << 62

# Seconds that are left in any case to finish what has begun.
RESERVE = 0.25

# Seconds that a command waits for writer ports, in all. Then it continues without the port: so no
# other process can stop it by holding the port.
PATIENCE = 5.0


class System:
    """What a connection needs from the system: a socket factory, a clock and a poll.

    Tests pass another one.
    """

    @staticmethod
    def socket() -> Socket:
        """A netlink socket in the namespace of the calling thread."""
        return Socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, uapi.NETLINK_ROUTE)

    @staticmethod
    def wait(socket: Socket, seconds: float) -> bool:
        """Wait; return True when something can be received, False after ``seconds``."""
        import select

        poll = select.poll()
        poll.register(socket.fileno(), select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    @staticmethod
    def thread_time() -> float:
        """The processor time of the calling thread in seconds, including that in the kernel."""
        return time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)

    sleep = staticmethod(time.sleep)
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


SYSTEM = System()

# Messages of a look up to which its time is not measured.
_SMALL = 500

# Bytes of an exchange between two checks of its allowance.
_CHECK_AFTER = 64 << 10


class Patience:
    """The seconds that one command may wait for writer ports.

    All connections of a command share it, also across threads. While several of them wait, each
    second counts once.
    """

    __slots__ = ("_left", "_waiting", "_since", "_lock")

    def __init__(self, seconds: float = PATIENCE) -> None:
        self._left = seconds
        self._waiting = 0
        self._since = 0.0
        self._lock = _thread.allocate_lock()

    def wait_for(self, attempt: "Callable[[], bool]", system: System) -> bool:
        """Repeat an attempt until it succeeds or no seconds are left; return whether it did."""
        if attempt():
            return True
        with self._lock:
            if not self._waiting:
                self._since = system.monotonic()
            self._waiting += 1
        try:
            while self._left > system.monotonic() - self._since:
                system.sleep(0.001)
                if attempt():
                    return True
            return False
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._left -= system.monotonic() - self._since


class Allowance:
    """How much of a namespace may be read: messages, bytes, seconds of processor time.

    A pod's root user can make any number of links and filters. Messages and bytes count for each
    look; the seconds count for all looks of a connection, what is planned from them included.
    """

    __slots__ = ("messages", "bytes", "seconds", "_left", "_last", "_since")

    def __init__(
        self, messages: int = MESSAGES, bytes: int = BYTES, seconds: float = SECONDS
    ) -> None:
        self.messages = messages
        self.bytes = bytes
        self.seconds = seconds
        self._left = (messages, bytes, seconds)
        self._last = (0, 0)
        self._since: Optional[float] = None

    @classmethod
    def unlimited(cls) -> "Allowance":
        """An allowance without a limit."""
        return cls(UNLIMITED, UNLIMITED, UNLIMITED)

    def begin(self, now: "Optional[float]" = None) -> None:
        """Measure processor time from now on, or from the next check; it is a thread's own."""
        self._since = now

    @property
    def is_small(self) -> bool:
        """True while so little was read that a look at the clock is not worth its system call."""
        return self.messages - self._left[0] < _SMALL

    def renew(self, reserve: float = 0.0) -> None:
        """Allow as many messages and bytes again, and at least so many seconds."""
        self._left = (self.messages, self.bytes, max(self._left[2], reserve))

    def refund(self) -> None:
        """Give back what the last exchange used, because it is repeated."""
        messages, bytes, seconds = self._left
        self._left = (messages + self._last[0], bytes + self._last[1], seconds)

    def spend(self, messages: int, bytes: int) -> None:
        """Count a whole exchange."""
        self._last = (messages, bytes)
        left = self._left
        self._left = (left[0] - messages, left[1] - bytes, left[2])

    def check(self, now: "Optional[float]", messages: int = 0, bytes: int = 0) -> None:
        """Raise `TooMuch` if an exchange exceeds a limit, or the seconds until now, if given."""
        left = self._left
        if now is not None:
            seconds = 0.0 if self._since is None else now - self._since
            self._since = now
            left = self._left = (left[0], left[1], left[2] - seconds)
        if messages > left[0]:
            words = "over %d links, qdiscs, filters and routes" % self.messages
        elif bytes > left[1]:
            words = "over %d MiB of links, qdiscs, filters and routes" % (self.bytes >> 20)
        elif now is not None and left[2] < 0:
            words = "it takes over %g s of processor time" % self.seconds
        else:
            return
        raise TooMuch("this namespace holds more than nlraw reads: %s" % words)


class Spending:
    """What one exchange uses of an allowance. It is checked rarely, because a check takes time."""

    __slots__ = ("_allowance", "_exchange", "_system", "_bytes", "_checked")

    def __init__(self, allowance: Allowance, exchange: "Exchange", system: System) -> None:
        self._allowance = allowance
        self._exchange = exchange
        self._system = system
        self._bytes = self._checked = 0

    def count(self, bytes: int) -> None:
        """Count a datagram."""
        self._bytes += bytes
        if self._bytes - self._checked > _CHECK_AFTER:
            self._checked = self._bytes
            self._check()

    def settle(self) -> None:
        """Count the whole exchange."""
        if self._checked:
            self._check()
        else:
            self._allowance.check(None, self._exchange.received, self._bytes)
        self._allowance.spend(self._exchange.received, self._bytes)

    def _check(self) -> None:
        now = self._system.thread_time()
        self._allowance.check(now, self._exchange.received, self._bytes)


def open_socket(
    system: System, patience: "Optional[Patience]", groups: int, hears_all: bool
) -> "Tuple[Socket, int]":
    """Open a socket in the namespace of the calling thread; return it and its port.

    With ``patience`` it tries to get the writer port, and waits for it. It joins the multicast
    ``groups`` with or without that port.
    """
    socket = system.socket()
    try:
        for option in (uapi.NETLINK_EXT_ACK, uapi.NETLINK_CAP_ACK):
            try:
                socket.setsockopt(uapi.SOL_NETLINK, option, 1)
            except OSError:  # without it errors have fewer details
                pass
        if hears_all:
            socket.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_LISTEN_ALL_NSID, 1)
        has_port = patience is not None and patience.wait_for(
            lambda: _bind(socket, WRITER_PORT, groups), system
        )
        if groups and not has_port:
            _bind(socket, 0, groups)
        # Takes a port if there is none yet. From now on the kernel refuses what other processes
        # send, so that they cannot fill the receive buffer (netlink_getsockbyportid()).
        socket.connect((0, 0))
        return socket, WRITER_PORT if has_port else socket.getsockname()[0]
    except BaseException:
        close_socket(socket)
        raise


def _bind(socket: Socket, port: int, groups: int) -> bool:
    """Bind a socket to a port; return False if another socket has it."""
    try:
        socket.bind((port, groups))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def close_socket(socket: Socket) -> None:
    """Close a socket, and ignore an error: the socket is gone all the same (close(2))."""
    try:
        socket.close()
    except OSError:
        pass

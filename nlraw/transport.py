# SPDX-License-Identifier: Apache-2.0
"""The socket under a connection: how it is made, what it waits for, and the port of writers."""

import _thread
import errno
import time

# The C half of the socket module, without the enums that take longer to make than a scan.
from _socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW
from _socket import socket as Socket

from . import uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional, Tuple

# The port of a connection that changes something: "nlra" in ASCII, above every process ID. The
# kernel gives it to one socket of a namespace, and takes it back when the process dies. So two
# writers take turns.
WRITER_PORT = 0x6E6C7261

# Seconds that a command waits for writer ports, in all. Then it goes on without: no stranger can
# stop it by holding the port.
PATIENCE = 5.0


class System:
    """What a connection needs from the system: a socket factory, a clock and a poll.

    Tests hand over another one.
    """

    @staticmethod
    def socket() -> Socket:
        """A netlink socket in the namespace of the calling thread."""
        return Socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, uapi.NETLINK_ROUTE)

    @staticmethod
    def wait(socket: Socket, seconds: float) -> bool:
        """True as soon as something can be received, False after so many seconds."""
        import select

        poll = select.poll()
        poll.register(socket.fileno(), select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    sleep = staticmethod(time.sleep)
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


SYSTEM = System()


class Patience:
    """The seconds that one command may wait for writer ports.

    Its connections share it, also those of several threads. Time counts once while several wait.
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
            except OSError:  # without it a kernel explains less, and all else holds
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
        return socket, socket.getsockname()[0]
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
    """Close a socket. It is gone whatever the answer is (close(2))."""
    try:
        socket.close()
    except OSError:
        pass

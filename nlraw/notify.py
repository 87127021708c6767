# SPDX-License-Identifier: Apache-2.0
"""Notify the service manager that started this process (sd_notify(3), sd_watchdog_enabled(3)).

A message is one datagram of lines ``NAME=value`` to the socket that NOTIFY_SOCKET names. Without
that variable, or with a kind of address other than a path and an abstract name, nothing is sent.
"""

import os
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping, Optional

# The most seconds to wait for a manager that does not read. The service does nothing else then.
# READY=1 is worth more: without it the manager ends the service. A lost status is sent again when
# it changes.
PATIENCE, FOR_READY, FOR_STATUS = 0.1, 1.0, 0.0


class Manager:
    """The service manager, by the variables of the environment.

    ``address`` is that of its socket, None if it wants no messages. ``watchdog`` is the number of
    seconds between two calls of `alive`: half of the time after which the manager ends the service;
    None if it has no watchdog. A method returns True if the message was sent.
    """

    __slots__ = ("address", "watchdog")

    def __init__(self, environment: "Mapping[bytes, bytes]" = os.environb) -> None:
        name = environment.get(b"NOTIFY_SOCKET", b"")
        self.address: Optional[bytes] = None
        if name[:1] in (b"/", b"@") and len(name) > 1:
            self.address = b"\0" + name[1:] if name[:1] == b"@" else name
        self.watchdog: Optional[float] = None
        usec = _number(environment.get(b"WATCHDOG_USEC", b""))
        pid = environment.get(b"WATCHDOG_PID")
        if self.address and usec and (pid is None or _number(pid) == os.getpid()):
            self.watchdog = usec / 2e6

    def ready(self, status: str) -> bool:
        """The service has started, or has ended a reload."""
        return self._send("READY=1", _status(status), patience=FOR_READY)

    def status(self, status: str) -> bool:
        """Show a line of text in `systemctl status`."""
        return self._send(_status(status), patience=FOR_STATUS)

    def alive(self) -> bool:
        """The service is alive: keep the watchdog from ending it."""
        return self._send("WATCHDOG=1")

    def reloading(self) -> bool:
        """The service begins a reload; `ready` ends it."""
        return self._send("RELOADING=1", "MONOTONIC_USEC=%d" % (time.monotonic() * 1e6))

    def stopping(self) -> bool:
        """The service has begun to end."""
        return self._send("STOPPING=1")

    def _send(self, *lines: str, patience: float = PATIENCE) -> bool:
        if self.address is None:
            return False
        try:
            sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
            try:
                sender.settimeout(patience)
                sender.sendto("\n".join(lines).encode("ascii"), self.address)
            finally:
                sender.close()
        except OSError:  # the manager itself reports that it got no message
            return False
        return True


def _number(text: bytes) -> int:
    """A decimal number of at most 64 bits; 0 if it is none."""
    return int(text) if text.isdigit() and len(text) < 20 else 0


def _status(text: str) -> str:
    """The status in printable ASCII, so that it stays one line."""
    return "STATUS=" + "".join([char if " " <= char <= "~" else "?" for char in text])

# SPDX-License-Identifier: Apache-2.0
"""A system log of a test's own, and streams that lead to the journal.

Log         a socket, and what runs a command where it is /dev/log
IN_JOURNAL  runs a command that takes its stderr for the journal's, as a service of systemd does
"""

import re
import socket

from lib.command import MODULE

# LOG_DAEMON with LOG_ERR, LOG_WARNING, LOG_NOTICE (sys/syslog.h)
ERROR, WARNING, NOTICE = 27, 28, 29

IN_JOURNAL = [
    "sh",
    "-c",
    'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"',
    "sh",
]

# PyPy reads its random bytes in /dev/urandom.
FURNISH = "mount -t tmpfs tmpfs /dev && mknod /dev/urandom c 1 9"
FURNISH += ' && ln -s "$0" /dev/log && exec "$@"'


class Log:
    """A log socket at a path. ``before`` runs a command in a mount namespace with it as /dev/log.

    ``argv`` is that of nlraw there.
    """

    def __init__(self, path):
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.setblocking(False)
        unshare = ["unshare", "--mount", "--propagation", "private"]
        self.before = unshare + ["sh", "-c", FURNISH, path]
        self.argv = self.before + list(MODULE)

    def lines(self):
        """The messages since the last call, without time and process ID."""
        found = []
        while True:
            try:
                line = self._socket.recv(65536).decode("ascii")
            except BlockingIOError:
                return found
            priority, text = re.fullmatch(r"<(\d+)>.{15} nlraw\[\d+\]: (.*)", line).groups()
            found.append((int(priority), text))

    def fill(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                while True:
                    sender.sendto(b"x", self.path)
            except BlockingIOError:
                pass

    def close(self):
        self._socket.close()

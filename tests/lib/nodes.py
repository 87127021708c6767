# SPDX-License-Identifier: Apache-2.0
"""Made-up nodes to sweep: directories with namespaces pinned in them.

They are furnished without iproute2, because many of them are needed.
"""

import contextlib
import os

import nlraw.netns
from lib import taps
from nlraw import link
from nlraw.connection import Connection

MS_BIND = 4096
MNT_DETACH = 2


class Node:
    """A directory of namespaces, made and pinned as a container runtime does it."""

    def __init__(self, directory):
        self.directory = str(directory)
        import ctypes

        self._libc = ctypes.CDLL(None, use_errno=True)
        self._errno = ctypes.get_errno

    def path(self, name):
        return os.path.join(self.directory, name)

    def pin(self, name, source):
        """Bind-mount a namespace onto a file of the directory; return the file's path."""
        path = self.path(name)
        open(path, "w").close()
        if self._libc.mount(os.fsencode(source), os.fsencode(path), None, MS_BIND, None) != 0:
            raise OSError(self._errno(), "mount")
        return path

    def unpin(self, path):
        if self._libc.umount2(os.fsencode(path), MNT_DETACH) != 0:
            raise OSError(self._errno(), "umount")

    def add(self, name, orphans=1, fresh=False, uplink="eth0"):
        """Make a namespace with an uplink and orphans; return its path."""
        with nlraw.netns.create() as namespace:
            furnish(namespace, ["tap%d_urunc" % number for number in range(orphans)], fresh, uplink)
            return self.pin(name, "/proc/self/fd/%d" % namespace.fileno())

    def add_many(self, count, **options):
        return [self.add("pod%d" % number, **options) for number in range(count)]

    def close(self):
        for name in os.listdir(self.directory):
            with contextlib.suppress(OSError):
                self.unpin(self.path(name))


def furnish(namespace, names, fresh=False, uplink="eth0"):
    """Put an uplink and orphans into a namespace."""
    with Connection(namespace) as connection:
        connection.change(link.create_veth(uplink, "peer0"))[0].answer()
    add_orphans(namespace, names, fresh)


def add_orphans(namespace, names, fresh=False):
    """Make TAPs that nobody holds, and unless ``fresh`` somebody has held once."""

    def make():
        for name in names:
            taps.make(name)
            if not fresh:
                taps.leave(name)

    namespace.run(make)

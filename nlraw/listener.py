# SPDX-License-Identifier: Apache-2.0
"""Hear the link events of many network namespaces, and look at them, without entering one.

The kernel delivers events of each namespace that has an ID in the listener's own
(NETLINK_LISTEN_ALL_NSID). It may assign the ID of a dead namespace to another one at once. So the
listener makes a network namespace of its own, a room, where nobody else assigns IDs. There they
come from a counter, and no ID is used twice. Neither an ID nor a socket in a room keeps another
namespace alive. Rooms end with the process. Source: netlink(7), net/core/net_namespace.c.
"""

import errno
from _socket import MSG_DONTWAIT, SO_RCVBUF, SOL_SOCKET
from _struct import Struct
from array import array

from . import bpf, link, netns, nsid, uapi, wire
from .connection import Connection
from .errors import Error, Refused, refused
from .netns import Namespace
from .transport import SYSTEM, Allowance, close_socket
from .verdict import ORPHAN, judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket
    from typing import Dict, Iterable, List, Optional, Sequence, Tuple

    from .exchange import Request
    from .known import Fall, Key, Known
    from .verdict import Target

# Bytes of a receive buffer; the kernel doubles the number. It charges about 2 KiB for an event.
RECEIVE_BUFFER = 4 << 20

# The most bytes of a list of one namespace's TUN devices. If it has more, it has to be visited.
BYTES = 256 << 10

# Bytes of an event that are read: only the ID of its namespace counts.
_HEAD = 16

_s32 = Struct("=i")
_sock_fprog = Struct("@HP")  # len, filter: linux/filter.h
_ANCILLARY = 64


class Room:
    """A network namespace in which others have IDs. None of its devices is in use."""

    __slots__ = ("namespace", "connection")

    def __init__(self) -> None:
        self.namespace = netns.create()
        self.namespace.path = "the agent's own namespace"
        self.connection = Connection(self.namespace)

    def socket(self, group: int, hears_all: bool = False, program: bytes = b"") -> "Socket":
        """Open a socket for events, non-blocking, with a filter if there is a program."""

        def inside() -> "Socket":
            opened = SYSTEM.socket()
            try:
                if program:
                    attach(opened, program)
                _enlarge(opened)
                if hears_all:
                    opened.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_LISTEN_ALL_NSID, 1)
                # after the filter is attached: no other event may arrive
                opened.bind((0, 1 << (group - 1)))
                return opened
            except BaseException:
                close_socket(opened)
                raise

        try:
            return self.namespace.run(inside)
        except OSError as error:
            if isinstance(error, Error):
                raise
            remedies = {errno.EPERM: "it takes CAP_NET_BROADCAST"} if hears_all else None
            raise refused(error, "listen to all namespaces", None, remedies) from None

    def assign(self, id: int, namespace: Namespace) -> int:
        """Assign this ID to a namespace; return its ID: an older one if it has one already."""
        request = nsid.assign(id, namespace.fileno(), namespace.path)
        (reply,) = self.connection.change(request)
        if reply.error is None:
            return id
        if reply.error.errno != errno.EEXIST:
            raise reply.error
        (reply,) = self.connection.ask(nsid.get(namespace.fileno(), namespace.path))
        number = nsid.only(reply).number
        if number is None:  # the ID was another namespace's
            raise Refused(errno.EEXIST, "", "assign ID to", namespace.path)
        return number

    def close(self) -> None:
        self.connection.close()
        self.namespace.close()


class _Look:
    """The last look at a namespace. Most looks see what the last one saw, byte for byte."""

    __slots__ = ("request", "digest", "taps")

    def __init__(self, request: "Request") -> None:
        self.request = request
        self.digest: Optional[int] = None
        self.taps: Dict[Fall, bool] = {}


def attach(socket: "Socket", program: bytes) -> None:
    """Attach a socket filter, an array of struct sock_filter."""
    code = array("B", program)
    address, _ = code.buffer_info()
    fprog = _sock_fprog.pack(len(program) // uapi.sock_filter.size, address)
    socket.setsockopt(SOL_SOCKET, uapi.SO_ATTACH_FILTER, fprog)


def _enlarge(socket: "Socket") -> None:
    try:
        socket.setsockopt(SOL_SOCKET, uapi.SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except OSError:  # it takes CAP_NET_ADMIN in the initial user namespace
        socket.setsockopt(SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER)


class Listener:
    """Events and looks by ID. For one thread, and one more that calls `look`.

    ``events`` is the socket for link events, ``ends`` the one for the ends of namespaces; poll
    both. If the process may not listen to other namespaces, ``events`` is None, and ``deafness`` is
    the reason.
    """

    def __init__(self, target: "Target") -> None:
        self._target = target
        self._program = bpf.program(target.match, fresh=not target.spare_fresh)
        self._room = Room()
        # assigning IDs must not wait for a look
        self._eyes = Connection(self._room.namespace, allowance=Allowance(bytes=BYTES))
        self._looks: Dict[int, _Look] = {}
        self._next: Optional[Tuple[Room, Socket, List[Known]]] = None
        self._heard: Optional[Room] = None  # the room of the event socket, if it is another
        self.events: Optional[Socket] = None
        self.deafness: Optional[Refused] = None
        try:
            self.ends = self._room.socket(uapi.RTNLGRP_NSID)
            try:
                self.events = self._listen(self._room)
            except Refused as error:
                if error.errno != errno.EPERM:
                    raise
                self.deafness = error
        except BaseException:
            self._room.close()
            raise

    def _listen(self, room: Room) -> "Socket":
        return room.socket(1, hears_all=True, program=self._program)

    # ------------------------------------------------------------ IDs

    def assign(self, id: int, path: str) -> "Tuple[int, Key]":
        """Assign this ID to the namespace at a path; return its ID as `Room.assign`, and its key.

        From now on its events are heard. Raises `BadNamespace` if there is none, or `Refused`.
        """
        with Namespace(path) as namespace:
            number = self._room.assign(id, namespace)
            for room in self._other_rooms():
                room.assign(number, namespace)
            return number, namespace.identity()

    def begin_move(self, known: "Iterable[Known]") -> None:
        """Begin to listen to these namespaces alone; `move` continues it. Raises `Refused`.

        A socket cannot exclude one namespace. So this makes another room with another socket, in
        which only these namespaces get IDs. Until all have one, events come from the former socket.
        Looks always use the first room.
        """
        self._end_move()
        room = Room()
        try:
            self._next = (room, self._listen(room), list(known))
        except BaseException:
            room.close()
            raise

    @property
    def is_moving(self) -> bool:
        """True from `begin_move` until `move` returns True."""
        return self._next is not None

    def move(self, most: int) -> bool:
        """Assign IDs to at most ``most`` more namespaces; return True if the move ends with it.

        Then the events that were not read from the former socket are lost.
        """
        if self._next is None:
            return False
        room, events, left = self._next
        for _ in range(min(most, len(left))):
            _assign_in(room, left.pop())
        if left:
            return False
        self._next = None
        self._close_events()
        self._heard = room
        self.events = events
        return True

    def listen_again(self, known: "Known") -> None:
        """Listen to one more namespace, after a move left it out."""
        for room in self._other_rooms():
            _assign_in(room, known)

    def _other_rooms(self) -> "List[Room]":
        rooms = [] if self._heard is None else [self._heard]
        return rooms if self._next is None else rooms + [self._next[0]]

    def _end_move(self) -> None:
        if self._next is not None:
            close_socket(self._next[1])
            self._next[0].close()
            self._next = None

    # ------------------------------------------------------------ events

    def read_events(self, most: int) -> "Tuple[Dict[int, int], bool]":
        """Read at most ``most`` events; return their number by ID, and True if some were lost."""
        counts: Dict[int, int] = {}
        is_lossy = False
        if self.events is None:
            return counts, is_lossy
        receive = self.events.recvmsg
        for _ in range(most):
            try:
                _, ancillary, _, sender = receive(_HEAD, _ANCILLARY, MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise refused(error, "receive events") from None
                is_lossy = True
                continue
            if ancillary and sender[0] == 0:  # from the kernel
                (id,) = _s32.unpack_from(ancillary[0][2])
                counts[id] = counts.get(id, 0) + 1
        return counts, is_lossy

    def read_ends(self) -> "Tuple[List[int], bool]":
        """Return the IDs of namespaces that have died, and True if some may be missing."""
        gone: List[int] = []
        is_lossy = False
        while True:
            try:
                datagram, sender = self.ends.recvfrom(4096, MSG_DONTWAIT)
            except BlockingIOError:
                return gone, is_lossy
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise refused(error, "receive events") from None
                is_lossy = True
                continue
            if sender[0] == 0:
                for found in nsid.nsids(wire.messages(datagram)):
                    if found.is_deleted and found.number is not None:
                        gone.append(found.number)

    # ------------------------------------------------------------ looks

    def look(self, id: int) -> "Dict[Fall, bool]":
        """Return the matching TAPs of a namespace; True for an orphan that is not spared.

        Raises `Refused` with EINVAL if no namespace has the ID, and `Error` if the list is too
        long or cannot be read.
        """
        last = self._looks.get(id)
        if last is None:
            last = self._looks[id] = _Look(link.dump("tun", complete=True, nsid=id))
        self._eyes.begin_look()
        (reply,) = self._eyes.ask(last.request)
        answer = reply.answer()
        digest = hash(tuple([data[start:end] for _, _, _, _, data, start, end in answer]))
        if digest != last.digest:
            last.taps = self._judged(answer)
            last.digest = digest
        return last.taps

    def _judged(self, answer: "Sequence[wire.Message]") -> "Dict[Fall, bool]":
        found = {}
        for each in link.links(answer):
            verdict = judge(each)
            if verdict is not None and self._target.fits(each.ifname):
                fall = (each.ifindex, each.carrier_down_count or 0)
                found[fall] = verdict == ORPHAN and not self._target.spares(each)
        return found

    def forget(self, id: int) -> None:
        """Forget what the last look at this ID saw."""
        self._looks.pop(id, None)

    # ------------------------------------------------------------ the end

    def _close_events(self) -> None:
        if self.events is not None:
            close_socket(self.events)
            self.events = None
        if self._heard is not None:
            self._heard.close()
            self._heard = None

    def close(self) -> None:
        self._end_move()
        self._close_events()
        close_socket(self.ends)
        self._eyes.close()
        self._room.close()


def _assign_in(room: Room, known: "Known") -> None:
    """Give a namespace its ID in one more room, if it is still there."""
    try:
        with open_known(known.path, known.key) as namespace:
            room.assign(known.id, namespace)
    except Error:  # it is gone; if it is not, looks still find what happens there
        pass


def open_known(path: str, key: "Key") -> Namespace:
    """Open the namespace at a path if it is still the one with this device and inode."""
    namespace = Namespace(path)
    try:
        if namespace.identity() != key:
            words = "another namespace is there by now"
            raise Refused(errno.ENOENT, words, netns.OPEN, path)
    except BaseException:
        namespace.close()
        raise
    return namespace

# SPDX-License-Identifier: Apache-2.0
"""One datagram of requests and the replies that answer them: the conversation, without the socket.

`Exchange` is fed the datagrams that arrive and sorts their messages to the requests by sequence number. It
does not know what a link is, nor where datagrams come from. An answer ends

    a dump                   with DONE, or with an ERROR in its midst
    a request with NLM_F_ACK with the ERROR that is its ACK (errno 0) or its refusal
    any other request        with its one message, or with an ERROR

Messages for other ports and other sequence numbers are somebody else's, or late: skipped.
Sources: linux/netlink.h; netlink_dump(), netlink_ack() in net/netlink/af_netlink.c.
"""

import errno
from struct import Struct

from . import uapi, wire
from .errors import Lost, Malformed, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Sequence, Tuple

_s32 = Struct("=i")

_DUMP_INTR, _MULTI = uapi.NLM_F_DUMP_INTR, uapi.NLM_F_MULTI

_CONTROL = frozenset((uapi.NLMSG_NOOP, uapi.NLMSG_ERROR, uapi.NLMSG_DONE, uapi.NLMSG_OVERRUN))

# The answer to a request with one of these flags does not end with its first message.
_ENDS_OTHERWISE = uapi.NLM_F_ACK | uapi.NLM_F_DUMP

# include/linux/err.h; os.strerror() overflows on the least number that four bytes hold.
_MAX_ERRNO = 4095


class Request:
    """What is asked of the kernel, and in which words it is told to a person (``step``, ``object``).

    ``fixed`` is the size of the family's fixed part, where the attributes of ``payload`` begin.
    """

    __slots__ = ("type", "flags", "payload", "fixed", "step", "object")

    def __init__(self, type: int, flags: int, payload: bytes, fixed: int, step: str, object: str) -> None:
        self.type = type
        self.flags = flags | uapi.NLM_F_REQUEST
        self.payload = payload
        self.fixed = fixed
        self.step = step
        self.object = object

    @property
    def dumps(self) -> bool:
        return self.flags & uapi.NLM_F_DUMP == uapi.NLM_F_DUMP

    def numbered(self, sequence: int) -> bytes:
        """The message to send."""
        return wire.message(self.type, self.flags, sequence, self.payload)

    def __repr__(self) -> str:
        return "Request(%s %s: type=%d, flags=%#x, payload=%s)" % (
            self.step,
            self.object,
            self.type,
            self.flags,
            self.payload.hex(),
        )


class Reply:
    """What came back for one request.

    ``messages`` are its answers in order, ``error`` the refusal (or None). ``interrupted`` tells that the list changed
    while the kernel wrote it: it may be torn and must not be acted on.
    """

    __slots__ = ("request", "messages", "error", "interrupted")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.messages: List[wire.Message] = []
        self.error: Optional[Refused] = None
        self.interrupted = False

    def answer(self) -> "List[wire.Message]":
        """The messages, or raise the refusal."""
        if self.error is not None:
            raise self.error
        return self.messages


class Exchange:
    """Requests that travel in one datagram, numbered from ``sequence`` on, sent from ``port``, until all are ``finished``."""

    __slots__ = ("replies", "finished", "_port", "_waiting")

    def __init__(self, requests: "Sequence[Request]", port: int, sequence: int) -> None:
        self.replies: List[Reply] = []
        self.finished = not requests
        self._port = port
        self._waiting: Dict[int, Reply] = {}
        for request in requests:
            reply = self._waiting[sequence & 0xFFFFFFFF] = Reply(request)
            self.replies.append(reply)
            sequence += 1

    def datagram(self) -> bytes:
        """The bytes to send."""
        return b"".join([reply.request.numbered(sequence) for sequence, reply in self._waiting.items()])

    def receive(self, datagram: bytes) -> bool:
        """Take one datagram of the kernel's; tell whether any of it was for us.

        Raises `Malformed` for bytes that break their layout and `Lost` for NLMSG_OVERRUN; the conversation ends with either.
        """
        ours = False
        waiting, port = self._waiting, self._port
        for message in wire.messages(datagram):
            type, flags, sequence, recipient, _, _, _ = message
            reply = waiting.get(sequence)
            if reply is None or recipient != port:
                continue
            ours = True
            if flags & _DUMP_INTR:
                reply.interrupted = True
            if type in _CONTROL:
                if not _ends(reply, message):
                    continue
            else:
                reply.messages.append(message)
                if flags & _MULTI or reply.request.flags & _ENDS_OTHERWISE:
                    continue
            del waiting[sequence]
        self.finished = not waiting
        return ours


def _ends(reply: Reply, message: "wire.Message") -> bool:
    """Take what tells of the conversation itself; tell whether it was the last message of the reply."""
    type, _, _, _, data, start, end = message
    request = reply.request
    if type == uapi.NLMSG_NOOP:
        return False
    if type == uapi.NLMSG_OVERRUN:
        raise Lost(errno.ENOBUFS, "the kernel reports lost data (NLMSG_OVERRUN)", request.step, request.object)
    if type == uapi.NLMSG_ERROR or end - start >= _s32.size:  # a kernel may leave the number out of a DONE
        (code,) = wire.fixed(_s32, data, (start, end))
        if code != 0:
            reply.error = _refusal(request, message, code)
            return True
    return type == uapi.NLMSG_DONE or not request.dumps


def _refusal(request: Request, message: "wire.Message", code: int) -> Refused:
    """The refusal that an ERROR or DONE carries."""
    type, flags, _, _, data, start, end = message
    if not -_MAX_ERRNO <= code < 0:
        raise Malformed("%d is no error number" % code, start)
    words = ""
    attribute: Tuple[int, ...] = ()
    if flags & uapi.NLM_F_ACK_TLVS:
        told = wire.Row(data, _extended_ack(type, flags, data, (start, end)), end)
        words = told.string(uapi.NLMSGERR_ATTR_MSG) or ""
        offset = told.u32(uapi.NLMSGERR_ATTR_OFFS)
        if offset is not None:
            attribute = wire.path(request.payload, request.fixed, len(request.payload), offset - uapi.nlmsghdr.size)
    return Refused(-code, words, request.step, request.object, attribute)


def _extended_ack(type: int, flags: int, data: bytes, span: "wire.Span") -> int:
    """Where the attributes of the extended ACK begin.

    | DONE:  errno | attributes      ERROR: errno | nlmsghdr of the request | its payload, unless capped | attributes |
    """
    start, end = span
    at = start + _s32.size
    if type == uapi.NLMSG_DONE:
        return at
    if flags & uapi.NLM_F_CAPPED:
        return at + uapi.nlmsghdr.size
    length = wire.fixed(uapi.nlmsghdr, data, (at, end))[0]
    if length < uapi.nlmsghdr.size or length > end - at:
        raise Malformed("the request in an ERROR claims %d bytes" % length, at)
    return at + wire.align(length)

# SPDX-License-Identifier: Apache-2.0
"""Requests that are sent in one datagram, and their replies. No system calls.

`Exchange` is given datagrams, and assigns their messages to the requests by sequence number. It
does not know the message families, nor where datagrams come from. The last message of a reply is

    to a dump                    a DONE, or an ERROR with an errno
    to a request with NLM_F_ACK  an ERROR: the ACK (errno 0), or the refusal
    to any other request         its one message, or an ERROR

Messages with another port or sequence number are events, or late answers. They are skipped.
Sources: linux/netlink.h; netlink_dump(), netlink_ack() in net/netlink/af_netlink.c.
"""

import errno
from _struct import Struct

from . import uapi, wire
from .errors import Lost, Malformed, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Sequence, Tuple

_s32 = Struct("=i")

_DUMP_INTR, _MULTI = uapi.NLM_F_DUMP_INTR, uapi.NLM_F_MULTI

_CONTROL = frozenset((uapi.NLMSG_NOOP, uapi.NLMSG_ERROR, uapi.NLMSG_DONE, uapi.NLMSG_OVERRUN))

# The reply to a request with one of these flags goes on after its first message.
_GOES_ON = uapi.NLM_F_ACK | uapi.NLM_F_DUMP

# The largest errno (include/linux/err.h). posix.strerror() raises OverflowError from 2**31 on.
_MAX_ERRNO = 4095


class Request:
    """One request. ``step`` and ``object`` describe it in errors: "delete link", "tap0_urunc".

    ``payload`` is the family's fixed part, of ``fixed`` bytes, and the attributes.
    """

    __slots__ = ("type", "flags", "payload", "fixed", "step", "object")

    def __init__(
        self, type: int, flags: int, payload: bytes, fixed: int, step: str, object: str
    ) -> None:
        self.type = type
        self.flags = flags | uapi.NLM_F_REQUEST
        self.payload = payload
        self.fixed = fixed
        self.step = step
        self.object = object

    @property
    def is_dump(self) -> bool:
        """True if the request is for a list."""
        return self.flags & uapi.NLM_F_DUMP == uapi.NLM_F_DUMP

    def numbered(self, sequence: int) -> bytes:
        """Build the message to send."""
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
    """The reply to one request.

    ``messages`` are its messages in order, without control messages. ``error`` is the refusal, or
    None. ``interrupted`` is True if the list changed while the kernel wrote it: the list may be
    incomplete, and must not be used.
    """

    __slots__ = ("request", "messages", "error", "interrupted")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.messages: List[wire.Message] = []
        self.error: Optional[Refused] = None
        self.interrupted = False

    def answer(self) -> "List[wire.Message]":
        """Return the messages, or raise the refusal."""
        if self.error is not None:
            raise self.error
        return self.messages


class Exchange:
    """Requests that are sent in one datagram from ``port``, numbered from ``sequence`` on.

    ``replies`` has one reply per request. ``is_finished`` is True when all of them are complete.
    ``received`` counts messages.
    """

    __slots__ = ("replies", "is_finished", "received", "_port", "_waiting")

    def __init__(self, requests: "Sequence[Request]", port: int, sequence: int) -> None:
        self.replies: List[Reply] = []
        self.is_finished = not requests
        self.received = 0
        self._port = port
        self._waiting: Dict[int, Reply] = {}
        for request in requests:
            reply = self._waiting[sequence & 0xFFFFFFFF] = Reply(request)
            self.replies.append(reply)
            sequence += 1

    def datagram(self) -> bytes:
        """Build the datagram to send."""
        waiting = self._waiting.items()
        return b"".join([reply.request.numbered(sequence) for sequence, reply in waiting])

    def receive(self, datagram: bytes) -> bool:
        """Read one datagram from the kernel; return True if a message in it answers a request.

        Raises `Malformed` for bytes that break their layout, and `Lost` for NLMSG_OVERRUN. After
        either, this exchange cannot go on.
        """
        ours = False
        waiting, port = self._waiting, self._port
        messages = wire.messages(datagram)
        self.received += len(messages)
        for message in messages:
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
                if flags & _MULTI or reply.request.flags & _GOES_ON:
                    continue
            del waiting[sequence]
        self.is_finished = not waiting
        return ours


def _ends(reply: Reply, message: "wire.Message") -> bool:
    """Handle a control message; return True if it ends the reply."""
    type, _, _, _, data, start, end = message
    request = reply.request
    if type == uapi.NLMSG_NOOP:
        return False
    if type == uapi.NLMSG_OVERRUN:
        words = "the kernel reports lost data (NLMSG_OVERRUN)"
        raise Lost(errno.ENOBUFS, words, request.step, request.object)
    if type == uapi.NLMSG_ERROR or end - start >= _s32.size:  # some kernels send DONE without errno
        (code,) = wire.fixed(_s32, data, (start, end))
        if code != 0:
            reply.error = _refusal(request, message, code)
            return True
    return type == uapi.NLMSG_DONE or not request.is_dump


def _refusal(request: Request, message: "wire.Message", code: int) -> Refused:
    """Decode the refusal in an ERROR or DONE. ``code`` is the negative errno."""
    type, flags, _, _, data, start, end = message
    if not -_MAX_ERRNO <= code < 0:
        raise Malformed("%d is not an error number" % code, start)
    words = ""
    path: Tuple[int, ...] = ()
    if flags & uapi.NLM_F_ACK_TLVS:
        extended = wire.Attributes(data, _extended_ack(type, flags, data, (start, end)), end)
        words = extended.string(uapi.NLMSGERR_ATTR_MSG) or ""
        offset = extended.u32(uapi.NLMSGERR_ATTR_OFFS)  # from the start of the request's header
        if offset is not None:
            at = offset - uapi.nlmsghdr.size
            path = wire.path(request.payload, request.fixed, len(request.payload), at)
    return Refused(-code, words, request.step, request.object, path)


def _extended_ack(type: int, flags: int, data: bytes, span: "wire.Span") -> int:
    """The offset of the extended ACK's attributes.

    DONE   | errno | attributes |
    ERROR  | errno | nlmsghdr of the request | its payload, unless capped | attributes |
    """
    start, end = span
    at = start + _s32.size
    if type == uapi.NLMSG_DONE:
        return at
    if flags & uapi.NLM_F_CAPPED:
        return at + uapi.nlmsghdr.size
    length = wire.fixed(uapi.nlmsghdr, data, (at, end))[0]
    if length < uapi.nlmsghdr.size or length > end - at:
        raise Malformed("the request quoted in an ERROR has a length of %d bytes" % length, at)
    return at + wire.align(length)

# SPDX-License-Identifier: Apache-2.0
"""Everything that can go wrong.

    Malformed                 bytes that the kernel cannot have sent
    Refused                   the kernel refused a request or a system call
    Lost, DumpInterrupted     the kernel's answer did not arrive, or is not usable
    TooMuch                   a namespace holds more than nlraw reads
    Invalid, BadNamespace     the caller asked for something impossible
    TapInUse                  a matching TAP is in use

An error has the step, the object, then the reason: the kernel's own words first.
"""

import errno
from errno import errorcode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping, Optional, Tuple, Type

# No object has this path, process ID, index or handle. ELOOP: symbolic links in a circle.
GONE = frozenset((errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.ENOTDIR, errno.ELOOP))

# What to do about a file that cannot be created.
UNWRITABLE = {
    errno.ENOENT: "make its directory first",
    errno.EACCES: "choose a place where this user may write",
}


class Error(Exception):
    """Base of every error that nlraw raises.

    ``step`` names what was being done ("delete link") and ``object`` the thing it was done to
    ("tap0_urunc"); both may be None. ``message`` is the reason alone. ``report`` is the `Report` or
    `Setup` of the function that raised it, None for `Invalid`, and from `scan` and `sweep`.
    """

    errno: "Optional[int]" = None
    report: "Any" = None

    # How an object without characters is shown. A request about everything has no object.
    _empty = ""

    def __init__(
        self, message: str, step: "Optional[str]" = None, object: "Optional[str]" = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.step = step
        self.object = object

    def __str__(self) -> str:
        object = self._empty if self.object == "" else self.object
        doing = " ".join(part for part in (self.step, object) if part)
        return "%s: %s" % (doing, self.message) if doing else self.message


class Malformed(Error, ValueError):
    """Bytes that break the layout they claim; ``offset`` counts from the start of the datagram."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__("%s, at offset %d" % (message, offset), "parse", "netlink message")
        self.offset = offset


class Invalid(Error, ValueError):
    """An impossible argument: a name of over 15 bytes, a malformed address."""

    _empty = '""'


class BadNamespace(Error, ValueError):
    """The object is not a network namespace: a plain file, a mount namespace, a closed file."""


class Refused(Error, OSError):
    """The kernel refused a request or a system call; ``errno`` is the number.

    ``words`` are the kernel's own (the extended ACK), an explanation, or empty. ``attribute`` is
    the path of attribute types to the one that the kernel pointed at, such as ``(18, 1)``; empty if
    it pointed at none (linux/netlink.h, NLMSGERR_ATTR_OFFS).
    """

    def __init__(
        self,
        errno: int,
        words: str,
        step: "Optional[str]" = None,
        object: "Optional[str]" = None,
        attribute: "Tuple[int, ...]" = (),
    ) -> None:
        message = words or errorcode.get(errno, "errno %d" % errno)
        if attribute:
            message += " (attribute %s)" % ".".join(str(type) for type in attribute)
        OSError.__init__(self, errno, message)
        self.errno = errno
        self.message = message
        self.step = step
        self.object = object
        self.words = words
        self.attribute = attribute

    @property
    def is_gone(self) -> bool:
        """True if the reason of the refusal is that the object is not there."""
        return self.errno in GONE


class Lost(Refused):
    """The answer was lost or never came: it is unknown whether the request was carried out.

    ``errno`` is ``ENOBUFS`` (the receive buffer overran), ``EMSGSIZE`` (a datagram may not have fit
    its buffer) or ``ETIMEDOUT``.
    """


class DumpInterrupted(Error):
    """The kernel's list changed while it was read, at every attempt (NLM_F_DUMP_INTR)."""


class TooMuch(Error):
    """A namespace holds more than nlraw reads; the message names the limit."""


class TapInUse(Error):
    """A matching TAP is in use; nothing was changed. ``report`` lists the TAPs."""


def refused(
    error: OSError,
    step: "Optional[str]" = None,
    object: "Optional[str]" = None,
    remedies: "Optional[Mapping[int, str]]" = None,
    kind: "Type[Refused]" = Refused,
) -> Refused:
    """Convert the OSError of a system call; ``remedies`` are hints to add to some errnos."""
    number = error.errno or 0
    words = error.strerror or errorcode.get(number, "errno %d" % number)
    remedy = (remedies or {}).get(number)
    return kind(number, "%s; %s" % (words, remedy) if remedy else words, step, object)

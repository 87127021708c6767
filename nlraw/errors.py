# SPDX-License-Identifier: Apache-2.0
"""Everything that can go wrong.

Two families: bytes that cannot be what the kernel sends (`Malformed`), and what the kernel refused
(`Refused`) or never said (`Lost`, `Interrupted`). The rest is what the caller asked for (`Invalid`)
or what the policy forbids (`TapInUse`).

An error says what was being done (``step``) to what (``object``), and leads with the kernel's own words.
"""

from errno import errorcode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional, Tuple, Union

    from .report import Report, Setup


class Error(Exception):
    """Base of every error that nlraw raises.

    ``step`` names what was being done ("delete link") and ``object`` to what ("tap0_urunc"); both may be None.
    ``message`` is the reason alone. ``report`` is what a cleanup or setup had seen and done by then, if one was under way.
    """

    errno: "Optional[int]" = None
    report: "Union[Report, Setup, None]" = None

    def __init__(self, message: str, step: "Optional[str]" = None, object: "Optional[str]" = None) -> None:
        super().__init__(message)
        self.message = message
        self.step = step
        self.object = object

    def __str__(self) -> str:
        doing = " ".join(part for part in (self.step, self.object) if part)
        return "%s: %s" % (doing, self.message) if doing else self.message


class Malformed(Error, ValueError):
    """Bytes that break the layout they claim to have; ``offset`` counts from the start of the datagram."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__("%s, at offset %d" % (message, offset), "parse", "netlink message")
        self.offset = offset


class Invalid(Error, ValueError):
    """An argument that cannot be meant: a name of over 15 bytes, a malformed address."""


class BadNamespace(Error, ValueError):
    """What was named is no network namespace: a plain file, a mount namespace, an impossible PID."""


class Refused(Error, OSError):
    """The kernel refused a request or a system call; ``errno`` is its number.

    ``words`` are the kernel's own (the extended ACK), or empty. ``attribute`` is the path of attribute types to the one that
    the kernel pointed at, such as ``(18, 1)``; empty where it pointed at none (linux/netlink.h, NLMSGERR_ATTR_OFFS).
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


class Lost(Refused):
    """The answer was lost or never came: whether the request was carried out is not known.

    ``errno`` is ``ENOBUFS`` (the receive buffer overran), ``EMSGSIZE`` (a datagram may not have fit its buffer) or ``ETIMEDOUT``.
    """


class Interrupted(Error):
    """The kernel's list changed while it was read, every time it was asked for (NLM_F_DUMP_INTR)."""


class TapInUse(Error):
    """A matching TAP is in use; nothing was changed. ``report`` says which one."""

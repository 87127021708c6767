# SPDX-License-Identifier: Apache-2.0
"""Remove orphan TAPs from the network namespaces of sandboxed containers, by carrier state alone.

    scan, cleanup, setup, sweep      the work
    Tap, Report, Setup, Sweep, ...   what they return
    Error and its subclasses         what they raise

The layers below are public too:

    wire, exchange                   bytes, messages, and the replies to a request; no system call
    link, tc, inet                   the messages that nlraw knows; no system call
    verdict, plan                    what is an orphan, and what is deleted with it; no system call
    netns, connection, tap           the kernel: namespaces, a netlink socket inside one, a TAP
    removal, provision, node         cleanup, setup and sweep, which return reports with an error
"""

import sys

from .errors import (
    BadNamespace,
    DumpInterrupted,
    Error,
    Invalid,
    Lost,
    Malformed,
    Refused,
    TapInUse,
)
from .report import CreatedTap, Report, Setup, Sweep, Tap, TcObject, Totals, Uplink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .node import sweep
    from .pod import cleanup, scan
    from .provision import setup

__version__ = "0.1.0"

__all__ = [
    "BadNamespace",
    "CreatedTap",
    "DumpInterrupted",
    "Error",
    "Invalid",
    "Lost",
    "Malformed",
    "Refused",
    "Report",
    "Setup",
    "Sweep",
    "Tap",
    "TapInUse",
    "TcObject",
    "Totals",
    "Uplink",
    "cleanup",
    "scan",
    "setup",
    "sweep",
]


def __getattr__(name: str) -> object:
    """Import a function when it is first used, because most programs use one of them (PEP 562)."""
    found: object
    if name in ("cleanup", "scan"):
        from . import pod

        found = getattr(pod, name)
    elif name == "setup":
        from . import provision

        found = provision.setup
    elif name == "sweep":
        from . import node

        found = node.sweep
    else:
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    globals()[name] = found
    return found


if sys.version_info < (3, 7):  # without PEP 562
    for _name in __all__:
        globals().get(_name) or __getattr__(_name)

# SPDX-License-Identifier: Apache-2.0
"""Remove orphan TAPs from the network namespaces of sandboxed containers.

    scan, cleanup, setup, sweep, watch    the functions
    Tap, Report, Setup, Sweep ...         what they return
    Error and its subclasses              what they raise

Where to look:

    verdict     is a link an orphan?                       no system call
    plan        what is deleted with it, in which order    no system call
    removal     look, plan, confirm, send, settle
    uapi, link, tc, inet    a message: its numbers, its request, its decoded reply
    wire        the lengths in a datagram are checked here
    connection  the sender of a datagram, and whether an answer is truncated, are checked here
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

    from .agent import watch
    from .errors import (
        BadNamespace,
        DumpInterrupted,
        Error,
        Invalid,
        Lost,
        Malformed,
        Refused,
        TapInUse,
        TooMuch,
    )
    from .guest import (
        CreatedTap,
        GuestAddress,
        GuestNeighbour,
        GuestRoute,
        NextHop,
        Pair,
        Setup,
        Uplink,
    )
    from .node import Sweep, Totals, sweep
    from .pod import cleanup, scan
    from .provision import setup
    from .report import Report, Tap, TcObject

__version__ = "0.2.0"

__all__ = [
    "BadNamespace",
    "CreatedTap",
    "DumpInterrupted",
    "Error",
    "GuestAddress",
    "GuestNeighbour",
    "GuestRoute",
    "Invalid",
    "Lost",
    "Malformed",
    "NextHop",
    "Pair",
    "Refused",
    "Report",
    "Setup",
    "Sweep",
    "Tap",
    "TapInUse",
    "TcObject",
    "TooMuch",
    "Totals",
    "Uplink",
    "cleanup",
    "scan",
    "setup",
    "sweep",
    "watch",
]

# The modules of functions, and of what they return; all other names are in one of `_OTHERS`.
_MODULES = {
    "Sweep": "node",
    "Totals": "node",
    "cleanup": "pod",
    "scan": "pod",
    "setup": "provision",
    "sweep": "node",
    "watch": "agent",
}
_OTHERS = ("errors", "report", "guest")


def __getattr__(name: str) -> object:
    """Import a name when it is first used: most programs use few of them (PEP 562)."""
    if name not in __all__:
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    for module in [_MODULES[name]] if name in _MODULES else _OTHERS:
        home = __import__("%s.%s" % (__name__, module), fromlist=[name])
        if hasattr(home, name):
            break
    found: object = getattr(home, name)
    globals()[name] = found
    return found


if sys.version_info < (3, 7):  # without PEP 562

    def watch(*arguments: "Any", **named: "Any") -> "Iterator[Report]":
        """Import and call `nlraw.agent.watch`: it needs much that no other function does."""
        from . import agent

        return agent.watch(*arguments, **named)

    for _name in __all__:
        globals().get(_name) or __getattr__(_name)

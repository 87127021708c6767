# SPDX-License-Identifier: Apache-2.0
"""Remove orphan TAPs from the network namespaces of sandboxed containers.

    scan, cleanup, setup, sweep, watch    the functions
    Tap, Report, Setup, Sweep ...         what they return
    Error and its subclasses              what they raise

Where to look:

    the policy      verdict: is a link an orphan? plan: what is deleted with it, in which order
    a removal       pod: one namespace. removal: look, plan, confirm, send, settle. node: a sweep
    the watch       agenda: which namespaces are visited next. agent: the loop that asks it, and
                    the files around it. service: signals, output, metrics
    a setup         provision: the steps. wanted: what is asked for. wiring: the requests
    its facts       uplinks: the lists to read. facts: what a guest needs of them. guest: the
                    records. vmm: the same as a VMM's arguments
    a message       uapi: numbers and layouts. link, tc, inet, neighbour, nexthop, nsid: the
                    requests, and the decoded replies
    a datagram      wire checks its lengths. connection checks its sender, and whether it is
                    truncated. exchange checks which request it answers, and whether that is all

Only verdict and plan decide what is deleted. They and agenda make no system call.
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

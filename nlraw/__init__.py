# SPDX-License-Identifier: Apache-2.0
"""Remove orphan TAPs from the network namespaces of sandboxed containers, by the kernel's carrier state alone.

    scan, cleanup, setup, sweep    the work
    Tap, Report, Setup, Sweep ...  what they return
    Error and what derives of it   what they raise

The layers below are public too: `wire`, `exchange`, `link`, `tc`, `inet` turn bytes into messages and back without a system
call, `netns` and `route` talk to the kernel.
"""

import sys

from .errors import BadNamespace, Error, Interrupted, Invalid, Lost, Malformed, Refused, TapInUse
from .report import CreatedTap, Report, Setup, Tap, TcObject, Uplink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .node import Sweep, Totals, sweep
    from .orphans import cleanup, scan
    from .provision import setup

__version__ = "0.1.0"

__all__ = [
    "BadNamespace",
    "CreatedTap",
    "Error",
    "Interrupted",
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
    """The functions are imported when they are asked for: nobody pays for what is not used (PEP 562)."""
    if name in ("cleanup", "scan"):
        from . import orphans

        found = getattr(orphans, name)
    elif name == "setup":
        from . import provision

        found = provision.setup
    elif name in ("Sweep", "Totals", "sweep"):
        from . import node

        found = getattr(node, name)
    else:
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    globals()[name] = found
    return found


if sys.version_info < (3, 7):  # which knows no such thing
    for _name in __all__:
        globals().get(_name) or __getattr__(_name)

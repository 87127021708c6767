# SPDX-License-Identifier: Apache-2.0
"""Remove orphan TAPs from the network namespaces of sandboxed containers, by the kernel's carrier state alone.

    scan, cleanup, setup, sweep    the work
    Tap, Report, Setup, Sweep ...  what they return
    Error and what derives of it   what they raise

The layers below are public too: `wire`, `exchange`, `link`, `tc`, `inet` turn bytes into messages and back without a system
call, `netns` and `route` talk to the kernel.
"""

from .errors import BadNamespace, Error, Interrupted, Invalid, Lost, Malformed, Refused, TapInUse
from .orphans import cleanup, scan
from .provision import setup
from .report import CreatedTap, Report, Setup, Tap, TcObject, Uplink
from .sweep import Sweep, Totals, sweep

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

# SPDX-License-Identifier: Apache-2.0
"""What the figures were measured on, and with."""

import os
import platform
import re
import subprocess
from importlib import metadata

import nlraw

from .lab import PYTHON


def describe():
    with open("/proc/cpuinfo") as info:
        model = next(
            (line.split(":")[1].strip() for line in info if line.startswith("model name")),
            platform.machine(),
        )
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": _told([PYTHON, "--version"]),
        "nlraw": nlraw.__version__,
        "pyroute2": _version("pyroute2"),
        "iproute2": _told(["ip", "-V"]),
        "libmnl": _package("libmnl-dev"),
        "go": _told(["go", "version"]),
        "vishvananda/netlink": _package("golang-github-vishvananda-netlink-dev"),
        "pyperf": _version("pyperf"),
        "load": "%.1f" % os.getloadavg()[0],
    }


def _version(distribution):
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _told(argv):
    """The version that a program prints of itself; None where there is none."""
    found = re.search(r"\d+(\.\d+)+", _output(argv))
    return found.group() if found else None


def _package(name):
    return _output(["dpkg-query", "-W", "-f", "${Version}", name]) or None


def _output(argv):
    try:
        return subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
        ).stdout.strip()
    except OSError:
        return ""

# SPDX-License-Identifier: Apache-2.0
"""Command lines with fewer capabilities, and the words that name what is missing."""

import shutil

import pytest

from lib import command

NET_ADMIN = "it takes CAP_NET_ADMIN in the user namespace that owns the network namespace"
SYS_ADMIN = "it takes CAP_SYS_ADMIN in this user namespace and in the one that owns it"


def needs(*programs):
    lacking = [program for program in programs if shutil.which(program) is None]
    if lacking:
        pytest.skip("no " + ", ".join(lacking))


def capabilities():
    """Every capability by setpriv's name, those that it knows and this kernel has."""
    if shutil.which("setpriv") is None:
        return []
    listed = command.run("setpriv", "--list-caps").split()
    return [name for name in listed if not name.startswith("cap_")]


def without(*names):
    listed = ",".join("-" + name for name in names)
    return ("setpriv", "--bounding-set=" + listed, "--inh-caps=" + listed) + command.MODULE


# The step that fails without a capability; without any other all is done.
MATTERS = {
    "sys_admin": "enter namespace %s: Operation not permitted; " + SYS_ADMIN,
    "net_admin": "%s: delete u32 filters of priority 49152 on eth0: Operation not permitted; "
    + NET_ADMIN,
}

# SPDX-License-Identifier: Apache-2.0
"""Reports that are made up, for tests of what is printed and logged about them."""

import nlraw

POD = "/run/netns/pod1"


def a_tap(**fields):
    """An orphan that is left; `fields` are those that differ."""
    facts = {
        "ifname": "tap0_urunc",
        "ifindex": 4,
        "verdict": "orphan",
        "fresh": False,
        "carrier": False,
        "operstate": "DOWN",
        "flags": ("BROADCAST", "UP"),
        "deleted": False,
    }
    return nlraw.Tap(**dict(facts, **fields))


def a_report(outcome="clean", **fields):
    """The report on a pod in which nothing was seen; `fields` are those that differ."""
    facts = {
        "netns": POD,
        "uplink": "eth0",
        "outcome": outcome,
        "taps": (),
        "tc_removed": (),
        "error": None,
    }
    return nlraw.Report(**dict(facts, **fields))

# SPDX-License-Identifier: Apache-2.0
"""The lines of `nlraw watch`: one for each TAP and each change, each with its namespace."""

import nlraw
from nlraw import Report, Tap, TcObject
from nlraw.service import lines


def tap(name="tap0_urunc", verdict="orphan", fresh=False, deleted=False):
    return Tap(
        ifname=name,
        ifindex=4,
        verdict=verdict,
        fresh=fresh,
        carrier=verdict == "in-use",
        operstate="UP",
        flags=(),
        deleted=deleted,
    )


def report(outcome, *taps, **fields):
    fields = dict({"tc_removed": (), "error": None}, **fields)
    return Report(netns="/run/netns/pod1", uplink="eth0", outcome=outcome, taps=taps, **fields)


def test_what_was_removed():
    removed = (
        TcObject(dev="eth0", object="filter", kind="u32", priority=49152, target="tap0_urunc"),
        TcObject(dev="eth0", object="qdisc", kind="ingress"),
    )
    assert lines(report("cleaned", tap(deleted=True), tc_removed=removed)) == [
        "/run/netns/pod1  tap0_urunc  orphan  deleted",
        "/run/netns/pod1  eth0  u32 filter, priority 49152, redirects to tap0_urunc  removed",
        "/run/netns/pod1  eth0  ingress qdisc  removed",
    ]


def test_what_is_left():
    used, young = tap("tap1_urunc", "in-use"), tap("tap2_urunc", fresh=True)
    assert lines(report("in-use", tap(), used)) == [
        "/run/netns/pod1  tap0_urunc  orphan  left",
        "/run/netns/pod1  tap1_urunc  in-use  left",
    ]
    assert lines(report("cleaned", young)) == [
        "/run/netns/pod1  tap2_urunc  orphan (fresh)  spared"
    ]


def test_what_failed():
    error = nlraw.Refused(1, "not you", "delete link", "tap0_urunc")
    assert lines(report("failed", tap(), error=error)) == [
        "/run/netns/pod1  tap0_urunc  orphan  failed: delete link tap0_urunc: not you"
    ]
    assert lines(report("failed", error=error)) == [
        "/run/netns/pod1  -  failed  failed: delete link tap0_urunc: not you"
    ]


def test_a_name_from_outside_is_escaped():
    assert lines(report("cleaned", tap("tap\x1b[2J", deleted=True))) == [
        "/run/netns/pod1  tap\\x1b[2J  orphan  deleted"
    ]

# SPDX-License-Identifier: Apache-2.0
"""Nothing is silent: what the command line sees and leaves alone, it prints, and says why."""

import re

import pytest

from lib import pods
from lib.command import nlraw


def in_json(*arguments):
    done = nlraw(*arguments, "-j")
    return done.status, done.document, done.err


@pytest.mark.parametrize("command", ["scan", "cleanup"])
def test_an_orphan_that_is_left_because_there_is_no_uplink_is_a_warning(pod, command):
    pod.add_orphan(redirect=False)
    expected = (
        "nlraw: %s: warning: there is no uplink eth7, net1, so these orphans stay: tap0_urunc;"
        " `-u none` needs no uplink\n" % pod.path
    )
    line = [command, "-n", pod.path, "-u", "eth7", "-u", "net1"]
    status, out, err = nlraw(*line)
    assert (status, err) == (0, expected)
    row, last = out.splitlines()
    assert row.split() == [pod.path, pods.TAP, "orphan", "left"]
    assert last == "%s: skipped, there is no uplink eth7" % pod.path
    status, told, err = in_json(*line)
    assert (status, told["outcome"], err) == (0, "skipped", expected)
    assert pods.TAP in pod.links()


def test_the_remedy_that_the_warning_names_is_one(pod):
    pod.add_orphan(redirect=False)
    assert nlraw("cleanup", "-n", pod.path, "-u", "none").status == 0
    assert pods.TAP not in pod.links()


def test_a_sweep_warns_of_each_namespace(node):
    with_uplink, without = node.add("one"), node.add("two", uplink="eth9")
    done = nlraw("sweep", "--dir", node.directory)
    assert done.status == 0
    assert done.err == (
        "nlraw: %s: warning: there is no uplink eth0, so these orphans stay: tap0_urunc;"
        " `-u none` needs no uplink\n" % without
    )
    assert with_uplink in done.out


@pytest.mark.parametrize("uplinks", [["-u", "eth7"], ["-u", "auto"]], ids=" ".join)
def test_where_no_orphan_is_left_there_is_no_warning(pod, uplinks):
    pod.ip("route", "del", "default")
    pod.add_tap(redirect=False)
    pod.hold()
    assert nlraw("cleanup", "-n", pod.path, *uplinks).err == ""


def test_a_matching_link_that_is_no_tap_is_named_with_its_kind(pod):
    pod.ip("link", "add", "link", "eth0", "name", "tap0_kata", "type", "macvtap")
    pod.ip("link", "add", "name", "tap1_kata", "type", "bridge")
    pod.ip("tuntap", "add", "dev", "tap2_kata", "mode", "tun")
    expected = {"tap0_kata": "macvtap", "tap1_kata": "bridge", "tap2_kata": "tun"}
    for command in ("scan", "cleanup"):
        line = [command, "-n", pod.path, "-m", "tap*_kata"]
        status, told, err = in_json(*line)
        assert (status, told["taps"], err) == (0, [], "")
        kinds = {each["ifname"]: each["kind"] for each in told["ignored"]}
        assert {name: kind.split()[0] for name, kind in kinds.items()} == expected
        *rows, last = nlraw(*line).out.splitlines()
        assert {tuple(re.split("  +", row)) for row in rows} == {
            (pod.path, name, kind, "not judged") for name, kind in kinds.items()
        }
        assert last == "%s: clean, nothing to remove (uplink eth0)" % pod.path
    made = nlraw("setup", "-n", pod.path, "-m", "tap*_kata", "--tap", "tap9_kata")
    assert made.status == 0 and re.search("  tap0_kata  macvtap +not judged\n", made.out)
    assert set(expected) <= set(pod.links())


def test_links_that_do_not_match_or_are_excluded_are_not_named(pod):
    pod.ip("link", "add", "link", "eth0", "name", "tap0_kata", "type", "macvtap")
    for more in (["-m", "tap*_urunc"], ["-m", "tap*", "--exclude", "*_kata"]):
        assert in_json("scan", "-n", pod.path, *more)[1]["ignored"] == []


def test_a_dead_redirect_beside_a_live_vm_is_shown_and_left(pod):
    pod.add_orphan("tap0_urunc")
    pod.ip("link", "del", "tap0_urunc")
    pod.add_tap("tap1_urunc", redirect=False)
    pod.hold("tap1_urunc")
    before = pod.state()
    (dead,) = pod.filters("eth0")
    expected = [{"dev": "eth0", "kind": "u32", "priority": dead["pref"]}]
    for command, status in (("scan", 0), ("cleanup", 3), ("cleanup --keep-in-use", 0)):
        line = command.split() + ["-n", pod.path]
        found, told, _ = in_json(*line)
        assert (found, told["dead_redirects"], told["tc_removed"]) == (status, expected, [])
        words = "priority %d, redirects to nothing: it swallows packets" % dead["pref"]
        _, row, _ = nlraw(*line).out.splitlines()
        assert re.split("  +", row) == [pod.path, "eth0", "u32 filter", "left", words]
    assert pod.state() == before


def test_a_filter_that_goes_is_shown_with_priority_and_target(pod):
    pod.add_orphan()
    (redirect,) = pod.filters("eth0")
    out = nlraw("cleanup", "-n", pod.path).out
    words = "priority %d, redirects to tap0_urunc" % redirect["pref"]
    (row,) = [line for line in out.splitlines() if " filter " in line]
    assert re.split("  +", row) == [pod.path, "eth0", "u32 filter", "removed", words]


def test_the_reason_of_a_failure_is_on_stdout_too(pod):
    path = pod.path + "-gone"
    for line in (["scan", "-n", path], ["cleanup", "-n", path], ["setup", "-n", path]):
        status, out, err = nlraw(*line)
        reason = err[len("nlraw: ") :].replace(" " + path, "")
        assert (status, out) == (1, "%s: failed: %s" % (path, reason))


def test_a_tap_that_no_cleanup_would_find_is_a_usage_error(pod):
    status, out, err = nlraw("setup", "-n", pod.path, "--tap", "mytap")
    assert (status, out) == (2, "")
    assert "mytap" in err and "--match" in err and err.count("\n") == 1
    assert "mytap" not in pod.links()

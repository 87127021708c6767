# SPDX-License-Identifier: Apache-2.0
"""What the options do to real pods: which namespace, which TAPs, which uplinks, how patiently."""

import subprocess
import time

import pytest

from lib import pods
from lib.command import MODULE, PATIENCE, environment, nlraw
from nlraw import netns, scan, tap


def inside(pod):
    """The command, run in the namespace of a pod, which is the current one then."""
    return ("ip", "netns", "exec", pod.name) + MODULE


def taps(pod):
    return sorted(name for name in pod.links() if name.startswith("tap"))


# ---------------------------------------------------------------- which namespace


@pytest.mark.parametrize("command", ["cleanup", "cleanup --dry-run", "setup"])
def test_a_bare_command_changes_nothing(pod, command):
    pod.add_orphan()
    before = pod.state()
    status, out, err = nlraw(*command.split(), argv=inside(pod))
    assert (status, out) == (2, "")
    assert "`-n current`" in err and "`ip netns`" in err and err.count("\n") == 1
    assert pod.state() == before


def test_current_is_the_namespace_of_the_command(pod):
    pod.add_orphan()
    for command in (["scan"], ["scan", "-n", "current"]):
        done = nlraw(*command, "-j", argv=inside(pod))
        assert (done.document["netns"], done.document["outcome"]) == ("current", "would-clean")
    assert nlraw("cleanup", "-n", "current", argv=inside(pod)).status == 0
    assert taps(pod) == []
    assert nlraw("setup", "-n", "current", argv=inside(pod)).status == 0
    assert taps(pod) == [pods.TAP]


def test_current_and_others(make_pod):
    one, other = make_pod(), make_pod()
    one.add_orphan()
    other.add_orphan()
    done = nlraw("cleanup", "-n", other.name, "-n", "current", "-j", argv=inside(one))
    assert [report["netns"] for report in done.document] == [other.path, "current"]
    assert taps(one) == taps(other) == []


# ---------------------------------------------------------------- which TAPs


def test_several_patterns_and_exceptions(pod):
    for name in ("tapa", "tapb", "tapc", "vm0", "vm1", "other"):
        pod.add_orphan(name, redirect=False)
    line = "-m tap? -m vm* --exclude tapb --exclude ?m1 -n".split()
    done = nlraw("cleanup", *line, pod.path, "-j")
    assert done.status == 0
    assert [tap["ifname"] for tap in done.document["taps"]] == ["tapa", "tapc", "vm0"]
    assert {"tapb", "vm1", "other"} <= set(pod.links())
    assert not {"tapa", "tapc", "vm0"} & set(pod.links())


def test_a_setup_leaves_what_is_excluded(pod):
    pod.add_orphan("tap1_urunc", redirect=False)
    assert nlraw("setup", "-n", pod.path, "--exclude", "tap1*").status == 0
    assert taps(pod) == ["tap0_urunc", "tap1_urunc"]


@pytest.mark.parametrize("glob", ["tap[0-9]_urunc", "tap{0,1}_urunc"])
def test_a_glob_that_would_match_nothing_is_a_usage_error(pod, glob):
    pod.add_orphan()
    for line in (["scan"], ["cleanup"], ["setup"]):
        for option in ("-m", "--exclude"):
            status, out, err = nlraw(*line, "-n", pod.path, option, glob)
            assert (status, out) == (2, "") and glob in err and "several patterns" in err
    assert taps(pod) == [pods.TAP]


# ---------------------------------------------------------------- which uplinks


def test_several_uplinks_and_the_first_need_not_exist(pod):
    pod.add_orphan()
    done = nlraw("cleanup", "-n", pod.path, "-u", "eth7", "-u", "eth0", "-j")
    assert (done.status, done.document["outcome"]) == (0, "cleaned")
    assert done.document["uplink"] == "eth0"


def test_a_dead_redirect_on_the_second_uplink_goes(pod):
    pod.batch("link add net1 type veth peer name peer1", "link set net1 up")
    pod.add_tap("ifb9", redirect=False)
    pod.add_ingress("net1")
    pod.redirect("net1", "ifb9")
    pod.ip("link", "del", "ifb9")
    assert nlraw("cleanup", "-n", pod.path).status == 0
    assert len(pod.filters("net1")) == 1
    done = nlraw("cleanup", "-n", pod.path, "-u", "eth0", "-u", "net1", "-j")
    assert [gone["dev"] for gone in done.document["tc_removed"]] == ["net1", "net1"]


# ---------------------------------------------------------------- TAPs in use


def test_orphans_beside_a_tap_in_use_are_kept_unless_it_is_asked_for(pod):
    for name in ("tap0_urunc", "tap1_urunc", "tap2_urunc"):
        pod.add_orphan(name)
    pod.hold("tap1_urunc")
    before = pod.state()
    assert nlraw("cleanup", "-n", pod.path).status == 3
    assert pod.state() == before
    done = nlraw("cleanup", "-n", pod.path, "--keep-in-use", "-j")
    assert (done.status, done.err, done.document["outcome"]) == (0, "", "cleaned")
    assert taps(pod) == ["tap1_urunc"]
    (redirect,) = pod.filters("eth0")
    assert redirect["options"]["actions"][0]["to_dev"] == "tap1_urunc"


def test_a_sweep_keeps_them_too(node):
    path = node.add("pod", orphans=3)
    with netns.Namespace(path) as namespace:
        fd = tap.attach(namespace, "tap1_urunc")
    try:
        line = ["sweep", "--dir", node.directory, "-j"]
        assert nlraw(*line).document["totals"]["deleted"] == 0
        assert nlraw(*line, "--keep-in-use").document["totals"]["deleted"] == 2
        (left,) = scan(netns=path)
        assert left.ifname == "tap1_urunc"
    finally:
        netns.close(fd)


@pytest.mark.parametrize("command", ["cleanup", "setup"])
def test_a_tap_in_use_is_waited_for(pod, command):
    pod.add_tap()
    holder = pod.hold()
    line = [*MODULE, command, "-n", pod.path, "--wait", "30"]
    running = subprocess.Popen(line, cwd="/", env=environment(), stdout=subprocess.PIPE)
    time.sleep(0.5)
    assert running.poll() is None and taps(pod) == [pods.TAP]
    begin = time.monotonic()
    holder.kill()
    running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    assert time.monotonic() - begin < 5


def test_waiting_ends(pod):
    pod.add_tap()
    pod.hold()
    begin = time.monotonic()
    status, out, _ = nlraw("cleanup", "-n", pod.path, "--wait", "0.5")
    assert status == 3 and "in-use" in out
    assert 0.5 <= time.monotonic() - begin < 5

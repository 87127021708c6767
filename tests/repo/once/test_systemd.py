# SPDX-License-Identifier: Apache-2.0
"""The units, as `nlraw deploy` prints them, run by a real systemd on a node of their own."""

import re

import pytest

from lib import pods, readme, systemd
from lib.prometheus import counted

METRICS = "/var/lib/prometheus/node-exporter"


@pytest.fixture
def node():
    reason = systemd.missing()
    if reason is not None:
        pytest.skip(reason)
    made = systemd.Node()
    try:
        made.boot()
        yield made
    finally:
        made.close()


def lines(node):
    """The words of the lines that nlraw has in the journal."""
    found = re.findall(r"^\S+ +\S+ \S+ \S+ nlraw\[\d+\]: (.*)", node.journal(), re.MULTILINE)
    return "\n".join(found)


# ---------------------------------------------------------------- sweep


def test_the_sweep_removes_an_orphan_and_says_so_in_the_journal(node, pod):
    before = pod.state()
    pod.add_orphan()
    path = node.pin("pod1", pod)
    node.deploy("nlraw-sweep.service")
    node.run("systemctl", "start", "nlraw-sweep")
    assert node.show("nlraw-sweep", "Result") == "success"
    assert pod.state() == before
    assert path in lines(node) and pods.TAP in lines(node)
    text = node.run("cat", METRICS + "/nlraw.prom")
    assert counted(parse(text)) == {"namespaces": 1, "orphans": 1, "orphans_removed": 1}
    assert node.run("stat", "-c", "%a", METRICS) == "755\n"


def parse(text):
    """The samples of the text format, by name."""
    return {
        line.split()[0]: float(line.split()[1])
        for line in text.splitlines()
        if not line.startswith("#")
    }


def test_the_timer_starts_the_sweep(node, pod):
    pod.add_orphan()
    node.pin("pod1", pod)
    (text,) = readme.blocks("A sweep once a minute", "sh", readme.DEPLOY)
    soon = "sed -i s/OnBootSec=1min/OnBootSec=1s/ /etc/systemd/system/nlraw-sweep.timer\n"
    *files, reload, enable = text.splitlines(True)
    node.run("sh", "-euc", "".join(files) + soon + reload + enable)
    node.wait_for(lambda: pods.TAP not in pod.links())
    assert node.run("systemctl", "is-enabled", "nlraw-sweep.timer") == "enabled\n"


def test_a_directory_for_metrics_that_is_there_keeps_its_rights(node):
    node.run("mkdir", "-p", METRICS)
    node.run("chmod", "2775", METRICS)
    node.deploy("nlraw-sweep.service")
    node.run("systemctl", "start", "nlraw-sweep")
    assert node.run("stat", "-c", "%a", METRICS) == "2775\n"


# ---------------------------------------------------------------- watch


def test_the_watch_removes_an_orphan_when_its_vmm_dies(node, pod):
    path = node.pin("pod1", pod)
    node.run("sh", "-euc", readme.block("You run Kubernetes", "sh", "nlraw-watch.service"))
    assert node.run("systemctl", "is-enabled", "nlraw-watch") == "enabled\n"
    assert node.show("nlraw-watch", "ActiveState") == "active"
    assert node.show("nlraw-watch", "StatusText")
    before = pod.state()
    pod.add_tap()
    holder = pod.hold()
    assert pods.TAP in pod.links()
    holder.kill()
    node.wait_for(lambda: pods.TAP not in pod.links())
    assert pod.state() == before
    node.wait_for(lambda: path in lines(node) and pods.TAP in lines(node))
    assert "Traceback" not in node.journal()
    node.wait_for(lambda: "nlraw-watch.prom" in node.run("ls", METRICS))


def test_the_watch_sees_a_namespace_that_is_pinned_after_its_start(node, pod):
    node.deploy("nlraw-watch.service")
    node.run("systemctl", "start", "nlraw-watch")
    pod.add_orphan()
    node.pin("pod1", pod)
    node.wait_for(lambda: pods.TAP not in pod.links(), 10)


def test_the_watch_ends_when_told(node):
    node.deploy("nlraw-watch.service")
    node.run("systemctl", "start", "nlraw-watch")
    node.run("systemctl", "reload", "nlraw-watch")
    assert node.show("nlraw-watch", "ActiveState") == "active"
    node.run("systemctl", "stop", "nlraw-watch")
    assert node.show("nlraw-watch", "Result") == "success"
    assert node.show("nlraw-watch", "NRestarts") == "0"
    assert "Traceback" not in node.journal()


def test_a_watch_that_hangs_is_started_again(node):
    node.deploy("nlraw-watch.service", ("WatchdogSec=30", "WatchdogSec=2"))
    node.run("systemctl", "start", "nlraw-watch")
    first = node.show("nlraw-watch", "MainPID")
    node.run("sleep", "5")  # a live one is left alone
    assert node.show("nlraw-watch", "MainPID") == first
    node.run("kill", "-STOP", first)
    node.wait_for(lambda: node.show("nlraw-watch", "NRestarts") == "1")
    node.wait_for(lambda: node.show("nlraw-watch", "ActiveState") == "active")
    assert node.show("nlraw-watch", "MainPID") != first


def test_the_watch_needs_each_of_its_capabilities(node, pod):
    node.pin("pod1", pod)
    node.deploy("nlraw-watch.service", (" CAP_NET_BROADCAST", ""))
    node.run("systemctl", "start", "nlraw-watch")
    node.wait_for(lambda: "CAP_NET_BROADCAST" in lines(node))
    pod.add_orphan()  # found by looking now and then
    node.wait_for(lambda: pods.TAP not in pod.links())

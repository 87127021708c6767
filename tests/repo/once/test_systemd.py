# SPDX-License-Identifier: Apache-2.0
"""The units, as `nlraw deploy` prints them, run by a real systemd on a node of their own."""

import json

import pytest

from lib import command, pods, readme, systemd
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


def entries(node, *options):
    """The priority, the unit and the message of each line in the journal with its identifier."""
    node.run("journalctl", "--sync")
    text = node.run("journalctl", "--no-pager", "-t", "nlraw", "-o", "json", *options)
    found = [json.loads(line) for line in text.splitlines()]
    return [(each["PRIORITY"], each.get("_SYSTEMD_UNIT"), each["MESSAGE"]) for each in found]


# LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO (sys/syslog.h), as the journal has them
ERROR, WARNING, NOTICE, INFO = "3456"
DELETED = "%s: deleted orphan tap0_urunc (nobody held it); removed u32 filter on eth0 (it"
SWEEP, WATCH = "nlraw-sweep.service", "nlraw-watch.service"


# ---------------------------------------------------------------- sweep


def test_the_sweep_removes_an_orphan_and_says_so_in_the_journal(node, pod):
    before = pod.state()
    pod.add_orphan()
    path = node.pin("pod1", pod)
    node.deploy(SWEEP)
    node.run("systemctl", "start", "nlraw-sweep")
    assert node.show("nlraw-sweep", "Result") == "success"
    assert pod.state() == before
    ((priority, unit, message),) = entries(node)
    assert (priority, unit) == (NOTICE, SWEEP) and message.startswith(DELETED % path)
    node.run("systemctl", "start", "nlraw-sweep")  # there is nothing to do
    assert len(entries(node)) == 1
    text = node.run("cat", METRICS + "/nlraw.prom")
    assert counted(parse(text)) == {"namespaces": 1}
    assert node.run("stat", "-c", "%a", METRICS) == "755\n"


def test_what_an_operator_has_to_know_has_its_priority(node, make_pod):
    without, metrics = make_pod(), ("nlraw.prom\n", "nowhere/nlraw.prom\n")
    without.ip("link", "del", "eth0")
    without.add_orphan(redirect=False)
    path = node.pin("pod1", without)
    node.deploy(SWEEP, metrics)
    node.run("systemctl", "start", "nlraw-sweep")
    first, second = entries(node)
    assert first[:2] == second[:2] == (WARNING, SWEEP)
    assert first[2].startswith(
        path + ": there is no uplink eth0, so these orphans stay: tap0_urunc;"
    )
    assert second[2].startswith("write metrics to " + METRICS)
    node.deploy(SWEEP, ("nlraw.prom\n", "nlraw.prom --dir /nowhere\n"))
    node.attempt("systemctl", "start", "nlraw-sweep")
    assert entries(node)[2:] == [
        (ERROR, SWEEP, "list namespaces in /nowhere: " + command.NO_DIRECTORY)
    ]


def test_a_command_of_a_shell_logs_what_it_prints(node, pod):
    pod.add_orphan()
    path = node.pin("pod1", pod)
    assert path in node.run("nlraw", "sweep", "--dry-run")
    assert entries(node) == []
    assert [path, pods.TAP, "orphan", "deleted"] in [
        row.split() for row in node.run("nlraw", "sweep").splitlines()
    ]
    ((priority, _, message),) = entries(node)
    assert priority == NOTICE and message.startswith(DELETED % path)


def test_json_in_the_journal_is_json_beside_the_log(node, pod):
    pod.add_orphan()
    path = node.pin("pod1", pod)
    node.deploy(SWEEP, ("nlraw.prom\n", "nlraw.prom --json\n"))
    node.run("systemctl", "start", "nlraw-sweep")
    assert [each[2].startswith(DELETED % path) for each in entries(node, "-p", "notice")] == [True]
    ((_, _, document),) = entries(node, "PRIORITY=" + INFO)
    assert json.loads(document)["totals"]["deleted"] == 1
    everything, grave, in_json = readme.block("The log", "sh", "-p", readme.DEPLOY).splitlines()
    assert DELETED % path in node.run("sh", "-euc", everything)
    assert path not in node.run("sh", "-euc", grave)
    assert [json.loads(line)["PRIORITY"] for line in node.run("sh", "-euc", in_json).splitlines()]


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
    node.deploy(SWEEP)
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
    node.wait_for(lambda: entries(node))
    pod.add_tap()  # in use: that is no line
    holder = pod.hold()
    node.run("systemctl", "reload", "nlraw-watch")
    holder.kill()
    node.wait_for(lambda: len(entries(node)) > 1)
    for priority, unit, message in entries(node):
        assert (priority, unit) == (NOTICE, WATCH) and message.startswith(DELETED % path)
    assert len(entries(node)) == 2
    assert "Traceback" not in node.journal()
    node.wait_for(lambda: "nlraw-watch.prom" in node.run("ls", METRICS))


def test_the_watch_sees_a_namespace_that_is_pinned_after_its_start(node, pod):
    node.deploy(WATCH)
    node.run("systemctl", "start", "nlraw-watch")
    pod.add_orphan()
    node.pin("pod1", pod)
    node.wait_for(lambda: pods.TAP not in pod.links(), 10)


def test_the_watch_ends_when_told(node):
    node.deploy(WATCH)
    node.run("systemctl", "start", "nlraw-watch")
    node.run("systemctl", "reload", "nlraw-watch")
    assert node.show("nlraw-watch", "ActiveState") == "active"
    node.run("systemctl", "stop", "nlraw-watch")
    assert node.show("nlraw-watch", "Result") == "success"
    assert node.show("nlraw-watch", "NRestarts") == "0"
    assert "Traceback" not in node.journal()


def test_a_watch_that_hangs_is_started_again(node):
    node.deploy(WATCH, ("WatchdogSec=30", "WatchdogSec=2"))
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
    node.deploy(WATCH, (" CAP_NET_BROADCAST", ""))
    node.run("systemctl", "start", "nlraw-watch")
    node.wait_for(lambda: entries(node))
    ((priority, _, message),) = entries(node)
    assert priority == WARNING and "CAP_NET_BROADCAST" in message
    pod.add_orphan()  # found by looking now and then
    node.wait_for(lambda: pods.TAP not in pod.links())

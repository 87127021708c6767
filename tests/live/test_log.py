# SPDX-License-Identifier: Apache-2.0
"""The system log of `sweep` and `watch`: one line for each namespace in which something happened.

What the hook logs is in test_hook_pods.py, and what arrives in a real journal in
repo/once/test_systemd.py.
"""

import subprocess
import sys
import time

import pytest

from lib import agents, command, rights
from lib.agents import Agent, Site
from lib.logs import ERROR, IN_JOURNAL, NOTICE, WARNING, Log
from lib.pods import TAP

NOWHERE = "/nlraw-test-nowhere"
NEVER = ("--resync", "1000")
LEFT_OUT = " lines before this one were left out) "
DELETED = "deleted orphan tap0_urunc (nobody held it)"
LEFT = "there is no uplink eth0, so these orphans stay: tap0_urunc; `-u none` needs no uplink"


@pytest.fixture
def log(tmp_path):
    made = Log(str(tmp_path / "log"))
    yield made
    made.close()


def sweep(node, *arguments, before=(), **options):
    argv = list(before) + list(command.MODULE)
    return command.nlraw("sweep", "--dir", node.directory, *arguments, argv=argv, **options)


# ---------------------------------------------------------------- sweep


def test_a_sweep_logs_one_line_for_each_namespace_in_which_something_happened(node, log):
    broken, without = node.add("broken"), node.add("without", uplink="eth9")
    node.add("spared", fresh=True)
    node.add("clean", orphans=0)
    site = Site(node, "used")
    site.leave()
    vmm = site.start("tap1_urunc", redirect=False)
    done = sweep(node, before=log.before)
    vmm.kill()
    vmm.reap()
    assert sorted(log.lines()) == [
        (WARNING, "%s: %s" % (without, LEFT)),
        (NOTICE, "%s: %s" % (broken, DELETED)),
    ]
    assert done.err == "nlraw: %s: warning: %s\n" % (without, LEFT)
    assert [broken, TAP, "orphan", "deleted"] in [row.split() for row in done.out.splitlines()]


def test_a_line_has_every_change(node, log):
    site = Site(node, "pod1")
    site.leave()
    assert sweep(node, before=log.before).status == 0
    ((priority, text),) = log.lines()
    assert priority == NOTICE
    assert text.startswith("%s: %s; removed " % (site.path, DELETED))
    assert "filter on eth0 (it redirected to %s)" % TAP in text
    assert "ingress qdisc on eth0" in text
    assert sweep(node, before=log.before).status == 0
    assert log.lines() == []


def test_a_dry_run_logs_nothing(node, log):
    path = node.add("broken")
    node.add("without", uplink="eth9")
    metrics = ("--metrics", NOWHERE + "/nlraw.prom")
    done = sweep(node, "--dry-run", *metrics, before=log.before)
    assert path in done.out and done.err.count("\n") == 2
    done = command.nlraw("sweep", "-N", "--dir", NOWHERE, argv=log.argv)
    assert (done.status, done.out) == (1, "") and NOWHERE in done.err
    assert log.lines() == []


@pytest.mark.skipif(not rights.capabilities(), reason="needs setpriv")
def test_a_failure_is_an_error_that_names_the_tap(node, log):
    path = node.add("broken")
    done = sweep(node, before=log.before + list(rights.without("net_admin")[:-3]))
    assert done.status == 1
    ((priority, text),) = log.lines()
    assert priority == ERROR
    assert text.startswith(path + ": ") and "CAP_NET_ADMIN" in text and TAP in text


def test_a_sweep_that_cannot_begin_is_an_error(log):
    done = command.nlraw("sweep", "--dir", NOWHERE, argv=log.argv)
    words = "list namespaces in %s: %s" % (NOWHERE, command.NO_DIRECTORY)
    assert (done.status, done.err) == (1, "nlraw: %s\n" % words)
    assert log.lines() == [(ERROR, words)]


def test_a_usage_error_is_not_logged(log):
    assert command.nlraw("sweep", "--jobs", "0", argv=log.argv).status == 2
    assert command.nlraw("watch", "--jobs", "0", argv=log.argv).status == 2
    assert log.lines() == []


def test_metrics_that_cannot_be_written_are_a_warning(node, log):
    path = node.add("broken")
    done = sweep(node, "--metrics", NOWHERE + "/nlraw.prom", before=log.before)
    assert done.status == 0
    (first, second) = log.lines()
    assert first == (NOTICE, "%s: %s" % (path, DELETED))
    assert second[0] == WARNING and NOWHERE in second[1]
    assert done.err == "nlraw: %s\n" % second[1]


def test_what_writes_the_log_is_not_imported_for_nothing(node):
    node.add("spared", fresh=True)
    node.add("clean", orphans=0)
    name = command.MODULE[-1]
    code = "import sys; from %s import cli; cli.main(sys.argv[1:]); print(sorted(sys.modules))"
    done = command.nlraw("sweep", "--dir", node.directory, argv=(sys.executable, "-c", code % name))
    assert "'%s.node'" % name in done.out and ".syslog'" not in done.out


def test_without_a_log_everything_else_is_done(node):
    path = node.add("broken")
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /dev; exec "$@"', "sh"]
    done = sweep(node, before=hide)
    assert (done.status, done.err) == (0, "") and path in done.out


# ---------------------------------------------------------------- in the journal


def test_a_sweep_in_the_journal_has_one_line_for_each_event_and_no_rows(node, log):
    broken, without = node.add("broken"), node.add("without", uplink="eth9")
    metrics = ("--metrics", NOWHERE + "/nlraw.prom")
    done = sweep(node, *metrics, before=log.before + IN_JOURNAL, streams="2>&1")
    *lines, last = done.out.splitlines()
    assert sorted(lines) == ["<4>%s: %s" % (without, LEFT), "<5>%s: %s" % (broken, DELETED)]
    assert last.startswith("<4>write metrics to " + NOWHERE)
    assert log.lines() == []
    assert sweep(node, "-u", "eth9", before=IN_JOURNAL, streams="2>&1").out.count("\n") == 1
    assert sweep(node, "-u", "eth9", before=IN_JOURNAL, streams="2>&1").out == ""


def test_a_sweep_that_cannot_begin_has_the_priority_of_an_error(log):
    argv = log.before + IN_JOURNAL + list(command.MODULE)
    done = command.nlraw("sweep", "--dir", NOWHERE, argv=argv, streams="2>&1")
    assert done.out.startswith("<3>list namespaces in " + NOWHERE)
    done = command.nlraw("sweep", "--frobnicate", argv=argv, streams="2>&1")
    assert done.out.startswith("<3>sweep --frobnicate: no such option")
    assert log.lines() == []


@pytest.mark.parametrize("option", ["--verbose", "--dry-run"])
def test_rows_that_are_asked_for_are_printed_in_the_journal_too(node, option):
    path = node.add("broken")
    done = sweep(node, option, before=IN_JOURNAL, streams="2>&1")
    *lines, row, _ = done.out.splitlines()
    assert row.split()[:3] == [path, TAP, "orphan"]
    assert lines == ["<5>%s: %s" % (path, DELETED)] * (option == "--verbose")


def test_json_stays_json_wherever_stderr_leads(node, log):
    node.add("one")
    done = sweep(node, "-j", before=log.before + IN_JOURNAL)
    assert done.document["totals"]["deleted"] == 1
    assert done.err == "<5>%s: %s\n" % (node.path("one"), DELETED)
    assert log.lines() == []
    node.add("two")
    done = sweep(node, "-j", before=log.before)
    assert done.document["totals"]["deleted"] == 1
    assert [priority for priority, _ in log.lines()] == [NOTICE]
    assert done.err == ""


# ---------------------------------------------------------------- watch


def texts(log, count, seen):
    """Wait for that many lines in all; return them."""

    def found():
        seen.extend(log.lines())
        return len(seen) >= count

    agents.wait_until(found, lambda: "%d lines; seen: %r" % (count, seen))
    return seen


def test_a_watch_logs_each_removal_and_nothing_that_lasts(node, log):
    site, seen = Site(node, "pod1"), []
    without = node.add("without", uplink="eth9")
    with Agent("--dir", node.directory, "--resync", "0.05", before=log.before) as agent:
        for round in range(3):
            vmm = site.start()
            vmm.kill()
            agent.wait_for(site.path, round + 1)
            vmm.reap()
        texts(log, 4, seen)
        vmm = site.start()  # in use
        time.sleep(0.3)  # and some resyncs
        seen.extend(log.lines())
        vmm.kill()
        agent.wait_for(site.path, 4)
        vmm.reap()
        texts(log, 5, seen)
        assert agent.stop()[0].status == 0
    assert sorted(priority for priority, _ in seen) == [WARNING] + [NOTICE] * 4
    for priority, text in seen:
        if priority == WARNING:
            assert text == "%s: %s" % (without, LEFT)
        else:
            assert text.startswith("%s: %s; removed " % (site.path, DELETED))


def test_a_failure_that_lasts_is_one_line(node, log):
    site = Site(node, "pod1")
    with Agent("--dir", node.directory, "--resync", "0.05", before=log.before) as agent:
        time.sleep(0.3)
        taken = min([agent.descriptors() for _ in range(100)])
        agent.limit_descriptors(taken + 1)  # one for the log, and no two for a visit
        site.leave()
        agents.wait_until(agent.failures, "a failure")
        time.sleep(1)
        agent.limit_descriptors(1000)
        agent.wait_for(site.path)
        assert agent.stop()[0].status == 0
    # the watch itself may have lacked one, too
    lines = [line for line in log.lines() if line[1].startswith(site.path)]
    assert [priority for priority, _ in lines] == [ERROR, NOTICE]
    assert "Too many open files" in lines[0][1]


def test_a_watch_that_cannot_begin_is_an_error(log):
    done = command.nlraw("watch", "--dir", NOWHERE, argv=log.argv)
    assert done.status == 1
    assert log.lines() == [(ERROR, done.err[len("nlraw: ") : -1])]


def test_what_concerns_the_watch_itself_is_a_warning_and_comes_once(node, log):
    node.add("pod1", orphans=0)
    metrics = ("--metrics", NOWHERE + "/nlraw.prom")
    seen = []
    with Agent("--dir", node.directory, "--resync", "0.05", *metrics, before=log.before) as agent:
        texts(log, 1, seen)
        time.sleep(2.5)  # the metrics are written once a second
        assert agent.stop()[0].status == 0
    assert [priority for priority, _ in seen + log.lines()] == [WARNING]
    assert seen[0][1].startswith("write metrics to " + NOWHERE)


def test_a_log_that_nobody_reads_does_not_hold_up_the_watch(node, log):
    log.fill()
    site = Site(node, "pod1")
    with Agent("--dir", node.directory, before=log.before) as agent:
        for round in range(30):
            vmm = site.start()
            began = vmm.kill()
            agent.wait_for(site.path, round + 1)
            vmm.reap()
            assert agent.lines[-1].moment - began < 5
        assert agent.stop()[0].status == 0


def test_a_pod_that_makes_removals_without_end_writes_few_lines(node, log):
    site, quiet, seen = Site(node, "loud"), Site(node, "quiet"), []
    with Agent("--dir", node.directory, *NEVER, before=log.before) as agent:

        def make(count):
            for _ in range(count):
                site.leave(redirect=False)
                agents.wait_until(lambda: site.is_empty, "the removal")
                seen.extend(log.lines())

        make(40)
        quiet.leave(redirect=False)
        agent.wait_for(quiet.path)
        agents.wait_until(lambda: seen.extend(log.lines()) or LEFT_OUT in seen[-1][1], "the rest")
        make(3)
        assert agent.stop()[0].status == 0
    seen.extend(log.lines())
    loud = [text for _, text in seen if site.path in text]
    assert 20 < len(loud) < 25 and LEFT_OUT in loud[-1]
    assert [text for _, text in seen if quiet.path in text] == ["%s: %s" % (quiet.path, DELETED)]


def test_a_watch_in_the_journal_has_one_line_for_each_event(node, log, tmp_path):
    site, without = Site(node, "pod1"), node.add("without", uplink="eth9")
    place = tmp_path / "journal"
    argv = agents.DIE_WITH_US + log.before + IN_JOURNAL + list(command.MODULE)
    argv += ["watch", "--dir", node.directory, "--metrics", NOWHERE + "/nlraw.prom"]
    with open(str(place), "w") as file:
        streams = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
        process = subprocess.Popen(argv, cwd="/", env=command.environment(), **streams)
        try:
            vmm = site.start()
            time.sleep(0.3)
            vmm.kill()
            agents.wait_until(lambda: site.is_empty, "the removal")
            vmm.reap()
            agents.wait_until(lambda: place.read_text().count("\n") >= 3, "its lines")
        finally:
            process.terminate()
            process.wait()
    first, second, third = sorted(place.read_text().splitlines())
    assert first == "<4>%s: %s" % (without, LEFT)
    assert second.startswith("<4>write metrics to " + NOWHERE)
    assert third.startswith("<5>%s: %s; removed " % (site.path, DELETED))
    assert log.lines() == []

# SPDX-License-Identifier: Apache-2.0
"""`nlraw watch` and `nlraw.watch`: what is removed when, and what is left alone."""

import os
import re
import signal
import subprocess
import threading
import time

import pytest

import nlraw
import nlraw.netns
from lib import agents, command, nodes
from lib.agents import Agent, Site
from lib.pods import TAP
from nlraw import link
from nlraw.connection import Connection

# No look at everything happens by itself meanwhile: what is found is found by events.
NEVER = ("--resync", "1000")

# What takes an agent milliseconds has not happened after this time, in seconds.
A_WHILE = 0.3


def names(site):
    return sorted(name for name in site.links() if name.startswith("tap"))


# ---------------------------------------------------------------- the command


def test_an_orphan_and_its_redirects_go_when_its_vmm_dies(node):
    site = Site(node, "pod1")
    with Agent("--dir", node.directory, *NEVER) as agent:
        for _ in range(3):
            vmm = site.start()
            time.sleep(0.05)
            assert names(site) == [TAP]
            before = time.time()
            vmm.kill()
            agent.wait_for(site.path)
            vmm.reap()
            assert site.is_empty
            # the visit that is due when a namespace appears may see the TAP in use
            documents = [line.document for line in agent.lines]
            (document,) = [each for each in documents if each["outcome"] != "in-use"]
            assert (document["netns"], document["outcome"]) == (site.path, "cleaned")
            assert [tap["deleted"] for tap in document["taps"]] == [True]
            assert before < document["time"] <= time.time()
            agent.lines.clear()
        assert agent.stop()[0].status == 0
        assert agent.err == ""


def test_a_namespace_is_found_when_it_appears_and_cleaned_up_at_once(node):
    with Agent("--dir", node.directory, *NEVER) as agent:
        for number in range(3):
            path = node.add("pod%d" % number)
            agent.wait_for(path)
        site = Site(node, "late")
        vmm = site.start()
        vmm.kill()
        agent.wait_for(site.path)
        vmm.reap()


def test_a_tap_in_use_is_left_alone_and_reported_once(node):
    site = Site(node, "pod1")
    site.leave()
    vmm = site.start("tap1_urunc", redirect=False)
    with Agent("--dir", node.directory, "--resync", "0.1") as agent:
        agents.wait_until(lambda: agent.lines, "a line on what is in use")
        time.sleep(A_WHILE)
        assert [line.document["outcome"] for line in agent.lines] == ["in-use"]
        assert agent.lines[0].document["error"] is None
        assert names(site) == [TAP, "tap1_urunc"]
        vmm.kill()
        agent.wait_for(site.path)
        vmm.reap()
        assert site.is_empty


def test_keep_in_use_removes_the_orphan_beside_it(node):
    site = Site(node, "pod1")
    site.leave()
    site.make_tap("tap1_urunc", redirect=False)
    fd = site.hold("tap1_urunc")
    try:
        with Agent("--dir", node.directory, "--keep-in-use", *NEVER) as agent:
            agent.wait_for(site.path)
            assert names(site) == ["tap1_urunc"]
    finally:
        os.close(fd)


def test_a_fresh_tap_is_spared_unless_it_is_included(node):
    site = Site(node, "pod1")
    site.make_tap()
    with Agent("--dir", node.directory, "--resync", "0.1") as agent:
        time.sleep(A_WHILE)
        assert names(site) == [TAP]
        assert agent.lines == []
    with Agent("--dir", node.directory, "--include-fresh", *NEVER) as agent:
        agent.wait_for(site.path)
        with site.open() as namespace:
            nodes.add_orphans(namespace, ["tap9_urunc"], fresh=True)
        agent.send(signal.SIGHUP)  # it is down
        agent.wait_for(site.path, 2)


def test_what_sends_no_event_is_found_by_a_resync(node):
    """A TAP that is down sends nothing when its holder lets go of it."""
    path = node.add("pod1", orphans=0)
    with Agent("--dir", node.directory, "--resync", "0.5") as agent:
        time.sleep(0.2)
        with nlraw.netns.Namespace(path) as namespace:
            nodes.add_orphans(namespace, [TAP])
        agent.wait_for(path)


def test_the_redirect_to_a_tap_that_somebody_else_deleted_goes_with_a_resync(node):
    site = Site(node, "pod1")
    vmm = site.start()
    with Agent("--dir", node.directory, "--resync", "0.3") as agent:
        time.sleep(0.5)
        with site.open() as namespace, Connection(namespace) as connection:
            request = link.delete(site.links()[TAP], TAP)
            connection.change(request)[0].answer()
        agents.wait_until(lambda: site.is_empty, "the dead redirect is gone")
        agents.wait_until(lambda: agent.lines[-1].document["tc_removed"], "it is reported")
    vmm.kill()
    vmm.reap()


def test_an_orphan_is_left_alone_for_its_grace(node):
    site = Site(node, "pod1")
    with Agent("--dir", node.directory, "--grace", "1", *NEVER) as agent:
        first = site.start()
        second = site.start("tap1_urunc", redirect=False)
        first_death = time.monotonic()
        first.kill()
        time.sleep(0.7)
        second_death = time.monotonic()
        second.kill()
        agents.wait_until(lambda: TAP not in names(site), "the older one is gone")
        assert time.monotonic() - first_death >= 1
        seen = names(site)
        assert seen == ["tap1_urunc"] or time.monotonic() - second_death > 1
        agents.wait_until(lambda: names(site) == [], "the younger one is gone")
        assert time.monotonic() - second_death >= 1
        for vmm in (first, second):
            vmm.reap()
        assert agent.failures() == []


def test_a_vm_that_comes_back_within_the_grace_keeps_its_tap(node):
    site = Site(node, "pod1")
    site.make_tap()
    with Agent("--dir", node.directory, "--grace", "0.6", *NEVER):
        for _ in range(4):
            fd = site.hold()
            time.sleep(0.05)
            os.close(fd)
            time.sleep(0.4)
        fd = site.hold()
        time.sleep(0.8)
        assert names(site) == [TAP]
        os.close(fd)


def test_text_has_a_line_for_each_tap_and_change_with_its_namespace(node):
    path = node.add("pod1")
    argv = [*command.MODULE, "watch", "--dir", node.directory]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, universal_newlines=True, env=command.environment(), cwd="/"
    ) as process:
        line = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert re.split(" {2,}", line.strip()) == [path, TAP, "orphan", "deleted"]
        assert process.wait(5) == 0


def test_metrics_and_the_time_from_event_to_removal(node, tmp_path):
    file = tmp_path / "nlraw.prom"
    site = Site(node, "pod1")
    with Agent("--dir", node.directory, "--metrics", str(file), *NEVER) as agent:
        time.sleep(A_WHILE)  # until the first visit has ended
        vmm = site.start()
        vmm.kill()
        agent.wait_for(site.path)
        vmm.reap()
        assert agent.stop()[0].status == 0
    found = file.read_text().splitlines()
    assert "nlraw_watch_namespaces 1" in found
    assert "nlraw_watch_orphans_removed_total 1" in found
    assert "nlraw_watch_removal_seconds_count 1" in found


@pytest.mark.parametrize(
    "options, status",
    [
        (["--resync", "0"], 2),
        (["--resync", "soon"], 2),
        (["--grace", "-1"], 2),
        (["--jobs", "0"], 2),
        (["--match", "tap[0]"], 2),
        (["--dir", "/nowhere/at/all"], 1),
    ],
)
def test_what_cannot_be_is_refused_at_once(make_pod, options, status):
    done = command.nlraw("watch", *options)
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith("nlraw: ")


# ---------------------------------------------------------------- the function


def test_the_function_is_a_generator_of_reports(node):
    site = Site(node, "pod1")
    site.leave()
    reports = nlraw.watch(dirs=[node.directory], resync=1000)
    first = next(reports)
    assert (first.netns, first.outcome) == (site.path, "cleaned")
    vmm = site.start()
    threading.Timer(0.1, vmm.kill).start()
    second = next(reports)
    assert [tap.deleted for tap in second.taps] == [True]
    reports.close()
    vmm.reap()
    with pytest.raises(StopIteration):
        next(reports)


def test_the_function_leaves_no_descriptor_and_no_thread(node):
    site = Site(node, "pod1")
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        site.leave()
        reports = nlraw.watch(dirs=[node.directory])
        next(reports)
        reports.close()
    agents.wait_until(lambda: len(os.listdir("/proc/self/task")) == 1, "its threads have ended")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_the_function_refuses_what_makes_no_sense_when_it_is_called():
    for arguments in ({"dirs": "/run/netns"}, {"jobs": 0}, {"resync": 0}, {"match": ""}):
        with pytest.raises(nlraw.Invalid):
            nlraw.watch(**arguments)

# SPDX-License-Identifier: Apache-2.0
"""The agent of a node beside a second one, beside other commands, and after its own death.

Whatever the others do, what has to go is gone in the end, what is in use stays, and nobody reports
a failure because somebody else was faster.
"""

import contextlib
import fcntl
import os
import random
import signal
import socket
import threading
import time

import pytest

import nlraw
from lib import agents, taps
from lib.agents import Agent, Site
from lib.command import nlraw as command_line
from lib.oci import Bundle
from lib.pods import TAP

NEVER = ("--resync", "1000")
OTHER = "tap1_urunc"
ROUNDS = 40

F_SETPIPE_SZ = 1031  # linux/fcntl.h


@contextlib.contextmanager
def repeated(act):
    """Call a function again and again, on a thread beside the block; raise what it raises."""
    stop, errors, done = threading.Event(), [], []

    def work():
        try:
            while not stop.is_set():
                act()
                done.append(1)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert errors == []
    assert done


def play(site, rounds=ROUNDS, chance=None):
    """Let VMMs die in a namespace whose name each finds free at last."""
    chance = chance or random.Random(17)
    for _ in range(rounds):
        vmm = site.start()
        time.sleep(chance.uniform(0, 0.01))
        vmm.kill()
        agents.wait_until(lambda: TAP not in site.links(), "the removal")
        vmm.reap()


def check_end(site, *running):
    # the TC state of the last one goes ahead of its link
    assert site.is_empty
    for agent in running:
        assert agent.failures() == []
        assert agent.err == ""
        assert agent.stop()[0].status == 0


def test_two_agents_are_no_trouble_to_each_other(node):
    sites = [Site(node, "pod%d" % number) for number in range(8)]
    with Agent("--dir", node.directory, *NEVER) as one, Agent(
        "--dir", node.directory, *NEVER
    ) as other:
        for _ in range(10):
            vmms = [site.start() for site in sites]
            for vmm in vmms:
                vmm.kill()
            for site in sites:
                agents.wait_until(lambda site=site: site.is_empty, site.path)
            for vmm in vmms:
                vmm.reap()
        play(sites[0])
        # each is reported as deleted; by both, if both asked for it at the same moment
        agents.wait_until(
            lambda: len(one.deletions() + other.deletions()) >= 80 + ROUNDS, "the reports"
        )
        check_end(sites[0], one, other)
    print("%d and %d" % (len(one.deletions()), len(other.deletions())))


def test_beside_a_sweep_that_never_rests(node):
    site = Site(node, "pod1")
    failed = []

    def sweep():
        swept = nlraw.sweep(dirs=[node.directory])
        failed.extend(report for report in swept.namespaces if report.error is not None)

    with Agent("--dir", node.directory, *NEVER) as agent:
        with repeated(sweep):
            play(site)
        assert failed == []
        check_end(site, agent)


def test_beside_a_setup_the_tap_of_the_start_in_progress_stays(node):
    """It looks like an orphan until its VMM attaches: a fresh one."""
    site = Site(node, "pod1")
    with Agent("--dir", node.directory, "--resync", "0.05") as agent:
        for _ in range(ROUNDS):
            made = nlraw.setup(netns=site.path, owner=0)
            assert site.links()[TAP] == made.tap.ifindex
            fd = site.hold()
            time.sleep(0.01)
            assert site.links()[TAP] == made.tap.ifindex
            assert site.tc_objects() == (2, 3)
            # the next setup comes while the agent is at work
            os.close(fd)
        agents.wait_until(lambda: site.is_empty, "the last one")
        check_end(site, agent)


def test_beside_hooks(node, tmp_path):
    site = Site(node, "pod1")
    bundle = Bundle(str(tmp_path))
    bundle.network(site.path)
    with Agent("--dir", node.directory, *NEVER) as agent:
        for number in range(ROUNDS // 2):
            vmm = site.start()
            vmm.kill()
            if number % 2:
                vmm.reap()
            done = command_line("hook", stdin=bundle.state("stopped"))
            vmm.reap()
            assert done.status == 0, done.err
            agents.wait_until(lambda: site.is_empty, "the removal")
        check_end(site, agent)


# ---------------------------------------------------------------- death and signals


def test_after_sigkill_and_a_new_start_nothing_is_lost_and_nothing_wrong_is_removed(node):
    dying = [Site(node, "pod%d" % number) for number in range(4)]
    used = Site(node, "used")
    used.make_tap()
    fd = used.hold()
    before = used.links(), used.tc_objects()
    chance = random.Random(17)
    for _ in range(10):
        with Agent("--dir", node.directory, *NEVER) as agent:
            vmms = [site.start() for site in dying]
            for vmm in vmms:
                vmm.kill()
            time.sleep(chance.uniform(0, 0.02))
            agent.send(signal.SIGKILL)
            agent.process.wait()
        for vmm in vmms:
            vmm.reap()
        with Agent("--dir", node.directory, *NEVER) as agent:
            for site in dying:
                agents.wait_until(lambda site=site: site.is_empty, site.path)
            assert agent.failures() == []
            assert agent.stop()[0].status == 0
        assert (used.links(), used.tc_objects()) == before
    os.close(fd)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_what_is_under_way_and_exits_within_a_second(node, number):
    sites = [Site(node, "pod%d" % each) for each in range(32)]
    # a guest under emulation takes 20 times as long for everything
    began = time.monotonic()
    assert command_line("--version").status == 0
    longest = max(1, 5 * (time.monotonic() - began))
    with Agent("--dir", node.directory, *NEVER) as agent:
        vmms = [site.start() for site in sites]
        for vmm in vmms:
            vmm.kill()
        agents.wait_until(lambda: agent.lines, "the first one")
        done, seconds = agent.stop(number)
        assert (done.status, done.err) == (0, "")
        assert seconds < longest
        assert agent.said("STOPPING=1")
        # each is whole, or as it was
        for site in sites:
            qdiscs, filters = site.tc_objects()
            assert (TAP in site.links(), qdiscs, filters) in ((True, 2, 3), (False, 0, 0))
        # what is gone has been reported, unless there was no time for it
        gone = sorted(site.path for site in sites if TAP not in site.links())
        reported = sorted(path for path, _ in agent.deletions())
        assert gone == reported or (seconds > 0.8 and set(reported) < set(gone))
    for vmm in vmms:
        vmm.reap()


def test_sighup_looks_at_everything_now(node):
    """A TAP that is down sends nothing when its VMM lets go of it."""
    site = Site(node, "pod1")
    with Agent("--dir", node.directory, *NEVER) as agent, site.open() as namespace:

        def is_left():
            """True if such a TAP is there for a second: the first visit may still be due."""
            namespace.run(lambda: taps.make(TAP))
            namespace.run(lambda: taps.leave(TAP))
            time.sleep(1)
            return TAP in site.links()

        agents.wait_until(is_left, "a TAP that no visit finds by chance")
        before = len(agent.deletions(site.path))
        agent.send(signal.SIGHUP)
        agent.wait_for(site.path, before + 1)
        assert agent.stop()[0].status == 0


# ---------------------------------------------------------------- nobody listens


def test_a_reader_that_does_not_read_delays_nothing(node):
    """What is printed fits neither the pipe nor, in the end, the memory of the agent."""
    site = Site(node, "pod1")
    with Agent("--dir", node.directory, *NEVER, reads=False) as agent:
        fcntl.fcntl(agent.process.stdout, F_SETPIPE_SZ, 4096)
        play(site, rounds=40)
        assert agent.process.poll() is None, agent.err
        agent.read()
        agent.wait_for(site.path, 40)
        assert agent.stop()[0].status == 0


def test_a_service_manager_that_does_not_read_delays_nothing(node):
    """Its socket takes about ten messages (net.unix.max_dgram_qlen), and each second has one."""
    site = Site(node, "pod1")
    with Agent("--dir", node.directory, *NEVER) as agent:
        agent.fill_manager()
        began = time.monotonic()
        taken = []
        while time.monotonic() < began + 5:
            vmm = site.start()
            died = vmm.kill()
            agents.wait_until(lambda: TAP not in site.links(), "the removal")
            taken.append(time.monotonic() - died)
            vmm.reap()
        print("%d deaths, at most %.0f ms" % (len(taken), max(taken) * 1e3))
        assert sorted(taken)[len(taken) * 9 // 10] < 0.5
        assert agent.stop()[0].status == 0


def test_a_service_manager_that_listens_late_still_learns_that_the_agent_is_ready(node, tmp_path):
    """Without READY=1 it would end the agent."""
    path = str(tmp_path / "late")
    with Agent("--dir", node.directory, env={"NOTIFY_SOCKET": path}, ready=False) as agent:
        site = Site(node, "pod1")
        site.leave()
        agent.wait_for(site.path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(path)
            manager.settimeout(agents.PATIENCE)
            assert manager.recv(65536).startswith(b"READY=1\n")
            assert agent.stop()[0].status == 0

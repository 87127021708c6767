# SPDX-License-Identifier: Apache-2.0
"""The agent of a node that dies, or is refused something, in the middle of a system call.

strace puts the fault in. Whatever the agent has done by then, nothing in use and nothing of anybody
else is touched, and the next agent finishes the work.
"""

import collections
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from lib import agents, faults, inject
from lib.agents import Agent, Site
from lib.pods import TAP

NEVER = ("--resync", "1000")
MODULES = "agenda agent bpf link listener metrics node notify nsid removal visit"
ARGV = (sys.executable, "-s", "-S", "-c", inject.LAUNCH, MODULES)

# What an orphan looks like, by its TAP and its qdiscs and filters, and what may be left of it.
WHOLE, EMPTY = (True, (2, 3)), (False, (0, 0))

# How many calls of each name are struck: the first ones, and others evenly among the rest.
EACH = 4

# A fault strikes each thread that comes so far, and each visit has a thread of its own. There are
# no more faults after some seconds, and soon after that all is gone that has to go.
FAULTY, LONGEST = 2, 10

# Of all errors the ordinary suite tries each one that this divides.
SAMPLE = 29

# Calls that are refused with what others are.
# Those of ITS_OWN are the C library's: it ends the process if the kernel breaks the law.
ITS_OWN = ("munmap", "mprotect")
ALIKE = {"recvmsg": "recvfrom", "sendmsg": "sendto", "unshare": "setns", "pipe2": "openat"}


@pytest.fixture(autouse=True)
def prepared():
    faults.prepare()


class Scene:
    """A node: two VMs that die while the agent runs, one that lives, and somebody else's TAP."""

    def __init__(self, node):
        self.node = node
        self.dying = [Site(node, "dying%d" % number) for number in range(2)]
        self.used = Site(node, "used")
        self.used.make_tap()
        self.held = self.used.hold()
        self.foreign = Site(node, "foreign")
        self.foreign.leave("tap0_other")
        self.before = self.kept()

    def kept(self):
        return [(site.links(), site.tc_objects()) for site in (self.used, self.foreign)]

    def play(self, agent, give_up=lambda: None):
        """Let the VMs die, one of them in a namespace that has just appeared.

        After a while ``give_up`` is called.
        """
        late = Site(self.node, "late")
        vmms = [site.start() for site in self.dying + [late] if TAP not in site.links()]
        try:
            for vmm in vmms:
                vmm.kill()

            def is_over():
                has_died = agent.process.poll() is not None
                return has_died or all(site.is_empty for site in self.dying + [late])

            try:
                agents.wait_until(is_over, "the removal", FAULTY)
            except TimeoutError:
                give_up()
                agents.wait_until(is_over, lambda: "the removal; stderr: " + agent.err, LONGEST)
        finally:
            for vmm in vmms:
                vmm.reap()
            late.close()

    def check(self):
        """Make sure that only what had to go may have been touched."""
        assert self.kept() == self.before
        for site in self.dying:
            found = TAP in site.links(), site.tc_objects()
            assert found in (WHOLE, EMPTY), found

    def finish(self):
        """Let another agent do what is left."""
        with Agent("--dir", self.node.directory, *NEVER) as agent:
            for site in self.dying:
                agents.wait_until(lambda site=site: site.is_empty, site.path)
            assert agent.failures() == []
            assert agent.stop()[0].status == 0
        assert self.kept() == self.before

    def close(self):
        os.close(self.held)


@pytest.fixture
def scene(node):
    made = Scene(node)
    yield made
    made.close()


class Traced:
    """An agent under strace, from main() on, with some of its options."""

    def __init__(self, scene, log, *options, resync=NEVER):
        self.agent = Agent("--dir", scene.node.directory, *resync, argv=ARGV, ready=False)
        os.waitpid(self.agent.pid, os.WUNTRACED)
        argv = ["strace", "-f", "-o", str(log), "-p", str(self.agent.pid)] + list(options)
        self._strace = subprocess.Popen(argv, stderr=subprocess.PIPE)
        assert b"attached" in self._strace.stderr.readline()
        self.agent.send(signal.SIGCONT)
        agents.wait_until(
            lambda: self.agent.process.poll() is not None or self.agent.said("READY=1"),
            lambda: "READY=1; stderr: " + self.agent.err,
        )

    def detach(self):
        """Let the agent run on without faults."""
        self._strace.send_signal(signal.SIGINT)
        self._strace.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.agent.close()
        if self._strace.returncode is None:
            self._strace.communicate()


def calls(scene, log):
    """Each name of a call that the agent makes, with the most calls of it by one thread."""
    with Traced(scene, log) as traced:
        agent = traced.agent
        scene.play(agent)
        agent.send(signal.SIGHUP)
        time.sleep(0.3)
        agent.stop()
    counts = collections.Counter()
    with open(str(log), errors="replace") as file:
        for thread, name in re.findall(r"^(\d+) +(\w+)\(", file.read(), re.MULTILINE):
            counts[thread, name] += 1
    most = collections.OrderedDict()
    for (_, name), count in counts.items():
        most[name] = max(count, most.get(name, 0))
    return most


def chosen(count):
    """Some numbers up to ``count``: the first two, the last, and others between."""
    return sorted(
        {1, min(2, count), count} | {count * part // EACH for part in range(1, EACH)} - {0}
    )


def strike(scene, log, name, number, kind):
    """Play with one fault; return the agent's exit status, None if it lived on.

    It dies of SIGKILL, and otherwise only while it starts, or when stdout is broken, with a word on
    why.
    """
    options = ["-e", "trace=" + name, "-e", "inject=%s:%s:when=%d" % (name, kind, number)]
    with Traced(scene, log, *options) as traced:
        agent = traced.agent
        what = (name, number, kind)
        if agent.process.poll() is None:
            scene.play(agent, traced.detach)
        status = agent.process.poll()
        if status is None:
            done, _ = agent.stop()
            status = None if done.status == 0 else done.status
        agent.join()
        assert not agent.has_raised(), (what, agent.err)
        if kind == "signal=KILL":
            assert status in (None, -signal.SIGKILL), (what, status, agent.err)
        elif status is not None:
            assert status == 1, (what, status, agent.err)
            last = agent.err.splitlines()[-1]
            assert last.startswith("nlraw: "), (what, agent.err)
            assert not agent.said("READY=1") or "could not be written" in last, (what, agent.err)
    scene.check()
    return status


def test_sigkill_in_any_system_call(scene, tmp_path):
    counts = calls(scene, tmp_path / "log")
    assert {"recvmsg", "poll", "setns", "sendto"} < set(counts)
    scene.finish()
    killed = 0
    for name, count in counts.items():
        for number in chosen(count):
            killed += strike(scene, tmp_path / "log", name, number, "signal=KILL") is not None
            # every other time the rest is left to the next one under strace
            if killed % 2:
                scene.finish()
    scene.finish()
    total = sum(len(chosen(count)) for count in counts.values())
    print("%d names of calls, %d faults, %d deaths" % (len(counts), total, killed))
    assert killed > total * 0.7


def errors(name):
    """What a call of this name may be refused with."""
    return [] if name in ITS_OWN else inject.ERRORS.get(ALIKE.get(name, name), "").split()


def test_errors_of_some_system_calls(scene, tmp_path):
    """A fixed sample of those of tests/long/test_watch_faults.py."""
    play_errors(scene, tmp_path / "log", SAMPLE)


def play_errors(scene, log, every=1):
    counts = calls(scene, log)
    scene.finish()
    faults = [
        (name, number, "error=" + error)
        for name, count in counts.items()
        for number in chosen(count)
        for error in errors(name)
    ]
    ended, wrong = 0, []
    for name, number, kind in faults[::every]:
        try:
            ended += strike(scene, log, name, number, kind) is not None
        except (AssertionError, TimeoutError) as error:
            wrong.append(str((name, number, kind, str(error)[:1000])))
            print(wrong[-1], flush=True)
        scene.finish()
    print("%d of %d faults, %d ended the agent" % (len(faults[::every]), len(faults), ended))
    assert wrong == []

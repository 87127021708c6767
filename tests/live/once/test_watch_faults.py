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

    def play(self, agent):
        """Let the VMs die, one of them in a namespace that has just appeared."""
        vmms = [site.start() for site in self.dying if TAP not in site.links()]
        name = "late"
        late = Site(self.node, name)
        vmms.append(late.start())
        for vmm in vmms:
            vmm.kill()
        agents.wait_until(
            lambda: (
                agent.process.poll() is not None
                or all(site.is_empty for site in self.dying + [late])
            ),
            lambda: "the removal; stderr: " + agent.err,
        )
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

    def __enter__(self):
        return self.agent

    def __exit__(self, *_):
        self.agent.close()
        self._strace.communicate()


def calls(scene, log):
    """Each name of a call that the agent makes, with the most calls of it by one thread."""
    with Traced(scene, log) as agent:
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
    """Play with one fault; return the agent's exit status, None if it lived on."""
    options = ["-e", "trace=" + name, "-e", "inject=%s:%s:when=%d" % (name, kind, number)]
    with Traced(scene, log, *options) as agent:
        if agent.process.poll() is None:
            scene.play(agent)
        status = agent.process.poll()
        if status is None:
            done, _ = agent.stop()
            assert done.status in (0, -signal.SIGKILL), (done.status, done.err)
            status = None if done.status == 0 else done.status
        assert "Traceback" not in agent.err, agent.err
    scene.check()
    return status


def test_sigkill_in_any_system_call(scene, tmp_path):
    counts = calls(scene, tmp_path / "log")
    assert {"recvmsg", "poll", "setns", "clone3", "sendto"} & set(counts)
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

# SPDX-License-Identifier: Apache-2.0
"""The agent of a node for half an hour: pods come, lose their VMs, and go, ten each second.

    pytest -s tests/long/test_watch_soak.py
    NLRAW_SECONDS=60 pytest -s tests/long/test_watch_soak.py

Its memory stays flat, no descriptor and no namespace is lost, and no orphan is older than the time
between two looks at everything. A second test deletes namespaces by name while the agent runs.
"""

import heapq
import itertools
import os
import random
import statistics
import time

import pytest

from lib import agents, pods, taps
from lib.agents import Agent, Far, Site
from lib.pods import TAP
from live.kernel.test_watch_namespaces import check_deletions, warm_up
from live.kernel.test_watch_namespaces import host as a_host

host = a_host  # the fixture

SECONDS = float(os.environ.get("NLRAW_SECONDS", "1800"))
DELETIONS = int(os.environ.get("NLRAW_ROUNDS", "1000"))
RATE = 10
RESYNC = 5

# Seconds by which a busy machine may be late.
NOISE = 1.0

# KiB by which the memory may grow in the second half of the time.
GROWTH = 512


class Life:
    """One pod: made, its VM's death, and its end."""

    def __init__(self, soak, number):
        self.soak = soak
        self.chance = soak.chance
        # a VM whose TAP is down dies unheard
        self.is_heard = number % 10 != 9
        self.site = Site(soak.node, "pod%d" % number, soak.far)
        if self.is_heard:
            self.site.make_tap()
            self.fd = self.site.hold()
        else:
            with self.site.open() as namespace:
                namespace.run(lambda: taps.make(TAP))
                self.fd = namespace.run(lambda: taps.attach(TAP))
        self.died = None

    def die(self):
        os.close(self.fd)
        self.died = time.monotonic()
        if self.chance.random() < 0.1:  # the pod goes with its VM
            self.end()
        else:
            self.soak.dead[self.site.path] = self

    def seen_gone(self, moment):
        """Take note of what the agent reports."""
        (self.soak.heard if self.is_heard else self.soak.unheard).append(moment - self.died)
        self.soak.later(self.chance.uniform(0, 0.5), self.end_empty)

    def end_empty(self):
        assert self.site.is_empty
        self.end()

    def end(self):
        self.site.close()
        self.soak.alive -= 1


class Soak:
    """What is planned, and what was seen."""

    def __init__(self, node, far, agent):
        self.node, self.far, self.agent = node, far, agent
        self.chance = random.Random(17)
        self.alive = 0
        self.dead = {}  # by path: orphans that the agent has not reported yet
        self.heard, self.unheard = [], []
        self._plan, self._order = [], itertools.count()
        self._read = 0

    def later(self, seconds, act):
        heapq.heappush(self._plan, (time.monotonic() + seconds, next(self._order), act))

    def begin(self, number):
        life = Life(self, number)
        self.alive += 1
        self.later(self.chance.uniform(0.1, 2), life.die)

    def step(self):
        """Do what is due, and read what the agent has printed."""
        while self._plan and self._plan[0][0] <= time.monotonic():
            heapq.heappop(self._plan)[2]()
        lines = self.agent.lines[self._read :]
        self._read += len(lines)
        for line in lines:
            if any(tap["deleted"] for tap in line.document["taps"]):
                life = self.dead.pop(line.document["netns"], None)
                if life is not None:
                    life.seen_gone(line.moment)
        oldest = min((life.died for life in self.dead.values()), default=time.monotonic())
        assert time.monotonic() - oldest < RESYNC + NOISE, "an orphan is older than a resync"


def test_half_an_hour(node):
    if pods.missing() is not None:
        pytest.skip("needs a network namespace of its own: " + pods.missing())
    with Far() as far, Agent("--dir", node.directory, "--resync", RESYNC) as agent:
        soak = Soak(node, far, agent)
        warm_up(node, agent)
        before, begun = agent.open_files(), time.monotonic()
        numbers, resident, used = itertools.count(), [], agent.seconds()
        next_pod, next_sample = begun, begun + SECONDS / 5
        while time.monotonic() < begun + SECONDS:
            now = time.monotonic()
            if now >= next_pod:
                soak.begin(next(numbers))
                next_pod += 1 / RATE
            if now >= next_sample:
                resident.append(agent.resident())
                next_sample += SECONDS / 50
            soak.step()
            assert agent.process.poll() is None, agent.err
            time.sleep(0.002)
        used = (agent.seconds() - used) / SECONDS
        deadline = time.monotonic() + RESYNC + 10
        while soak.alive:
            assert time.monotonic() < deadline, "%d pods are left" % soak.alive
            soak.step()
            time.sleep(0.002)
        agents.wait_until(lambda: far.count() == 0, lambda: "%d namespaces" % far.count())
        agents.wait_until(lambda: agent.threads() == 1, lambda: "%d threads" % agent.threads())
        report(soak, resident, used, next(numbers))
        assert agent.open_files() == before
        assert max(resident) - resident[len(resident) * 3 // 8] < GROWTH
        assert agent.failures() == []
        assert agent.err == ""
        assert agent.stop()[0].status == 0


def report(soak, resident, used, pods_made):
    print("\n%d pods in %g s; %.1f %% of a processor" % (pods_made, SECONDS, used * 100))
    for name, taken in (("heard", soak.heard), ("down, unheard", soak.unheard)):
        taken.sort()
        facts = (
            name,
            len(taken),
            statistics.median(taken),
            taken[len(taken) * 95 // 100],
            taken[-1],
        )
        print("%s: %d orphans, gone after %.3f s in the median, 95 %% %.3f, at most %.3f" % facts)
    print("resident KiB: %s" % ", ".join(map(str, resident)))


def test_ip_netns_del_frees_a_namespace_a_thousand_times(host):
    check_deletions(host, DELETIONS)

# SPDX-License-Identifier: Apache-2.0
"""The agent of a node beside pods whose root means harm, and where the system has no room.

What one pod makes the agent do must not delay the others; what is lost meanwhile is found again.
What was measured is printed (pytest -rP).
"""

import os
import random
import statistics
import threading
import time

import pytest

from lib import agents, nodes
from lib.agents import Agent, Flood, Probe, Site, beside_one_in_use, no_uplink
from lib.pods import TAP

# No look at everything happens by itself meanwhile: what is found is found by events.
NEVER = ("--resync", "1000")
OTHER = "tap1_urunc"

# Seconds by which the agent may delay the removal in another pod, in the median. On a machine that
# is busy with other things all delays vary more than that: one of several measurements counts.
DELAY, MEASUREMENTS = 0.02, 4

# Agents that are started one after the other, because each mutes a flood soon.
AGENTS = 5


def deaths(site, count):
    """Seconds from the SIGKILL of a VMM until the name of its TAP is free, in order of size."""
    taken = []
    with Probe(site.path) as probe:
        for _ in range(count):
            vmm = site.start()
            time.sleep(random.uniform(0.01, 0.05))
            taken.append(probe.wait(vmm.kill()))
            vmm.reap()
    return sorted(taken)


def shown(name, taken):
    facts = (name, len(taken), statistics.median(taken) * 1e3, taken[-1] * 1e3)
    print("%s: %d deaths, name free after %.1f ms in the median, %.1f at most" % facts)


def check_delay(without, beside):
    """Measure how long deaths take without something and beside it, each by a function."""
    for _ in range(MEASUREMENTS):
        delay = -statistics.median(without()) + statistics.median(beside())
        print("delayed by %.1f ms in the median" % (delay * 1e3))
        if delay < DELAY:
            return
    raise AssertionError("the last delay is %.3f s" % delay)


# ---------------------------------------------------------------- events without end


class Floods:
    """Events of several pods, in a ``with`` statement; `rate` is that since the last call."""

    def __init__(self, sites):
        self._floods = [Flood(site) for site in sites]
        self._last = time.monotonic(), 0

    def rate(self):
        moment, made = self._last
        self._last = time.monotonic(), sum(flood.made() for flood in self._floods)
        return (self._last[1] - made) / (self._last[0] - moment)

    def __enter__(self):
        self.rate()
        return self

    def __exit__(self, *_):
        for flood in self._floods:
            flood.close()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("furnish", [no_uplink, beside_one_in_use])
def test_a_pod_that_makes_events_without_end_does_not_delay_the_others_and_is_muted(
    node, tmp_path, furnish, count
):
    """The kernel's work for the flood delays others too: a flood that is not watched shows it."""
    (tmp_path / "elsewhere").mkdir()
    elsewhere = nodes.Node(tmp_path / "elsewhere")
    hostile, unwatched = [
        [furnish(where, "hostile%d" % number) for number in range(count)]
        for where in (node, elsewhere)
    ]
    quiet = Site(node, "quiet")
    try:
        check_delay(
            lambda: beside(node, quiet, [site for site, _ in unwatched], is_watched=False),
            lambda: beside(node, quiet, [site for site, _ in hostile]),
        )
    finally:
        for _, held in hostile + unwatched:
            for fd in held:
                os.close(fd)
        elsewhere.close()


def beside(node, quiet, hostile, is_watched=True):
    """Deaths in a quiet pod beside floods, right after these have begun, of several agents."""
    taken = []
    for number in range(AGENTS):
        with Agent("--dir", node.directory, *NEVER) as agent:
            with Floods(hostile) as floods:
                taken += deaths(quiet, 5)
                rate = floods.rate()
                if number == 0 and is_watched:
                    check_mute(agent, hostile)
            assert agent.stop()[0].status == 0
            # what it prints of such pods is bounded
            assert len(agent.lines) - 5 < 50 * len(hostile)
            assert len(agent.err.splitlines()) < 20 * len(hostile)
    taken.sort()
    shown("beside %d %s events/s" % (rate, "watched" if is_watched else "unwatched"), taken)
    return taken


def check_mute(agent, hostile):
    """Make sure that the agent mutes pods, touches nothing in them, and is idle then."""
    for site in hostile:
        agents.wait_until(lambda site=site: site.path in agent.err, "a word of it")
        assert site.path + ": too many events" in agent.err
        assert TAP in site.links()
    time.sleep(0.5)
    before = agent.seconds()
    time.sleep(2)
    used = (agent.seconds() - before) / 2
    print("once it is muted: %.1f %% of a processor" % (used * 100))
    assert used < 0.05


def test_a_muted_pod_is_looked_at_by_the_next_resync(node):
    hostile, held = beside_one_in_use(node, "hostile")
    with Agent("--dir", node.directory, "--resync", "1") as agent:
        try:
            with Flood(hostile):
                agents.wait_until(lambda: "too many events" in agent.err, "a word of it")
        finally:
            os.close(held[0])  # now both are orphans, of which no event is heard
        agent.wait_for(hostile.path, 2)
    assert hostile.is_empty


def test_a_pod_that_makes_its_tap_again_each_time_does_not_delay_the_others(node):
    """Each removal is right there, and each takes the agent some milliseconds."""
    hostile, quiet = Site(node, "hostile"), Site(node, "quiet")
    stop = threading.Event()
    made = []

    def restless():
        while not stop.is_set():
            try:
                made.append(hostile.leave(redirect=False))
            except OSError:  # it is there, or goes right now
                time.sleep(0.0005)

    def alone():
        taken = deaths(quiet, 20)
        shown("alone", taken)
        return taken

    def beside_it():
        made.clear()
        stop.clear()
        thread = threading.Thread(target=restless)
        thread.start()
        try:
            taken = deaths(quiet, 20)
        finally:
            stop.set()
            thread.join()
        shown("beside %d TAPs made meanwhile" % len(made), taken)
        assert len(made) > 2
        return taken

    with Agent("--dir", node.directory, *NEVER) as agent:
        check_delay(alone, beside_it)
        assert agent.failures() == []


# ---------------------------------------------------------------- no room


@pytest.mark.parametrize("free", [0, 1, 2, 3, 6])
def test_with_a_full_descriptor_table_nothing_is_lost(node, free):
    sites = [Site(node, "pod%d" % number) for number in range(8)]
    with Agent("--dir", node.directory, *NEVER) as agent:
        time.sleep(0.3)
        agent.limit_descriptors(agent.descriptors() + free)
        vmms = [site.start() for site in sites]
        for vmm in vmms:
            vmm.kill()
        time.sleep(1)
        assert agent.process.poll() is None, agent.err
        done = len(agent.deletions())
        print("%d free: %d of 8 are gone; %s" % (free, done, agent.err.strip()[-300:]))
        assert done == 8 or "Too many open files" in agent.err + str(agent.failures())
        # it does not run in circles, nor fill the log
        assert agent.seconds() < 1.5
        assert len(agent.lines) < 200
        agent.limit_descriptors(4096)
        for site in sites:
            agent.wait_for(site.path, patience=10)
        assert all(site.is_empty for site in sites)
        assert agent.stop()[0].status == 0
    for vmm in vmms:
        vmm.reap()


def test_64_die_at_once_where_few_descriptors_are_allowed(node):
    sites = [Site(node, "pod%d" % number) for number in range(64)]
    limit = ("prlimit", "--nofile=32:32")
    with Agent("--dir", node.directory, *NEVER, before=limit) as agent:
        vmms = [site.start() for site in sites]
        began = time.monotonic()
        for vmm in vmms:
            vmm.kill()
        for site in sites:
            agent.wait_for(site.path)
        print("64 with 32 descriptors: %.0f ms" % ((time.monotonic() - began) * 1e3))
        assert all(site.is_empty for site in sites)
        assert agent.stop()[0].status == 0
    for vmm in vmms:
        vmm.reap()

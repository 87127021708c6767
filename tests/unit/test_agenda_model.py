# SPDX-License-Identifier: Apache-2.0
"""The agent on a node that is made up (tests/lib/agentmodel.py), whatever happens there.

Events are lost, doubled, late and out of order; inode numbers are reused; namespaces come and go;
visits fail, last, or never end; pods are loud. Always: no visit removes what a cleanup would not
remove at that moment, nor is a pod visited twice at once, or too often. What an event announced is
done at once; after the next resync nothing is left; and the agent neither goes round without end,
nor works for nothing.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from lib import agentmodel
from nlraw import workers
from nlraw.agent import Agent
from nlraw.verdict import Target

NAMES = ["tap0_urunc", "tap1_urunc", "other0"]
PATHS = ["/model/a", "/model/b", "/model/c", "/model/d", "/model/e"]

# Seconds that nothing takes in which nothing is in the way.
SOON = 0.1

# Seconds in which all is done that the agent knows of: quotas, what failed, and visits that last.
PROMPT = 4.0


class World:
    """A node and an agent on it. Used as a context manager."""

    def __init__(self, grace=0.0, resync=30.0, jobs=4, spare_fresh=True, **target):
        self.target = Target(spare_fresh=spare_fresh, **target)
        self.node = agentmodel.Node(self.target, grace)
        self.resync = resync
        self.notes = []
        self._patches = self.node.patched()
        options = {"grace": grace, "resync": resync, "jobs": jobs, "note": self.notes.append}
        self.agent = self.node.agent = Agent(self.target, ["/model"], **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.agent.close()
        self._patches.close()

    def known(self, pod):
        """What the agent knows of a pod."""
        agenda = self.agent.agenda
        return agenda.known[agenda.id_of(pod.key)]

    def run(self, seconds):
        """Let the agent work for some seconds; return the reports."""
        end, reports = self.node.now + seconds, []
        while self.node.now < end:
            reports += [each.report for each in self.agent.step(end)]
        return reports

    def add(self, path=PATHS[0]):
        """Add a pod, and let the agent find it."""
        pod = self.node.add(path)
        self.run(agentmodel.SOON)
        return pod

    def check_prompt(self):
        """Check that soon nothing is left of what the agent can know of."""
        node = self.node
        node.calm()
        if node.has_stuck:
            return
        known = self.agent.agenda.known.values()
        failed = [each.key for each in known if each.failures > 4]
        pods = [pod for pod in node.all_pods() if pod.key not in failed and not pod.is_excused]
        self.run(PROMPT + node.grace)
        left = node.left([pod for pod in pods if pod.path is not None and not pod.is_excused])
        assert not left, left

    def settle(self):
        """Check that nothing is left after the next resync, and that there is peace then."""
        node = self.node
        node.calm()
        self.run(agentmodel.NUMBERS[workers]["STUCK"] + SOON)
        self.run(self.resync + node.grace + 1)
        left = node.left()
        assert not left, left
        known = self.agent.agenda.known
        assert {each.key for each in known.values()} == {pod.key for pod in node.all_pods()}
        assert all(known[id].id == id for id in known)
        node.excuse_nobody()
        node.has_stuck = False
        visits, wakes = node.visits, node.wakes
        self.run(2 * self.resync)
        if all(self.is_dull(pod) for pod in node.all_pods()):
            assert node.visits == visits
        assert node.wakes - wakes <= 40

    def is_dull(self, pod):
        """True if a look by ID sees nothing to do in a pod."""
        taps = [tap for tap in pod.taps if self.target.fits(tap.name)]
        spared = [tap for tap in taps if self.target.spare_fresh and not tap.facts["up_count"]]
        return all(tap.facts["carrier"] for tap in taps if tap not in spared)


def start(pod, name=NAMES[0], is_up=True):
    """A VM starts; return its TAP."""
    tap = pod.make_tap(name, is_up)
    if tap is not None:
        pod.release(tap)
        pod.attach(tap)
    return tap


# ---------------------------------------------------------------- whatever happens

choice = st.integers(0, 5)
names = st.sampled_from(NAMES)
few = st.integers(1, 4)


class Machine(RuleBasedStateMachine):
    world = None

    @initialize(
        grace=st.sampled_from([0.0, 0.0, 1.0, 5.0]),
        resync=st.sampled_from([2.0, 30.0, 30.0]),
        jobs=st.integers(1, 4),
        spare_fresh=st.sampled_from([True, True, False]),
        keep_in_use=st.booleans(),
        pods=st.integers(1, 3),
    )
    def begins(self, pods, **options):
        self.world = World(**options)
        self.node = self.world.node
        for path in PATHS[:pods]:
            self.world.add(path)

    def teardown(self):
        if self.world is not None:
            with self.world:
                self.world.settle()

    def pod(self, number):
        pods = self.node.all_pods()
        return pods[number % len(pods)] if pods else None

    def tap(self, number):
        """One of all the TAPs that there are, with its pod."""
        taps = [(pod, tap) for pod in self.node.all_pods() for tap in pod.taps]
        return taps[number % len(taps)] if taps else (None, None)

    # ------------------------------------------------------------ pods

    @rule(path=st.sampled_from(PATHS), has_uplink=st.sampled_from([True] * 4 + [False]))
    def a_pod_appears(self, path, has_uplink):
        self.node.add(path, has_uplink)

    @rule(path=st.sampled_from(PATHS), name=names)
    def a_pod_gets_the_inode_of_a_dead_one(self, path, name):
        pod = self.node.add(path, reuses_key=True)
        if pod is not None:
            start(pod, name)

    @rule(path=st.sampled_from(PATHS), seconds=st.sampled_from([0.0, 0.02, 3.0]))
    def a_file_becomes_a_namespace(self, path, seconds):
        if path not in self.node.pods:
            self.node.add_file(path)
            self.node.later(seconds, lambda: self.node.mount(path))

    @rule(number=choice, lingers=st.sampled_from([0.0, 0.0, 0.5, 40.0]))
    def a_pod_goes(self, number, lingers):
        pod = self.pod(number)
        if pod is not None:
            self.node.unpin(pod, lingers)

    @rule(number=choice, name=names, reuses_key=st.booleans())
    def a_pod_is_replaced_at_once(self, number, name, reuses_key):
        pod = self.pod(number)
        if pod is not None:
            path = pod.path
            self.node.unpin(pod)
            self.node.happen()
            start(self.node.add(path, reuses_key=reuses_key), name)

    # ------------------------------------------------------------ VMs

    @rule(number=choice, name=names, is_up=st.sampled_from([True, True, False]))
    def a_vm_starts(self, number, name, is_up):
        pod = self.pod(number)
        if pod is not None:
            start(pod, name, is_up)

    @rule(number=choice, name=names)
    def a_start_fails(self, number, name):
        pod = self.pod(number)
        tap = pod and pod.make_tap(name)
        if tap is not None:
            pod.release(tap)

    @rule(number=choice)
    def a_vm_dies(self, number):
        pod, tap = self.tap(number)
        if tap is not None:
            pod.release(tap)

    @rule()
    def all_vms_die(self):
        for pod in self.node.all_pods():
            for tap in pod.taps:
                pod.release(tap)

    @rule(number=choice)
    def a_vm_comes_back(self, number):
        pod, tap = self.tap(number)
        if tap is not None:
            pod.attach(tap)

    @rule(number=choice, leaves_redirect=st.booleans())
    def a_tap_is_deleted(self, number, leaves_redirect):
        pod, tap = self.tap(number)
        if tap is not None:
            pod.lose_tap(tap, leaves_redirect)

    @rule(number=choice)
    def somebody_else_cleans_up(self, number):
        if self.pod(number) is not None:
            self.node.clean_up(self.pod(number))

    @rule(number=choice, comes=st.booleans())
    def a_vm_comes_or_dies_during_a_visit(self, number, comes):
        pod, tap = self.tap(number)
        if tap is not None:
            act = pod.attach if comes else pod.release
            pod.meanwhile.append(lambda: act(tap))

    # ------------------------------------------------------------ what goes wrong

    @rule(count=few)
    def events_get_lost(self, count):
        self.node.losing = count

    @rule(count=few)
    def events_come_twice(self, count):
        self.node.doubling = count

    @rule(seconds=st.sampled_from([0.01, 1.0, 10.0]), count=few)
    def events_come_late(self, seconds, count):
        self.node.delay = (seconds, count)

    @rule(where=st.sampled_from([None, 0, 1]))
    def events_come_out_of_order(self, where):
        self.node.where = where

    @rule()
    def an_overrun(self):
        self.node.overrun()

    @rule(number=choice, count=st.sampled_from([5, 30, 100]))
    def a_pod_is_loud(self, number, count):
        if self.pod(number) is not None:
            self.node.flood(self.pod(number), count)

    @rule(number=choice, count=few)
    def visits_fail(self, number, count):
        if self.pod(number) is not None:
            self.pod(number).failing = count

    @rule(count=few)
    def no_thread_can_be_started(self, count):
        self.node.crowded = count

    @rule(visit=st.sampled_from([0.0, 0.01, 2.0]), look=st.sampled_from([0.0, 0.0, 0.01, 0.5]))
    def visits_and_looks_last(self, visit, look):
        self.node.visit_takes, self.node.look_takes = visit, look

    @rule()
    def a_visit_does_not_end(self):
        self.node.stuck = 1

    @rule(count=few)
    def looks_fail(self, count):
        self.node.looks_fail = count

    @rule()
    def somebody_wants_everything_looked_at(self):
        self.world.agent.resync()
        self.node.excuse_nobody()

    # ------------------------------------------------------------ time

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.001, 0.04, 0.3, 1.0, 4.0, 31.0]))
    def time_passes(self, seconds):
        if seconds:
            self.world.run(seconds)
        else:
            self.world.agent.step(self.node.now)

    @rule()
    def what_is_known_is_done_at_once(self):
        self.world.check_prompt()

    @rule()
    def all_settles(self):
        self.world.settle()


TestAgent = Machine.TestCase
TestAgent.settings = settings(
    deadline=None,
    max_examples=100,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


# ---------------------------------------------------------------- one at a time


def test_the_model_has_the_agent_remove_an_orphan():
    with World() as world:
        pod = world.add()
        tap = start(pod)
        world.run(1)
        pod.release(tap)
        (report,) = world.run(SOON)
        assert report.outcome == "cleaned" and pod.taps == []
        assert (world.node.deleted, world.agent.watched.deleted) == (1, 1)
        world.settle()


@pytest.mark.parametrize("grace", [0.0, 1.0])
@pytest.mark.parametrize("keep_in_use", [False, True])
def test_a_death_during_a_visit_is_answered_after_it(grace, keep_in_use):
    """The visit that it comes too late for removes another orphan, or nothing."""
    with World(grace, resync=1000.0, keep_in_use=keep_in_use) as world:
        pod = world.add()
        first, second = start(pod), start(pod, NAMES[1])
        world.run(1)
        pod.release(first)
        pod.meanwhile.append(lambda: world.node.later(0, lambda: pod.release(second)))
        world.run(2 * grace + 2 * SOON)
        assert pod.taps == []


def test_whoever_wants_everything_looked_at_during_a_visit_gets_it():
    with World() as world:
        pod = world.add()
        tap = start(pod, is_up=False)
        world.run(1)
        world.node.visit_takes = 1.0
        world.agent.resync()
        world.run(SOON)
        assert world.known(pod).is_busy
        world.node.later(0.9, lambda: None)
        world.run(0.9)
        world.node.visit_takes = 0.0
        pod.release(tap)  # of one that is down: no event
        world.agent.resync()
        world.run(SOON)
        assert pod.taps == []


def test_after_an_overrun_everything_is_looked_at_at_once():
    with World(resync=1000.0) as world:
        pods = [world.add(path) for path in PATHS]
        taps = [start(pod) for pod in pods]
        world.run(1)
        world.node.losing = 100
        for pod, tap in zip(pods, taps):
            pod.release(tap)
        world.run(1)
        assert all(pod.taps for pod in pods)
        world.node.losing = 0
        world.node.overrun(ends=False)
        world.run(SOON)
        assert not any(pod.taps for pod in pods)


def test_after_an_overrun_right_after_another_everything_is_looked_at_again():
    with World(resync=1000.0) as world:
        pod = world.add()
        tap = start(pod)
        world.run(1)
        world.node.overrun()
        world.run(0.01)
        pod.release(tap)
        world.node.overrun()
        world.run(0.01)
        assert pod.taps == [tap]  # not yet: that costs time
        world.run(SOON)
        assert pod.taps == []


def test_a_visit_that_fails_is_repeated():
    with World(resync=1000.0) as world:
        pod = world.add()
        tap = start(pod)
        world.run(1)
        pod.failing = 3
        pod.release(tap)
        world.run(1)
        assert pod.failing == 0 and pod.taps == []


@pytest.mark.parametrize("grace", [0.0, 1.0])
@pytest.mark.parametrize("reason", ["failing", "crowded"])
def test_a_death_during_a_visit_that_fails_is_answered(grace, reason):
    with World(grace, resync=1000.0) as world:
        pod = world.add()
        tap = start(pod)
        world.run(1)
        world.agent.resync()
        setattr(*{"failing": (pod, reason, 1), "crowded": (world.node, reason, 1)}[reason])
        world.agent.step(world.node.now)
        assert world.known(pod).is_busy
        pod.release(tap)
        world.run(grace + 2 * SOON)
        assert pod.taps == []


@pytest.mark.parametrize("grace", [0.0, 1.0])
def test_a_tap_that_is_down_is_seen_if_everything_is_looked_at_during_a_visit(grace):
    with World(grace, resync=1000.0) as world:
        pod = world.add()
        tap = start(pod, is_up=False)
        world.run(1)

        def happens():
            pod.release(tap)
            world.agent.resync()

        pod.meanwhile.append(lambda: world.node.later(0, happens))
        world.agent.resync()
        world.run(grace + 2 * SOON)
        assert pod.taps == []


@pytest.mark.parametrize("seen_by", ["look", "visit"])
def test_a_redirect_to_a_vanished_tap_is_found_by_the_next_look(seen_by):
    with World() as world:
        pod = world.add()
        tap = pod.make_tap(NAMES[0])
        pod.release(tap)  # fresh: no event about it passes
        if seen_by == "look":
            world.run(31)
        else:
            world.node.flood(pod, 1)
            world.run(SOON)
        pod.lose_tap(tap, leaves_redirect=True)
        assert pod.owes_redirect
        world.settle()
        assert not any(0 in each.targets for each in pod.filters)


def test_a_death_is_answered_first_although_all_are_to_be_visited():
    with World(jobs=4) as world:
        pods = [world.add(path) for path in PATHS]
        taps = [start(pod) for pod in pods]
        world.run(1)
        world.node.visit_takes = 1.0
        world.agent.resync()
        world.run(0.01)
        idle = [number for number in range(5) if not world.known(pods[number]).is_busy]
        pods[idle[-1]].release(taps[idle[-1]])
        world.run(1.05)
        assert pods[idle[-1]].taps == []


@pytest.mark.parametrize("grace", [0.0, 1.0])
@pytest.mark.parametrize("reuses_key", [False, True])
def test_a_pod_that_takes_the_place_of_another_is_a_new_one(grace, reuses_key):
    with World(grace, resync=1000.0) as world:
        pod = world.add()
        start(pod)
        world.run(1)
        world.node.unpin(pod)
        world.node.happen()
        other = world.node.add(PATHS[0], reuses_key=reuses_key)
        assert (other.key == pod.key) is reuses_key
        world.run(1)
        tap = start(other)
        world.run(1)
        other.release(tap)
        world.run(SOON + grace)
        assert other.taps == []


def test_a_visit_that_was_for_another_pod_does_nothing():
    with World(grace=1.0) as world:
        pod = world.add()
        pod.release(start(pod))
        world.node.visit_takes = 0.5
        world.run(1.3)
        assert world.known(pod).is_busy
        world.node.unpin(pod)
        world.node.happen()
        other = world.node.add(PATHS[0])
        tap = start(other)
        other.release(tap)  # with the same index and count as the former
        world.run(0.5)
        assert other.taps == [tap]
        world.run(2)
        assert other.taps == []


def test_a_young_orphan_waits_beside_an_old_one_and_delays_it_not():
    with World(grace=2.0) as world:
        pod = world.add()
        old, young = start(pod), start(pod, NAMES[1])
        pod.release(old)
        world.run(1.5)
        pod.release(young)
        world.run(0.55)
        assert pod.taps == [young]
        world.run(1.4)
        assert pod.taps == [young]
        world.run(0.1)
        assert pod.taps == []


def test_a_vm_that_comes_back_within_the_grace_keeps_its_tap():
    with World(grace=2.0) as world:
        pod = world.add()
        tap = start(pod)
        for _ in range(5):
            pod.release(tap)
            world.run(1.5)
            pod.attach(tap)
            world.run(1.0)
        assert pod.taps == [tap]
        pod.release(tap)
        world.run(2.0 + SOON)
        assert pod.taps == []


def test_a_loud_pod_delays_no_other_and_is_muted_and_heard_again():
    with World(resync=1000.0, jobs=1) as world:
        loud, quiet = world.add(PATHS[0]), world.add(PATHS[1])
        taps = {pod: start(pod) for pod in (loud, quiet)}
        world.run(1)
        world.node.visit_takes = 0.01
        for number in range(300):
            world.node.later(number * 0.001, lambda: world.node.flood(loud, 1))
        world.node.later(0.02, lambda: quiet.release(taps[quiet]))
        world.run(0.1)
        assert quiet.taps == []
        assert world.known(loud).is_muted and len(world.notes) == 1
        world.run(1)
        visits = loud.visits
        world.node.flood(loud, 30)
        world.run(1)
        assert loud.visits <= visits + 1  # it was not heard
        world.run(5)
        assert not world.known(loud).is_muted
        loud.release(taps[loud])
        world.run(SOON)
        assert loud.taps == []


def test_a_death_that_is_announced_while_another_pod_is_muted_is_answered():
    with World(resync=1000.0) as world:
        loud, quiet = world.add(PATHS[0]), world.add(PATHS[1])
        tap = start(quiet)
        world.run(1)
        world.node.flood(loud, 56)
        quiet.release(tap)  # its event waits in the socket that is given up
        world.run(SOON)
        assert world.known(loud).is_muted
        assert quiet.taps == []


def test_a_fresh_orphan_and_a_vm_cost_no_visit():
    with World() as world:
        pod = world.add()
        start(pod)
        pod.release(pod.make_tap(NAMES[1]))
        world.run(1)
        visits = pod.visits
        world.run(100)
        assert pod.visits == visits and len(pod.taps) == 2


@pytest.mark.parametrize("grace", [0.0, 2.0])
def test_a_look_that_fails_is_replaced_by_a_visit(grace):
    with World(grace) as world:
        pod = world.add()
        tap = start(pod, is_up=False)
        world.run(1)
        pod.release(tap)  # no event
        world.node.looks_fail = 1
        world.run(30 + 2 * grace)
        assert pod.taps == []


def test_what_finds_no_thread_is_done_when_another_visit_ends():
    with World(resync=1000.0) as world:
        first, second = world.add(PATHS[0]), world.add(PATHS[1])
        taps = {pod: start(pod) for pod in (first, second)}
        world.run(1)
        world.node.visit_takes = 0.5
        first.release(taps[first])
        world.run(SOON)
        world.node.visit_takes, world.node.crowded = 0.0, 1
        second.release(taps[second])
        world.run(SOON)
        assert world.node.crowded == 0 and len(second.taps) == 1
        world.run(0.5)
        assert first.taps == second.taps == []


def test_a_directory_that_cannot_be_read_for_a_while_takes_away_no_namespace():
    with World() as world:
        pod = world.add()
        id = world.known(pod).id
        world.node.is_unreadable = world.node.has_mounted = True
        world.run(3.0)
        assert world.known(pod).id == id and len(world.notes) == 1
        world.node.is_unreadable = False
        world.run(3.0)
        assert world.known(pod).id == id


def test_the_end_of_a_namespace_is_noticed_although_it_was_not_announced():
    with World() as world:
        pod = world.add()
        world.node.unpin(pod)
        world.node.happen()
        world.node.overrun()
        other = world.node.add(PATHS[0], reuses_key=True)
        world.run(1)
        tap = start(other)
        other.release(tap)
        world.run(SOON)
        assert other.taps == []
        world.settle()

# SPDX-License-Identifier: Apache-2.0
"""Cleanups of many orphans against a model kernel in which anything may happen between any two requests.

Hypothesis picks what happens and when. The model holds every RTM_DELLINK against what the cleanup had read by then: what has not
changed since must have been proven an orphan. Only what changed after the last look may be deleted by mistake: that window is
the documented one. Real are nlraw.orphans, nlraw.route and the codec; the socket is not.
"""

import errno
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import build
import nlraw.route
from nlraw import link, orphans, uapi, wire
from nlraw.errors import Error, Interrupted, Lost, Refused, TapInUse
from nlraw.route import Route

ETH0, PEER0, STRANGER = 2, 3, 4
FIRST_TAP = 10
PORT = 4321  # the one that build.Namespace answers to

FULL_LIST, ONE_LINK, MARK, OTHER = "full list", "one link", "mark", "other"


class Killed(BaseException):
    """The process is no more: nothing that it does from now on reaches the kernel."""


class Kernel(build.Namespace):
    """A namespace to which things happen. An event is a triple: before which request, what, and to which link."""

    def __init__(self, links, qdiscs, filters, events=()):
        super().__init__(links, qdiscs, filters)
        self.events = sorted(events)
        self.requests = 0  # so far
        self.clock = 0  # counts events that changed a link
        self.seen_all = (0, {})  # the last whole list of links: when, and of each its group and whether it was an orphan
        self.seen_one = {}  # what was last read by itself: when, and whether it was an orphan
        self.last = OTHER  # what was asked last, deletions aside
        self.refusal = 0
        self.refused = self.torn = self.lost = self.dead = False
        self.deleted = []  # links by index
        self.deletions = 0  # of anything
        for each in self.links:
            each.home = each.group  # where it belongs when all is over; None makes no claim
            each.changed = 0

    # -------------------------------------------------------- the socket

    def send(self, datagram):
        """Carry out a datagram of requests; return the one that answers it, or None where that is lost."""
        requests = list(wire.messages(datagram))
        self.lost = False
        readings = []
        if self.dead:
            raise Killed
        if self._is_unsent(len(requests)):
            raise OSError(errno.ENOBUFS, "not sent")
        answers = b""
        for message in requests:
            self._happen()
            self.requests += 1
            answers += b"".join(self.answers(message))
            readings.append(self._reading(message))
        if self.lost:
            return None
        for read in readings:
            read()
        return answers

    def _is_unsent(self, count):
        due = [event for event in self.events if event[0] < self.requests + count and event[1] == "unsent"]
        self.events = [event for event in self.events if event not in due]
        return bool(due)

    def answers(self, message):
        if not message.flags & uapi.NLM_F_ACK:
            self.last = _kind_of_look(message)
        replies = list(super().answers(message))
        if self.torn and message.type == uapi.RTM_GETLINK and message.flags & uapi.NLM_F_DUMP:
            self.torn = False
            done = wire.message(uapi.NLMSG_DONE, uapi.NLM_F_MULTI | uapi.NLM_F_DUMP_INTR, message.sequence, bytes(4), PORT)
            return [reply for reply in replies[:-1] if not _tells_of_stranger(reply)] + [done]
        return replies

    def listed(self, message):
        payloads = super().listed(message)
        kind = link.Link(message).kind if message.type == uapi.RTM_GETLINK else None
        return [payload for payload in payloads if kind is None or build.as_link(payload).kind == kind]

    def _reading(self, message):
        """What the cleanup knows from the answer, to be noted if it arrives."""
        clock, look = self.clock, _kind_of_look(message)
        if look == FULL_LIST:
            seen = {each: (each.group, is_orphan(each)) for each in self.links}
            return lambda: setattr(self, "seen_all", (clock, seen))
        if look == ONE_LINK:
            found = self.link_of(message)
            return lambda orphan=found and is_orphan(found): self.seen_one.update({found: (clock, orphan)})
        return lambda: None

    # -------------------------------------------------------- the rules

    def carry_out(self, message):
        asked = link.Link(message) if message.type in (uapi.RTM_SETLINK, uapi.RTM_DELLINK) else None
        if self.refusal and not self._goes_home(message, asked):
            number, self.refusal, self.refused = self.refusal, 0, True
            return number
        if message.type == uapi.RTM_SETLINK:
            self.last = MARK
        else:
            assert self.last != MARK, "something was deleted without a look after the mark"
        if message.type == uapi.RTM_DELLINK:
            doomed = self._doomed_by_group(asked.group) if asked.group else self._doomed_by_index(asked)
            self._check_redirects(doomed)
            self.deleted += [each.ifindex for each in doomed]
        number = super().carry_out(message)
        self.deletions += not number and message.type != uapi.RTM_SETLINK
        return number

    def _goes_home(self, message, asked):
        return message.type == uapi.RTM_SETLINK and asked.group == getattr(self.link_of(message), "home", None)

    def _doomed_by_group(self, group):
        when, seen = self.seen_all
        proven = {each: orphan for each, (there, orphan) in seen.items() if there == group}
        assert self.last == FULL_LIST, "the proof does not come right before the delete"
        assert proven and all(proven.values()), "what the list showed in the group was not all orphans"
        doomed = [each for each in self.links if each.group == group]
        assert all(each in proven or each.changed > when for each in doomed), "the list did not show it in the group"
        return doomed

    def _doomed_by_index(self, asked):
        doomed = [each for each in self.links if each.ifindex == asked.ifindex]
        for each in doomed:
            when, orphan = self.seen_one.get(each, (-1, False))
            assert orphan or each.changed > when, "it was not an orphan when it was last read"
        return doomed

    def _check_redirects(self, doomed):
        targets = {target for each in self.filters if each.ifindex == ETH0 for target in each.targets}
        assert self.refused or self.clock or not targets & {each.ifindex for each in doomed}, "a redirect outlives its TAP"

    # -------------------------------------------------------- the events

    def _happen(self):
        while self.events and self.events[0][0] <= self.requests:
            _, what, which = self.events.pop(0)
            taps = [each for each in self.links if each.ifindex >= FIRST_TAP]
            if what in DISTURBANCES:
                DISTURBANCES[what](self)
            elif taps:
                self.clock += 1
                EVENTS[what](self, taps[which % len(taps)])
        if self.dead:
            raise Killed

    def _change(self, each, **fields):
        each.__dict__.update(fields, changed=self.clock)

    def attach(self, tap):
        self._change(tap, facts=dict(tap.facts, carrier=1))

    def release(self, tap):
        self._change(tap, facts=dict(tap.facts, carrier=0, up_count=1))

    def rename(self, tap):
        self._change(tap, name="other%d" % tap.ifindex)

    def regroup(self, tap):
        self._change(tap, group=5, home=None)

    def remove(self, tap):
        self.delete_link(tap)

    def recreate(self, tap):
        self._replace(tap, a_tap(max(each.ifindex for each in self.links) + 1, tap.name))

    def replace(self, tap):
        """A device of another kind gets the very index, by which it may be marked."""
        veth = build.a_link(tap.ifindex, "veth%d" % tap.ifindex, kind="veth", mode=None, carrier=1)
        self._replace(tap, veth, home=None)

    def _replace(self, old, new, home=0):
        self.delete_link(old)
        self._change(new, home=home)
        self.links.append(new)

    def intrude(self, tap):
        """A stranger enters the group that this TAP is in just now."""
        for stranger in self.links:
            if stranger.ifindex == STRANGER:
                self._change(stranger, group=tap.group, home=tap.group)


EVENTS = {
    "attach": Kernel.attach,
    "release": Kernel.release,
    "rename": Kernel.rename,
    "regroup": Kernel.regroup,
    "remove": Kernel.remove,
    "recreate": Kernel.recreate,
    "replace": Kernel.replace,
    "intrude": Kernel.intrude,
}
DISTURBANCES = {
    "unsent": lambda kernel: None,  # noticed before the datagram is taken
    "unanswered": lambda kernel: setattr(kernel, "lost", True),
    "torn": lambda kernel: setattr(kernel, "torn", True),
    "busy": lambda kernel: setattr(kernel, "refusal", errno.EBUSY),
    "forbidden": lambda kernel: setattr(kernel, "refusal", errno.EPERM),
    "killed": lambda kernel: setattr(kernel, "dead", True),
}


def _kind_of_look(message):
    if message.type != uapi.RTM_GETLINK:
        return OTHER
    if message.flags & uapi.NLM_F_DUMP == uapi.NLM_F_DUMP:
        return FULL_LIST if link.Link(message).kind is None else OTHER
    return ONE_LINK if link.Link(message).ifindex else OTHER


def _tells_of_stranger(reply):
    return link.Link(wire.messages(reply)[0]).ifindex == STRANGER


def is_orphan(each):
    """By the model's own word: a TAP by its name, its kind and its carrier."""
    tap = each.facts.get("kind", "tun") == "tun" and each.facts.get("mode", uapi.IFF_TAP) == uapi.IFF_TAP
    return tap and each.name.startswith("tap") and each.name.endswith("_urunc") and not each.facts.get("carrier")


class Socket:
    """A netlink socket with a model behind it, as far as nlraw.route uses one."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.answer = None

    def send(self, datagram):
        self.answer = self.kernel.send(datagram)

    def recvmsg(self, *_):
        if self.answer is None:
            raise OSError(errno.ENOBUFS, "lost")
        answer, self.answer = self.answer, None
        return answer, [], 0, (0, 0)

    def close(self):
        pass


class Place:
    """What a Route takes for a namespace: where its sockets are opened."""

    path = "/run/netns/made-up"

    def __init__(self, kernel):
        self.kernel = kernel

    def run(self, _):
        return Socket(self.kernel), PORT


# ---------------------------------------------------------------- runs


def a_tap(ifindex, name, group=0, fresh=False):
    made = build.a_link(ifindex, name, up_count=0 if fresh else 1)
    made.group = group
    return made


def a_kernel(taps, events=()):
    """A pod with TAPs, given as pairs of group and whether fresh, each with redirects both ways; and a stranger, a TAP in use."""
    links = [
        build.a_link(ETH0, "eth0", kind="veth", mode=None, carrier=1),
        build.a_link(PEER0, "peer0", kind="veth", mode=None, carrier=1),
        build.a_link(STRANGER, "vm0", carrier=1),
    ]
    qdiscs = [build.a_qdisc(ETH0, "ingress")]
    filters = [build.a_filter(ETH0, "matchall", PEER0, handle=1, priority=1)]
    for ifindex, (group, fresh) in enumerate(taps, FIRST_TAP):
        links.append(a_tap(ifindex, "tap%d_urunc" % ifindex, group, fresh))
        qdiscs.append(build.a_qdisc(ifindex, "ingress"))
        filters.append(build.a_filter(ETH0, "matchall", ifindex, handle=ifindex, priority=ifindex))
        filters.append(build.a_filter(ifindex, "matchall", ETH0))
    return Kernel(links, qdiscs, filters, events)


def cleaned(kernel, window=nlraw.route.WINDOW, spare_fresh=False):
    """Clean up; return the report and the error, which is None where there was none. A datagram takes ``window`` requests."""
    target = orphans.Target(orphans.MATCH, orphans.UPLINK, spare_fresh=spare_fresh)
    try:
        with mock.patch.object(nlraw.route, "WINDOW", window), Route(Place(kernel)) as route:
            return orphans.remove(route, target), None
    except Error as error:
        return error.report, error


TAPS = st.lists(st.tuples(st.sampled_from([0, 0, 77, 4000000000]), st.booleans()), min_size=1, max_size=6)
MANY_TAPS = st.lists(st.tuples(st.sampled_from([0, 77]), st.booleans()), min_size=orphans.GROUP_FROM, max_size=6)
MOMENTS = st.integers(0, 45)


def events(*names):
    return st.lists(st.tuples(MOMENTS, st.sampled_from(names), st.integers(0, 5)), max_size=8)


WINDOWS = st.sampled_from([1, 4, nlraw.route.WINDOW])
ALIVE = sorted(EVENTS) + sorted(set(DISTURBANCES) - {"killed"})
thorough = settings(deadline=None, max_examples=400)


@thorough
@given(TAPS, events(*ALIVE), WINDOWS, st.booleans())
@example([(0, False)] * 3, [(7, "intrude", 0), (7, "torn", 0)], 128, False)  # the list of the proof leaves out the stranger
def test_whatever_happens_nothing_is_deleted_that_was_not_proven_an_orphan(taps, happening, window, spare_fresh):
    kernel = a_kernel(taps, happening)
    report, error = cleaned(kernel, window, spare_fresh)  # the rules are held by the kernel
    assert [each.targets for each in kernel.filters if each.handle == each.priority == 1] == [[PEER0]]
    if error is None:
        assert report.outcome in ("clean", "cleaned")
    else:
        assert isinstance(error, (TapInUse, Interrupted, Refused, Lost))
        assert report.outcome == ("in-use" if isinstance(error, TapInUse) else "failed")


@thorough
@given(MANY_TAPS, events(*ALIVE), WINDOWS, st.booleans())
@example([(77, False)] * 3, [(7, "attach", 0)], 128, False)  # before the proof
@example([(77, False)] * 3, [(7, "attach", 0), (8, "unsent", 0)], 128, False)  # and the look at what is to be put back is lost
@example([(77, False)] * 3, [(7, "attach", 0), (9, "unsent", 0)], 128, False)  # and what puts it back does not get out
def test_whatever_happens_all_that_are_left_are_in_their_former_groups(taps, happening, window, spare_fresh):
    kernel = a_kernel(taps, happening)
    cleaned(kernel, window, spare_fresh)
    for each in kernel.links:
        assert each.home in (None, each.group), each


@thorough
@given(MANY_TAPS, events(*ALIVE), WINDOWS)
@example([(0, False)] * 3, [(10, "unsent", 0), (11, "attach", 0)], 2)  # some TC state has gone, the rest was never asked to
@example([(0, False)] * 3, [(14, "unanswered", 0), (15, "recreate", 0)], 128)
def test_a_cleanup_that_says_that_nothing_was_changed_has_changed_nothing(taps, happening, window):
    kernel = a_kernel(taps, happening)
    _, error = cleaned(kernel, window)
    if "nothing was changed" in str(error):
        assert kernel.deletions == 0


@thorough
@given(TAPS, events(*ALIVE), WINDOWS, st.booleans())
@example([(0, False)], [(5, "unanswered", 0)], 128, False)
@example([(0, False)] * 3, [(8, "unanswered", 0)], 128, False)
@example([(0, False)] * 3, [(8, "regroup", 0), (8, "unanswered", 0)], 128, False)  # one stays, the others are deleted
def test_what_was_deleted_is_reported_and_what_is_reported_is_gone(taps, happening, window, spare_fresh):
    kernel = a_kernel(taps, happening)
    report, _ = cleaned(kernel, window, spare_fresh)
    reported = {tap.ifindex for tap in report.taps if tap.deleted}
    assert set(kernel.deleted) - {STRANGER} <= reported
    assert not reported & {each.ifindex for each in kernel.links if not each.changed}


@thorough
@given(MANY_TAPS, events(*EVENTS), st.integers(0, 45), WINDOWS)
def test_after_a_kill_at_any_moment_the_next_run_finishes(taps, happening, moment, window):
    kernel = a_kernel(taps, happening + [(moment, "killed", 0)])
    try:
        cleaned(kernel, window)
    except Killed:
        pass
    kernel.dead, kernel.events = False, []
    report, error = cleaned(kernel)
    if error is None:
        assert report.outcome in ("clean", "cleaned")
        assert not any(is_orphan(each) for each in kernel.links)
        assert not any(0 in each.targets for each in kernel.filters)
    else:
        assert isinstance(error, TapInUse)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 500])
def test_undisturbed_all_orphans_go_and_nothing_else_does(count):
    kernel = a_kernel([(77 * (number % 2), False) for number in range(count)])
    report, error = cleaned(kernel)
    assert error is None and report.outcome == "cleaned"
    assert len(kernel.deleted) == len(report.taps) == count
    assert [each.name for each in kernel.links] == ["eth0", "peer0", "vm0"]
    assert [each.targets for each in kernel.filters] == [[PEER0]]
    assert [each.ifindex for each in kernel.qdiscs] == [ETH0]


# ---------------------------------------------------------------- the model can object


def mark_and_delete(kernel, *between):
    """What a cleanup without care would do: mark all TAPs, ask something, delete the group."""
    marks = [link.set_group(each.ifindex, each.name, 7) for each in kernel.links if each.ifindex >= FIRST_TAP]
    with Route(Place(kernel)) as route:
        for requests in [marks, list(between), [link.delete_group(7, "")]]:
            route.change(*requests)


def test_the_model_objects_to_a_delete_without_a_proof():
    with pytest.raises(AssertionError, match="without a look"):
        mark_and_delete(a_kernel([(0, False)] * 3))


def test_the_model_objects_to_a_proof_from_a_filtered_list():
    with pytest.raises(AssertionError, match="does not come right before"):
        mark_and_delete(a_kernel([(0, False)] * 3), link.dump("tun"))


def test_the_model_objects_to_a_tap_in_use_in_the_group():
    with pytest.raises(AssertionError, match="not all orphans"):
        mark_and_delete(a_kernel([(0, False)] * 3, [(1, "attach", 0)]), link.dump())


def test_the_model_objects_to_a_redirect_that_is_left():
    with pytest.raises(AssertionError, match="outlives"):
        mark_and_delete(a_kernel([(0, False)] * 3), link.dump())

# SPDX-License-Identifier: Apache-2.0
"""nlraw.pod: one namespace listed, cleaned up, and waited for; the public scan and cleanup."""

import pytest

import nlraw
from lib import build
from lib.build import a_filter, a_link, a_qdisc
from lib.opened import Opened
from nlraw import holders, pod, uapi
from nlraw.errors import BadNamespace, Error, Invalid, Refused, TapInUse
from nlraw.report import Holder, Report
from nlraw.verdict import Target


def a_pod(*taps):
    made = build.Namespace([a_link(2, "eth0", kind="veth")] + list(taps))
    made.qdiscs = [a_qdisc(2, "ingress")]
    made.filters = [a_filter(2, "u32", each.ifindex, handle=each.ifindex) for each in taps]
    return made


def tap(ifindex=4, name="tap0_urunc", **facts):
    return a_link(ifindex, name, **facts)


@pytest.fixture
def opened(monkeypatch):
    """A function that lets every namespace that is opened be a made-up one."""

    def let(made):
        found = Opened(made)
        monkeypatch.setattr(pod, "Namespace", found.namespace)
        monkeypatch.setattr(pod, "Connection", found.connection)
        monkeypatch.setattr(pod, "SYSTEM", found.clock)
        return found

    return let


GROUPS = uapi.RTMGRP_LINK | uapi.RTMGRP_TC


# ---------------------------------------------------------------- scan and cleanup


def test_only_what_may_change_something_asks_to_be_alone(opened):
    seen = opened(a_pod(tap()))
    for act, exclusive, outcome in (
        (lambda: nlraw.cleanup("pod", dry_run=True).outcome, False, "would-clean"),
        (lambda: pod.preview_of("pod", Target()).outcome, False, "would-clean"),
        (lambda: nlraw.cleanup("pod").outcome, True, "cleaned"),
    ):
        del seen.arguments[:]
        assert act() == outcome
        assert seen.arguments == [("pod",), (exclusive, GROUPS, None)]


def test_a_scan_wakes_nobody_and_listens_to_nothing(opened):
    seen = opened(a_pod(tap()))
    (found,) = nlraw.scan("pod")
    assert (found.ifname, found.verdict, found.holders) == ("tap0_urunc", "orphan", None)
    assert seen.arguments == [("pod",), (False, 0, None)]
    assert seen.made.changes == []


def test_a_cleanup_has_all_that_is_said_of_its_target(opened):
    taps = [tap(), tap(5, "tap1_urunc"), tap(6, "vm0"), tap(7, "tap2_urunc", carrier=1)]
    made = a_pod(*taps)
    opened(made)
    report = nlraw.cleanup(
        "pod", ["tap*_urunc", "vm?"], ["eth7", "eth0"], exclude="tap1*", keep_in_use=True
    )
    assert report.outcome == "cleaned"
    assert [each.name for each in made.links] == ["eth0", "tap1_urunc", "tap2_urunc"]
    assert [each.ifname for each in nlraw.scan("pod", exclude=["tap1*"])] == ["tap2_urunc"]


def test_a_failure_is_raised_with_its_report(opened):
    opened(a_pod(tap(carrier=1)))
    with pytest.raises(TapInUse) as caught:
        nlraw.cleanup("pod")
    assert caught.value.report.outcome == "in-use"
    assert caught.value.report.error is caught.value
    assert pod.clean_up("pod", Target()).error.report is None
    for call in (nlraw.cleanup, nlraw.scan):
        with pytest.raises(Invalid):
            call("pod", match="")


@pytest.mark.parametrize("call", [pod.clean_up, pod.preview_of])
def test_a_failure_before_anything_was_seen_has_its_report(call):
    report = call("/nonexistent/x", Target(uplink="eth7"))
    assert isinstance(report.error, (Refused, BadNamespace))
    assert report == Report(
        netns="/nonexistent/x",
        uplink="eth7",
        outcome="failed",
        taps=(),
        tc_removed=(),
        error=report.error,
    )


def test_a_cleanup_in_an_open_namespace_never_raises(opened, monkeypatch):
    seen = opened(a_pod(tap()))

    def broken(*arguments, **named):
        raise Refused(5, "broken")

    monkeypatch.setattr(pod, "Connection", broken)
    report = pod.clean_up_in(seen, Target())
    assert (report.netns, report.outcome, report.error.errno) == (seen.path, "failed", 5)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_quick_list_of_a_scan_may_end_early_and_a_cleanup_sees_more(count):
    taps = [tap(10 + at, "tap%d_urunc" % at, carrier=1) for at in range(count)]
    made = a_pod(*(taps + [tap(30, "tap30_urunc")]))
    made.too_long = ("tap30_urunc",)
    assert len(pod.list_taps(made, Target())) == count
    assert len(pod.preview(made, Target()).taps) == count + 1


def test_what_is_stacked_on_a_tap_shows_in_the_second_list_of_a_scan():
    made = a_pod(tap(), tap(5, "tap1_urunc"), a_link(9, "mac0", kind="macvlan", lower=4))
    lists = []
    made.before = lambda requests: lists.extend(each.object for each in requests)
    found = pod.list_taps(made, Target())
    assert [(each.ifname, each.verdict) for each in found] == [
        ("tap0_urunc", "in-use"),
        ("tap1_urunc", "orphan"),
    ]
    assert lists == ["tun", "of every kind"]


def test_while_no_tap_is_an_orphan_a_scan_takes_one_list():
    made = a_pod(tap(carrier=1))
    found = pod.list_taps(made, Target())
    assert ([each.verdict for each in found], made.datagrams) == (["in-use"], 1)


# ---------------------------------------------------------------- who holds a TAP


@pytest.fixture
def held(monkeypatch):
    """The names that holders were looked for; of each TAP it is one process."""
    asked = []

    def find(namespace, names):
        asked.append(list(names))
        return {name: [Holder(pid=7, comm=name)] for name in names}

    monkeypatch.setattr(holders, "find", find)
    return asked


def test_the_holders_of_taps_in_use_are_named_if_that_is_asked_for(opened, held):
    opened(a_pod(tap(), tap(5, "tap1_urunc", carrier=1)))
    for act in (
        lambda who: nlraw.scan("pod", who=who),
        lambda who: pod.preview_of("pod", Target(), who=who).taps,
        lambda who: pod.clean_up("pod", Target(), who=who).taps,
    ):
        del held[:]
        assert [each.holders for each in act(False)] == [None, None] and held == []
        assert [each.holders for each in act(True)] == [(), (Holder(pid=7, comm="tap1_urunc"),)]
        assert held == [["tap1_urunc"]]


# ---------------------------------------------------------------- waiting


def test_nothing_is_waited_for_unless_a_tap_is_in_use_and_that_is_asked_for(opened):
    for made, wait, looks in (
        (a_pod(tap()), 5, 3),
        (a_pod(tap(carrier=1)), 0, 1),
        (a_pod(tap(carrier=1)), -1, 1),
    ):
        seen = opened(made)
        pod.clean_up("pod", Target(), wait=wait)
        assert len(seen.arguments) == 2 and seen.listener.waited == []
        assert made.looks <= looks


def test_a_tap_that_is_released_is_removed_at_once(opened):
    made = a_pod(tap(carrier=1))
    seen = opened(made)

    def release():
        made.links[-1].facts["carrier"] = 0

    seen.listener.events = [lambda: None, lambda: None, release]
    report = pod.clean_up("pod", Target(), wait=5)
    assert (report.outcome, report.error) == ("cleaned", None)
    # the group is joined before the look that is then waited behind
    assert seen.listener.waited[0] == 0.0 and len(seen.listener.waited) == 3
    assert seen.clock.now == 100.0
    assert (False, uapi.RTMGRP_LINK, None) in seen.arguments  # the writer port is not held


def test_a_release_that_no_event_announces_is_seen_after_a_second(opened):
    made = a_pod(tap(carrier=1))
    seen = opened(made)
    made.before = lambda requests: made.links[-1].facts.update(carrier=int(seen.clock.now < 101))
    report = pod.clean_up("pod", Target(), wait=5)
    assert report.outcome == "cleaned" and seen.clock.now == 100 + pod.LOOK_EVERY


def test_a_tap_that_is_not_released_is_in_use_when_the_time_is_over(opened):
    made = a_pod(tap(carrier=1))
    seen = opened(made)
    report = pod.clean_up("pod", Target(), wait=2.5)
    assert (report.outcome, type(report.error), made.changes) == ("in-use", TapInUse, [])
    assert seen.clock.now == 102.5
    assert seen.listener.waited == [0.0, 1.0, 1.0, 0.5]


def test_a_connection_that_fails_while_waiting_is_a_failure(opened):
    made = a_pod(tap(carrier=1))
    seen = opened(made)

    def fail():
        raise Error("broken", "receive events in", "pod")

    seen.listener.events = [lambda: None, fail]
    assert pod.clean_up("pod", Target(), wait=2.5).outcome == "failed"


def test_the_names_in_the_package_are_those_of_this_file():
    assert (nlraw.scan, nlraw.cleanup) == (pod.scan, pod.cleanup)

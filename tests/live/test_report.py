# SPDX-License-Identifier: Apache-2.0
"""What a report says, next to what iproute2 says; dry runs, second runs, refusals.

And that a look wakes nobody.
"""

import errno
import json
import select
import socket
import time

import pytest

import nlraw
import nlraw.pod
from lib import pods
from nlraw import cli
from nlraw import node as sweeping
from nlraw.connection import Connection
from nlraw.errors import Refused
from nlraw.exchange import Reply
from nlraw.verdict import Target

LINK_AND_TC = 1 << 0 | 1 << 3  # RTNLGRP_LINK, RTNLGRP_TC, as the groups of a netlink address


def removed(report):
    return ["%s %s %s" % (gone.dev, gone.object, gone.kind) for gone in report.tc_removed]


def lasting(taps):
    """TAPs without what may follow the carrier at any time in the second after a change."""
    return [tap.replace(operstate=None, flags=()) for tap in taps]


EVERYTHING_OF_ONE_ORPHAN = ["eth0 filter u32", "eth0 qdisc ingress", "tap0_urunc qdisc ingress"]


def test_a_report_says_what_was_removed_in_the_order_in_which_it_went(pod):
    pod.add_orphan()
    report = nlraw.cleanup(netns=pod.path)
    assert (report.netns, report.uplink, report.outcome, report.error) == (
        pod.path,
        "eth0",
        "cleaned",
        None,
    )
    assert [(tap.ifname, tap.verdict, tap.deleted) for tap in report.taps] == [
        (pods.TAP, "orphan", True)
    ]
    assert removed(report) == EVERYTHING_OF_ONE_ORPHAN


def test_the_uplink_is_freed_before_any_orphan_goes(pod):
    pod.add_orphan("tap0_urunc")
    pod.add_orphan("tap1_urunc")
    assert removed(nlraw.cleanup(netns=pod.path)) == [
        "eth0 filter u32",
        "eth0 filter u32",
        "eth0 qdisc ingress",
        "tap0_urunc qdisc ingress",
        "tap1_urunc qdisc ingress",
    ]


def test_a_dry_run_lists_what_a_real_run_removes_and_changes_nothing(pod):
    pod.add_orphan()
    before = pod.state()
    dry = nlraw.cleanup(netns=pod.path, dry_run=True)
    assert pod.state() == before
    assert (dry.outcome, [tap.deleted for tap in dry.taps]) == ("would-clean", [False])
    real = nlraw.cleanup(netns=pod.path)
    assert dry.tc_removed == real.tc_removed
    assert lasting(dry.taps) == lasting(tap.replace(deleted=False) for tap in real.taps)


def test_a_dry_run_on_a_dead_redirect_alone_would_clean(pod):
    pod.add_orphan()
    pod.ip("link", "del", pods.TAP)
    before = pod.state()
    dry = nlraw.cleanup(netns=pod.path, dry_run=True)
    assert (dry.outcome, dry.taps, removed(dry)) == (
        "would-clean",
        (),
        EVERYTHING_OF_ONE_ORPHAN[:2],
    )
    assert pod.state() == before


def test_a_dry_run_refuses_a_tap_in_use(pod):
    pod.add_tap()
    pod.hold()
    with pytest.raises(nlraw.TapInUse):
        nlraw.cleanup(netns=pod.path, dry_run=True)


def test_the_second_run_finds_nothing(pod):
    pod.add_orphan()
    nlraw.cleanup(netns=pod.path)
    after = pod.state()
    report = nlraw.cleanup(netns=pod.path)
    assert (report.outcome, report.taps, report.tc_removed) == ("clean", (), ())
    assert pod.state() == after


def settled(pod, operstate):
    """The TAP as `ip` tells it, once its operational state has followed the carrier."""
    deadline = time.monotonic() + 3
    while True:
        told = pod.links()[pods.TAP]
        if told["operstate"] == operstate:
            return told
        assert time.monotonic() < deadline, "the operational state never came to be " + operstate


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("held", [True, False], ids=["held", "orphan"])
def test_a_tap_is_described_as_iproute2_describes_it(pod, up, held):
    pod.add_tap(up=up)
    if held:
        pod.hold()
    told = settled(pod, "UP" if up and held else "DOWN")
    (tap,) = nlraw.scan(netns=pod.path)
    assert (tap.ifname, tap.ifindex, tap.operstate) == (
        told["ifname"],
        told["ifindex"],
        told["operstate"],
    )
    # iproute2 leaves RUNNING out, and says NO-CARRIER of what is up without it
    assert [flag for flag in tap.flags if flag != "RUNNING"] == [
        flag for flag in told["flags"] if flag != "NO-CARRIER"
    ]
    assert ("NO-CARRIER" in told["flags"]) == ("UP" in tap.flags and "RUNNING" not in tap.flags)
    assert (tap.carrier, tap.deleted) == (held, False)


def test_scan_and_cleanup_describe_the_same_taps(pod):
    pod.add_orphan("tap0_urunc")
    pod.add_tap("tap1_urunc", up=False)
    assert lasting(nlraw.scan(netns=pod.path)) == lasting(
        nlraw.cleanup(netns=pod.path, dry_run=True).taps
    )


def test_what_is_said_to_be_removed_is_what_tc_had_listed(pod):
    pod.add_orphan()
    pod.tc("qdisc", "add", "dev", pods.TAP, "root", "handle", "1:", "htb")
    listed = [("qdisc", qdisc["dev"], qdisc["kind"]) for qdisc in pod.qdiscs()]
    listed += [("filter", "eth0", found["kind"]) for found in pod.filters("eth0")]
    report = nlraw.cleanup(netns=pod.path)
    assert sorted((gone.object, gone.dev, gone.kind) for gone in report.tc_removed) == sorted(
        listed
    )
    assert pod.qdiscs() == []


def test_a_name_that_is_not_utf8_is_reported_by_surrogates(pod):
    pod.add_taps([b"tap\xff_urunc"])
    (tap,) = nlraw.cleanup(netns=pod.path).taps
    assert (tap.ifname, tap.deleted) == ("tap\udcff_urunc", True)
    assert nlraw.scan(netns=pod.path) == ()


def test_a_refusal_in_the_middle_says_what_was_done_and_what_was_not(pod, monkeypatch):
    pod.add_orphan()
    delete = nlraw.link.delete
    # every namespace has one link that cannot be deleted: lo
    monkeypatch.setattr(nlraw.link, "delete", lambda ifindex, name: delete(1, name))
    with pytest.raises(nlraw.Refused) as caught:
        nlraw.cleanup(netns=pod.path)
    error, report = caught.value, caught.value.report
    assert (error.errno, error.step, error.object) == (errno.EOPNOTSUPP, "delete link", pods.TAP)
    assert "not done: delete link tap0_urunc" in str(error)
    assert (report.outcome, report.error) == ("failed", error)
    assert [tap.deleted for tap in report.taps] == [False]
    assert removed(report) == EVERYTHING_OF_ONE_ORPHAN
    assert pods.TAP in pod.links() and pod.qdiscs() == []
    monkeypatch.undo()
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"


# ---------------------------------------------------------------- in use after something is gone


def held_when_it_should_go(pod, name):
    """A kind of connections: when the orphan should go it is busy, and a TAP is held since then."""
    held = []

    class Busy(Connection):
        def change(self, *requests):
            if held or requests[-1].step != "delete link":
                return super().change(*requests)
            reply = Reply(requests[-1])
            reply.error = Refused(errno.EBUSY, "busy on purpose", reply.request.step, pods.TAP)
            replies = super().change(*requests[:-1]) + [reply]
            held.append(pod.hold(name))
            return replies

    return Busy


CAME_INTO_USE = (
    "clean up %s: came into use (carrier on) after something was removed: "
    "u32 filter on eth0, ingress qdisc on eth0, ingress qdisc on tap0_urunc"
)
HELD = pytest.mark.parametrize("name", [pods.TAP, "tap1_urunc"], ids=["the orphan", "another"])


@HELD
def test_a_tap_that_comes_into_use_after_something_was_removed_is_a_failure(
    pod, monkeypatch, capsys, name
):
    ifindex = pod.add_orphan()
    monkeypatch.setattr(nlraw.pod, "Connection", held_when_it_should_go(pod, name))
    assert cli.main(["cleanup", "-n", pod.path, "-j"]) == 1
    told = capsys.readouterr()
    assert told.err == "nlraw: %s: %s\n" % (pod.path, CAME_INTO_USE % name)
    document = json.loads(told.out)
    assert document["outcome"] == "failed"
    assert (document["error"]["step"], document["error"]["errno"]) == ("clean up", None)
    assert [(gone["dev"], gone["kind"]) for gone in document["tc_removed"]] == [
        ("eth0", "u32"),
        ("eth0", "ingress"),
        ("tap0_urunc", "ingress"),
    ]
    assert [tap["deleted"] for tap in document["taps"] if tap["ifindex"] == ifindex] == [False]
    assert pod.links()[pods.TAP]["ifindex"] == ifindex and pod.qdiscs() == []


@HELD
def test_such_a_failure_of_the_library_is_no_tap_in_use(pod, monkeypatch, name):
    pod.add_orphan()
    monkeypatch.setattr(nlraw.pod, "Connection", held_when_it_should_go(pod, name))
    with pytest.raises(nlraw.Error) as caught:
        nlraw.cleanup(netns=pod.path)
    assert not isinstance(caught.value, nlraw.TapInUse)
    assert str(caught.value) == CAME_INTO_USE % name
    assert (caught.value.report.outcome, caught.value.report.error) == ("failed", caught.value)


def test_such_a_failure_of_the_cleanup_is_one_of_its_setup(pod, monkeypatch, capsys):
    pod.add_orphan()
    monkeypatch.setattr(nlraw.pod, "Connection", held_when_it_should_go(pod, pods.TAP))
    assert cli.main(["setup", "-n", pod.path, "-j"]) == 1
    told = capsys.readouterr()
    assert told.err == "nlraw: %s: %s\n" % (pod.path, CAME_INTO_USE % pods.TAP)
    document = json.loads(told.out)
    assert (document["outcome"], document["cleanup"]["outcome"]) == ("failed", "failed")
    assert (document["tap"], document["uplink"]) == (None, None)


def test_such_a_failure_is_one_of_a_sweep_too(pod):
    pod.add_orphan()
    busy = held_when_it_should_go(pod, pods.TAP)
    swept = sweeping.sweep_paths([pod.path], Target(), connect=busy)
    (report,) = swept.namespaces
    assert (report.outcome, str(report.error)) == ("failed", CAME_INTO_USE % pods.TAP)
    assert (swept.totals.failed, swept.totals.in_use) == (1, 1)


# ---------------------------------------------------------------- who is woken


def heard(listener, seconds):
    """How many notifications come in before it has been silent for so long."""
    number = 0
    while select.select([listener], [], [], seconds)[0]:
        listener.recv(1 << 16)
        number += 1
    return number


@pytest.fixture
def listener(pod):
    """A socket that hears of every change of a link or of TC in the pod.

    The setup of the pod is over and heard.
    """
    pod.add_orphan("tap0_urunc")
    pod.tc("qdisc", "add", "dev", "peer0", "clsact")
    listener = pod.run(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
    with listener:
        listener.bind((0, LINK_AND_TC))
        heard(listener, 1.3)  # the operational state lags for a second
        yield listener


def test_a_scan_and_a_dry_run_wake_nobody_who_listens(pod, listener):
    for _ in range(10):
        nlraw.scan(netns=pod.path)
        nlraw.cleanup(netns=pod.path, dry_run=True)
    assert heard(listener, 0.2) == 0
    nlraw.cleanup(netns=pod.path)
    assert heard(listener, 0.2) > 0, "the listener is deaf"


def test_a_cleanup_with_nothing_to_do_wakes_nobody(pod, listener):
    nlraw.cleanup(netns=pod.path)
    heard(listener, 1.3)
    assert nlraw.cleanup(netns=pod.path).outcome == "clean"
    assert heard(listener, 0.2) == 0


def test_reports_hold_nothing_but_what_json_can_hold(pod):
    pod.add_orphan()
    report = nlraw.cleanup(netns=pod.path)
    taps, tc_removed = (
        [record.fields() for record in records] for records in (report.taps, report.tc_removed)
    )
    told = dict(report.fields(), taps=taps, tc_removed=tc_removed)
    assert json.loads(json.dumps(told))["taps"][0]["flags"] == list(report.taps[0].flags)

# SPDX-License-Identifier: Apache-2.0
"""--wait: a TAP in use is waited for, woken by the kernel's link events and not by polling.

A VMM that is killed holds its TAP until its memory is freed. Nobody else waits meanwhile.
"""

import socket
import threading
import time
from _socket import socket as Socket

import pytest

import nlraw
from lib import command, pods
from nlraw import link
from nlraw import pod as cleaning
from nlraw.connection import Connection
from nlraw.netns import Namespace
from nlraw.transport import SYSTEM, Patience
from nlraw.verdict import Target

RELEASE = 0.3  # seconds
SOON = 0.6  # after that, on a slow machine; less than `LOOK_EVERY`


def act_later(act, seconds=RELEASE):
    timer = threading.Timer(seconds, act)
    timer.start()
    return timer


def timed(act, *arguments, **options):
    """What a call returns or raises, and how long it took."""
    began = time.monotonic()
    try:
        result = act(*arguments, **options)
    except nlraw.Error as error:
        result = error
    return result, time.monotonic() - began


@pytest.fixture
def holder(pod):
    """A VMM that is about to be gone."""
    pod.add_tap()
    return pod.hold()


@pytest.fixture
def sent(monkeypatch):
    """The datagrams that nlraw sends, of all its sockets."""
    datagrams = []

    class Counting(Socket):
        def send(self, datagram):
            datagrams.append(datagram)
            return super().send(datagram)

    def open_counting():
        return Counting(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )

    monkeypatch.setattr(SYSTEM, "socket", open_counting)
    return datagrams


# ---------------------------------------------------------------- woken


@pytest.mark.parametrize("end", ["kill", "release"])
def test_a_cleanup_is_woken_by_the_release(pod, holder, end):
    timer = act_later(getattr(holder, end))
    report, seconds = timed(nlraw.cleanup, netns=pod.path, wait=30)
    timer.join()
    assert report.outcome == "cleaned" and [tap.deleted for tap in report.taps] == [True]
    assert RELEASE - 0.05 < seconds < RELEASE + SOON


def test_a_setup_is_woken_by_the_release(pod, holder):
    timer = act_later(holder.kill)
    made, seconds = timed(nlraw.setup, netns=pod.path, wait=30)
    timer.join()
    assert (made.outcome, made.cleanup.outcome) == ("created", "cleaned")
    assert RELEASE - 0.05 < seconds < RELEASE + SOON
    pod.check_pair()


@pytest.mark.parametrize("arguments", ["cleanup", "setup"])
def test_the_command_line_waits_too(pod, holder, arguments):
    process = command.start(arguments, "-n", pod.path, "--wait", "30", "-j")
    act_later(holder.kill, 1.0).join()
    done = command.finish(process, patience=5)
    assert (done.status, done.err) == (0, "")


def test_the_last_of_several_releases_counts(pod):
    holders = [pod.hold("tap%d_urunc" % number) for number in range(3)]
    timers = [act_later(holders[number].kill, 0.1 * (number + 1)) for number in range(3)]
    report, seconds = timed(nlraw.cleanup, netns=pod.path, wait=30)
    for timer in timers:
        timer.join()
    assert report.outcome in ("clean", "cleaned") and seconds < 2.5


def test_a_tap_that_is_deleted_meanwhile_is_waited_for_no_more(pod, holder):
    timer = act_later(lambda: pod.ip("link", "del", pods.TAP))
    report, seconds = timed(nlraw.cleanup, netns=pod.path, wait=30)
    timer.join()
    assert report.outcome == "cleaned" and seconds < RELEASE + SOON  # the dead redirect


def test_a_device_that_was_stacked_on_it_is_waited_for(pod):
    pod.add_orphan()
    try:
        pod.ip(*"link add upper link tap0_urunc type macvlan".split())
    except RuntimeError as error:
        pytest.skip("this kernel makes no macvlan: %s" % error)
    timer = act_later(lambda: pod.ip("link", "del", "upper"))
    report, seconds = timed(nlraw.cleanup, netns=pod.path, wait=30)
    timer.join()
    assert report.outcome == "cleaned" and seconds < RELEASE + SOON


def test_of_a_tap_that_is_down_no_event_comes_and_it_is_found_all_the_same(pod, holder):
    pod.ip("link", "set", pods.TAP, "down")
    timer = act_later(holder.kill)
    report, seconds = timed(nlraw.cleanup, netns=pod.path, wait=30)
    timer.join()
    assert report.outcome == "cleaned" and seconds < cleaning.LOOK_EVERY + RELEASE + SOON


def test_a_release_right_before_it_listens_is_not_missed(pod, holder):
    calls = []

    def act():
        calls.append(time.monotonic())
        if len(calls) == 1:
            try:
                return nlraw.cleanup(netns=pod.path)
            except nlraw.TapInUse as error:
                holder.kill()
                return error.report
        return nlraw.cleanup(netns=pod.path)

    with Namespace(pod.path) as namespace:
        report = cleaning.wait_while_in_use(namespace, 30, act)
    assert report.outcome == "cleaned" and len(calls) == 2 and calls[1] - calls[0] < SOON


# ---------------------------------------------------------------- not polled, and not for ever


def test_it_is_not_polled(pod, holder, sent):
    nlraw.cleanup(netns=pod.path, dry_run=True, match="vm*")
    of_one_look = len(sent)
    del sent[:]
    error, seconds = timed(nlraw.cleanup, netns=pod.path, wait=0.8)
    assert isinstance(error, nlraw.TapInUse) and 0.75 < seconds < 0.8 + SOON
    assert len(sent) <= 3 * (of_one_look + 1)


def test_what_is_in_use_all_the_time_is_refused_in_the_end(pod, holder):
    before = pod.state()
    done = command.nlraw("cleanup", "-n", pod.path, "--wait", "0.3")
    assert done.status == 3 and "in use (carrier on), nothing was changed" in done.err
    for act in (nlraw.cleanup, nlraw.setup):
        error, seconds = timed(act, netns=pod.path, wait=0.3)
        assert isinstance(error, nlraw.TapInUse) and error.report.outcome == "in-use"
        assert 0.25 < seconds < 0.3 + SOON
    assert pod.state() == before


def test_by_default_nothing_is_waited_for(pod, holder):
    error, seconds = timed(nlraw.cleanup, netns=pod.path)
    assert isinstance(error, nlraw.TapInUse) and seconds < SOON


def test_where_nothing_is_in_use_nothing_is_waited_for(pod):
    pod.add_orphan()
    for outcome in ("cleaned", "clean"):
        report, seconds = timed(nlraw.cleanup, netns=pod.path, wait=30)
        assert report.outcome == outcome and seconds < SOON


def test_what_is_kept_is_not_waited_for(pod, holder):
    report, seconds = timed(nlraw.cleanup, netns=pod.path, wait=30, keep_in_use=True)
    assert report.outcome == "clean" and seconds < SOON


def test_events_of_others_do_not_end_the_wait(pod, holder):
    ended = threading.Event()

    def churn():
        while not ended.wait(0.02):
            pod.ip("link", "set", "peer0", "alias", "x")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        error, seconds = timed(nlraw.cleanup, netns=pod.path, wait=0.8)
    finally:
        ended.set()
        thread.join()
    assert isinstance(error, nlraw.TapInUse) and 0.75 < seconds < 0.8 + SOON


# ---------------------------------------------------------------- nobody else waits


def test_the_writer_port_stays_free_meanwhile(pod, holder):
    thread = threading.Thread(target=timed, args=(nlraw.cleanup, pod.path), kwargs={"wait": 1})
    thread.start()
    time.sleep(0.3)
    with Namespace(pod.path) as namespace, Connection(
        namespace, exclusive=True, patience=Patience(0)
    ) as other:
        other.ask(link.find("eth0"))
        assert other.is_exclusive
    thread.join()


def test_another_cleanup_in_the_namespace_does_not_wait(pod, holder):
    pod.add_orphan("vm0", redirect=False)
    thread = threading.Thread(target=timed, args=(nlraw.cleanup, pod.path), kwargs={"wait": 1})
    thread.start()
    time.sleep(0.3)
    report, seconds = timed(nlraw.cleanup, netns=pod.path, match="vm*")
    assert report.outcome == "cleaned" and seconds < SOON
    thread.join()


def test_several_waits_at_once_end_together(pod, holder):
    reports = []

    def wait():
        reports.append(cleaning.clean_up(pod.path, Target(), wait=30))

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    act_later(holder.kill).join()
    for thread in threads:
        thread.join(5)
    assert sorted(report.outcome for report in reports) == ["clean"] * 3 + ["cleaned"]

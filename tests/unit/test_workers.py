# SPDX-License-Identifier: Apache-2.0
"""Visits on threads of their own: what is given back, whatever happens; and what is news."""

import errno
import os
import select

import pytest

import nlraw
from lib import build
from lib.reports import a_report, a_tap
from nlraw import TcObject, workers
from nlraw.known import Task
from nlraw.report import DeadRedirect
from nlraw.verdict import Target
from nlraw.workers import STUCK, News, PatientTarget, Result, Workers

NOW = 1000.0


def task(id=1, path="/nowhere/at/all", ready=None):
    return Task(id, (4, 5), path, None, ready)


@pytest.fixture
def crew():
    made = Workers(Target())
    yield made
    made.close()


def results(crew):
    """The results, once there are some."""
    poll = select.poll()
    poll.register(crew, select.POLLIN)
    while True:
        assert poll.poll(5000)
        found = list(crew.take())
        if found:
            return found


def report(outcome, *taps, **fields):
    return a_report(outcome, netns="/pod", taps=taps, **fields)


def tap(ifindex=4, deleted=False):
    return a_tap(ifindex=ifindex, deleted=deleted)


# ---------------------------------------------------------------- visits


def test_where_there_is_no_namespace_there_is_no_report(crew):
    crew.begin(task(), NOW)
    assert crew.count == 1
    (result,) = results(crew)
    assert (result.report, result.has_failed, result.left, result.deleted) == (None, False, [], 0)
    assert crew.count == 0


def test_another_namespace_at_the_path_is_left_alone(crew):
    crew.begin(task(path="/proc/self/ns/net"), NOW)
    (result,) = results(crew)
    assert result.report is None


def test_a_mistake_of_ours_is_a_failed_report(crew, monkeypatch):
    def look(visit, dry_run):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(workers.Visit, "look", look)
    crew.begin(task(), NOW)
    (result,) = results(crew)
    assert result.has_failed and "oops" in str(result.report.error)


def test_if_no_thread_can_be_started_the_visit_has_failed(crew, monkeypatch):
    def start(function):
        raise nlraw.Refused(errno.EAGAIN, "no thread could be started")

    monkeypatch.setattr(workers.threads, "start", start)
    crew.begin(task(), NOW)
    (result,) = results(crew)
    assert result.has_failed and result.is_crowded


def test_a_visit_that_does_not_end_is_given_up_and_its_result_is_ignored(crew, monkeypatch):
    begun = []
    monkeypatch.setattr(workers.threads, "start", begun.append)
    assert crew.deadline() == float("inf")
    stuck = task()
    crew.begin(stuck, NOW)
    assert crew.deadline() == NOW + STUCK
    assert crew.give_up(NOW + STUCK - 1) == []
    assert crew.give_up(NOW + STUCK) == [stuck]
    assert crew.count == 0
    begun[0]()
    assert list(crew.take()) == []


def test_a_byte_wakes(crew):
    poll = select.poll()
    poll.register(crew, select.POLLIN)
    assert not poll.poll(0)
    for _ in range(100000):  # more than a pipe holds
        crew.wake()
    assert poll.poll(0)
    while poll.poll(0):
        assert list(crew.take()) == []
    os.write(crew.waker, b"\0")
    assert poll.poll(0)


def test_a_thread_that_ends_after_the_end_writes_nowhere():
    crew = Workers(Target())
    crew.close()
    read, write = os.pipe()  # it may get the same number
    crew.wake()
    os.set_blocking(read, False)
    with pytest.raises(BlockingIOError):
        os.read(read, 1)
    os.close(read)
    os.close(write)


def test_all_orphans_are_spared_but_those_that_have_been_so_for_long():
    target = PatientTarget(Target(uplink=("eth0", "net1"), spare_fresh=True), frozenset([(4, 2)]))
    assert target.uplinks == ("eth0", "net1")
    assert not target.spares(orphan(4, 2))
    assert target.spares(orphan(4, 3)), "it was in use meanwhile"
    assert target.spares(orphan(5, 2))
    assert target.spares(orphan(4, 2, up_count=0)), "it is fresh"
    with_auto = PatientTarget(Target(uplink="auto"), frozenset())
    assert (with_auto.uplink, with_auto.uplinks) == ("auto", ())


def orphan(ifindex, falls, up_count=1):
    return build.as_link(build.link_payload(ifindex, up_count=up_count, down_count=falls))


@pytest.mark.parametrize(
    "found, expected",
    [
        (report("clean"), (False, [], 0, False)),
        (report("cleaned", tap(4, True), tap(5)), (False, [5], 1, True)),
        (
            report("cleaned", tc_removed=(TcObject(dev="eth0", object="qdisc", kind="ingress"),)),
            (False, [], 0, True),
        ),
        (report("failed", tap(4, True), error=nlraw.Error("no")), (True, [], 1, True)),
    ],
)
def test_what_a_result_says(found, expected):
    result = Result(task(), found, False, 0.0)
    assert (result.has_failed, result.left, result.deleted, result.has_changed) == expected


# ---------------------------------------------------------------- news


def test_what_lasts_is_news_once_and_what_was_done_always():
    news = News()
    used = report("in-use", tap())
    assert news.is_new(1, used)
    assert not news.is_new(1, used)
    assert news.is_new(2, used), "that is another namespace"
    assert news.is_new(1, report("in-use", tap(9)))
    assert news.is_new(1, report("cleaned", tap(4, True)))
    assert news.is_new(1, report("cleaned", tap(4, True)))
    assert not news.is_new(1, report("clean"))
    assert news.is_new(1, used), "there was something else in between"
    news.forget(1)
    assert news.is_new(1, used)


def test_failures_are_news_if_the_reason_is_another():
    news = News()
    assert news.is_new(1, report("failed", error=nlraw.Error("one")))
    assert not news.is_new(1, report("failed", error=nlraw.Error("one")))
    assert news.is_new(1, report("failed", error=nlraw.Error("two")))


def test_a_dead_redirect_that_stays_is_news_once():
    news = News()
    dead = report("clean", dead_redirects=(DeadRedirect(dev="eth0", kind="u32", priority=1),))
    assert news.is_new(1, dead)
    assert not news.is_new(1, dead)
    assert not news.is_new(1, report("clean"))
    assert news.is_new(1, dead)


def test_a_skipped_namespace_is_news_if_it_has_taps():
    news = News()
    assert not news.is_new(1, report("skipped"))
    assert news.is_new(1, report("skipped", tap()))

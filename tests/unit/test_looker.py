# SPDX-License-Identifier: Apache-2.0
"""Looks by ID on a thread of their own."""

import _thread

from nlraw import looker
from nlraw.agenda import Agenda
from nlraw.errors import Error, Refused
from nlraw.looker import Looker

NOW = 1000.0


def looked(ids, look):
    """What a looker sees of these namespaces, after it has woken its caller."""
    woken = _thread.allocate_lock()
    woken.acquire()
    made = Looker(look, woken.release)
    made.begin(ids)
    assert woken.acquire(timeout=10)
    assert made.is_busy
    sights = made.take()
    assert not made.is_busy
    assert list(made.take()) == []
    return sights


def test_the_caller_is_woken_when_all_have_been_looked_at():
    assert looked([3, 1], lambda id: {(id, 1): True}) == [(3, {(3, 1): True}), (1, {(1, 1): True})]


def test_what_fails_is_in_the_place_of_what_was_seen_and_the_others_are_looked_at():
    def look(id):
        if id == 1:
            raise Refused(22, "Invalid argument", "list links", "1")
        if id == 2:
            raise ZeroDivisionError("a mistake")
        return {}

    (_, first), (_, second), third = looked([1, 2, 3], look)
    assert isinstance(first, Refused) and first.errno == 22
    assert isinstance(second, Error) and "a mistake" in str(second)
    assert third == (3, {})


def test_the_caller_does_not_wait_for_a_look_until_it_closes():
    gate, ended = _thread.allocate_lock(), []
    gate.acquire()

    def look(id):
        gate.acquire()
        ended.append(id)
        return {}

    made = Looker(look, lambda: None)
    made.begin([1])
    assert made.is_busy and list(made.take()) == [] and ended == []
    gate.release()
    made.close()
    assert ended == [1]


def test_without_a_thread_the_caller_looks_itself(monkeypatch):
    def refuse(function):
        raise Refused(11, "no thread could be started", "start thread")

    monkeypatch.setattr(looker.threads, "start", refuse)
    assert looked([1], lambda id: {}) == [(1, {})]


def test_what_is_to_be_looked_at_is_not_due_while_the_caller_looks():
    made = Agenda(NOW, resync=10.0)
    made.appeared(1, (4, 1), "/run/netns/1", NOW)
    made.visits(NOW)
    made.finished(1, NOW)
    assert made.deadline(NOW) == NOW + 10
    assert made.deadline(NOW + 10, is_looking=True) > NOW + 10
    made.looks(NOW + 10, 0)
    assert made.is_resyncing
    assert made.deadline(NOW + 10) == NOW + 10
    assert made.deadline(NOW + 10, is_looking=True) > NOW + 10

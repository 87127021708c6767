# SPDX-License-Identifier: Apache-2.0
"""The agenda of the agent: what is due after what happened. The times are those of no clock."""

import pytest

import nlraw
from nlraw.agenda import AFTER_LOSS, CROWDED, MOST_TAPS, RETRY, Agenda, check
from nlraw.known import EVENTS, LONGEST_MUTE, MUTE, VISITS, VISITS_PER_SECOND, Quota

NOW = 1000.0


def key(number):
    return 4, 100 + number


def agenda(count=1, **options):
    """An agenda on which so many namespaces have appeared and have been visited."""
    made = Agenda(NOW, **options)
    for number in range(count):
        made.appeared(made.new_id(), key(number), "/pod%d" % number, NOW)
    visit_all(made, NOW)
    return made


def visit_all(made, now, **result):
    """End all visits at once, until there are no more; return their IDs."""
    visited = []
    while True:
        tasks = made.visits(now)
        if not tasks:
            return visited
        for task in tasks:
            visited.append(task.id)
            made.finished(task.id, now, **result)


def look_all(made, now, **taps):
    """Look at all that is due; return the IDs."""
    ids = made.looks(now, 1000)
    for id in ids:
        made.looked(id, taps.get("taps", {}), now)
    return ids


def ids(tasks):
    return [task.id for task in tasks]


# ---------------------------------------------------------------- visits


def test_a_namespace_is_visited_once_when_it_appears():
    made = Agenda(NOW)
    made.appeared(made.new_id(), key(0), "/pod0", NOW)
    assert made.deadline(NOW) == NOW
    (task,) = made.visits(NOW)
    assert (task.id, task.key, task.path, task.since, task.ready) == (
        1,
        key(0),
        "/pod0",
        None,
        None,
    )
    assert made.visits(NOW) == []
    made.finished(1, NOW)
    assert made.visits(NOW) == []
    assert made.deadline(NOW) == NOW + 30


def test_an_event_is_answered_by_a_visit_that_knows_when_it_came():
    made = agenda()
    made.heard(1, 1, NOW + 1)
    made.heard(1, 2, NOW + 2)
    assert made.deadline(NOW + 3) == NOW + 3
    (task,) = made.visits(NOW + 3)
    assert (task.id, task.since) == (1, NOW + 1)
    made.finished(1, NOW + 3)
    assert made.visits(NOW + 3) == []


def test_an_event_of_an_unknown_namespace_is_nothing():
    made = agenda()
    made.heard(7, 1, NOW)
    made.looked(7, {(3, 1): True}, NOW)
    made.unseen(7, NOW)
    assert made.gone(7, NOW) is None
    assert made.visits(NOW) == []


@pytest.mark.parametrize("deleted, heard", [(0, 1), (1, 3), (2, 5)])
def test_what_is_heard_during_a_visit_is_answered_by_another_visit(deleted, heard):
    made = agenda()
    made.heard(1, 1, NOW)
    made.visits(NOW)
    made.heard(1, heard, NOW + 1)
    assert made.visits(NOW + 1) == [], "one visit at a time"
    made.finished(1, NOW + 2, deleted=deleted)
    (task,) = made.visits(NOW + 2)
    assert task.since == NOW + 1


@pytest.mark.parametrize("deleted, heard", [(1, 1), (1, 2), (5, 10)])
def test_the_events_that_a_removal_causes_are_answered_by_a_look(deleted, heard):
    made = agenda()
    made.heard(1, 1, NOW)
    made.visits(NOW)
    made.heard(1, heard, NOW)
    made.finished(1, NOW, deleted=deleted)
    assert made.visits(NOW) == []
    assert look_all(made, NOW) == [1]
    assert made.deadline(NOW) > NOW


def test_so_many_visits_at_a_time_and_most_places_are_kept_for_events():
    made = Agenda(NOW, jobs=8)
    for number in range(20):
        made.appeared(made.new_id(), key(number), "/pod%d" % number, NOW)
    assert len(made.visits(NOW)) == 2
    assert made.deadline(NOW) > NOW, "there is no place"
    for id in range(10, 20):
        made.heard(id, 1, NOW)
    assert ids(made.visits(NOW)) == [10, 11, 12, 13, 14, 15]
    made.finished(1, NOW)
    assert ids(made.visits(NOW)) == [16]


def test_events_come_before_what_is_looked_at_by_the_way():
    made = agenda(3, jobs=1)
    made.resync(NOW)
    made.heard(3, 1, NOW)
    assert visit_all(made, NOW) == [3, 1, 2]


# ---------------------------------------------------------------- failures


def test_a_visit_that_failed_is_repeated_ever_later():
    made = agenda()
    made.heard(1, 1, NOW)
    now, failed = NOW, []
    while len(failed) < 14:
        for task in made.visits(now):
            assert task.since == NOW, "the event has not been answered"
            failed.append(now)
            made.finished(1, now, has_failed=True)
        look_all(made, now)
        now = made.deadline(now)
    waits = [later - earlier for earlier, later in zip(failed, failed[1:])]
    assert waits[:3] == pytest.approx([RETRY, 2 * RETRY, 4 * RETRY])
    assert waits[-1] == pytest.approx(30)


def test_an_event_shortens_the_wait_after_failures():
    made = agenda()
    made.heard(1, 1, NOW)
    for _ in range(9):
        made.visits(NOW)
        made.finished(1, NOW, has_failed=True)
        made.resync(NOW)
    made.visits(NOW)
    made.finished(1, NOW, has_failed=True)
    look_all(made, NOW)
    made.heard(1, 1, NOW)
    assert made.deadline(NOW) == NOW + RETRY


def test_a_request_for_everything_includes_what_waits_after_failures():
    made = agenda()
    made.heard(1, 1, NOW)
    for _ in range(9):
        made.visits(NOW)
        made.finished(1, NOW, has_failed=True)
        made.resync(NOW)
    assert ids(made.visits(NOW)) == [1]


def test_without_resources_fewer_visits_are_made_at_a_time_and_more_again_later():
    made = agenda(8, jobs=8)
    for id in range(1, 9):
        made.heard(id, 1, NOW)
    assert len(made.visits(NOW)) == 8
    for id in range(4, 9):
        made.finished(id, NOW, has_failed=True, is_crowded=True)
    assert made.visits(NOW) == [], "three are in progress, which is all there is room for"
    made.finished(1, NOW)
    assert ids(made.visits(NOW)) == [4]
    assert made.known[4].failures == 0
    made.finished(2, NOW + CROWDED)
    assert ids(made.visits(NOW + CROWDED)) == [5, 6], "one more than before"
    assert made.busy == 4


def test_without_resources_and_alone_it_is_a_failure():
    made = agenda()
    made.heard(1, 1, NOW)
    made.visits(NOW)
    made.finished(1, NOW, has_failed=True, is_crowded=True)
    assert made.visits(NOW) == []
    assert made.deadline(NOW) == NOW + RETRY
    assert ids(made.visits(NOW + RETRY)) == [1]


def test_a_success_ends_the_row_of_failures():
    made = agenda()
    for has_failed in (True, True, True, False):
        made.resync(NOW)
        made.visits(NOW)
        made.finished(1, NOW, has_failed=has_failed)
    made.heard(1, 1, NOW)
    made.visits(NOW)
    made.finished(1, NOW, has_failed=True)
    look_all(made, NOW)
    assert made.deadline(NOW) == NOW + RETRY


# ---------------------------------------------------------------- looks


def test_all_are_looked_at_from_time_to_time():
    made = agenda(3, resync=10)
    assert made.looks(NOW + 9, 10) == []
    assert made.deadline(NOW + 9) == NOW + 10
    assert made.looks(NOW + 10, 2) == [1, 2]
    assert made.is_resyncing and made.deadline(NOW + 10) == NOW + 10
    assert made.looks(NOW + 10, 2) == [3]
    assert not made.is_resyncing
    assert made.deadline(NOW + 11) == NOW + 20


@pytest.mark.parametrize(
    "before, taps, is_visited",
    [
        ([3], {(3, 1): False}, False),
        ([3], {(3, 2): False}, False),
        ([3], {(3, 2): True}, True),
        ([3], {(4, 1): False}, True),  # a redirect to 3 may be left
        ([3], {}, True),
        ([], {}, False),
        ([], {(5, 0): False}, False),
    ],
)
def test_a_look_asks_for_a_visit_where_there_is_an_orphan_or_a_tap_has_vanished(
    before, taps, is_visited
):
    made = Agenda(NOW)
    made.appeared(made.new_id(), key(0), "/pod0", NOW)
    visit_all(made, NOW, left=before)
    made.looks(NOW + 30, 10)
    made.looked(1, taps, NOW + 30)
    assert ids(made.visits(NOW + 30)) == ([1] if is_visited else [])


def test_a_look_that_failed_asks_for_a_visit():
    made = agenda()
    made.looks(NOW + 30, 10)
    made.unseen(1, NOW)
    assert ids(made.visits(NOW + 30)) == [1]


def test_after_a_loss_all_are_looked_at_at_once_but_not_all_the_time():
    made = agenda(2)
    made.lost(NOW + 1)
    assert made.deadline(NOW + 1) == NOW + 1
    assert look_all(made, NOW + 1) == [1, 2]
    made.lost(NOW + 1)
    assert look_all(made, NOW + 1) == []
    assert made.deadline(NOW + 1) == NOW + 1 + AFTER_LOSS
    assert look_all(made, NOW + 1 + AFTER_LOSS) == [1, 2]


def test_a_look_that_is_due_during_a_visit_comes_after_it():
    made = agenda()
    made.heard(1, 1, NOW)
    made.visits(NOW)
    made.lost(NOW)
    assert look_all(made, NOW) == []
    made.finished(1, NOW)
    assert look_all(made, NOW) == [1]


def test_a_look_that_ends_during_a_visit_is_repeated_after_it():
    made = agenda()
    assert made.looks(NOW + 30, 10) == [1]
    made.heard(1, 1, NOW + 30)
    made.visits(NOW + 30)
    made.looked(1, {(3, 1): True}, NOW + 30)
    made.finished(1, NOW + 30)
    assert made.visits(NOW + 30) == []
    assert look_all(made, NOW + 30) == [1]


def test_more_taps_than_are_worth_it_are_not_remembered():
    made = agenda()
    for count in (MOST_TAPS - 1, MOST_TAPS):
        made.resync(NOW)
        made.visits(NOW)
        made.finished(1, NOW, left=range(count))
        assert len(made.known[1].taps) == (count if count < MOST_TAPS else 0)


# ---------------------------------------------------------------- grace


def test_an_orphan_is_left_alone_until_it_has_been_one_for_long_enough():
    made = agenda(grace=5)
    look_all(made, NOW)
    made.heard(1, 1, NOW)
    assert made.visits(NOW) == []
    look_all(made, NOW, taps={(3, 1): True})
    assert made.visits(NOW) == []
    assert made.deadline(NOW) == NOW + 5
    assert look_all(made, NOW + 5, taps={(3, 1): True}) == [1]
    (task,) = made.visits(NOW + 5)
    assert (task.ready, task.since) == ({(3, 1)}, NOW)


def test_an_orphan_that_was_in_use_meanwhile_is_a_young_one():
    made = agenda(grace=5)
    made.heard(1, 1, NOW)
    look_all(made, NOW, taps={(3, 1): True})
    look_all(made, NOW + 5, taps={(3, 2): True})
    assert made.visits(NOW + 5) == []
    assert made.deadline(NOW + 5) == NOW + 10


def test_an_event_without_an_orphan_is_answered_by_the_look():
    made = agenda(grace=5)
    made.heard(1, 1, NOW)
    look_all(made, NOW, taps={(3, 1): False})
    made.heard(1, 1, NOW + 1)
    look_all(made, NOW + 1, taps={(3, 2): True})
    look_all(made, NOW + 6, taps={(3, 2): True})
    (task,) = made.visits(NOW + 6)
    assert task.since == NOW + 1


def test_a_young_orphan_neither_goes_with_an_old_one_nor_keeps_it():
    made = agenda(grace=5)
    made.heard(1, 1, NOW)
    look_all(made, NOW, taps={(3, 1): True})
    made.heard(1, 1, NOW + 4)
    look_all(made, NOW + 4, taps={(3, 1): True, (4, 1): True})
    look_all(made, NOW + 5, taps={(3, 1): True, (4, 1): True})
    (task,) = made.visits(NOW + 5)
    assert task.ready == {(3, 1)}
    made.finished(1, NOW + 5, left=[4], deleted=1)
    assert look_all(made, NOW + 9, taps={(4, 1): True}) == [1]
    (task,) = made.visits(NOW + 9)
    assert task.ready == {(4, 1)}


# ---------------------------------------------------------------- namespaces come and go


def test_what_is_gone_is_visited_no_more_and_its_id_never_comes_again():
    made = agenda(2)
    made.heard(1, 1, NOW)
    assert made.gone(1, NOW).path == "/pod0"
    assert made.id_of(key(0)) is None
    assert made.visits(NOW) == []
    assert made.new_id() == 3


def test_what_goes_during_a_visit_gives_its_place_free_when_that_ends():
    made = agenda(2, jobs=1)
    made.heard(1, 1, NOW)
    made.visits(NOW)
    made.gone(1, NOW)
    made.heard(2, 1, NOW)
    assert made.visits(NOW) == []
    made.finished(1, NOW)
    assert ids(made.visits(NOW)) == [2]
    assert made.busy == 1


def test_a_namespace_with_the_inode_of_a_dead_one_replaces_it():
    made = agenda()
    made.appeared(2, key(0), "/other", NOW)
    assert list(made.known) == [2]
    assert made.id_of(key(0)) == 2
    assert ids(made.visits(NOW)) == [2]


def test_a_namespace_that_has_the_id_of_another_replaces_it():
    """It lost its path, was forgotten, and has kept its ID."""
    made = agenda(2)
    made.appeared(1, key(1), "/other", NOW)
    assert [(known.id, known.key) for known in made.known.values()] == [(1, key(1))]
    assert (made.id_of(key(0)), made.id_of(key(1))) == (None, 1)
    made.gone(1, NOW)
    assert made.id_of(key(1)) is None


# ---------------------------------------------------------------- loud ones


def test_a_namespace_that_wants_visits_without_end_has_to_wait_and_the_others_do_not():
    made = agenda(2)
    now, visits = NOW + 10, 0
    while now < NOW + 20:
        made.heard(1, 1, now)
        for task in made.visits(now):
            visits += 1
            made.finished(task.id, now)
        now += 0.001
    assert visits <= VISITS + 10 * VISITS_PER_SECOND + 1
    assert visits > 9 * VISITS_PER_SECOND
    made.heard(1, 1, now)
    made.heard(2, 1, now)
    assert ids(made.visits(now))[0] == 2


def test_visits_that_take_long_are_fewer():
    made = agenda()
    now, busy = NOW + 10, 0.0
    while now < NOW + 20:
        made.heard(1, 1, now)
        for task in made.visits(now):
            busy += 0.5
            made.finished(task.id, now, seconds=0.5)
        now += 0.01
    assert busy < 4


def test_a_namespace_with_too_many_events_is_muted_for_a_while_each_time_for_longer():
    made = agenda(2)
    now, pauses = NOW, []
    for _ in range(9):
        made.heard(1, EVENTS + 1, now)
        assert made.deadline(now) == now
        assert [known.id for known in made.mutes(now)] == [1]
        assert made.mutes(now) == []
        assert made.muted == 1
        made.heard(1, 1, now)
        begin = now
        while made.muted:
            visit_all(made, now)
            look_all(made, now)
            now = made.deadline(now)
            unmuted = made.unmutes(now)
        assert [known.id for known in unmuted] == [1]
        pauses.append(now - begin)
    assert pauses[:2] == pytest.approx([MUTE, 2 * MUTE])
    assert pauses[-1] == pytest.approx(LONGEST_MUTE)


def test_a_muted_namespace_is_looked_at_with_the_others():
    made = agenda(2)
    made.heard(1, EVENTS + 1, NOW)
    made.mutes(NOW)
    visit_all(made, NOW)
    assert look_all(made, NOW + 30, taps={(3, 1): True}) == [1, 2]
    assert sorted(visit_all(made, NOW + 30)) == [1, 2]


def test_the_deaths_of_a_thousand_orphans_in_one_namespace_are_not_loud():
    made = agenda()
    made.heard(1, 3000, NOW)
    assert made.mutes(NOW) == []


def test_a_quota_grows_back_to_what_it_was():
    quota = Quota(10, 2, NOW)
    quota.spend(14, NOW)
    assert quota.left(NOW) == -4
    assert quota.due(1, NOW) == NOW + 2.5
    assert quota.left(NOW + 2.5) == 1
    assert quota.left(NOW + 100) == 10
    assert quota.due(1, NOW + 100) == NOW + 100


@pytest.mark.parametrize(
    "numbers", [(0, 30, 0), (1, 0, 0), (1, -1, 0), (1, 30, -1), (1, float("nan"), 0)]
)
def test_numbers_that_make_no_sense(numbers):
    with pytest.raises(nlraw.Invalid):
        check(*numbers)
    check(None, 30, 0)


# ---------------------------------------------------------------- several things at once


def test_a_second_loss_before_the_look_changes_nothing():
    made = agenda()
    made.lost(NOW)
    made.lost(NOW + 1)
    assert made.deadline(NOW) == NOW
    assert look_all(made, NOW + 1) == [1]
    assert look_all(made, NOW + 2) == []


def test_a_request_for_everything_during_a_visit_is_answered_after_it():
    made = agenda()
    made.heard(1, 1, NOW)
    made.visits(NOW)
    made.resync(NOW)
    made.finished(1, NOW)
    assert ids(made.visits(NOW)) == [1]


def test_with_a_grace_a_look_follows_the_visit_that_it_waited_for():
    made = agenda(grace=5)
    look_all(made, NOW)
    made.resync(NOW)
    made.visits(NOW)
    made.heard(1, 1, NOW)
    made.finished(1, NOW, has_failed=True)
    assert look_all(made, NOW) == [1]


def test_a_look_that_is_asked_for_before_a_visit_begins_waits_for_its_end():
    made = agenda()
    made.lost(NOW)
    made.looks(NOW, 0)  # the namespace is on the list
    made.heard(1, 1, NOW)
    made.visits(NOW)
    assert made.looks(NOW, 10) == []
    made.finished(1, NOW)
    assert made.looks(NOW, 10) == [1]


def test_while_the_caller_looks_only_visits_are_due():
    made = agenda(2)
    made.lost(NOW)
    made.looks(NOW, 1)
    assert made.deadline(NOW) == NOW
    assert made.deadline(NOW, is_looking=True) > NOW
    made.heard(1, 1, NOW)
    assert made.deadline(NOW, is_looking=True) == NOW

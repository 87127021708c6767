# SPDX-License-Identifier: Apache-2.0
"""nlraw.journal: what was sent, and what became of it: confirmed, refused or lost."""

import errno

import pytest

from lib import build
from lib.random_pods import INGRESS
from nlraw.errors import Refused
from nlraw.exchange import Reply
from nlraw.journal import Journal
from nlraw.plan import plan
from nlraw.snapshot import AttachmentPoint, Snapshot
from nlraw.verdict import Target

TAPS = [build.as_link(build.link_payload(number, "tap%d_urunc" % number)) for number in (4, 5)]
QDISC = build.as_qdisc(build.qdisc_payload(2, "ingress"))
FILTER = build.as_filter(build.redirect_payload(2, "matchall", 4))
POINT = AttachmentPoint("eth0", QDISC, INGRESS, [FILTER], True)
SEEN = Snapshot([], TAPS, (), {4: "tap4_urunc"}, qdiscs=[QDISC], points=[POINT])
PLAN = plan(SEEN, Target())
CHANGES = list(PLAN.changes)  # filter, qdisc, one link, the other link


def answered(*numbers, changes=None):
    """Replies to the changes: 0 for one that was carried out, else the errno of its refusal."""
    replies = []
    for change, number in zip(changes or CHANGES, numbers):
        reply = Reply(change.request)
        if number:
            reply.error = Refused(number, "", change.request.step, change.request.object)
        replies.append(reply)
    return replies


def sent(*numbers, changes=None):
    """A journal of the changes with such answers; without any they are lost."""
    journal = Journal()
    journal.begin(changes or CHANGES)
    if numbers:
        journal.record(changes or CHANGES, answered(*numbers, changes=changes))
    return journal


def test_before_anything_is_sent_nothing_is_open():
    journal = Journal()
    assert (journal.is_open, journal.done, journal.taps(), journal.deleted()) == (False, [], [], [])
    assert (journal.summary(), journal.places()) == ("", set())
    assert journal.settle(SEEN.keys(), True) is None


def test_what_is_confirmed_is_done_in_order():
    journal = sent(0, 0, 0, 0)
    assert journal.done == CHANGES and not journal.is_open
    assert (journal.taps(), journal.deleted()) == (TAPS, [4, 5])


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENOENT])
def test_what_is_gone_already_is_done(number):
    assert sent(number, number, number, number).done == CHANGES


def test_what_was_sent_is_open_until_it_is_answered():
    journal = sent()
    assert (journal.is_open, journal.done, journal.deleted()) == (True, [], [])
    assert journal.taps() == TAPS  # a report names them, whatever became of them


def test_of_what_was_lost_all_that_is_gone_was_done():
    journal = sent()
    assert journal.settle(Snapshot().keys(), False) is None
    assert journal.done == CHANGES and not journal.is_open


def test_of_what_was_lost_what_is_still_there_is_neither_done_nor_refused():
    journal = sent()
    assert journal.settle({("link", 5)}, True) is None
    assert journal.done == CHANGES[:3] and not journal.is_open
    assert journal.taps() == TAPS[:1]


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EINTR, errno.EAGAIN, errno.EINVAL])
def test_a_refusal_that_passes_is_one_only_when_nothing_may_be_tried_again(number):
    assert sent(0, 0, number, 0).settle(SEEN.keys(), True) is None
    refusal = sent(0, 0, number, 0).settle(SEEN.keys(), False)
    assert (refusal.errno, refusal.step, refusal.object) == (number, "delete link", "tap4_urunc")


def test_a_refusal_names_all_that_was_not_done():
    journal = sent(errno.EPERM, 0, errno.EINVAL, 0)
    refusal = journal.settle(SEEN.keys(), True)
    assert str(refusal) == (
        "delete matchall filter eth0: EPERM; "
        "not done: delete matchall filter eth0, delete link tap4_urunc"
    )
    assert journal.done == [CHANGES[1], CHANGES[3]]


def test_a_refusal_that_does_not_pass_counts_behind_one_that_does():
    refusal = sent(errno.EBUSY, errno.EPERM, 0, 0).settle(SEEN.keys(), True)
    assert (refusal.errno, refusal.object) == (errno.EPERM, "eth0")


def test_what_was_refused_and_is_gone_all_the_same_is_done():
    journal = sent(0, 0, errno.EPERM, 0)
    assert journal.settle({("link", 5)}, False) is None
    assert journal.done == [CHANGES[0], CHANGES[1], CHANGES[3], CHANGES[2]]


@pytest.mark.parametrize("numbers", [(), (0, 0, errno.EBUSY)])
def test_of_a_group_each_tap_is_done_by_itself(numbers):
    changes = PLAN.by_group(7)
    journal = sent(*numbers, changes=changes)
    assert journal.settle({("link", 5)}, True) is None
    assert (journal.deleted(), journal.taps()) == ([4], TAPS[:1])
    assert len(journal.done) == 3


def test_a_group_that_was_deleted_is_one_change():
    assert sent(0, 0, 0, changes=PLAN.by_group(7)).deleted() == [4, 5]


def test_what_is_gone_for_people():
    journal = sent(0, 0, errno.EBUSY, 0)
    assert journal.summary() == "matchall filter on eth0, ingress qdisc on eth0, tap5_urunc"


def test_the_places_from_which_filters_are_gone():
    assert sent(0, errno.EPERM, 0, 0).places() == {(2, INGRESS)}
    assert sent(errno.EPERM, 0, 0, 0).places() == set()
    u32 = [build.as_filter(build.redirect_payload(2, "u32", 4))]
    point = AttachmentPoint("eth0", QDISC, INGRESS, u32)
    changes = plan(Snapshot(taps=TAPS[:1], points=[point]), Target()).changes
    assert changes[0].keys[0][0] == "priority"
    assert sent(0, 0, 0, changes=changes).places() == {(2, INGRESS)}


def test_a_round_follows_another():
    journal = sent(errno.EBUSY, 0, 0, 0)
    assert journal.settle(SEEN.keys(), True) is None
    journal.begin(CHANGES[:1])
    journal.record(CHANGES[:1], answered(0))
    assert journal.done == CHANGES[1:] + CHANGES[:1]

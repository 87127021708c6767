# SPDX-License-Identifier: Apache-2.0
"""nlraw.marks: groups by which one request deletes many links, and how they are taken off."""

import errno
import posix

import pytest

from lib import build
from lib.build import a_link
from nlraw import marks, observe, uapi
from nlraw.errors import Lost, Refused
from nlraw.marks import MARK, is_marked, new_mark, restore_groups, set_groups


def linked(group):
    """A link in a group; None if the kernel reports none."""
    payload = build.link_payload()
    if group is not None:
        payload += build.wire.attribute_u32(uapi.IFLA_GROUP, group)
    return build.as_link(payload)


def pod(*groups):
    made = build.Namespace([a_link(4 + at, "tap%d_urunc" % at) for at in range(len(groups))])
    for each, group in zip(made.links, groups):
        each.group = group
    return made


@pytest.mark.parametrize(
    "random, mark", [(b"\0\0", MARK), (b"\1\2", MARK + 0x102), (b"\xff\xff", MARK + 0xFFFF)]
)
def test_a_mark_is_a_number_of_ours_and_16_random_bits(monkeypatch, random, mark):
    monkeypatch.setattr(posix, "urandom", {2: random}.__getitem__)
    assert new_mark() == mark and MARK == 0x6E6C0000
    assert is_marked(linked(mark))


@pytest.mark.parametrize("group", [None, 0, 7, MARK - 1, MARK + 0x10000, 0xFFFFFFFF, 0x102])
def test_no_other_group_is_a_mark(group):
    assert not is_marked(linked(group))


def test_links_are_put_into_groups_in_one_datagram():
    made = pod(0, 0, 7)
    first, _, third = observe.list_links(made)
    before = made.datagrams
    set_groups(made, [(first, 9), (third, 0)])
    assert [each.group for each in made.links] == [9, 0, 0] and made.datagrams == before + 1


def test_a_link_that_is_gone_is_in_no_group_and_any_other_refusal_is_raised():
    made = pod(0, 0)
    links = observe.list_links(made)
    made.delete_link(made.links[0])
    set_groups(made, [(each, 9) for each in links])
    assert [each.group for each in made.links] == [9]
    made.refuse = {uapi.RTM_SETLINK: errno.EPERM}
    with pytest.raises(Refused) as caught:
        set_groups(made, [(each, 9) for each in links[1:]])
    assert (caught.value.errno, caught.value.object) == (errno.EPERM, "tap1_urunc")


def lose(made, times):
    """Lose the next answers to changes, carried out or not in turn."""
    change, lost = made.change, []

    def losing(*requests):
        if requests[0].type == uapi.RTM_SETLINK and len(lost) < times:
            lost.append(True)
            if len(lost) % 2:
                change(*requests[:1])
            raise Lost(errno.ENOBUFS, "")
        return change(*requests)

    made.change = losing
    return lost


def test_a_lost_answer_does_not_matter():
    made = pod(0)
    lose(made, 1)
    set_groups(made, [(each, 9) for each in observe.list_links(made)])
    assert made.links[0].group == 9


def test_former_groups_are_restored_until_no_link_has_the_mark():
    made = pod(0, 77, MARK + 1, 0, MARK + 5)
    links = observe.list_links(made)
    for each in made.links[:4]:
        each.group = MARK + 5  # the last link is in the same group, and is nobody of ours
    made.links[3].group = 88  # somebody has put it elsewhere since
    lost = lose(made, 3)
    restore_groups(made, links[:4], MARK + 5)
    # that of a killed cleanup is not restored
    assert [each.group for each in made.links] == [0, 77, 0, 88, MARK + 5] and len(lost) == 3


def test_groups_whose_answers_are_lost_each_time_are_given_up():
    made = pod(0)
    links = observe.list_links(made)
    made.links[0].group = MARK

    def losing(*requests):
        raise Lost(errno.ENOBUFS, "")

    made.change, made.ask, before = losing, made.change, made.datagrams
    restore_groups(made, links, MARK)
    assert made.datagrams == before + marks.ATTEMPTS
    assert made.renewals == marks.ATTEMPTS  # each may read the whole list


def test_where_nothing_has_the_mark_nothing_is_changed():
    made = pod(0)
    restore_groups(made, observe.list_links(made), MARK)
    assert made.changes == []

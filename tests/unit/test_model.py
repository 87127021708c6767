# SPDX-License-Identifier: Apache-2.0
"""The model of the kernel does what it says, so that what is run against it means something."""

import errno

import pytest

from lib import build, model
from nlraw import link, tc, uapi
from nlraw.connection import ATTEMPTS, SILENCE
from nlraw.errors import Error, Lost
from nlraw.observe import LIST_LINKS

# ---------------------------------------------------------------- the model does what it says


def ask(kernel, *happening, silence=SILENCE):
    kernel.faults = list(happening)
    with model.connect(model.Place(kernel), silence=silence) as connection:
        return connection.ask(link.find("eth0"))


@pytest.mark.parametrize(
    "name",
    sorted(set(model.UNFIT) - {"unsent", "overrun", "overrun message", "truncated", "signal"}),
)
def test_what_is_no_answer_ends_in_an_error_in_time(name):
    kernel = model.a_kernel([])
    with pytest.raises(Error) as caught:
        ask(kernel, (name, 1))
    assert (caught.value.step, caught.value.object) in (
        ("look up link", "eth0"),
        ("parse", "netlink message"),
    )
    assert kernel.now <= SILENCE + 2 * model.CHATTER
    if name in ("silence", "chatter", "flood", "too late"):
        assert caught.value.errno == errno.ETIMEDOUT and kernel.now >= SILENCE


@pytest.mark.parametrize("name", ["unsent", "overrun", "overrun message", "truncated"])
def test_what_is_lost_is_asked_for_again_so_often_and_no_more(name):
    kernel = model.a_kernel([])
    assert ask(kernel, *[(name, 1)] * (ATTEMPTS - 1))[0].answer()
    if name != "truncated":  # the buffer has grown
        with pytest.raises(Lost):
            ask(kernel, *[(name, 1)] * ATTEMPTS)
    assert len(kernel.sockets) >= ATTEMPTS - 1


@pytest.mark.parametrize("name", sorted(model.UNFIT))
def test_after_a_failure_the_next_answer_is_right_and_comes_on_another_socket(name):
    kernel = model.a_kernel([])
    kernel.faults = [(name, 1)]
    with model.connect(model.Place(kernel)) as connection:
        with pytest.raises((Error, model.Signal)):
            connection.change(link.find("eth0"))
        (reply,) = connection.ask(link.find("peer0"))
        assert link.only(reply).ifindex == model.PEER0
    assert [socket.closed for socket in kernel.sockets] == [True, True]


def test_the_model_objects_to_one_that_waits_for_ever():
    with pytest.raises(AssertionError, match="waits on"):
        ask(model.a_kernel([]), ("chatter", 1), silence=100)


# ---------------------------------------------------------------- events


def events_of(kernel, *requests, groups=uapi.RTMGRP_LINK | uapi.RTMGRP_TC):
    """Ask for each alone; return the types of the events that arrived during each."""
    found, heard = [], []
    with model.connect(
        model.Place(kernel), groups=groups, on_event=lambda event: heard.append(event[0][0])
    ) as connection:
        for request in requests:
            connection.ask(request)
            found.append(list(heard))
            heard.clear()
    return found


@pytest.mark.parametrize("name", ["rename", "remove", "recreate", "replace", "intrude", "stack"])
def test_a_change_of_a_link_is_announced_at_once(name):
    kernel = model.a_kernel([(0, False)], [(1, name, 0)])
    assert events_of(kernel, LIST_LINKS, LIST_LINKS, LIST_LINKS) == [[], [uapi.RTM_NEWLINK], []]


@pytest.mark.parametrize("name", ["attach", "release"])
def test_a_carrier_is_announced_late(name):
    kernel = model.a_kernel([(0, False)], [(1, name, 0)])
    assert events_of(kernel, LIST_LINKS, LIST_LINKS, LIST_LINKS) == [[], [], [uapi.RTM_NEWLINK]]


@pytest.mark.parametrize(
    "name, type",
    [
        ("add filter", uapi.RTM_NEWTFILTER),
        ("add redirect", uapi.RTM_NEWTFILTER),
        ("add chain", uapi.RTM_NEWCHAIN),
    ],
)
def test_a_change_of_tc_is_announced_at_once(name, type):
    kernel = model.a_kernel([(0, False)], [(1, name, 0)])
    assert events_of(kernel, LIST_LINKS, LIST_LINKS, LIST_LINKS) == [[], [type], []]


def test_only_those_who_joined_a_group_hear_its_events():
    changes = [(1, "rename", 0), (1, "add filter", 0), (1, "drop filter", 0)]
    tc_events = [uapi.RTM_NEWTFILTER, uapi.RTM_DELTFILTER]
    for groups, expected in [
        (0, []),
        (uapi.RTMGRP_LINK, [uapi.RTM_NEWLINK]),
        (uapi.RTMGRP_TC, tc_events),
    ]:
        kernel = model.a_kernel([(0, False)], changes)
        assert events_of(kernel, LIST_LINKS, LIST_LINKS, groups=groups) == [[], expected]


# ---------------------------------------------------------------- torn lists of TC


def torn(chance, groups=uapi.RTMGRP_TC):
    """List the filters of eth0 while somebody deletes an earlier one."""
    kernel = model.a_kernel([(0, False)] * 3)
    kernel.faults = [("resumed", chance)]
    request = tc.dump_filters(model.ETH0, uapi.TC_H_INGRESS_HANDLE, "eth0")
    with model.connect(model.Place(kernel), groups=groups) as connection:
        (reply,) = connection.ask(request)
        is_torn = connection.is_torn
    targets = [
        action.redirect
        for found in tc.filters(reply.answer())
        if found.kind != "basic"
        for action in found.actions()
    ]
    return targets, is_torn, reply.interrupted


def test_a_list_of_filters_is_torn_without_a_flag():
    whole = [model.PEER0, 10, 11, 12]
    seen = set()
    for chance in range(30):
        targets, _, is_flagged = torn(chance)
        assert not is_flagged
        seen.add(tuple(targets))
    assert seen == {tuple(whole[:n] + whole[n + 1 :]) for n in range(5)}


def test_a_torn_list_is_noticed_by_the_event_that_arrives_meanwhile():
    for chance in range(30):
        targets, is_torn, _ = torn(chance)
        assert is_torn or len(targets) == 4, targets


def test_the_list_of_one_that_has_not_joined_is_never_torn_here():
    assert torn(1, groups=0)[0] == [model.PEER0, 10, 11, 12]


# ---------------------------------------------------------------- the model can object


def delete_redirect(kernel, *between):
    """What a cleanup without care would do: list TC, ask something, delete a filter."""
    groups = uapi.RTMGRP_LINK | uapi.RTMGRP_TC
    with model.connect(model.Place(kernel), groups=groups) as connection:
        connection.ask(tc.dump_qdiscs())
        (reply,) = connection.ask(tc.dump_filters(model.ETH0, uapi.TC_H_INGRESS_HANDLE, "eth0"))
        for request in between:
            connection.ask(request)
        redirect = tc.filters(reply.answer())[-1]
        connection.change(tc.delete_filter(redirect, uapi.TC_H_INGRESS_HANDLE, "eth0"))


def test_the_model_objects_to_a_delete_without_a_second_list():
    with pytest.raises(AssertionError, match="not listed again"):
        delete_redirect(model.a_kernel([(0, False)]))


def test_the_model_objects_to_a_delete_after_somebody_changed_tc():
    delete_redirect(model.a_kernel([(0, False)]), LIST_LINKS)
    with pytest.raises(AssertionError, match="between the look and the confirm"):
        delete_redirect(model.a_kernel([(0, False)], [(1, "add filter", 0)]), LIST_LINKS)


def test_the_model_objects_to_a_plan_from_a_torn_list():
    kernel = model.a_kernel([(0, False)] * 3)
    kernel.faults = [("right", 0), ("resumed", 1)]
    with pytest.raises(AssertionError, match="between the look"):
        delete_redirect(kernel, LIST_LINKS)


def test_the_model_objects_to_the_end_of_a_foreign_filter():
    kernel = model.a_kernel([])
    assert [each.targets for each in kernel.filters if each.ifindex == model.ETH0] == [
        [model.PEER0]
    ]
    with pytest.raises(AssertionError, match="somebody else"):
        delete_redirect(kernel, LIST_LINKS)


def test_the_model_objects_to_a_tap_with_something_stacked_on_it():
    kernel = model.a_kernel([(0, False)], [(0, "stack", 0)])
    with model.connect(model.Place(kernel)) as connection:
        for request in (tc.dump_qdiscs(), LIST_LINKS, link.get(model.FIRST_TAP, "")):
            connection.ask(request)
        with pytest.raises(AssertionError, match="was in use"):
            connection.change(link.delete(model.FIRST_TAP, ""))


def test_a_tap_goes_with_what_is_stacked_on_it():
    kernel = model.a_kernel([(0, False)], [(0, "stack", 0)])
    kernel.rules = False
    with model.connect(model.Place(kernel)) as connection:
        connection.change(link.delete(model.FIRST_TAP, ""))
    assert [each.name for each in kernel.links] == ["eth0", "peer0", "vm0"]
    assert build.BLOCK in {each.ifindex for each in kernel.filters}

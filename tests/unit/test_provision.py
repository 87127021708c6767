# SPDX-License-Identifier: Apache-2.0
"""nlraw.provision without a kernel: what it refuses, and where the uplink's redirect goes."""

import errno
import os

import pytest

from lib import build
from lib.build import a_filter, a_link, a_qdisc
from lib.random_pods import CLSACT_IN, CLSACT_OUT, INGRESS
from nlraw import provision, tc, uapi
from nlraw.errors import Error, Invalid, Refused, TapInUse
from nlraw.provision import Wanted, provide
from nlraw.verdict import Target


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"uplink": "none"}, "check uplink none: a setup needs an uplink"),
        ({"tap": "tap%d"}, "check name tap%d: this cannot be the name of a new interface"),
        ({"owner": -1}, "check ID -1: this cannot be a user or group"),
        ({"group": 0xFFFFFFFF}, "check ID 4294967295: this cannot be a user or group"),
        (
            {"address": "10.9.8.1"},
            "check address 10.9.8.1: this is not an address with a prefix length, such as "
            "10.9.8.1/24",
        ),
        (
            {"address": "10.9.8.1/33"},
            "check address 10.9.8.1/33: this is not an address with a prefix length, such as "
            "10.9.8.1/24",
        ),
        ({"address": "0.0.0.0/0"}, "check address 0.0.0.0/0: no device can have this address"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused_before_anything_is_looked_at(arguments, words):
    with pytest.raises(Invalid) as caught:
        provision.setup("/nonexistent/netns", **arguments)
    assert str(caught.value) == words
    assert caught.value.report is None


# ---------------------------------------------------------------- a setup, in a made-up namespace


@pytest.fixture(autouse=True)
def descriptor(monkeypatch):
    """What is done to the descriptor of the TAP; the calls that a real one takes do nothing."""
    done = []
    monkeypatch.setattr(
        provision, "set_owner", lambda fd, name, *ids: done.append(("owner",) + ids)
    )
    monkeypatch.setattr(
        provision, "persist", lambda fd, name, on=True: done.append(("persist", on))
    )
    return done


def pod(kind=None, incoming=(), outgoing=()):
    """A pod whose uplink has a qdisc of that kind, and foreign filters of those priorities."""
    made = build.Namespace([a_link(2, "eth0", kind="veth"), a_link(9, "vm0", carrier=1)])
    if kind is not None:
        made.qdiscs.append(a_qdisc(2, kind))
    sides = ((INGRESS if kind == "ingress" else CLSACT_IN, incoming), (CLSACT_OUT, outgoing))
    for parent, numbers in sides:
        for number in numbers:
            handle = len(made.filters) + 1
            made.filters.append(
                a_filter(2, "matchall", 9, parent=parent, priority=number, handle=handle)
            )
    return made


def provided(made, wanted=None, create=None, target=None):
    """Set up; the TAP of the namespace goes with its descriptor unless it was made persistent."""

    def make(namespace, name):
        made.links.append(a_link(30, name, carrier=1))
        return os.open(os.devnull, os.O_RDONLY)

    wanted = wanted or Wanted("tap0_urunc", 0)
    return provide(None, made, target or Target(), wanted, create or make)


def priority_beside(incoming, outgoing=()):
    """The priority that is asked for on a clsact whose two sides use those priorities."""
    return priority_asked_for(pod("clsact", incoming, outgoing))


def priority_asked_for(made):
    asked = []
    made.before = asked.extend
    assert provided(made).outcome == "created"
    redirect = [each for each in asked if each.type == uapi.RTM_NEWTFILTER][-1]
    return tc.Filter(build.received(uapi.RTM_NEWTFILTER, redirect.payload)).priority


@pytest.mark.parametrize(
    "incoming, outgoing, priority",
    [
        ([], [], 0),  # the kernel picks one
        ([0xC000], [], 0xBFFF),
        ([1, 7], [], 0xC000),
        ([0xC000], [0xBFFF], 0xBFFE),
        ([0x8000], [0x7FFF], 0x7FFE),
        ([0x8000, 2, 3], [0x7FFF, 0x7FFE], 0x7FFD),
    ],
)
def test_the_redirect_goes_ahead_of_others_where_neither_side_uses_the_priority(
    incoming, outgoing, priority
):
    assert priority_beside(incoming, outgoing) == priority


class Full(build.Namespace):
    """A pod whose clsact has a filter of every priority up to that which the kernel picks last."""

    def listed(self, message):
        if message.type == uapi.RTM_GETTFILTER and not self.changes:
            return [
                build.filter_payload(2, "bpf", handle=0, priority=number, parent=CLSACT_OUT)
                for number in range(1, 0x8001)
            ]
        return super().listed(message)


def test_where_every_priority_is_used_the_kernel_is_asked_for_one():
    made = pod("clsact")
    assert priority_asked_for(Full(made.links, made.qdiscs)) == 0


@pytest.mark.parametrize("kind", [None, "ingress", "clsact"])
def test_a_setup_connects_a_tap_both_ways_and_makes_it_persistent_last(descriptor, kind):
    made = pod(kind)
    changes = []
    joined = []

    def before(requests):
        changes.append([each.step for each in requests])
        joined.append(made.is_joined)

    made.before = before
    result = provided(made, Wanted("tap0_urunc", 7, 8, "10.9.8.1/24"))
    assert joined[0] is True and joined[-1] is False  # own changes are not worth an event
    assert (result.outcome, result.error, result.cleanup.outcome) == ("created", None, "clean")
    assert (result.tap.ifname, result.tap.ifindex) == ("tap0_urunc", 30)
    assert (result.uplink.ifname, result.uplink.ifindex, result.ahead) == ("eth0", 2, ())
    assert descriptor == [("owner", 7, 8), ("persist", True)]
    parent = CLSACT_IN if kind == "clsact" else INGRESS
    assert [(each.ifindex, each.parent, each.targets) for each in made.filters] == [
        (30, INGRESS, [2]),
        (2, parent, [30]),
    ]
    assert [(each.ifindex, each.kind) for each in made.qdiscs] == [
        (2, kind or "ingress"),
        (30, "ingress"),
    ]
    assert (
        changes[-1]
        == ["set up link", "put address on"]
        + ["create qdisc (ingress)"] * (1 if kind else 2)
        + ["create redirect (u32, mirred)"] * 2
    )


def test_a_foreign_filter_that_sees_packets_first_is_reported():
    made = pod("ingress", [1, 0xC000])
    made.filters[1].targets = []
    result = provided(made)
    assert [(each.dev, each.kind) for each in result.ahead] == [("eth0", "matchall")]


def test_what_a_dead_vm_left_goes_first():
    made = pod("ingress")
    made.links.append(a_link(4, "tap0_urunc"))
    made.filters.append(a_filter(2, "u32", 4))
    result = provided(made)
    assert (result.outcome, result.cleanup.outcome) == ("created", "cleaned")
    assert [each.ifindex for each in made.links] == [2, 9, 30]
    # the qdisc that this emptied is made again
    assert [each.targets for each in made.filters] == [[2], [30]]
    assert {each.ifindex for each in made.qdiscs} == {2, 30}


@pytest.mark.parametrize("torn", [3, 1000])
def test_a_torn_list_of_tc_state_is_read_again_before_anything_is_made(torn):
    made = pod("ingress")
    made.links.append(a_link(4, "tap0_urunc"))

    def before(requests):
        if requests[-1].step == "delete link":
            made.torn_looks = torn

    made.before = before
    result = provided(made)
    assert result.cleanup.outcome == "cleaned"
    if torn == 3:
        assert result.outcome == "created" and made.torn_looks == 0
    else:
        assert (result.outcome, type(result.error)) == ("failed", Error)
        assert "TC state changed each time it was listed" in str(result.error)
        assert uapi.RTM_NEWQDISC not in made.changes and len(made.links) == 2


def test_a_torn_list_is_read_again_before_anything_is_undone():
    made = pod("clsact", [7])
    made.refuse = {uapi.RTM_NEWADDR: errno.EPERM}

    def before(requests):
        if requests[-1].type == uapi.RTM_NEWTFILTER:
            made.torn_looks = 3

    made.before = before
    result = provided(made, Wanted("tap0_urunc", 0, address="10.9.8.1/24"))
    assert result.error.errno == errno.EPERM and "undo" not in str(result.error)
    assert [each.priority for each in made.filters if each.ifindex == 2] == [7]
    assert made.torn_looks == 0


@pytest.mark.parametrize("kind", [None, "ingress", "clsact"])
@pytest.mark.parametrize(
    "type", [uapi.RTM_SETLINK, uapi.RTM_NEWQDISC, uapi.RTM_NEWTFILTER, uapi.RTM_NEWADDR]
)
def test_what_a_failed_setup_made_on_the_uplink_goes_again(descriptor, kind, type):
    made = pod(kind, [7] if kind else [])
    before = repr(made.filters), repr(made.qdiscs)
    made.refuse = {type: errno.EPERM}
    result = provided(made, Wanted("tap0_urunc", 0, address="fd00::1/64"))
    assert (result.outcome, result.error.errno, result.tap) == ("failed", errno.EPERM, None)
    assert descriptor[-1] == ("persist", False)
    made.delete_link(made.links[-1])  # as its descriptor is closed
    for each in made.filters:
        assert 0 not in each.targets
    assert (repr(made.filters), repr(made.qdiscs)) == before


def test_an_undo_that_fails_is_added_to_the_error():
    made = pod()
    made.refuse = {uapi.RTM_NEWADDR: errno.EPERM, uapi.RTM_DELTFILTER: errno.EBUSY}
    result = provided(made, Wanted("tap0_urunc", 0, address="10.9.8.1/24"))
    assert result.error.errno == errno.EPERM
    assert "; then the undo failed: delete u32 filters of priority 49152 eth0" in str(result.error)


@pytest.mark.parametrize("target", [Target(), Target(uplink="auto")])
def test_without_an_uplink_nothing_is_made(target):
    made = pod()
    made.links[0].name = "net0"
    result = provided(made, target=target)
    assert (result.outcome, result.error.errno) == ("failed", errno.ENODEV)
    assert "this is no pod's namespace, or it is not ready" in str(result.error)
    assert made.changes == []


def test_a_default_route_that_only_a_tap_has_is_no_uplink_and_that_is_said():
    made = pod()
    made.links.append(a_link(4, "tap5_urunc"))
    made.routes = [(2, 4)]
    result = provided(made, target=Target(uplink="auto"))
    assert result.error.message == (
        "the default route is on tap5_urunc, which the pattern of TAPs matches"
    )


def test_a_tap_in_use_ends_a_setup_before_anything_is_changed():
    made = pod()
    made.links.append(a_link(4, "tap0_urunc", carrier=1))
    result = provided(made)
    assert (result.outcome, type(result.error), made.changes) == ("in-use", TapInUse, [])


def taken(made, **facts):
    """A creation of a TAP whose name somebody has taken since the cleanup."""

    def create(namespace, name):
        made.links.append(a_link(40, name, **facts))
        raise Refused(errno.EBUSY, "busy", "create TAP", name)

    return create


@pytest.mark.parametrize("cleaned", [True, False])
def test_another_start_that_comes_first_is_a_tap_in_use_if_nothing_was_changed(cleaned):
    made = pod("ingress")
    if cleaned:
        made.links.append(a_link(4, "tap1_urunc"))
    result = provided(made, create=taken(made, carrier=1))
    words = "create TAP tap0_urunc: in use (carrier on), another start may be in progress"
    if not cleaned:
        assert (result.outcome, type(result.error), str(result.error)) == (
            "in-use",
            TapInUse,
            words,
        )
        return
    assert (result.outcome, type(result.error)) == ("failed", Error)
    assert str(result.error) == words + "; removed before: ingress qdisc on eth0, tap1_urunc"


@pytest.mark.parametrize(
    "facts, words",
    [
        ({}, "the name is taken by a TUN device, ifindex 40"),
        ({"kind": "veth"}, "the name is taken by a veth, ifindex 40"),
        ({"kind": None}, "the name is taken by a device of no kind, ifindex 40"),
    ],
)
def test_a_name_that_is_taken_is_refused_with_what_has_it(facts, words):
    made = pod()
    result = provided(made, create=taken(made, **facts))
    assert (result.outcome, result.error.errno, result.error.message) == (
        "failed",
        errno.EBUSY,
        words,
    )


@pytest.mark.parametrize(
    "type, words",
    [
        (uapi.RTM_NEWQDISC, "enable CONFIG_NET_SCH_INGRESS"),
        (uapi.RTM_NEWTFILTER, "enable CONFIG_NET_CLS_U32, CONFIG_NET_CLS_ACT and"),
        (uapi.RTM_SETLINK, "ENOENT"),
    ],
)
def test_a_feature_that_the_kernel_lacks_is_named(type, words):
    made = pod()
    made.refuse = {type: errno.ENOENT}
    assert words in str(provided(made).error)


def test_a_tap_that_no_cleanup_would_find_is_refused():
    with pytest.raises(Invalid) as caught:
        provision.setup("/nonexistent/netns", tap="vm0")
    assert (caught.value.step, caught.value.object) == ("check TAP", "vm0")
    assert "--match" in caught.value.message and caught.value.report is None

# SPDX-License-Identifier: Apache-2.0
"""nlraw.provision without a kernel: what it refuses, and where the uplink's redirect goes."""

import errno
import os

import pytest

import nlraw
from lib import build
from lib.build import a_filter, a_link, a_qdisc
from lib.opened import Opened
from lib.random_pods import CLSACT_IN, CLSACT_OUT, INGRESS
from nlraw import holders, pod, provision, uapi
from nlraw.errors import Error, Invalid, Lost, Refused, TapInUse
from nlraw.provision import provide, set_up
from nlraw.report import Holder, Report
from nlraw.verdict import Target
from nlraw.wanted import Wanted


def test_an_argument_that_cannot_be_meant_is_refused_before_anything_is_looked_at():
    with pytest.raises(Invalid) as caught:
        provision.setup("/nonexistent/netns", uplink=["eth0", "net1"], tap=["tap0_urunc", "vm1"])
    assert (caught.value.step, caught.value.object) == ("check TAP", "vm1")
    assert "--match" in caught.value.message and caught.value.report is None


# ---------------------------------------------------------------- a setup, in a made-up namespace


@pytest.fixture(autouse=True)
def descriptor(monkeypatch):
    """What is done to the descriptor of the TAP; the calls that a real one takes do nothing."""
    done = []

    def set_owner(fd, name, *ids):
        assert HELD[fd] == name
        done.append(("owner",) + ids)

    def persist(fd, name, on=True):
        assert HELD[fd] == name
        done.append(("persist", on))

    monkeypatch.setattr(provision, "set_owner", set_owner)
    monkeypatch.setattr(provision, "persist", persist)
    return done


HELD = {}  # the TAP of each descriptor
NAMESPACE = object()


TAP_FACTS = {"mtu": 1500, "max_mtu": 65521, "address": b"\x02\0\0\0\0\x07"}


def a_pod(kind=None, incoming=(), outgoing=()):
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


def provided(made, create=None, uplink="eth0", **options):
    """Set up; a TAP of the namespace goes with its descriptor unless it was made persistent.

    The TAPs have the indices from 30 on.
    """

    wanted = Wanted(Target(uplink=uplink), **dict({"owner": 0}, **options))
    return provide(NAMESPACE, made, wanted, create or creation(made, wanted))


def creation(made, wanted, opened=NAMESPACE):
    """A function that creates the TAPs in a made-up namespace."""

    def create(namespace, names, multi_queue):
        assert (namespace, names, multi_queue) == (opened, wanted.names, wanted.multi_queue)
        fds = [os.open(os.devnull, os.O_RDONLY) for _ in names]
        for number, (fd, name) in enumerate(zip(fds, names)):
            made.links.append(a_link(30 + number, name, carrier=1, **TAP_FACTS))
            HELD[fd] = name
        return fds

    return create


@pytest.mark.parametrize("kind", [None, "ingress", "clsact"])
def test_a_setup_connects_a_tap_both_ways_and_makes_it_persistent_last(descriptor, kind):
    made = a_pod(kind)
    changes = []
    joined = []

    def before(requests):
        changes.append([each.step for each in requests])
        joined.append(made.is_joined)

    made.before = before
    result = provided(made, owner=7, group=8, address="10.9.8.1/24")
    assert joined[0] is True and joined[-1] is False  # own changes are not worth an event
    assert (result.outcome, result.error, result.cleanup.outcome) == ("created", None, "clean")
    assert result.netns == made.path
    assert (result.tap.ifname, result.tap.ifindex) == ("tap0_urunc", 30)
    assert result.tap.address == "02:00:00:00:00:07"
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
    made = a_pod("ingress", [1, 0xC000])
    made.filters[1].targets = []
    result = provided(made)
    assert [(each.dev, each.kind) for each in result.ahead] == [("eth0", "matchall")]


def test_what_a_dead_vm_left_goes_first():
    made = a_pod("ingress")
    made.links.append(a_link(4, "tap0_urunc"))
    made.filters.append(a_filter(2, "u32", 4))
    result = provided(made)
    assert (result.outcome, result.cleanup.outcome) == ("created", "cleaned")
    assert [each.ifindex for each in made.links] == [2, 9, 30]
    # the qdisc that this emptied is made again
    assert [each.targets for each in made.filters] == [[2], [30]]
    assert {each.ifindex for each in made.qdiscs} == {2, 30}


def test_an_orphan_that_appears_after_the_cleanup_is_left_for_the_next_one():
    made = a_pod("ingress")
    made.links.append(a_link(4, "tap0_urunc"))
    steps = []

    def before(requests):
        if "delete link" in steps and len(made.links) == 2:
            made.links.append(a_link(5, "tap7_urunc"))
        steps.extend(each.step for each in requests)

    made.before = before
    result = provided(made)
    assert (result.outcome, [each.ifindex for each in made.links]) == ("created", [2, 9, 5, 30])


@pytest.mark.parametrize("torn", [3, 1000])
def test_a_torn_list_of_tc_state_is_read_again_before_anything_is_made(torn):
    made = a_pod("ingress")
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
        words = "set up %s: TC state changed each time it was listed; try again" % made.path
        assert str(result.error) == words
        assert uapi.RTM_NEWQDISC not in made.changes and len(made.links) == 2


def test_a_torn_list_is_read_again_before_anything_is_undone():
    made = a_pod("clsact", [7])
    made.refuse = {uapi.RTM_NEWADDR: errno.EPERM}

    def before(requests):
        if requests[-1].type == uapi.RTM_NEWTFILTER:
            made.torn_looks = 3

    made.before = before
    result = provided(made, address="10.9.8.1/24")
    assert result.error.errno == errno.EPERM and "undo" not in str(result.error)
    assert [each.priority for each in made.filters if each.ifindex == 2] == [7]
    assert made.torn_looks == 0


@pytest.mark.parametrize("kind", [None, "ingress", "clsact"])
@pytest.mark.parametrize(
    "type", [uapi.RTM_SETLINK, uapi.RTM_NEWQDISC, uapi.RTM_NEWTFILTER, uapi.RTM_NEWADDR]
)
def test_what_a_failed_setup_made_on_the_uplink_goes_again(descriptor, kind, type):
    made = a_pod(kind, [7] if kind else [])
    before = repr(made.filters), repr(made.qdiscs)
    made.refuse = {type: errno.EPERM}
    result = provided(made, address="fd00::1/64")
    assert (result.outcome, result.error.errno, result.tap) == ("failed", errno.EPERM, None)
    assert descriptor[-1] == ("persist", False)
    made.delete_link(made.links[-1])  # as its descriptor is closed
    for each in made.filters:
        assert 0 not in each.targets
    assert (repr(made.filters), repr(made.qdiscs)) == before


def test_an_undo_that_fails_is_added_to_the_error():
    made = a_pod()
    made.refuse = {uapi.RTM_NEWADDR: errno.EPERM, uapi.RTM_DELTFILTER: errno.EBUSY}
    result = provided(made, address="10.9.8.1/24")
    assert result.error.errno == errno.EPERM
    assert str(result.error) == (
        "put address on tap0_urunc: EPERM; then the undo failed:"
        " delete u32 filters of priority 49152 on eth0: EBUSY"
    )


def test_an_undo_of_a_persistent_tap_that_fails_is_added_to_the_error(descriptor, monkeypatch):
    made = two_nics()

    def persist(fd, name, on=True):
        if HELD[fd] == "tap1_urunc":
            raise Refused(errno.EIO, "broken", "persist TAP", name)
        descriptor.append(("persist", on))

    monkeypatch.setattr(provision, "persist", persist)
    result = provided(made, uplink=NICS, owner=7)
    assert (result.outcome, str(result.error)) == (
        "failed",
        "persist TAP tap1_urunc: broken; then the undo failed: persist TAP tap1_urunc: broken",
    )
    assert descriptor[-2:] == [("persist", True), ("persist", False)]


@pytest.mark.parametrize("uplink, missing", [("eth0", "such uplink"), ("auto", "default route")])
def test_without_an_uplink_nothing_is_made(uplink, missing):
    made = a_pod()
    made.links[0].name = "net0"
    result = provided(made, uplink=uplink)
    assert (result.outcome, result.error.errno) == ("failed", errno.ENODEV)
    assert str(result.error) == (
        "look up link %s: there is no %s: this is no pod's namespace, or it is not ready"
        "; `-u` names the uplink" % (uplink, missing)
    )
    assert (result.netns, result.ahead, made.changes) == (made.path, (), [])


def test_a_default_route_that_only_a_tap_has_is_no_uplink_and_that_is_said():
    made = a_pod()
    made.links += [a_link(4, "tap5_urunc"), a_link(5, "tap6_urunc")]
    made.routes = [(2, 4), (2, 5)]
    result = provided(made, uplink="auto")
    assert result.error.message == (
        "the default route is on tap5_urunc, tap6_urunc, which the pattern of TAPs matches"
    )


def test_a_tap_in_use_ends_a_setup_before_anything_is_changed():
    made = a_pod()
    made.links.append(a_link(4, "tap0_urunc", carrier=1))
    result = provided(made)
    assert (result.outcome, type(result.error), made.changes) == ("in-use", TapInUse, [])


def taken(made, **facts):
    """A creation of a TAP whose name somebody has taken since the cleanup."""

    def create(namespace, names, multi_queue):
        made.links.append(a_link(40, names[-1], **facts))
        raise Refused(errno.EBUSY, "busy", "create TAP", names[-1])

    return create


@pytest.mark.parametrize("cleaned", [True, False])
def test_another_start_that_comes_first_is_a_tap_in_use_if_nothing_was_changed(cleaned):
    made = a_pod("ingress")
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
        ({}, "the name is taken by a TUN device, ifindex 40; choose another with `--tap`"),
        ({"kind": "veth"}, "the name is taken by a veth, ifindex 40; choose another with `--tap`"),
        (
            {"kind": None},
            "the name is taken by a device of no kind, ifindex 40; choose another with `--tap`",
        ),
    ],
)
def test_a_name_that_is_taken_is_refused_with_what_has_it(facts, words):
    made = a_pod()
    result = provided(made, create=taken(made, **facts))
    assert (result.outcome, result.error.errno, str(result.error)) == (
        "failed",
        errno.EBUSY,
        "create TAP tap0_urunc: " + words,
    )


@pytest.mark.parametrize(
    "number, name", [(errno.EPERM, "tap0_urunc"), (errno.EBUSY, "/dev/net/tun")]
)
def test_a_creation_that_fails_for_another_reason_is_reported_as_it_is(number, name):
    made = a_pod()
    made.links.append(a_link(40, "vm1", kind="veth"))

    def create(namespace, names, multi_queue):
        made.links[-1].name = names[0]
        raise Refused(number, "refused", "create TAP", name)

    result = provided(made, create=create)
    assert (result.error.errno, str(result.error)) == (number, "create TAP %s: refused" % name)
    assert made.changes == []


@pytest.mark.parametrize(
    "type, step, remedy",
    [
        (uapi.RTM_NEWQDISC, "create qdisc (ingress) eth0", "CONFIG_NET_SCH_INGRESS"),
        (
            uapi.RTM_NEWTFILTER,
            "create redirect (u32, mirred) tap0_urunc",
            "CONFIG_NET_CLS_U32, CONFIG_NET_CLS_ACT and CONFIG_NET_ACT_MIRRED",
        ),
        (uapi.RTM_SETLINK, "set up link tap0_urunc", None),
    ],
)
def test_a_feature_that_the_kernel_lacks_is_named(type, step, remedy):
    made = a_pod()
    made.refuse = {type: errno.ENOENT}
    words = step + ": ENOENT" + ("; enable " + remedy if remedy else "")
    assert str(provided(made).error) == words
    made = a_pod()
    made.refuse = {type: errno.EPERM}
    assert str(provided(made).error) == step + ": EPERM"


def test_the_facts_of_an_uplink_have_the_names_of_all_devices(monkeypatch):
    made = a_pod()
    asked = []

    def observe_uplinks(connection, uplinks, names):
        asked.append((connection, [each.ifname for each in uplinks], dict(names)))
        return real(connection, uplinks, names)

    real = provision.observe_uplinks
    monkeypatch.setattr(provision, "observe_uplinks", observe_uplinks)
    assert provided(made).outcome == "created"
    assert asked == [(made, ["eth0"], {2: "eth0", 9: "vm0"})]


# ---------------------------------------------------------------- setup and set_up


@pytest.fixture
def opened(monkeypatch):
    """A function that lets every namespace that is opened be a made-up one."""

    def let(made):
        found = Opened(made)
        monkeypatch.setattr(provision, "Namespace", found.namespace)
        monkeypatch.setattr(pod, "Connection", found.connection)
        monkeypatch.setattr(pod, "SYSTEM", found.clock)

        def provide(namespace, connection, wanted):
            assert namespace is found
            return real(namespace, connection, wanted, creation(made, wanted, found))

        monkeypatch.setattr(provision, "provide", provide)
        return found

    real = provision.provide
    return let


GROUPS = uapi.RTMGRP_LINK | uapi.RTMGRP_TC


def test_a_setup_has_all_that_is_said_of_it(opened, descriptor):
    made = a_pod()
    made.links.append(a_link(4, "tap9_urunc", carrier=1))
    seen = opened(made)
    result = nlraw.setup(
        "pod",
        tap="vm4_urunc",
        owner=7,
        group=8,
        address="10.9.8.1/24",
        match=["tap*_urunc", "vm?_urunc"],
        uplink=["eth0"],
        exclude="tap9*",
        multi_queue=True,
    )
    assert (result.outcome, result.netns, result.error) == ("created", made.path, None)
    assert (result.tap.ifname, result.tap.multi_queue) == ("vm4_urunc", True)
    assert descriptor == [("owner", 7, 8), ("persist", True)]
    assert uapi.RTM_NEWADDR in made.changes
    assert seen.arguments == [("pod",), (True, GROUPS, None)]


def test_a_setup_waits_for_the_writer_port_as_long_as_it_is_given(opened):
    seen = opened(a_pod())
    patience = object()
    assert set_up("pod", Wanted(Target(uplink="none")), patience).outcome == "created"
    assert seen.arguments == [("pod",), (True, GROUPS, patience)]


@pytest.mark.parametrize("who", [False, True])
def test_a_setup_waits_for_a_tap_in_use_and_names_its_holders(opened, monkeypatch, who):
    made = a_pod()
    made.links.append(a_link(4, "tap0_urunc", carrier=1))
    seen = opened(made)

    def find(namespace, names):
        assert namespace is seen
        return {names[0]: [Holder(pid=7, comm="vmm")]}

    monkeypatch.setattr(holders, "find", find)
    with pytest.raises(TapInUse) as caught:
        nlraw.setup("pod", wait=2.5, who=who)
    report = caught.value.report
    assert (report.outcome, report.error, made.changes) == ("in-use", caught.value, [])
    assert [each.holders for each in report.cleanup.taps] == [
        (Holder(pid=7, comm="vmm"),) if who else None
    ]
    assert report.cleanup.outcome == "in-use"
    assert seen.clock.now == 102.5


def test_a_setup_waits_for_nothing_and_names_no_holders_unless_that_is_asked_for(opened):
    made = a_pod()
    made.links.append(a_link(4, "tap0_urunc", carrier=1))
    seen = opened(made)
    with pytest.raises(TapInUse) as caught:
        nlraw.setup("pod")
    for found in (caught.value.report, set_up("pod", Wanted(Target()))):
        assert [each.holders for each in found.cleanup.taps] == [None]
    assert seen.clock.now == 100.0
    opened(a_pod())
    assert nlraw.setup("pod").tap.multi_queue is False


def test_a_setup_that_sees_nothing_fails_with_a_report():
    path = "/nonexistent/x"
    made = set_up(path, Wanted(Target(uplink="eth7")))
    assert (made.netns, made.outcome, made.tap, made.uplink, made.pairs, made.ahead) == (
        path,
        "failed",
        None,
        None,
        (),
        (),
    )
    assert isinstance(made.error, Error)
    assert made.cleanup == Report(
        netns=path, uplink="eth7", outcome="failed", taps=(), tc_removed=(), error=made.error
    )
    with pytest.raises(type(made.error)):
        nlraw.setup(path)


# ---------------------------------------------------------------- two NICs, and none

NICS = ("eth0", "net1")


def two_nics():
    """A pod with a second uplink, whose `clsact` has a foreign filter."""
    made = a_pod()
    made.links.append(a_link(3, "net1", kind="veth", mtu=65535))
    made.qdiscs.append(a_qdisc(3, "clsact"))
    made.filters.append(a_filter(3, "matchall", 9, parent=CLSACT_IN, priority=7, handle=1))
    return made


def test_two_nics_are_connected_by_one_datagram_and_made_persistent_last(descriptor):
    made = two_nics()
    datagrams = []
    made.before = lambda requests: datagrams.append([each.step for each in requests])
    result = provided(made, uplink=NICS, owner=7)
    assert [(each.tap.ifname, each.tap.ifindex, each.tap.mtu) for each in result.pairs] == [
        ("tap0_urunc", 30, 0),
        ("tap1_urunc", 31, 65521),
    ]
    assert [each.uplink.ifname for each in result.pairs] == ["eth0", "net1"]
    assert (result.tap, result.uplink) == (result.pairs[0].tap, result.pairs[0].uplink)
    assert [(each.dev, each.kind) for each in result.ahead] == [("net1", "matchall")]
    assert [(each.ifindex, each.targets) for each in made.filters[1:]] == [
        (30, [2]),
        (31, [3]),
        (2, [30]),
        (3, [31]),
    ]
    assert [steps for steps in datagrams if "set up link" in steps] == datagrams[-1:]
    assert datagrams[-2] == ["look up link"] * 2
    assert descriptor == [("owner", 7, None)] * 2 + [("persist", True)] * 2


@pytest.mark.parametrize("type", [uapi.RTM_SETLINK, uapi.RTM_NEWQDISC, uapi.RTM_NEWTFILTER])
def test_what_a_failed_setup_made_on_two_uplinks_goes_again(descriptor, type):
    made = two_nics()
    before = repr(made.filters), repr(made.qdiscs)
    made.refuse = {type: errno.EPERM}
    result = provided(made, uplink=NICS)
    assert (result.outcome, result.error.errno, result.pairs) == ("failed", errno.EPERM, ())
    assert descriptor[-2:] == [("persist", False)] * 2
    for _ in NICS:
        made.delete_link(made.links[-1])  # as its descriptor is closed
    assert (repr(made.filters), repr(made.qdiscs)) == before


def test_a_qdisc_that_an_uplink_got_meanwhile_is_not_undone():
    made = two_nics()

    def before(requests):
        if requests[0].step == "set up link":
            made.qdiscs.append(a_qdisc(2, "ingress"))

    made.before = before
    result = provided(made, uplink=NICS)
    assert (result.outcome, result.error.errno) == ("failed", errno.EEXIST)
    assert [(each.ifindex, each.kind) for each in made.qdiscs if each.ifindex < 30] == [
        (3, "clsact"),
        (2, "ingress"),
    ]


def test_an_empty_qdisc_that_was_there_outlives_an_undo_after_a_lost_answer():
    made = a_pod("ingress")

    def before(requests):
        if requests and requests[0].step == "set up link":
            raise Lost(errno.ENOBUFS, "lost on purpose", "set up link", "tap0_urunc")

    made.before = before
    result = provided(made, uplink="eth0")
    assert (result.outcome, str(result.error)) == (
        "failed",
        "set up link tap0_urunc: lost on purpose",
    )
    assert [(each.ifindex, each.kind) for each in made.qdiscs] == [(2, "ingress")]


def test_an_empty_qdisc_that_was_there_outlives_an_undo_before_anything_was_sent(monkeypatch):
    made = a_pod("ingress")

    def wiring(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(provision, "Wiring", wiring)
    with pytest.raises(KeyboardInterrupt):
        provided(made)
    assert [(each.ifindex, each.kind) for each in made.qdiscs] == [(2, "ingress")]


@pytest.mark.parametrize("has_orphan", [False, True])
def test_if_one_uplink_is_missing_nothing_is_changed(has_orphan):
    made = a_pod("ingress")
    made.links += [a_link(4, "tap0_urunc")] if has_orphan else []
    result = provided(made, uplink=("net9", "eth0"))
    assert str(result.error) == (
        "look up link net9: there is no such uplink: this is no pod's namespace, or it is not ready"
        "; `-u` names the uplink"
    )
    assert (result.outcome, result.cleanup.outcome, result.cleanup.uplink) == (
        "failed",
        "skipped",
        "net9",
    )
    assert made.changes == []


def test_an_uplink_that_goes_with_the_cleanup_is_missing():
    made = two_nics()
    made.links.append(a_link(4, "tap0_urunc"))

    def before(requests):
        if requests[-1].step == "delete link":
            made.delete_link(made.links[2])

    made.before = before
    result = provided(made, uplink=NICS)
    assert (result.outcome, result.cleanup.outcome) == ("failed", "cleaned")
    assert result.error.object == "net1"
    assert uapi.RTM_NEWQDISC not in made.changes


def test_a_tap_in_use_is_what_is_reported_where_an_uplink_is_missing_too():
    made = a_pod()
    made.links.append(a_link(4, "tap0_urunc", carrier=1))
    result = provided(made, uplink=NICS)
    assert (result.outcome, type(result.error), made.changes) == ("in-use", TapInUse, [])


def test_a_tap_alone_has_no_uplink_and_no_qdisc(descriptor):
    made = a_pod("ingress")
    made.links.append(a_link(4, "tap9_urunc"))
    made.filters.append(a_filter(2, "u32", 0))
    result = provided(made, uplink="none", address="10.9.8.1/24", multi_queue=True)
    assert (result.uplink, [each.uplink for each in result.pairs]) == (None, [None])
    assert (result.tap.mtu, result.tap.multi_queue) == (1500, True)
    assert result.cleanup.outcome == "cleaned"
    assert [each.ifindex for each in made.qdiscs] == [2] and len(made.filters) == 1
    assert uapi.RTM_NEWADDR in made.changes and descriptor[-1] == ("persist", True)


def test_what_fails_of_a_tap_alone_leaves_everything_else(descriptor):
    made = a_pod("ingress", [7])
    made.refuse = {uapi.RTM_NEWADDR: errno.EACCES}
    result = provided(made, uplink="none", address="fd00::1/64")
    assert (result.outcome, result.error.errno) == ("failed", errno.EACCES)
    assert made.changes == [uapi.RTM_SETLINK, uapi.RTM_NEWADDR]
    assert descriptor[-1] == ("persist", False)

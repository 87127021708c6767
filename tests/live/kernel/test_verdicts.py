# SPDX-License-Identifier: Apache-2.0
"""Which TAPs are in use and which are orphans: held, released, killed, and lookalikes."""

import errno

import pytest

import nlraw
from lib import pods, taps
from nlraw import link
from nlraw.connection import Connection
from nlraw.netns import Namespace
from nlraw.pod import QUICK_LIST


def verdicts(pod):
    return {tap.ifname: tap.verdict for tap in nlraw.scan(netns=pod.path)}


def refuse(pod):
    """Clean up a pod where a TAP is in use: it must be refused, and nothing may change."""
    before = pod.state()
    with pytest.raises(nlraw.TapInUse) as caught:
        nlraw.cleanup(netns=pod.path)
    assert pod.state() == before
    assert caught.value.report.outcome == "in-use"
    assert caught.value.report.error is caught.value
    assert not any(tap.deleted for tap in caught.value.report.taps)
    assert caught.value.report.tc_removed == ()
    return caught.value


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_held_tap_is_in_use(pod, up):
    pod.add_tap(up=up)
    pod.hold()
    assert verdicts(pod) == {pods.TAP: "in-use"}
    error = refuse(pod)
    assert pods.TAP in str(error) and "nothing was changed" in str(error)


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("end", [pods.Holder.kill, pods.Holder.release], ids=["killed", "released"])
def test_a_tap_that_nobody_holds_any_more_is_an_orphan(pod, up, end):
    before = pod.state()
    pod.add_tap(up=up)
    end(pod.hold())
    assert verdicts(pod) == {pods.TAP: "orphan"}
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert pod.state() == before


def test_a_tap_released_right_after_another_link_event_is_an_orphan_at_once(pod):
    states = []
    for _ in range(5):
        pod.add_tap()
        holder = pod.hold()
        pod.ip("link", "set", "peer0", "down")
        pod.ip("link", "set", "peer0", "up")
        holder.kill()
        (tap,) = nlraw.scan(netns=pod.path)
        assert tap.verdict == "orphan"
        states.append(tap.operstate)
        assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert "UP" in states, "the operational state never lagged: this kernel cannot show the claim"


def test_a_tap_is_in_use_as_soon_as_it_is_attached(pod):
    pod.add_tap()
    for _ in range(20):
        holder = pod.hold()
        assert verdicts(pod) == {pods.TAP: "in-use"}
        holder.kill()
        assert verdicts(pod) == {pods.TAP: "orphan"}


def listed(pod, request):
    """The names of the links in the kernel's answer to a request for a list."""
    with Namespace(pod.path) as namespace, Connection(namespace) as connection:
        (reply,) = connection.ask(request)
        return {found.ifname for found in link.links(reply.answer())}


@pytest.mark.parametrize("orphans", [1, 2, 5])
def test_a_held_tap_behind_one_whose_message_does_not_fit_a_list_is_in_use(pod, orphans):
    for number in range(orphans):
        pod.add_orphan("tap%d_urunc" % number)
    pod.add_orphan("tap8_urunc")
    pod.lengthen("tap8_urunc", 260)
    pod.add_tap("tap9_urunc")
    holder = pod.hold("tap9_urunc")
    try:
        if "tap9_urunc" in listed(pod, QUICK_LIST):
            pytest.skip("this kernel does not cut such a list")
    except nlraw.Refused as error:
        assert error.errno == errno.EMSGSIZE
        pytest.skip("this kernel refuses to make such a list")
    assert verdicts(pod)["tap9_urunc"] == "in-use"
    error = refuse(pod)
    assert "tap9_urunc" in str(error) and len(error.report.taps) == orphans + 2
    holder.kill()
    assert len(nlraw.cleanup(netns=pod.path).taps) == orphans + 2
    assert not any(name.startswith("tap") for name in pod.links())


@pytest.mark.parametrize("dead", [True, False], ids=["a dead redirect", "nothing to remove"])
def test_a_held_tap_that_a_quick_list_leaves_out_is_in_use_where_there_is_no_orphan(pod, dead):
    pod.add_tap("vpn0", redirect=False, flags=taps.IFF_TUN)
    pod.lengthen("vpn0", 260)
    pod.add_tap("tap9_urunc", redirect=not dead)
    pod.hold("tap9_urunc")
    if dead:
        pod.add_orphan("tap2_urunc")
        pod.ip("link", "del", "tap2_urunc")
    refuse(pod)


def test_an_orphan_that_does_not_fit_a_quick_list_goes_too(pod):
    pod.add_orphan()
    pod.lengthen(pods.TAP, 260)
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert pods.TAP not in pod.links()


def test_a_list_of_all_links_leaves_out_none_whose_message_is_long(pod):
    pod.add_tap()
    pod.lengthen("lo", 30)
    pod.lengthen("eth0", 260)
    assert listed(pod, link.dump()) == set(pod.links())


def test_a_tap_made_by_its_holder_is_in_use_while_held(pod):
    pod.hold()
    assert verdicts(pod) == {pods.TAP: "in-use"}
    refuse(pod)


def test_a_multi_queue_tap_is_in_use_until_its_last_holder_has_gone(pod):
    pod.add_tap(flags=taps.IFF_TAP | taps.IFF_MULTI_QUEUE)
    first, second = pod.hold(multi_queue=True), pod.hold(multi_queue=True)
    refuse(pod)
    first.kill()
    refuse(pod)
    second.kill()
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"


@pytest.mark.parametrize("carrier", [True, False], ids=["carrier on", "carrier off"])
def test_a_detached_queue_is_in_use_whatever_the_carrier(pod, carrier):
    pod.add_tap(flags=taps.IFF_TAP | taps.IFF_MULTI_QUEUE)
    holder = pod.hold(multi_queue=True)
    if not carrier:
        holder.carrier_off()
    holder.detach()
    (tap,) = nlraw.scan(netns=pod.path)
    assert (tap.verdict, tap.carrier) == ("in-use", carrier)
    assert "1 detached" in str(refuse(pod))
    holder.kill()
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"


def test_a_holder_that_turns_its_carrier_off_is_seen_on_a_multi_queue_tap_alone(pod):
    pod.add_tap("tap0_urunc")
    pod.add_tap("tap1_urunc", flags=taps.IFF_TAP | taps.IFF_MULTI_QUEUE)
    pod.hold("tap0_urunc").carrier_off()
    pod.hold("tap1_urunc", multi_queue=True).carrier_off()
    assert verdicts(pod) == {"tap0_urunc": "orphan", "tap1_urunc": "in-use"}


def test_an_orphan_is_fresh_until_a_second_open(pod):
    pod.add_tap("tap0_urunc")
    pod.add_orphan("tap1_urunc")
    pod.add_orphan("tap2_urunc", up=False)
    pod.add_tap("tap3_urunc")
    pod.hold("tap3_urunc")
    fresh = {tap.ifname: tap.fresh for tap in nlraw.scan(netns=pod.path)}
    assert fresh == {
        "tap0_urunc": True,
        "tap1_urunc": False,
        "tap2_urunc": False,
        "tap3_urunc": False,
    }


def test_a_fresh_orphan_is_removed_by_cleanup(pod):
    before = pod.state()
    pod.add_tap()
    report = nlraw.cleanup(netns=pod.path)
    assert [(tap.fresh, tap.deleted) for tap in report.taps] == [(True, True)]
    assert pod.state() == before


def test_only_a_tap_is_ever_listed(pod):
    pod.add_tap("tap1_urunc", flags=taps.IFF_TUN, redirect=False)
    pod.ip("link", "add", "tap2_urunc", "type", "veth", "peer", "name", "tap3_urunc")
    pod.ip("link", "add", "tap4_urunc", "type", "bridge")
    pod.ip("link", "add", "link", "eth0", "name", "tap5_urunc", "type", "macvtap")
    pod.ip("link", "add", "tap6_urunc", "type", "ifb")
    before = pod.state()
    pod.add_orphan("tap0_urunc")
    report = nlraw.cleanup(netns=pod.path)
    assert [tap.ifname for tap in report.taps] == ["tap0_urunc"]
    assert pod.state() == before


def test_a_tap_of_another_name_is_not_touched(pod):
    for name in ("tap0", "tap0_uruncx", "xtap0_urunc", "tap_urun", "TAP0_URUNC"):
        pod.add_tap(name, redirect=False)
    before = pod.state()
    assert nlraw.scan(netns=pod.path) == ()
    assert nlraw.cleanup(netns=pod.path).outcome == "clean"
    assert pod.state() == before


def test_another_pattern_finds_other_names(pod):
    pod.add_tap("vm1", redirect=False)
    pod.add_tap("vm22", redirect=False)
    assert [tap.ifname for tap in nlraw.scan(netns=pod.path, match="vm?")] == ["vm1"]
    nlraw.cleanup(netns=pod.path, match="vm?")
    assert "vm1" not in pod.links() and "vm22" in pod.links()


def test_several_orphans_go_together(pod):
    before = pod.state()
    for number in range(5):
        pod.add_tap("tap%d_urunc" % number, up=number % 2 == 0)
    report = nlraw.cleanup(netns=pod.path)
    assert [tap.deleted for tap in report.taps] == [True] * 5
    assert pod.state() == before


def test_an_orphan_beside_a_tap_in_use_is_left_alone(pod):
    pod.add_orphan("tap0_urunc")
    pod.add_tap("tap1_urunc")
    pod.hold("tap1_urunc")
    error = refuse(pod)
    assert error.object == "tap1_urunc"
    assert {tap.ifname: tap.verdict for tap in error.report.taps} == {
        "tap0_urunc": "orphan",
        "tap1_urunc": "in-use",
    }


def test_a_dead_redirect_beside_a_tap_in_use_is_left_alone(pod):
    pod.add_orphan("tap0_urunc")
    pod.ip("link", "del", "tap0_urunc")
    pod.add_tap("tap1_urunc")
    pod.hold("tap1_urunc")
    refuse(pod)

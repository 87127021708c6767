# SPDX-License-Identifier: Apache-2.0
"""A chain that somebody created is content: the `ingress` that holds it stays.

The kernel lists a chain that exists because of its filters, and one that was created explicitly,
alike. Which one it is shows once its filters are gone.
"""

import pytest

import nlraw
from lib import pods
from lib.watch import Watch, is_change, is_confirm, once


def add(pod, *commands):
    for command in commands:
        pod.tc(*command.split())


def add_chain(pod, chain, dev="eth0", place="ingress"):
    pod.add_ingress(dev)
    add(pod, "chain add dev %s %s protocol all chain %d" % (dev, place, chain))


def chains(pod, dev="eth0"):
    """The chains at the ingress of a device, by number."""
    shown = pod.tc("chain", "show", "dev", dev, "ingress").splitlines()
    return [int(line.split()[-1]) for line in shown if "chain" in line]


def removed(report):
    return ["%s %s %s" % (gone.dev, gone.object, gone.kind) for gone in report.tc_removed]


@pytest.fixture(params=["eth0", "net1"], ids=["on the uplink", "on another NIC"])
def dev(request, pod):
    pod.batch("link add net1 type veth peer name far1")
    return request.param


# ---------------------------------------------------------------- explicit


def test_an_empty_chain_stays_with_its_qdisc(pod, dev):
    add_chain(pod, 7, dev)
    pod.add_orphan(redirect=False)
    pod.redirect(dev, pods.TAP)
    dry = nlraw.cleanup(netns=pod.path, dry_run=True)
    report = nlraw.cleanup(netns=pod.path)
    assert report.outcome == "cleaned" and removed(report) == ["%s filter u32" % dev]
    assert dry.tc_removed == report.tc_removed
    assert chains(pod, dev) == [7]
    assert nlraw.cleanup(netns=pod.path).outcome == "clean"


@pytest.mark.parametrize("count", [1, 4], ids=["one orphan", "a group"])
def test_a_chain_stays_whose_only_filter_is_the_redirect(pod, dev, count):
    add_chain(pod, 7, dev)
    for number in range(count):
        pod.add_orphan("tap%d_urunc" % number, redirect=False)
    pod.redirect(dev, pods.TAP, "ingress", "chain", "7")
    report = nlraw.cleanup(netns=pod.path)
    assert [tap.deleted for tap in report.taps] == [True] * count
    assert removed(report) == ["%s filter u32" % dev]
    assert chains(pod, dev) == [7]


def test_a_chain_stays_with_an_ingress_that_is_otherwise_empty(pod):
    add_chain(pod, 7)
    pod.add_orphan(redirect=False)
    assert removed(nlraw.cleanup(netns=pod.path)) == []
    assert chains(pod) == [7]


def test_chain_0_can_be_created_too(pod):
    add_chain(pod, 0)
    pod.add_orphan(redirect=False)
    assert removed(nlraw.cleanup(netns=pod.path)) == []
    assert chains(pod) == [0]


def test_a_chain_with_a_template_stays(pod):
    pod.add_ingress("eth0")
    try:
        add(pod, "chain add dev eth0 ingress protocol ip chain 3 flower dst_mac 00:00:00:00:00:00")
    except RuntimeError as error:
        pytest.skip("this kernel has no flower: %s" % error)
    pod.add_orphan()
    assert "eth0 qdisc ingress" not in removed(nlraw.cleanup(netns=pod.path))
    assert chains(pod) == [3]


def test_chains_beside_a_dead_redirect_stay(pod):
    add_chain(pod, 7)
    pod.add_orphan()
    pod.ip("link", "del", pods.TAP)
    assert removed(nlraw.cleanup(netns=pod.path)) == ["eth0 filter u32"]
    assert chains(pod) == [7]


def test_a_chain_stays_whose_only_filter_is_a_dead_redirect(pod):
    add_chain(pod, 7)
    pod.add_orphan(redirect=False)
    pod.redirect("eth0", pods.TAP, "ingress", "chain", "7")
    pod.ip("link", "del", pods.TAP)
    assert removed(nlraw.cleanup(netns=pod.path)) == ["eth0 filter u32"]
    assert chains(pod) == [7]
    assert nlraw.cleanup(netns=pod.path).outcome == "clean"


def test_a_chain_stays_beside_a_setup_and_its_cleanup(pod):
    add_chain(pod, 7)
    before = pod.state()
    nlraw.setup(netns=pod.path)
    assert sorted(chains(pod)) == [0, 7]
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert chains(pod) == [7] and pod.state() == before


def test_a_chain_that_is_made_before_the_second_look_stays(pod, dev):
    pod.add_orphan(redirect=False)
    pod.add_ingress(dev)
    pod.redirect(dev, pods.TAP)
    watch = Watch()
    watch.before = once(is_confirm, lambda: add_chain(pod, 7, dev))
    assert removed(watch.clean_up(pod)) == ["%s filter u32" % dev]
    assert chains(pod, dev) == [7]


# ---------------------------------------------------------------- implied by its filters


@pytest.mark.parametrize("others", [(), ("0",), ("0", "9")], ids=["alone", "and 0", "and more"])
def test_a_chain_that_was_there_for_the_redirect_goes_with_its_qdisc(pod, dev, others):
    before = pod.state()
    pod.add_orphan(redirect=False)
    pod.add_ingress(dev)
    for chain in ("7", *others):
        pod.redirect(dev, pods.TAP, "ingress", "chain", chain)
    dry = nlraw.cleanup(netns=pod.path, dry_run=True)
    report = nlraw.cleanup(netns=pod.path)
    assert removed(report).count("%s filter u32" % dev) == 1 + len(others)
    assert removed(report).count("%s qdisc ingress" % dev) == 1
    assert sorted(removed(dry)) == sorted(removed(report))
    assert pod.state() == before


def test_a_chain_of_a_dead_redirect_goes_with_its_qdisc(pod):
    before = pod.state()
    pod.add_orphan(redirect=False)
    pod.add_ingress("eth0")
    pod.redirect("eth0", pods.TAP, "ingress", "chain", "7")
    pod.ip("link", "del", pods.TAP)
    assert removed(nlraw.cleanup(netns=pod.path)) == ["eth0 filter u32", "eth0 qdisc ingress"]
    assert pod.state() == before


def test_beside_a_tap_in_use_that_is_kept_it_goes_too(pod, dev):
    pod.hold("tap9_urunc")
    before = pod.state()
    pod.add_orphan(redirect=False)
    pod.add_ingress(dev)
    pod.redirect(dev, pods.TAP, "ingress", "chain", "7")
    report = nlraw.cleanup(netns=pod.path, keep_in_use=True)
    assert removed(report) == ["%s filter u32" % dev, "%s qdisc ingress" % dev]
    assert pod.state() == before


def test_chains_of_priorities_that_share_their_tables_are_reported_one_by_one(pod):
    before = pod.state()
    pod.add_orphan(redirect=False)
    pod.add_ingress("eth0")
    for chain in ("0", "2", "4"):
        pod.redirect("eth0", pods.TAP, "ingress", "pref", "5", "chain", chain)
    assert removed(nlraw.cleanup(netns=pod.path)) == ["eth0 filter u32"] * 3 + [
        "eth0 qdisc ingress"
    ]
    assert pod.state() == before


# ---------------------------------------------------------------- in two steps


def test_a_tap_that_comes_into_use_between_the_two_steps_is_a_failure_that_says_what_is_gone(pod):
    pod.add_orphan(redirect=False)
    pod.add_ingress("eth0")
    pod.redirect("eth0", pods.TAP, "ingress", "chain", "7")
    watch = Watch()
    steps = []

    def attach(requests):
        if steps and not is_change(requests):
            watch.before = lambda requests: None
            pod.hold()
        elif is_change(requests):
            steps.append(requests)

    watch.before = attach
    with pytest.raises(nlraw.Error) as caught:
        watch.clean_up(pod)
    error = caught.value
    assert not isinstance(error, nlraw.TapInUse) and error.report.outcome == "failed"
    assert "u32 filter on eth0" in str(error) and "came into use" in str(error)
    assert removed(error.report) == ["eth0 filter u32"]
    assert pods.TAP in pod.links()


def test_a_chain_that_is_made_right_before_the_filters_go_stays(pod):
    pod.add_orphan(redirect=False)
    pod.add_ingress("eth0")
    pod.redirect("eth0", pods.TAP, "ingress", "chain", "7")
    watch = Watch()
    watch.before = once(is_change, lambda: add_chain(pod, 8))
    assert watch.clean_up(pod).outcome == "cleaned"
    assert chains(pod) == [8]


@pytest.mark.parametrize("count", [1, 4], ids=["one orphan", "a group"])
def test_killed_between_the_two_steps_the_next_run_finishes(pod, count):
    before = pod.state()
    for number in range(count):
        pod.add_orphan("tap%d_urunc" % number, redirect=False)
    pod.add_ingress("eth0")
    pod.redirect("eth0", pods.TAP, "ingress", "chain", "7")
    watch = Watch()
    steps = []

    class Killed(BaseException):
        pass

    def kill(requests):
        if steps:
            raise Killed
        steps.extend(filter(is_change, [requests]))

    watch.before = kill
    with pytest.raises(Killed):
        watch.clean_up(pod)
    assert pod.filters("eth0") == [] and pods.TAP in pod.links()
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert pod.state() == before

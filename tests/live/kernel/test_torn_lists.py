# SPDX-License-Identifier: Apache-2.0
"""Lists of qdiscs and filters that somebody changes while they are read, or afterwards.

The kernel resumes such a list by position, without a flag: when an earlier entry is deleted between
two datagrams, a later one is left out. The moment is picked by looking at each datagram; what
happens in it is real.
"""

import pytest

import nlraw
from lib import command, pods
from lib.watch import Watch, asks, is_change, is_confirm, once
from nlraw import node as sweeping
from nlraw import tc, wire
from nlraw.verdict import Target

FILTERS = 300  # four datagrams
LINKS = 300  # with two qdiscs each, three datagrams
REDIRECT = (
    "filter add dev {dev} ingress pref {pref} protocol all u32 match u32 0 0 "
    "action mirred egress redirect dev {tap}"
)
FOREIGN = (
    "filter add dev {dev} ingress pref {pref} protocol ip u32 match ip dport 22 0xffff flowid 1:7"
)


@pytest.fixture
def watch():
    return Watch()


def add(pod, lines):
    command.run("tc", "-n", pod.name, "-batch", "-", input="\n".join(lines) + "\n")


def fill(pod, foreign=(), dev="eth0", tap=pods.TAP):
    """Redirect to an orphan so often that the list takes several datagrams."""
    add(
        pod,
        ["qdisc replace dev %s ingress" % dev]
        + [
            (FOREIGN if pref in foreign else REDIRECT).format(dev=dev, pref=pref, tap=tap)
            for pref in range(1, FILTERS + 1)
        ],
    )


def delete(pod, *prefs, dev="eth0"):
    add(pod, ["filter del dev %s ingress pref %d" % (dev, pref) for pref in prefs])


def preferences(pod, dev="eth0"):
    """The priorities of the filters of a device."""
    return [found["pref"] for found in pod.filters(dev)]


def during(watch, step, number, event):
    """Have something happen once, after so many datagrams of the first list of a step.

    The list that is returned is empty once it has happened.
    """
    events = [event]

    def meanwhile(requests, datagrams):
        if events and requests[0].step == step and len(datagrams) == number:
            events.pop()()

    watch.meanwhile = meanwhile
    return events


def third_datagram(pod, step, decode):
    """What is first in the third datagram of a list, when a scan reads it."""
    watch, found = Watch(), []

    def meanwhile(requests, datagrams):
        if requests[0].step == step and len(datagrams) == 3:
            found.append(decode(wire.messages(datagrams[2]))[0])

    watch.meanwhile = meanwhile
    watch.preview(pod)
    return found[0]


# ---------------------------------------------------------------- filters, between two datagrams


@pytest.mark.parametrize("dev", ["eth0", "net1"], ids=["the uplink", "another NIC"])
def test_a_foreign_filter_that_the_list_left_out_survives(pod, watch, dev):
    pod.batch("link add net1 type veth peer name far1")
    pod.add_orphan(redirect=False)
    fill(pod, dev=dev)
    foreign = third_datagram(pod, "list filters", tc.filters).priority
    delete(pod, foreign, dev=dev)
    add(pod, [FOREIGN.format(dev=dev, pref=foreign)])
    left = during(watch, "list filters", 1, lambda: delete(pod, 1, dev=dev))
    assert watch.clean_up(pod).outcome == "cleaned"
    assert not left
    assert preferences(pod, dev) == [foreign]


@pytest.mark.parametrize("number", [1, 2])
def test_no_dead_redirect_is_left_behind(pod, watch, number):
    pod.add_orphan(redirect=False)
    fill(pod, [FILTERS])
    left = during(watch, "list filters", number, lambda: delete(pod, 1))
    assert watch.clean_up(pod).outcome == "cleaned"
    assert not left
    assert preferences(pod) == [FILTERS]


@pytest.mark.parametrize("look", ["a dry run", "a scan"])
def test_a_look_reports_all_that_is_there(pod, watch, look):
    pod.add_orphan(redirect=False)
    fill(pod, [FILTERS])
    left = during(watch, "list filters", 1, lambda: delete(pod, 1))
    report = watch.clean_up(pod, dry_run=True) if look == "a dry run" else watch.preview(pod)
    assert not left and report.outcome == "would-clean"
    seen = sorted(each.priority for each in report.tc_removed if each.dev == "eth0")
    assert seen == list(range(2, FILTERS))


def test_dead_redirects_alone_are_all_removed(pod, watch):
    pod.add_orphan(redirect=False)
    fill(pod)
    pod.ip("link", "del", pods.TAP)
    left = during(watch, "list filters", 1, lambda: delete(pod, 1))
    assert watch.clean_up(pod).outcome == "cleaned"
    assert not left and pod.qdiscs("eth0") == []


def test_a_list_that_shows_nothing_to_do_is_read_again_too(pod, watch):
    pod.add_orphan(redirect=False)
    fill(pod, range(1, FILTERS + 1))
    dead = third_datagram(pod, "list filters", tc.filters).priority
    delete(pod, dead)
    add(pod, [REDIRECT.format(dev="eth0", pref=dead, tap=pods.TAP)])
    pod.ip("link", "del", pods.TAP)
    left = during(watch, "list filters", 1, lambda: delete(pod, 1))
    assert watch.clean_up(pod).outcome == "cleaned"
    assert not left
    assert preferences(pod) == [pref for pref in range(2, FILTERS + 1) if pref != dead]


def test_a_shared_block_is_read_again_too(pod, watch):
    pod.add_orphan(redirect=False)
    add(pod, ["qdisc add dev eth0 ingress_block 22 ingress"])
    block = [
        REDIRECT.format(dev="", pref=pref, tap=pods.TAP).replace("dev  ingress", "block 22")
        for pref in range(1, FILTERS + 1)
    ]
    add(pod, block)
    left = during(watch, "list filters", 1, lambda: pod.tc(*"filter del block 22 pref 1".split()))
    assert watch.clean_up(pod).outcome == "cleaned"
    assert not left and "mirred" not in pod.tc("filter", "show", "block", "22")


def deleting(pod, watch, prefs):
    """Have somebody delete one filter during each list, as long as there are some."""

    def meanwhile(requests, datagrams):
        if requests[0].step == "list filters" and len(datagrams) == 1 and prefs:
            delete(pod, prefs.pop(0))

    watch.meanwhile = meanwhile


def test_a_cleanup_outlasts_somebody_who_deletes_one_after_the_other(pod, watch):
    pod.add_orphan(redirect=False)
    fill(pod, [FILTERS])
    prefs = list(range(1, 9))
    deleting(pod, watch, prefs)
    assert watch.clean_up(pod).outcome == "cleaned"
    assert prefs == [] and preferences(pod) == [FILTERS]


def test_where_somebody_never_ends_nothing_is_changed(pod, watch):
    pod.add_orphan(redirect=False)
    fill(pod, [FILTERS])
    prefs = list(range(1, FILTERS))
    deleting(pod, watch, prefs)
    with pytest.raises(nlraw.Error) as caught:
        watch.clean_up(pod)
    assert caught.value.message == "the namespace changed each time it was looked at; try again"
    assert preferences(pod) == prefs + [FILTERS] and pods.TAP in pod.links()


# ---------------------------------------------------------------- qdiscs, between two datagrams


def add_devices(pod):
    """Many devices with a qdisc each: their list takes several datagrams."""
    names = ["v%d" % number for number in range(LINKS)]
    pod.batch(*["link add %s type veth peer name w%s" % (name, name) for name in names])
    add(pod, ["qdisc add dev %s ingress" % name for name in names])
    add(pod, ["qdisc add dev w%s clsact" % name for name in names])


def test_a_redirect_goes_whose_qdisc_the_list_left_out(pod, watch):
    pod.ip("link", "add", "first", "type", "veth", "peer", "name", "far")
    add(pod, ["qdisc add dev first clsact"])
    add_devices(pod)
    pod.add_orphan(redirect=False)
    names = {shown["ifindex"]: name for name, shown in pod.links().items()}
    dev = names[third_datagram(pod, "list qdiscs", tc.qdiscs).ifindex]
    pod.redirect(dev, pods.TAP)
    left = during(watch, "list qdiscs", 1, lambda: pod.ip("link", "del", "first"))
    assert watch.clean_up(pod).outcome == "cleaned"
    assert not left
    assert pod.filters(dev) == []


# ---------------------------------------------------------------- between list and change


@pytest.mark.parametrize("dev", ["eth0", "net1"], ids=["the uplink", "another NIC"])
def test_a_filter_that_is_added_before_the_second_look_keeps_its_qdisc(pod, watch, dev):
    pod.batch("link add net1 type veth peer name far1")
    pod.add_orphan(redirect=False)
    pod.add_ingress(dev)
    pod.redirect(dev, pods.TAP)
    line = FOREIGN.format(dev=dev, pref=7)
    watch.before = once(is_confirm, lambda: pod.tc(*line.split()))
    assert watch.clean_up(pod).outcome == "cleaned"
    assert preferences(pod, dev) == [7]


@pytest.mark.parametrize("dev", ["eth0", "net1"], ids=["the uplink", "another NIC"])
def test_a_redirect_that_is_added_before_the_second_look_goes_too(pod, watch, dev):
    pod.batch("link add net1 type veth peer name far1")
    before = pod.state()
    pod.add_orphan()

    def redirect():
        pod.add_ingress(dev)
        pod.redirect(dev, pods.TAP)

    watch.before = once(is_confirm, redirect)
    assert watch.clean_up(pod).outcome == "cleaned"
    assert pod.state() == before


def test_a_redirect_that_is_added_to_many_orphans_before_the_second_look_goes_too(pod, watch):
    before = pod.state()
    names = ["tap%d_urunc" % number for number in range(4)]
    for name in names:
        pod.add_orphan(name, redirect=False)

    def redirect():
        pod.add_ingress("eth0")
        pod.redirect("eth0", names[2])

    watch.before = once(is_confirm, redirect)
    assert watch.clean_up(pod).outcome == "cleaned"
    assert pod.state() == before


@pytest.mark.parametrize("moment", ["list qdiscs", "list filters"])
def test_what_is_changed_before_a_list_is_in_the_next_look(pod, watch, moment):
    before = pod.state()
    pod.add_orphan()
    watch.before = once(asks(moment), lambda: pod.redirect("eth0", pods.TAP))
    report = watch.clean_up(pod)
    assert [each.kind for each in report.tc_removed].count("u32") == 2
    assert pod.state() == before


def test_nothing_is_looked_at_twice_where_nobody_changes_anything(pod, watch):
    pod.add_orphan(redirect=False)
    fill(pod, [FILTERS])
    watch.clean_up(pod)
    assert sum(map(asks("list qdiscs"), watch.sent)) == 1
    assert sum(map(is_confirm, watch.sent)) == 1
    assert sum(map(is_change, watch.sent)) > 1  # WINDOW requests each


# ---------------------------------------------------------------- setup


def test_a_setup_loses_no_foreign_filter_and_leaves_no_dead_redirect(pod, watch):
    pod.add_orphan(redirect=False)
    fill(pod)
    foreign = third_datagram(pod, "list filters", tc.filters).priority
    delete(pod, foreign)
    add(pod, [FOREIGN.format(dev="eth0", pref=foreign)])
    left = during(watch, "list filters", 1, lambda: delete(pod, 1))
    made = watch.set_up(pod)
    assert (made.outcome, made.cleanup.outcome) == ("created", "cleaned") and not left
    assert set(preferences(pod)) - {foreign} and len(preferences(pod)) == 2
    assert pod.redirects("eth0", pods.TAP) == 1


def test_a_setup_picks_its_priority_from_a_list_that_is_whole(pod, watch):
    pod.add_orphan()
    fill(pod, range(1, FILTERS + 1))
    lists = []

    def meanwhile(requests, datagrams):
        if requests[0].step == "list filters" and len(datagrams) == 1:
            lists.append(requests)
            if len(lists) == 2:  # the first one after the cleanup
                delete(pod, 1)

    watch.meanwhile = meanwhile
    made = watch.set_up(pod)
    assert made.outcome == "created" and len(lists) == 3
    assert len(made.ahead) == FILTERS - 1


def test_an_undo_finds_its_redirect_in_a_list_that_is_whole(pod, watch):
    fill(pod, range(1, FILTERS + 1))
    at = third_datagram(pod, "list filters", tc.filters).priority
    # the redirect comes right before those whose priorities the kernel could have picked
    delete(pod, *range(at, FILTERS + 1))
    others = list(range(2, at)) + list(range(40000, 40100))
    add(pod, [FOREIGN.format(dev="eth0", pref=pref) for pref in others[at - 2 :]])
    undoing = []

    def fail(requests):
        if requests[0].step == "set up link" and not undoing:
            undoing.append(requests)
            watch.lose(True)

    def meanwhile(requests, datagrams):
        if len(undoing) == 1 and requests[0].step == "list filters" and len(datagrams) == 1:
            undoing.append(preferences(pod)[at - 1])
            delete(pod, 1)

    watch.before, watch.meanwhile = fail, meanwhile
    with pytest.raises(nlraw.Error):
        watch.set_up(pod)
    assert undoing[1:] == [39999]
    assert preferences(pod) == others
    assert pods.TAP not in pod.links()


def test_a_sweep_is_as_careful(pod, node):
    watches = []

    def connect(*arguments, **options):
        watch = Watch()
        watches.append((watch, during(watch, "list filters", 1, lambda: delete(pod, 1))))
        return watch.connect(*arguments, **options)

    pod.add_orphan(redirect=False)
    fill(pod, [FILTERS])
    swept = sweeping.sweep_paths([pod.path], Target(), connect=connect)
    assert [report.outcome for report in swept.namespaces] == ["cleaned"]
    assert [left for _, left in watches] == [[]]
    assert preferences(pod) == [FILTERS]

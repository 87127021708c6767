# SPDX-License-Identifier: Apache-2.0
"""--keep-in-use: orphans go beside TAPs in use, which stay with all that belongs to them.

For hosts with many VMs in one namespace. Without it one TAP in use saves all.
"""

import pytest

import nlraw
from lib import command, pods
from lib.watch import Proof, Watch, is_change, is_confirm, is_look, once

MANY = ["tap%d_urunc" % number for number in range(6)]
SSH = "filter add dev eth0 ingress pref 5 protocol ip u32 match ip dport 22 0xffff flowid 1:7"


def connect(pod, tap, nic="eth0"):
    for dev, target in ((nic, tap), (tap, nic)):
        pod.add_ingress(dev)
        pod.redirect(dev, target)


def removed(report):
    return ["%s %s %s" % (gone.dev, gone.object, gone.kind) for gone in report.tc_removed]


def verdicts(report):
    return sorted((tap.ifname, tap.verdict, tap.deleted) for tap in report.taps)


@pytest.fixture
def living(pod):
    """A pod with a VM that is alive, its TAP and its redirects."""
    pod.add_tap("tap9_urunc")
    pod.holder = pod.hold("tap9_urunc")
    return pod


ALIVE = ("tap9_urunc", "in-use", False)


# ---------------------------------------------------------------- the dead go, the living stay


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_dead_go_and_the_living_stays_with_all_that_belongs_to_it(living, count):
    before = living.state()
    for name in MANY[:count]:
        living.add_orphan(name, redirect=False)
        connect(living, name)
    dry = nlraw.cleanup(netns=living.path, keep_in_use=True, dry_run=True)
    report = nlraw.cleanup(netns=living.path, keep_in_use=True)
    assert (dry.outcome, report.outcome, report.error) == ("would-clean", "cleaned", None)
    assert verdicts(report) == [(name, "orphan", True) for name in MANY[:count]] + [ALIVE]
    assert dry.tc_removed == report.tc_removed
    assert "eth0 qdisc ingress" not in removed(report)
    assert living.state() == before


def test_without_it_nothing_is_changed(living):
    living.add_orphan(redirect=False)
    before = living.state()
    with pytest.raises(nlraw.TapInUse):
        nlraw.cleanup(netns=living.path)
    assert living.state() == before


def test_where_nobody_is_dead_there_is_nothing_to_do(living):
    before = living.state()
    report = nlraw.cleanup(netns=living.path, keep_in_use=True)
    assert (report.outcome, verdicts(report)) == ("clean", [ALIVE])
    assert living.state() == before


def test_on_another_nic_the_ingress_of_the_dead_goes(living):
    living.batch("link add net1 type veth peer name far1")
    before = living.state()
    living.add_orphan(redirect=False)
    connect(living, pods.TAP, "net1")
    report = nlraw.cleanup(netns=living.path, keep_in_use=True)
    assert removed(report)[:2] == ["net1 filter u32", "net1 qdisc ingress"]
    assert living.state() == before


def test_the_ingress_of_a_start_that_holds_its_tap_stays(pod):
    # its redirects come next
    pod.add_ingress("eth0")
    pod.hold("tap9_urunc")
    before = pod.state()
    pod.add_orphan(redirect=False)
    report = nlraw.cleanup(netns=pod.path, keep_in_use=True)
    assert report.outcome == "cleaned" and removed(report) == []
    assert pod.state() == before


def test_a_redirect_from_the_living_to_the_dead_goes_alone(living):
    before = living.state()
    living.add_orphan(redirect=False)
    living.redirect("tap9_urunc", pods.TAP)
    report = nlraw.cleanup(netns=living.path, keep_in_use=True)
    assert removed(report) == ["tap9_urunc filter u32"]
    assert living.state() == before


def test_a_dead_redirect_is_reported_and_left(living):
    living.add_orphan("tap8_urunc", redirect=False)
    living.redirect("eth0", "tap8_urunc", "ingress", "pref", "7")
    living.ip("link", "del", "tap8_urunc")
    before = living.state()
    living.add_orphan(redirect=False)
    report = nlraw.cleanup(netns=living.path, keep_in_use=True)
    assert (report.outcome, removed(report)) == ("cleaned", [])
    assert [(dead.dev, dead.kind, dead.priority) for dead in report.dead_redirects] == [
        ("eth0", "u32", 7)
    ]
    assert living.state() == before


def test_foreign_filters_and_groups_stay_too(living):
    living.tc(*SSH.split())
    living.ip("link", "set", "tap9_urunc", "group", "77")
    before = living.state()
    for name in MANY:
        living.add_orphan(name, redirect=False)
    assert nlraw.cleanup(netns=living.path, keep_in_use=True).outcome == "cleaned"
    assert living.state() == before


def test_a_detached_queue_and_a_tap_that_is_down_are_kept(pod):
    pod.hold("tap7_urunc", multi_queue=True).detach()
    pod.hold("tap8_urunc")
    before = pod.state()
    pod.add_orphan(redirect=False)
    report = nlraw.cleanup(netns=pod.path, keep_in_use=True)
    assert [verdict for _, verdict, _ in verdicts(report)] == ["orphan", "in-use", "in-use"]
    assert pod.state() == before


def test_400_dead_among_100_living_go(pod):
    names = ["tap%d_urunc" % number for number in range(500)]
    pod.add_taps(names)
    child = pod.child(HOLD_MANY, *names[::5])
    report = nlraw.cleanup(netns=pod.path, keep_in_use=True)
    assert (report.outcome, sum(tap.deleted for tap in report.taps)) == ("cleaned", 400)
    assert {name for name in pod.links() if name.startswith("tap")} == set(names[::5])
    child.kill()


HOLD_MANY = """
import fcntl, os, struct, sys
for name in sys.argv[1:]:
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("=16sH22x", name.encode(), 0x1002))
print("ready", flush=True)
sys.stdin.read()
"""


# ---------------------------------------------------------------- races


@pytest.mark.parametrize("count", [2, 6], ids=["two", "a group"])
def test_one_that_comes_into_use_before_the_second_look_is_kept_and_the_others_go(pod, count):
    watch = Watch()
    for name in MANY[:count]:
        pod.add_orphan(name, redirect=False)
        connect(pod, name)
    watch.before = once(is_confirm, lambda: pod.hold(MANY[1]))
    report = watch.clean_up(pod, keep_in_use=True)
    assert report.outcome == "cleaned"
    assert [name for name, _, gone in verdicts(report) if not gone] == [MANY[1]]
    assert pod.redirects("eth0", MANY[1]) == pod.redirects(MANY[1], "eth0") == 1
    assert len(pod.filters("eth0")) == 1


def test_one_that_comes_into_use_once_it_is_marked_is_kept_without_the_mark(pod):
    watch = Watch()
    for name in MANY:
        pod.add_orphan(name, redirect=False)
    pod.ip("link", "set", MANY[1], "group", "77")
    watch.before = once(Proof(), lambda: pod.hold(MANY[1]))
    report = watch.clean_up(pod, keep_in_use=True)
    assert [name for name, _, gone in verdicts(report) if not gone] == [MANY[1]]
    assert pod.links()[MANY[1]]["group"] == "77"


def test_one_that_is_released_meanwhile_goes_in_the_next_run_or_in_this_one(living):
    watch = Watch()
    living.add_orphan(redirect=False)
    watch.before = once(is_confirm, living.holder.kill)
    assert watch.clean_up(living, keep_in_use=True).outcome == "cleaned"
    nlraw.cleanup(netns=living.path)
    assert not [name for name in living.links() if name.startswith("tap")]


def test_a_new_living_one_before_the_second_look_is_seen(pod):
    watch = Watch()
    pod.add_orphan(redirect=False)
    watch.before = once(is_confirm, lambda: pod.hold("tap9_urunc"))
    report = watch.clean_up(pod, keep_in_use=True)
    assert verdicts(report) == [(pods.TAP, "orphan", True), ALIVE]
    assert sum(map(is_look, watch.sent)) == 2 and sum(map(is_change, watch.sent)) == 1


# ---------------------------------------------------------------- command line and sweep


def test_the_command_line_exits_0_and_names_both(living):
    living.add_orphan(redirect=False)
    done = command.nlraw("cleanup", "-n", living.path, "--keep-in-use", "-j")
    assert (done.status, done.err, done.document["outcome"]) == (0, "", "cleaned")
    assert sorted((tap["ifname"], tap["deleted"]) for tap in done.document["taps"]) == [
        (pods.TAP, True),
        ("tap9_urunc", False),
    ]


def test_a_sweep_removes_the_dead_beside_the_living_if_it_shall(living, node):
    node.pin("pod", living.path)
    before = living.state()
    living.add_orphan(redirect=False)
    swept = nlraw.sweep(dirs=[node.directory])
    assert [report.outcome for report in swept.namespaces] == ["in-use"]
    assert pods.TAP in living.links()
    swept = nlraw.sweep(dirs=[node.directory], keep_in_use=True, dry_run=True)
    assert [report.outcome for report in swept.namespaces] == ["would-clean"]
    swept = nlraw.sweep(dirs=[node.directory], keep_in_use=True)
    assert [report.outcome for report in swept.namespaces] == ["cleaned"]
    assert (swept.totals.deleted, swept.totals.in_use, swept.totals.failed) == (1, 1, 0)
    assert living.state() == before


def test_a_sweep_still_spares_fresh_ones(living, node):
    node.pin("pod", living.path)
    living.add_taps([pods.TAP])
    before = living.state()
    swept = nlraw.sweep(dirs=[node.directory], keep_in_use=True)
    assert [report.outcome for report in swept.namespaces] == ["clean"]
    assert (swept.totals.spared, swept.totals.in_use) == (1, 1)
    assert living.state() == before
    swept = nlraw.sweep(dirs=[node.directory], keep_in_use=True, include_fresh=True)
    assert swept.totals.deleted == 1

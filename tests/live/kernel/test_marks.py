# SPDX-License-Identifier: Apache-2.0
"""The group by which orphans are deleted, left behind by a cleanup that was killed.

It is known by its number. The next cleanup takes it off the TAPs that stay, also of those that came
into use since. Groups of others are nobody's business.
"""

import pytest

import nlraw
from lib import pods
from lib.watch import Proof, Watch, is_change, is_mark, once
from nlraw import link, marks, removal
from nlraw import pod as cleaning
from nlraw.connection import Connection
from nlraw.netns import Namespace
from nlraw.transport import Patience
from nlraw.verdict import Target

FOUR = ["tap%d_urunc" % number for number in range(4)]
MARK = marks.MARK + 0x1234
ALMOST = [marks.MARK - 1, marks.MARK + 0x10000, 77, 0x1234]


def groups(pod):
    """The groups of the links that are in one, by name."""
    return {
        name: int(shown["group"]) & 0xFFFFFFFF
        for name, shown in pod.links().items()
        if shown["group"] != "default"
    }


def mark(pod, *names, group=MARK):
    pod.batch(*["link set %s group %d" % (name, group) for name in names])


class Killed(BaseException):
    pass


def kill(pod, condition):
    """Begin a cleanup that ends, as by `kill -9`, before the first datagram that fits."""
    watch = Watch()
    dead = []

    def before(requests):
        if dead or condition(requests):
            dead.append(requests)
            raise Killed

    watch.before = before
    with pytest.raises(Killed):
        watch.clean_up(pod)


@pytest.fixture
def pod(make_pod):
    pod = make_pod()
    for name in FOUR:
        pod.add_orphan(name, redirect=False)
    return pod


def test_a_cleanup_that_is_killed_leaves_marks_that_are_known(pod):
    kill(pod, is_change)
    assert set(groups(pod)) == set(FOUR) and len(set(groups(pod).values())) == 1
    with Namespace(pod.path) as namespace, Connection(namespace) as connection:
        (reply,) = connection.ask(link.dump("tun"))
        assert [marks.is_marked(found) for found in link.links(reply.answer())] == [True] * 4
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"


@pytest.mark.parametrize("act", ["cleanup", "setup"])
def test_they_are_taken_off_a_tap_that_came_into_use_and_those_beside_it(pod, act):
    before = pod.state()
    kill(pod, is_change)
    holder = pod.hold(FOUR[1])
    with pytest.raises(nlraw.TapInUse) as caught:
        getattr(nlraw, act)(netns=pod.path)
    assert caught.value.report.outcome == "in-use"
    assert groups(pod) == {}
    holder.kill()
    assert pod.state() == before


def test_they_are_taken_off_one_that_is_kept_while_the_others_go(pod):
    kill(pod, is_change)
    pod.hold(FOUR[1])
    report = nlraw.cleanup(netns=pod.path, keep_in_use=True)
    assert sorted(tap.ifname for tap in report.taps if tap.deleted) == [FOUR[0], FOUR[2], FOUR[3]]
    assert groups(pod) == {}


def test_they_are_taken_off_one_on_which_something_is_stacked(pod):
    kill(pod, is_change)
    try:
        pod.ip(*("link add upper link %s type macvlan" % FOUR[3]).split())
    except RuntimeError as error:
        pytest.skip("this kernel makes no macvlan: %s" % error)
    with pytest.raises(nlraw.TapInUse):
        nlraw.cleanup(netns=pod.path)
    assert groups(pod) == {}


def test_they_are_taken_off_fresh_ones_that_a_sweep_spares(pod, node):
    pod.add_taps(["tap8_urunc"])
    mark(pod, "tap8_urunc", FOUR[0])
    node.pin("pod", pod.path)
    swept = nlraw.sweep(dirs=[node.directory])
    assert (swept.totals.spared, swept.totals.deleted) == (1, 4)
    assert groups(pod) == {}


def test_a_sweep_takes_them_off_where_a_tap_is_in_use(pod, node):
    mark(pod, *FOUR)
    pod.hold(FOUR[2])
    node.pin("pod", pod.path)
    assert nlraw.sweep(dirs=[node.directory]).totals.in_use == 1
    assert groups(pod) == {}


def test_they_are_taken_off_a_few_that_are_left(pod):
    pod.ip("link", "del", FOUR[0])
    pod.ip("link", "del", FOUR[1])
    mark(pod, FOUR[2])
    pod.hold(FOUR[3])
    with pytest.raises(nlraw.TapInUse):
        nlraw.cleanup(netns=pod.path)
    assert groups(pod) == {}


def test_where_the_mark_is_a_leftover_it_is_not_what_a_tap_gets_back(pod):
    mark(pod, *FOUR)
    watch = Watch()
    proofs = []

    def attach(requests):
        if is_mark(requests):
            proofs.append(requests)
        elif len(proofs) == 1:
            proofs.append(requests)
            pod.hold(FOUR[3])

    watch.before = attach
    with pytest.raises(nlraw.TapInUse):
        watch.clean_up(pod)
    assert len(proofs) > 1 and groups(pod) == {}


def test_a_leftover_is_not_restored_where_the_cleanup_gives_up(pod, monkeypatch):
    monkeypatch.setattr(removal, "ROUNDS", 1)
    mark(pod, *FOUR)
    watch = Watch()
    watch.before = once(Proof(), lambda: pod.ip("link", "set", FOUR[3], "group", "5"))
    with pytest.raises(nlraw.Error):
        watch.clean_up(pod)
    assert groups(pod) == {FOUR[3]: 5}


@pytest.mark.parametrize("group", ALMOST)
def test_groups_of_others_stay(pod, group):
    mark(pod, FOUR[0], FOUR[2], "eth0", group=group)
    pod.hold(FOUR[0])
    before = pod.state()
    with pytest.raises(nlraw.TapInUse):
        nlraw.cleanup(netns=pod.path)
    assert pod.state() == before


def test_marks_of_links_that_are_not_meant_stay(pod):
    mark(pod, FOUR[0], "eth0")
    pod.hold(FOUR[0])
    before = groups(pod)
    assert nlraw.cleanup(netns=pod.path, match="vm*").outcome == "clean"
    assert groups(pod) == before
    with pytest.raises(nlraw.TapInUse):
        nlraw.cleanup(netns=pod.path)
    assert groups(pod) == {"eth0": MARK}


def test_a_look_changes_nothing(pod):
    mark(pod, *FOUR)
    pod.hold(FOUR[0])
    before = pod.state()
    nlraw.scan(netns=pod.path)
    assert Watch().preview(pod).outcome == "in-use"
    with pytest.raises(nlraw.TapInUse):
        nlraw.cleanup(netns=pod.path, dry_run=True)
    assert pod.state() == before


def test_without_an_uplink_nothing_is_touched(pod):
    mark(pod, *FOUR)
    before = pod.state()
    assert nlraw.cleanup(netns=pod.path, uplink="eth9").outcome == "skipped"
    assert pod.state() == before


def test_while_another_cleanup_may_be_using_them_they_stay(pod):
    mark(pod, *FOUR)
    pod.hold(FOUR[0])
    before = pod.state()
    with Namespace(pod.path) as namespace, Connection(namespace, exclusive=True) as other:
        other.ask(link.find("eth0"))
        report = cleaning.clean_up(pod.path, Target(), patience=Patience(0))
        assert report.outcome == "in-use"
    assert pod.state() == before


@pytest.mark.parametrize("moment", range(1, 6))
def test_killed_while_it_takes_them_off_the_next_run_goes_on(pod, moment):
    mark(pod, *FOUR)
    pod.hold(FOUR[3])
    watch = Watch()
    watch.before = lambda requests: len(watch.sent) >= moment and raise_killed()
    try:
        watch.clean_up(pod)
    except (Killed, nlraw.TapInUse):
        pass
    with pytest.raises(nlraw.TapInUse):
        nlraw.cleanup(netns=pod.path)
    assert groups(pod) == {}


def raise_killed():
    raise Killed


def test_a_lost_answer_to_it_is_no_failure(pod):
    mark(pod, *FOUR)
    pod.hold(FOUR[3])
    watch = Watch()
    watch.before = lambda requests: requests[0].step == "set group of link" and watch.lose(True)
    with pytest.raises(nlraw.TapInUse):
        watch.clean_up(pod)
    assert groups(pod) == {} and watch.losing is None


def test_the_report_says_nothing_of_them(pod):
    mark(pod, *FOUR)
    pod.hold(FOUR[3])
    with pytest.raises(nlraw.TapInUse) as caught:
        nlraw.cleanup(netns=pod.path)
    report = caught.value.report
    assert report.tc_removed == () and not any(tap.deleted for tap in report.taps)
    assert pods.TAP in pod.links()

# SPDX-License-Identifier: Apache-2.0
"""Races: TAPs attached, deleted or renamed between two looks, rivals, and lost answers.

The moment is picked by wrapping the exchange with the kernel; what happens in it is real.
"""

import concurrent.futures
import contextlib
import os
import socket
import subprocess
import sys

import pytest

import nlraw
from lib import command, pods, taps
from lib.watch import Proof, Watch, asks, is_change, is_confirm, is_mark, once
from nlraw import link
from nlraw import pod as cleaning
from nlraw.connection import Connection
from nlraw.netns import Namespace
from nlraw.transport import WRITER_PORT, Patience
from nlraw.verdict import Target

# So many are deleted as a group.
MANY = 5


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def arrange(watch):
    """Have something happen once, right before the first datagram that fits."""

    def arrange(condition, event):
        watch.before = once(condition, event)

    return arrange


def add_taps(pod, number):
    for each in range(number):
        pod.add_tap("tap%d_urunc" % each)


def removed(report):
    return ["%s %s %s" % (gone.dev, gone.object, gone.kind) for gone in report.tc_removed]


# ---------------------------------------------------------------- between first and second look


@pytest.mark.parametrize(
    "number, look",
    [(1, is_confirm), (2, is_confirm), (MANY, is_confirm), (MANY, Proof())],
    ids=["one", "two", "many", "many that are marked"],
)
def test_one_tap_attached_before_the_second_look_saves_all(pod, watch, arrange, number, look):
    add_taps(pod, number)
    pod.ip("link", "set", "tap0_urunc", "group", "5")
    states = []

    def attach():
        pod.hold("tap%d_urunc" % (number - 1))
        states.append(pod.state())

    arrange(look, attach)
    with pytest.raises(nlraw.TapInUse) as caught:
        watch.clean_up(pod)
    report = caught.value.report
    assert sorted(tap.verdict for tap in report.taps) == ["in-use"] + ["orphan"] * (number - 1)
    assert report.tc_removed == ()
    assert [without_groups(pod.state())] == [without_groups(state) for state in states]
    assert {
        name: link["group"] for name, link in pod.links().items() if link["group"] != "default"
    } == {"tap0_urunc": "5"}


def without_groups(state):
    """A state in which it does not matter that some links were marked for a while."""
    return dict(state, links=[dict(link, group=None) for link in state["links"]])


def test_a_tap_deleted_before_the_second_look_is_nobodys_failure(pod, watch, arrange):
    before = pod.state()
    pod.add_orphan()
    arrange(is_confirm, lambda: pod.ip("link", "del", pods.TAP))
    report = watch.clean_up(pod)
    assert (report.outcome, report.taps) == ("cleaned", ())
    assert removed(report) == ["eth0 filter u32", "eth0 qdisc ingress"]
    assert pod.state() == before


def test_a_tap_renamed_before_the_second_look_is_spared(pod, watch, arrange):
    pod.add_orphan(up=False)
    arrange(is_confirm, lambda: pod.ip("link", "set", pods.TAP, "name", "other"))
    report = watch.clean_up(pod)
    assert (report.outcome, report.taps) == ("clean", ())
    assert "other" in pod.links() and len(pod.filters("eth0")) == 1


def test_a_tap_made_anew_before_the_second_look_is_judged_anew(pod, watch, arrange):
    pod.add_orphan()

    def replace():
        pod.ip("link", "del", pods.TAP)
        pod.add_tap(redirect=False)
        pod.hold()

    arrange(is_confirm, replace)
    with pytest.raises(nlraw.TapInUse):
        watch.clean_up(pod)
    assert pods.TAP in pod.links()


@contextlib.contextmanager
def attached(pod, name, mode=taps.IFF_TAP, ifindex=0):
    """A TAP or TUN device that somebody has made by holding it, of a certain index if given."""
    fd = pod.run(lambda: taps.attach(name, mode, ifindex))
    try:
        yield
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "name, mode",
    [(pods.TAP, taps.IFF_TAP), ("vm0", taps.IFF_TAP), (pods.TAP, taps.IFF_TUN)],
    ids=["a held TAP of its name", "a held TAP of another name", "a TUN-mode device of its name"],
)
def test_an_index_that_is_used_again_before_the_second_look_is_noticed(
    pod, watch, arrange, name, mode
):
    ifindex = pod.add_orphan(redirect=False)
    with contextlib.ExitStack() as stack:

        def replace():
            pod.ip("link", "del", pods.TAP)
            stack.enter_context(attached(pod, name, mode, ifindex))

        arrange(is_confirm, replace)
        if (name, mode) == (pods.TAP, taps.IFF_TAP):
            with pytest.raises(nlraw.TapInUse):
                watch.clean_up(pod)
        else:
            assert watch.clean_up(pod).outcome == "clean"
        assert pod.links()[name]["ifindex"] == ifindex


def test_an_index_that_a_device_of_another_kind_has_before_the_second_look_is_noticed(
    pod, watch, arrange
):
    ifindex = pod.add_orphan(redirect=False)

    def replace():
        pod.ip("link", "del", pods.TAP)
        pod.ip(*("link add %s index %d type veth peer name far" % (pods.TAP, ifindex)).split())

    arrange(is_confirm, replace)
    assert watch.clean_up(pod).outcome == "clean"
    assert pod.links()[pods.TAP]["linkinfo"]["info_kind"] == "veth"


def test_another_index_after_the_second_look_saves_a_tap_of_the_name(pod, watch, arrange):
    pod.add_orphan(redirect=False)
    with contextlib.ExitStack() as stack:

        def replace():
            pod.ip("link", "del", pods.TAP)
            stack.enter_context(attached(pod, pods.TAP))

        arrange(is_change, replace)
        watch.clean_up(pod)
        assert pods.TAP in pod.links()


def test_a_stranger_in_the_group_of_the_orphans_survives(pod, watch, arrange):
    before = pod.state()
    add_taps(pod, MANY)

    def join():
        links = pod.links()
        # `ip` prints it with a sign, and takes none that needs it
        group = int(links["tap0_urunc"]["group"]) & 0xFFFFFFFF
        with Namespace(pod.path) as namespace, Connection(namespace) as connection:
            request = link.set_group(links["peer0"]["ifindex"], "peer0", group)
            connection.change(request)[0].answer()

    arrange(Proof(), join)
    report = watch.clean_up(pod)
    assert [tap.deleted for tap in report.taps] == [True] * MANY
    assert pod.links()["peer0"]["group"] != "default"
    pod.ip("link", "set", "peer0", "group", "default")
    assert pod.state() == before


def test_one_of_many_taps_renamed_before_the_second_look_is_spared(pod, watch, arrange):
    for number in range(MANY):
        pod.add_tap("tap%d_urunc" % number, up=False)
    arrange(Proof(), lambda: pod.ip("link", "set", "tap1_urunc", "name", "other"))
    report = watch.clean_up(pod)
    assert sorted(tap.ifname for tap in report.taps) == [
        "tap%d_urunc" % number for number in (0, 2, 3, 4)
    ]
    assert pod.links()["other"]["group"] == "default" and len(pod.filters("eth0")) == 1


def test_many_taps_deleted_before_the_second_look_are_nobodys_failure(pod, watch, arrange):
    before = pod.state()
    add_taps(pod, MANY)
    arrange(
        Proof(),
        lambda: pod.batch(*["link del tap%d_urunc" % number for number in range(MANY)]),
    )
    assert watch.clean_up(pod).outcome == "cleaned"
    assert pod.state() == before


@pytest.mark.parametrize(
    "moment", [asks("list filters"), is_confirm], ids=["the filters are read", "the second look"]
)
def test_where_the_uplink_goes_before_the_second_look_nothing_is_touched(
    pod, watch, arrange, moment
):
    pod.add_orphan()
    arrange(moment, lambda: pod.ip("link", "del", "eth0"))
    assert watch.clean_up(pod).outcome == "skipped"
    assert pods.TAP in pod.links()


def test_where_the_default_route_moves_before_the_second_look_the_new_uplink_counts(
    pod, watch, arrange
):
    pod.add_orphan()
    pod.ip("link", "set", "peer0", "up")
    arrange(is_confirm, lambda: pod.ip("route", "replace", "default", "dev", "peer0"))
    report = watch.clean_up(pod, uplink="auto")
    assert (report.outcome, report.uplink) == ("cleaned", "peer0")
    assert removed(report) == ["eth0 filter u32", "eth0 qdisc ingress", "tap0_urunc qdisc ingress"]


def test_an_ingress_qdisc_that_goes_before_its_filters_are_read_is_no_failure(pod, watch, arrange):
    before = pod.state()
    pod.add_orphan()
    arrange(asks("list filters"), lambda: pod.tc("qdisc", "del", "dev", "eth0", "ingress"))
    assert watch.clean_up(pod).outcome == "cleaned"
    assert pod.state() == before


def test_a_namespace_that_never_holds_still_is_given_up(pod, watch):
    pod.add_orphan(up=False)
    names = ["tap%d_urunc" % number for number in range(1, 100)]

    def rename(requests):
        if is_confirm(requests):
            pod.ip("link", "set", requests[-1].object, "name", names.pop())

    watch.before = rename
    with pytest.raises(nlraw.Error) as caught:
        watch.clean_up(pod)
    assert caught.value.message == "the namespace changed each time it was looked at; try again"
    assert caught.value.report.outcome == "failed"
    assert len(pod.filters("eth0")) == 1


# ---------------------------------------------------------------- between second look and datagram


def test_a_tap_deleted_before_the_datagram_is_success(pod, watch, arrange):
    before = pod.state()
    pod.add_orphan()
    arrange(is_change, lambda: pod.ip("link", "del", pods.TAP))
    report = watch.clean_up(pod)
    assert report.outcome == "cleaned"
    assert [tap.deleted for tap in report.taps] == [True]
    assert pod.state() == before


@pytest.mark.parametrize("dev", ["eth0", pods.TAP])
def test_a_qdisc_deleted_before_the_datagram_is_success(pod, watch, arrange, dev):
    before = pod.state()
    pod.add_orphan()
    arrange(is_change, lambda: pod.tc("qdisc", "del", "dev", dev, "ingress"))
    report = watch.clean_up(pod)
    assert report.outcome == "cleaned"
    assert [tap.deleted for tap in report.taps] == [True]
    assert sorted(removed(report)) == [
        "eth0 filter u32",
        "eth0 qdisc ingress",
        "tap0_urunc qdisc ingress",
    ]
    assert pod.state() == before


def test_a_filter_deleted_before_the_datagram_is_success(pod, watch, arrange):
    before = pod.state()
    pod.add_orphan()
    arrange(is_change, lambda: pod.tc("filter", "del", "dev", "eth0", "ingress"))
    assert watch.clean_up(pod).outcome == "cleaned"
    assert pod.state() == before


def test_an_uplink_deleted_before_the_datagram_is_no_failure(pod, watch, arrange):
    pod.add_orphan()
    arrange(is_change, lambda: pod.ip("link", "del", "eth0"))
    report = watch.clean_up(pod)
    assert report.outcome == "cleaned"
    assert [tap.deleted for tap in report.taps] == [True]
    assert pods.TAP not in pod.links()


# ---------------------------------------------------------------- lost answers


@pytest.mark.parametrize("done", [True, False], ids=["carried out", "not carried out"])
@pytest.mark.parametrize(
    "which, number",
    [(is_change, 1), (is_change, MANY), (is_mark, MANY)],
    ids=["deletions of one", "deletions of many", "marks"],
)
def test_a_lost_answer_is_made_good_by_another_look(pod, watch, which, number, done):
    before = pod.state()
    add_taps(pod, number)
    watch.before = once(which, lambda: watch.lose(done))
    report = watch.clean_up(pod)
    assert watch.losing is None
    assert report.outcome == "cleaned"
    assert sorted((tap.ifname, tap.deleted) for tap in report.taps) == [
        ("tap%d_urunc" % each, True) for each in range(number)
    ]
    assert sorted(removed(report)) == sorted(
        ["eth0 filter u32"] * number
        + ["eth0 qdisc ingress"]
        + ["tap%d_urunc qdisc ingress" % each for each in range(number)]
    )
    assert pod.state() == before


def test_an_answer_that_is_lost_every_time_is_an_error(pod, watch):
    pod.add_orphan()
    before = pod.state()
    watch.before = lambda requests: is_change(requests) and watch.lose(False)
    with pytest.raises(nlraw.Error) as caught:
        watch.clean_up(pod)
    assert caught.value.report.outcome == "failed"
    assert [tap.deleted for tap in caught.value.report.taps] == [False]
    assert pod.state() == before


# ---------------------------------------------------------------- killed

KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from nlraw.connection import Connection
from nlraw.netns import Namespace
from nlraw.pod import remove
from nlraw.verdict import Target
left = int(sys.argv[2])

class Killed(Connection):
    def change(self, *requests):
        global left
        if not requests[0].step.startswith(("delete", "set")):
            return super().change(*requests)
        replies = super().change(*requests[:left]) if left else []
        left -= len(replies)
        if len(replies) < len(requests):
            os.kill(os.getpid(), signal.SIGKILL)
        return replies

remove(Killed(Namespace(), exclusive=True), Target())
print("ready", flush=True)
"""


@pytest.mark.parametrize(
    "number, steps", [(1, range(4)), (MANY, (0, 3, 5, 7, 10, 13, 16))], ids=["one", "many"]
)
def test_a_cleanup_killed_after_any_step_is_finished_by_the_next(pod, number, steps):
    before = pod.state()
    for step in steps:
        add_taps(pod, number)
        with pytest.raises(RuntimeError):
            pod.child(KILLED, command.ROOT, str(step))
        nlraw.cleanup(netns=pod.path)
        assert pod.state() == before


# ---------------------------------------------------------------- rivals

CLEANUP = """
import sys, nlraw
print("ready", flush=True)
sys.stdin.readline()
print(nlraw.cleanup(netns=sys.argv[1]).outcome)
"""


@pytest.mark.parametrize("number", [1, MANY])
@pytest.mark.parametrize("rivals", [2, 8])
def test_cleanups_at_once_in_threads_all_succeed(pod, rivals, number):
    before = pod.state()
    with concurrent.futures.ThreadPoolExecutor(rivals) as pool:
        for _ in range(3):
            add_taps(pod, number)
            reports = list(pool.map(lambda _: nlraw.cleanup(netns=pod.path), range(rivals)))
            assert {report.outcome for report in reports} <= {"cleaned", "clean"}
            assert pod.state() == before


@pytest.mark.parametrize("number", [1, MANY])
@pytest.mark.parametrize("rivals", [2, 8])
def test_cleanups_at_once_in_processes_all_succeed(pod, rivals, number):
    before = pod.state()
    add_taps(pod, number)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLEANUP, pod.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
            env=command.environment(),
        )
        for _ in range(rivals)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = [process.communicate()[0].strip() for process in processes]
    assert set(outcomes) <= {"cleaned", "clean"}, outcomes
    assert pod.state() == before


def test_a_stranger_on_the_port_that_cleanups_take_turns_by_delays_and_does_not_stop_them(pod):
    pod.add_orphan()
    with pod.run(
        lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    ) as stranger:
        stranger.bind((WRITER_PORT, 0))
        assert nlraw.scan(netns=pod.path)[0].verdict == "orphan"
        report = cleaning.clean_up(pod.path, Target(), patience=Patience(0.2))
        assert report.outcome == "cleaned"


# ---------------------------------------------------------------- a crowd that comes and goes


@pytest.fixture
def crowded(pod, tmp_path):
    """A pod where 400 links come and go all the time, some by the names of TAPs."""
    stop, batch = tmp_path / "stop", tmp_path / "batch"
    pairs = [("tap%d_urunc" % (100 + number), "far%d" % number) for number in range(190)]
    lines = ["link add %s group 77 type veth peer name %s" % pair for pair in pairs]
    lines += ["tuntap add dev other%d mode tap" % number for number in range(20)]
    lines += ["link set other%d group 77" % number for number in range(20)]
    batch.write_text("\n".join(lines) + "\n")
    loop = "while [ ! -e %s ]; do ip -n %s -batch %s && ip -n %s link del group 77; done" % (
        stop,
        pod.name,
        batch,
        pod.name,
    )
    crowd = subprocess.Popen(["sh", "-c", loop])
    yield pod
    stop.write_text("")
    assert crowd.wait() == 0, "the links could not be made"


def test_200_scans_in_a_crowd_are_right(crowded):
    crowded.add_orphan("tap0_urunc")
    crowded.add_tap("tap1_urunc")
    crowded.hold("tap1_urunc")
    expected = [("tap0_urunc", "orphan"), ("tap1_urunc", "in-use")]
    for _ in range(200):
        assert [(tap.ifname, tap.verdict) for tap in nlraw.scan(netns=crowded.path)] == expected


def test_cleanups_in_a_crowd_are_right(crowded):
    for _ in range(10):
        crowded.add_orphan()
        report = nlraw.cleanup(netns=crowded.path)
        assert [(tap.ifname, tap.deleted) for tap in report.taps] == [(pods.TAP, True)]
        assert crowded.qdiscs() == []


def test_a_full_list_in_a_crowd_is_never_torn(crowded):
    for _ in range(20):
        with Namespace(crowded.path) as namespace, Connection(namespace) as connection:
            (reply,) = connection.ask(link.dump())
            names = [found.ifname for found in link.links(reply.answer())]
        assert {"lo", "eth0", "peer0"} <= set(names) and len(names) == len(set(names))

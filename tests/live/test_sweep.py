# SPDX-License-Identifier: Apache-2.0
"""Sweeps of a made-up node, directories with namespaces, by library and command line."""

import contextlib
import errno
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

import pytest

import nlraw
import nlraw.exchange
import nlraw.netns
from lib import command, nodes, pods
from nlraw import node as sweeping
from nlraw import provision, threads, transport
from nlraw.connection import Connection
from nlraw.transport import Patience
from nlraw.verdict import Target
from nlraw.visit import Visit
from nlraw.wanted import Wanted


def sweep(node, **options):
    return nlraw.sweep(dirs=[node.directory], **options)


def sweep_with(node, connect=Connection, start=threads.start, jobs=sweeping.JOBS):
    """Sweep with a kind of connections, or of threads, of the test's own."""
    paths = [node.path(name) for name in sorted(os.listdir(node.directory))]
    return sweeping.sweep_paths(paths, Target(spare_fresh=True), jobs, connect=connect, start=start)


def meddling(meddle):
    """A kind of connections that hand each datagram to ``meddle(connection, send, requests)``."""

    class Meddling(Connection):
        def change(self, *requests):
            return meddle(self, super().change, requests)

    return Meddling


def is_delete(requests):
    """True for the datagram that deletes the links of a namespace."""
    return any(request.step in ("delete link", "delete links") for request in requests)


@pytest.fixture
def before_the_removal(monkeypatch):
    """The ``progress`` of a sweep that lets something happen between the looks and all else."""
    monkeypatch.setattr(sweeping, "PLAN_AGE", 60)

    def arrange(event):
        def progress(doing, done, total):
            if doing == "looked at" and done == total:
                event()

        return progress

    return arrange


def outcomes(swept):
    return {os.path.basename(report.netns): report.outcome for report in swept.namespaces}


def totals(**counted):
    """`Totals` that are 0 but for these."""
    return nlraw.Totals(**dict(dict.fromkeys(nlraw.Totals.__slots__, 0), **counted))


def taps(path):
    return [each.ifname for each in nlraw.scan(netns=path)]


# ---------------------------------------------------------------- what is removed


def test_every_namespace_with_orphans_is_cleaned_up(node):
    paths = node.add_many(5)
    node.add("empty", orphans=0)
    swept = sweep(node)
    assert outcomes(swept) == dict(
        {"pod%d" % number: "cleaned" for number in range(5)}, empty="clean"
    )
    assert swept.totals == totals(namespaces=6, orphans=5, deleted=5)
    assert [taps(path) for path in paths] == [[]] * 5


def test_whole_pods_are_left_as_if_no_orphan_had_been_in_them(node, make_pod):
    before = []
    for number in range(3):
        pod = make_pod()
        before.append((pod, pod.state()))
        for each in range(2 * number + 1):
            pod.add_orphan("tap%d_urunc" % each)
        os.symlink(pod.path, node.path("pod%d" % number))
    swept = sweep(node)
    assert swept.totals == totals(namespaces=3, orphans=9, deleted=9)
    assert len(swept.namespaces[0].tc_removed) == 3
    for pod, state in before:
        assert pod.state() == state


def test_the_second_sweep_finds_nothing(node):
    node.add_many(3, orphans=2)
    sweep(node)
    assert sweep(node).totals == totals(namespaces=3)


def test_a_dry_run_tells_what_would_go_and_changes_nothing(node):
    path = node.add("pod", orphans=2)
    swept = sweep(node, dry_run=True)
    assert outcomes(swept) == {"pod": "would-clean"}
    assert swept.totals == totals(namespaces=1, orphans=2)
    assert len(taps(path)) == 2


def test_a_namespace_without_the_uplink_is_skipped(node):
    path = node.add("pod", uplink="eth1")
    swept = sweep(node)
    assert outcomes(swept) == {"pod": "skipped"}
    assert swept.totals == totals(namespaces=1, orphans=1, skipped=1)
    assert len(taps(path)) == 1
    assert sweep(node, uplink="eth1").totals.deleted == 1


def test_only_what_matches_is_removed(node):
    path = node.add("pod", orphans=3)
    assert sweep(node, match="tap1*").totals == totals(namespaces=1, orphans=1, deleted=1)
    assert taps(path) == ["tap0_urunc", "tap2_urunc"]


def test_a_dead_redirect_alone_is_removed(node, pod):
    pod.add_orphan()
    pod.ip("link", "del", pods.TAP)
    os.symlink(pod.path, node.path("pod"))
    assert outcomes(sweep(node)) == {"pod": "cleaned"}
    assert pod.filters("eth0") == []


def test_a_namespace_with_a_tap_in_use_is_left_alone_and_no_error(node, pod):
    pod.add_orphan("tap0_urunc")
    pod.add_tap("tap1_urunc")
    pod.hold("tap1_urunc")
    before = pod.state()
    os.symlink(pod.path, node.path("busy"))
    node.add("idle")
    swept = sweep(node)
    assert outcomes(swept) == {"busy": "in-use", "idle": "cleaned"}
    assert swept.totals == totals(namespaces=2, orphans=2, deleted=1, in_use=1)
    assert [report.error for report in swept.namespaces] == [None, None]
    assert pod.state() == before


def test_a_tap_attached_after_the_look_is_in_use_and_no_error(node, pod, before_the_removal):
    pod.add_orphan()
    os.symlink(pod.path, node.path("pod"))
    swept = sweep(node, progress=before_the_removal(pod.hold))
    assert outcomes(swept) == {"pod": "in-use"}
    assert swept.totals == totals(namespaces=1, in_use=1)
    assert swept.namespaces[0].error is None
    assert pods.TAP in pod.links()


def test_another_tap_that_comes_into_use_after_the_look_stops_the_removing(
    node, pod, before_the_removal
):
    pod.add_orphan()
    os.symlink(pod.path, node.path("pod"))
    swept = sweep(node, progress=before_the_removal(lambda: pod.hold("tap1_urunc")))
    assert outcomes(swept) == {"pod": "in-use"}
    assert swept.totals == totals(namespaces=1, orphans=1, in_use=1)
    assert {pods.TAP, "tap1_urunc"} <= set(pod.links()) and pod.filters("eth0") != []


@pytest.fixture
def sweep_while(node, before_the_removal):
    """Sweep, and let something happen between the look and the removing; return the one report."""

    def run(change, **options):
        (report,) = sweep(node, progress=before_the_removal(change), **options).namespaces
        assert report.error is None
        return report

    return run


def match(address, place="pref 7 protocol ip"):
    return (
        "filter add dev eth0 ingress %s u32 match ip dst %s flowid 1:7" % (place, address)
    ).split()


PLACES = {
    "pref 7 protocol ip": "",
    "pref 49152 protocol all": "our priority",
    "pref 49152 protocol ip chain 3": "another chain",
}


@pytest.mark.parametrize("orphans", [1, 4])
@pytest.mark.parametrize("place", PLACES, ids=PLACES.get)
def test_a_filter_that_somebody_adds_after_the_look_stays(node, pod, sweep_while, orphans, place):
    for number in range(orphans):
        pod.add_orphan("tap%d_urunc" % number)
    os.symlink(pod.path, node.path("pod"))
    report = sweep_while(lambda: pod.tc(*match("10.9.9.9", place)))
    assert (report.outcome, [each.deleted for each in report.taps]) == ("cleaned", [True] * orphans)
    left = [each["options"] for each in pod.filters("eth0") if "key_ht" in each.get("options", {})]
    assert left and not any("actions" in each for each in left)
    assert [qdisc["kind"] for qdisc in pod.qdiscs("eth0")].count("ingress") == 1


def test_a_filter_that_takes_the_place_of_ours_after_the_look_stays(node, pod, sweep_while):
    pod.add_orphan()
    os.symlink(pod.path, node.path("pod"))
    left = []

    def replace():
        pod.tc("filter", "del", "dev", "eth0", "ingress")
        pod.tc(*match("10.9.9.9", "pref 49152 protocol all"))
        left.extend(pod.filters("eth0"))

    report = sweep_while(replace)
    assert report.outcome == "cleaned" and pods.TAP not in pod.links()
    assert left == pod.filters("eth0") != []


@pytest.mark.parametrize("name", ["foreign0", "eth0"])
def test_an_uplink_that_is_replaced_after_the_look_is_looked_at_anew(node, pod, sweep_while, name):
    pod.add_orphan()
    os.symlink(pod.path, node.path("pod"))
    ifindex, left = pod.links()["eth0"]["ifindex"], []

    def replace():
        pod.ip("link", "del", "eth0")
        pod.ip(
            "link", "add", name, "index", str(ifindex), "type", "veth", "peer", "name", "foreign1"
        )
        pod.tc("qdisc", "add", "dev", name, "ingress")
        pod.tc(
            *[
                name if word == "eth0" else word
                for word in match("10.9.9.9", "pref 49152 protocol all")
            ]
        )
        left.extend(pod.filters(name))

    report = sweep_while(replace)
    assert (report.outcome, pods.TAP in pod.links()) == (
        ("cleaned", False) if name == "eth0" else ("skipped", True)
    )
    assert left == pod.filters(name) != []


def test_an_uplink_that_is_renamed_after_the_look_is_none(node, pod, sweep_while):
    pod.add_orphan()
    os.symlink(pod.path, node.path("pod"))
    report = sweep_while(
        lambda: pod.batch("link set eth0 down", "link set eth0 name eth9", "link set eth9 up")
    )
    assert (report.outcome, pods.TAP in pod.links()) == ("skipped", True)


@pytest.mark.parametrize("by_us", [False, True], ids=["a runtime", "setup"])
def test_a_start_after_the_look_keeps_its_redirect(node, pod, sweep_while, by_us):
    pod.add_orphan()
    # a dead redirect is left, with the priority and handle that the next gets
    pod.ip("link", "del", pods.TAP)
    os.symlink(pod.path, node.path("pod"))

    def start():
        if by_us:  # it waits for the sweep, but not for ever
            provision.set_up(pod.path, Wanted(Target()), Patience(0.1)).checked()
        else:
            pod.tc("qdisc", "del", "dev", "eth0", "ingress")
            pod.add_tap()

    report = sweep_while(start, include_fresh=False)
    assert (report.outcome, report.tc_removed, [each.deleted for each in report.taps]) == (
        "clean",
        (),
        [False],
    )
    assert pod.redirects("eth0", pods.TAP) == 1


def test_what_is_planned_is_carried_out_without_another_look_where_nothing_was_changed(node):
    node.add("pod")
    time.sleep(1.5)  # until the kernel has announced all that was done to make it
    looks = []

    class Counting(Connection):
        def begin_look(self):
            looks.append(self)
            super().begin_look()

    assert sweep_with(node, Counting).totals.deleted == 1
    assert len(looks) == 1


# ---------------------------------------------------------------- fresh ones


def test_a_fresh_orphan_is_spared_and_alone_it_leaves_the_namespace_clean(node):
    path = node.add("pod", fresh=True)
    swept = sweep(node)
    assert outcomes(swept) == {"pod": "clean"}
    assert [(each.fresh, each.deleted) for each in swept.namespaces[0].taps] == [(True, False)]
    assert swept.totals == totals(namespaces=1, orphans=1, spared=1)
    assert len(taps(path)) == 1


def test_one_that_was_attached_to_once_goes_beside_a_fresh_one(node):
    path = node.add("pod", orphans=1)
    with nlraw.netns.Namespace(path) as namespace:
        nodes.add_orphans(namespace, ["tap1_urunc"], fresh=True)
    swept = sweep(node)
    assert outcomes(swept) == {"pod": "cleaned"}
    assert swept.totals == totals(namespaces=1, orphans=2, deleted=1, spared=1)
    assert taps(path) == ["tap1_urunc"]


def test_fresh_ones_go_too_where_that_is_asked_for(node):
    path = node.add("pod", orphans=4, fresh=True)
    assert sweep(node, include_fresh=True).totals == totals(namespaces=1, orphans=4, deleted=4)
    assert taps(path) == []


@pytest.mark.parametrize("fresh, marked", [(True, 0), (False, 4)], ids=["fresh", "used once"])
def test_many_fresh_orphans_are_never_marked(node, fresh, marked):
    node.add("pod", orphans=4, fresh=fresh)
    marks = []

    def note(connection, send, requests):
        marks.extend(request for request in requests if request.step == "set group of link")
        return send(*requests)

    assert sweep_with(node, meddling(note)).totals.spared == 4 - marked
    assert len(marks) == marked


# ---------------------------------------------------------------- what is visited


def test_a_namespace_of_several_names_is_visited_once(node, tmp_path):
    path = node.add("pod")
    node.pin("bound", path)
    os.symlink(path, node.path("linked"))
    other = tmp_path / "other"
    other.mkdir()
    os.symlink(path, str(other / "elsewhere"))
    swept = nlraw.sweep(dirs=[str(other), node.directory, node.directory])
    assert swept.totals == totals(namespaces=1, orphans=1, deleted=1)
    assert [report.netns for report in swept.namespaces] == [str(other / "elsewhere")]


def test_entries_that_are_no_network_namespaces_are_ignored(node):
    node.add("pod")
    open(node.path("file"), "w").close()
    os.mkfifo(node.path("fifo"))
    os.mkdir(node.path("directory"))
    os.symlink("/nonexistent", node.path("dangling"))
    os.symlink("/dev/null", node.path("device"))
    os.symlink("/proc/self/ns/mnt", node.path("mount-namespace"))
    os.symlink("/proc/self/ns/uts", node.path("uts-namespace"))
    assert outcomes(sweep(node)) == {"pod": "cleaned"}


@pytest.mark.parametrize("target", ["loop", "file/below"])
def test_a_link_that_leads_nowhere_is_ignored(node, target):
    open(node.path("file"), "w").close()
    os.symlink(node.path(target), node.path("loop"))
    assert sweep(node).totals == totals()


def test_an_empty_directory_is_no_error(node):
    swept = sweep(node)
    assert (swept.namespaces, swept.totals) == ((), totals())


def test_the_default_directories_need_not_be_there(node, monkeypatch):
    node.add("pod")
    monkeypatch.setattr(nlraw.netns, "DIRECTORIES", ("/nonexistent/netns", node.directory))
    assert nlraw.sweep().totals.deleted == 1


def test_directories_may_be_path_objects(node, tmp_path):
    node.add("pod")
    assert nlraw.sweep(dirs=[tmp_path / "netns"]).totals.deleted == 1


def test_one_path_is_not_taken_for_a_list_of_directories(node):
    with pytest.raises(nlraw.Invalid):
        nlraw.sweep(dirs=node.directory)


def test_the_callers_namespace_stays_the_same(node):
    node.add_many(3)
    before = identity("/proc/thread-self/ns/net")
    sweep(node, jobs=2)
    assert identity("/proc/thread-self/ns/net") == before


ALONE = """
import ctypes, sys
assert ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def unnamed(make_pod):
    """The PID of a process in a nameless namespace, and the name of its orphan, unique here."""
    process = subprocess.Popen(
        [sys.executable, "-c", ALONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    name = "tap" + uuid.uuid4().hex[:8]
    with nlraw.netns.Namespace(process.pid) as namespace:
        nodes.furnish(namespace, [name])
    yield process.pid, name
    process.communicate()


def look_at_processes(name, **options):
    """Sweep all namespaces of this machine without any effect: dry, one name, no TC state."""
    return nlraw.sweep(proc=True, match=name, uplink="none", dry_run=True, **options)


def identity(path):
    """Which namespace a path leads to; None if it has gone."""
    try:
        found = os.stat(path)
        return found.st_dev, found.st_ino
    except OSError:
        return None


def test_the_namespace_of_a_process_is_found_without_a_name(unnamed):
    pid, name = unnamed
    swept = look_at_processes(name)
    assert swept.totals.orphans == 1
    (report,) = [report for report in swept.namespaces if report.taps]
    assert report.outcome == "would-clean"
    assert identity(report.netns) == identity("/proc/%d/ns/net" % pid)


def test_each_namespace_of_all_processes_is_visited_once(unnamed):
    swept = look_at_processes(unnamed[1])
    found = list(filter(None, [identity(report.netns) for report in swept.namespaces]))
    assert identity("/proc/%d/ns/net" % unnamed[0]) in found
    assert len(found) == len(set(found))


def test_processes_are_looked_at_beside_directories_if_both_are_given(node, unnamed):
    _, name = unnamed
    with nlraw.netns.Namespace(node.add("pod", orphans=0)) as namespace:
        nodes.add_orphans(namespace, [name])
    assert look_at_processes(name, dirs=[node.directory]).totals.orphans == 2


# ---------------------------------------------------------------- the node's own namespaces


@pytest.fixture
def make_inhabited(make_pod, node):
    """Make pods with an orphan that are on the node under a name; a pod and its state then."""

    def make(name):
        pod = make_pod()
        pod.add_orphan()
        os.symlink(pod.path, node.path(name))
        return pod, pod.state()

    return make


def inside(pod, *arguments):
    """Sweep from a network namespace; the command's document."""
    argv = ["ip", "netns", "exec", pod.name]
    done = command.nlraw("sweep", "-j", *arguments, before=argv)
    assert (done.status, done.err) == (0, "")
    return done.document


# Runs the command line in the network namespace $1, and process 1 is a shell in the one where it
# is started.
UNDER_ANOTHER_INIT = 'where=$1; shift; nsenter --net="$where" "$@"; exit $?'


def under_init(pod, where, *arguments):
    """Sweep from a network namespace, where process 1 is in that of a pod."""
    argv = ["ip", "netns", "exec", pod.name, "unshare", "--pid", "--fork", "--mount-proc"]
    argv += ["sh", "-c", UNDER_ANOTHER_INIT, "sh", where.path]
    done = command.nlraw("sweep", "-j", *arguments, before=argv)
    assert (done.status, done.err) == (0, "")
    return done.document


@pytest.mark.parametrize("by", ["a link", "a mount"])
def test_the_callers_namespace_is_never_visited(node, make_inhabited, by):
    own, before = make_inhabited("default")
    other, _ = make_inhabited("other")
    if by == "a mount":
        os.unlink(node.path("default"))
        node.pin("default", own.path)
    document = inside(own, "--dir", node.directory, "--include-fresh")
    assert [report["netns"] for report in document["namespaces"]] == [node.path("other")]
    assert document["totals"]["deleted"] == 1
    assert own.state() == before and pods.TAP not in other.links()


def test_the_callers_namespace_is_that_of_its_thread(node, make_inhabited):
    own, before = make_inhabited("default")
    make_inhabited("other")
    assert outcomes(own.run(lambda: sweep(node))) == {"other": "cleaned"}
    assert own.state() == before


def test_the_namespace_of_process_1_is_never_visited(node, make_inhabited):
    first, caller, other = [make_inhabited(name) for name in ("first", "caller", "other")]
    document = under_init(first[0], caller[0], "--dir", node.directory)
    assert [report["netns"] for report in document["namespaces"]] == [node.path("other")]
    assert first[0].state() == first[1] and caller[0].state() == caller[1]
    assert pods.TAP not in other[0].links()


@pytest.mark.parametrize("included", [False, True], ids=["left out", "included"])
def test_neither_is_visited_among_those_of_all_processes(make_inhabited, included):
    first, caller = [make_inhabited(name) for name in ("first", "caller")]
    option = ["--include-node"] if included else []
    document = under_init(first[0], caller[0], "--proc", *option)
    assert document["totals"]["namespaces"] == document["totals"]["deleted"] == included
    assert first[0].state() == first[1]
    assert (pods.TAP in caller[0].links()) == (not included)


def test_the_callers_namespace_is_visited_once_if_it_is_included(node, make_inhabited):
    own, _ = make_inhabited("default")
    other, _ = make_inhabited("other")
    document = inside(own, "--dir", node.directory, "--include-node")
    assert document["totals"]["namespaces"] == document["totals"]["deleted"] == 2
    assert pods.TAP not in own.links() and pods.TAP not in other.links()


def test_the_included_namespace_is_that_of_the_thread(node, make_inhabited):
    own, _ = make_inhabited("default")
    other, before = make_inhabited("other")
    os.unlink(node.path("other"))
    assert own.run(lambda: sweep(node, include_node=True)).totals.deleted == 1
    assert pods.TAP not in own.links() and other.state() == before


def test_the_callers_namespace_is_included_though_process_1_is_in_it_too(make_inhabited, tmp_path):
    own, _ = make_inhabited("default")
    document = under_init(own, own, "--dir", str(tmp_path), "--include-node")
    assert document["totals"]["namespaces"] == document["totals"]["deleted"] == 1
    assert pods.TAP not in own.links()


# ---------------------------------------------------------------- what fails, what vanishes


def failing_in(path, error):
    """A kind of connections with which the removing fails in the namespace of this path."""

    def fail(connection, send, requests):
        if connection.path == path and is_delete(requests):
            raise error
        return send(*requests)

    return meddling(fail)


def test_one_namespace_that_fails_is_reported_and_the_others_go_on(node):
    paths = node.add_many(5)
    error = nlraw.Refused(errno.EBUSY, "", "delete link", "tap0_urunc")
    swept = sweep_with(node, failing_in(paths[2], error), jobs=2)
    assert swept.totals == totals(namespaces=5, orphans=5, deleted=4, failed=1)
    (failed,) = [report for report in swept.namespaces if report.error is not None]
    assert (failed.netns, failed.outcome, failed.error.errno) == (paths[2], "failed", errno.EBUSY)
    assert [len(taps(path)) for path in paths] == [0, 0, 1, 0, 0]


def test_a_refusal_of_the_kernel_keeps_what_was_seen_in_the_report(node):
    path = node.add("pod")

    def refuse(connection, send, requests):
        allowed = [each for each in requests if each.step != "delete link"]
        replies = send(*allowed) if allowed else []
        for each in requests[len(replies) :]:
            replies.append(nlraw.exchange.Reply(each))
            replies[-1].error = nlraw.Refused(errno.EPERM, "not today", each.step, each.object)
        return replies

    (report,) = sweep_with(node, meddling(refuse)).namespaces
    assert (report.outcome, report.error.errno, report.error.step) == (
        "failed",
        errno.EPERM,
        "delete link",
    )
    assert [(each.ifname, each.deleted) for each in report.taps] == [("tap0_urunc", False)]
    assert len(taps(path)) == 1


def test_a_namespace_that_may_not_be_entered_is_reported_and_the_others_go_on(node):
    foreign = node.add("foreign")
    argv = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m", "nlraw"]
    options = ["-j", "--uplink", "none", "--dir", node.directory, "--include-node"]
    done = command.nlraw("sweep", *options, argv=argv)
    if done.err.startswith("unshare"):
        pytest.skip("no user namespace can be made here: " + done.err)
    assert done.status == 1
    first, own = json.loads(done.out)["namespaces"]
    assert (first["netns"], first["outcome"], own["outcome"]) == (foreign, "failed", "clean")
    assert (first["error"]["step"], first["error"]["errno"]) == (
        "enter namespace",
        "EPERM",
    )
    assert done.err.count("\n") == 1 and node.path("foreign") in done.err


def before_the_looks(event):
    """The ``progress`` of a sweep that lets something happen once the namespaces are found."""

    def progress(doing, done, total):
        if (doing, done) == ("looked at", 0):
            event()

    return progress


def test_a_namespace_that_vanishes_before_the_look_is_no_error(node):
    node.add("left")
    gone = node.add("gone")
    progress = before_the_looks(lambda: (node.unpin(gone), os.unlink(gone)))
    assert outcomes(sweep(node, progress=progress)) == {"left": "cleaned"}


def test_a_namespace_of_which_the_file_is_left_vanishes_without_an_error(node):
    node.add("left")
    gone = node.add("gone")
    progress = before_the_looks(lambda: node.unpin(gone))
    assert outcomes(sweep(node, progress=progress)) == {"left": "cleaned"}


def test_a_namespace_that_loses_its_name_between_the_look_and_the_removing_is_cleaned_up(
    node, before_the_removal
):
    node.add("left")
    gone = node.add("gone")
    swept = sweep(node, progress=before_the_removal(lambda: (node.unpin(gone), os.unlink(gone))))
    assert outcomes(swept) == {"left": "cleaned", "gone": "cleaned"}
    assert swept.totals == totals(namespaces=2, orphans=2, deleted=2)


def test_a_socket_that_is_opened_anew_for_the_removing_is_opened_in_its_own_namespace(node):
    node.add_many(4)
    closed = []

    def close(connection, send, requests):
        if is_delete(requests):
            closed.append(connection)
            connection.close()
        return send(*requests)

    assert sweep_with(node, meddling(close)).totals == totals(namespaces=4, orphans=4, deleted=4)
    assert len(closed) == 4


def test_sockets_that_were_closed_since_the_look_are_replaced(node, before_the_removal):
    paths = node.add_many(4)
    looked = []

    class Remembered(Connection):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            looked.append(self)

    progress = before_the_removal(lambda: [connection.close() for connection in looked])
    swept = sweeping.sweep_paths(paths, Target(), progress=progress, connect=Remembered)
    assert swept.totals == totals(namespaces=4, orphans=4, deleted=4)
    assert [taps(path) for path in paths] == [[]] * 4


def test_a_namespace_in_which_another_cleans_up_keeps_none_of_the_others_waiting(node, monkeypatch):
    paths = node.add_many(3)
    rival = sit_on_the_port(paths[0])
    finished = []

    class Watched(Visit):
        def clean_up(self):
            super().clean_up()
            finished.append(self.path)
            if len(finished) == 2:  # the others are done
                rival.close()

    monkeypatch.setattr(sweeping, "Visit", Watched)
    monkeypatch.setattr(sweeping, "PATIENCE", 30)
    begin = time.monotonic()
    assert sweep(node).totals == totals(namespaces=3, orphans=3, deleted=3)
    assert finished[-1] == paths[0] and time.monotonic() - begin < sweeping.PATIENCE


@pytest.mark.parametrize("jobs, held", [(1, 3), (2, 1), (64, 4)])
def test_namespaces_in_which_others_hold_the_port_for_ever_come_last_and_soon(
    node, monkeypatch, jobs, held
):
    paths = node.add_many(8)
    rivals = [sit_on_the_port(path) for path in paths[:held]]
    finished = []

    class Watched(Visit):
        def clean_up(self):
            super().clean_up()
            finished.append(self.path)

    monkeypatch.setattr(sweeping, "Visit", Watched)
    before, begin = len(os.listdir("/proc/self/fd")), time.monotonic()
    assert sweep(node, jobs=jobs).totals == totals(namespaces=8, orphans=8, deleted=8)
    assert time.monotonic() - begin < sweeping.PATIENCE + 1
    assert len(os.listdir("/proc/self/fd")) == before
    if held < jobs:  # else room has to be made
        assert set(finished[-held:]) == set(paths[:held])
    for rival in rivals:
        rival.close()


def sit_on_the_port(path):
    """Hold the port by which the writers in a namespace take turns; close what is returned."""
    with nlraw.netns.Namespace(path) as namespace:
        rival = namespace.run(
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        )
    rival.bind((transport.WRITER_PORT, 0))
    return rival


def test_namespaces_that_vanish_all_the_while_are_no_errors(node):
    paths = node.add_many(150)
    remover = threading.Thread(target=lambda: [node.unpin(path) for path in paths[::-3]])
    remover.start()
    swept = sweep(node, jobs=4)
    remover.join()
    assert swept.totals.failed == 0
    assert 100 <= swept.totals.namespaces <= 150
    assert {report.outcome for report in swept.namespaces} == {"cleaned"}


def test_a_process_that_ends_meanwhile_is_no_error(unnamed, monkeypatch):
    real = os.listdir

    def listdir(path):
        return real(path) + (["999999999"] if path == "/proc" else [])

    monkeypatch.setattr(os, "listdir", listdir)
    swept = look_at_processes(unnamed[1])
    assert swept.totals.orphans == 1
    assert "/proc/999999999/ns/net" not in [report.netns for report in swept.namespaces]


@pytest.mark.parametrize(
    "directory, number", [("/nonexistent", errno.ENOENT), ("file", errno.ENOTDIR)]
)
def test_a_directory_that_cannot_be_read_is_an_error(node, directory, number):
    open(node.path("file"), "w").close()
    with pytest.raises(nlraw.Refused) as caught:
        nlraw.sweep(dirs=[node.directory, node.path(directory)])
    assert (caught.value.errno, caught.value.object) == (number, node.path(directory))
    assert caught.value.step == "list namespaces in"


def test_a_directory_that_cannot_be_one_is_an_error(node):
    with pytest.raises(nlraw.Invalid) as caught:
        nlraw.sweep(dirs=["a\0b"])
    assert (caught.value.step, caught.value.object) == ("list namespaces in", repr("a\0b"))


def test_where_memory_runs_out_in_one_namespace_the_others_go_on(node):
    paths = node.add_many(3)
    swept = sweep_with(node, failing_in(paths[1], MemoryError()))
    assert swept.totals == totals(namespaces=3, orphans=3, deleted=2, failed=1)
    (error,) = [report.error for report in swept.namespaces if report.error is not None]
    assert (error.errno, error.object) == (errno.ENOMEM, paths[1])


@pytest.mark.parametrize(
    "error", [MemoryError(), nlraw.Refused(errno.EMFILE, "", "delete link", "tap0_urunc")]
)
def test_what_was_deleted_when_there_was_no_room_is_told_once_there_is(node, error):
    paths = node.add_many(3)
    failed = []

    def fail_once(connection, send, requests):
        replies = send(*requests)
        if connection.path == paths[1] and is_delete(requests) and not failed:
            failed.append(True)
            raise error
        return replies

    swept = sweep_with(node, meddling(fail_once))
    assert swept.totals == totals(namespaces=3, orphans=3, deleted=3)
    assert failed


@pytest.mark.parametrize("doing, number", [("looked at", 5), ("cleaned up", 2)])
def test_an_interrupted_sweep_does_not_go_on_behind_the_callers_back(node, doing, number):
    paths = node.add_many(12)
    before, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))

    def interrupt(what, done, total):
        if (what, done) == (doing, number):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    with pytest.raises(KeyboardInterrupt):
        sweep(node, jobs=2, progress=interrupt)
    left = [taps(path) for path in paths]
    assert [] in left and ["tap0_urunc"] in left
    time.sleep(0.3)
    assert [taps(path) for path in paths] == left
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (before, descriptors)
    assert sweep(node).totals.deleted == left.count(["tap0_urunc"])


def test_what_is_looked_at_when_a_sweep_is_interrupted_is_not_cleaned_up(node, monkeypatch):
    paths = node.add_many(3)

    class Interrupting(Visit):
        def look(self, dry_run):
            super().look(dry_run)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    monkeypatch.setattr(sweeping, "Visit", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        sweep(node, jobs=1)
    assert [taps(path) for path in paths] == [["tap0_urunc"]] * 3


# ---------------------------------------------------------------- how many at a time


@pytest.mark.parametrize("jobs", [1, 2, 500])
def test_any_number_of_jobs_does_the_same(node, jobs):
    node.add_many(8)
    assert sweep(node, jobs=jobs).totals == totals(namespaces=8, orphans=8, deleted=8)


@pytest.mark.parametrize("jobs", [0, -1])
def test_no_job_at_all_is_refused(node, jobs):
    path = node.add("pod")
    with pytest.raises(nlraw.Invalid):
        sweep(node, jobs=jobs)
    assert len(taps(path)) == 1


@pytest.mark.parametrize("jobs, expected", [(1, 1), (3, 3), (500, 6)])
def test_as_many_namespaces_are_cleaned_up_at_a_time_as_there_are_jobs(node, jobs, expected):
    node.add_many(6)
    busy, most = [], []

    def count(connection, send, requests):
        if is_delete(requests):
            busy.append(connection)
            time.sleep(0.2)
            most.append(len(busy))
            busy.pop()
        return send(*requests)

    assert sweep_with(node, meddling(count), jobs=jobs).totals.deleted == 6
    assert max(most) == expected


def test_removing_in_parallel_takes_less_than_one_after_the_other(node):
    def measured(jobs):
        node.close()
        node.add_many(48)
        begin, computed = time.monotonic(), time.process_time()
        assert sweep(node, jobs=jobs).totals.deleted == 48
        return time.monotonic() - begin, time.process_time() - computed

    alone, computed = measured(1)
    if computed > alone / 4:
        pytest.skip("this machine computes for most of the time: there are no waits to share")
    assert measured(48)[0] < alone / 2


@pytest.mark.parametrize("most", [2, 3, 10])
def test_where_only_a_few_threads_can_be_started_all_is_done_all_the_same(node, most):
    node.add_many(12)
    lock, alive, refused = threading.Lock(), [], []

    def start(function):
        with lock:
            if len(alive) >= most - 2:  # the first is for the look
                refused.append(function)
                raise nlraw.Refused(errno.EAGAIN, "no thread could be started", "start thread")
            alive.append(function)
        wait = threads.start(function)

        def wait_and_count():
            try:
                return wait()
            finally:
                alive.remove(function)

        return wait_and_count

    assert sweep_with(node, start=start).totals == totals(namespaces=12, orphans=12, deleted=12)
    assert refused


def test_where_no_thread_can_be_started_for_a_moment_all_is_done_all_the_same(node):
    node.add_many(4)
    calls = []

    def start(function):
        calls.append(function)
        if len(calls) == 1:
            raise nlraw.Refused(errno.EAGAIN, "no thread could be started", "start thread")
        return threads.start(function)

    swept = sweep_with(node, start=start, jobs=2)
    assert swept.totals == totals(namespaces=4, orphans=4, deleted=4)
    assert len(calls) == 2


def test_workers_that_die_as_they_are_born_leave_their_share_to_others(node):
    node.add_many(3)
    calls = []

    def start(function):
        calls.append(function)
        return unborn if len(calls) == 1 else threads.start(function)

    def unborn():
        raise nlraw.Refused(errno.ENOMEM, "", "start thread")

    swept = sweep_with(node, start=start)
    assert swept.totals == totals(namespaces=3, orphans=3, deleted=3)
    assert len(calls) == 2


# ---------------------------------------------------------------- many

# Sweeps as a process of its own, which may open no more files than it is told; says what came of
# it, and how many descriptors and threads there were at most.
MEASURE = """
import json, os, resource, sys, threading, time
sys.path.insert(0, sys.argv[1])
limit = int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
import nlraw
peak, over = [0, 0], []

def watch():
    tasks = "/proc/self/task"
    while not over:
        for place, directory in enumerate(("/proc/self/fd", tasks)):
            try:
                peak[place] = max(peak[place], len(os.listdir(directory)))
            except OSError:  # no descriptor is left to look with
                peak[place] = max(peak[place], limit)
        time.sleep(0.0005)

watcher = threading.Thread(target=watch)
watcher.start()
swept = nlraw.sweep(dirs=[sys.argv[2]])
over.append(True)
watcher.join()
errors = sorted({str(report.error) for report in swept.namespaces if report.error})
peaks = dict(files=peak[0], threads=peak[1])
print(json.dumps(dict(totals=swept.totals.fields(), errors=errors[:3], **peaks)))
"""


def measure(node, limit=0):
    argv = [sys.executable, "-S", "-c", MEASURE, command.ROOT, node.directory, str(limit)]
    return json.loads(command.run(*argv, timeout=60))


@pytest.mark.parametrize("limit", [256, 40])
def test_a_limit_of_descriptors_is_survived(node, limit):
    node.add_many(100)
    told = measure(node, limit)
    assert told["errors"] == []
    assert told["totals"] == totals(namespaces=100, orphans=100, deleted=100).fields()


def test_a_thousand_namespaces_are_swept_with_bounded_descriptors_and_threads(node):
    node.add_many(200)
    for number in range(800):
        with nlraw.netns.create() as namespace:
            node.pin("empty%d" % number, "/proc/self/fd/%d" % namespace.fileno())
    told = measure(node)
    assert told["errors"] == []
    assert told["totals"] == totals(namespaces=1000, orphans=200, deleted=200, skipped=800).fields()
    assert told["files"] <= 2 * sweeping.JOBS + 16
    # one that has ended may be counted for a moment more
    assert told["threads"] <= sweeping.JOBS + 8


def test_no_descriptor_is_left_open(node):
    before = os.listdir("/proc/self/fd")
    node.add_many(10)
    assert sweep(node).totals.deleted == 10
    assert os.listdir("/proc/self/fd") == before


# ---------------------------------------------------------------- the command line


def test_the_command_line_prints_the_document_of_the_design(node):
    node.add("pod0", orphans=2)
    done = command.nlraw("sweep", "--dir", node.directory, "-j")
    assert (done.status, done.err) == (0, "")
    document = json.loads(done.out)
    assert list(document) == ["namespaces", "totals"]
    assert list(document["totals"]) == [
        "namespaces",
        "orphans",
        "deleted",
        "spared",
        "in_use",
        "skipped",
        "failed",
    ]
    assert document["totals"] == totals(namespaces=1, orphans=2, deleted=2).fields()
    (report,) = document["namespaces"]
    keys = "netns uplink outcome taps tc_removed ignored dead_redirects error"
    assert list(report) == keys.split()
    assert (report["netns"], report["uplink"], report["outcome"]) == (
        node.path("pod0"),
        "eth0",
        "cleaned",
    )
    keys = ["ifname", "ifindex", "verdict", "fresh", "carrier", "operstate", "flags", "deleted"]
    assert [list(each) for each in report["taps"]] == [keys] * 2


def test_the_command_line_says_in_text_what_was_done_and_the_sums(node):
    path = node.add("pod0")
    node.add("quiet", orphans=0)
    done = command.nlraw("sweep", "--dir", node.directory)
    assert (done.status, done.err) == (0, "")
    row, last = done.out.splitlines()
    assert row.split() == [path, "tap0_urunc", "orphan", "deleted"]
    assert last == "2 namespaces: 1 clean, 1 cleaned; 1 orphan deleted"


def test_a_dry_run_of_the_command_line_changes_nothing(node):
    path = node.add("pod")
    done = command.nlraw("sweep", "--dir", node.directory, "-N")
    row, last = done.out.splitlines()
    assert (done.status, row.split()) == (0, [path, "tap0_urunc", "orphan", "to", "be", "deleted"])
    assert last == "1 namespace: 1 to be cleaned; 1 orphan to be deleted"
    assert len(taps(path)) == 1


def test_in_use_is_exit_0(node, pod):
    pod.add_tap()
    pod.hold()
    os.symlink(pod.path, node.path("pod"))
    done = command.nlraw("sweep", "--dir", node.directory)
    assert (done.status, done.err) == (0, "")
    row, last = done.out.splitlines()
    assert row.split() == [node.path("pod"), "tap0_urunc", "in-use", "left", "alone"]
    assert last == "1 namespace: 1 in use; 1 TAP in use"


@pytest.mark.parametrize("option, left", [((), 2), (("--include-fresh",), 0)])
def test_fresh_orphans_go_by_option(node, option, left):
    path = node.add("pod", orphans=2, fresh=True)
    done = command.nlraw("sweep", "--dir", node.directory, "-j", *option)
    assert done.status == 0
    assert json.loads(done.out)["totals"]["spared"] == left
    assert len(taps(path)) == left


def test_directories_may_be_several(node, tmp_path):
    node.add("pod")
    (tmp_path / "other").mkdir()
    done = command.nlraw(
        "sweep", "-j", "--dir", str(tmp_path / "other"), "--dir=" + node.directory, "--jobs", "3"
    )
    assert json.loads(done.out)["totals"]["deleted"] == 1


def test_a_directory_that_is_missing_is_exit_1_with_its_name(node):
    missing = node.path("missing")
    done = command.nlraw("sweep", "--dir", missing)
    assert (done.status, done.out) == (1, "")
    assert done.err == "nlraw: list namespaces in %s: %s\n" % (missing, command.NO_DIRECTORY)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_a_directory_that_may_not_be_read_is_exit_1_with_its_name(node):
    node.add("pod")
    os.chmod(node.directory, 0)
    argv = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", sys.executable, "-m", "nlraw"]
    done = command.nlraw("sweep", "--dir", node.directory, argv=argv)
    os.chmod(node.directory, 0o755)
    assert (done.status, done.out) == (1, "")
    words = "Permission denied; it takes CAP_DAC_READ_SEARCH, unless this user may read it"
    assert done.err == "nlraw: list namespaces in %s: %s\n" % (node.directory, words)


@pytest.mark.parametrize("jobs", ["0", "-1", "many", "1.5", ""])
def test_a_number_of_jobs_that_is_none_is_exit_2(node, jobs):
    path = node.add("pod")
    done = command.nlraw("sweep", "--dir", node.directory, "--jobs", jobs)
    assert (done.status, done.out) == (2, "")
    assert len(taps(path)) == 1


def test_the_namespaces_of_all_processes_by_option(unnamed):
    done = command.nlraw("sweep", "--proc", "-N", "-j", "-u", "none", "-m", unnamed[1])
    assert json.loads(done.out)["totals"]["orphans"] == 1


# ---------------------------------------------------------------- progress


def on_terminal(*arguments):
    """Run the command line with a terminal for its stderr, and much patience.

    Return its status and what the terminal got.
    """
    master, slave = pty.openpty()
    argv = [sys.executable, "-c", PATIENT] + list(arguments)
    process = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=slave, cwd="/", env=command.environment()
    )
    os.close(slave)
    got = b""
    with contextlib.suppress(OSError):  # EIO when the other end has closed
        while select.select([master], [], [], command.PATIENCE)[0]:
            more = os.read(master, 4096)
            if not more:
                break
            got += more
    os.close(master)
    return process.wait(), got.decode()


def slow(node, seconds):
    """Make a sweep of the node take longer.

    Somebody has the port by which the cleanups of its first namespace take turns.
    """
    begin = time.monotonic()
    command.nlraw("sweep", "--dir", node.directory, "--dry-run")
    seconds += time.monotonic() - begin  # what a process takes to start here
    threading.Timer(seconds, sit_on_the_port(node.add("first")).close).start()


# The command line, with a sweep that waits longer for others.
PATIENT = """
import nlraw.node
nlraw.node.PATIENCE = 30
from nlraw.cli import program
program()
"""


def test_on_a_terminal_a_long_run_shows_its_progress_and_takes_it_away(node):
    node.add_many(3)
    slow(node, 2)
    status, shown = on_terminal("sweep", "--dir", node.directory, "--jobs", "1")
    told = shown.split("\r\x1b[K")  # more than once where the machine is slow
    assert (status, told[0], told[-1]) == (0, "", "")
    assert any(told)
    assert all(
        re.match("(nlraw: (looked at|cleaned up) [0-3] of 4 namespaces)?$", each) for each in told
    )


def test_on_a_terminal_a_short_run_is_silent(node):
    node.add("pod")
    assert on_terminal("sweep", "--dir", node.directory) == (0, "")


def test_without_a_terminal_a_long_run_is_silent(node):
    slow(node, 2)
    node.add("pod")
    argv = (sys.executable, "-c", PATIENT)
    begin = time.monotonic()
    done = command.nlraw("sweep", "--dir", node.directory, "--jobs", "1", argv=argv)
    assert (done.status, done.err) == (0, "")
    assert time.monotonic() - begin > 2


def test_a_plan_that_grows_old_is_carried_out_before_the_others_are_looked_at(node, monkeypatch):
    node.add_many(3)
    told = []
    monkeypatch.setattr(sweeping, "PLAN_AGE", 0.3)

    def progress(doing, done, total):
        told.append((doing, done))
        if (doing, done) == ("looked at", 1):
            time.sleep(0.4)

    assert sweep(node, progress=progress).totals.deleted == 3
    assert told == [
        ("looked at", 0),
        ("looked at", 1),
        ("cleaned up", 1),
        ("cleaned up", 2),
        ("looked at", 2),
    ] + [
        ("looked at", 3),
        ("cleaned up", 3),
    ]


def test_the_library_tells_its_progress_to_whoever_asks(node):
    node.add_many(3)
    told = []
    sweep(node, jobs=1, progress=lambda *progress: told.append(progress))
    looked = [("looked at", number, 3) for number in range(4)]
    assert (told[::2], told[1::2]) == (
        looked,
        [("cleaned up", number, number) for number in (1, 2, 3)],
    )
    node.close()
    node.add_many(3)
    told.clear()
    sweep(node, progress=lambda *progress: told.append(progress))
    assert told == looked + [("cleaned up", number, 3) for number in (1, 2, 3)]

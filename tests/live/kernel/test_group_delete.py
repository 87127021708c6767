# SPDX-License-Identifier: Apache-2.0
"""Many orphans of one namespace, deleted as a group: they and nobody else, whatever happens.

The moment is picked by looking at each datagram before it is sent; what happens in it is real.
unit/test_model_group.py tries more moments than can be tried here, against a model of the kernel.
"""

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

import nlraw
from lib import command
from lib.groups import add_strangers
from lib.watch import Proof, Watch, decoded, is_delete, is_look, is_mark, is_regroup, once
from nlraw import connection, removal, uapi

FOUR = ["tap%d_urunc" % number for number in range(4)]


@pytest.fixture
def watch():
    return Watch()


def lists_every_link(requests):
    """True for a list of all links, unfiltered."""
    return is_look(requests) and requests[0].is_dump and decoded(requests[0]).kind is None


def groups(pod):
    """The groups of the links that are in one. iproute2 shows the number as a signed one."""
    return {
        name: int(shown["group"]) & 0xFFFFFFFF
        for name, shown in pod.links().items()
        if shown["group"] != "default"
    }


def join(pod, name, other):
    """Put a link into the group that another is in."""
    pod.ip("link", "set", name, "group", str(groups(pod)[other]))


def add_orphans(pod, names):
    """Make TAPs, some with a group of their own, some with TC state of several kinds."""
    pod.add_taps(names)
    pod.batch(*["link set %s group 77" % name for name in names[::2]])
    pod.add_ingress("eth0")
    for name in names[:2]:
        pod.add_ingress(name)
        pod.redirect("eth0", name)
        pod.redirect(name, "eth0")
    pod.tc("qdisc", "add", "dev", names[2], "root", "handle", "1:", "htb")
    pod.tc(
        "class", "add", "dev", names[2], "parent", "1:", "classid", "1:1", "htb", "rate", "1mbit"
    )


# ---------------------------------------------------------------- undisturbed


@pytest.mark.parametrize("count", [3, 10, 500])
def test_all_of_many_orphans_go_and_the_rest_is_as_before(pod, count):
    add_strangers(pod)
    before = pod.state()
    add_orphans(pod, ["tap%d_urunc" % number for number in range(count)])
    report = nlraw.cleanup(netns=pod.path)
    assert report.outcome == "cleaned"
    assert len(report.taps) == count and all(tap.deleted for tap in report.taps)
    assert pod.state() == before


def test_one_delete_of_the_marked_group_follows_the_tc_state_in_the_last_datagram(pod, watch):
    add_orphans(pod, FOUR)
    watch.clean_up(pod)
    mark, proof, delete = watch.sent[-3:]
    assert is_mark(mark) and lists_every_link(proof)
    assert {message.type for message in delete[:-1]} == {uapi.RTM_DELTFILTER, uapi.RTM_DELQDISC}
    sent = [message for requests in watch.sent for message in requests]
    assert [message for message in sent if message.type == uapi.RTM_DELLINK] == delete[-1:]
    asked = decoded(delete[-1])
    assert asked.ifindex == 0 and {decoded(message).group for message in mark} == {asked.group} != {
        0
    }
    assert delete[-1].flags == uapi.NLM_F_REQUEST | uapi.NLM_F_ACK


def test_where_it_takes_several_datagrams_the_delete_is_the_last_request_of_all(pod, watch):
    add_orphans(pod, ["tap%d_urunc" % number for number in range(300)])
    watch.clean_up(pod)
    assert watch.marks() > 1
    assert is_delete(watch.sent[-1])
    assert (
        sum(message.type == uapi.RTM_DELLINK for requests in watch.sent for message in requests)
        == 1
    )


def test_two_orphans_are_not_worth_a_group(pod, watch):
    pod.add_taps(FOUR[:2])
    watch.clean_up(pod)
    assert watch.marks() == 0
    assert [decoded(message).ifindex > 0 for message in watch.sent[-1]] == [True, True]


def test_each_group_is_another_and_one_that_iproute2_takes(pod, watch):
    used = set()
    for _ in range(20):
        pod.add_taps(FOUR)
        watch.clean_up(pod)
        used.add(decoded(watch.sent[-1][-1]).group)
    assert len(used) == 20
    assert min(used) > 0 and max(used) < 1 << 31


def test_a_tap_in_use_beside_many_orphans_is_seen_before_any_mark(pod, watch):
    add_orphans(pod, FOUR)
    pod.hold(FOUR[3])
    before = pod.state()
    with pytest.raises(nlraw.TapInUse):
        watch.clean_up(pod)
    assert watch.marks() == 0
    assert pod.state() == before


# ---------------------------------------------------------------- between mark and proof


@pytest.mark.parametrize("tap", [FOUR[0], FOUR[3]])
@pytest.mark.parametrize("moment", range(5), ids=["mark 1", "mark 2", "mark 3", "mark 4", "proof"])
def test_one_that_comes_into_use_is_kept_and_all_get_their_groups_back(
    pod, watch, monkeypatch, moment, tap
):
    monkeypatch.setattr(connection, "WINDOW", 1)
    add_orphans(pod, FOUR)
    pod.hold(tap).kill()
    before, former, holders, dues = pod.state(), groups(pod), [], list(range(moment + 1))

    is_proof = Proof()

    def attach(requests):
        if (is_proof(requests) or is_mark(requests)) and dues and dues.pop() == 0:
            holders.append(pod.hold(tap))

    watch.before = attach
    with pytest.raises(nlraw.TapInUse) as caught:
        watch.clean_up(pod)
    report = caught.value.report
    assert {each.ifname for each in report.taps if each.verdict == "in-use"} == {tap}
    assert report.tc_removed == () and not any(each.deleted for each in report.taps)
    assert groups(pod) == former
    holders[0].kill()
    assert pod.state() == before


def test_a_stranger_found_in_the_group_means_another_group(pod, watch):
    add_orphans(pod, FOUR)
    watch.before = once(Proof(), lambda: join(pod, "peer0", FOUR[1]))
    report = watch.clean_up(pod)
    assert [tap.deleted for tap in report.taps] == [True] * 4
    first, *_, last = [decoded(requests[0]).group for requests in watch.sent if is_mark(requests)]
    assert groups(pod) == {"peer0": first}
    assert last != first


def test_a_stranger_that_follows_into_every_group_saves_all(pod, watch, monkeypatch):
    monkeypatch.setattr(removal, "ROUNDS", 3)
    add_orphans(pod, FOUR)
    before = pod.state()
    is_proof = Proof()
    watch.before = lambda requests: is_proof(requests) and join(pod, "peer0", FOUR[0])
    with pytest.raises(nlraw.Error) as caught:
        watch.clean_up(pod)
    assert caught.value.message == "the namespace changed each time it was looked at; try again"
    assert watch.marks() == 3
    pod.ip("link", "set", "peer0", "group", "default")
    assert pod.state() == before


def test_an_orphan_found_in_another_group_is_looked_at_again(pod, watch):
    add_orphans(pod, FOUR)
    watch.before = once(Proof(), lambda: pod.ip("link", "set", FOUR[1], "group", "5"))
    report = watch.clean_up(pod)
    assert [tap.deleted for tap in report.taps] == [True] * 4
    assert not set(FOUR) & set(pod.links())


def test_one_that_is_renamed_is_spared_with_its_former_group(pod, watch):
    add_orphans(pod, FOUR)
    watch.before = once(Proof(), lambda: pod.ip("link", "set", FOUR[2], "name", "other"))
    report = watch.clean_up(pod)
    assert [tap.ifname for tap in report.taps] == [FOUR[0], FOUR[1], FOUR[3]]
    assert groups(pod) == {"other": 77}
    assert [qdisc["kind"] for qdisc in pod.qdiscs("other")] == ["htb"]


def test_one_that_is_deleted_by_somebody_else_is_nobodys_failure(pod, watch):
    before = pod.state()
    add_orphans(pod, FOUR)
    watch.before = once(Proof(), lambda: pod.ip("link", "del", FOUR[0]))
    report = watch.clean_up(pod)
    assert (report.outcome, [tap.ifname for tap in report.taps]) == ("cleaned", FOUR[1:])
    assert pod.state() == before


@pytest.mark.parametrize("held", [True, False])
def test_one_that_is_replaced_is_judged_anew(pod, watch, held):
    add_orphans(pod, FOUR)

    def replace():
        pod.ip("link", "del", FOUR[3])
        pod.add_taps([FOUR[3]])
        if held:
            pod.hold(FOUR[3])

    watch.before = once(Proof(), replace)
    if held:
        with pytest.raises(nlraw.TapInUse):
            watch.clean_up(pod)
        assert groups(pod) == {FOUR[0]: 77, FOUR[2]: 77}
    else:
        assert watch.clean_up(pod).outcome == "cleaned"
    assert set(FOUR) & set(pod.links()) == set(FOUR if held else [])


def test_one_that_is_replaced_by_another_kind_of_device_under_its_index_is_spared(pod, watch):
    add_orphans(pod, FOUR)
    ifindex = pod.links()[FOUR[3]]["ifindex"]

    def replace():
        pod.ip("link", "del", FOUR[3])
        pod.ip(*("link add %s index %d type veth peer name far" % (FOUR[3], ifindex)).split())
        join(pod, FOUR[3], FOUR[1])

    watch.before = once(Proof(), replace)
    watch.clean_up(pod)
    assert pod.links()[FOUR[3]]["linkinfo"]["info_kind"] == "veth"
    assert not set(FOUR[:3]) & set(pod.links())


def test_another_tap_in_use_that_appears_before_the_proof_saves_all(pod, watch):
    add_orphans(pod, FOUR)
    before, former = pod.state(), groups(pod)
    watch.before = once(Proof(), lambda: pod.hold("tap9_urunc"))
    with pytest.raises(nlraw.TapInUse):
        watch.clean_up(pod)
    assert groups(pod) == former
    pod.ip("link", "del", "tap9_urunc")
    assert pod.state() == before


# ---------------------------------------------------------------- between proof and delete


def test_orphans_deleted_by_somebody_else_after_the_proof_are_success(pod, watch):
    before = pod.state()
    add_orphans(pod, FOUR)
    watch.before = once(is_delete, lambda: pod.batch(*["link del " + name for name in FOUR]))
    report = watch.clean_up(pod)
    assert report.outcome == "cleaned" and [tap.deleted for tap in report.taps] == [True] * 4
    assert pod.state() == before


def test_a_device_that_cannot_be_deleted_in_the_group_does_no_harm(pod, watch):
    add_orphans(pod, FOUR)
    watch.before = once(is_delete, lambda: join(pod, "lo", FOUR[1]))
    with pytest.raises(nlraw.Refused) as caught:
        watch.clean_up(pod)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert [tap.deleted for tap in caught.value.report.taps] == [False] * 4
    assert {name: group for name, group in groups(pod).items() if name != "lo"} == {
        FOUR[0]: 77,
        FOUR[2]: 77,
    }


# ---------------------------------------------------------------- refused, lost, killed

NOBODY = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import nlraw, select
from nlraw import pod, removal
os.setgroups([]), os.setgid(65534), os.setuid(65534)
print("ready", flush=True)
try:
    nlraw.cleanup()
except nlraw.Refused as error:
    print(json.dumps([error.errno, error.step, error.report.outcome]), flush=True)
"""


def test_without_the_capability_the_mark_is_refused_and_nothing_was_changed(pod):
    add_orphans(pod, FOUR)
    before = pod.state()
    assert json.loads(pod.child(NOBODY, command.ROOT).read()) == [
        errno.EPERM,
        "set group of link",
        "failed",
    ]
    assert pod.state() == before


@pytest.mark.parametrize("carried_out", [True, False], ids=["carried out", "not carried out"])
def test_whichever_answer_is_lost_the_cleanup_is_whole(pod, watch, monkeypatch, carried_out):
    monkeypatch.setattr(connection, "WINDOW", 4)
    before = pod.state()
    number = 0
    while True:
        add_orphans(pod, FOUR)
        lost = lose(watch, number, carried_out)
        report = watch.clean_up(pod)
        assert report.outcome == "cleaned"
        assert [(tap.ifname, tap.deleted) for tap in report.taps] == [(name, True) for name in FOUR]
        assert pod.state() == before
        if not lost:
            break
        number += 1
    assert number > 6, (
        "the look, the filters, the mark, the proof and the deletes were not all lost in turn"
    )


def lose(watch, number, carried_out):
    """Lose one datagram of those sent from now on, or the answer to it.

    The list returned then says so.
    """
    lost, first = [], len(watch.sent)

    def before(_):
        if not lost and len(watch.sent) == first + number:
            lost.append(number)
            watch.lose(carried_out)

    watch.before = before
    return lost


@pytest.mark.parametrize("carried_out", [True, False], ids=["carried out", "not carried out"])
def test_the_former_groups_come_back_even_if_that_answer_is_lost(pod, watch, carried_out):
    add_orphans(pod, FOUR)
    former = groups(pod)

    def attach():
        pod.hold(FOUR[3])
        watch.before = once(is_regroup, lambda: watch.lose(carried_out))

    watch.before = once(Proof(), attach)
    with pytest.raises(nlraw.TapInUse):
        watch.clean_up(pod)
    assert groups(pod) == former


CLEANUP = "import sys; sys.path.insert(0, sys.argv[1]); import nlraw; nlraw.cleanup()"

# Enough of the requests of a cleanup, one datagram each: from the first look to the delete.
REQUESTS = range(1, 20)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_killed_before_any_of_its_requests_the_next_run_leaves_the_namespace_as_if_nothing_had_been(
    pod,
):
    before = pod.state()
    marked = 0
    for call in REQUESTS:
        add_orphans(pod, FOUR)
        if not killed_before(call, pod):
            break
        marked += groups(pod) != {FOUR[0]: 77, FOUR[2]: 77}
        report = nlraw.cleanup(netns=pod.path)
        assert [tap.deleted for tap in report.taps] == [True] * 4
        assert pod.state() == before
    assert call < REQUESTS[-1], "it was never left to end"
    assert marked == 2, "killed with the mark and without the delete"


def killed_before(call, pod):
    """Run a cleanup, to be killed when it is about to send for that time; True if it was."""
    # a C library of 32 bit may send by another call, which others do not have
    kill = "inject=sendto,?send:signal=KILL:when=%d" % call
    strace = [
        "ip",
        "netns",
        "exec",
        pod.name,
        "strace",
        "-f",
        "-o",
        os.devnull,
        "-e",
        "trace=sendto,?send",
        "-e",
        kill,
    ]
    ended = subprocess.run(
        strace + [sys.executable, "-S", "-c", CLEANUP, command.ROOT], stderr=subprocess.PIPE
    )
    if b"PTRACE" in ended.stderr:
        pytest.skip("strace may not trace here")
    return ended.returncode == -9

# SPDX-License-Identifier: Apache-2.0
"""Hostile namespaces: what one of them makes nlraw read is limited, and others do not wait for it.

A pod's root makes as many filters as it likes, in no time. The limit is an error that names it;
ordinary pods never meet it.
"""

import os
import re
import sys
import time

import pytest

import nlraw
from lib import command, pods
from nlraw import tc, transport, uapi, visit, wire
from nlraw.connection import Connection
from nlraw.exchange import Request
from nlraw.netns import Namespace

TOO_MUCH = (
    "this namespace holds more than nlraw reads: over (%d|%d MiB of) links, qdiscs, filters and "
    "routes" % (transport.MESSAGES, visit.BYTES >> 20)
)
SECONDS = 1.0  # that a hostile namespace may take of a sweep
MEMORY = 32 << 10  # KiB
TOO_LONG = 4050  # instructions of a filter that the kernel takes, and cannot list


def add(pod, lines):
    command.run("tc", "-n", pod.name, "-batch", "-", input="\n".join(lines) + "\n")


# ---------------------------------------------------------------- what a hostile root makes


def share_a_priority(pod, dev="eth0"):
    """n filters of which the kernel lists n in each of n chains."""
    pod.add_ingress(dev)
    line = "filter add dev %s ingress pref 1 chain %d protocol all u32 match u32 0 0 flowid 1:1"
    add(pod, [line % (dev, chain) for chain in range(200)])


def share_a_priority_of_a_block(pod):
    add(pod, ["qdisc add dev eth0 ingress_block 22 ingress"])
    line = "filter add block 22 pref 1 chain %d protocol all u32 match u32 0 0 flowid 1:1"
    add(pod, [line % chain for chain in range(200)])


def add_programs(pod):
    """Many small filters that are long to list."""
    pod.add_ingress("eth0")
    line = 'filter add dev eth0 ingress pref %d protocol all bpf bytecode "1,6 0 0 1"'
    add(pod, [line % (pref + 1) for pref in range(8000)])


def add_redirects(pod):
    """Redirects to an orphan, which all have to go."""
    pod.add_ingress("eth0")
    line = "filter add dev eth0 ingress pref %d protocol all u32 match u32 0 0 "
    line += "action mirred egress redirect dev " + pods.TAP
    add(pod, [line % (each % 4 + 1) for each in range(14000)])


def add_links(pod):
    pod.batch(*["link add v%d type veth peer name w%d" % (each, each) for each in range(6100)])


HOSTILE = [share_a_priority, share_a_priority_of_a_block, add_programs, add_redirects, add_links]


@pytest.fixture(scope="module", params=HOSTILE, ids=lambda make: make.__name__.replace("_", " "))
def hostile(request):
    """A pod with an orphan, and with too much. All its tests change nothing."""
    reason = pods.missing()
    if reason is not None:
        pytest.skip("needs a network namespace of its own: " + reason)
    with pods.Pod() as pod:
        pod.add_orphan(redirect=False)
        request.param(pod)
        yield pod


# ---------------------------------------------------------------- the limit


def test_the_error_names_the_limit_and_nothing_is_changed(hostile):
    before = hostile.tc("qdisc", "show")
    with pytest.raises(nlraw.Error) as caught:
        nlraw.cleanup(netns=hostile.path)
    assert re.match(TOO_MUCH, str(caught.value)) and caught.value.report.outcome == "failed"
    for arguments in (("scan",), ("cleanup", "--dry-run"), ("cleanup",), ("setup",)):
        done = command.nlraw(*arguments, "-n", hostile.path)
        assert done.status == 1
        assert re.match("nlraw: %s: %s\n" % (hostile.path, TOO_MUCH), done.err)
    assert hostile.tc("qdisc", "show") == before and pods.TAP in hostile.links()


MEASURED = """
import os, sys
pid = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
usage = os.wait4(pid, 0)[2]
print(usage.ru_maxrss, usage.ru_utime + usage.ru_stime)
"""


def measured(*arguments):
    """The memory in KiB, and the seconds of processor time, of a command line."""
    argv = command.MODULE + arguments
    done = command.attempt(
        sys.executable, "-c", MEASURED, *argv, env=command.environment(), cwd="/"
    )
    memory, seconds = map(float, done.out.splitlines()[-1].split())
    return memory, seconds


def test_it_is_reached_soon_and_with_little_memory(hostile, make_pod):
    usual = measured("cleanup", "-n", make_pod().path)
    memory, seconds = measured("cleanup", "-n", hostile.path)
    assert memory - usual[0] < MEMORY and seconds - usual[1] < SECONDS


def test_others_do_not_wait_in_a_sweep(hostile, node, make_pod):
    paths = node.add_many(20)
    began = time.monotonic()
    swept = nlraw.sweep(dirs=[node.directory])
    usual = time.monotonic() - began
    assert swept.totals.deleted == 20
    for path in paths:
        node.unpin(path)
        os.unlink(path)
    node.add_many(20)
    node.pin("a-hostile-one", hostile.path)
    began = time.monotonic()
    swept = nlraw.sweep(dirs=[node.directory])
    assert time.monotonic() - began < usual + SECONDS
    failed = [report for report in swept.namespaces if report.outcome == "failed"]
    assert len(failed) == 1 and re.match(TOO_MUCH, str(failed[0].error))
    assert (swept.totals.deleted, swept.totals.failed, swept.totals.namespaces) == (20, 1, 21)


def test_what_is_not_looked_at_does_not_count(pod):
    pod.batch("link add net1 type veth peer name far1")
    share_a_priority(pod, "net1")
    assert nlraw.scan(netns=pod.path) == ()
    assert nlraw.cleanup(netns=pod.path).outcome == "clean"
    assert nlraw.setup(netns=pod.path).outcome == "created"


def test_a_namespace_with_too_much_is_left_as_soon_as_it_has_less(pod):
    before = pod.state()
    pod.add_orphan(redirect=False)
    share_a_priority(pod)
    with pytest.raises(nlraw.Error):
        nlraw.cleanup(netns=pod.path)
    pod.tc("qdisc", "del", "dev", "eth0", "ingress")
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert pod.state() == before


# ---------------------------------------------------------------- filters that cannot be listed


def add_long_program(pod, dev):
    """Make a filter that is too long for the kernel to list."""
    ifindex = pod.links()[dev]["ifindex"]
    accept = bytes.fromhex("0600000000000001" if sys.byteorder == "big" else "0600000001000000")
    options = wire.attribute_nested(
        uapi.TCA_OPTIONS,
        wire.attribute_u16(4, TOO_LONG),  # TCA_BPF_OPS_LEN
        wire.attribute(5, accept * TOO_LONG),  # TCA_BPF_OPS
        wire.attribute_u32(3, 1),  # TCA_BPF_CLASSID
    )
    model = tc.create_redirect(ifindex, uapi.TC_H_INGRESS_HANDLE, 0, dev, 7)
    payload = model.payload[: model.fixed] + wire.attribute_string(uapi.TCA_KIND, "bpf") + options
    flags = uapi.NLM_F_CREATE | uapi.NLM_F_EXCL | uapi.NLM_F_ACK
    with Namespace(pod.path) as namespace, Connection(namespace) as connection:
        request = Request(model.type, flags, payload, model.fixed, "add filter", dev)
        connection.change(request)[0].answer()


@pytest.mark.parametrize("dev", ["eth0", "net1"])
def test_the_device_and_the_reason_are_named(pod, dev):
    pod.batch("link add net1 type veth peer name far1")
    pod.add_orphan(redirect=False)
    pod.add_ingress(dev)
    add_long_program(pod, dev)
    done = command.nlraw("cleanup", "-n", pod.path)
    assert done.status == 1 and dev in done.err
    assert "one of them is too long for the kernel to list" in done.err
    assert pods.TAP in pod.links()


# ---------------------------------------------------------------- ordinary pods


def test_a_pod_with_500_orphans_and_their_redirects_is_ordinary(pod):
    before = pod.state()
    names = ["tap%d_urunc" % number for number in range(500)]
    pod.add_taps(names)
    place = "filter add dev %s ingress protocol all u32 match u32 0 0 "
    place += "action mirred egress redirect dev %s"
    add(pod, ["qdisc add dev eth0 ingress"] + ["qdisc add dev %s ingress" % name for name in names])
    add(pod, [place % ("eth0", name) for name in names])
    add(pod, [place % (name, "eth0") for name in names])
    report = nlraw.cleanup(netns=pod.path)
    assert report.outcome == "cleaned" and sum(tap.deleted for tap in report.taps) == 500
    assert pod.state() == before

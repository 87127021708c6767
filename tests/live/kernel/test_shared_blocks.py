# SPDX-License-Identifier: Apache-2.0
"""Shared blocks: a redirect to an orphan goes, addressed by the block; all else is somebody else's.

A block is reached by several devices, so a dead redirect in it swallows the traffic of all of them.
"""

import pytest

import nlraw
from lib import pods
from nlraw import tc, uapi, wire
from nlraw.connection import Connection
from nlraw.exchange import Request
from nlraw.netns import Namespace

SSH = "filter add block %d protocol ip pref 5 u32 match ip dport 22 0xffff flowid 1:7"
REDIRECT = (
    "filter add block %d protocol all pref 6 u32 match u32 0 0 action mirred egress redirect dev %s"
)


def add(pod, *commands):
    for command in commands:
        pod.tc(*command.split())


def removed(report):
    return ["%s %s %s" % (gone.dev, gone.object, gone.kind) for gone in report.tc_removed]


@pytest.fixture
def pod(make_pod):
    pod = make_pod()
    pod.batch("link add net1 type veth peer name far1")
    return pod


@pytest.mark.parametrize("kind", ["ingress", "clsact"])
@pytest.mark.parametrize("devices", [("eth0",), ("net1",), ("eth0", "net1")], ids="+".join)
def test_a_redirect_in_a_block_goes_whoever_shares_it(pod, devices, kind):
    for dev in devices:
        add(pod, "qdisc add dev %s ingress_block 22 %s" % (dev, kind))
    add(pod, SSH % 22)
    before = pod.state()
    pod.add_orphan(redirect=False)
    add(pod, REDIRECT % (22, pods.TAP))
    dry = nlraw.cleanup(netns=pod.path, dry_run=True)
    report = nlraw.cleanup(netns=pod.path)
    assert removed(report) == ["block 22 filter u32"]
    (gone,) = report.tc_removed
    assert (gone.priority, gone.target) == (6, pods.TAP)
    assert dry.tc_removed == report.tc_removed
    assert pod.state() == before


def test_a_redirect_in_the_egress_block_of_a_clsact_goes(pod):
    add(pod, "qdisc add dev net1 ingress_block 22 egress_block 23 clsact", SSH % 22, SSH % 23)
    before = pod.state()
    pod.add_orphan()
    add(pod, REDIRECT % (23, pods.TAP))
    assert "block 23 filter u32" in removed(nlraw.cleanup(netns=pod.path))
    assert pod.state() == before


def test_several_redirects_in_several_blocks_go(pod):
    add(pod, "qdisc add dev eth0 ingress_block 22 ingress")
    add(pod, "qdisc add dev net1 ingress_block 23 ingress")
    before = pod.state()
    for number in range(4):  # as a group
        pod.add_orphan("tap%d_urunc" % number, redirect=False)
    for block in (22, 23):
        for number in range(4):
            line = (REDIRECT % (block, "tap%d_urunc" % number)).replace(
                "pref 6", "pref 1%d" % number
            )
            add(pod, line)
    assert (
        removed(nlraw.cleanup(netns=pod.path))
        == ["block 22 filter u32"] * 4 + ["block 23 filter u32"] * 4
    )
    assert pod.state() == before


@pytest.mark.parametrize("chain", [0, 3])
def test_two_redirects_of_one_priority_go_and_the_foreign_one_beside_them_stays(pod, chain):
    add(pod, "qdisc add dev eth0 ingress_block 22 ingress")
    place = "pref 6 chain %d " % chain
    add(pod, (SSH % 22).replace("ip pref 5", "all " + place))
    before = pod.state()
    pod.add_orphan(redirect=False)
    for _ in range(2):
        add(pod, (REDIRECT % (22, pods.TAP)).replace("pref 6", place))
    assert removed(nlraw.cleanup(netns=pod.path)) == ["block 22 filter u32"] * 2
    assert pod.state() == before


def test_an_empty_block_and_its_qdisc_stay(pod):
    add(pod, "qdisc add dev eth0 ingress_block 22 ingress")
    before = pod.state()
    pod.add_orphan(redirect=False)
    add(pod, REDIRECT % (22, pods.TAP))
    assert removed(nlraw.cleanup(netns=pod.path)) == ["block 22 filter u32"]
    assert pod.state() == before


def test_a_dead_redirect_in_a_block_is_somebody_elses(pod):
    add(pod, "qdisc add dev eth0 ingress_block 22 ingress")
    pod.add_orphan(redirect=False)
    add(pod, REDIRECT % (22, pods.TAP))
    pod.ip("link", "del", pods.TAP)
    before = pod.state()
    assert nlraw.cleanup(netns=pod.path).outcome == "clean"
    assert pod.state() == before


def redirect_to_block(pod, dev, block):
    """Make the redirect that iproute2 has words for since 6.8; return False if it is refused."""
    ifindex = pod.links()[dev]["ifindex"]
    parms = uapi.tc_mirred.pack(0, 0, uapi.TC_ACT_STOLEN, 0, 0, uapi.TCA_EGRESS_REDIR, 0)
    mirred = wire.attribute_string(uapi.TCA_ACT_KIND, "mirred") + wire.attribute_nested(
        uapi.TCA_ACT_OPTIONS,
        wire.attribute(uapi.TCA_MIRRED_PARMS, parms),
        wire.attribute_u32(uapi.TCA_MIRRED_BLOCKID, block),
    )
    selector = uapi.tc_u32_sel.pack(uapi.TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0)
    options = wire.attribute_nested(
        uapi.TCA_OPTIONS,
        wire.attribute(uapi.TCA_U32_SEL, selector + uapi.tc_u32_key.pack(0, 0, 0, 0)),
        wire.attribute_nested(uapi.TCA_U32_ACT, wire.attribute_nested(1, mirred)),
    )
    model = tc.create_redirect(ifindex, uapi.TC_H_INGRESS_HANDLE, 0, dev)
    payload = model.payload[: model.fixed] + wire.attribute_string(uapi.TCA_KIND, "u32") + options
    request = Request(model.type, model.flags, payload, model.fixed, model.step, dev)
    with Namespace(pod.path) as namespace, Connection(namespace) as connection:
        (reply,) = connection.change(request)
    return reply.error is None


def test_a_redirect_to_a_block_is_neither_dead_nor_one_to_an_orphan(pod):
    add(pod, "qdisc add dev net1 ingress_block 22 ingress", "qdisc add dev eth0 ingress")
    if not redirect_to_block(pod, "eth0", 22):
        pytest.skip("this kernel does not redirect to blocks (6.8)")
    before = pod.state()
    pod.add_orphan(redirect=False)
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert pod.state() == before


def test_an_uplink_with_a_block_is_set_up_beside_it(pod):
    add(pod, "qdisc add dev net1 ingress_block 22 ingress", SSH % 22)
    before = pod.state()
    nlraw.setup(netns=pod.path)
    assert pod.redirects("eth0", pods.TAP) == 1
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert pod.state() == before

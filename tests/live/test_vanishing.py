# SPDX-License-Identifier: Apache-2.0
"""What vanishes between two requests: no reason to fail, the look is repeated.

Where u32 filters of one priority are in several chains a look asks for each root table, and by then
its chain, its qdisc or its block may be gone.
"""

import pytest

from lib import pods
from lib.watch import Watch, is_change, is_look, once

FOREIGN = "filter add %s %s protocol all pref 6 u32 match ip dport %d 0xffff flowid 1:7"
REDIRECT = (
    "filter add %s protocol all pref 6 u32 match u32 0 0 action mirred egress redirect dev %s"
)


def reads_a_table(requests):
    return requests[0].step.startswith("read root table")


@pytest.fixture
def pod(make_pod):
    pod = make_pod()
    pod.batch("link add net1 type veth peer name far1")
    return pod


def check(pod, place, vanish):
    """Let something vanish in the midst of a look; only the redirect and the TAP go beside it."""
    pod.add_orphan(redirect=False)
    pod.tc(*(REDIRECT % (place, pods.TAP)).split())
    pod.tc(*(FOREIGN % (place, "chain 4", 22)).split())
    watch, states = Watch(), []

    def go():
        pod.tc(*vanish.split())
        states.append(pod.state())

    watch.before = once(reads_a_table, go)
    assert watch.clean_up(pod).outcome == "cleaned"
    assert len(states) == 1 and pods.TAP not in pod.links()
    return states[0]


def test_a_chain(pod):
    pod.tc(*"qdisc add dev net1 clsact".split())
    before = pod.state()
    check(pod, "dev net1 ingress", "filter del dev net1 ingress chain 4 pref 6")
    assert pod.state() == before


def test_a_qdisc(pod):
    before = pod.state()
    pod.add_ingress("net1")
    check(pod, "dev net1 ingress", "qdisc del dev net1 ingress")
    assert pod.state() == before


def test_a_block(pod):
    before = pod.state()
    pod.tc(*"qdisc add dev net1 ingress_block 22 ingress".split())
    check(pod, "block 22", "qdisc del dev net1 ingress")
    assert pod.state() == before


def test_an_ingress_that_is_made_again_by_somebody_else(pod):
    pod.add_orphan(redirect=False)
    pod.add_ingress("net1")
    pod.redirect("net1", pods.TAP)
    watch, states = Watch(), []

    def make_again():
        pod.add_ingress("net1")
        pod.tc(*(FOREIGN % ("dev net1 ingress", "", 22)).split())
        states.append(pod.state())

    def vanish():
        pod.tc("qdisc", "del", "dev", "net1", "ingress")
        watch.before = once(is_look, make_again)

    watch.before = once(is_change, vanish)
    assert watch.clean_up(pod).outcome == "cleaned"
    assert pods.TAP not in pod.links()
    assert [pod.state()] == states

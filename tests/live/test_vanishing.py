# SPDX-License-Identifier: Apache-2.0
"""What vanishes between two requests of one look: no reason to fail, the look is repeated.

Where u32 filters of one priority are in several chains the look asks for each root table, and by
then its chain, its qdisc or its block may be gone.
"""

import pytest

from lib import pods
from lib.watch import Watch, once

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

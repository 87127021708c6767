# SPDX-License-Identifier: Apache-2.0
"""What a guest needs of 500 random pods, compared with what iproute2 lists, value by value.

    pytest -s tests/long/test_facts.py
    NLRAW_SEEDS=5000 pytest -s tests/long/test_facts.py
    NLRAW_SEEDS=300-400 pytest -s tests/long/test_facts.py

Then a second pod is made of the facts alone, and has the same. What a pod may have is in
tests/lib/shapes.py.
"""

import collections
import os
import random

import pytest

from lib import pods, shapes
from lib.shapes import check, expected, observed, plain

SEEDS = os.environ.get("NLRAW_SEEDS", "500")
READINGS = 300
MANY = 1200

NICS = ("eth0", "net1")


def seeds():
    """The seeds: NLRAW_SEEDS is a number of them, or FIRST-LAST without LAST."""
    first, joined, last = SEEDS.partition("-")
    return range(int(first), int(last)) if joined else range(int(first))


@pytest.fixture(autouse=True)
def can_run():
    if pods.missing() is not None:
        pytest.skip("needs a network namespace of its own: " + pods.missing())


def a_pod():
    return pods.Pod(uplink=None, ipv6=True)


def shape_of(seed):
    return shapes.random_shape(random.Random(seed))


def test_the_facts_of_random_pods_are_what_iproute2_lists():
    sums = collections.Counter()
    for seed in seeds():
        with a_pod() as pod:
            shapes.furnish(pod, shape_of(seed), force=True)
            for uplink in observed(pod, *NICS):
                try:
                    check(uplink, expected(pod, uplink.ifname))
                except AssertionError as error:
                    raise AssertionError("seed %d:\n%s" % (seed, shape_of(seed))) from error
                for name, select in KINDS.items():
                    sums[name] += len(select(uplink))
    print("\n%s" % ", ".join("%d %s" % (sums[name], name) for name in KINDS))
    if len(seeds()) >= 500:  # each kind of fact was met
        assert all(sums[name] > 5 for name in KINDS)


KINDS = {
    "addresses": lambda uplink: uplink.addresses,
    "addresses with a far end": lambda uplink: [each for each in uplink.addresses if each.address],
    "routes": lambda uplink: uplink.routes,
    "routes of IPv6": lambda uplink: [each for each in uplink.routes if each.family == "inet6"],
    "neighbours": lambda uplink: uplink.neighbours,
    "routes with several next hops": lambda uplink: [
        each for each in uplink.routes if each.nexthops
    ],
    "routes by the other family": lambda uplink: [
        each for each in uplink.routes if each.family == "inet" and ":" in (each.gateway or "")
    ],
    "routes to an onlink gateway": lambda uplink: [each for each in uplink.routes if each.onlink],
    "routes with an MTU": lambda uplink: [each for each in uplink.routes if each.mtu],
    "routes from a source": lambda uplink: [
        each for each in uplink.routes if each.src and each.protocol != "kernel"
    ],
}


def test_a_pod_made_of_the_facts_of_another_has_the_same():
    """A guest that is configured from them alone: the kernel is the judge of what they lack.

    It refuses a gateway whose own route has changed since the pod got the gateway.
    """
    made = missing = 0
    for seed in seeds()[::5]:
        with a_pod() as pod, a_pod() as other:
            shapes.furnish(pod, shape_of(seed), force=True)
            shapes.furnish(other, "")
            found = observed(pod, *NICS)
            refused = shapes.replay(found, other)
            assert all("route" in line.split() for line in refused), (seed, refused)
            for uplink, again in zip(found, observed(other, *NICS)):
                wanted, has = lasting(uplink), lasting(again)
                lost = [each for each in wanted["routes"] if each not in has["routes"]]
                has["routes"] = sorted(has["routes"] + lost, key=str)
                assert has == wanted, (seed, shape_of(seed), refused)
                assert len(lost) <= len(refused), (seed, shape_of(seed), lost)
                made += len(has["routes"])
                missing += len(lost)
    print("\n%d routes made, %d refused" % (made, missing))
    assert missing <= made / 10


def lasting(uplink):
    """What does not depend on the order of events: routes that came with addresses do."""
    found = plain(uplink)
    found["routes"] = [route for route in found["routes"] if route["protocol"] != "kernel"]
    return {key: sorted(values, key=str) for key, values in found.items()}


def test_while_a_pod_changes_what_stays_is_never_missing():
    with a_pod() as pod:
        shapes.furnish(pod, "")
        whole = shapes.read_while_it_changes(pod, MANY, READINGS)
    print("\n%d of %d readings" % (whole, READINGS))
    assert whole

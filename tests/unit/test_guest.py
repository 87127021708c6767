# SPDX-License-Identifier: Apache-2.0
"""nlraw.guest: the records of a setup, and their words for `ip`."""

import pytest

import nlraw
from nlraw import guest
from nlraw.guest import GuestAddress, GuestNeighbour, GuestRoute, NextHop, Pair, Setup, Uplink


def an_address(**fields):
    facts = {
        "family": "inet",
        "local": "10.9.8.2",
        "prefixlen": 24,
        "address": None,
        "broadcast": None,
        "scope": "global",
    }
    return GuestAddress(**dict(facts, **fields))


def a_hop(**fields):
    return NextHop(**dict({"gateway": None, "dev": "eth0", "weight": 1, "onlink": False}, **fields))


def a_route(**fields):
    facts = {
        "family": "inet",
        "type": "unicast",
        "dst": "default",
        "gateway": None,
        "protocol": "boot",
        "scope": "global",
        "src": None,
        "metric": None,
        "mtu": None,
        "onlink": False,
    }
    return GuestRoute(**dict(facts, **fields))


@pytest.mark.parametrize(
    "fields, words",
    [
        ({}, "10.9.8.2/24"),
        ({"address": "10.9.8.1", "prefixlen": 32}, "10.9.8.2 peer 10.9.8.1/32"),
        ({"broadcast": "10.9.8.255"}, "10.9.8.2/24 broadcast 10.9.8.255"),
        ({"scope": "link"}, "10.9.8.2/24 scope link"),
        ({"family": "inet6", "local": "fd00::2", "prefixlen": 64}, "fd00::2/64"),
    ],
)
def test_the_words_of_an_address(fields, words):
    assert an_address(**fields).words() == words


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"gateway": "10.9.8.1"}, "default via 10.9.8.1"),
        ({"gateway": "fe80::1"}, "default via inet6 fe80::1"),
        ({"gateway": "fe80::1", "family": "inet6"}, "default via fe80::1"),
        ({"gateway": "10.9.8.1", "family": "inet6"}, "default via inet 10.9.8.1"),
        ({"scope": "link", "dst": "10.9.8.0/24"}, "10.9.8.0/24"),
        ({"dst": "10.9.8.0/24"}, "10.9.8.0/24 scope global"),
        ({"gateway": "10.9.8.1", "protocol": "77"}, "default via 10.9.8.1 proto 77"),
        ({"dst": "10.9.8.0/24", "scope": "host"}, "10.9.8.0/24 scope host"),
        ({"dst": "fd00::/64", "family": "inet6"}, "fd00::/64"),
        ({"gateway": "10.9.8.1", "scope": "link"}, "default via 10.9.8.1 scope link"),
        ({"type": "local", "scope": "host"}, "local default scope host"),
        (
            {"gateway": "10.9.8.1", "src": "10.9.8.2", "metric": 0, "mtu": 1450, "onlink": True},
            "default via 10.9.8.1 src 10.9.8.2 metric 0 mtu 1450 onlink",
        ),
        (
            {"family": "inet6", "tos": "0x10", "from": "fd00::/48"},
            "default from fd00::/48 tos 0x10",
        ),
        (
            {"metric": 5, "nexthops": (a_hop(gateway="10.9.8.1"), a_hop(weight=7, onlink=True))},
            "default metric 5 nexthop via 10.9.8.1 dev eth0 weight 1 "
            "nexthop dev eth0 weight 7 onlink",
        ),
        (
            {"nexthops": (a_hop(gateway="fe80::1", dev=None),)},
            "default nexthop via inet6 fe80::1 weight 1",
        ),
    ],
    ids=str,
)
def test_the_words_of_a_route(fields, words):
    assert a_route(**fields).words() == words


def test_the_words_of_a_neighbour():
    near = GuestNeighbour(dst="10.9.8.1", lladdr="02:00:00:00:00:01")
    assert near.words() == "10.9.8.1 lladdr 02:00:00:00:00:01"
    assert near.replace(lladdr=None).words() == "10.9.8.1"


def test_a_route_may_be_made_without_what_almost_none_has():
    route = a_route()
    assert (route.tos, getattr(route, "from"), route.nexthops) == (None, None, ())
    assert list(route.document()) == list(GuestRoute.__slots__)


def test_an_uplink_has_all_keys_though_it_has_no_facts():
    uplink = Uplink(
        ifname="eth0", ifindex=2, address=None, mtu=1500, local=None, prefixlen=None, gateway=None
    )
    assert (uplink.addresses, uplink.routes, uplink.neighbours) == ((), (), ())
    assert list(uplink.document()) == list(Uplink.__slots__)


def test_the_json_of_a_setup_has_pairs_and_not_what_is_for_stderr():
    made = Setup(
        netns="x", outcome="failed", cleanup=None, tap=None, uplink=None, error=None, ahead=()
    )
    assert made.document() == {
        "netns": "x",
        "outcome": "failed",
        "cleanup": None,
        "tap": None,
        "uplink": None,
        "pairs": (),
        "error": None,
    }


@pytest.mark.parametrize("kind", [GuestAddress, GuestNeighbour, GuestRoute, NextHop, Pair, Uplink])
def test_the_package_has_the_records(kind):
    assert getattr(nlraw, kind.__name__) is kind is getattr(guest, kind.__name__)

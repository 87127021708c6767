# SPDX-License-Identifier: Apache-2.0
"""What a guest needs of its uplinks: it is what iproute2 lists, and enough to make another pod of.

The shapes of the pods are in tests/lib/shapes.py.
"""

import pytest

import nlraw
from lib import command, shapes
from lib.shapes import SHAPES, check, expected, observed, plain
from lib.watch import Watch
from nlraw import uplinks
from nlraw.connection import Connection
from nlraw.errors import Error
from nlraw.netns import Namespace
from nlraw.observe import list_links

NICS = ("eth0", "net1")


@pytest.fixture
def shaped(make_pod):
    """Make a pod of a shape."""

    def make(shape):
        pod = make_pod(uplink=None, ipv6=True)
        shapes.furnish(pod, shape)
        return pod

    return make


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_facts_are_what_iproute2_lists(shaped, name):
    pod = shaped(SHAPES[name])
    for uplink in observed(pod, *NICS):
        check(uplink, expected(pod, uplink.ifname))


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_facts_are_enough_to_make_a_pod_of_the_same_facts(shaped, name):
    found = observed(shaped(SHAPES[name]), *NICS)
    other = shaped("")
    assert shapes.replay(found, other) == []
    for uplink, again in zip(found, observed(other, *NICS)):
        for key, values in plain(uplink).items():
            assert sorted(plain(again)[key], key=str) == sorted(values, key=str)
        assert (uplink.local, uplink.prefixlen, uplink.gateway) == (
            again.local,
            again.prefixlen,
            again.gateway,
        )


@pytest.mark.parametrize("name", ["Calico", "dual stack", "IPv6 alone", "no address"])
def test_a_setup_prints_them(shaped, name):
    pod = shaped(SHAPES[name])
    listed = expected(pod, "eth0")
    done = command.nlraw("setup", "-n", pod.path, "--json")
    assert done.status == 0
    uplink = done.document["uplink"]
    neighbours = sorted(uplink["neighbours"], key=str)
    assert dict(listed, neighbours=sorted(listed["neighbours"], key=str)) == {
        "addresses": uplink["addresses"],
        "routes": uplink["routes"],
        "neighbours": neighbours,
    }
    assert done.document["pairs"] == [{"tap": done.document["tap"], "uplink": uplink}]


def test_the_library_has_them_as_records(shaped):
    pod = shaped(SHAPES["Calico"])
    made = nlraw.setup(netns=pod.path)
    check(made.uplink, expected(pod, "eth0"))
    assert made.uplink.routes[0].mtu == 1450
    assert (made.uplink.gateway, made.uplink.local) == ("169.254.1.1", "10.0.1.7")


@pytest.mark.parametrize("name", ["two NICs", "next hops", "next hop objects, only their IDs"])
def test_a_setup_of_two_nics_has_the_facts_of_each(shaped, name):
    pod = shaped(SHAPES[name])
    listed = [expected(pod, dev) for dev in NICS]
    made = nlraw.setup(netns=pod.path, uplink=NICS)
    assert [pair.uplink.ifname for pair in made.pairs] == list(NICS)
    for pair, each in zip(made.pairs, listed):
        check(pair.uplink, each)
    assert made.uplink == made.pairs[0].uplink


def test_the_text_of_a_setup_has_them_in_the_words_of_ip(shaped):
    pod = shaped(SHAPES["Calico"])
    done = command.nlraw("setup", "-n", pod.path)
    assert [line for line in done.out.splitlines() if line.startswith("    ")] == [
        "    address    10.0.1.7/32",
        "    address    fd00::7/128",
        "    route      default via 169.254.1.1 mtu 1450",
        "    route      169.254.1.1",
        "    route      fd00::7 proto kernel metric 256",
        "    route      default via fe80::1 metric 1024",
        "    neighbour  169.254.1.1 lladdr 02:00:00:00:00:01",
        "    neighbour  fe80::1 lladdr 02:00:00:00:00:01",
    ]


def test_a_pod_without_ipv4_is_no_error_and_not_silent(shaped):
    done = command.nlraw("setup", "-n", shaped(SHAPES["IPv6 alone"]).path, "--json")
    assert done.status == 0 and done.err.endswith(
        ": eth0 has no IPv4 address, so the guest gets none\n"
    )
    uplink = done.document["uplink"]
    assert [uplink[key] for key in ("local", "prefixlen", "gateway")] == [None] * 3


# ---------------------------------------------------------------- long lists

MANY = 650  # of each; a datagram holds some hundreds


def test_lists_of_several_datagrams_are_whole(shaped):
    pod = shaped("")
    shapes.add_many(pod, MANY)
    (uplink,) = observed(pod, "eth0")
    listed = expected(pod, "eth0")
    counts = [len(listed[key]) for key in ("addresses", "routes", "neighbours")]
    assert counts == [MANY + 2, 2 * MANY + 2, MANY]
    check(uplink, listed)


# Routes that the kernel lists by their position, among others or under one prefix.
BY_POSITION = {
    "inet6": ["route %%s fd03::%x dev eth0" % (number + 1) for number in range(MANY)],
    "inet": ["route %%s 10.9.0.0/16 dev eth0 metric %d" % (number + 1) for number in range(MANY)],
}


def routes_read(watch, pod):
    """The routes of eth0 that nobody's address brought, read on a connection that is watched."""
    with Namespace(pod.path) as namespace, watch.connect(namespace) as connection:
        links = {link.ifname: link for link in list_links(connection)}
        (found,) = uplinks.observe_uplinks(connection, [links["eth0"]], {})
        return {(route.dst, route.metric) for route in found.routes if route.protocol == "boot"}


@pytest.mark.parametrize("family", sorted(BY_POSITION))
def test_a_route_that_goes_between_two_datagrams_takes_no_other_with_it(shaped, family):
    pod = shaped("")
    lines = BY_POSITION[family]
    pod.batch(*[line % "add" for line in lines])
    watch = Watch()
    before = routes_read(watch, pod)
    assert len(before) == MANY
    pod.ip(*(lines[0] % "del").split())
    gone = before - routes_read(watch, pod)
    pod.ip(*(lines[0] % "add").split())
    events = ["del", "add", "del", "add", "del"]

    def meanwhile(requests, datagrams):
        if events and requests[0].step == "list routes" and len(datagrams) == 1:
            pod.ip(*(lines[0] % events.pop()).split())

    watch.meanwhile = meanwhile
    after = routes_read(watch, pod)
    assert (len(gone), before - gone - after) == (1, set())
    assert not events and after == before - gone


@pytest.mark.parametrize("is_back", [False, True], ids=["others each time", "the same one"])
def test_routes_that_change_in_each_reading_are_an_error(shaped, is_back):
    """Also if each reading lacks the same one, so that all readings are alike."""
    pod = shaped("")
    lines = BY_POSITION["inet6"]
    pod.batch(*[line % "add" for line in lines])
    watch, gone = Watch(), []

    def meanwhile(requests, datagrams):
        if requests[0].step == "list routes" and len(datagrams) == 1:
            gone.append(lines[0 if is_back else len(gone)])
            pod.ip(*(gone[-1] % "del").split())
        elif is_back and gone and requests[0].step == "list addresses" and len(datagrams) == 1:
            pod.ip(*(gone[-1] % "add").split())

    watch.meanwhile = meanwhile
    with pytest.raises(Error) as caught:
        routes_read(watch, pod)
    assert caught.value.step == "read uplink" and len(gone) == 1 + uplinks.ROUNDS


def test_the_socket_is_in_no_group_afterwards(shaped):
    pod = shaped("")
    shapes.add_many(pod, MANY)
    with Namespace(pod.path) as namespace, Connection(namespace, groups=1) as connection:
        links = {link.ifname: link for link in list_links(connection)}
        uplinks.observe_uplinks(connection, [links["eth0"]], {})
        while connection.receive_events(0.2):  # of the time before it left them
            pass
        pod.ip("link", "set", "net1", "mtu", "1400")
        assert not connection.receive_events(0.2)
        assert connection.groups == 1

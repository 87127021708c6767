# SPDX-License-Identifier: Apache-2.0
"""What a guest needs of its uplinks: it is what iproute2 lists, and enough to make another pod of.

The shapes of the pods are in tests/lib/shapes.py.
"""

import pytest

import nlraw
from lib import command, shapes
from lib.shapes import SHAPES, check, expected, observed, plain
from nlraw import uplinks
from nlraw.connection import Connection
from nlraw.errors import Error
from nlraw.netns import Namespace

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
    shapes.replay(found, other)
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


# ---------------------------------------------------------------- long lists

MANY = 1200


def many(pod):
    """Give eth0 more of each than one datagram holds."""
    numbers = [(number >> 8, number & 255) for number in range(MANY)]
    pod.batch(
        "address add 10.9.8.2/16 dev eth0",
        "address add fd00::2/64 dev eth0",
        *["address add 10.20.%d.%d/32 dev eth0" % each for each in numbers[:400]],
        *["route add 10.30.%d.%d via 10.9.8.1" % each for each in numbers],
        *["route add fd03::%x via fd00::1 dev eth0" % (number + 1) for number in range(MANY)],
        *[
            "neighbour add 10.40.%d.%d lladdr 02:00:00:00:%02x:%02x dev eth0 nud permanent"
            % (each + each)
            for each in numbers
        ],
    )


def test_lists_of_several_datagrams_are_whole(shaped):
    pod = shaped("")
    many(pod)
    (uplink,) = observed(pod, "eth0")
    listed = expected(pod, "eth0")
    assert [len(listed[key]) for key in ("addresses", "routes", "neighbours")] == [
        402,
        2 * MANY + 2,
        MANY,
    ]
    check(uplink, listed)


# Some of each go and come again, with a pause now and then.
CHURN = """
import subprocess, time
batch = subprocess.Popen(["ip", "-force", "-batch", "-"], stdin=subprocess.PIPE,
                         stderr=subprocess.DEVNULL)
lines = b"".join([line % number + b"\\n" for number in range(1, 40) for line in (
    b"route del 10.30.0.%d", b"route add 10.30.0.%d via 10.9.8.1",
    b"route del fd03::%x", b"route add fd03::%x via fd00::1 dev eth0",
    b"neighbour del 10.40.0.%d dev eth0",
    b"neighbour add 10.40.0.%d lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
    b"address del 10.20.0.%d/32 dev eth0", b"address add 10.20.0.%d/32 dev eth0")])
print("ready", flush=True)
pause = 0.0
while True:
    batch.stdin.write(lines)
    batch.stdin.flush()
    pause = (pause + 0.07) % 0.3
    time.sleep(pause)
"""

READINGS = 20


def test_while_a_pod_changes_what_stays_is_never_missing(shaped):
    """A list is whole, or the reading is an error."""
    pod = shaped("")
    many(pod)
    pod.child(CHURN)
    numbers = [(number >> 8, number & 255) for number in range(40, MANY)]
    staying = {"10.30.%d.%d" % each for each in numbers}
    staying |= {"fd03::%x" % number for number in range(41, MANY)}
    near = {"10.40.%d.%d" % each for each in numbers}
    own = {"10.20.%d.%d" % each for each in numbers if each < (1, 144)}
    seen = 0
    for _ in range(READINGS):
        try:
            (uplink,) = observed(pod, "eth0")
        except Error as error:
            assert "changed each time" in str(error)
        else:
            seen += 1
            missing = [
                staying - {route.dst for route in uplink.routes},
                near - {each.dst for each in uplink.neighbours},
                own - {each.local for each in uplink.addresses},
            ]
            assert missing == [set(), set(), set()]
    assert seen


def test_the_socket_is_in_no_group_afterwards(shaped):
    pod = shaped("")
    many(pod)
    with Namespace(pod.path) as namespace, Connection(namespace, groups=1) as connection:
        links = {link.ifname: link for link in shapes.list_links(connection)}
        uplinks.observe_uplinks(connection, [links["eth0"]], {})
        pod.ip("link", "set", "net1", "mtu", "1400")
        assert not connection.receive_events(0.2)
        assert connection.groups == 1

# SPDX-License-Identifier: Apache-2.0
"""nlraw.uplinks: a list of several datagrams is read until two readings are alike, or an error."""

import pytest

from lib import build, lists
from nlraw import uapi, uplinks
from nlraw.errors import Error, Refused
from nlraw.exchange import Reply

NAMES = {2: "eth0", 3: "net1"}
ETH0, NET1 = [
    build.as_link(build.link_payload(index, NAMES[index], kind="veth", mode=None))
    for index in (2, 3)
]

ADDRESS = lists.address_message("10.9.8.2", 24)
ROUTE = lists.route_message(gateway="10.9.8.1")
BY_OBJECT = lists.route_message(oif=None, object_id=9)
OBJECT = lists.object_message(9, 2, "10.9.8.1")
NEAR = lists.neighbour_message("10.9.8.1")


KINDS = {
    uapi.RTM_GETADDR: "addresses",
    uapi.RTM_GETROUTE: "routes",
    uapi.RTM_GETNEXTHOP: "objects",
    uapi.RTM_GETNEIGH: "neighbours",
}


class Kernel:
    """Answers lists: for each reading those of one row, the last row again and again.

    A row has ``addresses``, ``routes``, ``objects`` and ``neighbours``: messages, each of which
    came in a datagram of its own. ``torn`` are the numbers of readings during which an event came.
    """

    def __init__(self, *rows, torn=(), error=None):
        self.rows = rows
        self.torn = torn
        self.error = error
        self.reading = -1
        self.asked = []
        self.groups = self.joined = uapi.RTMGRP_LINK | uapi.RTMGRP_TC
        self.is_torn = False

    def ask(self, request):
        kind = KINDS[request.type]
        if kind == "addresses":
            self.reading += 1
        self.asked.append((kind, self.joined))
        self.is_torn |= self.reading in self.torn
        reply = Reply(request)
        reply.error = self.error
        reply.messages += self.rows[min(self.reading, len(self.rows) - 1)].get(kind, [])
        return [reply]

    def begin_look(self):
        self.is_torn = False
        self.joined = self.groups

    def set_groups(self, groups):
        self.groups = groups
        self.joined = 0


def observe(kernel, *links):
    found = uplinks.observe_uplinks(kernel, links or (ETH0,), NAMES)
    assert kernel.groups == uapi.RTMGRP_LINK | uapi.RTMGRP_TC
    return found


def together(*messages):
    """The same messages in one datagram."""
    datagram = b"".join(build.wire.message(each[0], each[1], 1, each[4][16:]) for each in messages)
    return build.wire.messages(datagram)


WHOLE = {"addresses": [ADDRESS], "routes": [ROUTE], "neighbours": [NEAR]}
CUT = dict(WHOLE, routes=[ROUTE, lists.route_message("10.9.0.0/16")])


def test_lists_of_one_datagram_are_read_once():
    kernel = Kernel(WHOLE, torn=[0])  # an event beside a list of one datagram is no matter
    (uplink,) = observe(kernel)
    assert (uplink.ifname, uplink.local, uplink.gateway) == ("eth0", "10.9.8.2", "10.9.8.1")
    assert [len(each) for each in (uplink.addresses, uplink.routes, uplink.neighbours)] == [1, 1, 1]
    assert [kind for kind, _ in kernel.asked] == ["addresses", "routes", "neighbours"]
    row = {"routes": together(*CUT["routes"])}
    kernel = Kernel(row)
    (uplink,) = observe(kernel)
    assert len(uplink.routes) == 2 and len(kernel.asked) == 3


def test_the_neighbours_of_each_uplink_are_a_list_of_their_own():
    kernel = Kernel(WHOLE)
    found = observe(kernel, ETH0, NET1)
    assert [(each.ifname, each.local) for each in found] == [("eth0", "10.9.8.2"), ("net1", None)]
    assert [len(each.neighbours) for each in found] == [1, 0]
    assert [kind for kind, _ in kernel.asked] == ["addresses", "routes"] + 2 * ["neighbours"]
    assert observe(Kernel(WHOLE), ETH0)[0] == found[0]


def test_no_uplink_no_facts():
    kernel = Kernel(WHOLE)
    assert uplinks.observe_uplinks(kernel, (), NAMES) == []
    assert kernel.asked == []


@pytest.mark.parametrize("kind", ["addresses", "routes", "neighbours", "objects"])
def test_a_longer_list_is_read_until_two_readings_in_a_row_are_alike(kind):
    row = {"addresses": [ADDRESS], "routes": [BY_OBJECT], "objects": [OBJECT], "neighbours": [NEAR]}
    row[kind] = row[kind] + [build.received(uapi.NLMSG_NOOP, b"")]
    kernel = Kernel(row)
    (uplink,) = observe(kernel)
    assert kernel.reading == 2 and uplink.gateway == "10.9.8.1"
    groups = {joined for _, joined in kernel.asked[4:]}
    assert groups == {uplinks.GROUPS | uapi.RTMGRP_LINK | uapi.RTMGRP_TC}
    assert kernel.joined == 0


def test_readings_that_differ_are_not_believed():
    shorter = {"routes": [ROUTE, ROUTE]}
    kernel = Kernel(CUT, shorter, CUT, shorter, CUT, CUT)
    (uplink,) = observe(kernel)
    assert kernel.reading == 5 and len(uplink.routes) == 2


def test_a_reading_during_which_an_event_came_is_not_believed():
    kernel = Kernel(CUT, torn=[1, 3])
    observe(kernel)
    assert kernel.reading == 5


def test_if_no_two_readings_are_alike_it_is_an_error():
    other = {"routes": [ROUTE, ROUTE]}
    kernel = Kernel(*[CUT, other] * uplinks.ROUNDS)
    with pytest.raises(Error) as caught:
        observe(kernel, ETH0, NET1)
    assert str(caught.value) == (
        "read uplink eth0, net1: its addresses, routes or neighbours changed each time they were "
        "listed; try again"
    )
    assert kernel.reading == uplinks.ROUNDS
    assert kernel.groups == uapi.RTMGRP_LINK | uapi.RTMGRP_TC
    with pytest.raises(Error):
        observe(Kernel(CUT, torn=range(99)))


def test_a_route_to_an_object_that_is_not_listed_is_read_again():
    row = {"routes": [BY_OBJECT]}
    kernel = Kernel(row, row, dict(row, objects=[OBJECT]))
    (uplink,) = observe(kernel)
    assert kernel.reading == 3 and uplink.gateway == "10.9.8.1"
    with pytest.raises(Error):
        observe(Kernel(row))


def test_a_refusal_is_raised():
    with pytest.raises(Refused):
        observe(Kernel(WHOLE, error=Refused(1, "no", "list addresses", "")))

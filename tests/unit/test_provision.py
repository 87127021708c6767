# SPDX-License-Identifier: Apache-2.0
"""nlraw.provision without a kernel: what it refuses, and where the uplink's redirect goes."""

import pytest

from lib import build
from lib.random_pods import CLSACT_IN, CLSACT_OUT
from nlraw import provision, tc, uapi
from nlraw.errors import Invalid

UPLINK = build.as_link(build.link_payload(2, "eth0", kind="veth"))
TAP = build.as_link(build.link_payload(4))


@pytest.mark.parametrize(
    "arguments, told",
    [
        ({"uplink": "none"}, "check uplink none: a setup needs an uplink"),
        ({"tap": "tap%d"}, "check name tap%d: this cannot be the name of a new interface"),
        ({"owner": -1}, "check ID -1: this cannot be a user or group"),
        ({"group": 0xFFFFFFFF}, "check ID 4294967295: this cannot be a user or group"),
        (
            {"address": "10.9.8.1"},
            "check address 10.9.8.1: this is not an address with a prefix length, such as 10.9.8.1/24",
        ),
        (
            {"address": "10.9.8.1/33"},
            "check address 10.9.8.1/33: this is not an address with a prefix length, such as "
            "10.9.8.1/24",
        ),
        ({"address": "0.0.0.0/0"}, "check address 0.0.0.0/0: no device can have this address"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused_before_anything_is_looked_at(arguments, told):
    with pytest.raises(Invalid) as caught:
        provision.setup("/nonexistent/netns", **arguments)
    assert str(caught.value) == told
    assert caught.value.report is None


def priority_beside(incoming, outgoing=()):
    """The priority of the redirect on a clsact whose two sides use those priorities."""
    qdisc = build.as_qdisc(build.qdisc_payload(2, "clsact"))
    setup = provision._Setup(None, None, orphans.Target("tap*", "eth0"), None)
    setup.found.qdiscs = [qdisc]
    setup.found.hooks = [
        orphans.Hook(qdisc, parent, [build.Thing(priority=number) for number in numbers])
        for parent, numbers in ((CLSACT_IN, incoming), (CLSACT_OUT, outgoing))
    ]
    request = setup.redirect(TAP, UPLINK)
    return tc.Filter(build.received(uapi.RTM_NEWTFILTER, request.payload)).priority


@pytest.mark.parametrize(
    "incoming, outgoing, priority",
    [
        ([], [], 0),  # the kernel picks one
        ([0xC000], [], 0xBFFF),
        ([1, 7], [], 0xC000),
        ([0xC000], [0xBFFF], 0xBFFE),
        ([0x8000], [0x7FFF], 0x7FFE),
        ([0x8000], range(2, 0x8000), 1),
    ],
)
def test_the_redirect_goes_ahead_of_others_where_neither_side_uses_the_priority(
    incoming, outgoing, priority
):
    assert priority_beside(incoming, outgoing) == priority


def test_where_every_priority_is_used_the_kernel_is_asked_for_one():
    assert priority_beside([0x8000], range(1, 0x8000)) == 0

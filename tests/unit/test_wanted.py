# SPDX-License-Identifier: Apache-2.0
"""nlraw.wanted: what a caller of a setup may want, and the names that he did not give."""

import os

import pytest

from nlraw.errors import Invalid
from nlraw.verdict import Target
from nlraw.wanted import Wanted, count_up

NICS = ("eth0", "net1")
CIDR = "this is not an address with a prefix length, such as 10.9.8.1/24"
COUNT = "there must be one name for each uplink, or one to count up: %d for %d"
UNFINDABLE = "no cleanup would find it: --match must match it, --exclude and --uplink must not"


def wanted(uplink="eth0", match="tap*_urunc", exclude=(), **options):
    return Wanted(Target(match, uplink, exclude), **options)


def test_by_default_one_tap_is_wanted_for_the_caller():
    found = wanted()
    assert (found.names, found.address, found.multi_queue) == (("tap0_urunc",), None, False)
    assert (found.owner, found.group) == (os.getuid(), os.getgid())


@pytest.mark.parametrize(
    "options, ids",
    [
        ({"owner": 5}, (5, None)),
        ({"group": 6}, (os.getuid(), 6)),
        ({"owner": 0, "group": 0xFFFFFFFE}, (0, 0xFFFFFFFE)),
    ],
)
def test_whoever_names_an_owner_gets_no_group_unless_he_names_one(options, ids):
    found = wanted(**options)
    assert (found.owner, found.group) == ids


@pytest.mark.parametrize(
    "text, address",
    [
        ("10.9.8.1/24", (b"\x0a\x09\x08\x01", 24)),
        ("10.9.8.1/0", (b"\x0a\x09\x08\x01", 0)),
        ("fd00::1/128", (b"\xfd" + bytes(14) + b"\x01", 128)),
    ],
)
def test_an_address_is_bytes_and_a_prefix_length(text, address):
    assert wanted(address=text).address == address


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "uplink, tap, names",
    [
        (NICS, "tap0_urunc", ["tap0_urunc", "tap1_urunc"]),
        (NICS, ["tap7_urunc"], ["tap7_urunc", "tap8_urunc"]),
        (NICS, ["tap7_urunc", "tap3_urunc"], ["tap7_urunc", "tap3_urunc"]),
        (["eth0"], ["tap_urunc"], ["tap_urunc"]),
        ("auto", "tap4_urunc", ["tap4_urunc"]),
        ("none", ("tap4_urunc",), ["tap4_urunc"]),
    ],
)
def test_each_uplink_has_a_name(uplink, tap, names):
    assert list(wanted(uplink, tap=tap).names) == names


@pytest.mark.parametrize(
    "name, number, counted",
    [
        ("tap0_urunc", 0, "tap0_urunc"),
        ("tap0_urunc", 12, "tap12_urunc"),
        ("tap9_urunc", 1, "tap10_urunc"),
        ("vm2tap0", 1, "vm3tap0"),
        ("tap00", 1, "tap01"),
        ("XtapX0", 1, "XtapX1"),
        ("tap09", 1, "tap10"),
        ("7", 3, "10"),
        ("tap\u0663_0", 1, "tap\u0663_1"),  # a digit, but not one of those that a glob's user means
    ],
)
def test_the_first_number_of_a_name_is_counted_up(name, number, counted):
    assert count_up(name, number) == counted


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"uplink": ["eth0", "net1", "eth0"]}, "check uplink eth0: an uplink has one TAP: name it"),
        (
            {"tap": "tap%d_urunc"},
            "check name tap%d_urunc: the name of a new interface cannot have a %",
        ),
        ({"tap": "x" * 16}, "check name %s: an interface name has at most 15 bytes" % ("x" * 16)),
        (
            {"tap": ["tap0_urunc", "tap1_urunc"]},
            "check TAP tap0_urunc, tap1_urunc: " + COUNT % (2, 1),
        ),
        ({"tap": ()}, "check TAP: " + COUNT % (0, 1)),
        (
            {"uplink": NICS, "tap": ["tap1_urunc", "tap2_urunc", "tap3_urunc"]},
            "check TAP tap1_urunc, tap2_urunc, tap3_urunc: " + COUNT % (3, 2),
        ),
        (
            {"uplink": "none", "tap": ["tap0_urunc", "tap1_urunc"]},
            "check TAP tap0_urunc, tap1_urunc: " + COUNT % (2, 1),
        ),
        (
            {"uplink": NICS, "tap": ["tap0_urunc", "tap0_urunc"]},
            "check TAP tap0_urunc: two TAPs cannot have one name",
        ),
        (
            {"uplink": NICS, "tap": "tap_urunc"},
            "check TAP tap_urunc: it has no number to count up: name every TAP",
        ),
        (
            {"uplink": NICS, "tap": "tap9_abcdefghij", "match": "*"},
            "check name tap10_abcdefghij: an interface name has at most 15 bytes",
        ),
        ({"tap": "vm0"}, "check TAP vm0: " + UNFINDABLE),
        ({"uplink": NICS, "tap": ["tap0_urunc", "vm0"]}, "check TAP vm0: " + UNFINDABLE),
        ({"uplink": NICS, "match": "tap0*"}, "check TAP tap1_urunc: " + UNFINDABLE),
        ({"uplink": NICS, "exclude": "tap1*"}, "check TAP tap1_urunc: " + UNFINDABLE),
        ({"uplink": NICS, "tap": ["net1", "tap0"], "match": "*"}, "check TAP net1: " + UNFINDABLE),
        ({"tap": 7}, "check arguments 7: a string or a list of strings is needed"),
        ({"owner": -1}, "check ID -1: an ID is a number from 0 to 4294967294"),
        ({"group": 0xFFFFFFFF}, "check ID 4294967295: an ID is a number from 0 to 4294967294"),
        ({"address": "10.9.8.1"}, "check address 10.9.8.1: " + CIDR),
        ({"address": "10.9.8.1/33"}, "check address 10.9.8.1/33: " + CIDR),
        ({"address": "10.9.8.1/1234"}, "check address 10.9.8.1/1234: " + CIDR),
        ({"address": "10.9.8.1/0024"}, "check address 10.9.8.1/0024: " + CIDR),
        ({"address": "10.9.8.1/x"}, "check address 10.9.8.1/x: " + CIDR),
        ({"address": "10.9.8.1\0/24"}, "check address 10.9.8.1\0/24: " + CIDR),
        ({"address": "0.0.0.0/0"}, "check address 0.0.0.0/0: no device can have this address"),
        (
            {"uplink": NICS, "address": "10.9.8.1/24"},
            "check address 10.9.8.1/24: only a TAP that is the only one can have an address",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, words):
    with pytest.raises(Invalid) as caught:
        wanted(**arguments)
    assert str(caught.value).startswith(words)

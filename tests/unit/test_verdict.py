# SPDX-License-Identifier: Apache-2.0
"""nlraw.verdict: which links are orphans, and which links a command is about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import build, golden
from nlraw import link, uapi, verdict
from nlraw.errors import Invalid
from nlraw.verdict import (
    IN_USE,
    ORPHAN,
    Target,
    describe_tap,
    evidence,
    is_fresh,
    is_tap,
    judge,
    listed,
    matches,
)

# ---------------------------------------------------------------- judge


JUDGED = {
    "tap-fresh": ORPHAN,
    "tap-held-up": IN_USE,
    "tap-held-down": IN_USE,
    "tap-released-up": ORPHAN,
    "tap-released-down": ORPHAN,
    "tap-just-released": ORPHAN,  # whatever RUNNING says
    "tap-just-attached": IN_USE,  # whatever RUNNING says
    "tap-queues-attached": IN_USE,
    "tap-queues-half-detached": IN_USE,
    "tap-queues-detached": IN_USE,
    "tap-queues-released": ORPHAN,
    "tun-mode": None,
    "veth": None,
    "bridge": None,
    "macvtap": None,
}


def captured(name):
    (found,) = link.links(golden.messages(name))
    return found


@golden.needs_little_endian
@pytest.mark.parametrize("name", sorted(JUDGED))
def test_the_verdict_on_a_captured_link(name):
    assert judge(captured(name)) == JUDGED[name]


@golden.needs_little_endian
@pytest.mark.parametrize("name", sorted(JUDGED))
def test_only_the_orphan_that_was_never_opened_again_is_fresh(name):
    assert describe_tap(captured(name)).fresh is (name == "tap-fresh")


UP, RUNNING, LOWER_UP = uapi.IFF_UP, uapi.IFF_RUNNING, uapi.IFF_LOWER_UP
OPER_DOWN, OPER_UP = 2, uapi.IF_OPER_UP


@pytest.mark.parametrize(
    "facts, verdict",
    [
        ({"carrier": 1}, IN_USE),
        ({"carrier": 1, "flags": 0}, IN_USE),
        ({"carrier": 0}, ORPHAN),
        ({"carrier": 0, "flags": 0}, ORPHAN),
        ({"carrier": 0, "flags": UP | RUNNING | LOWER_UP, "operstate": OPER_UP}, ORPHAN),
        ({"carrier": 0, "queues": 1}, IN_USE),
        ({"carrier": 0, "disabled_queues": 1}, IN_USE),
        ({"carrier": 0, "queues": 0, "disabled_queues": 0}, ORPHAN),
        ({"carrier": None, "flags": UP}, ORPHAN),
        ({"carrier": None, "flags": UP, "operstate": OPER_DOWN}, ORPHAN),
        ({"carrier": None, "flags": UP | RUNNING}, IN_USE),
        ({"carrier": None, "flags": UP | LOWER_UP}, IN_USE),
        ({"carrier": None, "flags": UP, "operstate": OPER_UP}, IN_USE),
        ({"carrier": None, "flags": 0}, IN_USE),
        ({"carrier": None, "flags": UP, "queues": 1}, IN_USE),
        ({"carrier": 0, "mode": uapi.IFF_TUN}, None),
        ({"carrier": 0, "mode": None}, None),
        ({"carrier": 0, "kind": "veth"}, None),
        ({"carrier": 0, "kind": None}, None),
        ({"carrier": 0, "kind": ""}, None),
    ],
)
def test_the_verdict_by_its_evidence(facts, verdict):
    assert judge(build.as_link(build.link_payload(**facts))) == verdict


@pytest.mark.parametrize(
    "count, carrier, fresh", [(0, 0, True), (None, 0, True), (1, 0, False), (0, 1, False)]
)
def test_fresh_is_an_orphan_whose_carrier_never_came_on(count, carrier, fresh):
    assert (
        describe_tap(build.as_link(build.link_payload(up_count=count, carrier=carrier))).fresh
        is fresh
    )


@pytest.mark.parametrize(
    "facts, words",
    [
        ({"carrier": 1}, "carrier on"),
        (
            {"carrier": 0, "queues": 1, "disabled_queues": 2},
            "carrier off, queues: 1 attached, 2 detached",
        ),
        ({"carrier": 0, "queues": 1}, "carrier off, queues: 1 attached, 0 detached"),
        (
            {"carrier": 0, "queues": 0, "disabled_queues": 1},
            "carrier off, queues: 0 attached, 1 detached",
        ),
        ({"carrier": 0, "flags": 0}, "carrier off"),
        ({"carrier": None, "flags": UP}, "no carrier to read"),
        ({"carrier": 1, "kind": "veth"}, "carrier on"),
        ({"carrier": None, "flags": 0}, "no carrier to read, down"),
    ],
)
def test_the_evidence_in_words(facts, words):
    found = build.as_link(build.link_payload(**facts))
    assert evidence(found) == words
    assert evidence(found, ["eth0", "vlan7"]) == words + ", eth0, vlan7 stacked on it"


@pytest.mark.parametrize("more, words", [(-1, ""), (0, ""), (1, " and 1 more"), (2, " and 2 more")])
def test_of_many_names_the_first_ten_are_listed(more, words):
    names = ["tap%d" % number for number in range(10 + more)]
    assert listed(names) == ", ".join(names[:10]) + words
    assert verdict.NAMES == 10


@pytest.mark.parametrize("facts", [{"carrier": 0}, {"carrier": None, "flags": UP}])
def test_a_tap_with_a_device_stacked_on_it_is_in_use(facts):
    found = build.as_link(build.link_payload(**facts))
    assert (judge(found), judge(found, ["eth0"])) == (ORPHAN, IN_USE)
    assert describe_tap(found, ["eth0"]).verdict == IN_USE


def test_a_device_stacked_on_what_is_no_tap_makes_it_no_candidate():
    assert judge(build.as_link(build.link_payload(kind="veth")), ["mac0"]) is None


@pytest.mark.parametrize(
    "facts, found", [({}, True), ({"mode": uapi.IFF_TUN}, False), ({"kind": "veth"}, False)]
)
def test_a_tap_is_a_tun_device_in_tap_mode(facts, found):
    assert is_tap(build.as_link(build.link_payload(**facts))) is found


def test_a_tap_is_described_with_its_names_for_what_the_kernel_numbers():
    facts = {"carrier": None, "operstate": OPER_UP, "flags": UP | RUNNING, "up_count": 0}
    found = build.as_link(build.link_payload(7, "tap3_urunc", **facts))
    described = describe_tap(found)
    assert (described.ifname, described.ifindex, described.verdict) == ("tap3_urunc", 7, IN_USE)
    assert (described.carrier, described.operstate, described.flags) == (
        None,
        "UP",
        ("UP", "RUNNING"),
    )
    assert (described.fresh, described.deleted, described.holders) == (False, False, None)
    assert describe_tap(found, is_deleted=True).deleted is True


# ---------------------------------------------------------------- matches


@pytest.mark.parametrize(
    "pattern, name",
    [
        ("tap*_urunc", "tap0_urunc"),
        ("tap*_urunc", "tap_urunc"),
        ("tap*_urunc", "tap_urunc_urunc"),
        ("tap?", "tap0"),
        ("*", ""),
        ("**", "x"),
        ("", ""),
        ("a*b*c", "a-b-b-c"),
        ("*a", "aaa"),
        ("t[0]", "t[0]"),
        ("t.p", "t.p"),
        ("*\udcff", "tap\udcff"),
    ],
)
def test_names_that_fit(pattern, name):
    assert matches(pattern, name)


@pytest.mark.parametrize(
    "pattern, name",
    [
        ("tap*_urunc", "tap0_urunc2"),
        ("tap*_urunc", "xtap0_urunc"),
        ("tap*_urunc", "tap0"),
        ("tap*_urunc", "TAP0_urunc"),
        ("tap?", "tap"),
        ("tap?", "tap10"),
        ("", "x"),
        ("t[0]", "t0"),
        ("t.p", "tap"),
        ("a*b", "a\nc"),
        ("*ab*ba*", "xaba"),
        ("a*a", "a"),
        ("ab*ba", "aba"),
    ],
)
def test_names_that_do_not_fit(pattern, name):
    assert not matches(pattern, name)


def matches_by_definition(pattern, name):
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(matches_by_definition(pattern[1:], name[skip:]) for skip in range(len(name) + 1))
    return (
        bool(name) and pattern[0] in ("?", name[0]) and matches_by_definition(pattern[1:], name[1:])
    )


@build.patient
@given(st.text("ab*?", max_size=7), st.text("ab*?", max_size=7))
def test_a_name_fits_if_the_definition_says_so(pattern, name):
    assert matches(pattern, name) == matches_by_definition(pattern, name)


def test_a_pattern_of_many_stars_is_no_burden():
    assert not matches("*a" * 500, "a" * 499 + "b" * 500)


# ---------------------------------------------------------------- targets


def test_the_names_and_words_of_the_contract():
    assert (verdict.MATCH, verdict.TAP, verdict.UPLINK) == ("tap*_urunc", "tap0_urunc", "eth0")
    assert (IN_USE, ORPHAN) == ("in-use", "orphan")


def test_what_is_not_said_is_to_act_on_all():
    target = Target()
    assert (target.match, target.exclude, target.uplinks) == (("tap*_urunc",), (), ("eth0",))
    assert (target.spare_fresh, target.keep_in_use) == (False, False)


NO_NAME = "no interface has such a name: empty, . or .., or with a slash, colon or white space"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"match": ""}, 'check pattern "": a pattern cannot be empty'),
        ({"match": ["tap*", ""]}, 'check pattern "": a pattern cannot be empty'),
        ({"exclude": ""}, 'check pattern "": a pattern cannot be empty'),
        ({"match": []}, "check arguments: at least one pattern and one uplink are needed"),
        ({"uplink": ()}, "check arguments: at least one pattern and one uplink are needed"),
        ({"uplink": ""}, 'check name "": ' + NO_NAME),
        (
            {"uplink": "a" * 16},
            "check name aaaaaaaaaaaaaaaa: an interface name has at most 15 bytes, this one has 16",
        ),
        ({"uplink": "a/b"}, "check name a/b: " + NO_NAME),
        ({"uplink": ["eth0", "a/b"]}, "check name a/b: " + NO_NAME),
        (
            {"uplink": ["eth0", "auto"]},
            'check uplink eth0, auto: "auto" and "none" cannot be combined with other names',
        ),
        (
            {"uplink": ["none", "eth0"]},
            'check uplink none, eth0: "auto" and "none" cannot be combined with other names',
        ),
        ({"match": 3}, "check arguments 3: a string or a list of strings is needed"),
        (
            {"exclude": ["a", 3]},
            "check arguments ['a', 3]: a string or a list of strings is needed",
        ),
        ({"uplink": b"eth0"}, "check arguments b'eth0': a string or a list of strings is needed"),
    ],
)
def test_an_impossible_target_is_refused(arguments, words):
    with pytest.raises(Invalid) as caught:
        Target(**arguments)
    assert str(caught.value) == words


@pytest.mark.parametrize("pattern", ["tap[0-9]_urunc", "tap0]", "{tap0,tap1}_urunc", "tap}"])
@pytest.mark.parametrize("option", ["match", "exclude"])
def test_a_pattern_that_a_shell_would_read_otherwise_is_refused(option, pattern):
    with pytest.raises(Invalid) as caught:
        Target(**{option: ["tap*", pattern]})
    assert (caught.value.step, caught.value.object) == ("check pattern", pattern)
    assert caught.value.message == (
        "only * and ? are special in a pattern; give several patterns instead of [] and {}"
    )


@pytest.mark.parametrize(
    "name, fits",
    [
        ("tap0_urunc", True),
        ("vm0", True),
        ("vm10", False),
        ("tap9_urunc", False),  # left alone
        ("tap_paused_urunc", False),
        ("tap5_urunc", False),  # an uplink
        ("tap6_urunc", False),
        ("eth0", False),
    ],
)
def test_what_fits_is_matched_not_excluded_and_no_uplink(name, fits):
    target = Target(["tap*_urunc", "vm?"], ["tap5_urunc", "tap6_urunc"], ("tap9_urunc", "*paused*"))
    assert target.fits(name) is fits


@pytest.mark.parametrize(
    "uplink, uplinks, name",
    [
        ("eth0", ("eth0",), "eth0"),
        (["eth0", "net1"], ("eth0", "net1"), "eth0"),
        ("auto", (), None),
        ("none", (), None),
        (["none"], (), None),
    ],
)
def test_uplinks_are_names_and_auto_and_none_are_not(uplink, uplinks, name):
    target = Target(uplink=uplink)
    assert (target.uplinks, target.uplink_name) == (uplinks, name)
    assert target.uplink == (uplink if isinstance(uplink, str) else uplink[0])


@pytest.mark.parametrize(
    "spare_fresh, up_count, spares",
    [(True, 0, True), (True, None, True), (True, 1, False), (False, 0, False), (False, 1, False)],
)
def test_only_a_fresh_orphan_is_spared_and_only_if_that_is_asked_for(spare_fresh, up_count, spares):
    orphan = build.as_link(build.link_payload(up_count=up_count))
    assert is_fresh(orphan) is (not up_count)
    assert Target(spare_fresh=spare_fresh).spares(orphan) is spares


def test_the_parts_of_a_name_do_not_overlap():
    assert not matches("*ab*b", "ab")
    assert matches("*ab*b", "abb")


def test_letters_are_no_special_characters():
    assert Target("tapX*").fits("tapX0")

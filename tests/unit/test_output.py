# SPDX-License-Identifier: Apache-2.0
"""nlraw.output: reports as text and as JSON, warnings, and the streams that they are printed on."""

import errno
import json
import posix
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nlraw
from lib import build
from lib.reports import a_report, a_tap
from nlraw import output, text
from nlraw.guest import CreatedTap, Pair, Uplink
from nlraw.report import Holder, Ignored, TcObject

TAP = nlraw.Tap(
    ifname="tap0_urunc",
    ifindex=4,
    verdict="orphan",
    fresh=False,
    carrier=False,
    operstate="DOWN",
    flags=("BROADCAST", "MULTICAST", "UP"),
    deleted=True,
)
QDISC = nlraw.TcObject(dev="eth0", object="qdisc", kind="ingress")
REPORT = nlraw.Report(
    netns="/run/netns/pod1",
    uplink="eth0",
    outcome="cleaned",
    taps=(TAP,),
    tc_removed=(QDISC,),
    error=None,
)
NAME = "\x1b[31mtap\udcff"
ESCAPED = "\\x1b[31mtap\\xff"


# ---------------------------------------------------------------- holders


def test_holders_in_json():
    holders = (Holder(pid=7, comm="a\udcff"), Holder(pid=None, comm=None))
    shown = json.loads(output.in_json(a_report(taps=(a_tap(holders=holders), a_tap()))))
    assert shown["taps"][0]["holders"] == [
        {"pid": 7, "comm": "a\udcff"},
        {"pid": None, "comm": None},
    ]
    assert "holders" not in shown["taps"][1]


# ---------------------------------------------------------------- failures


def test_the_reason_of_a_failure_stands_beside_the_word():
    error = nlraw.Error("no \x1b", "open namespace", "pod1")
    head = "/run/netns/pod1: failed: open namespace pod1: no \\x1b"
    made = nlraw.Setup(
        netns="/run/netns/pod1",
        outcome="failed",
        cleanup=a_report("failed", error=error),
        tap=None,
        uplink=None,
        error=error,
        ahead=(),
    )
    assert text.setup_in_text(made) == head  # and not once more for the cleanup
    other = made.replace(cleanup=a_report("failed", error=nlraw.Error("other")))
    assert text.setup_in_text(other).splitlines() == [
        head,
        "  before that: /run/netns/pod1: failed: other",
    ]


def test_a_setup_that_met_a_tap_in_use_says_so_once():
    error = nlraw.TapInUse("in use (carrier on), nothing was changed", "clean up", "tap0_urunc")
    seen = a_report("in-use", error=error, taps=(a_tap(verdict="in-use"),))
    made = nlraw.Setup(
        netns="/run/netns/pod1",
        outcome="in-use",
        cleanup=seen,
        tap=None,
        uplink=None,
        error=error,
        ahead=(),
    )
    assert text.setup_in_text(made).splitlines() == [
        "/run/netns/pod1: in use, nothing changed",
        "  before that: %s  tap0_urunc  in-use  left alone" % seen.netns,
    ]


def test_what_a_setup_s_cleanup_saw_is_shown_though_nothing_was_to_be_done():
    ignored = (Ignored(ifname="tap0_kata", kind="macvtap"),)
    made = nlraw.Setup(
        netns="current",
        outcome="created",
        cleanup=a_report(ignored=ignored),
        tap=None,
        uplink=None,
        error=None,
        ahead=(),
    )
    assert text.setup_in_text(made).endswith("  tap0_kata  macvtap  not judged")
    assert text.setup_in_text(made.replace(cleanup=a_report())) == "current: created"


NIC = Uplink(
    ifname="eth\x1b0",
    ifindex=2,
    address="72:00:00:00:00:02",
    mtu=65535,
    local=None,
    prefixlen=None,
    gateway=None,
)
NEW_TAP = CreatedTap(ifname="tap0_urunc", ifindex=5, address="72:00:00:00:00:05", mtu=65521)
FACTS = "ifname tap0_urunc, ifindex 5, address 72:00:00:00:00:05, mtu 65521"


def a_setup(*pairs, ahead=()):
    return nlraw.Setup(
        netns="pod1",
        outcome="created",
        cleanup=a_report(),
        tap=pairs[0].tap,
        uplink=pairs[0].uplink,
        pairs=pairs,
        error=None,
        ahead=ahead,
    )


def test_a_setup_in_text_has_a_line_for_each_tap_and_for_its_uplink():
    other = NEW_TAP.replace(ifname="tap1_urunc", multi_queue=True)
    made = a_setup(Pair(tap=NEW_TAP, uplink=NIC), Pair(tap=other, uplink=None))
    assert text.setup_in_text(made).splitlines() == [
        "pod1: created",
        "  TAP     " + FACTS,
        "  uplink  ifname eth\\x1b0, ifindex 2, address 72:00:00:00:00:02, mtu 65535",
        "  TAP     " + FACTS.replace("tap0", "tap1") + ", multi_queue",
        "  uplink  none",
    ]


def test_a_setup_in_text_has_what_a_guest_needs_in_the_words_of_ip():
    address = nlraw.GuestAddress(
        family="inet",
        local="10.9.8.2",
        prefixlen=0,
        address=None,
        broadcast=None,
        scope="global",
    )
    hop = nlraw.NextHop(gateway="10.9.8.1", dev="eth\x1b0", weight=1, onlink=False)
    route = nlraw.GuestRoute(
        family="inet",
        type="unicast",
        dst="default",
        gateway=None,
        protocol="kernel",
        scope="global",
        src=None,
        metric=None,
        mtu=1450,
        onlink=False,
        nexthops=(hop,),
    )
    near = nlraw.GuestNeighbour(dst="10.9.8.1", lladdr="02:00:00:00:00:01")
    nic = NIC.replace(
        local="10.9.8.2", prefixlen=0, addresses=(address,), routes=(route,), neighbours=(near,)
    )
    lines = text.setup_in_text(a_setup(Pair(tap=NEW_TAP, uplink=nic))).splitlines()
    assert lines[2].endswith(", mtu 65535, local 10.9.8.2, prefixlen 0")
    assert lines[3:] == [
        "    address    10.9.8.2/0",
        "    route      default proto kernel mtu 1450 nexthop via 10.9.8.1 dev eth\\x1b0 weight 1",
        "    neighbour  10.9.8.1 lladdr 02:00:00:00:00:01",
    ]


@pytest.mark.parametrize(
    "facts, words",
    [
        ({"local": "10.9.8.2"}, ""),
        (
            {"addresses": ("an IPv6 one",)},
            "nlraw: pod1: eth0 has no IPv4 address, so the guest gets none\n",
        ),
        ({}, "nlraw: pod1: eth0 has no address, so the guest gets none\n"),
    ],
)
def test_an_uplink_without_an_ipv4_address_is_said_on_stderr(capsys, facts, words):
    nic = NIC.replace(ifname="eth0", mtu=1500, **facts)
    output.complain_about_setup(a_setup(Pair(tap=NEW_TAP, uplink=nic)))
    assert capsys.readouterr() == ("", words)


def test_what_the_caller_of_a_setup_has_to_know_is_said_on_stderr(capsys):
    foreign = TcObject(dev="eth0", object="filter", kind="bpf")
    made = a_setup(
        Pair(tap=NEW_TAP, uplink=NIC.replace(local="10.9.8.2")),
        Pair(tap=NEW_TAP, uplink=NIC.replace(local="10.9.8.3", mtu=65521)),
        Pair(tap=NEW_TAP, uplink=None),
        ahead=(foreign, foreign),
    )
    output.complain_about_setup(made)
    assert capsys.readouterr() == (
        "",
        "nlraw: pod1: a foreign bpf filter on eth0 sees packets before the redirect does\n"
        "nlraw: pod1: tap0_urunc cannot have the MTU of eth\\x1b0, 65535: it has 65521\n",
    )


# ---------------------------------------------------------------- warnings


def warning(capsys, report, **options):
    output.complain_about(report, **options)
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") <= 1
    return err


def test_an_orphan_that_is_left_because_there_is_no_uplink(capsys):
    taps = (a_tap(), a_tap(ifname=NAME), a_tap(ifname="tap1_urunc", verdict="in-use"))
    assert warning(capsys, a_report("skipped", taps=taps)) == (
        "nlraw: /run/netns/pod1: warning: there is no uplink eth0, so these orphans stay:"
        " tap0_urunc, %s; `-u none` needs no uplink\n" % ESCAPED
    )


@pytest.mark.parametrize(
    "uplink, asked, words",
    [
        ("eth7", ("eth7", "eth8"), "there is no uplink eth7, eth8"),
        (None, (), "`-u auto` finds no uplink"),
    ],
)
def test_every_uplink_that_was_asked_for_is_named(capsys, uplink, asked, words):
    report = a_report("skipped", taps=(a_tap(),), uplink=uplink)
    said = warning(capsys, report, prefix="container c1: ", uplinks=asked)
    assert said.startswith("nlraw: container c1: /run/netns/pod1: warning: %s, so " % words)


def test_a_warning_about_very_many_orphans_is_short(capsys):
    taps = tuple(a_tap(ifname="tap%d_urunc" % each) for each in range(1000))
    said = warning(capsys, a_report("skipped", taps=taps))
    assert "tap9_urunc and 990 more; " in said and "tap10_urunc" not in said


@pytest.mark.parametrize(
    "report",
    [
        a_report("skipped"),
        a_report("skipped", taps=(a_tap(verdict="in-use"),)),
        a_report("would-clean", taps=(a_tap(),)),
        a_report("cleaned", taps=(a_tap(deleted=True),)),
        a_report("clean", taps=(a_tap(fresh=True),)),
    ],
    ids=["nothing there", "in use", "to be removed", "removed", "spared"],
)
def test_nothing_is_warned_of_where_no_orphan_is_left_for_want_of_an_uplink(capsys, report):
    assert warning(capsys, report) == ""


# ---------------------------------------------------------------- JSON out


def test_json_has_the_keys_of_the_contract_in_their_order():
    shown = json.loads(output.in_json(REPORT))
    assert list(shown) == [
        "netns",
        "uplink",
        "outcome",
        "taps",
        "tc_removed",
        "ignored",
        "dead_redirects",
        "error",
    ]
    (one,) = shown["taps"]
    assert list(one) == [
        "ifname",
        "ifindex",
        "verdict",
        "fresh",
        "carrier",
        "operstate",
        "flags",
        "deleted",
    ]
    assert one["flags"] == ["BROADCAST", "MULTICAST", "UP"]
    assert [list(gone.items()) for gone in shown["tc_removed"]] == [
        [("dev", "eth0"), ("object", "qdisc"), ("kind", "ingress")]
    ]


@pytest.mark.parametrize(
    "error, expected",
    [
        (None, None),
        (
            nlraw.Refused(errno.EPERM, "no", "delete link", "tap0_urunc"),
            {"step": "delete link", "object": "tap0_urunc", "errno": "EPERM", "message": "no"},
        ),
        (
            nlraw.Refused(errno.EINVAL, "", "delete link", "tap0_urunc", (18, 1)),
            {
                "step": "delete link",
                "object": "tap0_urunc",
                "errno": "EINVAL",
                "message": "EINVAL (attribute 18.1)",
            },
        ),
        (
            nlraw.Refused(9999, "odd", "list links"),
            {"step": "list links", "object": None, "errno": "9999", "message": "odd"},
        ),
        (
            nlraw.TapInUse("in use", "clean up", "x"),
            {"step": "clean up", "object": "x", "errno": None, "message": "in use"},
        ),
    ],
    ids=["none", "refused", "no words", "a number without a name", "in use"],
)
def test_an_error_in_json(error, expected):
    shown = json.loads(output.in_json(REPORT.replace(error=error)))["error"]
    assert shown == expected
    assert shown is None or list(shown) == ["step", "object", "errno", "message"]


def test_json_is_ascii_on_one_line_and_bytes_that_are_no_utf8_are_lone_surrogates():
    names = ["tap\x1b[31m", "tap\x7f\n", "tap\"'\\", "tap\udcff\udcfe", "tap\u00fc\u202e"]
    text = output.in_json(REPORT.replace(taps=tuple(TAP.replace(ifname=name) for name in names)))
    assert re.match(r"[ -~]*\Z", text)
    assert r"tap\udcff\udcfe" in text
    assert [one["ifname"] for one in json.loads(text)["taps"]] == names


def test_json_of_facts_that_the_kernel_did_not_report():
    shown = json.loads(
        output.in_json(
            REPORT.replace(uplink=None, taps=(TAP.replace(carrier=None, operstate=None, flags=()),))
        )
    )
    assert shown["uplink"] is None
    assert (
        shown["taps"][0]["carrier"],
        shown["taps"][0]["operstate"],
        shown["taps"][0]["flags"],
    ) == (
        None,
        None,
        [],
    )


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=20,
)


@build.patient
@given(VALUES)
def test_json_says_what_the_module_json_says(value):
    text = output.in_json(value)
    assert re.match(r"[ -~]*\Z", text)
    assert repr(json.loads(text)) == repr(json.loads(json.dumps(value)))  # repr: True is not 1


def test_what_json_cannot_hold_is_an_error():
    with pytest.raises(TypeError):
        output.in_json([object()])


def test_json_needs_no_module_json(monkeypatch):
    for name in ("json", "json.encoder", "_json"):
        monkeypatch.setitem(sys.modules, name, None)
    assert output.in_json([None, "\n"]) == '[null, "\\u000a"]'


# ---------------------------------------------------------------- colour


@pytest.mark.parametrize(
    "is_terminal, environment, has_colour",
    [
        (True, {}, True),
        (True, {b"NO_COLOR": b""}, True),
        (True, {b"NO_COLOR": b"1"}, False),
        (False, {}, False),
    ],
)
def test_colours_are_for_terminals_whose_user_wants_them(
    monkeypatch, is_terminal, environment, has_colour
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr(posix, "environ", environment)
    assert output.has_colour() is has_colour


def test_a_closed_stdout_has_no_colour(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert output.has_colour() is False

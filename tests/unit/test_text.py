# SPDX-License-Identifier: Apache-2.0
"""nlraw.text: reports as rows of text, and the sum at the end."""

import re

import pytest

import nlraw
from lib.reports import POD, a_report, a_tap
from nlraw import output, text
from nlraw.report import DeadRedirect, Holder, Ignored, TcObject

NAME = "\x1b[31mtap\udcff"
ESCAPED = "\\x1b[31mtap\\xff"


def cells(report, **options):
    """The rows of one report: all lines but the last, by their cells."""
    lines = text.in_text([report], **options).splitlines()[:-1]
    return [re.split("  +", line) for line in lines]


# ---------------------------------------------------------------- rows


def test_each_tap_and_each_change_has_a_row_with_its_namespace():
    removed = (
        TcObject(dev="eth0", object="filter", kind="u32", priority=7, target="tap0_urunc"),
        TcObject(dev="eth0", object="qdisc", kind="ingress"),
    )
    report = a_report("cleaned", taps=(a_tap(deleted=True),), tc_removed=removed)
    assert text.in_text([report]).splitlines() == [
        POD + "  tap0_urunc  orphan         deleted",
        POD + "  eth0        u32 filter     removed  priority 7, redirects to tap0_urunc",
        POD + "  eth0        ingress qdisc  removed",
        POD + ": cleaned (uplink eth0)",
    ]


def test_a_filter_is_shown_with_its_priority_and_target():
    removed = (
        TcObject(dev="eth0", object="filter", kind="u32", priority=49152, target=NAME),
        TcObject(dev="block 7", object="filter", kind="flower", priority=1, target=None),
    )
    assert cells(a_report("cleaned", tc_removed=removed)) == [
        [POD, "eth0", "u32 filter", "removed", "priority 49152, redirects to " + ESCAPED],
        [POD, "block 7", "flower filter", "removed", "priority 1, redirects to nothing"],
    ]


def test_what_would_go_is_shown_alike():
    removed = (TcObject(dev="eth0", object="qdisc", kind="ingress"),)
    taps = (a_tap(), a_tap(ifname="tap1_urunc", fresh=True))
    report = a_report("would-clean", taps=taps, tc_removed=removed)
    assert cells(report) == [
        [POD, "tap0_urunc", "orphan", "to be deleted"],
        [POD, "tap1_urunc", "orphan (fresh)", "to be deleted"],
        [POD, "eth0", "ingress qdisc", "to be removed"],
    ]
    assert cells(report, spares_fresh=True)[1] == [POD, "tap1_urunc", "orphan (fresh)", "spared"]


@pytest.mark.parametrize(
    "outcome, fields, action",
    [
        ("cleaned", {"deleted": True}, "deleted"),
        ("cleaned", {"fresh": True}, "spared"),
        ("clean", {"fresh": True}, "spared"),
        ("cleaned", {"verdict": "in-use"}, "left alone"),
        ("in-use", {}, "left"),
        ("skipped", {}, "left"),
        ("failed", {}, "left"),
    ],
)
def test_what_became_of_a_tap(outcome, fields, action):
    (row,) = cells(a_report(outcome, taps=(a_tap(**fields),)))
    assert row[3:] == [action]


def test_a_dead_redirect_that_is_left_is_shown():
    left = (DeadRedirect(dev="eth0", kind="u32", priority=49152),)
    words = "priority 49152, redirects to nothing: it swallows packets"
    assert cells(a_report("in-use", dead_redirects=left)) == [
        [POD, "eth0", "u32 filter", "left", words]
    ]


def test_a_matching_link_that_is_no_tap_is_shown_with_its_kind():
    ignored = (Ignored(ifname="tap0_kata", kind="macvtap"), Ignored(ifname=NAME, kind="\x1b"))
    assert cells(a_report(ignored=ignored)) == [
        [POD, "tap0_kata", "macvtap", "not judged"],
        [POD, ESCAPED, "\\x1b", "not judged"],
    ]


@pytest.mark.parametrize("carrier, word", [(True, "on"), (False, "off"), (None, "unknown")])
def test_what_the_kernel_reports_is_shown_if_asked_for(carrier, word):
    report = a_report(taps=(a_tap(carrier=carrier),))
    assert cells(report)[0][4:] == []
    words = "ifindex 4, carrier %s, operstate DOWN, BROADCAST,UP" % word
    assert cells(report, verbose=True)[0][4:] == [words]


@pytest.mark.parametrize(
    "verdict, holders, shown",
    [
        ("in-use", None, None),
        ("orphan", (), None),
        ("in-use", (), "no process that /proc shows"),
        ("in-use", (Holder(pid=4242, comm="qemu-system-x86"),), "qemu-system-x86 (PID 4242)"),
        ("in-use", (Holder(pid=1, comm="\x1b\udcff"),), "\\x1b\\xff (PID 1)"),
        (
            "in-use",
            (Holder(pid=7, comm="a"), Holder(pid=9, comm="b"), Holder(pid=None, comm=None)),
            "a (PID 7), b (PID 9), perhaps others: the search was cut short",
        ),
    ],
)
def test_who_holds_a_tap(verdict, holders, shown):
    (row,) = cells(a_report(taps=(a_tap(verdict=verdict, holders=holders),)))
    assert row[4:] == ([] if shown is None else ["held by " + shown])


# ---------------------------------------------------------------- the last line


@pytest.mark.parametrize(
    "outcome, words",
    [
        ("clean", "clean, nothing to remove (uplink eth0)"),
        ("cleaned", "cleaned (uplink eth0)"),
        ("would-clean", "would clean (uplink eth0)"),
        ("in-use", "in use, nothing changed (uplink eth0)"),
        ("skipped", "skipped, there is no uplink eth0"),
        ("failed", "failed (uplink eth0)"),
    ],
)
def test_each_outcome_has_its_word(outcome, words):
    assert text.in_text([a_report(outcome)]) == POD + ": " + words


def test_a_clean_namespace_with_a_fresh_orphan_is_not_said_to_have_nothing():
    report = a_report(taps=(a_tap(fresh=True),))
    last = text.in_text([report], spares_fresh=True).splitlines()[-1]
    assert last == POD + ": clean, fresh orphans are spared (uplink eth0)"
    report = a_report(taps=(a_tap(verdict="in-use"),))
    assert text.in_text([report]).endswith(": clean, nothing to remove (uplink eth0)")


def test_the_reason_of_a_failure_stands_beside_the_word():
    error = nlraw.Error("no \x1b", "open namespace", "pod1")
    failed = a_report("failed", error=error)
    assert text.in_text([failed]) == POD + ": failed: open namespace pod1: no \\x1b"
    assert text.in_text([failed, a_report()]).splitlines() == [
        POD + "  -  failed  open namespace pod1: no \\x1b",
        "2 namespaces: 1 clean, 1 failed",
    ]


def test_the_reason_of_a_failure_does_not_name_the_namespace_again():
    failed = a_report("failed", error=nlraw.Error("no", "open namespace", POD))
    assert text.in_text([failed]) == POD + ": failed: open namespace: no"
    assert text.in_text([failed] * 2).splitlines()[0] == POD + "  -  failed  open namespace: no"


def test_a_long_reason_makes_no_column_wider():
    removed = (TcObject(dev="eth0", object="filter", kind="u32", priority=7, target="tap0"),)
    failed = a_report("failed", error=nlraw.Error("a reason of many words", "clean up", "tap1"))
    lines = text.in_text([failed, a_report("cleaned", tc_removed=removed)]).splitlines()
    assert lines[:-1] == [
        POD + "  eth0  u32 filter  removed  priority 7, redirects to tap0",
        POD + "  -     failed      clean up tap1: a reason of many words",
    ]


def test_no_uplink_is_named_where_there_is_none():
    assert text.in_text([a_report(uplink=None)]) == POD + ": clean, nothing to remove"


def test_a_prefix_is_put_before_the_last_line():
    report = a_report("cleaned", taps=(a_tap(deleted=True),))
    first, last = text.in_text([report], prefix="c\x1b: ").splitlines()
    assert first.startswith(POD + "  tap0") and last.startswith("c\\x1b: %s: cleaned" % POD)


def sweep(*reports, **options):
    totals = nlraw.Totals(**dict.fromkeys(nlraw.Totals.__slots__, 0))
    swept = nlraw.Sweep(namespaces=reports, totals=totals)
    return text.sweep_in_text(swept, **options).splitlines()


@pytest.mark.parametrize(
    "fields, is_shown",
    [
        ({}, False),
        ({"ignored": (Ignored(ifname="tap0_kata", kind="macvtap"),)}, True),
        ({"dead_redirects": (DeadRedirect(dev="eth0", kind="u32", priority=1),)}, True),
        ({"taps": (a_tap(),)}, True),
        ({"outcome": "failed", "error": nlraw.Error("x")}, True),
        ({"outcome": "skipped"}, False),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_a_sweep_shows_the_namespaces_in_which_something_was_seen(fields, is_shown, count):
    lines = sweep(*[a_report(**fields)] * count)
    assert [line.startswith(POD) for line in lines] == [True] * is_shown * count + [False]


def test_many_namespaces_are_summed_up_in_words():
    assert sweep() == ["0 namespaces: nothing to do"]
    assert sweep(a_report()) == ["1 namespace: 1 clean"]
    reports = [
        a_report(),
        a_report("skipped"),
        a_report("cleaned", taps=(a_tap(deleted=True), a_tap(deleted=True))),
        a_report("clean", taps=(a_tap(fresh=True),)),
        a_report("in-use", taps=(a_tap(verdict="in-use"),)),
    ]
    assert sweep(*reports)[-1] == (
        "5 namespaces: 2 clean, 1 cleaned, 1 in use, 1 without an uplink;"
        " 2 orphans deleted, 1 orphan spared, 1 TAP in use"
    )
    assert sweep(a_report("would-clean", taps=(a_tap(),)))[-1] == (
        "1 namespace: 1 to be cleaned; 1 orphan to be deleted"
    )


def test_three_hundred_clean_namespaces_are_one_line():
    assert sweep(*[a_report()] * 300) == ["300 namespaces: 300 clean"]


def test_columns_are_aligned_over_the_whole_output():
    long = a_report("cleaned", netns="/run/netns/a-long-name", taps=(a_tap(deleted=True),))
    lines = sweep(a_report("in-use", taps=(a_tap(verdict="in-use"),)), long)
    assert lines[0].index("tap0_urunc") == lines[1].index("tap0_urunc")
    assert lines[0].index("left alone") == lines[1].index("deleted")


# ---------------------------------------------------------------- colour


def test_verdicts_have_colours_on_a_terminal():
    taps = (a_tap(deleted=True), a_tap(verdict="in-use"), a_tap(fresh=True))
    shown = text.in_text([a_report("cleaned", taps=taps)], has_colour=True)
    for colour, verdict in ((33, "orphan"), (32, "in-use"), (33, r"orphan \(fresh\)")):
        assert re.search("\x1b\\[%dm%s *\x1b\\[0m" % (colour, verdict), shown)
    plain = text.in_text([a_report("cleaned", taps=taps)])
    assert re.sub("\x1b\\[[0-9]*m", "", shown) == plain


# ---------------------------------------------------------------- rows printed as they come


def test_a_report_of_a_watch_has_at_least_one_row():
    error = nlraw.Refused(1, "not you", "delete link", "tap0_urunc")
    failed = a_report("failed", taps=(a_tap(),), error=error)
    assert [line.split(None, 3)[1:] for line in text.lines(failed)] == [
        ["tap0_urunc", "orphan", "left"],
        ["-", "failed", "delete link tap0_urunc: not you"],
    ]
    assert text.lines(a_report()) == [POD + "  -  clean  nothing done"]
    assert "spared" in text.lines(a_report("in-use", taps=(a_tap(fresh=True),)))[0]
    assert "carrier off" in text.lines(failed, verbose=True)[0]


# ---------------------------------------------------------------- escaping


@pytest.mark.parametrize(
    "name, shown",
    [
        ("tap0_urunc", "tap0_urunc"),
        ("\u00fc\u4e2d", "\\xc3\\xbc\\xe4\\xb8\\xad"),
        ("$(id) \"'`", "$(id) \"'`"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\rc\td\0e", "a\\x0ab\\x0dc\\x09d\\x00e"),
        ("\x7f", "\\x7f"),
        ("\udcff\udc80", "\\xff\\x80"),
        ("\\x1b", "\\\\x1b"),
    ],
    ids=ascii,
)
def test_escape(name, shown):
    assert output.escape(name) == shown


def test_nothing_that_is_not_printable_survives_escape():
    for code in range(0x11000):
        shown = output.escape(chr(code))
        assert re.match(r"([ -\[\]-~]|\\\\|(\\x[0-9a-f]{2})+)\Z", shown), hex(code)


def test_two_names_never_look_alike():
    names = [chr(code) for code in range(0x110)] + [chr(code) for code in range(0xDC80, 0xDD00)]
    assert len({output.escape(name) for name in names}) == len(names)


def test_nothing_from_outside_is_in_the_text_unescaped():
    evil = "a\x1b[31m\n\udcff"
    report = a_report(
        "cleaned",
        netns=evil,
        uplink=evil,
        taps=(a_tap(ifname=evil),),
        tc_removed=(TcObject(dev=evil, object="qdisc", kind=evil),),
    )
    shown = text.in_text([report])
    assert shown.count("a\\x1b[31m\\x0a\\xff") == 7
    assert all(line.isprintable() for line in shown.splitlines()) and len(shown.splitlines()) == 3

# SPDX-License-Identifier: Apache-2.0
"""The command line without a kernel: arguments in, help, text and JSON out."""

import errno
import json
import os
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nlraw
from lib import build
from nlraw import cli, orphans

# The commands, and the options that each must have.
COMMON = "--match --uplink --json -m -u -j"
OPTIONS = {
    "scan": COMMON + " --netns -n",
    "cleanup": COMMON + " --netns -n --dry-run -N",
    "setup": COMMON + " --netns -n --tap --owner --group --address",
    "sweep": COMMON + " --dry-run -N --dir --proc --include-fresh --jobs --metrics",
    "hook": "--match --uplink -m -u",
    "selftest": "--json -j",
}

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


# ---------------------------------------------------------------- help


@pytest.fixture
def run(capsys):
    """Run a command line in this process.

    Return its exit status and what it printed on stdout and stderr.
    """

    def run(*arguments):
        status = cli.main(arguments)
        return (status,) + tuple(capsys.readouterr())

    return run


def test_the_commands_are_those_of_the_contract():
    assert set(cli.COMMANDS) <= set(OPTIONS)


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_help_on_a_command_shows_every_option_of_it(run, command):
    status, out, err = run(command, "--help")
    assert (status, err) == (0, "")
    shown = set(
        re.findall(
            r"(?<!\S)--?[a-z][a-z-]*|(?<!\S)-[A-Z]",
            out.partition("\noptions:\n")[2].replace(",", ""),
        )
    )
    assert set(OPTIONS[command].split()) | {"-h", "--help"} <= shown


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_way_to_ask_for_help_on_a_command(run, command):
    told = run(command, "--help")
    assert told[1].startswith("usage: nlraw %s " % command)
    assert run(command, "-h") == told
    assert run(command, "-j" if "-j" in OPTIONS[command].split() else "-ux", "--help") == told


@pytest.mark.parametrize(
    "command, defaults", [("cleanup", ["tap*_urunc", "eth0"]), ("setup", ["tap0_urunc", "eth0"])]
)
def test_help_tells_the_defaults(run, command, defaults):
    out = run(command, "--help")[1]
    for default in defaults:
        assert "(default: %s)" % default in out


@pytest.mark.parametrize("asked", ["-h", "--help", "help"])
def test_help_names_every_command_and_exit_status(run, asked):
    status, out, err = run(asked)
    assert (status, err) == (0, "")
    for name, command in cli.COMMANDS.items():
        assert re.search(r"^  %s +%s$" % (name, re.escape(command.summary)), out, re.MULTILINE)
    for number in "0123":
        assert re.search(r"\b%s [a-z]" % number, out.partition("exit status:")[2])


@pytest.mark.parametrize("asked", ["-V", "--version"])
def test_version(run, asked):
    assert run(asked) == (0, "nlraw %s\n" % nlraw.__version__, "")


# ---------------------------------------------------------------- arguments in


@pytest.mark.parametrize(
    "arguments, options",
    [
        ("", {}),
        ("-n X", {"netns": ["X"]}),
        ("-nX", {"netns": ["X"]}),
        ("--netns X", {"netns": ["X"]}),
        ("--netns=X", {"netns": ["X"]}),
        ("--netns=a=b", {"netns": ["a=b"]}),
        ("--netns=", {"netns": [""]}),
        ("-n 1 --netns 2 -n3 --netns=4", {"netns": ["1", "2", "3", "4"]}),
        ("-n -j", {"netns": ["-j"]}),
        ("-m * -u auto", {"match": ["*"], "uplink": ["auto"]}),
        ("-j -N", {"json": [], "dry-run": []}),
        ("-jN", {"json": [], "dry-run": []}),
        ("-jNnX", {"json": [], "dry-run": [], "netns": ["X"]}),
        ("-Nn X -j", {"dry-run": [], "netns": ["X"], "json": []}),
        ("-j --json", {"json": []}),
    ],
)
def test_arguments_are_understood(arguments, options):
    assert cli.parse("cleanup", arguments.split()) == options


@pytest.mark.parametrize(
    "arguments, told",
    [
        ("", "a command is needed; see `nlraw --help`"),
        ("clean", "clean: there is no such command; see `nlraw --help`"),
        ("-n", "-n: there is no such command; see `nlraw --help`"),
        (
            "cleanup --frobnicate",
            "cleanup --frobnicate: no such option; see `nlraw cleanup --help`",
        ),
        ("cleanup --net=X", "cleanup --net=X: no such option; see `nlraw cleanup --help`"),
        ("cleanup -x", "cleanup -x: no such option; see `nlraw cleanup --help`"),
        ("cleanup -jx", "cleanup -x: no such option; see `nlraw cleanup --help`"),
        ("cleanup -", "cleanup -: no such option; see `nlraw cleanup --help`"),
        ("scan -N", "scan -N: no such option; see `nlraw scan --help`"),
        ("scan pod1", "scan pod1: unexpected argument; see `nlraw scan --help`"),
        ("scan -n", "scan -n: this option needs a value, NETNS"),
        ("scan -jm", "scan -m: this option needs a value, GLOB"),
        ("scan --uplink", "scan --uplink: this option needs a value, NAME"),
        ("scan -m a -m b", "scan -m: this option can be given only once"),
        ("scan --uplink=a -ub", "scan -ub: this option can be given only once"),
        ("setup -n 1 -n 2", "setup -n: this option can be given only once"),
        ("scan --json=yes", "scan --json=yes: this option takes no value"),
    ],
)
def test_a_usage_error_names_what_is_wrong(run, arguments, told):
    assert run(*arguments.split()) == (2, "", "nlraw: %s\n" % told)


def test_a_cluster_of_switches_holds_letters_alone():
    with pytest.raises(nlraw.Invalid):
        cli.parse("cleanup", ["-j-dry-run"])


@pytest.mark.parametrize(
    "option, value",
    [("--uplink", "a" * 16), ("--uplink", "a/b"), ("--uplink", ""), ("--match", "")],
)
def test_a_value_that_can_match_no_name_is_a_usage_error(run, option, value):
    status, out, err = run("scan", option, value)
    assert (status, out) == (2, "")
    assert value in err and err.count("\n") == 1


def test_no_byte_of_an_argument_reaches_stderr_unescaped(run):
    told = run("scan", "--\x1b[31m\udcff\n")
    assert told == (
        2,
        "",
        "nlraw: scan --\\x1b[31m\\xff\\x0a: no such option; see `nlraw scan --help`\n",
    )


def test_a_name_is_its_bytes_in_whatever_encoding_the_locale_has():
    given = {"match": [os.fsdecode(b"tap\xff\xc3\xbc")]}
    assert cli._interface(given, "match", "") == "tap\udcff\u00fc"


# ---------------------------------------------------------------- exit status of many namespaces


@pytest.fixture
def visited(monkeypatch):
    """The namespaces that were looked at or cleaned up.

    The name of each is the outcome that it has.
    """
    visited = []

    def survey(netns, *_):
        visited.append(netns)
        report = REPORT.replace(netns=netns, outcome=netns)
        if netns == "failed":
            raise failing(nlraw.Refused(errno.EIO, ""), report)
        return report

    def cleanup(*arguments):
        report = survey(*arguments)
        if report.outcome == "in-use":
            raise failing(nlraw.TapInUse("in use"), report)
        return report

    monkeypatch.setattr(orphans, "survey", survey)
    monkeypatch.setattr(orphans, "cleanup", cleanup)
    return visited


def failing(error, report):
    error.report = report.replace(error=error)
    return error


@pytest.mark.parametrize(
    "netnses, of_cleanup, of_scan",
    [
        ("clean", 0, 0),
        ("cleaned clean skipped would-clean", 0, 0),
        ("in-use", 3, 0),
        ("failed", 1, 1),
        ("in-use clean", 3, 0),
        ("failed clean", 1, 1),
        ("failed in-use", 1, 1),
        ("in-use failed cleaned", 1, 1),
    ],
)
@pytest.mark.parametrize("form", [[], ["-j"]], ids=["text", "JSON"])
def test_each_namespace_is_visited_and_the_worst_decides(
    run, visited, netnses, of_cleanup, of_scan, form
):
    arguments = form + ["--netns=" + netns for netns in netnses.split()]
    assert run("cleanup", *arguments)[0] == of_cleanup
    assert run("cleanup", "-N", *arguments)[0] == of_cleanup
    assert run("scan", *arguments)[0] == of_scan
    assert visited == netnses.split() * 3


def test_json_is_a_list_if_and_only_if_a_namespace_was_given_more_than_once(run, visited):
    assert json.loads(run("scan", "-j", "-n", "clean")[1])["netns"] == "clean"
    told = json.loads(run("scan", "-j", "-n", "clean", "-n", "clean")[1])
    assert [one["netns"] for one in told] == ["clean", "clean"]


def test_what_failed_is_on_stderr_too_with_its_namespace(run, visited):
    _, out, err = run("cleanup", "-n", "in-use", "-n", "clean", "-n", "failed")
    assert [line.partition(":")[0] for line in out.splitlines() if not line.startswith(" ")] == [
        "in-use",
        "clean",
        "failed",
    ]
    assert err == "nlraw: in-use: in use\nnlraw: failed: EIO\n"


# ---------------------------------------------------------------- JSON out


def test_json_has_the_keys_of_the_contract_in_their_order():
    told = json.loads(cli.in_json(REPORT))
    assert list(told) == ["netns", "uplink", "outcome", "taps", "tc_removed", "error"]
    (one,) = told["taps"]
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
    assert [list(gone.items()) for gone in told["tc_removed"]] == [
        [("dev", "eth0"), ("object", "qdisc"), ("kind", "ingress")]
    ]


@pytest.mark.parametrize(
    "error, told",
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
def test_an_error_in_json(error, told):
    shown = json.loads(cli.in_json(REPORT.replace(error=error)))["error"]
    assert shown == told
    assert shown is None or list(shown) == ["step", "object", "errno", "message"]


def test_json_is_ascii_on_one_line_and_bytes_that_are_no_utf8_are_lone_surrogates():
    names = ["tap\x1b[31m", "tap\x7f\n", "tap\"'\\", "tap\udcff\udcfe", "tap\u00fc\u202e"]
    text = cli.in_json(REPORT.replace(taps=tuple(TAP.replace(ifname=name) for name in names)))
    assert re.match(r"[ -~]*\Z", text)
    assert r"tap\udcff\udcfe" in text
    assert [one["ifname"] for one in json.loads(text)["taps"]] == names


def test_json_of_facts_that_the_kernel_did_not_tell():
    told = json.loads(
        cli.in_json(
            REPORT.replace(uplink=None, taps=(TAP.replace(carrier=None, operstate=None, flags=()),))
        )
    )
    assert told["uplink"] is None
    assert (told["taps"][0]["carrier"], told["taps"][0]["operstate"], told["taps"][0]["flags"]) == (
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
    text = cli.in_json(value)
    assert re.match(r"[ -~]*\Z", text)
    assert repr(json.loads(text)) == repr(json.loads(json.dumps(value)))  # repr: True is not 1


def test_what_json_cannot_tell_is_an_error():
    with pytest.raises(TypeError):
        cli.in_json([object()])


def test_json_needs_no_module_json(monkeypatch):
    for name in ("json", "json.encoder", "_json"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.in_json([None, "\n"]) == '[null, "\\u000a"]'


# ---------------------------------------------------------------- text out


@pytest.mark.parametrize(
    "text, shown",
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
def test_escape(text, shown):
    assert cli.escape(text) == shown


def test_nothing_that_is_not_printable_survives_escape():
    for code in range(0x11000):
        shown = cli.escape(chr(code))
        assert re.match(r"([ -\[\]-~]|\\\\|(\\x[0-9a-f]{2})+)\Z", shown), hex(code)


def test_two_names_never_look_alike():
    names = [chr(code) for code in range(0x110)] + [chr(code) for code in range(0xDC80, 0xDD00)]
    assert len({cli.escape(name) for name in names}) == len(names)


def test_text_tells_what_the_report_tells():
    filter = nlraw.TcObject(dev="eth0", object="filter", kind="u32")
    assert cli.in_text(REPORT.replace(tc_removed=(filter,))).splitlines() == [
        "/run/netns/pod1: cleaned (uplink eth0)",
        "  tap0_urunc  orphan, deleted  ifindex 4, carrier off, operstate DOWN, "
        "BROADCAST,MULTICAST,UP",
        "  eth0        u32 filter       removed",
    ]


def test_text_of_what_would_be_done():
    lines = cli.in_text(
        REPORT.replace(outcome="would-clean", taps=(TAP.replace(deleted=False, fresh=True),))
    ).splitlines()
    assert [line.split("  ")[0] for line in lines[:1]] == [
        "/run/netns/pod1: would clean (uplink eth0)"
    ]
    assert re.match(r"  tap0_urunc  orphan \(fresh\)  ifindex 4, ", lines[1])
    assert re.match(r"  eth0        ingress qdisc   to be removed\Z", lines[2])


@pytest.mark.parametrize(
    "outcome, words",
    [
        ("clean", "clean"),
        ("cleaned", "cleaned"),
        ("would-clean", "would clean"),
        ("in-use", "in use"),
        ("skipped", "skipped"),
        ("failed", "failed"),
    ],
)
def test_each_outcome_has_its_word(outcome, words):
    told = cli.in_text(REPORT.replace(outcome=outcome, taps=(), tc_removed=()))
    assert told.startswith("/run/netns/pod1: " + words) and told.rstrip(")").endswith("uplink eth0")


@pytest.mark.parametrize("carrier, word", [(True, "on"), (False, "off"), (None, "unknown")])
def test_text_tells_the_carrier(carrier, word):
    assert "carrier %s," % word in cli.in_text(REPORT.replace(taps=(TAP.replace(carrier=carrier),)))


def test_text_names_no_uplink_where_there_is_none():
    assert "uplink" not in cli.in_text(REPORT.replace(uplink=None))


def test_nothing_from_outside_is_in_the_text_unescaped():
    evil = "a\x1b[31m\n\udcff"
    told = cli.in_text(
        REPORT.replace(
            netns=evil,
            uplink=evil,
            taps=(TAP.replace(ifname=evil),),
            tc_removed=(nlraw.TcObject(dev=evil, object="qdisc", kind=evil),),
        )
    )
    assert told.count("a\\x1b[31m\\x0a\\xff") == 5
    assert all(line.isprintable() for line in told.splitlines()) and len(told.splitlines()) == 3


# ---------------------------------------------------------------- what Python itself lacks


@pytest.mark.parametrize(
    "error, words",
    [
        (MemoryError(), "MemoryError"),
        (ImportError("No module named 'json'"), "No module named 'json'"),
        (OSError(errno.EMFILE, "Too many open files"), "[Errno 24] Too many open files"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_python_cannot_load_or_allocate_is_told_in_a_line(run, monkeypatch, error, words):
    def lack(*_):
        raise error

    monkeypatch.setattr(orphans, "survey", lack)
    assert run("scan") == (cli.FAILED, "", "nlraw: run the command: %s\n" % words)

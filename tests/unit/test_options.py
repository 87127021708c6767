# SPDX-License-Identifier: Apache-2.0
"""nlraw.options: arguments in, values out, and what the functions behind the commands get."""

import inspect
import os

import pytest

import nlraw
from nlraw import cli, commands, node, options, pod, provision

# The options of the contract, by command.
TAPS = "match exclude uplink"
CONTRACT = {
    "scan": TAPS + " netns who verbose json",
    "cleanup": TAPS + " netns keep-in-use wait who dry-run verbose json",
    "setup": TAPS + " netns tap owner group address multi-queue wait who print verbose json",
    "sweep": TAPS
    + " dir proc include-node include-fresh keep-in-use jobs dry-run metrics verbose json",
    "selftest": "json",
}
REPEATABLE = {"print", "netns", "match", "exclude", "uplink", "tap", "dir"}


@pytest.mark.parametrize("command", sorted(CONTRACT))
def test_a_command_has_the_options_of_the_contract(command):
    names = [option.name for option in commands.COMMANDS[command].options]
    assert sorted(names) == sorted(CONTRACT[command].split() + ["help"])


@pytest.mark.parametrize("command", sorted(CONTRACT))
def test_what_may_be_repeated(command):
    many = {option.name for option in commands.COMMANDS[command].options if option.many}
    once = {"netns"} if command == "setup" else set()
    assert many == REPEATABLE & set(CONTRACT[command].split()) - once


@pytest.mark.parametrize("command", sorted(CONTRACT))
def test_help_fits_a_terminal(command):
    assert max(map(len, commands.help_on(command).splitlines())) <= 100


@pytest.mark.parametrize(
    "value, seconds",
    [("0", 0.0), ("5", 5.0), ("0.25", 0.25), (".5", 0.5), ("5.", 5.0), ("86400", 86400.0)],
)
def test_seconds_to_wait(value, seconds):
    assert options.wait({"wait": [value]}) == seconds


def test_nothing_is_waited_for_unless_it_is_asked_for():
    assert options.wait({}) == 0.0


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
        ("-m a -mb --match=c", {"match": ["a", "b", "c"]}),
        ("-j -N", {"json": [], "dry-run": []}),
        ("-jN", {"json": [], "dry-run": []}),
        ("-jNnX", {"json": [], "dry-run": [], "netns": ["X"]}),
        ("-Nn X -j", {"dry-run": [], "netns": ["X"], "json": []}),
        ("-j --json", {"json": []}),
    ],
)
def test_arguments_are_understood(arguments, options):
    assert commands.parse("cleanup", arguments.split()) == options


def test_a_cluster_of_switches_holds_letters_alone():
    with pytest.raises(nlraw.Invalid):
        commands.parse("cleanup", ["-j-dry-run"])


def test_a_name_is_its_bytes_in_whatever_encoding_the_locale_has():
    given = {"match": [os.fsdecode(b"tap\xff\xc3\xbc")]}
    name = "tap\udcff\u00fc"
    assert options.text(given, "match", "") == options.optional_text(given, "match") == name
    assert options.texts(given, "match") == (name,)


def test_what_is_not_given_has_its_default():
    assert (options.text({}, "tap", "x"), options.optional_text({}, "tap")) == ("x", None)
    assert (options.texts({}, "match"), options.texts({}, "match", ["a"])) == ((), ("a",))
    assert options.number({}, "jobs") is None


@pytest.mark.parametrize("digits, number", [("0", 0), ("64", 64), ("9999999999", 9999999999)])
def test_a_number_is_its_digits(digits, number):
    assert options.number({"jobs": [digits]}, "jobs") == number


@pytest.mark.parametrize("digits", ["", "-1", "1.5", "x", "1 ", "0x1", "12345678901"])
def test_what_is_no_number_is_a_usage_error(digits):
    with pytest.raises(nlraw.Invalid) as caught:
        options.number({"jobs": [digits]}, "jobs")
    assert (caught.value.step, caught.value.object) == ("check --jobs", digits)


@pytest.mark.parametrize(
    "digits", ["", ".", "-1", "1e3", "inf", "nan", "86401", "1" * 21, "0.5.5", " 1", "\u0665"]
)
def test_what_is_no_number_of_seconds_is_a_usage_error(digits):
    with pytest.raises(nlraw.Invalid) as caught:
        options.wait({"wait": [digits]})
    assert (caught.value.step, caught.value.object) == ("check --wait", digits)


@pytest.mark.parametrize(
    "argument, words",
    [
        ("-netns", "a long option has two dashes; did you mean `--netns`?"),
        ("-netns=X", "a long option has two dashes; did you mean `--netns=X`?"),
        ("-json", "a long option has two dashes; did you mean `--json`?"),
    ],
)
def test_a_long_option_with_one_dash_is_not_misread(argument, words):
    with pytest.raises(nlraw.Invalid) as caught:
        commands.parse("cleanup", [argument, "X"])
    assert caught.value.message == words


# ---------------------------------------------------------------- what the functions get


REPORT = nlraw.Report(netns="x", uplink="eth0", outcome="clean", taps=(), tc_removed=(), error=None)


class Calls(list):
    """A function that notes its arguments, all by name, and returns a result."""

    def __init__(self, monkeypatch, module, name, result):
        self.signature = inspect.signature(getattr(module, name))
        self.result = result
        monkeypatch.setattr(module, name, self.call)

    def call(self, *arguments, **named):
        bound = self.signature.bind(*arguments, **named)
        bound.apply_defaults()
        self.append(bound.arguments)
        return self.result


def test_cleanup(monkeypatch):
    calls = Calls(monkeypatch, pod, "clean_up", REPORT)
    line = "cleanup -n current -n pod1 -n 4242 -m a* -m b? --exclude ab -u eth0 -u net1"
    assert cli.main((line + " --keep-in-use --wait 2.5 --who -N").split()) == 0
    assert [call["netns"] for call in calls] == [None, "pod1", "4242"]
    (target,) = {call["target"] for call in calls}
    assert (target.match, target.exclude) == (("a*", "b?"), ("ab",))
    assert (target.uplinks, target.keep_in_use, target.spare_fresh) == (
        ("eth0", "net1"),
        True,
        False,
    )
    assert {(call["wait"], call["who"], call["dry_run"]) for call in calls} == {(2.5, True, True)}


def test_cleanup_by_default(monkeypatch):
    calls = Calls(monkeypatch, pod, "clean_up", REPORT)
    assert cli.main("cleanup -n pod1".split()) == 0
    (call,) = calls
    target = call["target"]
    assert (target.match, target.exclude, target.uplinks) == (("tap*_urunc",), (), ("eth0",))
    assert not target.keep_in_use
    assert (call["wait"], call["who"], call["dry_run"]) == (0.0, False, False)


@pytest.mark.parametrize(
    "line, names, who",
    [("scan", [None], False), ("scan -n current --who", [None], True)]
    + [("scan -n a -n current", ["a", None], False)],
)
def test_scan(monkeypatch, line, names, who):
    calls = Calls(monkeypatch, pod, "preview_of", REPORT)
    assert cli.main(line.split()) == 0
    assert [(call["netns"], call["who"]) for call in calls] == [(name, who) for name in names]


def test_setup(monkeypatch):
    made = nlraw.Setup(
        netns="x", outcome="in-use", cleanup=REPORT, tap=None, uplink=None, error=None, ahead=()
    )
    calls = Calls(monkeypatch, provision, "set_up", made)
    line = "setup -n current -m a* -m tap?_urunc --exclude ab -u net1 -u net2 --wait 1 --who"
    line += " --tap tap1_urunc --tap tap2_urunc --owner 5 --group 6 --multi-queue"
    assert cli.main(line.split()) == cli.main(["setup", "-n", "current"]) == 0
    given, default = calls
    assert (given["netns"], given["wait"], given["who"]) == (None, 1.0, True)
    wanted = given["wanted"]
    assert (wanted.target.match, wanted.target.exclude) == (("a*", "tap?_urunc"), ("ab",))
    assert (wanted.target.uplinks, wanted.names) == (
        ("net1", "net2"),
        ("tap1_urunc", "tap2_urunc"),
    )
    assert (wanted.owner, wanted.group, wanted.multi_queue) == (5, 6, True)
    assert (default["wanted"].names, default["wanted"].target.uplinks) == (
        ("tap0_urunc",),
        ("eth0",),
    )


def test_sweep(monkeypatch):
    swept = node.Sweep(namespaces=(), totals=node.Totals(**dict.fromkeys(node.Totals.__slots__, 0)))
    calls = Calls(monkeypatch, node, "sweep", swept)
    line = "sweep -m a* -m b* --exclude ab -u eth0 -u net1 --keep-in-use --include-node"
    assert cli.main(line.split()) == 0
    assert cli.main(["sweep"]) == 0
    given, default = calls
    assert (given["match"], given["exclude"]) == (("a*", "b*"), ("ab",))
    assert (given["uplink"], given["keep_in_use"]) == (("eth0", "net1"), True)
    assert given["include_node"]
    assert (default["match"], default["exclude"]) == (("tap*_urunc",), ())
    assert (default["uplink"], default["keep_in_use"]) == (("eth0",), False)
    assert not default["include_node"]


def test_the_names_of_the_options_are_those_of_the_library_s_arguments():
    for command, function in (
        ("scan", nlraw.scan),
        ("cleanup", nlraw.cleanup),
        ("setup", nlraw.setup),
        ("sweep", nlraw.sweep),
    ):
        named = {name.replace("-", "_") for name in CONTRACT[command].split()}
        arguments = set(inspect.signature(function).parameters)
        own = {"json", "metrics", "print", "verbose"} | ({"dir"} if command == "sweep" else set())
        assert named - own <= arguments, command


def test_values_are_bytes_whatever_the_locale(monkeypatch):
    calls = Calls(monkeypatch, pod, "preview_of", REPORT)
    raw = os.fsdecode(b"tap\xff\xc3\xbc")
    assert cli.main(["scan", "-m", raw, "--exclude", raw, "-u", raw, "-n", raw]) == 0
    (call,) = calls
    target = call["target"]
    assert target.match == target.exclude == target.uplinks == ("tap\udcff\u00fc",)
    assert call["netns"] == "tap\udcff\u00fc"

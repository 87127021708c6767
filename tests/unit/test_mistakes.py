# SPDX-License-Identifier: Apache-2.0
"""Usage errors: one line each that says what is wrong, with what, and what to do instead."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlraw import cli, commands, mistakes, netns, node, options


@pytest.fixture
def complaint(capsys, monkeypatch):
    """Run a command line that is wrong; return the one line that it prints, on stderr.

    A command line that is taken for right must not reach this machine's own namespaces.
    """

    def refuse(self, netns=None):
        raise AssertionError("a namespace is opened: %r" % (netns,))

    monkeypatch.setattr(netns.Namespace, "__init__", refuse)
    monkeypatch.setattr(node, "candidates", lambda dirs, proc: [])

    def complaint(*arguments):
        assert cli.main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("nlraw: ") and err.count("\n") == 1
        return err[len("nlraw: ") : -1]

    return complaint


@pytest.mark.parametrize(
    "word, command",
    [
        ("clean", "cleanup"),
        ("cleenup", "cleanup"),
        ("claenup", "cleanup"),
        ("cleanups", "cleanup"),
        ("set", "setup"),
        ("scna", "scan"),
        ("swep", "sweep"),
        ("hooks", "hook"),
        ("self", "selftest"),
    ],
)
def test_a_misspelt_command_gets_a_suggestion(complaint, word, command):
    said = "%s: there is no such command; did you mean `%s`?" % (word, command)
    assert complaint(word) == said


@pytest.mark.parametrize("word, meant", [("--verison", "--version"), ("--halp", "--help")])
def test_an_option_of_no_command_that_is_misspelt(complaint, word, meant):
    assert complaint(word) == "%s: there is no such option; did you mean `%s`?" % (word, meant)


@pytest.mark.parametrize(
    "word, meant",
    [
        ("list", "scan"),
        ("remove", "cleanup"),
        ("create", "setup"),
        ("install", "deploy"),
        ("test", "selftest"),
        ("version", "--version"),
    ],
)
def test_a_word_that_others_use_gets_ours(complaint, word, meant):
    assert complaint(word) == "%s: there is no such command; did you mean `%s`?" % (word, meant)


def test_every_word_of_ours_for_those_of_others_is_one():
    options = {each.name for command in commands.COMMANDS.values() for each in command.options}
    assert set(mistakes.COMMANDS_ELSEWHERE.values()) <= {*commands.COMMANDS, "--version"}
    assert set(mistakes.OPTIONS_ELSEWHERE.values()) <= options
    assert not set(mistakes.COMMANDS_ELSEWHERE) & set(commands.COMMANDS)
    assert not set(mistakes.OPTIONS_ELSEWHERE) & options


def test_the_bundle_has_a_program_of_its_own(complaint):
    assert complaint("bundle", "x.pyz") == (
        "bundle: there is no such command; it is `python3 -m nlraw.bundle FILE`"
    )


@pytest.mark.parametrize("word", ["x", "Z", "tap0_urunc", "c" * 1000, "\udcff", "toto"])
def test_a_word_that_is_near_no_command_gets_none(complaint, word):
    assert complaint(word).endswith(": there is no such command; see `nlraw --help`")


@pytest.mark.parametrize("option", ["-n", "--json", "-"])
def test_an_option_before_the_command(complaint, option):
    assert complaint(option, "pod1") == (
        "%s: the command comes first, as in `nlraw scan -n pod1`; see `nlraw --help`" % option
    )


@pytest.mark.parametrize(
    "arguments, meant",
    [
        ("cleanup --netsn=pod1", "--netns"),
        ("cleanup --net pod1", "--netns"),
        ("cleanup --dryrun", "--dry-run"),
        ("cleanup --dry", "--dry-run"),
        ("cleanup -dry-run", "--dry-run"),
        ("cleanup --keep-inuse", "--keep-in-use"),
        ("cleanup -J", "-j"),
        ("cleanup -M", "-m"),
        ("cleanup -jM", "-m"),
        ("sweep --include-frech", "--include-fresh"),
        ("sweep --includenode", "--include-node"),
        ("scan --excludes=x", "--exclude"),
        ("scan json", "--json"),
        ("scan --namespace pod1", "--netns"),
        ("cleanup --ns=pod1", "--netns"),
        ("scan --interface eth1", "--uplink"),
        ("cleanup --simulate", "--dry-run"),
    ],
)
def test_a_misspelt_option_gets_a_suggestion(complaint, arguments, meant):
    assert complaint(*arguments.split()).endswith("; did you mean `%s`?" % meant)


@pytest.mark.parametrize("option", ["--frobnicate", "-x", "-", "--", "--x", "-\u00fc", "-\udcff"])
def test_an_option_that_is_near_none_gets_none(complaint, option):
    said = complaint("cleanup", option)
    assert said.endswith(": no such option; see `nlraw cleanup --help`")


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("scan -N", "scan -N: no such option; `cleanup` and `sweep` have it"),
        ("scan --dry-run", "scan --dry-run: no such option; `cleanup` and `sweep` have it"),
        ("cleanup --owner=7", "cleanup --owner=7: no such option; `setup` has it"),
        ("watch -npod1", "watch -npod1: no such option; `scan`, `cleanup` and `setup` have it"),
        ("sweep --wait 3", "sweep --wait: no such option; `cleanup`, `setup` and `hook` have it"),
    ],
)
def test_an_option_of_other_commands_names_them(complaint, arguments, words):
    assert complaint(*arguments.split()) == words


def test_a_command_that_takes_one_argument_takes_no_second_one(complaint):
    said = complaint("deploy", "nlraw-watch.service", "nlraw-watch.yaml")
    assert said == "deploy nlraw-watch.yaml: only one NAME can be given"


@pytest.mark.parametrize(
    "argument", ["-netns", "-netns=pod1", "-match=tap*", "-uplink", "-json", "-help"]
)
def test_a_long_name_with_one_dash_is_not_taken_for_a_value(complaint, argument):
    assert complaint("cleanup", argument, "pod1") == (
        "cleanup %s: a long option has two dashes; did you mean `-%s`?" % (argument, argument)
    )


@pytest.mark.parametrize("argument", ["pod1", "4242", "/run/netns/cni-1f-2e", "./pod", "a:b@c+d"])
@pytest.mark.parametrize("command", ["scan", "cleanup", "setup"])
def test_a_stray_argument_that_may_be_a_namespace(complaint, command, argument):
    assert complaint(command, argument) == (
        "%s %s: unexpected argument; did you mean `-n %s`?" % (command, argument, argument)
    )


@pytest.mark.parametrize(
    "arguments, meant",
    [
        ("sweep /run/netns", "--dir /run/netns"),
        ("sweep pod1", "nlraw scan -n pod1"),
        ("selftest pod1", "nlraw scan -n pod1"),
    ],
)
def test_a_stray_argument_of_a_command_that_takes_no_namespace(complaint, arguments, meant):
    assert complaint(*arguments.split()).endswith(
        ": unexpected argument; did you mean `%s`?" % meant
    )


@pytest.mark.parametrize("argument", ["a b", "it's", "$x", "\udcff", "tap*", "\\"])
def test_a_stray_argument_that_a_shell_would_change_is_not_repeated(complaint, argument):
    assert complaint("scan", argument).endswith(": unexpected argument; see `nlraw scan --help`")


def test_a_stray_empty_argument_is_named(complaint):
    assert complaint("scan", "") == 'scan "": unexpected argument; see `nlraw scan --help`'


# ---------------------------------------------------------------- values


def test_an_option_that_lacks_its_value_says_what_it_takes(complaint):
    said = "this option needs a value: NETNS, a PID, a path, a name as in `ip netns`, or current"
    assert complaint("scan", "-n") == "scan -n: " + said
    assert complaint("sweep", "--jobs") == (
        "sweep --jobs: this option needs a value: N, how many namespaces to clean up at a time"
    )


@pytest.mark.parametrize(
    "option, value, kind",
    [("--owner", "no-such-user", "user"), ("--group", "no-such-group", "group")]
    + [("--owner", "-1", "user"), ("--owner", "\udcff", "user"), ("--group", "", "group")],
)
def test_an_account_that_is_not_there(complaint, option, value, kind):
    said = complaint("setup", "-n", "current", option, value)
    assert said.startswith("check " + option)
    assert said.endswith(": there is no such %s; give another name, or a number" % kind)


def test_without_a_user_database_only_numbers_count(complaint, monkeypatch):
    monkeypatch.setitem(sys.modules, "pwd", None)
    assert complaint("setup", "-n", "current", "--owner", "root") == (
        "check --owner root: a number is needed, because this Python cannot look up names"
    )


@pytest.mark.parametrize("name, word, number", [("owner", "root", 0), ("group", "daemon", 1)])
def test_a_name_is_looked_up_in_the_user_database(name, word, number):
    assert options.account({name: [word]}, name) == number
    assert options.account({name: ["1000"]}, name) == 1000
    assert options.account({}, name) is None


@pytest.mark.parametrize("command", ["cleanup", "setup"])
@pytest.mark.parametrize("more", [[], ["-j"], ["-u", "none"]], ids=" ".join)
def test_what_changes_something_needs_a_namespace(complaint, command, more):
    if command == "setup" and "none" in more:
        more = ["--tap", "tap1_urunc"]
    assert complaint(command, *more) == (
        "%s: a namespace is needed: -n with a PID, path or name (`ip netns`), or `-n current`"
        % command
    )


@pytest.mark.parametrize("option", ["--match", "--exclude"])
@pytest.mark.parametrize("glob", ["tap[0-9]_urunc", "tap{0,1}", "]", "tap0}"])
@pytest.mark.parametrize("command", ["scan", "cleanup", "setup", "sweep"])
def test_brackets_in_a_glob_are_no_names(complaint, command, option, glob):
    where = [] if command == "sweep" else ["-n", "current"]
    said = complaint(command, *(where + [option, glob]))
    assert said.startswith("check pattern %s: only * and ? are special in a pattern; " % glob)
    assert "several patterns" in said


@pytest.mark.parametrize(
    "value",
    ["", ".", "-1", "+1", "1e3", "nan", "inf", "5s", " 5", "1.2.3", "86400.5", "9" * 30]
    + ["\u0665", "\udcff", "0x5", "1_0"],
)
@pytest.mark.parametrize("command", ["cleanup", "setup"])
def test_seconds_to_wait_are_a_decimal_number(complaint, command, value):
    said = complaint(command, "-n", "current", "--wait", value)
    assert said.startswith("check --wait")
    assert said.endswith(": a number of seconds from 0 to 86400 is needed, such as 5 or 0.5")


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("--jobs x", "check --jobs x: a whole number of at most 10 digits is needed, such as 64"),
        ("--jobs 0", "check jobs 0: at least one job is needed"),
        ("--resync 0", "check resync 0: more seconds are needed, such as 30"),
        ("--grace -1", "check --grace -1: a number of seconds from 0 to 86400 is needed, "),
    ],
)
def test_numbers_of_a_watch_that_make_no_sense(complaint, arguments, words):
    assert complaint("watch", *arguments.split()).startswith(words)


@pytest.mark.parametrize("arguments", ["-u auto -u eth0", "-u none -u eth0", "-u eth0 -u auto"])
def test_auto_and_none_are_given_alone(complaint, arguments):
    said = complaint("scan", *arguments.split())
    assert said.startswith("check uplink ") and '"auto" and "none" ' in said


# ---------------------------------------------------------------- near


@pytest.mark.parametrize(
    "one, other, distance",
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "abc", 0),
        ("abc", "acb", 1),
        ("abc", "bc", 1),
        ("abc", "abd", 1),
        ("ca", "abc", 3),  # optimal string alignment edits no part twice
        ("kitten", "sitting", 3),
    ],
)
def test_distance(one, other, distance):
    assert mistakes.distance(one, other) == mistakes.distance(other, one) == distance


@given(st.text(max_size=50), st.lists(st.text(max_size=12), max_size=5))
def test_what_is_near_is_one_of_the_names(word, names):
    assert mistakes.nearest(word, names) in [None] + names

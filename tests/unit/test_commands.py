# SPDX-License-Identifier: Apache-2.0
"""nlraw.commands without a kernel: help, usage errors, and the exit status of many namespaces."""

import errno
import json
import re

import pytest

import nlraw
from lib.command import ADVICE
from nlraw import cli, commands, pod

# The commands, and the options that each must have.
COMMON = "--match --uplink --json --exclude -m -u -j"
OPTIONS = {
    "scan": COMMON + " --netns -n --who",
    "cleanup": COMMON + " --netns -n --dry-run -N --keep-in-use --wait --who",
    "setup": COMMON
    + " --netns -n --tap --owner --group --address --multi-queue --wait --who --print",
    "sweep": COMMON
    + " --dry-run -N --dir --proc --include-fresh --include-node --keep-in-use --jobs --metrics",
    "watch": COMMON
    + " --dir --include-fresh --include-node --keep-in-use --jobs --resync --grace --metrics",
    "hook": "--match --uplink --exclude -m -u --annotation --refuse --keep-in-use --wait --who",
    "deploy": "",
    "selftest": "--json -j",
}

REPORT = nlraw.Report(
    netns="/run/netns/pod1",
    uplink="eth0",
    outcome="cleaned",
    taps=(),
    tc_removed=(),
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
    assert set(commands.COMMANDS) <= set(OPTIONS)


@pytest.mark.parametrize("command", sorted(commands.COMMANDS))
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


@pytest.mark.parametrize("command", sorted(commands.COMMANDS))
def test_every_way_to_ask_for_help_on_a_command(run, command):
    shown = run(command, "--help")
    assert shown[1].startswith("usage: nlraw %s " % command)
    assert run(command, "-h") == shown
    first = next((each for each in ("-j", "-u") if each in OPTIONS[command].split()), None)
    if first is not None:
        assert run(command, "-ux" if first == "-u" else first, "--help") == shown


@pytest.mark.parametrize(
    "command, defaults", [("cleanup", ["tap*_urunc", "eth0"]), ("setup", ["tap0_urunc", "eth0"])]
)
def test_help_shows_the_defaults(run, command, defaults):
    out = run(command, "--help")[1]
    for default in defaults:
        assert "(default: %s)" % default in out


@pytest.mark.parametrize("asked", ["-h", "--help", "help"])
def test_help_names_every_command_and_exit_status(run, asked):
    status, out, err = run(asked)
    assert (status, err) == (0, "")
    for name, command in commands.COMMANDS.items():
        assert re.search(r"^  %s +%s$" % (name, re.escape(command.summary)), out, re.MULTILINE)
    for number in "0123":
        assert re.search(r"\b%s [a-z]" % number, out.partition("exit status:")[2])


@pytest.mark.parametrize("asked", ["-V", "--version"])
def test_version(run, asked):
    assert run(asked) == (0, "nlraw %s\n" % nlraw.__version__, "")


# ---------------------------------------------------------------- usage errors


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("", "a command is needed; see `nlraw --help`"),
        ("clean", "clean: there is no such command; did you mean `cleanup`?"),
        ("frobnicate", "frobnicate: there is no such command; see `nlraw --help`"),
        (
            "-n",
            "-n: the command comes first, as in `nlraw scan -n pod1`; see `nlraw --help`",
        ),
        (
            "cleanup --frobnicate",
            "cleanup --frobnicate: no such option; see `nlraw cleanup --help`",
        ),
        ("cleanup --net=X", "cleanup --net=X: no such option; did you mean `--netns`?"),
        ("cleanup -x", "cleanup -x: no such option; see `nlraw cleanup --help`"),
        ("cleanup -jx", "cleanup -x: no such option; see `nlraw cleanup --help`"),
        ("cleanup -", "cleanup -: no such option; see `nlraw cleanup --help`"),
        ("scan -N", "scan -N: no such option; `cleanup` and `sweep` have it"),
        ("scan pod1", "scan pod1: unexpected argument; did you mean `-n pod1`?"),
        (
            "scan -n",
            "scan -n: this option needs a value: NETNS, a PID, a path,"
            " a name as in `ip netns`, or current",
        ),
        ("scan -jm", "scan -m: this option needs a value: GLOB, names of TAPs, with * and ?"),
        (
            "scan --uplink",
            "scan --uplink: this option needs a value: NAME, the pod's interface towards the node",
        ),
        ("setup -n 1 --owner 0 --owner=1", "setup --owner=1: this option can be given only once"),
        (
            "setup -n 1 --print qemu --print xen",
            "check --print xen: one of qemu, firecracker, cloud-hypervisor, cmdline is needed",
        ),
        (
            "setup -n 1 --print firecracker --multi-queue",
            "check --print firecracker: it opens a TAP with one queue only; leave out"
            " --multi-queue",
        ),
        ("setup -n 1 -n 2", "setup -n: this option can be given only once"),
        ("scan --json=yes", "scan --json=yes: this option takes no value"),
    ],
)
def test_a_usage_error_names_what_is_wrong(run, arguments, words):
    assert run(*arguments.split()) == (2, "", "nlraw: %s\n" % words)


@pytest.mark.parametrize("command", ["cleanup", "setup"])
def test_what_changes_a_namespace_needs_its_name(run, command):
    status, out, err = run(command)
    assert (status, out) == (2, "")
    assert err.startswith("nlraw: %s: a namespace is needed: " % command)
    assert "`-n current`" in err


@pytest.mark.parametrize(
    "option, value",
    [("--uplink", "a" * 16), ("--uplink", "a/b"), ("--uplink", ""), ("--match", "")]
    + [("--match", "tap[0]"), ("--exclude", "{a,b}"), ("--exclude", "")],
)
def test_a_value_that_can_match_no_name_is_a_usage_error(run, option, value):
    status, out, err = run("scan", option, value)
    assert (status, out) == (2, "")
    assert value in err and err.count("\n") == 1


def test_no_byte_of_an_argument_reaches_stderr_unescaped(run):
    shown = run("scan", "--\x1b[31m\udcff\n")
    assert shown == (
        2,
        "",
        "nlraw: scan --\\x1b[31m\\xff\\x0a: no such option; see `nlraw scan --help`\n",
    )


# ---------------------------------------------------------------- exit status of many namespaces


@pytest.fixture
def visited(monkeypatch):
    """The namespaces that were looked at or cleaned up.

    The name of each is the outcome that it has.
    """
    visited = []

    def preview_of(netns, target, who=False):
        visited.append(netns)
        error = nlraw.Refused(errno.EIO, "") if netns == "failed" else None
        return REPORT.replace(netns=netns, outcome=netns, error=error)

    def clean_up(netns, target, dry_run=False, patience=None, wait=0.0, who=False):
        patiences.append(patience)
        report = preview_of(netns, target)
        return report.replace(error=nlraw.TapInUse("in use")) if netns == "in-use" else report

    patiences = []
    monkeypatch.setattr(pod, "preview_of", preview_of)
    monkeypatch.setattr(pod, "clean_up", clean_up)
    yield visited
    assert None not in patiences  # those of one command share one


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
    shown = json.loads(run("scan", "-j", "-n", "clean", "-n", "clean")[1])
    assert [one["netns"] for one in shown] == ["clean", "clean"]


def test_what_failed_is_on_stderr_too_with_its_namespace(run, visited):
    _, out, err = run("cleanup", "-n", "in-use", "-n", "clean", "-n", "failed")
    assert out == "failed  -  failed  EIO\n3 namespaces: 1 clean, 1 in use, 1 failed\n"
    assert err == "nlraw: in-use: in use%s\nnlraw: failed: EIO\n" % ADVICE


# ---------------------------------------------------------------- what Python itself lacks


@pytest.mark.parametrize(
    "error, words",
    [
        (MemoryError(), "MemoryError"),
        (ImportError("No module named 'json'"), "No module named 'json'"),
        (
            ImportError("No module named 'json'", name="json"),
            "No module named 'json'; install all of Python's standard library (Debian: "
            "libpython3-stdlib)",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_python_cannot_load_or_allocate_is_one_line(run, monkeypatch, error, words):
    def lack(*_):
        raise error

    monkeypatch.setattr(pod, "preview_of", lack)
    assert run("scan") == (commands.FAILED, "", "nlraw: run the command: %s\n" % words)

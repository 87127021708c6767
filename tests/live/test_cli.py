# SPDX-License-Identifier: Apache-2.0
"""The command line in real processes, on namespaces of the test's own.

Exit status, JSON, names, streams, system calls.
"""

import itertools
import json
import os
import re
import shutil
import signal
import socket
import sys
import time

import pytest

from lib import command, pods
from lib.command import MODULE, PATIENCE, ROOT, environment, nlraw
from nlraw.transport import WRITER_PORT

TC_OF_ONE_ORPHAN = [
    {"dev": "eth0", "object": "filter", "kind": "u32", "priority": 49152, "target": pods.TAP},
    {"dev": "eth0", "object": "qdisc", "kind": "ingress"},
    {"dev": "tap0_urunc", "object": "qdisc", "kind": "ingress"},
]


def in_json(*arguments, **options):
    """Run a command line with --json.

    Return its exit status and the one document that it printed.
    """
    done = nlraw(*arguments, "--json", **options)
    assert done.out.endswith("\n") and done.out.count("\n") == 1
    return done.status, json.loads(done.out)


def inside(pod):
    """The command, run in the namespace of a pod, which is the current one then."""
    return ("ip", "netns", "exec", pod.name) + MODULE


# ---------------------------------------------------------------- exit status


def test_nothing_to_do_is_0(pod):
    assert nlraw("cleanup", "-n", pod.path) == (
        0,
        "%s: clean, nothing to remove (uplink eth0)\n" % pod.path,
        "",
    )


def test_an_orphan_removed_is_0(pod):
    before = pod.state()
    pod.add_orphan()
    status, out, err = nlraw("cleanup", "-n", pod.path)
    assert (status, err) == (0, "")
    assert re.match(r"%s  tap0_urunc  orphan +deleted\n" % pod.path, out)
    assert out.endswith("\n%s: cleaned (uplink eth0)\n" % pod.path)
    assert pod.state() == before


@pytest.mark.parametrize("arguments", [["cleanup"], ["cleanup", "--dry-run"]], ids=" ".join)
def test_a_tap_in_use_is_3_and_nothing_is_changed(pod, arguments):
    pod.add_tap()
    pod.hold()
    before = pod.state()
    status, out, err = nlraw(*arguments, "-n", pod.path)
    assert (status, out.splitlines()) == (
        3,
        [
            "%s  tap0_urunc  in-use  left alone" % pod.path,
            "%s: in use, nothing changed (uplink eth0)" % pod.path,
        ],
    )
    words = "nlraw: %s: clean up tap0_urunc: in use (carrier on), nothing was changed%s\n"
    assert err == words % (pod.path, command.ADVICE)
    assert pod.state() == before


def test_a_scan_of_a_tap_in_use_is_0(pod):
    pod.add_tap()
    pod.hold()
    status, out, err = nlraw("scan", "-v", "-n", pod.path)
    assert (status, err) == (0, "")
    assert re.search(r"  tap0_urunc  in-use +left alone +ifindex \d+, carrier on, ", out)


@pytest.mark.parametrize("arguments", [["scan"], ["cleanup", "--dry-run"]], ids=" ".join)
def test_what_would_be_done_is_0_and_is_not_done(pod, arguments):
    pod.add_orphan()
    before = pod.state()
    status, printed = in_json(*arguments, "-n", pod.path)
    assert (status, printed["outcome"], printed["taps"][0]["deleted"]) == (0, "would-clean", False)
    assert printed["tc_removed"] == TC_OF_ONE_ORPHAN
    assert pod.state() == before


@pytest.mark.parametrize("command", ["scan", "cleanup"])
def test_no_uplink_is_0_and_the_taps_are_listed(pod, command):
    pod.add_orphan(redirect=False)
    status, printed = in_json(command, "-n", pod.path, "-u", "eth9")
    assert (status, printed["outcome"], printed["uplink"]) == (0, "skipped", "eth9")
    assert [(tap["ifname"], tap["deleted"]) for tap in printed["taps"]] == [(pods.TAP, False)]
    assert pods.TAP in pod.links()


@pytest.mark.parametrize("command", ["scan", "cleanup"])
@pytest.mark.parametrize(
    "netns, step, name",
    [
        ("nlraw-test-nowhere", "open namespace", "ENOENT"),
        ("/run/netns/nlraw-test-nowhere", "open namespace", "ENOENT"),
        (__file__, "open namespace", None),
        ("/", "open namespace", None),
        ("/proc/self/ns/mnt", "open namespace", None),
        ("4194305", "open namespace", "ENOENT"),  # above the highest PID
        ("", "open namespace", None),
    ],
    ids=[
        "no such name",
        "no such path",
        "a file",
        "a directory",
        "a mount namespace",
        "no such process",
        "empty",
    ],
)
def test_a_bad_namespace_is_1_and_its_report_is_printed(command, netns, step, name):
    status, printed = in_json(command, "-n", netns)
    assert (status, printed["outcome"], printed["taps"], printed["tc_removed"]) == (
        1,
        "failed",
        [],
        [],
    )
    assert list(printed["error"]) == ["step", "object", "errno", "message"]
    assert (printed["error"]["step"], printed["error"]["object"], printed["error"]["errno"]) == (
        step,
        printed["netns"],
        name,
    )


def test_a_bad_namespace_is_reported_on_both_streams(pod):
    path = pod.path + "-gone"
    status, out, err = nlraw("scan", "-n", path)
    reason = "open namespace %s: No such file or directory; %s" % (path, command.WHERE)
    assert (status, out) == (1, "%s: failed: %s\n" % (path, reason.replace(" " + path, "")))
    assert err == "nlraw: %s\n" % reason  # on stdout the path is not named again


def test_an_uplink_of_15_bytes_is_a_name_and_one_of_16_is_2(pod):
    assert nlraw("scan", "-n", pod.path, "-u", "a" * 15).status == 0
    status, out, err = nlraw("scan", "-n", pod.path, "-u", "a" * 16)
    assert (status, out) == (2, "")
    assert "at most 15 bytes" in err


def test_a_usage_error_is_2_and_nothing_is_done(pod):
    pod.add_orphan()
    assert nlraw("cleanup", "-n", pod.path, "--frobnicate").status == 2
    assert pods.TAP in pod.links()


def test_each_namespace_is_cleaned_on_its_own(make_pod):
    used, orphaned, clean = make_pod(), make_pod(), make_pod()
    used.add_tap()
    used.hold()
    orphaned.add_orphan()
    status, printed = in_json("cleanup", "-n", used.path, "-n", orphaned.path, "-n", clean.path)
    assert (status, [one["outcome"] for one in printed]) == (3, ["in-use", "cleaned", "clean"])
    assert [one["netns"] for one in printed] == [used.path, orphaned.path, clean.path]
    assert pods.TAP in used.links() and pods.TAP not in orphaned.links()


def test_one_that_failed_outweighs_one_in_use_and_stops_none(make_pod):
    used, orphaned = make_pod(), make_pod()
    used.add_tap()
    used.hold()
    orphaned.add_orphan()
    status, printed = in_json(
        "cleanup", "-n", "nlraw-test-nowhere", "-n", used.path, "-n", orphaned.path
    )
    assert (status, [one["outcome"] for one in printed]) == (1, ["failed", "in-use", "cleaned"])
    assert pods.TAP not in orphaned.links()


def without(capability):
    """The command, run by root who lacks a capability."""
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv of util-linux")
    return ("setpriv", "--bounding-set", "-" + capability, "--inh-caps", "-" + capability) + MODULE


def test_a_refused_change_is_1_and_names_the_capability(pod):
    pod.add_orphan()
    before = pod.state()
    status, printed = in_json("cleanup", "-n", pod.path, argv=without("net_admin"))
    assert (status, printed["outcome"], printed["error"]["errno"]) == (1, "failed", "EPERM")
    assert "CAP_NET_ADMIN" in printed["error"]["message"]
    assert [tap["deleted"] for tap in printed["taps"]] == [False] and printed["tc_removed"] == []
    assert pod.state() == before


def test_a_namespace_that_may_not_be_entered_is_1_and_names_the_capability(pod):
    status, out, err = nlraw("cleanup", "-n", pod.path, argv=without("sys_admin"))
    assert status == 1
    assert err.startswith("nlraw: enter namespace %s: " % pod.path) and "CAP_SYS_ADMIN" in err
    reason = err[len("nlraw: ") :].replace(" " + pod.path, "")
    assert out == "%s: failed: %s" % (pod.path, reason)


# ---------------------------------------------------------------- JSON


def test_json_of_a_cleanup(pod):
    ifindex = pod.add_orphan()
    # it lags the carrier, and so does RUNNING
    wait_for(lambda: pod.links()[pods.TAP]["operstate"] == "DOWN")
    status, printed = in_json("cleanup", "-n", pod.path)
    assert status == 0
    assert printed == {
        "netns": pod.path,
        "uplink": "eth0",
        "outcome": "cleaned",
        "taps": [
            {
                "ifname": pods.TAP,
                "ifindex": ifindex,
                "verdict": "orphan",
                "fresh": False,
                "carrier": False,
                "operstate": "DOWN",
                "flags": ["BROADCAST", "MULTICAST", "UP"],
                "deleted": True,
            }
        ],
        "tc_removed": TC_OF_ONE_ORPHAN,
        "ignored": [],
        "dead_redirects": [],
        "error": None,
    }
    keys = "netns uplink outcome taps tc_removed ignored dead_redirects error"
    assert list(printed) == keys.split()
    assert (
        list(printed["taps"][0])
        == "ifname ifindex verdict fresh carrier operstate flags deleted".split()
    )
    assert list(printed["tc_removed"][0]) == "dev object kind priority target".split()


def test_json_of_a_tap_in_use_has_the_error(pod):
    pod.add_tap()
    pod.hold()
    status, printed = in_json("cleanup", "-n", pod.path)
    assert (status, printed["outcome"], printed["tc_removed"]) == (3, "in-use", [])
    (tap,) = printed["taps"]
    assert (tap["verdict"], tap["fresh"], tap["carrier"], tap["deleted"]) == (
        "in-use",
        False,
        True,
        False,
    )
    reason = "in use (carrier on), nothing was changed"
    assert list(printed["error"].items()) == [
        ("step", "clean up"),
        ("object", pods.TAP),
        ("errno", None),
        ("message", reason),
    ]


def test_a_scan_of_a_tap_in_use_has_the_outcome_of_a_cleanup_and_no_error(pod):
    pod.add_tap()
    pod.hold()
    assert in_json("scan", "-n", pod.path) == (
        0,
        dict(in_json("cleanup", "-n", pod.path)[1], error=None),
    )


def test_a_dead_redirect_alone_would_be_cleaned(pod):
    pod.add_orphan()
    pod.ip("link", "del", pods.TAP)
    status, printed = in_json("scan", "-n", pod.path)
    assert (status, printed["outcome"], printed["taps"], printed["tc_removed"]) == (
        0,
        "would-clean",
        [],
        [dict(TC_OF_ONE_ORPHAN[0], target=None), TC_OF_ONE_ORPHAN[1]],
    )


def test_flags_and_state_are_those_of_iproute2(pod):
    pod.add_tap()
    pod.hold()
    pod.ip("link", "show", pods.TAP)
    shown = pod.links()[pods.TAP]
    (tap,) = in_json("scan", "-n", pod.path)[1]["taps"]
    # iproute2 leaves RUNNING out
    assert [flag for flag in tap["flags"] if flag != "RUNNING"] == shown["flags"]
    assert (tap["operstate"], tap["ifindex"]) == (shown["operstate"], shown["ifindex"])


def test_a_namespace_is_reported_by_its_path_or_as_the_current_one(pod):
    child = pod.child()
    paths = {
        pod.path: ["-n", pod.path],
        "/run/netns/" + pod.name: ["-n", pod.name],
        "/proc/%d/ns/net" % child.pid: ["-n", str(child.pid)],
    }
    for path, arguments in paths.items():
        assert in_json("scan", *arguments) == (
            0,
            dict(in_json("scan", "-n", pod.path)[1], netns=path),
        )
    assert in_json("scan", argv=inside(pod))[1]["netns"] == "current"


@pytest.mark.parametrize("command", ["cleanup", "setup"])
def test_the_current_namespace_is_changed_only_where_it_is_named(pod, command):
    pod.add_orphan()
    before = pod.state()
    status, out, err = nlraw(command, argv=inside(pod))
    assert (status, out) == (2, "") and "-n current" in err
    assert pod.state() == before
    status, printed = in_json(command, "-n", "current", argv=inside(pod))
    assert (status, printed["netns"]) == (0, "current")
    assert printed.get("cleanup", printed)["outcome"] == "cleaned"


def test_uplink_auto_and_none_are_reported_as_what_they_were(pod):
    assert in_json("scan", "-n", pod.path, "-u", "auto")[1]["uplink"] == "eth0"
    assert in_json("scan", "-n", pod.path, "-u", "none")[1]["uplink"] is None


def test_another_pattern_finds_another_tap(pod):
    pod.add_tap("vm7", redirect=False)
    assert in_json("cleanup", "-n", pod.path, "-m", "vm?")[1]["taps"][0]["ifname"] == "vm7"
    assert "vm7" not in pod.links()


# ---------------------------------------------------------------- names from outside

# A name, as a terminal may see it.
NAMES = {
    b"tap\x1b[31m_urunc": "tap\\x1b[31m_urunc",
    b"tap\x7f\x01_urunc": "tap\\x7f\\x01_urunc",
    b"tap\"'\\_urunc": "tap\"'\\\\_urunc",
    b"tap\xff\x9b_urunc": "tap\\xff\\x9b_urunc",
    b"tap$(id)_urunc": "tap$(id)_urunc",
    b"tap-15byt_urunc": "tap-15byt_urunc",
}
BARE = {
    "LC_ALL": "C",
    "LANG": "C",
    "PYTHONIOENCODING": "ascii",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


def add_taps(pod, names):
    pod.add_taps(names)
    for name in names:
        pod.tc("qdisc", "add", "dev", os.fsdecode(name), "ingress")


def is_plain(text):
    """Whether a terminal takes it for nothing but text."""
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("env", [{}, BARE], ids=["as it is", "bare"])
def test_no_name_reaches_a_terminal_unescaped(pod, env):
    add_taps(pod, NAMES)
    status, out, err = nlraw("cleanup", "-n", pod.path, env=env)
    assert (status, err) == (0, "")
    assert is_plain(out)
    for shown in NAMES.values():
        # the TAP, and its qdisc
        assert len(re.findall("  %s  " % re.escape(shown), out)) == 2
    assert set(pod.links()) == {"lo", "eth0", "peer0"}


@pytest.mark.parametrize("env", [{}, BARE], ids=["as it is", "bare"])
def test_json_holds_the_bytes_of_each_name(pod, env):
    add_taps(pod, NAMES)
    printed = in_json("cleanup", "-n", pod.path, env=env)[1]
    names = [tap["ifname"].encode("utf-8", "surrogateescape") for tap in printed["taps"]]
    assert names == list(NAMES)
    assert [
        gone["dev"].encode("utf-8", "surrogateescape") for gone in printed["tc_removed"]
    ] == names


def test_no_name_reaches_a_terminal_unescaped_in_an_error(pod):
    name = "tap\x1b[31m_urunc"
    pod.hold(name)
    status, out, err = nlraw("cleanup", "-n", pod.path)
    assert status == 3
    assert is_plain(out) and is_plain(err)
    words = "nlraw: %s: clean up tap\\x1b[31m_urunc: in use (carrier on), nothing was changed%s\n"
    assert err == words % (pod.path, command.ADVICE)


@pytest.mark.parametrize(
    "netns", [b"a\x1b[31mb\xff", b"/a\x1b[31mb\xff", b"/proc/self/ns/../ns/mnt\x1b[31m"]
)
def test_no_path_reaches_a_terminal_unescaped(netns):
    status, out, err = nlraw("scan", "-n", netns)
    assert status == 1
    assert is_plain(out) and is_plain(err)
    assert "\\x1b[31m" in out and "\\x1b[31m" in err


@pytest.mark.parametrize("env", [{}, BARE], ids=["as it is", "bare"])
def test_a_pattern_and_an_uplink_may_have_any_bytes(pod, env):
    add_taps(pod, NAMES)
    pod.ip("link", "add", os.fsdecode(b"up\xff\xc3\xbc\x1b"), "type", "bridge")
    status, printed = in_json(
        "cleanup", "-n", pod.path, "-m", b"tap\xff*", "-u", b"up\xff\xc3\xbc\x1b", env=env
    )
    assert (status, printed["outcome"], printed["uplink"]) == (0, "cleaned", "up\udcff\u00fc\x1b")
    assert [tap["ifname"] for tap in printed["taps"]] == ["tap\udcff\udc9b_urunc"]


@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "utf-8"}, BARE], ids=["UTF-8", "bare"])
def test_what_is_no_ascii_is_shown_as_its_bytes_in_any_locale(pod, env):
    add_taps(pod, ["tap\u00fc_urunc".encode("utf-8")])
    assert "  tap\\xc3\\xbc_urunc  " in nlraw("scan", "-n", pod.path, env=env).out


def test_json_holds_the_same_path_in_any_locale():
    printed = [
        in_json("scan", "-n", "/\u00fc".encode("utf-8"), env=env)[1]
        for env in ({"LC_ALL": "C.UTF-8"}, BARE)
    ]
    assert printed[0]["netns"] == printed[1]["netns"] == "/\u00fc"


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize(
    "streams, reason",
    [(">&-", "stdout is closed"), (">/dev/full", "stdout: No space left on device")],
    ids=["closed", "full"],
)
@pytest.mark.parametrize("form", [[], ["-j"]], ids=["text", "JSON"])
def test_a_result_that_cannot_be_written_is_1_but_the_work_is_done(pod, streams, reason, form):
    pod.add_orphan()
    done = nlraw("cleanup", "-n", pod.path, *form, streams=streams)
    words = "nlraw: the result could not be written: %s; the cleanup itself has ended\n"
    assert done == (1, "", words % reason)
    assert pods.TAP not in pod.links()


def test_a_reader_who_has_gone_is_1_but_the_work_is_done(pod):
    pod.add_orphan()
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = nlraw("cleanup", "-n", pod.path, stdout=writer)
    finally:
        os.close(writer)
    words = (
        "nlraw: the result could not be written: stdout: Broken pipe; the cleanup itself has ended"
    )
    assert done == (1, "", words + "\n")
    assert pods.TAP not in pod.links()


@pytest.mark.parametrize("flags", [(), ("-u",)], ids=["buffered", "unbuffered"])
def test_a_result_that_there_is_no_room_for_the_end_of_is_1(tmp_path, flags):
    limited = ("sh", "-c", 'ulimit -f 1; exec "$0" "$@" >%s/printed' % tmp_path, sys.executable)
    env = {"PYTHONDONTWRITEBYTECODE": "1"}  # or a cache of that size is written
    done = nlraw("--help", argv=limited + flags + MODULE[1:], env=env)
    assert done == (1, "", "nlraw: the result could not be written: stdout: File too large\n")
    assert (tmp_path / "printed").stat().st_size == 512


@pytest.mark.parametrize("streams", [">&-", ">/dev/full"], ids=["closed", "full"])
@pytest.mark.parametrize("arguments", ["--help", "--version", "scan --help"])
def test_help_that_cannot_be_written_is_1(arguments, streams):
    status, _, err = nlraw(*arguments.split(), streams=streams)
    assert (status, err.startswith("nlraw: the result could not be written: ")) == (1, True)


def test_that_a_tap_is_in_use_is_said_though_the_result_cannot_be_written(pod):
    pod.add_tap()
    pod.hold()
    status, _, err = nlraw("cleanup", "-n", pod.path, streams=">/dev/full")
    assert status == 1
    assert "tap0_urunc: in use" in err and "could not be written" in err


@pytest.mark.parametrize(
    "streams, form",
    [
        (">/dev/full", []),
        (">/dev/full", ["-j"]),
        ("2>/dev/full", []),
        ("2>&-", []),
        ("<&- >&- 2>&-", ["-j"]),
    ],
    ids=["stdout full", "stdout full, JSON", "stderr full", "stderr closed", "all closed, JSON"],
)
def test_every_namespace_is_cleaned_whatever_becomes_of_the_words(make_pod, streams, form):
    used, orphaned = make_pod(), make_pod()
    used.add_tap()
    used.hold()
    orphaned.add_orphan()
    nlraw("cleanup", "-n", used.path, "-n", orphaned.path, *form, streams=streams)
    assert pods.TAP in used.links() and pods.TAP not in orphaned.links()


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full"])
def test_the_result_and_the_status_are_right_without_a_stderr(pod, streams):
    pod.add_tap()
    pod.hold()
    status, out, _ = nlraw("cleanup", "-n", pod.path, "-j", streams=streams)
    assert (status, json.loads(out or "{}").get("outcome")) == (3, "in-use")


def test_nothing_is_asked_of_stdin(pod):
    assert nlraw("cleanup", "-n", pod.path, streams="<&-").status == 0


# ---------------------------------------------------------------- signals


# A shell lets what it runs in the background ignore the signal, and who is run by that inherits it.
HEEDING_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from nlraw.cli import program
program()
"""


def test_ctrl_c_is_130_without_a_word_and_changes_nothing(pod):
    pod.add_orphan()
    before = pod.state()
    other = pod.run(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
    with other:
        other.bind((WRITER_PORT, 0))  # somebody else is at work in this namespace: wait
        argv = (sys.executable, "-c", HEEDING_CTRL_C)
        process = command.start("cleanup", "-n", pod.path, argv=argv)
        # the second thread waits inside the namespace
        wait_for(lambda: len(os.listdir("/proc/%d/task" % process.pid)) == 2)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE) == (b"", b"")
    assert process.returncode == 130
    assert pod.state() == before


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# ---------------------------------------------------------------- system calls


@pytest.fixture
def strace(tmp_path):
    """Run a program under strace, and return the lines on its files and its sockets."""
    if shutil.which("strace") is None:
        pytest.skip("no strace")

    def strace(*argv):
        log = str(tmp_path / "strace.log")
        watched = ["strace", "-f", "-s", "65536", "-e", "trace=file,network", "-o", log]
        done = command.attempt(*watched + list(argv), env=environment(), cwd="/")
        with open(log, errors="replace") as file:
            lines = file.read().splitlines()
        if not lines:
            pytest.skip("strace may trace nothing here: " + done.err)
        assert done.status == 0, done.err
        return lines

    return strace


def below_proc(lines):
    """The paths below /proc that were opened, looked at or read as links.

    A PyPy finds its own stack in its own maps.
    """
    return {
        path
        for line in lines
        for path in re.findall(r'"(/proc/[^"]*)"', line)
        if not path.endswith("/maps")
    }


def test_no_other_process_is_looked_at_and_no_tun_is_opened(pod, strace):
    pod.add_orphan()
    child = pod.child()
    interpreter = below_proc(strace(sys.executable, "-c", "import ctypes"))
    lines = strace(*MODULE, "cleanup", "-n", str(child.pid))
    assert below_proc(lines) - interpreter == {"/proc/%d/ns/net" % child.pid}
    assert not [line for line in lines if "/dev/net/tun" in line]
    assert pods.TAP not in pod.links()


def deletions(lines):
    """The deletions in each datagram that has any, in their order.

    An older strace gives numbers for names.
    """
    names = {"0x11": "RTM_DELLINK", "0x25": "RTM_DELQDISC", "0x2d": "RTM_DELTFILTER"}
    found = []
    for line in lines:
        if re.search(r"\bsend(to|msg|mmsg)?\(", line):
            types = [names.get(type, type) for type in re.findall(r"nlmsg_type=(\w+)", line)]
            found.append([type for type in types if type.startswith("RTM_DEL")])
    return [types for types in found if types]


def test_all_changes_go_in_one_datagram_the_filters_first_and_the_links_last(pod, strace):
    pod.add_orphan("tap0_urunc")
    pod.add_orphan("tap1_urunc")
    (sent,) = deletions(strace(*MODULE, "cleanup", "-n", pod.path))
    assert sent.count("RTM_DELLINK") == 2
    groups = [type for type, _ in itertools.groupby(sent)]
    assert groups == [
        "RTM_DELTFILTER",
        "RTM_DELQDISC",
        "RTM_DELLINK",
        "RTM_DELQDISC",
        "RTM_DELLINK",
    ]
    assert not {"tap0_urunc", "tap1_urunc"} & set(pod.links())


@pytest.mark.parametrize("arguments", ["scan", "cleanup --dry-run"])
def test_a_look_sends_no_change(pod, strace, arguments):
    pod.add_orphan()
    assert deletions(strace(*MODULE, *arguments.split(), "-n", pod.path)) == []


# ---------------------------------------------------------------- ways in

# As an installer writes it for the entry point of the console script.
CONSOLE_SCRIPT = "import sys; from nlraw.cli import program; sys.exit(program())"
# What -m does, where -I keeps PYTHONPATH out.
AS_MODULE = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module('nlraw', None, '__main__', True)"
)


@pytest.mark.parametrize(
    "argv",
    [
        MODULE,
        (sys.executable, "-c", CONSOLE_SCRIPT),
        (sys.executable, "-I", "-S", "-c", AS_MODULE, ROOT),
        (
            sys.executable,
            "-I",
            "-S",
            "-OO",
            "-bb",
            "-W",
            "error",
            "-X",
            "dev",
            "-c",
            AS_MODULE,
            ROOT,
        ),
    ],
    ids=["module", "console script", "isolated", "strict"],
)
def test_every_way_in_is_the_same_program(pod, argv):
    pod.add_orphan()
    status, printed = in_json("cleanup", "-n", pod.path, argv=argv)
    assert (status, printed["outcome"], printed["tc_removed"]) == (0, "cleaned", TC_OF_ONE_ORPHAN)
    assert nlraw("scan", "--frobnicate", argv=argv).status == 2
    assert nlraw("--version", argv=argv).out.startswith("nlraw ")

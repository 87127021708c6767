# SPDX-License-Identifier: Apache-2.0
"""Lines to the system log: their format, and that nobody waits for them."""

import contextlib
import os
import posix
import re
import socket
import sys
import threading
import time

import pytest

import nlraw
from lib.reports import a_report, a_tap
from nlraw import output, syslog
from nlraw.report import DeadRedirect, Holder

PATTERN = re.compile(
    rb"<(\d+)>(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ([ 123]\d) "
    rb"(\d\d:\d\d:\d\d) nlraw\[%d\]: (.*)" % os.getpid()
)


def parts(line):
    return PATTERN.fullmatch(line).groups()


@pytest.mark.parametrize(
    "severity, value", [(output.ERROR, b"27"), (output.WARNING, b"28"), (output.NOTICE, b"29")]
)
def test_a_line_has_facility_daemon_and_a_severity(severity, value):
    assert parts(syslog.line(severity, "text"))[::4] == (value, b"text")


@pytest.mark.parametrize(
    "when, date",
    [
        ((2026, 1, 2, 3, 4, 5), (b"Jan", b" 2", b"03:04:05")),
        ((2026, 12, 31, 23, 59, 59), (b"Dec", b"31", b"23:59:59")),
    ],
)
def test_the_time_is_local_and_in_english(monkeypatch, when, date):
    monkeypatch.setattr(time, "localtime", lambda: time.struct_time(when + (0, 0, 0)))
    assert parts(syslog.line(output.NOTICE, ""))[1:4] == date


def test_whatever_is_not_printable_is_escaped():
    assert parts(syslog.line(3, "a\n\x1b[31m\udcff\0é"))[4] == rb"a\x0a\x1b[31m\xff\x00\xc3\xa9"


@pytest.mark.parametrize("text", ["x" * 5000, "\n" * 5000, "é" * 400])
def test_a_line_is_cut_at_1024_bytes(text):
    line = syslog.line(output.ERROR, "container t1: " + text)
    assert len(line) == 1024 and line.endswith(b"...") and b": container t1: " in line
    parts(line)


@pytest.fixture
def log(tmp_path):
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(tmp_path / "log"))
    made.settimeout(5)
    yield made
    made.close()


def test_a_line_arrives_as_one_datagram(log):
    syslog.log(output.NOTICE, "text", log.getsockname())
    assert parts(log.recv(4096))[4] == b"text"


def test_nobody_waits_for_a_log_whose_queue_is_full(log):
    def send():
        for _ in range(2000):  # net.unix.max_dgram_qlen is 10 by default
            syslog.log(output.NOTICE, "x" * 900, log.getsockname())

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    sender.join(10)
    assert not sender.is_alive()
    assert parts(log.recv(4096))[4] == b"x" * 900


def test_without_a_log_socket_a_line_is_lost_and_nothing_else(tmp_path):
    syslog.log(output.ERROR, "text", str(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("")
    syslog.log(output.ERROR, "text", str(tmp_path / "file"))
    os.mkfifo(str(tmp_path / "fifo"))
    syslog.log(output.ERROR, "text", str(tmp_path / "fifo"))
    syslog.log(output.ERROR, "text", str(tmp_path))
    syslog.log(output.ERROR, "text", "x" * 200)  # too long for an address
    syslog.log(output.ERROR, "text", "")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(tmp_path / "stream"))
        stream.listen(1)
        syslog.log(output.ERROR, "text", str(tmp_path / "stream"))
    assert (tmp_path / "file").read_text() == ""


# ---------------------------------------------------------------- reports


def tap(name, **fields):
    return a_tap(ifname=name, **fields)


def report(outcome, taps=(), tc_removed=(), error=None):
    return a_report(outcome, netns="/n", taps=taps, tc_removed=tc_removed, error=error)


REFUSED = nlraw.TapInUse("in use (carrier on), nothing was changed", "clean up", "tap0")
FILTER = nlraw.TcObject(dev="eth0", object="filter", kind="u32", priority=1, target="tap0")
DEAD = FILTER.replace(target=None)
QDISC = nlraw.TcObject(dev="eth0", object="qdisc", kind="ingress")
LEFT = DeadRedirect(dev="eth0", kind="matchall", priority=1)
NOBODY = (Holder(pid=7, comm="qemu"), Holder(pid=None, comm=None))


@pytest.mark.parametrize(
    "found",
    [
        report("clean"),
        report("clean", [tap("tap0", fresh=True)]),
        report("skipped"),
        report("skipped", [tap("tap0", verdict="in-use")]),
        report("in-use", [tap("tap0", verdict="in-use"), tap("tap1")]),
        report("would-clean", [tap("tap0")], [FILTER]),
        report("would-clean", [tap("tap0")]).replace(dead_redirects=(LEFT,)),
    ],
    ids=["nothing", "spared", "no TAP", "in use, no uplink", "in use", "dry run", "dry, dead"],
)
def test_where_nothing_was_done_and_nothing_is_wrong_there_is_no_line(found, monkeypatch):
    monkeypatch.setattr(syslog, "log", lambda *arguments: pytest.fail("a line"))
    assert not output.is_news(found)
    assert syslog.entry(found) is None
    syslog.log_report(found, "container t1: ")


@pytest.mark.parametrize(
    "found, priority, text",
    [
        (
            report("cleaned", [tap("tap0", deleted=True), tap("tap1", fresh=True)], [FILTER]),
            output.NOTICE,
            "deleted orphan tap0 (nobody held it);"
            " removed u32 filter on eth0 (it redirected to tap0)",
        ),
        (
            report("cleaned", [], [DEAD, QDISC]),
            output.NOTICE,
            "removed u32 filter on eth0 (it redirected to nothing), ingress qdisc on eth0",
        ),
        (
            report("cleaned", [tap("tap%d" % n, deleted=True) for n in range(12)]),
            output.NOTICE,
            "deleted orphans %s and 2 more (nobody held them)"
            % ", ".join("tap%d" % n for n in range(10)),
        ),
        (
            report("in-use", [tap("tap0", holders=NOBODY)], error=REFUSED),
            output.WARNING,
            "clean up tap0: in use (carrier on), nothing was changed;"
            " tap0 is held by qemu (PID 7), perhaps others",
        ),
        (
            report("in-use", [tap("tap0", verdict="in-use")]).replace(dead_redirects=(LEFT,)),
            output.WARNING,
            "these filters redirect to nothing, swallow packets, and stay: matchall filter on eth0",
        ),
        (
            report("cleaned", [tap("tap0", deleted=True)]).replace(dead_redirects=(LEFT,)),
            output.WARNING,
            "deleted orphan tap0 (nobody held it);"
            " these filters redirect to nothing, swallow packets, and stay:"
            " matchall filter on eth0",
        ),
        (
            report("skipped", [tap("tap0"), tap("tap1", verdict="in-use")]),
            output.WARNING,
            "there is no uplink eth0, net1, so these orphans stay: tap0; `-u none` needs no uplink",
        ),
        (
            report(
                "failed",
                [tap("tap0", deleted=True), tap("tap1")],
                error=nlraw.Error("no", "delete link", "tap1"),
            ),
            output.ERROR,
            "delete link tap1: no; deleted orphan tap0 (nobody held it); these orphans stay: tap1",
        ),
        (
            report("failed", error=nlraw.Error("no", "list links", "/n")),
            output.ERROR,
            "list links: no",
        ),
        (report("failed", error=nlraw.Error("no", None, "/n")), output.ERROR, "no"),
    ],
    ids=[
        "a removal",
        "a dead redirect",
        "many TAPs",
        "a refusal",
        "a dead redirect that stays",
        "and a removal",
        "no uplink",
        "half a removal",
        "a failure of the namespace",
        "without a step",
    ],
)
def test_a_line_has_the_namespace_and_the_tap_and_the_reason(found, priority, text, monkeypatch):
    assert output.is_news(found)
    uplinks = ("eth0", "net1")
    assert syslog.entry(found, "", uplinks) == (priority, "/n: " + text)
    lines = []
    monkeypatch.setattr(syslog, "log", lambda *arguments: lines.append(arguments))
    syslog.log_report(found, "container t1: ", uplinks)
    assert lines == [(priority, "container t1: /n: " + text)]


def test_a_hostile_namespace_makes_no_long_line():
    names = ["\x1b" * 15] * 500
    taps = [tap(name, deleted=True) for name in names[:250]] + [tap(name) for name in names[:250]]
    error = nlraw.Error("no", "delete link", names[0])
    filters = [FILTER.replace(dev=name, target=name) for name in names]
    _, text = syslog.entry(report("failed", taps, filters, error))
    assert len(text) < 10000 and len(syslog.line(3, text)) == syslog.LIMIT
    assert text.index("deleted orphans ") < 100


# ---------------------------------------------------------------- once


class Streams:
    """stderr as a file, which systemd connected to the journal or not; and what is logged."""

    def __init__(self, path, monkeypatch):
        self.file = open(str(path), "w+")
        self.logged = []
        self._monkeypatch = monkeypatch

    def connect(self, file=None, named=None):
        """Let a file be stderr, and the journal be behind it, or behind what is ``named``."""
        file = file or self.file
        found = os.fstat(file.fileno())
        if named is None:
            named = b"%d:%d" % (found.st_dev, found.st_ino)
        self._monkeypatch.setattr(posix, "environ", {b"JOURNAL_STREAM": named})
        self._monkeypatch.setattr(sys, "stderr", file)
        self._monkeypatch.setattr(syslog, "log", lambda *entry: self.logged.append(entry))

    @property
    def err(self):
        self.file.seek(0)
        return self.file.read()


@pytest.fixture
def streams(tmp_path, monkeypatch):
    made = Streams(tmp_path / "err", monkeypatch)
    yield made
    made.file.close()


FAILED = report("failed", [tap("tap0")], error=nlraw.Error("no", "delete link", "tap0"))


def test_a_failure_is_printed_and_logged_where_stderr_is_not_the_journal(streams):
    streams.connect(named=b"")
    syslog.publish(FAILED)
    syslog.log_too(4, "text")
    assert streams.err == "nlraw: /n: delete link tap0: no\n"
    entry = (3, "/n: delete link tap0: no; these orphans stay: tap0")
    assert streams.logged == [entry, (4, "text")]


def test_a_failure_is_one_line_with_its_priority_where_stderr_is_the_journal(streams):
    streams.connect()
    syslog.publish(FAILED)
    output.complain("text", output.ERROR)
    syslog.log_too(output.ERROR, "text")
    output.complain_about(FAILED)
    assert streams.err == (
        "<3>/n: delete link tap0: no; these orphans stay: tap0\n<3>text\n"
        "<3>/n: delete link tap0: no\n"
    )
    assert streams.logged == []


def test_a_warning_has_the_priority_of_one(streams):
    streams.connect()
    output.complain_about(report("skipped", [tap("tap0")]))
    output.complain_about(report("in-use", [tap("tap0")], error=REFUSED))
    assert [line[:4] for line in streams.err.splitlines()] == ["<4>/"] * 2


def test_another_stream_of_the_journal_is_not_stderr(streams, tmp_path):
    with open(str(tmp_path / "other"), "w") as other:
        found = os.fstat(other.fileno())
        streams.connect(named=b"%d:%d" % (found.st_dev, found.st_ino))
        syslog.record(5, "text")
    assert (streams.err, streams.logged) == ("", [(5, "text")])


@pytest.mark.parametrize("named", [b"", b":", b"1", b"\xff:\0", b"1:2:3"])
def test_whatever_the_environment_names_it_is_not_stderr(streams, named):
    streams.connect(named=named)
    assert not output.is_journal(is_complaint=True)


def test_a_closed_stream_is_not_the_journal(streams, monkeypatch):
    streams.connect()
    assert output.is_journal(is_complaint=True) and not output.is_journal()
    streams.file.close()
    assert not output.is_journal(is_complaint=True)
    monkeypatch.setattr(sys, "stderr", None)
    assert not output.is_journal(is_complaint=True)


def test_a_line_in_the_journal_is_escaped_and_cut(streams):
    streams.connect()
    syslog.record(5, "\n<0>\x1b" + "x" * 2000)
    (line,) = streams.err.splitlines()
    assert line.startswith("<5>\\x0a<0>\\x1bxxx") and line.endswith("x...")
    assert len(line) == syslog.LIMIT


def test_what_a_broken_stream_does_not_take_goes_to_the_log(streams):
    with open("/dev/full", "w") as full:
        streams.connect(full)
        syslog.record(5, "first")
        syslog.record(5, "second")
        sys.stderr.close()
        with contextlib.suppress(OSError):
            full.close()
    assert streams.logged == [(5, "first"), (5, "second")]


def test_nobody_waits_for_a_journal_that_does_not_read(streams):
    reader, writer = os.pipe()
    pipe = open(writer, "w")
    streams.connect(pipe)

    def send():
        for _ in range(200):  # a pipe holds 64 KiB
            syslog.record(5, "x" * 2000, waits=False)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    sender.join(10)
    assert not sender.is_alive()
    assert 100 < len(streams.logged) < 200
    pipe.close()
    os.close(reader)

# SPDX-License-Identifier: Apache-2.0
"""Lines to the system log: their format, and that nobody waits for them."""

import os
import re
import socket
import threading
import time

import pytest

import nlraw
from lib.reports import a_report, a_tap
from nlraw import syslog

PATTERN = re.compile(
    rb"<(\d+)>(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ([ 123]\d) "
    rb"(\d\d:\d\d:\d\d) nlraw\[%d\]: (.*)" % os.getpid()
)


def parts(line):
    return PATTERN.fullmatch(line).groups()


@pytest.mark.parametrize(
    "severity, value", [(syslog.ERROR, b"27"), (syslog.WARNING, b"28"), (syslog.NOTICE, b"29")]
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
    assert parts(syslog.line(syslog.NOTICE, ""))[1:4] == date


def test_whatever_is_not_printable_is_escaped():
    assert parts(syslog.line(3, "a\n\x1b[31m\udcff\0é"))[4] == rb"a\x0a\x1b[31m\xff\x00\xc3\xa9"


@pytest.mark.parametrize("text", ["x" * 5000, "\n" * 5000, "é" * 400])
def test_a_line_is_cut_at_1024_bytes(text):
    line = syslog.line(syslog.ERROR, "container t1: " + text)
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
    syslog.log(syslog.NOTICE, "text", log.getsockname())
    assert parts(log.recv(4096))[4] == b"text"


def test_nobody_waits_for_a_log_whose_queue_is_full(log):
    def send():
        for _ in range(2000):  # net.unix.max_dgram_qlen is 10 by default
            syslog.log(syslog.NOTICE, "x" * 900, log.getsockname())

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    sender.join(10)
    assert not sender.is_alive()
    assert parts(log.recv(4096))[4] == b"x" * 900


def test_without_a_log_socket_a_line_is_lost_and_nothing_else(tmp_path):
    syslog.log(syslog.ERROR, "text", str(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("")
    syslog.log(syslog.ERROR, "text", str(tmp_path / "file"))
    os.mkfifo(str(tmp_path / "fifo"))
    syslog.log(syslog.ERROR, "text", str(tmp_path / "fifo"))
    syslog.log(syslog.ERROR, "text", str(tmp_path))
    syslog.log(syslog.ERROR, "text", "x" * 200)  # too long for an address
    syslog.log(syslog.ERROR, "text", "")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(tmp_path / "stream"))
        stream.listen(1)
        syslog.log(syslog.ERROR, "text", str(tmp_path / "stream"))
    assert (tmp_path / "file").read_text() == ""


# ---------------------------------------------------------------- reports


def tap(name, **fields):
    return a_tap(ifname=name, **fields)


def report(outcome, taps=(), tc_removed=(), error=None):
    return a_report(outcome, netns="/n", taps=taps, tc_removed=tc_removed, error=error)


REFUSED = nlraw.TapInUse("in use (carrier on), nothing was changed", "clean up", "tap0")
FILTER = nlraw.TcObject(dev="eth0", object="filter", kind="u32", priority=1, target="tap0")
QDISC = nlraw.TcObject(dev="eth0", object="qdisc", kind="ingress")


@pytest.mark.parametrize("outcome", ["clean", "skipped"])
def test_nothing_done_has_no_line(outcome, monkeypatch):
    monkeypatch.setattr(syslog, "log", lambda *arguments: pytest.fail("a line"))
    found = report(outcome, [tap("tap0")])
    assert syslog.summary(found) == ""
    syslog.log_report(found, "container t1: ")


@pytest.mark.parametrize(
    "found, priority, text",
    [
        (
            report("cleaned", [tap("tap0").replace(deleted=True), tap("tap1")], [FILTER, QDISC]),
            syslog.NOTICE,
            "deleted tap0, removed u32 filter on eth0, removed ingress qdisc on eth0",
        ),
        (
            report("in-use", [tap("tap0")], error=REFUSED),
            syslog.WARNING,
            "clean up tap0: in use (carrier on), nothing was changed",
        ),
        (
            report("failed", [tap("tap0").replace(deleted=True)], error=nlraw.Error("no", "step")),
            syslog.ERROR,
            "step: no; deleted tap0",
        ),
        (
            report("cleaned", [tap("tap%d" % n).replace(deleted=True) for n in range(12)]),
            syslog.NOTICE,
            ", ".join("deleted tap%d" % n for n in range(8)) + ", 4 more",
        ),
    ],
    ids=["changes", "a refusal", "a failure", "many changes"],
)
def test_each_change_refusal_and_failure_has_a_line(found, priority, text, monkeypatch):
    lines = []
    monkeypatch.setattr(syslog, "log", lambda *arguments: lines.append(arguments))
    syslog.log_report(found, "container t1: ")
    assert lines == [(priority, "container t1: /n: " + text)]

# SPDX-License-Identifier: Apache-2.0
"""nlraw.service: how many lines a watch writes into the log about one namespace."""

import pytest

from nlraw.service import LINES, LINES_PER_SECOND, Log

SOON = 1 / LINES_PER_SECOND


@pytest.fixture
def lines():
    return []


@pytest.fixture
def log(lines):
    def record(priority, text, waits):
        assert not waits
        lines.append((priority, text))

    return Log(record)


def test_a_few_lines_are_logged_at_once(log, lines):
    entries = [(5, str(number)) for number in range(int(LINES))]
    for entry in entries:
        log.add("/n", entry, 0.0)
    assert lines == entries
    assert log.flush(0.0) == float("inf")


def test_of_very_many_lines_the_last_one_follows_when_there_is_room(log, lines):
    for number in range(1000):
        log.add("/n", (5, str(number)), 0.0)
    assert len(lines) == LINES
    due = log.flush(0.0)
    assert due == pytest.approx(SOON)
    log.flush(due - 0.1)
    assert len(lines) == LINES
    assert log.flush(due) == float("inf")
    left_out = 1000 - int(LINES) - 1
    assert lines[-1] == (5, "(%d lines before this one were left out) 999" % left_out)
    assert len(lines) == LINES + 1


def test_a_line_that_waited_alone_says_nothing_of_others(log, lines):
    for number in range(int(LINES) + 1):
        log.add("/n", (5, str(number)), 0.0)
    log.flush(SOON)
    assert lines[-1] == (5, str(int(LINES)))


def test_a_loud_namespace_takes_nothing_from_another(log, lines):
    for number in range(1000):
        log.add("/loud", (5, str(number)), 0.0)
    log.add("/n", (3, "text"), 0.0)
    assert lines[-1] == (3, "text")


def test_a_day_of_noise_is_bounded(log, lines):
    now = 0.0
    while now < 86400:
        log.add("/n", (5, "text"), now)
        log.flush(now)
        log.forget(now)
        now += 5
    assert len(lines) <= LINES + 86400 * LINES_PER_SECOND + 1


def test_at_the_end_nothing_waits(log, lines):
    for number in range(100):
        log.add("/n", (5, str(number)), 0.0)
    log.end(0.0)
    assert lines[-1][1].endswith(" 99")
    assert log.flush(1e6) == float("inf")


def test_only_a_namespace_with_its_whole_quota_is_forgotten(log, lines):
    for number in range(100):
        log.add("/n", (5, str(number)), 0.0)
    log.forget(1e6)  # one still waits
    log.flush(1e6)
    log.forget(1e6)
    for number in range(100):
        log.add("/n", (5, str(number)), 1e6)
    assert len(lines) == LINES + 1 + LINES - 1


def test_notes_are_warnings_on_stderr_and_in_the_log(log, lines, capsys):
    log.note("text")
    assert lines == [(4, "text")]
    assert capsys.readouterr() == ("", "nlraw: text\n")

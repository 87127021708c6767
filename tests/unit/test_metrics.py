# SPDX-License-Identifier: Apache-2.0
"""nlraw.metrics: the text of the metrics, and how a file is replaced by it."""

import errno
import os
import stat
import threading

import pytest

import nlraw
from lib.prometheus import counted, parsed, read
from nlraw import metrics

TOTALS = {name: number for number, name in enumerate(nlraw.Totals.__slots__, 1)}

# ---------------------------------------------------------------- what is in it


def test_each_sum_has_its_metric():
    shown = parsed(metrics.text(nlraw.Totals(**TOTALS), 0.25, 1700000000.5))
    names = {
        "namespaces": "namespaces",
        "orphans": "orphans",
        "deleted": "orphans_removed",
        "spared": "orphans_spared",
        "in_use": "taps_in_use",
        "skipped": "namespaces_skipped",
        "failed": "namespaces_failed",
    }
    assert counted(shown) == {names[field]: value for field, value in TOTALS.items()}
    assert (shown["nlraw_sweep_duration_seconds"], shown["nlraw_sweep_timestamp_seconds"]) == (
        0.25,
        1700000000.5,
    )


def test_every_metric_has_its_help_and_its_type_right_before_it():
    lines = metrics.text(nlraw.Totals(**TOTALS), 1.0, 2.0).splitlines()
    assert len(lines) % 3 == 0
    for help, type, sample in zip(lines[::3], lines[1::3], lines[2::3]):
        name = sample.split()[0]
        assert help.startswith("# HELP %s " % name) and help.endswith(".")
        assert type == "# TYPE %s gauge" % name
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_info")), (
            "these mean something else"
        )


# ---------------------------------------------------------------- how it gets there


def written(path, content="a 1\n"):
    """Write, and return what else is in the directory afterwards."""
    metrics.write(str(path), content)
    with open(str(path)) as file:
        assert file.read() == content
    return sorted(set(os.listdir(os.path.dirname(str(path)))) - {os.path.basename(str(path))})


def test_a_file_is_replaced_as_a_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "nlraw.prom"
    assert written(path, "a longer text\n") == []
    with open(str(path)) as old:
        assert written(path, "short\n") == []
        assert old.read() == "a longer text\n"


@pytest.mark.parametrize("mask", [0o077, 0o000])
def test_everybody_may_read_it_whatever_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        metrics.write(str(tmp_path / "prom"), "")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(str(tmp_path / "prom")).st_mode) == 0o644


def test_its_reader_never_sees_half_of_it(tmp_path):
    path, texts = str(tmp_path / "prom"), {"%d\n" % number * 5000 for number in range(2)}
    metrics.write(path, "0\n" * 5000)
    seen, names, over = set(), set(), threading.Event()

    def look():
        while not over.is_set():
            names.update(name for name in os.listdir(str(tmp_path)) if name.endswith(".prom"))
            with open(path) as file:
                seen.add(file.read())

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(300):
        metrics.write(path, "%d\n" % (number % 2) * 5000)
    over.set()
    reader.join()
    assert seen == texts and not names


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "prom")
    metrics.write(str(tmp_path / "link"), "1\n")
    assert os.path.islink(str(tmp_path / "link"))
    assert (tmp_path / "prom").read_text() == "1\n"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["directory", "FIFO"])
def test_what_is_no_plain_file_is_not_replaced(tmp_path, make):
    make(str(tmp_path / "prom"))
    with pytest.raises(nlraw.Invalid) as caught:
        metrics.write(str(tmp_path / "prom"), "")
    assert (caught.value.step, caught.value.object) == ("write metrics to", str(tmp_path / "prom"))
    assert os.listdir(str(tmp_path)) == ["prom"]


@pytest.mark.parametrize(
    "number, advice",
    [
        (errno.ENOENT, "make its directory first"),
        (errno.EACCES, "choose a place where this user may write"),
    ],
)
def test_what_to_do_about_a_file_that_cannot_be_created_is_said(monkeypatch, number, advice):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(nlraw.Refused) as caught:
        metrics.write("/prom", "")
    words = "write metrics to /prom: %s; %s" % (os.strerror(number), advice)
    assert (caught.value.errno, str(caught.value)) == (number, words)


@pytest.mark.parametrize("call", ["fchmod", "rename"])
def test_on_failure_the_old_file_stays_and_nothing_else_is_left(tmp_path, monkeypatch, call):
    metrics.write(str(tmp_path / "prom"), "old\n")

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(nlraw.Refused) as caught:
        metrics.write(str(tmp_path / "prom"), "new\n")
    assert (caught.value.errno, caught.value.object) == (errno.ENOSPC, str(tmp_path / "prom"))
    assert os.listdir(str(tmp_path)) == ["prom"]
    assert (tmp_path / "prom").read_text() == "old\n"


def test_two_sweeps_at_once_leave_one_whole_file(tmp_path):
    totals = nlraw.Totals(**TOTALS)
    threads = [
        threading.Thread(target=lambda: [written_by_many(tmp_path, totals) for _ in range(50)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.listdir(str(tmp_path)) == ["prom"]
    assert len(read(tmp_path / "prom")) == 9


def written_by_many(directory, totals):
    metrics.write(str(directory / "prom"), metrics.text(totals, 1.0, 2.0))

# SPDX-License-Identifier: Apache-2.0
"""`nlraw sweep --metrics FILE`: how it is written, and Prometheus' own parser reads it."""

import errno
import os
import stat
import threading
import time

import pytest

import command
import nlraw
from nlraw import metrics

parser = pytest.importorskip(
    "prometheus_client.parser", reason="prometheus_client is not installed"
)

TOTALS = {name: number for number, name in enumerate(nlraw.Totals.__slots__, 1)}


def read(path):
    """The metrics in a file, by name."""
    with open(str(path)) as file:
        return parsed(file.read())


def parsed(text):
    told = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.type == "gauge" and family.documentation, family
        (sample,) = family.samples
        assert (sample.name, sample.labels) == (family.name, {})
        told[sample.name] = sample.value
    return told


def counted(told):
    """The metrics that count something and are not 0, by the part of the name that differs."""
    return {
        name[len("nlraw_sweep_") :]: value
        for name, value in told.items()
        if value and not name.endswith("_seconds")
    }


def sweep(node, path, *options):
    return command.nlraw("sweep", "--dir", node.directory, "--metrics", str(path), *options)


# ---------------------------------------------------------------- what is in it


def test_each_sum_has_its_metric():
    told = parsed(metrics.text(nlraw.Totals(**TOTALS), 0.25, 1700000000.5))
    names = {
        "namespaces": "namespaces",
        "orphans": "orphans",
        "deleted": "orphans_removed",
        "spared": "orphans_spared",
        "in_use": "taps_in_use",
        "skipped": "namespaces_skipped",
        "failed": "namespaces_failed",
    }
    assert counted(told) == {names[field]: value for field, value in TOTALS.items()}
    assert (told["nlraw_sweep_duration_seconds"], told["nlraw_sweep_timestamp_seconds"]) == (
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


def test_a_sweep_tells_what_it_saw_and_did(node, make_pod, tmp_path):
    node.add("orphans", orphans=2)
    node.add("fresh", fresh=True)
    node.add("skipped", orphans=0, uplink="eth7")
    pod = make_pod()
    pod.add_tap()
    pod.hold()
    os.symlink(pod.path, node.path("used"))
    path = tmp_path / "nlraw.prom"
    begin = time.time()
    done = sweep(node, path)
    assert (done.status, done.err) == (0, "")
    assert (
        done.out.splitlines()[-1]
        == "4 namespaces, 3 orphans, 2 deleted, 1 spared, 1 in use, 1 skipped, 0 failed"
    )
    told = read(path)
    assert counted(told) == {
        "namespaces": 4,
        "orphans": 3,
        "orphans_removed": 2,
        "orphans_spared": 1,
        "taps_in_use": 1,
        "namespaces_skipped": 1,
    }
    assert begin - 0.001 <= told["nlraw_sweep_timestamp_seconds"] <= time.time()
    assert 0 < told["nlraw_sweep_duration_seconds"] < command.PATIENCE


def test_where_a_part_fails_that_is_told_too(node, tmp_path):
    node.add("orphan")
    os.symlink("/proc/self/ns/net", node.path("own"))
    argv = ("unshare", "--user", "--map-root-user", "--net") + command.MODULE
    done = command.nlraw(
        "sweep",
        "-u",
        "none",
        "--dir",
        node.directory,
        "--metrics",
        str(tmp_path / "prom"),
        argv=argv,
    )
    if done.err.startswith("unshare"):
        pytest.skip("no user namespace can be made here: " + done.err)
    assert done.status == 1
    assert counted(read(tmp_path / "prom")) == {"namespaces": 2, "namespaces_failed": 1}


def test_a_dry_run_writes_what_would_be_seen(node, tmp_path):
    node.add("pod")
    assert sweep(node, tmp_path / "prom", "--dry-run").status == 0
    assert counted(read(tmp_path / "prom")) == {"namespaces": 1, "orphans": 1}


def test_a_sweep_that_could_not_begin_leaves_the_file_with_its_old_time(node, tmp_path):
    sweep(node, tmp_path / "prom")
    before = read(tmp_path / "prom")
    done = command.nlraw(
        "sweep", "--dir", node.path("missing"), "--metrics", str(tmp_path / "prom")
    )
    assert done.status == 1
    assert read(tmp_path / "prom") == before


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


def test_a_device_is_not_replaced(node):
    done = sweep(node, "/dev/null")
    assert (done.status, done.err) == (
        1,
        "nlraw: write metrics to /dev/null: this is there already, and is no plain file\n",
    )
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


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


def test_what_cannot_be_written_is_exit_1_with_its_name_after_the_work(node, tmp_path):
    path = node.add("pod")
    missing = tmp_path / "missing" / "nlraw.prom"
    done = sweep(node, missing)
    assert (done.status, done.err) == (
        1,
        "nlraw: write metrics to %s: No such file or directory\n" % missing,
    )
    assert done.out.splitlines()[-1].startswith("1 namespaces, 1 orphans, 1 deleted")
    assert not nlraw.scan(netns=path)


def test_a_name_that_is_no_text_is_a_name(node, tmp_path):
    path = os.path.join(os.fsencode(str(tmp_path)), b"\xff.prom")
    assert sweep(node, os.fsdecode(path)).status == 0
    assert os.path.exists(path)


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

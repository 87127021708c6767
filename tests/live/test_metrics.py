# SPDX-License-Identifier: Apache-2.0
"""`nlraw sweep --metrics FILE` on a made-up node: what is in the file, and when there is none."""

import os
import stat
import time

import pytest

import nlraw
from lib import command
from lib.prometheus import counted, read


def sweep(node, path, *options):
    return command.nlraw("sweep", "--dir", node.directory, "--metrics", str(path), *options)


def test_a_sweep_reports_what_it_saw_and_did(node, make_pod, tmp_path):
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
    assert done.out.splitlines()[-1] == (
        "4 namespaces: 1 clean, 1 cleaned, 1 in use, 1 without an uplink;"
        " 2 orphans deleted, 1 orphan spared, 1 TAP in use"
    )
    shown = read(path)
    assert counted(shown) == {
        "namespaces": 4,
        "orphans": 3,
        "orphans_removed": 2,
        "orphans_spared": 1,
        "taps_in_use": 1,
        "namespaces_skipped": 1,
    }
    assert begin - 0.001 <= shown["nlraw_sweep_timestamp_seconds"] <= time.time()
    assert 0 < shown["nlraw_sweep_duration_seconds"] < command.PATIENCE


def test_where_a_part_fails_that_is_reported_too(node, tmp_path):
    node.add("orphan")
    argv = ("unshare", "--user", "--map-root-user", "--net") + command.MODULE
    done = command.nlraw(
        "sweep",
        "--include-node",
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


def test_a_device_is_not_replaced(node):
    done = sweep(node, "/dev/null")
    assert (done.status, done.err) == (
        0,
        "nlraw: write metrics to /dev/null: it exists and is not a regular file; "
        "the sweep itself is done\n",
    )
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_what_cannot_be_written_is_a_warning_that_names_it(node, tmp_path):
    path = node.add("pod")
    missing = tmp_path / "missing" / "nlraw.prom"
    done = sweep(node, missing)
    assert (done.status, done.err) == (
        0,
        "nlraw: write metrics to %s: No such file or directory; make its directory first; "
        "the sweep itself is done\n" % missing,
    )
    assert done.out.splitlines()[-1] == "1 namespace: 1 cleaned; 1 orphan deleted"
    assert not nlraw.scan(netns=path)


def test_a_name_that_is_no_text_is_a_name(node, tmp_path):
    path = os.path.join(os.fsencode(str(tmp_path)), b"\xff.prom")
    assert sweep(node, os.fsdecode(path)).status == 0
    assert os.path.exists(path)

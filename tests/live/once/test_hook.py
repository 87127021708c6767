# SPDX-License-Identifier: Apache-2.0
"""The hook in real processes: a stdin that does not end, streams that nobody reads."""

import subprocess
import time

import pytest

from lib import command, pods
from lib.oci import Bundle


@pytest.fixture
def bundle(tmp_path):
    made = Bundle(str(tmp_path))
    made.configure({"type": "network"})
    return made


def test_a_stdin_that_does_not_end_is_1_after_five_seconds(bundle):
    silent, dripping, complete = (
        command.start("hook", stdin=subprocess.PIPE),
        command.start("hook", stdin=subprocess.PIPE),
        command.start("hook", stdin=subprocess.PIPE),
    )
    began = time.monotonic()
    complete.stdin.write(bundle.state("stopped"))
    complete.stdin.flush()
    while dripping.poll() is None and time.monotonic() < began + 20:
        try:
            dripping.stdin.write(b" ")
            dripping.stdin.flush()
        except BrokenPipeError:
            break
        time.sleep(0.05)
    for process in (dripping, silent, complete):
        assert process.wait(timeout=10) == 1
        assert (
            process.stderr.read()
            == b"nlraw: read container state from stdin: it did not end within 5 seconds\n"
        )
        assert 4.5 < time.monotonic() - began < 8
        for stream in (process.stdout, process.stderr):
            stream.close()
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass


@pytest.mark.parametrize(
    "streams", [">&-", ">/dev/full", "2>&-", ">&- 2>&-", ">/dev/full 2>/dev/full"]
)
def test_whoever_does_not_listen_changes_neither_the_work_nor_the_status(
    make_pod, bundle, tmp_path, streams
):
    orphaned, used = make_pod(), make_pod()
    orphaned.add_orphan()
    used.add_tap()
    used.hold()
    for pod, option, status in (
        (orphaned, (), 0),
        (used, (), 0),
        (used, ("--refuse",), 3),
        (None, ("--refuse",), 0),
    ):
        bundle.network("/run/netns/nlraw-test-nowhere" if pod is None else pod.path)
        (tmp_path / "state").write_bytes(bundle.state("stopped"))
        done = command.nlraw("hook", *option, streams="<%s %s" % (tmp_path / "state", streams))
        assert done.status == status
        if streams == ">&-":
            assert "nlraw: container t1: " in done.err
            assert all(line.startswith("nlraw: ") for line in done.err.splitlines())
    assert pods.TAP not in orphaned.links() and pods.TAP in used.links()

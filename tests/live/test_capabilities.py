# SPDX-License-Identifier: Apache-2.0
"""Fewer capabilities: what may be done is done, what may not is refused and changes nothing."""

from lib import command
from lib.rights import MATTERS, capabilities, needs, without


def test_with_these_two_capabilities_and_no_other_all_is_done(pod):
    needs("setpriv")
    before = pod.state()
    others = [name for name in capabilities() if name not in MATTERS]
    assert command.nlraw("setup", "-n", pod.path, argv=without(*others)).status == 0
    pod.check_pair()
    assert command.nlraw("cleanup", "-n", pod.path, argv=without(*others)).status == 0
    assert pod.state() == before


def test_a_scan_takes_no_capability_beyond_the_way_in(pod):
    needs("setpriv")
    pod.add_orphan()
    others = [name for name in capabilities() if name != "sys_admin"]
    assert "would clean" in command.nlraw("scan", "-n", pod.path, argv=without(*others)).out
    done = command.nlraw("scan", "-n", pod.path, argv=without("sys_admin"))
    assert (done.status, done.err) == (1, "nlraw: %s\n" % (MATTERS["sys_admin"] % pod.path))


def test_a_sweep_that_may_not_enter_says_so_of_each_namespace(pod, tmp_path):
    needs("setpriv")
    pod.add_orphan()
    before = pod.state()
    (tmp_path / "pod").symlink_to(pod.path)
    done = command.nlraw("sweep", "--dir", str(tmp_path), argv=without("sys_admin"))
    assert (done.status, done.err) == (
        1,
        "nlraw: %s\n" % (MATTERS["sys_admin"] % (tmp_path / "pod")),
    )
    assert pod.state() == before

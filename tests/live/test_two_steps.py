# SPDX-License-Identifier: Apache-2.0
"""What comes into use between the two steps of a cleanup beside TAPs in use that are kept.

If an `ingress` may go, filters in chains go first, in a step of their own. A TAP that comes into
use after that is kept, but it has lost a redirect: a failure that says so.
"""

import pytest

import nlraw
from lib import pods
from lib.watch import Watch, is_change, is_look, once


@pytest.fixture
def pod(make_pod):
    """A pod with an orphan that has a redirect in a chain, and two others."""
    pod = make_pod()
    for name in (pods.TAP, "tap1_urunc", "tap2_urunc"):
        pod.add_orphan(name, redirect=False)
    pod.add_ingress("eth0")
    pod.redirect("eth0", pods.TAP, "ingress", "chain", "7")
    return pod


def watch_between_the_steps(pod, event):
    watch = Watch()

    def after_the_first():
        watch.before = once(is_look, event)

    watch.before = once(is_change, after_the_first)
    return watch


@pytest.mark.parametrize("others", [(), ("tap1_urunc",)], ids=["alone", "with another"])
def test_the_one_that_lost_a_redirect_is_a_failure(pod, others):
    def attach():
        for name in (pods.TAP,) + others:
            pod.hold(name)

    with pytest.raises(nlraw.Error) as caught:
        watch_between_the_steps(pod, attach).clean_up(pod, keep_in_use=True)
    error, report = caught.value, caught.value.report
    assert not isinstance(error, nlraw.TapInUse) and report.outcome == "failed"
    assert error.object == pods.TAP and "came into use (carrier on)" in str(error)
    assert "u32 filter on eth0" in str(error)
    # all the same the others are gone
    kept = {pods.TAP, *others}
    assert {tap.ifname for tap in report.taps if not tap.deleted} == kept
    assert {name for name in pod.links() if name.startswith("tap")} == kept


def test_one_that_lost_nothing_is_none(pod):
    watch = watch_between_the_steps(pod, lambda: pod.hold("tap1_urunc"))
    assert watch.clean_up(pod, keep_in_use=True).outcome == "cleaned"
    assert [name for name in pod.links() if name.startswith("tap")] == ["tap1_urunc"]

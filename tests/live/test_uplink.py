# SPDX-License-Identifier: Apache-2.0
"""Which device is the uplink: by its name, by the default route, or none.

And that nothing is touched where it is missing.
"""

import pytest

import nlraw
from lib import pods


def skip(pod, **options):
    """Clean up a pod that is not to be touched."""
    before = pod.state()
    report = nlraw.cleanup(netns=pod.path, **options)
    assert report.outcome == "skipped"
    assert report.tc_removed == () and not any(tap.deleted for tap in report.taps)
    assert pod.state() == before
    return report


def test_without_an_uplink_taps_are_listed_and_nothing_is_touched(make_pod):
    pod = make_pod(uplink=None)
    pod.add_orphan("tap0_urunc", redirect=False)
    pod.add_tap("tap1_urunc", redirect=False)
    pod.hold("tap1_urunc")
    report = skip(pod)
    assert [(tap.ifname, tap.verdict) for tap in report.taps] == [
        ("tap0_urunc", "orphan"),
        ("tap1_urunc", "in-use"),
    ]
    assert report.uplink == "eth0"


def test_scan_lists_taps_without_an_uplink(make_pod):
    pod = make_pod(uplink=None)
    pod.add_orphan(redirect=False)
    assert [tap.verdict for tap in nlraw.scan(netns=pod.path)] == ["orphan"]


def test_an_uplink_of_another_name_is_used_if_asked_for(make_pod):
    pod = make_pod(uplink="net1")
    before = pod.state()
    pod.add_orphan()
    skip(pod)
    assert nlraw.cleanup(netns=pod.path, uplink="net1").uplink == "net1"
    assert pod.state() == before


def test_an_uplink_found_by_an_alternative_name_is_somebody_elses(make_pod):
    pod = make_pod(uplink="net1")
    pod.ip("link", "property", "add", "dev", "net1", "altname", "eth0")
    pod.add_orphan()
    skip(pod)


def test_auto_takes_the_default_route_of_the_lowest_metric(make_pod):
    pod = make_pod(uplink="net1")
    pod.batch(
        "link add net2 type veth peer name peer2",
        "link set net2 up",
        "link set peer2 up",
        "address add 10.8.7.2/24 dev net2",
        "route del default",
        "route add default via 10.8.7.1 dev net2 metric 200",
        "route add default via 10.9.8.1 dev net1 metric 100",
    )
    before = pod.state()
    pod.add_orphan()
    report = nlraw.cleanup(netns=pod.path, uplink="auto")
    assert (report.outcome, report.uplink) == ("cleaned", "net1")
    assert pod.state() == before


def test_auto_looks_at_the_main_table_alone(make_pod):
    pod = make_pod(uplink="net1")
    pod.batch(
        "route del default",
        "route add default via 10.9.8.1 dev net1 table 100",
        "route add unreachable default metric 5",
        "route add 0.0.0.0/1 via 10.9.8.1 dev net1",
    )
    pod.add_orphan()
    assert skip(pod, uplink="auto").uplink is None


def test_auto_falls_back_to_ipv6(make_pod):
    pod = make_pod(uplink="net1")
    pod.ip("route", "del", "default")
    pod.sysctl("net/ipv6/conf/net1/disable_ipv6", 0)
    pod.batch(
        "address add fd00::2/64 dev net1 nodad", "route add default via fd00::1 dev net1 metric 7"
    )
    pod.add_orphan()
    report = nlraw.cleanup(netns=pod.path, uplink="auto")
    assert (report.outcome, report.uplink) == ("cleaned", "net1")
    assert pods.TAP not in pod.links() and pod.qdiscs("net1") == []


def test_auto_prefers_ipv4_whatever_the_metric(make_pod):
    pod = make_pod(uplink="net1")
    pod.batch(
        "link add net2 type veth peer name peer2",
        "link set net2 up",
        "link set peer2 up",
        "route del default",
        "route add default via 10.9.8.1 dev net1 metric 1000",
    )
    pod.sysctl("net/ipv6/conf/net2/disable_ipv6", 0)
    pod.batch(
        "address add fd00::2/64 dev net2 nodad", "route add default via fd00::1 dev net2 metric 7"
    )
    assert nlraw.cleanup(netns=pod.path, uplink="auto").uplink == "net1"


def test_auto_without_a_default_route_is_skipped(pod):
    pod.ip("route", "del", "default")
    pod.add_orphan()
    report = skip(pod, uplink="auto")
    assert report.uplink is None and [tap.verdict for tap in report.taps] == ["orphan"]


def test_auto_follows_a_multipath_route_to_its_first_hop(pod):
    pod.ip("route", "del", "default")
    pod.ip(
        "route",
        "add",
        "default",
        *"nexthop via 10.9.8.1 dev eth0 nexthop via 10.9.8.3 dev eth0".split(),
    )
    pod.add_orphan()
    assert nlraw.cleanup(netns=pod.path, uplink="auto").uplink == "eth0"


def test_none_requires_no_uplink_and_finds_the_redirects_wherever_they_are(pod):
    before = pod.state()
    pod.add_orphan()
    report = nlraw.cleanup(netns=pod.path, uplink="none")
    assert (report.outcome, report.uplink) == ("cleaned", None)
    assert [removed.dev for removed in report.tc_removed] == ["eth0", "eth0", pods.TAP]
    assert pod.state() == before


def test_none_touches_no_dead_redirect_because_it_names_no_uplink(pod):
    pod.add_orphan("tap0_urunc")
    pod.ip("link", "del", "tap0_urunc")
    dead = pod.filters("eth0")
    pod.add_orphan("tap1_urunc", redirect=False)
    report = nlraw.cleanup(netns=pod.path, uplink="none")
    assert ([tap.ifname for tap in report.taps], report.tc_removed) == (["tap1_urunc"], ())
    assert pod.filters("eth0") == dead
    assert dead[0]["options"]["actions"][0]["to_dev"] == "*"


def test_the_uplink_itself_is_never_listed(pod):
    pod.add_orphan("tap0_urunc")
    pod.ip("link", "add", "tap9_urunc", "type", "veth", "peer", "name", "peer9")
    assert nlraw.scan(netns=pod.path, uplink="tap0_urunc") == ()
    report = nlraw.cleanup(netns=pod.path, uplink="tap0_urunc")
    assert (report.outcome, report.taps) == ("clean", ())


@pytest.mark.parametrize("uplink", ["", ".", "sixteen-bytes-xx", "a/b", "a b", "a\0b"])
def test_what_cannot_be_a_name_is_refused_before_anything_is_read(pod, uplink):
    with pytest.raises(nlraw.Invalid):
        nlraw.cleanup(netns=pod.path, uplink=uplink)


def test_auto_with_the_only_default_route_on_an_orphan_is_skipped(pod):
    pod.add_orphan()
    pod.batch(
        "route del default",
        "address add 10.7.7.1/24 dev tap0_urunc",
        "route add default via 10.7.7.2 dev tap0_urunc",
    )
    report = skip(pod, uplink="auto")
    assert report.uplink is None and [tap.verdict for tap in report.taps] == ["orphan"]


def test_auto_does_not_take_an_orphan_for_the_uplink(pod):
    pod.add_orphan()
    pod.batch(
        "route del default",
        "address add 10.7.7.1/24 dev tap0_urunc",
        "route add default via 10.7.7.2 dev tap0_urunc",
        "route add default via 10.9.8.1 dev eth0 metric 100",
    )
    report = nlraw.cleanup(netns=pod.path, uplink="auto")
    assert (report.outcome, report.uplink) == ("cleaned", "eth0")
    assert "tap0_urunc" not in pod.links()

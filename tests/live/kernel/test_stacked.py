# SPDX-License-Identifier: Apache-2.0
"""What is stacked on a TAP goes when the kernel deletes it, so such a TAP is in use.

A macvlan, a macvtap with its holder, a VLAN, and eth0 itself were lost.
"""

import os
import stat

import pytest

import nlraw
from lib import command, pods
from lib.watch import Proof, Watch, is_confirm, once

UPPERS = {
    "macvlan": "link add upper link tap0_urunc type macvlan",
    "macvtap": "link add upper link tap0_urunc type macvtap",
    "vlan": "link add upper link tap0_urunc type vlan id 7",
    "ipvlan": "link add upper link tap0_urunc type ipvlan",
}


def stack(pod, kind):
    try:
        pod.ip(*UPPERS[kind].split())
    except RuntimeError as error:
        pytest.skip("this kernel makes no %s: %s" % (kind, error))


@pytest.fixture(params=sorted(UPPERS))
def kind(request):
    return request.param


def test_a_tap_with_a_device_on_it_is_in_use(pod, kind):
    pod.add_orphan()
    stack(pod, kind)
    before = pod.state()
    (tap,) = nlraw.scan(netns=pod.path)
    assert (tap.verdict, tap.fresh, tap.carrier) == ("in-use", False, False)
    for dry_run in (True, False):
        with pytest.raises(nlraw.TapInUse) as caught:
            nlraw.cleanup(netns=pod.path, dry_run=dry_run)
        assert "upper stacked on it" in str(caught.value)
    with pytest.raises(nlraw.TapInUse):
        nlraw.setup(netns=pod.path)
    assert pod.state() == before


def test_the_command_line_says_what_is_stacked_and_exits_3(pod, kind):
    pod.add_orphan()
    stack(pod, kind)
    done = command.nlraw("cleanup", "-n", pod.path)
    assert done.status == 3 and "upper stacked on it" in done.err


def test_once_it_is_gone_the_tap_is_an_orphan(pod, kind):
    before = pod.state()
    pod.add_orphan()
    stack(pod, kind)
    pod.ip("link", "del", "upper")
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert pod.state() == before


def test_an_uplink_that_is_stacked_on_a_tap_survives(make_pod):
    pod = make_pod(uplink=None)
    pod.add_orphan(redirect=False)
    try:
        pod.ip(*"link add eth0 link tap0_urunc type macvlan".split())
    except RuntimeError as error:
        pytest.skip("this kernel makes no macvlan: %s" % error)
    before = pod.state()
    with pytest.raises(nlraw.TapInUse):
        nlraw.cleanup(netns=pod.path)
    assert pod.state() == before


def test_what_is_stacked_on_what_is_stacked_counts_too(pod):
    pod.add_orphan(redirect=False)
    stack(pod, "vlan")
    pod.ip(*"link add top link upper type vlan id 8".split())
    before = pod.state()
    with pytest.raises(nlraw.TapInUse):
        nlraw.cleanup(netns=pod.path)
    assert pod.state() == before


def open_macvtap(pod, path):
    """Open the macvtap of a pod by a node of our own, because /dev may lack it."""
    show = "cat /sys/class/net/upper/macvtap/*/dev"
    device = command.run("ip", "netns", "exec", pod.name, "sh", "-c", show)
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(*map(int, device.split(":"))))
    return os.open(path, os.O_RDWR)


def test_a_held_macvtap_on_a_tap_survives(pod, tmp_path):
    pod.add_orphan(redirect=False)
    stack(pod, "macvtap")
    fd = open_macvtap(pod, str(tmp_path / "macvtap"))
    try:
        with pytest.raises(nlraw.TapInUse):
            nlraw.cleanup(netns=pod.path)
    finally:
        os.close(fd)
    assert "upper" in pod.links()


def test_a_device_in_another_namespace_with_the_index_of_a_tap_below_it_is_not_on_it(make_pod, pod):
    ifindex = pod.add_orphan(redirect=False)
    other = make_pod(uplink=None)
    # on a device of another namespace, whose index there is that of the TAP here
    line = "link add below index %d type veth peer name far" % ifindex
    other.ip(*line.split())
    other.ip(*"link add upper link below type macvlan".split())
    other.ip("link", "set", "upper", "netns", pod.name)
    shown = pod.links()["upper"]
    assert shown["link_index"] == ifindex and "link_netnsid" in shown
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert "upper" in pod.links()


def test_a_device_that_a_tap_is_a_port_of_is_not_on_it(pod):
    pod.ip("link", "add", "bridge0", "type", "bridge")
    pod.add_orphan(redirect=False)
    pod.ip("link", "set", pods.TAP, "master", "bridge0")
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert set(pod.links()) == {"lo", "eth0", "peer0", "bridge0"}


def test_the_orphans_beside_it_go_where_it_is_kept(pod, kind):
    pod.add_orphan(redirect=False)
    stack(pod, kind)
    before = pod.state()
    pod.add_orphan("tap1_urunc", redirect=False)
    report = nlraw.cleanup(netns=pod.path, keep_in_use=True)
    assert sorted((tap.ifname, tap.verdict, tap.deleted) for tap in report.taps) == [
        (pods.TAP, "in-use", False),
        ("tap1_urunc", "orphan", True),
    ]
    assert pod.state() == before


@pytest.mark.parametrize("count", [1, 2, 4], ids=["one", "two", "a group"])
@pytest.mark.parametrize("tap", [0, -1], ids=["the first", "the last"])
def test_what_is_stacked_on_one_before_the_second_look_saves_all(pod, count, tap):
    watch = Watch()
    names = ["tap%d_urunc" % number for number in range(count)]
    for name in names:
        pod.add_orphan(name, redirect=False)
    upper = "link add upper link %s type macvlan" % names[tap]
    watch.before = once(is_confirm, lambda: pod.ip(*upper.split()))
    with pytest.raises(nlraw.TapInUse):
        watch.clean_up(pod)
    assert set(names) | {"upper"} <= set(pod.links())


def test_what_is_stacked_on_one_that_is_marked_saves_all(pod):
    watch = Watch()
    names = ["tap%d_urunc" % number for number in range(4)]
    for name in names:
        pod.add_orphan(name, redirect=False)
    before = pod.state()
    upper = "link add upper link %s type macvlan" % names[2]
    watch.before = once(Proof(), lambda: pod.ip(*upper.split()))
    with pytest.raises(nlraw.TapInUse):
        watch.clean_up(pod)
    pod.ip("link", "del", "upper")
    assert pod.state() == before


def test_a_sweep_leaves_such_a_namespace_alone(node, pod, kind):
    pod.add_orphan()
    stack(pod, kind)
    node.pin("pod", pod.path)
    before = pod.state()
    swept = nlraw.sweep(dirs=[node.directory], include_fresh=True)
    assert [report.outcome for report in swept.namespaces] == ["in-use"]
    assert (swept.totals.in_use, swept.totals.orphans) == (1, 0)
    assert pod.state() == before

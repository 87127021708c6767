# SPDX-License-Identifier: Apache-2.0
"""A setup that fails, at every step: what it says, and the namespace is as it was before.

First what the kernel itself refuses, then requests and answers that go wrong between the kernel and
us, one after the other.
"""

import errno
import fcntl
import json
import os
import resource
import subprocess

import pytest

import nlraw
from lib import command, pods, taps
from lib.rights import NET_ADMIN, SYS_ADMIN
from nlraw import cli, observe, provision, tap, uapi, wire
from nlraw.connection import Connection
from nlraw.exchange import Reply
from nlraw.netns import Namespace
from nlraw.verdict import Target
from nlraw.wanted import Wanted

TAP = pods.TAP
SSH = "u32 match ip dport 22 0xffff flowid 1:7"


def refused(pod, complaint, number, **options):
    """Set up, be refused with these words and this errno, and find everything as it was."""
    before = pod.state()
    with pytest.raises(nlraw.Refused) as caught:
        nlraw.setup(netns=pod.path, **options)
    assert str(caught.value) == complaint
    assert caught.value.errno == number
    report = caught.value.report
    assert (report.outcome, report.tap, report.uplink, report.error) == (
        "failed",
        None,
        None,
        caught.value,
    )
    assert pod.state() == before


# ---------------------------------------------------------------- the name is taken


def add_tun_mode_device(pod):
    pod.add_tap(flags=taps.IFF_TUN, redirect=False)


def add_alternative_name(pod):
    pod.ip("link", "property", "add", "dev", "peer0", "altname", TAP)


@pytest.mark.parametrize(
    "add, kind",
    [
        (lambda pod: pod.ip("link", "add", TAP, "type", "veth", "peer", "name", "far"), "veth"),
        (lambda pod: pod.ip("link", "add", TAP, "type", "bridge"), "bridge"),
        (lambda pod: pod.ip("link", "add", TAP, "link", "eth0", "type", "macvtap"), "macvtap"),
        (add_tun_mode_device, "TUN device"),
        (add_alternative_name, "veth"),
    ],
    ids=["a veth", "a bridge", "a macvtap", "a TUN-mode device", "an alternative name"],
)
def test_a_foreign_device_of_the_name_is_told_and_left_alone(pod, add, kind):
    add(pod)
    ifindex = pod.links()["peer0" if add is add_alternative_name else TAP]["ifindex"]
    words = "create TAP tap0_urunc: the name is taken by a %s, ifindex %d%s"
    words %= kind, ifindex, "; choose another with `--tap`"
    refused(pod, words, errno.EBUSY)
    told = command.nlraw("setup", "-n", pod.path, "-j")
    assert (told.status, told.err) == (1, "nlraw: %s: %s\n" % (pod.path, words))
    error = told.document["error"]
    assert (error["step"], error["object"], error["errno"]) == ("create TAP", TAP, "EBUSY")


def test_the_loopback_device_has_no_kind(pod):
    refused(
        pod,
        "create TAP lo: the name is taken by a device of no kind, ifindex 1; "
        "choose another with `--tap`",
        errno.EBUSY,
        tap="lo",
        match="lo",
    )


def provide(pod, connect=Connection, create=tap.create_all, uplink="eth0", **options):
    """Set up with a connection, or a way to make TAPs, of the test's own.

    Return the result, error and all.
    """
    wanted = Wanted(Target(uplink=uplink), TAP, **options)
    groups = observe.groups_of(wanted.target)
    with Namespace(pod.path) as namespace, connect(namespace, True, groups) as connection:
        return provision.provide(namespace, connection, wanted, create)


def after(event):
    """A way to make a TAP that lets something happen first: the cleanup is over by then."""

    def create(*arguments):
        event()
        return tap.create_all(*arguments)

    return create


def test_a_tap_that_somebody_holds_since_the_cleanup_is_in_use(pod):
    made = provide(pod, create=after(pod.hold))
    words = "create TAP tap0_urunc: in use (carrier on), another start may be in progress"
    assert (str(made.error), made.outcome) == (words, "in-use")
    assert isinstance(made.error, nlraw.TapInUse)
    assert pod.redirects("eth0", TAP) == 0
    assert TAP in pod.links()


def test_a_tap_that_somebody_holds_since_an_orphan_was_removed_is_a_failure(pod):
    pod.add_orphan()
    made = provide(pod, create=after(pod.hold))
    assert made.outcome == "failed" and not isinstance(made.error, nlraw.TapInUse)
    assert str(made.error) == (
        "create TAP tap0_urunc: in use (carrier on), another start may be in progress; removed "
        "before: u32 filter on eth0, ingress qdisc on eth0, ingress qdisc on tap0_urunc, tap0_urunc"
    )
    assert (made.tap, made.uplink, made.cleanup.outcome) == (None, None, "cleaned")
    assert [each.deleted for each in made.cleanup.taps] == [True]
    assert pod.redirects("eth0", TAP) == 0
    assert nlraw.scan(netns=pod.path)[0].verdict == "in-use"


def test_that_failure_is_exit_1_and_names_what_is_gone(pod, monkeypatch, capsys):
    real = provision.provide

    def provide(*arguments):
        return real(*arguments, create=after(pod.hold))

    monkeypatch.setattr(provision, "provide", provide)
    pod.add_orphan()
    assert cli.main(["setup", "-n", pod.path, "-j"]) == 1
    told = capsys.readouterr()
    assert "removed before: u32 filter on eth0, ingress qdisc on eth0, " in told.err
    document = json.loads(told.out)
    assert (document["outcome"], document["cleanup"]["outcome"]) == ("failed", "cleaned")
    assert document["error"]["message"].endswith(", ingress qdisc on tap0_urunc, tap0_urunc")


def test_without_an_orphan_it_is_exit_3(pod, monkeypatch, capsys):
    real = provision.provide

    def provide(*arguments):
        return real(*arguments, create=after(pod.hold))

    monkeypatch.setattr(provision, "provide", provide)
    assert cli.main(["setup", "-n", pod.path, "-j"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["outcome"], document["cleanup"]["outcome"]) == ("in-use", "clean")


def test_a_tap_that_somebody_made_since_the_cleanup_has_the_name(pod):
    error = provide(pod, create=after(lambda: pod.add_tap(redirect=False))).error
    words = (
        "create TAP tap0_urunc: the name is taken by a TUN device, ifindex %d; "
        "choose another with `--tap`"
    )
    assert str(error) == words % pod.links()[TAP]["ifindex"]
    assert isinstance(error, nlraw.Refused)
    assert pod.qdiscs() == []


def test_a_name_that_is_free_again_after_the_refusal_is_the_kernels_refusal(pod):
    def create(*arguments):
        pod.add_tap(redirect=False)
        try:
            return tap.create_all(*arguments)
        finally:
            pod.ip("link", "del", TAP)

    before = pod.state()
    made = provide(pod, create=create)
    assert str(made.error) == "create TAP tap0_urunc: Device or resource busy"
    assert (made.error.errno, made.outcome) == (errno.EBUSY, "failed")
    assert pod.state() == before


# ---------------------------------------------------------------- there is no room


@pytest.mark.parametrize("qdisc", ["ingress", "clsact"])
def test_an_empty_qdisc_of_somebody_else_outlives_the_undo(pod, qdisc):
    if not os.path.exists("/proc/sys/net/ipv6"):
        pytest.skip("this kernel has no IPv6")
    pod.tc("qdisc", "add", "dev", "eth0", qdisc)
    words = "put address on tap0_urunc: ipv6: IPv6 is disabled on this device"
    refused(pod, words, errno.EACCES, address="fd00::1/64")


def test_a_qdisc_that_the_uplink_has_got_since_it_was_looked_at_is_somebody_elses(pod):
    made = provide(pod, create=after(lambda: pod.tc("qdisc", "add", "dev", "eth0", "ingress")))
    assert str(made.error).startswith("create qdisc (ingress) eth0: ")
    assert made.error.errno == errno.EEXIST and "undo" not in str(made.error)
    assert set(pod.links()) == {"lo", "eth0", "peer0"}
    assert [qdisc["kind"] for qdisc in pod.qdiscs()] == ["ingress"]
    assert pod.filters("eth0") == []


@pytest.mark.parametrize("qdisc", ["ingress", "clsact"])
def test_a_shared_block_on_the_uplink_is_not_used(pod, qdisc):
    pod.tc("qdisc", "add", "dev", "eth0", "ingress_block", "5", qdisc)
    words = "This filter block is shared. Please use the block index to manipulate the filters"
    refused(pod, "create redirect (u32, mirred) eth0: " + words, errno.EOPNOTSUPP)


@pytest.mark.parametrize("free", range(3))
def test_too_few_descriptors(pod, free):
    nlraw.setup(netns=pod.path)  # what is imported late is there now
    nlraw.cleanup(netns=pod.path)
    before = pod.state()
    with pytest.raises(nlraw.Refused) as caught, descriptors(free):
        nlraw.setup(netns=pod.path)
    step = ["open namespace " + pod.path, "list links of every kind", "open /dev/net/tun"][free]
    assert str(caught.value) == step + ": Too many open files"
    assert (caught.value.errno, caught.value.report.outcome) == (errno.EMFILE, "failed")
    assert pod.state() == before


def test_three_descriptors_are_enough(pod):
    nlraw.setup(netns=pod.path)
    with descriptors(3):
        nlraw.setup(netns=pod.path)
    pod.check_pair()


def test_too_few_descriptors_after_the_orphan_is_gone(pod):
    before = pod.state()
    nlraw.setup(netns=pod.path)
    with pytest.raises(nlraw.Refused) as caught, descriptors(2):
        nlraw.setup(netns=pod.path)
    assert str(caught.value) == "open /dev/net/tun: Too many open files"
    assert [(found.ifname, found.deleted) for found in caught.value.report.cleanup.taps] == [
        (TAP, True)
    ]
    assert pod.state() == before


class descriptors:
    """Only so many more descriptors than there are now can be opened inside this ``with``."""

    def __init__(self, free):
        numbers = [os.open(os.devnull, os.O_RDONLY) for _ in range(free + 1)]
        for number in numbers:
            os.close(number)
        self.limit = numbers[-1]

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.limit, self.before[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_NOFILE, self.before)


# ---------------------------------------------------------------- the kernel lacks a feature

REDIRECT = "enable CONFIG_NET_CLS_U32, CONFIG_NET_CLS_ACT and CONFIG_NET_ACT_MIRRED"


@pytest.mark.parametrize(
    "kind, complaint",
    [
        ("u32", "create redirect (u32, mirred) tap0_urunc: TC classifier not found; " + REDIRECT),
        (
            "mirred",
            "create redirect (u32, mirred) tap0_urunc: Failed to load TC action module; "
            + REDIRECT,
        ),
        (
            "ingress",
            "create qdisc (ingress) eth0: Specified qdisc kind is unknown; enable "
            "CONFIG_NET_SCH_INGRESS",
        ),
    ],
)
def test_a_missing_feature_is_told_with_its_remedy(pod, monkeypatch, kind, complaint):
    real = wire.attribute_string
    absent = "nlraw"[: len(kind)]  # a kind that no kernel has
    monkeypatch.setattr(
        wire, "attribute_string", lambda type, text: real(type, absent if text == kind else text)
    )
    refused(pod, complaint, errno.ENOENT)


def test_the_command_line_tells_it_too(pod, monkeypatch, capsys):
    real = wire.attribute_string
    monkeypatch.setattr(
        wire, "attribute_string", lambda type, text: real(type, "nlraw" if text == "u32" else text)
    )
    assert cli.main(["setup", "-n", pod.path, "-j"]) == 1
    told = capsys.readouterr()
    words = "create redirect (u32, mirred) tap0_urunc: TC classifier not found; " + REDIRECT
    assert told.err == "nlraw: %s: %s\n" % (pod.path, words)
    assert json.loads(told.out)["error"]["errno"] == "ENOENT"


# ---------------------------------------------------------------- address


def test_an_address_that_the_tap_cannot_have(pod):
    if not os.path.exists("/proc/sys/net/ipv6"):
        pytest.skip("this kernel has no IPv6")
    refused(
        pod,
        "put address on tap0_urunc: ipv6: IPv6 is disabled on this device",
        errno.EACCES,
        address="fd00::1/64",
    )


@pytest.mark.parametrize("address", ["0.0.0.0/0", "0.0.0.0/24", "::/64"])
def test_an_address_that_no_device_can_have(pod, address):
    # the kernel says yes to 0.0.0.0 and does nothing (__inet_insert_ifa(), net/ipv4/devinet.c)
    before = pod.state()
    with pytest.raises(nlraw.Error):
        nlraw.setup(netns=pod.path, address=address)
    assert pod.state() == before


# ---------------------------------------------------------------- /dev/net/tun

OTHER_FILE = "/dev/net/tun is another file: remove it, then mknod /dev/net/tun c 10 200"
NO_TUN = 'mount -t tmpfs none /dev/net && %s && exec "$@"'


@pytest.mark.parametrize(
    "place, complaint",
    [
        (
            "true",
            "open /dev/net/tun: No such file or directory; load the module tun; where the node is "
            "missing, "
            "mknod /dev/net/tun c 10 200",
        ),
        (
            "mknod /dev/net/tun c 10 250",
            "open /dev/net/tun: No such device; load the module tun, or enable CONFIG_TUN",
        ),
        (
            "mknod /dev/net/tun c 10 200 && mount -o remount,nodev /dev/net",
            "open /dev/net/tun: Permission denied; "
            "its mount has the option nodev, or this is root of a user namespace: chmod 666 "
            "/dev/net/tun",
        ),
        (
            "touch /dev/net/tun",
            "create TAP tap0_urunc: Inappropriate ioctl for device; " + OTHER_FILE,
        ),
        ("mkdir /dev/net/tun", "open /dev/net/tun: Is a directory; " + OTHER_FILE),
    ],
    ids=["missing", "no driver", "forbidden", "a file", "a directory"],
)
def test_tun_device_out_of_reach(pod, place, complaint):
    before = pod.state()
    pod.add_orphan()
    told = command.nlraw(
        "setup", "-n", pod.path, before=["unshare", "-m", "sh", "-c", NO_TUN % place, "sh"]
    )
    assert (told.status, told.err) == (1, "nlraw: %s: %s\n" % (pod.path, complaint))
    assert pod.state() == before  # the cleanup came first, and needs no such device


# ---------------------------------------------------------------- privilege


def without(capability):
    return ["setpriv", "--bounding-set", "-" + capability, "--inh-caps", "-" + capability]


def test_without_cap_net_admin_no_tap_is_made(pod):
    before = pod.state()
    told = command.nlraw("setup", "-n", pod.path, before=without("net_admin"))
    words = "create TAP tap0_urunc: Operation not permitted; " + NET_ADMIN
    assert (told.status, told.err) == (1, "nlraw: %s: %s\n" % (pod.path, words))
    assert pod.state() == before


def test_without_cap_net_admin_no_orphan_is_removed(pod):
    pod.add_orphan()
    before = pod.state()
    told = command.nlraw("setup", "-n", pod.path, before=without("net_admin"))
    assert told.status == 1
    assert told.err.startswith(
        "nlraw: %s: delete u32 filters of priority 49152 on eth0: Operation not permitted; %s"
        % (pod.path, NET_ADMIN)
    )
    assert pod.state() == before


def test_without_cap_sys_admin_no_namespace_is_entered(pod):
    before = pod.state()
    told = command.nlraw("setup", "-n", pod.path, before=without("sys_admin"))
    words = "enter namespace %s: Operation not permitted; %s" % (pod.path, SYS_ADMIN)
    assert (told.status, told.err) == (1, "nlraw: %s\n" % words)
    assert pod.state() == before


# Build an uplink, set up, list the links that are left, and end as the setup did.
IN_OWN_NAMESPACES = (
    'ip link add eth0 type veth peer name peer0; "$@"; status=$?; ip -o link; tc qdisc; '
    "exit $status"
)


@pytest.mark.parametrize("option", ["owner", "group"])
def test_an_id_that_the_user_namespace_does_not_have(option):
    enter = ["unshare", "--user", "--map-root-user", "--net"]
    if pods.missing() or subprocess.call(enter + ["true"], stderr=subprocess.DEVNULL):
        pytest.skip("needs user namespaces")
    before = enter + ["sh", "-c", IN_OWN_NAMESPACES, "sh"]
    told = command.nlraw("setup", "-n", "current", "--" + option, "1000", before=before)
    words = (
        "set %s 1000 of TAP tap0_urunc: Invalid argument; there is no such ID in this user "
        "namespace" % option
    )
    assert (told.status, told.err) == (1, "nlraw: current: %s\n" % words)
    listed = told.out.split("\n", 1)[1]  # below the reason
    assert "eth0" in listed and TAP not in listed and "ingress" not in listed


# ---------------------------------------------------------------- no uplink, or no namespace

NO_UPLINK = (
    "there is no such uplink: this is no pod's namespace, or it is not ready; `-u` names the uplink"
)
NO_ROUTE = NO_UPLINK.replace("such uplink", "default route")


@pytest.mark.parametrize("uplink, words", [("eth0", NO_UPLINK), ("auto", NO_ROUTE)])
def test_without_an_uplink_nothing_is_touched(make_pod, uplink, words):
    pod = make_pod(uplink=None)
    pod.add_orphan(redirect=False)
    refused(pod, "look up link %s: %s" % (uplink, words), errno.ENODEV, uplink=uplink)
    told = command.nlraw("setup", "-n", pod.path, "-u", uplink, "-j")
    assert (told.status, told.err) == (
        1,
        "nlraw: %s: look up link %s: %s\n" % (pod.path, uplink, words),
    )
    assert told.document["cleanup"]["outcome"] == "skipped"


def test_where_the_default_route_is_on_a_tap_that_is_said(make_pod):
    pod = make_pod(uplink=None)
    pod.add_orphan("tap0_urunc", redirect=False)
    pod.batch(
        "address add 10.7.7.1/24 dev tap0_urunc", "route add default via 10.7.7.2 dev tap0_urunc"
    )
    words = (
        "look up link auto: the default route is on tap0_urunc, which the pattern of TAPs matches"
    )
    refused(pod, words, errno.ENODEV, uplink="auto")
    told = command.nlraw("setup", "-n", pod.path, "-u", "auto", "-j")
    assert (told.status, told.err) == (1, "nlraw: %s: %s\n" % (pod.path, words))
    assert (told.document["outcome"], told.document["cleanup"]["outcome"]) == ("failed", "skipped")


def test_a_worse_default_route_on_another_device_is_taken_instead(pod):
    pod.add_orphan("tap0_urunc", redirect=False)
    pod.batch(
        "address add 10.7.7.1/24 dev tap0_urunc",
        "route del default",
        "route add default via 10.7.7.2 dev tap0_urunc",
        "route add default via 10.9.8.1 dev eth0 metric 100",
    )
    made = nlraw.setup(netns=pod.path, uplink="auto")
    assert (made.uplink.ifname, made.uplink.gateway) == ("eth0", "10.9.8.1")


def test_an_uplink_found_by_an_alternative_name_is_somebody_elses(make_pod):
    pod = make_pod(uplink="net1")
    pod.ip("link", "property", "add", "dev", "net1", "altname", "eth0")
    refused(pod, "look up link eth0: " + NO_UPLINK, errno.ENODEV)


def test_an_uplink_that_goes_before_the_redirects_are_made(pod):
    made = provide(pod, create=after(lambda: pod.ip("link", "del", "eth0")))
    assert str(made.error).startswith("create qdisc (ingress) eth0: ")
    assert isinstance(made.error, nlraw.Refused) and "undo" not in str(made.error)
    assert set(pod.links()) == {"lo"}


def test_a_namespace_that_is_not_there():
    told = command.nlraw("setup", "-n", "/nonesuch", "-j")
    words = "open namespace /nonesuch: No such file or directory; " + command.WHERE
    assert (told.status, told.err) == (1, "nlraw: %s\n" % words)
    document = told.document
    assert (document["outcome"], document["tap"], document["uplink"]) == ("failed", None, None)
    assert document["error"]["errno"] == document["cleanup"]["error"]["errno"] == "ENOENT"


# ---------------------------------------------------------------- the TAP's own steps


class fail_ioctl:
    """One ioctl raises an error, once or ``always``, after so many that go well.

    ``done``: after the kernel has carried it out.
    """

    def __init__(self, patch, number, error, done=False, always=False, after=0):
        self.real = fcntl.ioctl
        self.number = number
        self.error = error
        self.done = done
        self.always = always
        self.left = after
        patch.setattr(fcntl, "ioctl", self.ioctl)

    def ioctl(self, fd, number, *rest):
        if self.number != number or self.left:
            self.left -= self.number == number
            return self.real(fd, number, *rest)
        if not self.always:
            self.number = None
        if self.done:
            self.real(fd, number, *rest)
        raise self.error


IOCTLS = pytest.mark.parametrize(
    "number, step",
    [
        (uapi.TUNSETIFF, "create TAP tap0_urunc"),
        (uapi.TUNSETOWNER, "set owner 5 of TAP tap0_urunc"),
        (uapi.TUNSETGROUP, "set group 6 of TAP tap0_urunc"),
        (uapi.TUNSETPERSIST, "persist TAP tap0_urunc"),
    ],
    ids=["create", "owner", "group", "persist"],
)


@IOCTLS
def test_an_ioctl_that_is_refused_is_told_and_undone(pod, monkeypatch, number, step):
    fail_ioctl(monkeypatch, number, OSError(errno.EIO, os.strerror(errno.EIO)))
    refused(pod, step + ": Input/output error", errno.EIO, owner=5, group=6)


def test_a_host_that_never_allows_a_tap_to_persist_or_not_leaves_nothing_either(pod, monkeypatch):
    before = pod.state()
    error = OSError(errno.EPERM, os.strerror(errno.EPERM))
    fail_ioctl(monkeypatch, uapi.TUNSETPERSIST, error, always=True)
    with pytest.raises(nlraw.Refused) as caught:
        nlraw.setup(netns=pod.path)
    assert str(caught.value).startswith("persist TAP tap0_urunc: Operation not permitted")
    assert pod.state() == before


@IOCTLS
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_an_interruption_around_an_ioctl_is_undone(pod, monkeypatch, number, step, done):
    before = pod.state()
    fail_ioctl(monkeypatch, number, KeyboardInterrupt(), done)
    with pytest.raises(KeyboardInterrupt):
        nlraw.setup(netns=pod.path, owner=5, group=6)
    assert pod.state() == before


def nics(make_pod):
    """A pod with two NICs; the second one has a clsact with a foreign filter."""
    pod = make_pod()
    pod.batch("link add net1 type veth peer name far1", "link set net1 up")
    pod.tc("qdisc", "add", "dev", "net1", "clsact")
    pod.tc(*("filter add dev net1 ingress pref 7 protocol ip " + SSH).split())
    return pod


NICS = ("eth0", "net1")


@IOCTLS
@pytest.mark.parametrize("fault", ["refused", "interrupted before", "interrupted after"])
def test_an_ioctl_on_the_second_of_two_taps_undoes_the_first(
    make_pod, monkeypatch, number, step, fault
):
    pod = nics(make_pod)
    before = pod.state()
    error = (
        KeyboardInterrupt() if fault != "refused" else OSError(errno.EIO, os.strerror(errno.EIO))
    )
    fail_ioctl(monkeypatch, number, error, fault == "interrupted after", after=1)
    with pytest.raises((nlraw.Refused, KeyboardInterrupt)) as caught:
        nlraw.setup(netns=pod.path, uplink=NICS, owner=5, group=6)
    if fault == "refused":
        words = step.replace("tap0", "tap1") + ": Input/output error"
        assert str(caught.value) == words
        assert caught.value.report.pairs == ()
    assert pod.state() == before


def test_where_no_tap_may_cease_to_persist_the_undo_says_so_of_each(make_pod, monkeypatch):
    pod = nics(make_pod)
    error = OSError(errno.EPERM, os.strerror(errno.EPERM))
    fail_ioctl(monkeypatch, uapi.TUNSETPERSIST, error, always=True, after=1)
    with pytest.raises(nlraw.Refused) as caught:
        nlraw.setup(netns=pod.path, uplink=NICS)
    words = "persist TAP %s: Operation not permitted"
    undo = "; then the undo failed: " + words
    assert str(caught.value) == words % "tap1_urunc" + undo % "tap1_urunc" + undo % TAP
    monkeypatch.undo()
    assert [found.ifname for found in nlraw.scan(netns=pod.path)] == [TAP]
    nlraw.setup(netns=pod.path, uplink=NICS)


# ---------------------------------------------------------------- one of the two names is taken


def test_if_the_second_name_is_in_use_since_the_cleanup_the_first_tap_goes_again(make_pod):
    pod = nics(make_pod)
    made = provide(pod, create=after(lambda: pod.hold("tap1_urunc")), uplink=NICS)
    words = "create TAP tap1_urunc: in use (carrier on), another start may be in progress"
    assert (str(made.error), made.outcome, made.pairs) == (words, "in-use", ())
    assert TAP not in pod.links() and pod.filters("eth0") == [] == pod.qdiscs("eth0")


def test_if_the_second_name_is_a_foreign_device_s_nothing_is_changed(make_pod):
    pod = nics(make_pod)
    pod.ip("link", "add", "tap1_urunc", "type", "bridge")
    words = "create TAP tap1_urunc: the name is taken by a bridge, ifindex %d; "
    words += "choose another with `--tap`"
    refused(pod, words % pod.links()["tap1_urunc"]["ifindex"], errno.EBUSY, uplink=NICS)


def test_if_the_second_uplink_goes_before_the_redirects_are_made_the_first_pair_goes_too(make_pod):
    pod = nics(make_pod)
    made = provide(pod, create=after(lambda: pod.ip("link", "del", "net1")), uplink=NICS)
    assert str(made.error) == "create redirect (u32, mirred) tap1_urunc: No such device"
    assert set(pod.links()) == {"lo", "eth0", "peer0"} and pod.qdiscs() == []


# ---------------------------------------------------------------- every request in turn


class Fault:
    """Let one request on a connection fail: the nth of all, or the nth since given steps.

    "refused": the kernel refuses that request alone, and carries the others out. "lost": the
    answers to its whole datagram are lost. "interrupted": a signal's exception comes instead of
    them. ``done``: the kernel had carried it out.
    """

    def __init__(self, number, kind, done, since=()):
        self.left = number
        self.kind = kind
        self.done = done
        self.since = list(since)
        self.struck = None

    def connect(self, *arguments):
        """A connection with the fault in it."""
        connection = Faulty(*arguments)
        connection.fault = self
        return connection

    def change(self, real, requests):
        if self.since and self.since[0] == requests[0].step:
            self.since.pop(0)
        if self.since:
            return real(*requests)
        place, self.left = self.left, self.left - len(requests)
        if self.struck is not None or not 0 <= place < len(requests):
            return real(*requests)
        self.struck = requests[place]
        sent = [
            request
            for request in requests
            if self.done or (request is not self.struck and self.kind == "refused")
        ]
        replies = real(*sent) if sent else []
        if self.kind == "lost":
            raise nlraw.Lost(errno.ENOBUFS, "lost on purpose", requests[0].step, requests[0].object)
        if self.kind == "interrupted":
            raise KeyboardInterrupt
        refusal = Reply(self.struck)
        refusal.error = nlraw.Refused(
            errno.EIO, "refused on purpose", self.struck.step, self.struck.object
        )
        replies[place : place + (1 if self.done else 0)] = [refusal]
        return replies


class Faulty(Connection):
    fault = None

    def change(self, *requests):
        return self.fault.change(super().change, requests)


def nothing(pod):
    pass


def an_orphan(pod):
    pod.add_orphan()


def a_foreign_ingress(pod):
    pod.tc("qdisc", "add", "dev", "eth0", "ingress")
    pod.tc(*("filter add dev eth0 ingress pref 7 protocol ip " + SSH).split())


def a_foreign_clsact(pod):
    pod.tc("qdisc", "add", "dev", "eth0", "clsact")
    pod.tc(*("filter add dev eth0 ingress pref 7 protocol ip " + SSH).split())


KINDS = pytest.mark.parametrize("kind", ["refused", "lost", "interrupted"])
DONE = pytest.mark.parametrize("done", [False, True], ids=["not carried out", "carried out"])


def attempt(pod, fault, **options):
    """Set up under a fault; return the error, or None where the setup came through."""
    try:
        provide(pod, fault.connect, **options).checked()
    except (nlraw.Error, KeyboardInterrupt) as error:
        return error
    return None


def check_first_error(error, fault):
    """Make sure that an error is the one that was arranged, and comes first."""
    if fault.kind == "interrupted":
        assert isinstance(error, KeyboardInterrupt)
    elif fault.kind == "lost":
        assert isinstance(error, nlraw.Lost) and error.message.startswith("lost on purpose")
    else:
        asked = " ".join(filter(None, (fault.struck.step, fault.struck.object)))
        assert str(error).startswith(asked + ": refused on purpose")
        assert "undo" not in str(error)


@KINDS
@DONE
@pytest.mark.parametrize("start", [nothing, a_foreign_ingress, a_foreign_clsact])
def test_whichever_request_fails_the_namespace_is_as_before(pod, start, kind, done):
    start(pod)
    before = pod.state()
    for number in range(100):
        fault = Fault(number, kind, done)
        error = attempt(pod, fault, address="172.16.1.1/30")
        if error is None:  # a query whose answer is lost is asked again
            assert fault.struck is None or (
                kind == "lost" and fault.struck.step.split()[0] in ("look", "list")
            )
            nlraw.cleanup(netns=pod.path)
        else:
            check_first_error(error, fault)
        assert pod.state() == before, fault.struck
        if fault.struck is None:
            break
    assert number >= 12, "that many requests are in a setup"


@KINDS
@DONE
def test_whichever_request_fails_neither_of_two_nics_has_anything(make_pod, kind, done):
    pod = nics(make_pod)
    before = pod.state()
    for number in range(100):
        fault = Fault(number, kind, done)
        error = attempt(pod, fault, uplink=NICS)
        if error is None:  # a query whose answer is lost is asked again
            assert fault.struck is None or (
                kind == "lost" and fault.struck.step.split()[0] in ("look", "list")
            )
            nlraw.cleanup(netns=pod.path, uplink=NICS)
        else:
            check_first_error(error, fault)
        assert pod.state() == before, fault.struck
        if fault.struck is None:
            break
    assert number >= 18, "that many requests are in a setup of two NICs"


@KINDS
@DONE
def test_whichever_request_fails_the_orphan_is_gone_or_there(pod, kind, done):
    clean = pod.state()
    for number in range(100):
        old = nlraw.setup(netns=pod.path).tap.ifindex
        fault = Fault(number, kind, done)
        error = attempt(pod, fault)
        if error is None:
            pod.check_pair()
        elif kind != "interrupted" and error.report.cleanup.outcome == "cleaned":
            check_first_error(error, fault)
            assert pod.state() == clean, fault.struck
        else:
            assert pod.links().get(TAP, {"ifindex": old})["ifindex"] == old, fault.struck
        nlraw.setup(netns=pod.path)
        nlraw.cleanup(netns=pod.path)
        assert pod.state() == clean, fault.struck
        if fault.struck is None:
            break
    assert number >= 15, "that many requests are in a setup with a cleanup"


# ---------------------------------------------------------------- the undo fails too


@KINDS
@DONE
def test_an_undo_that_fails_is_told_beside_the_first_error_and_made_good_by_the_next_setup(
    pod, monkeypatch, kind, done
):
    clean = pod.state()
    told = []
    for number in range(100):
        # the cleanup's, the undo's
        fault = Fault(number, kind, done, since=["list qdiscs", "list qdiscs"])
        with pytest.MonkeyPatch.context() as patch:
            fail_ioctl(patch, uapi.TUNSETPERSIST, OSError(errno.EIO, os.strerror(errno.EIO)))
            told.append(str(attempt(pod, fault)))
        if fault.struck is None:
            break
        assert TAP not in pod.links()
        nlraw.setup(netns=pod.path)
        pod.check_pair()
        nlraw.cleanup(netns=pod.path)
        assert pod.state() == clean, fault.struck
    assert number >= 3, "that many requests are in an undo"
    if kind != "interrupted":
        first = "persist TAP tap0_urunc: Input/output error"
        assert all(words.startswith(first) for words in told)
        assert sum(words.startswith(first + "; then the undo failed: ") for words in told) >= 2

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
from nlraw import cli, provision, tap, uapi, wire
from nlraw.exchange import Reply
from nlraw.route import Route

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
    words = "create TAP tap0_urunc: the name is taken by a %s, ifindex %d" % (kind, ifindex)
    refused(pod, words, errno.EBUSY)
    told = command.nlraw("setup", "-n", pod.path, "-j")
    assert (told.status, told.err) == (1, "nlraw: %s: %s\n" % (pod.path, words))
    error = told.document["error"]
    assert (error["step"], error["object"], error["errno"]) == ("create TAP", TAP, "EBUSY")


def test_the_uplink_cannot_be_the_tap(pod):
    ifindex = pod.links()["eth0"]["ifindex"]
    refused(
        pod,
        "create TAP eth0: the name is taken by a veth, ifindex %d" % ifindex,
        errno.EBUSY,
        tap="eth0",
    )


def test_the_loopback_device_has_no_kind(pod):
    refused(
        pod,
        "create TAP lo: the name is taken by a device of no kind, ifindex 1",
        errno.EBUSY,
        tap="lo",
    )


@pytest.fixture
def before_create(monkeypatch):
    """Have something happen after the cleanup, right before the TAP is made."""

    def arrange(event):
        def wrapped(*arguments):
            event()
            return tap.create(*arguments)

        monkeypatch.setattr(provision, "create", wrapped)

    return arrange


def test_a_tap_that_somebody_holds_since_the_cleanup_is_in_use(pod, before_create):
    before_create(pod.hold)
    with pytest.raises(nlraw.TapInUse) as caught:
        nlraw.setup(netns=pod.path)
    words = "create TAP tap0_urunc: in use (carrier on), another start may be under way"
    assert (str(caught.value), caught.value.report.outcome) == (words, "in-use")
    assert pod.redirects("eth0", TAP) == 0
    assert TAP in pod.links()


def test_a_tap_that_somebody_made_since_the_cleanup_has_the_name(pod, before_create):
    before_create(lambda: pod.add_tap(redirect=False))
    with pytest.raises(nlraw.Refused) as caught:
        nlraw.setup(netns=pod.path)
    ifindex = pod.links()[TAP]["ifindex"]
    assert (
        str(caught.value)
        == "create TAP tap0_urunc: the name is taken by a TUN device, ifindex %d" % ifindex
    )
    assert pod.qdiscs() == []


def test_a_name_that_is_free_again_after_the_refusal_is_the_kernels_refusal(pod, monkeypatch):
    def wrapped(*arguments):
        pod.add_tap(redirect=False)
        try:
            return tap.create(*arguments)
        finally:
            pod.ip("link", "del", TAP)

    monkeypatch.setattr(provision, "create", wrapped)
    refused(pod, "create TAP tap0_urunc: Device or resource busy", errno.EBUSY)


# ---------------------------------------------------------------- there is no room


def test_an_mtu_that_no_tap_can_have(pod):
    pod.ip("link", "set", "eth0", "mtu", "65535")
    refused(pod, "set up link tap0_urunc: mtu greater than device maximum", errno.EINVAL)


@pytest.mark.parametrize("qdisc", ["ingress", "clsact"])
def test_an_empty_qdisc_of_somebody_else_outlives_the_undo(pod, qdisc):
    pod.tc("qdisc", "add", "dev", "eth0", qdisc)
    pod.ip("link", "set", "eth0", "mtu", "65535")
    refused(pod, "set up link tap0_urunc: mtu greater than device maximum", errno.EINVAL)


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
    step = ["open namespace " + pod.path, "look up link eth0", "open /dev/net/tun"][free]
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

NO_TUN = 'mount -t tmpfs none /dev/net && %s && exec "$@"'


@pytest.mark.parametrize(
    "command, complaint",
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
            "open /dev/net/tun: Permission denied; this user must be allowed to open it",
        ),
        ("touch /dev/net/tun", "create TAP tap0_urunc: Inappropriate ioctl for device"),
        ("mkdir /dev/net/tun", "open /dev/net/tun: Is a directory"),
    ],
    ids=["missing", "no driver", "forbidden", "a file", "a directory"],
)
def test_tun_device_out_of_reach(pod, command, complaint):
    before = pod.state()
    pod.add_orphan()
    told = command.nlraw(
        "setup", "-n", pod.path, before=["unshare", "-m", "sh", "-c", NO_TUN % command, "sh"]
    )
    assert (told.status, told.err) == (1, "nlraw: %s: %s\n" % (pod.path, complaint))
    assert pod.state() == before  # the cleanup came first, and needs no such device


# ---------------------------------------------------------------- privilege

NET_ADMIN = "it takes CAP_NET_ADMIN in the user namespace that owns the network namespace"


def without(capability):
    return ["setpriv", "--bounding-set", "-" + capability, "--inh-caps", "-" + capability]


def test_without_cap_net_admin_no_tap_is_made(pod):
    before = pod.state()
    told = command.nlraw("setup", "-n", pod.path, before=without("net_admin"))
    words = "create TAP tap0_urunc: Operation not permitted; %s, or the TAP's owner" % NET_ADMIN
    assert (told.status, told.err) == (1, "nlraw: %s: %s\n" % (pod.path, words))
    assert pod.state() == before


def test_without_cap_net_admin_no_orphan_is_removed(pod):
    pod.add_orphan()
    before = pod.state()
    told = command.nlraw("setup", "-n", pod.path, before=without("net_admin"))
    assert told.status == 1
    assert told.err.startswith(
        "nlraw: %s: delete u32 filters of priority 49152 eth0: Operation not permitted; %s"
        % (pod.path, NET_ADMIN)
    )
    assert pod.state() == before


def test_without_cap_sys_admin_no_namespace_is_entered(pod):
    before = pod.state()
    told = command.nlraw("setup", "-n", pod.path, before=without("sys_admin"))
    words = (
        "Operation not permitted; it takes CAP_SYS_ADMIN, here and in the user namespace "
        "that owns it"
    )
    assert (told.status, told.err) == (1, "nlraw: enter namespace %s: %s\n" % (pod.path, words))
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
    told = command.nlraw("setup", "--" + option, "1000", before=before)
    words = (
        "set %s 1000 of TAP tap0_urunc: Invalid argument; there is no such ID in this user "
        "namespace" % option
    )
    assert (told.status, told.err) == (1, "nlraw: current: %s\n" % words)
    assert "eth0" in told.out and TAP not in told.out and "ingress" not in told.out


# ---------------------------------------------------------------- no uplink, or no namespace

NO_UPLINK = "there is no such uplink: this is no pod's namespace, or it is not ready"
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


def test_an_uplink_found_by_an_alternative_name_is_somebody_elses(make_pod):
    pod = make_pod(uplink="net1")
    pod.ip("link", "property", "add", "dev", "net1", "altname", "eth0")
    refused(pod, "look up link eth0: " + NO_UPLINK, errno.ENODEV)


def test_an_uplink_that_goes_before_the_redirects_are_made(pod, before_create):
    before_create(lambda: pod.ip("link", "del", "eth0"))
    with pytest.raises(nlraw.Refused) as caught:
        nlraw.setup(netns=pod.path)
    assert str(caught.value).startswith("create qdisc (ingress) eth0: ")
    assert "undo" not in str(caught.value)
    assert set(pod.links()) == {"lo"}


def test_a_namespace_that_is_not_there():
    told = command.nlraw("setup", "-n", "/nonesuch", "-j")
    words = "open namespace /nonesuch: No such file or directory"
    assert (told.status, told.err) == (1, "nlraw: %s\n" % words)
    document = told.document
    assert (document["outcome"], document["tap"], document["uplink"]) == ("failed", None, None)
    assert document["error"]["errno"] == document["cleanup"]["error"]["errno"] == "ENOENT"


# ---------------------------------------------------------------- the TAP's own steps


class fail_ioctl:
    """One ioctl raises an error, once or ``always``.

    ``done``: after the kernel has carried it out.
    """

    def __init__(self, patch, number, error, done=False, always=False):
        self.real = fcntl.ioctl
        self.number = number
        self.error = error
        self.done = done
        self.always = always
        patch.setattr(fcntl, "ioctl", self.ioctl)

    def ioctl(self, fd, number, *rest):
        if self.number != number:
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
    fail_ioctl(monkeypatch, number, OSError(errno.EIO, "on purpose"))
    refused(pod, step + ": Input/output error", errno.EIO, owner=5, group=6)


def test_a_host_that_never_allows_a_tap_to_persist_or_not_leaves_nothing_either(pod, monkeypatch):
    before = pod.state()
    fail_ioctl(monkeypatch, uapi.TUNSETPERSIST, OSError(errno.EPERM, "on purpose"), always=True)
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


# ---------------------------------------------------------------- every request in turn


class Fault:
    """Let one request of a setup fail: the nth of all, or the nth since given steps.

    "refused": the kernel refuses that request alone, and carries the others out. "lost": the
    answers to its whole datagram are lost. "interrupted": a signal's exception comes instead of
    them. ``done``: the kernel had carried it out.
    """

    def __init__(self, monkeypatch, number, kind, done, since=()):
        self.left = number
        self.kind = kind
        self.done = done
        self.since = list(since)
        self.struck = None
        real = Route.change
        monkeypatch.setattr(
            Route, "change", lambda route, *requests: self.change(real, route, requests)
        )

    def change(self, real, route, requests):
        if self.since and self.since[0] == requests[0].step:
            self.since.pop(0)
        if self.since:
            return real(route, *requests)
        place, self.left = self.left, self.left - len(requests)
        if self.struck is not None or not 0 <= place < len(requests):
            return real(route, *requests)
        self.struck = requests[place]
        sent = [
            request
            for request in requests
            if self.done or (request is not self.struck and self.kind == "refused")
        ]
        replies = real(route, *sent) if sent else []
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
        nlraw.setup(netns=pod.path, **options)
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
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, number, kind, done)
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
def test_whichever_request_fails_the_orphan_is_gone_or_there(pod, kind, done):
    clean = pod.state()
    for number in range(100):
        old = nlraw.setup(netns=pod.path).tap.ifindex
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, number, kind, done)
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
        with pytest.MonkeyPatch.context() as patch:
            # the cleanup's, the undo's
            fault = Fault(patch, number, kind, done, since=["list qdiscs", "list qdiscs"])
            fail_ioctl(patch, uapi.TUNSETPERSIST, OSError(errno.EIO, "on purpose"))
            try:
                nlraw.setup(netns=pod.path)
            except (nlraw.Error, KeyboardInterrupt) as error:
                told.append(str(error))
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

# SPDX-License-Identifier: Apache-2.0
"""What `nlraw setup` makes, says and replaces, and what of others it leaves alone."""

import os
import re
import sys

import pytest

import nlraw
from lib import command, pods
from nlraw import uapi

TAP = pods.TAP

# A VMM without privilege: it opens /dev/net/tun, becomes another user, and only then names the TAP.
ATTACH = """
import fcntl, os, struct, sys
uid, gid, flags = map(int, sys.argv[1:])
tun = os.open("/dev/net/tun", os.O_RDWR)
os.setgroups([])
os.setgid(gid)
os.setuid(uid)
try:
    fcntl.ioctl(tun, 0x400454CA, struct.pack("=16sH22x", b"tap0_urunc", flags))  # TUNSETIFF
    print("attached")
except PermissionError:
    print("refused")
"""


def attach_as(pod, uid, gid):
    """What happens if a process of that user and group, without capabilities, attaches."""
    flags = uapi.IFF_TAP | uapi.IFF_NO_PI | uapi.IFF_VNET_HDR
    argv = ["ip", "netns", "exec", pod.name, sys.executable, "-S", "-c", ATTACH]
    return command.run(*argv + [str(number) for number in (uid, gid, flags)]).strip()


def create(pod, **options):
    made = nlraw.setup(netns=pod.path, **options)
    assert (made.outcome, made.error) == ("created", None)
    return made


def tuntap(pod):
    """What `ip tuntap` tells of the one TAP."""
    name, facts = pod.ip("tuntap", "list").strip().split(": ")
    assert name == TAP
    return facts


# ---------------------------------------------------------------- what is made


def test_the_tap_is_persistent_without_packet_information_and_with_virtio_headers(pod):
    create(pod)
    found = pod.links()[TAP]["linkinfo"]["info_data"]
    facts = [found[key] for key in ("type", "pi", "vnet_hdr", "multi_queue", "persist")]
    assert facts == ["tap", False, True, False, True]
    assert tuntap(pod).startswith("tap one_queue vnet_hdr persist")


def test_the_tap_has_the_uplinks_mtu_and_is_up(pod):
    pod.ip("link", "set", "eth0", "mtu", "1450")
    made = create(pod)
    link = pod.links()[TAP]
    assert (made.tap.mtu, made.uplink.mtu, link["mtu"]) == (1450, 1450, 1450)
    assert "UP" in link["flags"]


@pytest.mark.parametrize("mtu", [68, 9000, 65521], ids=str)
def test_any_mtu_that_both_can_have_is_taken_over(pod, mtu):
    pod.ip("link", "set", "eth0", "mtu", str(mtu))
    create(pod)
    assert pod.links()[TAP]["mtu"] == mtu


def test_each_side_redirects_everything_to_the_other(pod):
    create(pod)
    pod.check_pair()
    for dev, target in (("eth0", TAP), (TAP, "eth0")):
        (found,) = pod.filters(dev)
        (action,) = found["options"]["actions"]
        assert (found["kind"], found["protocol"], found["chain"]) == ("u32", "all", 0)
        assert found["options"]["match"] == {"value": "0", "mask": "0", "offmask": "", "off": 0}
        assert (action["kind"], action["mirred_action"], action["direction"]) == (
            "mirred",
            "redirect",
            "egress",
        )
        assert (action["to_dev"], action["control_action"]) == (target, {"type": "stolen"})


def test_nothing_else_is_made(pod):
    before = pod.state()
    create(pod)
    assert set(pod.links()) == {"lo", "eth0", "peer0", TAP}
    assert {qdisc["dev"] for qdisc in pod.qdiscs()} == {"eth0", TAP}
    assert nlraw.cleanup(netns=pod.path).outcome == "cleaned"
    assert pod.state() == before


def test_no_address_is_put_on_the_tap_unless_asked_for(pod):
    create(pod)
    assert pod.state()["addresses"][TAP] == []


def test_an_ipv4_address_is_put_on_the_tap(pod):
    create(pod, address="172.16.1.1/30")
    (found,) = pod.state()["addresses"][TAP]
    assert (found["family"], found["local"], found["prefixlen"]) == ("inet", "172.16.1.1", 30)


def test_an_ipv6_address_is_put_on_the_tap(pod):
    if not os.path.exists("/proc/sys/net/ipv6"):
        pytest.skip("this kernel has no IPv6")
    pod.sysctl("net/ipv6/conf/default/disable_ipv6", 0)
    create(pod, address="fd00::1/64")
    found = [
        address for address in pod.state()["addresses"][TAP] if address.get("scope") == "global"
    ]
    assert [(address["local"], address["prefixlen"]) for address in found] == [("fd00::1", 64)]


def test_the_tap_can_have_another_name(pod):
    assert create(pod, tap="vm0", match="vm*").tap.ifname == "vm0"
    pod.check_pair("vm0")


def test_the_longest_name_there_is_works(pod):
    create(pod, tap="tap0123456789ab", match="tap*")
    pod.check_pair("tap0123456789ab")


def test_a_name_that_is_no_utf8_works(pod):
    name = b"tap\xff_urunc".decode("utf-8", "surrogateescape")
    assert create(pod, tap=name).tap.ifname == name
    found = command.nlraw("setup", "-n", pod.path, "-j", "--tap", name)
    assert (found.status, found.document["tap"]["ifname"]) == (0, name)
    assert [tap.ifname for tap in nlraw.cleanup(netns=pod.path).taps] == [name]


# ---------------------------------------------------------------- who may attach


@pytest.mark.parametrize(
    "options, told",
    [
        ({}, "user %d group %d" % (os.getuid(), os.getgid())),
        ({"owner": 1000}, "user 1000"),
        ({"group": 1001}, "user %d group 1001" % os.getuid()),
        ({"owner": 1000, "group": 1001}, "user 1000 group 1001"),
        pytest.param(
            {"owner": 0xFFFFFFFE},
            "user 4294967294",
            marks=pytest.mark.skipif(
                sys.maxsize < 1 << 32, reason="ip of 32 bit cannot read such a number"
            ),
        ),
    ],
    ids=["neither", "owner", "group", "both", "the highest"],
)
def test_owner_and_group_are_those_asked_for(pod, options, told):
    create(pod, **options)
    assert tuntap(pod) == "tap one_queue vnet_hdr persist " + told


@pytest.mark.parametrize(
    "options, uid, gid, outcome",
    [
        ({"owner": 1000}, 1000, 1000, "attached"),
        ({"owner": 1000}, 1001, 1000, "refused"),
        ({"owner": 1000, "group": 2000}, 1000, 2000, "attached"),
        ({"owner": 1000, "group": 2000}, 1000, 1000, "refused"),
        ({"owner": 1000, "group": 2000}, 1001, 2000, "refused"),
        ({}, 1000, 1000, "refused"),
    ],
)
def test_the_owner_may_attach_without_privilege_and_nobody_else(pod, options, uid, gid, outcome):
    create(pod, **options)
    assert attach_as(pod, uid, gid) == outcome


# ---------------------------------------------------------------- what is told


def test_the_result_is_what_ip_tells(pod):
    made = create(pod)
    links = pod.links()
    for device, link in ((made.tap, links[TAP]), (made.uplink, links["eth0"])):
        assert (
            device.fields().items()
            >= {key: link[key] for key in ("ifname", "ifindex", "address", "mtu")}.items()
        )
    assert (made.uplink.local, made.uplink.prefixlen, made.uplink.gateway) == (
        "10.9.8.2",
        24,
        "10.9.8.1",
    )
    assert (made.netns, made.cleanup.outcome, made.ahead) == (pod.path, "clean", ())


def test_without_address_and_route_the_result_says_null(pod):
    pod.ip("address", "flush", "dev", "eth0")
    uplink = command.nlraw("setup", "-n", pod.path, "--json").document["uplink"]
    assert (uplink["local"], uplink["prefixlen"], uplink["gateway"]) == (None, None, None)


def test_a_route_without_gateway_is_no_gateway(pod):
    pod.ip("route", "replace", "default", "dev", "eth0")
    made = create(pod)
    assert (made.uplink.local, made.uplink.gateway) == ("10.9.8.2", None)


def test_the_gateway_is_that_of_the_uplink_with_the_lowest_metric(pod):
    pod.batch(
        "link add net1 type veth peer name peer1",
        "link set net1 up",
        "address add 10.1.1.2/24 dev net1",
        "route del default",
        "route add default via 10.1.1.1 dev net1 metric 1",
        "route add default via 10.9.8.77 dev eth0 metric 30",
        "route add default via 10.9.8.66 dev eth0 metric 20",
        "route add default via 10.9.8.55 dev eth0 metric 10 table 100",
    )
    made = create(pod)
    assert (made.uplink.local, made.uplink.gateway) == ("10.9.8.2", "10.9.8.66")


def test_of_several_addresses_the_first_primary_one_counts(pod):
    pod.batch(
        "address add 10.9.8.3/24 dev eth0",
        "address add 10.7.7.7/16 dev eth0",
        "address del 10.9.8.2/24 dev eth0",
    )
    made = create(pod)
    listed = [found for found in pod.state()["addresses"]["eth0"] if not found.get("secondary")]
    assert (made.uplink.local, made.uplink.prefixlen) == (
        listed[0]["local"],
        listed[0]["prefixlen"],
    )


def test_of_a_point_to_point_address_the_near_end_counts(pod):
    pod.batch("address flush dev eth0", "address add 10.9.8.2 peer 10.9.8.1/32 dev eth0")
    made = create(pod)
    assert (made.uplink.local, made.uplink.prefixlen) == ("10.9.8.2", 32)


def test_json_is_that_of_the_design(pod):
    told = command.nlraw("setup", "-n", pod.path, "-j")
    assert (told.status, told.err) == (0, "")
    links = {
        dev: {key: pod.links()[dev][key] for key in ("ifname", "ifindex", "address", "mtu")}
        for dev in (TAP, "eth0")
    }
    cleanup = {
        "netns": pod.path,
        "uplink": "eth0",
        "outcome": "clean",
        "taps": [],
        "tc_removed": [],
        "ignored": [],
        "dead_redirects": [],
        "error": None,
    }
    document = told.document
    uplink = dict(links["eth0"], local="10.9.8.2", prefixlen=24, gateway="10.9.8.1")
    # what the guest takes over from the uplink has tests of its own
    assert {key: document["uplink"][key] for key in uplink} == uplink
    assert document == {
        "netns": pod.path,
        "outcome": "created",
        "cleanup": cleanup,
        "tap": dict(links[TAP], multi_queue=False),
        "uplink": document["uplink"],
        "pairs": [{"tap": document["tap"], "uplink": document["uplink"]}],
        "error": None,
    }


def test_text_tells_the_same(pod):
    told = command.nlraw("setup", "-n", pod.path)
    links = pod.links()
    assert (told.status, told.err) == (0, "")
    assert told.out.splitlines() == [
        pod.path + ": created",
        "  TAP     ifname tap0_urunc, ifindex %d, address %s, mtu 1500"
        % (links[TAP]["ifindex"], links[TAP]["address"]),
        "  uplink  ifname eth0, ifindex %d, address %s, mtu 1500, local 10.9.8.2, prefixlen 24, "
        "gateway 10.9.8.1" % (links["eth0"]["ifindex"], links["eth0"]["address"]),
        "    address    10.9.8.2/24",
        "    route      default via 10.9.8.1",
        "    route      10.9.8.0/24 proto kernel src 10.9.8.2",
    ]


# ---------------------------------------------------------------- the command line


def test_every_option_of_the_command_line_does_what_it_says(make_pod):
    pod = make_pod(uplink="net1")
    pod.add_orphan("old7")
    options = (
        "--netns %s --tap %s --owner 1000 --group 1001 --address 172.16.1.1/30 --match old* "
        "--match tap* --exclude tap9* --uplink net1 --json"
    )
    pod.add_orphan("tap9_urunc", redirect=False)
    pod.hold("tap9_urunc")
    told = command.nlraw("setup", *(options % (pod.name, TAP)).split())
    assert told.status == 0, told.err
    assert [(tap["ifname"], tap["deleted"]) for tap in told.document["cleanup"]["taps"]] == [
        ("old7", True)
    ]
    assert told.document["uplink"]["ifname"] == "net1"
    pod.ip("link", "del", "tap9_urunc")
    assert tuntap(pod).endswith("user 1000 group 1001")
    assert pod.state()["addresses"][TAP][0]["local"] == "172.16.1.1"
    pod.check_pair()


def test_without_a_namespace_nothing_is_set_up(pod):
    before = pod.state()
    told = command.nlraw("setup", before=["ip", "netns", "exec", pod.name])
    assert (told.status, told.out) == (2, "")
    assert told.err.startswith("nlraw: setup: a namespace is needed: -n with ")
    assert pod.state() == before


def test_the_current_namespace_is_set_up_if_it_is_named(pod):
    argv = ["ip", "netns", "exec", pod.name]
    told = command.nlraw("setup", "-n", "current", "-j", before=argv)
    assert (told.status, told.document["netns"], told.document["uplink"]["ifname"]) == (
        0,
        "current",
        "eth0",
    )
    pod.check_pair()


def test_a_namespace_can_be_a_process(pod):
    told = command.nlraw("setup", "-n", str(pod.child().pid), "-j")
    assert (told.status, told.document["outcome"]) == (0, "created")
    pod.check_pair()


def test_a_namespace_can_be_a_descriptor(pod):
    with open(pod.path) as namespace:
        assert nlraw.setup(netns=namespace).outcome == "created"
    pod.check_pair()


def test_the_library_leaves_the_callers_namespace_threads_and_descriptors_alone(pod):
    def mine():
        return (
            os.stat("/proc/self/ns/net").st_ino,
            sorted(os.listdir("/proc/self/fd")),
            len(os.listdir("/proc/self/task")),
        )

    create(pod)  # what is imported late is there now
    before = mine()
    create(pod)
    assert mine() == before


UNFINDABLE = "no cleanup would find it: --match must match it, --exclude and --uplink must not"
NO_NAME = "no interface has such a name: empty, . or .., or with a slash, colon or white space"
PLAIN_PATTERNS = "only * and ? are special in a pattern; give several patterns instead of [] and {}"


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (
            ["--uplink", "eth0", "--uplink", "none"],
            'check uplink eth0, none: "auto" and "none" cannot be combined with other names',
        ),
        (
            ["-u", "eth0", "-u", "net1", "-u", "eth0"],
            "check uplink eth0: an uplink has one TAP: name it once",
        ),
        (
            ["--tap", "tap0_urunc", "--tap", "tap1_urunc"],
            "check TAP tap0_urunc, tap1_urunc: there must be one name for each uplink, or one to "
            "count up: 2 for 1",
        ),
        (
            ["--tap", "x" * 16],
            "check name xxxxxxxxxxxxxxxx: an interface name has at most 15 bytes, this one has 16",
        ),
        (
            ["--uplink", "x" * 16],
            "check name xxxxxxxxxxxxxxxx: an interface name has at most 15 bytes, this one has 16",
        ),
        (["--tap", "a/b"], "check name a/b: " + NO_NAME),
        (["--tap", ""], 'check name "": ' + NO_NAME),
        (["--match", ""], 'check pattern "": a pattern cannot be empty'),
        (
            ["--address", "10.9.8.1"],
            "check address 10.9.8.1: this is not an address with a prefix length, such as "
            "10.9.8.1/24",
        ),
        (
            ["--address", "10.9.8.1/33"],
            "check address 10.9.8.1/33: this is not an address with a prefix length, such as "
            "10.9.8.1/24",
        ),
        (
            ["--address", "fd00::1/129"],
            "check address fd00::1/129: this is not an address with a prefix length, such as "
            "10.9.8.1/24",
        ),
        (
            ["--address", "10.9.8/24"],
            "check address 10.9.8/24: this is not an address with a prefix length, such as "
            "10.9.8.1/24",
        ),
        (
            ["--owner", "x y"],
            "check --owner x y: there is no such user; give another name, or a number",
        ),
        (
            ["--group", "-1"],
            "check --group -1: there is no such group; give another name, or a number",
        ),
        (["--owner", "4294967295"], "check ID 4294967295: an ID is a number from 0 to 4294967294"),
        (["--tap", "vm0"], "check TAP vm0: " + UNFINDABLE),
        (["--match", "vm*"], "check TAP tap0_urunc: " + UNFINDABLE),
        (["--exclude", "tap0*"], "check TAP tap0_urunc: " + UNFINDABLE),
        (["--tap", "eth0", "--match", "*"], "check TAP eth0: " + UNFINDABLE),
        (["--match", "tap[01]*"], "check pattern tap[01]*: " + PLAIN_PATTERNS),
        (["--match", "{tap0,tap1}*"], "check pattern {tap0,tap1}*: " + PLAIN_PATTERNS),
        (["--dry-run"], "setup --dry-run: no such option; `cleanup` and `sweep` have it"),
        (["now"], "setup now: unexpected argument; did you mean `-n now`?"),
        (["--tap"], "setup --tap: this option needs a value: NAME, the name of the TAP"),
        (["-n", "2"], "setup -n: this option can be given only once"),
    ],
)
def test_usage_errors_are_exit_2_and_change_nothing(pod, arguments, complaint):
    pod.add_orphan()
    before = pod.state()
    argv = ["ip", "netns", "exec", pod.name]
    told = command.nlraw("setup", "-n", "current", *arguments, before=argv)
    assert (told.status, told.out, told.err) == (2, "", "nlraw: %s\n" % complaint)
    assert pod.state() == before


# ---------------------------------------------------------------- what was there before


def test_an_orphan_is_replaced(pod):
    old = pod.add_orphan()
    made = create(pod)
    assert made.tap.ifindex == pod.check_pair() != old
    assert [(tap.ifname, tap.ifindex, tap.deleted) for tap in made.cleanup.taps] == [
        (TAP, old, True)
    ]
    removed = ["%s %s" % (gone.dev, gone.object) for gone in made.cleanup.tc_removed]
    assert removed == ["eth0 filter", "eth0 qdisc", TAP + " qdisc"]


def test_every_orphan_that_matches_is_removed_and_no_other_tap(pod):
    for name in ("tap0_urunc", "tap1_urunc", "other0"):
        pod.add_orphan(name, redirect=False)
    create(pod)
    assert set(pod.links()) == {"lo", "eth0", "peer0", TAP, "other0"}


def test_a_dead_redirect_on_the_uplink_is_removed(pod):
    pod.add_orphan()
    pod.ip("link", "del", TAP)
    assert create(pod).cleanup.outcome == "cleaned"
    pod.check_pair()


def test_setups_in_a_row_leave_one_pair_and_take_a_new_index_each(pod):
    before = pod.state()
    indices = [create(pod).tap.ifindex for _ in range(10)]
    assert indices == sorted(set(indices)) and pod.check_pair() == indices[-1]
    nlraw.cleanup(netns=pod.path)
    assert pod.state() == before


def test_a_tap_in_use_is_exit_3_and_nothing_is_changed(pod):
    ifindex = pod.add_tap()
    pod.hold()
    before = pod.state()
    told = command.nlraw("setup", "-n", pod.path, "-j")
    assert told.status == 3
    words = "in use (carrier on), nothing was changed"
    shown = (pod.path, words, command.ADVICE)
    assert told.err == "nlraw: %s: clean up tap0_urunc: %s%s\n" % shown
    document = told.document
    assert (document["outcome"], document["tap"], document["uplink"]) == ("in-use", None, None)
    assert document["pairs"] == []
    assert [(tap["ifindex"], tap["verdict"]) for tap in document["cleanup"]["taps"]] == [
        (ifindex, "in-use")
    ]
    assert document["error"] == {"step": "clean up", "object": TAP, "errno": None, "message": words}
    assert pod.state() == before


def test_the_library_raises_tap_in_use_with_the_report(pod):
    pod.add_tap()
    pod.hold()
    with pytest.raises(nlraw.TapInUse) as caught:
        nlraw.setup(netns=pod.path)
    report = caught.value.report
    assert (report.outcome, report.cleanup.outcome, report.error) == (
        "in-use",
        "in-use",
        caught.value,
    )


@pytest.mark.parametrize("names", [0, 260], ids=["listed", "left out of a quick list"])
def test_any_matching_tap_in_use_ends_it_and_orphans_stay(pod, names):
    pod.add_orphan("tap0_urunc")
    pod.lengthen("tap0_urunc", names)
    pod.add_tap("tap1_urunc", redirect=False)
    pod.hold("tap1_urunc")
    before = pod.state()
    with pytest.raises(nlraw.TapInUse):
        nlraw.setup(netns=pod.path)
    assert pod.state() == before


def test_an_orphan_of_another_name_and_its_pattern_is_replaced(pod):
    old = pod.add_orphan("vm0")
    assert create(pod, tap="vm0", match="vm*").tap.ifindex == pod.check_pair("vm0") != old


def test_a_tap_in_use_of_another_name_and_its_pattern_is_exit_3(pod):
    pod.add_tap("vm0")
    pod.hold("vm0")
    before = pod.state()
    options = ["--tap", "vm0", "--match", "vm0"]
    assert command.nlraw("setup", "-n", pod.path, *options).status == 3
    assert pod.state() == before


def test_orphans_of_every_pattern_are_removed(pod):
    pod.add_orphan("tap0_urunc")
    create(pod, tap="vm0", match=["tap*_urunc", "vm*"])
    pod.check_pair("vm0")


@pytest.mark.parametrize(
    "options",
    [{"tap": "vm0"}, {"match": "vm*"}, {"exclude": [TAP]}, {"tap": "eth0", "match": "*"}],
    ids=["of another name", "of another pattern", "excluded", "the uplink"],
)
def test_a_tap_that_no_cleanup_would_find_is_refused_before_anything_is_touched(pod, options):
    pod.add_orphan()
    before = pod.state()
    with pytest.raises(nlraw.Invalid) as caught:
        nlraw.setup(netns=pod.path, **options)
    assert caught.value.message == UNFINDABLE
    assert pod.state() == before


def test_a_tap_that_setup_made_is_fresh_until_a_vmm_attached(pod):
    create(pod)
    assert [(tap.verdict, tap.fresh) for tap in nlraw.scan(netns=pod.path)] == [("orphan", True)]
    pod.hold().kill()
    assert [(tap.verdict, tap.fresh) for tap in nlraw.scan(netns=pod.path)] == [("orphan", False)]


# ---------------------------------------------------------------- the uplink


@pytest.mark.parametrize("uplink", ["net1", "auto"])
def test_the_uplink_is_the_one_named_or_that_of_the_default_route(make_pod, uplink):
    pod = make_pod(uplink="net1")
    made = create(pod, uplink=uplink)
    assert (made.uplink.ifname, made.cleanup.uplink) == ("net1", "net1")
    pod.check_pair()


def test_an_uplink_of_a_default_route_of_ipv6_alone_is_found(make_pod):
    if not os.path.exists("/proc/sys/net/ipv6"):
        pytest.skip("this kernel has no IPv6")
    pod = make_pod(uplink="net1")
    pod.sysctl("net/ipv6/conf/net1/disable_ipv6", 0)
    pod.batch(
        "address flush dev net1",
        "address add fd00::2/64 dev net1 nodad",
        "route add ::/0 via fd00::1 dev net1",
    )
    made = create(pod, uplink="auto")
    assert (made.uplink.ifname, made.uplink.local, made.uplink.gateway) == ("net1", None, None)


def add_nic(pod, name="net1"):
    pod.batch(
        "link add %s type veth peer name far-%s" % (name, name),
        "link set %s up" % name,
        "address add 10.1.1.2/24 dev %s" % name,
    )


def test_a_second_setup_with_another_uplink_repairs_what_the_first_one_made(pod):
    add_nic(pod)
    before = pod.state()
    create(pod, tap="tap0_urunc")
    made = create(pod, tap="tap1_urunc", uplink="net1")
    assert [(tap.ifname, tap.deleted) for tap in made.cleanup.taps] == [("tap0_urunc", True)]
    removed = [(gone.dev, gone.object, gone.target) for gone in made.cleanup.tc_removed]
    assert removed == [
        ("eth0", "filter", "tap0_urunc"),
        ("eth0", "qdisc", None),
        ("tap0_urunc", "qdisc", None),
    ]
    assert (pod.filters("eth0"), pod.qdiscs("eth0")) == ([], [])
    assert pod.redirects("net1", "tap1_urunc") == pod.redirects("tap1_urunc", "net1") == 1
    nlraw.cleanup(netns=pod.path, uplink="net1")
    assert pod.state() == before


def test_a_second_setup_with_another_uplink_says_what_of_the_first_one_it_removed(pod):
    add_nic(pod)
    command.nlraw("setup", "-n", pod.path)
    options = ["--tap", "tap1_urunc", "-u", "net1"]
    told = command.nlraw("setup", "-n", pod.path, *options)
    assert (told.status, told.err) == (0, "")
    before = [line for line in told.out.splitlines() if line.startswith("  before that: ")]
    rows = [re.split("  +", line.split(": ", 1)[1]) for line in before[:-1]]
    assert [pod.path, "tap0_urunc", "orphan (fresh)", "deleted"] in rows
    words = "priority 49152, redirects to tap0_urunc"
    assert [pod.path, "eth0", "u32 filter", "removed", words] in rows
    assert before[-1] == "  before that: %s: cleaned (uplink net1)" % pod.path


def test_a_second_setup_with_another_uplink_is_refused_once_a_vmm_is_attached(pod):
    add_nic(pod)
    create(pod)
    pod.hold()
    before = pod.state()
    with pytest.raises(nlraw.TapInUse):
        nlraw.setup(netns=pod.path, tap="tap1_urunc", uplink="net1")
    assert pod.state() == before


# ---------------------------------------------------------------- what is foreign on the uplink

SSH = "u32 match ip dport 22 0xffff flowid 1:7"


def foreign(pod, *commands):
    """Run `tc` commands and return the state that they leave."""
    for line in commands:
        pod.tc(*line.split())
    return pod.state()


def create_and_clean(pod):
    """Set up, see that the uplink's one redirect is there, clean up.

    Return what setup said and removed.
    """
    made = create(pod)
    assert pod.redirects("eth0", TAP) == pod.redirects(TAP, "eth0") == 1
    removed = nlraw.cleanup(netns=pod.path).tc_removed
    return made, ["%s %s %s" % (gone.dev, gone.object, gone.kind) for gone in removed]


@pytest.mark.parametrize("place", ["ingress", "parent ffff:"])
@pytest.mark.parametrize("pref", ["7", "49152", "65535"])
def test_a_foreign_ingress_that_holds_another_filter_is_used_and_kept(pod, place, pref):
    # the kernel lists every filter there under the parent that the latest one was made with
    # (tc_new_tfilter(), cls_api.c)
    before = foreign(
        pod,
        "qdisc add dev eth0 ingress",
        "filter add dev eth0 %s pref %s protocol ip %s" % (place, pref, SSH),
    )
    assert create_and_clean(pod)[1] == ["eth0 filter u32", TAP + " qdisc ingress"]
    assert pod.state() == before


@pytest.mark.parametrize("qdisc", ["ingress", "clsact"])
def test_where_the_kernel_has_no_priority_left_to_pick_the_redirect_goes_ahead_of_that(pod, qdisc):
    before = foreign(
        pod,
        "qdisc add dev eth0 " + qdisc,
        "filter add dev eth0 ingress pref 32768 protocol ip " + SSH,
    )
    create(pod)
    assert min(found["pref"] for found in pod.filters("eth0")) == 32767
    nlraw.cleanup(netns=pod.path)
    assert pod.state() == before


def test_a_redirect_shares_no_priority_with_another_chain_of_an_ingress(pod):
    # where it did, their u32 tables would be one, and whose a dead redirect there is could not be
    # told
    place = "filter add dev eth0 ingress chain 5 pref 49152 protocol ip "
    before = foreign(pod, "qdisc add dev eth0 ingress", place + SSH)
    create(pod)
    pod.ip("link", "del", TAP)
    assert [gone.object for gone in nlraw.cleanup(netns=pod.path).tc_removed] == ["filter"]
    assert pod.state() == before


def test_a_foreign_clsact_is_used_and_kept(pod):
    before = foreign(
        pod,
        "qdisc add dev eth0 clsact",
        "filter add dev eth0 ingress pref 7 protocol ip " + SSH,
        "filter add dev eth0 egress pref 7 protocol ip " + SSH,
    )
    assert create_and_clean(pod)[1] == ["eth0 filter u32", TAP + " qdisc ingress"]
    assert pod.state() == before


def test_an_empty_clsact_is_used_and_kept(pod):
    before = foreign(pod, "qdisc add dev eth0 clsact")
    create(pod)
    assert [qdisc["kind"] for qdisc in pod.qdiscs("eth0")] == ["clsact"]
    assert (pod.redirects("eth0", TAP), len(pod.filters("eth0", "egress"))) == (1, 0)
    nlraw.cleanup(netns=pod.path)
    assert pod.state() == before


def test_an_empty_foreign_ingress_is_used_and_goes_with_the_redirect(pod):
    before = pod.state()
    foreign(pod, "qdisc add dev eth0 ingress")
    made, removed = create_and_clean(pod)
    assert made.cleanup.outcome == "clean"
    assert removed == ["eth0 filter u32", "eth0 qdisc ingress", TAP + " qdisc ingress"]
    assert pod.state() == before


def test_a_qdisc_at_the_root_of_the_uplink_is_kept(pod):
    htb = [
        "qdisc add dev eth0 root handle 1: htb default 1",
        "class add dev eth0 parent 1: classid 1:1 htb rate 1gbit",
    ]
    before = foreign(pod, *htb)
    create_and_clean(pod)
    assert pod.state() == before


@pytest.mark.parametrize("qdisc", ["ingress", "clsact"])
def test_a_foreign_filter_ahead_of_the_redirect_is_told(pod, qdisc):
    foreign(
        pod, "qdisc add dev eth0 " + qdisc, "filter add dev eth0 ingress pref 7 protocol ip " + SSH
    )
    told = command.nlraw("setup", "-n", pod.path, "-j")
    assert told.status == 0
    assert (
        told.err
        == "nlraw: %s: a foreign u32 filter on eth0 sees packets before the redirect does\n"
        % pod.path
    )
    assert "ahead" not in told.document
    made = create(pod)
    assert [(found.dev, found.object, found.kind) for found in made.ahead] == [
        ("eth0", "filter", "u32")
    ]


def test_each_foreign_filter_ahead_is_told_by_its_kind(pod):
    foreign(
        pod, "qdisc add dev eth0 clsact", "filter add dev eth0 ingress pref 7 protocol ip " + SSH
    )
    pod.tc(
        *"filter add dev eth0 ingress pref 3 protocol all bpf da bytecode".split(),
        "1,6 0 0 4294967295",
    )
    assert [found.kind for found in create(pod).ahead] == ["bpf", "u32"]


@pytest.mark.parametrize(
    "place",
    ["egress pref 7", "ingress pref 50000", "ingress chain 5 pref 7"],
    ids=["other side", "behind", "other chain"],
)
def test_a_foreign_filter_that_is_not_ahead_is_not_told(pod, place):
    foreign(
        pod, "qdisc add dev eth0 clsact", "filter add dev eth0 %s protocol ip %s" % (place, SSH)
    )
    told = command.nlraw("setup", "-n", pod.path)
    assert (told.status, told.err) == (0, "")


def test_a_foreign_filter_stays_ahead_when_an_orphans_redirect_is_replaced(pod):
    foreign(
        pod, "qdisc add dev eth0 ingress", "filter add dev eth0 ingress pref 7 protocol ip " + SSH
    )
    pod.add_orphan()
    made = create(pod)
    assert (made.cleanup.outcome, [found.kind for found in made.ahead]) == ("cleaned", ["u32"])

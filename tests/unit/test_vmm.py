# SPDX-License-Identifier: Apache-2.0
"""nlraw.vmm: a setup as the arguments of QEMU and Cloud Hypervisor, as JSON, and as ip=."""

import json
import re
import shlex
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nlraw
from nlraw import vmm
from nlraw.guest import CreatedTap, GuestAddress, GuestNeighbour, GuestRoute, Pair, Setup, Uplink

MAC = "52:54:00:12:34:56"


def an_address(local, prefixlen):
    family = "inet6" if ":" in local else "inet"
    return GuestAddress(
        family=family,
        local=local,
        prefixlen=prefixlen,
        address=None,
        broadcast=None,
        scope="global",
    )


def a_route(dst, gateway=None, protocol="boot", mtu=None):
    return GuestRoute(
        family="inet6" if ":" in dst + (gateway or "") else "inet",
        type="unicast",
        dst=dst,
        gateway=gateway,
        protocol=protocol,
        scope="global",
        src=None,
        metric=None,
        mtu=mtu,
        onlink=False,
    )


CONNECTED = a_route("10.9.8.0/24", protocol="kernel")
DEFAULT = a_route("default", "10.9.8.1")


def an_uplink(local="10.9.8.2", prefixlen=24, gateway="10.9.8.1", mtu=1500, **fields):
    facts = {
        "ifname": "eth0",
        "ifindex": 2,
        "address": MAC,
        "mtu": mtu,
        "local": local,
        "prefixlen": prefixlen,
        "gateway": gateway,
        "addresses": () if local is None else (an_address(local, prefixlen),),
        "routes": (CONNECTED, DEFAULT),
        "neighbours": (),
    }
    return Uplink(**dict(facts, **fields))


def a_pair(uplink, name="tap0_urunc", mtu=1500, multi_queue=False):
    tap = CreatedTap(ifname=name, ifindex=5, address=MAC, mtu=mtu, multi_queue=multi_queue)
    return Pair(tap=tap, uplink=uplink)


def a_setup(*pairs):
    return Setup(
        netns="/run/netns/pod1",
        outcome="created",
        cleanup=None,
        tap=pairs[0].tap,
        uplink=pairs[0].uplink,
        pairs=pairs,
        error=None,
        ahead=(),
    )


ONE = a_setup(a_pair(an_uplink()))
QUEUES = a_setup(a_pair(an_uplink(), multi_queue=True))
ALONE = a_setup(a_pair(None))  # -u none
TWO = a_setup(
    a_pair(an_uplink(), mtu=1450),
    a_pair(an_uplink("10.7.6.2", 16, None, ifname="net1", address="02:00:00:00:00:01"), "tap1_x"),
)


# ---------------------------------------------------------------- the VMMs


def test_qemu_gets_both_sides_of_a_card():
    assert vmm.describe("qemu", ONE) == (
        "-netdev tap,id=net0,ifname=tap0_urunc,script=no,downscript=no "
        "-device virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56,host_mtu=1500,romfile="
    )


def test_qemu_gets_two_cards_each_with_its_own_mac_and_mtu():
    assert vmm.describe("qemu", TWO).split(" ") == [
        "-netdev",
        "tap,id=net0,ifname=tap0_urunc,script=no,downscript=no",
        "-device",
        "virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56,host_mtu=1450,romfile=",
        "-netdev",
        "tap,id=net1,ifname=tap1_x,script=no,downscript=no",
        "-device",
        "virtio-net-pci,netdev=net1,mac=02:00:00:00:00:01,host_mtu=1500,romfile=",
    ]


def test_qemu_gets_queue_pairs_on_a_multi_queue_tap():
    found = vmm.describe("qemu", QUEUES)
    assert ",downscript=no,queues=2 " in found
    assert ",mq=on,vectors=6," in found


def test_cloud_hypervisor_gets_one_option_for_all_cards():
    assert vmm.describe("cloud-hypervisor", TWO).split(" ") == [
        "--net",
        "tap=tap0_urunc,mac=52:54:00:12:34:56,mtu=1450,num_queues=2",
        "tap=tap1_x,mac=02:00:00:00:00:01,mtu=1500,num_queues=2",
    ]
    assert vmm.describe("cloud-hypervisor", QUEUES).endswith(",num_queues=4")


def test_firecracker_gets_a_configuration():
    assert json.loads(vmm.describe("firecracker", TWO)) == {
        "boot-source": {"boot_args": "ip=10.9.8.2::10.9.8.1:255.255.255.0::eth0:off"},
        "network-interfaces": [
            {
                "iface_id": "eth0",
                "host_dev_name": "tap0_urunc",
                "guest_mac": "52:54:00:12:34:56",
                "mtu": 1450,
            },
            # 1.15 and older refuse the key "mtu"; 1500 is the guest's default
            {"iface_id": "eth1", "host_dev_name": "tap1_x", "guest_mac": "02:00:00:00:00:01"},
        ],
    }


def test_a_tap_alone_has_no_mac_of_an_uplink_and_no_addresses():
    assert "mac=" not in vmm.describe("qemu", ALONE)
    assert "mac=" not in vmm.describe("cloud-hypervisor", ALONE)
    assert json.loads(vmm.describe("firecracker", ALONE)) == {
        "network-interfaces": [{"iface_id": "eth0", "host_dev_name": "tap0_urunc"}]
    }
    assert vmm.describe("cmdline", ALONE) == ""


@pytest.mark.parametrize("address", [None, "", "0a:09:08:02", "00:00:00:00:00:00:00:00"])
def test_an_uplink_without_an_ethernet_address_gives_the_guest_none(address):
    made = a_setup(a_pair(an_uplink(address=address)))
    assert "mac=" not in vmm.describe("qemu", made)


def test_an_impossible_form_is_refused():
    with pytest.raises(nlraw.Invalid, match="qemu, firecracker, cloud-hypervisor, cmdline"):
        vmm.describe("xen", ONE)
    with pytest.raises(nlraw.Invalid, match="one queue"):
        vmm.describe("firecracker", QUEUES)
    for form in vmm.FORMS:
        vmm.check(form)


# ---------------------------------------------------------------- ip=


@pytest.mark.parametrize(
    "uplink, argument",
    [
        (an_uplink(), "ip=10.9.8.2::10.9.8.1:255.255.255.0::eth0:off"),
        (an_uplink(gateway=None), "ip=10.9.8.2:::255.255.255.0::eth0:off"),
        (
            an_uplink("172.16.5.9", 20, "172.16.0.1"),
            "ip=172.16.5.9::172.16.0.1:255.255.240.0::eth0:off",
        ),
        (an_uplink("10.0.0.1", 31, "10.0.0.0"), "ip=10.0.0.1::10.0.0.0:255.255.255.254::eth0:off"),
        # the kernel takes this gateway for the broadcast address
        (an_uplink("10.0.0.0", 31, "10.0.0.1"), "ip=10.0.0.0:::255.255.255.254::eth0:off"),
        (an_uplink("192.0.2.1", 1, None), "ip=192.0.2.1:::128.0.0.0::eth0:off"),
        # the kernel refuses a gateway outside the network
        (an_uplink(gateway="169.254.1.1"), "ip=10.9.8.2:::255.255.255.0::eth0:off"),
        # the kernel reads these netmasks as none
        (an_uplink("10.9.8.2", 32, "169.254.1.1"), ""),
        (an_uplink("10.9.8.2", 0, None), ""),
        (an_uplink(None, None, None), ""),
    ],
)
def test_ip_has_the_first_address_and_a_gateway_that_the_kernel_takes(uplink, argument):
    assert vmm.describe("cmdline", a_setup(a_pair(uplink))) == argument


def test_ip_is_for_the_first_nic_that_has_an_address():
    made = a_setup(a_pair(an_uplink(None, None, None)), a_pair(an_uplink(), "tap1_urunc"))
    assert vmm.describe("cmdline", made) == "ip=10.9.8.2::10.9.8.1:255.255.255.0::eth1:off"


def test_ip_says_all_of_a_plain_pod():
    assert vmm.unsaid("cmdline", ONE) == ()
    assert vmm.unsaid("cmdline", ALONE) == ()


def test_what_ip_cannot_express_is_counted_for_each_nic():
    first = an_uplink(
        addresses=(an_address("10.9.8.2", 24), an_address("2001:db8::2", 64)),
        routes=(
            CONNECTED,
            a_route("default", "10.9.8.1", mtu=1400),
            a_route("default", "2001:db8::1"),
            a_route("10.8.0.0/16", "10.9.8.3"),
        ),
        neighbours=(GuestNeighbour(dst="10.9.8.1", lladdr=MAC),),
    )
    second = an_uplink(ifname="net1", routes=(CONNECTED,))
    words = "%s: ip= cannot express %s: configure the guest from the JSON"
    assert vmm.unsaid("firecracker", a_setup(a_pair(first), a_pair(second))) == (
        words % ("eth0", "1 IPv6 address, 2 routes, 1 MTU of a route, 1 permanent neighbour"),
        words % ("net1", "1 IPv4 address"),
    )


def test_an_address_of_32_bits_and_its_gateway_are_counted():
    routes = (a_route("169.254.1.1"), a_route("default", "169.254.1.1"))
    uplink = an_uplink("10.9.8.2", 32, "169.254.1.1", routes=routes)
    (words,) = vmm.unsaid("cmdline", a_setup(a_pair(uplink)))
    assert "1 IPv4 address, 2 routes:" in words


def test_a_far_gateway_is_counted():
    uplink = an_uplink(gateway="10.1.1.1", routes=(CONNECTED, a_route("default", "10.1.1.1")))
    assert "1 route:" in vmm.unsaid("cmdline", a_setup(a_pair(uplink)))[0]


@pytest.mark.parametrize("form", ["qemu", "cloud-hypervisor"])
def test_arguments_that_attach_leave_nothing_unsaid(form):
    uplink = an_uplink(addresses=(an_address("2001:db8::2", 64),))
    assert vmm.unsaid(form, a_setup(a_pair(uplink))) == ()


def test_several_forms_are_a_line_each_and_repeat_no_complaint():
    made = a_setup(a_pair(an_uplink(addresses=(an_address("2001:db8::2", 64),))))
    forms = ["cmdline", "firecracker", "qemu"]
    assert vmm.lines(forms, made) == [vmm.describe(form, made) for form in forms]
    assert vmm.all_unsaid(forms, made) == list(vmm.unsaid("cmdline", made))


def test_a_setup_that_failed_has_no_line():
    failed = a_setup(a_pair(an_uplink(addresses=(an_address("2001:db8::2", 64),)))).replace(
        error=nlraw.Error("refused")
    )
    assert vmm.lines(["cmdline"], failed) == []
    assert vmm.all_unsaid(["cmdline"], failed) == []


# ---------------------------------------------------------------- names from outside

# What dev_valid_name() (net/core/dev.c) lets pass, as bytes.
NAMES = st.binary(min_size=1, max_size=15).filter(
    lambda name: not re.search(rb"[\0-\x20/:\x7f\xa0]", name) and name not in (b".", b"..")
)


def with_name(data):
    return a_setup(a_pair(an_uplink(), data.decode("utf-8", "surrogateescape")))


def qemu_options(word):
    """As QEMU reads them: a comma is written twice (get_opt_value(), util/keyval.c)."""
    parts = re.split(b",(?!,)", word.replace(b",,", b"\0"))
    return [part.replace(b"\0", b",") for part in parts]


def dequoted(value):
    """As Cloud Hypervisor reads a value (dequote(), option_parser/src/lib.rs)."""
    if value.startswith(b'"'):
        return value[1:-1].replace(b'""', b'"')
    return value


@given(NAMES)
def test_no_name_leaves_its_place(name):
    made = with_name(name)
    for form in ("qemu", "cloud-hypervisor"):
        line = vmm.describe(form, made)
        assert line.isascii() if hasattr(line, "isascii") else line.encode("ascii")
        assert line.isprintable()
        if "$'" in line:
            continue  # only a shell that knows them reads these: see below
        words = [word.encode() for word in shlex.split(line)]
        if form == "qemu":
            assert len(words) == 4
            assert qemu_options(words[1])[:3] == [b"tap", b"id=net0", b"ifname=" + name]
        else:
            assert len(words) == 2
            value = words[1].split(b",mac=52:54:00:12:34:56,mtu=")[0]
            assert dequoted(value[len("tap=") :]) == name


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    "name",
    [
        b"tap0_\xff\xfe",
        b"tap'$(id)\xc3\xa4",
        b"tap;id>x",
        b"`id`",
        b"$(id)",
        b"'",
        b'"',
        b"\\",
        b"*",
    ]
    + [b"a,b", b"\\\x01'", b"$'x'", b"~", b"#x", b"{a,b}"],
)
def test_bash_reads_every_name_as_one_word(name):
    line = vmm.describe("qemu", with_name(name))
    found = subprocess.run(
        ["bash", "-c", 'eval "set -- $1"; printf "%s\\0" "$@"', "bash", line],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.split(b"\0")[:-1]
    assert len(found) == 4
    assert qemu_options(found[1])[2] == b"ifname=" + name


def test_common_names_are_not_quoted():
    assert "'" not in vmm.describe("qemu", with_name(b"tap-0.x_1"))

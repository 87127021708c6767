# SPDX-License-Identifier: Apache-2.0
"""Every number and layout of nlraw.uapi against the kernel's headers, by a C program.

Other headers than the system's: CPATH=/somewhere/usr/include in the environment, which the compiler
heeds.
"""

import os
import re
import shutil
import struct

import pytest

import nlraw.inet
from lib import command, pods, standin, taps
from nlraw import uapi, wire
from tools import capture

HEADERS = (
    # the C library's first: it has the numbers of sockets and files, and what the kernel's own
    # headers give again they leave out
    "sys/socket.h",
    "sys/stat.h",
    "linux/netlink.h",
    "linux/rtnetlink.h",
    "linux/if_addr.h",
    "linux/neighbour.h",
    "linux/if.h",
    "linux/if_link.h",
    "linux/if_tun.h",
    "linux/nexthop.h",
    "linux/veth.h",
    "linux/if_ether.h",
    "linux/pkt_sched.h",
    "linux/pkt_cls.h",
    "linux/tc_act/tc_mirred.h",
    "linux/net_namespace.h",
    "linux/filter.h",
    "linux/nsfs.h",
    "linux/sched.h",
    "linux/version.h",
)

# What the kernel's headers have under another name, or in another width.
EXPRESSIONS = {
    "NLA_TYPE_MASK": "(unsigned short)NLA_TYPE_MASK",
    "TC_H_INGRESS_HANDLE": "TC_H_MAKE(TC_H_INGRESS, 0)",
    "TCM_IFINDEX_MAGIC_BLOCK": "(int)TCM_IFINDEX_MAGIC_BLOCK",
}

# Numbers that headers older than the given kernel's lack, and the end of the enum there: new ones
# are only ever appended.
NEWER = {"TCA_MIRRED_BLOCKID": ((6, 8), "__TCA_MIRRED_MAX")}

# By layout: the members that its fields are, in their order.
MEMBERS = {
    "nlmsghdr": "nlmsg_len nlmsg_type nlmsg_flags nlmsg_seq nlmsg_pid",
    "nlattr": "nla_len nla_type",
    "rtgenmsg": "rtgen_family",
    "rtmsg": "rtm_family rtm_dst_len rtm_src_len rtm_tos rtm_table rtm_protocol rtm_scope"
    " rtm_type rtm_flags",
    "rtnexthop": "rtnh_len rtnh_flags rtnh_hops rtnh_ifindex",
    "tcmsg": "tcm_family tcm_ifindex tcm_handle tcm_parent tcm_info",
    "ifinfomsg": "ifi_family ifi_type ifi_index ifi_flags ifi_change",
    "ifaddrmsg": "ifa_family ifa_prefixlen ifa_flags ifa_scope ifa_index",
    "ndmsg": "ndm_family ndm_ifindex ndm_state ndm_flags ndm_type",
    "nhmsg": "nh_family nh_scope nh_protocol nh_flags",
    "nexthop_grp": "id weight weight_high",
    "tc_u32_sel": "flags offshift nkeys offmask off offoff hoff hmask",
    "tc_u32_key": "mask val off offmask",
    "tc_mirred": "index capab action refcnt bindcnt eaction ifindex",
    "sock_filter": "code jt jf k",
    "ifreq": "ifr_name ifr_flags",
}

# Members that older headers have under another name: since when under this one, and the older name.
RENAMED = {"weight_high": ((6, 12), "resvd1")}

# IFF_TUN_EXCL is the highest bit of a member that is signed; a name is no number.
UNSIGNED_HERE = {("ifreq", "ifr_name"), ("ifreq", "ifr_flags")}

# Tables, as the numbers that they hold by the kernel's names for them.
CLONE = {"mount": "CLONE_NEWNS", "network": "CLONE_NEWNET"}
TABLES = {
    "IFF_NAMES": {"IFF_" + name: bit for bit, name in uapi.IFF_NAMES},
    "IF_OPER_NAMES": {"IF_OPER_" + name: number for number, name in enumerate(uapi.IF_OPER_NAMES)},
    "CLONE_NAMES": {
        CLONE.get(name, "CLONE_NEW" + name.upper()): bit for bit, name in uapi.CLONE_NAMES.items()
    },
}

# How many the kernel has of each: the flags of a device, its operational states, the kinds of
# namespace.
ENTRIES = {"IFF_NAMES": 19, "IF_OPER_NAMES": 7, "CLONE_NAMES": 8}

# Numbers that stand elsewhere: in the library, and in what the tests are played with.
ELSEWHERE = {
    nlraw.inet: "AF_INET AF_INET6",
    pods: "CLONE_NEWNET",
    taps: "IFF_TUN IFF_TAP IFF_MULTI_QUEUE IFF_NO_PI IFF_TUN_EXCL TUNSETIFF TUNSETPERSIST "
    "TUNSETIFINDEX",
    standin: "TUNSETIFF IFF_TAP IFF_NO_PI IFF_VNET_HDR ETH_P_IP ETH_P_ARP",
    capture: "IFF_DETACH_QUEUE TUNSETQUEUE IFLA_TARGET_NETNSID",
}

IOCTLS = ("NS_GET_NSTYPE", "TUNSETIFF", "TUNSETPERSIST", "TUNSETOWNER", "TUNSETGROUP")

PUBLIC = sorted(name for name in vars(uapi) if not name.startswith("_") and name != "Struct")
NUMBERS = [name for name in PUBLIC if isinstance(getattr(uapi, name), int)]
LAYOUTS = [name for name in PUBLIC if isinstance(getattr(uapi, name), struct.Struct)]

# ---------------------------------------------------------------- the C program


def fields(layout):
    """The fields of a layout: for each its format, and its offset."""
    # bytes up to 3.6
    found, before = [], layout.format if isinstance(layout.format, str) else layout.format.decode()
    assert before[0] == "=", "a layout without native padding"
    parts = re.findall(r"\d*[a-zA-Z]", before[1:])
    for number, part in enumerate(parts):
        if part[-1] != "x":
            found.append((part, struct.calcsize("=" + "".join(parts[:number]))))
    return found


def lines():
    """What the program prints, a line each: what it is called here, and the C expression."""
    wanted = (
        set(NUMBERS).union(*TABLES.values()).union(*[names.split() for names in ELSEWHERE.values()])
    )
    for name in (
        sorted(wanted)
        + ["TC_H_CLSACT", "NLM_F_BULK", "LINUX_VERSION_CODE"]
        + [end for _, end in NEWER.values()]
    ):
        yield name, EXPRESSIONS.get(name, name)
    for name in LAYOUTS:
        whole = "struct " + name
        yield "size " + name, "sizeof(%s)" % whole
        for member in MEMBERS.get(name, "").split():
            there = "((%s *)0)->%s" % (whole, member)
            yield "offset %s.%s" % (name, member), "__builtin_offsetof(%s, %s)" % (whole, member)
            yield "size %s.%s" % (name, member), "sizeof(%s)" % there
            if (name, member) not in UNSIGNED_HERE:
                yield "signed %s.%s" % (name, member), "(__typeof__(%s))-1 < 0" % there


def compiled(path, wanted):
    """Compile and run it; return what it printed, or the complaints of the compiler."""
    source = (
        ["#include <stdio.h>"]
        + ["#include <%s>" % header for header in HEADERS]
        + [
            "#if LINUX_VERSION_CODE < KERNEL_VERSION(%d, %d, 0)\n#define %s %s\n#endif"
            % (*version, name, older)
            for name, (version, older) in RENAMED.items()
        ]
        + ["int main(void) {"]
    )
    source += ['    printf("%s: %%lld\\n", (long long)(%s));' % line for line in wanted] + [
        "    return 0;",
        "}",
    ]
    with open(path + ".c", "w") as file:
        file.write("\n".join(source) + "\n")
    environment = dict(os.environ, LC_ALL="C")
    argv = [compiler(), "-o", path, path + ".c"]
    done = command.attempt(*argv, env=environment)
    if done.status:
        return None, done.err
    found = command.run(path)
    return {
        name: int(number) for name, number in (line.split(": ") for line in found.splitlines())
    }, ""


def compiler():
    return shutil.which("gcc") or shutil.which("cc")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """What the headers say, by name; what they do not know is not in it."""
    if compiler() is None:
        pytest.skip("needs a C compiler")
    path = str(tmp_path_factory.mktemp("uapi").joinpath("numbers"))
    wanted = list(lines())
    found, complaints = compiled(path, wanted)
    if found is None:
        missing = re.search(r"fatal error: (\S+): No such file", complaints)
        if missing:
            pytest.skip("needs the kernel's headers for programs, and has no " + missing.group(1))
        unknown = set(
            re.findall(r"['\u2018](\w+)['\u2019] (?:undeclared|was not declared)", complaints)
        )
        assert unknown, complaints
        found, complaints = compiled(path, [line for line in wanted if line[0] not in unknown])
    assert found is not None, complaints
    return found


# ---------------------------------------------------------------- what it is held against


def test_every_public_name_is_held_against_the_headers():
    assert sorted(NUMBERS + LAYOUTS + list(TABLES) + ["ioctl"]) == PUBLIC
    assert sorted(MEMBERS) == LAYOUTS


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_the_kernels(kernel, name):
    if name in NEWER and name not in kernel:
        (major, minor), end = NEWER[name]
        assert kernel["LINUX_VERSION_CODE"] < (major << 16) + (minor << 8), (
            "headers of %d.%d have it" % (major, minor)
        )
        assert getattr(uapi, name) >= kernel[end]
        pytest.skip(
            "these headers are older than Linux %d.%d, where it came; no other attribute has its "
            "number" % (major, minor)
        )
    number = getattr(uapi, name)
    assert kernel[name] == (uapi.ioctl(number, os.uname().machine) if name in IOCTLS else number)


# NS_GET_NSTYPE and TUNSETIFF as a compiler has them with the headers of each architecture.
@pytest.mark.parametrize(
    "machine, none, write",
    [
        ("x86_64", 0xB703, 0x400454CA),
        ("aarch64", 0xB703, 0x400454CA),
        ("s390x", 0xB703, 0x400454CA),
        ("riscv64", 0xB703, 0x400454CA),
        ("ppc64le", 0x2000B703, 0x800454CA),
        ("ppc", 0x2000B703, 0x800454CA),
        ("mips64", 0x2000B703, 0x800454CA),
        ("sparc64", 0x2000B703, 0x800454CA),
        ("alpha", 0x2000B703, 0x800454CA),
        ("parisc64", 0xB703, 0x800454CA),
    ],
)
def test_an_ioctl_has_the_number_of_its_machine(machine, none, write):
    assert uapi.ioctl(uapi.NS_GET_NSTYPE, machine) == none
    assert uapi.ioctl(uapi.TUNSETIFF, machine) == write
    # TUNGETIFF, from the kernel
    assert uapi.ioctl(0x800454D2, machine) == {0x400454CA: 0x800454D2}.get(write, 0x400454D2)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_is_the_kernels(kernel, name):
    assert TABLES[name] == {each: kernel[each] for each in TABLES[name]}
    assert len(TABLES[name]) == ENTRIES[name]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_the_kernels(kernel, name):
    layout, members = getattr(uapi, name), MEMBERS[name].split()
    size = kernel["size " + name]
    if name == "ifreq":  # 32 bits: shorter
        assert layout.size >= size
    elif name == "rtgenmsg":  # as it stands in a message
        assert layout.size == wire.align(size)
    else:
        assert layout.size == size
    assert len(fields(layout)) == len(members)
    for (format, offset), member in zip(fields(layout), members):
        where = "%s.%s" % (name, member)
        assert offset == kernel["offset " + where], where
        assert struct.calcsize("=" + format) == kernel["size " + where], where
        if (name, member) not in UNSIGNED_HERE:
            assert format.islower() == kernel["signed " + where], where


@pytest.mark.parametrize(
    "module",
    sorted(ELSEWHERE, key=lambda module: module.__name__),
    ids=lambda module: module.__name__,
)
def test_numbers_that_stand_elsewhere_are_the_kernels(kernel, module):
    names = ELSEWHERE[module].split()
    assert {name: getattr(module, name) for name in names} == {name: kernel[name] for name in names}


def test_what_the_code_says_of_numbers_that_are_equal_is_so(kernel):
    assert kernel["TC_H_CLSACT"] == uapi.TC_H_INGRESS
    # not in headers before 5.19
    assert kernel.get("NLM_F_BULK", uapi.NLM_F_EXCL) == uapi.NLM_F_EXCL

# SPDX-License-Identifier: Apache-2.0
"""The kernel's numbers and struct layouts, with the kernel's names, grouped by header file.

Every layout starts with ``=``: native byte order, and no padding except each ``x``. The few values
in network byte order are converted where they are used.
"""

from _struct import Struct  # the C half of struct: that import takes as long as a whole scan

# linux/netlink.h
NETLINK_ROUTE = 0

NLM_F_REQUEST = 0x01
NLM_F_MULTI = 0x02
NLM_F_ACK = 0x04
NLM_F_ECHO = 0x08
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP_FILTERED = 0x20
NLM_F_DUMP = 0x300  # NLM_F_ROOT | NLM_F_MATCH
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_CAPPED = 0x100  # in an NLMSG_ERROR
NLM_F_ACK_TLVS = 0x200  # in an NLMSG_ERROR or NLMSG_DONE

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4

NLMSGERR_ATTR_MSG = 1
NLMSGERR_ATTR_OFFS = 2

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

NETLINK_ADD_MEMBERSHIP = 1
NETLINK_LISTEN_ALL_NSID = 8
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11

nlmsghdr = Struct("=IHHII")  # len, type, flags, seq, pid
nlattr = Struct("=HH")  # len, type

# linux/socket.h of the kernel; the headers for programs (UAPI) do not have it
SOL_NETLINK = 270

# asm-generic/socket.h. Alpha, parisc and sparc have another SO_RCVBUFFORCE, parisc another
# SO_ATTACH_FILTER.
SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33

# linux/rtnetlink.h
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWADDR = 20
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_GETROUTE = 26
RTM_NEWNEIGH = 28
RTM_GETNEIGH = 30
RTM_NEWQDISC = 36
RTM_DELQDISC = 37
RTM_GETQDISC = 38
RTM_NEWTFILTER = 44
RTM_DELTFILTER = 45
RTM_GETTFILTER = 46
RTM_NEWNSID = 88
RTM_DELNSID = 89
RTM_GETNSID = 90
RTM_NEWCHAIN = 100
RTM_GETCHAIN = 102
RTM_NEWNEXTHOP = 104
RTM_GETNEXTHOP = 106

RTMGRP_LINK = 0x1
RTMGRP_NEIGH = 0x4
RTMGRP_TC = 0x8
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV4_ROUTE = 0x40
RTMGRP_IPV6_IFADDR = 0x100
RTMGRP_IPV6_ROUTE = 0x400
RTNLGRP_NSID = 28
RTNLGRP_NEXTHOP = 32  # a number: the bit 31 of the groups in bind(2)

RTN_UNICAST = 1
RT_TABLE_MAIN = 254
RT_TABLE_LOCAL = 255
RTM_F_CLONED = 0x200
RTNH_F_ONLINK = 4
RTA_DST = 1
RTA_SRC = 2
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PRIORITY = 6
RTA_PREFSRC = 7
RTA_METRICS = 8
RTA_MULTIPATH = 9
RTA_TABLE = 15
RTA_VIA = 18
RTA_NH_ID = 30
RTAX_MTU = 2

RTEXT_FILTER_SKIP_STATS = 8

TCA_KIND = 1
TCA_OPTIONS = 2
TCA_CHAIN = 11
TCA_INGRESS_BLOCK = 13
TCA_EGRESS_BLOCK = 14

rtgenmsg = Struct("=Bxxx")  # family, and the padding that NLMSG_ALIGN adds
rtmsg = Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
rtnexthop = Struct("=HBBi")  # len, flags, hops, ifindex
# In a tcmsg with this ifindex the parent is the number of a shared block. 0xFFFFFFFF in C.
TCM_IFINDEX_MAGIC_BLOCK = -1

tcmsg = Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
ifinfomsg = Struct("=BxHiII")  # family, type, index, flags, change

# linux/if_addr.h
IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4
IFA_F_SECONDARY = 0x01

ifaddrmsg = Struct("=BBBBI")  # family, prefixlen, flags, scope, index

# linux/neighbour.h
NDA_DST = 1
NDA_LLADDR = 2
NDA_IFINDEX = 8
NUD_PERMANENT = 0x80

ndmsg = Struct("=BxxxiHBB")  # family, ifindex, state, flags, type

# linux/nexthop.h
NHA_ID = 1
NHA_GROUP = 2
NHA_OIF = 5
NHA_GATEWAY = 6

nhmsg = Struct("=BBBxI")  # family, scope, protocol, flags
nexthop_grp = Struct("=IBBxx")  # id, weight less one: its low byte, its high byte

# linux/if.h
IFNAMSIZ = 16

IFF_UP = 0x1
IFF_RUNNING = 0x40
IFF_LOWER_UP = 0x10000

# In the order in which iproute2 prints them (print_link_flags(), ip/ipaddress.c). It does not
# print RUNNING.
IFF_NAMES = (
    (0x8, "LOOPBACK"),
    (0x2, "BROADCAST"),
    (0x10, "POINTOPOINT"),
    (0x1000, "MULTICAST"),
    (0x80, "NOARP"),
    (0x200, "ALLMULTI"),
    (0x100, "PROMISC"),
    (0x400, "MASTER"),
    (0x800, "SLAVE"),
    (0x4, "DEBUG"),
    (0x8000, "DYNAMIC"),
    (0x4000, "AUTOMEDIA"),
    (0x2000, "PORTSEL"),
    (0x20, "NOTRAILERS"),
    (IFF_UP, "UP"),
    (IFF_RUNNING, "RUNNING"),
    (IFF_LOWER_UP, "LOWER_UP"),
    (0x20000, "DORMANT"),
    (0x40000, "ECHO"),
)

IF_OPER_UP = 6
IF_OPER_NAMES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")

# linux/if_link.h
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFLA_OPERSTATE = 16
IFLA_LINKINFO = 18
IFLA_GROUP = 27
IFLA_EXT_MASK = 29
IFLA_CARRIER = 33
IFLA_LINK_NETNSID = 37
IFLA_TARGET_NETNSID = 46
IFLA_CARRIER_UP_COUNT = 47
IFLA_CARRIER_DOWN_COUNT = 48
IFLA_MAX_MTU = 51
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_TUN_TYPE = 3
IFLA_TUN_NUM_QUEUES = 8
IFLA_TUN_NUM_DISABLED_QUEUES = 9

# linux/veth.h
VETH_INFO_PEER = 1

# linux/if_ether.h
ETH_P_ALL = 0x0003

# linux/pkt_sched.h
TC_H_ROOT = 0xFFFFFFFF
TC_H_INGRESS = 0xFFFFFFF1  # TC_H_CLSACT is the same number
TC_H_INGRESS_HANDLE = 0xFFFF0000  # of every ingress and clsact qdisc: "ffff:"
TC_H_MIN_INGRESS = 0xFFF2
TC_H_MIN_EGRESS = 0xFFF3

# linux/pkt_cls.h
TC_ACT_STOLEN = 4

TCA_ACT_KIND = 1
TCA_ACT_OPTIONS = 2

TCA_U32_DIVISOR = 4
TCA_U32_SEL = 5
TCA_U32_ACT = 7
TCA_U32_INDEV = 8
TCA_U32_MARK = 10
TCA_FLOWER_CLASSID = 1
TCA_FLOWER_ACT = 3
TCA_FLOWER_FLAGS = 22
TCA_FLOWER_IN_HW_COUNT = 86
TCA_BPF_ACT = 1
TCA_MATCHALL_ACT = 2

TC_U32_TERMINAL = 1
TC_U32_ROOT = 0xFFF00000  # as a handle: the root table of a priority

tc_u32_sel = Struct("=BBBxHHhhI")  # flags, offshift, nkeys, offmask, off, offoff, hoff, hmask
tc_u32_key = Struct("=IIii")  # mask, val, off, offmask

# linux/tc_act/tc_mirred.h
TCA_MIRRED_PARMS = 2
TCA_MIRRED_BLOCKID = 4
TCA_EGRESS_REDIR = 1
TCA_INGRESS_REDIR = 3

tc_mirred = Struct("=IIiiiiI")  # index, capab, action, refcnt, bindcnt, eaction, ifindex

# linux/net_namespace.h
NETNSA_NSID_NOT_ASSIGNED = -1
NETNSA_NSID = 1
NETNSA_FD = 3

# linux/bpf_common.h, linux/filter.h: the instructions of a socket filter
BPF_LD = 0x00
BPF_LDX = 0x01
BPF_ALU = 0x04
BPF_JMP = 0x05
BPF_RET = 0x06
BPF_MISC = 0x07
BPF_W = 0x00
BPF_H = 0x08
BPF_B = 0x10
BPF_IMM = 0x00
BPF_ABS = 0x20
BPF_IND = 0x40
BPF_AND = 0x50
BPF_JA = 0x00
BPF_JEQ = 0x10
BPF_K = 0x00
BPF_TAX = 0x00
BPF_MAXINSNS = 4096
SKF_AD_OFF = -0x1000
SKF_AD_NLATTR = 12
SKF_AD_NLATTR_NEST = 16

sock_filter = Struct("=HBBI")  # code, jt, jf, k

# linux/nsfs.h
NS_GET_NSTYPE = 0xB703

# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
CLONE_NAMES = {
    0x80: "time",
    CLONE_NEWNS: "mount",
    0x2000000: "cgroup",
    0x4000000: "uts",
    0x8000000: "ipc",
    CLONE_NEWUSER: "user",
    0x20000000: "pid",
    CLONE_NEWNET: "network",
}

# linux/stat.h; with the C library, sys/stat.h defines them instead
S_IFMT = 0o170000
S_IFREG = 0o100000

# linux/if_tun.h
TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC
TUNSETGROUP = 0x400454CE

IFF_TUN = 0x0001
IFF_TAP = 0x0002
IFF_MULTI_QUEUE = 0x0100
IFF_NO_PI = 0x1000
IFF_ONE_QUEUE = 0x2000
IFF_VNET_HDR = 0x4000
IFF_TUN_EXCL = 0x8000

ifreq = Struct("=16sH22x")  # name, flags: the members that TUNSETIFF reads


# asm/ioctl.h
def ioctl(number: int, machine: str) -> int:
    """Convert the number of an ioctl to that on a machine; ``machine`` is its name in uname(2).

    The numbers above are those of most machines. Their two highest bits are the direction of the
    data: 0 none, 1 to the kernel, 2 from the kernel. Some machines have three bits for the
    direction; parisc swaps 1 and 2.
    """
    direction, rest = number >> 30, number & 0x3FFFFFFF
    if machine.startswith(("alpha", "mips", "ppc", "sparc")):
        return (1, 4, 2)[direction] << 29 | rest
    if machine.startswith("parisc"):
        return (0, 2, 1)[direction] << 30 | rest
    return number

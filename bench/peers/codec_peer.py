# SPDX-License-Identifier: Apache-2.0
"""The codecs alone: build the request for a pair of veth, parse the kernel's message of a TAP.

    codec_peer.py DIRECTORY MESSAGE CODEC TASK ...

DIRECTORY is where to import the codec from, MESSAGE a file with one message of the kernel's, CODEC
nlraw or pyroute2, TASK one of

    build, parse    as a pyperf runner, which takes the rest of the arguments
    show            print what either gives, for comparison
    NUMBER          do both so often
"""

import sys

place, path, codec, task = sys.argv[1:5]
sys.path.insert(0, place)

with open(path, "rb") as file:
    MESSAGE = file.read()


def nlraw_codec():
    from nlraw import link, wire

    def build():
        return link.create_veth("eth0", "peer0").numbered(1)

    def parse():
        (message,) = wire.messages(MESSAGE)
        found = link.Link(message)
        return (
            message[0],
            found.ifindex,
            found.flags,
            found.ifname,
            found.address,
            found.mtu,
            found.operstate,
            int(found.carrier),
            found.kind,
            found.tun().type,
        )

    return {"build": build, "parse": parse}


def pyroute2_codec():
    from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST
    from pyroute2.netlink.rtnl import RTM_NEWLINK
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.marshal import MarshalRtnl

    states = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")
    marshal = MarshalRtnl()

    def build():
        message = ifinfmsg()
        peer = {"attrs": [("IFLA_IFNAME", "peer0")]}
        info = [
            ("IFLA_INFO_KIND", "veth"),
            ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]}),
        ]
        message["attrs"] = [("IFLA_IFNAME", "eth0"), ("IFLA_LINKINFO", {"attrs": info})]
        message["header"]["type"] = RTM_NEWLINK
        message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
        message["header"]["sequence_number"] = 1
        message.encode()
        return bytes(message.data)

    def parse():
        (message,) = marshal.parse(MESSAGE)
        return (
            message["header"]["type"],
            message["index"],
            message["flags"],
            message.get("ifname"),
            message.get("address"),
            message.get("mtu"),
            states.index(message.get("operstate")),
            message.get("carrier"),
            message.get(("linkinfo", "kind")),
            message.get(("linkinfo", "data", "tun_type")),
        )

    return {"build": build, "parse": parse}


CODECS = {"nlraw": nlraw_codec, "pyroute2": pyroute2_codec}

tasks = CODECS[codec]()
if task == "show":
    print(tasks["build"]()[16:].hex(), *tasks["parse"]())
elif task.isdecimal():
    for _ in range(int(task)):
        tasks["build"]()
        tasks["parse"]()
else:
    import pyperf

    own = sys.argv[1:5]
    del sys.argv[1:5]
    pyperf.Runner(program_args=[__file__] + own).bench_func("%s, %s" % (codec, task), tasks[task])

# SPDX-License-Identifier: Apache-2.0
"""Shapes of pods, and what iproute2 says that a guest needs of an uplink.

`SHAPES` are those that runtimes and CNI plugins make, `random_shape` makes others. `expected` is
read with `ip -j -d`, `replay` gives a second pod's uplink what the facts of the first one say.
"""

import ipaddress
import json
import time

from lib import command
from nlraw.connection import Connection
from nlraw.errors import Error
from nlraw.netns import Namespace
from nlraw.observe import list_links
from nlraw.uplinks import observe_uplinks

# Each line is for `ip`, in a namespace that has lo, eth0 and net1, all up, and no address.
# "sysctl" lines are for /proc/sys.
SHAPES = {
    "bridge CNI": """
        address add 10.9.8.2/24 broadcast + dev eth0
        route add default via 10.9.8.1
        """,
    "Calico": """
        address add 10.0.1.7/32 dev eth0
        address add fd00::7/128 dev eth0
        route add 169.254.1.1 dev eth0
        route add default via 169.254.1.1 dev eth0 mtu 1450
        route add default via fe80::1 dev eth0
        neighbour add 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent
        neighbour add fe80::1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent
        """,
    "Cilium": """
        address add 10.0.1.7/32 dev eth0
        route add 10.0.1.1 dev eth0 scope link
        route add default via 10.0.1.1 dev eth0 mtu 1450
        address add fd00::7/128 dev eth0
        route add fd00::1 dev eth0
        route add default via fd00::1 dev eth0 mtu 1450
        """,
    "dual stack": """
        address add 10.9.8.2/24 dev eth0
        address add fd00::2/64 dev eth0
        address add 2001:db8::2/64 dev eth0 valid_lft 3600 preferred_lft 1800
        route add default via 10.9.8.1
        route add default via fd00::1 dev eth0 metric 50
        route add fd05::/64 via fd00::9 src fd00::2 mtu 1400
        route add fd09::1 dev eth0 expires 300
        """,
    "IPv6 alone": """
        address add fd00::2/64 dev eth0
        route add default via fe80::1 dev eth0 proto ra metric 1024 expires 1800
        """,
    "no address": "",
    "two NICs": """
        address add 10.9.8.2/24 dev eth0
        address add 10.9.7.2/24 dev net1
        address add fd07::2/64 dev net1
        route add default via 10.9.8.1
        route add 10.5.0.0/16 via 10.9.7.1 src 10.9.7.2
        route add default via 10.9.7.1 dev net1 metric 100
        route add fd05::/64 via fd07::1
        neighbour add 10.9.7.1 lladdr 02:00:00:00:00:07 dev net1 nud permanent
        """,
    "next hops": """
        address add 10.9.8.2/24 dev eth0
        address add 10.9.7.2/24 dev net1
        address add fd00::2/64 dev eth0
        route add default nexthop via 10.9.8.1 weight 3 nexthop via 10.9.7.1 dev net1
        route add 10.5.0.0/16 via inet6 fe80::1 dev eth0
        route add 10.6.0.0/16 via 172.16.0.1 dev eth0 onlink
        route add 10.7.0.0/16 nexthop via inet6 fe80::5 dev eth0 onlink nexthop via 10.9.8.9
        route add default nexthop via fd00::1 weight 2 nexthop via fd00::9
        route add fd06::/64 via fe80::9 dev eth0
        route append fd06::/64 via fe80::8 dev eth0
        """,
    "next hop objects": """
        address add 10.9.8.2/24 dev eth0
        address add 10.9.7.2/24 dev net1
        address add fd00::2/64 dev eth0
        nexthop add id 1 via 10.9.8.1 dev eth0
        nexthop add id 2 via fe80::33 dev eth0 onlink
        nexthop add id 3 via 10.9.7.1 dev net1
        nexthop add id 4 blackhole
        nexthop add id 10 group 1,3/3,20
        nexthop add id 20 via fd00::44 dev eth0
        nexthop add id 21 via fd00::45 dev eth0
        nexthop add id 22 group 20/21
        route add default nhid 10
        route add 10.5.0.0/16 nhid 2
        route add 10.6.0.0/16 nhid 4
        route add 10.7.0.0/16 nhid 1
        route add fd05::/64 nhid 20
        route add fd06::/64 nhid 22
        """,
    "odd ones": """
        address add 10.9.8.2/24 dev eth0
        address add 10.9.8.3/24 dev eth0
        address add 10.9.9.2 peer 10.9.9.1/32 dev eth0
        address add 169.254.7.7/16 scope link dev eth0
        address add fd00::1:2 peer fd00::1:1/128 dev eth0
        route add default via 10.9.8.1 metric 4294967295 mtu lock 1400
        route add default via 10.9.8.9 metric 7 table 1000
        route add 0.0.0.0/1 dev eth0 src 10.9.8.3
        route add 10.5.0.0/16 dev eth0 scope host proto 77
        route add 10.6.0.0/16 via 10.9.8.1 tos 0x10
        route add blackhole 10.7.0.0/16
        route add unreachable default metric 4278198272
        route add prohibit 10.8.0.0/16
        route add throw 10.10.0.0/16
        route add local 10.11.0.0/16 dev eth0 table main
        route add unreachable fd05::/64
        route add multicast ff0e::/16 dev eth0 table main
        route add fe80::77 dev eth0
        route add ::/1 dev eth0
        neighbour add 10.9.8.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent
        neighbour add 10.9.8.9 lladdr 02:00:00:00:00:09 dev eth0 nud reachable
        neighbour add 10.9.8.8 lladdr 02:00:00:00:00:08 dev eth0 nud noarp
        neighbour add fd00::1 lladdr 02:00:00:00:00:02 dev eth0 nud permanent
        neighbour add proxy fd00::99 dev eth0
        """,
}
SHAPES["next hop objects, only their IDs"] = (
    "sysctl net/ipv4/nexthop_compat_mode 0\n" + SHAPES["next hop objects"]
)


def furnish(pod, shape, force=False):
    """Give a `pods.Pod` with neither uplink nor address a shape.

    With ``force`` a line that the kernel refuses is skipped.
    """
    pod.batch(
        "link set lo up",
        "link add eth0 type veth peer name peer0",
        "link add net1 type veth peer name peer1",
        *["link set %s up" % name for name in ("eth0", "net1", "peer0", "peer1")],
    )
    lines = [line.strip() for line in shape.splitlines() if line.strip()]
    for line in lines:
        if line.startswith("sysctl"):
            pod.sysctl(*line.split()[1:])
    done = [_usable_at_once(line) for line in lines if not line.startswith("sysctl")]
    if force:
        apply(pod, done)
    else:
        pod.batch(*done)
        _settle(pod, lines)


def apply(pod, lines):
    """Give lines to `ip`; return those that it refused, with its reasons."""
    refused = []
    for line in lines:
        done = command.attempt("ip", "-n", pod.name, *line.split())
        if done.status:
            refused.append("%s: %s" % (line, done.err.strip()))
    return refused


def _settle(pod, lines):
    """Wait for the two routes of an IPv6 address with a far end: a worker makes one of them."""
    words = [line.split() for line in lines]
    wanted = {
        address for row in words if ":" in row[2] and row[3] == "peer" for address in row[2:5]
    }
    wanted = {address.split("/")[0] for address in wanted - {"peer"}}
    end = time.monotonic() + 5
    while wanted - {route["dst"] for route in _listed(pod, "-6", "route")}:
        assert time.monotonic() < end, wanted
        time.sleep(0.02)


def _usable_at_once(line):
    """The same words; an IPv6 address is not checked for duplicates first."""
    return line + " nodad" if line.startswith("address") and ":" in line else line


# ---------------------------------------------------------------- what ip says


def _listed(pod, *words):
    return json.loads(pod.ip("-j", "-d", *words) or "[]")


def expected(pod, dev):
    """``addresses``, ``routes`` and ``neighbours`` of a device as `ip` lists them."""
    (link,) = [each for each in _listed(pod, "address") if each.get("ifname") == dev]
    return {
        "addresses": [
            {key: each.get(key) for key in _ADDRESS_KEYS}
            for each in link["addr_info"]
            if not (each["family"] == "inet6" and each["scope"] == "link")
        ],
        "routes": _routes(pod, dev, "inet") + _routes(pod, dev, "inet6"),
        "neighbours": [
            {"dst": each["dst"], "lladdr": each.get("lladdr")}
            for each in _listed(pod, "neighbour", "show", "dev", dev)
            if "PERMANENT" in each["state"]
        ],
    }


_ADDRESS_KEYS = ("family", "local", "prefixlen", "address", "broadcast", "scope")


def _routes(pod, dev, family):
    objects = {each["id"]: each for each in _listed(pod, "nexthop")}
    found = []
    for route in _listed(pod, "-f", family, "route", "show", "table", "main"):
        hops = route.get("nexthops") or [route]
        if "dev" not in hops[0] and "nhid" in route:
            known = objects[route["nhid"]]
            group = known.get("group", [{"id": route["nhid"]}])
            hops = [dict(objects[each["id"]], **each) for each in group]
        if _is_link_local(route["dst"]) or all(hop.get("dev") != dev for hop in hops):
            continue
        only = hops[0] if len(hops) == 1 else {}
        found.append(
            {
                "family": family,
                "type": route["type"],
                "dst": route["dst"],
                "gateway": _gateway(only),
                "protocol": route["protocol"],
                "scope": route["scope"],
                "src": route.get("prefsrc"),
                "metric": route.get("metric"),
                "mtu": dict(*route.get("metrics", [{}])).get("mtu"),
                "onlink": "onlink" in only.get("flags", []),
                "tos": route.get("tos"),
                "from": route.get("from"),
                "nexthops": []
                if only
                else [
                    {
                        "gateway": _gateway(hop),
                        "dev": hop["dev"],
                        "weight": hop.get("weight", 1),
                        "onlink": "onlink" in hop["flags"],
                    }
                    for hop in hops
                ],
            }
        )
    return found


def _gateway(hop):
    return hop["via"]["host"] if "via" in hop else hop.get("gateway")


def _is_link_local(prefix):
    if prefix == "default" or ":" not in prefix:
        return False
    network = ipaddress.ip_network(prefix)
    return network.prefixlen >= 10 and network.is_link_local


# ---------------------------------------------------------------- what nlraw says


def observed(pod, *devs):
    """The `Uplink` records of some devices."""
    with Namespace(pod.path) as namespace, Connection(namespace) as connection:
        links = {link.ifname: link for link in list_links(connection)}
        names = {link.ifindex: link.ifname for link in links.values()}
        return observe_uplinks(connection, [links[dev] for dev in devs], names)


def plain(uplink):
    """The three lists of an `Uplink` record as JSON has them."""
    return {
        "addresses": [each.document() for each in uplink.addresses],
        "routes": [
            dict(route.document(), nexthops=[hop.document() for hop in route.nexthops])
            for route in uplink.routes
        ],
        "neighbours": [each.document() for each in uplink.neighbours],
    }


def check(uplink, listed):
    """Compare a record with what `expected` returned, value by value."""
    found = plain(uplink)
    assert found["addresses"] == listed["addresses"]
    assert found["routes"] == listed["routes"]
    # the kernel lists them by a hash
    assert _sorted(found["neighbours"]) == _sorted(listed["neighbours"])
    first = next((each for each in listed["addresses"] if each["family"] == "inet"), None)
    assert (uplink.local, uplink.prefixlen) == (
        (None, None) if first is None else (first["local"], first["prefixlen"])
    )


def _sorted(neighbours):
    return sorted(neighbours, key=lambda each: each["dst"])


def replay(uplinks, pod):
    """Give a second pod's devices of the same names what the facts say, and nothing else.

    Return the lines that `ip` refused, with its reasons.
    """
    lines, routes = [], {}
    for uplink in uplinks:
        dev = "dev " + uplink.ifname
        lines += ["address add %s %s" % (each.words(), dev) for each in uplink.addresses]
        lines += [
            "neighbour add %s %s nud permanent" % (each.words(), dev) for each in uplink.neighbours
        ]
        for route in uplink.routes:
            if route.protocol != "kernel":  # the routes of addresses come with them
                # one of several next hops belongs to each of their uplinks
                routes.setdefault(route, "" if route.nexthops else dev)
    # a gateway needs a route to it
    for route in sorted(routes, key=lambda each: bool(each.gateway or each.nexthops)):
        family = "-4" if route.family == "inet" else "-6"
        words = " ".join([family, "route append table main", routes[route], route.words()])
        lines.append(words)
    refused = apply(pod, map(_usable_at_once, lines))
    _settle(pod, lines)
    return refused


# ---------------------------------------------------------------- long lists


def add_many(pod, count):
    """Give eth0 so many addresses, routes of each family, and permanent neighbours."""
    numbers = [(number >> 8, number & 255) for number in range(count)]
    pod.batch(
        "address add 10.9.8.2/16 dev eth0",
        "address add fd00::2/64 dev eth0 nodad",
        *["address add 10.20.%d.%d/32 dev eth0" % each for each in numbers],
        *["route add 10.30.%d.%d via 10.9.8.1" % each for each in numbers],
        *["route add fd03::%x via fd00::1 dev eth0" % (number + 1) for number in range(count)],
        *[
            "neighbour add 10.40.%d.%d lladdr 02:00:00:00:%02x:%02x dev eth0 nud permanent"
            % (each + each)
            for each in numbers
        ],
    )


# The first 39 of each go and come again, three times a second.
CHURN = """
import subprocess, time
batch = subprocess.Popen(["ip", "-force", "-batch", "-"], stdin=subprocess.PIPE,
                         stderr=subprocess.DEVNULL)
lines = b"".join([line % number + b"\\n" for number in range(1, 40) for line in (
    b"route del 10.30.0.%d", b"route add 10.30.0.%d via 10.9.8.1",
    b"route del fd03::%x", b"route add fd03::%x via fd00::1 dev eth0",
    b"neighbour del 10.40.0.%d dev eth0",
    b"neighbour add 10.40.0.%d lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
    b"address del 10.20.0.%d/32 dev eth0", b"address add 10.20.0.%d/32 dev eth0")])
print("ready", flush=True)
while True:
    batch.stdin.write(lines)
    batch.stdin.flush()
    time.sleep(0.3)
"""


def read_while_it_changes(pod, count, readings):
    """Read long lists of a pod some times while it changes; return how many readings there were.

    A reading is an error, or it lacks nothing of what stays.
    """
    add_many(pod, count)
    pod.child(CHURN)
    numbers = [(number >> 8, number & 255) for number in range(40, count)]
    near = {"10.40.%d.%d" % each for each in numbers}
    own = {"10.20.%d.%d" % each for each in numbers}
    leading = {"10.30.%d.%d" % each for each in numbers}
    leading |= {"fd03::%x" % number for number in range(41, count)}
    read = 0
    for _ in range(readings):
        try:
            (uplink,) = observed(pod, "eth0")
        except Error as error:
            assert "changed each time" in str(error)
        else:
            read += 1
            missing = [
                leading - {route.dst for route in uplink.routes},
                near - {each.dst for each in uplink.neighbours},
                own - {each.local for each in uplink.addresses},
            ]
            assert missing == [set(), set(), set()]
    return read


# ---------------------------------------------------------------- random pods


def random_shape(chance):
    """Lines for `ip`, as in `SHAPES`; the kernel refuses some. ``chance`` is a random.Random."""
    lines = []
    if chance.randrange(3) == 0:
        lines.append("sysctl net/ipv4/nexthop_compat_mode 0")
    for dev, net in (("eth0", 8), ("net1", 7)):
        if chance.randrange(4):
            lines.append("address add 10.9.%d.1/24 dev %s" % (net, dev))
            lines.append("address add fd0%d::1/64 dev %s" % (net, dev))
        for _ in range(chance.randrange(5)):
            lines.append("address add %s dev %s" % (_random_address(chance, net), dev))
    if lines and chance.randrange(3) == 0:
        dropped = chance.choice(lines).split()
        if dropped[0] == "address":  # the kernel may make a secondary one primary then
            lines.append("address del %s dev %s" % (dropped[2], dropped[-1]))
    lines += _random_objects(chance)
    for _ in range(chance.randrange(20)):
        lines.append(_random_route(chance))
    for _ in range(chance.randrange(6)):
        gateway = _random_gateway(chance, chance.choice((4, 6)))
        state = chance.choice(("permanent", "permanent", "reachable", "noarp", "stale"))
        words = (gateway, chance.randrange(256), chance.choice(("eth0", "net1")), state)
        lines.append("neighbour add %s lladdr 02:00:00:00:00:%02x dev %s nud %s" % words)
    if chance.randrange(8) == 0:
        lines.append("link set net1 down")
    return "\n".join(lines)


def _random_address(chance, net):
    """An address in 10.9.NET/24 or fd00:NET::/64, mostly, and its options."""
    host = chance.randrange(1, 9)
    if chance.randrange(3) == 0:
        length = chance.choice((64, 64, 128, 48))
        far = chance.choice(("", "", "", " peer fd0%d:1::%x" % (net, host)))
        return "fd0%d::%x%s/%d" % (net, host, far, 128 if far else length)
    length = chance.choice((24, 24, 24, 25, 16, 32, 8, 0 if chance.randrange(9) == 0 else 31))
    if chance.randrange(6) == 0:
        return "10.9.%d.%d peer 10.8.%d.%d/32" % (net, host, net, host)
    options = chance.choice(("", "", " broadcast +", " scope link", " scope host", " scope 77"))
    return "10.9.%d.%d/%d%s" % (net, host, length, options if length else "")


def _random_gateway(chance, version):
    net, host = chance.choice((7, 8)), chance.randrange(9, 15)
    if version == 4:
        return chance.choice(("10.9.%d.%d" % (net, host), "10.9.%d.%d" % (net, host), "172.16.0.1"))
    return chance.choice(("fd0%d::%x" % (net, host), "fe80::%x" % host))


def _random_hop(chance, version):
    """The words of a next hop: a gateway, of either family, or none; a device, or none."""
    other = 6 if version == 4 and chance.randrange(4) == 0 else version
    gateway = _random_gateway(chance, other)
    words = ["via"] + ["inet6"] * (other != version) + [gateway]
    if chance.randrange(4) == 0:
        words = []
    if not words or other == 6 or chance.randrange(2):
        words += ["dev", chance.choice(("eth0", "eth0", "net1"))]
        words += ["onlink"] * (len(words) > 2 and chance.randrange(3) == 0)
    return words


OBJECTS = range(1, 6)  # next hops of IPv4, but for the last two
GROUPS = range(10, 12)


def _random_objects(chance):
    """Lines for next hop objects and groups, at times."""
    if chance.randrange(3):
        return []
    lines = []
    for number in OBJECTS:
        version = 6 if number > 3 else 4
        words = " ".join(_random_hop(chance, version))
        if "inet6" in words:
            words = words.replace("inet6 ", "")
        lines.append("nexthop add id %d %s" % (number, words))
    lines.append("nexthop add id 6 blackhole")
    for number, members in zip(GROUPS, (OBJECTS[:3], OBJECTS[3:])):
        rows = ["%d,%d" % (each, chance.randrange(1, 200)) for each in members]
        lines.append("nexthop add id %d group %s" % (number, "/".join(rows)))
    return lines


def _random_route(chance):
    version = chance.choice((4, 4, 6))
    if version == 4:
        prefixes = (
            "default",
            "10.%d.0.0/16",
            "10.9.8.%d",
            "0.0.0.0/1",
            "169.254.1.%d",
            "10.9.0.0/%d",
        )
    else:
        prefixes = (
            "default",
            "fd1%d::/64",
            "fd08::%x",
            "::/1",
            "fe80::%x",
            "ff0%x::/16",
            "fec0::/%d",
        )
    prefix = chance.choice(prefixes)
    dst = prefix % chance.randrange(10, 16) if "%" in prefix else prefix
    words = ["-4" if version == 4 else "-6", "route", chance.choice(("add", "add", "append"))]
    kind = chance.choice([""] * 12 + ["blackhole", "unreachable", "prohibit", "throw", "local"])
    if (kind, version) == ("local", 6):
        kind = ""  # `ip` takes such a route for one of the table local, and leaves it out
    words += [kind, dst]
    if version == 6 and chance.randrange(12) == 0:
        words += ["from", "fd08::/64"]
    if version == 4 and chance.randrange(10) == 0:
        words += ["tos", "0x10"]
    if chance.randrange(3) == 0:
        words += ["metric", str(chance.choice((0, 1, 50, 1024, 4294967295)))]
    if chance.randrange(4) == 0:
        words += ["mtu", str(chance.randrange(1280, 9000))]
    if chance.randrange(6) == 0:
        words += ["proto", chance.choice(("static", "ra", "dhcp", "bird", "77"))]
    if chance.randrange(6) == 0:
        words += ["src", "10.9.8.1" if version == 4 else "fd08::1"]
    if version == 4 and chance.randrange(8) == 0:
        words += ["scope", chance.choice(("link", "host", "global", "77"))]
    if chance.randrange(8) == 0:
        words += ["table", chance.choice(("main", "100", "1000"))]
    if version == 6 and chance.randrange(8) == 0:
        words += ["expires", "600"]
    if kind in ("", "local"):
        if chance.randrange(5) == 0:
            words += ["nhid", str(chance.choice([*OBJECTS, 6, *GROUPS]))]
        elif chance.randrange(4) == 0 and not kind:
            for _ in range(chance.randrange(2, 4)):
                hop = _random_hop(chance, version)
                at = hop.index("onlink") if "onlink" in hop else len(hop)
                hop[at:at] = ["weight", str(chance.randrange(1, 257))]
                words += ["nexthop"] + hop
        else:
            words += _random_hop(chance, version)
    return " ".join(word for word in words if word)

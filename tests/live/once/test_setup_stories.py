# SPDX-License-Identifier: Apache-2.0
"""Restarts of VMs that know nothing of their pod but what `nlraw setup` prints.

The JSON is turned into `ip` commands for the guest, QEMU's arguments are those of `--print qemu`.
Each pod has a node with a router's address that only the pod's routes lead back to. The guest
answers on each of the pod's addresses with a TTL, or hop limit, of its own, before its crash and
after it, and lists the addresses, routes and neighbours that the pod's NICs have.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time

import pytest

import nlraw
from lib import command, guest, pods

BOOT = 60  # seconds

# The router's addresses, beyond every network of a pod.
FAR, FAR6 = "10.66.0.1", "fd00:66::1"

LISTS = {
    "address": "-j address",
    "route": "-j route",
    "route6": "-j -6 route",
    "neighbour": "-j neighbour show nud permanent",
}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    reason = pods.missing() or guest.missing()
    if reason is not None:
        pytest.skip("needs a guest: " + reason)
    return guest.build(tmp_path_factory.mktemp("image"))


@pytest.fixture
def node(make_pod):
    node = make_pod(uplink=None, ipv6=True)
    node.batch("link set lo up", "address add %s/32 dev lo" % FAR, "address add %s dev lo" % FAR6)
    return node


# ---------------------------------------------------------------- from the JSON to a guest


def network(pairs):
    """The commands that configure a guest with what the JSON says of each pair."""
    names = {pair["uplink"]["ifname"]: "eth%d" % number for number, pair in enumerate(pairs)}
    lines, routes = ["ip link set lo up"], []
    for pair in pairs:
        uplink = pair["uplink"]
        dev = names[uplink["ifname"]]
        for address in uplink["addresses"]:
            lines.append("ip address add %s dev %s" % (address_words(address), dev))
        lines.append("ip link set %s up" % dev)
        for neighbour in uplink["neighbours"]:
            words = "ip neighbour add %(dst)s lladdr %(lladdr)s" % neighbour
            lines.append("%s dev %s nud permanent" % (words, dev))
        for route in uplink["routes"]:
            if route["protocol"] != "kernel":  # else it comes with its address
                line = "ip -f %s route add %s" % (route["family"], route_words(route, dev, names))
                routes.append((route["gateway"] is not None, line))
    return lines + [line for _, line in sorted(routes)]  # gateways need the routes to them


def address_words(address):
    words = "%(local)s/%(prefixlen)d" % address
    if address["address"] is not None:
        words = "%(local)s peer %(address)s/%(prefixlen)d" % address
    if address["broadcast"] is not None:
        words += " broadcast %(broadcast)s" % address
    return words + " scope %(scope)s" % address


def route_words(route, dev, names):
    words = [route["type"], route["dst"]]
    if route["family"] == "inet":
        words += ["scope", route["scope"]]
    for name in ("metric", "mtu", "src"):
        if route[name] is not None:
            words += [name, str(route[name])]
    for hop in route["nexthops"]:
        words += ["nexthop"] + hop_words(route, hop, names[hop["dev"]])
        words += ["weight", str(hop["weight"])]
    if not route["nexthops"]:
        words += hop_words(route, route, dev)
    return " ".join(words)


def hop_words(route, hop, dev):
    gateway = hop["gateway"]
    words = ["dev", dev]
    if gateway is not None:
        is_other = (":" in gateway) != (route["family"] == "inet6")
        words = ["via"] + ["inet6"] * is_other + [gateway] + words
    return words + ["onlink"] * hop["onlink"]


# ---------------------------------------------------------------- what the kernels list


def lists_of(ip):
    """What `ip` lists, which takes its arguments and returns what it prints."""
    return {name: json.loads(ip(*arguments.split()) or "[]") for name, arguments in LISTS.items()}


def listed_by(console):
    """What the guest has listed on its console."""
    lines = dict(line.split(" ", 1) for line in console.splitlines() if line.startswith("list:"))
    return {name: json.loads(lines["list:" + name] or "[]") for name in LISTS}


def comparable(lists, names):
    """The lists in an order of their own, less what a kernel adds itself, and not at once.

    ``names`` are the devices that count, and what to call them.
    """
    found = []
    for link in lists["address"]:
        for each in link["addr_info"] if link["ifname"] in names else ():
            if not each["local"].startswith("fe80:"):
                kept = ("local", "prefixlen", "address", "broadcast", "scope")
                facts = {name: each[name] for name in kept if name in each}
                found.append(dict(facts, dev=names[link["ifname"]]))
    for each in lists["route"] + lists["route6"] + lists["neighbour"]:
        if each.get("dev") in names and each["dst"] != "fe80::/64":
            kept = {name: each[name] for name in set(each) - {"protocol", "pref", "flags"}}
            onlink = "onlink" in each.get("flags", ())
            found.append(dict(kept, dev=names[each["dev"]], onlink=onlink))
    return sorted(json.dumps(each, sort_keys=True) for each in found)


class Story:
    """A pod whose VM is killed, and replaced by another."""

    def __init__(self, node, pod, uplinks, addresses, image, directory, options=()):
        self.node, self.pod, self.uplinks, self.addresses = node, pod, uplinks, addresses
        self.image, self.directory = image, directory
        self.arguments = ["-n", pod.path, "-j", "--print", "qemu"] + list(options)
        for uplink in uplinks:
            self.arguments += ["-u", uplink]

    def setup(self):
        """Run `nlraw setup`; return the JSON, and QEMU's arguments as a shell splits them."""
        done = command.nlraw("setup", *self.arguments)
        assert (done.status, done.err) == (0, "")
        document, arguments = done.out.splitlines()
        return json.loads(document), arguments.split()

    def boot(self, document, cards, ttl):
        lines = network(document["pairs"])
        lines += ['echo "list:%s $(ip %s)"' % listed for listed in LISTS.items()]
        lines += ["ip link"]
        log = self.directory / ("console%d" % ttl)
        return guest.Guest(enter(self.pod), self.image, log, cards, lines, ttl)

    def play(self):
        with contextlib.ExitStack() as stack:
            pingers = [
                stack.enter_context(
                    guest.Pinger(enter(self.node), address, self.directory / ("pings%d" % number))
                )
                for number, address in enumerate(self.addresses)
            ]
            before = self.live(pingers, 71)
            killed = time.monotonic()
            after = self.live(pingers, 72)
            last = max(pinger.wait_for(72, 1).received for pinger in pingers)
        assert after["uplink"] == before["uplink"]
        print(
            "%s: all of %s answer, and %.1f s after the kill again"
            % (self.pod.name, ", ".join(self.addresses), last - killed)
        )
        return after

    def live(self, pingers, ttl):
        """Set up, boot, wait for the guest at each address, look at it, kill it."""
        document, cards = self.setup()
        assert len(document["pairs"]) == len(self.uplinks)
        with self.boot(document, cards, ttl) as vm:
            console = vm.wait_until_up(BOOT)
            try:
                for pinger in pingers:
                    pinger.wait_for(ttl, BOOT)
            except TimeoutError as error:
                raise AssertionError("%s\n%s" % (error, vm.console())) from None
            there = lists_of(self.pod.ip)
        names = {name: name for name in self.uplinks}
        of_guest = {"eth%d" % number: name for number, name in enumerate(self.uplinks)}
        assert comparable(listed_by(console), of_guest) == comparable(there, names)
        for number, pair in enumerate(document["pairs"]):
            assert "eth%d: <" % number in console
            shown = console.split(" eth%d: <" % number)[1].split("\n")[0]
            assert " mtu %d " % pair["uplink"]["mtu"] in shown
        return document


def enter(pod):
    return ["ip", "netns", "exec", pod.name]


# ---------------------------------------------------------------- the stories


def test_a_pod_of_the_bridge_plugin(make_pod, node, image, tmp_path):
    pod = make_pod(uplink=None)
    node.batch(
        "link add cni0 mtu 1450 type bridge",
        "link add host0 mtu 1450 type veth peer name eth0 mtu 1450 netns " + pod.name,
        "link set host0 master cni0",
        "link set host0 up",
        "link set cni0 up",
        "address add 10.9.8.1/24 dev cni0",
        # what the node sends to the pod comes from beyond the pod's network
        "route change 10.9.8.0/24 dev cni0 src " + FAR,
    )
    pod.batch(
        "link set lo up",
        "link set eth0 up",
        "address add 10.9.8.2/24 broadcast 10.9.8.255 dev eth0",
        "route add default via 10.9.8.1 dev eth0",
    )
    Story(node, pod, ["eth0"], ["10.9.8.2"], image, tmp_path).play()


def test_a_pod_of_calico(make_pod, node, image, tmp_path):
    """An address without a network, a gateway on the link that no ARP finds, and IPv6."""
    pod = make_pod(uplink=None, ipv6=True)
    router, router6 = "ee:ee:ee:ee:ee:ee", "fe80::ecee:eeff:feee:eeee"
    node.batch(
        "link add cali0 address %s type veth peer name eth0 netns %s" % (router, pod.name),
        "link set cali0 up",
        "route add 10.65.0.2 dev cali0 scope link src " + FAR,
    )
    pod.batch(
        "link set lo up",
        "link set eth0 up",
        "address add 10.65.0.2/32 dev eth0",
        "route add 169.254.1.1 dev eth0 scope link",
        "route add default via 169.254.1.1 dev eth0 mtu 1400",
        "neighbour add 169.254.1.1 lladdr %s dev eth0 nud permanent" % router,
        "address add fd00:65::2/128 dev eth0 nodad",
        "route add default via %s dev eth0 metric 1024" % router6,
    )
    node.batch("route add fd00:65::2 dev cali0 src " + FAR6)
    story = Story(node, pod, ["eth0"], ["10.65.0.2", "fd00:65::2"], image, tmp_path)
    made = story.play()
    assert (made["uplink"]["local"], made["uplink"]["gateway"]) == ("10.65.0.2", "169.254.1.1")


def test_a_pod_with_two_nics(make_pod, node, image, tmp_path):
    """One of both families; the VMM takes several queues of each TAP."""
    pod = make_pod(uplink=None, ipv6=True)
    node.batch(
        "link add host0 type veth peer name eth0 netns " + pod.name,
        "link add host1 mtu 9000 type veth peer name net1 mtu 9000 netns " + pod.name,
        "link set host0 up",
        "link set host1 up",
        "address add 10.9.8.1/24 dev host0",
        "address add 10.7.6.1/24 dev host1",
        "address add fd00:7::1/64 dev host1 nodad",
        "route change 10.9.8.0/24 dev host0 src " + FAR,
    )
    pod.batch(
        "link set lo up",
        "link set eth0 up",
        "link set net1 up",
        "address add 10.9.8.2/24 dev eth0",
        "address add 10.7.6.2/24 dev net1",
        "address add fd00:7::2/64 dev net1 nodad",
        "route add default via 10.9.8.1 dev eth0",
        "route add 10.6.0.0/16 via 10.7.6.1 dev net1 src 10.7.6.2 metric 7",
    )
    addresses = ["10.9.8.2", "10.7.6.2", "fd00:7::2"]
    uplinks = ["eth0", "net1"]
    Story(node, pod, uplinks, addresses, image, tmp_path, ["--multi-queue"]).play()


# ---------------------------------------------------------------- any name


@pytest.mark.parametrize(
    "name", [b"tap0_urunc", b"tap,;'_urunc", b"tap$(id)_urunc", b"tap\xff_urunc"]
)
def test_a_shell_gives_qemu_the_tap_whatever_its_name(make_pod, name):
    for program in ("bash", guest.QEMU):
        if shutil.which(program) is None:
            pytest.skip("needs %s" % program)
    pod = make_pod()
    tap = os.fsdecode(name)
    done = command.nlraw("setup", "-n", pod.path, "--tap", tap, "--print", "qemu")
    assert (done.status, done.err) == (0, "")
    line = "exec %s -accel tcg -M none -nodefaults -display none -S -netdev %s"
    netdev = done.out.split(" -device ")[0].partition("-netdev ")[2]  # no machine, no card
    argv = enter(pod) + ["bash", "-c", 'eval "$1"', "bash", line % (guest.QEMU, netdev)]
    with subprocess.Popen(argv) as qemu:
        try:
            deadline = time.monotonic() + 10
            while [found.verdict for found in nlraw.scan(pod.path)] != ["in-use"]:
                assert qemu.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            qemu.kill()

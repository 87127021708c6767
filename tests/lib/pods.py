# SPDX-License-Identifier: Apache-2.0
"""Pods to test in: throwaway network namespaces, and processes that hold TAPs in them.

They are built and read with iproute2.
"""

import concurrent.futures
import contextlib
import json
import os
import shutil
import subprocess
import sys
import uuid

from lib import command, taps

NETNS_DIRECTORY = "/run/netns"
TAP = "tap0_urunc"
POD_ADDRESS = "10.9.8.2"
NODE_ADDRESS = "10.9.8.1"

CLONE_NEWNET = 0x40000000

# What a child that holds a TAP runs: attach, say so, obey one command a line, end with the input.
HOLD = """
import fcntl, os, struct, sys
name, flags = sys.argv[1].encode(), int(sys.argv[2])
request = lambda flags: struct.pack("=16sH22x", name, flags)
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, request(flags))  # TUNSETIFF
print("ready", flush=True)
for command in sys.stdin:
    if command == "release\\n":
        os.close(tun)
    elif command == "detach\\n":
        fcntl.ioctl(tun, 0x400454D9, request(0x0400))  # TUNSETQUEUE, IFF_DETACH_QUEUE
    elif command == "carrier off\\n":
        fcntl.ioctl(tun, 0x400454E2, struct.pack("=i", 0))  # TUNSETCARRIER
    print("done", flush=True)
"""

IDLE = """
import sys
print("ready", flush=True)
sys.stdin.read()
"""


def missing():
    """Why no pod can be made here, in one line, or None."""
    if os.geteuid() != 0:
        return "not root"
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            return "no %s of iproute2" % program
    if not os.path.exists("/dev/net/tun"):
        return "no /dev/net/tun"
    return None


class Pod:
    """A network namespace of our own with an uplink, 10.9.8.2/24 on it and a default route.

    The uplink is a veth; its other end, peer0, is in the same namespace, or in the ``node``,
    another Pod without an uplink. IPv6 is off if not asked for, so that nothing moves by
    itself.
    """

    def __init__(self, uplink="eth0", node=None, ipv6=False):
        self.name = "nlraw-test-%s" % uuid.uuid4().hex[:12]
        self.path = os.path.join(NETNS_DIRECTORY, self.name)
        self.uplink = uplink
        self._children = []
        command.run("ip", "netns", "add", self.name)
        try:
            if not ipv6:
                self.sysctl("net/ipv6/conf/all/disable_ipv6", 1)
                self.sysctl("net/ipv6/conf/default/disable_ipv6", 1)
            if uplink is not None:
                self._add_uplink(node)
        except BaseException:
            self.close()
            raise

    def _add_uplink(self, node):
        far = self if node is None else node
        self.batch(
            "link set lo up",
            "link add %s type veth peer name peer0 %s"
            % (self.uplink, "" if node is None else "netns " + node.name),
            "link set %s up" % self.uplink,
            "address add %s/24 dev %s" % (POD_ADDRESS, self.uplink),
        )
        far.ip("link", "set", "peer0", "up")
        self.ip("route", "add", "default", "via", NODE_ADDRESS, "dev", self.uplink)
        if node is not None:
            address = self.links()[self.uplink]["address"]
            node.ip("address", "add", NODE_ADDRESS + "/24", "dev", "peer0")
            node.ip(
                "neighbour",
                "add",
                POD_ADDRESS,
                "lladdr",
                address,
                "dev",
                "peer0",
                "nud",
                "permanent",
            )

    # -------------------------------------------------------- tools

    def ip(self, *arguments):
        return command.run("ip", "-n", self.name, *arguments)

    def tc(self, *arguments):
        return command.run("tc", "-n", self.name, *arguments)

    def batch(self, *lines):
        """Many `ip` commands in one process."""
        return command.run("ip", "-n", self.name, "-batch", "-", input="\n".join(lines) + "\n")

    def run(self, function):
        """Call a function on a thread inside the namespace; return or raise what it does."""

        import ctypes  # which some Pythons lack; of this file they want no more than numbers

        def inside():
            with open(self.path) as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            return function()

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(inside).result()

    def sysctl(self, name, value):
        def write():
            path = os.path.join("/proc/sys", name)
            if os.path.exists(path):
                with open(path, "w") as file:
                    file.write(str(value))

        self.run(write)

    # -------------------------------------------------------- TAPs

    def add_tap(self, name=TAP, up=True, redirect=True, flags=taps.IFF_TAP):
        """Make a persistent TAP that nobody has held, with redirects between it and the uplink.

        Return its ifindex.
        """
        self.run(lambda: taps.make(name, flags))
        if up:
            self.ip("link", "set", name, "up")
        if redirect:
            self.add_ingress(self.uplink)
            self.add_ingress(name)
            self.redirect(self.uplink, name)
            self.redirect(name, self.uplink)
        return self.links()[name]["ifindex"]

    def add_taps(self, names):
        """Make many that are down and have no redirects, in no time."""

        def make():
            for name in names:
                taps.make(name)

        self.run(make)

    def add_orphan(self, name=TAP, **options):
        """Make a TAP as `add_tap` does that was held once, and is no more; return its ifindex."""
        ifindex = self.add_tap(name, **options)
        self.run(lambda: taps.leave(name))
        return ifindex

    def add_ingress(self, dev):
        if not any(qdisc["kind"] in ("ingress", "clsact") for qdisc in self.qdiscs(dev)):
            self.tc("qdisc", "add", "dev", dev, "ingress")

    def redirect(self, dev, target, *place):
        """A u32 match-all filter that redirects everything.

        ``place`` is where it stands, `ingress` if left out.
        """
        self.tc(
            *(
                "filter add dev %s %s protocol all u32 match u32 0 0 action mirred egress redirect "
                "dev %s" % (dev, " ".join(place) or "ingress", target)
            ).split()
        )

    def lengthen(self, name, count):
        """Give a link so many alternative names of over 110 bytes.

        The kernel lists them all in its message.
        """
        self.batch(
            *[
                "link property add dev %s altname %s%d_%s" % (name, name, each, "x" * 110)
                for each in range(count)
            ]
        )

    def hold(self, tap=TAP, multi_queue=False):
        """Attach a process to a TAP (which makes it, if there is none)."""
        flags = taps.IFF_TAP | (taps.IFF_MULTI_QUEUE if multi_queue else 0)
        return self.child(HOLD, tap, str(flags | taps.IFF_NO_PI), kind=Holder)

    def child(self, source=IDLE, *arguments, **options):
        """Run a Python program inside the namespace; it has printed "ready" when this returns."""
        child = options.get("kind", Child)(self.name, source, arguments)
        self._children.append(child)
        child.answer("ready")
        return child

    # -------------------------------------------------------- what is there

    def links(self):
        """The links as `ip -d -j link` shows them, by name."""
        return {link["ifname"]: link for link in json.loads(self.ip("-d", "-j", "link"))}

    def qdiscs(self, dev=None):
        """The qdiscs that somebody made, of one device or all, as `tc -j -d qdisc` lists them."""
        listed = json.loads(self.tc("-j", "-d", "qdisc", "show", *(("dev", dev) if dev else ())))
        return [qdisc for qdisc in listed if qdisc["handle"] != "0:"]

    def filters(self, dev, place="ingress"):
        """The filters at one place, as `tc -j -d filter` lists them.

        The priorities and tables that hold them are left out.
        """
        listed = json.loads(self.tc("-j", "-d", "filter", "show", "dev", dev, *place.split()))
        return [found for found in listed if set(found.get("options", {})) - {"fh", "ht_divisor"}]

    def state(self):
        """All that iproute2 shows, less counters, times and what lags behind the carrier."""
        addresses = json.loads(self.ip("-j", "address"))
        return {
            "links": [_settled(link) for link in self.links().values()],
            "addresses": {link["ifname"]: link["addr_info"] for link in addresses},
            "routes": [
                _settled(route)
                for route in json.loads(self.ip("-j", "route", "show", "table", "all"))
            ],
            "tc": self._tc_state(),
        }

    def _tc_state(self):
        # the plain text, which has more than the JSON, and without -s neither counters nor times
        shown = {"qdiscs": self.tc("-d", "qdisc", "show")}
        for qdisc in self.qdiscs():
            dev, handle = qdisc["dev"], qdisc["handle"]
            for place in ("ingress", "egress") if handle == "ffff:" else ("parent " + handle,):
                shown[dev, place] = self.tc("-d", "filter", "show", "dev", dev, *place.split())
            if handle != "ffff:":
                shown[dev, handle] = self.tc("-d", "class", "show", "dev", dev)
            block = qdisc.get("ingress_block")
            if block:
                shown["block", block] = self.tc("-d", "filter", "show", "block", str(block))
        return shown

    def redirects(self, dev, target):
        """How many filters on a device redirect to another."""
        actions = [
            action for found in self.filters(dev) for action in found["options"].get("actions", ())
        ]
        return sum(
            action.get("to_dev") == target and action.get("mirred_action") == "redirect"
            for action in actions
        )

    def check_pair(self, tap=TAP):
        """Make sure that the TAP is there, up, and the uplink's one and only partner.

        Return its ifindex.
        """
        return self.check_pairs([(tap, self.uplink)])[0]

    def check_pairs(self, pairs):
        """The same of several TAPs, each with its uplink. Return their ifindexes."""
        links = self.links()
        assert sorted(name for name, link in links.items() if is_tun(link)) == sorted(
            tap for tap, _ in pairs
        )
        for tap, uplink in pairs:
            assert "UP" in links[tap]["flags"] and links[tap]["linkinfo"]["info_data"]["persist"]
            for dev, target in ((uplink, tap), (tap, uplink)):
                assert self.redirects(dev, target) == 1
                assert [qdisc["kind"] for qdisc in self.qdiscs(dev)] == ["ingress"]
                assert len(self.filters(dev)) == 1
        return [links[tap]["ifindex"] for tap, _ in pairs]

    # -------------------------------------------------------- the end

    def close(self):
        for child in self._children:
            child.kill()
        command.run("ip", "netns", "del", self.name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def is_tun(shown):
    """True for a TUN or TAP device, as `ip -d -j link` shows it."""
    return shown.get("linkinfo", {}).get("info_kind") == "tun"


def _settled(shown):
    """A link or route without what follows the carrier up to a second later.

    See net/core/link_watch.c.
    """
    kept = {key: value for key, value in shown.items() if key != "operstate"}
    kept["flags"] = [
        flag for flag in shown["flags"] if flag not in ("NO-CARRIER", "linkdown", "dead")
    ]
    return kept


class Child:
    """A Python process inside a pod that can be spoken to, and killed.

    It ends with us, at the end of its input.
    """

    def __init__(self, pod, source, arguments):
        argv = ["ip", "netns", "exec", pod, sys.executable, "-S", "-c", source]
        self._process = subprocess.Popen(
            argv + list(arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
            bufsize=1,
        )
        self.pid = self._process.pid

    def read(self):
        """The next line that it prints."""
        return self._process.stdout.readline().rstrip("\n")

    def answer(self, expected):
        line = self.read()
        if line != expected:
            raise RuntimeError("the child said %r, not %r" % (line, expected))

    def write(self, line):
        """Give it a line to read."""
        self._process.stdin.write(line + "\n")

    def say(self, command):
        self.write(command)
        self.answer("done")

    def kill(self):
        """End it as `kill -9` does; returns when it is reaped, and does nothing the second time."""
        if self._process.returncode is None:
            self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # it ended before it read what was said last
            self._process.stdin.close()
        self._process.stdout.close()


class Holder(Child):
    """A process that holds a TAP open, as a VMM does."""

    def release(self):
        """Let the TAP go and live on."""
        self.say("release")

    def detach(self):
        """Switch its queue of a multi-queue TAP off and keep the descriptor."""
        self.say("detach")

    def carrier_off(self):
        self.say("carrier off")

# SPDX-License-Identifier: Apache-2.0
"""`nlraw watch` beside a test, the namespaces that it watches, and what disturbs it.

Agent   the command, running, with the lines that it prints and when they came
Site    a namespace on a made-up node (`nodes.Node`), made without iproute2, because many are needed
Probe   sees that a name is free, without asking for the kernel's lock of all links
Flood   a process that makes events as fast as the kernel can

    with Agent("--dir", node.directory) as agent:
        site = Site(node, "pod1")
        vm = site.start()
        vm.kill()
        agent.wait_for(site.path)
        done, seconds = agent.stop()
"""

import collections
import contextlib
import errno
import fcntl
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import nlraw
import nlraw.netns
from lib import command, pods, taps
from nlraw import link, tc, uapi, wire
from nlraw.connection import Connection
from nlraw.exchange import Request
from nlraw.netns import Namespace

# What is waited for is over in much less than a second; a machine may be busy.
PATIENCE = 20

SIOCGIFINDEX = 0x8933  # linux/sockios.h
IFLA_NET_NS_FD = 28  # linux/if_link.h

# The agent ends with the thread that started it.
DIE_WITH_US = ["setpriv", "--pdeathsig", "KILL"]

# One line that the agent printed: time.monotonic() when it came, and the JSON in it.
Line = collections.namedtuple("Line", "moment document")


def wait_until(condition, what, patience=PATIENCE, pause=0.005):
    """Call a function until its result is true; return that. Raises TimeoutError."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(
                "%s: not within %s seconds" % (what() if callable(what) else what, patience)
            )
        time.sleep(pause)


class Agent:
    """A running `nlraw watch -j`; it is ready when this returns.

    ``before`` is the argv of what runs it, which must end in exec(2), or in a child if ``forks``.
    ``ready`` is False for one that need not come so far; where ``reads`` is False, nobody reads
    what it prints before `read` is called. It is killed at the end of a ``with``
    statement.
    """

    def __init__(
        self,
        *options,
        before=(),
        forks=False,
        argv=command.MODULE,
        env=(),
        ready=True,
        reads=True,
    ):
        self._forks = forks
        self._directory = tempfile.TemporaryDirectory(prefix="nlraw-")
        self.states = []  # what it sent to the service manager
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = os.path.join(self._directory.name, "notify")
        self._manager.bind(path)
        os.chmod(path, 0o777)
        self._stopped = False
        self.lines = []
        self._err = []
        environment = command.environment(**dict({"NOTIFY_SOCKET": path}, **dict(env)))
        self.process = subprocess.Popen(
            DIE_WITH_US
            + list(before)
            + list(argv)
            + ["watch", "-j"]
            + [str(option) for option in options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environment,
        )
        self._threads = [
            threading.Thread(target=self._read_lines, daemon=True),
            threading.Thread(target=self._read_err, daemon=True),
        ]
        self._threads[1].start()
        if reads:
            self.read()
        self._listener = threading.Thread(target=self._read_states, daemon=True)
        self._listener.start()
        try:
            if ready:
                self.wait_ready()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self):
        pid = self.process.pid
        if not self._forks:
            return pid
        with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
            return int(file.read())

    # -------------------------------------------------------- what it says

    def read(self):
        """Begin to read what it prints."""
        self._threads[0].start()

    def _read_lines(self):
        for line in self.process.stdout:
            self.lines.append(Line(time.monotonic(), json.loads(line.decode("utf-8"))))

    def _read_err(self):
        for line in self.process.stderr:
            self._err.append(line.decode("utf-8", "replace"))

    def _read_states(self):
        with contextlib.suppress(OSError):
            data = self._manager.recv(65536)
            while data:
                self.states.append(data.decode())
                if self._stopped:
                    return
                data = self._manager.recv(65536)

    def fill_manager(self):
        """Let the service manager read no more, and its queue be full."""
        self._stopped = True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.sendto(b"STATUS=", self._manager.getsockname())

    @property
    def err(self):
        """What it has written to stderr so far."""
        return "".join(self._err)

    def said(self, word):
        """True if the service manager got such a line, READY=1 for instance."""
        return any(word in state.split("\n") for state in list(self.states))

    def wait_ready(self):
        def is_ready():
            assert self.process.poll() is None, self.err
            return self.said("READY=1")

        wait_until(is_ready, lambda: "READY=1, of which stderr says: " + self.err)

    def of(self, path):
        """The lines about a namespace."""
        return [line for line in list(self.lines) if line.document["netns"] == path]

    def deletions(self, path=None):
        """``(netns, ifname)`` of each TAP that it reports as deleted, in order."""
        return [
            (line.document["netns"], tap["ifname"])
            for line in list(self.lines)
            for tap in line.document["taps"]
            if tap["deleted"] and path in (None, line.document["netns"])
        ]

    def failures(self):
        return [line.document for line in list(self.lines) if line.document["error"] is not None]

    def wait_for(self, path, count=1, patience=PATIENCE):
        """Wait until it has reported that many deletions in a namespace."""
        wait_until(
            lambda: len(self.deletions(path)) >= count,
            lambda: "%d deletions in %s; stderr: %s" % (count, path, self.err),
            patience,
        )

    # -------------------------------------------------------- what it takes

    def open_files(self):
        """What its descriptors lead to, as /proc shows it, without the numbers of sockets."""
        found = []
        for fd in os.listdir("/proc/%d/fd" % self.pid):
            with contextlib.suppress(FileNotFoundError):  # it has been closed
                found.append(os.readlink("/proc/%d/fd/%s" % (self.pid, fd)).partition(":[")[0])
        return sorted(found)

    def descriptors(self):
        return len(self.open_files())

    def threads(self):
        return len(os.listdir("/proc/%d/task" % self.pid))

    def resident(self):
        """KiB of memory."""
        with open("/proc/%d/status" % self.pid) as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))

    def seconds(self):
        """Seconds of processor time."""
        with open("/proc/%d/stat" % self.pid) as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def limit_descriptors(self, count):
        """Let it have no descriptor with a number from ``count`` on."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (min(count, hard), hard))

    # -------------------------------------------------------- the end

    def send(self, number):
        os.kill(self.pid, number)

    def has_raised(self):
        """True if stderr has a traceback, other than Python's of a signal that wakes nobody."""
        known = r"Exception ignored when trying to write to the signal wakeup fd:.*?\n\w+Error: "
        err = re.sub(known, "", self.err, flags=re.DOTALL)
        return "Traceback" in err or "Exception ignored" in err

    def stop(self, number=signal.SIGTERM, patience=PATIENCE):
        """End it with a signal; return how it ended and the seconds that it took."""
        began = time.monotonic()
        self.send(number)
        self.process.wait(patience)
        seconds = time.monotonic() - began
        self.join()
        assert not self.has_raised(), self.err
        return command.Done(self.process.returncode, self.lines, self.err), seconds

    def join(self):
        """Read what it printed to the end."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(PATIENCE)

    def close(self):
        if self.process.poll() is None:
            if self._forks:
                with contextlib.suppress(OSError, ValueError):
                    self.send(signal.SIGKILL)
            self.process.kill()
        self.process.wait()
        self.join()
        with contextlib.suppress(OSError):
            self._manager.shutdown(socket.SHUT_RD)
        self._listener.join(PATIENCE)
        self._manager.close()
        self.process.stdout.close()
        self.process.stderr.close()
        self._directory.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---------------------------------------------------------------- namespaces and their VMs


class Site:
    """A namespace with an uplink, pinned on a node; ``path`` leads to it.

    Only the pin keeps it alive. ``far`` is a `Far`, where the uplink's other end is then: when
    that is gone, the namespace is gone.
    """

    def __init__(self, node, name, far=None, uplink="eth0"):
        self.node = node
        self.name = name
        with nlraw.netns.create() as namespace, Connection(namespace) as connection:
            if far is not None:
                far.connect(namespace, uplink)
            else:
                connection.change(link.create_veth(uplink, "peer0"))[0].answer()
            self.uplink = link.only(connection.ask(link.find(uplink))[0]).ifindex
            connection.change(link.set_up(self.uplink, uplink))[0].answer()
            self.path = node.pin(name, "/proc/self/fd/%d" % namespace.fileno())
        self.identity = nlraw.netns.identity_of(self.path)

    def open(self):
        return Namespace(self.path)

    def make_tap(self, name=pods.TAP, redirect=True):
        """Make what a runtime makes: a persistent TAP that is up, and redirects both ways.

        Return its ifindex.
        """
        with self.open() as namespace, Connection(namespace) as connection:
            namespace.run(lambda: taps.make(name))
            ifindex = link.only(connection.ask(link.find(name))[0]).ifindex
            requests = [link.set_up(ifindex, name)]
            if redirect:
                parent = uapi.TC_H_INGRESS_HANDLE
                has_ingress = any(
                    qdisc.ifindex == self.uplink and qdisc.kind == "ingress"
                    for qdisc in tc.qdiscs(connection.ask(tc.dump_qdiscs())[0].answer())
                )
                requests += [tc.create_ingress(self.uplink, "eth0")] * (not has_ingress)
                requests += [
                    tc.create_ingress(ifindex, name),
                    tc.create_redirect(self.uplink, parent, ifindex, "eth0"),
                    tc.create_redirect(ifindex, parent, self.uplink, name),
                ]
            for reply in connection.change(*requests):
                reply.answer()
        return ifindex

    def hold(self, name=pods.TAP):
        """Attach to a TAP; return the descriptor."""
        with self.open() as namespace:
            return namespace.run(lambda: taps.attach(name))

    def start(self, name=pods.TAP, redirect=True):
        """Make a TAP and a process that holds it, as a runtime does; return the process."""
        self.make_tap(name, redirect)
        fd = self.hold(name)
        try:
            return Vmm(fd)
        finally:
            os.close(fd)

    def leave(self, name=pods.TAP, redirect=True):
        """Make a TAP that a VMM has just let go of; return its ifindex."""
        ifindex = self.make_tap(name, redirect)
        os.close(self.hold(name))
        return ifindex

    def links(self):
        """The ifindex of each link, by name."""
        with self.open() as namespace, Connection(namespace) as connection:
            listed = link.links(connection.ask(link.dump())[0].answer())
            return {found.ifname: found.ifindex for found in listed}

    def tc_objects(self):
        """How many qdiscs that somebody made there are, and how many filters at the uplink."""
        with self.open() as namespace, Connection(namespace) as connection:
            made = [
                qdisc
                for qdisc in tc.qdiscs(connection.ask(tc.dump_qdiscs())[0].answer())
                if qdisc.handle
            ]
            filters = 0
            if any(qdisc.ifindex == self.uplink for qdisc in made):
                request = tc.dump_filters(self.uplink, uapi.TC_H_INGRESS_HANDLE, "eth0")
                filters = len(tc.filters(connection.ask(request)[0].answer()))
            return len(made), filters

    @property
    def is_empty(self):
        """True if no TAP, qdisc or filter is left; False too while somebody removes one."""
        with contextlib.suppress(nlraw.Error):
            return self._is_empty()
        return False

    def _is_empty(self):
        return not any(name.startswith("tap") for name in self.links()) and self.tc_objects() == (
            0,
            0,
        )

    def close(self):
        """Take the pin away, and its file, as a runtime does."""
        self.node.unpin(self.path)
        os.unlink(self.path)


def no_uplink(node, name):
    """A `Site` that is no pod, with an orphan that stays, and the descriptors that are held."""
    site = Site(node, name, uplink="net9")
    site.leave()
    return site, []


def beside_one_in_use(node, name):
    """The same of a pod in which another TAP is in use."""
    site = Site(node, name)
    site.leave()
    site.make_tap("tap1_urunc", redirect=False)
    return site, [site.hold("tap1_urunc")]


class Far:
    """A namespace of its own with the other ends of uplinks, one for each namespace that lives."""

    def __init__(self):
        self._namespace = nlraw.netns.create()
        self._connection = Connection(self._namespace)
        self._made = 0

    def connect(self, namespace, name):
        """Make a pair of which one end, of that name, is in the namespace."""
        self._made += 1
        ours, theirs = "far%d" % self._made, "near%d" % self._made
        self._connection.change(link.create_veth(ours, theirs))[0].answer()
        ifindex = link.only(self._connection.ask(link.find(theirs))[0]).ifindex
        payload = (
            uapi.ifinfomsg.pack(0, 0, ifindex, 0, 0)
            + wire.attribute_u32(IFLA_NET_NS_FD, namespace.fileno())
            + wire.attribute_string(uapi.IFLA_IFNAME, name)
        )
        move = Request(
            uapi.RTM_SETLINK, uapi.NLM_F_ACK, payload, uapi.ifinfomsg.size, "move link", theirs
        )
        self._connection.change(move)[0].answer()

    def count(self):
        """How many there are."""
        listed = link.links(self._connection.ask(link.dump())[0].answer())
        return sum(found.ifname.startswith("far") for found in listed)

    def close(self):
        self._connection.close()
        self._namespace.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Vmm:
    """A process that holds a descriptor and does nothing; ``kill`` ends it as a crash does.

    It ends with us, at the end of its input.
    """

    def __init__(self, fd):
        self._process = subprocess.Popen(
            ["cat"],
            pass_fds=(fd,),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        self.pid = self._process.pid

    def kill(self):
        """Send SIGKILL; return time.monotonic() of that. It is not reaped yet: see `reap`."""
        moment = time.monotonic()
        os.kill(self.pid, signal.SIGKILL)
        return moment

    def reap(self):
        if self._process.returncode is None:
            self._process.kill()
        self._process.wait()
        self._process.stdin.close()


class Probe:
    """A socket inside a namespace that asks whether a name is taken; it keeps the namespace alive.

    dev_ioctl() looks names up under RCU alone, so that it waits for nobody.
    """

    def __init__(self, path, name=pods.TAP):
        self._request = struct.pack("16s24x", os.fsencode(name))
        with Namespace(path) as namespace:
            self._socket = namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    def is_free(self):
        try:
            fcntl.ioctl(self._socket, SIOCGIFINDEX, self._request)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return True
            raise
        return False

    def wait(self, since, patience=PATIENCE):
        """Seconds from a moment until the name is free."""
        while not self.is_free():
            if time.monotonic() > since + patience:
                raise TimeoutError("the name is not free after %s s" % patience)
            time.sleep(0.0002)
        return time.monotonic() - since

    def close(self):
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---------------------------------------------------------------- events

# Changes a TAP that nobody holds, whose name matches, in datagrams of many requests without an
# answer: each is announced by an event that no filter on carrier, kind and name can drop. It says
# how many it has made when it is asked for.
FLOOD = """
import os, select, socket, struct, sys
index, count = int(sys.argv[1]), int(sys.argv[2])
channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
channel.setsockopt(socket.SOL_SOCKET, 32, 1 << 20)  # SO_SNDBUF
def request(group):
    header = struct.pack("=IHHII", 40, 19, 1, 1, 0)  # RTM_SETLINK, NLM_F_REQUEST
    return header + struct.pack("=BxHiII", 0, 0, index, 0, 0) + struct.pack("=HHI", 8, 27, group)
batch = b"".join(request(1 + number % 7) for number in range(200))
made = 0
print("ready", flush=True)
while count == 0 or made < count:
    channel.send(batch)
    made += 200
    if select.select([0], [], [], 0)[0]:
        if not os.read(0, 1):
            break
        print(made, flush=True)
if count:
    print("done", flush=True)
    os.read(0, 1)
"""


class Flood:
    """Events of a TAP in a namespace, as many as the kernel can make, or ``count``."""

    def __init__(self, site, name=pods.TAP, count=0):
        argv = ["nsenter", "--net=" + site.path, sys.executable, "-I", "-S", "-c", FLOOD]
        self._process = subprocess.Popen(
            argv + [str(site.links()[name]), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
            bufsize=1,
        )
        assert self._process.stdout.readline() == "ready\n"

    def wait(self):
        """Wait until ``count`` have been made."""
        assert self._process.stdout.readline() == "done\n"

    def made(self):
        """How many it has made so far."""
        self._process.stdin.write(".")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self):
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---------------------------------------------------------------- a host

# The first process of the host's namespaces.
HOST = """
set -e
for place in "$@"; do mount -t tmpfs tmpfs $place; done
mkdir -p /run/netns
ip link set lo up
echo ready
read -r end
"""


class Host:
    """Mount, network and PID namespaces of its own; all that runs in them ends with them.

    ``hidden`` are directories that are empty there, /run among them: `ip netns` and runtimes know
    no other pods. `Agent` takes ``**host.options``.
    """

    def __init__(self, *hidden):
        argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork"]
        argv += ["--propagation", "private", "--kill-child=KILL", "--mount-proc"]
        self._process = subprocess.Popen(
            argv + ["sh", "-c", HOST, "sh", "/run"] + list(hidden),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
        )
        if self._process.stdout.readline() != "ready\n":
            self.close()
            raise RuntimeError("the namespaces of a host cannot be made")
        kinds = {"mount": "mnt", "net": "net", "pid": "pid_for_children"}
        self.enter = ["nsenter"] + [
            "--%s=/proc/%d/ns/%s" % (kind, self._process.pid, name) for kind, name in kinds.items()
        ]
        self.options = {"before": self.enter, "forks": True}

    def run(self, *argv, **options):
        return command.run(*self.enter, *argv, **options)

    def links(self):
        return [link["ifname"] for link in json.loads(self.run("ip", "-j", "link"))]

    def close(self):
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

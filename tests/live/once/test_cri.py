# SPDX-License-Identifier: Apache-2.0
"""The hook under containerd's CRI plugin, in pods with sidecars, driven as a kubelet does.

A VM here is a container whose process makes the TAP and the redirects, as a runtime does, then
opens the TAP by name, as a VMM does, and answers UDP. The pod's own kernel has the same address,
but never answers on that port, so an answer proves both redirects. Each VM answers with its own
identity.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid

import pytest

import nlraw
from lib import cri

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(cri.__file__)))
PACKAGE = os.path.dirname(os.path.abspath(nlraw.__file__))
PYTHON = "/usr/bin/python3"
TAP = "tap0_urunc"
PORT = 7  # echo, RFC 862
BUSY = "create %s: Device or resource busy" % TAP

# ---------------------------------------------------------------- the hooks, by runtime handler

ARGV = ["python3", "-I", "-S", cri.DIRECTORY + "/nlraw/__main__.py", "hook"]

ANNOTATION = "io.kubernetes.cri."
VM_ONLY = ("--annotation", ANNOTATION + "container-name=v?")
# The second one matches a sidecar, too.
TWO_KEYS = VM_ONLY + ("--annotation", ANNOTATION + "container-type=container")

# At poststop the hook can find the namespace by the sandbox's bundle or by the sandbox's process.
# Each script removes one of these: the annotation with the sandbox's ID, which both the state and
# the config have, or the config's PID.
CONFIGS = cri.DIRECTORY + "/data/state/*.task/k8s.io/*/config.json"
HIDE_SANDBOX = """
sed -i 's/"{0}sandbox-id"/"hidden"/' {1}
sed 's/"{0}sandbox-id"/"hidden"/' | exec "$0" "$@"
""".format(ANNOTATION, CONFIGS)
HIDE_PROCESS = """
sed -i 's,/proc/[0-9]*/ns/net,/proc/4194303/ns/net,g' {}
exec "$0" "$@"
""".format(CONFIGS)


def hook(*options):
    return [{"path": PYTHON, "args": ARGV + list(options), "timeout": 30}]


def hook_behind(script):
    argv = ["sh", "-c", script, PYTHON] + ARGV[1:]
    return [{"path": "/bin/sh", "args": argv, "timeout": 30}]


def at_both_stages(*options):
    return {"createRuntime": hook(*options), "poststop": hook(*options)}


HANDLERS = {
    "no-hook": {},
    "poststop": {"poststop": hook()},
    "both": at_both_stages(),
    "by-process": {"poststop": hook_behind(HIDE_SANDBOX)},
    "by-sandbox": {"poststop": hook_behind(HIDE_PROCESS)},
    "create": {"createRuntime": hook()},
    "vm-poststop": {"poststop": hook(*VM_ONLY)},
    "vm-both": at_both_stages(*TWO_KEYS),
    "vm-create": {"createRuntime": hook(*VM_ONLY)},
    "refuse": at_both_stages("--refuse"),
    "wait": {"createRuntime": hook("--wait", "10")},
}

# Without and with knowledge of which container is the VM's.
ANY_CONTAINER = ["poststop", "both"]
VM_CONTAINER = ["vm-poststop", "vm-both"]

# ---------------------------------------------------------------- what runs in containers

SIDECAR = ("/busybox", "sleep", "1000")

# TUNSETIFF with IFF_TAP, IFF_NO_PI, IFF_VNET_HDR and `more` flags
ATTACH = """
import fcntl, os, struct
def attach(name, more=0):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    request = struct.pack("=16sH22x", name.encode(), 0x0002 | 0x1000 | 0x4000 | more)
    fcntl.ioctl(fd, 0x400454CA, request)
    return fd
"""

VM_SOURCE = (
    ATTACH
    + """
import signal, subprocess, sys
name, identity, port, waits = sys.argv[1:]
identity, port = identity.encode(), struct.pack("!H", int(port))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
try:
    fd = attach(name, 0x8000)  # IFF_TUN_EXCL
except OSError as error:
    sys.exit("create %s: %s" % (name, error.strerror))
fcntl.ioctl(fd, 0x400454CB, 1)  # TUNSETPERSIST
os.close(fd)
lines = ["qdisc add dev %s ingress" % dev for dev in ("eth0", name)]
match_all = "filter add dev %s ingress protocol all u32 match u32 0 0 "
redirect = match_all + "action mirred egress redirect dev %s"
lines += [redirect % pair for pair in (("eth0", name), (name, "eth0"))]
subprocess.run(["ip", "link", "set", name, "up"], check=True)
subprocess.run(["tc", "-batch", "-"], input="\\n".join(lines).encode(), check=True)
print("set up", flush=True)
if waits == "waits":
    signal.sigwait({signal.SIGUSR1})
fd = attach(name)
print("attached", flush=True)
# offsets: virtio header 0, Ethernet 10, IPv4 24, UDP 44, payload 52
while True:
    frame = bytearray(os.read(fd, 65536))
    if frame[22:24] == b"\\x08\\x00" and frame[33] == 17 and frame[46:48] == port:
        frame[0:10] = bytes(10)
        for one, other, size in ((10, 16, 6), (36, 40, 4), (44, 46, 2)):
            frame[one : one + size], frame[other : other + size] = (
                frame[other : other + size], frame[one : one + size])
        frame[50:52] = bytes(2)  # no checksum
        frame[52 : 52 + len(identity)] = identity
        os.write(fd, frame)
"""
)


class VM:
    """The next attempt of the VM's container in a pod.

    With ``waits`` it makes the TAP and the redirects, then waits for `attach`: a start in progress.
    """

    def __init__(self, pod, waits=False):
        self._pod = pod
        self._identity = uuid.uuid4().bytes[:8].hex()
        last = "waits" if waits else "attaches"
        argv = (PYTHON, "-I", "-S", "-c", VM_SOURCE, TAP, self._identity, str(PORT), last)
        self.container = pod.start("vm", *argv)
        self.container.wait_for("set up" if waits else "attached")

    def attach(self):
        self.container.signal("USR1")
        self.container.wait_for("attached")

    def kill(self):
        return self.container.kill()

    def answers(self):
        """True if a datagram to the pod's address, sent on the bridge, is answered by this VM."""
        with self._pod.machine.udp_socket() as channel:
            channel.settimeout(0.05)
            channel.connect((self._pod.address, PORT))
            deadline = time.monotonic() + 10  # at once, but for a busy machine
            while time.monotonic() < deadline:
                token = uuid.uuid4().bytes
                try:
                    channel.send(bytes(len(self._identity)) + token)
                    if channel.recv(100) == self._identity.encode() + token:
                        return True
                except socket.timeout:
                    pass
                except ConnectionRefusedError:  # the pod's kernel answered: no redirect
                    time.sleep(0.05)
        return False


# ---------------------------------------------------------------- fixtures

# Fixed paths of containerd, runc and the CNI plugins. The machine must not touch the system's.
PLACES = ("/run/containerd", "/run/netns", "/run/runc", "/var/lib/cni", "/var/lib/containerd")
PLACES += ("/opt/containerd", "/sys/class/net/" + cri.BRIDGE)


def missing():
    reason = cri.missing()
    if reason is None and not os.path.exists(PYTHON):
        reason = "no " + PYTHON
    return reason


@pytest.fixture(scope="module")
def machine():
    reason = missing()
    if reason is not None:
        pytest.skip("needs containerd: " + reason)
    before = [path for path in PLACES if os.path.exists(path)]
    try:
        made = cri.Machine(HANDLERS, [PACKAGE])
    except cri.Unavailable as error:
        pytest.skip("needs namespaces of its own: %s" % error)
    yield made
    made.close()
    assert cri.left(made.name) == []
    assert [path for path in PLACES if os.path.exists(path)] == before


@pytest.fixture
def make_pod(machine):
    """Run a pod with a runtime handler; it is stopped and removed at the end of the test."""
    made = []

    def make(handler):
        made.append(machine.pod(handler))
        return made[-1]

    yield make
    for pod in made:
        pod.close()
        assert not machine.exists("/run/netns/" + pod.netns)


def index(pod, name=TAP):
    """The ifindex of a link; None if there is none."""
    return pod.links().get(name, {}).get("ifindex")


# ---------------------------------------------------------------- a VMM dies


def test_without_the_hook_the_next_attempt_finds_the_name_taken(make_pod):
    pod = make_pod("no-hook")
    vm = VM(pod)
    assert vm.answers()
    vm.kill()
    with pytest.raises(cri.Ended, match=BUSY):
        VM(pod)


@pytest.mark.parametrize("handler", ANY_CONTAINER + ["by-process", "by-sandbox"] + VM_CONTAINER)
def test_the_vm_of_the_next_attempt_answers(make_pod, handler):
    pod = make_pod(handler)
    empty = pod.state()
    for _ in range(3):
        vm = VM(pod)
        assert vm.answers()
        vm.kill()
        # containerd reports the end only after the hook at poststop has ended
        assert pod.state() == empty


def test_at_createruntime_alone_the_vm_of_the_next_attempt_answers(make_pod):
    pod = make_pod("create")
    VM(pod).kill()
    left = index(pod)
    assert left is not None
    vm = VM(pod)
    assert vm.answers()
    assert index(pod) != left


def test_the_system_log_has_each_change_and_nothing_else(machine, make_pod):
    pod = make_pod("poststop")
    sidecar = pod.start("sidecar", *SIDECAR)
    sidecar.kill()
    vm = VM(pod)
    vm.kill()

    def lines_of(container):
        return [line for line in machine.log() if container.id in line]

    lines = cri.wait_until(lambda: lines_of(vm.container), "a message of the hook", 3)
    assert len(lines) == 1 and TAP in lines[0]
    # RFC 3164; local senders may leave the host's name out
    time_and_host = r"<\d+>[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d (\S+ )?"
    assert re.match(time_and_host + r"nlraw(\[\d+\])?: ", lines[0])
    assert lines_of(sidecar) == []


def test_a_system_log_that_nobody_reads_delays_nothing(machine, make_pod):
    """Without MSG_DONTWAIT, a send to a socket with a full queue waits for a reader."""
    pod = make_pod("poststop")
    vm = VM(pod)
    place, aside = machine.path("log"), machine.path("log-aside")
    os.rename(place, aside)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unread:
            unread.bind(place)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                with pytest.raises(BlockingIOError):
                    for _ in range(100000):
                        sender.sendto(b"<13>something", place)
            began = time.monotonic()
            vm.kill()
            assert time.monotonic() - began < 5
    finally:
        os.rename(aside, place)
    assert index(pod) is None


def test_a_start_waits_for_a_vmm_that_is_exiting(machine, make_pod):
    """The VMM holds its TAP until its memory is freed, which may be after its container's end."""
    pod = make_pod("wait")
    pod.run("ip", "tuntap", "add", "dev", TAP, "mode", "tap")
    pod.run("ip", "link", "set", TAP, "up")
    source = ATTACH + "import sys; fd = attach(%r); print('ready', flush=True)" % TAP
    source += "; sys.stdin.read()"
    argv = machine.argv(*pod.argv(PYTHON, "-I", "-S", "-c", source))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as exiting:
        assert exiting.stdout.readline() == b"ready\n"
        release = threading.Timer(1, exiting.stdin.close)
        release.start()
        try:
            vm = VM(pod)  # its process starts only after the hook has ended
            assert not release.is_alive()
        finally:
            release.join()
    assert vm.answers()


# ---------------------------------------------------------------- a sidecar restarts


@pytest.mark.parametrize("handler", ANY_CONTAINER + VM_CONTAINER)
def test_a_sidecar_restarts_beside_a_live_vm(make_pod, handler):
    pod = make_pod(handler)
    sidecar = pod.start("sidecar", *SIDECAR)
    vm = VM(pod)
    assert vm.answers()
    before = pod.state()
    for _ in range(2):
        sidecar.kill()
        assert pod.state() == before
        sidecar = pod.start("sidecar", *SIDECAR)
        assert pod.state() == before
        assert vm.answers()
    assert sidecar.is_running


@pytest.mark.parametrize("handler", ANY_CONTAINER + VM_CONTAINER)
def test_a_sidecar_restarts_while_a_vm_is_starting(make_pod, handler):
    """The TAP exists then, but no VMM has attached to it yet, so that it looks like an orphan."""
    pod = make_pod(handler)
    sidecar = pod.start("sidecar", *SIDECAR)
    vm = VM(pod, waits=True)
    before = pod.state()
    sidecar.kill()
    assert pod.state() == before
    pod.start("sidecar", *SIDECAR)
    assert pod.state() == before
    vm.attach()
    assert vm.answers()


def test_with_refuse_a_start_is_refused_while_a_tap_is_in_use(machine, make_pod):
    pod = make_pod("refuse")
    vm = VM(pod)
    before = pod.state()
    with pytest.raises(cri.CallFailed, match=TAP + ".*in use"):
        pod.start("sidecar", *SIDECAR)
    # containerd runs the hook at poststop after a refused start, too
    assert pod.state() == before
    assert vm.answers()
    vm.kill()
    vm = VM(pod)
    assert vm.answers()


# ---------------------------------------------------------------- a TAP that no VMM attached to


@pytest.mark.parametrize("handler", VM_CONTAINER)
def test_the_tap_of_a_failed_start_is_removed_at_poststop(make_pod, handler):
    pod = make_pod(handler)
    empty = pod.state()
    VM(pod, waits=True).kill()
    assert pod.state() == empty
    assert VM(pod).answers()


def test_the_tap_of_a_failed_start_is_removed_at_the_next_start(make_pod):
    pod = make_pod("vm-create")
    VM(pod, waits=True).kill()
    left = index(pod)
    assert left is not None
    vm = VM(pod)
    assert vm.answers()
    assert index(pod) != left


@pytest.mark.parametrize("handler", ANY_CONTAINER)
def test_the_tap_of_a_failed_start_is_spared_without_the_annotation(make_pod, handler):
    pod = make_pod(handler)
    VM(pod, waits=True).kill()
    before = pod.state()
    assert index(pod) is not None
    with pytest.raises(cri.Ended, match=BUSY):
        VM(pod)
    assert pod.state() == before


def test_the_restart_of_another_container_removes_nothing(make_pod):
    pod = make_pod("vm-both")
    for name in (TAP, "tap1_urunc"):
        pod.run("ip", "tuntap", "add", "dev", name, "mode", "tap")
        pod.run("ip", "link", "set", name, "up")
    pod.run(PYTHON, "-I", "-S", "-c", ATTACH + "attach(%r)" % TAP)  # the other one stays fresh
    before = pod.state()
    sidecar = pod.start("sidecar", *SIDECAR)
    sidecar.kill()
    pod.start("sidecar", *SIDECAR)
    assert pod.state() == before
    # the start of the VM's container removes both
    assert VM(pod).answers()
    assert index(pod, "tap1_urunc") is None


# ---------------------------------------------------------------- the tests leave nothing behind

KILLED = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from lib import cri
with cri.Machine({"plain": {}}) as machine:
    pod = machine.pod("plain")
    container = pod.start("sidecar", "/busybox", "sleep", "1000")
    print(json.dumps([machine.name, pod.netns]), flush=True)
    time.sleep(1000)
"""


def test_a_killed_test_leaves_nothing_behind(machine):
    """``machine`` is there to skip where none can be made."""
    argv = [sys.executable, "-c", KILLED, TESTS]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            names = json.loads(process.stdout.readline().decode())
            # keeper, unshare, sh, containerd, two shims, pause, sidecar; a cgroup; a directory
            assert len(cri.left(names[0])) >= 10
        finally:
            process.kill()
    cri.wait_until(lambda: not any(map(cri.left, names)), "the end of %s" % names[0])

# SPDX-License-Identifier: Apache-2.0
"""The agent of a node under real runtimes, without any hook: a VM dies, and the next one starts.

containerd's CRI plugin is driven as a kubelet does; podman plays a pod of Kubernetes and restarts
its containers itself; QEMU is killed and started again at once. Each attempt makes its TAP with
IFF_TUN_EXCL, as a runtime should: where the name is taken it fails.
"""

import glob
import json
import os
import shutil
import signal
import statistics
import tempfile
import time

import pytest

from lib import agents, command, cri, guest, pods
from lib.agents import Agent, Host
from live.once import test_cri
from live.once.test_cri import ATTACH, PYTHON, VM
from live.once.test_story import image as guest_image

image = guest_image  # the fixture
TAP = pods.TAP
# How many times each story is played. The promise is 20 of 20.
TRIES = int(os.environ.get("NLRAW_TRIES", "5"))

# No look at everything happens by itself meanwhile: what is found is found by events.
NEVER = ("--resync", "1000")

# Between the agent and the next start there is a race. The agent wins it by far, unless others hold
# the kernel's lock of all links, or the processors, for long: one of several series must be whole.
FIRST = ["nice", "-n", "-10"]
SERIES = 3

# A sidecar with TC state of its own, on links of its own; it holds its TAP and sleeps.
SIDECAR = (
    ATTACH
    + """
import subprocess, sys, time
name = sys.argv[1]
fd = attach(name, 0x8000)  # IFF_TUN_EXCL
fcntl.ioctl(fd, 0x400454CB, 1)  # TUNSETPERSIST
run = lambda line: subprocess.run(line.split(), check=True)
run("ip link add net1 type veth peer name net2")
for dev in ("net1", "net2", name):
    run("ip link set %s up" % dev)
for dev in ("net1", name):
    run("tc qdisc add dev %s ingress" % dev)
for pair in (("net1", name), (name, "net1")):
    line = "tc filter add dev %s ingress protocol all u32 match u32 0 0 action mirred egress "
    run((line + "redirect dev %s") % pair)
print("set up", flush=True)
time.sleep(1000)
"""
)


# ---------------------------------------------------------------- containerd


@pytest.fixture(scope="module")
def machine():
    reason = test_cri.missing()
    if reason is not None:
        pytest.skip("needs containerd: " + reason)
    try:
        made = cri.Machine({"plain": {}})
    except cri.Unavailable as error:
        pytest.skip("needs namespaces of its own: %s" % error)
    yield made
    made.close()
    assert cri.left(made.name) == []


@pytest.mark.parametrize(
    "name, options",
    [("tap1_sidecar", ()), ("tap1_urunc", ("--keep-in-use",))],
    ids=["a name of its own", "a name that matches"],
)
def test_under_containerd_each_attempt_starts_and_the_sidecar_is_not_touched(
    machine, name, options
):
    series = []
    with Agent(*NEVER, *options, before=FIRST + machine.argv(), forks=True) as agent:
        pod = machine.pod("plain")
        try:
            sidecar = pod.start("sidecar", PYTHON, "-I", "-S", "-c", SIDECAR, name)
            sidecar.wait_for("set up")
            before = pod.state()
            while len(series) < SERIES and not (series and series[-1].taken == 0):
                series.append(Restarts(pod, TRIES))
                agents.wait_until(lambda: pod.state() == before, pod.state)
            assert sidecar.is_running
            path = "/run/netns/" + pod.netns
            assert agent.deletions() == [(path, TAP)] * TRIES * len(series)
            assert agent.failures() == []
        finally:
            pod.close()
        # which the agent does not keep alive
        assert not machine.exists("/run/netns/" + pod.netns)
        agents.wait_until(
            lambda: (
                not [line for line in machine.run("ip", "-o", "link").splitlines() if "@if" in line]
            ),
            "the end of the pod's namespace",
        )
        assert agent.stop()[0].status == 0
    reported = [line.moment for line in agent.lines if line.document["outcome"] == "cleaned"]
    for number, each in enumerate(series):
        each.show(reported[number * TRIES :])
    assert series[-1].taken == 0


class Restarts:
    """VMs that die and are started again at once; ``taken`` counts the starts that failed."""

    def __init__(self, pod, count):
        self.taken = 0
        self.killed, self.ended = [], []
        for _ in range(count):
            vm = self._start(pod)
            assert vm.answers()
            self.killed.append(time.monotonic())
            vm.kill()
            self.ended.append(time.monotonic())

    def _start(self, pod):
        while True:
            try:
                return VM(pod)
            except cri.Ended as error:
                assert test_cri.BUSY in str(error)
                self.taken += 1
                assert self.taken < 100

    def show(self, reported):
        facts = (self.taken, len(self.killed))
        print("containerd: the name was taken at %d of %d starts; after the kill" % facts)
        for name, moments in (("EXITED", self.ended), ("the agent's report", reported)):
            taken = sorted(moment - began for began, moment in zip(self.killed, moments))
            facts = (name, statistics.median(taken) * 1e3, taken[-1] * 1e3)
            print("%s after %.0f ms in the median, %.0f at most" % facts)


# ---------------------------------------------------------------- podman

POD_IMAGE = "localhost/nlraw-test:1"

# What runs in the VM's container. It is started again by podman whenever it ends.
KUBE_VM = (
    ATTACH
    + """
import subprocess, sys, time
name = sys.argv[1]
try:
    fd = attach(name, 0x8000)  # IFF_TUN_EXCL
except OSError as error:
    print("failed: %s" % error, flush=True)
    time.sleep(0.2)  # podman starts it again
    sys.exit("create %s: %s" % (name, error.strerror))
fcntl.ioctl(fd, 0x400454CB, 1)  # TUNSETPERSIST
os.close(fd)
run = lambda line: subprocess.run(line.split(), check=True)
run("ip link set %s up" % name)
for dev in ("eth0", name):
    run("tc qdisc add dev %s ingress" % dev)
for pair in (("eth0", name), (name, "eth0")):
    line = "tc filter add dev %s ingress protocol all u32 match u32 0 0 action mirred egress "
    run((line + "redirect dev %s") % pair)
fd = attach(name)
print("attached", flush=True)
time.sleep(1000)
"""
)

# An infra container takes no --ulimit.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_backend = "cni"
cni_plugin_dirs = [{plugins}]
network_config_dir = {network}
default_network = "nlraw"
[engine]
infra_image = {image}
"""


def kube_pod():
    """The pod, as JSON, which is YAML too."""

    def container(name, tap):
        return {
            "name": name,
            "image": POD_IMAGE,
            "imagePullPolicy": "Never",
            "command": [PYTHON, "-I", "-S", "/%s.py" % name, tap],
            "env": [{"name": "PATH", "value": "/usr/sbin:/usr/bin"}],
            "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
            "volumeMounts": [
                {"name": "usr", "mountPath": "/usr", "readOnly": True},
                {"name": "tun", "mountPath": "/dev/net/tun"},
            ],
        }

    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod1"},
        "spec": {
            "restartPolicy": "Always",
            "containers": [
                container("sidecar", "tap1_sidecar"),
                container("vm", TAP),
            ],
            "volumes": [
                {"name": "usr", "hostPath": {"path": "/usr"}},
                {"name": "tun", "hostPath": {"path": "/dev/net/tun", "type": "CharDevice"}},
            ],
        },
    }


class Podman:
    """podman on a host of its own."""

    def __init__(self, host, directory):
        self.host = host
        self.directory = directory
        network = self._path("network")
        os.mkdir(network)
        with open(os.path.join(network, "nlraw.conflist"), "w") as file:
            json.dump(cri.NETWORK, file)
        self._argv = ["env", "CONTAINERS_CONF=" + self._path("containers.conf"), "podman"]
        self._argv += ["--storage-driver=vfs", "--cgroup-manager=cgroupfs"]
        self._argv += ["--network-config-dir", network, "--runtime", shutil.which("runc")]
        for option in ("root", "runroot", "tmpdir"):
            self._argv += ["--" + option, self._path(option)]
        values = {"plugins": cri.plugin_directory(), "network": network, "image": POD_IMAGE}
        with open(self._path("containers.conf"), "w") as file:
            file.write(
                CONTAINERS_CONF.format(**{key: json.dumps(text) for key, text in values.items()})
            )
        self._import()

    def _path(self, name):
        return os.path.join(self.directory, name)

    def _import(self):
        rootfs = self._path("rootfs")
        for name in ("usr", "tmp", "dev", "proc", "sys"):
            os.makedirs(os.path.join(rootfs, name))
        for name in ("lib", "lib64", "bin", "sbin"):
            os.symlink("usr/" + name, os.path.join(rootfs, name))
        shutil.copy(shutil.which("busybox"), rootfs)
        # podman does not copy what a YAML of this length has in it as it is
        for name, source in (("sidecar", SIDECAR), ("vm", KUBE_VM)):
            with open(os.path.join(rootfs, name + ".py"), "w") as file:
                file.write(source)
        idle = 'CMD ["/busybox", "sleep", "1000000"]'
        argv = self._argv + ["import", "-q", "-c", idle, "-", POD_IMAGE]
        self.host.run("sh", "-c", 'tar -C "$0" -c . | "$@"', rootfs, *argv)

    def __call__(self, *arguments):
        return self.host.run(*self._argv, *arguments).strip()

    def play(self):
        with open(self._path("pod.yaml"), "w") as file:
            json.dump(kube_pod(), file)
        self("kube", "play", self._path("pod.yaml"))

    def pid(self):
        """That of the VM, as the host's PID namespace counts; 0 while it does not run."""
        return int(self("inspect", "pod1-vm", "--format", "{{.State.Pid}}"))

    def said(self, name="vm"):
        """The lines that a container's processes printed, one after the other."""
        return self.host.run(
            "sh", "-c", '"$@" 2>&1', "sh", *self._argv, "logs", "pod1-" + name
        ).splitlines()

    def wait_for_restart(self, pid, times):
        """Wait until another process of the VM is there, and so many in all have attached."""
        agents.wait_until(
            lambda: len(self.said()) >= times and self.pid() not in (0, pid),
            lambda: "%d starts: %s" % (times, self.said()),
            pause=0.1,
        )


@pytest.fixture
def podman(make_pod):
    """``make_pod`` is there to skip where no namespace can be made."""
    for program in ("podman", "conmon", "runc", "busybox"):
        if shutil.which(program) is None:
            pytest.skip("no " + program)
    if cri.plugin_directory() is None:
        pytest.skip("no CNI plugins")
    if not os.path.islink("/lib") or not os.path.exists(PYTHON):
        pytest.skip("/lib is not in /usr, or there is no " + PYTHON)
    parents = set(glob.glob("/sys/fs/cgroup/*/libpod_parent"))
    # whose name is short, as podman wants it
    short = tempfile.TemporaryDirectory(prefix="nlraw-")
    with short as directory, Host("/var/lib", "/dev/shm") as host:
        yield Podman(host, directory)
    for path in set(glob.glob("/sys/fs/cgroup/*/libpod_parent")) - parents:
        for directory, _, _ in os.walk(path, topdown=False):
            agents.wait_until(lambda directory=directory: _is_removed(directory), directory)


def _is_removed(cgroup):
    try:
        os.rmdir(cgroup)
    except FileNotFoundError:
        pass
    except OSError:  # a process that has just ended may still be counted
        return False
    return True


def test_under_podman_kube_play_each_restart_starts_and_the_sidecar_is_not_touched(podman):
    host = podman.host
    with Agent(*NEVER, before=FIRST + host.enter, forks=True) as agent:
        podman.play()
        for name, words in (("sidecar", "set up"), ("vm", "attached")):
            agents.wait_until(
                lambda name=name, words=words: podman.said(name) == [words],
                lambda name=name: podman.said(name),
                pause=0.1,
            )
        (name,) = host.run("ls", "/run/netns").split()
        enter = ("nsenter", "--net=/run/netns/" + name)

        def state():
            """What is the sidecar's."""
            links = json.loads(host.run(*enter, "ip", "-j", "link"))
            devices = ("net1", "tap1_sidecar")
            filters = [
                host.run(*enter, *("tc -d filter show dev %s ingress" % dev).split())
                for dev in devices
            ]
            return {link["ifname"]: link["ifindex"] for link in links}, filters

        before = state()
        assert before[0].pop(TAP)
        for number in range(1, TRIES + 1):
            pid = podman.pid()
            host.run("kill", "-s", "KILL", str(pid))
            podman.wait_for_restart(pid, number + 1)
            assert podman.said() == ["attached"] * (number + 1)  # the name was never taken
            after = state()
            assert after[0].pop(TAP)
            assert after == before
        assert agent.deletions() == [("/run/netns/" + name, TAP)] * TRIES
        assert agent.failures() == []
        podman("kube", "down", os.path.join(podman.directory, "pod.yaml"))
        assert host.run("ls", "/run/netns") == ""
        assert agent.stop()[0].status == 0
    print("podman kube play: %d of %d" % (TRIES, TRIES))


# ---------------------------------------------------------------- QEMU


def test_qemu_is_killed_and_started_again_at_once_on_the_same_name(
    make_pod,
    node,
    image,
    tmp_path,
):
    far = make_pod(uplink=None)
    pod = make_pod(node=far)
    path = node.pin("pod1", pod.path)
    uplink = pod.links()["eth0"]["address"]
    enter = ["ip", "netns", "exec", pod.name]
    pinger = guest.Pinger(["ip", "netns", "exec", far.name], pods.POD_ADDRESS, tmp_path / "pings")
    freed = []
    with pinger, Agent("--dir", node.directory, *NEVER, before=FIRST) as agent, agents.Probe(
        path
    ) as probe:
        for number in range(TRIES + 1):
            pod.add_tap()  # IFF_TUN_EXCL: it raises if the name is taken
            console = tmp_path / ("console%d" % number)
            card = guest.card(TAP, uplink, 1500)
            lines = guest.commands(pods.POD_ADDRESS + "/24")
            ttl = 70 + number
            with guest.Guest(enter, image, console, card, lines, ttl) as vm:
                agents.wait_until(
                    lambda: "LOWER_UP" in pod.links()[TAP]["flags"], vm.console, pause=0.05
                )
                if number in (0, TRIES):
                    pinger.wait_for(ttl, 60)
                began = time.monotonic()
                os.kill(vm.pid, signal.SIGKILL)
                freed.append(probe.wait(began))
            # it is reaped by now
        agent.wait_for(path, TRIES + 1)
        assert agent.failures() == []
        assert agent.stop()[0].status == 0
    freed.sort()
    facts = (TRIES, TRIES, statistics.median(freed) * 1e3, freed[-1] * 1e3)
    print("QEMU: %d of %d; name free after %.1f ms in the median, %.1f at most" % facts)
    assert command.run("ip", "-n", pod.name, "link", "show", "eth0")

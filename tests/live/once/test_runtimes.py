# SPDX-License-Identifier: Apache-2.0
"""The hook in use: real runc, crun and podman, with the files that `nlraw deploy` prints.

Each test has a machine of its own: a mount namespace in which nlraw lies where they expect it,
and a network namespace with an orphan, which is the node's and must never be touched.
"""

import glob
import json
import os
import shutil
import subprocess
import tempfile
import time

import pytest

from lib import command, guest, pods, readme
from lib.command import PACKAGE, PATIENCE

LIB = os.path.dirname(os.path.abspath(pods.__file__))
PYTHON = "/usr/bin/python3"
TAP = pods.TAP

# What the hooks.d file asks for.
ANNOTATION = "com.urunc.unikernel.unikernelType=linux"

# How each is started, and with which status it ends when a hook refuses the start.
RUNTIMES = {"runc": (["runc"], 1), "crun": (["crun", "--cgroup-manager=disabled"], 255)}

# What furnishes a mount namespace that sees what is mounted later, and whose own mounts nobody
# sees. crun runs only where one version of cgroups is mounted.
FURNISH = """
set -e
if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
mount -t tmpfs tmpfs /opt
mount -t tmpfs tmpfs /dev/shm
if [ -d /usr/share/containers ]; then mount -t tmpfs tmpfs /usr/share/containers; fi
mkdir /opt/nlraw
cp -r "$0" /opt/nlraw/nlraw
echo ready
exec sleep 1000
"""


def printed(name):
    """A file, as `nlraw deploy` prints it for the copy that a machine below has."""
    with open(os.path.join(PACKAGE, "deploy", name)) as file:
        return file.read()


# The command that the pages call `nlraw`, in a shell's words.
NLRAW = 'nlraw() { %s -I /opt/nlraw/nlraw "$@"; }\n' % PYTHON


def missing(*programs):
    reason = pods.missing()
    if reason is not None:
        return reason
    for program in programs + ("busybox", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return "no " + program
    if not os.path.exists(PYTHON):
        return "no " + PYTHON
    return None


class Machine:
    """A mount namespace of its own, and the network namespace of a node."""

    def __init__(self, node, directory):
        self.node = node
        self.directory = directory
        argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", FURNISH, PACKAGE]
        self._holder = subprocess.Popen(argv, stdout=subprocess.PIPE, universal_newlines=True)
        if self._holder.stdout.readline() != "ready\n":
            self.close()
            pytest.skip("a mount namespace cannot be furnished here")
        self.rootfs = os.path.join(directory, "rootfs")
        os.makedirs(self.rootfs)
        shutil.copy(shutil.which("busybox"), self.rootfs)

    def argv(self, *argv):
        pid = str(self._holder.pid)
        return ["nsenter", "--mount=/proc/%s/ns/mnt" % pid, "--net=" + self.node.path] + list(argv)

    def run(self, *argv):
        return command.attempt(*self.argv(*argv), stdin=subprocess.DEVNULL, timeout=PATIENCE)

    def hooks(self):
        """The hook processes that there are in it."""
        ours = os.readlink("/proc/%d/ns/mnt" % self._holder.pid)
        return [pid for pid in os.listdir("/proc") if pid.isdigit() and _is_hook(pid, ours)]

    def close(self):
        self._holder.kill()
        self._holder.wait()
        self._holder.stdout.close()


def _is_hook(pid, mounts):
    try:
        with open("/proc/%s/cmdline" % pid, "rb") as file:
            return b"/opt/nlraw" in file.read() and os.readlink("/proc/%s/ns/mnt" % pid) == mounts
    except OSError:  # it has ended
        return False


@pytest.fixture
def machine(make_pod):
    reason = missing()
    if reason is not None:
        pytest.skip("needs a machine of its own: " + reason)
    node = make_pod()
    node.add_orphan()
    before = node.state()
    # whose name is short, as podman wants it
    with tempfile.TemporaryDirectory(prefix="nlraw-") as directory:
        made = Machine(node, directory)
        yield made
        assert made.hooks() == []
        made.close()
    assert node.state() == before


# ---------------------------------------------------------------- runc and crun


class Runtime:
    """runc or crun, and the containers that it runs on a machine."""

    def __init__(self, name, machine):
        self.name = name
        self.machine = machine
        self.refused = RUNTIMES[name][1]
        self._argv = RUNTIMES[name][0] + ["--root", os.path.join(machine.directory, "state")]
        self._started = []

    def argv(self, namespace, command, hooks, *mounts):
        """Run a container with a network namespace (None: the host's), a command and hooks."""
        bundle = os.path.join(self.machine.directory, "bundle%d" % len(self._started))
        os.mkdir(bundle)
        capabilities = ["CAP_NET_ADMIN"]
        namespaces = [{"type": kind} for kind in ("pid", "mount", "uts", "ipc")] + [namespace] * (
            namespace is not None
        )
        config = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": list(command),
                "env": ["PATH=/usr/sbin:/usr/bin"],
                "cwd": "/",
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            },
            "root": {"path": self.machine.rootfs},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            ]
            + [
                {"destination": path, "type": "bind", "source": source, "options": ["bind"]}
                for path, source in mounts
            ],
            "linux": {
                "namespaces": namespaces,
                "resources": {"devices": [{"allow": True, "access": "rwm"}]},
            },
            "hooks": hooks,
        }
        if namespace is not None:
            config["mounts"].append({"destination": "/sys", "type": "sysfs", "source": "sysfs"})
        with open(os.path.join(bundle, "config.json"), "w") as file:
            json.dump(config, file)
        self._started.append("nlraw-test-%d-%d" % (os.getpid(), len(self._started)))
        return self._argv + ["run", "--bundle", bundle, self._started[-1]]

    def run(self, *arguments):
        return self.machine.run(*self.argv(*arguments))

    def start(self, *arguments):
        return Container(self, self.machine.argv(*self.argv(*arguments)), self._started[-1])

    def state(self, container):
        status, out, err = self.machine.run(*self._argv + ["state", container])
        assert status == 0, err
        return json.loads(out)

    def close(self):
        for container in self._started:
            self.machine.run(*self._argv + ["delete", "--force", container])


class Container:
    """A container that runs; its first line of output is read by then. It ends with its input."""

    def __init__(self, runtime, argv, name):
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
        )
        self.said = self._process.stdout.readline()
        self._runtime, self._name = runtime, name

    def kill(self):
        """End its process as a crash does, and wait until the runtime has seen it.

        Returns what the runtime ended with.
        """
        os.kill(self._runtime.state(self._name)["pid"], 9)
        return self.wait()

    def wait(self):
        """The same once it is at the end of its input."""
        self._process.stdin.close()
        self.said += self._process.stdout.read()
        self._process.stdout.close()
        return self._process.wait(timeout=PATIENCE)


@pytest.fixture(params=sorted(RUNTIMES))
def runtime(request, machine):
    if shutil.which(request.param) is None:
        pytest.skip("no " + request.param)
    made = Runtime(request.param, machine)
    yield made
    made.close()


HOOKS = json.loads(printed("base-runtime-spec.json"))["hooks"]
BEFORE = {"createRuntime": HOOKS["createRuntime"]}


def refusing(hooks):
    """The same hooks with the option that refuses a start."""
    return {
        stage: [dict(hook, args=hook["args"] + ["--refuse"]) for hook in listed]
        for stage, listed in hooks.items()
    }


LIST_LINKS = ("/busybox", "ls", "/sys/class/net")
WAIT = ("/busybox", "sh", "-c", "echo ready; cat")


def network(pod):
    return {"type": "network", "path": pod.path}


@pytest.mark.parametrize("stage", ["createRuntime", "prestart"])
def test_an_orphan_is_gone_before_the_container_starts(runtime, pod, stage):
    before = pod.state()
    pod.add_orphan()
    assert runtime.run(network(pod), LIST_LINKS, {stage: HOOKS["createRuntime"]}) == (
        0,
        "eth0\nlo\npeer0\n",
        "",
    )
    assert pod.state() == before


def test_without_the_hook_it_is_still_there(runtime, pod):
    pod.add_orphan()
    assert TAP in runtime.run(network(pod), LIST_LINKS, {})[1].split()


def test_a_container_starts_while_a_tap_is_in_use_and_the_tap_stays(runtime, pod):
    pod.add_tap()
    pod.hold()
    before = pod.state()
    status, out, err = runtime.run(network(pod), LIST_LINKS, HOOKS)
    assert (status, TAP in out.split()) == (0, True), err
    assert pod.state() == before


def test_a_fresh_tap_is_left_to_the_start_in_progress(runtime, pod):
    pod.add_tap()
    before = pod.state()
    status, out, err = runtime.run(network(pod), LIST_LINKS, HOOKS)
    assert (status, TAP in out.split()) == (0, True), err
    assert pod.state() == before


def test_a_start_is_refused_while_a_tap_is_in_use_if_that_is_asked_for(runtime, pod):
    pod.add_tap()
    pod.hold()
    before = pod.state()
    status, out, err = runtime.run(network(pod), LIST_LINKS, refusing(HOOKS))
    assert (status, out) == (runtime.refused, "")
    if runtime.name == "runc":  # crun keeps what its hooks say to itself
        assert (
            "exit status 3" in err
            and "clean up tap0_urunc: in use (carrier on), nothing was changed" in err
        )
    assert pod.state() == before


def test_an_orphan_that_a_container_leaves_is_gone_once_it_has_stopped(runtime, pod):
    before = pod.state()
    container = runtime.start(network(pod), WAIT, HOOKS)
    assert container.said == "ready\n"
    pod.add_orphan()
    assert container.kill() == 128 + 9
    assert pod.state() == before


def test_a_tap_in_use_when_a_container_stops_is_left_alone_and_changes_nothing(runtime, pod):
    container = runtime.start(network(pod), WAIT, HOOKS)
    pod.add_tap()
    pod.hold()
    before = pod.state()
    assert container.wait() == 0
    assert pod.state() == before


@pytest.mark.parametrize("namespace", [{"type": "network"}, None], ids=["a new one", "the host's"])
def test_a_container_with_another_network_is_none_of_its_business(runtime, namespace):
    # whose orphan the fixture looks after
    assert runtime.run(namespace, ("/busybox", "echo", "hello"), HOOKS) == (0, "hello\n", "")


def test_a_hook_that_runs_inside_the_containers_namespaces_changes_nothing(runtime, pod):
    """What the README warns of."""
    pod.add_orphan()
    before = pod.state()
    status, out, err = runtime.run(
        network(pod), LIST_LINKS, {"createContainer": HOOKS["createRuntime"]}
    )
    if runtime.name == "runc":  # which puts it into the container's PID namespace, too
        assert (status, out) == (1, "") and "/proc shows another PID namespace" in err
    else:
        assert (status, err) == (0, "") and TAP in out.split()
    assert pod.state() == before


def test_a_namespace_that_goes_while_the_container_runs_is_no_error(runtime, make_pod):
    pod = make_pod()
    container = runtime.start(network(pod), WAIT, HOOKS)
    command.run("umount", pod.path)
    assert container.wait() == 0
    assert "nlraw" not in container.said


def test_what_the_page_says_to_try_does_nothing_on_the_node(machine):
    said = "container try: it has the host's network, which is left alone; nothing to do\n"
    (text,) = readme.blocks("The hook", "sh", readme.DEPLOY)
    assert machine.run("sh", "-c", NLRAW + text) == (0, said, "")


# ---------------------------------------------------------------- podman


class Podman:
    """podman over a runtime, with all that it keeps in a directory of its own."""

    def __init__(self, runtime, machine):
        self.machine = machine
        self.hooks = os.path.join(machine.directory, "hooks.d")
        os.mkdir(self.hooks)
        with open(os.path.join(self.hooks, "nlraw.json"), "w") as file:
            file.write(printed("hooks.d.json"))
        self._argv = [
            "podman",
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--runtime",
            shutil.which(runtime),
        ]
        for option in ("root", "runroot", "tmpdir"):
            self._argv += ["--" + option, os.path.join(machine.directory, option)]
        self._cgroup = "nlraw-test-%d" % os.getpid()
        self._limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        self._limits += (
            ["--cgroups=disabled"] if runtime == "crun" else ["--cgroup-parent", "/" + self._cgroup]
        )

    def argv(self, pod, command, *arguments):
        named = [] if self.hooks is None else ["--hooks-dir", self.hooks]
        argv = self._argv + named + ["run", "--rm"] + self._limits
        argv += list(arguments) + ["--network", "ns:" + pod.path, "--rootfs", self.machine.rootfs]
        return argv + ["/busybox", "sh", "-c", command]

    def run(self, pod, *arguments):
        """Run a container that lists the links of its network namespace.

        Its exit status, the links, None where it did not start, and what podman complained of.
        """
        # into a file: what a container prints on a busy machine is lost now and then
        status, _, err = self.machine.run(
            *self.argv(pod, "exec /busybox ls /sys/class/net >/links", *arguments)
        )
        path = os.path.join(self.machine.rootfs, "links")
        if not os.path.exists(path):
            return status, None, err
        with open(path) as file:
            links = file.read().split()
        os.unlink(path)
        return status, links, err

    def close(self):
        """Remove what podman leaves: the parent of its cgroups, under each controller or all."""
        for path in glob.glob("/sys/fs/cgroup/*/" + self._cgroup) + glob.glob(
            "/sys/fs/cgroup/" + self._cgroup
        ):
            for directory, _, _ in os.walk(path, topdown=False):
                _remove(directory)


def _remove(cgroup):
    """Remove a cgroup, once the last process in it has ended."""
    deadline = time.monotonic() + 10
    while os.path.exists(cgroup):
        try:
            os.rmdir(cgroup)
        except OSError:
            assert time.monotonic() < deadline, cgroup
            time.sleep(0.05)


@pytest.fixture
def podman(request, machine):
    """podman over runc, or over the runtime that a test is parametrized with."""
    runtime = getattr(request, "param", "runc")
    for program in ("podman", "conmon", runtime):
        if shutil.which(program) is None:
            pytest.skip("no " + program)
    made = Podman(runtime, machine)
    yield made
    made.close()


@pytest.mark.parametrize("podman", sorted(RUNTIMES), indirect=True)
def test_podman_runs_the_hook_for_what_has_the_annotation(podman, pod):
    pod.add_orphan()
    assert podman.run(pod)[:2] == (0, ["eth0", "lo", "peer0", TAP])  # it has none
    assert podman.run(pod, "--annotation", ANNOTATION)[:2] == (0, ["eth0", "lo", "peer0"])
    assert TAP not in pod.links()


def test_podman_finds_the_hook_where_the_readme_puts_it(podman, pod):
    if not os.path.isdir("/usr/share/containers"):
        pytest.skip("no /usr/share/containers, which a file system of our own would hide")
    pod.add_orphan()
    text = readme.block("You run Kubernetes", "sh", "hooks.d")
    assert podman.machine.run("sh", "-c", NLRAW + text)[0] == 0
    podman.hooks = None
    assert podman.run(pod, "--annotation", ANNOTATION)[:2] == (0, ["eth0", "lo", "peer0"])


def test_podman_runs_the_hook_once_the_container_has_stopped(podman, pod):
    before = pod.state()
    waiting = "echo >/begun; until [ -e /end ]; do /busybox sleep 0.05; done"
    process = subprocess.Popen(
        podman.machine.argv(*podman.argv(pod, waiting, "--annotation", ANNOTATION))
    )
    rootfs = podman.machine.rootfs
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(os.path.join(rootfs, "begun")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    pod.add_orphan()
    open(os.path.join(rootfs, "end"), "w").close()
    assert process.wait(timeout=PATIENCE) == 0
    assert pod.state() == before


def test_podman_starts_a_container_while_a_tap_is_in_use_and_the_tap_stays(podman, pod):
    pod.add_tap()
    pod.hold()
    before = pod.state()
    for arguments in ((), ("--annotation", ANNOTATION)):
        assert podman.run(pod, *arguments)[:2] == (0, ["eth0", "lo", "peer0", TAP])
    assert pod.state() == before


def test_podman_refuses_a_start_if_that_is_asked_for_but_not_to_a_sidecar_without_the_annotation(
    podman, pod
):
    path = os.path.join(podman.hooks, "nlraw.json")
    with open(path) as file:
        config = json.load(file)
    config["hook"]["args"].append("--refuse")
    with open(path, "w") as file:
        json.dump(config, file)
    pod.add_tap()
    pod.hold()
    before = pod.state()
    assert podman.run(pod, "--annotation", ANNOTATION)[:2] == (126, None)
    assert podman.run(pod)[0] == 0
    assert pod.state() == before


def test_podman_starts_the_container_in_silence_where_the_hook_is_missing(podman, pod):
    """What the README warns of."""
    pod.add_orphan()
    path = os.path.join(podman.hooks, "nlraw.json")
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace(PYTHON, "/opt/nlraw/nowhere"))
    assert podman.run(pod, "--annotation", ANNOTATION) == (0, ["eth0", "lo", "peer0", TAP], "")


# ------------------------------- a VMM crashes, and its container is started again (pytest -rP)

# What a runtime and its VMM do in a container: make the TAP and the redirects, attach, answer as a
# guest.
VMM = """
import fcntl, os, struct, subprocess, sys
sys.path.insert(0, "/tests")
import standin
tap, uplink = sys.argv[1], "eth0"
fd = os.open("/dev/net/tun", os.O_RDWR)
flags = standin.IFF_TAP | standin.IFF_NO_PI | standin.IFF_VNET_HDR
try:
    # IFF_TUN_EXCL
    fcntl.ioctl(fd, standin.TUNSETIFF, struct.pack("=16sH22x", tap.encode(), flags | 0x8000))
except OSError as error:
    sys.exit("create %s: %s" % (tap, error.strerror))
fcntl.ioctl(fd, 0x400454CB, 1)  # TUNSETPERSIST
os.close(fd)
subprocess.check_call(["ip", "link", "set", tap, "up"])
for dev, target in ((uplink, tap), (tap, uplink)):
    subprocess.check_call(["tc", "qdisc", "add", "dev", dev, "ingress"])
    place = ["tc", "filter", "add", "dev", dev, "ingress", "protocol", "all"]
    subprocess.check_call(place + ["u32", "match", "u32", "0", "0",
                           "action", "mirred", "egress", "redirect", "dev", target])
standin.main(tap, *sys.argv[2:])
"""


class Story:
    """A pod behind a node, and a runtime that starts VMs in it."""

    def __init__(self, runtime, make_pod):
        if not os.path.islink("/lib"):
            pytest.skip("needs a system whose libraries are below /usr")
        self.runtime = runtime
        self.node = make_pod(uplink=None)
        self.pod = make_pod(node=self.node)
        self.address = self.pod.links()["eth0"]["address"]
        self.enter = ["ip", "netns", "exec", self.node.name]
        for name in ("lib", "lib64", "bin", "sbin"):  # as on every system of today
            os.symlink("usr/" + name, os.path.join(runtime.machine.rootfs, name))

    def start(self, ttl, hooks):
        """Start a VM with a TTL of its own."""
        command = (PYTHON, "-I", "-S", "-c", VMM, TAP, self.address, pods.POD_ADDRESS, str(ttl))
        mounts = (("/usr", "/usr"), ("/dev/net/tun", "/dev/net/tun"), ("/tests", LIB))
        return self.runtime.start(network(self.pod), command, hooks, *mounts)


def test_a_pod_whose_vmm_was_killed_comes_back_because_of_the_hook(runtime, make_pod, tmp_path):
    story = Story(runtime, make_pod)
    empty = story.pod.state()
    with guest.Pinger(story.enter, pods.POD_ADDRESS, tmp_path / "pings") as pinger:
        vm = story.start(71, BEFORE)
        assert vm.said == "ready\n"
        pinger.wait_for(71, 10)
        # 1 killed: the TAP outlives it, and without the hook the pod never comes back
        assert vm.kill() == 128 + 9
        again = story.start(72, {})
        assert (again.said, again.wait()) == ("create %s: Device or resource busy\n" % TAP, 1)
        print(
            "%s, 1 killed, started again without the hook: %s" % (runtime.name, again.said.strip())
        )
        # 2 with the hook it does
        vm = story.start(73, BEFORE)
        assert vm.said == "ready\n"
        first = pinger.wait_for(73, 10)
        print("%s, 2 started again with the hook: the VM answers with its TTL" % runtime.name)
        # 3 a sidecar that is started again beside it starts, whether it has the hook or not, and
        # is refused if it has one that refuses
        status = runtime.run(network(story.pod), LIST_LINKS, refusing(BEFORE))[0]
        assert status == runtime.refused
        for hooks in (BEFORE, {}):
            assert TAP in runtime.run(network(story.pod), LIST_LINKS, hooks)[1].split()
        print(
            "%s, 3 a sidecar with the hook, or without it: starts; with --refuse: exit status %d"
            % (runtime.name, status)
        )
        time.sleep(0.2)  # for the answers to the last ones
        assert {
            ping.ttl for ping in pinger.pings() if first.sent <= ping.sent < time.monotonic() - 0.1
        } == {73}
        # 4 the next one starts with a clean namespace, and poststop leaves one
        assert vm.kill() == 128 + 9
        vm = story.start(74, HOOKS)
        pinger.wait_for(74, 10)
        assert vm.kill() == 128 + 9
    assert story.pod.state() == empty
    print(
        "%s, 4 killed, started and killed again: poststop has left the namespace as it was at first"
        % runtime.name
    )


def test_a_pod_of_podmans_whose_vmm_was_killed_comes_back_because_of_the_hook(
    podman, make_pod, tmp_path
):
    story = Story(podman, make_pod)
    empty = story.pod.state()
    with open(os.path.join(podman.machine.rootfs, "vmm.py"), "w") as file:
        file.write(VMM)

    def start(ttl, *arguments):
        """Start a VM in a container; the process of podman."""
        command = "exec %s -I -S /vmm.py %s %s %s %d" % (
            PYTHON,
            TAP,
            story.address,
            pods.POD_ADDRESS,
            ttl,
        )
        arguments += (
            "-i",
            "--cap-add",
            "NET_ADMIN",
            "--device",
            "/dev/net/tun",
            "-v",
            "/usr:/usr",
            "-v",
            LIB + ":/tests",
        )
        argv = podman.machine.argv(*podman.argv(story.pod, command, *arguments))
        pipes = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.PIPE,
            "universal_newlines": True,
        }
        return subprocess.Popen(argv, **pipes)

    def kill(process, ttl):
        """End the VM as a crash does; the exit status of podman."""
        words = ["/vmm.py", str(ttl)]
        (pid,) = [pid for pid in os.listdir("/proc") if pid.isdigit() and _runs(pid, words)]
        os.kill(int(pid), 9)
        return ended(process)[0]

    def ended(process):
        err = process.communicate(timeout=PATIENCE)[1]
        return process.returncode, err

    with guest.Pinger(story.enter, pods.POD_ADDRESS, tmp_path / "pings") as pinger:
        vm = start(71)
        pinger.wait_for(71, 20)
        # 1 killed: the TAP outlives it, and without the hook the pod never comes back
        assert kill(vm, 71) == 128 + 9
        status, err = ended(start(72))
        assert status == 1
        assert "create %s: Device or resource busy" % TAP in err
        print("podman, 1 killed, started again without the hook: %s" % err.strip())
        # 2 with the hook it does, and what it leaves in the end goes too
        vm = start(73, "--annotation", ANNOTATION)
        pinger.wait_for(73, 20)
        assert kill(vm, 73) == 128 + 9
    assert story.pod.state() == empty
    print(
        "podman, 2 started again with the hook: the VM answers with its TTL; killed: the namespace "
        "is as it was at first"
    )


def _runs(pid, words):
    """True if a process is a Python of ours with these words, and no podman or shell with them."""
    try:
        with open("/proc/%s/cmdline" % pid, "rb") as file:
            argv = file.read().decode().split("\0")
    except OSError:  # it has ended
        return False
    return argv[0] == PYTHON and all(word in argv for word in words)

# SPDX-License-Identifier: Apache-2.0
"""containerd with its CRI plugin, driven through gRPC as a kubelet does.

Each `Machine` is one containerd in network, mount and PID namespaces of its own. The PID namespace
makes the cleanup certain: shims and containers daemonise, and the kernel kills them all with its
first process. That process ends when the pipe to it closes, even if the test is killed. A `keeper`
outside the namespaces then removes what is not bound to a process: cgroups and a directory.

    with Machine({"runc": {"poststop": [hook]}}) as machine:      handler name: hooks of its spec
        pod = machine.pod("runc")                                 RunPodSandbox
        container = pod.start("vm", "/busybox", "sleep", "1000")  attempt 0: Create-, StartContainer
        container.kill()                                          as a crash does, until EXITED
        container = pod.start("vm", "/busybox", "sleep", "1000")  attempt 1 in the same sandbox

Containers see the machine's /usr, read-only, and may use /dev/net/tun and CAP_NET_ADMIN. Messages
to the system log of the machine arrive in `Machine.log`.

Tried with containerd 1.6 and 1.7 over runc 1.1, on a hybrid hierarchy of cgroups.
"""

import ctypes
import glob
import hashlib
import importlib.util
import io
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

# Seconds until something counts as hung. Every step here takes well under one.
PATIENCE = 20

PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "runc": "runc",
    "busybox": "busybox-static",
    "ip": "iproute2",
    "tc": "iproute2",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
PLUGINS = ("bridge", "host-local", "loopback")
PLUGIN_DIRECTORIES = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
MODULES = {"grpc": "grpcio", "grpc_tools": "grpcio-tools"}

# The machine's own directory, by a name that is the same in each machine.
DIRECTORY = "/run/nlraw-test"

IMAGE = "localhost/nlraw-test:1"
BRIDGE = "cni0"

CLONE_NEWNET = 0x40000000

# Part of cri-api's pkg/apis/runtime/v1/api.proto. A receiver skips unknown fields, so each message
# lists only the fields in use.
PROTO = """
syntax = "proto3";
package runtime.v1;

message Empty {}

message StatusRequest { bool verbose = 1; }
message StatusResponse { RuntimeStatus status = 1; }
message RuntimeStatus { repeated RuntimeCondition conditions = 1; }
message RuntimeCondition { string type = 1; bool status = 2; }

message ImageSpec { string image = 1; }
message Image { string id = 1; }
message ImageStatusRequest { ImageSpec image = 1; }
message ImageStatusResponse { Image image = 1; }

message NamespaceOption { int32 network = 1; int32 pid = 2; int32 ipc = 3; }
message PodSandboxMetadata { string name = 1; string uid = 2; string namespace = 3; }
message DNSConfig { repeated string servers = 1; }
message LinuxSandboxSecurityContext { NamespaceOption namespace_options = 1; }
message LinuxPodSandboxConfig {
  string cgroup_parent = 1;
  LinuxSandboxSecurityContext security_context = 2;
}
message PodSandboxConfig {
  PodSandboxMetadata metadata = 1;
  string log_directory = 3;
  DNSConfig dns_config = 4;
  LinuxPodSandboxConfig linux = 8;
}
message RunPodSandboxRequest { PodSandboxConfig config = 1; string runtime_handler = 2; }
message RunPodSandboxResponse { string pod_sandbox_id = 1; }
message StopPodSandboxRequest { string pod_sandbox_id = 1; }
message RemovePodSandboxRequest { string pod_sandbox_id = 1; }
message PodSandboxStatusRequest { string pod_sandbox_id = 1; bool verbose = 2; }
message PodSandboxStatusResponse { PodSandboxStatus status = 1; map<string, string> info = 2; }
message PodSandboxStatus { PodSandboxNetworkStatus network = 5; }
message PodSandboxNetworkStatus { string ip = 1; }

message ContainerMetadata { string name = 1; uint32 attempt = 2; }
message Mount { string container_path = 1; string host_path = 2; bool readonly = 3; }
message Device { string container_path = 1; string host_path = 2; string permissions = 3; }
message Capability { repeated string add_capabilities = 1; }
message LinuxContainerSecurityContext {
  Capability capabilities = 1;
  NamespaceOption namespace_options = 3;
}
message LinuxContainerConfig { LinuxContainerSecurityContext security_context = 2; }
message ContainerConfig {
  ContainerMetadata metadata = 1;
  ImageSpec image = 2;
  repeated string command = 3;
  repeated Mount mounts = 7;
  repeated Device devices = 8;
  string log_path = 11;
  LinuxContainerConfig linux = 15;
}
message CreateContainerRequest {
  string pod_sandbox_id = 1;
  ContainerConfig config = 2;
  PodSandboxConfig sandbox_config = 3;
}
message CreateContainerResponse { string container_id = 1; }
message StartContainerRequest { string container_id = 1; }
message ContainerStatusRequest { string container_id = 1; bool verbose = 2; }
message ContainerStatusResponse { ContainerStatus status = 1; map<string, string> info = 2; }
enum ContainerState { CREATED = 0; RUNNING = 1; EXITED = 2; UNKNOWN = 3; }
message ContainerStatus { ContainerState state = 3; int32 exit_code = 7; }
"""

# NamespaceMode CONTAINER. A kubelet sets it unless shareProcessNamespace is true.
OWN_PID_NAMESPACE = {"pid": 1}

CONFIG = """
version = 2
root = {root}
state = {state}
[grpc]
  address = {socket}
[plugins."io.containerd.internal.v1.opt"]
  path = {opt}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {image}
  # needed without CAP_SYS_RESOURCE, as in a CI job that is a container itself
  restrict_oom_score_adj = true
  # or a profile is loaded into the kernel and stays there
  disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = {plugins}
  conf_dir = {network}
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = {default}
"""

HANDLER = """
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
  runtime_type = "io.containerd.runc.v2"
  base_runtime_spec = {spec}
"""

# ipMasq would need iptables.
NETWORK = {
    "cniVersion": "0.4.0",
    "name": "nlraw-test",
    "plugins": [
        {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.88.0.0/16"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}

# Runs outside the namespaces, in a session of its own, and outlives a killed test. The first
# process inside inherits its standard input, and ends when the test closes the other end or dies.
KEEPER = """
import glob, os, shutil, subprocess, sys, tempfile, time

directory = tempfile.mkdtemp(prefix="nlraw-cri-")
enter = "echo $$; exec unshare --net --mount --propagation private --pid --fork"
enter += ' --kill-child=KILL --mount-proc sh -c "$@"'
argv = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", enter, "sh", sys.argv[1]]
argv += [directory, sys.argv[2]]
try:
    print(directory, flush=True)
    # returns when all processes inside have ended: the first ends last (zap_pid_ns_processes())
    subprocess.call(argv, stderr=subprocess.STDOUT)
finally:
    name = os.path.basename(directory)
    patterns = ("/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name)
    deadline = time.monotonic() + 10
    for top in [path for pattern in patterns for path in glob.glob(pattern)]:
        for path, _, _ in os.walk(top, topdown=False):
            while os.path.exists(path) and time.monotonic() < deadline:
                try:
                    os.rmdir(path)
                except OSError:  # a process that has just ended may still be counted
                    time.sleep(0.02)
    shutil.rmtree(directory, ignore_errors=True)
"""

# The first process inside. /run and /var/lib: shim sockets, /run/containerd/runc, /run/netns and
# /var/lib/cni are fixed, whatever containerd's configuration says. overlayfs works on a tmpfs, and
# nothing waits for a sync there. /dev: only a directory of our own can have a log socket.
INSIDE = """
set -e
cd "$0"
mkdir data
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs data
ln -s "$0" "$1"
mkdir -p data/dev/net data/dev/pts data/dev/shm data/dev/mqueue
for each in null zero full random urandom net/tun; do cp -a /dev/$each data/dev/$each; done
ln -s /proc/self/fd data/dev/fd
ln -s "$0/log" data/dev/log
mount --rbind data/dev /dev
ip link set lo up
echo ready
read -r start
containerd --config "$0/config.toml" </dev/null >"$0/containerd.log" 2>&1 &
read -r end
"""


class Unavailable(Exception):
    """The namespaces cannot be made on this system; the text says why."""


class CallFailed(Exception):
    """A call to containerd failed; the text is containerd's, with the stderr of a failed hook."""


class Ended(Exception):
    """A container ended before it was expected to; the text has what it printed."""


def missing():
    """Why no machine can be made here, in one line, or None."""
    if os.geteuid() != 0:
        return "not root"
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return "no %s (Debian package %s)" % (program, package)
    if plugin_directory() is None:
        return "no CNI plugins %s (Debian package containernetworking-plugins)" % ", ".join(PLUGINS)
    for module, distribution in MODULES.items():
        if importlib.util.find_spec(module) is None:
            return "no Python module %s (pip install %s)" % (module, distribution)
    if not os.path.exists("/dev/net/tun"):
        return "no /dev/net/tun"
    if not os.path.islink("/lib") or os.path.realpath("/var/run") != "/run":
        return "/lib is not in /usr, or /var/run is not /run"
    with tempfile.TemporaryDirectory() as root:
        shutil.copy(shutil.which("busybox"), root)
        if subprocess.call(["chroot", root, "/busybox", "true"], stderr=subprocess.DEVNULL) != 0:
            return "busybox is not static (Debian package busybox-static)"
    return None


def plugin_directory():
    for directory in PLUGIN_DIRECTORIES:
        if all(os.access(os.path.join(directory, name), os.X_OK) for name in PLUGINS):
            return directory
    return None


def wait_until(condition, what, patience=PATIENCE):
    """Call a function until its result is true; return that. Raises TimeoutError."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError("%s: not within %s seconds" % (what, patience))
        time.sleep(0.01)


class Machine:
    """A containerd in namespaces of its own.

    ``handlers`` maps the name of each runtime handler to the ``hooks`` of its base spec (OCI
    runtime specification, config.md). ``folders`` are copied into the machine's directory, which
    is `DIRECTORY` inside, because /run and /var/lib are empty there. Raises `Unavailable`.
    """

    def __init__(self, handlers, folders=()):
        self._channel = self._log = self._pods = None
        argv = [sys.executable, "-I", "-S", "-c", KEEPER, INSIDE, DIRECTORY]
        # in a session of its own: Ctrl-C, or a kill of our process group, does not reach it
        self._keeper = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
            start_new_session=True,
            cwd="/",
        )
        try:
            self.directory, pid, said = [self._keeper.stdout.readline().strip() for _ in range(3)]
            if said != "ready":
                raise Unavailable(said or "the keeper has ended")
            self.name = os.path.basename(self.directory)
            self._root = "/proc/%s/root" % pid
            self._namespaces = "/proc/%s/ns/" % pid
            self._start(handlers, folders)
        except BaseException:
            self.close()
            raise

    def _start(self, handlers, folders):
        self._pods = 0
        self._log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._log.bind(self.path("log"))  # where /dev/log leads
        self._logged = []
        threading.Thread(target=self._read_log, daemon=True).start()
        for folder in folders:
            shutil.copytree(folder, self.path(os.path.basename(folder)))
        self._configure(handlers)
        self._keeper.stdin.write("start\n")
        self._keeper.stdin.flush()
        wait_until(lambda: os.path.exists(self.path("socket")), "containerd's socket")
        self._connect()
        wait_until(self._is_ready, "containerd's CRI plugin")
        self.run(
            "ctr", "-a", self.path("socket"), "-n", "k8s.io", "images", "import", self._image()
        )
        # the CRI plugin learns of the image by an event
        wait_until(lambda: self.call("ImageStatus", image={"image": IMAGE}).image.id, IMAGE)

    def path(self, *names):
        """A path in the machine's directory, the same inside and outside."""
        return os.path.join(self.directory, *names)

    # -------------------------------------------------------- what containerd starts with

    def _configure(self, handlers):
        os.mkdir(self.path("network"))
        self._write("network/nlraw.conflist", json.dumps(NETWORK))
        spec = json.loads(self.run("ctr", "oci", "spec"))
        values = {
            "root": self.path("data", "root"),
            "state": self.path("data", "state"),
            "opt": self.path("data", "opt"),
            "socket": self.path("socket"),
            "image": IMAGE,
            "plugins": plugin_directory(),
            "network": self.path("network"),
            "default": min(handlers),
        }
        text = CONFIG.format(**{key: json.dumps(value) for key, value in values.items()})
        for name, hooks in handlers.items():
            path = self._write("spec-%s.json" % name, json.dumps(dict(spec, hooks=hooks)))
            text += HANDLER.format(name=name, spec=json.dumps(path))
        self._write("config.toml", text)

    def _write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)
        return self.path(name)

    def _image(self):
        """An OCI layout in a tar: one layer with busybox, and links into the /usr to be mounted."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            tar.add(shutil.which("busybox"), "busybox")
            for name in ("usr", "proc", "sys", "dev", "etc", "tmp"):
                tar.addfile(_entry(name, tarfile.DIRTYPE))
            for name in ("bin", "sbin", "lib", "lib64"):
                tar.addfile(_entry(name, tarfile.SYMTYPE, linkname="usr/" + name))
        machine = platform.machine()
        blobs = Blobs()
        media = "application/vnd.oci.image."
        layers = [blobs.add(layer.getvalue(), media + "layer.v1.tar")]
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
            "os": "linux",
            "config": {
                "Cmd": ["/busybox", "sleep", "1000000"],
                "Env": ["PATH=/usr/sbin:/usr/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [layers[0]["digest"]]},
        }
        manifest = {
            "schemaVersion": 2,
            "config": blobs.add_json(config, media + "config.v1+json"),
            "layers": layers,
        }
        entry = blobs.add_json(manifest, media + "manifest.v1+json")
        entry["annotations"] = {"io.containerd.image.name": IMAGE}
        path = self.path("image.tar")
        blobs.write(path, {"schemaVersion": 2, "manifests": [entry]})
        return path

    # -------------------------------------------------------- calls

    def _connect(self):
        import grpc

        self._messages = _compile(self.directory)
        options = [
            ("grpc.default_authority", "localhost"),  # a unix path has none
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
        ]
        self._channel = grpc.insecure_channel("unix:" + self.path("socket"), options=options)

    def call(self, method, **fields):
        """Call a method of the CRI; raises `CallFailed`."""
        import grpc

        service = "ImageService" if method == "ImageStatus" else "RuntimeService"
        request = getattr(self._messages, method + "Request")
        answer = getattr(self._messages, method + "Response", self._messages.Empty)
        call = self._channel.unary_unary(
            "/runtime.v1.%s/%s" % (service, method),
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            return call(request(**fields), timeout=PATIENCE, wait_for_ready=True)
        except grpc.RpcError as error:
            raise CallFailed("%s: %s" % (method, error.details())) from None

    def _is_ready(self):
        try:
            conditions = self.call("Status").status.conditions
        except CallFailed:  # the socket is there before its services are
            return False
        return bool(conditions) and all(condition.status for condition in conditions)

    # -------------------------------------------------------- tools

    def argv(self, *argv):
        """The command line that runs a program inside. The program outlives a killed `nsenter`."""
        kinds = {"mount": "mnt", "net": "net", "pid": "pid_for_children"}
        options = ["--%s=%s%s" % (kind, self._namespaces, name) for kind, name in kinds.items()]
        return ["nsenter"] + options + list(argv)

    def run(self, *argv):
        """Run a program inside to its end and return what it printed; a failure raises."""
        done = subprocess.run(
            self.argv(*argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            timeout=PATIENCE,
        )
        if done.returncode:
            raise RuntimeError("%s: %s" % (" ".join(argv), done.stderr.strip()))
        return done.stdout

    def udp_socket(self):
        """A UDP socket in the network namespace of the machine, where the bridge is. Close it."""
        made = []

        def make():
            with open(self._namespaces + "net") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

        thread = threading.Thread(target=make)  # ends inside, so that nothing has to be restored
        thread.start()
        thread.join()
        return made[0]

    def exists(self, path):
        """True if a path exists inside."""
        return os.path.lexists(self._root + path)

    def log(self):
        """The messages to the system log so far, unchanged."""
        return list(self._logged)

    def _read_log(self):
        # at once: the queue holds about ten (net.unix.max_dgram_qlen), then senders wait
        log = self._log.dup()
        with log:
            message = log.recv(65536)
            while message:
                self._logged.append(message.decode("utf-8", "replace"))
                message = log.recv(65536)

    def containerd_log(self):
        """What containerd has logged."""
        with open(self.path("containerd.log")) as file:
            return file.read()

    def pod(self, handler):
        """Run a pod's sandbox with a runtime handler."""
        self._pods += 1
        return Pod(self, handler, "pod%d" % self._pods)

    # -------------------------------------------------------- the end

    def close(self):
        """End everything; on return, nothing is left. Does nothing the second time."""
        if self._channel is not None:
            self._channel.close()
        if self._log is not None:
            self._log.shutdown(socket.SHUT_RD)  # the reader gets an empty message
            self._log.close()
        self._keeper.stdin.close()
        self._keeper.wait()
        self._keeper.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def left(name):
    """List what a machine has left on this system: processes, mounts, cgroups and files, in words.

    ``name`` is that of the machine, or of a pod's network namespace.
    """
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        files = [_read("/proc/%s/%s" % (pid, file)) for file in ("cmdline", "cgroup", "mountinfo")]
        if any(name in text for text in files):
            found.append("process %s: %s" % (pid, files[0].replace("\0", " ")))
    temporary = os.path.join(tempfile.gettempdir(), "")
    for place in ("/sys/fs/cgroup/", "/sys/fs/cgroup/*/", "/run/netns/", temporary):
        found += glob.glob(place + name)
    return found


def _read(path):
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read()
    except OSError:  # the process has ended
        return ""


class Pod:
    """A sandbox, and the containers that are started in it."""

    def __init__(self, machine, handler, name):
        self.machine = machine
        self.name = name
        self._attempts = {}
        self._config = {
            "metadata": {"name": name, "uid": name, "namespace": "default"},
            "log_directory": machine.path("logs", name),
            # or /etc/resolv.conf is copied, which may be a link into the hidden /run
            "dns_config": {"servers": ["127.0.0.1"]},
            "linux": {
                "cgroup_parent": "/%s/%s" % (machine.name, name),
                "security_context": {"namespace_options": OWN_PID_NAMESPACE},
            },
        }
        made = machine.call("RunPodSandbox", config=self._config, runtime_handler=handler)
        self.id = made.pod_sandbox_id
        seen = machine.call("PodSandboxStatus", pod_sandbox_id=self.id, verbose=True)
        self.address = seen.status.network.ip
        spec = json.loads(seen.info["info"])["runtimeSpec"]
        (path,) = [
            each["path"] for each in spec["linux"]["namespaces"] if each["type"] == "network"
        ]
        self.netns = os.path.basename(path)
        self.mac = self.links()["eth0"]["address"]
        # permanent, because a VM here does not answer ARP
        machine.run(
            *"ip neighbour replace".split(),
            *[self.address, "lladdr", self.mac, "nud", "permanent", "dev", BRIDGE],
        )

    # -------------------------------------------------------- containers

    def start(self, name, *command):
        """Create and start the next attempt of a container; raises `CallFailed`."""
        attempt = self._attempts.get(name, -1) + 1
        self._attempts[name] = attempt
        log = "%s-%d.log" % (name, attempt)
        tun = "/dev/net/tun"
        config = {
            "metadata": {"name": name, "attempt": attempt},
            "image": {"image": IMAGE},
            "command": command,
            "mounts": [{"container_path": "/usr", "host_path": "/usr", "readonly": True}],
            "devices": [{"container_path": tun, "host_path": tun, "permissions": "rw"}],
            "log_path": log,
            "linux": {
                "security_context": {
                    "capabilities": {"add_capabilities": ["NET_ADMIN"]},
                    "namespace_options": OWN_PID_NAMESPACE,
                }
            },
        }
        made = self.machine.call(
            "CreateContainer", pod_sandbox_id=self.id, config=config, sandbox_config=self._config
        )
        self.machine.call("StartContainer", container_id=made.container_id)
        log = os.path.join(self._config["log_directory"], log)
        return Container(self.machine, made.container_id, name, attempt, log)

    # -------------------------------------------------------- what is there

    def argv(self, *argv):
        """The command line, for `Machine.argv`, that runs a program in the pod's namespace."""
        return ["ip", "netns", "exec", self.netns] + list(argv)

    def run(self, *argv):
        """Run a program in the pod's network namespace to its end and return what it printed."""
        return self.machine.run(*self.argv(*argv))

    def links(self):
        """The links as `ip -d -j link` lists them, by name."""
        listed = json.loads(self.run("ip", "-d", "-j", "link"))
        return {link["ifname"]: link for link in listed}

    def state(self):
        """The names and indexes of the links, and their TC state as `tc` lists it."""
        links = {name: link["ifindex"] for name, link in self.links().items()}
        listed = self.run("tc", "-d", "qdisc").splitlines()
        made = [line for line in listed if " 0: dev " not in line]  # 0: is the kernel's default
        for line in list(made):
            name = line.split()[line.split().index("dev") + 1]
            made.append(self.run("tc", "-d", "filter", "show", "dev", name, "ingress"))
        return links, made

    # -------------------------------------------------------- the end

    def close(self):
        """Stop the sandbox with all of its containers, and remove it."""
        self.machine.call("StopPodSandbox", pod_sandbox_id=self.id)
        self.machine.call("RemovePodSandbox", pod_sandbox_id=self.id)


class Container:
    """A container that was started."""

    def __init__(self, machine, id, name, attempt, log):
        self.id = id
        self.name = name
        self.attempt = attempt
        self._machine = machine
        self._log = log

    def _status(self, verbose=False):
        return self._machine.call("ContainerStatus", container_id=self.id, verbose=verbose)

    @property
    def is_running(self):
        return self._status().status.state == self._machine._messages.RUNNING

    def lines(self):
        """The lines that it has printed, without CRI's time, stream and tag before each."""
        return [line.split(" ", 3)[3] for line in _read(self._log).splitlines()]

    def wait_for(self, line):
        """Wait until it has printed a line; raises if it ends before."""

        def has_come():
            running = self.is_running
            if line in self.lines():
                return True
            if not running:
                raise Ended("%s-%d: %s" % (self.name, self.attempt, "; ".join(self.lines())))
            return False

        wait_until(has_come, "%r of %s-%d" % (line, self.name, self.attempt))

    def signal(self, name):
        """Send a signal to its first process."""
        pid = json.loads(self._status(verbose=True).info["info"])["pid"]
        self._machine.run("sh", "-c", 'kill -s "$0" "$1"', name, str(pid))

    def wait(self):
        """Wait until it is reported as EXITED; return its exit status."""
        exited = self._machine._messages.EXITED
        wait_until(lambda: self._status().status.state == exited, self.name + "'s end")
        return self._status().status.exit_code

    def kill(self):
        """End it as a crash does, and wait until that is reported."""
        self.signal("KILL")
        return self.wait()


class Blobs:
    """The blobs of an OCI image layout."""

    def __init__(self):
        self._blobs = {}

    def add(self, data, media_type):
        """Add a blob; return its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        self._blobs[digest] = data
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data)}

    def add_json(self, value, media_type):
        return self.add(json.dumps(value).encode(), media_type)

    def write(self, path, index):
        """Write the layout to a tar."""
        files = {"blobs/sha256/" + digest: data for digest, data in self._blobs.items()}
        files["index.json"] = json.dumps(index).encode()
        files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
        with tarfile.open(path, "w") as tar:
            for name, data in files.items():
                tar.addfile(_entry(name, tarfile.REGTYPE, size=len(data)), io.BytesIO(data))


def _entry(name, kind, **more):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, 0o755
    for key, value in more.items():
        setattr(entry, key, value)
    return entry


def _compile(directory):
    """The module of messages that protoc makes of `PROTO`."""
    loaded = sys.modules.get("nlraw_test_cri_pb2")
    if loaded is not None:  # protobuf refuses to register a file a second time
        return loaded
    from grpc_tools import protoc

    source = os.path.join(directory, "nlraw_test_cri.proto")
    with open(source, "w") as file:
        file.write(PROTO)
    if protoc.main(["protoc", "-I" + directory, "--python_out=" + directory, source]) != 0:
        raise RuntimeError("protoc failed")
    path = os.path.join(directory, "nlraw_test_cri_pb2.py")
    spec = importlib.util.spec_from_file_location("nlraw_test_cri_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[spec.name] = module
    return module

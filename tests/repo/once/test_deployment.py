# SPDX-License-Identifier: Apache-2.0
"""The files that `nlraw deploy` prints: validated, and run with their rights.

The sweep's command line is run with its unit's capabilities, and its system calls are held against
the unit's filters; test_systemd.py has a systemd run the units. No cluster is here: the containers
of the DaemonSets are run by runc. In mount namespaces of their own: the node's /run/netns is never
the machine's.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid

import pytest

from lib import command, pods, readme
from lib.logs import IN_JOURNAL
from lib.prometheus import counted, read
from nlraw import deployment

UNIT, TIMER, WATCH = "nlraw-sweep.service", "nlraw-sweep.timer", "nlraw-watch.service"
DAEMON_SETS = ["nlraw-sweep.yaml", "nlraw-watch.yaml"]
METRICS = "/var/lib/prometheus/node-exporter"


def needs(*programs):
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason="not installed: " + ", ".join(missing))


def output(*argv):
    """The exit status, and what was printed and complained of, as it came."""
    done = command.attempt(*argv, stderr=subprocess.STDOUT)
    return done.status, done.out


@pytest.fixture
def bundle(tmp_path):
    path = str(tmp_path / "nlraw.pyz")
    command.run(*command.BUNDLE, path, cwd="/", env=command.environment())
    return path


@pytest.fixture
def metrics(tmp_path):
    """The directory of the node's textfile collector."""
    (tmp_path / "metrics").mkdir()
    return tmp_path / "metrics"


def printed(name, argv=command.MODULE):
    """A file, as `nlraw deploy` prints it."""
    done = command.nlraw("deploy", name, argv=argv)
    assert done.status == 0, done.err
    return done.out


# ---------------------------------------------------------------- what is printed


def test_without_a_name_they_are_listed():
    done = command.nlraw("deploy")
    assert (done.status, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()] == NAMES
    there = set(os.listdir(os.path.join(command.PACKAGE, "deploy")))
    assert set(NAMES) == there - {"README.md"}


NAMES = [name for name, _, _ in deployment.FILES]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_names_this_python_and_this_copy(name, bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(command.PACKAGE, str(copy), ignore=shutil.ignore_patterns("__pycache__"))
    for argv, program in (
        (command.MODULE, os.path.join(command.PACKAGE, "__main__.py")),
        ((sys.executable, "-I", bundle), bundle),
        ((sys.executable, "-I", str(copy)), str(copy / "__main__.py")),
    ):
        text = printed(name, argv)
        with open(os.path.join(command.PACKAGE, "deploy", name)) as file:
            shipped = file.read()
        assert max(map(len, shipped.splitlines())) <= 140
        if name.endswith(".yaml"):
            shipped = shipped.replace("python:3.13-", "python:%d.%d-" % sys.version_info[:2])
        else:
            shipped = shipped.replace("/opt/nlraw/nlraw/__main__.py", program)
            shipped = shipped.replace("/usr/bin/python3", sys.executable)
        assert text == shipped


@pytest.mark.parametrize("name", ["hooks.d.json", "base-runtime-spec.json"])
def test_the_hooks_are_json_that_starts_the_hook(name):
    text = printed(name)
    spec = json.loads(text)
    hooks = [spec["hook"]] if "hook" in spec else [hook for (hook,) in spec["hooks"].values()]
    for hook in hooks:
        state = '{"id": "try", "status": "created", "pid": %d, "bundle": "/"}' % os.getpid()
        argv = [hook["path"]] + hook["args"][1:]
        done = command.attempt(*argv, input=state, env={}, cwd="/")
        assert (done.status, done.err) == (0, "")
        assert "host's network" in done.out


def test_a_name_that_is_none_gets_a_suggestion():
    done = command.nlraw("deploy", "nlraw-wach.service")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "nlraw: deploy nlraw-wach.service: there is no such file; "
        "did you mean `nlraw-watch.service`?\n"
    )
    done = command.nlraw("deploy", "x")
    assert done.err == "nlraw: deploy x: there is no such file; `nlraw deploy` lists them\n"
    assert command.nlraw("deploy", UNIT, TIMER).status == 2


def test_a_path_that_would_need_quotes_is_refused(tmp_path):
    copy = tmp_path / "a b"
    shutil.copytree(command.PACKAGE, str(copy), ignore=shutil.ignore_patterns("__pycache__"))
    done = command.nlraw("deploy", UNIT, argv=(sys.executable, "-I", str(copy)))
    assert (done.status, done.out) == (2, "")
    assert str(copy) in done.err


def test_a_python_or_a_copy_that_the_units_sandbox_hides_is_a_warning(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(command.PACKAGE, str(copy), ignore=shutil.ignore_patterns("__pycache__"))
    python = tmp_path / "python3"
    python.symlink_to(sys.executable)
    argv = (str(python), "-I", str(copy))
    if not str(copy).startswith("/tmp/"):
        pytest.skip("the directory for temporary files is not below /tmp")
    err = command.nlraw("deploy", UNIT, argv=argv).err
    assert re.search("hides %s/\\S+: install nlraw elsewhere" % re.escape(str(copy)), err)
    assert "hides %s: print the file with another Python" % python in err
    assert command.nlraw("deploy", "hooks.d.json", argv=argv).err == ""


def shell(text, directory, path=""):
    """Run a shell's text in a directory, with the command that the pages call `nlraw`."""
    programs = directory / "programs"
    if not programs.exists():
        programs.mkdir()
        os.symlink(sys.executable, str(programs / "python3"))
    command_ = 'nlraw() { "%s" -m %s "$@"; }\n' % (sys.executable, command.package.__name__)
    env = command.environment(PATH="%s:%s:%s" % (programs, path, os.environ["PATH"]))
    done = command.attempt("sh", "-euc", command_ + text, cwd=str(directory), env=env)
    assert done.status == 0, done.err
    return done.out


@needs("ctr")
def test_the_readmes_lines_add_the_hooks_to_containerds_spec(tmp_path):
    (tmp_path / "etc").mkdir()
    text = readme.block("You run Kubernetes", "sh", "ctr oci spec")
    (path,) = re.findall(r">(/etc/containerd/\S+)", text)
    (toml,) = readme.blocks("You run Kubernetes", "toml")
    assert 'base_runtime_spec = "%s"' % path in toml
    shell(text.replace(path, "etc/nlraw.json"), tmp_path)
    made = json.loads((tmp_path / "etc" / "nlraw.json").read_text())
    plain = json.loads((tmp_path / "spec.json").read_text())
    assert made.pop("hooks") == json.loads(printed("base-runtime-spec.json"))["hooks"]
    # with them, containerd would give each container these and not its own limits
    (limit,) = plain["process"].pop("rlimits")
    assert limit == {"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}
    assert made == plain and {"process", "linux"} <= set(plain)


def test_the_readmes_lines_keep_the_hooks_that_a_spec_has(tmp_path):
    text = readme.block("You run Kubernetes", "sh", "ctr oci spec")
    own = [{"path": "/own"}]
    before = {"hooks": {"poststop": own, "prestart": own}, "process": {"user": {}}}
    (tmp_path / "spec.json").write_text(json.dumps(before))
    (path,) = re.findall(r">(/etc/containerd/\S+)", text)
    (tmp_path / "etc").mkdir()
    begun, _, rest = text.partition("\n")
    assert begun == "ctr oci spec >spec.json"
    shell(rest.replace(path, "etc/nlraw.json"), tmp_path)
    made = json.loads((tmp_path / "etc" / "nlraw.json").read_text())
    added = json.loads(printed("base-runtime-spec.json"))["hooks"]
    assert made["hooks"] == {
        "poststop": own + added["poststop"],
        "prestart": own,
        "createRuntime": added["createRuntime"],
    }
    assert made["process"] == before["process"]


@needs("containerd")
def test_containerd_reads_the_lines_of_its_configuration(tmp_path):
    (toml,) = readme.blocks("You run Kubernetes", "toml")
    (tmp_path / "config.toml").write_text("version = 2\n" + toml)
    argv = ["containerd", "--config", str(tmp_path / "config.toml"), "config", "dump"]
    dumped = command.run(*argv)
    for line in toml.splitlines():
        assert line.partition("#")[0].strip("[] ") in dumped


# ---------------------------------------------------------------- systemd


def unit(name=UNIT, argv=command.MODULE):
    """The settings of a service, by name."""
    text = printed(name, argv).replace("\\\n", "")
    return dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))


@needs("systemd-analyze")
@pytest.mark.parametrize(
    "change, expected", [(None, 0), (("ExecStart=", "ExecStrat="), 1)], ids=["as it is", "misspelt"]
)
@pytest.mark.parametrize("names", [(UNIT, TIMER), (WATCH,)], ids=" ".join)
def test_systemd_finds_the_units_right(tmp_path, change, expected, names):
    for name in names:
        text = printed(name)
        (tmp_path / name).write_text(text.replace(*change) if change else text)
    argv = ["systemd-analyze", "verify", "--recursive-errors=yes", "--man=no"] + [
        str(tmp_path / name) for name in names
    ]
    status, told = output(*argv)
    assert (status != 0) == bool(expected), told
    assert bool(told) == bool(expected), told


@needs("systemd-analyze")
@pytest.mark.parametrize("name", [UNIT, WATCH])
def test_systemd_finds_the_service_well_locked_up(tmp_path, name):
    (tmp_path / name).write_text(printed(name))
    status, told = output(
        "systemd-analyze",
        "security",
        "--offline=true",
        "--threshold=25",
        "--no-pager",
        str(tmp_path / name),
    )
    assert status == 0, told


def test_the_units_share_all_of_the_sandbox_that_they_can():
    sweep, watch = unit(UNIT), unit(WATCH)
    of_their_own = {name for name in sweep.keys() & watch.keys() if sweep[name] != watch[name]}
    assert of_their_own == {
        "Description",
        "Type",
        "ExecStart",
        "CapabilityBoundingSet",
        "RestrictAddressFamilies",
    }
    assert watch["CapabilityBoundingSet"].split()[:2] == sweep["CapabilityBoundingSet"].split()


# As a mount namespace of its own has it: a /run with pods of ours alone, the collector's directory,
# and all else read-only.
SERVICE = """
pod=$1 metrics=$2
shift 2
mount -t tmpfs tmpfs /mnt
mkdir -p /mnt/lib/prometheus/node-exporter
mount --bind "$metrics" /mnt/lib/prometheus/node-exporter
mount --rbind /mnt/lib /var/lib
mount -t tmpfs tmpfs /run
mkdir /run/netns
: >/run/netns/pod
mount --bind "/proc/$pod/ns/net" /run/netns/pod
mount -o remount,bind,ro /
umask 077
exec "$@"
"""


def service(pod, metrics, wrapper=(), less=()):
    """Run the service's command line with its capabilities, less some.

    ``wrapper`` is the argv of what runs it.
    """
    kept = [
        "+" + name[len("CAP_") :].lower()
        for name in unit()["CapabilityBoundingSet"].split()
        if name not in less
    ]
    privileges = ["setpriv", "--inh-caps=-all", "--bounding-set=" + ",".join(["-all"] + kept)]
    assert unit()["NoNewPrivileges"] == "yes"
    privileges.append("--no-new-privs")
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", SERVICE, "sh"]
    argv += [str(pod.child().pid), str(metrics)] + privileges + list(wrapper)
    return command.nlraw(argv=argv + shlex.split(unit()["ExecStart"]))


@needs("setpriv", "unshare")
def test_the_services_command_line_sweeps_with_the_services_capabilities(pod, metrics):
    before = pod.state()
    pod.add_orphan()
    done = service(pod, metrics)
    assert (done.status, done.err) == (0, "")
    assert pod.state() == before
    assert counted(read(metrics / "nlraw.prom")) == {
        "namespaces": 1,
        "orphans": 1,
        "orphans_removed": 1,
    }


@needs("setpriv", "unshare")
@pytest.mark.parametrize("capability", ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"])
def test_the_service_needs_each_of_its_capabilities(pod, metrics, capability):
    assert capability in unit()["CapabilityBoundingSet"].split()
    pod.add_orphan()
    done = service(pod, metrics, less=[capability])
    assert done.status == 1 and capability in done.err
    assert pods.TAP in pod.links()
    assert read(metrics / "nlraw.prom")["nlraw_sweep_namespaces_failed"] == 1


def allowed(name):
    """The system calls of one of systemd's sets."""
    calls = set()
    for line in output("systemd-analyze", "syscall-filter", name)[1].splitlines()[1:]:
        word = line.strip()
        calls |= (
            allowed(word)
            if word.startswith("@")
            else {word}
            if word and not word.startswith("#")
            else set()
        )
    return calls


@needs("setpriv", "unshare", "strace", "systemd-analyze")
def test_the_service_makes_no_system_call_that_its_filters_forbid(pod, metrics):
    pod.add_orphan()
    trace = os.path.join(os.path.dirname(unit()["ExecStart"].split()[-1]), "trace")
    done = service(pod, metrics, wrapper=IN_JOURNAL + ["strace", "-f", "-q", "-o", trace])
    assert done.status == 0, done.err
    with open(str(metrics / "trace")) as file:
        calls = re.findall(r"^\d+ +(\w+)\((.*)", file.read(), re.MULTILINE)
    made = {name for name, _ in calls}
    assert {"execve", "setns", "socket"} <= made
    assert not made - allowed(unit()["SystemCallFilter"])
    assert unit()["RestrictNamespaces"] == "net" and "unshare" not in made
    assert {"CLONE_NEWNET" in rest for name, rest in calls if name == "setns"} == {True}
    assert {rest.split(",")[0] for name, rest in calls if name == "socket"} == {
        unit()["RestrictAddressFamilies"]
    }
    # MemoryDenyWriteExecute: systemd.exec(5)
    assert not [
        rest
        for name, rest in calls
        if name == "mmap" and "PROT_WRITE" in rest and "PROT_EXEC" in rest
    ]
    assert not [
        rest
        for name, rest in calls
        if name in ("mprotect", "pkey_mprotect", "shmat") and "EXEC" in rest
    ]


# ---------------------------------------------------------------- Kubernetes


def daemon_set(name):
    yaml = pytest.importorskip(
        "yaml", reason="PyYAML is not installed; kubernetes-validate brings it"
    )
    return yaml.safe_load(printed(name))["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    "change, expected", [(None, 0), (("hostPath:", "hostPaht:"), 1)], ids=["as it is", "misspelt"]
)
@pytest.mark.parametrize("name", DAEMON_SETS)
def test_kubernetes_finds_the_daemon_set_right(tmp_path, name, change, expected):
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    validate = shutil.which("kubernetes-validate", path=path)
    if validate is None:
        pytest.skip("kubernetes-validate is not installed")
    text = printed(name)
    (tmp_path / name).write_text(text.replace(*change) if change else text)
    status, told = output(validate, "--strict", str(tmp_path / name))
    assert status == expected, told


# Stands in for kubectl: keeps what it is given.
KUBECTL = """#!/bin/sh
echo "$*" >>calls
if [ "$1" = apply ]; then cat >applied; fi
"""


def test_the_readmes_lines_make_the_config_map_that_the_daemon_sets_mount(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").write_text(KUBECTL)
    (tmp_path / "bin" / "kubectl").chmod(0o755)
    text = readme.block("You run Kubernetes", "sh", "kubectl")
    if command.package.__name__ == "nlraw":
        shell(text, tmp_path, path=str(tmp_path / "bin"))
        assert (tmp_path / "applied").read_text() == printed("nlraw-watch.yaml")
    for name in DAEMON_SETS:
        lines = re.findall(r"^#     (.+)$", printed(name), re.MULTILINE)
        assert lines[:2] == text.splitlines()[:2]
        assert lines[2:] == ["kubectl apply -f " + name]
        spec = daemon_set(name)
        (volume,) = [each for each in spec["volumes"] if each["name"] == "nlraw"]
        assert "create configmap %s --from-file=nlraw.pyz" % volume["configMap"]["name"] in text
        (container,) = spec["containers"]
        (mount,) = [each for each in container["volumeMounts"] if each["name"] == "nlraw"]
        words = " ".join(container["command"] + container.get("args", []))
        assert "python3 -I -S %s/nlraw.pyz" % mount["mountPath"] in words


def test_the_one_file_fits_into_a_config_map(bundle):
    assert os.path.getsize(bundle) < 1 << 20  # validation.go of Kubernetes, MaxSecretSize


class Host:
    """The container of a DaemonSet, run by runc on a made-up host with a /run of its own."""

    def __init__(self, name, directory, bundle, metrics):
        self.name = "nlraw-test-" + uuid.uuid4().hex[:12]
        self.directory = str(directory)
        spec = daemon_set(name)
        assert "hostNetwork" not in spec
        (container,) = spec["containers"]
        sources = {"nlraw": os.path.dirname(bundle), "netns": "/run/netns", "metrics": str(metrics)}
        assert {
            volume["name"]: volume["hostPath"]["path"]
            for volume in spec["volumes"]
            if "hostPath" in volume
        } == {
            "netns": sources["netns"],
            "metrics": METRICS,
        }
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
        ]
        for volume in container["volumeMounts"]:
            options = [
                "rbind",
                {"HostToContainer": "rslave"}.get(volume.get("mountPropagation"), "rprivate"),
            ]
            options += ["ro"] if volume.get("readOnly") else []
            mounts.append(
                {
                    "destination": volume["mountPath"],
                    "type": "bind",
                    "source": sources[volume["name"]],
                    "options": options,
                }
            )
        capabilities = [
            "CAP_" + name for name in container["securityContext"]["capabilities"]["add"]
        ]
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        # each of which is needed: see above, and test_systemd.py
        service = name.replace(".yaml", ".service")
        assert sorted(capabilities) == sorted(unit(service)["CapabilityBoundingSet"].split())
        script = [each.replace("sleep 60 ", "sleep 1 ") for each in container.get("args", [])]
        self.probe = container.get("livenessProbe", {}).get("exec", {}).get("command")
        config = {
            "ociVersion": "1.0.2",
            "root": {
                "path": "root",
                "readonly": container["securityContext"]["readOnlyRootFilesystem"],
            },
            "mounts": mounts,
            "process": {
                "user": {"uid": 0, "gid": 0},
                "cwd": "/",
                "env": ["PATH=/usr/bin:/bin"],
                "args": container["command"] + script,
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            },
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "network", "ipc", "uts")]
            },
        }
        root = os.path.join(self.directory, "root")
        for link in ("bin", "sbin", "lib", "lib64"):
            os.makedirs(root, exist_ok=True)
            os.symlink("usr/" + link, os.path.join(root, link))
        with open(os.path.join(self.directory, "config.json"), "w") as file:
            json.dump(config, file)
        host = 'mount -t tmpfs tmpfs /run; mount --make-shared /run; mkdir /run/netns; exec "$@"'
        self.runc = ["runc", "--root", os.path.join(self.directory, "state")]
        argv = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-euc",
            host,
            "sh",
        ] + self.runc
        with open(os.path.join(self.directory, "log"), "w") as log:
            self.process = subprocess.Popen(
                argv + ["run", "--bundle", self.directory, self.name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def log(self):
        with open(os.path.join(self.directory, "log")) as file:
            return file.read()

    def inside(self, *argv):
        """Run something on the host."""
        return output("nsenter", "--target", str(self.process.pid), "--mount", *argv)

    def pin(self, name, pod):
        """Make a pod's namespace one of the host's."""
        target = "/run/netns/" + name
        status, told = self.inside(
            "sh",
            "-euc",
            ': >"$1"; mount --bind "$2" "$1"',
            "sh",
            target,
            "/proc/%d/ns/net" % pod.child().pid,
        )
        assert status == 0, told

    def wait_for(self, condition):
        deadline = time.monotonic() + command.PATIENCE
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def probe_status(self):
        """The exit status of the liveness probe, run in the container."""
        return self.inside(*(self.runc + ["exec", self.name] + self.probe))[0]

    def stop(self, signal):
        return self.inside(*(self.runc + ["kill", self.name, signal]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop("KILL")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            self.process.kill()
        self.process.wait()


@needs("runc", "unshare", "nsenter")
def test_the_daemon_sets_container_sweeps_what_is_pinned_after_its_start_and_ends_when_told(
    make_pod, bundle, metrics, tmp_path
):
    (tmp_path / "host").mkdir()
    pod = make_pod()
    before = pod.state()
    with Host("nlraw-sweep.yaml", tmp_path / "host", bundle, metrics) as host:
        host.wait_for((metrics / "nlraw.prom").exists)
        assert counted(read(metrics / "nlraw.prom")) == {}, host.log()
        pod.add_orphan()
        host.pin("pod", pod)
        host.wait_for(lambda: pods.TAP not in pod.links())
        assert pod.state() == before
        begin = time.monotonic()
        host.stop("TERM")
        assert host.process.wait(command.PATIENCE) == 0, host.log()
        assert time.monotonic() - begin < 5
        assert "failed" not in host.log().replace("0 failed", "") and "Traceback" not in host.log()


@needs("runc", "unshare", "nsenter")
def test_the_watchs_container_removes_what_is_pinned_after_its_start_and_ends_when_told(
    make_pod, bundle, metrics, tmp_path
):
    (tmp_path / "host").mkdir()
    pod = make_pod()
    before = pod.state()
    with Host("nlraw-watch.yaml", tmp_path / "host", bundle, metrics) as host:
        host.wait_for((metrics / "nlraw-watch.prom").exists)
        assert host.probe_status() == 0
        host.pin("pod", pod)
        pod.add_tap()
        pod.hold().kill()
        host.wait_for(lambda: pods.TAP not in pod.links())
        assert pod.state() == before
        assert "CAP_NET_BROADCAST" not in host.log(), "it does not listen"
        os.utime(str(metrics / "nlraw-watch.prom"), (time.time() - 200,) * 2)
        assert host.probe_status() == 1
        begin = time.monotonic()
        host.stop("TERM")
        assert host.process.wait(command.PATIENCE) == 0, host.log()
        assert time.monotonic() - begin < 5
        assert "Traceback" not in host.log()

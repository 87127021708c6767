# SPDX-License-Identifier: Apache-2.0
"""The hook in pods with several containers: whose namespace, which TAPs, what is logged.

Bundles are written as containerd's CRI plugin and podman write them. A pod's sandbox is a process
in it.
"""

import json
import os
import re
import threading
import time

import pytest

from lib import command
from lib.command import MODULE
from lib.logs import ERROR, NOTICE, WARNING, Log
from lib.pods import TAP

HOST = "it has the host's network, which is left alone"
GONE = "its network namespace is gone"
BY_PROCESS = "its network namespace is named by a process, which may be another one by now"
TWO = "the network namespace of its sandbox is not the one that its config names"

CONTAINERD = "io.kubernetes.cri.sandbox-id"
CONTAINERD_TYPE = "io.kubernetes.cri.container-type"
CRIO = "io.kubernetes.cri-o.SandboxID"
CRIO_TYPE = "io.kubernetes.cri-o.ContainerType"

# A process ID above the highest (linux/threads.h).
NOBODY = 4194304

# Seconds between two events of which one is certain to be the first by the kernel's clocks.
APART = 0.05


class Task:
    """Bundles in a directory: ``c1`` of a container, ``s1`` of its sandbox, others by name."""

    def __init__(self, directory, tail=""):
        self.directory = str(directory)
        self.tail = tail
        self.bundle = self.path("c1")

    def path(self, name, *more):
        return os.path.join(self.directory, name, self.tail, *more).rstrip("/")

    def write(self, name, path, **annotations):
        """Write a config with the path of a network namespace; None: a new one."""
        entry = {"type": "network"} if path is None else {"type": "network", "path": path}
        document = {"linux": {"namespaces": [{"type": "mount"}, entry]}, "annotations": annotations}
        os.makedirs(self.path(name), exist_ok=True)
        with open(self.path(name, "config.json"), "w") as file:
            json.dump(document, file)

    def by_process(self, pid, **annotations):
        """Write the container's config, some time after that process has started."""
        time.sleep(APART)
        self.write("c1", "/proc/%s/ns/net" % pid, **annotations)

    def state(self, status="stopped", **fields):
        document = {"id": "t1", "status": status, "bundle": self.bundle, "annotations": {}}
        return json.dumps(dict(document, **fields)).encode("ascii")


@pytest.fixture
def task(tmp_path):
    return Task(tmp_path / "k8s.io")


@pytest.fixture(params=["containerd", "podman"])
def managed(request, tmp_path):
    """A task, and the annotations of a container whose sandbox is ``s1``."""
    if request.param == "containerd":
        return Task(tmp_path), {CONTAINERD: "s1", CONTAINERD_TYPE: "container"}
    return Task(tmp_path, "userdata"), {CRIO: "s1", CRIO_TYPE: "container"}


def hook(state, *arguments, **options):
    return command.nlraw("hook", *arguments, stdin=state, **options)


def left_alone(reason):
    return (0, "container t1: %s; nothing to do\n" % reason, "")


def assert_cleaned(done, path):
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "container t1: %s: cleaned (uplink eth0)" % path


# ---------------------------------------------------------------- a path that names a process


@pytest.mark.parametrize("status", ["stopped", "", "creating"])
def test_the_namespace_of_the_sandboxs_process_is_cleaned_up(pod, task, status):
    before = pod.state()
    pod.add_orphan()
    child = pod.child()
    task.by_process(child.pid)
    assert_cleaned(hook(task.state(status)), "/proc/%d/ns/net" % child.pid)
    assert pod.state() == before


def test_a_process_that_has_ended_leaves_nothing_to_do(pod, task):
    child = pod.child()
    task.by_process(child.pid)
    child.kill()
    assert hook(task.state()) == left_alone(GONE)
    task.by_process(NOBODY)
    assert hook(task.state()) == left_alone(GONE)


# In a PID namespace of its own: a process in one pod is named by the config; it ends, and one in
# another pod gets its ID. Then the hook runs.
RECYCLE = """
nsenter --net="$1" sleep 100 & first=$!
sleep %s
sed "s/PID/$first/" "$3/config.template" >"$3/config.json"
sleep %s
kill -9 $first
wait $first
echo $((first - 1)) >/proc/sys/kernel/ns_last_pid || exit 77
nsenter --net="$2" sleep 100 &
[ $! = $first ] || exit 77
sleep %s
shift 3
"$@"
""" % ((APART,) * 3)

OWN_PIDS = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def recycled(task, first, second):
    """The command, in a PID namespace where a process of the first pod has had a successor."""
    os.rename(task.path("c1", "config.json"), task.path("c1", "config.template"))
    names = [first.path, second.path, task.bundle]
    return OWN_PIDS + ["sh", "-c", RECYCLE, "sh"] + names + list(MODULE)


def run_recycled(state, argv, *arguments):
    done = hook(state, *arguments, argv=argv)
    if done.status == 77:
        pytest.skip("a process ID cannot be chosen here")
    # the shell may report that its child was killed
    return done._replace(err=re.sub(r"(?m)^(sh: .*|.*Killed.*)\n", "", done.err))


@pytest.mark.parametrize("status", ["stopped", "creating"])
def test_a_process_id_that_belongs_to_another_process_is_not_followed(make_pod, task, status):
    first, second = make_pod(), make_pod()
    first.add_orphan()
    second.add_orphan()
    task.by_process("PID")
    done = run_recycled(task.state(status), recycled(task, first, second))
    assert done == left_alone(BY_PROCESS)
    assert TAP in first.links() and TAP in second.links()


def test_the_sandboxs_config_still_names_the_namespace_then(make_pod, managed):
    task, annotations = managed
    first, second = make_pod(), make_pod()
    first.add_orphan()
    second.add_orphan()
    task.write("s1", first.path)
    task.by_process("PID", **annotations)
    done = run_recycled(task.state(), recycled(task, first, second))
    assert_cleaned(done, first.path)
    assert TAP not in first.links() and TAP in second.links()


# ---------------------------------------------------------------- the sandbox's bundle


@pytest.mark.parametrize("where", ["state", "config"])
@pytest.mark.parametrize("process", ["alive", "ended"])
def test_the_sandboxs_config_names_the_namespace(pod, managed, where, process):
    task, annotations = managed
    before = pod.state()
    pod.add_orphan()
    child = pod.child()
    task.write("s1", pod.path, **{CONTAINERD: "s1", CONTAINERD_TYPE: "sandbox"})
    task.by_process(child.pid, **(annotations if where == "config" else {}))
    state = task.state(annotations=annotations if where == "state" else {})
    if process == "ended":
        child.kill()
    assert_cleaned(hook(state), pod.path)
    assert pod.state() == before


def test_two_namespaces_are_one_too_many(make_pod, managed):
    task, annotations = managed
    one, other = make_pod(), make_pod()
    one.add_orphan()
    other.add_orphan()
    task.write("s1", other.path)
    task.by_process(one.child().pid, **annotations)
    assert hook(task.state()) == left_alone(TWO)
    assert TAP in one.links() and TAP in other.links()


def nothing(task, pod):
    os.rename(task.path("s1"), task.path("s1") + ".old")


def a_new_namespace(task, pod):
    task.write("s1", None)


def no_namespace(task, pod):
    with open(task.path("s1", "config.json"), "w") as file:
        file.write("{}")


def one_that_is_gone(task, pod):
    task.write("s1", "/run/netns/nlraw-test-nowhere")


def a_process(task, pod):
    task.write("s1", "/proc/%d/ns/net" % pod.child().pid)


@pytest.mark.parametrize(
    "make", [nothing, a_new_namespace, no_namespace, one_that_is_gone, a_process]
)
def test_without_a_mount_in_the_sandboxs_config_the_process_counts(make_pod, managed, make):
    task, annotations = managed
    pod, other = make_pod(), make_pod()
    pod.add_orphan()
    task.write("s1", other.path)
    make(task, other)
    child = pod.child()
    task.by_process(child.pid, **annotations)
    assert_cleaned(hook(task.state()), "/proc/%d/ns/net" % child.pid)
    # and nothing is left to find if that has ended
    child.kill()
    assert hook(task.state()) == left_alone(GONE)


def test_the_sandbox_is_not_asked_where_the_path_is_a_mount(make_pod, task):
    pod, other = make_pod(), make_pod()
    pod.add_orphan()
    other.add_orphan()
    task.write("s1", other.path)
    task.write("c1", pod.path, **{CONTAINERD: "s1"})
    assert_cleaned(hook(task.state()), pod.path)
    assert TAP in other.links()


# ---------------------------------------------------------------- outsiders' words


@pytest.fixture
def victim(make_pod, managed):
    """Another pod, whose sandbox is ``v1``, with an orphan that must stay."""
    task, _ = managed
    made = make_pod()
    made.add_orphan()
    task.write("v1", made.path)
    # the same below the container's own bundle, for an ID that leads there
    inner = Task(task.path("c1"), task.tail)
    inner.write("v1", made.path)
    yield made
    assert TAP in made.links()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "c1/v1", "../k8s.io/v1", "v1/", "v1\0", "/v1", "\ud800", "v" * 256]
)
def test_an_id_that_is_no_plain_file_name_is_bad_input(pod, victim, managed, name):
    task, annotations = managed
    key = CONTAINERD if CONTAINERD in annotations else CRIO
    pod.add_orphan()
    task.by_process(pod.child().pid)
    done = hook(task.state(annotations={key: name}))
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("nlraw: check annotation " + key)
    assert TAP in pod.links()


def linked_directory(task):
    os.symlink(os.path.join(task.directory, "v1"), os.path.join(task.directory, "s1"))


def linked_config(task):
    os.makedirs(task.path("s1"))
    os.symlink(task.path("v1", "config.json"), task.path("s1", "config.json"))


def linked_inside(task):
    if not task.tail:
        return linked_directory(task)
    os.makedirs(os.path.join(task.directory, "s1"))
    return os.symlink(task.path("v1"), task.path("s1"))


def fifo(task):
    os.makedirs(task.path("s1"))
    os.mkfifo(task.path("s1", "config.json"))


def directory(task):
    os.makedirs(task.path("s1", "config.json"))


def file(task):
    with open(os.path.join(task.directory, "s1"), "w"):
        pass


def not_json(task):
    os.makedirs(task.path("s1"))
    with open(task.path("s1", "config.json"), "w") as made:
        made.write("{")


@pytest.mark.parametrize(
    "make", [linked_directory, linked_config, linked_inside, fifo, directory, file, not_json]
)
def test_a_sandbox_that_is_no_bundle_of_the_managers_is_bad_input(pod, victim, managed, make):
    task, annotations = managed
    make(task)
    pod.add_orphan()
    task.by_process(pod.child().pid, **annotations)
    done = hook(task.state())
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("nlraw: read container config " + task.directory)
    assert TAP in pod.links()


@pytest.mark.parametrize(
    "own",
    [
        {CONTAINERD: "v1", CONTAINERD_TYPE: "container"},
        {CRIO: "v1", CRIO_TYPE: "container"},
        {CONTAINERD: "another", CONTAINERD_TYPE: "sandbox"},
    ],
)
def test_another_container_is_no_sandbox(pod, victim, managed, own):
    task, annotations = managed
    task.write("v1", victim.path, **own)
    pod.add_orphan()
    task.by_process(pod.child().pid, **dict.fromkeys(annotations, "v1"))
    assert hook(task.state()) == left_alone("v1 is not its sandbox")
    assert TAP in pod.links()


@pytest.mark.parametrize("name", ["c1", "s1"])
def test_a_config_of_another_users_proves_nothing(pod, managed, name):
    task, annotations = managed
    pod.add_orphan()
    task.write("s1", pod.path)
    task.by_process(pod.child().pid, **annotations)
    path = task.path(name, "config.json")
    os.chown(path, 12345, -1)
    assert hook(task.state()) == left_alone(path + " belongs to user 12345, and not to root")
    assert TAP in pod.links()


def test_a_containers_config_that_is_a_link_is_bad_input(pod, task):
    pod.add_orphan()
    task.write("v1", pod.path)
    os.makedirs(task.bundle)
    os.symlink(task.path("v1", "config.json"), task.path("c1", "config.json"))
    done = hook(task.state())
    assert (done.status, done.out) == (1, "")
    assert "Too many levels of symbolic links" in done.err
    assert TAP in pod.links()


@pytest.mark.parametrize("bundle", ["/dev/null", "/dev/stdin", "/etc/hostname"])
def test_a_bundle_that_is_no_directory_is_not_opened(task, bundle):
    done = hook(task.state(bundle=bundle))
    assert done == (
        1,
        "",
        "nlraw: read container config %s/config.json: Not a directory; "
        '"bundle" in the state names its directory\n' % bundle,
    )


def test_the_namespace_of_process_1_is_left_alone(make_pod, task):
    """Even if the hook runs in another one."""
    node, elsewhere = make_pod(), make_pod()
    node.add_orphan()
    before = node.state()
    script = 'nsenter --net="$0" "$@"; exit $?'
    argv = ["nsenter", "--net=" + node.path] + OWN_PIDS + ["sh", "-c", script, elsewhere.path]
    task.write("c1", node.path)
    assert hook(task.state(), argv=argv + list(MODULE)) == left_alone(HOST)
    assert hook(task.state("created", pid=1), argv=argv + list(MODULE)) == left_alone(HOST)
    assert node.state() == before


# ---------------------------------------------------------------- a TAP in use


@pytest.mark.parametrize("status", ["creating", "created", "stopped"])
def test_a_tap_in_use_is_left_alone_and_the_start_goes_on(pod, task, status):
    pod.add_tap()
    pod.hold()
    task.write("c1", pod.path)
    before = pod.state()
    done = hook(task.state(status))
    assert done.status == 0
    words = "nlraw: container t1: %s: clean up %s: in use (carrier on), nothing was changed; "
    assert done.err == words % (pod.path, TAP) + "left alone\n"
    words = "container t1: %s: in use, nothing changed (uplink eth0)" % pod.path
    assert done.out.splitlines()[-1] == words
    assert pod.state() == before


@pytest.mark.parametrize("status", ["creating", "stopped"])
def test_with_refuse_it_is_3_and_nothing_is_changed(pod, task, status):
    pod.add_orphan("tap1_urunc")
    pod.add_tap()
    pod.hold()
    task.write("c1", pod.path)
    before = pod.state()
    done = hook(task.state(status), "--refuse")
    assert done.status == 3
    words = "nlraw: container t1: %s: clean up %s: in use (carrier on), nothing was changed%s\n"
    assert done.err == words % (pod.path, TAP, command.ADVICE)
    assert pod.state() == before


def test_orphans_beside_it_go_if_they_shall(pod, task):
    pod.add_orphan("tap1_urunc")
    pod.add_tap()
    pod.hold()
    task.write("c1", pod.path)
    assert hook(task.state(), "--keep-in-use").status == 0
    assert TAP in pod.links() and "tap1_urunc" not in pod.links()


def test_a_vmm_that_is_exiting_is_waited_for(pod, task):
    before = pod.state()
    pod.add_tap()
    holder = pod.hold()
    task.write("c1", pod.path)
    began = time.monotonic()
    assert hook(task.state(), "--refuse", "--wait", "0.3").status == 3
    assert time.monotonic() - began > 0.3
    threading.Timer(0.5, holder.release).start()
    done = hook(task.state(), "--refuse", "--wait", "10")
    assert_cleaned(done, pod.path)
    assert pod.state() == before


def test_the_process_that_holds_it_is_named_if_it_shall_be(pod, task):
    pod.add_tap()
    holder = pod.hold()
    task.write("c1", pod.path)
    assert "PID %d" % holder.pid in hook(task.state(), "--who").out


# ---------------------------------------------------------------- the VM's container

NAME = "io.kubernetes.cri.container-name"
KIND = "com.urunc.unikernel.unikernelType"


@pytest.mark.parametrize("status", ["creating", "stopped"])
def test_a_start_under_way_is_spared_by_a_hook_that_does_not_know_the_container(pod, task, status):
    pod.add_tap()
    before = pod.state()
    task.write("c1", pod.path)
    done = hook(task.state(status, annotations={NAME: "vm"}))
    assert (done.status, done.err) == (0, "")
    assert pod.state() == before


@pytest.mark.parametrize("status", ["creating", "stopped"])
@pytest.mark.parametrize("where", ["state", "config"])
def test_what_a_failed_start_left_goes_with_the_vms_container(pod, task, status, where):
    before = pod.state()
    pod.add_tap()
    annotations = {NAME: "vm", KIND: ""}
    task.write("c1", pod.path, **(annotations if where == "config" else {NAME: "another"}))
    state = task.state(status, annotations=annotations if where == "state" else {KIND: ""})
    wanted = ["--annotation", NAME + "=v?"]
    assert_cleaned(hook(state, *wanted), pod.path)
    assert pod.state() == before


@pytest.mark.parametrize("status", ["creating", "stopped"])
@pytest.mark.parametrize(
    "wanted, reason",
    [
        ([NAME + "=vm"], "its annotation %s is sidecar, not vm" % NAME),
        ([NAME + "=*", NAME + "=vm"], "its annotation %s is sidecar, not vm" % NAME),
        ([NAME + "=*car", KIND + "=*"], "it has no annotation " + KIND),
    ],
)
def test_nothing_is_done_for_other_containers(pod, task, status, wanted, reason):
    pod.add_orphan()
    pod.add_tap("tap1_urunc")
    before = pod.state()
    task.write("c1", pod.path)
    state = task.state(status, pid=pod.child().pid, annotations={NAME: "sidecar"})
    arguments = [word for text in wanted for word in ("--annotation", text)]
    assert hook(state, *arguments) == left_alone(reason)
    assert pod.state() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--annotation", "vm"],
        ["--annotation", "=vm"],
        ["--annotation", NAME + "="],
        ["--annotation", NAME + "=[v]m"],
        ["--annotation"],
        ["--refuse", "--keep-in-use"],
        ["--wait", "soon"],
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments):
    done = command.nlraw("hook", *arguments, streams="</dev/null")
    assert (done.status, done.out) == (2, "")


# ---------------------------------------------------------------- the system log


@pytest.fixture
def log(tmp_path):
    made = Log(str(tmp_path / "log"))
    yield made
    made.close()


def test_a_change_is_one_line_in_the_system_log(pod, task, log):
    pod.add_orphan()
    task.write("c1", pod.path)
    assert_cleaned(hook(task.state(), argv=log.argv), pod.path)
    ((priority, text),) = log.lines()
    assert priority == NOTICE
    words = "container t1: %s: deleted orphan %s (nobody held it); removed "
    assert text.startswith(words % (pod.path, TAP))
    assert "u32 filter on eth0 (it redirected to %s)" % TAP in text
    # the second time there is nothing to do
    assert hook(task.state(), argv=log.argv).status == 0
    assert log.lines() == []


def test_a_refusal_is_a_line_and_a_tap_left_alone_is_none(pod, task, log):
    pod.add_tap()
    holder = pod.hold()
    task.write("c1", pod.path)
    assert hook(task.state(), argv=log.argv).status == 0
    assert log.lines() == []
    assert hook(task.state(), "--refuse", "--who", argv=log.argv).status == 3
    ((priority, text),) = log.lines()
    assert priority == WARNING
    assert text.startswith("container t1: %s: clean up %s: in use (" % (pod.path, TAP))
    assert "PID %d" % holder.pid in text


def test_an_orphan_that_is_left_because_there_is_no_uplink_is_a_line(pod, task, log):
    pod.add_orphan()
    task.write("c1", pod.path)
    assert hook(task.state(), "-u", "eth7", argv=log.argv).status == 0
    words = "there is no uplink eth7, so these orphans stay: %s; `-u none` needs no uplink" % TAP
    assert log.lines() == [(WARNING, "container t1: %s: %s" % (pod.path, words))]


def test_a_tap_that_is_in_use_once_the_vms_container_has_stopped_is_a_line(pod, task, log):
    pod.add_tap()
    pod.hold()
    task.write("c1", pod.path, **{NAME: "vm"})
    for status, count in (("creating", 0), ("stopped", 1)):
        done = hook(task.state(status), "--annotation", NAME + "=vm", argv=log.argv)
        assert done.status == 0
        assert [priority for priority, _ in log.lines()] == [WARNING] * count


def test_a_failure_is_a_line(pod, task, log):
    task.write("c1", "/etc/hostname")
    done = hook(task.state("creating", id="\x1b[31m\n"), argv=log.argv)
    assert done.status == 1
    ((priority, text),) = log.lines()
    assert priority == ERROR
    assert text.startswith("container \\x1b[31m\\x0a: open namespace /etc/hostname: ")
    assert hook(b"{", argv=log.argv).status == 1
    ((priority, text),) = log.lines()
    assert priority == ERROR and text.startswith("read container state from stdin: it is not JSON")


def test_a_doubt_is_a_line_and_nothing_to_do_is_none(pod, task, log):
    task.write("c1", pod.path)
    os.chown(task.path("c1", "config.json"), 12345, -1)
    assert hook(task.state(), argv=log.argv).status == 0
    ((priority, text),) = log.lines()
    assert priority == WARNING and text.endswith(" belongs to user 12345, and not to root")
    for path in (None, "/run/netns/nlraw-test-nowhere", "/proc/self/ns/net"):
        os.unlink(task.path("c1", "config.json"))
        task.write("c1", path)
        assert hook(task.state(), argv=log.argv).status == 0
    assert hook(task.state(), "--annotation", "a=b", argv=log.argv).status == 0
    assert log.lines() == []


def test_a_log_that_nobody_reads_holds_nothing_up(pod, task, log):
    pod.add_orphan()
    task.write("c1", pod.path)
    log.fill()
    began = time.monotonic()
    assert_cleaned(hook(task.state(), argv=log.argv), pod.path)
    assert time.monotonic() - began < 5
    assert TAP not in pod.links()


def test_a_line_about_many_taps_fits(pod, task, log):
    names = ["tap%011d" % number for number in range(100)]
    pod.batch(*["tuntap add dev %s mode tap" % name for name in names])
    task.write("c1", pod.path, **{NAME: "vm"})
    wanted = ["--annotation", NAME + "=vm", "-m", "tap0*"]
    state = task.state(id="c" * 4000)
    assert hook(state, *wanted, argv=log.argv).status == 0
    ((priority, text),) = log.lines()
    assert priority == NOTICE and len(text) < 1024
    assert "deleted orphans tap00000000000, " in text
    assert text.endswith(" and 90 more (nobody held them)")

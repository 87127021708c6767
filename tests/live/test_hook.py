# SPDX-License-Identifier: Apache-2.0
"""The hook in real processes, on namespaces of the test's own.

Which one it takes, what it leaves alone, what it is fed.
"""

import os
import pty
import shutil
import subprocess
import sys
import time

import pytest

from lib import command, pods
from lib.command import MAIN, MODULE
from lib.oci import Bundle

# A process ID that is nobody's, and never was: above the highest (linux/threads.h).
NOBODY = 4194304
HOST = "container t1: it has the host's network, which is left alone; nothing to do\n"
GONE = "container t1: its network namespace is gone; nothing to do\n"
OTHERS = (
    "container t1: its network namespace is named by a process, which may be another one by now; "
    "nothing to do\n"
)


@pytest.fixture
def bundle(tmp_path):
    made = Bundle(str(tmp_path))
    made.configure({"type": "network"})
    return made


def hook(state, *arguments, **options):
    return command.nlraw("hook", *arguments, stdin=state, **options)


def inside(pod):
    """The command, whose own namespace is that of a pod."""
    return ("ip", "netns", "exec", pod.name) + MODULE


# ---------------------------------------------------------------- which namespace


@pytest.mark.parametrize("status", ["creating", "created", "running"])
def test_it_is_the_one_of_the_process_while_the_container_is_alive(pod, bundle, status):
    before = pod.state()
    pod.add_orphan()
    pid = pod.child().pid
    done = hook(bundle.state(status, pid=pid))
    assert (done.status, done.err) == (0, "")
    *rows, last = done.out.splitlines()
    path = "/proc/%d/ns/net" % pid
    assert [path, "tap0_urunc", "orphan", "deleted"] in [row.split() for row in rows]
    assert all(row.startswith(path + "  ") for row in rows)
    assert last == "container t1: %s: cleaned (uplink eth0)" % path
    assert pod.state() == before


def test_it_is_the_one_of_the_process_and_not_the_one_in_the_config(make_pod, bundle):
    here, there = make_pod(), make_pod()
    here.add_orphan()
    there.add_orphan()
    bundle.network(there.path)
    assert hook(bundle.state("creating", pid=here.child().pid)).status == 0
    assert pods.TAP not in here.links() and pods.TAP in there.links()


@pytest.mark.parametrize("pid", [NOBODY, 0, None], ids=["gone", "none", "left out"])
def test_it_is_the_one_in_the_config_where_there_is_no_process(pod, bundle, pid):
    pod.add_orphan()
    bundle.network(pod.path)
    done = hook(bundle.state("creating", pid=pid))
    assert (done.status, done.err) == (0, "")
    assert "\ncontainer t1: %s: cleaned " % pod.path in done.out
    assert pods.TAP not in pod.links()


@pytest.mark.parametrize(
    "pid", [None, 0, NOBODY], ids=["as runc says it", "as crun says it", "one that is gone"]
)
def test_of_a_stopped_container_it_is_the_one_in_the_config(pod, bundle, pid):
    pod.add_orphan()
    bundle.network(pod.path)
    assert hook(bundle.state("stopped", pid=pid)).status == 0
    assert pods.TAP not in pod.links()


@pytest.mark.parametrize("status", ["stopped", "", "paused"])
def test_the_process_of_a_container_that_is_not_alive_is_somebody_elses(make_pod, bundle, status):
    here, others = make_pod(), make_pod()
    here.add_orphan()
    others.add_orphan()
    bundle.network(here.path)
    assert hook(bundle.state(status, pid=others.child().pid)).status == 0
    assert pods.TAP not in here.links() and pods.TAP in others.links()


def test_a_link_to_a_process_is_not_followed_once_the_container_has_stopped(pod, bundle, tmp_path):
    pod.add_orphan()
    os.symlink("/proc/%d/ns/net" % pod.child().pid, str(tmp_path / "pinned"))
    bundle.network(str(tmp_path / "pinned"))
    assert hook(bundle.state("stopped")) == (0, OTHERS, "")
    assert pods.TAP in pod.links()
    assert hook(bundle.state("creating")).status == 0
    assert pods.TAP not in pod.links()


def test_a_process_is_followed_that_is_older_than_the_config(pod, bundle):
    pod.add_orphan()
    path = "/proc/%d/ns/net" % pod.child().pid
    time.sleep(0.1)  # the margin for the granularity of the clocks
    bundle.network(path)
    done = hook(bundle.state("stopped"))
    assert (done.status, done.err) == (0, "")
    assert "\ncontainer t1: %s: cleaned " % path in done.out
    assert pods.TAP not in pod.links()


def test_the_options_are_those_of_cleanup(pod, bundle):
    pod.add_orphan("vm7", redirect=False)
    pod.add_orphan()
    pid = pod.child().pid
    state = bundle.state("creating", pid=pid)
    words = "container t1: /proc/%d/ns/net: skipped, there is no uplink eth9" % pid
    assert hook(state, "-u", "eth9", "-m", "*").out.splitlines()[-1] == words
    assert "vm7" in pod.links()
    assert hook(state, "--match", "vm?", "--uplink", "auto").status == 0
    assert pods.TAP in pod.links() and "vm7" not in pod.links()


# ---------------------------------------------------------------- nothing to do


@pytest.mark.parametrize(
    "status, pid", [("stopped", None), ("stopped", 0), ("creating", NOBODY), ("created", None)]
)
@pytest.mark.parametrize(
    "namespace, shown",
    [
        ({"type": "network"}, GONE),
        ({"type": "network", "path": "/run/netns/nlraw-test-nowhere"}, GONE),
        ({"type": "network", "path": __file__ + "/net"}, GONE),
        ({"type": "network", "path": "/proc/%d/ns/net" % NOBODY}, GONE),
        ({"type": "pid"}, HOST),
    ],
    ids=["a new one", "no such path", "no such directory", "no such process", "none"],
)
def test_with_no_namespace_left_or_the_hosts_nothing_is_done(bundle, status, pid, namespace, shown):
    bundle.configure(namespace)
    assert hook(bundle.state(status, pid=pid)) == (0, shown, "")


def test_a_file_whose_namespace_was_unmounted_is_no_namespace_any_more(bundle, tmp_path):
    (tmp_path / "pinned").write_text("")
    bundle.network(str(tmp_path / "pinned"))
    assert hook(bundle.state("stopped")) == (0, GONE, "")
    (tmp_path / "pinned").write_text("something")
    assert hook(bundle.state("stopped")).status == 1


def own_namespace(pod, bundle, tmp_path):
    """States that mean the namespace of a pod, each in another way."""
    child = pod.child().pid
    yield bundle.state("created", pid=child)
    for path in (
        pod.path,
        "/proc/self/ns/net",
        "/proc/thread-self/ns/net",
        "/proc/%d/ns/net" % child,
    ):
        bundle.network(path)
        yield bundle.state("creating")
        yield bundle.state("creating", pid=child)
    for path in (pod.path, str(tmp_path / "link")):
        bundle.network(path)
        yield bundle.state("stopped")
    bundle.configure({"type": "uts"})
    yield bundle.state("creating", pid=child)
    os.unlink(bundle.config)
    yield bundle.state("creating", pid=child)


def test_the_hooks_own_namespace_is_left_alone_whatever_it_is_called(pod, bundle, tmp_path):
    pod.add_orphan()
    os.symlink(pod.path, str(tmp_path / "link"))
    before = pod.state()
    tried = 0
    for state in own_namespace(pod, bundle, tmp_path):
        assert hook(state, argv=inside(pod)) == (0, HOST, "")
        tried += 1
    assert pod.state() == before and tried == 13


def test_a_process_of_another_pid_namespace_than_that_of_proc_is_not_looked_for(pod, bundle):
    argv = ("unshare", "--pid", "--fork") + MODULE
    done = hook(bundle.state("created", pid=1), argv=argv)
    words = "/proc shows another PID namespace; is this createRuntime, prestart or poststop?"
    assert done == (1, "", "nlraw: find process 1: %s\n" % words)
    pod.add_orphan()
    bundle.network(pod.path)
    assert hook(bundle.state("stopped", pid=1), argv=argv).status == 0
    assert pods.TAP not in pod.links()


def test_where_the_process_is_the_runtimes_own_it_is_the_one_in_the_config(make_pod, bundle):
    node, pod = make_pod(), make_pod()
    node.add_orphan()
    pod.add_orphan()
    bundle.network(pod.path)
    assert hook(bundle.state("creating", pid=node.child().pid), argv=inside(node)).status == 0
    assert pods.TAP in node.links() and pods.TAP not in pod.links()


# ---------------------------------------------------------------- exit status


@pytest.mark.parametrize("refuse", [False, True])
@pytest.mark.parametrize("status", ["creating", "created", "stopped"])
def test_a_tap_in_use_is_left_alone_and_a_refusal_where_that_is_wanted(pod, bundle, status, refuse):
    pod.add_tap()
    pid = pod.hold().pid
    bundle.network(pod.path)
    before = pod.state()
    state = bundle.state(status, pid=None if status == "stopped" else pid)
    done = hook(state, *["--refuse"] * refuse)
    path = pod.path if status == "stopped" else "/proc/%d/ns/net" % pid
    row, last = done.out.splitlines()
    assert row.split() == [path, pods.TAP, "in-use", "left", "alone"]
    assert (done.status, last) == (
        3 if refuse else 0,
        "container t1: %s: in use, nothing changed (uplink eth0)" % path,
    )
    assert (
        done.err == "nlraw: container t1: %s: clean up tap0_urunc: in use (carrier on), "
        "nothing was changed%s\n" % (path, command.ADVICE if refuse else "; left alone")
    )
    assert pod.state() == before


def test_what_the_kernel_refuses_is_1_and_names_the_capability(pod, bundle):
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv of util-linux")
    pod.add_orphan()
    bundle.network(pod.path)
    for capability, step in (
        ("sys_admin", "enter namespace"),
        ("net_admin", "delete u32 filters of priority 49152 on eth0"),
    ):
        argv = (
            "setpriv",
            "--bounding-set",
            "-" + capability,
            "--inh-caps",
            "-" + capability,
        ) + MODULE
        done = hook(bundle.state("stopped"), argv=argv)
        failed = "container t1: %s: failed: " % pod.path
        last = done.out.splitlines()[-1]
        assert (done.status, last.startswith(failed)) == (1, True)
        assert done.err.startswith("nlraw: container t1: ") and step in done.err
        reason = done.err.replace(" " + pod.path, "")  # on stdout it is not named twice
        assert reason.endswith(last[len(failed) :].replace(pod.path + ": ", "") + "\n")
        assert "CAP_" + capability.upper() in done.err
    assert pods.TAP in pod.links()


@pytest.mark.parametrize(
    "path, words",
    [
        (__file__, "open namespace %s: this is not a namespace; %s" % (__file__, command.WHERE)),
        ("/", "open namespace /: this is not a namespace; " + command.WHERE),
        (
            "/proc/self/ns/mnt",
            "open namespace /proc/self/ns/mnt: this is a namespace of the mount kind, not a "
            "network namespace",
        ),
    ],
    ids=["a file", "a directory", "a mount namespace"],
)
def test_a_path_that_is_no_network_namespace_is_1(bundle, path, words):
    bundle.network(path)
    assert hook(bundle.state("creating")) == (1, "", "nlraw: %s\n" % words)


def make_directory(path):
    os.mkdir(path)


def make_large(path):
    with open(path, "wb") as file:
        file.write(b" " * (2 << 20) + b"{}")


def make_nothing(path):
    pass


def make_latin(path):
    with open(path, "wb") as file:
        file.write(b'{"hostname": "\xe9"}')


@pytest.mark.parametrize(
    "make, words",
    [
        (make_nothing, "No such file or directory"),
        (make_directory, "it is not a regular file"),
        (os.mkfifo, "it is not a regular file"),
        (make_large, "it is longer than 2097152 bytes"),
        (make_latin, "it is not JSON: 'utf-8' codec"),
    ],
    ids=["nothing", "a directory", "a FIFO", "a large file", "no UTF-8"],
)
def test_a_config_that_cannot_be_read_is_1(bundle, make, words):
    os.unlink(bundle.config)
    make(bundle.config)
    done = hook(bundle.state("stopped"))
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("nlraw: read container config %s: %s" % (bundle.config, words))


# ---------------------------------------------------------------- stdin


@pytest.mark.parametrize(
    "streams, words",
    [
        ("<&-", "it is closed"),
        ("</dev/null", "it is empty; `runc state ID` prints a state"),
        ("</dev/zero", "it is longer than 2097152 bytes"),
        (
            "</proc/version",
            "it is not JSON: Expecting value: line 1 column 1 (char 0); "
            "`runc state ID` prints a state",
        ),
        ("0>/dev/null", "Bad file descriptor"),
    ],
)
def test_a_bad_stdin_is_1(streams, words):
    done = command.nlraw("hook", streams=streams)
    assert done == (1, "", "nlraw: read container state from stdin: %s\n" % words)


def test_a_state_as_large_as_a_pods_annotations_may_be_is_read(pod, bundle):
    pod.add_orphan()
    annotations = {"large": "\0" * (256 << 10)}  # six bytes each in JSON
    assert hook(bundle.state("creating", pid=pod.child().pid, annotations=annotations)).status == 0
    assert pods.TAP not in pod.links()


def test_a_terminal_is_1_at_once():
    master, slave = pty.openpty()
    try:
        _, err = command.start("hook", stdin=slave).communicate(timeout=4)
    finally:
        os.close(master)
        os.close(slave)
    assert (
        err == b"nlraw: read container state from stdin: it is a terminal; "
        b"a container runtime writes the container's state here\n"
    )


def test_a_usage_error_is_2_and_nothing_is_read():
    process = command.start("hook", "--json", stdin=subprocess.PIPE)
    assert process.wait(timeout=4) == 2
    process.communicate()
    assert command.nlraw("hook", "-u", "a" * 16, streams="</dev/zero").status == 2


def test_neither_environment_nor_a_directory_is_needed(pod, bundle, tmp_path):
    for name in ("json.py", "nlraw.py", "select.py", "os.py", "_json.py"):
        (tmp_path / name).write_text("raise SystemExit(77)")
    gone = tmp_path / "gone"
    gone.mkdir()
    for directory in (str(tmp_path), str(gone)):
        pod.add_orphan()
        shell = 'if [ -d gone ]; then :; else rmdir "$PWD"; fi; exec "$0" "$@"'
        argv = ["/bin/sh", "-c", shell, sys.executable, "-I", "-S", MAIN, "hook"]
        state = bundle.state("creating", pid=pod.child().pid).decode("ascii")
        done = command.attempt(*argv, input=state, cwd=directory, env={})
        assert (done.status, done.err) == (0, "")
        assert pods.TAP not in pod.links()


def test_a_name_from_outside_never_reaches_a_log_unescaped(bundle):
    done = hook(bundle.state("stopped", id="\x1b[31m\n\udcff"))
    assert done == (0, GONE.replace("t1", "\\x1b[31m\\x0a\\xff"), "")
    done = hook(bundle.state("stopped", bundle="/\x1b[31m\n"))
    assert done == (
        1,
        "",
        "nlraw: read container config /\\x1b[31m\\x0a/config.json: No such file or directory; "
        '"bundle" in the state names its directory\n',
    )

# SPDX-License-Identifier: Apache-2.0
"""Namespaces by every name they can be given, and what is none.

The caller never moves, and nothing is left open.
"""

import concurrent.futures
import contextlib
import errno
import os
import pathlib
import platform
import posix
import resource
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

import nlraw
from lib import command, pods
from nlraw import libc, link, threads
from nlraw.connection import Connection
from nlraw.netns import Namespace


def here():
    """The namespace of the calling thread, and so of all of ours if nothing strays."""
    found = os.stat("/proc/thread-self/ns/net")
    return found.st_dev, found.st_ino


def names(netns):
    return [tap.ifname for tap in nlraw.scan(netns=netns)]


@contextlib.contextmanager
def within(seconds):
    """Fail if the block takes longer, even where it hangs in a system call."""

    def ring(*_):
        pytest.fail("still not done after %s s" % seconds)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------- by every name


def test_a_namespace_is_found_by_pid(pod):
    pod.add_tap(redirect=False)
    pid = pod.child().pid
    assert names(pid) == names(str(pid)) == [pods.TAP]
    assert nlraw.cleanup(netns=pid, dry_run=True).netns == "/proc/%d/ns/net" % pid
    assert nlraw.cleanup(netns=str(pid)).netns == "/proc/%d/ns/net" % pid


def test_a_namespace_is_found_by_name(pod):
    pod.add_tap(redirect=False)
    assert names(pod.name) == [pods.TAP]
    assert os.path.samefile(nlraw.cleanup(netns=pod.name).netns, pod.path)


def test_a_namespace_is_found_by_path(pod):
    pod.add_tap(redirect=False)
    assert names(pod.path) == names(pathlib.Path(pod.path)) == [pods.TAP]
    assert nlraw.cleanup(netns=pathlib.Path(pod.path)).netns == pod.path


def test_a_namespace_is_found_by_a_relative_path(pod, monkeypatch):
    pod.add_tap(redirect=False)
    monkeypatch.chdir(os.path.dirname(pod.path))
    assert names("./" + pod.name) == [pods.TAP]


def test_a_namespace_is_found_by_a_symbolic_link(pod, tmp_path):
    pod.add_tap(redirect=False)
    link = tmp_path / "link"
    link.symlink_to(pod.path)
    assert names(link) == [pods.TAP]


def test_a_namespace_is_found_by_a_descriptor_which_stays_open(pod):
    pod.add_tap(redirect=False)
    with open(pod.path) as file, Namespace(pod.path) as namespace:
        assert names(file) == names(namespace) == [pods.TAP]
        nlraw.cleanup(netns=file)
        assert names(file) == names(namespace) == []


def test_a_namespace_without_a_name_any_more_is_found_by_its_descriptor(pod, tmp_path):
    pod.add_tap(redirect=False)
    with open(pod.path) as file:
        command.run("ip", "netns", "del", pod.name)
        try:
            assert names(file) == [pods.TAP]
        finally:
            # for the fixture to delete
            command.run("ip", "netns", "attach", pod.name, str(os.getpid()))


def test_the_current_namespace_needs_no_name(pod):
    pod.add_tap(redirect=False)
    assert pod.run(lambda: names(None)) == [pods.TAP]
    report = pod.run(nlraw.cleanup)
    assert (report.netns, report.outcome) == ("current", "cleaned")
    assert pods.TAP not in pod.links()


def test_paths_to_one_namespace_have_one_identity(pod, make_pod):
    other = make_pod(uplink=None)
    with Namespace(pod.path) as by_path, Namespace(pod.child().pid) as by_pid, Namespace(
        other.path
    ) as another:
        assert by_path.identity() == by_pid.identity() != another.identity()


# ---------------------------------------------------------------- what is no namespace


def refusal(netns, kind):
    """The error of scan and of cleanup on something that is no namespace; they say the same."""
    with within(5):
        with pytest.raises(nlraw.Error) as scanned:
            nlraw.scan(netns=netns)
        with pytest.raises(nlraw.Error) as cleaned:
            nlraw.cleanup(netns=netns)
    assert type(scanned.value) is type(cleaned.value) is kind
    assert str(scanned.value) == str(cleaned.value)
    assert cleaned.value.step == "open namespace"
    return cleaned.value


def check_report(error, path):
    assert (error.report.netns, error.report.outcome, error.report.error) == (path, "failed", error)


def test_a_plain_file_is_no_namespace(tmp_path):
    path = tmp_path / "plain"
    path.write_text("a")
    error = refusal(path, nlraw.BadNamespace)
    assert str(error) == "open namespace %s: this is not a namespace; %s" % (path, command.WHERE)
    check_report(error, str(path))


def test_a_directory_is_no_namespace(tmp_path):
    assert "this is not a namespace" in str(refusal(tmp_path, nlraw.BadNamespace))


def test_a_fifo_is_no_namespace_and_is_not_waited_for(tmp_path):
    os.mkfifo(str(tmp_path / "fifo"))
    assert "this is not a namespace" in str(refusal(tmp_path / "fifo", nlraw.BadNamespace))


def test_a_device_is_no_namespace():
    assert "this is not a namespace" in str(refusal("/dev/null", nlraw.BadNamespace))


@pytest.mark.parametrize(
    "file, kind", [("mnt", "mount"), ("uts", "uts"), ("user", "user"), ("pid", "pid")]
)
def test_a_namespace_of_another_kind_is_named(file, kind):
    error = refusal("/proc/self/ns/" + file, nlraw.BadNamespace)
    assert "of the %s kind, not a network namespace" % kind in str(error)


def test_a_missing_name_is_looked_for_where_ip_netns_keeps_them():
    error = refusal("nlraw-no-such-name", nlraw.Refused)
    assert error.errno == errno.ENOENT
    assert "there is no namespace of that name in /run/netns or /var/run/netns" in str(error)
    check_report(error, "/run/netns/nlraw-no-such-name")


def test_an_empty_name_is_none():
    error = refusal("", nlraw.BadNamespace)
    assert str(error) == (
        "open namespace /run/netns/: the name is empty; give a PID, a path or a name"
    )


def test_a_missing_path_is_the_kernels_word_and_an_example(tmp_path):
    error = refusal(tmp_path / "missing", nlraw.Refused)
    words = "%s; %s" % (os.strerror(errno.ENOENT), command.WHERE)
    assert (error.errno, error.message) == (errno.ENOENT, words)


def test_the_file_that_a_deleted_name_leaves_behind_is_no_namespace(pod):
    command.run("umount", pod.path)  # the file stays where a namespace was mounted
    words = "this is an empty file: no namespace is mounted here"
    assert words in str(refusal(pod.name, nlraw.BadNamespace))


NO_PROCESS = "there is no process %d, or it has ended; `lsns -t net` lists PIDs"


def test_a_dead_process_has_no_namespace():
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    for netns in (process.pid, str(process.pid)):
        error = refusal(netns, nlraw.Refused)
        assert (error.errno, error.object) == (errno.ENOENT, "/proc/%d/ns/net" % process.pid)
        assert error.message == NO_PROCESS % process.pid


def stat(pid):
    with open("/proc/%d/stat" % pid) as file:
        return file.read()


def test_a_zombie_has_no_namespace():
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    while stat(process.pid).rpartition(") ")[2][0] != "Z":  # PyPy has no os.waitid
        time.sleep(0.01)
    try:
        error = refusal(process.pid, nlraw.Refused)
    finally:
        process.wait()
    assert error.errno == errno.ENOENT
    assert error.message == NO_PROCESS % process.pid


@pytest.mark.parametrize("pid", [0, -1, 1 << 40, "0", "9" * 30])
def test_an_impossible_pid_is_a_clear_error(pid):
    refusal(pid, nlraw.Refused)


@pytest.mark.parametrize(
    "name",
    ["a\0b", "/run/netns/a\0b", pathlib.PurePosixPath("a\0b"), "\ud800", "/\ud800", "9" * 5000],
    ids=[
        "NUL in a name",
        "NUL in a path",
        "NUL in a path object",
        "surrogate",
        "surrogate in a path",
        "5000 digits",
    ],
)
def test_a_string_that_can_name_no_file_is_a_clear_error(name):
    with pytest.raises(nlraw.Error) as caught:
        nlraw.scan(netns=name)
    assert caught.value.step == "open namespace"
    assert isinstance(caught.value, (nlraw.BadNamespace, nlraw.Refused))


def test_a_path_that_is_too_long_is_the_kernels_word():
    assert refusal("/" + "x" * 5000, nlraw.Refused).errno == errno.ENAMETOOLONG


class Descriptor:
    def __init__(self, number):
        self.number = number

    def fileno(self):
        return self.number


@pytest.mark.parametrize("number", [9999, -1])
def test_a_descriptor_that_is_not_open_is_the_kernels_word(number):
    assert refusal(Descriptor(number), nlraw.Refused).errno == errno.EBADF


def test_a_descriptor_of_something_else_is_no_namespace(tmp_path):
    with (tmp_path / "plain").open("w") as file:
        file.write("a")
        file.flush()
        assert "this is not a namespace" in str(refusal(file, nlraw.BadNamespace))


def test_a_closed_file_is_a_clear_error(pod):
    file = open(pod.path)
    file.close()
    with pytest.raises(nlraw.Error):
        nlraw.scan(netns=file)


@pytest.mark.parametrize("netns", [1.5, b"/run/netns/x", [], object(), True])
def test_what_is_no_name_at_all_is_invalid(netns):
    with pytest.raises(nlraw.Invalid) as caught:
        nlraw.scan(netns=netns)
    assert "a PID, a path, a name or a descriptor" in str(caught.value)


def test_a_closed_namespace_is_an_error_and_never_the_current_one(pod):
    namespace = Namespace(pod.path)
    namespace.close()
    namespace.close()
    with Connection(namespace) as connection, pytest.raises(nlraw.Refused) as caught:
        connection.ask(link.dump())
    assert caught.value.errno == errno.EBADF


# ---------------------------------------------------------------- the caller stays where it is


def test_the_callers_namespace_is_never_left(pod):
    before = here()
    pod.add_orphan()
    nlraw.scan(netns=pod.path)
    nlraw.cleanup(netns=pod.path)
    assert here() == before


def test_the_callers_namespace_is_never_left_where_the_cleanup_fails(pod):
    before = here()
    pod.add_tap()
    pod.hold()
    with pytest.raises(nlraw.TapInUse):
        nlraw.cleanup(netns=pod.path)
    with Namespace(pod.path) as namespace, pytest.raises(ZeroDivisionError):
        namespace.run(lambda: 1 / 0)
    assert here() == before


def test_threads_that_scan_many_namespaces_at_once_stay_where_they_are(make_pod):
    pods_of = {number: make_pod(uplink=None) for number in range(4)}
    for number, pod in pods_of.items():
        pod.add_tap("tap%d_urunc" % number, redirect=False)
    before = here()

    def work(number):
        for _ in range(25):
            assert names(pods_of[number % 4].path) == ["tap%d_urunc" % (number % 4)]
            assert here() == before
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert here() == before


def test_a_function_is_called_inside_on_a_thread_of_its_own(pod):
    with Namespace(pod.path) as namespace:
        inside, thread = namespace.run(lambda: (here(), threading.get_ident()))
        assert inside == namespace.identity() != here()
        assert thread != threading.get_ident()


# ---------------------------------------------------------------- nothing stays open


def open_files():
    return sorted(os.listdir("/proc/self/fd"))


def count_threads():
    """How many threads there are, once those on their way out have gone."""
    time.sleep(0.1)
    return len(os.listdir("/proc/self/task"))


def test_200_scans_leave_no_descriptor_and_no_thread(pod):
    pod.add_tap()
    pod.hold()
    before = open_files(), count_threads()
    for _ in range(200):
        nlraw.scan(netns=pod.path)
        with pytest.raises(nlraw.TapInUse):
            nlraw.cleanup(netns=pod.path)
    assert (open_files(), count_threads()) == before


def test_failures_leave_no_descriptor(tmp_path):
    before = open_files()
    for netns in (tmp_path, "nlraw-no-such-name", "/proc/self/ns/mnt", Descriptor(9999)):
        with pytest.raises(nlraw.Error):
            nlraw.scan(netns=netns)
    assert open_files() == before


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_a_full_descriptor_table_is_a_clear_error(pod, spare):
    pod.add_tap(redirect=False)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    nlraw.scan(netns=pod.path)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(open_files()) + 20, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(spare):
            os.close(taken.pop())
        if spare == 2:  # the namespace, the socket
            assert names(pod.path) == [pods.TAP]
            return
        with pytest.raises(nlraw.Refused) as caught:
            nlraw.scan(netns=pod.path)
        assert caught.value.errno == errno.EMFILE
        assert caught.value.step == ("open namespace" if spare == 0 else "list links")
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# ---------------------------------------------------------------- how it is entered


@pytest.fixture
def old_python(monkeypatch):
    """As before 3.12, with nothing found in the C library yet."""
    monkeypatch.delattr(posix, "setns", raising=False)
    monkeypatch.setattr(libc, "FOUND", {})


def test_namespaces_are_entered_through_the_c_library_where_python_has_no_setns(pod, old_python):
    pod.add_tap(redirect=False)
    assert names(pod.path) == [pods.TAP]
    assert list(libc.FOUND) == ["setns"]


def test_all_of_ctypes_serves_where_its_c_half_is_another(pod, old_python, monkeypatch):
    pod.add_tap(redirect=False)
    monkeypatch.setitem(sys.modules, "_ctypes", type(sys)("_ctypes"))
    assert names(pod.path) == [pods.TAP]


def test_a_refusal_of_the_c_library_has_its_errno(old_python):
    with pytest.raises(nlraw.Refused) as caught:
        libc.call("setns", "enter namespace", "a closed one", 1 << 30, 0)
    assert caught.value.errno == errno.EBADF


@pytest.mark.skipif(
    not hasattr(posix, "setns"), reason="this Python has no os.setns (3.12 and newer)"
)
def test_namespaces_are_entered_without_ctypes_where_python_has_setns(pod, monkeypatch):
    pod.add_tap(redirect=False)
    monkeypatch.setitem(sys.modules, "_ctypes", None)
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert names(pod.path) == [pods.TAP]


def test_a_ctypes_that_could_not_be_read_is_as_good_as_none(pod, old_python, monkeypatch):
    monkeypatch.setitem(sys.modules, "_ctypes", None)
    # what import makes of a directory whose __init__.py cannot be looked at
    monkeypatch.setitem(sys.modules, "ctypes", types.ModuleType("ctypes"))
    with pytest.raises(nlraw.Error) as caught:
        nlraw.scan(netns=pod.path)
    assert caught.value.step == "enter namespace"
    assert "cannot import name 'CDLL'" in str(caught.value)


@pytest.mark.skipif(platform.python_implementation() != "CPython", reason="needs reference counts")
def test_a_thread_that_dies_as_it_is_born_is_not_waited_for():
    # it ends before it has called anything, as where there is no memory: CPython lets go of the
    # arguments
    born = []
    with within(5), pytest.raises(nlraw.Refused) as caught:
        threads.on_own_thread(lambda: 1, lambda function, arguments: born.append(function))
    assert (caught.value.errno, caught.value.step) == (errno.ENOMEM, "start thread")
    assert born


def test_whatever_a_close_answers_the_descriptor_is_gone_and_the_work_is_done(pod, monkeypatch):
    pod.add_tap()
    before, real = open_files(), posix.close

    def close(fd):
        real(fd)
        raise OSError(errno.EIO, "on purpose")

    monkeypatch.setattr(posix, "close", close)
    assert names(pod.path) == [pods.TAP]
    assert nlraw.setup(netns=pod.path).outcome == "created"
    monkeypatch.undo()
    assert open_files() == before
    assert pods.TAP in pod.links()


def test_without_setns_and_ctypes_the_current_namespace_alone_can_be_used(
    pod, old_python, monkeypatch
):
    pod.add_tap(redirect=False)

    def here():
        # not before: the test itself enters by them
        monkeypatch.setitem(sys.modules, "_ctypes", None)
        monkeypatch.setitem(sys.modules, "ctypes", None)
        return names(None)

    assert pod.run(here) == [pods.TAP]
    with pytest.raises(nlraw.Error) as caught:
        nlraw.scan(netns=pod.path)
    assert caught.value.step == "enter namespace"
    assert "neither os.setns (3.12 and newer) nor ctypes" in str(caught.value)

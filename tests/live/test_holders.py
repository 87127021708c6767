# SPDX-License-Identifier: Apache-2.0
"""Who holds a TAP: real processes in real namespaces, and what `--who` prints."""

import os
import socket
import subprocess
import sys

import pytest

import nlraw
from lib import pods, taps
from lib.command import nlraw as command
from nlraw import holders
from nlraw.netns import Namespace
from nlraw.report import Holder

# Forks: the child inherits the descriptor of the TAP.
FORK = """
import fcntl, os, struct, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("=16sH22x", b"tap0_urunc", 0x1002))
read, write = os.pipe()
child = os.fork()
if not child:
    os.close(write)
    os.read(read, 1)
    os._exit(0)
os.close(read)
print("ready", flush=True)
print(child, flush=True)
sys.stdin.read()
"""

# Receives a descriptor over a socket pair and keeps it, in whatever namespace it was started.
KEEP = """
import os, socket, sys
channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=int(sys.argv[1]))
kept = channel.recvmsg(1, socket.CMSG_SPACE(4))[1]
print("ready", flush=True)
sys.stdin.read()
"""

# Attaches in its main thread, which then ends, while another thread lives on. Is ready when it has
# ended: in between its descriptors go while they are being read.
THREADS = """
import ctypes, fcntl, os, struct, sys, threading, time
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("=16sH22x", b"tap0_urunc", 0x1002))
def live():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)
    print("ready", flush=True)
    os.read(0, 1)
    os._exit(0)
threading.Thread(target=live).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def find(pod, *names):
    with Namespace(pod.path) as namespace:
        return holders.find(namespace, names or [pods.TAP])


def pids(found, *ours):
    """Which of our processes are holders.

    Those of other tests that run meanwhile may be too: elimination cannot know better.
    """
    return [holder.pid for holder in found[pods.TAP] if holder.pid in ours]


def comm(pid):
    with open("/proc/%d/comm" % pid) as file:
        return file.read()[:-1]


def kernel_that_can_be_asked():
    """The function that asks it; skips where there is none (pidfd_getfd() is of Linux 5.6)."""
    namespace_of = holders._namespace_of()
    if namespace_of is None:
        pytest.skip("this Python cannot ask")
    if tuple(map(int, os.uname().release.split(".")[:2])) < (5, 6):
        pytest.skip("this kernel cannot be asked")
    return namespace_of


def by_elimination(monkeypatch):
    """Take away what asks the kernel for a TAP's namespace."""
    monkeypatch.setattr(holders, "_namespace_of", lambda: None)


@pytest.fixture(params=["asked", "eliminated"])
def way(request, monkeypatch):
    if request.param == "eliminated":
        by_elimination(monkeypatch)
    return request.param


@pytest.fixture
def passed(pod):
    """Pass a descriptor of a pod's TAP to a process outside; return that process's ID."""
    here, there = socket.socketpair()
    keeper = subprocess.Popen(
        [sys.executable, "-S", "-c", KEEP, str(there.fileno())],
        pass_fds=[there.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    there.close()

    tun = pod.run(lambda: taps.attach(pods.TAP))
    here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, tun.to_bytes(4, sys.byteorder))])
    assert keeper.stdout.readline() == b"ready\n"
    os.close(tun)
    here.close()
    yield keeper.pid
    keeper.communicate()


def test_an_orphan_has_no_holder(pod):
    pod.add_orphan()
    assert find(pod) == {pods.TAP: ()}


def test_the_process_that_attached_is_found(pod, way):
    pod.add_tap()
    holder = pod.hold()
    assert Holder(pid=holder.pid, comm=comm(holder.pid)) in find(pod)[pods.TAP]


def test_a_tap_of_that_name_in_another_pod_has_holders_of_its_own(make_pod, way):
    one, other = make_pod(), make_pod()
    first, second = one.hold(), other.hold()
    ours = (first.pid, second.pid)
    assert pids(find(one), *ours) == [first.pid]
    assert pids(find(other), *ours) == [second.pid]


def test_parent_and_child_hold_what_was_inherited(pod, way):
    pod.add_tap()
    parent = pod.child(FORK)
    child = int(parent.read())
    assert pids(find(pod), parent.pid, child) == sorted([parent.pid, child])


def test_a_descriptor_that_was_passed_on_is_found_in_another_namespace(pod, passed, way):
    assert pids(find(pod), passed) == [passed]


def test_the_kernel_knows_whose_tap_a_passed_descriptor_is(make_pod, pod, passed):
    kernel_that_can_be_asked()
    other = make_pod()
    other.add_tap()
    assert pids(find(other), passed) == []
    assert pids(find(pod), passed) == [passed]


def _descriptor(pid):
    directory = "/proc/%d/fd" % pid
    for entry in os.listdir(directory):
        if os.readlink("%s/%s" % (directory, entry)).endswith("/tun"):
            return int(entry)
    raise AssertionError("no descriptor")


def test_a_process_whose_first_thread_has_ended_is_found(pod, way):
    pod.add_tap()
    holder = pod.child(THREADS)
    assert pids(find(pod), holder.pid) == [holder.pid]


def test_a_search_leaves_no_descriptor_and_the_tap_is_free_afterwards(pod):
    pod.add_tap()
    holder = pod.hold()
    before = sorted(os.listdir("/proc/self/fd"))
    assert pids(find(pod), holder.pid) == [holder.pid]
    assert sorted(os.listdir("/proc/self/fd")) == before
    holder.release()
    (tap,) = nlraw.scan(netns=pod.path)
    assert tap.carrier is False


def test_a_number_that_is_another_process_by_now_is_not_taken_for_the_holder(pod):
    """A descriptor that is something else, as after a process ID was used again."""
    namespace_of = kernel_that_can_be_asked()
    holder = pod.hold()
    tun = _descriptor(holder.pid)
    with Namespace(pod.path) as namespace:
        assert namespace_of(holder.pid, tun, pods.TAP) == namespace.identity()
    assert namespace_of(holder.pid, tun, "tap1_urunc") == holders.NOWHERE
    assert namespace_of(holder.pid, 0, pods.TAP) == holders.NOWHERE  # a pipe
    assert namespace_of(holder.pid, 999, pods.TAP) == holders.NOWHERE
    holder.kill()
    assert namespace_of(holder.pid, tun, pods.TAP) == holders.NOWHERE


def test_nothing_is_asked_where_proc_is_of_another_pid_namespace(pod, monkeypatch):
    monkeypatch.setattr(holders.posix, "getpid", lambda: 1 << 30)
    assert holders._namespace_of() is None
    holder = pod.hold()
    assert pids(find(pod), holder.pid) == [holder.pid]


# ---------------------------------------------------------------- the command line


def test_who_names_the_holder_in_text_and_in_json(pod):
    pod.add_tap()
    holder = pod.hold()
    name = comm(holder.pid)
    status, out, _ = command("scan", "-n", pod.path, "--who")
    assert status == 0 and "  held by %s (PID %d)\n" % (name, holder.pid) in out
    done = command("cleanup", "-n", pod.path, "--who", "-j")
    assert done.status == 3
    (tap,) = done.document["taps"]
    assert tap["holders"] == [{"pid": holder.pid, "comm": name}]


def test_without_who_nothing_is_searched(pod):
    pod.add_tap()
    pod.hold()
    done = command("scan", "-n", pod.path, "-j")
    assert "holders" not in done.document["taps"][0]
    assert "held by" not in command("scan", "-n", pod.path).out


def test_a_setup_that_is_refused_names_the_holder(pod):
    pod.add_tap()
    holder = pod.hold()
    status, out, _ = command("setup", "-n", pod.path, "--who")
    assert status == 3 and "(PID %d)" % holder.pid in out


def test_a_holder_that_cannot_be_found_is_not_passed_over_in_silence(pod):
    pod.add_tap()
    pod.ip("link", "add", "link", pods.TAP, "name", "upper", "type", "macvlan")
    out = command("scan", "-n", pod.path, "--who").out
    assert "in-use" in out and "held by no process that /proc shows" in out


def test_no_byte_of_a_command_s_name_reaches_a_terminal(pod):
    pod.add_tap()
    source = "open('/proc/self/comm', 'wb', 0).write(b'\\x1b[31m\\xff')\n" + pods.HOLD
    flags = str(taps.IFF_TAP | taps.IFF_NO_PI)
    holder = pod.child(source, pods.TAP, flags)
    out = command("scan", "-n", pod.path, "--who").out
    assert "held by \\x1b[31m\\xff (PID %d)\n" % holder.pid in out

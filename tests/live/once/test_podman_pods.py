# SPDX-License-Identifier: Apache-2.0
"""The hook in podman's pods, whose containers name their network by a process.

Their config has ``/proc/PID/ns/net`` of the pod's infra container, when they have stopped too.
"""

import os
import time

import pytest

from lib import command
from lib.command import PATIENCE
from lib.pods import TAP
from live.once import test_runtimes as runtimes

machine, podman = runtimes.machine, runtimes.podman  # the fixtures

IMAGE = "localhost/nlraw-test:1"

# A TAP that was held once, beside an uplink.
FURNISH = """
set -e
ip link add eth0 type veth peer name peer0
ip link set eth0 up
ip tuntap add "$0" mode tap
ip link set "$0" up
"$1" -c 'import fcntl, os, struct, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("=16sH22x", sys.argv[1].encode(), 0x1002))' "$0"
"""

# An infra container takes no --ulimit.
LIMITS = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'


class Calls:
    """Calls of podman, with the hook, on a machine."""

    def __init__(self, podman):
        self._machine = podman.machine
        self._argv = podman._argv
        self._hooks = podman.hooks
        self.cgroup = ("--cgroup-parent", "/" + podman._cgroup)
        self._conf = os.path.join(self._machine.directory, "containers.conf")
        with open(self._conf, "w") as file:
            file.write(LIMITS)

    def __call__(self, *arguments):
        """Run podman to its end and return what it printed."""
        argv = ["env", "CONTAINERS_CONF=" + self._conf] + self._argv
        return self._checked(*argv, "--hooks-dir", self._hooks, *arguments).strip()

    def load(self, image):
        """Make an image of the machine's root file system."""
        argv = self._argv + ["import", "-q", "-", image]
        self._checked("sh", "-c", 'tar -C "$0" -c . | "$@"', self._machine.rootfs, *argv)

    def _checked(self, *argv):
        status, out, err = self._machine.run(*argv)
        assert status == 0, err
        return out


@pytest.fixture
def call(podman):
    made = Calls(podman)
    made.load(IMAGE)
    return made


SLEEP = ("/busybox", "sleep", "1000")


def a_pod(call):
    """Make a pod; return the options of a container in it."""
    words = "pod create --name pod1 --network none --infra-image".split() + [IMAGE]
    call(*words, "--infra-command", " ".join(SLEEP), *call.cgroup)
    return ("--pod", "pod1")


def a_network(call):
    """Start a container; return the options of another one that shares its network."""
    call("run", "-d", "--name", "first", "--network", "none", *call.cgroup, IMAGE, *SLEEP)
    return ("--network", "container:first") + call.cgroup


@pytest.mark.parametrize(
    "make, remove", [(a_pod, "pod rm pod1"), (a_network, "rm second first")], ids=["pod", "network"]
)
def test_an_orphan_that_a_container_leaves_is_gone_once_it_has_stopped(call, make, remove):
    options = make(call) + ("--annotation", runtimes.ANNOTATION)
    try:
        call("run", "-d", "--name", "second", *options, IMAGE, *SLEEP)
        pid = call("inspect", "second", "--format", "{{.State.Pid}}")
        with open("/proc/%s/ns/net" % pid) as namespace:
            enter = ("nsenter", "--net=/proc/%d/fd/%d" % (os.getpid(), namespace.fileno()))
            command.run(*enter, "sh", "-c", FURNISH, TAP, runtimes.PYTHON)
            list_links = enter + ("ip", "-o", "link")
            assert TAP in command.run(*list_links)
            os.kill(int(pid), 9)
            deadline = time.monotonic() + PATIENCE
            while TAP in command.run(*list_links):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert "eth0" in command.run(*list_links)
        call("start", "second")
    finally:
        verb, names = remove.split("rm ")
        for name in names.split():
            call(*verb.split(), "rm", "-f", "-t", "0", name)

# SPDX-License-Identifier: Apache-2.0
"""Processes that remove what dead VMMs leave, and the nodes that they watch."""

import json
import os
import random
import signal
import socket
import subprocess
import threading
import time

import nlraw

from . import lab
from .pods import NotDone

# Seconds after which a bench gives up.
PATIENCE = 30

TAP = "tap0_urunc"


class Agent:
    """A process that prints, as JSON, a line for each namespace that it has cleaned up.

    With ``notify``, a path, it reports that it is ready as systemd expects it (sd_notify(3));
    without, its first line means that. ``ready`` is the seconds that this took.
    """

    def __init__(self, argv, home, notify=None):
        begun = time.monotonic()
        if notify is None:
            self.process = self._started(argv, home, lab.ENVIRONMENT)
            self.process.stdout.readline()
        else:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
                told.bind(notify)
                told.settimeout(PATIENCE)
                environment = dict(lab.ENVIRONMENT, NOTIFY_SOCKET=notify)
                self.process = self._started(argv, home, environment)
                while b"READY=1" not in told.recv(4096).split(b"\n"):
                    pass
            os.unlink(notify)
        self.ready = time.monotonic() - begun
        self._read, self._rest = [], b""
        threading.Thread(target=self._reading, daemon=True).start()

    def _started(self, argv, home, environment):
        return home.run(
            lambda: subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, bufsize=0)
        )

    def _reading(self):
        """Keep what is printed, and when: nothing else, which would take the agent's time."""
        output = self.process.stdout.fileno()
        while True:
            data = os.read(output, 1 << 20)
            if not data:
                return
            self._read.append((time.monotonic_ns(), data))

    def removals(self):
        """When each namespace was cleaned up (CLOCK_MONOTONIC, ns) that was since the last call."""
        found = {}
        while self._read:
            when, data = self._read.pop(0)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for told in map(json.loads, lines):
                if "taps" not in told or any(tap["deleted"] for tap in told["taps"]):
                    found[told["netns"]] = when
        return found

    def wait(self, paths):
        """When each of these namespaces was cleaned up. Raises `NotDone`."""
        left, found, deadline = set(paths), {}, time.monotonic() + PATIENCE
        while left:
            found.update(self.removals())
            left -= set(found)
            if left and (time.monotonic() > deadline or self.process.poll() is not None):
                raise NotDone("%s: left %d of %d" % (self.process.args[0], len(left), len(paths)))
            time.sleep(0.0005)
        return found

    def processor_time(self):
        """Seconds of all its threads, those that have ended too (clock_getcpuclockid(3))."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def resident(self):
        """The memory that is resident, in KiB."""
        with open("/proc/%d/status" % self.process.pid) as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        self.resume()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Field:
    """Some pods of a node, in a directory of their own. ``node`` and ``starter`` are workers."""

    def __init__(self, laboratory, count, node, starter):
        self.directory = laboratory.new_directory()
        self.pods = [laboratory.pod(self.directory) for _ in range(count)]
        self.paths = [pod.path for pod in self.pods]
        for pod in self.pods:
            pod.uplink()
        self.node = node
        self.starter = starter

    def start(self, path):
        """Start a VMM: a TAP with the redirects, and a process that holds it."""
        self.starter.do("set-up", path)
        self.node.do("hold", path)

    def start_some(self, count):
        """Start so many VMMs; wait until the kernel has come to rest. Return their paths."""
        paths = self.paths[:count]
        for path in paths:
            self.start(path)
        rest()
        return paths

    def check_clean(self, count, who):
        """Refuse to go on if a TAP is left."""
        for pod in self.pods[:count]:
            if who == lab.FLOOR:
                nlraw.cleanup(pod.path)  # it leaves the uplink's redirect
            pod.check_clean(who)

    def close(self):
        for pod in self.pods:
            pod.close()


def rest():
    """Wait until the kernel is done with the start of a VMM, to no tick of its clock."""
    time.sleep(random.uniform(0.2, 0.21))

# SPDX-License-Identifier: Apache-2.0
"""Rounds of attach, release, recreate and rename around a running cleanup or sweep.

A TAP that was in use, or another's, when it was last looked at is never deleted. What can be lost
is what changes between that look's answer and the delete: the README names that window; here is how
long it is, and how often it was hit by who aims at it.
"""

import collections
import contextlib
import random
import socket
import struct
import threading
import time

import nlraw
from lib import command, nodes
from nlraw import link, uapi
from nlraw.connection import Connection
from nlraw.netns import Namespace

SEED = 20
KINDS = ("attach", "release", "recreate", "reuse", "rename")

# What a rival in the pod's namespace does, once a round: it takes its place, says so, waits, acts,
# and after the cleanup says how it went: when the act began, when it was done (0 if it came to
# nothing), and whether the device that it acted on is there.
RIVAL = """
import fcntl, os, socket, struct, sys, time
sys.path.insert(0, sys.argv[1])
from nlraw import Error, link, tap
from nlraw.connection import Connection
from nlraw.netns import Namespace

here, now = Namespace(), time.monotonic
connection, control = Connection(here), socket.socket()

def find(name):
    (reply,) = connection.ask(link.find(name))
    return None if reply.error else link.only(reply).ifindex

def is_held(fd):
    try:
        fcntl.ioctl(fd, 0x800454D2, bytes(40))  # TUNGETIFF: EBADFD if the device has gone
        return True
    except OSError:
        return False

def rename(name, other):
    # SIOCSIFNAME
    fcntl.ioctl(control, 0x8923, struct.pack("=16s16s8x", name.encode(), other.encode()))

def recreate(name, ifindex, again):
    # as another user's, with the same index if that is wanted; whoever deletes the former one
    connection.change(link.delete(ifindex, name))
    fd = os.open("/dev/net/tun", os.O_RDWR)
    if again:
        fcntl.ioctl(fd, 0x400454DA, struct.pack("=I", ifindex))  # TUNSETIFINDEX
    # TUNSETIFF, exclusive
    fcntl.ioctl(fd, 0x400454CA, struct.pack("=16sH22x", name.encode(), 0x9002))
    fcntl.ioctl(fd, 0x400454CC, 1000)  # TUNSETOWNER
    return fd

print("ready", flush=True)
for line in sys.stdin:
    kind, name, delay = line.split()
    ifindex, fd = find(name), -1
    if kind == "release":
        fd = tap.attach(here, name)
    print("set", flush=True)
    time.sleep(float(delay))
    began = now()
    try:
        if kind == "attach":
            fd = tap.attach(here, name)
        elif kind == "release":
            os.close(fd)
        elif kind == "rename":
            rename(name, "other")
        else:
            fd = recreate(name, ifindex, kind == "reuse")
        done = now()
    except (OSError, Error):  # it has gone by now, or another of its name is there
        done = 0
    sys.stdin.readline()  # the cleanup has ended
    if kind == "release":
        there = find(name) == ifindex
    elif kind == "rename":
        there = find("other") == ifindex
        if there:
            rename("other", name)
    else:
        there = fd >= 0 and is_held(fd)
    if kind != "release" and fd >= 0:
        os.close(fd)
    print(began, done, int(there), flush=True)
"""


Act = collections.namedtuple("Act", "kind began done there")

# How many orphans, and how many of the uplinks have a redirect to one of them.
UPLINKS = ("eth0", "net1")
CASES = ((1, 0), (1, 0), (1, 1), (2, 2), (4, 1), (4, 2))


class Rival:
    def __init__(self, pod):
        self.child = pod.child(RIVAL, command.ROOT)

    def begin(self, kind, name, delay):
        self.kind = kind
        self.child.write("%s %s %.6f" % (kind, name, delay))

    def wait_until_set(self):
        self.child.answer("set")

    def end(self):
        self.child.write("end")
        began, done, there = self.child.read().split()
        return Act(self.kind, float(began), float(done), there == "1")


Delete = collections.namedtuple("Delete", "asked answered sent ended")


class Times:
    """For each delete in a namespace: when its last look and when the delete began and ended."""

    def __init__(self, monkeypatch):
        self.looked, self.deletes = {}, collections.defaultdict(list)
        real = Connection.change

        def change(connection, *requests):
            begin = time.monotonic()
            replies = real(connection, *requests)
            path = connection.path
            if any(request.step in ("delete link", "delete links") for request in requests):
                self.deletes[path].append(
                    Delete(*self.looked[path], sent=begin, ended=time.monotonic())
                )
            elif requests[0].step == "list links":
                self.looked[path] = (begin, time.monotonic())
            return replies

        monkeypatch.setattr(Connection, "change", change)


class Listener:
    """When the kernel last announced that a qdisc is gone: a TAP's goes right before its link."""

    def __init__(self, namespace):
        self.last = 0.0
        self._over = False
        self._socket = namespace.run(
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        )
        self._socket.bind((0, 8))  # RTNLGRP_TC
        self._socket.settimeout(0.2)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self):
        while not self._over:
            with contextlib.suppress(OSError):  # nothing for a while, or too much at once
                datagram = self._socket.recv(65536)
                if struct.unpack_from("=H", datagram, 4)[0] == uapi.RTM_DELQDISC:
                    self.last = time.monotonic()

    def close(self):
        self._over = True
        self._thread.join()
        self._socket.close()


class Ground:
    """A pod in which rounds are played, the orphans in it, and what came of the rounds."""

    def __init__(self, pod, times, path, chance):
        self.pod, self.times, self.path, self.chance = pod, times, path, chance
        pod.ip(*("link add %s type veth peer name peer1" % UPLINKS[1]).split())
        self.rival = Rival(pod)
        self.namespace = Namespace(pod.path)
        self.connection = Connection(self.namespace)
        self.listener = Listener(self.namespace)
        self.counts = collections.Counter()
        self.wrong, self.sent, self.carried, self.lost = (
            [],
            *[collections.defaultdict(list) for _ in range(3)],
        )

    def prepare(self, number, redirected):
        """Have so many orphans, and redirects on so many NICs: each to another orphan."""
        for each, uplink in enumerate(UPLINKS[:redirected]):
            tap = "tap%d_urunc" % each
            nlraw.setup(netns=self.pod.path, tap=tap, match=tap, uplink=uplink)
        for each in range(number):
            name = "tap%d_urunc" % each
            (reply,) = self.connection.ask(link.find(name))
            if reply.error is not None:
                nodes.add_orphans(self.namespace, [name], fresh=True)

    def begin(self, kind, delay):
        size, redirected = self.chance.choice(CASES)
        self.case = "%d orphan%s, redirects on %d NICs" % (size, "s" * (size > 1), redirected)
        self.prepare(size, redirected)
        self.times.deletes.pop(self.path, None)
        self.rival.begin(kind, "tap%d_urunc" % self.chance.randrange(size), delay)

    def end(self):
        act = self.rival.end()
        deletes = self.times.deletes.pop(self.path, [])
        self.counts[act.kind, self.judge(act, deletes)] += 1
        self.sent[self.case] += [delete.sent - delete.answered for delete in deletes]
        last = self.listener.last
        self.carried[self.case] += [
            last - delete.answered for delete in deletes if delete.sent < last < delete.ended
        ]

    def judge(self, act, deletes):
        """What became of an act: nothing was lost, or it was in the window.

        Else it is noted as wrong.
        """
        if act.kind == "release":
            if act.there:
                return "kept"
            # when it was looked at it was held
            if not any(delete.answered >= act.began for delete in deletes):
                self.wrong.append((act, deletes))
            return "gone after it"
        if not act.done:
            return "too late"
        if act.there:
            return "kept"
        excuses = [delete for delete in deletes if delete.asked < act.done <= delete.ended]
        if not excuses or act.kind == "recreate":  # which has another index, and so cannot be meant
            self.wrong.append((act, deletes))
            return "LOST"
        self.lost[self.case].append(
            (act.began - excuses[-1].answered, act.done - excuses[-1].answered)
        )
        return "lost in the window"

    def close(self):
        self.listener.close()
        self.connection.close()
        self.namespace.close()


def spread(seconds):
    """Some percentiles, in milliseconds."""
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    marks = [("median", 0.5), ("90 %", 0.9), ("99 %", 0.99), ("99.9 %", 0.999)]
    told = [
        "%s %.3f" % (mark, ordered[int(part * (len(ordered) - 1))] * 1000) for mark, part in marks
    ]
    return "%d times, %s" % (
        len(ordered),
        ", ".join(told + ["most %.3f ms" % (ordered[-1] * 1000)]),
    )


SPANS = (
    ("sent", "the sending of the delete"),
    (
        "carried",
        "the kernel's word that the TAP's qdisc is gone, which comes right before the link",
    ),
    ("lost", "its end"),
)


def tell(what, grounds, seconds):
    counts = sum((ground.counts for ground in grounds), collections.Counter())
    ends = sorted({end for _, end in counts})
    print("\n%s: %d rounds in %d s" % (what, sum(counts.values()), seconds))
    print("  %-9s %6s  %s" % ("act", "rounds", "  ".join(ends)))
    for kind in KINDS:
        numbers = [counts[kind, end] for end in ends]
        print(
            "  %-9s %6d  %s"
            % (kind, sum(numbers), "  ".join("%*d" % pair for pair in zip(map(len, ends), numbers)))
        )
    for case in sorted({case for ground in grounds for case in ground.sent}):
        print("  %s: from the answer to the last look" % case)
        for name, until in SPANS:
            spans = [each for ground in grounds for each in getattr(ground, name)[case]]
            if spans and isinstance(spans[0], tuple):
                print(
                    "    to the beginning of an act that was lost: %s"
                    % spread([began for began, _ in spans])
                )
                spans = [ended for _, ended in spans]
            if spans:
                print("    to %s: %s" % (until, spread(spans)))


def check(what, grounds, seconds):
    tell(what, grounds, seconds)
    assert [wrong for ground in grounds for wrong in ground.wrong] == []
    counts = sum((ground.counts for ground in grounds), collections.Counter())
    assert all(counts[kind, "kept"] for kind in KINDS) and counts["release", "gone after it"]


def grounds(make_pod, monkeypatch):
    """A fixture's generator: it yields a function that makes a Ground."""
    times, made = Times(monkeypatch), []

    def make(path=None):
        pod = make_pod()
        made.append(Ground(pod, times, path or pod.path, random.Random(SEED + len(made))))
        return made[-1]

    yield make
    for ground in made:
        ground.close()


def delays(kind, chance, before):
    """How long the rival and the cleanup wait so that they meet, ``before`` the delete.

    What takes a delete of the rival's own begins well ahead.
    """
    if kind in ("recreate", "reuse"):
        return chance.uniform(0, 0.002), chance.uniform(0, 0.03)
    ours = chance.uniform(0, 0.001)
    return ours + chance.uniform(0, 1.3 * before), ours


def is_expected(error):
    """True for what a cleanup may say of a namespace that others change all the time."""
    if isinstance(error, (nlraw.TapInUse, nlraw.DumpInterrupted)):
        return True
    return error.message == "the namespace changed each time it was looked at"


def play_around_cleanups(ground, rounds):
    started = time.monotonic()
    for number in range(rounds):
        kind = KINDS[number % len(KINDS)]
        theirs, ours = delays(kind, ground.chance, before=0.001)
        ground.begin(kind, theirs)
        ground.rival.wait_until_set()
        time.sleep(ours)
        try:
            nlraw.cleanup(netns=ground.pod.path)
        except nlraw.Error as error:
            assert is_expected(error), error
        ground.end()
    check("cleanup", [ground], time.monotonic() - started)

# SPDX-License-Identifier: Apache-2.0
"""Cleanups of many orphans while others make, hold, take and join devices, all at once."""

import json
import random
import time

import pytest

import nlraw
from lib import command
from lib.groups import add_strangers
from lib.rounds import is_expected
from lib.watch import Watch, is_delete
from nlraw import uapi

# What runs beside the cleanups, in one role or another, until its time is up. It says how many
# turns it took; when devices vanished under its hands: after it had changed them, and before it
# missed them; and which it left behind, and since when.
DISTURB = """
import fcntl, json, os, random, socket, struct, sys, time
sys.path.insert(0, sys.argv[1])
from nlraw import Error, link, tap
from nlraw.connection import Connection
from nlraw.netns import Namespace

role, seconds, names = sys.argv[2], float(sys.argv[3]), sys.argv[4:]
here, now = Namespace(), time.monotonic
connection, control = Connection(here), socket.socket()
turns, vanished, left = 0, [], []

def pause(longest):
    time.sleep(random.uniform(0, longest))

def is_there(name):
    return connection.ask(link.find(name))[0].error is None

def rename(name, other):
    # SIOCSIFNAME
    fcntl.ioctl(control, 0x8923, struct.pack("=16s16s8x", name.encode(), other.encode()))

def make():
    for name in names:
        try:
            fd = tap.create(here, name)
        except Error:
            continue
        tap.persist(fd, name)
        os.close(fd)
    pause(0.005)

def hold():
    pause(0.08)
    name = random.choice(names)
    fd = tap.attach(here, name)  # which makes it, if there is none
    since = now()
    tap.persist(fd, name)
    pause(0.02)
    try:
        fcntl.ioctl(fd, 0x800454D2, bytes(40))  # TUNGETIFF: EBADFD if the device has gone
    except OSError:
        vanished.append((since, now()))
    os.close(fd)

def take():
    pause(0.04)
    name, other = random.choice(names), "vm%d" % turns
    rename(name, other)
    since = now()
    pause(0.02)
    try:
        rename(other, name)
    except FileExistsError:
        left.append((other, since))  # the name was taken meanwhile
    except OSError:
        vanished.append((since, now()))

def intrude():
    (reply,) = connection.ask(link.dump("tun"))
    listed = link.links(reply.answer())
    marks = [found.group for found in listed if found.group and found.ifname in names]
    if not marks:
        raise OSError("not now")
    if not is_there("stranger"):
        connection.change(link.create_veth("stranger", "strangers"))[0].answer()
    ifindex = link.only(connection.ask(link.find("stranger"))[0]).ifindex
    connection.change(link.set_group(ifindex, "stranger", marks[0]))[0].answer()
    since = now()
    pause(0.02)
    if is_there("stranger"):
        connection.change(link.set_group(ifindex, "stranger", 0))
    else:
        vanished.append((since, now()))

turn = {"make": make, "hold": hold, "take": take, "intrude": intrude}[role]
print("ready", flush=True)
end = now() + seconds
while now() < end:
    try:
        turn()
        turns += 1
    except (Error, OSError):  # somebody else was faster
        pass
print(json.dumps({"turns": turns, "vanished": vanished, "left": left}), flush=True)
"""

ROLES = ["make", "hold", "hold", "take", "intrude"]
SECONDS = 8
EIGHT = ["tap%d_urunc" % number for number in range(8)]


@pytest.fixture
def watch():
    return Watch()


class Deletes:
    """When deletes were sent, when the look right before each was, and when each was answered.

    Each look and delete is put off a little, so that more can happen ahead of it.
    """

    def __init__(self, watch):
        self.done = []
        self._looked = self._sent = None
        watch.before = self._note

    def _note(self, requests):
        self.answered()
        is_look = requests[0].type == uapi.RTM_GETLINK
        if is_look or is_delete(requests):
            time.sleep(random.choice([0, 0, 0.001, 0.004]))
        if is_look:
            self._looked = time.monotonic()
        if is_delete(requests):
            self._sent = time.monotonic()

    def answered(self):
        if self._sent is not None:
            self.done.append((self._looked, self._sent, time.monotonic()))
            self._sent = None

    def excuse(self, since, until):
        """True if a delete that may have taken a device was proven before the device changed."""
        return any(
            looked <= since <= answered and sent <= until for looked, sent, answered in self.done
        )


def test_in_a_crowd_no_device_vanishes_that_was_not_an_orphan_when_last_looked_at(pod, watch):
    add_strangers(pod)
    before = pod.state()
    disturbers = [pod.child(DISTURB, command.ROOT, role, str(SECONDS), *EIGHT) for role in ROLES]
    deletes, end, outcomes = Deletes(watch), time.monotonic() + SECONDS, []
    while time.monotonic() < end:
        try:
            outcomes.append(watch.clean_up(pod).outcome)
        except nlraw.Error as error:
            assert is_expected(error), error
            outcomes.append(type(error).__name__)
        deletes.answered()
    shown = [json.loads(disturber.read()) for disturber in disturbers]
    counts = dict(
        zip(ROLES, [each["turns"] for each in shown]),
        deletes=len(deletes.done),
        refused=outcomes.count("TapInUse"),
    )
    assert min(counts.values()) > 0, counts
    for each in shown:
        assert [times for times in each["vanished"] if not deletes.excuse(*times)] == [], counts
    links, left = pod.links(), {name: since for each in shown for name, since in each["left"]}
    assert [
        name for name in left if name not in links and not deletes.excuse(left[name], end)
    ] == []
    remove(pod, list(left) + EIGHT + ["stranger"])
    assert pod.state() == before


def remove(pod, names):
    """Delete those of the links that are there."""
    there = pod.links()
    pod.batch(*["link del " + name for name in names if name in there])

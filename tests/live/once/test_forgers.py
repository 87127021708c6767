# SPDX-License-Identifier: Apache-2.0
"""A flood of forged answers to every netlink port of the namespace: each result is right."""

import collections
import time

import nlraw
from lib import pods
from lib.names import names
from nlraw.transport import WRITER_PORT

TAP = pods.TAP


# Sends what the kernel might answer to every netlink port of the namespace, for every sequence
# number that may be the next.

FORGER = """
import socket, struct, sys, time

forger = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
forger.setblocking(False)
forger.bind((0, 0))

def ports():
    with open("/proc/self/net/netlink") as file:
        rows = [line.split() for line in file.read().splitlines()[1:]]
    return {int(row[2]) for row in rows if row[1] == "0"} | {int(sys.argv[1])}

def message(type, flags, sequence, port, payload):
    return struct.pack("=IHHII", 16 + len(payload), type, flags, sequence, port) + payload

print("ready", flush=True)
sent, refused, end = 0, 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    now = int(time.time())
    for port in ports() - {0, forger.getsockname()[0]}:
        for sequence in range(now - 4, now + 30):
            request = struct.pack("=IHHII", 16, 18, 5, sequence, port)
            errors = [struct.pack("=i", code) + request for code in (0, -1, -19)]
            forged = [message(2, 0, sequence, port, error) for error in errors]
            forged.append(message(3, 2, sequence, port, struct.pack("=i", 0)))
            forged.append(message(16, 2, sequence, port, bytes(16)))
            forged.append(message(4, 2, sequence, port, b""))
            forged.append(bytes([255]) * 64)
            try:
                for datagram in forged:
                    forger.sendto(datagram, (port, 0))
                    sent += 1
            except BlockingIOError:  # its buffer is full
                pass
            except ConnectionRefusedError:
                # by the kernel, for one who is connected to it; or nobody has the port now
                refused += 1
print(sent, refused, flush=True)
"""

SECONDS = 6


def check_setup(pod):
    assert nlraw.setup(netns=pod.path).tap.ifname == TAP
    assert TAP.encode() in names(pod)


def check_scan(pod):
    expected = {TAP: "orphan"} if TAP.encode() in names(pod) else {}
    assert {found.ifname: found.verdict for found in nlraw.scan(netns=pod.path)} == expected


def check_cleanup(pod):
    assert nlraw.cleanup(netns=pod.path).outcome in ("clean", "cleaned")
    assert TAP.encode() not in names(pod)


def test_under_a_flood_of_forged_answers_each_result_is_right(pod):
    pod.add_tap("vm0", redirect=False)
    pod.hold("vm0")
    before = pod.state()
    forger = pod.child(FORGER, str(WRITER_PORT), str(SECONDS))
    ends, slowest, end = collections.Counter(), 0.0, time.monotonic() + SECONDS - 1
    while time.monotonic() < end:
        for check in (check_setup, check_scan, check_cleanup, check_scan):
            began = time.monotonic()
            check(pod)
            ends[check.__name__] += 1
            slowest = max(slowest, time.monotonic() - began)
    sent, refused = map(int, forger.read().split())
    shown = "%s, the slowest took %.3f s, beside %d forged answers, and %d refused" % (
        dict(ends),
        slowest,
        sent,
        refused,
    )
    print(shown)
    assert refused > 1000 and slowest < 1, shown
    nlraw.cleanup(netns=pod.path)
    assert pod.state() == before

# SPDX-License-Identifier: Apache-2.0
"""ICMP echo requests, and who answers them.

    python3 ping.py ADDRESS INTERVAL

One request every so many seconds until standard input ends. It writes `SEQUENCE TIME -` for a
request, `SEQUENCE TIME TTL` for a reply.
"""

import os
import select
import socket
import struct
import sys
import time


def main(address, interval):
    """Ping until standard input ends.

    Write `SEQUENCE TIME -` for a ping, `SEQUENCE TIME TTL` for a reply.
    """
    identifier, sequence, waiting = os.getpid() & 0xFFFF, 0, set()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        sources, deadline = [raw, sys.stdin], time.monotonic()
        while waiting or sys.stdin in sources:
            ready = select.select(sources, [], [], max(0, deadline - time.monotonic()))[0]
            if raw in ready:
                # the IP header (RFC 791) comes with it, its TTL at 8; then RFC 792
                packet = raw.recv(2048)
                kind, _, _, whose, answered = struct.unpack_from(
                    "!BBHHH", packet, (packet[0] & 15) * 4
                )
                if kind == 0 and whose == identifier:
                    report(answered, packet[8])
                    waiting.discard(answered)
            elif sys.stdin in ready:
                sources.remove(sys.stdin)
                deadline = time.monotonic() + 1
            elif sys.stdin in sources:
                report(sequence, "-")  # before it is sent: no reply comes first
                checksum = 0xFFFF - (0x0800 + identifier + sequence) % 0xFFFF  # RFC 1071
                raw.sendto(
                    struct.pack("!BBHHH", 8, 0, checksum, identifier, sequence), (address, 0)
                )
                waiting.add(sequence)
                sequence += 1
                deadline += interval
            else:
                break


def report(sequence, ttl):
    os.write(1, "{} {:.6f} {}\n".format(sequence, time.monotonic(), ttl).encode())


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))

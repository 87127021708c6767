# SPDX-License-Identifier: Apache-2.0
"""ICMP and ICMPv6 echo requests, and who answers them.

    python3 ping.py ADDRESS INTERVAL

One request every so many seconds until standard input ends. It writes `SEQUENCE TIME -` for a
request, `SEQUENCE TIME TTL` for a reply. The TTL of an IPv6 reply is its hop limit.
"""

import errno
import os
import select
import socket
import struct
import sys
import time


class IPv4:
    """Echo requests and replies of RFC 792 on a raw socket."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)

    def request(self, identifier, sequence):
        checksum = 0xFFFF - (0x0800 + identifier + sequence) % 0xFFFF  # RFC 1071
        return struct.pack("!BBHHH", 8, 0, checksum, identifier, sequence)

    def receive(self):
        """Return the TTL of a packet, and the message in it if that is an echo reply."""
        packet = self.socket.recv(2048)  # the IP header (RFC 791) comes with it, its TTL at 8
        message = packet[(packet[0] & 15) * 4 :]
        return packet[8], message if message[0] == 0 else None


class IPv6:
    """The same of RFC 4443. The kernel fills in the checksum."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)

    def request(self, identifier, sequence):
        return struct.pack("!BBHHH", 128, 0, 0, identifier, sequence)

    def receive(self):
        message, ancillary, _, _ = self.socket.recvmsg(2048, 64)
        ((_, _, limit),) = ancillary
        return struct.unpack("=i", limit)[0], message if message[0] == 129 else None


def main(address, interval):
    """Ping until standard input ends.

    Write `SEQUENCE TIME -` for a ping, `SEQUENCE TIME TTL` for a reply.
    """
    identifier, sequence, waiting = os.getpid() & 0xFFFF, 0, set()
    protocol = IPv6() if ":" in address else IPv4()
    with protocol.socket:
        sources, deadline = [protocol.socket, sys.stdin], time.monotonic()
        while waiting or sys.stdin in sources:
            ready = select.select(sources, [], [], max(0, deadline - time.monotonic()))[0]
            if protocol.socket in ready:
                ttl, message = protocol.receive()
                if message is not None:
                    whose, answered = struct.unpack_from("!HH", message, 4)
                    if whose == identifier:
                        report(answered, ttl)
                        waiting.discard(answered)
            elif sys.stdin in ready:
                sources.remove(sys.stdin)
                deadline = time.monotonic() + 1
            elif sys.stdin in sources:
                report(sequence, "-")  # before it is sent: no reply comes first
                try:
                    protocol.socket.sendto(protocol.request(identifier, sequence), (address, 0))
                    waiting.add(sequence)
                except OSError as error:  # nobody has answered who has the address
                    if error.errno != errno.EHOSTUNREACH:
                        raise
                sequence += 1
                deadline += interval
            else:
                break


def report(sequence, ttl):
    os.write(1, "{} {:.6f} {}\n".format(sequence, time.monotonic(), ttl).encode())


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))

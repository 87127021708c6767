# SPDX-License-Identifier: Apache-2.0
"""A guest's stand-in: a process on a TAP that answers ARP and ICMP echo for one address.

    python3 standin.py TAP MAC ADDRESS TTL [TARGET]

The pod's own kernel holds the address too; the TTL shows which of them answered. With a TARGET it
also asks who has that address, again each second, sends it an echo request and says "TARGET
answered" when the reply comes, or "TARGET is silent" in the end. It says "ready" once it is
attached, and ends with its input. Each frame has a struct virtio_net_hdr (10 bytes) ahead of it,
since the TAP has IFF_VNET_HDR.
"""

import fcntl
import os
import select
import socket
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000

NO_OFFLOAD = bytes(10)
ETHERNET = struct.Struct("!6s6sH")
ARP = struct.Struct("!HHBBH6s4s6s4s")
IP = struct.Struct("!BBHHHBBH4s4s")
ICMP = struct.Struct("!BBHHH")

ETH_P_IP, ETH_P_ARP = 0x0800, 0x0806
REQUEST, REPLY = 1, 2
ECHO, ECHO_REPLY = 8, 0

# How often the target is asked for, a second apart: a first frame may be lost while a link comes
# up.
ATTEMPTS = 20


def checksum(data):
    """RFC 1071."""
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data[: len(data) & ~1])) + (
        data[-1] << 8 if len(data) & 1 else 0
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


class StandIn:
    """What is known of the card and its address, as bytes, and the frames that follow from it."""

    def __init__(self, mac, address, ttl):
        self.mac = mac
        self.address = address
        self.ttl = ttl

    def answer(self, frame):
        """The frame that answers one; None where none does."""
        if len(frame) < ETHERNET.size:
            return None
        _, sender, protocol = ETHERNET.unpack_from(frame)
        body = frame[ETHERNET.size :]
        if protocol == ETH_P_ARP:
            _, _, _, _, operation, mac, address, _, wanted = ARP.unpack_from(body)
            return (
                self.arp(REPLY, mac, address)
                if operation == REQUEST and wanted == self.address
                else None
            )
        if (
            protocol == ETH_P_IP
            and body[9] == socket.IPPROTO_ICMP
            and body[16:20] == self.address
            and body[20] == ECHO
        ):
            length = struct.unpack_from("!H", body, 2)[0]
            return self.icmp(ECHO_REPLY, body[24:length], sender, body[12:16])
        return None

    def arp(self, operation, mac, address):
        head = ETHERNET.pack(b"\xff" * 6 if operation == REQUEST else mac, self.mac, ETH_P_ARP)
        return head + ARP.pack(1, ETH_P_IP, 6, 4, operation, self.mac, self.address, mac, address)

    def icmp(self, kind, rest, mac, address):
        """An echo or its reply; ``rest`` is identifier, sequence number and data."""
        message = (
            struct.pack("!BBH", kind, 0, checksum(struct.pack("!BBH", kind, 0, 0) + rest)) + rest
        )
        head = IP.pack(
            0x45,
            0,
            IP.size + len(message),
            0,
            0,
            self.ttl,
            socket.IPPROTO_ICMP,
            0,
            self.address,
            address,
        )
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        return ETHERNET.pack(mac, self.mac, ETH_P_IP) + head + message


def main(tap, mac, address, ttl, target=None):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(
        fd, TUNSETIFF, struct.pack("=16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
    )
    guest = StandIn(bytes.fromhex(mac.replace(":", "")), socket.inet_aton(address), int(ttl))
    goal = target and socket.inet_aton(target)
    left = ATTEMPTS if goal else 0
    print("ready", flush=True)
    while True:
        ready = select.select(
            [fd, sys.stdin], [], [], 0 if left == ATTEMPTS else 1 if left else None
        )[0]
        if sys.stdin in ready:
            return
        if not ready:
            left -= 1
            if left:
                os.write(fd, NO_OFFLOAD + guest.arp(REQUEST, bytes(6), goal))
            else:
                print(target, "is silent", flush=True)
            continue
        frame = os.read(fd, 65536)[len(NO_OFFLOAD) :]
        answer = guest.answer(frame)
        if answer is not None:
            os.write(fd, NO_OFFLOAD + answer)
        elif goal and frame[12:14] == b"\x08\x06" and frame[28:32] == goal:
            os.write(fd, NO_OFFLOAD + guest.icmp(ECHO, b"\0\1\0\1hello", frame[6:12], goal))
        elif (
            goal and frame[12:14] == b"\x08\0" and frame[26:30] == goal and frame[34] == ECHO_REPLY
        ):
            left = 0
            print(target, "answered", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

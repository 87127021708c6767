# SPDX-License-Identifier: Apache-2.0
"""Helpers of the tests of the group delete: datagrams watched, and devices that must survive."""

import errno

import nlraw
import nlraw.route
from lib import build
from nlraw import uapi
from nlraw.exchange import Exchange


class Watch:
    """Every datagram of requests that is sent, as messages.

    ``before`` is called with each ahead of that.
    """

    def __init__(self):
        self.sent = []
        self.before = lambda requests: None
        self.losing = False

    def lose(self, carried_out):
        """Lose the datagram that is about to be sent, or what answers it."""
        self.losing = carried_out
        if not carried_out:
            raise OSError(errno.ENOBUFS, "lost on purpose")

    def marks(self):
        """How many datagrams marked links with a group."""
        return sum(is_mark(requests) for requests in self.sent)


def watched(monkeypatch):
    """Return a Watch that sees, and meddles with, what nlraw sends to the kernel."""
    watching = Watch()

    class Watched(Exchange):
        def datagram(self):
            datagram = super().datagram()
            requests = build.messages(datagram)
            watching.before(requests)
            watching.sent.append(requests)
            return datagram

        def receive(self, datagram):
            if watching.losing:
                watching.losing = False
                raise OSError(errno.ENOBUFS, "lost on purpose")
            return super().receive(datagram)

    monkeypatch.setattr(nlraw.route, "Exchange", Watched)
    return watching


def is_mark(requests):
    return requests[0].type == uapi.RTM_SETLINK


def is_delete(requests):
    return requests[-1].type == uapi.RTM_DELLINK


def add_strangers(pod):
    """Make what looks like an orphan and is none, or is one in a group and nobody's business."""
    pod.batch(
        "link add tapveth_urunc type veth peer name far",
        "tuntap add dev tun0 mode tun",
        "tuntap add dev tap0_other mode tap",
        "tuntap add dev tap_uruncs mode tap",
        "link set tap0_other group 77",
        "link set peer0 group 77",
    )
    pod.tc("qdisc", "add", "dev", "tap0_other", "root", "handle", "1:", "htb")
    pod.add_ingress("peer0")
    pod.redirect("peer0", "far")

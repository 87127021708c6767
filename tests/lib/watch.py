# SPDX-License-Identifier: Apache-2.0
"""Commands whose datagrams a test sees right before they are sent, and can lose.

    watch = Watch()
    watch.before = once(is_confirm, lambda: pod.hold())
    report = watch.clean_up(pod)

Requests are seen as they are made, before they get a number.
"""

import errno
from _socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW
from _socket import socket as Socket

from nlraw import link, marks, uapi, wire
from nlraw.connection import Connection
from nlraw.netns import Namespace
from nlraw.observe import groups_of
from nlraw.pod import preview, remove
from nlraw.provision import provide
from nlraw.transport import System
from nlraw.verdict import TAP, Target
from nlraw.wanted import Wanted


class Watch:
    """The requests of every datagram in ``sent``. ``before`` is called with those of the next.

    ``meanwhile`` is called after each datagram that is received: with the requests that were sent
    last, and the datagrams received since.
    """

    def __init__(self):
        self.sent = []
        self.before = lambda requests: None
        self.meanwhile = lambda requests, datagrams: None
        self.received = []
        self.system = _Lossy(self)
        self.losing = None

    def note(self, requests):
        self.before(requests)
        self.sent.append(list(requests))
        self.received = []

    def lose(self, carried_out):
        """Lose the datagram that is about to be sent, or the answer to it."""
        self.losing = carried_out

    def connect(self, namespace, **options):
        """A connection that is watched."""
        options = dict({"on_request": self.note, "system": self.system}, **options)
        return Connection(namespace, **options)

    def clean_up(self, pod, dry_run=False, **options):
        """`nlraw.cleanup`; the options are those of `Target`."""
        target = Target(**options)
        with Namespace(pod.path) as namespace:
            groups = groups_of(target)
            with self.connect(namespace, exclusive=not dry_run, groups=groups) as connection:
                return remove(connection, target, dry_run).checked()

    def preview(self, pod, **options):
        """What `nlraw scan` reports."""
        target = Target(**options)
        groups = groups_of(target)
        with Namespace(pod.path) as namespace, self.connect(namespace, groups=groups) as connection:
            return preview(connection, target)

    def set_up(self, pod, tap=TAP, **options):
        """`nlraw.setup`; the options are those of `Target`."""
        target = Target(**options)
        with Namespace(pod.path) as namespace:
            groups = groups_of(target)
            with self.connect(namespace, exclusive=True, groups=groups) as connection:
                return provide(namespace, connection, Wanted(target, tap)).checked()

    def marks(self):
        """How many datagrams marked links with a group."""
        return sum(is_mark(requests) for requests in self.sent)


class _Lossy(System):
    def __init__(self, watch):
        self.watch = watch

    def socket(self):
        made = _LossySocket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, uapi.NETLINK_ROUTE)
        made.watch = self.watch
        return made


class _LossySocket(Socket):
    """A socket that loses a datagram, or the answer to one, when the watch says so."""

    def send(self, datagram):
        if self.watch.losing is False:
            self.watch.losing = None
            raise OSError(errno.ENOBUFS, "lost on purpose")
        return super().send(datagram)

    def recvfrom(self, *arguments):
        if self.watch.losing:
            self.watch.losing = None
            raise OSError(errno.ENOBUFS, "lost on purpose")
        datagram, sender = super().recvfrom(*arguments)
        self.watch.received.append(datagram)
        self.watch.meanwhile(self.watch.sent[-1], self.watch.received)
        return datagram, sender


# ---------------------------------------------------------------- moments


def once(condition, event):
    """What has an event happen before the first datagram that fits."""
    events = [event]
    return lambda requests: events.pop()() if events and condition(requests) else None


def asks(step):
    """What fits a datagram with a request for a step, such as "list filters"."""
    return lambda requests: any(request.step == step for request in requests)


def is_look(requests):
    """True for a list of all links, which a look begins with, and every proof."""
    return len(requests) == 1 and requests[0].step == "list links"


def is_confirm(requests):
    """True for the second look: the links are listed again, and each orphan is read by itself."""
    return requests[0].step == "list links" and requests[-1].step == "read link"


def is_change(requests):
    """True for a deletion."""
    return requests[0].step.startswith("delete")


def is_regroup(requests):
    """True for a datagram that puts links into groups."""
    return requests[0].type == uapi.RTM_SETLINK


def is_mark(requests):
    """True for a datagram that marks orphans with the group by which they are deleted."""
    return is_regroup(requests) and marks.is_marked(decoded(requests[0]))


def is_delete(requests):
    """True for a datagram whose last request deletes links."""
    return requests[-1].type == uapi.RTM_DELLINK


class Proof:
    """What fits the list of all links that comes right after the marks."""

    def __init__(self):
        self._is_marked = False

    def __call__(self, requests):
        is_proof = self._is_marked and is_look(requests)
        self._is_marked = is_mark(requests)
        return is_proof


def decoded(request):
    """The link that a request is about."""
    (message,) = wire.messages(request.numbered(1))
    return link.Link(message)

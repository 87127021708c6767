# SPDX-License-Identifier: Apache-2.0
"""A model kernel: its objects, what changes them meanwhile, and what happens to its answers.

    Kernel   a `build.Namespace` to which things happen; it checks every deletion against what had
             been read by then
    Socket   its netlink socket, whose answers may come late, torn, twice, from strangers, or not
             at all
    played   nlraw's public functions, or a Route, with these for the kernel and its sockets

Time is the model's own, and passes when somebody waits. Real are nlraw.orphans, nlraw.route and
what they stand on.
"""

import collections
import contextlib
import errno
import random
import select
from unittest import mock

import nlraw.route
from lib import build, junk, random_pods
from nlraw import inet, link, node, orphans, provision, uapi, wire
from nlraw.errors import Error, Refused
from nlraw.route import Route

ETH0, PEER0, STRANGER = 2, 3, 4
FIRST_TAP = 10
PORT = 4321  # of a socket that wants none in particular

FULL_LIST, TAP_LIST, ONE_LINK, MARK, OTHER = (
    "full list",
    "list of TAPs",
    "one link",
    "mark",
    "other",
)

DEFAULT_ROUTE = uapi.rtmsg.pack(
    inet.AF_INET, 0, 0, 0, uapi.RT_TABLE_MAIN, 0, 0, uapi.RTN_UNICAST, 0
) + wire.attribute_u32(uapi.RTA_OIF, ETH0)


class Killed(BaseException):
    """The process is no more: nothing that it does from now on reaches the kernel."""


class Kernel(build.Namespace):
    """A namespace to which things happen.

    An event is a triple: before which request, what, and to which link.
    """

    def __init__(self, links, qdiscs, filters, events=(), faults=()):
        super().__init__(links, qdiscs, filters)
        self.events = sorted(events)
        # of the answers to come: a name, and a number for what is left to chance
        self.faults = list(faults)
        self.met = collections.Counter()  # faults so far
        self.now = 0.0  # seconds; they pass when somebody waits
        self.taken = 0.0  # until when somebody else has the port of whoever changes something
        self.sockets = []
        self.requests = 0  # so far
        self.clock = 0  # counts events that changed a link
        # the last whole list of links: when, and of each its group and whether it was an orphan
        self.seen_all = (0, {})
        self.seen_one = {}  # what was last read by itself: when, and whether it was an orphan
        # whether the last list of TAPs, or of all links, showed one that is ours in use
        self.seen_used = False
        self.last = OTHER  # what was asked last, deletions aside
        self.refusal = 0
        self.refused = self.torn = self.lost = self.dead = False
        self.deleted = []  # links by index
        self.deletions = 0  # of anything
        self.uplink_known = True  # to whoever cleans up
        self.rules = True  # whether deletions are held against what was read
        for each in self.links:
            each.home = each.group  # where it belongs when all is over; None makes no claim
            each.changed = 0

    # -------------------------------------------------------- the socket

    def fault(self):
        """What befalls the answer to the next datagram."""
        name, number = self.faults.pop(0) if self.faults else ("right", 0)
        self.met[name] += 1
        return name, number

    def send(self, datagram, arrives=True):
        """Carry out a datagram of requests.

        Return the messages that answer it, or None where they are lost.
        """
        requests = build.messages(datagram)
        self.lost = False
        readings = []
        if self.dead:
            raise Killed
        if self._is_unsent(len(requests)):
            raise OSError(errno.ENOBUFS, "not sent")
        answers = []
        for message in requests:
            self._happen()
            self.requests += 1
            answers += self.answers(message)
            readings.append(self._reading(message))
        if self.lost:
            return None
        for read in readings if arrives else ():
            read()
        return answers

    def _is_unsent(self, count):
        due = [
            event
            for event in self.events
            if event[0] < self.requests + count and event[1] == "unsent"
        ]
        self.events = [event for event in self.events if event not in due]
        return bool(due)

    def answers(self, message):
        if not message.flags & uapi.NLM_F_ACK:
            self.last = _kind_of_look(message)
        replies = list(super().answers(message))
        if self.torn and message.type == uapi.RTM_GETLINK and message.flags & uapi.NLM_F_DUMP:
            self.torn = False
            done = wire.message(
                uapi.NLMSG_DONE,
                uapi.NLM_F_MULTI | uapi.NLM_F_DUMP_INTR,
                message.sequence,
                bytes(4),
                self.port,
            )
            return [reply for reply in replies[:-1] if not _tells_of_stranger(reply)] + [done]
        return replies

    def listed(self, message):
        if message.type == uapi.RTM_GETROUTE:
            return [DEFAULT_ROUTE] if message.payload[0] == inet.AF_INET else []
        payloads = super().listed(message)
        kind = link.Link(message).kind if message.type == uapi.RTM_GETLINK else None
        return [
            payload for payload in payloads if kind is None or build.as_link(payload).kind == kind
        ]

    def _reading(self, message):
        """What the cleanup knows from the answer, to be noted if it arrives."""
        clock, look = self.clock, _kind_of_look(message)
        used = any(random_pods.is_ours(each) and random_pods.is_used(each) for each in self.links)
        if look == FULL_LIST:
            seen = {each: (each.group, is_orphan(each)) for each in self.links}
            return lambda: self.__dict__.update(seen_all=(clock, seen), seen_used=used)
        if look == TAP_LIST:
            return lambda: self.__dict__.update(seen_used=used)
        if look == ONE_LINK:
            found = self.link_of(message)
            return lambda orphan=found and is_orphan(found): self.seen_one.update(
                {found: (clock, orphan)}
            )
        return lambda: None

    # -------------------------------------------------------- the rules

    def carry_out(self, message):
        asked = link.Link(message) if message.type in (uapi.RTM_SETLINK, uapi.RTM_DELLINK) else None
        if self.refusal and not self._goes_home(message, asked):
            number, self.refusal, self.refused = self.refusal, 0, True
            return number
        if message.type == uapi.RTM_SETLINK:
            self.last = MARK
        else:
            assert not self.rules or self.last != MARK, (
                "something was deleted without a look after the mark"
            )
            assert not self.rules or not self.seen_used, (
                "one of the TAPs was in use when they were last listed"
            )
        if message.type == uapi.RTM_DELLINK and self.rules:
            doomed = (
                self._doomed_by_group(asked.group) if asked.group else self._doomed_by_index(asked)
            )
            self._check_redirects(doomed)
            self.deleted += [each.ifindex for each in doomed]
        number = super().carry_out(message)
        self.deletions += not number and message.type != uapi.RTM_SETLINK
        return number

    def _goes_home(self, message, asked):
        return message.type == uapi.RTM_SETLINK and asked.group == getattr(
            self.link_of(message), "home", None
        )

    def _doomed_by_group(self, group):
        when, seen = self.seen_all
        proven = {each: orphan for each, (there, orphan) in seen.items() if there == group}
        assert self.last == FULL_LIST, "the proof does not come right before the delete"
        assert proven and all(proven.values()), (
            "what the list showed in the group was not all orphans"
        )
        doomed = [each for each in self.links if each.group == group]
        assert all(each in proven or each.changed > when for each in doomed), (
            "the list did not show it in the group"
        )
        return doomed

    def _doomed_by_index(self, asked):
        doomed = [each for each in self.links if each.ifindex == asked.ifindex]
        for each in doomed:
            when, orphan = self.seen_one.get(each, (-1, False))
            assert orphan or each.changed > when, "it was not an orphan when it was last read"
        return doomed

    def _check_redirects(self, doomed):
        ifindexes = {each.ifindex for each in doomed}
        left = [
            each for each in self.filters if each.ifindex == ETH0 and set(each.targets) & ifindexes
        ]
        due = [
            each
            for each in left
            if self.uplink_known and random_pods.goes(each, ifindexes, self.qdiscs)
        ]
        assert self.refused or self.clock or not due, "a redirect outlives its TAP"

    # -------------------------------------------------------- the events

    def _happen(self):
        while self.events and self.events[0][0] <= self.requests:
            _, what, which = self.events.pop(0)
            taps = [each for each in self.links if each.ifindex >= FIRST_TAP]
            if what in DISTURBANCES:
                DISTURBANCES[what](self)
            elif taps:
                self.clock += 1
                EVENTS[what](self, taps[which % len(taps)])
                if what not in ("attach", "release"):  # of a carrier the kernel tells later
                    self._tell()
        if self.dead:
            raise Killed

    def _tell(self):
        """Tell those who listen that links have changed."""
        for socket in self.sockets:
            if socket.groups & uapi.RTMGRP_LINK and not socket.closed:
                socket.arrive(
                    wire.message(uapi.RTM_NEWLINK, 0, 0, uapi.ifinfomsg.pack(0, 0, PEER0, 0, 0))
                )

    def _change(self, each, **fields):
        each.__dict__.update(fields, changed=self.clock)

    def attach(self, tap):
        self._change(tap, facts=dict(tap.facts, carrier=1))

    def release(self, tap):
        self._change(tap, facts=dict(tap.facts, carrier=0, up_count=1))

    def rename(self, tap):
        self._change(tap, name="other%d" % tap.ifindex)

    def regroup(self, tap):
        self._change(tap, group=5, home=None)

    def remove(self, tap):
        self.delete_link(tap)

    def recreate(self, tap):
        self._replace(tap, a_tap(max(each.ifindex for each in self.links) + 1, tap.name))

    def replace(self, tap):
        """A device of another kind gets the very index, by which it may be marked."""
        veth = build.a_link(tap.ifindex, "veth%d" % tap.ifindex, kind="veth", mode=None, carrier=1)
        self._replace(tap, veth, home=None)

    def _replace(self, old, new, home=0):
        self.delete_link(old)
        self._change(new, home=home)
        self.links.append(new)

    def intrude(self, tap):
        """A stranger enters the group that this TAP is in just now."""
        for stranger in self.links:
            if stranger.ifindex == STRANGER:
                self._change(stranger, group=tap.group, home=tap.group)


EVENTS = {
    "attach": Kernel.attach,
    "release": Kernel.release,
    "rename": Kernel.rename,
    "regroup": Kernel.regroup,
    "remove": Kernel.remove,
    "recreate": Kernel.recreate,
    "replace": Kernel.replace,
    "intrude": Kernel.intrude,
}
DISTURBANCES = {
    "unsent": lambda kernel: None,  # noticed before the datagram is taken
    "unanswered": lambda kernel: setattr(kernel, "lost", True),
    "torn": lambda kernel: setattr(kernel, "torn", True),
    "busy": lambda kernel: setattr(kernel, "refusal", errno.EBUSY),
    "forbidden": lambda kernel: setattr(kernel, "refusal", errno.EPERM),
    "killed": lambda kernel: setattr(kernel, "dead", True),
}


def _kind_of_look(message):
    if message.type != uapi.RTM_GETLINK:
        return OTHER
    if message.flags & uapi.NLM_F_DUMP == uapi.NLM_F_DUMP:
        return FULL_LIST if link.Link(message).kind is None else TAP_LIST
    return ONE_LINK if link.Link(message).ifindex else OTHER


def _tells_of_stranger(reply):
    return link.Link(build.messages(reply)[0]).ifindex == STRANGER


def is_orphan(each):
    return random_pods.is_ours(each) and not random_pods.is_used(each)


# ---------------------------------------------------------------- the socket


class Signal(BaseException):
    """What a signal handler raised, as that of SIGINT does, while something was waited for."""


class Socket:
    """A netlink socket with a model behind it, as far as nlraw.route uses one."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.port = self.groups = 0
        # what is on its way: when it arrives, the datagram or an exception, and who sent it
        self.queue = []
        self.previous = []  # the messages of the last answer
        self.numbers = set()  # sequence numbers so far
        self.asked = set()  # those of the last datagram
        self.progress = 0.0  # when something last came for us
        self.closed = False
        kernel.sockets.append(self)

    def setsockopt(self, *_):
        pass

    def bind(self, address):
        if self.kernel.now < self.kernel.taken:
            raise OSError(errno.EADDRINUSE, "")
        assert not self.port or address[0] == self.port
        self.port = self.kernel.port = address[0]
        self.groups = address[1]

    def connect(self, address):
        assert address == (0, 0)
        self.port = self.kernel.port = self.port or PORT

    def getsockname(self):
        return self.port, 0

    def fileno(self):
        return self.kernel.sockets.index(self)

    def close(self):
        self.closed = True

    def send(self, datagram):
        assert not self.closed, "a socket on which something failed is used again"
        requests = build.messages(datagram)
        self.asked = {message.sequence for message in requests}
        assert len(self.asked) == len(requests) and not self.asked & self.numbers, (
            "a sequence number is used again"
        )
        self.numbers |= self.asked
        name, number = self.kernel.fault()
        if name == "unsent":
            raise OSError(errno.ENOBUFS, "")
        arrives = name not in UNFIT and not (
            name == "torn" and any(_dumps(message) for message in requests)
        )
        answer = self.kernel.send(datagram, arrives)
        self.progress = self.kernel.now
        if answer is None:
            self.arrive(OSError(errno.ENOBUFS, ""))
            return
        FAULTS[name](self, answer, random.Random(number))
        self.previous = answer

    def arrive(self, what, after=0.0, sender=0):
        """Let a datagram, or an exception, arrive so many seconds after the one before it."""
        last = self.queue[-1][0] if self.queue else 0.0
        self.queue.append((max(last, self.kernel.now) + after, what, sender))

    def recvfrom(self, size, flags):
        assert not self.closed and flags & MSG_DONTWAIT
        self.check_patience()
        if not self.queue or self.queue[0][0] > self.kernel.now:
            raise BlockingIOError
        _, what, sender = self.queue.pop(0)
        if isinstance(what, BaseException):
            raise what
        if sender == 0 and self.is_for_us(what):
            self.progress = self.kernel.now
        if sender == FLOOD:
            self.kernel.now += 0.1
        if isinstance(what, Wide):
            what = what.ljust(size + 1, b"\0")
        return what[:size], (sender, 0)

    def is_for_us(self, datagram):
        try:
            return any(
                message.sequence in self.asked and message.port == self.port
                for message in build.messages(datagram)
            )
        except ValueError:
            return True

    def wait(self, seconds):
        """Let time pass until something arrives, that long at most; tell whether it did."""
        kernel = self.kernel
        self.check_patience()
        if self.queue and self.queue[0][0] <= kernel.now + seconds:
            kernel.now = max(kernel.now, self.queue[0][0])
            return True
        kernel.now += seconds
        return False

    def check_patience(self):
        late = self.kernel.now - self.progress
        assert late <= nlraw.route.SILENCE + CHATTER, (
            "waits on, %.1f s after the last word for us" % late
        )


# A datagram that does not fit the buffer that it is received with the first time.
class Wide(bytes):
    pass


MSG_DONTWAIT = 0x40
CHATTER = 1.0  # seconds from one stray datagram to the next
INTRUDER, FLOOD = 4242, 4243

# What befalls an answer, a list of messages; ``chance`` is a random.Random.


def right(socket, answer, chance):
    socket.arrive(b"".join(answer))


def apart(socket, answer, chance):
    """In as many datagrams as there are messages, or fewer."""
    parts = [[]]
    for message in answer:
        parts[-1].append(message)
        if chance.randrange(2):
            parts.append([])
    for part in parts:
        socket.arrive(b"".join(part))


def slow(socket, answer, chance):
    for message in answer:
        socket.arrive(message, chance.uniform(0, nlraw.route.SILENCE - 0.1))


def stale(socket, answer, chance):
    """Behind the answer to the request before."""
    if chance.randrange(2):
        socket.arrive(b"".join(socket.previous))
        right(socket, answer, chance)
    else:
        socket.arrive(b"".join(socket.previous + answer))


def foreign(socket, answer, chance):
    """Among datagrams of another process that claim to be it."""
    for _ in range(chance.randint(1, 4)):
        socket.arrive(chance.choice(FORGERIES)(socket, answer, chance), sender=INTRUDER)
    right(socket, answer, chance)
    socket.arrive(chance.choice(FORGERIES)(socket, answer, chance), sender=INTRUDER)


def forged_refusal(socket, answer, chance):
    payload = build.refusal_payload(chance.choice((0, errno.EPERM, errno.ENODEV)), bytes(16))
    return b"".join(
        wire.message(uapi.NLMSG_ERROR, uapi.NLM_F_CAPPED, number, payload, socket.port)
        for number in sorted(socket.asked)
    )


def forged_list(socket, answer, chance):
    """As if all were orphans, and the list were whole."""
    number = chance.choice(sorted(socket.asked))
    links = [
        wire.message(uapi.RTM_NEWLINK, 2, number, build.link_payload(each.ifindex), socket.port)
        for each in socket.kernel.links
    ]
    return b"".join(links) + wire.message(uapi.NLMSG_DONE, 2, number, bytes(4), socket.port)


def forged_junk(socket, answer, chance):
    return junk.mutate(b"".join(answer), chance, answer)


def forged_width(socket, answer, chance):
    return Wide(b"".join(answer) + bytes(chance.randint(1, 1 << 17)))


FORGERIES = (forged_refusal, forged_list, forged_junk, forged_width)


def strays(socket, answer, chance):
    """Among messages of the kernel's that are somebody else's."""
    for sequence, port in (
        (0, 0),
        (min(socket.asked), socket.port + 1),
        (min(socket.asked) - 1 & 0xFFFFFFFF, socket.port),
    ):
        type = chance.choice(
            (uapi.RTM_NEWLINK, uapi.RTM_DELLINK, uapi.NLMSG_DONE, uapi.NLMSG_OVERRUN)
        )
        socket.arrive(wire.message(type, uapi.NLM_F_DUMP_INTR, sequence, b"stray", port))
        socket.arrive(b"")
    noops = wire.message(uapi.NLMSG_NOOP, 0, chance.choice(sorted(socket.asked)), b"", socket.port)
    socket.arrive(noops + b"".join(answer))


def twice(socket, answer, chance):
    right(socket, answer, chance)
    right(socket, answer, chance)


def silence(socket, answer, chance):
    pass


def chatter(socket, answer, chance):
    """Drowned: strangers talk on and on, and the answer does not come."""
    for _ in range(60):
        socket.arrive(forged_refusal(socket, answer, chance), CHATTER, INTRUDER)


def flood(socket, answer, chance):
    """The same, with the next word there before the last is read."""
    for _ in range(200):
        socket.arrive(forged_refusal(socket, answer, chance), 0, FLOOD)


def too_late(socket, answer, chance):
    socket.arrive(b"".join(answer), nlraw.route.SILENCE + chance.uniform(0.1, 5))


def overrun(socket, answer, chance):
    """The receive buffer was full, before anything arrived or in the middle."""
    socket.arrive(b"".join(answer[: chance.randrange(len(answer))]))
    socket.arrive(OSError(errno.ENOBUFS, ""))


def overrun_message(socket, answer, chance):
    socket.arrive(
        wire.message(uapi.NLMSG_OVERRUN, 0, chance.choice(sorted(socket.asked)), b"", socket.port)
    )


def truncated(socket, answer, chance):
    socket.arrive(Wide(b"".join(answer)))


def torn(socket, answer, chance):
    """The kernel says that the list changed while it was written, and some of it is missing.

    What is no list stays as it is.
    """
    kept = []
    for part in answer:
        (message,) = build.messages(part)
        flags = message.flags | uapi.NLM_F_DUMP_INTR
        if message.flags & uapi.NLM_F_MULTI and message.type == uapi.NLMSG_DONE:
            part = wire.message(
                message.type, flags, message.sequence, message.payload, message.port
            )
        elif message.flags & uapi.NLM_F_MULTI and chance.randrange(3) == 0:
            continue
        kept.append(part)
    socket.arrive(b"".join(kept))


def cut(socket, answer, chance):
    whole = b"".join(answer)
    socket.arrive(whole[: chance.randrange(len(whole))])


def signal(socket, answer, chance):
    socket.arrive(b"".join(answer[: chance.randrange(len(answer))]))
    socket.arrive(Signal())


def broken(socket, answer, chance):
    socket.arrive(
        OSError(chance.choice((errno.EINTR, errno.ECONNREFUSED, errno.ENOMEM, errno.EBADF)), "")
    )


def lie(socket, answer, chance):
    """Hostile: the kernel's own answer has other bytes, other objects, or all links are orphans."""
    whole = b"".join(answer)
    how = chance.randrange(3)
    if how == 0:
        socket.arrive(junk.mutate(whole, chance, answer))
        return
    messages = build.messages(whole)
    payloads = [message.payload for message in messages]
    if how == 1:
        payloads = [
            _as_an_orphan(message) if message.type == uapi.RTM_NEWLINK else message.payload
            for message in messages
        ]
    else:
        chance.shuffle(payloads)
    told = [
        wire.message(message.type, message.flags, message.sequence, payload, message.port)
        for message, payload in zip(messages, payloads)
    ]
    socket.arrive(b"".join(told))


def _as_an_orphan(message):
    told = link.Link(message)
    return build.link_payload(told.ifindex, told.ifname) + wire.attribute_u32(
        uapi.IFLA_GROUP, told.group
    )


# By name. FIT ones end in the right answer; after one that is UNFIT nothing is known that was not
# known before.
FIT = {
    "right": right,
    "apart": apart,
    "slow": slow,
    "stale": stale,
    "foreign": foreign,
    "strays": strays,
    "twice": twice,
    "torn": torn,
}
UNFIT = {
    "unsent": None,
    "silence": silence,
    "chatter": chatter,
    "flood": flood,
    "too late": too_late,
    "overrun": overrun,
    "overrun message": overrun_message,
    "truncated": truncated,
    "cut": cut,
    "signal": signal,
    "broken": broken,
}
FAULTS = dict(FIT, lie=lie, **UNFIT)


def _dumps(message):
    return message.flags & uapi.NLM_F_DUMP == uapi.NLM_F_DUMP


# ---------------------------------------------------------------- in the kernel's place


class Place:
    """What a Route takes for a namespace: where its sockets are opened.

    The real one is out of reach.
    """

    path = build.Namespace.path

    def __init__(self, kernel):
        self.kernel = kernel

    def run(self, function):
        with mock.patch.object(nlraw.route, "Socket", lambda *_: Socket(self.kernel)):
            return function()

    def enter(self):
        return self

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Clock:
    """What nlraw.route knows of time."""

    def __init__(self, kernel):
        self.kernel = kernel

    def time(self):
        return 1e9 + self.kernel.now

    def monotonic(self):
        return self.kernel.now

    def sleep(self, seconds):
        self.kernel.now += seconds


class Poll:
    """A select.poll() of one of the model's sockets."""

    def __init__(self, kernel):
        self.kernel = kernel

    def register(self, fileno, events):
        self.socket = self.kernel.sockets[fileno]

    def poll(self, milliseconds):
        return [(self.socket.fileno(), 1)] if self.socket.wait(milliseconds / 1000) else []


@contextlib.contextmanager
def played(kernel, window=nlraw.route.WINDOW):
    """Let the model be the kernel of whatever namespace is opened in here.

    A datagram takes ``window`` requests.
    """
    with contextlib.ExitStack() as stack:

        def patch(module, name, value):
            stack.enter_context(mock.patch.object(module, name, value))

        patch(nlraw.route, "time", Clock(kernel))
        patch(nlraw.route, "WINDOW", window)
        patch(select, "poll", lambda: Poll(kernel))
        for module in (orphans, node, provision):
            patch(module, "Namespace", lambda netns: Place(kernel))
        patch(provision, "create", _no_tap)
        yield


def _no_tap(namespace, name):
    """Here a setup ends: the model has no /dev/net/tun."""
    raise Refused(errno.EPERM, "the model makes no TAP", "create TAP", name)


# ---------------------------------------------------------------- runs


def a_tap(ifindex, name, group=0, fresh=False):
    made = build.a_link(ifindex, name, up_count=0 if fresh else 1)
    made.group = group
    return made


def a_kernel(taps, events=()):
    """A pod with TAPs, given as pairs of group and whether fresh, each with redirects both ways.

    And a stranger, a TAP in use.
    """
    links = [
        build.a_link(ETH0, "eth0", kind="veth", mode=None, carrier=1),
        build.a_link(PEER0, "peer0", kind="veth", mode=None, carrier=1),
        build.a_link(STRANGER, "vm0", carrier=1),
    ]
    qdiscs = [build.a_qdisc(ETH0, "ingress")]
    filters = [build.a_filter(ETH0, "matchall", PEER0, handle=1, priority=1)]
    for ifindex, (group, fresh) in enumerate(taps, FIRST_TAP):
        links.append(a_tap(ifindex, "tap%d_urunc" % ifindex, group, fresh))
        qdiscs.append(build.a_qdisc(ifindex, "ingress"))
        filters.append(build.a_filter(ETH0, "matchall", ifindex, handle=ifindex, priority=ifindex))
        filters.append(build.a_filter(ifindex, "matchall", ETH0))
    return Kernel(links, qdiscs, filters, events)


def cleaned(kernel, window=nlraw.route.WINDOW, spare_fresh=False):
    """Clean up; return the report and the error, which is None where there was none.

    A datagram takes ``window`` requests.
    """
    target = orphans.Target(orphans.MATCH, orphans.UPLINK, spare_fresh=spare_fresh)
    try:
        with played(kernel, window), Route(Place(kernel)) as route:
            return orphans.remove(route, target), None
    except Error as error:
        return error.report, error

# SPDX-License-Identifier: Apache-2.0
"""A model kernel: its objects, what changes them meanwhile, and what happens to its answers.

    Kernel    a `build.Namespace` to which things happen; it checks every deletion against what had
              been read by then
    Socket    its netlink socket, whose answers may come late, torn, twice, from strangers, or not
              at all
    System    the socket factory and the clock of a `nlraw.connection.Connection` to it
    Place     its namespace

Time is the model's own, and passes when somebody waits. All of nlraw is real but tests/lib/model.py
is the system below it.
"""

import collections
import errno
import random
from unittest import mock

import nlraw.connection
from lib import build, junk, random_pods
from nlraw import inet, link, marks, uapi, wire
from nlraw.connection import SILENCE, Connection
from nlraw.errors import Refused
from nlraw.pod import remove
from nlraw.transport import WRITER_PORT
from nlraw.verdict import MATCH, UPLINK, Target

ETH0, PEER0, STRANGER = 2, 3, 4
FIRST_TAP = 10
BLOCK = 7  # a shared block, of the incoming side of peer0
PORT = 4321  # of a socket that wants none in particular

FULL_LIST, TAP_LIST, ONE_LINK, QDISCS, MARK, OTHER = (
    "full list",
    "list of TAPs",
    "one link",
    "qdiscs",
    "mark",
    "other",
)
TC_LISTS = (uapi.RTM_GETQDISC, uapi.RTM_GETTFILTER, uapi.RTM_GETCHAIN)

# The type of the event that announces a change made by a request; a request to make a link or a TC
# object, or to delete one, has the type of its event.
ANNOUNCED = {uapi.RTM_SETLINK: uapi.RTM_NEWLINK}


class Killed(BaseException):
    """The process is no more: nothing that it does from now on reaches the kernel."""


class Kernel(build.Namespace):
    """A namespace to which things happen.

    An event is a triple: before which request, what, and to which link.
    """

    def __init__(self, links, qdiscs, filters, events=(), faults=()):
        super().__init__(links, qdiscs, filters)
        self.routes = [(inet.AF_INET, ETH0)]
        self.events = sorted(events)
        # of the answers to come: a name, and a number for what is left to chance
        self.faults = list(faults)
        self.met = collections.Counter()  # faults so far
        self.now = 0.0  # seconds; they pass when somebody waits
        self.spent = 0.0  # seconds of processor time
        self.taken = 0.0  # until when somebody else has the port of whoever changes something
        self.sockets = []
        self.requests = 0  # so far
        self.clock = 0  # counts changes by others: to links and TC
        self.tc_clock = 0  # the clock at their last change to TC
        self.late = []  # links whose carrier is not announced yet
        # what the last answers showed that arrived: a whole list of links, as when and of each its
        # group and whether it was an orphan; links read by themselves, as when and whether an
        # orphan; whether one of the TAPs was in use
        self.seen_all = (-1, {})
        self.seen_one = {}
        self.seen_used = False
        # the TC clock at the last list of qdiscs, with which a plan begins, and at the list of
        # links that confirms it; whether that plan is being carried out
        self.planned = self.confirmed = None
        self.is_marking = False
        self.torn_lists = set()  # requests for TC lists whose last answer was torn, without a flag
        self.last = OTHER  # what was asked last, deletions aside
        self.refusal = 0
        self.refused = self.torn = self.tears = self.lost = self.dead = False
        self.deleted = []  # links by index
        self.deletions = 0  # of anything
        self.needs_port = False  # whether changes have to come from the writer port
        self.uplink_known = True  # to whoever cleans up
        self.keeps_used = False  # whether orphans go beside TAPs in use
        self.spares_fresh = False  # whether fresh orphans stay
        # whether deletions are held against what was read, and those of TC
        self.rules = self.has_tc_rules = True
        for each in self.links:
            each.home = each.group  # where it belongs when all is over; None makes no claim
            each.changed = 0
        for each in self.filters:
            each.since = 0

    def orphans(self):
        """The indexes of the TAPs that are orphans just now."""
        below = self.below()
        return {each.ifindex for each in self.links if is_orphan(each, below)}

    def below(self):
        """The indexes of the links on which something is stacked."""
        here = (each.facts for each in self.links if each.facts.get("lower_netnsid") is None)
        return {facts.get("lower") for facts in here}

    # -------------------------------------------------------- the socket

    def fault(self, requests):
        """What happens to the answer to the next datagram."""
        name, number = self.faults.pop(0) if self.faults else ("right", 0)
        if self.tears and requests[0].type in TC_LISTS:
            self.tears, name, number = False, "resumed", self.requests
        self.met[name] += 1
        return name, number

    def send(self, datagram, port, arrives=True):
        """Carry out a datagram of requests.

        Return the messages that answer it, or None where they are lost.
        """
        requests = build.messages(datagram)
        self.port = port
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
        if self.torn and message.type == uapi.RTM_GETLINK and is_dump(message):
            self.torn = False
            done = wire.message(
                uapi.NLMSG_DONE,
                uapi.NLM_F_MULTI | uapi.NLM_F_DUMP_INTR,
                message.sequence,
                bytes(4),
                self.port,
            )
            return [reply for reply in replies[:-1] if not _is_stranger(reply)] + [done]
        return replies

    def listed(self, message):
        payloads = super().listed(message)
        kind = link.Link(message).kind if message.type == uapi.RTM_GETLINK else None
        return [
            payload for payload in payloads if kind is None or build.as_link(payload).kind == kind
        ]

    def _reading(self, message):
        """What the cleanup knows from the answer, to be noted if it arrives."""
        look, now, tc_now = _kind_of_look(message), self.clock, self.tc_clock
        if look == FULL_LIST:
            below = self.below()
            seen = {each: (each.group, is_orphan(each, below)) for each in self.links}
            used = any(
                not orphan for each, (_, orphan) in seen.items() if random_pods.is_ours(each)
            )

            def read():
                self.seen_all, self.seen_used = (now, seen), used
                if not self.is_marking:
                    self.confirmed = tc_now

            return read
        if look == QDISCS:
            return lambda: self.__dict__.update(
                planned=tc_now, confirmed=None, is_marking=False, torn_lists=set()
            )
        if message.type in TC_LISTS:
            return lambda: self.torn_lists.discard(message.payload)
        if look == ONE_LINK:
            found = self.link_of(message)
            return lambda orphan=found and is_orphan(found): self.seen_one.update(
                {found: (now, orphan)}
            )
        return lambda: None

    # -------------------------------------------------------- the rules

    def carry_out(self, message):
        is_link = message.type in (uapi.RTM_SETLINK, uapi.RTM_DELLINK)
        asked = link.Link(message) if is_link else None
        if self.refusal and not self._goes_home(message, asked):
            number, self.refusal, self.refused = self.refusal, 0, True
            return number
        if message.type == uapi.RTM_SETLINK:
            self.last = MARK
            self.is_marking = self.confirmed is not None
            if self.rules:
                self._check_group(self.link_of(message), asked.group)
        elif self.rules:
            self._check_look()
        assert self.port == WRITER_PORT or not self.needs_port, "changed without the writer port"
        if message.type == uapi.RTM_DELLINK and self.rules:
            doomed = (
                self._doomed_by_group(asked.group) if asked.group else self._doomed_by_index(asked)
            )
            self._check_redirects(doomed)
            self.deleted += [each.ifindex for each in doomed]
        before, chains = list(self.filters), list(self.chains)
        number = super().carry_out(message)
        if self.rules and self.has_tc_rules and not is_link:
            self._check_filters(before, chains)
        self.deletions += not number and message.type != uapi.RTM_SETLINK
        if not number:
            type = ANNOUNCED.get(message.type, message.type)
            self.announce(type, message.payload, message.sequence, self.port)
        return number

    def _goes_home(self, message, asked):
        return message.type == uapi.RTM_SETLINK and asked.group == getattr(
            self.link_of(message), "home", None
        )

    def _check_group(self, each, group):
        if each is None or each.home is None or is_mark(group):
            return
        is_home = group == each.home or (is_mark(each.group) and group == 0)  # a killed cleanup's
        assert is_home, "a group that is no mark"

    def _check_look(self):
        assert self.last != MARK, "something was deleted without a look after the mark"
        assert self.keeps_used or not self.seen_used, (
            "one of the TAPs was in use when they were last listed"
        )
        assert self.planned is not None, "something was deleted before TC was listed"
        assert self.confirmed is not None, "the links were not listed again after TC"
        assert self.confirmed == self.planned, "TC was changed between the look and the confirm"
        assert not self.torn_lists, "the plan was made from a torn list"

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
            when, seen = self.seen_all
            _, orphan = seen.get(each, (0, False))
            assert orphan or each.changed > when, "it was not an orphan when all were last listed"
        return doomed

    def _check_redirects(self, doomed):
        """The search is as wide as the deletion, but for what others did meanwhile."""
        steady = {each.ifindex for each in doomed if not each.changed}
        going = {
            each.ifindex
            for each, (_, orphan) in self.seen_all[1].items()
            if orphan and not (self.spares_fresh and not each.facts["up_count"])
        }
        due = [
            each
            for each in self.filters
            if each.ifindex not in steady | going
            and each.since <= self.confirmed
            and set(each.targets) & steady
            and random_pods.goes(each, steady, self, self.uplink_known)
        ]
        assert self.refused or not self.has_tc_rules or not due, "a redirect outlives its TAP"

    def _check_filters(self, before, chains):
        """Nobody's filter and nobody's chain goes, but what others made after the confirm."""
        left = set(map(id, self.filters))
        gone = [each for each in before if id(each) not in left and each.targets == [PEER0]]
        lost = [place for place in chains if place not in self.chains]
        if not gone and not lost:
            return
        taps = {each.ifindex for each in self.links if random_pods.is_ours(each)}
        for each in gone:
            if each.ifindex == build.BLOCK:  # it goes with the last device that uses it
                is_theirs = random_pods.is_block_in_use(self, taps)
            else:
                is_theirs = each.ifindex not in taps
            is_late = each.since > self.confirmed
            assert is_late or not is_theirs, "a filter of somebody else went"
        for place in lost:
            is_late = self.chain_since > self.confirmed
            assert is_late or place[0] in taps, "a chain of somebody else went"

    # -------------------------------------------------------- the events

    def _happen(self):
        late, self.late = self.late, []
        for _ in late:
            self.announce_link()
        while self.events and self.events[0][0] <= self.requests:
            _, what, which = self.events.pop(0)
            taps = [each for each in self.links if each.ifindex >= FIRST_TAP]
            if what in DISTURBANCES:
                DISTURBANCES[what](self)
            elif what in TC_EVENTS:
                self.clock += 1
                TC_EVENTS[what](self, taps[which % len(taps)] if taps else None)
            elif taps:
                self.clock += 1
                EVENTS[what](self, taps[which % len(taps)])
                if what in ("attach", "release"):  # a deferred worker announces a carrier
                    self.late.append(what)
                else:
                    self.announce_link()
        if self.dead:
            raise Killed

    def announce(self, type, payload, sequence=0, port=0):
        """Send an event to those who have joined its group, the one who made the change too."""
        is_link = type in (uapi.RTM_NEWLINK, uapi.RTM_DELLINK)
        group = uapi.RTMGRP_LINK if is_link else uapi.RTMGRP_TC
        for socket in self.sockets:
            if socket.groups & group and not socket.closed:
                socket.arrive(wire.message(type, 0, sequence, payload, port))

    def announce_link(self):
        self.announce(uapi.RTM_NEWLINK, uapi.ifinfomsg.pack(0, 0, PEER0, 0, 0))

    def announce_tc(self, type, payload):
        self.tc_clock = self.clock
        self.announce(type, payload)

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
        self._replace(tap, a_tap(self._new_ifindex(), tap.name))

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

    def stack(self, tap):
        """A device is stacked on it, with which the kernel would delete that too."""
        ifindex = self._new_ifindex()
        upper = build.a_link(ifindex, "mac%d" % ifindex, kind="macvlan", lower=tap.ifindex)
        self._change(upper, home=0)
        self._change(tap)
        self.links.append(upper)

    def _new_ifindex(self):
        return max(each.ifindex for each in self.links) + 1

    def add_filter(self, tap):
        """Somebody adds a filter to the uplink, if that has an ingress."""
        self._add(PEER0)

    def add_redirect(self, tap):
        """Somebody redirects the uplink to a TAP, as a start in progress does."""
        if tap is not None:
            self._add(tap.ifindex)

    def _add(self, target):
        number = 1000 + self.clock
        if any(each.ifindex == ETH0 for each in self.qdiscs):
            made = build.a_filter(ETH0, "matchall", target, handle=number, priority=number)
            made.since = self.clock
            self.filters.append(made)
            self.announce_tc(uapi.RTM_NEWTFILTER, self.filter_payload_of(made, made))

    def drop_filter(self, tap):
        """Somebody deletes a filter that they added."""
        theirs = [each for each in self.filters if each.since and each.targets == [PEER0]]
        for each in theirs[:1]:
            self.filters.remove(each)
            self.announce_tc(uapi.RTM_DELTFILTER, self.filter_payload_of(each, each))

    def add_chain(self, tap):
        """Somebody creates a chain on the uplink explicitly."""
        place = (ETH0, uapi.TC_H_INGRESS_HANDLE)
        if place + (5,) not in self.chains and any(each.ifindex == ETH0 for each in self.qdiscs):
            self.chains.append(place + (5,))
            self.chain_since = self.clock
            self.announce_tc(uapi.RTM_NEWCHAIN, build.chain_payload(*place, 5))

    chain_since = 0


EVENTS = {
    "attach": Kernel.attach,
    "release": Kernel.release,
    "rename": Kernel.rename,
    "regroup": Kernel.regroup,
    "remove": Kernel.remove,
    "recreate": Kernel.recreate,
    "replace": Kernel.replace,
    "intrude": Kernel.intrude,
    "stack": Kernel.stack,
}
TC_EVENTS = {
    "add filter": Kernel.add_filter,
    "add redirect": Kernel.add_redirect,
    "drop filter": Kernel.drop_filter,
    "add chain": Kernel.add_chain,
}
DISTURBANCES = {
    "unsent": lambda kernel: None,  # noticed before the datagram is taken
    "unanswered": lambda kernel: setattr(kernel, "lost", True),
    "torn": lambda kernel: setattr(kernel, "torn", True),
    "tears": lambda kernel: setattr(kernel, "tears", True),
    "busy": lambda kernel: setattr(kernel, "refusal", errno.EBUSY),
    "forbidden": lambda kernel: setattr(kernel, "refusal", errno.EPERM),
    "killed": lambda kernel: setattr(kernel, "dead", True),
}
# What may happen while the cleanup goes on.
ALIVE = sorted(EVENTS) + sorted(TC_EVENTS) + sorted(set(DISTURBANCES) - {"killed"})


def _kind_of_look(message):
    if message.type == uapi.RTM_GETQDISC:
        return QDISCS
    if message.type != uapi.RTM_GETLINK:
        return OTHER
    if is_dump(message):
        return FULL_LIST if link.Link(message).kind is None else TAP_LIST
    return ONE_LINK if link.Link(message).ifindex else OTHER


def _is_stranger(reply):
    return link.Link(build.messages(reply)[0]).ifindex == STRANGER


def is_dump(message):
    return message.flags & uapi.NLM_F_DUMP == uapi.NLM_F_DUMP


def is_mark(group):
    return group & ~0xFFFF == marks.MARK


def is_orphan(each, below=()):
    """Whether it is an orphan; on the links of the indexes ``below`` something is stacked."""
    is_used = each.ifindex in below or random_pods.is_used(each)
    return random_pods.is_ours(each) and not is_used


# ---------------------------------------------------------------- the socket


class Signal(BaseException):
    """What a signal handler raised, as that of SIGINT does, while something was waited for."""


class Socket:
    """A netlink socket with a model behind it, as far as nlraw uses one."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.port = self.groups = 0
        # what is on its way: when it arrives, the datagram or an exception, and who sent it
        self.queue = []
        self.previous = []  # the messages of the last answer
        self.numbers = set()  # sequence numbers so far
        self.asked = set()  # those of the last datagram
        self.requests = []  # the last datagram
        self.progress = 0.0  # when something last came for us
        self.closed = False
        kernel.sockets.append(self)

    def setsockopt(self, *_):
        pass

    def bind(self, address):
        """Take a port, or another set of groups: a port that it has stays (netlink_bind())."""
        assert not self.closed
        port, groups = address
        if not self.port:
            if port == WRITER_PORT and self.kernel.now < self.kernel.taken:
                raise OSError(errno.EADDRINUSE, "")
            self.port = port or PORT
        assert port in (0, self.port)
        self.groups = groups

    def connect(self, address):
        assert address == (0, 0)
        self.port = self.port or PORT

    def getsockname(self):
        return self.port, self.groups

    def close(self):
        self.closed = True

    def send(self, datagram):
        assert not self.closed, "a socket on which something failed is used again"
        self.requests = requests = build.messages(datagram)
        self.asked = {message.sequence for message in requests}
        assert len(self.asked) == len(requests) and not self.asked & self.numbers, (
            "a sequence number is used again"
        )
        self.numbers |= self.asked
        name, number = self.kernel.fault(requests)
        if name == "unsent":
            raise OSError(errno.ENOBUFS, "")
        arrives = name not in UNFIT and not (name == "torn" and any(map(is_dump, requests)))
        answer = self.kernel.send(datagram, self.port, arrives)
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
        self.kernel.spent += PROCESSOR_TIME
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
        """Let time pass until something arrives, that long at most; return whether it did."""
        kernel = self.kernel
        self.check_patience()
        if self.queue and self.queue[0][0] <= kernel.now + seconds:
            kernel.now = max(kernel.now, self.queue[0][0])
            return True
        kernel.now += seconds
        return False

    def check_patience(self):
        late = self.kernel.now - self.progress
        assert late <= SILENCE + CHATTER, "waits on, %.1f s after the last word for us" % late


# A datagram that does not fit the buffer that it is received with the first time.
class Wide(bytes):
    pass


MSG_DONTWAIT = 0x40
PROCESSOR_TIME = 0.001  # seconds that a datagram takes
CHATTER = 1.0  # seconds from one stray datagram to the next
INTRUDER, FLOOD = 4242, 4243

# What happens to an answer, a list of messages; ``chance`` is a random.Random.


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
        socket.arrive(message, chance.uniform(0, SILENCE - 0.1))


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


def resumed(socket, answer, chance):
    """Somebody deletes an earlier entry of a list between two of its datagrams.

    The kernel resumes a TC list by position, so that it leaves one out, and does not flag it. To
    those who have joined the group it announces the deletion.
    """
    request, kernel = socket.requests[0], socket.kernel
    if request.type not in TC_LISTS or not socket.groups & uapi.RTMGRP_TC:
        right(socket, answer, chance)
        return
    entries, done = answer[:-1], answer[-1]
    asked = uapi.tcmsg.unpack_from(request.payload)
    payload = uapi.tcmsg.pack(0, asked[1], 9999, asked[3], build.info(9999, uapi.ETH_P_ALL))
    payload += wire.attribute_string(uapi.TCA_KIND, "basic")
    early = wire.message(request.type - 2, uapi.NLM_F_MULTI, request.sequence, payload, socket.port)
    place = chance.randrange(len(entries) + 1)
    socket.arrive(b"".join([early] + entries[:place]))
    kernel.clock += 1
    kernel.announce_tc(request.type - 1, payload)
    if place < len(entries):
        kernel.torn_lists.add(request.payload)
    rest = entries[place + 1 :]
    if rest:
        socket.arrive(b"".join(rest))
    socket.arrive(done)


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
    socket.arrive(b"".join(answer), SILENCE + chance.uniform(0.1, 5))


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
    lies = [
        wire.message(message.type, message.flags, message.sequence, payload, message.port)
        for message, payload in zip(messages, payloads)
    ]
    socket.arrive(b"".join(lies))


def _as_an_orphan(message):
    found = link.Link(message)
    return build.link_payload(found.ifindex, found.ifname) + wire.attribute_u32(
        uapi.IFLA_GROUP, found.group
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
    "resumed": resumed,
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


# ---------------------------------------------------------------- the system below nlraw


class System:
    """What a Connection needs from the system (nlraw.transport.System)."""

    def __init__(self, kernel):
        self.kernel = kernel

    def socket(self):
        return Socket(self.kernel)

    def wait(self, socket, seconds):
        return socket.wait(max(0.0, seconds))

    def thread_time(self):
        return self.kernel.spent

    def sleep(self, seconds):
        self.kernel.now += seconds

    def monotonic(self):
        return self.kernel.now

    def time(self):
        return 1e9 + self.kernel.now


class Place:
    """The model's namespace."""

    path = build.Namespace.path

    def __init__(self, kernel):
        self.kernel = kernel

    def run(self, function):
        return function()

    def enter(self):
        return self

    def close(self):
        pass


def connect(namespace, exclusive=False, **options):
    """Open a Connection to the model."""
    return Connection(namespace, exclusive, system=System(namespace.kernel), **options)


def window_of(count):
    """For a while, let a datagram take so many requests."""
    return mock.patch.object(nlraw.connection, "WINDOW", count)


def no_tap(namespace, names, multi_queue):
    """Here a setup ends: the model has no /dev/net/tun."""
    raise Refused(errno.EPERM, "the model makes no TAP", "create TAP", names[0])


# ---------------------------------------------------------------- runs


def a_tap(ifindex, name, group=0, fresh=False):
    made = build.a_link(ifindex, name, up_count=0 if fresh else 1)
    made.group = group
    return made


def a_kernel(taps, events=(), is_shared=True):
    """A pod with TAPs, given as pairs of group and whether fresh, with redirects to the uplink.

    The uplink redirects to those that are not fresh. The first one has a redirect in a shared block
    and in a clsact. Beside them are a TAP in use that does not match, and a filter of somebody else
    in the block; one on the uplink too, if that ``is_shared``.
    """
    links = [
        build.a_link(ETH0, "eth0", kind="veth", mode=None, carrier=1),
        build.a_link(PEER0, "peer0", kind="veth", mode=None, carrier=1),
        build.a_link(STRANGER, "vm0", carrier=1),
    ]
    qdiscs = [build.a_qdisc(ETH0, "ingress"), build.a_qdisc(PEER0, "clsact", ingress_block=BLOCK)]
    filters = [build.a_filter(build.BLOCK, "matchall", PEER0, parent=BLOCK, handle=2, priority=1)]
    if is_shared:
        filters.append(build.a_filter(ETH0, "matchall", PEER0, handle=1, priority=1))
    for ifindex, (group, fresh) in enumerate(taps, FIRST_TAP):
        links.append(a_tap(ifindex, "tap%d_urunc" % ifindex, group, fresh))
        qdiscs.append(build.a_qdisc(ifindex, "ingress"))
        places = [] if fresh else [(ETH0, uapi.TC_H_INGRESS_HANDLE)]
        if ifindex == FIRST_TAP:
            places += [(build.BLOCK, BLOCK), (PEER0, random_pods.CLSACT_OUT)]
        for place, parent in places:
            filters.append(
                build.a_filter(
                    place, "matchall", ifindex, parent=parent, handle=ifindex, priority=ifindex
                )
            )
        filters.append(build.a_filter(ifindex, "matchall", ETH0))
    made = Kernel(links, qdiscs, filters, events)
    made.foreign = {each.handle for each in made.filters if each.targets == [PEER0]}
    for each in made.links:
        if is_mark(each.group):  # that of a killed cleanup
            each.home = None
    return made


def cleaned(kernel, window=nlraw.connection.WINDOW, spare_fresh=False, allowance=None):
    """Clean up; return the report. A datagram takes ``window`` requests."""
    target = Target(MATCH, UPLINK, spare_fresh=spare_fresh)
    kernel.spares_fresh, kernel.needs_port = spare_fresh, True
    groups = uapi.RTMGRP_LINK | uapi.RTMGRP_TC
    options = {} if allowance is None else {"allowance": allowance}
    with window_of(window), connect(Place(kernel), True, groups=groups, **options) as connection:
        return remove(connection, target)

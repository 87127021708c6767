# SPDX-License-Identifier: Apache-2.0
"""A node for the agent to watch: pods, virtual machines, time and all that goes wrong, made up.

All of nlraw.agent runs as it is, in one thread: discovery, listener, agenda, workers, visits. What
it asks the system is answered here:

    Node        pods by path, the mount table, the clock, and what happens when
    Pod         a namespace that answers datagrams (`build.Namespace`), and announces its changes
    Room        a namespace in which pods have IDs; its sockets get events through their filters
    Poll        waits, while the clock goes on and things happen

Each deletion is checked when it is made: see `Node.deletes`. What is wrong fails the next poll.
"""

import contextlib
import errno
import functools
import heapq
import itertools
import select
import struct
import types
from unittest import mock

from lib import bpf as machine
from lib import build
from nlraw import (
    agent,
    bpf,
    discovery,
    exchange,
    known,
    link,
    listener,
    looker,
    netns,
    uapi,
    wire,
    workers,
)
from nlraw.errors import BadNamespace, Error, Lost, Refused
from nlraw.pod import preview, remove
from nlraw.verdict import Target
from nlraw.visit import Visit

# So many polls without a moment passing are a loop that never ends.
SPIN = 400

# Seconds in which the agent finds a new pod, if nothing is in the way.
SOON = 0.5

# Events that a socket can hold.
CAPACITY = 60

# The numbers of the agent, so small that an example reaches them.
NUMBERS = {
    known: {
        "VISITS": 5.0,
        "VISITS_PER_SECOND": 4.0,
        "EVENTS": 50.0,
        "EVENTS_PER_SECOND": 20.0,
        "MUTE": 3.0,
    },
    agent: {"EVENTS_AT_A_TIME": 7, "LOOKS_AT_A_TIME": 3, "MOVES_AT_A_TIME": 2},
    workers: {"STUCK": 20.0},
}

ETH0 = 2

READS = {uapi.RTM_GETLINK, uapi.RTM_GETQDISC, uapi.RTM_GETTFILTER, uapi.RTM_GETCHAIN}


class Pod(build.Namespace):
    """A pod's namespace. ``path`` is None once nothing pins it; it is alive until `Node.dies`."""

    def __init__(self, node, key, path, has_uplink=True):
        super().__init__([build.a_link(ETH0, "eth0", kind="veth")] if has_uplink else [])
        self.node = node
        self.key = key
        self.path = path
        self.is_alive = True
        self.is_visited = False
        self.failing = 0  # visits that will fail
        self.meanwhile = []  # what happens during a visit: functions
        self.owes_redirect = False  # one is left of a TAP that the agent has seen
        self.is_excused = False  # the agent cannot know yet of a change here
        self.born = node.now
        self.visits = 0
        self.next_index = ETH0 + 1
        if has_uplink:
            self.qdiscs.append(build.a_qdisc(ETH0, "ingress"))
        self.before = self._before

    def __repr__(self):
        return "Pod(%s, %s)" % (self.key, self.path)

    @property
    def taps(self):
        return [each for each in self.links if each.name != "eth0"]

    # ------------------------------------------------------------ what VMs do

    def make_tap(self, name, is_up=True, has_redirect=True):
        """Make a TAP, held by its maker."""
        if any(each.name == name for each in self.links):
            return None
        tap = build.a_link(self.next_index, name, carrier=1, up_count=0, down_count=0)
        self.next_index += 1
        tap.is_up, tap.is_seen, tap.since = is_up, False, None
        self.links.append(tap)
        if has_redirect and any(each.name == "eth0" for each in self.links):
            number = tap.ifindex
            self.filters.append(
                build.a_filter(ETH0, "u32", number, handle=number, priority=49152 - number)
            )
        self.announce(tap)
        return tap

    def attach(self, tap):
        if tap in self.links and not tap.facts["carrier"]:
            tap.facts.update(carrier=1, up_count=tap.facts["up_count"] + 1)
            tap.since = None
            self.announce(tap)

    def release(self, tap):
        """The last holder lets go. One that is down sends no event."""
        if tap in self.links and tap.facts["carrier"]:
            tap.facts.update(carrier=0, down_count=tap.facts["down_count"] + 1)
            tap.since = self.node.now
            if not tap.is_up or not self.announce(tap):
                self.node.excuse(self)

    def lose_tap(self, tap, leaves_redirect=False):
        """Somebody else deletes a TAP."""
        if tap in self.links:
            if not leaves_redirect:
                self.filters = [each for each in self.filters if tap.ifindex not in each.targets]
            else:
                aimed = any(tap.ifindex in each.targets for each in self.filters)
                is_ours = self.node.target.fits(tap.name)
                self.owes_redirect |= tap.is_seen and is_ours and aimed
            if not self.delete_link(tap):
                self.node.excuse(self)

    def announce(self, tap):
        """Return True if an event got to the agent."""
        return self.node.announce(self, uapi.RTM_NEWLINK, self.payload_of(tap))

    # ------------------------------------------------------------ what a visit sees and does

    def _before(self, requests):
        reads = {request.type for request in requests} <= READS
        if self.is_visited and self.meanwhile and reads:
            self.meanwhile.pop(0)()

    def listed(self, message):
        if message.type == uapi.RTM_GETLINK:
            for tap in self.taps:
                tap.is_seen = True
        return super().listed(message)

    @contextlib.contextmanager
    def unseen(self):
        """What is looked at meanwhile is not seen by the agent."""
        seen = {tap.ifindex for tap in self.taps if tap.is_seen}
        yield
        for tap in self.taps:
            tap.is_seen = tap.ifindex in seen

    def delete_link(self, doomed):
        if self.is_visited:
            self.node.deletes(self, doomed)
        super().delete_link(doomed)
        doomed.facts.update(carrier=0)
        is_heard = self.announce(doomed)
        self.node.announce(self, uapi.RTM_DELLINK, self.payload_of(doomed))
        return is_heard

    def close(self):
        """As a connection: the visit ends."""


class Socket:
    """A socket of a room: events as pairs of ID and message. ``capacity`` is that of its buffer."""

    def __init__(self, node, program):
        self.node = node
        self.program = program
        self.queue = []
        self.is_overrun = False
        self.is_closed = False

    def put(self, id, message, where=None):
        if self.is_closed:
            return
        if len(self.queue) >= CAPACITY:
            self.overrun()
        else:
            self.queue.insert(len(self.queue) if where is None else where, (id, message))

    def overrun(self):
        self.is_overrun = True

    @property
    def is_readable(self):
        return bool(self.queue or self.is_overrun)

    def recvmsg(self, size, ancillary, flags):
        id, message = self._next()
        kind = (uapi.SOL_NETLINK, uapi.NETLINK_LISTEN_ALL_NSID, struct.pack("=i", id))
        return message[:size], [kind], 0, (0, 0)

    def recvfrom(self, size, flags):
        return self._next()[1], (0, 0)

    def _next(self):
        assert not self.is_closed
        if self.is_overrun:
            self.is_overrun = False
            raise OSError(errno.ENOBUFS, "overrun")
        if not self.queue:
            raise BlockingIOError
        return self.queue.pop(0)

    def close(self):
        self.is_closed = True


class Room:
    """Stands in for nlraw.listener.Room."""

    def __init__(self, node):
        self.node = node
        self.pods = {}  # by ID
        self.sockets = []
        self.ends = []
        self.connection = self.namespace = self
        self.is_closed = False
        node.rooms.append(self)

    def socket(self, group, hears_all=False, program=b""):
        made = Socket(self.node, program)
        (self.sockets if hears_all else self.ends).append(made)
        return made

    def assign(self, id, namespace):
        assert not self.is_closed
        for number, pod in self.pods.items():
            if pod is namespace.pod:
                return number
        if id in self.pods:
            raise Refused(errno.EEXIST, "", "assign ID to", namespace.path)
        self.pods[id] = namespace.pod
        self._announce(uapi.RTM_NEWNSID, id)
        return id

    def _announce(self, type, id):
        payload = bytes(4) + wire.attribute_u32(uapi.NETNSA_NSID, id)
        for socket in self.ends:
            socket.put(0, wire.message(type, 0, 0, payload))

    def dies(self, dead):
        for id in [id for id, pod in self.pods.items() if pod is dead]:
            del self.pods[id]
            self._announce(uapi.RTM_DELNSID, id)

    def begin_look(self):
        assert not self.is_closed

    def ask(self, request):
        if self.node.looks_fail:
            self.node.looks_fail -= 1
            raise Lost(errno.ENOBUFS, "", request.step, request.object)
        (message,) = build.messages(exchange.Exchange([request], 0, 1).datagram())
        pod = self.pods.get(link.Link(message).attributes.u32(uapi.IFLA_TARGET_NETNSID))
        if pod is not None:
            return pod.change(request)
        reply = exchange.Reply(request)
        reply.error = Refused(errno.EINVAL, "", request.step, request.object)
        return [reply]

    def close(self):
        self.is_closed = True
        self.node.rooms.remove(self)


class Eyes:
    """Stands in for the connection with which a listener looks from its room."""

    def __init__(self, room, allowance):
        self.ask = room.ask
        self.begin_look = room.begin_look

    def close(self):
        pass


class Workers(workers.Workers):
    """Checks that a namespace has one visit at a time."""

    def __init__(self, target):
        super().__init__(target)
        self.ids = []

    def begin(self, task, now):
        assert task.id not in self.ids, "two visits at once"
        self.ids.append(task.id)
        super().begin(task, now)

    def take(self):
        for result in super().take():
            self.ids.remove(result.task.id)
            yield result

    def give_up(self, now):
        found = super().give_up(now)
        for task in found:
            self.ids.remove(task.id)
        return found


class Namespace:
    """Stands in for nlraw.netns.Namespace."""

    def __init__(self, node, path):
        self.path = path
        self.pod = node.pods.get(path)
        if path not in node.pods:
            raise Refused(errno.ENOENT, "", netns.OPEN, path)
        if not isinstance(self.pod, Pod):
            raise BadNamespace("it is no network namespace", netns.OPEN, path)

    def identity(self):
        return self.pod.key

    def enter(self):
        return self

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Poll:
    """Stands in for select.poll: the clock goes on until something can be read."""

    def __init__(self, node):
        self.node = node
        self.sockets = []
        self.files = select.poll()
        self.mounts = None

    def register(self, file, events):
        if events == select.POLLPRI:
            self.mounts = file
        elif isinstance(file, Socket):
            self.sockets.append(file)
        else:
            self.files.register(file.fileno(), events)

    def poll(self, milliseconds):
        node, end = self.node, self.node.now + milliseconds / 1000
        while True:
            node.happen()
            found = [(-2, 1) for socket in self.sockets if socket.is_readable]
            found += self.files.poll(0)
            if self.mounts is not None and node.has_mounted:
                node.has_mounted = False
                found.append((self.mounts, select.POLLPRI))
            if found or node.now >= end:
                node.count_poll()
                return found
            node.pass_until(min(end, node.next_event()))


class Node:
    """All that there is. ``now`` is its clock. ``target`` is the agent's."""

    def __init__(self, target, grace=0.0):
        self.now = 1000.0
        self.target = target
        self.grace = grace
        self.pods = {}  # by path; something else than a Pod is a plain file
        self.dying = []  # pods without a path that are alive
        self.dead_keys = []
        self.rooms = []
        self.agent = None
        self.has_mounted = False
        self.is_unreadable = False
        self.looks_fail = 0
        self.crowded = 0  # threads that cannot be started
        self.stuck = 0  # visits that will not end
        self.has_stuck = False
        self.visit_takes = self.look_takes = 0.0
        self.losing = self.doubling = 0  # events
        self.delay = None  # seconds, number of events
        self.where = None  # events are put ahead of these that wait
        self.wrong = []  # what was deleted and should not have been: workers catch exceptions
        self.deleted = 0
        self.visits = 0
        self.wakes = 0
        self._polls = 0
        self._due = []
        self._counter = itertools.count()
        self._inode = itertools.count(100)
        self._stack = contextlib.ExitStack()

    # ------------------------------------------------------------ time

    def later(self, seconds, function):
        heapq.heappush(self._due, (self.now + seconds, next(self._counter), function))

    def happen(self):
        while self._due and self._due[0][0] <= self.now:
            heapq.heappop(self._due)[2]()

    def next_event(self):
        return self._due[0][0] if self._due else float("inf")

    def pass_until(self, moment):
        if moment > self.now:
            self.now = moment
            self._polls = 0

    def count_poll(self):
        assert not self.wrong, self.wrong
        self.wakes += 1
        self._polls += 1
        assert self._polls < SPIN, "the agent goes round without end"

    # ------------------------------------------------------------ pods

    def add(self, path, has_uplink=True, reuses_key=False):
        """A pod appears at a path. It may get the inode number of a dead one.

        Then its TAPs have other indexes than any before: within a visit, the agent cannot tell
        apart two namespaces that have path, inode, and a TAP's index and count in common.
        """
        if path in self.pods:
            return None
        is_new = not (reuses_key and self.dead_keys)
        if is_new:
            self.dead_keys.append((4, next(self._inode)))
        self.pods[path] = pod = Pod(self, self.dead_keys.pop(), path, has_uplink)
        if not is_new:
            pod.next_index = 100 * next(self._inode)
        self.has_mounted = True
        return self.pods[path]

    def add_file(self, path):
        """A runtime makes the file on which it will mount a namespace."""
        if path not in self.pods:
            self.pods[path] = (4, next(self._inode))

    def mount(self, path):
        """A namespace is mounted on a file, if it still is one."""
        if path in self.pods and not isinstance(self.pods[path], Pod):
            del self.pods[path]
            self.add(path)

    def all_pods(self):
        """The pods that have a path."""
        return [each for _, each in sorted(self.pods.items()) if isinstance(each, Pod)]

    def unpin(self, pod, lingers=0.0):
        """A pod loses its path, and dies, perhaps later."""
        del self.pods[pod.path]
        pod.path = None
        self.has_mounted = True
        self.dying.append(pod)
        self.later(lingers, lambda: self.dies(pod))

    def dies(self, pod):
        pod.is_alive = False
        self.dying.remove(pod)
        self.dead_keys.append(pod.key)
        for room in self.rooms:
            room.dies(pod)

    # ------------------------------------------------------------ events

    def announce(self, pod, type, payload):
        """Put an event into the sockets that hear the pod.

        Returns True if one has got it at once, or if one should be there to get it.
        """
        message, is_heard, is_listened_to = wire.message(type, 0, 0, payload), False, False
        for room in list(self.rooms):
            for id in [id for id, each in room.pods.items() if each is pod]:
                for socket in room.sockets:
                    is_listened_to |= not socket.is_closed
                    if machine.run(socket.program, message) == bpf.PASS:
                        is_heard |= self._deliver(socket, id, message)
        return is_heard or not (is_listened_to or self.may_be_deaf_to(pod))

    def may_be_deaf_to(self, pod):
        """True if the agent need not hear a pod yet, or for a while."""
        muted = [each.key for each in self.agent.agenda.known.values() if each.is_muted]
        return self.now < pod.born + SOON or pod.key in muted

    def _deliver(self, socket, id, message):
        if socket.is_closed:
            return False
        if self.losing:
            self.losing -= 1
            return False
        if self.delay is not None and self.delay[1]:
            self.delay = (self.delay[0], self.delay[1] - 1)
            self.later(self.delay[0], lambda: socket.put(id, message, self.where))
            return False
        socket.put(id, message, self.where)
        if self.doubling:
            self.doubling -= 1
            socket.put(id, message)
        return True

    def excuse(self, pod):
        """Nothing told the agent of a change, and it need not know: of a new pod, say."""
        pod.is_excused = True

    def flood(self, pod, count):
        """The root of a pod causes events about nothing that pass the filter."""
        payload = build.link_payload(99, "tap99_urunc", carrier=0, up_count=1)
        for _ in range(count):
            self.announce(pod, uapi.RTM_NEWLINK, payload)
        pod.is_excused = True  # it may be muted

    def overrun(self, ends=True):
        """The sockets lose what they hold, those for the ends of namespaces too if ``ends``."""
        for room in self.rooms:
            for socket in room.sockets + (room.ends if ends else []):
                socket.queue.clear()
                socket.overrun()
        self.excuse_nobody()

    def excuse_nobody(self):
        """The agent knows that it has to look at everything."""
        for pod in self.all_pods():
            pod.is_excused = False

    def calm(self):
        """Nothing disturbs any more."""
        self.crowded = self.stuck = self.looks_fail = self.losing = self.doubling = 0
        self.visit_takes = self.look_takes = 0.0
        self.delay = self.where = None
        for pod in self.all_pods():
            pod.failing = 0
            pod.meanwhile.clear()

    # ------------------------------------------------------------ visits

    def start_thread(self, function):
        if self.crowded:
            self.crowded -= 1
            raise Refused(errno.EAGAIN, "", "start thread", "")
        if self.stuck:
            self.stuck -= 1
            self.has_stuck = True
            return
        self.later(self.visit_takes, function)

    def start_look(self, function):
        """Start a thread that looks by ID; return a function that waits for it."""
        left = [function]

        def run():
            while left:
                left.pop()()

        if self.crowded:
            raise Refused(errno.EAGAIN, "", "start thread", "")
        self.later(self.look_takes, run)
        return run

    def connect(self, namespace, **options):
        """Stands in for nlraw.connection.Connection."""
        pod = namespace.pod
        if pod.failing:
            pod.failing -= 1
            raise Error("it fails", "list links", "")
        return pod

    def visit(self, path, target, patience, open_namespace):
        """Stands in for nlraw.visit.Visit: makes one."""
        self.visits += 1
        pod = self.pods.get(path)
        if isinstance(pod, Pod):
            pod.visits += 1
            most = known.VISITS + known.VISITS_PER_SECOND * (self.now - pod.born)
            assert pod.visits <= most + 1, "too many visits"
        return _Visit(self, path, target, patience, self.connect, open_namespace)

    def deletes(self, pod, doomed):
        """A visit deletes a link: note it if a cleanup would not, at this moment."""
        facts, why = doomed.facts, []
        used = [each for each in pod.taps if self.target.fits(each.name) and each.facts["carrier"]]
        if not pod.is_alive or pod.path is None:
            why.append("the pod is gone")
        if all(each.name != "eth0" for each in pod.links):
            why.append("it has no uplink")
        if not self.target.fits(doomed.name):
            why.append("it does not match")
        if facts["carrier"]:
            why.append("it is in use")
        elif self.now - doomed.since < self.grace - 1e-6:
            why.append("it has been an orphan for %.3f s" % (self.now - doomed.since))
        if not facts["up_count"] and self.target.spare_fresh:
            why.append("it is fresh")
        if used and not self.target.keep_in_use:
            why.append("another is in use")
        self.wrong += ["%s in %s: %s" % (doomed.name, pod, each) for each in why]
        self.deleted += 1

    def clean_up(self, pod):
        """Somebody else runs a cleanup."""
        with pod.unseen():
            remove(pod, Target(keep_in_use=True))
        pod.owes_redirect = False

    # ------------------------------------------------------------ what is left

    def left(self, pods=None):
        """What a cleanup would remove now, as text: of these pods, or of all."""
        found = []
        for pod in self.all_pods() if pods is None else pods:
            with pod.unseen():
                report = preview(pod, self.target)
            assert report.error is None
            if report.outcome == "would-clean":
                spares = self.target.spare_fresh
                orphans = [tap for tap in report.taps if tap.verdict == "orphan"]
                going = [tap.ifname for tap in orphans if not (tap.fresh and spares)]
                if going or pod.owes_redirect:
                    found.append("%s: %s" % (pod.path, going or "a dead redirect"))
        return found

    # ------------------------------------------------------------ the agent

    def candidates(self, dirs, proc):
        """The paths in the one directory, unless it cannot be read."""
        if self.is_unreadable:
            raise Refused(errno.EMFILE, "", "list namespaces in", "/model")
        return sorted(self.pods)

    def patched(self):
        """Have the agent live here. A context manager."""
        clock = types.SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now + 1.7e9)
        paths = types.SimpleNamespace(
            candidates=self.candidates,
            identified=lambda found, own: [(path, _key(self.pods[path])) for path in found],
        )
        polls = types.SimpleNamespace(
            poll=lambda: Poll(self), POLLIN=select.POLLIN, POLLPRI=select.POLLPRI
        )
        patches = {
            agent: {"time": clock, "select": polls, "Workers": Workers},
            discovery: {"time": clock, "node": paths},
            listener: {
                "Room": functools.partial(Room, self),
                "Namespace": functools.partial(Namespace, self),
                "Connection": Eyes,
            },
            looker: {"threads": types.SimpleNamespace(start=self.start_look)},
            workers: {
                "threads": types.SimpleNamespace(start=self.start_thread),
                "SYSTEM": types.SimpleNamespace(thread_time=lambda: 0.0),
                "Visit": self.visit,
            },
        }
        for module, numbers in NUMBERS.items():
            patches.setdefault(module, {}).update(numbers)
        stack = contextlib.ExitStack()
        for module, names in patches.items():
            stack.enter_context(mock.patch.multiple(module, **names))
        return stack


def _key(pod):
    return pod.key if isinstance(pod, Pod) else pod


class _Visit(Visit):
    """A visit, during which the pod is marked as visited."""

    __slots__ = ("node", "pod")

    def __init__(self, node, path, target, patience, connect, open_namespace):
        super().__init__(path, target, patience, connect, open_namespace)
        self.node = node
        self.pod = None

    def look(self, dry_run):
        found = self.node.pods.get(self.path)
        self.pod = found if isinstance(found, Pod) else None
        self._run(lambda: super(_Visit, self).look(dry_run))

    def clean_up(self):
        self._run(super().clean_up)
        if self.pod is not None:
            self.pod.owes_redirect = any(0 in each.targets for each in self.pod.filters)

    def _run(self, act):
        if self.pod is not None:
            self.pod.is_visited = True
        try:
            act()
        finally:
            if self.pod is not None:
                self.pod.is_visited = False

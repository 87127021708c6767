# SPDX-License-Identifier: Apache-2.0
"""Rounds of attach, release, recreate and rename around a running cleanup or sweep.

A TAP that was in use, or another's, when it was last looked at is never deleted. What can be lost
is what changes between that look and the delete: the README names that window; here is how long it
is, and how often it was hit by rivals that aim at it. lib/nics.py has rounds on several NICs.
"""

import collections
import concurrent.futures
import contextlib
import os
import random
import socket
import statistics
import struct
import tempfile
import threading
import time

import nlraw
from lib import nodes, pods
from lib.rivals import Rival
from nlraw import link, uapi
from nlraw.connection import Connection
from nlraw.netns import Namespace

SEED = 20
KINDS = ("attach", "release", "recreate", "reuse", "rename")

# Processes that play at once, each in pods of its own. A round mostly waits for the kernel.
JOBS = int(os.environ.get("NLRAW_JOBS", "4"))

# Namespaces of a sweep.
NAMESPACES = 8

# What the first rival did: to which TAP, when it began, when it was done, whether its TAP is there.
Act = collections.namedtuple("Act", "kind tap began done there")

# Of one datagram with deletions: when the last look at the links before it was asked for and
# answered; when the last look that TC events count for was asked for; when the datagram was sent,
# and answered; whether links are deleted in it.
Delete = collections.namedtuple("Delete", "asked answered confirmed sent ended has_links")


class Times:
    """For each namespace its deletions, and when it was looked at right before each."""

    def __init__(self):
        self.looked, self.confirmed, self.is_marked = {}, {}, {}
        self.deletes = collections.defaultdict(list)
        self._real = Connection.change

    def __enter__(self):
        real, times = self._real, self

        def change(connection, *requests):
            began = time.monotonic()
            replies = real(connection, *requests)
            times.note(connection.path, requests, began)
            return replies

        Connection.change = change
        return self

    def __exit__(self, *_):
        Connection.change = self._real

    def note(self, path, requests, began):
        steps = [request.step for request in requests]
        if any(step.startswith("delete") for step in steps):
            has_links = any(step.startswith("delete link") for step in steps)
            looked = self.looked[path] + (self.confirmed[path],)
            self.deletes[path].append(Delete(*looked, began, time.monotonic(), has_links))
        elif steps[0] == "list links":
            self.looked[path] = (began, time.monotonic())
            if not self.is_marked.get(path):  # after the marks TC events do not count
                self.confirmed[path] = began
        if steps[0] != "list links" or self.is_marked.get(path):
            self.is_marked[path] = steps[0].startswith("set group")


class Listener:
    """When the kernel last announced that a qdisc is gone: a TAP's goes right before its link."""

    def __init__(self, namespace):
        self.last = 0.0
        self._over = False
        self._socket = namespace.run(
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        )
        self._socket.bind((0, 8))  # RTNLGRP_TC
        self._socket.settimeout(0.2)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self):
        while not self._over:
            with contextlib.suppress(OSError):  # nothing for a while, or too much at once
                datagram = self._socket.recv(65536)
                if struct.unpack_from("=H", datagram, 4)[0] == uapi.RTM_DELQDISC:
                    self.last = time.monotonic()

    def close(self):
        self._over = True
        self._thread.join()
        self._socket.close()


# ---------------------------------------------------------------- one pod


class Outcome:
    """What came of rounds: counts, spans of time by case, and what was wrong."""

    def __init__(self):
        self.rounds = 0
        self.counts = collections.Counter()
        self.wrong = []
        self.sent, self.carried, self.lost = [collections.defaultdict(list) for _ in range(3)]
        self.unseen = collections.defaultdict(list)

    def add(self, other):
        self.rounds += other.rounds
        self.counts.update(other.counts)
        self.wrong += other.wrong
        for name in ("unseen", "sent", "carried", "lost"):
            for case, spans in getattr(other, name).items():
                getattr(self, name)[case] += spans


class Ground:
    """A pod in which rounds are played, the orphans in it, and what came of the rounds.

    ``path`` is the one by which it is cleaned up.
    """

    uplinks = ("eth0",)

    def __init__(self, pod, times, chance, path=None):
        self.pod, self.times, self.chance = pod, times, chance
        self.path = path or pod.path
        self.rival = Rival(pod, "play_taps")
        self.namespace = Namespace(pod.path)
        self.connection = Connection(self.namespace)
        self.listener = Listener(self.namespace)
        self.outcome = Outcome()
        self.report = None
        # seconds from the beginning of a cleanup to its delete, in the last rounds
        self._leads = collections.deque([0.001], 30)
        self._began = 0.0

    def furnish(self):
        """Have orphans; return their names."""
        size, is_redirected = self.chance.choice(((1, False), (1, False), (1, True), (4, True)))
        words = "%d orphan%s, %s redirects"
        self.case = words % (size, "s" * (size > 1), "with" if is_redirected else "without")
        if is_redirected:
            nlraw.setup(netns=self.pod.path)
        names = ["tap%d_urunc" % each for each in range(size)]
        self.add_orphans(names)
        return names

    def add_orphans(self, names):
        """Make those TAPs that are not there."""
        for name in names:
            (reply,) = self.connection.ask(link.find(name))
            if reply.error is not None:
                nodes.add_orphans(self.namespace, [name], fresh=True)

    def begin(self, kind):
        """Have the rival take its place; return how long to wait before the cleanup."""
        names = self.furnish()
        self.times.deletes.pop(self.path, None)
        theirs, ours = self.delays(kind)
        self.rival.begin(kind, self.chance.choice(names), theirs)
        return ours

    def delays(self, kind):
        """How long the rival and the cleanup wait, so that they meet before the delete.

        A rival's own delete takes long, so it begins well ahead.
        """
        if kind in ("recreate", "reuse"):
            return self.chance.uniform(0, 0.002), self.chance.uniform(0, 0.03)
        ours = self.chance.uniform(0, 0.001)
        return ours + self.chance.uniform(0, 1.3 * self.lead()), ours

    def lead(self):
        return statistics.median(self._leads)

    def wait_until_set(self):
        self.rival.wait_until_set()

    def clean_up(self):
        """Run a cleanup; it may report what `is_expected`."""
        uplink = self.chance.choice(("eth0", self.uplinks))
        keep_in_use = self.chance.random() < 0.5
        self.start()
        try:
            report = nlraw.cleanup(netns=self.pod.path, uplink=uplink, keep_in_use=keep_in_use)
        except nlraw.Error as error:
            report = error.report
        self.end(report)

    def start(self):
        """Note that a cleanup or a sweep begins."""
        self._began = time.monotonic()

    def end(self, report):
        """Note how it ended, and what came of the round."""
        self.report = report
        act = Act(*self.rival.end())
        deletes = self.times.deletes.pop(self.path, [])
        self.judge(act, deletes)
        for delete in deletes:
            if not delete.has_links:
                continue
            self._leads.append(delete.sent - self._began)
            self.outcome.unseen[self.case].append(delete.sent - delete.confirmed)
            self.outcome.sent[self.case].append(delete.sent - delete.answered)
            if delete.sent < self.listener.last < delete.ended:
                self.outcome.carried[self.case].append(self.listener.last - delete.answered)
        self.outcome.rounds += 1

    def judge(self, act, deletes):
        """Note what became of the act and of what was acted on."""
        self.outcome.counts[act.kind, self.judge_act(act, deletes)] += 1
        error = self.report.error
        if error is not None and not is_expected(error):
            self.is_wrong("an error", error.step, error, act)
        if self.report.outcome == "in-use" and deletes:
            self.is_wrong("something was removed although a TAP is in use", act, deletes)

    def judge_act(self, act, deletes):
        """What became of an act: nothing was lost, or it was in the window. Else it is wrong."""
        deletes = [each for each in deletes if each.has_links]
        if act.kind == "release":
            if act.there:
                return "kept"
            # when it was looked at it was held
            if not any(delete.answered >= act.began for delete in deletes):
                return self.is_wrong("a TAP in use was deleted", act, deletes)
            return "gone after it"
        if not act.done:
            return "too late"
        if act.there:
            return "kept"
        excuses = [each for each in deletes if each.asked < act.done and act.began < each.ended]
        # one that was recreated has another index, and so cannot be meant
        if not excuses or act.kind == "recreate":
            return self.is_wrong("a TAP was deleted that had changed", act, deletes)
        answered = excuses[-1].answered
        self.outcome.lost[self.case].append((act.began - answered, act.done - answered))
        return "lost in the window"

    def is_wrong(self, what, *evidence):
        self.outcome.wrong.append("%s: %s" % (what, evidence))
        return "WRONG"

    def finish(self):
        """Look at the pod after the last round."""

    def close(self):
        self.listener.close()
        self.connection.close()
        self.namespace.close()


def is_expected(error):
    """True for what a cleanup may say of a namespace that others change all the time."""
    if isinstance(error, (nlraw.TapInUse, nlraw.DumpInterrupted)):
        return True
    if error.message.startswith("came into use ("):
        return "after something was removed" in error.message
    return error.message == "the namespace changed each time it was looked at; try again"


# ---------------------------------------------------------------- many rounds


def around_cleanups(make, rounds, seed):
    """Play rounds around cleanups in one pod; ``make`` makes a Ground."""
    with contextlib.ExitStack() as stack:
        times, pod = stack.enter_context(Times()), stack.enter_context(pods.Pod())
        ground = stack.enter_context(contextlib.closing(make(pod, times, random.Random(seed))))
        for number in range(rounds):
            ours = ground.begin(KINDS[number % len(KINDS)])
            ground.wait_until_set()
            time.sleep(ours)
            ground.clean_up()
        ground.finish()
        return ground.outcome


def around_sweeps(make, rounds, seed):
    """Play rounds around sweeps of `NAMESPACES` pods: so many rounds in all of them."""
    with contextlib.ExitStack() as stack:
        times = stack.enter_context(Times())
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        grounds = []
        for number in range(NAMESPACES):
            path = os.path.join(directory, "pod%d" % number)
            pod = stack.enter_context(pods.Pod())
            ground = make(pod, times, random.Random("%s %d" % (seed, number)), path)
            grounds.append(stack.enter_context(contextlib.closing(ground)))
            os.symlink(pod.path, path)
        for number in range(rounds // NAMESPACES):
            waits = [ground.begin(KINDS[number % len(KINDS)]) for ground in grounds]
            for ground in grounds:
                ground.wait_until_set()
            time.sleep(waits[0])
            for ground in grounds:
                ground.start()
            swept = nlraw.sweep(
                dirs=[directory],
                uplink=make.uplinks,
                include_fresh=True,
                keep_in_use=bool(number % 2),
            )
            reports = {report.netns: report for report in swept.namespaces}
            for ground in grounds:
                ground.end(reports[ground.path])
        whole = Outcome()
        for ground in grounds:
            ground.finish()
            whole.add(ground.outcome)
        return whole


def play(what, around, make, rounds, jobs=JOBS):
    """Play rounds in so many processes, print what came of them, and make sure nothing was wrong.

    ``around`` is one of the two functions above.
    """
    began = time.monotonic()
    whole = Outcome()
    if jobs == 1:
        whole.add(around(make, rounds, SEED))
    else:
        with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
            seeds = range(SEED, SEED + jobs)
            shares = [rounds // jobs + (each < rounds % jobs) for each in range(jobs)]
            for outcome in pool.map(around, [make] * jobs, shares, seeds):
                whole.add(outcome)
    print(table(what, whole, time.monotonic() - began))
    assert whole.wrong == []
    assert all(whole.counts[kind, "kept"] for kind in KINDS)
    assert whole.counts["release", "gone after it"]


def spread(seconds):
    """Some percentiles, in milliseconds."""
    ordered = sorted(seconds)
    marks = [("median", 0.5), ("90 %", 0.9), ("99 %", 0.99), ("99.9 %", 0.999)]
    found = [
        "%s %.3f" % (mark, ordered[int(part * (len(ordered) - 1))] * 1000) for mark, part in marks
    ]
    most = "most %.3f ms" % (ordered[-1] * 1000)
    return "%d times, %s" % (len(ordered), ", ".join(found + [most]))


SPANS = (
    ("sent", "the sending of the delete"),
    (
        "carried",
        "the kernel's word that the TAP's qdisc is gone, which comes right before the link",
    ),
    ("lost", "its end"),
)


def table(what, outcome, seconds):
    """What came of the rounds, for people."""
    lines = ["", "%s: %d rounds in %d s" % (what, outcome.rounds, seconds)]
    acts = list(dict.fromkeys(list(KINDS) + sorted(act for act, _ in outcome.counts)))
    width = max(map(len, acts))
    for act in acts:
        ends = sorted((end, count) for (kind, end), count in outcome.counts.items() if kind == act)
        total = sum(count for _, count in ends)
        words = ", ".join("%d %s" % (count, end) for end, count in ends)
        lines.append("  %-*s %6d: %s" % (width, act, total, words))
    for case in sorted(outcome.sent):
        lines.append("  %s" % case)
        unseen = spread(outcome.unseen[case])
        lines.append(
            "    from the request in whose answer a TC event counts, to the sending: " + unseen
        )
        lines.append("    from the answer to the last look")
        for name, until in SPANS:
            spans = getattr(outcome, name)[case]
            if name == "lost" and spans:
                began = spread([began for began, _ in spans])
                lines.append("      to the beginning of an act that was lost: %s" % began)
                spans = [ended for _, ended in spans]
            if spans:
                lines.append("      to %s: %s" % (until, spread(spans)))
    lines.append("  wrong: %d" % len(outcome.wrong))
    return "\n".join(lines + outcome.wrong[:20])

# SPDX-License-Identifier: Apache-2.0
"""Command lines on pods, a fault put into each, and what must come of it.

A run ends in time, with the right exit status, and never in a traceback. It leaves the namespace as
it was, or finished, or so that the next run finishes it: in the end all is as if no orphan had been
there, and nothing of anybody else was touched.
"""

import collections
import compileall
import concurrent.futures
import contextlib
import errno
import os
import re
import time

import pytest

import nlraw
from lib import command, inject, pods
from lib.oci import Bundle
from nlraw import marks, oci
from nlraw.errors import GONE

TAP = pods.TAP

# What a message may begin with behind "nlraw: " and a namespace: the step that failed.
STEPS = "|".join(
    (
        "open namespace ",
        "enter namespace[ :]",
        "start thread: ",
        "look up link ",
        "list ",
        "read link ",
        "read root table ",
        "receive events ",
        "set group of link ",
        "delete ",
        "clean up ",
        "open /dev/net/tun",
        "create TAP ",
        "set owner ",
        "set group ",
        "set up ",
        "create qdisc ",
        "create redirect ",
        "persist TAP ",
        "put address on ",
        oci.READ_STATE,
        oci.READ_CONFIG,
        "look at ",
        "find process ",
        "run the command: ",
        "the result could not be written: ",
    )
)


def prepare():
    """Skip the test if nothing can be injected here; else see to it that all runs are alike.

    The first run must not meet the calls that write bytecode caches, which no later one does.
    """
    reason = pods.missing() or inject.missing()
    if reason is not None:
        pytest.skip("needs to trace in a namespace of its own: " + reason)
    compileall.compile_dir(os.path.dirname(nlraw.__file__), quiet=1)


class Play:
    """A command line on pods, and what has to come of it; ``arguments`` is the command line.

    ``stdin`` is what it reads. ``prepare`` puts the pods into the state that the command meets,
    from clean or from what the last run left.
    """

    # What is imported ahead, so that the faults strike what a command does and not its imports.
    modules = ("pod", "provision", "node", "hook")
    # Exit status 3 is right only where a TAP is in use.
    refusals = (1,)
    # What the system may say of a namespace that the command then has nothing to do with,
    # successfully.
    ignores = ()

    def __init__(self, make_pod, directory):
        self.pods = []
        self.arguments, self.stdin = (), b""
        self.furnish(make_pod, directory)
        self.clean = [pod.state() for pod in self.pods]

    @property
    def line(self):
        return inject.Line(self.arguments, self.stdin, self.modules)

    def furnish(self, make_pod, directory):
        raise NotImplementedError

    def prepare(self):
        raise NotImplementedError

    def states(self):
        return [pod.state() for pod in self.pods]

    def is_finished(self, after):
        return after == self.clean

    def says_done(self, ended):
        """True if a run with the usual exit status says that all is done."""
        return True

    def check_left(self, killed, after):
        """Make sure that a run which ended early left nothing worse than it may.

        ``killed``: without time to undo anything.
        """

    def finish(self):
        """Run the command again, undisturbed: it has to come through, and all is finished.

        Then make it clean.
        """
        assert command.nlraw(*self.arguments, stdin=self.stdin or None).status == 0
        assert self.is_finished(self.states())
        self.reset()

    def reset(self):
        pass


def furnished(make_pod, filter=True):
    """A pod with what must survive.

    A filter of somebody else on the uplink, a TAP in use that is none of ours, an idle one.
    """
    pod = make_pod()
    if filter:
        pod.tc("qdisc", "add", "dev", "eth0", "ingress")
        pod.tc(
            *"filter add dev eth0 ingress pref 7 protocol ip u32 match ip dport 22 0xffff flowid "
            "1:7".split()
        )
    pod.add_tap("vm0", redirect=False)
    pod.hold("vm0")
    pod.add_tap("tap0_other", redirect=False)
    return pod


SSH = "pref 7 protocol ip u32 match ip dport 22 0xffff flowid 1:7"
REDIRECT = "protocol all u32 match u32 0 0 action mirred egress redirect dev %s"


def tc_batch(pod, *lines):
    """Many `tc` commands in one process."""
    command.run("tc", "-n", pod.name, "-batch", "-", input="\n".join(lines) + "\n")


def add_orphans(pod, *names):
    """Make TAPs that nobody holds, the first one with its redirects."""
    pod.add_orphan(names[0])
    pod.add_taps(names[1:])


class Scan(Play):
    """`scan` of an orphan."""

    def furnish(self, make_pod, directory):
        pod = furnished(make_pod)
        add_orphans(pod, TAP)
        self.pods, self.arguments = [pod], ("scan", "-n", pod.path)

    def prepare(self):
        assert self.states() == self.clean


class CleanupOfOne(Play):
    """`cleanup` of one orphan."""

    names = (TAP,)
    filter = True

    def furnish(self, make_pod, directory):
        pod = furnished(make_pod, self.filter)
        self.pods, self.arguments = [pod], ("cleanup", "-n", pod.path)

    def prepare(self):
        add_orphans(self.pods[0], *self.names)


class CleanupWithImports(CleanupOfOne):
    """`cleanup` of one orphan, from the first import of the command on."""

    modules = ()


class CleanupOfMany(CleanupOfOne):
    """`cleanup` of four orphans, as a group."""

    names = tuple("tap%d_urunc" % number for number in range(4))
    filter = False


class CleanupBesideUse(CleanupOfOne):
    """`cleanup` of an orphan beside a TAP in use: exit status 3, and nothing changed."""

    refusals = (1, 3)

    def furnish(self, make_pod, directory):
        CleanupOfOne.furnish(self, make_pod, directory)
        add_orphans(self.pods[0], *self.names)
        self.pods[0].add_tap("tap9_urunc", redirect=False)
        self.pods[0].hold("tap9_urunc")

    def prepare(self):
        assert self.states() == self.clean

    def finish(self):
        raise AssertionError("something was changed")


class CleanupWaiting(CleanupBesideUse):
    """`cleanup --wait` beside a TAP that stays in use."""

    def furnish(self, make_pod, directory):
        CleanupBesideUse.furnish(self, make_pod, directory)
        self.arguments += ("--wait", "0.5")


class CleanupOfNics(CleanupOfOne):
    """`cleanup` of a VM with three NICs, as a group: a clsact, a shared block and a chain.

    The redirect in the chain goes first. Beside them there is a dead redirect.
    """

    taps = ("tap0_urunc", "tap1_urunc", "tap2_urunc")

    def furnish(self, make_pod, directory):
        pod = make_pod()
        pod.batch(*["link add net%d type veth peer name peer%d" % (n, n) for n in (1, 2, 3)])
        tc_batch(
            pod,
            "qdisc add dev eth0 clsact",
            "qdisc add dev net1 ingress_block 22 ingress",
            "qdisc add dev net2 ingress_block 22 ingress",
            "filter add dev eth0 ingress " + SSH,
            "filter add dev eth0 egress " + SSH,
            "filter add block 22 " + SSH,
        )
        self.pods = [pod]
        self.arguments = ("cleanup", "-n", pod.path)
        for uplink in ("eth0", "net1", "net3"):
            self.arguments += ("--uplink", uplink)

    def prepare(self):
        pod = self.pods[0]
        pod.add_taps(self.taps + ("gone0",))
        tc_batch(
            pod,
            "qdisc add dev net3 ingress",
            "qdisc add dev tap0_urunc ingress",
            "filter add dev eth0 ingress " + REDIRECT % "tap0_urunc",
            "filter add dev eth0 ingress " + REDIRECT % "gone0",
            "filter add dev tap0_urunc ingress " + REDIRECT % "eth0",
            "filter add block 22 " + REDIRECT % "tap1_urunc",
            "filter add dev net3 ingress " + REDIRECT % "tap2_urunc",
            "filter add dev net3 ingress chain 5 " + REDIRECT % "tap2_urunc",
        )
        pod.ip("link", "del", "gone0")


class CleanupBesideKept(CleanupOfOne):
    """`cleanup --keep-in-use` of an orphan beside a TAP in use that still has a mark."""

    def furnish(self, make_pod, directory):
        CleanupOfOne.furnish(self, make_pod, directory)
        self.pods[0].add_tap("tap9_urunc", redirect=False)
        self.pods[0].hold("tap9_urunc")
        self.arguments += ("--keep-in-use",)

    def prepare(self):
        CleanupOfOne.prepare(self)
        self.pods[0].ip("link", "set", "tap9_urunc", "group", str(marks.MARK | 0x1234))


class Hook(CleanupOfOne):
    """`hook` of a stopped container of a pod, whose namespace its config names by a process."""

    def furnish(self, make_pod, directory):
        CleanupOfOne.furnish(self, make_pod, directory)
        bundle = Bundle(str(directory))
        process = self.pods[0].child()
        time.sleep(0.1)  # the process must be older than the config, by the clocks' granularity
        bundle.network("/proc/%d/ns/net" % process.pid)
        self.arguments = ("hook", "--annotation", "role=v*")
        self.stdin = bundle.state("stopped", annotations={"role": "vm"})

    def says_done(self, ended):
        # in doubt it does nothing, and prints why
        return "nothing to do" not in ended.out + ended.err


class Setup(Play):
    """`setup` from nothing."""

    modules = Play.modules + ("uplinks", "wanted")
    filter = False
    pairs = ((TAP, "eth0"),)
    options = ()
    old = ()

    def furnish(self, make_pod, directory):
        pod = furnished(make_pod, self.filter)
        self.pods, self.arguments = [pod], ("setup", "-n", pod.path) + self.options

    def prepare(self):
        assert self.states() == self.clean

    def is_finished(self, after):
        return all(self.is_whole(*pair) for pair in self.pairs)

    def is_new(self, tap):
        found = self.pods[0].links().get(tap)
        return found is not None and found["ifindex"] not in self.old

    def is_whole(self, tap, uplink):
        pod = self.pods[0]
        if not self.is_new(tap):
            return False
        found = pod.links()[tap]
        return (
            "UP" in found["flags"]
            and found["linkinfo"]["info_data"]["persist"]
            and (uplink is None or pod.redirects(uplink, tap) == pod.redirects(tap, uplink) == 1)
        )

    def check_left(self, killed, after):
        if not self.is_finished(after):
            # the kernel takes away what is not persistent yet, and that comes last: of several
            # TAPs the first ones may be left whole; with time to undo all goes
            new = [self.is_new(tap) for tap, _ in self.pairs]
            assert new == [self.is_whole(*pair) for pair in self.pairs]
            assert new == sorted(new, reverse=True)
            assert killed or after == self.clean

    def reset(self):
        nlraw.cleanup(
            netns=self.pods[0].path,
            uplink=[uplink for _, uplink in self.pairs if uplink] or "none",
        )
        assert self.states() == self.clean


class SetupOverOrphan(Setup):
    """`setup` where a dead VM left its TAP."""

    filter = True

    def prepare(self):
        names = [tap for tap, _ in self.pairs]
        add_orphans(self.pods[0], *names)
        links = self.pods[0].links()
        self.old = [links[name]["ifindex"] for name in names]


class SetupOfNics(Setup):
    """`setup` of two NICs from nothing."""

    pairs = ((TAP, "eth0"), ("tap1_urunc", "net1"))
    options = ("-u", "eth0", "-u", "net1")

    def furnish(self, make_pod, directory):
        Setup.furnish(self, make_pod, directory)
        pod = self.pods[0]
        pod.ip(*"link add net1 type veth peer name peer1".split())
        tc_batch(pod, "qdisc add dev net1 clsact", "filter add dev net1 ingress " + SSH)


class SetupOfNicsOverOrphans(SetupOfNics):
    """`setup` of two NICs where a dead VM left its TAPs."""

    prepare = SetupOverOrphan.prepare


class SetupAlone(Setup):
    """`setup` of a TAP with several queues and without an uplink."""

    pairs = ((TAP, None),)
    options = ("-u", "none", "--multi-queue", "--address", "172.16.1.1/30")


class Sweep(Play):
    """`sweep` of three namespaces: one orphan, four, and one beside a TAP in use."""

    ignores = tuple(errno.errorcode[number] for number in GONE)

    def furnish(self, make_pod, directory):
        self.pods = [furnished(make_pod), make_pod(), make_pod()]
        add_orphans(self.pods[2], TAP)
        self.pods[2].add_tap("tap9_urunc", redirect=False)
        self.pods[2].hold("tap9_urunc")
        for number, pod in enumerate(self.pods):
            os.symlink(pod.path, str(directory / ("pod%d" % number)))
        # one job: the calls of several threads would be struck together
        self.arguments = ("sweep", "--include-fresh", "--jobs", "1", "--dir", str(directory))

    def prepare(self):
        for pod, names in zip(self.pods, (CleanupOfOne.names, CleanupOfMany.names)):
            if TAP not in pod.links():
                add_orphans(pod, *names)


PLAYS = [
    Scan,
    CleanupOfOne,
    CleanupWithImports,
    CleanupOfMany,
    CleanupBesideUse,
    CleanupWaiting,
    CleanupOfNics,
    CleanupBesideKept,
    Hook,
    Setup,
    SetupOverOrphan,
    SetupOfNics,
    SetupOfNicsOverOrphans,
    SetupAlone,
    Sweep,
]


def kind_of(fault):
    return (
        "signal" if fault.kind in ("INT", "TERM") else "KILL" if fault.kind == "KILL" else "error"
    )


def check_end(play, fault, ended, usual):
    """Make sure of the exit status and the words; ``fault`` is None where it was not met."""
    # the interpreter reports a thread that gets no memory in words of its own
    err = re.sub(
        "^Exception ignored in thread started by.*\n(MemoryError.*\n)?",
        "",
        ended.err,
        flags=re.MULTILINE,
    )
    assert not re.search("Traceback|Exception ignored|Fatal Python error", err), ended
    if fault is None:
        assert ended.status == usual.status, ended
    elif command.was_aborted(ended.status, ended.err):
        return
    elif fault.kind == "KILL":
        assert ended.status == -9, ended
    elif fault.kind == "TERM":
        assert ended.status in (-15, usual.status), ended
    elif fault.kind == "INT":
        # once the interpreter is on its way out it dies of the signal
        assert ended.status in (130, -2, usual.status), ended
    else:
        assert ended.status in (usual.status,) + play.refusals, ended
    assert all(line.startswith("nlraw: ") for line in err.splitlines()), ended
    if ended.status == 1:
        assert re.search("^nlraw: (container t1: )?(/[^ ]*: )?(%s)" % STEPS, err, re.MULTILINE), (
            ended
        )


def run_everywhere(play, directory, jobs):
    """Put every fault into a run, each in one of so many processes; return the same as `run`.

    ``play`` is a class, which each process plays in pods of its own.
    """
    counts, wrong = collections.Counter(), []
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        shares = [(play, directory / str(share), share, jobs) for share in range(jobs)]
        for found in pool.map(_run_share, shares):
            counts.update(found[0])
            wrong += found[1]
    return counts, wrong


def _run_share(given):
    play, directory, share, jobs = given
    (directory / "netns").mkdir(parents=True)
    with contextlib.ExitStack() as stack:

        def make_pod():
            return stack.enter_context(pods.Pod())

        made = play(make_pod, directory / "netns")
        return run(made, directory / "log", lambda every: every[share::jobs])


def run(play, log, chosen):
    """Put each of the faults into a run; return what came of them, and what was wrong with it."""
    counts, wrong = collections.Counter(), []
    play.prepare()
    usual, calls = inject.record(log, play.line)
    if not play.is_finished(play.states()):
        wrong.append("undisturbed: %s" % (usual,))
    play.reset()
    fresh = False
    for fault in chosen(inject.faults(calls)):
        if not fresh:
            play.prepare()
            before = play.states()
        ended, struck = inject.strike(log, fault, play.line)
        after = play.states()
        fresh = after == before
        came = (
            "untouched"
            if fresh
            else "finished"
            if play.is_finished(after)
            else "finished by the next run"
        )
        if not struck:
            came = "not met"
        counts[fault.call.name, kind_of(fault), came] += 1
        try:
            check_end(play, fault if struck else None, ended, usual)
            is_done = play.says_done(ended) and fault.kind not in play.ignores
            if ended.status == usual.status == 0 and is_done:
                assert play.is_finished(after), "it says that all is done"
            if not fresh:
                play.check_left(ended.status < 0, after)
            if not fresh and play.is_finished(after):
                play.reset()
            elif not fresh:
                play.finish()
        except AssertionError as error:
            wrong.append(
                "%s %d %s: %s" % (fault.call.name, fault.call.number, fault.kind, str(error)[:600])
            )
            if not fresh:
                play.finish()
    return counts, wrong

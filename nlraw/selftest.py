# SPDX-License-Identifier: Apache-2.0
"""The story that nlraw is about, played in a throwaway namespace, to see what this host can do.

A pod is built as a runtime builds it; a process holds the TAP in the VMM's place, is killed, and leaves an orphan. Nothing
outside the namespace is touched, and it vanishes with the descriptor that holds it.

Root may make a network namespace on any thread. Any other user needs a user namespace first, which only a process with one
thread can enter: the story is then played by a child of its own.
"""

import errno
import os
import subprocess
import sys
import time
from contextlib import ExitStack

from . import link, netns, orphans, tap, tc, uapi
from .errors import Error, Refused, TapInUse
from .exchange import Request
from .report import Record, Report
from .route import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

    Seen = Sequence[str]

_TAP, _UPLINK, _PEER = orphans.TAP, orphans.UPLINK, "peer0"

_FEATURES = ("kernel filter", "extended ACK", "carrier counters", "tun", "ingress", "mirred")

# A process that does nothing but hold the descriptor it inherited.
_HOLDER = "import signal; signal.pause()"

# The story again, in the child of an ordinary user: from the same files, under the same package name.
_CHILD = """import sys
from importlib import import_module
root, package = sys.argv[1:3]
sys.path.insert(0, root)
sys.exit(import_module(package + ".cli").selftest_in_user_namespace(sys.argv[3:]))
"""


class Step(Record):
    """One step: what was tried; whether it went well, None where that is only reported; how long it took; what was seen; and
    the remedy for a failure. A step that was not run, because one before it failed, is not ok and has no remedy."""

    __slots__ = ("step", "ok", "seconds", "seen", "remedy")

    if TYPE_CHECKING:
        step: str
        ok: Optional[bool]
        seconds: float
        seen: Tuple[str, ...]
        remedy: Optional[str]


class _Failed(Exception):
    """A step ran and did not show what it should."""


def needs_user_namespace() -> bool:
    """Whether the caller may not make a network namespace as he is."""
    try:
        netns.create().close()
    except Refused as error:
        return error.errno == errno.EPERM
    except Error:  # the story tells what is missing
        return False
    return False


def play_in_child(arguments: "Sequence[str]") -> int:
    """Run the child that enters a user namespace and plays the story there; return its exit status."""
    package = __name__.rpartition(".")[0]
    root = os.path.abspath(__file__)
    for _ in range(package.count(".") + 2):
        root = os.path.dirname(root)
    return subprocess.call([_python(), "-I", "-c", _CHILD, root, package] + list(arguments))


def _python() -> str:
    return sys.executable or "/proc/self/exe"  # empty where the interpreter was called by a bare name without PATH


def play(own_user_namespace: bool = False) -> "Iterator[Step]":
    """Play the story and yield each step as it is done. What follows a failed step is not run, and is told as failed too."""
    with ExitStack() as stack:
        story = _Story(stack)
        steps = ([(story.enter_user_namespace, "enter a user namespace", _USERNS)] if own_user_namespace else []) + story.steps()
        failed = False
        for act, name, remedy in steps:
            if failed:
                yield Step(step=name, ok=False, seconds=0.0, seen=(), remedy=None)
                continue
            began = time.perf_counter()
            try:
                seen = tuple(act())
            except (Error, OSError, _Failed) as error:
                seen, failed = (str(error),), True
            yield Step(
                step=name,
                ok=not failed,
                seconds=time.perf_counter() - began,
                seen=seen,
                remedy=remedy if failed else None,
            )
        yield Step(step="kernel features", ok=None, seconds=0.0, seen=story.features(), remedy=None)


_USERNS = (
    "run it as root, or allow user and network namespaces (the sysctls user.max_user_namespaces, "
    "user.max_net_namespaces and kernel.unprivileged_userns_clone)"
)
_REPORT = "this is no lack of the host's: please report it, with this output"


class _Story:
    """The acts in their order, and what they hand on to each other."""

    if TYPE_CHECKING:
        namespace: netns.Namespace
        route: Route
        holder: "subprocess.Popen[bytes]"

    def __init__(self, stack: "ExitStack") -> None:
        self.stack = stack
        self.ifindex: Dict[str, int] = {}
        self.has = dict.fromkeys(_FEATURES, False)

    def steps(self) -> "List[Tuple[Callable[[], Seen], str, Optional[str]]]":
        """Each act, its name, and the remedy where it fails."""
        return [
            (self.make_namespace, "make a network namespace", _USERNS),
            (self.create_uplink, "create an uplink (veth)", "load the module veth, or enable CONFIG_VETH"),
            (
                self.create_tap,
                "create a persistent TAP (tun)",
                "load the module tun, or enable CONFIG_TUN; /dev/net/tun (mknod /dev/net/tun c 10 200) must be open to this user",
            ),
            (self.add_ingress, "put an ingress qdisc on both (ingress)", "enable CONFIG_NET_SCH_INGRESS"),
            (
                self.add_redirects,
                "redirect each to the other (u32, mirred)",
                "enable CONFIG_NET_CLS_U32, CONFIG_NET_CLS_ACT and CONFIG_NET_ACT_MIRRED",
            ),
            (self.hold, "hold the TAP, as a VMM does", _REPORT),
            (self.refuse, "a cleanup is refused and changes nothing", _REPORT),
            (self.kill, "kill the holder: an orphan is left", _REPORT),
            (self.clean_up, "clean up", _REPORT),
            (self.find_nothing, "a second cleanup finds nothing", _REPORT),
        ]

    def enter_user_namespace(self) -> "Seen":
        uid, gid = os.geteuid(), os.getegid()
        netns.unshare(uapi.CLONE_NEWUSER | uapi.CLONE_NEWNET)
        for name, text in (("setgroups", "deny"), ("uid_map", "%d %d 1" % (uid, uid)), ("gid_map", "%d %d 1" % (gid, gid))):
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
        return ("uid %d and gid %d mapped to themselves" % (uid, gid),)

    def make_namespace(self) -> "Seen":
        self.namespace = self.stack.enter_context(netns.create())
        self.route = self.stack.enter_context(Route(self.namespace))
        system = os.uname()
        return ("%s %s on %s, Python %s" % (system.sysname, system.release, system.machine, sys.version.split()[0]),)

    def create_uplink(self) -> "Seen":
        self.do(link.create_veth(_UPLINK, _PEER))
        self.bring_up(_UPLINK)
        self.bring_up(_PEER)
        return ()

    def create_tap(self) -> "Seen":
        fd = tap.create(self.namespace, _TAP)
        try:
            tap.persist(fd, _TAP)
        finally:
            os.close(fd)
        self.bring_up(_TAP)
        self.has["tun"] = True
        return self.expect("orphan")

    def add_ingress(self) -> "Seen":
        request = tc.create_redirect(self.ifindex[_UPLINK], uapi.TC_H_INGRESS_HANDLE, self.ifindex[_TAP], _UPLINK)
        refusal = self.route.change(request)[0].error  # there is no qdisc yet: what does the kernel say to that?
        self.has["extended ACK"] = refusal is not None and refusal.words != os.strerror(refusal.errno or 0)
        for name in (_UPLINK, _TAP):
            self.do(tc.create_ingress(self.ifindex[name], name))
        self.has["ingress"] = True
        return ()

    def add_redirects(self) -> "Seen":
        for name, other in ((_UPLINK, _TAP), (_TAP, _UPLINK)):
            self.do(tc.create_redirect(self.ifindex[name], uapi.TC_H_INGRESS_HANDLE, self.ifindex[other], name))
        self.has["mirred"] = True
        return ()

    def hold(self) -> "Seen":
        fd = tap.attach(self.namespace, _TAP)
        try:
            self.holder = subprocess.Popen(
                [_python(), "-I", "-S", "-c", _HOLDER],
                pass_fds=(fd,),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the terminal is for us alone
            )
        finally:
            os.close(fd)
        self.stack.callback(self.end_holder)
        return self.expect("in-use")

    def end_holder(self) -> None:
        self.holder.kill()
        self.holder.wait()

    def refuse(self) -> "Seen":
        before = self.state()
        try:
            self.cleanup()
        except TapInUse as error:
            if self.state() != before:
                raise _Failed("the cleanup was refused, but the namespace has changed") from None
            return (str(error),)
        raise _Failed("the cleanup was not refused, though the TAP is held")

    def kill(self) -> "Seen":
        self.bring_up(_PEER)  # a link event, behind which the flags lag the carrier
        self.end_holder()
        return self.expect("orphan")

    def clean_up(self) -> "Seen":
        report = self.cleanup()
        if report.outcome != "cleaned" or [found.deleted for found in report.taps] != [True]:
            raise _Failed("the outcome is %s" % report.outcome)
        return ["%s %s removed from %s" % (found.kind, found.object, found.dev) for found in report.tc_removed] + [
            "link %s deleted" % _TAP
        ]

    def find_nothing(self) -> "Seen":
        report = self.cleanup()
        if report.outcome != "clean" or report.taps:
            raise _Failed("the outcome is %s" % report.outcome)
        left = [qdisc for qdisc in self.qdiscs() if qdisc.kind == "ingress"]
        if left:
            raise _Failed("%d ingress qdiscs are left" % len(left))
        return ()

    def features(self) -> "Seen":
        """What this kernel has, as far as the story got."""
        return tuple("%-16s  %s" % (name, "yes" if there else "no, or not seen") for name, there in self.has.items())

    # What the acts are made of.

    def do(self, request: Request) -> None:
        (reply,) = self.route.change(request)
        reply.answer()

    def bring_up(self, name: str) -> None:
        (reply,) = self.route.query(link.find(name))
        self.ifindex[name] = link.only(reply).ifindex
        self.do(link.set_up(self.ifindex[name], name))

    def cleanup(self) -> Report:
        return orphans.remove(self.route, orphans.Target(orphans.MATCH, _UPLINK))

    def expect(self, verdict: str) -> "Seen":
        """Scan, make sure of the verdict, and note what the kernel can do on the way."""
        listed = self.route.query(link.dump("tun"))[0].answer()
        self.has["kernel filter"] = all(flags & uapi.NLM_F_DUMP_FILTERED for _, flags, *_ in listed)
        (found,) = link.links(listed)
        self.has["carrier counters"] = found.carrier_up_count is not None
        told = orphans.as_tap(found)
        if told.verdict != verdict:
            raise _Failed("the verdict is %s, not %s" % (told.verdict, verdict))
        word = "an orphan" if verdict == orphans.ORPHAN else "in use"
        facts = "%s; operstate %s, %s" % (orphans.evidence(found), told.operstate, ",".join(told.flags))
        return ("%s is %s: %s" % (_TAP, word, facts),)

    def qdiscs(self) -> "List[tc.Qdisc]":
        return tc.qdiscs(self.route.query(tc.dump_qdiscs())[0].answer())

    def state(self) -> "object":
        """What must be the same before and after: links by index and name, qdiscs, filters and where they redirect to."""
        links = [(found.ifindex, found.ifname) for found in link.links(self.route.query(link.dump())[0].answer())]
        qdiscs = [(found.ifindex, found.kind, found.handle) for found in self.qdiscs()]
        filters = []
        for name in (_UPLINK, _TAP):
            (reply,) = self.route.query(tc.dump_filters(self.ifindex[name], uapi.TC_H_INGRESS_HANDLE, name))
            for found in tc.filters(reply.answer()):
                filters.append((name, found.info, found.handle, [action.redirect for action in found.actions()]))
        return links, qdiscs, filters

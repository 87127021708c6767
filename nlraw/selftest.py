# SPDX-License-Identifier: Apache-2.0
"""A self-test that makes and removes an orphan in a temporary namespace.

It shows what this host can do. Its steps are called the story: a pod's network is built as a
runtime builds it. A process holds the TAP in place of a VMM. The process is killed, and leaves an
orphan. A cleanup removes the orphan. Nothing outside the namespace is touched, and the namespace is
gone when its descriptor is closed.

Root can make a network namespace on any thread. Any other user needs a user namespace first, which
only a process with a single thread can enter. In that case a child process plays the story.
"""

import errno
import os
import subprocess
import sys
import time
from contextlib import ExitStack

from . import link, netns, pod, tap, tc, uapi, verdict
from .connection import Connection
from .errors import Error, Refused
from .exchange import Request
from .listener import Listener
from .report import Record, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

    Seen = Sequence[str]
    # What to do, its name, and the remedy if it fails.
    Act = Tuple[Callable[[], Seen], str, str]

_TAP, _UPLINK, _PEER = verdict.TAP, verdict.UPLINK, "peer0"

_FEATURES = ("kernel filter", "extended ACK", "carrier counters", "tun", "ingress", "mirred")

# The last feature, which `nlraw watch` alone needs, and the TAP that shows it.
_WATCH, _WATCHED = "watch", "tap1_urunc"

# Seconds until an event that was caused must have been heard.
_HEARD = 2.0

# A process that does nothing but hold the descriptor it inherited.
_HOLDER = "import signal; signal.pause()"

# The program of the child. It imports the same files, under the same package name.
_CHILD = """import sys
from importlib import import_module
root, package = sys.argv[1:3]
sys.path.insert(0, root)
sys.exit(import_module(package + ".cli").selftest_in_user_namespace(sys.argv[3:]))
"""

_USERNS = (
    "run it as root, or allow user and network namespaces (the sysctls user.max_user_namespaces, "
    "user.max_net_namespaces and kernel.unprivileged_userns_clone)"
)
_PYTHON = "run it with Python 3.12 or newer, or install ctypes (Debian: libpython3-stdlib)"
_VETH = "load the module veth, or enable CONFIG_VETH"
_TUN = (
    "load the module tun, or enable CONFIG_TUN; if /dev/net/tun is missing, make it: mknod "
    "/dev/net/tun c 10 200"
)
# Instead of the remedy beside it, if rights are missing.
_RIGHTS = {
    _TUN: "run it as root, or let this user open /dev/net/tun (chmod 666 /dev/net/tun); in a "
    "container, allow the device c 10:200"
}
_INGRESS = "enable CONFIG_NET_SCH_INGRESS"
_REDIRECT = "enable CONFIG_NET_CLS_U32, CONFIG_NET_CLS_ACT and CONFIG_NET_ACT_MIRRED"
_BUG = "the host lacks nothing here: please report this, with the whole output"


class Check(Record):
    """One check of the story.

    ``step`` names it. ``ok`` is its result, None for a check that cannot fail. ``seconds`` is its
    duration, ``seen`` a tuple of lines on what was seen. ``remedy`` is None unless it failed. After
    a failure the remaining checks are not run: their ``ok`` is False, their ``remedy`` None.
    """

    __slots__ = ("step", "ok", "seconds", "seen", "remedy")

    if TYPE_CHECKING:
        step: str
        ok: Optional[bool]
        seconds: float
        seen: Tuple[str, ...]
        remedy: Optional[str]


class _Unexpected(Exception):
    """The result of a check is not the expected one."""


def needs_user_namespace() -> bool:
    """Return True if the caller lacks the privilege to make a network namespace."""
    try:
        netns.create().close()
    except Refused as error:
        return error.errno == errno.EPERM
    except Error:  # the story will show what is missing
        return False
    return False


def play_in_child(arguments: "Sequence[str]") -> int:
    """Run a child that enters a user namespace and plays the story; return its exit status."""
    package = __name__.rpartition(".")[0]
    root = os.path.abspath(__file__)
    for _ in range(package.count(".") + 2):
        root = os.path.dirname(root)
    return subprocess.call([_python(), "-I", "-c", _CHILD, root, package] + list(arguments))


def _python() -> str:
    # sys.executable is empty if the interpreter was started by a bare name without a PATH
    return sys.executable or "/proc/self/exe"


def play(own_user_namespace: bool = False) -> "Iterator[Check]":
    """Play the story and yield each check when it is done.

    ``own_user_namespace``: enter a new user namespace first; the process must have one thread only.
    """
    with ExitStack() as stack:
        story = _Story(stack)
        acts = story.acts()
        if own_user_namespace:
            acts.insert(0, (story.enter_user_namespace, "enter a user namespace", _USERNS))
        failed = False
        for act, name, remedy in acts:
            if failed:
                yield Check(step=name, ok=False, seconds=0.0, seen=(), remedy=None)
                continue
            begin = time.perf_counter()
            try:
                seen = tuple(act())
            except (Error, OSError, _Unexpected) as error:
                seen, failed = (str(error),), True
                if getattr(error, "errno", None) in (errno.EACCES, errno.EPERM):
                    remedy = _RIGHTS.get(remedy, remedy)
                elif type(error) is Error and remedy == _USERNS:
                    remedy = _PYTHON
            yield Check(
                step=name,
                ok=not failed,
                seconds=time.perf_counter() - begin,
                seen=seen,
                remedy=remedy if failed else None,
            )
        seen = story.features()
        yield Check(step="kernel features", ok=None, seconds=0.0, seen=seen, remedy=None)


class _Story:
    """The checks in order, and the state that they share."""

    if TYPE_CHECKING:
        namespace: netns.Namespace
        connection: Connection
        holder: "subprocess.Popen[bytes]"

    def __init__(self, stack: "ExitStack") -> None:
        self.stack = stack
        self.ifindex: Dict[str, int] = {}
        self.has = dict.fromkeys(_FEATURES, False)

    def acts(self) -> "List[Act]":
        return [
            (self.make_namespace, "make a network namespace", _USERNS),
            (self.create_uplink, "create an uplink (veth)", _VETH),
            (self.create_tap, "create a persistent TAP (tun)", _TUN),
            (self.add_ingress, "put an ingress qdisc on both (ingress)", _INGRESS),
            (self.add_redirects, "redirect each to the other (u32, mirred)", _REDIRECT),
            (self.hold, "hold the TAP, as a VMM does", _BUG),
            (self.refuse, "a cleanup is refused and changes nothing", _BUG),
            (self.kill, "kill the holder: an orphan is left", _BUG),
            (self.clean_up, "clean up", _BUG),
            (self.find_nothing, "a second cleanup finds nothing", _BUG),
        ]

    def enter_user_namespace(self) -> "Seen":
        uid, gid = os.geteuid(), os.getegid()
        netns.unshare(uapi.CLONE_NEWUSER | uapi.CLONE_NEWNET)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", "%d %d 1" % (uid, uid)),
            ("gid_map", "%d %d 1" % (gid, gid)),
        ):
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
        return ("uid %d and gid %d mapped to themselves" % (uid, gid),)

    def make_namespace(self) -> "Seen":
        self.namespace = self.stack.enter_context(netns.create())
        self.connection = self.stack.enter_context(Connection(self.namespace))
        system, python = os.uname(), sys.version.split()[0]
        facts = (system.sysname, system.release, system.machine, python)
        return ("%s %s on %s, Python %s" % facts,)

    def create_uplink(self) -> "Seen":
        self.change(link.create_veth(_UPLINK, _PEER))
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
        return self.expect(verdict.ORPHAN)

    def add_ingress(self) -> "Seen":
        # the kernel refuses a filter without a qdisc; words of its own show the extended ACK
        (reply,) = self.connection.change(self.redirect(_UPLINK, _TAP))
        refusal = reply.error
        has_words = refusal is not None and refusal.words != os.strerror(refusal.errno or 0)
        self.has["extended ACK"] = has_words
        for name in (_UPLINK, _TAP):
            self.change(tc.create_ingress(self.ifindex[name], name))
        self.has["ingress"] = True
        return ()

    def add_redirects(self) -> "Seen":
        self.change(self.redirect(_UPLINK, _TAP))
        self.change(self.redirect(_TAP, _UPLINK))
        self.has["mirred"] = True
        return ()

    def hold(self) -> "Seen":
        fd = tap.attach(self.namespace, _TAP)
        try:
            self.holder = subprocess.Popen(
                [_python(), "-I", "-S", "-c", _HOLDER],
                pass_fds=(fd,),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # else an interrupt from the terminal kills it too
            )
        finally:
            os.close(fd)
        self.stack.callback(self.end_holder)
        return self.expect(verdict.IN_USE)

    def refuse(self) -> "Seen":
        before = self.state()
        report = self.clean()
        if report.outcome != "in-use":
            raise _Unexpected("the cleanup was not refused, though the TAP is held")
        if self.state() != before:
            raise _Unexpected("the cleanup was refused, but the namespace has changed")
        return (str(report.error),)

    def kill(self) -> "Seen":
        self.bring_up(_PEER)  # after a link event the flags change later than the carrier
        self.end_holder()
        return self.expect(verdict.ORPHAN)

    def clean_up(self) -> "Seen":
        report = self.clean().checked()
        if report.outcome != "cleaned" or [found.deleted for found in report.taps] != [True]:
            raise _Unexpected("the outcome is %s" % report.outcome)
        removed = [
            "%s %s removed from %s" % (found.kind, found.object, found.dev)
            for found in report.tc_removed
        ]
        return removed + ["link %s deleted" % _TAP]

    def find_nothing(self) -> "Seen":
        report = self.clean().checked()
        if report.outcome != "clean" or report.taps:
            raise _Unexpected("the outcome is %s" % report.outcome)
        left = [qdisc for qdisc in self.qdiscs() if qdisc.kind == "ingress"]
        if left:
            raise _Unexpected("%d ingress qdiscs are left" % len(left))
        return ()

    def features(self) -> "Tuple[str, ...]":
        """Return a line on each kernel feature, as far as the story got."""
        rows = [(name, "yes" if has else "no, or not seen") for name, has in self.has.items()]
        rows.append((_WATCH, self.hears_deaths()))
        return tuple("%-16s  %s" % row for row in rows)

    def hears_deaths(self) -> str:
        """Say if the death of a TAP's holder is heard in another namespace, as `watch` does it."""
        if not self.has["tun"]:
            return "no, or not seen"
        try:
            listener = Listener(verdict.Target(verdict.MATCH, _UPLINK))
        except Error as error:
            return "no: %s" % error
        try:
            if listener.deafness is not None:
                return "no: %s" % listener.deafness
            listener.assign(1, "/proc/self/fd/%d" % self.namespace.fileno())
            self.leave_orphan(_WATCHED)
            deadline = time.monotonic() + _HEARD
            while not listener.read_events(100)[0].get(1):
                if time.monotonic() > deadline:
                    return "no: an event was not heard"
                time.sleep(0.001)
            return "yes"
        except (Error, OSError) as error:
            return "no: %s" % error
        finally:
            listener.close()

    # ------------------------------------------------------------ used by the checks

    def leave_orphan(self, name: str) -> None:
        """Make a TAP, hold it, and let it go."""
        fd = tap.create(self.namespace, name)
        try:
            tap.persist(fd, name)
        finally:
            os.close(fd)
        self.bring_up(name)
        os.close(tap.attach(self.namespace, name))

    def change(self, request: Request) -> None:
        (reply,) = self.connection.change(request)
        reply.answer()

    def bring_up(self, name: str) -> None:
        (reply,) = self.connection.ask(link.find(name))
        self.ifindex[name] = link.only(reply).ifindex
        self.change(link.set_up(self.ifindex[name], name))

    def redirect(self, name: str, other: str) -> Request:
        ifindex, target = self.ifindex[name], self.ifindex[other]
        return tc.create_redirect(ifindex, uapi.TC_H_INGRESS_HANDLE, target, name)

    def end_holder(self) -> None:
        self.holder.kill()
        self.holder.wait()

    def clean(self) -> Report:
        """Run a cleanup and return its report; raise its error if it failed."""
        report = pod.remove(self.connection, verdict.Target(verdict.MATCH, _UPLINK))
        return report.checked() if report.outcome == "failed" else report

    def expect(self, expected: str) -> "Seen":
        """Check the verdict on the TAP, and note the kernel features that show in the list."""
        listed = self.connection.ask(link.dump("tun"))[0].answer()
        filtered = uapi.NLM_F_DUMP_FILTERED
        self.has["kernel filter"] = all(flags & filtered for _, flags, *_ in listed)
        (found,) = link.links(listed)
        self.has["carrier counters"] = found.carrier_up_count is not None
        judged = verdict.describe_tap(found)
        if judged.verdict != expected:
            raise _Unexpected("the verdict is %s, not %s" % (judged.verdict, expected))
        word = "an orphan" if expected == verdict.ORPHAN else "in use"
        facts = (verdict.evidence(found), judged.operstate, ",".join(judged.flags))
        return ("%s is %s: %s; operstate %s, %s" % ((_TAP, word) + facts),)

    def qdiscs(self) -> "List[tc.Qdisc]":
        return tc.qdiscs(self.connection.ask(tc.dump_qdiscs())[0].answer())

    def state(self) -> "object":
        """Return what a refused cleanup must not change: links, qdiscs, filters, redirects."""
        listed = self.connection.ask(link.dump())[0].answer()
        links = [(found.ifindex, found.ifname) for found in link.links(listed)]
        qdiscs = [(found.ifindex, found.kind, found.handle) for found in self.qdiscs()]
        filters = []
        for name in (_UPLINK, _TAP):
            request = tc.dump_filters(self.ifindex[name], uapi.TC_H_INGRESS_HANDLE, name)
            for found in tc.filters(self.connection.ask(request)[0].answer()):
                redirects = [action.redirect for action in found.actions()]
                filters.append((name, found.info, found.handle, redirects))
        return links, qdiscs, filters

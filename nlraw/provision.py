# SPDX-License-Identifier: Apache-2.0
"""Create-only setup of a VM's network: a TAP, and redirects between it and the uplink.

    cleanup      what a dead VM left; ends here if a TAP is in use
    create       the TAP (IFF_TUN_EXCL: any link of that name, and the kernel refuses)
    configure    MTU, up, address, ingress qdiscs, redirects: one datagram
    persist      last of all

The creating descriptor is held all the while, so a rival sees a TAP in use, and if this process dies the kernel takes
the TAP away. If a step fails, what this call made is taken away again, in reverse, and nothing else.
"""

import errno
import posix
from _socket import inet_pton

from . import inet, link, orphans, tc, uapi
from .errors import Error, Invalid, Refused, TapInUse
from .link import Link
from .netns import Namespace, close, describe
from .orphans import Cleanup, Target
from .report import CreatedTap, Report, Setup, TcObject, Uplink
from .route import Route
from .tap import create, persist, set_owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional, Tuple

    from .exchange import Request
    from .netns import NetnsArgument


def setup(
    netns: "NetnsArgument" = None,
    tap: str = orphans.TAP,
    owner: "Optional[int]" = None,
    group: "Optional[int]" = None,
    address: "Optional[str]" = None,
    match: str = orphans.MATCH,
    uplink: str = orphans.UPLINK,
) -> Setup:
    """Clean up, then create the TAP and both redirects, and return what a VMM is configured with.

    ``netns``, ``match`` and ``uplink`` are as for `nlraw.cleanup`, but an uplink is required. ``tap`` is the TAP's name.
    ``owner`` and ``group`` (IDs) may attach to it without privilege; where both are set, only who is both: by default the
    caller's uid and gid, and no group if an owner is given. ``address`` is put on the TAP: "10.9.8.1/24".

    Raises `TapInUse` if a TAP is in use, `Invalid` for an argument that cannot be meant, and other kinds of `Error`; all but
    `Invalid` carry a `Setup` as their ``report``.
    """
    if uplink == "none":
        raise Invalid("a setup needs an uplink", "check uplink", uplink)
    link.check_name(tap)
    if "%" in tap:  # the kernel would put a number in its place
        raise Invalid("this cannot be the name of a new interface", "check name", tap)
    for number in (owner, group):
        if number is not None and not 0 <= number < 0xFFFFFFFF:
            raise Invalid("this can be no user or group", "check ID", str(number))
    if group is None and owner is None:
        group = posix.getgid()
    if owner is None:
        owner = posix.getuid()
    wanted = _Wanted(tap, owner, group, None if address is None else _parse(address))
    target = Target(match, uplink, tap)
    path = describe(netns)
    try:
        with Namespace(netns) as namespace, Route(namespace, alone=True) as route:
            return _Setup(namespace, route, target, wanted).run()
    except Error as error:
        if not isinstance(error.report, Setup):
            cleanup = error.report or orphans.failure(path, target, error)
            error.report = _failure(path, cleanup, error)
        raise


# From where down to where the kernel picks priorities (tcf_auto_prio(), net/sched/cls_api.c).
_FIRST_PRIORITY, _LAST_PRIORITY = 0xC000, 0x8000


class _Wanted:
    """The TAP to make. ``address`` is bytes and prefix length, or None."""

    __slots__ = ("name", "owner", "group", "address")

    def __init__(self, name: str, owner: int, group: "Optional[int]", address: "Optional[Tuple[bytes, int]]") -> None:
        self.name = name
        self.owner = owner
        self.group = group
        self.address = address


def _parse(address: str) -> "Tuple[bytes, int]":
    """An address in CIDR notation as bytes and prefix length."""
    head, _, tail = address.partition("/")
    try:
        packed = inet_pton(inet.AF_INET6 if ":" in head else inet.AF_INET, head)
    except (OSError, ValueError):
        packed = b""
    if not packed or not (tail.isdecimal() and len(tail) <= 3) or int(tail) > 8 * len(packed):
        raise Invalid("this is no address with a prefix length, such as 10.9.8.1/24", "check address", address)
    if not any(packed):  # taken by the kernel without a word, and dropped (__inet_insert_ifa(), net/ipv4/devinet.c)
        raise Invalid("no device can have this address", "check address", address)
    return packed, int(tail)


def _failure(path: str, cleanup: Report, error: Error) -> Setup:
    outcome = "in-use" if isinstance(error, TapInUse) else "failed"
    return Setup(netns=path, outcome=outcome, cleanup=cleanup, tap=None, uplink=None, error=error, ahead=())


class _Setup:
    """One setup in one namespace."""

    def __init__(self, namespace: Namespace, route: Route, target: Target, wanted: _Wanted) -> None:
        self.namespace = namespace
        self.route = route
        self.wanted = wanted
        self.found = Cleanup(route, target)

    def run(self) -> Setup:
        cleanup = self.found.remove()
        try:
            if cleanup.outcome == "cleaned":
                self.found.look()
            if self.found.uplink is None:
                missing = "default route" if self.found.target.uplink == "auto" else "such uplink"
                words = "there is no %s: this is no pod's namespace, or it is not ready" % missing
                raise Refused(errno.ENODEV, words, "look up link", self.found.name or self.found.target.uplink)
            if cleanup.outcome == "cleaned":
                self.found.look_at_tc()
            fd = self.create()
            try:
                tap, uplink, ahead = self.configure(fd, self.found.uplink)
            finally:
                close(fd)  # the TAP goes with it, unless it has been made persistent
        except Error as error:
            error.report = _failure(self.route.path, cleanup, error)
            raise
        return Setup(netns=self.route.path, outcome="created", cleanup=cleanup, tap=tap, uplink=uplink, error=None, ahead=ahead)

    def create(self) -> int:
        """The descriptor of a new TAP, or an error that says what has the name."""
        try:
            return create(self.namespace, self.wanted.name)
        except Refused as error:
            if error.errno != errno.EBUSY:
                raise
            (reply,) = self.route.query(link.find(self.wanted.name))
            if reply.error is not None:  # whoever had the name has gone again
                raise
            taken = link.only(reply)
            if orphans.judge(taken) == orphans.IN_USE:
                raise TapInUse(
                    "in use (%s), another start may be under way" % orphans.evidence(taken), error.step, error.object
                ) from None
            kind = "TUN device" if taken.kind == "tun" else taken.kind or "device of no kind"
            words = "the name is taken by a %s, ifindex %d" % (kind, taken.ifindex)
            raise Refused(errno.EBUSY, words, error.step, error.object) from None

    def configure(self, fd: int, uplink: Link) -> "Tuple[CreatedTap, Uplink, Tuple[TcObject, ...]]":
        """Make the new TAP a way to the uplink and back, and persistent."""
        name = self.wanted.name
        set_owner(fd, name, self.wanted.owner, self.wanted.group)
        replies = self.route.query(link.find(name), inet.dump_addresses(), inet.dump_routes(inet.AF_INET))
        tap = link.only(replies[0])
        addresses = inet.addresses(replies[1].answer())
        routes = inet.default_routes(replies[2].answer())
        mtu = uplink.mtu or 0
        try:
            ahead = self.connect(tap, uplink, mtu)
            persist(fd, name)
        except BaseException as error:
            _undo(error, lambda: persist(fd, name, False), lambda: self.disconnect(tap, uplink))
            raise
        local = next((found for found in addresses if found.ifindex == uplink.ifindex), None)
        route = next((found for found in routes if found.ifindex == uplink.ifindex), None)
        return (
            CreatedTap(ifname=name, ifindex=tap.ifindex, address=tap.address, mtu=mtu),
            Uplink(
                ifname=uplink.ifname,
                ifindex=uplink.ifindex,
                address=uplink.address,
                mtu=mtu,
                local=local and local.local,
                prefixlen=local and local.prefixlen,
                gateway=route and route.gateway,
            ),
            ahead,
        )

    def connect(self, tap: Link, uplink: Link, mtu: int) -> "Tuple[TcObject, ...]":
        """Everything that netlink has to do, in one datagram; the uplink's redirect, which opens the way, comes last.

        Returns the foreign filters on the uplink that see a packet before the redirect does.
        """
        name = self.wanted.name
        requests = [link.set_up(tap.ifindex, name, mtu)]
        if self.wanted.address is not None:
            requests.append(inet.create_address(tap.ifindex, self.wanted.address[0], self.wanted.address[1], name))
        if self.ingress_of(uplink) is None:
            requests.append(tc.create_ingress(uplink.ifindex, uplink.ifname))
        requests += [
            tc.create_ingress(tap.ifindex, name),
            tc.create_redirect(tap.ifindex, uapi.TC_H_INGRESS_HANDLE, uplink.ifindex, name),
            self.redirect(tap, uplink),
        ]
        replies = self.route.change(*requests)
        for reply in replies:
            if reply.error is not None:
                raise _with_remedy(reply.error)
        ours = min((filter.priority for filter in tc.filters(replies[-1].messages)), default=0)
        return tuple(
            TcObject(dev=uplink.ifname, object="filter", kind=filter.kind)
            for hook in self.found.hooks
            if hook.incoming
            for filter in hook.filters
            if filter.priority < ours and not filter.chain and not filter.table and not filter.bare
        )

    def ingress_of(self, uplink: Link) -> "Optional[tc.Qdisc]":
        """The `ingress` or clsact qdisc that was on the uplink before we came."""
        there = (qdisc for qdisc in self.found.qdiscs if qdisc.ifindex == uplink.ifindex and qdisc.parent == uapi.TC_H_INGRESS)
        return next(there, None)

    def redirect(self, tap: Link, uplink: Link) -> "Request":
        """The uplink's redirect, hung where it leaves others as they look.

        In an `ingress` under the parent that the others were made with, for the kernel lists all filters of a qdisc under that
        of the latest (tc_new_tfilter(), net/sched/cls_api.c). With a priority that no other uses, on either side or in any
        chain, for those of one share their tables (see `orphans.unhook`); ahead of others as if the kernel had picked it, which
        it does where there are none.
        """
        present = self.ingress_of(uplink)
        others = [filter for hook in self.found.hooks if hook.qdisc is present for filter in hook.filters]
        parent, priority = uapi.TC_H_INGRESS_HANDLE, 0
        if present is not None and present.kind == "clsact":
            parent |= uapi.TC_H_MIN_INGRESS
        elif others:
            parent = others[0].parent
        if others:
            used = {filter.priority for filter in others}
            lowest = min((number for number in used if number >= _LAST_PRIORITY), default=_FIRST_PRIORITY + 1)
            free = (number for number in range(lowest - 1, 0, -1) if number not in used)
            priority = next(free, 0)  # where none is left the kernel is to say so
        return tc.create_redirect(uplink.ifindex, parent, tap.ifindex, uplink.ifname, priority)

    def disconnect(self, tap: Link, uplink: Link) -> None:
        """Take what `connect` did off the uplink; what is on the TAP goes with it."""
        (reply,) = self.route.query(tc.dump_qdiscs())
        hooks = orphans.hooks(self.route, uplink, tc.qdiscs(reply.answer()))
        kept = self.ingress_of(uplink) is not None  # it was there before us
        requests = [step.request for step in orphans.unhook(hooks, uplink.ifname, {tap.ifindex})]
        if kept:
            requests = [request for request in requests if request.type != uapi.RTM_DELQDISC]
        for reply in self.route.change(*requests):
            if not orphans.is_gone(reply.error):
                reply.answer()


def _undo(error: BaseException, *steps: "Callable[[], None]") -> None:
    """Take each step back, whatever becomes of the others, and tell a failure beside the first error."""
    for step in steps:
        try:
            step()
        except Error as failure:
            if isinstance(error, Error):  # an interrupt has no words to add to
                error.message += "; then the undo failed: %s" % failure


# What the kernel refuses with ENOENT where it lacks a feature: the step, and the feature.
_FEATURES = (
    (tc.CREATE_INGRESS, "CONFIG_NET_SCH_INGRESS"),
    (tc.CREATE_REDIRECT, "CONFIG_NET_CLS_U32, CONFIG_NET_CLS_ACT and CONFIG_NET_ACT_MIRRED"),
)


def _with_remedy(error: Refused) -> Refused:
    """The same refusal, with the kernel feature to enable where one is missing."""
    features = [feature for step, feature in _FEATURES if error.errno == errno.ENOENT and error.step == step]
    words = "; ".join([error.message] + ["enable " + feature for feature in features])
    return Refused(error.errno or 0, words, error.step, error.object)

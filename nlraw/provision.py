# SPDX-License-Identifier: Apache-2.0
"""Create-only setup of a VM's network: a TAP, and redirects between it and the uplink.

    cleanup      what a dead VM left; ends here if a TAP is in use
    create       the TAP (IFF_TUN_EXCL: the kernel refuses a name that any link has)
    configure    MTU, up, address, ingress qdiscs, redirects: one datagram
    persist      last of all

The creating descriptor stays open until the end: another setup sees a TAP in use, and if this
process dies the kernel deletes the TAP. If a step fails, what this call made is removed in reverse
order, and nothing else.
"""

import errno
import posix
from _socket import inet_pton

from . import inet, link, tc, uapi
from .connection import Connection
from .errors import Error, Invalid, Refused, TapInUse
from .guest import CreatedTap, Setup, Uplink
from .link import Link
from .netns import Namespace, close
from .observe import observe_links, observe_tc
from .plan import plan_undo
from .pod import connect, name_of, wait_while_in_use, with_holders
from .removal import ROUNDS, Removal
from .report import Report, TcObject
from .snapshot import Snapshot, failure
from .tap import create as create_tap
from .tap import persist, set_owner
from .verdict import IN_USE, MATCH, TAP, UPLINK, Target, evidence, judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional, Tuple

    from .exchange import Request
    from .netns import NetnsArgument
    from .transport import Patience
    from .verdict import Names


def setup(
    netns: "NetnsArgument" = None,
    tap: str = TAP,
    owner: "Optional[int]" = None,
    group: "Optional[int]" = None,
    address: "Optional[str]" = None,
    match: "Names" = MATCH,
    uplink: "Names" = UPLINK,
    exclude: "Names" = (),
    wait: float = 0.0,
    who: bool = False,
) -> Setup:
    """Clean up, then create the TAP and both redirects; return what a VMM is configured with.

    ``netns``, ``match``, ``exclude``, ``uplink``, ``wait`` and ``who`` are as for `nlraw.cleanup`,
    but an uplink is required. ``tap`` is the TAP's name, which must match. ``owner`` and ``group``
    (IDs) may attach to it without privilege; if both are set, only a process with both. The default
    is the caller's uid and gid, and no group if an owner is given. ``address`` is put on the TAP:
    "10.9.8.1/24".

    Raises `TapInUse` if a TAP is in use and nothing was changed, `Invalid` for an impossible
    argument, and other kinds of `Error`; all but `Invalid` carry a `Setup` as ``report``.
    """
    made = set_up(netns, tap, owner, group, address, match, uplink, exclude, None, wait, who)
    return made.checked()


def set_up(
    netns: "NetnsArgument" = None,
    tap: str = TAP,
    owner: "Optional[int]" = None,
    group: "Optional[int]" = None,
    address: "Optional[str]" = None,
    match: "Names" = MATCH,
    uplink: "Names" = UPLINK,
    exclude: "Names" = (),
    patience: "Optional[Patience]" = None,
    wait: float = 0.0,
    who: bool = False,
) -> Setup:
    """`setup` that raises nothing but `Invalid`: an error is the ``error`` of the result."""
    target = Target(match, uplink, exclude)
    wanted = Wanted(tap, owner, group, address)
    if target.uplink == "none":
        raise Invalid("a setup needs an uplink", "check uplink", target.uplink)
    if not target.fits(tap):
        words = "no cleanup would find it: --match must match it, --exclude and --uplink must not"
        raise Invalid(words, "check TAP", tap)
    try:
        with Namespace(netns) as namespace:

            def act() -> Setup:
                with connect(namespace, target, True, patience) as connection:
                    return provide(namespace, connection, target, wanted)

            made = wait_while_in_use(namespace, wait, act)
            if who:
                taps = with_holders(namespace, made.cleanup.taps)
                made = made.replace(cleanup=made.cleanup.replace(taps=taps))
            return made
    except Error as error:
        return _failed(failure(name_of(netns), target, error), error)


class Wanted:
    """The TAP to make; ``address`` is None, or its bytes and prefix length.

    Raises `Invalid` for an impossible name, ID or address.
    """

    __slots__ = ("name", "owner", "group", "address")

    def __init__(
        self,
        name: str,
        owner: "Optional[int]" = None,
        group: "Optional[int]" = None,
        address: "Optional[str]" = None,
    ) -> None:
        link.check_name(name)
        if "%" in name:  # the kernel would put a number in its place
            raise Invalid("this cannot be the name of a new interface", "check name", name)
        for number in (owner, group):
            if number is not None and not 0 <= number < 0xFFFFFFFF:
                raise Invalid("this cannot be a user or group", "check ID", str(number))
        self.name = name
        self.owner = posix.getuid() if owner is None else owner
        self.group = posix.getgid() if owner is None and group is None else group
        self.address = None if address is None else _parse_cidr(address)


def _parse_cidr(address: str) -> "Tuple[bytes, int]":
    """An address in CIDR notation as bytes and prefix length."""
    head, _, tail = address.partition("/")
    try:
        packed = inet_pton(inet.AF_INET6 if ":" in head else inet.AF_INET, head)
    except (OSError, ValueError):
        packed = b""
    is_length = tail.isdecimal() and len(tail) <= 3
    if not packed or not is_length or int(tail) > 8 * len(packed):
        words = "this is not an address with a prefix length, such as 10.9.8.1/24"
        raise Invalid(words, "check address", address)
    if not any(packed):  # the kernel accepts it and drops it (__inet_insert_ifa(), devinet.c)
        raise Invalid("no device can have this address", "check address", address)
    return packed, int(tail)


def _failed(cleanup: Report, error: Error) -> Setup:
    return Setup(
        netns=cleanup.netns,
        outcome="in-use" if isinstance(error, TapInUse) else "failed",
        cleanup=cleanup,
        tap=None,
        uplink=None,
        error=error,
        ahead=(),
    )


def provide(
    namespace: Namespace,
    connection: Connection,
    target: Target,
    wanted: Wanted,
    create: "Callable[[Namespace, str], int]" = create_tap,
) -> Setup:
    """`setup` in an open namespace; an error is the ``error`` of the result.

    ``create`` makes a TAP of a name, and returns its descriptor.
    """
    removal = Removal(connection, target)
    cleanup = removal.run()
    if cleanup.error is not None:
        return _failed(cleanup, cleanup.error)
    builder = _Builder(namespace, connection, wanted, removal)
    try:
        return builder.build(cleanup, create)
    except TapInUse as error:
        if cleanup.outcome != "cleaned":
            return _failed(cleanup, error)
        words = "%s; removed before: %s" % (error.message, removal.journal.summary())
        return _failed(cleanup, Error(words, error.step, error.object))
    except Error as error:
        return _failed(cleanup, error)


# Where the kernel starts and stops picking priorities, downwards (tcf_auto_prio(), cls_api.c).
_FIRST_PRIORITY, _LAST_PRIORITY = 0xC000, 0x8000


class _Builder:
    """One setup in one namespace, after its cleanup."""

    def __init__(
        self, namespace: Namespace, connection: Connection, wanted: Wanted, removal: Removal
    ) -> None:
        self.namespace = namespace
        self.connection = connection
        self.wanted = wanted
        self.target = removal.target
        self.snapshot = removal.snapshot

    def build(self, cleanup: Report, create: "Callable[[Namespace, str], int]") -> Setup:
        """Create and configure the TAP."""
        if cleanup.outcome == "cleaned":
            self.connection.begin_look()
            self.snapshot = observe_links(self.connection, self.target)
        if not self.snapshot.uplinks:
            words = self.missing_uplink()
            raise Refused(errno.ENODEV, words, "look up link", self.target.uplink)
        if cleanup.outcome == "cleaned":
            self.snapshot = self.list_tc()
        uplink = self.snapshot.uplinks[0]
        self.connection.leave_groups()
        fd = self.create(create)
        try:
            made, facts, ahead = self.configure(fd, uplink)
        finally:
            close(fd)  # the TAP goes with it, unless it has been made persistent
        return Setup(
            netns=self.connection.path,
            outcome="created",
            cleanup=cleanup,
            tap=made,
            uplink=facts,
            error=None,
            ahead=ahead,
        )

    def list_tc(self) -> Snapshot:
        """The snapshot with TC state, from lists that are whole."""
        for _ in range(ROUNDS):
            self.connection.begin_look()
            seen = observe_tc(self.connection, self.snapshot, self.target)
            if not self.connection.is_torn:
                return seen
        words = "TC state changed each time it was listed"
        raise Error(words, "set up", self.connection.path)

    def missing_uplink(self) -> str:
        """Why there is no uplink."""
        if self.target.uplink != "auto":
            words = "there is no such uplink"
        elif self.snapshot.default_taps:
            taps = ", ".join(self.snapshot.default_taps)
            return "the default route is on %s, which the pattern of TAPs matches" % taps
        else:
            words = "there is no default route"
        return words + ": this is no pod's namespace, or it is not ready"

    def create(self, create: "Callable[[Namespace, str], int]") -> int:
        """The descriptor of a new TAP; an error names what has the name already."""
        try:
            return create(self.namespace, self.wanted.name)
        except Refused as error:
            if error.errno != errno.EBUSY:
                raise
            (reply,) = self.connection.ask(link.find(self.wanted.name))
            if reply.error is not None:  # the link that had the name has gone again
                raise
            taken = link.only(reply)
            if judge(taken) == IN_USE:
                words = "in use (%s), another start may be in progress" % evidence(taken)
                raise TapInUse(words, error.step, error.object) from None
            kind = "TUN device" if taken.kind == "tun" else taken.kind or "device of no kind"
            words = "the name is taken by a %s, ifindex %d" % (kind, taken.ifindex)
            raise Refused(errno.EBUSY, words, error.step, error.object) from None

    def configure(self, fd: int, uplink: Link) -> "Tuple[CreatedTap, Uplink, Tuple[TcObject, ...]]":
        """Connect the new TAP to the uplink, both ways, and make it persistent."""
        name = self.wanted.name
        set_owner(fd, name, self.wanted.owner, self.wanted.group)
        replies = self.connection.ask(
            link.find(name), inet.dump_addresses(), inet.dump_routes(inet.AF_INET)
        )
        tap = link.only(replies[0])
        addresses = inet.addresses(replies[1].answer())
        routes = inet.default_routes(replies[2].answer())
        route = next((each for each in routes if each.ifindex == uplink.ifindex), None)
        gateway = None if route is None else route.gateway  # read before anything is made
        mtu = uplink.mtu or 0
        try:
            ahead = self.connect(tap, uplink, mtu)
            persist(fd, name)
        except BaseException as error:
            _undo(error, lambda: persist(fd, name, False), lambda: self.disconnect(tap, uplink))
            raise
        local = next((each for each in addresses if each.ifindex == uplink.ifindex), None)
        return (
            CreatedTap(ifname=name, ifindex=tap.ifindex, address=tap.address, mtu=mtu),
            Uplink(
                ifname=uplink.ifname,
                ifindex=uplink.ifindex,
                address=uplink.address,
                mtu=mtu,
                local=local and local.local,
                prefixlen=local and local.prefixlen,
                gateway=gateway,
            ),
            ahead,
        )

    def connect(self, tap: Link, uplink: Link, mtu: int) -> "Tuple[TcObject, ...]":
        """Send all requests in one datagram. Traffic starts with the last, the uplink's redirect.

        Returns the foreign filters on the uplink that see a packet before the redirect does.
        """
        name = self.wanted.name
        requests = [link.set_up(tap.ifindex, name, mtu)]
        if self.wanted.address is not None:
            packed, prefixlen = self.wanted.address
            requests.append(inet.create_address(tap.ifindex, packed, prefixlen, name))
        if self.snapshot.ingress_of(uplink) is None:
            requests.append(tc.create_ingress(uplink.ifindex, uplink.ifname))
        requests += [
            tc.create_ingress(tap.ifindex, name),
            tc.create_redirect(tap.ifindex, uapi.TC_H_INGRESS_HANDLE, uplink.ifindex, name),
            self.redirect(tap, uplink),
        ]
        replies = self.connection.change(*requests)
        for reply in replies:
            if reply.error is not None:
                raise _with_remedy(reply.error)
        ours = min((filter.priority for filter in tc.filters(replies[-1].messages)), default=0)
        return tuple(
            TcObject(dev=uplink.ifname, object="filter", kind=filter.kind)
            for point in self.snapshot.points
            if point.is_incoming and point.dev == uplink.ifname
            for filter in point.filters
            if filter.priority < ours and not filter.chain and filter.is_filter
        )

    def redirect(self, tap: Link, uplink: Link) -> "Request":
        """The uplink's redirect, placed so that other filters are listed as before.

        In an `ingress` it gets the parent that the others have, because the kernel lists all
        filters of a qdisc under the parent of the latest (tc_new_tfilter(), cls_api.c).

        Its priority is one that no other filter uses, on either side or in any chain, because u32
        filters of one priority share their tables (see `shared_priorities`). It is the one that the
        kernel would pick, or the next lower free one; if there are no others, the kernel picks it.
        """
        present = self.snapshot.ingress_of(uplink)
        others = [
            filter
            for point in self.snapshot.points
            if point.qdisc is not None and point.qdisc is present
            for filter in point.filters
        ]
        parent, priority = uapi.TC_H_INGRESS_HANDLE, 0
        if present is not None and present.kind == "clsact":
            parent |= uapi.TC_H_MIN_INGRESS
        elif others:
            parent = others[0].parent
        if others:
            used = {filter.priority for filter in others}
            picked = (number for number in used if number >= _LAST_PRIORITY)
            lowest = min(picked, default=_FIRST_PRIORITY + 1)
            free = (number for number in range(lowest - 1, 0, -1) if number not in used)
            priority = next(free, 0)  # if none is left the kernel refuses it
        return tc.create_redirect(uplink.ifindex, parent, tap.ifindex, uplink.ifname, priority)

    def disconnect(self, tap: Link, uplink: Link) -> None:
        """Remove from the uplink what `connect` made; what is on the TAP goes with it."""
        now = self.list_tc()
        had_ingress = self.snapshot.ingress_of(uplink) is not None
        changes = plan_undo(now, tap, had_ingress)
        for reply in self.connection.change(*[change.request for change in changes]):
            if reply.error is not None and not reply.error.is_gone:
                raise reply.error


def _undo(error: BaseException, *steps: "Callable[[], None]") -> None:
    """Run every undo step; add failures to the message of the error."""
    for step in steps:
        try:
            step()
        except Error as failure:
            if isinstance(error, Error):  # an interrupt has no message
                error.message += "; then the undo failed: %s" % failure


# The kernel refuses these steps with ENOENT if it lacks a feature.
_FEATURES = {
    tc.CREATE_INGRESS: "CONFIG_NET_SCH_INGRESS",
    tc.CREATE_REDIRECT: "CONFIG_NET_CLS_U32, CONFIG_NET_CLS_ACT and CONFIG_NET_ACT_MIRRED",
}


def _with_remedy(error: Refused) -> Refused:
    """The same refusal, with the kernel feature to enable if one is missing."""
    feature = _FEATURES.get(error.step or "") if error.errno == errno.ENOENT else None
    words = "%s; enable %s" % (error.message, feature) if feature else error.message
    return Refused(error.errno or 0, words, error.step, error.object)

# SPDX-License-Identifier: Apache-2.0
"""Create-only setup of a VM's network: TAPs, and redirects between each and its uplink.

    cleanup      remove what a dead VM left; the setup ends here if a TAP is in use
    create       the TAPs (IFF_TUN_EXCL: the kernel refuses a name that any link has)
    configure    MTU, up, address, ingress qdiscs, redirects: one datagram for all
    persist      last of all

What to make is in `wanted`. The creating descriptors stay open until the end: another setup sees
TAPs in use, and if this process dies the kernel deletes them. If a step fails, what this call made
is removed in reverse order, and nothing else.
"""

import errno

from . import link, tc
from .connection import Connection
from .errors import Error, Refused, TapInUse
from .guest import CreatedTap, Pair, Setup, Uplink
from .link import Link
from .netns import Namespace
from .observe import observe_links, observe_tc
from .plan import plan_undo
from .pod import connect, name_of, wait_while_in_use, with_holders
from .removal import ROUNDS, Removal
from .report import Report, TcObject
from .snapshot import Snapshot, failure
from .tap import create_all, persist, release, set_owner
from .uplinks import observe_uplinks
from .verdict import IN_USE, MATCH, TAP, UPLINK, Target, evidence, judge
from .wanted import Wanted
from .wiring import Wiring, mtu_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Optional, Sequence, Set, Tuple

    from .netns import NetnsArgument
    from .transport import Patience
    from .verdict import Names

    Create = Callable[[Namespace, Sequence[str], bool], List[int]]


def setup(
    netns: "NetnsArgument" = None,
    tap: "Names" = TAP,
    owner: "Optional[int]" = None,
    group: "Optional[int]" = None,
    address: "Optional[str]" = None,
    match: "Names" = MATCH,
    uplink: "Names" = UPLINK,
    exclude: "Names" = (),
    wait: float = 0.0,
    who: bool = False,
    multi_queue: bool = False,
) -> Setup:
    """Clean up, then create a TAP for each uplink, all or none; return what a VMM needs.

    ``netns``, ``match``, ``exclude``, ``wait`` and ``who`` are as for `nlraw.cleanup`. ``uplink``
    is a name or a list of names, each of which must exist; "auto", the device of the default route;
    or "none", for a TAP without redirects. ``tap`` names the TAPs, which must match: one name for
    each uplink, or the first one, whose number is counted up. ``owner`` and ``group`` (IDs) may
    attach without privilege; if both are set, only a process with both. The default is the caller's
    uid and gid, and no group if an owner is given. ``address`` is put on a TAP that is the only
    one: "10.9.8.1/24". With ``multi_queue`` each open of a TAP adds a queue to it.

    Raises `TapInUse` if a TAP is in use and nothing was changed, `Invalid` for an impossible
    argument, and other kinds of `Error`; all but `Invalid` carry a `Setup` as ``report``.
    """
    target = Target(match, uplink, exclude)
    wanted = Wanted(target, tap, owner, group, address, multi_queue)
    return set_up(netns, wanted, wait=wait, who=who).checked()


def set_up(
    netns: "NetnsArgument",
    wanted: Wanted,
    patience: "Optional[Patience]" = None,
    wait: float = 0.0,
    who: bool = False,
) -> Setup:
    """`setup` that does not raise: an error is the ``error`` of the result."""
    try:
        with Namespace(netns) as namespace:

            def act() -> Setup:
                with connect(namespace, wanted.target, True, patience) as connection:
                    return provide(namespace, connection, wanted)

            made = wait_while_in_use(namespace, wait, act)
            if who:
                taps = with_holders(namespace, made.cleanup.taps)
                made = made.replace(cleanup=made.cleanup.replace(taps=taps))
            return made
    except Error as error:
        return _failed(failure(name_of(netns), wanted.target, error), error)


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
    wanted: Wanted,
    create: "Create" = create_all,
) -> Setup:
    """`setup` in an open namespace; an error is the ``error`` of the result.

    ``create`` makes TAPs of some names, all or none, and returns their descriptors.
    """
    removal = Removal(connection, wanted.target)
    cleanup = removal.prepare()
    missing = _missing_uplink(wanted.target, removal.snapshot)
    if missing is not None and (cleanup is None or cleanup.error is None):
        cleanup = removal.report("skipped")
        if wanted.target.uplinks:
            cleanup = cleanup.replace(uplink=missing.object)
        return _failed(cleanup, missing)
    cleanup = cleanup or removal.finish()
    if cleanup.error is not None:
        return _failed(cleanup, cleanup.error)
    builder = _Builder(namespace, connection, wanted, removal.snapshot)
    try:
        return builder.build(cleanup, create)
    except TapInUse as error:
        if cleanup.outcome != "cleaned":
            return _failed(cleanup, error)
        words = "%s; removed before: %s" % (error.message, removal.journal.summary())
        return _failed(cleanup, Error(words, error.step, error.object))
    except Error as error:
        return _failed(cleanup, error)


def _missing_uplink(target: Target, seen: Snapshot) -> "Optional[Refused]":
    """The refusal for an uplink that does not exist, None if all exist."""
    found = {uplink.ifname for uplink in seen.uplinks}
    missing = [name for name in target.uplinks if name not in found]
    if not missing and (found or target.uplink == "none"):
        return None
    if missing or not seen.default_taps:
        words = (
            "there is no %s: this is no pod's namespace, or it is not ready; `-u` names the uplink"
        )
        words %= "such uplink" if missing else "default route"
    else:
        words = "the default route is on %s, which the pattern of TAPs matches"
        words %= ", ".join(seen.default_taps)
    return Refused(errno.ENODEV, words, "look up link", (missing or [target.uplink])[0])


# ---------------------------------------------------------------- build


class _Builder:
    """One setup in one namespace, after its cleanup.

    ``had_ingress`` are the uplinks whose qdisc this call did not make, by ifindex.
    """

    def __init__(
        self, namespace: Namespace, connection: Connection, wanted: Wanted, snapshot: Snapshot
    ) -> None:
        self.namespace = namespace
        self.connection = connection
        self.wanted = wanted
        self.snapshot = snapshot

    def build(self, cleanup: Report, create: "Create") -> Setup:
        """Create and configure the TAPs."""
        if cleanup.outcome == "cleaned":
            self.look_again()
        facts = self.read_facts()
        fds = self.create(create)
        try:
            for fd, name in zip(fds, self.wanted.names):
                set_owner(fd, name, self.wanted.owner, self.wanted.group)
            replies = self.connection.ask(*map(link.find, self.wanted.names))
            taps = [link.only(reply) for reply in replies]
            ahead = self.finish(fds, taps)
        finally:
            release(fds)  # the kernel deletes a TAP then, unless it is persistent
        pairs = [
            Pair(tap=_describe_tap(tap, seen, self.wanted.multi_queue), uplink=uplink)
            for tap, seen, uplink in zip(taps, self.uplinks(), facts)
        ]
        return Setup(
            netns=self.connection.path,
            outcome="created",
            cleanup=cleanup,
            tap=pairs[0].tap,
            uplink=pairs[0].uplink,
            pairs=tuple(pairs),
            error=None,
            ahead=ahead,
        )

    def uplinks(self) -> "Sequence[Optional[Link]]":
        """The uplink of each TAP, None for a TAP alone."""
        return self.snapshot.uplinks or (None,)

    def look_again(self) -> None:
        """Take a snapshot of what the cleanup left."""
        self.connection.begin_look()
        self.snapshot = observe_links(self.connection, self.wanted.target)
        missing = _missing_uplink(self.wanted.target, self.snapshot)
        if missing is not None:
            raise missing
        self.snapshot = self.list_tc()

    def list_tc(self) -> Snapshot:
        """The snapshot with TC state, from lists that are whole."""
        for _ in range(ROUNDS):
            self.connection.begin_look()
            seen = observe_tc(self.connection, self.snapshot, self.wanted.target)
            if not self.connection.is_torn:
                return seen
        words = "TC state changed each time it was listed; try again"
        raise Error(words, "set up", self.connection.path)

    def read_facts(self) -> "Sequence[Optional[Uplink]]":
        """What a guest needs of the uplink of each TAP, None for a TAP alone."""
        self.connection.leave_groups()
        seen = self.snapshot
        if not seen.uplinks:
            return (None,)
        return observe_uplinks(self.connection, seen.uplinks, seen.names)

    def create(self, create: "Create") -> "List[int]":
        """Create the TAPs, return their descriptors; an error names what has the name already."""
        try:
            return create(self.namespace, self.wanted.names, self.wanted.multi_queue)
        except Refused as error:
            if error.errno != errno.EBUSY or error.object not in self.wanted.names:
                raise
            (reply,) = self.connection.ask(link.find(error.object))
            if reply.error is not None:  # the link that had the name has gone again
                raise
            taken = link.only(reply)
            if judge(taken) == IN_USE:
                words = "in use (%s), another start may be in progress" % evidence(taken)
                raise TapInUse(words, error.step, error.object) from None
            kind = "TUN device" if taken.kind == "tun" else taken.kind or "device of no kind"
            words = "the name is taken by a %s, ifindex %d; choose another with `--tap`"
            words %= kind, taken.ifindex
            raise Refused(errno.EBUSY, words, error.step, error.object) from None

    def finish(self, fds: "Sequence[int]", taps: "Sequence[Link]") -> "Tuple[TcObject, ...]":
        """Connect each TAP to its uplink, both ways, and make all persistent; or undo all.

        Returns the foreign filters that see a packet before the uplinks' redirects do.
        """
        held = list(zip(fds, self.wanted.names))
        # nothing was made yet, if an interrupt comes before the requests
        self.had_ingress: Set[int] = {uplink.ifindex for uplink in self.snapshot.uplinks}
        try:
            ahead = self.connect(taps)
            for fd, name in held:
                persist(fd, name)
        except BaseException as error:
            for fd, name in reversed(held):
                _undo(error, persist, fd, name, False)
            _undo(error, self.disconnect, taps)
            raise
        return ahead

    def connect(self, taps: "Sequence[Link]") -> "Tuple[TcObject, ...]":
        """Send all requests of the `Wiring` in one datagram."""
        pairs = list(zip(taps, self.uplinks()))
        wiring = Wiring(self.snapshot, pairs, self.wanted.address)
        self.had_ingress = wiring.had_ingress()
        replies = self.connection.change(*wiring.requests)
        self.had_ingress = wiring.had_ingress(replies)
        for reply in replies:
            if reply.error is not None:
                raise _with_remedy(reply.error)
        return wiring.ahead(replies)

    def disconnect(self, taps: "Sequence[Link]") -> None:
        """Remove from the uplinks what `connect` made; what is on a TAP goes with it."""
        changes = plan_undo(self.list_tc(), taps, self.had_ingress)
        for reply in self.connection.change(*[change.request for change in changes]):
            if reply.error is not None and not reply.error.is_gone:
                raise reply.error


def _describe_tap(tap: Link, uplink: "Optional[Link]", multi_queue: bool) -> CreatedTap:
    return CreatedTap(
        ifname=tap.ifname,
        ifindex=tap.ifindex,
        address=tap.address,
        mtu=mtu_for(tap, uplink),
        multi_queue=multi_queue,
    )


def _undo(error: BaseException, step: "Callable[..., None]", *arguments: "object") -> None:
    """Run an undo step; add a failure to the message of the error."""
    try:
        step(*arguments)
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

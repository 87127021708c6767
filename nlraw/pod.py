# SPDX-License-Identifier: Apache-2.0
"""One namespace: list its TAPs, or clean it up. The public functions `scan` and `cleanup`."""

from . import link, uapi
from .connection import Connection
from .errors import BadNamespace, Error
from .netns import Namespace, describe
from .observe import groups_of, list_links, observe_links, observe_tc, snapshot_of
from .report import Report, Tap
from .snapshot import Snapshot, failure
from .transport import SYSTEM, Allowance
from .verdict import IN_USE, MATCH, UPLINK, Target, describe_tap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional, Sequence, Tuple, TypeVar, Union

    from .guest import Setup
    from .netns import NetnsArgument
    from .transport import Patience
    from .verdict import Names

    T = TypeVar("T", bound=Union[Report, Setup])

# The list of TAPs alone. A TAP may be missing in it (see `link.dump`); `scan` accepts that.
QUICK_LIST = link.dump("tun")

# Seconds after which a TAP in use is looked at again although no event came: the release of one
# that is administratively down sends none.
LOOK_EVERY = 1.0


def scan(
    netns: "NetnsArgument" = None,
    match: "Names" = MATCH,
    uplink: "Names" = UPLINK,
    exclude: "Names" = (),
    who: bool = False,
) -> "Tuple[Tap, ...]":
    """List the matching TAPs of a namespace with their verdicts. Changes nothing, sends no event.

    ``netns``: None is the current one; an int or a string of digits a PID; an object with
    ``fileno()`` a descriptor; a string with a slash, or a path object, a path; any other string a
    name as in ``ip netns``. ``match`` is a glob of ``*`` and ``?``, or a list of them; ``exclude``
    likewise, of names to leave alone. ``uplink`` is the container interface, or a list of them,
    which is never listed; it need not exist. ``who`` names the processes that hold a TAP.

    If there is no orphan it reads only the list of TUN devices. Linux 6.18 omits from it a TAP with
    very many alternative names, and all after it (`link.dump`). `cleanup` reads the list of all
    links, which is complete.
    """
    target = Target(match, uplink, exclude)
    with Namespace(netns) as namespace, Connection(namespace, allowance=Allowance()) as connection:
        taps = list_taps(connection, target)
        return with_holders(namespace, taps) if who else taps


def list_taps(connection: Connection, target: Target) -> "Tuple[Tap, ...]":
    """The matching TAPs. If there is an orphan all links are listed, to find devices on top."""
    (listed,) = connection.ask(QUICK_LIST)
    seen = snapshot_of(link.links(listed.answer()), target)
    if len(seen.in_use()) < len(seen.taps):
        seen = snapshot_of(list_links(connection), target)
    return tuple(describe_tap(tap, seen.uppers_of(tap)) for tap in seen.taps)


def cleanup(
    netns: "NetnsArgument" = None,
    match: "Names" = MATCH,
    uplink: "Names" = UPLINK,
    dry_run: bool = False,
    exclude: "Names" = (),
    keep_in_use: bool = False,
    wait: float = 0.0,
    who: bool = False,
) -> Report:
    """Remove the orphan TAPs of a namespace and the TC state that belongs to them.

    ``netns``, ``match``, ``exclude`` and ``who`` are as for `scan`; ``dry_run`` only reports what
    would be removed. ``uplink`` names the container interfaces: if none of them exists, nothing is
    touched. "auto" takes that of the default route, "none" needs no uplink. ``keep_in_use`` removes
    orphans beside TAPs in use. ``wait``: seconds to wait for a TAP in use to be released.

    Raises `TapInUse` if a matching TAP is in use and nothing was changed, and other kinds of
    `Error`; all but `Invalid` carry a `Report` as ``report``.
    """
    target = Target(match, uplink, exclude, keep_in_use=keep_in_use)
    return clean_up(netns, target, dry_run, wait=wait, who=who).checked()


def clean_up(
    netns: "NetnsArgument",
    target: Target,
    dry_run: bool = False,
    patience: "Optional[Patience]" = None,
    wait: float = 0.0,
    who: bool = False,
) -> Report:
    """`cleanup` that does not raise: an error is the ``error`` of the report."""
    try:
        with Namespace(netns) as namespace:
            return clean_up_in(namespace, target, dry_run, patience, wait, who)
    except Error as error:
        return failure(name_of(netns), target, error)


def clean_up_in(
    namespace: Namespace,
    target: Target,
    dry_run: bool = False,
    patience: "Optional[Patience]" = None,
    wait: float = 0.0,
    who: bool = False,
    moves: bool = False,
) -> Report:
    """`clean_up` of a namespace that is open.

    ``moves``: move the calling thread into it for good, instead of starting a thread.
    """

    def act() -> Report:
        with connect(namespace, target, not dry_run, patience) as connection:
            return remove(connection, target, dry_run)

    try:
        if moves:
            namespace = namespace.enter()
        report = wait_while_in_use(namespace, wait, act)
    except Error as error:
        return failure(namespace.path, target, error)
    return report.replace(taps=with_holders(namespace, report.taps)) if who else report


def remove(connection: Connection, target: Target, dry_run: bool = False) -> Report:
    """Run a cleanup and return its report; an `Error` is the ``error`` of the report."""
    path, seen = connection.path, Snapshot()
    try:
        connection.begin_look()
        seen = observe_links(connection, target)
        if seen.may_act(target):
            seen = observe_tc(connection, seen, target)
    except Error as error:
        return seen.report(path, target, "failed", error)
    if seen.is_bare and not connection.is_torn:
        return seen.report(path, target, "clean" if seen.may_act(target) else "skipped")
    from .removal import Removal  # what plans and deletes is imported only for this

    return Removal(connection, target, seen).run(dry_run)


def preview(connection: Connection, target: Target) -> Report:
    """The report that a cleanup would make. "in-use" is no error here."""
    report = remove(connection, target, dry_run=True)
    return report.replace(error=None) if report.outcome == "in-use" else report


def preview_of(netns: "NetnsArgument", target: Target, who: bool = False) -> Report:
    """`preview` of a namespace; an error is the ``error`` of the report."""
    try:
        with Namespace(netns) as namespace:
            with connect(namespace, target) as connection:
                report = preview(connection, target)
            return report.replace(taps=with_holders(namespace, report.taps)) if who else report
    except Error as error:
        return failure(name_of(netns), target, error)


def name_of(netns: "NetnsArgument") -> str:
    """The path of a namespace for a report on it; raises `Invalid` for an impossible argument."""
    try:
        return describe(netns)
    except BadNamespace:
        return repr(netns)


def connect(
    namespace: Namespace,
    target: Target,
    exclusive: bool = False,
    patience: "Optional[Patience]" = None,
) -> Connection:
    """A connection for a look and a cleanup: it receives events, and reads within limits."""
    return Connection(
        namespace,
        exclusive=exclusive,
        groups=groups_of(target),
        patience=patience,
        allowance=Allowance(),
    )


def wait_while_in_use(namespace: Namespace, seconds: float, act: "Callable[[], T]") -> "T":
    """Run `act`; while a TAP is in use, run it again for up to ``seconds``.

    It runs after each link event, and at least every `LOOK_EVERY` seconds. Other writers need not
    wait between two runs: the connection that listens does not hold the writer port.
    """
    result = act()
    if seconds <= 0 or result.outcome != "in-use":
        return result
    end = SYSTEM.monotonic() + seconds
    with Connection(namespace, groups=uapi.RTMGRP_LINK) as listener:
        listener.receive_events()  # joins the group before the next look
        while True:
            result = act()
            left = end - SYSTEM.monotonic()
            if result.outcome != "in-use" or left <= 0:
                return result
            listener.receive_events(min(left, LOOK_EVERY))


def with_holders(namespace: Namespace, taps: "Sequence[Tap]") -> "Tuple[Tap, ...]":
    """The same TAPs, with the processes that hold those in use."""
    from . import holders

    found = holders.find(namespace, [tap.ifname for tap in taps if tap.verdict == IN_USE])
    return tuple(tap.replace(holders=tuple(found.get(tap.ifname, ()))) for tap in taps)

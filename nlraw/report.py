# SPDX-License-Identifier: Apache-2.0
"""The records that users see. Attribute names are the keys of the command line's JSON.

Those of a setup are in `guest`, those of a sweep in `node`.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional, Tuple, Type, TypeVar

    from .errors import Error

    R = TypeVar("R", bound="Record")
    S = TypeVar("S", bound="Result")

_set = object.__setattr__


class Record:
    """A small immutable value with named fields, its ``__slots__``.

    Not a named tuple or a data class: importing either takes longer than a whole scan.
    """

    __slots__: "Tuple[str, ...]" = ()

    # The fields that may be left out, and their values.
    _defaults: "Tuple[Tuple[str, object], ...]" = ()

    def __init__(self, **fields: "object") -> None:
        if len(fields) != len(self.__slots__):
            fields = dict(self._defaults, **fields)
            if len(fields) != len(self.__slots__):
                raise TypeError("%s takes %s" % (type(self).__name__, ", ".join(self.__slots__)))
        # any() and map() are a loop in C: each call returns None, or raises AttributeError if the
        # name is none of the slots
        any(map(_set, (self,) * len(fields), fields, fields.values()))

    def __setattr__(self, name: str, value: "object") -> None:
        raise AttributeError("%s is immutable" % type(self).__name__)

    def __delattr__(self, name: str) -> None:
        raise AttributeError("%s is immutable" % type(self).__name__)

    def fields(self) -> "Dict[str, object]":
        """The fields by name, in order."""
        return {name: getattr(self, name) for name in self.__slots__}

    def document(self) -> "Dict[str, object]":
        """The fields that the JSON has."""
        return self.fields()

    def replace(self: "R", **changes: "object") -> "R":
        """A copy with some fields changed."""
        return type(self)(**dict(self.fields(), **changes))

    def __reduce__(self) -> "Tuple[object, ...]":
        return _restored, (type(self), self.fields())

    def __eq__(self, other: "object") -> bool:
        if type(self) is not type(other) or not isinstance(other, Record):
            return False
        return self.fields() == other.fields()

    def __hash__(self) -> int:
        return hash((type(self),) + tuple(self.fields().values()))

    def __repr__(self) -> str:
        fields = ", ".join("%s=%r" % field for field in self.fields().items())
        return "%s(%s)" % (type(self).__name__, fields)


def _restored(kind: "Type[R]", fields: "Dict[str, object]") -> "R":
    return kind(**fields)


class Result(Record):
    """A record whose ``error`` is the `Error` that ended the work, else None."""

    __slots__ = ()

    if TYPE_CHECKING:
        error: Optional[Error]

    def checked(self: "S") -> "S":
        """Return self, or raise its error with self as ``report``."""
        if self.error is not None:
            self.error.report = self
            raise self.error
        return self


class Holder(Record):
    """A process that holds a TAP: its ID, and its command name.

    If the search was cut short, both are None in the last `Holder`: there may be more.
    """

    __slots__ = ("pid", "comm")

    if TYPE_CHECKING:
        pid: Optional[int]
        comm: Optional[str]


class Tap(Record):
    """One matching TAP.

    ``verdict`` is "orphan" or "in-use". ``fresh``: an orphan that was never opened again after its
    creation. ``carrier`` is None if the kernel did not report it. ``operstate`` and ``flags`` use
    iproute2's names; they change later than the carrier. ``deleted``: nlraw asked for its deletion,
    and it is gone. ``holders`` is a tuple of `Holder`, None if they were not asked for.
    """

    __slots__ = (
        "ifname",
        "ifindex",
        "verdict",
        "fresh",
        "carrier",
        "operstate",
        "flags",
        "deleted",
        "holders",
    )
    _defaults = (("holders", None),)

    def document(self) -> "Dict[str, object]":
        fields = self.fields()
        if self.holders is None:
            del fields["holders"]
        return fields

    if TYPE_CHECKING:
        ifname: str
        ifindex: int
        verdict: str
        fresh: bool
        carrier: Optional[bool]
        operstate: Optional[str]
        flags: Tuple[str, ...]
        deleted: bool
        holders: Optional[Tuple[Holder, ...]]


class TcObject(Record):
    """A qdisc or filter. ``object`` is "qdisc" or "filter", ``dev`` its device or "block N".

    A filter that was or would be removed has its ``priority``, and as ``target`` the name of the
    first device that it redirects to, None if that is gone.
    """

    __slots__ = ("dev", "object", "kind", "priority", "target")
    _defaults = (("priority", None), ("target", None))

    def document(self) -> "Dict[str, object]":
        fields = self.fields()
        if self.object == "qdisc":
            del fields["priority"], fields["target"]
        return fields

    if TYPE_CHECKING:
        dev: str
        object: str
        kind: str
        priority: Optional[int]
        target: Optional[str]


class Ignored(Record):
    """A link that matches by name and is not a TAP.

    ``kind`` is the driver's name for it, "unknown" if there is none; "tun" is a device in TUN mode.
    """

    __slots__ = ("ifname", "kind")

    if TYPE_CHECKING:
        ifname: str
        kind: str


class DeadRedirect(Record):
    """A redirect on an uplink whose target is gone, and that was left there."""

    __slots__ = ("dev", "kind", "priority")

    if TYPE_CHECKING:
        dev: str
        kind: str
        priority: int


class Report(Result):
    """What was seen and done in one namespace.

    ``netns`` is a path, or "current". ``uplink`` is the name of the first uplink found, else of the
    first one asked for; None for "auto" and "none". ``outcome`` is "clean", "cleaned",
    "would-clean", "in-use", "skipped" or "failed". ``taps`` is a tuple of `Tap`, ``tc_removed`` one
    of `TcObject`: what was removed, or with "would-clean" what would be. ``ignored`` is a tuple of
    `Ignored`, ``dead_redirects`` one of `DeadRedirect`. ``error`` is the `Error` of a failure, else
    None.
    """

    __slots__ = (
        "netns",
        "uplink",
        "outcome",
        "taps",
        "tc_removed",
        "ignored",
        "dead_redirects",
        "error",
    )
    _defaults = (("ignored", ()), ("dead_redirects", ()))

    if TYPE_CHECKING:
        netns: str
        uplink: Optional[str]
        outcome: str
        taps: Tuple[Tap, ...]
        tc_removed: Tuple[TcObject, ...]
        ignored: Tuple[Ignored, ...]
        dead_redirects: Tuple[DeadRedirect, ...]

# SPDX-License-Identifier: Apache-2.0
"""What nlraw says that it saw and did. Attribute names are the keys of the JSON that the command line prints."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional, Tuple, Type, TypeVar

    from .errors import Error

    R = TypeVar("R", bound="Record")


_set = object.__setattr__


class Record:
    """A small immutable value with named fields, its ``__slots__``.

    A named tuple or a data class would do, but importing either costs more than a whole scan.
    """

    __slots__: "Tuple[str, ...]" = ()

    def __init__(self, **fields: "object") -> None:
        if len(fields) != len(self.__slots__):
            raise TypeError("%s takes %s" % (type(self).__name__, ", ".join(self.__slots__)))
        for name, value in fields.items():
            _set(self, name, value)  # an AttributeError, where it is none of the slots

    def __setattr__(self, name: str, value: "object") -> None:
        raise AttributeError("%s is immutable" % type(self).__name__)

    def __delattr__(self, name: str) -> None:
        raise AttributeError("%s is immutable" % type(self).__name__)

    def fields(self) -> "Dict[str, object]":
        return {name: getattr(self, name) for name in self.__slots__}

    def replace(self: "R", **changes: "object") -> "R":
        """The same with some fields changed."""
        return type(self)(**dict(self.fields(), **changes))

    def __reduce__(self) -> "Tuple[object, ...]":
        return _restored, (type(self), self.fields())

    def __eq__(self, other: "object") -> bool:
        return type(self) is type(other) and isinstance(other, Record) and self.fields() == other.fields()

    def __hash__(self) -> int:
        return hash((type(self),) + tuple(self.fields().values()))

    def __repr__(self) -> str:
        return "%s(%s)" % (type(self).__name__, ", ".join("%s=%r" % field for field in self.fields().items()))


def _restored(kind: "Type[R]", fields: "Dict[str, object]") -> "R":
    return kind(**fields)


class Tap(Record):
    """One matching TAP and what was found out about it.

    ``verdict`` is "orphan" or "in-use". ``fresh``: an orphan to which no second open ever attached. ``carrier`` is
    None where the kernel did not say. ``operstate`` and ``flags`` are in iproute2's names; they lag the carrier.
    ``deleted``: it is gone, and it was asked to go.
    """

    __slots__ = ("ifname", "ifindex", "verdict", "fresh", "carrier", "operstate", "flags", "deleted")

    if TYPE_CHECKING:
        ifname: str
        ifindex: int
        verdict: str
        fresh: bool
        carrier: Optional[bool]
        operstate: Optional[str]
        flags: Tuple[str, ...]
        deleted: bool


class TcObject(Record):
    """A qdisc or filter that was removed, or would be: the device it was on, "qdisc" or "filter", its kind."""

    __slots__ = ("dev", "object", "kind")

    if TYPE_CHECKING:
        dev: str
        object: str
        kind: str


class Report(Record):
    """What was seen and done in one namespace.

    ``netns`` is a path, or "current"; ``uplink`` the container interface's name, None where there is none to name.
    ``outcome`` is one of "clean", "cleaned", "would-clean", "in-use", "skipped", "failed". ``taps`` is a tuple of `Tap`,
    ``tc_removed`` one of `TcObject`. ``error`` is the `Error` of a failure, else None.
    """

    __slots__ = ("netns", "uplink", "outcome", "taps", "tc_removed", "error")

    if TYPE_CHECKING:
        netns: str
        uplink: Optional[str]
        outcome: str
        taps: Tuple[Tap, ...]
        tc_removed: Tuple[TcObject, ...]
        error: Optional[Error]


class CreatedTap(Record):
    """The TAP that a VMM is to attach to: MAC as colon-separated hex, MTU in bytes."""

    __slots__ = ("ifname", "ifindex", "address", "mtu")

    if TYPE_CHECKING:
        ifname: str
        ifindex: int
        address: Optional[str]
        mtu: int


class Uplink(Record):
    """The container interface whose traffic the TAP takes over: MAC, MTU in bytes, IPv4 address and gateway as dotted
    decimal. ``local``, ``prefixlen`` and ``gateway`` are None where there is none."""

    __slots__ = ("ifname", "ifindex", "address", "mtu", "local", "prefixlen", "gateway")

    if TYPE_CHECKING:
        ifname: str
        ifindex: int
        address: Optional[str]
        mtu: int
        local: Optional[str]
        prefixlen: Optional[int]
        gateway: Optional[str]


class Setup(Record):
    """What a setup made. ``outcome`` is "created", "in-use" or "failed"; ``cleanup`` the `Report` of the cleanup that came
    first, None if it could not begin. ``tap`` and ``uplink`` are None unless created.

    ``ahead``, which is not in the JSON, holds the `TcObject` of each foreign filter on the uplink that sees a packet before
    the redirect does.
    """

    __slots__ = ("netns", "outcome", "cleanup", "tap", "uplink", "error", "ahead")

    if TYPE_CHECKING:
        netns: str
        outcome: str
        cleanup: Optional[Report]
        tap: Optional[CreatedTap]
        uplink: Optional[Uplink]
        error: Optional[Error]
        ahead: Tuple[TcObject, ...]

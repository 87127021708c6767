# SPDX-License-Identifier: Apache-2.0
"""nlraw.report: small immutable values whose attribute names are the keys of the JSON."""

import copy
import pickle

import pytest

from nlraw import report
from nlraw.errors import Error
from nlraw.guest import Setup
from nlraw.report import Holder, Record, Report, Tap, TcObject

TAP = Tap(
    ifname="tap0_urunc",
    ifindex=4,
    verdict="orphan",
    fresh=False,
    carrier=False,
    operstate="DOWN",
    flags=("UP",),
    deleted=True,
)

REPORT = Report(
    netns="/run/netns/pod1",
    uplink="eth0",
    outcome="cleaned",
    taps=(TAP,),
    tc_removed=(),
    error=None,
)


def test_the_fields_are_the_keys_of_the_json_in_its_order():
    assert Report.__slots__ == (
        "netns",
        "uplink",
        "outcome",
        "taps",
        "tc_removed",
        "ignored",
        "dead_redirects",
        "error",
    )
    assert Tap.__slots__ == (
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
    assert TcObject.__slots__ == ("dev", "object", "kind", "priority", "target")
    assert list(TAP.fields()) == list(Tap.__slots__)
    assert TAP.fields()["flags"] == ("UP",)


@pytest.mark.parametrize(
    "kind",
    [each for each in vars(report).values() if isinstance(each, type) and issubclass(each, Record)],
)
def test_every_record_takes_its_own_fields_and_no_others(kind):
    made = kind(**{name: number for number, name in enumerate(kind.__slots__)})
    assert made.fields() == {name: number for number, name in enumerate(kind.__slots__)}
    with pytest.raises(TypeError):
        kind(stranger=1, **made.fields())
    if kind.__slots__:
        with pytest.raises(TypeError):
            kind()


def test_a_record_takes_no_field_by_its_position():
    with pytest.raises(TypeError):
        TcObject("eth0", "filter", "u32")


def test_a_record_does_not_change():
    with pytest.raises(AttributeError):
        TAP.deleted = False
    with pytest.raises(AttributeError):
        del TAP.deleted
    with pytest.raises(AttributeError):
        TAP.stranger = 1
    assert TAP.deleted is True


def test_replace_makes_another_one():
    other = TAP.replace(deleted=False)
    assert (other.deleted, TAP.deleted, other.ifname) == (False, True, "tap0_urunc")
    assert type(other) is Tap
    with pytest.raises(TypeError):
        TAP.replace(stranger=1)


def test_records_of_one_type_and_equal_fields_are_equal():
    assert TcObject(dev="eth0", object="filter", kind="u32") == TcObject(
        dev="eth0", object="filter", kind="u32"
    )
    assert TcObject(dev="eth0", object="filter", kind="u32") != TcObject(
        dev="eth0", object="qdisc", kind="u32"
    )
    assert TcObject(dev="eth0", object="filter", kind="u32") != ("eth0", "filter", "u32")
    assert len({TAP, TAP.replace(), TAP.replace(deleted=False)}) == 2


def test_a_record_survives_pickle_and_copy():
    for other in (pickle.loads(pickle.dumps(TAP)), copy.deepcopy(TAP)):
        assert other == TAP and type(other) is Tap


def test_a_record_that_only_looks_the_same_is_another():
    class Other(Record):
        __slots__ = TcObject.__slots__

    fields = TcObject(dev="eth0", object="filter", kind="u32").fields()
    assert Other(**fields) != TcObject(**fields)


def test_a_record_shows_its_fields():
    assert (
        repr(TcObject(dev="eth0", object="filter", kind="u32", priority=7, target=None))
        == "TcObject(dev='eth0', object='filter', kind='u32', priority=7, target=None)"
    )


@pytest.mark.parametrize(
    "made, fields",
    [
        (TcObject(dev="eth0", object="qdisc", kind="ingress"), {"priority": None, "target": None}),
        (TAP, {"holders": None}),
        (REPORT, {"ignored": (), "dead_redirects": ()}),
    ],
)
def test_a_field_that_was_added_may_be_left_out(made, fields):
    assert {name: made.fields()[name] for name in fields} == fields
    others = {name: value for name, value in made.fields().items() if name not in fields}
    assert type(made)(**others) == made
    others.popitem()
    with pytest.raises(TypeError) as caught:
        type(made)(**others)
    assert str(caught.value).startswith(type(made).__name__ + " takes ")


def keys(record):
    return list(record.document())


def test_the_json_has_what_a_reader_needs():
    assert keys(REPORT) == list(Report.__slots__)
    filter = TcObject(dev="eth0", object="filter", kind="u32", priority=7, target="tap0_urunc")
    assert keys(filter) == ["dev", "object", "kind", "priority", "target"]
    assert keys(filter.replace(priority=None, target=None)) == keys(filter)
    assert keys(filter.replace(object="qdisc")) == ["dev", "object", "kind"]
    assert "holders" not in keys(TAP)
    held = TAP.replace(holders=(Holder(pid=7, comm="vmm"),))
    assert keys(held) == list(Tap.__slots__)
    assert keys(TAP.replace(holders=())) == list(Tap.__slots__)
    made = Setup(
        netns="x", outcome="failed", cleanup=REPORT, tap=None, uplink=None, error=None, ahead=()
    )
    assert keys(made) == ["netns", "outcome", "cleanup", "tap", "uplink", "pairs", "error"]


def test_a_result_is_returned_or_its_error_raised_with_it():
    assert REPORT.checked() is REPORT
    failed = REPORT.replace(error=Error("why"))
    with pytest.raises(Error) as caught:
        failed.checked()
    assert caught.value is failed.error and caught.value.report is failed

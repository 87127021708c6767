# SPDX-License-Identifier: Apache-2.0
"""nlraw.errors: one base, the standard families beside it, and what an error says."""

import errno

import pytest

import nlraw
from nlraw.errors import (
    BadNamespace,
    DumpInterrupted,
    Error,
    Invalid,
    Lost,
    Malformed,
    Refused,
    TapInUse,
    TooMuch,
    refused,
)


@pytest.mark.parametrize(
    "kind, families",
    [
        (Malformed, (ValueError,)),
        (Invalid, (ValueError,)),
        (BadNamespace, (ValueError,)),
        (Refused, (OSError,)),
        (Lost, (Refused, OSError)),
        (DumpInterrupted, ()),
        (TapInUse, ()),
        (TooMuch, ()),
    ],
)
def test_every_error_is_an_error_of_nlraw_and_of_its_standard_family(kind, families):
    assert issubclass(kind, (Error,)) and all(issubclass(kind, family) for family in families)
    assert not issubclass(kind, tuple({ValueError, OSError} - set(families))), "of no other family"
    assert getattr(nlraw, kind.__name__, kind) is kind


@pytest.mark.parametrize(
    "step, object, text",
    [
        ("delete link", "tap0", "delete link tap0: why"),
        ("delete link", None, "delete link: why"),
        (None, "tap0", "tap0: why"),
        (None, None, "why"),
        ("list routes", "", "list routes: why"),
    ],
)
def test_an_error_leads_with_what_was_done_to_what(step, object, text):
    error = Error("why", step, object)
    assert (str(error), error.message, error.step, error.object) == (text, "why", step, object)
    refused = Refused(errno.EPERM, "why", step, object)
    assert (str(refused), refused.message) == (text, "why")


def test_an_error_has_no_number_and_no_report_unless_it_is_given_one():
    for error in (Error("why"), Malformed("why", 3), Invalid("why"), TapInUse("why")):
        assert error.errno is None and error.report is None
    assert Refused(errno.EPERM, "").report is None


def test_malformed_has_its_offset():
    error = Malformed("bad length", 36)
    assert error.offset == 36
    assert str(error) == "parse netlink message: bad length, at offset 36"


def test_a_refusal_has_the_number_and_the_words_of_the_kernel():
    error = Refused(errno.ENODEV, "No such thing", "delete link", "tap0", (18, 2, 1))
    assert (error.errno, error.words, error.attribute) == (
        errno.ENODEV,
        "No such thing",
        (18, 2, 1),
    )
    assert str(error) == "delete link tap0: No such thing (attribute 18.2.1)"
    assert error.args[0] == errno.ENODEV


def test_a_refusal_without_words_has_the_name_of_its_number():
    assert Refused(errno.EPERM, "").message == "EPERM"
    assert Refused(5999, "").message == "errno 5999"
    assert Refused(errno.EPERM, "").words == ""


@pytest.mark.parametrize("kind", [Refused, Lost])
def test_a_refusal_is_caught_as_an_oserror(kind):
    with pytest.raises(OSError) as caught:
        raise kind(errno.ENOBUFS, "lost")
    assert caught.value.errno == errno.ENOBUFS
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "number, is_gone",
    [
        (errno.ENOENT, True),
        (errno.ENODEV, True),
        (errno.ESRCH, True),
        (errno.ENOTDIR, True),
        (errno.ELOOP, True),
        (errno.EPERM, False),
        (errno.EBUSY, False),
        (0, False),
    ],
)
def test_a_refusal_may_mean_that_the_object_is_gone(number, is_gone):
    assert Refused(number, "why").is_gone is is_gone


def test_the_error_of_a_system_call_becomes_a_refusal_with_a_remedy_if_there_is_one():
    call = OSError(errno.EPERM, "Operation not permitted")
    plain = refused(call, "open", "/x")
    assert (type(plain), plain.errno, str(plain)) == (
        Refused,
        errno.EPERM,
        "open /x: Operation not permitted",
    )
    for remedies in ({errno.EPERM: "ask root"}, {errno.ENOENT: "make it"}):
        helped = refused(call, "open", "/x", remedies)
        assert helped.message.endswith("; ask root") is (errno.EPERM in remedies)
    assert type(refused(call, kind=Lost)) is Lost


def test_the_error_of_a_system_call_may_have_no_number_or_words():
    assert (refused(OSError()).errno, refused(OSError()).message) == (0, "errno 0")
    assert refused(OSError(errno.EIO, "")).message == "EIO"

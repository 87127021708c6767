# SPDX-License-Identifier: Apache-2.0
"""The model of the kernel does what it says, so that what is run against it means something."""

import errno

import pytest

import nlraw
import nlraw.route
from lib import model
from lib.model_runs import SILENCE
from nlraw import link
from nlraw.errors import Lost
from nlraw.route import Route

# ---------------------------------------------------------------- the model does what it says


def query(kernel, *befalling, silence=SILENCE):
    kernel.faults = list(befalling)
    with model.played(kernel), Route(model.Place(kernel), silence=silence) as route:
        return route.query(link.find("eth0"))


@pytest.mark.parametrize(
    "name",
    sorted(set(model.UNFIT) - {"unsent", "overrun", "overrun message", "truncated", "signal"}),
)
def test_what_is_no_answer_ends_in_an_error_in_time(name):
    kernel = model.a_kernel([])
    with pytest.raises(nlraw.Error) as caught:
        query(kernel, (name, 1))
    assert (caught.value.step, caught.value.object) in (
        ("look up link", "eth0"),
        ("parse", "netlink message"),
    )
    assert kernel.now <= SILENCE + 2 * model.CHATTER
    if name in ("silence", "chatter", "flood", "too late"):
        assert caught.value.errno == errno.ETIMEDOUT and kernel.now >= SILENCE


@pytest.mark.parametrize("name", ["unsent", "overrun", "overrun message", "truncated"])
def test_what_is_lost_is_asked_for_again_so_often_and_no_more(name):
    kernel = model.a_kernel([])
    assert query(kernel, *[(name, 1)] * (nlraw.route.ATTEMPTS - 1))[0].answer()
    if name != "truncated":  # the buffer has grown
        with pytest.raises(Lost):
            query(kernel, *[(name, 1)] * nlraw.route.ATTEMPTS)
    assert len(kernel.sockets) >= nlraw.route.ATTEMPTS - 1


def test_the_model_objects_to_one_that_waits_for_ever():
    with pytest.raises(AssertionError, match="waits on"):
        query(model.a_kernel([]), ("chatter", 1), silence=100)

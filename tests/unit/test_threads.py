# SPDX-License-Identifier: Apache-2.0
"""nlraw.threads: a function on a thread of its own, and threads that never run."""

import _thread
import errno
import sys
import time

import pytest

from nlraw import threads
from nlraw.errors import Refused


def test_what_a_function_returns_or_raises_comes_from_its_thread():
    assert threads.on_own_thread(_thread.get_ident) != _thread.get_ident()
    with pytest.raises(ZeroDivisionError):
        threads.on_own_thread(lambda: 1 / 0)


def test_a_thread_runs_meanwhile_and_is_waited_for(monkeypatch):
    monkeypatch.setattr(threads, "STILLBORN", 0.01)
    waits = [threads.start(lambda number=number: time.sleep(0.1) or number) for number in range(9)]
    assert [wait() for wait in waits] == list(range(9))


@pytest.mark.skipif(
    sys.implementation.name == "pypy",
    reason="PyPy releases the arguments of such a thread at its next garbage collection",
)
def test_a_thread_that_dies_before_it_runs_is_noticed(monkeypatch):
    monkeypatch.setattr(threads, "STILLBORN", 0.01)
    born = []
    with pytest.raises(Refused) as caught:
        threads.on_own_thread(lambda: 1, lambda function, arguments: born.append(function))
    assert (caught.value.errno, caught.value.step) == (errno.ENOMEM, "start thread")
    assert len(born) == 1


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError])
def test_a_thread_that_cannot_be_started_is_refused(kind):
    def fail(*_):
        raise kind("can't start new thread")

    with pytest.raises(Refused) as caught:
        threads.start(lambda: 1, fail)
    assert caught.value.errno == errno.EAGAIN
    assert str(caught.value) == "start thread: no thread could be started"

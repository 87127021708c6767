# SPDX-License-Identifier: Apache-2.0
"""10,000 rounds of attach, release, recreate and rename around a running cleanup or sweep.

    pytest -s tests/long/test_rounds.py
    NLRAW_ROUNDS=1000 NLRAW_JOBS=2 pytest -s tests/long/test_rounds.py

What a round is, and what it may lose, is in tests/lib/rounds.py; what more there is in a pod with
several NICs, in tests/lib/nics.py.
"""

import collections
import concurrent.futures
import fcntl
import os
import random
import threading
import time

import pytest

import nlraw
from lib import nodes, pods
from lib.nics import Nics
from lib.rounds import SEED, Ground, around_cleanups, around_sweeps, play

ROUNDS = int(os.environ.get("NLRAW_ROUNDS", "10000"))


@pytest.fixture(autouse=True)
def can_run():
    if pods.missing() is not None:
        pytest.skip("needs a network namespace of its own: " + pods.missing())


def test_around_a_running_cleanup():
    play("cleanup, one NIC", around_cleanups, Ground, ROUNDS)


def test_around_a_running_cleanup_on_several_nics():
    play("cleanup, several NICs", around_cleanups, Nics, ROUNDS)


def test_around_a_running_sweep():
    play("sweep, one NIC", around_sweeps, Ground, ROUNDS)


def test_around_a_running_sweep_on_several_nics():
    play("sweep, several NICs", around_sweeps, Nics, ROUNDS)


# ---------------------------------------------------------------- many at once, namespaces that go


def test_300_rounds_of_12_cleanups_at_once(pod):
    before, outcomes = pod.state(), collections.Counter()

    def clean(_):
        return nlraw.cleanup(netns=pod.path).outcome

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for number in range(300):
            is_redirected = bool(number % 2)
            if is_redirected:
                nlraw.setup(netns=pod.path)
            pod.add_taps("tap%d_urunc" % each for each in range(is_redirected, 1 + number % 5))
            outcomes.update(pool.map(clean, range(12)))
            assert not [name for name in pod.links() if name.startswith("tap")]
    assert pod.state() == before
    print("\n300 rounds of 12 cleanups of one namespace at once: %s" % dict(outcomes))
    assert set(outcomes) == {"clean", "cleaned"}


def pinned(path):
    """Make a namespace with an uplink and an orphan that lives as long as the descriptor returned.

    The path leads to it.
    """
    with nlraw.netns.create() as namespace:
        nodes.furnish(namespace, ["tap0_urunc"], fresh=True)
        # whose number nobody gets when it is closed
        fd = fcntl.fcntl(namespace.fileno(), fcntl.F_DUPFD_CLOEXEC, 800)
    path.symlink_to("/proc/%d/fd/%d" % (os.getpid(), fd))
    return fd


def test_300_sweeps_of_12_namespaces_of_which_half_go_meanwhile(make_pod, tmp_path):
    chance, counts = random.Random(SEED), collections.Counter()
    for number in range(300):
        namespaces = [pinned(tmp_path / ("%d-%d" % (number, place))) for place in range(12)]
        doomed = chance.sample(namespaces, 6)
        pauses = [chance.uniform(0, 0.004) for _ in doomed]

        def go(doomed=doomed, pauses=pauses):
            for fd, pause in zip(doomed, pauses):
                time.sleep(pause)
                os.close(fd)

        thread = threading.Thread(target=go)
        thread.start()
        swept = nlraw.sweep(dirs=[str(tmp_path)], include_fresh=True)
        thread.join()
        counts.update(report.outcome for report in swept.namespaces)
        counts["gone"] += 12 - len(swept.namespaces)
        assert [report.error for report in swept.namespaces if report.error] == []
        for fd in set(namespaces).difference(doomed):
            with open(fd) as file:
                assert nlraw.scan(netns=file) == ()
        for path in tmp_path.iterdir():
            path.unlink()
    print("\n300 sweeps of 12 namespaces, of which half go meanwhile: %s" % dict(counts))
    assert set(counts) == {"cleaned", "gone"}

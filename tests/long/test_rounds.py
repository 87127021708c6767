# SPDX-License-Identifier: Apache-2.0
"""10,000 rounds of attach, release, recreate and rename around a running cleanup or sweep.

    pytest -s tests/long/test_rounds.py

What a round is, and what it may lose, is in tests/lib/rounds.py.
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
from lib import nodes, rounds
from lib.rounds import KINDS, SEED, check, delays, play_around_cleanups

ROUNDS = 10000


@pytest.fixture
def make_ground(make_pod, monkeypatch):
    yield from rounds.grounds(make_pod, monkeypatch)


def test_around_a_running_cleanup(make_ground):
    play_around_cleanups(make_ground(), ROUNDS)


NAMESPACES = 8


def test_around_a_running_sweep(make_ground, tmp_path):
    grounds = []
    for number in range(NAMESPACES):
        path = str(tmp_path / ("pod%d" % number))
        grounds.append(make_ground(path))
        os.symlink(grounds[-1].pod.path, path)
    started = time.monotonic()
    for number in range(ROUNDS // NAMESPACES):
        kind = KINDS[number % len(KINDS)]
        ours = delays(kind, grounds[0].chance, before=0)[1]
        for ground in grounds:
            ground.begin(kind, delays(kind, ground.chance, before=0.02)[0])
        for ground in grounds:
            ground.rival.wait_until_set()
        time.sleep(ours)
        swept = nlraw.sweep(dirs=[str(tmp_path)], include_fresh=True)
        for report in swept.namespaces:
            assert report.error is None or rounds.is_expected(report.error), report
        for ground in grounds:
            ground.end()
    check("sweep", grounds, time.monotonic() - started)


# ---------------------------------------------------------------- many at once, namespaces that go


def test_300_rounds_of_12_cleanups_at_once(make_ground):
    ground = make_ground()
    before, outcomes = ground.pod.state(), collections.Counter()

    def clean(_):
        return nlraw.cleanup(netns=ground.pod.path).outcome

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for number in range(300):
            ground.prepare(1 + number % 5, redirected=bool(number % 2))
            outcomes.update(pool.map(clean, range(12)))
            assert not [name for name in ground.pod.links() if name.startswith("tap")]
    assert ground.pod.state() == before
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

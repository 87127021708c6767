# SPDX-License-Identifier: Apache-2.0
"""How soon is a dead VMM's TAP gone, and what does an agent cost while nothing happens?

    name free    from SIGKILL to the kernel's announcement that the TAP is deleted (RTM_DELLINK):
                 from then on a process can create a TAP of that name
    link gone    from SIGKILL until the remover has the kernel's answer and has reported it
    deaths each second
                 the same, while 20 VMMs die each second, and as many start
    flapping     processor time in a second while 2,000 veths of a watched namespace flap
    resync       processor time of a look at all namespaces, none of which has an orphan
    idle         processor time in a second between two such looks
    start        from the start of the agent until it watches
    resident     its memory after some resyncs

Of many VMMs that die at once, the last one counts. All have the redirects. The floor finds the
link's index in the event, deletes the link and does nothing else. Beside it: the hook of a
container that starts when the VMM has died, Go that polls each second, and a sweep each minute. The
figure of the sweep is computed: half a minute, and the time that the sweep was measured to take.
"""

import os
import random
import time

from . import lab
from .agents import PATIENCE, TAP, Agent, Field
from .coldstart import state_of
from .pods import NotDone
from .timing import Row, in_turn

SIZES = (1, 8, 64)
QUICK_SIZES = (1, 64)

HOOK, SWEEP = "nlraw hook, started at once", "nlraw sweep each minute, expected"

# Removals before the first that counts: CPython adapts a function's bytecode.
WARM = 4

DEATHS_A_SECOND = 20
VETHS = 2000

WATCHED = (1, 10, 100, 1000)
QUICK_WATCHED = (1, 1000)

# Seconds without work after which the work is over.
STILL = 0.25


def measure(laboratory):
    if lab.NODE not in laboratory.peers:
        return []
    with laboratory.pod() as home, laboratory.worker(lab.NODE, home) as node, laboratory.worker(
        lab.NLRAW, home
    ) as starter:
        rows = _deaths(laboratory, home, node, starter)
        rows += _flapping(laboratory, home, node)
        rows += _many(laboratory, home)
    return rows


def watching(laboratory, home, directory, *options):
    """`nlraw watch`, ready."""
    argv = laboratory.nlraw("watch", "-j", "--dir", directory, *options)
    return Agent(argv, home, os.path.join(laboratory.directory, "notify"))


def last_of(samples, share):
    """The sample that so many are not above."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


# ---------------------------------------------------------------- VMMs that die


def _deaths(laboratory, home, node, starter):
    quick = laboratory.quick
    sizes = QUICK_SIZES if quick else SIZES
    most = max(sizes)
    ours, floors, others = (Field(laboratory, most, node, starter) for _ in range(3))
    rows = []
    reaper = laboratory.peers[lab.REAPER] + floors.paths
    with watching(laboratory, home, ours.directory) as agent, Agent(reaper, home) as floor:
        for size in sizes:
            contenders = {
                lab.NLRAW: _dying(ours, size, agent, lab.NLRAW),
                lab.FLOOR: _dying(floors, size, floor, lab.FLOOR),
            }
            for _ in range(WARM if size == 1 else 1):
                for contender in contenders.values():
                    contender()
            turns = (21 if size == 1 else 3) if quick else (101 if size == 1 else 11)
            told = in_turn(contenders, turns, 90)
            rows += _rows_of(size, told)
            if size == 1:
                rows += _tails(told)
        rows += _twenty(ours, agent, lab.NLRAW, 5 if quick else 60)
        if not quick:
            rows += _twenty(floors, floor, lab.FLOOR, 20)
    rows += _others(laboratory, home, others, sizes)
    for field in (ours, floors, others):
        field.close()
    return rows


def _rows_of(size, told):
    return [
        Row("watch", what, size, who, [answer[what] for answer in answers])
        for who, answers in told.items()
        for what in ("name free", "link gone")
        if what in answers[0]
    ]


def _tails(told):
    return [
        Row(
            "watch",
            what + ", 95th percentile",
            1,
            who,
            [last_of([answer[what] for answer in answers], 0.95)],
        )
        for who, answers in told.items()
        for what in ("name free", "link gone")
    ]


def _dying(field, size, agent, who, ready=lambda: None):
    """So many die at once, and an agent watches."""

    def turn():
        paths = field.start_some(size)
        ready()
        agent.removals()
        told = field.node.do("die", PATIENCE, frees=size)
        gone = max(agent.wait(paths).values())
        field.check_clean(size, who)
        return {"name free": told["seconds"], "link gone": (gone - told["killed"]) / 1e9}

    return turn


def _twenty(field, agent, who, seconds):
    """Twenty die each second, for so many seconds, and are started again."""
    field.start_some(len(field.paths))
    ready, dying, cleaned, taken = list(field.paths), {}, [], []
    agent.removals()

    def go_on():
        """Take in who is gone, and start one again."""
        for path, when in agent.removals().items():
            if path not in dying:
                raise NotDone("%s was cleaned up while its VMM was alive" % path)
            taken.append((when - dying.pop(path)) / 1e9)
            cleaned.append(path)
        if cleaned:
            field.start(cleaned[0])
            ready.append(cleaned.pop(0))
        time.sleep(0.0005)

    begun = due = time.monotonic()
    for _ in range(seconds * DEATHS_A_SECOND):
        while time.monotonic() < due or not ready:  # a busy machine starts fewer
            go_on()
        path = ready.pop(0)
        dying[path] = field.node.do("kill", path)["killed"]
        due = max(due + 1 / DEATHS_A_SECOND, time.monotonic() - 1)
    rate = seconds * DEATHS_A_SECOND / (time.monotonic() - begun)
    taken += [(when - dying[path]) / 1e9 for path, when in agent.wait(dying).items()]
    field.node.do("die", PATIENCE, frees=len(ready))
    agent.wait(ready)
    field.check_clean(len(field.pods), who)
    what = "deaths each second"
    return [
        Row("watch", what, DEATHS_A_SECOND, who, taken),
        Row("watch", what + ", the latest", DEATHS_A_SECOND, who, [max(taken)]),
        Row("watch", what + ", in fact", DEATHS_A_SECOND, who, [rate], "VMMs a second"),
    ]


# ---------------------------------------------------------------- what does not watch


def _others(laboratory, home, field, sizes):
    rows = []
    with laboratory.worker(lab.NLRAW, field.pods[0]) as inside:
        state = state_of(laboratory, inside.process.pid)
        for size in sizes[:1] if laboratory.quick else sizes:
            contenders = {SWEEP: _swept(laboratory, home, field, size)}
            if size == 1:
                contenders[HOOK] = _hooked(laboratory, home, field, state)
            rows += _rows_of(size, in_turn(contenders, 3 if laboratory.quick else 7, 20))
    if lab.GO in laboratory.peers and not laboratory.quick:
        with Agent(laboratory.peers[lab.GO] + ["poll", field.directory], home) as agent:
            agent.pause()
            for size in sizes:
                rows += _rows_of(size, in_turn({lab.GO: _polled(field, size, agent)}, 7, 20))
    return rows


def _hooked(laboratory, home, field, state):
    argv = laboratory.nlraw("hook")

    def turn():
        (path,) = field.start_some(1)
        killed = field.node.do("kill", path)["killed"]
        lab.spawn_well(argv, home, fed=state)
        gone = time.monotonic_ns()
        field.check_clean(1, HOOK)
        return {"link gone": (gone - killed) / 1e9}

    return turn


def _swept(laboratory, home, field, size):
    argv = laboratory.nlraw("sweep", "--dir", field.directory)

    def turn():
        for path in field.start_some(size):
            field.node.do("kill", path)
        seconds = lab.spawn_well(argv, home)
        field.check_clean(size, SWEEP)
        return {"link gone": 30 + seconds}

    return turn


def _polled(field, size, agent):
    def ready():
        # who looks at RUNNING takes a VMM that starts for one that has died
        for pod in field.pods[:size]:
            pod.settle(TAP, is_running=True)
        agent.resume()
        time.sleep(random.uniform(1, 2))

    dying = _dying(field, size, agent, lab.GO, ready)

    def turn():
        told = dying()
        agent.pause()
        return told

    return turn


# ---------------------------------------------------------------- nothing to do


def _flapping(laboratory, home, node):
    directory = laboratory.new_directory()
    with laboratory.pod(directory) as pod:
        pod.fill(VETHS + 1)
        with watching(laboratory, home, directory) as agent:
            node.do("enter", pod.path)
            node.do("flap", 0)
            _still(agent)
            before = agent.processor_time()
            told = node.do("flap", 3 if laboratory.quick else 20)
            spent = agent.processor_time() - before
            node.do("enter", home.path)
    seconds = told["seconds"]
    return [
        Row("watch", "flapping", VETHS, lab.NLRAW, [spent / seconds]),
        Row("watch", "flapping, events a second", VETHS, "", [told["events"] / seconds], "events"),
    ]


def _many(laboratory, home):
    """Start, memory and processor time, with more and more namespaces."""
    rows = []
    directory, pods = laboratory.new_directory(), []
    for size in QUICK_WATCHED if laboratory.quick else WATCHED:
        while len(pods) < size:
            pods.append(laboratory.pod(directory))
            pods[-1].uplink()
        starts = []
        for _ in range(1 if laboratory.quick else 5):
            with watching(laboratory, home, directory) as agent:
                starts.append(agent.ready)
                _still(agent)
        with watching(laboratory, home, directory) as agent:
            time.sleep(1)  # it writes its status a second after its start
            _still(agent)
            idle = _spent(agent, 3 if laboratory.quick else 5)
        # a look each second: what it takes in a second is what a look takes
        with watching(laboratory, home, directory, "--resync", "1") as agent:
            _still(agent)
            looks = [_spent(agent, 2) for _ in range(2 if laboratory.quick else 5)]
            resident = agent.resident()
        rows.append(Row("watch", "start", size, lab.NLRAW, starts))
        rows.append(Row("watch", "resync", size, lab.NLRAW, looks))
        rows.append(Row("watch", "idle", size, lab.NLRAW, [idle]))
        rows.append(Row("watch", "resident", size, lab.NLRAW, [resident], "KiB"))
    for pod in pods:
        pod.close()
    return rows


def _spent(agent, seconds):
    """The processor time that it takes in a second."""
    before = agent.processor_time()
    time.sleep(seconds)
    return (agent.processor_time() - before) / seconds


def _still(agent):
    """Wait until it has nothing to do."""
    last, changed = None, time.monotonic()
    while time.monotonic() - changed < STILL:
        time.sleep(0.01)
        spent = agent.processor_time()
        if spent != last:
            last, changed = spent, time.monotonic()

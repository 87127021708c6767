# SPDX-License-Identifier: Apache-2.0
"""Runs of everything that asks the kernel against a model of it, and what must come of them.

Hypothesis picks the namespace and what befalls each answer (tests/lib/model.py). Whatever it picks:
there is an answer or one of our errors, in time; an answer is the one that the model meant; and
nothing goes that is in use or not ours. Time is the model's own.
"""

import collections
import copy

from hypothesis import strategies as st

import nlraw
import nlraw.route
from lib import build, model, random_pods
from nlraw import inet, link, node, orphans, tc
from nlraw.errors import Interrupted, Lost, Malformed, Refused, TapInUse
from nlraw.route import Route

PATH = model.Place.path
SILENCE = nlraw.route.SILENCE


Way = collections.namedtuple("Way", "run uplink changes spare_fresh")


def visit(dry_run, **options):
    """What a sweep does in one namespace."""
    target = orphans.Target(orphans.MATCH, orphans.UPLINK, **options)

    def run():
        visit = node._Visit(PATH, target)
        visit.look(dry_run)
        if visit.work:
            visit.clean_up()
        if visit.report.error is not None:
            raise visit.report.error
        return visit.report

    return run


# By name: how it is called, which uplink it wants, whether it may change anything, whether it
# spares fresh orphans.
WAYS = {
    "scan": Way(lambda: nlraw.scan(PATH), "eth0", False, False),
    "survey": Way(lambda: orphans.survey(PATH), "eth0", False, False),
    "dry run": Way(lambda: nlraw.cleanup(PATH, dry_run=True), "eth0", False, False),
    "cleanup": Way(lambda: nlraw.cleanup(PATH), "eth0", True, False),
    "cleanup auto": Way(lambda: nlraw.cleanup(PATH, uplink="auto"), "auto", True, False),
    "cleanup none": Way(lambda: nlraw.cleanup(PATH, uplink="none"), "none", True, False),
    "setup": Way(lambda: nlraw.setup(PATH), "eth0", True, False),
    "look of a sweep": Way(visit(dry_run=True), "eth0", False, False),
    "sweep": Way(visit(dry_run=False, spare_fresh=True), "eth0", True, True),
}

CHANGING = sorted(name for name, way in WAYS.items() if way.changes)


def fault(*names):
    return st.tuples(st.sampled_from(names), st.integers(0, 9999))


def faults(*names):
    """Some, one for each datagram, all being right afterwards.

    Or now and then one that does not end.
    """
    few, endless = st.lists(fault(*names), max_size=8), fault(*names).map(lambda each: [each] * 60)
    return st.one_of(few, few, few, endless)


@st.composite
def kernels(draw):
    """A pod of any sort, in which nothing moves."""
    made = draw(random_pods.namespaces())
    return model.Kernel(made.links, made.qdiscs, made.filters)


FIT = sorted(model.FIT)
ALL = FIT + sorted(model.UNFIT)
HOSTILE = ALL + ["lie"] * len(ALL)

# ---------------------------------------------------------------- runs

# What became of it: what was returned, or which error ended it; and how many datagrams were sent by
# then.

TALLY = collections.Counter()


def play(kernel, way, befalling, taken=0.0, window=nlraw.route.WINDOW):
    """Run it against the model.

    Return what it returned, and the error, and check that it ended in one of the two, in time.
    """
    kernel.faults, kernel.taken = list(befalling), taken
    kernel.uplink_known = way.uplink != "none"
    error = result = None
    with model.played(kernel, window):
        try:
            result = way.run()
        except (nlraw.Error, model.Signal) as caught:
            error = caught
    met = sum(count for name, count in kernel.met.items() if name != "right")
    limit = met * (SILENCE + 2 * model.CHATTER) + sum(kernel.met.values()) * 0.01 + taken + 0.1
    # each message of such an answer may take as long as a silence
    limit += kernel.met["slow"] * SILENCE * 600
    assert kernel.now <= limit, "took %.1f s" % kernel.now
    assert all(socket.closed for socket in kernel.sockets)
    TALLY["runs"] += 1
    TALLY["datagrams"] += sum(kernel.met.values())
    TALLY[
        "ended in " + (type(error).__name__ if error else getattr(result, "outcome", "a list"))
    ] += 1
    for name, count in kernel.met.items():
        TALLY["answers: " + name] += count
    return result, error


def check(before, kernel, name, result, error):
    """Hold what is left against what was there, by the contract's words."""
    way = WAYS[name]
    uplink = way.uplink in ("auto", "none") or before.links[0].name == way.uplink
    used = any(random_pods.is_used(each) for each in before.links if random_pods.is_ours(each))
    doomed = random_pods.doomed(before, way.spare_fresh)
    may = way.changes and uplink and not used
    if not may:
        assert kernel.changes == [] and repr(kernel) == repr(before)
    random_pods.check_nothing_else_gone(
        before, kernel, doomed if may else set(), way.uplink != "none"
    )
    if isinstance(error, TapInUse):
        assert uplink and used
    elif error is None and name == "scan":
        expected = [
            (each.name, each.ifindex, random_pods.is_used(each))
            for each in before.links
            if random_pods.is_ours(each)
        ]
        assert [(tap.ifname, tap.ifindex, tap.verdict == "in-use") for tap in result] == expected
    elif error is None:
        work = doomed or random_pods.gone(before, doomed, way.uplink != "none")
        outcome = "cleaned" if way.changes else "would-clean"
        assert result.outcome == (
            "skipped" if not uplink else "in-use" if used else outcome if work else "clean"
        )
        if may:
            random_pods.check_all_gone(before, kernel, doomed, way.uplink != "none")
            assert {tap.ifindex for tap in result.taps if tap.deleted} == doomed


def run(kernel, name, befalling, taken=0.0):
    before = copy.deepcopy(kernel)
    result, error = play(kernel, WAYS[name], befalling, taken)
    if (
        name == "setup"
        and isinstance(error, nlraw.Error)
        and error.report.cleanup.outcome in ("clean", "cleaned", "skipped")
    ):
        result, error = error.report.cleanup, None  # that half is done, and the model makes no TAP
    check(before, kernel, name, result, error)
    return error


def with_any_answers(kernel, name, befalling, taken):
    error = run(kernel, name, befalling, taken)
    assert error is None or isinstance(
        error, (TapInUse, Lost, Interrupted, Malformed, Refused, model.Signal)
    )


def with_right_answers(kernel, name, befalling, taken):
    error = run(kernel, name, befalling, taken)
    if sum(what == "torn" for what, _ in befalling) < nlraw.route.ATTEMPTS:
        assert error is None or isinstance(error, TapInUse)
    elif error is not None:
        assert isinstance(error, (TapInUse, Interrupted))


def with_one_lie(kernel, name, befalling, taken, place):
    """Links are read twice before they go, so one wrong answer deletes nothing that is in use."""
    doomed = {each.ifindex for each in kernel.links if model.is_orphan(each)}
    # of filters it believes the one list: what it leaves is not held against it
    kernel.refused = True
    befalling = befalling[:place] + [("lie", place)] + befalling[place:]
    play(kernel, WAYS[name], befalling, taken)
    assert set(kernel.deleted) <= doomed


def with_lies(kernel, name, befalling, taken):
    """From a kernel that says anything at all nobody can learn what is in use.

    But it ends, and in what it should.
    """
    kernel.rules = False
    play(kernel, WAYS[name], befalling, taken)
    if not WAYS[name].changes:
        assert kernel.changes == []


TAKEN = st.sampled_from([0.0, 0.0, 0.5, nlraw.route.PATIENCE - 1, 10.0])

# ---------------------------------------------------------------- requests as such


def questions():
    """Requests that only read, of links, qdiscs and filters that are there and that are not."""
    indexes = st.sampled_from([2, 3, 4, 5, 6, 99])
    return st.lists(
        st.one_of(
            st.builds(link.get, indexes, st.just("")),
            st.builds(link.find, st.sampled_from(["eth0", "tap0_urunc", "nobody"])),
            st.builds(link.dump, st.sampled_from([None, "tun", "veth"])),
            st.builds(tc.dump_qdiscs),
            st.builds(
                tc.dump_filters,
                indexes,
                st.sampled_from([random_pods.INGRESS, random_pods.CLSACT_IN, random_pods.HTB]),
                st.just(""),
            ),
            st.builds(inet.dump_routes, st.sampled_from([inet.AF_INET, inet.AF_INET6])),
        ),
        min_size=1,
        max_size=12,
    )


def told(replies):
    return [
        (reply.error.errno, reply.error.words)
        if reply.error is not None
        else [message.payload for message in build.named(reply.messages)]
        for reply in replies
    ]


def with_questions(kernel, asked, befalling, window):
    truth = copy.deepcopy(kernel)
    kernel.faults = list(befalling)
    endless = len(befalling) >= nlraw.route.ATTEMPTS
    with model.played(kernel, window), Route(model.Place(kernel)) as route:
        try:
            answers = told(route.query(*asked))
        except (nlraw.Error, model.Signal) as error:
            fit = not {name for name, _ in befalling} - set(model.FIT)
            assert not fit or (endless and isinstance(error, Interrupted))
            return
    with model.played(truth), Route(model.Place(truth)) as route:
        assert answers == told(route.query(*asked))


WINDOWS = st.sampled_from([1, 3, nlraw.route.WINDOW])

# ---------------------------------------------------------------- many orphans, and what happens

TAPS = st.lists(st.tuples(st.sampled_from([0, 77]), st.booleans()), min_size=1, max_size=6)
ALIVE = sorted(model.EVENTS) + sorted(set(model.DISTURBANCES) - {"killed"})
EVENTS = st.lists(
    st.tuples(st.integers(0, 45), st.sampled_from(ALIVE), st.integers(0, 5)), max_size=6
)


def with_events(taps, events, name, befalling, window):
    """The model's rule: what was last read of a link, unchanged since, must be an orphan."""
    kernel = model.a_kernel(taps, events)
    _, error = play(kernel, WAYS[name], befalling, window=window)
    assert error is None or isinstance(error, (nlraw.Error, model.Signal))
    assert [each.targets for each in kernel.filters if each.handle == each.priority == 1] == [
        [model.PEER0]
    ]
    assert {model.ETH0, model.PEER0} <= {each.ifindex for each in kernel.links}
    if not WAYS[name].changes:
        assert kernel.changes == []

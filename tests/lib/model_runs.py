# SPDX-License-Identifier: Apache-2.0
"""Runs of everything that asks the kernel against a model of it, and what must come of them.

Hypothesis picks the namespace and what happens to each answer (tests/lib/model.py). Whatever it
picks: there is a report, in time; an answer is the one that the model meant; and nothing goes that
is in use or not ours. Time is the model's own.
"""

import collections
import copy

from hypothesis import strategies as st

from lib import build, model, random_pods
from nlraw import inet, link, tc
from nlraw.connection import ATTEMPTS, SILENCE, WINDOW
from nlraw.errors import DumpInterrupted, Error, Lost, Malformed, Refused, TapInUse, TooMuch
from nlraw.marks import MARK
from nlraw.observe import groups_of
from nlraw.pod import list_taps, preview, remove
from nlraw.provision import provide
from nlraw.removal import GROUP_FROM, ROUNDS
from nlraw.transport import PATIENCE, Allowance, Patience
from nlraw.verdict import Target
from nlraw.visit import Visit
from nlraw.wanted import Wanted

Way = collections.namedtuple("Way", "run target changes")

POD, AUTO, NONE = Target(), Target(uplink="auto"), Target(uplink="none")
BESIDE = Target(keep_in_use=True)
SPARING = Target(spare_fresh=True)


def scan(kernel, target, allowance):
    with model.connect(model.Place(kernel), allowance=allowance) as connection:
        return list_taps(connection, target)


def show(kernel, target, allowance):
    options = {"groups": groups_of(target), "allowance": allowance}
    with model.connect(model.Place(kernel), **options) as connection:
        return preview(connection, target)


def clean_up(kernel, target, allowance, is_dry=False):
    options = {"groups": groups_of(target), "allowance": allowance}
    with model.connect(model.Place(kernel), not is_dry, **options) as connection:
        return remove(connection, target, is_dry)


def dry_run(kernel, target, allowance):
    return clean_up(kernel, target, allowance, is_dry=True)


def set_up(kernel, target, allowance):
    """The cleanup of a setup: then it fails, because the model makes no TAP."""
    place, options = model.Place(kernel), {"groups": groups_of(target), "allowance": allowance}
    with model.connect(place, True, **options) as connection:
        made = provide(place, connection, Wanted(target), create=model.no_tap)
    return made if made.cleanup.error is not None else made.cleanup


def visit(is_dry):
    """What a sweep does in one namespace."""

    def run(kernel, target, allowance):
        def connect(namespace, **options):
            options["allowance"] = allowance
            return model.connect(namespace, **options)

        def open_namespace(path):
            assert path == model.Place.path
            return model.Place(kernel)

        visit = Visit(model.Place.path, target, Patience(), connect, open_namespace)
        visit.look(is_dry)
        if visit.is_work:
            visit.clean_up()
        return visit.report

    return run


# By name: how it is called, and whether it may change anything.
WAYS = {
    "scan": Way(scan, POD, False),
    "preview": Way(show, POD, False),
    "dry run": Way(dry_run, POD, False),
    "dry run auto": Way(dry_run, AUTO, False),
    "cleanup": Way(clean_up, POD, True),
    "cleanup auto": Way(clean_up, AUTO, True),
    "cleanup none": Way(clean_up, NONE, True),
    "cleanup beside": Way(clean_up, BESIDE, True),
    "setup": Way(set_up, POD, True),
    "look of a sweep": Way(visit(is_dry=True), POD, False),
    "sweep": Way(visit(is_dry=False), SPARING, True),
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
    kernel = model.Kernel(made.links, made.qdiscs, made.filters)
    kernel.chains = made.chains
    return kernel


FIT = sorted(model.FIT)
ALL = FIT + sorted(model.UNFIT)
HOSTILE = ALL + ["lie"] * len(ALL)

# After one of these it looks again: an event arrived, or what may have been one.
DISQUIETING = ("stale", "strays", "twice", "resumed")

# ---------------------------------------------------------------- runs

# What became of it: which outcome, or which error ended it; and how many datagrams were sent by
# then.

TALLY = collections.Counter()


def play(kernel, name, happening, taken=0.0, window=WINDOW, allowance=None):
    """Run it against the model, with what happens to the answers.

    Return what it returned, and the error, and check that it ended in time. An error is in the
    report; `scan` raises it.
    """
    way = WAYS[name]
    kernel.faults, kernel.taken = list(happening), taken
    kernel.uplink_known = way.target.uplink != "none"
    kernel.keeps_used = way.target.keep_in_use
    kernel.spares_fresh = way.target.spare_fresh
    kernel.needs_port = taken < PATIENCE
    error = result = None
    with model.window_of(window):
        try:
            result = way.run(kernel, way.target, allowance)
        except model.Signal as caught:
            error = caught
        except Error as caught:
            assert name == "scan", "an error that is not in the report"
            error = caught
    if name != "scan" and result is not None:
        error = result.error
        if result.outcome == "in-use":
            assert error is None or isinstance(error, TapInUse)
        else:
            assert (error is not None) == (result.outcome == "failed")
    met = sum(count for what, count in kernel.met.items() if what != "right")
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
    for what, count in kernel.met.items():
        TALLY["answers: " + what] += count
    return result, error


def check(before, kernel, name, result, error):
    """Hold what is left against what was there, by the contract's words."""
    way, target = WAYS[name], WAYS[name].target
    known = target.uplink != "none"
    uplink = not target.uplinks or before.links[0].name in target.uplinks
    used = random_pods.has_used(before)
    doomed = random_pods.doomed(before, target.spare_fresh)
    stops = used and not target.keep_in_use
    may = way.changes and uplink and not stops
    if not may:
        assert kernel.changes == [] and repr(kernel) == repr(before)
    random_pods.check_nothing_else_gone(before, kernel, doomed if may else set(), known)
    assert set(before.chains) - set(kernel.chains) <= {
        place for place in before.chains if place[0] in doomed
    }
    if isinstance(error, TapInUse):
        assert uplink and stops
    elif error is None and name == "scan":
        expected = [
            (each.name, each.ifindex, random_pods.is_used(each, before.links))
            for each in before.links
            if random_pods.is_ours(each)
        ]
        assert [(tap.ifname, tap.ifindex, tap.verdict == "in-use") for tap in result] == expected
    elif error is None:
        work = doomed or random_pods.gone(before, doomed, known)
        outcome = "cleaned" if way.changes else "would-clean"
        assert result.outcome == (
            "skipped" if not uplink else "in-use" if stops else outcome if work else "clean"
        )
        if may:
            random_pods.check_all_gone(before, kernel, doomed, known)
            assert {tap.ifindex for tap in result.taps if tap.deleted} == doomed


def run(kernel, name, happening, taken=0.0):
    before = copy.deepcopy(kernel)
    result, error = play(kernel, name, happening, taken)
    check(before, kernel, name, result, error)
    return error


def is_unsteady(error):
    """Whether a cleanup gave up because the namespace changed each time it looked."""
    return type(error) is Error and "changed each time" in error.message


def with_any_answers(kernel, name, happening, taken):
    error = run(kernel, name, happening, taken)
    assert (
        error is None
        or is_unsteady(error)
        or isinstance(error, (TapInUse, Lost, DumpInterrupted, Malformed, Refused, model.Signal))
    )


def with_right_answers(kernel, name, happening, taken):
    error = run(kernel, name, happening, taken)
    if error is None or isinstance(error, TapInUse):
        return
    counts = collections.Counter(what for what, _ in happening)
    if isinstance(error, DumpInterrupted):
        assert counts["torn"] >= ATTEMPTS
    else:
        assert is_unsteady(error) and sum(map(counts.__getitem__, DISQUIETING)) >= ROUNDS


def with_one_lie(kernel, name, happening, taken, place):
    """Links are read twice before they go, so one wrong answer deletes nothing that is in use."""
    doomed = kernel.orphans()
    kernel.has_tc_rules = False  # of filters it believes the one list
    happening = happening[:place] + [("lie", place)] + happening[place:]
    play(kernel, name, happening, taken)
    assert set(kernel.deleted) <= doomed


def with_lies(kernel, name, happening, taken):
    """From a kernel that says anything at all nobody can learn what is in use.

    But it ends, and in what it should.
    """
    kernel.rules = False
    play(kernel, name, happening, taken)
    if not WAYS[name].changes:
        assert kernel.changes == []


def with_an_allowance(kernel, name, happening, limits):
    """Whatever the limits are, they are an error of the report, and what is done is in it."""
    before = copy.deepcopy(kernel)
    result, error = play(kernel, name, happening, allowance=allowance_of(limits))
    check(before, kernel, name, result, error)
    if isinstance(error, TooMuch) and name != "scan":
        left = {each.ifindex for each in kernel.links}
        report = getattr(result, "cleanup", result)
        assert {tap.ifindex for tap in report.taps if tap.deleted} == (
            {each.ifindex for each in before.links} - left
        )


TAKEN = st.sampled_from([0.0, 0.0, 0.5, PATIENCE - 1, 10.0])

# Messages of a look, and datagrams in all, as far as processor time goes.
LIMITS = st.one_of(
    st.tuples(st.integers(0, 40), st.just(1000)), st.tuples(st.just(1000), st.integers(0, 15))
)


def allowance_of(limits):
    messages, datagrams = limits
    return Allowance(messages, seconds=(datagrams + 0.5) * model.PROCESSOR_TIME)


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
            st.builds(tc.dump_chains, indexes, st.just(random_pods.INGRESS), st.just("")),
            st.builds(inet.dump_routes, st.sampled_from([inet.AF_INET, inet.AF_INET6])),
        ),
        min_size=1,
        max_size=12,
    )


def answered(replies):
    return [
        (reply.error.errno, reply.error.words)
        if reply.error is not None
        else [message.payload for message in build.named(reply.messages)]
        for reply in replies
    ]


def with_questions(kernel, asked, happening, window):
    truth = copy.deepcopy(kernel)
    kernel.faults = list(happening)
    is_endless = len(happening) >= ATTEMPTS
    with model.window_of(window), model.connect(model.Place(kernel)) as connection:
        try:
            answers = answered(connection.ask(*asked))
        except (Error, model.Signal) as error:
            is_fit = not {name for name, _ in happening} - set(model.FIT)
            assert not is_fit or (is_endless and isinstance(error, DumpInterrupted))
            return
    with model.connect(model.Place(truth)) as connection:
        assert answers == answered(connection.ask(*asked))


WINDOWS = st.sampled_from([1, 3, WINDOW])

# ---------------------------------------------------------------- many orphans, and what happens

TAPS = st.lists(st.tuples(st.sampled_from([0, 77]), st.booleans()), min_size=1, max_size=6)
EVENTS = st.lists(
    st.tuples(st.integers(0, 45), st.sampled_from(model.ALIVE), st.integers(0, 5)), max_size=6
)


def with_events(taps, events, is_shared, name, happening, window):
    """The model's rule: what was last read of a link, unchanged since, must be an orphan."""
    kernel = model.a_kernel(taps, events, is_shared)
    play(kernel, name, happening, window=window)
    check_foreign(kernel)
    assert {model.ETH0, model.PEER0} <= {each.ifindex for each in kernel.links}
    if not WAYS[name].changes:
        assert kernel.changes == []


# ---------------------------------------------------------------- a cleanup of many, by its parts


def taps_of(groups, least):
    """Pairs of group and whether fresh, for `model.a_kernel`."""
    each = st.tuples(st.sampled_from(groups), st.booleans())
    return st.lists(each, min_size=least, max_size=6)


def events(*names):
    """What happens before which request, and to which TAP."""
    each = st.tuples(st.integers(0, 45), st.sampled_from(names), st.integers(0, 5))
    return st.lists(each, max_size=8)


ANY_TAPS = taps_of([0, 0, 77, 4000000000, MARK | 5], 1)
MANY_TAPS = taps_of([0, 77, MARK | 5], GROUP_FROM)
HAPPENING = events(*model.ALIVE)
CHANGES_BY_OTHERS = events(*model.EVENTS, *model.TC_EVENTS)


def is_spared(each):
    """Whether it has been a fresh TAP all the time."""
    return random_pods.is_ours(each) and not each.changed and not each.facts["up_count"]


def check_foreign(kernel):
    """The filters that somebody else had from the beginning are left."""
    left = {each.handle for each in kernel.filters if each.targets == [model.PEER0]}
    assert kernel.foreign <= left


def check_outcome(kernel, report):
    """What is somebody else's is left, and the outcome is what it should be."""
    error = report.error
    check_foreign(kernel)
    if kernel.spares_fresh and any(is_spared(each) for each in kernel.links):
        assert model.ETH0 in {each.ifindex for each in kernel.qdiscs}, "the ingress of a start"
    if error is None:
        assert report.outcome in ("clean", "cleaned")
    elif isinstance(error, TapInUse):
        assert report.outcome == "in-use"
    else:
        assert report.outcome == "failed"
        is_expected = isinstance(error, (DumpInterrupted, Refused, Lost))
        assert is_expected or is_unsteady(error) or "came into use" in error.message


def check_groups(kernel):
    """All that are left are in their former groups."""
    for each in kernel.links:
        assert each.home in (None, each.group), each


def check_claim(kernel, report):
    """If nothing was changed by its own words, then nothing was."""
    if report.outcome == "in-use" or "nothing was changed" in str(report.error):
        assert kernel.deletions == 0


def check_deleted(kernel, report):
    """What was deleted is reported, once, and what is reported is gone."""
    assert len(set(report.tc_removed)) == len(report.tc_removed)
    reported = {tap.ifindex for tap in report.taps if tap.deleted}
    assert set(kernel.deleted) - {model.STRANGER} <= reported
    assert not reported & {each.ifindex for each in kernel.links if not each.changed}


def with_many(taps, happening, is_shared, window, spare_fresh):
    """A cleanup of many orphans, whatever happens meanwhile."""
    kernel = model.a_kernel(taps, happening, is_shared)
    report = model.cleaned(kernel, window, spare_fresh)
    check_outcome(kernel, report)
    check_groups(kernel)
    check_claim(kernel, report)
    check_deleted(kernel, report)


def with_a_kill(taps, happening, is_shared, moment, window):
    """After a kill at any moment the next run finishes."""
    kernel = model.a_kernel(taps, happening + [(moment, "killed", 0)], is_shared)
    try:
        model.cleaned(kernel, window)
    except model.Killed:
        pass
    kernel.dead, kernel.events = False, []
    report = model.cleaned(kernel)
    if report.error is None:
        assert report.outcome in ("clean", "cleaned")
        assert not kernel.orphans()
        on_uplink = (each for each in kernel.filters if each.ifindex == model.ETH0)
        assert not any(0 in each.targets for each in on_uplink)
    else:
        assert isinstance(report.error, TapInUse)

# SPDX-License-Identifier: Apache-2.0
"""nlraw.removal: look, plan, confirm, send, settle, against a namespace that is made up.

`build.Namespace` answers datagrams with datagrams. Against the kernel it is tried in tests/live.
"""

import copy
import errno
import posix

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import build, random_pods
from lib.build import a_filter, a_link, a_qdisc
from lib.random_pods import CLSACT_IN, CLSACT_OUT, INGRESS
from nlraw import removal, report, uapi
from nlraw.errors import DumpInterrupted, Error, Lost, Refused, TapInUse
from nlraw.marks import MARK
from nlraw.pod import preview, remove
from nlraw.removal import Removal
from nlraw.report import DeadRedirect, Ignored
from nlraw.snapshot import failure
from nlraw.verdict import IN_USE, Target

OPER_DOWN, UP = 2, uapi.IFF_UP


def pod(*taps, kind="u32"):
    """A pod: the uplink with a redirect to each TAP, and each TAP with one back."""
    made = build.Namespace(
        [
            a_link(1, "lo", kind=None),
            a_link(2, "eth0", kind="veth"),
            a_link(3, "peer0", kind="veth"),
        ]
    )
    made.links += taps
    made.qdiscs = [a_qdisc(2, "noqueue", 0, uapi.TC_H_ROOT)] + [
        a_qdisc(each.ifindex, "ingress") for each in [made.links[1]] + list(taps)
    ]
    for number, tap in enumerate(taps):
        made.filters.append(a_filter(2, kind, tap.ifindex, handle=number + 1))
        made.filters.append(a_filter(tap.ifindex, kind, 2))
    return made


def tap(ifindex=4, name="tap0_urunc", **facts):
    return a_link(ifindex, name, **facts)


def state(made):
    return repr(made)


def removed(made, match="tap*_urunc", uplink="eth0", dry_run=False, **target):
    """The report of a cleanup; what failed is raised, and carries it."""
    return remove(made, Target(match, uplink, **target), dry_run).checked()


def names(made):
    return [each.name for each in made.links]


def test_an_orphan_goes_with_its_redirect_and_the_emptied_ingress_qdisc():
    made = pod(tap())
    report = removed(made)
    assert names(made) == ["lo", "eth0", "peer0"]
    assert made.filters == [] and [each.kind for each in made.qdiscs] == ["noqueue"]
    assert (report.outcome, report.netns, report.uplink, report.error) == (
        "cleaned",
        made.path,
        "eth0",
        None,
    )
    assert [(each.ifname, each.deleted) for each in report.taps] == [("tap0_urunc", True)]
    assert [(each.dev, each.object, each.kind) for each in report.tc_removed] == [
        ("eth0", "filter", "u32"),
        ("eth0", "qdisc", "ingress"),
        ("tap0_urunc", "qdisc", "ingress"),
    ]


def test_the_changes_are_one_datagram():
    made = pod(tap())
    seen = []
    made.before = lambda requests: seen.append([request.type for request in requests])
    removed(made)
    assert [uapi.RTM_DELTFILTER, uapi.RTM_DELQDISC, uapi.RTM_DELQDISC, uapi.RTM_DELLINK] in seen
    assert (
        sum(
            any(
                type in (uapi.RTM_DELLINK, uapi.RTM_DELQDISC, uapi.RTM_DELTFILTER) for type in types
            )
            for types in seen
        )
        == 1
    )


def test_what_is_asked_in_words():
    made = pod(tap())
    asked = []
    made.before = lambda requests: asked.append(
        ", ".join("%s %s" % (each.step, each.object) for each in requests)
    )
    removed(made)
    assert asked == [
        "list links of every kind",
        "list qdiscs of all links",
        "list filters eth0",
        "list chains eth0",
        "list links of every kind, read link tap0_urunc",
        "delete u32 filters of priority 49152 on eth0, delete ingress qdisc eth0, "
        "delete ingress qdisc tap0_urunc, delete link tap0_urunc",
    ]


def test_a_report_describes_a_tap():
    (found,) = removed(pod(tap(carrier=0, operstate=OPER_DOWN, flags=UP)), dry_run=True).taps
    assert found == report.Tap(
        ifname="tap0_urunc",
        ifindex=4,
        verdict="orphan",
        fresh=False,
        carrier=False,
        operstate="DOWN",
        flags=("UP",),
        deleted=False,
    )


def test_run_twice_the_second_run_finds_nothing():
    made = pod(tap())
    removed(made)
    made.changes.clear()
    assert removed(made).outcome == "clean"
    assert made.changes == []


def test_two_orphans_go_one_by_one():
    made = pod(tap(), tap(5, "tap1_urunc"))
    assert removed(made).outcome == "cleaned"
    assert (made.changes.count(uapi.RTM_DELLINK), uapi.RTM_SETLINK in made.changes) == (2, False)


@pytest.mark.parametrize(
    "random, group", [(b"\0\0", MARK), (b"\xff\xff", MARK + 0xFFFF), (b"\1\2", MARK + 0x102)]
)
def test_the_number_of_the_group_is_a_mark(monkeypatch, random, group):
    monkeypatch.setattr(posix, "urandom", lambda size: random[:size])
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(3)])
    seen = []
    made.before = meanwhile(
        uapi.RTM_DELLINK, lambda: seen.extend(each.group for each in made.links)
    )
    removed(made)
    assert seen == [0, 0, 0] + [group] * 3


@pytest.mark.parametrize("count", [3, 20])
def test_many_orphans_go_at_once(count):
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(count)])
    report = removed(made)
    assert names(made) == ["lo", "eth0", "peer0"]
    assert made.changes.count(uapi.RTM_DELLINK) == 1
    assert len(report.taps) == count and all(each.deleted for each in report.taps)


def test_one_that_is_in_use_stops_everything():
    made = pod(tap(), tap(5, "tap1_urunc", carrier=1))
    before = state(made)
    with pytest.raises(TapInUse) as caught:
        removed(made)
    assert state(made) == before and made.changes == []
    assert str(caught.value) == "clean up tap1_urunc: in use (carrier on), nothing was changed"
    assert caught.value.report.outcome == "in-use" and caught.value.report.error is caught.value
    assert [(each.ifname, each.verdict, each.deleted) for each in caught.value.report.taps] == [
        ("tap0_urunc", "orphan", False),
        ("tap1_urunc", "in-use", False),
    ]


def test_all_that_are_in_use_are_named_and_each_evidence_once():
    made = pod(tap(carrier=1), tap(5, "tap1_urunc", queues=1), tap(6, "tap2_urunc", carrier=1))
    with pytest.raises(TapInUse) as caught:
        removed(made)
    assert (caught.value.step, caught.value.object) == (
        "clean up",
        "tap0_urunc, tap1_urunc, tap2_urunc",
    )
    assert (
        caught.value.message
        == "in use (carrier off, queues: 1 attached, 0 detached; carrier on), nothing was changed"
    )


def test_without_the_uplink_nothing_is_touched():
    made = pod(tap())
    before = state(made)
    report = removed(made, uplink="eth7")
    assert (report.outcome, report.uplink, state(made), made.changes) == (
        "skipped",
        "eth7",
        before,
        [],
    )
    assert [each.ifname for each in report.taps] == ["tap0_urunc"]


def test_an_uplink_found_by_an_alternative_name_is_somebody_elses():
    made = pod(tap())
    made.links[2].facts["altname"] = "eth7"
    assert removed(made, uplink="eth7").outcome == "skipped"
    assert made.changes == []


def test_with_the_uplink_none_the_links_go_and_the_redirects_to_them_and_no_dead_one():
    made = pod(tap())
    made.filters.append(a_filter(2, "matchall", 0, handle=7, priority=7))
    report = removed(made, uplink="none")
    assert report.outcome == "cleaned" and report.uplink is None
    assert names(made) == ["lo", "eth0", "peer0"]
    assert [each.targets for each in made.filters] == [[0]]
    assert [each.kind for each in made.qdiscs] == ["noqueue", "ingress"]
    assert report.dead_redirects == ()


@pytest.mark.parametrize(
    "routes, uplink",
    [
        ([(2, 2)], "eth0"),
        ([(10, 2)], "eth0"),
        ([(10, 3), (2, 2)], "eth0"),  # by IPv4 first
        ([(2, 2), (2, 2), (10, 2)], "eth0"),
        ([(2, 9), (2, 2), (2, 3)], "eth0"),  # one that is gone meanwhile
        ([(2, 4), (2, 2)], "eth0"),  # an orphan may have a default route too
        ([(2, 4)], None),
        ([], None),
    ],
)
def test_the_uplink_auto_is_the_device_of_the_first_default_route(routes, uplink):
    made = pod(tap())
    made.routes = routes
    report = removed(made, uplink="auto", dry_run=True)
    assert (report.outcome, report.uplink) == ("would-clean" if uplink else "skipped", uplink)
    assert len(report.tc_removed) == (3 if uplink else 0)


def test_an_uplink_that_matches_the_pattern_is_no_candidate():
    made = pod(tap())
    made.links[1].name = "tap9_urunc"
    made.links[1].facts = {"kind": "tun", "carrier": 0}
    removed(made, uplink="tap9_urunc")
    assert names(made) == ["lo", "tap9_urunc", "peer0"]


def test_a_dry_run_changes_nothing_and_reports_what_would_go():
    made = pod(tap())
    before = state(made)
    report = removed(made, dry_run=True)
    assert (report.outcome, state(made), made.changes) == ("would-clean", before, [])
    assert len(report.tc_removed) == 3 and not report.taps[0].deleted


def test_a_preview_reports_what_would_go_and_no_error_where_one_is_in_use():
    used = pod(tap(carrier=1))
    found = preview(used, Target("tap*_urunc", "eth0"))
    assert (found.outcome, found.error, [each.verdict for each in found.taps]) == (
        "in-use",
        None,
        [IN_USE],
    )
    made = pod(tap())
    found = preview(made, Target("tap*_urunc", "eth0"))
    assert (found.outcome, len(found.tc_removed)) == ("would-clean", 3)
    assert used.changes + made.changes == []


def test_a_fresh_orphan_is_spared_where_that_is_asked_for():
    made = pod(tap(up_count=0), tap(5, "tap1_urunc", up_count=1))
    report = removed(made, spare_fresh=True)
    assert names(made) == ["lo", "eth0", "peer0", "tap0_urunc"]
    shown = sorted((each.ifname, each.fresh, each.deleted) for each in report.taps)
    assert shown == [("tap0_urunc", True, False), ("tap1_urunc", False, True)]
    assert [each.targets for each in made.filters] == [[4], [2]]


def test_a_spared_fresh_orphan_that_comes_into_use_before_the_second_look_stops_everything():
    made = pod(tap(up_count=0), tap(5, "tap1_urunc", up_count=1))

    def before(requests):
        if requests[-1].step == "read link":
            made.links[-2].facts["carrier"] = 1

    made.before = before
    with pytest.raises(TapInUse) as caught:
        removed(made, spare_fresh=True)
    assert (caught.value.object, made.changes) == ("tap0_urunc", [])


def test_a_tap_that_comes_into_use_once_a_dead_redirect_was_seen_stops_its_removal():
    made = pod()
    made.filters = [a_filter(2, "u32", 0)]

    def before(requests):
        if requests[0].step == "list filters":
            made.links.append(tap(30, "tap30_urunc", carrier=1))

    made.before = before
    with pytest.raises(TapInUse) as caught:
        removed(made)
    assert (caught.value.object, made.changes) == ("tap30_urunc", [])


def test_what_was_done_when_memory_runs_out_is_known_later():
    made = pod(tap())
    cleanup = Removal(made, Target("tap*_urunc", "eth0"))
    assert cleanup.prepare() is None
    real = made.change

    def change(*requests):
        replies = real(*requests)
        if requests[-1].step == "delete link":
            raise MemoryError
        return replies

    made.change = change
    with pytest.raises(MemoryError):
        cleanup.finish()
    made.change, made.is_quiet = real, False
    report = cleanup.finish()
    assert (report.outcome, [each.deleted for each in report.taps]) == ("cleaned", [True])
    assert [gone.object for gone in report.tc_removed] == ["filter", "qdisc", "qdisc"]


def test_what_was_settled_when_memory_runs_out_is_not_settled_again():
    made = pod(tap())
    cleanup = Removal(made, Target("tap*_urunc", "eth0"))
    assert cleanup.prepare() is None
    real, asked = made.change, []

    def change(*requests):
        if requests[-1].step != "delete link":
            return real(*requests)
        made.change = real
        real(*requests[:-1])
        raise Lost(errno.ENOBUFS, "")

    def before(requests):
        asked.extend(request.step for request in requests)
        if asked.count("read link") == 2:  # what was lost is settled by then
            raise MemoryError

    made.change, made.before = change, before
    with pytest.raises(MemoryError):
        cleanup.finish()
    made.before, made.is_quiet = lambda requests: None, False
    report = cleanup.finish()
    assert (report.outcome, [each.deleted for each in report.taps]) == ("cleaned", [True])
    assert [gone.object for gone in report.tc_removed] == ["filter", "qdisc", "qdisc"]


def test_a_dead_redirect_alone_is_removed():
    made = pod()
    made.filters = [a_filter(2, "u32", 0)]
    assert removed(made, dry_run=True).outcome == "would-clean"
    assert removed(made).outcome == "cleaned"
    assert made.filters == [] and [each.kind for each in made.qdiscs] == ["noqueue"]


def test_an_empty_ingress_qdisc_without_an_orphan_is_left_alone():
    made = pod()
    assert [removed(made, dry_run=dry_run).outcome for dry_run in (True, False)] == [
        "clean",
        "clean",
    ]
    assert [each.kind for each in made.qdiscs] == ["noqueue", "ingress"]


def test_a_shared_block_is_foreign_but_for_the_redirects_to_an_orphan():
    made = pod(tap())
    made.qdiscs[1].blocks = {"ingress_block": 7}
    del made.filters[0]
    made.filters += [
        a_filter(build.BLOCK, "u32", target, parent=7, handle=number, priority=number)
        for number, target in enumerate((4, 9, 0), 1)
    ]
    report = removed(made)
    assert [(each.ifindex, each.kind) for each in made.qdiscs] == [(2, "noqueue"), (2, "ingress")]
    assert [each.targets for each in made.filters] == [[9], [0]]
    assert [(each.dev, each.object, each.target) for each in report.tc_removed] == [
        ("block 7", "filter", "tap0_urunc"),
        ("tap0_urunc", "qdisc", None),
    ]


# ---------------------------------------------------------------- things that happen meanwhile


def meanwhile(type, event):
    """Call ``event`` ahead of the first answer to a request of that type that is no dump."""
    fired = []

    def before(requests):
        if not fired and any(request.type == type and not request.is_dump for request in requests):
            fired.append(True)
            event()

    return before


@pytest.mark.parametrize("count", [1, 5])
def test_a_tap_that_comes_into_use_before_the_second_look_stops_everything(count):
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(count)])
    made.links[-1].group = 7
    second_look = uapi.RTM_GETLINK if count == 1 else uapi.RTM_SETLINK
    made.before = meanwhile(second_look, lambda: made.links[-1].facts.update(carrier=1))
    with pytest.raises(TapInUse):
        removed(made)
    assert len(made.links) == 3 + count
    assert not set(made.changes) - {uapi.RTM_SETLINK}
    assert [each.group for each in made.links] == [0] * (2 + count) + [7]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_another_tap_that_comes_into_use_stops_what_is_carried_out_later(count):
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(count)])
    if not count:
        made.filters.append(a_filter(2, "matchall", 0))  # a dead redirect, which alone is work too
    cleanup = Removal(made, Target("tap*_urunc", "eth0"))
    assert cleanup.prepare() is None
    made.links.append(tap(30, "tap30_urunc", carrier=1))
    report = cleanup.finish()
    assert (report.outcome, report.error.object) == ("in-use", "tap30_urunc")
    assert [each.verdict for each in report.taps] == ["orphan"] * count + ["in-use"]
    assert made.changes == []


@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize("groups", [0, uapi.RTMGRP_TC])
def test_any_event_between_the_look_and_the_changes_makes_it_look_again(quiet, groups):
    made = pod(tap())
    cleanup = Removal(made, Target("tap*_urunc", "eth0"))
    assert cleanup.prepare() is None
    asked, made.is_quiet, made.groups = [], quiet, groups
    made.before = lambda requests: asked.append("+".join(each.step for each in requests))
    assert cleanup.finish().outcome == "cleaned"
    look = ["list links", "list qdiscs", "list filters", "list chains"]
    again = ["list links+read link"] + look if groups and not quiet else []
    assert asked[:-1] == again + ["list links+read link"]
    assert asked[-1].endswith("delete link")


@pytest.mark.parametrize("count", [0, 1, 2, 5])
@pytest.mark.parametrize("held", [True, False])
def test_what_the_kernel_leaves_out_of_a_quick_list_is_seen(count, held):
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(count)])
    made.links += [tap(30, "tap30_urunc"), tap(31, "tap31_urunc", carrier=int(held))]
    made.too_long = ("tap30_urunc",)
    made.filters.append(a_filter(2, "u32", 0))
    if held:
        for dry_run in (True, False):
            with pytest.raises(TapInUse) as caught:
                removed(made, dry_run=dry_run)
            assert caught.value.object == "tap31_urunc"
        assert len(made.links) == 5 + count and made.changes == []
    else:
        assert len(removed(made, dry_run=True).taps) == len(removed(made).taps) == 2 + count
        assert names(made) == ["lo", "eth0", "peer0"]


@pytest.mark.parametrize("uplink, left", [("eth0", "cleaned"), ("eth7", "skipped")])
def test_an_uplink_that_is_gone_later_is_reported(uplink, left):
    made = pod(tap())
    cleanup = Removal(made, Target("tap*_urunc", "eth0"))
    assert cleanup.prepare() is None
    made.is_quiet = False
    made.links[1].name = uplink
    assert (cleanup.finish().outcome, len(made.changes)) == (
        left,
        4 if left == "cleaned" else 0,
    )


def test_another_tap_that_comes_into_use_before_the_proof_of_a_group_stops_everything():
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(5)])
    made.before = meanwhile(
        uapi.RTM_SETLINK, lambda: made.links.append(tap(30, "tap30_urunc", carrier=1))
    )
    with pytest.raises(TapInUse):
        removed(made)
    assert len(made.links) == 3 + 6
    assert set(made.changes) == {uapi.RTM_SETLINK} and {each.group for each in made.links} == {0}


@pytest.mark.parametrize("change", [{"name": "vm0"}, {"ifindex": 9}])
def test_a_tap_that_is_renamed_or_replaced_before_the_second_look_is_looked_at_again(change):
    made = pod(tap())
    victim = made.links[-1]
    made.before = meanwhile(uapi.RTM_GETLINK, lambda: victim.__dict__.update(change))
    report = removed(made)
    assert ("vm0" in names(made)) is ("name" in change)
    assert [each.ifindex for each in report.taps if each.deleted] == (
        [] if "name" in change else [9]
    )


def test_what_is_gone_when_it_is_to_be_deleted_is_success():
    made = pod(tap())
    made.before = meanwhile(uapi.RTM_DELLINK, lambda: made.delete_link(made.links[-1]))
    report = removed(made)
    assert report.outcome == "cleaned" and report.taps[0].deleted


def test_a_refusal_names_what_was_not_done_and_the_report_what_was():
    made = pod(tap())
    made.refuse = {uapi.RTM_DELLINK: errno.EPERM}
    with pytest.raises(Refused) as caught:
        removed(made)
    assert caught.value.errno == errno.EPERM
    assert str(caught.value) == "delete link tap0_urunc: EPERM; not done: delete link tap0_urunc"
    assert caught.value.report.outcome == "failed"
    assert len(caught.value.report.tc_removed) == 3 and not caught.value.report.taps[0].deleted


def test_a_refusal_names_all_that_was_not_done():
    made = pod(tap())
    made.refuse = {uapi.RTM_DELLINK: errno.EPERM, uapi.RTM_DELQDISC: errno.ENOMEM}
    with pytest.raises(Refused) as caught:
        removed(made)
    assert str(caught.value) == (
        "delete ingress qdisc eth0: ENOMEM; "
        "not done: delete ingress qdisc eth0, delete ingress qdisc tap0_urunc, delete link "
        "tap0_urunc"
    )


def test_a_refused_priority_is_not_done_while_anything_of_it_is_there():
    made = pod(tap())
    made.refuse = {uapi.RTM_DELTFILTER: errno.EPERM, uapi.RTM_DELQDISC: errno.EPERM}
    with pytest.raises(Refused) as caught:
        removed(made)
    assert str(caught.value) == (
        "delete u32 filters of priority 49152 on eth0: EPERM; "
        "not done: delete u32 filters of priority 49152 on eth0, delete ingress qdisc eth0"
    )
    # whose qdisc went with it
    assert [each.dev for each in caught.value.report.tc_removed] == ["tap0_urunc"]


def test_one_that_comes_into_use_after_a_change_is_not_said_to_have_changed_nothing():
    made = pod(tap())
    made.refuse = {uapi.RTM_DELLINK: errno.EBUSY}
    made.before = lambda requests: made.links[-1].facts.update(
        carrier=int(uapi.RTM_DELLINK in made.changes)
    )
    with pytest.raises(Error) as caught:
        removed(made)
    assert type(caught.value) is Error
    assert str(caught.value) == (
        "clean up tap0_urunc: came into use (carrier on) after something was removed: "
        "u32 filter on eth0, ingress qdisc on eth0, ingress qdisc on tap0_urunc"
    )
    assert (caught.value.report.outcome, len(caught.value.report.tc_removed)) == ("failed", 3)


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EINTR, errno.EAGAIN])
def test_a_refusal_that_passes_is_tried_again(number):
    made = pod(tap())
    made.refuse = {uapi.RTM_DELLINK: number}
    made.before = lambda requests: (
        made.refuse.clear() if made.changes.count(uapi.RTM_DELLINK) == 2 else None
    )
    assert removed(made).outcome == "cleaned"
    assert names(made) == ["lo", "eth0", "peer0"]


def test_where_the_uplink_goes_in_the_middle_the_report_says_what_was_done():
    made = pod(tap())
    made.refuse = {uapi.RTM_DELLINK: errno.EBUSY}
    made.before = lambda requests: made.links[1].__dict__.update(
        name="gone0" if made.changes else "eth0"
    )
    report = removed(made)
    assert (report.outcome, report.uplink, len(report.tc_removed)) == ("cleaned", "eth0", 3)
    assert [each.deleted for each in report.taps] == [False]


def test_a_refusal_that_does_not_pass_ends_in_failure():
    made = pod(tap())
    made.refuse = {uapi.RTM_DELLINK: errno.EBUSY}
    with pytest.raises(Refused):
        removed(made)
    assert names(made) == ["lo", "eth0", "peer0", "tap0_urunc"]
    # and each look finds it still there
    assert made.changes.count(uapi.RTM_DELLINK) == removal.ROUNDS


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("carried_out", [True, False])
def test_a_lost_answer_is_settled_by_looking_again(count, carried_out):
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(count)])
    change, lost = made.change, []

    def losing(*requests):
        if any(request.type == uapi.RTM_DELLINK for request in requests) and not lost:
            lost.append(True)
            if carried_out:
                change(*requests)
            raise Lost(errno.ENOBUFS, "")
        return change(*requests)

    made.change = losing
    report = removed(made)
    assert report.outcome == "cleaned" and names(made) == ["lo", "eth0", "peer0"]
    assert len(report.taps) == count and all(each.deleted for each in report.taps)


def test_a_tap_that_goes_while_the_group_is_made_is_success():
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(5)])
    made.before = meanwhile(uapi.RTM_SETLINK, lambda: made.delete_link(made.links[-1]))
    assert removed(made).outcome == "cleaned"
    assert names(made) == ["lo", "eth0", "peer0"]


def test_a_group_that_cannot_be_made_is_a_failure():
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(5)])
    made.refuse = {uapi.RTM_SETLINK: errno.EPERM}
    with pytest.raises(Refused) as caught:
        removed(made)
    assert (caught.value.errno, caught.value.object) == (errno.EPERM, "tap0_urunc")
    assert len(made.links) == 8 and set(made.changes) == {uapi.RTM_SETLINK}


def test_a_group_is_undone_where_its_members_cannot_be_listed():
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(5)])
    made.links[-1].group = 7
    ask, failed = made.ask, []

    def failing(*requests):
        if made.changes and not failed:
            failed.append(True)
            raise Lost(errno.ETIMEDOUT, "")
        return ask(*requests)

    made.ask = failing
    with pytest.raises(Lost):
        removed(made)
    assert [each.group for each in made.links] == [0] * 7 + [7]


def test_a_namespace_that_changes_each_time_is_given_up():
    made = pod(tap())
    victim = made.links[-1]

    def before(requests):
        if requests[-1].step == "read link":
            victim.ifindex += 1

    made.before = before
    with pytest.raises(Error) as caught:
        removed(made)
    assert made.changes == []
    assert (
        str(caught.value)
        == "clean up /run/netns/made-up: the namespace changed each time it was looked at;"
        " try again"
    )
    assert caught.value.report.outcome == "failed"
    assert victim.ifindex == 4 + 10


# ---------------------------------------------------------------- torn lists


@pytest.mark.parametrize("work", [True, False])
def test_a_torn_list_is_read_again_before_anything_is_done_or_said(work):
    made = pod(*[tap()] * work)
    made.torn_looks = 3
    assert removed(made).outcome == ("cleaned" if work else "clean")
    assert made.looks == 4


def test_a_torn_list_is_read_again_by_a_dry_run():
    made = pod(tap())
    made.torn_looks = 3
    assert removed(made, dry_run=True).outcome == "would-clean"
    assert made.looks == 4


def test_a_list_that_is_torn_each_time_is_never_acted_on():
    made = pod(tap())
    made.torn_looks = 1000
    for dry_run, looks in ((False, removal.ROUNDS + 1), (True, removal.ROUNDS)):
        made.looks = 0
        with pytest.raises(Error) as caught:
            removed(made, dry_run=dry_run)
        assert str(caught.value) == (
            "clean up /run/netns/made-up: the namespace changed each time it was looked at;"
            " try again"
        )
        assert caught.value.report.outcome == "failed"
        assert (made.changes, made.looks) == ([], looks)


def test_a_list_without_work_that_is_torn_each_time_is_read_so_often_and_no_more():
    made = pod()
    made.torn_looks = 1000
    with pytest.raises(Error) as caught:
        removed(made)
    assert str(caught.value).endswith("the namespace changed each time it was looked at; try again")
    assert (caught.value.report.outcome, made.changes) == ("failed", [])
    assert made.looks == removal.ROUNDS + 1


def test_a_connection_that_hears_no_events_does_not_wait_for_quiet():
    made = pod()
    made.groups, made.torn_looks = 0, 1000
    for dry_run in (True, False):
        made.looks = 0
        assert removed(made, dry_run=dry_run).outcome == "clean"
        assert made.looks == 1


def test_its_own_changes_are_no_reason_to_look_again():
    made = pod(tap())
    joined = []
    made.before = lambda requests: joined.append((requests[-1].step, made.is_joined))
    removed(made)
    assert [step for step, is_joined in joined if not is_joined] == ["delete link"]


@pytest.mark.parametrize("type", [uapi.RTM_GETLINK, uapi.RTM_GETQDISC, uapi.RTM_GETCHAIN])
def test_a_list_that_is_refused_is_a_failure_and_nothing_is_changed(type):
    made = pod(tap())
    made.refuse = {type: errno.ENOMEM}
    report = remove(made, Target())
    assert (report.outcome, report.error.errno, made.changes) == ("failed", errno.ENOMEM, [])


# ---------------------------------------------------------------- several devices, blocks, chains


def two_nics():
    """eth0 and net1 with a TAP each, and a redirect on net1 to each of the two."""
    made = pod(tap(), tap(5, "tap1_urunc"))
    made.links[2] = a_link(3, "net1", kind="veth")
    made.qdiscs.append(a_qdisc(3, "ingress"))
    made.filters[2].ifindex = 3
    made.filters.append(a_filter(3, "matchall", 4, handle=9, priority=9))
    return made


@pytest.mark.parametrize("uplink", ["eth0", ["eth0", "net1"], ["eth7", "net1"], "none"])
def test_no_redirect_to_an_orphan_is_left_on_any_device(uplink):
    made = two_nics()
    expected = removed(made, uplink=uplink, dry_run=True)
    report = removed(made, uplink=uplink)
    assert (report.outcome, made.filters) == ("cleaned", [])
    assert [(each.ifindex, each.kind) for each in made.qdiscs] == [(2, "noqueue")]
    assert report.tc_removed == expected.tc_removed and len(report.tc_removed) == 7


def test_the_uplink_of_the_report_is_the_first_that_exists():
    assert removed(two_nics(), uplink=["eth7", "net1", "eth0"]).uplink == "net1"
    assert removed(two_nics(), uplink=["eth7", "eth8"]).uplink == "eth7"


@pytest.mark.parametrize("uplink, left", [("eth0", 1), (["eth0", "net1"], 0)])
def test_dead_redirects_go_from_every_uplink_that_is_named_and_from_no_other_device(uplink, left):
    made = pod()
    made.links[2] = a_link(3, "net1", kind="veth")
    made.qdiscs.append(a_qdisc(3, "ingress"))
    made.filters = [a_filter(2, "u32", 0), a_filter(3, "flower", 0, handle=2)]
    assert removed(made, uplink=uplink).outcome == "cleaned"
    assert len(made.filters) == left
    assert len([each for each in made.qdiscs if each.kind == "ingress"]) == left


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("explicit, chain", [((1,), 1), ((5,), 1), ((5,), 0), ((), 1), ((), 0)])
@pytest.mark.parametrize("dead", [True, False])
def test_an_ingress_with_an_explicit_chain_stays(explicit, chain, dead, dry_run):
    made = pod(*[tap()] * (not dead))
    made.filters[:1] = [a_filter(2, "u32", 0 if dead else 4, chain=chain)]
    made.chains = [(2, INGRESS, number) for number in explicit]
    report = removed(made, dry_run=dry_run)
    removes = [(each.dev, each.kind) for each in report.tc_removed]
    if not dry_run:
        assert report.outcome == "cleaned" and names(made) == ["lo", "eth0", "peer0"]
        assert made.chains == [(2, INGRESS, number) for number in explicit]
        assert (("eth0", "ingress") in removes) is (not explicit)
        assert made.changes.count(uapi.RTM_DELTFILTER) == 1
        assert ("ingress" in [each.kind for each in made.qdiscs]) is bool(explicit)
    elif explicit != (1,):  # whether that chain was there before its filter does not show
        assert (("eth0", "ingress") in removes) is (not explicit)
    assert removes[0] == ("eth0", "u32")


def test_the_chains_of_a_kernel_that_knows_none_are_none():
    made = pod(tap())
    made.refuse = {uapi.RTM_GETCHAIN: errno.EOPNOTSUPP}
    assert removed(made).outcome == "cleaned"
    assert [each.kind for each in made.qdiscs] == ["noqueue"]


def test_before_all_filters_in_other_chains_are_gone_no_link_is_deleted():
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(3)])
    made.filters[0].chain = 1
    made.refuse = {uapi.RTM_DELTFILTER: errno.EPERM}
    report = remove(made, Target())
    assert report.outcome == "failed" and set(made.changes) == {uapi.RTM_DELTFILTER}
    assert len(made.links) == 6


# ---------------------------------------------------------------- u32 priorities listed together


def a_table(handle, **place):
    return a_filter(2, "u32", handle=handle, table=True, **place)


def together(kind, first, second, targets):
    """eth0 with u32 filters of one number in two places, each with its root table.

    The kernel lists in each place what is in both.
    """
    made = pod(tap())
    made.qdiscs[1] = a_qdisc(2, kind)
    made.filters = []
    for number, (place, target) in enumerate(zip((first, second), targets), 1):
        made.filters.append(a_table(100 + number, **place))
        made.filters.append(a_filter(2, "u32", target, handle=number, **place))
    assert len(list(made.shown(2, first["parent"]))) >= 4
    return made


CHAINS = "ingress", {"parent": INGRESS}, {"parent": INGRESS, "chain": 3}
SIDES = "clsact", {"parent": CLSACT_IN}, {"parent": CLSACT_OUT}


@pytest.mark.parametrize(
    "places, targets, left",
    [
        (CHAINS, (4, 4), []),
        (CHAINS, (4, 0), []),
        (CHAINS, (0, 4), []),
        (CHAINS, (4, 9), [102, 2]),
        (CHAINS, (9, 4), [101, 1]),
        (CHAINS, (0, 9), [102, 2]),
        (CHAINS, (9, 0), [101, 1]),
        (CHAINS, (9, 9), [101, 1, 102, 2]),
        (SIDES, (4, 4), []),
        (SIDES, (0, 4), []),
        (SIDES, (4, 0), [102, 2]),  # a dead one goes from the incoming side alone
        (SIDES, (0, 0), [102, 2]),
        (SIDES, (9, 4), [101, 1]),
        (SIDES, (4, 9), [102, 2]),
    ],
)
def test_of_what_is_listed_together_each_priority_loses_its_own(places, targets, left):
    made = together(*(places + (targets,)))
    expected = removed(made, dry_run=True)
    report = removed(made)
    assert [each.handle for each in made.filters] == left
    filters = [each for each in report.tc_removed if each.object == "filter"]
    assert len(filters) == (4 - len(left)) / 2
    assert sorted(map(repr, expected.tc_removed)) == sorted(map(repr, report.tc_removed))
    assert ("ingress" in [each.kind for each in made.qdiscs]) is (places is CHAINS and left != [])
    assert names(made) == ["lo", "eth0", "peer0"]


def test_a_table_that_somebody_added_keeps_the_priorities_that_it_is_listed_with():
    made = together(*(CHAINS + ((4, 4),)))
    made.filters.append(a_table(7, parent=INGRESS))
    assert removed(made).outcome == "cleaned"
    assert [each.handle for each in made.filters] == [101, 102, 7]
    assert "ingress" in [each.kind for each in made.qdiscs]


def test_the_root_table_is_read_only_where_it_decides():
    asked = []
    for made, count in ((pod(tap()), 0), (together(*(SIDES + ((4, 4),))), 2)):
        del asked[:]
        made.before = lambda requests: asked.extend(each.step for each in requests)
        removed(made)
        assert asked.count("read root table of priority 49152") == count


def test_a_priority_that_goes_before_its_root_table_is_read_is_gone():
    made = together(*(CHAINS + ((4, 4),)))

    def before(requests):
        if requests[0].step.startswith("read root table"):
            made.filters = [each for each in made.filters if not each.chain]
            made.is_quiet = False  # the kernel announces that

    made.before = before
    assert removed(made).outcome == "cleaned"
    assert made.filters == [] and [each.kind for each in made.qdiscs] == ["noqueue"]


def test_the_same_number_in_a_shared_block_and_on_a_device_is_two_priorities():
    made = pod(tap())
    made.qdiscs.append(a_qdisc(3, "ingress", ingress_block=7))
    made.filters += [
        a_filter(build.BLOCK, "u32", 4, parent=7, handle=11),
        a_filter(build.BLOCK, "u32", 9, parent=7, chain=3, handle=12),
    ]
    assert removed(made).outcome == "cleaned"
    assert [each.handle for each in made.filters] == [12]


# ---------------------------------------------------------------- TAPs that stay


def test_orphans_go_beside_taps_in_use_if_that_is_asked_for():
    made = pod(tap(), tap(5, "tap1_urunc", carrier=1))
    expected = removed(made, keep_in_use=True, dry_run=True)
    report = removed(made, keep_in_use=True)
    assert (expected.outcome, report.outcome, report.error) == ("would-clean", "cleaned", None)
    assert names(made) == ["lo", "eth0", "peer0", "tap1_urunc"]
    assert [each.targets for each in made.filters] == [[5], [2]]
    assert [(each.ifindex, each.kind) for each in made.qdiscs if each.handle] == [
        (2, "ingress"),
        (5, "ingress"),
    ]
    assert expected.tc_removed == report.tc_removed
    assert removed(made, keep_in_use=True).outcome == "clean"


def test_a_tap_that_comes_into_use_among_those_that_are_kept_is_looked_at_again():
    made = pod(tap(), tap(5, "tap1_urunc"), tap(6, "tap2_urunc", carrier=1))
    made.before = meanwhile(uapi.RTM_GETLINK, lambda: made.links[4].facts.update(carrier=1))
    report = removed(made, keep_in_use=True)
    assert names(made) == ["lo", "eth0", "peer0", "tap1_urunc", "tap2_urunc"]
    shown = {each.ifname: (each.verdict, each.deleted) for each in report.taps}
    assert shown == {
        "tap0_urunc": ("orphan", True),
        "tap1_urunc": ("in-use", False),
        "tap2_urunc": ("in-use", False),
    }


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_stacked_on_a_tap_keeps_it(count):
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(count)])
    made.links.append(a_link(30, "mac0", kind="macvlan", lower=10))
    before = state(made)
    with pytest.raises(TapInUse) as caught:
        removed(made)
    assert str(caught.value) == (
        "clean up tap0_urunc: in use (carrier off, mac0 stacked on it), nothing was changed"
    )
    assert state(made) == before and made.changes == []
    report = removed(made, keep_in_use=True)
    assert report.outcome == ("cleaned" if count > 1 else "clean")
    assert names(made) == ["lo", "eth0", "peer0", "tap0_urunc", "mac0"]


def test_what_is_stacked_in_another_namespace_does_not_show_here():
    made = pod(tap())
    made.links.append(a_link(30, "mac0", kind="macvlan", lower=4, lower_netnsid=0))
    assert removed(made).outcome == "cleaned"


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("moment", [uapi.RTM_GETLINK, uapi.RTM_SETLINK])
def test_what_is_stacked_on_a_tap_meanwhile_keeps_it(count, moment):
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(count)])
    upper = a_link(30, "mac0", kind="macvlan", lower=10)
    made.before = meanwhile(moment, lambda: made.links.append(upper))
    if moment == uapi.RTM_SETLINK and count == 1:  # nothing is marked
        assert removed(made).outcome == "cleaned"
        return
    with pytest.raises(TapInUse):
        removed(made)
    assert len(made.links) == 3 + count + 1 and uapi.RTM_DELLINK not in made.changes
    assert {each.group for each in made.links} == {0}


def test_a_dead_redirect_seen_while_a_tap_is_in_use_is_reported_and_left():
    made = pod(tap(carrier=1))
    made.filters.append(a_filter(2, "matchall", 0, handle=9, priority=7))
    dead = (DeadRedirect(dev="eth0", kind="matchall", priority=7),)
    for dry_run in (True, False):
        report = remove(made, Target(), dry_run)
        assert (report.outcome, report.dead_redirects, report.tc_removed) == ("in-use", dead, ())
    report = removed(made, keep_in_use=True)
    assert (report.outcome, report.dead_redirects, made.changes) == ("clean", dead, [])
    made.links[-1].facts["carrier"] = 0
    assert removed(made).dead_redirects == () and made.filters == []


def test_while_a_fresh_tap_is_spared_the_ingress_of_its_start_stays():
    made = pod(tap(up_count=0), tap(5, "tap1_urunc"))
    del made.filters[0]  # the start has not made its redirect yet
    assert removed(made, spare_fresh=True).outcome == "cleaned"
    assert names(made) == ["lo", "eth0", "peer0", "tap0_urunc"]
    assert (2, "ingress") in [(each.ifindex, each.kind) for each in made.qdiscs]


def test_links_that_match_and_are_no_taps_are_named():
    made = pod(tap())
    made.links += [
        a_link(6, "tap1_urunc", kind="macvtap"),
        a_link(7, "tap2_urunc", mode=uapi.IFF_TUN),
        a_link(8, "tap3_urunc", kind=None, mode=None),
    ]
    report = removed(made)
    assert report.ignored == (
        Ignored(ifname="tap1_urunc", kind="macvtap"),
        Ignored(ifname="tap2_urunc", kind="tun"),
        Ignored(ifname="tap3_urunc", kind="unknown"),
    )
    assert names(made) == ["lo", "eth0", "peer0", "tap1_urunc", "tap2_urunc", "tap3_urunc"]


# ---------------------------------------------------------------- marks


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize(
    "facts, target, group",
    [
        ({"carrier": 1}, {}, 0),
        ({"carrier": 1}, {"keep_in_use": True}, 0),
        ({"up_count": 0}, {"spare_fresh": True}, 0),
    ],
)
def test_a_mark_that_a_killed_cleanup_left_is_taken_off(facts, target, group, exclusive):
    made = pod(tap(**facts), tap(5, "tap1_urunc"))
    made.links[-2].group, made.links[-1].group = MARK + 7, 77
    made.links[0].group = MARK + 7  # not one of ours
    made.is_exclusive = exclusive
    remove(made, Target(**target))
    assert made.links[3].group == (group if exclusive else MARK + 7)
    assert [each.group for each in made.links if each.ifindex != 4][:3] == [MARK + 7, 0, 0]


def test_no_mark_is_taken_off_a_tap_that_goes_or_by_a_dry_run():
    made = pod(tap())
    made.links[-1].group = MARK + 7
    removed(made, dry_run=True)
    assert made.changes == []
    removed(made)
    assert uapi.RTM_SETLINK not in made.changes


def test_an_orphan_beside_a_tap_in_use_stays_and_its_mark_is_taken_off():
    made = pod(tap(), tap(5, "tap1_urunc", carrier=1))
    made.links[-2].group = MARK + 7
    assert remove(made, Target()).outcome == "in-use"
    assert (made.links[-2].group, made.changes) == (0, [uapi.RTM_SETLINK])


def test_a_group_that_somebody_elses_link_is_in_is_not_deleted(monkeypatch):
    numbers = iter([b"\0\7", b"\0\10"])
    monkeypatch.setattr(posix, "urandom", lambda size: next(numbers))
    made = pod(*[tap(10 + number, "tap%d_urunc" % number) for number in range(3)])
    made.links[2].group = MARK + 7
    assert removed(made).outcome == "cleaned"
    assert names(made) == ["lo", "eth0", "peer0"] and made.links[2].group == MARK + 7
    assert made.changes.count(uapi.RTM_DELLINK) == 1


# ---------------------------------------------------------------- reports


def test_a_failure_before_anything_was_seen_has_its_report():
    error = Error("why")
    for uplink, name in (("eth7", "eth7"), ("auto", None)):
        assert failure("/nonexistent/x", Target(uplink=uplink), error) == report.Report(
            netns="/nonexistent/x",
            uplink=name,
            outcome="failed",
            taps=(),
            tc_removed=(),
            error=error,
        )


def test_an_error_while_looking_is_a_report_too():
    def broken(requests):
        raise DumpInterrupted("torn", "list links")

    made = pod(tap())
    made.before = broken
    for act in (remove, preview):
        failed = act(made, Target())
        assert (failed.outcome, type(failed.error)) == ("failed", DumpInterrupted)
        assert failed.error.report is None


def test_what_is_not_said_is_to_act_and_to_act_on_all():
    assert len(preview(pod(tap()), Target()).tc_removed) == 3
    for act in (remove, lambda made, target: Removal(made, target).run()):
        made = pod(tap(up_count=0))
        assert act(made, Target()).outcome == "cleaned" and made.changes


# ---------------------------------------------------------------- any namespace


@settings(build.patient, max_examples=300)
@given(random_pods.namespaces(), st.booleans(), st.booleans(), st.sampled_from(["eth0", "none"]))
def test_whatever_a_namespace_holds_only_orphans_and_what_is_theirs_goes(
    made, spare_fresh, keep_in_use, uplink
):
    before, named = copy.deepcopy(made), uplink == "eth0"
    options = {"uplink": uplink, "spare_fresh": spare_fresh, "keep_in_use": keep_in_use}
    uplink_there = not named or before.links[0].name == "eth0"
    used = random_pods.has_used(before)
    expected = remove(made, Target("tap*_urunc", uplink, (), spare_fresh, keep_in_use), True)
    assert repr(made) == repr(before) and made.changes == []
    if not uplink_there or (used and not keep_in_use):
        report = remove(made, Target("tap*_urunc", uplink, (), spare_fresh, keep_in_use))
        assert report.outcome == expected.outcome == ("in-use" if uplink_there else "skipped")
        assert isinstance(report.error, TapInUse) is uplink_there
        assert repr(made) == repr(before) and made.changes == []
        return

    report = removed(made, **options)
    doomed = random_pods.doomed(before, spare_fresh)
    gone = random_pods.gone(before, doomed, named)
    assert report.outcome == ("cleaned" if doomed or gone else "clean")
    assert expected.outcome == ("would-clean" if doomed or gone else "clean")
    random_pods.check_all_gone(before, made, doomed, named)
    random_pods.check_nothing_else_gone(before, made, doomed, named)

    made.changes.clear()
    assert removed(made, **options).outcome == "clean"
    assert made.changes == []

# SPDX-License-Identifier: Apache-2.0
"""The ears of the agent in the live kernel: IDs, looks by ID, and what a move leaves out."""

import errno
import os

import pytest

import nlraw
from lib import agents, nodes
from lib.agents import Site
from lib.pods import TAP
from nlraw.known import Known
from nlraw.listener import BYTES, Listener, open_known
from nlraw.verdict import Target

OTHER = "tap1_urunc"


@pytest.fixture
def listener(node):
    """``node`` is there to skip where no namespace can be made."""
    made = Listener(Target(spare_fresh=True))
    yield made
    made.close()


def known(listener, site, id):
    number, key = listener.assign(id, site.path)
    assert (number, key) == (id, site.identity)
    return Known(id, key, site.path, 0.0)


def heard(listener):
    """The IDs of the namespaces with events, and that none were lost."""
    counts, is_lossy = listener.read_events(1000)
    assert not is_lossy
    return set(counts)


def test_the_events_of_a_death_are_heard_by_its_id_and_others_are_not(listener, node):
    sites = [Site(node, "pod%d" % number) for number in range(2)]
    for id, site in enumerate(sites, 7):
        known(listener, site, id)
    for site in sites:
        site.make_tap()
    fd = sites[0].hold()
    assert heard(listener) == set(), "nothing has died"
    os.close(fd)
    assert heard(listener) == {7}
    os.close(sites[1].hold("eth9"))  # a TAP of another name
    assert 8 not in heard(listener)


def test_a_namespace_keeps_the_id_that_it_has(listener, node):
    site = Site(node, "pod1")
    known(listener, site, 7)
    assert listener.assign(8, site.path) == (7, site.identity)
    other = Site(node, "pod2")
    with pytest.raises(nlraw.Refused) as caught:
        listener.assign(7, other.path)
    assert caught.value.errno == errno.EEXIST


def test_the_end_of_a_namespace_is_heard_and_a_look_at_it_is_refused(listener, node):
    site = Site(node, "pod1")
    known(listener, site, 7)
    assert listener.look(7) == {}
    assert listener.read_ends() == ([], False)
    site.close()
    agents.wait_until(lambda: listener.read_ends() == ([7], False), "the end of the namespace")
    with pytest.raises(nlraw.Refused) as caught:
        listener.look(7)
    assert caught.value.errno == errno.EINVAL


def test_a_look_shows_the_matching_taps_and_which_are_orphans(listener, node):
    site = Site(node, "pod1")
    known(listener, site, 7)
    orphan = site.leave()
    fresh = site.make_tap(OTHER, redirect=False)
    with site.open() as namespace:
        nodes.add_orphans(namespace, ["tap0_kata"])  # not one of ours
    seen = {ifindex: is_orphan for (ifindex, _), is_orphan in listener.look(7).items()}
    assert seen == {orphan: True, fresh: False}
    falls = set(listener.look(7))
    fd = site.hold()
    seen = listener.look(7)
    assert set(seen.values()) == {False}
    os.close(fd)
    assert {ifindex for ifindex, _ in set(listener.look(7)) - falls} == {orphan}, "it fell again"


def test_a_namespace_with_more_than_a_look_takes_is_an_error_and_the_next_is_not(listener, node):
    big, site = Site(node, "big"), Site(node, "pod1")
    known(listener, big, 7)
    known(listener, site, 8)
    many = ["tap%d_urunc" % number for number in range(BYTES // 400)]  # a TAP has more bytes
    with big.open() as namespace:
        nodes.add_orphans(namespace, many, fresh=True)
    with pytest.raises(nlraw.TooMuch):
        listener.look(7)
    assert listener.look(8) == {}


def test_a_move_leaves_out_one_namespace_and_listen_again_takes_it_in(listener, node):
    sites = [Site(node, "pod%d" % number) for number in range(4)]
    all_known = [known(listener, site, id) for id, site in enumerate(sites, 1)]
    for site in sites:
        site.make_tap()

    def die():
        for site in sites:
            os.close(site.hold())

    die()
    assert heard(listener) == {1, 2, 3, 4}
    listener.begin_move(all_known[1:])
    assert not listener.move(2) and listener.is_moving
    die()
    assert heard(listener) == {1, 2, 3, 4}, "until the move has ended nothing changes"
    late = Site(node, "late")
    known(listener, late, 5)
    late.make_tap()
    assert listener.move(2) and not listener.is_moving
    die()
    os.close(late.hold())
    assert heard(listener) == {2, 3, 4, 5}
    assert set(listener.look(1)) != set(), "looks go on"
    listener.listen_again(all_known[0])
    die()
    assert heard(listener) >= {1, 2, 3, 4}
    sites[0].close()
    agents.wait_until(lambda: 1 in listener.read_ends()[0], "the end of one that was left out")


def test_nothing_is_left_open(node):
    site = Site(node, "pod1")
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        made = Listener(Target())
        known(made, site, 7)
        made.look(7)
        for _ in range(2):
            made.begin_move([])
            made.move(1)
        made.begin_move([])
        made.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_only_the_namespace_that_is_meant_is_opened(node):
    site, other = Site(node, "pod1"), Site(node, "pod2")
    open_known(site.path, site.identity).close()
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(nlraw.Refused) as caught:
        open_known(site.path, other.identity)
    assert caught.value.errno == errno.ENOENT
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_tap_is_named(listener, node):
    """The filter of the pattern is the one that is attached."""
    site = Site(node, "pod1")
    known(listener, site, 7)
    site.make_tap("tap0_kata", redirect=False)  # begins as the pattern does
    os.close(site.hold("tap0_kata"))
    assert heard(listener) == {7}
    assert listener.look(7) == {}
    assert TAP not in site.links()

# SPDX-License-Identifier: Apache-2.0
"""Where namespaces are searched for, and when. Plain files stand for namespaces."""

import os
import time

import pytest

import nlraw
from nlraw import discovery, netns
from nlraw.discovery import PAUSE, RETRY, SHARE, Discovery


@pytest.fixture
def made(tmp_path):
    """Makes a `Discovery` of a directory, and closes it."""
    opened = []

    def make(*dirs, **options):
        now = options.pop("now", 0.0)
        opened.append(Discovery(dirs, options.pop("include_node", False), now))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def key(path):
    return netns.identity_of(str(path))


def test_each_is_found_once_whatever_the_number_of_its_names(made, tmp_path):
    (tmp_path / "pod1").touch()
    (tmp_path / "pod2").touch()
    (tmp_path / "pod3").symlink_to(tmp_path / "pod1")
    (tmp_path / "directory").mkdir()
    found = made(tmp_path, str(tmp_path)).find(0.0)
    assert found == {key(tmp_path / name): str(tmp_path / name) for name in ("pod1", "pod2")}


def test_the_nodes_own_is_found_only_if_it_is_asked_for(made, tmp_path):
    (tmp_path / "default").symlink_to("/proc/self/ns/net")
    assert made(tmp_path).find(0.0) == {}
    (found,) = made(tmp_path, include_node=True).find(0.0).items()
    assert found[0] == key("/proc/self/ns/net")
    assert found[1].startswith("/proc/") and key(found[1]) == found[0]


def test_what_is_no_namespace_is_left_out_until_it_is_something_new(made, tmp_path):
    file = tmp_path / "pod1"
    file.touch()
    search = made(tmp_path)
    search.is_no_namespace(key(file), str(file), 7.0)
    assert search.find(8.0) == {}
    assert search.lasting_other(6.9) is None
    assert search.lasting_other(7.0) == str(file)
    file.unlink()
    assert search.find(9.0) == {}
    assert search.lasting_other(9.0) is None
    file.touch()
    assert list(search.find(10.0).values()) == [str(file)]


def test_a_directory_that_is_not_there_is_an_error_only_if_somebody_named_it(
    made, tmp_path, monkeypatch
):
    search = made(tmp_path / "nowhere")
    assert search.find(5.0) == {}
    assert isinstance(search.refusal, nlraw.Refused) and search.due == 5.0 + RETRY
    (tmp_path / "nowhere").mkdir()
    assert search.find(6.0) == {}
    assert search.refusal is None and search.due is None
    monkeypatch.setattr(netns, "DIRECTORIES", (str(tmp_path / "nowhere"), str(tmp_path)))
    default = Discovery(None, False, 0.0)
    assert default.find(0.0) == {}
    assert default.due is None and default.refusal is None
    default.close()


def test_a_change_of_mounts_has_it_search_again_but_not_all_the_time(made, tmp_path):
    search = made(tmp_path, now=time.monotonic())
    search.mounts_changed()
    assert search.due <= time.monotonic(), "at once"
    before = time.monotonic()
    search.find(before)
    took = time.monotonic() - before
    assert search.due is None
    search.mounts_changed()
    assert before + PAUSE <= search.due <= time.monotonic() + max(PAUSE, took / SHARE)


def test_a_search_takes_only_its_share_of_the_time(made, tmp_path, monkeypatch):
    monkeypatch.setattr(discovery.time, "monotonic", iter([100.0, 100.2]).__next__)
    search = made(tmp_path)
    search.find(100.0)
    search.mounts_changed()
    assert search.due == pytest.approx(100.2 + 0.2 / SHARE)


def test_the_earlier_of_two_times_counts(made, tmp_path):
    search = made(tmp_path)
    search.search_at(9.0)
    search.search_at(5.0)
    search.search_at(7.0)
    assert search.due == 5.0


def test_the_descriptor_is_closed(tmp_path):
    search = Discovery([str(tmp_path)], False, 0.0)
    fd = search.fileno()
    os.fstat(fd)
    search.close()
    search.close()
    with pytest.raises(OSError):
        os.fstat(fd)

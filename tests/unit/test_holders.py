# SPDX-License-Identifier: Apache-2.0
"""The search for holders in a /proc of the test's own. A live test has the kernel's."""

import os

import pytest

from nlraw import holders
from nlraw.errors import Error
from nlraw.report import Holder

TAP = "tap0_urunc"
QEMU = Holder(pid=42, comm="qemu-system-x86")


class Proc:
    """A directory that looks like /proc. A namespace is a file: its inode is its identity."""

    def __init__(self, path):
        self.path = path
        for name in ("pod", "other"):
            (path / name).write_bytes(b"")
        self.pod = self.identity("pod")
        self.other = self.identity("other")

    def identity(self, name):
        found = os.stat(str(self.path / name))
        return found.st_dev, found.st_ino

    def add(self, pid, namespace, comm=b"qemu-system-x86\n", links=(), path=None):
        """Add a process, or a thread at ``path``; return its directory."""
        process = self.path / (path or str(pid))
        for directory in ("fd", "fdinfo", "ns", "net", "task"):
            (process / directory).mkdir(parents=True, exist_ok=True)
        (process / "comm").write_bytes(comm)
        if namespace is not None:
            os.link(str(self.path / namespace), str(process / "ns" / "net"))
        lines = ["Inter-|   Receive", " face |bytes"] + ["%6s: 0 0" % link for link in links]
        (process / "net" / "dev").write_text("\n".join(lines) + "\n")
        return process

    def open(self, process, fd, name, target="/dev/net/tun"):
        """Give a process a descriptor; one of a TAP if it has a name."""
        (process / "fd" / str(fd)).symlink_to(target)
        info = "pos:\t0\nflags:\t02100002\n" + ("" if name is None else "iff:\t%s\n" % name)
        (process / "fdinfo" / str(fd)).write_text(info)

    def search(self, names=(TAP,), namespace_of=None, clock=lambda: 0.0):
        search = holders.Search(self.pod, names, namespace_of, clock, str(self.path))
        search.run()
        return search.result()


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path)


def test_a_process_of_the_namespace_with_a_descriptor_of_the_tap_is_its_holder(proc):
    proc.open(proc.add(42, "pod"), 7, TAP)
    assert proc.search() == {TAP: (QEMU,)}


def test_holders_are_sorted_by_process_id_and_each_tap_has_its_own(proc):
    proc.open(proc.add(100, "pod", b"late\n"), 3, TAP)
    process = proc.add(9, "pod", b"early\n")
    proc.open(process, 3, TAP)
    proc.open(process, 4, "tap1_urunc")
    early = Holder(pid=9, comm="early")
    assert proc.search([TAP, "tap1_urunc", "tap2_urunc"]) == {
        TAP: (early, Holder(pid=100, comm="late")),
        "tap1_urunc": (early,),
        "tap2_urunc": (),
    }


def test_a_process_with_many_descriptors_of_a_tap_counts_once(proc, monkeypatch):
    monkeypatch.setattr(holders, "HOLDERS", 1)
    process = proc.add(42, "pod")
    for fd in range(3, 8):
        proc.open(process, fd, TAP)
    assert proc.search() == {TAP: (QEMU,)}


@pytest.mark.parametrize(
    "name, target",
    [
        (TAP, "/dev/net/tap"),
        (TAP, "socket:[4711]"),
        (TAP, "/tun/dev"),
        (None, "/dev/net/tun"),
        ("", "/dev/net/tun"),  # its queue is detached
        ("tap0_urunc2", "/dev/net/tun"),
    ],
)
def test_other_descriptors_are_no_holders(proc, name, target):
    proc.open(proc.add(42, "pod"), 7, name, target)
    assert proc.search() == {TAP: ()}


@pytest.mark.parametrize(
    "target", ["/srv/jail/root/dev/net/tun", "/dev/net/tun (deleted)", "/tun", "tun"]
)
def test_the_node_of_the_device_may_be_anywhere(proc, target):
    proc.open(proc.add(42, "pod"), 7, TAP, target)
    assert proc.search() == {TAP: (QEMU,)}


def test_where_no_tap_is_in_use_nothing_is_searched():
    assert holders.find(None, []) == {}


class Unreadable:
    def identity(self):
        raise Error("no /proc")


def test_where_proc_cannot_be_read_there_may_be_holders():
    assert holders.find(Unreadable(), [TAP]) == {TAP: (holders.MORE,)}


# ---------------------------------------------------------------- namespaces


def test_a_tap_of_that_name_in_the_process_s_own_namespace_is_another_one(proc):
    proc.open(proc.add(42, "other", links=["lo", TAP]), 7, TAP)
    assert proc.search() == {TAP: ()}


def test_a_descriptor_that_was_passed_to_a_process_of_another_namespace_counts(proc):
    proc.open(proc.add(42, "other", links=["lo", "tap0_urunc1", "eth0"]), 7, TAP)
    assert proc.search() == {TAP: (QEMU,)}


@pytest.mark.parametrize("content", [b"", b"x" * 20], ids=["empty", "too long"])
def test_links_that_cannot_be_read_prove_nothing(proc, monkeypatch, content):
    monkeypatch.setattr(holders, "LIMIT", 20)
    process = proc.add(42, "other")
    (process / "net" / "dev").write_bytes(content)
    (process / "fd" / "7").symlink_to("/dev/net/tun")
    (process / "fdinfo" / "7").write_text("iff:\t%s\n" % TAP)
    assert proc.search() == {TAP: ()}


@pytest.mark.parametrize("own", ["pod", "other"])
def test_the_kernel_s_word_outweighs_what_proc_shows(proc, own):
    proc.open(proc.add(42, own), 7, TAP)
    asked = []

    def answer(identity):
        def namespace_of(pid, fd, name):
            asked.append((pid, fd, name))
            return identity

        return namespace_of

    assert proc.search(namespace_of=answer(proc.pod)) == {TAP: (QEMU,)}
    assert proc.search(namespace_of=answer(proc.other)) == {TAP: ()}
    assert asked == [(42, 7, TAP)] * 2


def test_where_the_kernel_does_not_answer_proc_decides(proc):
    proc.open(proc.add(42, "pod"), 7, TAP)
    assert proc.search(namespace_of=lambda pid, fd, name: None) == {TAP: (QEMU,)}


# ---------------------------------------------------------------- what is outside our hands


def test_a_process_whose_first_thread_ended_is_found_by_another_one(proc):
    proc.add(42, None)
    proc.add(42, None, path="42/task/42")
    for thread in (43, 44):
        task = proc.add(42, "pod", b"io\n", path="42/task/%d" % thread)
        proc.open(task, 7, TAP)
    assert proc.search() == {TAP: (QEMU,)}


def test_what_vanishes_or_may_not_be_read_is_left_out(proc):
    (proc.path / "7").mkdir()  # has ended
    (proc.path / "8" / "fd").mkdir(parents=True)
    (proc.path / "8" / "fd" / "3").symlink_to("/dev/net/tun")  # closed before fdinfo was read
    (proc.path / "self").mkdir()
    (proc.path / "9").write_text("")
    process = proc.add(42, "pod")
    (process / "fdinfo" / "7").mkdir()
    (process / "fd" / "7").symlink_to("/dev/net/tun")
    proc.open(process, 8, TAP)
    assert proc.search() == {TAP: (QEMU,)}


def test_a_process_that_ends_while_it_is_named_has_no_name(proc):
    process = proc.add(42, "pod")
    proc.open(process, 7, TAP)
    (process / "comm").unlink()
    assert proc.search() == {TAP: (Holder(pid=42, comm=""),)}


@pytest.mark.parametrize(
    "comm, name", [(b"\xff\x1b[31m\n", "\udcff\x1b[31m"), (b"a\n\n", "a\n"), (b"\n", "")]
)
def test_a_command_name_may_be_any_bytes(proc, comm, name):
    proc.open(proc.add(42, "pod", comm), 7, TAP)
    assert proc.search() == {TAP: (Holder(pid=42, comm=name),)}


# ---------------------------------------------------------------- limits


def test_a_search_that_takes_too_long_ends_and_says_so(proc):
    for pid in range(10, 20):
        proc.open(proc.add(pid, "pod"), 7, TAP)
    ticks = iter(range(1000))
    (found,) = proc.search(clock=lambda: next(ticks) * holders.SECONDS / 8).values()
    assert 1 <= len(found) < 10
    assert found[-1] == holders.MORE


def test_processes_of_the_namespace_come_first(proc):
    for pid in range(100, 200):
        proc.add(pid, "other")
    proc.open(proc.add(42, "pod"), 7, TAP)
    ticks = iter(range(1000))
    (found,) = proc.search(clock=lambda: next(ticks) * holders.SECONDS / 106).values()
    assert found == (QEMU, holders.MORE)


def test_one_process_with_many_descriptors_does_not_use_up_the_time(proc):
    greedy = proc.add(10, "pod", b"greedy\n")
    for fd in range(10, 10 + holders.FIRST + 10):
        (greedy / "fd" / str(fd)).symlink_to("/dev/null")
    proc.open(greedy, 5000, TAP)
    proc.open(proc.add(42, "pod"), 7, TAP)
    assert proc.search() == {TAP: (Holder(pid=10, comm="greedy"), QEMU)}
    ticks = iter(range(10000))
    (found,) = proc.search(clock=lambda: next(ticks) * holders.SECONDS / 1100).values()
    assert found == (QEMU, holders.MORE) or found == (
        Holder(pid=10, comm="greedy"),
        QEMU,
        holders.MORE,
    )


def test_a_tap_with_very_many_holders_has_the_first_ones_and_says_so(proc, monkeypatch):
    monkeypatch.setattr(holders, "HOLDERS", 3)
    for pid in range(10, 15):
        proc.open(proc.add(pid, "pod"), 7, TAP)
    proc.open(proc.add(42, "pod"), 7, "tap1_urunc")
    found = proc.search([TAP, "tap1_urunc"])
    assert len(found[TAP]) == 4 and found[TAP][-1] == holders.MORE
    assert found["tap1_urunc"] == (QEMU,)


def test_where_there_is_no_proc_nothing_is_raised(tmp_path):
    search = holders.Search((0, 0), [TAP], None, lambda: 0.0, str(tmp_path / "none"))
    search.run()
    assert search.result() == {TAP: ()}

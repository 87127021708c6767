# SPDX-License-Identifier: Apache-2.0
"""nlraw.notify: the datagrams that a service manager gets, and when it gets none."""

import os
import socket
import threading
import time

import pytest

from nlraw import notify


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A socket that receives, and the environment that names it."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = os.fsencode(str(tmp_path / "notify \udcff"))
    if request.param == "path":
        made.bind(name)
    else:
        name = b"@nlraw-%d \xff" % os.getpid()
        made.bind(b"\0" + name[1:])
    made.settimeout(5)
    yield made, {b"NOTIFY_SOCKET": name}
    made.close()


def test_each_message_is_one_datagram(manager):
    socket, environment = manager
    found = notify.Manager(environment)
    assert found.watchdog is None
    assert found.ready("12 namespaces") and socket.recv(999) == b"READY=1\nSTATUS=12 namespaces"
    assert found.status("13 namespaces") and socket.recv(999) == b"STATUS=13 namespaces"
    assert found.alive() and socket.recv(999) == b"WATCHDOG=1"
    assert found.stopping() and socket.recv(999) == b"STOPPING=1"


def test_a_reload_has_the_time_of_its_beginning(manager):
    socket, environment = manager
    before = time.monotonic()
    assert notify.Manager(environment).reloading()
    first, second = socket.recv(999).split(b"\n")
    name, usec = second.split(b"=")
    assert (first, name) == (b"RELOADING=1", b"MONOTONIC_USEC")
    assert before * 1e6 - 1 <= int(usec) <= time.monotonic() * 1e6


def test_a_status_stays_one_line_of_text(manager):
    socket, environment = manager
    notify.Manager(environment).status("a\nREADY=1\0\x1b[31m\u00e9\udcff~")
    assert socket.recv(999) == b"STATUS=a?READY=1??[31m??~"


def messages(environment):
    found = notify.Manager(environment)
    return [found.ready("x"), found.status("x"), found.alive(), found.reloading(), found.stopping()]


@pytest.mark.parametrize(
    "name", [None, b"", b"/", b"@", b"relative", b"vsock:2:1234", b"/nowhere/at/all", b"/" * 200]
)
def test_without_a_socket_nothing_is_sent(name, monkeypatch, tmp_path):
    monkeypatch.chdir(str(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind("relative")
        assert messages({} if name is None else {b"NOTIFY_SOCKET": name}) == [False] * 5
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(1)


def test_a_manager_that_does_not_read_is_not_waited_for(manager, monkeypatch):
    _, environment = manager
    monkeypatch.setattr(notify, "PATIENCE", 0.05)
    found = notify.Manager(environment)
    results = []

    def send():
        for _ in range(5000):  # net.unix.max_dgram_qlen is 10 by default, 512 under systemd
            results.append(found.status("x" * 900))
            if not results[-1]:
                return

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    sender.join(20)
    assert not sender.is_alive()
    assert results[0] and not results[-1]


def test_the_environment_of_the_process_counts(manager, monkeypatch):
    socket, environment = manager
    monkeypatch.setenv("NOTIFY_SOCKET", os.fsdecode(environment[b"NOTIFY_SOCKET"]))
    assert notify.Manager().alive()
    assert socket.recv(999) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    "usec, pid, seconds",
    [
        (b"30000000", None, 15.0),
        (b"30000000", b"%d" % os.getpid(), 15.0),
        (b"30000000", b"1", None),  # of another process
        (b"30000000", b"", None),
        (b"30000000", b"x", None),
        (b"1", None, 5e-7),
        (b"0", None, None),
        (b"", None, None),
        (b"-1", None, None),
        (b"1.5", None, None),
        (b"soon", None, None),
        (b"9" * 5000, None, None),
        (None, None, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(usec, pid, seconds):
    environment = {b"NOTIFY_SOCKET": b"/run/systemd/notify"}
    if usec is not None:
        environment[b"WATCHDOG_USEC"] = usec
    if pid is not None:
        environment[b"WATCHDOG_PID"] = pid
    assert notify.Manager(environment).watchdog == seconds


def test_without_a_socket_there_is_no_watchdog():
    assert notify.Manager({b"WATCHDOG_USEC": b"30000000"}).watchdog is None

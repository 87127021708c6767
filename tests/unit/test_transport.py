# SPDX-License-Identifier: Apache-2.0
"""nlraw.transport: the patience of a command, the allowance of a look, and how a socket is made."""

import errno
import threading

import pytest

from nlraw import transport, uapi
from nlraw.errors import TooMuch
from nlraw.transport import (
    PATIENCE,
    SYSTEM,
    WRITER_PORT,
    Allowance,
    Patience,
    Spending,
    close_socket,
    open_socket,
)

# ---------------------------------------------------------------- patience


class Clock:
    """A system whose time passes when somebody sleeps."""

    def __init__(self):
        self.now = 100.0
        self.slept = 0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept += 1
        self.now += seconds

    thread_time = monotonic


def after(clock, moment):
    """An attempt that succeeds from that moment on."""
    return lambda: clock.now >= moment


def test_an_attempt_that_succeeds_at_once_costs_nothing():
    clock = Clock()
    assert Patience(0).wait_for(lambda: True, clock) is True
    assert clock.slept == 0


def test_an_attempt_is_repeated_until_it_succeeds():
    clock = Clock()
    assert Patience(5).wait_for(after(clock, 103), clock) is True
    assert 103 <= clock.now < 103.01


def test_what_is_waited_for_too_long_is_gone_without():
    clock = Clock()
    assert Patience(5).wait_for(lambda: False, clock) is False
    assert 105 <= clock.now < 105.01
    clock = Clock()
    assert Patience(0).wait_for(lambda: False, clock) is False
    assert clock.slept == 0


def test_the_usual_patience_is_that_of_the_constant():
    clock = Clock()
    assert Patience().wait_for(lambda: False, clock) is False
    assert PATIENCE <= clock.now - 100 < PATIENCE + 0.01


def test_all_connections_of_a_command_share_its_patience():
    clock, patience = Clock(), Patience(5)
    assert patience.wait_for(after(clock, 103), clock) is True
    clock.now += 1000  # what passes between is not waited
    start = clock.now
    assert patience.wait_for(lambda: False, clock) is False
    assert 1.9 < clock.now - start < 2.1
    assert patience.wait_for(lambda: False, clock) is False
    assert clock.now - start < 2.1


def test_an_attempt_that_fails_has_cost_the_time_until_then():
    clock, patience = Clock(), Patience(5)

    def attempt():
        if clock.now > 102:
            raise OSError
        return False

    with pytest.raises(OSError):
        patience.wait_for(attempt, clock)
    start = clock.now
    assert patience.wait_for(lambda: False, clock) is False
    assert 2.9 < clock.now - start < 3.1


def test_time_counts_once_while_several_wait_and_not_between():
    patience, start, ends = Patience(0.3), SYSTEM.monotonic(), []
    until = start + 0.1

    def succeed():
        patience.wait_for(lambda: SYSTEM.monotonic() >= until, SYSTEM)

    threads = [threading.Thread(target=succeed) for _ in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    SYSTEM.sleep(0.3)
    start = SYSTEM.monotonic()
    assert patience.wait_for(lambda: False, SYSTEM) is False
    assert SYSTEM.monotonic() - start >= 0.05
    patience, start = Patience(0.3), SYSTEM.monotonic()

    def wait():
        patience.wait_for(lambda: False, SYSTEM)
        ends.append(SYSTEM.monotonic() - start)

    threads = [threading.Thread(target=wait) for _ in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(ends) == 5 and min(ends) >= 0.29


# ---------------------------------------------------------------- allowance


def test_what_is_within_the_limits_is_allowed_and_one_more_is_not():
    allowance = Allowance(10, 3 << 20, 2.0)
    allowance.begin(50.0)
    allowance.check(52.0, 10, 3 << 20)
    for messages, bytes, words in (
        (11, 0, "over 10 links, qdiscs, filters and routes"),
        (0, (3 << 20) + 1, "over 3 MiB of links, qdiscs, filters and routes"),
    ):
        with pytest.raises(TooMuch) as caught:
            allowance.check(52.0, messages, bytes)
        assert str(caught.value) == "this namespace holds more than nlraw reads: " + words
    with pytest.raises(TooMuch) as caught:
        allowance.check(52.001)
    assert str(caught.value).endswith("it takes over 2 s of processor time")


def test_time_before_the_first_moment_does_not_count():
    allowance = Allowance(10, 100, 2.0)
    allowance.check(1000.0)
    allowance.check(1002.0)
    with pytest.raises(TooMuch):
        allowance.check(1002.1)


def test_time_between_two_threads_does_not_count():
    allowance = Allowance(10, 100, 2.0)
    allowance.begin(0.0)
    allowance.check(1.5)
    allowance.begin(70.0)
    allowance.check(70.5)
    with pytest.raises(TooMuch):
        allowance.check(70.6)


def test_what_has_begun_has_some_seconds_left_to_end():
    allowance = Allowance(10, 100, 2.0)
    allowance.begin(0.0)
    with pytest.raises(TooMuch):
        allowance.check(3.0)
    allowance.renew(transport.RESERVE)
    allowance.check(3.0 + transport.RESERVE)
    with pytest.raises(TooMuch):
        allowance.check(3.1 + transport.RESERVE)


def test_without_limits_all_is_allowed():
    allowance = Allowance.unlimited()
    allowance.begin(0.0)
    allowance.check(1e9, 1 << 40, 1 << 50)


def test_the_exchanges_of_a_look_are_added_up():
    allowance = Allowance(10, 100, 2.0)
    allowance.spend(6, 60)
    allowance.check(0.0, 4, 40)
    with pytest.raises(TooMuch):
        allowance.check(0.0, 5, 0)
    with pytest.raises(TooMuch):
        allowance.check(0.0, 0, 41)


def test_another_look_has_all_messages_and_bytes_and_the_seconds_that_are_left():
    allowance = Allowance(10, 100, 2.0)
    allowance.begin(0.0)
    allowance.check(1.5)
    allowance.spend(10, 100)
    allowance.renew()
    allowance.check(2.0, 10, 100)
    with pytest.raises(TooMuch):
        allowance.check(2.1)


def test_a_list_that_is_read_again_is_counted_once():
    allowance = Allowance(10, 100, 2.0)
    allowance.begin(0.0)
    allowance.spend(3, 30)
    for attempt in range(40):
        allowance.check(attempt / 100, 7, 70)
        allowance.spend(7, 70)
        allowance.refund()
    allowance.check(0.4, 7, 70)
    with pytest.raises(TooMuch):
        allowance.check(0.4, 8, 0)
    with pytest.raises(TooMuch):
        allowance.check(0.4, 0, 71)


def test_the_limits_are_those_of_the_constants():
    allowance = Allowance()
    assert (allowance.messages, allowance.bytes, allowance.seconds) == (
        transport.MESSAGES,
        transport.BYTES,
        transport.SECONDS,
    )
    allowance.begin(0.0)
    allowance.check(transport.SECONDS, transport.MESSAGES, transport.BYTES)


class Received:
    """What an exchange has received so far."""

    received = 0


def test_an_exchange_is_checked_while_it_lasts():
    clock, exchange = Clock(), Received()
    spending = Spending(Allowance(1000, 1 << 30, 2.0), exchange, clock)
    for _ in range(4):
        spending.count(40 << 10)
    exchange.received = 1001
    with pytest.raises(TooMuch):
        for _ in range(2):
            spending.count(40 << 10)


def test_the_time_of_an_exchange_counts_from_its_first_check():
    clock = Clock()
    spending = Spending(Allowance(1000, 1 << 30, 2.0), Received(), clock)
    spending.count(65 << 10)
    clock.now += 1.9
    spending.count(65 << 10)
    clock.now += 0.2
    with pytest.raises(TooMuch) as caught:
        spending.count(65 << 10)
    assert "2 s of processor time" in str(caught.value)


def test_a_small_exchange_is_counted_when_it_ends_and_reads_no_clock():
    allowance, exchange = Allowance(10, 100, 2.0), Received()
    exchange.received = 6
    spending = Spending(allowance, exchange, Clock())
    spending.count(20)
    spending.count(20)
    spending.settle()
    spending = Spending(allowance, exchange, Clock())
    spending.count(60)
    exchange.received = 5
    with pytest.raises(TooMuch):
        spending.settle()
    exchange.received = 4
    spending.settle()


# ---------------------------------------------------------------- the socket


class Socket:
    """A netlink socket that notes what is asked of it; ports in ``taken`` are somebody's."""

    def __init__(self, taken=(), refuse=()):
        self.taken = set(taken)
        self.refuse = dict(refuse)
        self.options = []
        self.port = None
        self.groups = 0
        self.closed = False

    def setsockopt(self, level, option, value):
        assert (level, value) == (uapi.SOL_NETLINK, 1)
        if option in self.refuse:
            raise OSError(self.refuse[option], "")
        self.options.append(option)

    def bind(self, address):
        port, groups = address
        if "bind" in self.refuse:
            raise OSError(self.refuse["bind"], "")
        if port in self.taken:
            raise OSError(errno.EADDRINUSE, "")
        self.port, self.groups = port or 4321, groups

    def connect(self, address):
        assert address == (0, 0)
        self.port = self.port or 4321

    def getsockname(self):
        return self.port, self.groups

    def close(self):
        self.closed = True
        if "close" in self.refuse:
            raise OSError(self.refuse["close"], "")


class System(Clock):
    def __init__(self, socket):
        super().__init__()
        self.made = socket

    def socket(self):
        return self.made


def opened(socket, patience=None, groups=0, hears_all=False):
    return open_socket(System(socket), patience, groups, hears_all)


@pytest.mark.parametrize("groups", [0, 9])
def test_a_reader_takes_any_port_and_joins_its_groups(groups):
    socket = Socket()
    assert opened(socket, groups=groups) == (socket, 4321)
    assert socket.groups == groups
    assert socket.options == [uapi.NETLINK_EXT_ACK, uapi.NETLINK_CAP_ACK]


@pytest.mark.parametrize("groups", [0, 9])
def test_a_writer_takes_the_one_port_and_joins_its_groups(groups):
    socket = Socket()
    assert opened(socket, Patience(), groups) == (socket, WRITER_PORT)
    assert socket.port == WRITER_PORT and socket.groups == groups


@pytest.mark.parametrize("groups", [0, 9])
def test_a_writer_that_waited_too_long_goes_on_without_the_port(groups):
    socket = Socket(taken=[WRITER_PORT])
    assert opened(socket, Patience(0.1), groups) == (socket, 4321)
    assert socket.groups == groups and not socket.closed


def test_the_namespaces_that_have_an_id_here_are_heard_if_that_is_asked_for():
    socket = Socket()
    opened(socket, hears_all=True)
    assert uapi.NETLINK_LISTEN_ALL_NSID in socket.options
    socket = Socket(refuse={uapi.NETLINK_LISTEN_ALL_NSID: errno.EPERM})
    with pytest.raises(OSError) as caught:
        opened(socket, hears_all=True)
    assert caught.value.errno == errno.EPERM and socket.closed


def test_a_kernel_without_extended_or_capped_acks_will_do():
    refuse = {uapi.NETLINK_EXT_ACK: errno.ENOPROTOOPT, uapi.NETLINK_CAP_ACK: errno.ENOPROTOOPT}
    socket = Socket(refuse=refuse)
    assert opened(socket) == (socket, 4321)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM])
def test_a_port_that_is_refused_for_another_reason_is_an_error_and_the_socket_is_closed(number):
    socket = Socket(refuse={"bind": number})
    with pytest.raises(OSError) as caught:
        opened(socket, Patience(5))
    assert caught.value.errno == number and socket.closed


def test_a_close_that_is_refused_has_closed():
    socket = Socket(refuse={"close": errno.EIO})
    close_socket(socket)
    assert socket.closed


def test_the_clock_of_a_thread_is_its_processor_time():
    before = SYSTEM.thread_time()
    assert SYSTEM.thread_time() >= before >= 0

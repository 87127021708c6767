# SPDX-License-Identifier: Apache-2.0
"""A made-up namespace for the functions that open one themselves."""

import contextlib

from nlraw import uapi


class Listener:
    """The connection that waits: ``events`` are called one at a time, as they arrive."""

    def __init__(self, clock):
        self.clock = clock
        self.events = []
        self.waited = []

    def receive_events(self, seconds=0.0):
        self.waited.append(seconds)
        if self.events:
            self.events.pop(0)()
        else:
            self.clock.now += seconds


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


class Opened:
    """What is opened in the place of namespaces and connections, with the arguments of each."""

    def __init__(self, made):
        self.made = made
        self.clock = Clock()
        self.listener = Listener(self.clock)
        self.arguments = []

    @contextlib.contextmanager
    def namespace(self, netns):
        self.arguments.append((netns,))
        yield self

    path = "/run/netns/made-up"

    @contextlib.contextmanager
    def connection(self, namespace, exclusive=False, groups=0, patience=None, allowance=None):
        assert namespace is self
        self.arguments.append((exclusive, groups, patience))
        is_listener = groups == uapi.RTMGRP_LINK
        if not is_listener:
            self.made.groups = groups
        yield self.listener if is_listener else self.made

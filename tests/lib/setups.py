# SPDX-License-Identifier: Apache-2.0
"""Helpers of the tests of `nlraw setup`: the command line, and what a whole setup looks like."""

import json
import subprocess

from lib import command, pods


class Result(command.Done):
    """How a command line ended: its exit status, what it printed, also as JSON, and complaints."""

    __slots__ = ()

    @property
    def document(self):
        return json.loads(self.out)


def setup(*arguments, before=()):
    """Run `nlraw setup` with some arguments as a process of its own.

    ``before`` is the argv of what runs it.
    """
    return Result(*command.nlraw("setup", *arguments, argv=tuple(before) + command.MODULE))


def cleanup(*arguments):
    """Run `nlraw cleanup` likewise."""
    return Result(*command.nlraw("cleanup", *arguments))


def start(*arguments):
    """Start `nlraw setup`, for `finish` to wait for."""
    return subprocess.Popen(
        command.MODULE + ("setup",) + arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        cwd="/",
        env=command.environment(),
    )


def finish(process):
    out, err = process.communicate()
    return Result(process.returncode, out, err)


def redirects(pod, dev, target):
    """How many filters on a device redirect to another."""
    actions = [
        action for found in pod.filters(dev) for action in found["options"].get("actions", ())
    ]
    return sum(
        action.get("to_dev") == target and action.get("mirred_action") == "redirect"
        for action in actions
    )


def check_pair(pod, tap=pods.TAP):
    """Make sure that the TAP is there, up, and the uplink's one and only partner.

    Return its ifindex.
    """
    links = pod.links()
    assert [
        name for name, link in links.items() if link.get("linkinfo", {}).get("info_kind") == "tun"
    ] == [tap]
    assert "UP" in links[tap]["flags"] and links[tap]["linkinfo"]["info_data"]["persist"]
    for dev, target in ((pod.uplink, tap), (tap, pod.uplink)):
        assert redirects(pod, dev, target) == 1
        assert [qdisc["kind"] for qdisc in pod.qdiscs(dev)] == ["ingress"]
        assert len(pod.filters(dev)) == 1
    return links[tap]["ifindex"]

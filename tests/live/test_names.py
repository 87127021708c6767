# SPDX-License-Identifier: Apache-2.0
"""A TAP and an uplink of any name are set up, reported, and cleaned up."""

import json
import os
import re

import pytest

import nlraw
import nlraw.netns
import nlraw.tap
from lib import command
from lib.names import NAMES, is_plain, names


def pattern(name):
    """What matches a name: a bracket or a brace is written as a question mark."""
    return re.sub(rb"[][{}]", b"?", name)


@pytest.mark.parametrize("name", NAMES)
def test_a_setup_makes_and_reports_a_tap_of_any_name(make_pod, name):
    uplink = os.fsdecode(name.replace(b"tap", b"up"))
    pod = make_pod(uplink=None)
    pod.ip("link", "add", uplink, "type", "veth", "peer", "name", "peer0")
    before = names(pod)
    setup = ("setup", "-n", pod.path, "-u", uplink, "-m", pattern(name), "--tap", name)
    done = command.nlraw(*setup, "-j")
    assert done.status == 0 and is_plain(done.out) and is_plain(done.err)
    assert done.err.endswith(
        " has no address, so the guest gets none\n"
    )  # the name of the uplink stands before it
    shown = json.loads(done.out)
    assert shown["tap"]["ifname"].encode("utf-8", "surrogateescape") == name
    assert os.fsencode(uplink) == shown["uplink"]["ifname"].encode("utf-8", "surrogateescape")
    assert names(pod) == before | {name}
    again = command.nlraw(*setup)
    assert again.status == 0 and is_plain(again.out)
    with nlraw.netns.Namespace(pod.path) as namespace:
        holder = nlraw.tap.attach(namespace, name.decode("utf-8", "surrogateescape"))
    refused = command.nlraw(*setup)
    assert refused.status == 3 and is_plain(refused.out) and is_plain(refused.err)
    os.close(holder)
    clean = ("cleanup", "-n", pod.path, "-u", uplink, "-m", pattern(name))
    assert command.nlraw(*clean).status == 0
    assert names(pod) == before

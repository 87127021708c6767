# SPDX-License-Identifier: Apache-2.0
"""Namespaces that a user namespace owns, for its root, for the root of all, and for guests."""

import json
import subprocess

import pytest

import nlraw
import nlraw.netns
from lib import command, nodes, pods
from lib.rights import MATTERS, NET_ADMIN, needs

# A process in namespaces of its own says that it is ready, and stays.
ENTER = ("unshare", "--user", "--map-root-user", "--net", "sh", "-c", "echo ready && exec cat")


@pytest.fixture
def owned(make_pod):
    """The PID of a process in a network namespace that a user namespace of its own owns.

    There is an uplink in it, and an orphan. ``make_pod`` skips where none can be.
    """
    needs("unshare", "nsenter")
    process = subprocess.Popen(
        ENTER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    if process.stdout.readline() != b"ready\n":
        process.communicate()
        pytest.skip("no user namespace can be made here")
    with nlraw.netns.Namespace(process.pid) as namespace:
        nodes.furnish(namespace, [pods.TAP], fresh=True)
    yield process.pid
    process.communicate()


def test_root_cleans_up_a_namespace_that_a_user_namespace_owns(owned):
    done = command.nlraw("cleanup", "-n", str(owned), "-j")
    assert (done.status, json.loads(done.out)["outcome"]) == (0, "cleaned")
    assert nlraw.scan(netns=owned) == ()


def within(pid, *names):
    return (
        ("nsenter", "--target", str(pid), "--preserve-credentials")
        + tuple("--" + name for name in names)
        + command.MODULE
    )


def test_the_root_of_a_user_namespace_cleans_up_what_that_owns(owned):
    done = command.nlraw("cleanup", "-n", "current", argv=within(owned, "user", "net"))
    assert (done.status, done.err) == (0, "")
    assert nlraw.scan(netns=owned) == ()


def test_the_root_of_a_user_namespace_sets_up_what_that_owns(owned):
    done = command.nlraw("setup", "-n", "current", "-j", argv=within(owned, "user", "net"))
    assert (done.status, json.loads(done.out)["outcome"]) == (0, "created")
    (found,) = nlraw.scan(netns=owned)
    assert found.ifindex == json.loads(done.out)["tap"]["ifindex"]


def test_the_root_of_a_user_namespace_may_not_enter_what_that_does_not_own(owned, pod):
    pod.add_orphan()
    before = pod.state()
    for name in ("scan", "cleanup", "setup"):
        done = command.nlraw(name, "-n", pod.path, argv=within(owned, "user", "net"))
        assert (done.status, done.err) == (1, "nlraw: %s\n" % (MATTERS["sys_admin"] % pod.path))
    assert pod.state() == before


def test_the_root_of_a_user_namespace_may_look_at_but_not_change_where_it_is_a_guest(owned, pod):
    # in the network namespace of the pod, but root in the other's user namespace alone
    pod.add_orphan()
    before = pod.state()
    guest = ("ip", "netns", "exec", pod.name) + within(owned, "user")
    assert "would clean" in command.nlraw("scan", argv=guest).out
    for name in ("cleanup", "setup"):
        done = command.nlraw(name, "-n", "current", argv=guest)
        assert (done.status, NET_ADMIN in done.err) == (1, True)
    assert pod.state() == before

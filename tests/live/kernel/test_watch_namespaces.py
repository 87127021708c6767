# SPDX-License-Identifier: Apache-2.0
"""The agent of a node and the life of namespaces: none is missed, and none is kept alive."""

import os
import random
import signal
import sys
import time

import pytest

from lib import agents, rights
from lib.agents import Agent, Flood, Host, Site, beside_one_in_use
from lib.pods import TAP

# No look at everything happens by itself meanwhile: what is found is found by events.
NEVER = ("--resync", "1000")
OTHER = "tap1_urunc"


@pytest.fixture
def host(make_pod):
    """``make_pod`` is there to skip where no namespace can be made."""
    with Host() as made:
        yield made


def warm_up(node, agent):
    """Make the agent open what it keeps open."""
    site = Site(node, "first")
    site.leave()
    agent.wait_for(site.path)
    agent.send(signal.SIGHUP)
    time.sleep(1)
    site.close()


# ---------------------------------------------------------------- namespaces that go


def test_namespaces_that_die_in_mid_visit_are_no_failures_and_are_not_kept(node):
    chance = random.Random(17)
    with agents.Far() as far, Agent("--dir", node.directory, *NEVER) as agent:
        warm_up(node, agent)
        descriptors = agent.descriptors()
        for number in range(60):
            site = Site(node, "pod%d" % number, far)
            held = []
            for name in (TAP, OTHER):
                site.make_tap(name)
                held.append(site.hold(name))
            time.sleep(chance.uniform(0, 0.01))
            for fd in held:
                os.close(fd)
            time.sleep(chance.choice((0, chance.uniform(0, 0.004))))
            site.close()
        agents.wait_until(lambda: far.count() == 0, lambda: "%d namespaces" % far.count())
        agents.wait_until(lambda: agent.descriptors() <= descriptors, "the descriptors")
        assert agent.failures() == []
        assert agent.err == ""
        # it still does its work
        last = Site(node, "last")
        vmm = last.start()
        vmm.kill()
        agent.wait_for(last.path)
        vmm.reap()
        assert agent.stop()[0].status == 0


def test_a_namespace_that_gets_the_inode_of_a_dead_one_is_watched(node):
    """The kernel gives the number of a dead namespace out again at once."""
    reused, last = 0, None
    with agents.Far() as far, Agent("--dir", node.directory, *NEVER) as agent:
        for number in range(60):
            site = Site(node, "pod%d" % (number % 2), far)
            reused += site.identity == last
            last = site.identity
            before = len(agent.deletions(site.path))
            vmm = site.start()
            vmm.kill()
            agent.wait_for(site.path, before + 1, patience=5)
            vmm.reap()
            site.close()
            if number % 3:
                agents.wait_until(lambda: far.count() == 0, "the namespace's end", pause=0.001)
                time.sleep(0.03)  # its number is given back a moment later
        assert agent.failures() == []
    print("%d of 60 had the inode number of the one before" % reused)


def test_after_an_overrun_all_are_looked_at(node):
    """While the agent is stopped, one pod's events fill its socket, and others die unheard."""
    hostile, held = beside_one_in_use(node, "hostile")
    sites = [Site(node, "pod%d" % number) for number in range(8)]
    with Agent("--dir", node.directory, *NEVER) as agent:
        vmms = [site.start() for site in sites]
        agent.send(signal.SIGSTOP)
        with Flood(hostile, count=40000) as flood:
            flood.wait()
        for vmm in vmms:
            vmm.kill()
            vmm.reap()
        began = time.monotonic()
        agent.send(signal.SIGCONT)
        for site in sites:
            agent.wait_for(site.path, patience=5)
        print(
            "8 that died unheard: gone %.0f ms after SIGCONT" % ((time.monotonic() - began) * 1e3)
        )
        assert all(site.is_empty for site in sites)
        assert agent.failures() == []
        assert agent.process.poll() is None
    os.close(held[0])


# ---------------------------------------------------------------- ip netns

# Makes a TAP that was held and is held no more, as a VMM that died leaves it.
ORPHAN = """
import fcntl, os, struct, sys
name = sys.argv[1].encode()
def attach():
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("=16sH22x", name, 0x1002))
    return tun
tun = attach()
fcntl.ioctl(tun, 0x400454CB, 1)
os.close(tun)
os.system("ip link set dev %s up" % sys.argv[1])
os.close(attach())
"""


def check_deletions(host, rounds):
    """Make a namespace and delete it by name, so often, while the agent looks at it.

    The other end of its uplink is here, and is gone when the namespace is.
    """
    chance = random.Random(17)
    slowest = 0.0
    with Agent(*NEVER, **host.options) as agent:
        for number in range(rounds):
            name, far = "pod%d" % number, "far%d" % number
            host.run("ip", "netns", "add", name)
            host.run(*("ip link add %s type veth peer name eth0 netns %s" % (far, name)).split())
            if number % 2:
                path = "/run/netns/" + name
                argv = ["ip", "netns", "exec", name, sys.executable, "-S", "-c", ORPHAN, TAP]
                host.run(*argv)
            else:
                path = None
                time.sleep(chance.uniform(0, 0.01))
            if number % 4 == 3:  # else it goes while it is looked at
                agent.wait_for(path)
            host.run("ip", "netns", "del", name)
            began = time.monotonic()
            agents.wait_until(lambda far=far: far not in host.links(), name + " is still alive")
            slowest = max(slowest, time.monotonic() - began)
        assert host.run("ip", "netns", "list") == ""
        assert host.run("ip", "netns", "list-id") == ""
        assert agent.failures() == []
        assert agent.err == ""
        assert agent.stop()[0].status == 0
    print("%d deleted, each gone within %.0f ms" % (rounds, slowest * 1e3))


def test_ip_netns_del_frees_a_namespace_while_the_agent_runs(host):
    check_deletions(host, 50)


# ---------------------------------------------------------------- rights and mounts


def test_without_cap_net_broadcast_it_says_so_and_sweeps(node):
    rights.needs("setpriv")
    site = Site(node, "pod1")
    lacking = ("setpriv", "--bounding-set=-net_broadcast", "--inh-caps=-net_broadcast")
    with Agent("--dir", node.directory, before=lacking) as agent:
        assert "CAP_NET_BROADCAST" in agent.err
        assert len(agent.err.splitlines()) == 1
        for _ in range(2):
            vmm = site.start()
            vmm.kill()
            vmm.reap()
            before = len(agent.deletions(site.path))
            agent.wait_for(site.path, before + 1, patience=12)
        assert site.is_empty
        assert agent.failures() == []
        assert agent.stop()[0].status == 0


def test_without_propagation_of_mounts_it_says_so(node):
    private = ("unshare", "--mount", "--propagation", "private")
    old = Site(node, "old")
    with Agent("--dir", node.directory, "--resync", "0.5", before=private) as agent:
        assert agent.err == ""
        new = Site(node, "new")
        agents.wait_until(lambda: "propagation" in agent.err, "a word of it")
        assert new.path in agent.err
        vmm = old.start()
        vmm.kill()
        agent.wait_for(old.path)
        vmm.reap()
        assert agent.stop()[0].status == 0


def test_the_namespaces_of_the_node_are_left_alone(host):
    """That of the agent, under a name too."""
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
    host.run("touch", "/run/netns/default")
    host.run("mount", "--bind", "/proc/self/ns/net", "/run/netns/default")
    host.run(sys.executable, "-S", "-c", ORPHAN, TAP)
    with Agent("--resync", "0.2", **host.options) as agent:
        time.sleep(1)
        assert TAP in host.links()
        assert agent.lines == []
    with Agent("--include-node", **host.options) as agent:
        agents.wait_until(agent.deletions, "the removal")
        assert TAP not in host.links()


# ---------------------------------------------------------------- what fails around it


def test_a_directory_that_vanishes_does_not_hide_the_namespaces_of_others(node, tmp_path):
    (tmp_path / "other").mkdir()
    directories = ("--dir", node.directory, "--dir", tmp_path / "other")
    with Agent(*directories, *NEVER) as agent:
        early = Site(node, "early")
        (tmp_path / "other").rmdir()
        late = Site(node, "late")
        for site in (early, late):
            site.leave()
            agent.wait_for(site.path)
            site.close()
        words = "list namespaces in %s: No such file" % (tmp_path / "other")
        agents.wait_until(lambda: words in agent.err, lambda: agent.err)


def test_a_watch_goes_on_though_nothing_can_be_printed(node):
    closed = ("sh", "-c", 'exec "$@" >/dev/full', "sh")
    with Agent("--dir", node.directory, *NEVER, before=closed) as agent:
        for number in range(2):
            site = Site(node, "pod%d" % number)
            site.leave()
            agents.wait_until(lambda site=site: TAP not in site.links(), "the TAP")
            site.close()
        words = "results are not printed from now on: stdout: No space left"
        agents.wait_until(lambda: words in agent.err, lambda: agent.err)

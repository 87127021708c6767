# SPDX-License-Identifier: Apache-2.0
"""What one namespace costs a sweep of many: its memory is given back, and the others do not wait.

The root of a user namespace makes as many links, filters and changes in its own network namespace
as it likes.
"""

import json
import os
import socket
import subprocess
import sys

import pytest

import nlraw.netns
from lib import command, nodes, pods, taps
from nlraw.transport import WRITER_PORT

OTHERS = 200

# Sweeps some directories one after the other, each as often as asked for; prints of each the least
# seconds, the most KiB above what a sweep of nothing takes, and what came of it.
MEASURE = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import nlraw

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))

def measured(directory):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    begin = time.monotonic()
    swept = nlraw.sweep(dirs=[directory])
    seconds = time.monotonic() - begin
    errors = [str(report.error) for report in swept.namespaces if report.error]
    return seconds, peak(), swept.totals.fields(), errors

nlraw.sweep(dirs=[])
results = {}
for _ in range(int(sys.argv[2])):
    for directory in sys.argv[3:]:
        seconds, kib, totals, errors = measured(directory)
        before = results.get(directory, dict(seconds=seconds, kib=kib, errors=[]))
        results[directory] = dict(
            seconds=min(seconds, before["seconds"]),
            kib=max(kib, before["kib"]),
            totals=totals,
            errors=sorted(set(before["errors"] + errors)),
        )
print(json.dumps([results[directory] for directory in sys.argv[3:]]))
"""


def measure(times, *directories):
    argv = [sys.executable, "-S", "-c", MEASURE, command.ROOT, str(times)]
    return json.loads(command.run(*argv + [str(each) for each in directories]))


@pytest.fixture(scope="module")
def make_node(tmp_path_factory):
    """Make nodes; they are gone at the end."""
    reason = pods.missing()
    if reason is not None:
        pytest.skip("needs a network namespace of its own: " + reason)
    made = []

    def make():
        made.append(nodes.Node(tmp_path_factory.mktemp("netns")))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def others(make_node):
    """A node with many clean namespaces."""
    node = make_node()
    for number in range(OTHERS):
        add(node, "pod%d" % number)
    return node


def tc(namespace, lines):
    """Many `tc` commands in one process, in a namespace that is open."""
    path = "--net=/proc/%d/fd/%d" % (os.getpid(), namespace.fileno())
    command.run("nsenter", path, "tc", "-batch", "-", input="\n".join(lines) + "\n")


def filters(count, form):
    return ["qdisc add dev eth0 ingress"] + [
        "filter add dev eth0 ingress " + form.format(number) for number in range(1, count + 1)
    ]


def add(node, name, furnish=lambda namespace: None):
    """Make a namespace with an uplink and more."""
    with nlraw.netns.create() as namespace:
        nodes.furnish(namespace, [])
        furnish(namespace)
        return node.pin(name, "/proc/self/fd/%d" % namespace.fileno())


# ---------------------------------------------------------------- what is given back

MATCH = "pref {0} protocol ip u32 match ip dport {0} 0xffff flowid 1:7"


def test_a_sweep_keeps_nothing_of_clean_namespaces(make_node):
    def furnish(namespace):
        namespace.run(lambda: [taps.make("vm%d" % number) for number in range(50)])
        tc(namespace, filters(200, MATCH))

    many, few = make_node(), make_node()
    for number in range(40):
        path = add(many, "pod%d" % number, furnish)
        if number < 4:
            os.symlink(path, few.path("pod%d" % number))
    first, all_of_them = measure(2, few.directory, many.directory)
    assert (first["totals"]["namespaces"], all_of_them["totals"]["namespaces"]) == (4, 40)
    print("4 namespaces: peak %d KiB; 40: %d KiB more" % (first["kib"], over(all_of_them, first)))
    assert over(all_of_them, first) < 1 << 10


def over(result, other):
    return result["kib"] - other["kib"]


# ---------------------------------------------------------------- a hostile namespace

CHAINS = "pref 1 chain {0} protocol all u32 match u32 0 0 flowid 1:1"
BPF = "pref {0} protocol all bpf da bytecode '1,6 0 0 4294967295' flowid 1:1"

# Changes a link all the time, as fast as it can, until its input ends. Some orphans come and go
# too.
RESTLESS = """
import select, sys
sys.path[:0] = sys.argv[1:3]
from lib import taps
from nlraw import link, tc, uapi
from nlraw.connection import Connection
from nlraw.netns import Namespace
from nlraw.transport import Allowance

connection = Connection(Namespace(), allowance=Allowance(1 << 40, 1 << 40, 1e9))
ifindex = link.only(connection.ask(link.find("peer0"))[0]).ifindex
connection.change(link.set_up(ifindex, "peer0"))  # of one that is down no change is announced
requests = [link.set_group(ifindex, "peer0", number) for number in range(100)]
names = ["tap%d_urunc" % number for number in range(int(sys.argv[3]))]
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for name in names:
        try:
            taps.make(name)
            taps.leave(name)
        except OSError:  # it is there
            pass
    connection.change(*requests)
"""
TESTS = os.path.dirname(os.path.dirname(os.path.abspath(taps.__file__)))


def many_filters(count, form):
    return lambda namespace: tc(namespace, filters(count, form))


def many_taps(count):
    def furnish(namespace):
        namespace.run(lambda: [taps.make("vm%d" % number) for number in range(count)])

    return furnish


HOSTILE = {
    "600 u32 filters of one priority in as many chains": many_filters(600, CHAINS),
    "8000 bpf filters": many_filters(8000, BPF),
    "8000 TAPs": many_taps(8000),
}


def check_cost(others, hostile, tmp_path, times=3):
    """Sweep the others alone, and beside a hostile namespace; return the errors of the latter."""
    os.symlink(hostile, str(tmp_path / "0"))  # it comes first
    for name in os.listdir(others.directory):
        os.symlink(others.path(name), str(tmp_path / name))
    without, beside = measure(times, others.directory, tmp_path)
    assert without["totals"]["namespaces"] == OTHERS
    assert beside["totals"]["namespaces"] == OTHERS + 1
    seconds = beside["seconds"] - without["seconds"]
    facts = (without["seconds"], seconds, over(beside, without), beside["errors"])
    print("200 namespaces: %.2f s; one hostile beside: %.2f s and %d KiB more; %s" % facts)
    assert seconds < 1.0
    assert over(beside, without) < 32 << 10
    return beside["errors"]


@pytest.mark.parametrize("name", HOSTILE)
def test_200_others_do_not_wait_for_a_hostile_namespace(make_node, others, tmp_path, name):
    (error,) = check_cost(others, add(make_node(), "0", HOSTILE[name]), tmp_path)
    assert "this namespace holds more than nlraw reads: over " in error


def test_200_others_do_not_wait_for_a_namespace_whose_writer_port_is_held(
    make_node, others, tmp_path
):
    def furnish(namespace):
        nodes.add_orphans(namespace, [pods.TAP])
        rivals.append(
            namespace.run(
                lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            )
        )
        rivals[0].bind((WRITER_PORT, 0))

    rivals = []
    try:
        assert check_cost(others, add(make_node(), "0", furnish), tmp_path, times=1) == []
    finally:
        rivals[0].close()


@pytest.mark.parametrize("orphans", [0, 1, 20])
def test_200_others_do_not_wait_for_a_namespace_that_never_rests(
    make_node, others, tmp_path, orphans
):
    hostile = add(make_node(), "0", many_filters(300, MATCH))
    argv = ["nsenter", "--net=" + hostile, sys.executable, "-S", "-c", RESTLESS]
    argv += [command.ROOT, TESTS, str(orphans)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, stdin=pipe, stdout=pipe)
    try:
        assert process.stdout.readline() == b"ready\n"
        check_cost(others, hostile, tmp_path)
        assert process.poll() is None
    finally:
        process.communicate()

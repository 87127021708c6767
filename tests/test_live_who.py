# SPDX-License-Identifier: Apache-2.0
"""Who runs it, and where: capabilities, seccomp, descriptors, streams, locales, forgers.

What may be done is done, what may not is refused in words that name the step and the capability;
nothing is half done.
"""

import collections
import errno
import json
import os
import shutil
import struct
import subprocess
import sys
import time

import pytest

import command
import nlraw
import nlraw.netns
import nlraw.route
import nlraw.tap
import pods
import setups

TAP = pods.TAP
NET_ADMIN = "it takes CAP_NET_ADMIN in the user namespace that owns the network namespace"
SYS_ADMIN = "it takes CAP_SYS_ADMIN, here and in the user namespace that owns it"


def needs(*programs):
    lacking = [program for program in programs if shutil.which(program) is None]
    if lacking:
        pytest.skip("no " + ", ".join(lacking))


# ---------------------------------------------------------------- capabilities


def capabilities():
    """Every capability by setpriv's name, those that it knows and this kernel has."""
    if shutil.which("setpriv") is None:
        return []
    listed = subprocess.run(
        ["setpriv", "--list-caps"], stdout=subprocess.PIPE, universal_newlines=True
    ).stdout.split()
    return [name for name in listed if not name.startswith("cap_")]


def without(*names):
    told = ",".join("-" + name for name in names)
    return ("setpriv", "--bounding-set=" + told, "--inh-caps=" + told) + command.MODULE


# The step that fails without a capability; without any other all is done.
MATTERS = {
    "sys_admin": "enter namespace %s: Operation not permitted; " + SYS_ADMIN,
    "net_admin": "%s: delete u32 filters of priority 49152 eth0: Operation not permitted; "
    + NET_ADMIN,
}


@pytest.mark.slow
def test_of_all_capabilities_two_matter_and_the_refusal_names_the_one_that_is_missing(pod):
    needs("setpriv")
    clean = pod.state()
    assert len(capabilities()) > 35
    ifindex = nlraw.setup(netns=pod.path).tap.ifindex
    for name in capabilities():  # each setup removes what the one before has made
        before = pod.state() if name in MATTERS else None
        status, _, err = command.nlraw("setup", "-n", pod.path, argv=without(name))
        if name in MATTERS:
            assert status == 1 and err.startswith("nlraw: " + MATTERS[name] % pod.path), name
            assert pod.state() == before, name
        else:
            assert (status, err) == (0, ""), name
            former, ifindex = ifindex, setups.check_pair(pod)
            assert ifindex != former, name
    nlraw.cleanup(netns=pod.path)
    assert pod.state() == clean


def test_with_these_two_capabilities_and_no_other_all_is_done(pod):
    needs("setpriv")
    before = pod.state()
    others = [name for name in capabilities() if name not in MATTERS]
    assert command.nlraw("setup", "-n", pod.path, argv=without(*others)).status == 0
    setups.check_pair(pod)
    assert command.nlraw("cleanup", "-n", pod.path, argv=without(*others)).status == 0
    assert pod.state() == before


def test_a_scan_takes_no_capability_beyond_the_way_in(pod):
    needs("setpriv")
    pod.add_orphan()
    others = [name for name in capabilities() if name != "sys_admin"]
    assert "would clean" in command.nlraw("scan", "-n", pod.path, argv=without(*others)).out
    done = command.nlraw("scan", "-n", pod.path, argv=without("sys_admin"))
    assert (done.status, done.err) == (1, "nlraw: %s\n" % (MATTERS["sys_admin"] % pod.path))


def test_a_sweep_that_may_not_enter_says_so_of_each_namespace(pod, tmp_path):
    needs("setpriv")
    pod.add_orphan()
    before = pod.state()
    (tmp_path / "pod").symlink_to(pod.path)
    done = command.nlraw("sweep", "--dir", str(tmp_path), argv=without("sys_admin"))
    assert (done.status, done.err) == (
        1,
        "nlraw: %s\n" % (MATTERS["sys_admin"] % (tmp_path / "pod")),
    )
    assert pod.state() == before


# ---------------------------------------------------------------- user namespaces

# A namespace of a user namespace, with an uplink and an orphan, that says it is ready and stays.
OWNED = (
    "ip link add eth0 type veth peer name peer0 && ip tuntap add dev tap0_urunc mode tap "
    "&& echo ready && exec cat"
)
ENTER = ("unshare", "--user", "--map-root-user", "--net", "sh", "-c")


@pytest.fixture
def owned(make_pod):
    """The PID of a process in a network namespace that a user namespace of its own owns.

    ``make_pod`` skips where none can be.
    """
    needs("unshare", "nsenter")
    process = subprocess.Popen(
        ENTER + (OWNED,), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    if process.stdout.readline() != b"ready\n":
        process.communicate()
        pytest.skip("no user namespace can be made here")
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
    done = command.nlraw("cleanup", argv=within(owned, "user", "net"))
    assert (done.status, done.err) == (0, "")
    assert nlraw.scan(netns=owned) == ()


def test_the_root_of_a_user_namespace_sets_up_what_that_owns(owned):
    done = command.nlraw("setup", "-j", argv=within(owned, "user", "net"))
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
        done = command.nlraw(name, argv=guest)
        assert (done.status, NET_ADMIN in done.err) == (1, True)
    assert pod.state() == before


# ---------------------------------------------------------------- seccomp

# Refuse one system call, by its number, with an errno, and run the rest of the arguments
# (linux/seccomp.h, linux/filter.h).
REFUSING = """
import ctypes, os, struct, sys
number, refusal = int(sys.argv[1]), int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, number)]
rules += [(0x06, 0, 0, 0x00050000 | refusal), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
program = struct.pack("@HP", len(rules), ctypes.addressof(code))
# PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit("no seccomp: %d" % ctypes.get_errno())
os.execv(sys.executable, [sys.executable] + sys.argv[3:])
"""

SETNS = {"x86_64": 308, "aarch64": 268, "s390x": 339, "ppc64le": 350, "riscv64": 268}


@pytest.fixture
def refusing_setns():
    """A command line under a filter that refuses setns(2) with an errno."""
    number = SETNS.get(os.uname().machine)
    if number is None or struct.calcsize("P") != 8:
        pytest.skip("the number of setns(2) is not known here")
    argv = (sys.executable, "-c", REFUSING, str(number))
    probe = subprocess.run(argv + ("1", "-c", ""), stderr=subprocess.PIPE, universal_newlines=True)
    if probe.returncode:
        pytest.skip(probe.stderr.strip())
    return lambda refusal: argv + (str(refusal), "-m", "nlraw")


@pytest.mark.parametrize(
    "refusal, words",
    [
        (errno.EPERM, "Operation not permitted; " + SYS_ADMIN),
        (errno.ENOSYS, "Function not implemented"),
    ],
)
def test_where_setns_is_filtered_out_the_step_and_the_reason_are_told(
    pod, tmp_path, refusing_setns, refusal, words
):
    pod.add_orphan()
    before = pod.state()
    for name in ("scan", "cleanup", "setup"):
        done = command.nlraw(name, "-n", pod.path, argv=refusing_setns(refusal))
        assert (done.status, done.err) == (1, "nlraw: enter namespace %s: %s\n" % (pod.path, words))
    (tmp_path / "pod").symlink_to(pod.path)
    done = command.nlraw("sweep", "--dir", str(tmp_path), argv=refusing_setns(refusal))
    assert (done.status, done.err) == (
        1,
        "nlraw: enter namespace %s: %s\n" % (tmp_path / "pod", words),
    )
    assert pod.state() == before


def test_where_setns_is_filtered_out_the_current_namespace_can_be_used(pod, refusing_setns):
    before = pod.state()
    pod.add_orphan()
    argv = ("ip", "netns", "exec", pod.name) + refusing_setns(errno.EPERM)
    assert command.nlraw("setup", argv=argv).status == 0
    setups.check_pair(pod)
    assert command.nlraw("cleanup", argv=argv).status == 0
    assert pod.state() == before


# ---------------------------------------------------------------- descriptors

# As `ulimit -n` does, from main() on: with fewer than a handful the interpreter itself does not
# start.
LIMITED = """
import resource, sys
from nlraw.cli import program
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
program()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scan", "cleanup", "setup", "sweep"])
def test_at_any_limit_of_descriptors_all_is_done_or_nothing(pod, tmp_path, name):
    clean = pod.state()
    (tmp_path / "netns").mkdir()
    (tmp_path / "netns" / "pod").symlink_to(pod.path)
    where = (
        ("--dir", str(tmp_path / "netns"), "--include-fresh")
        if name == "sweep"
        else ("-n", pod.path)
    )
    told = []
    for limit in range(3, 10):
        pod.add_orphan()
        before = pod.state()
        status, _, err = command.nlraw(
            name, *where, argv=(sys.executable, "-s", "-S", "-c", LIMITED, str(limit))
        )
        told.append("%d: %d %s" % (limit, status, err))
        if status == 0:
            assert err == "" and (name == "scan") == (pod.state() == before), told
        else:
            assert command.was_aborted(status, err) or (
                status == 1 and err.startswith("nlraw: ") and os.strerror(errno.EMFILE) in err
            ), told
            # a setup may have done its cleanup
            assert pod.state() in ([before, clean] if name == "setup" else [before]), told
        nlraw.cleanup(netns=pod.path)
        assert pod.state() == clean
    assert " 0 " in told[-1] and " 1 " in told[0], told


# ---------------------------------------------------------------- streams

STREAMS = [
    "<&-",
    ">&-",
    "2>&-",
    ">/dev/full",
    "2>/dev/full",
    "<&- >&- 2>&-",
    ">/dev/full 2>/dev/full",
]


@pytest.mark.slow
@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("name", ["scan", "setup", "sweep"])
def test_whatever_the_streams_are_the_status_is_right_and_the_work_done_or_not_begun(
    pod, tmp_path, name, streams
):
    (tmp_path / "pod").symlink_to(pod.path)
    where = ("--dir", str(tmp_path)) if name == "sweep" else ("-n", pod.path)
    pod.add_orphan()
    before = pod.state()
    status, out, err = command.nlraw(name, *where, streams=streams)
    stdout_fails = ">&-" in streams.split() or ">/dev/full" in streams.split()
    assert status == (1 if stdout_fails else 0)
    assert bool(out) == (not stdout_fails)
    assert err == "" or (
        stdout_fails and err.startswith("nlraw: the result could not be written: ")
    )
    # what it would make has nowhere to be told
    if name == "scan" or (name == "setup" and ">&-" in streams.split()):
        assert pod.state() == before
    elif name == "setup":
        setups.check_pair(pod)
    else:
        assert TAP not in pod.links() and pod.qdiscs() == []


# ---------------------------------------------------------------- locales and names

LOCALES = [
    {"LC_ALL": "C"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "xx_XX.nonsense", "LANG": "\udcff"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C", "PYTHONIOENCODING": "utf-16", "PYTHONUTF8": "0"},
    {"PYTHONUTF8": "1"},
]

# 15 bytes each: escape sequences, quotes, what is no UTF-8, what is, what is a format.
NAMES = [
    b"tap\x1b[31m\x07\x1b]0;_u",
    b"tap'\"`;|&\\#\x01~_u",
    b"tap\xff\xfe\x80\x9b\xc3\x28\x7f012_u",
    b"tap\xc3\xbc\xe2\x82\xac\xe2\x80\xae01_u",
    b"tap{0}${a}*?!_u",
]


def is_plain(text):
    return all(" " <= char <= "~" or char == "\n" for char in text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "env", LOCALES, ids=lambda env: ascii(" ".join("%s=%s" % pair for pair in sorted(env.items())))
)
def test_in_any_locale_text_is_plain_and_json_holds_the_bytes(pod, tmp_path, env):
    assert {len(name) for name in NAMES} == {15}
    before = pod.state()
    (tmp_path / "pod").symlink_to(pod.path)
    utf16 = "utf-16" in env.get("PYTHONIOENCODING", "")
    for name in NAMES:
        pod.ip("tuntap", "add", "dev", os.fsdecode(name), "mode", "tap")
        pod.tc("qdisc", "add", "dev", os.fsdecode(name), "ingress")
    for form in ([], ["-j"]):
        for arguments in (
            ["scan", "-n", pod.path],
            ["sweep", "--dir", str(tmp_path), "-N", "--include-fresh"],
        ):
            done = run_raw(arguments + ["-m", "tap*_u"] + form, env)
            out, err = (
                each.decode("utf-16") if utf16 and each else each.decode("ascii")
                for each in done[1:]
            )
            assert (done[0], err) == (0, "") and is_plain(out)
            if form:
                told = json.loads(out)
                taps = told["namespaces"][0]["taps"] if "namespaces" in told else told["taps"]
                assert sorted(
                    each["ifname"].encode("utf-8", "surrogateescape") for each in taps
                ) == sorted(NAMES)
    assert nlraw.cleanup(netns=pod.path, match="tap*_u").outcome == "cleaned"
    assert pod.state() == before


def names(pod):
    """The names of the links as the kernel has them.

    `ip -j` makes no JSON of some, and no sense of forged answers.
    """

    def read():
        with open("/proc/thread-self/net/dev", "rb") as file:
            return {
                line.rpartition(b":")[0].lstrip(b" ") for line in file.read().split(b"\n")[2:-1]
            }

    return pod.run(read)


def run_raw(arguments, env):
    done = subprocess.run(
        command.MODULE + tuple(arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env=command.environment(**env),
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_a_setup_makes_and_tells_a_tap_of_any_name(make_pod, name):
    uplink = os.fsdecode(name.replace(b"tap", b"up"))
    pod = make_pod(uplink=None)
    pod.ip("link", "add", uplink, "type", "veth", "peer", "name", "peer0")
    before = names(pod)
    done = command.nlraw("setup", "-n", pod.path, "-u", uplink, "--tap", name, "-j")
    assert (done.status, done.err) == (0, "") and is_plain(done.out)
    told = json.loads(done.out)
    assert told["tap"]["ifname"].encode("utf-8", "surrogateescape") == name
    assert os.fsencode(uplink) == told["uplink"]["ifname"].encode("utf-8", "surrogateescape")
    assert names(pod) == before | {name}
    again = command.nlraw("setup", "-n", pod.path, "-u", uplink, "--tap", name)
    assert again.status == 0 and is_plain(again.out)
    with nlraw.netns.Namespace(pod.path) as namespace:
        holder = nlraw.tap.attach(namespace, name.decode("utf-8", "surrogateescape"))
    refused = command.nlraw("setup", "-n", pod.path, "-u", uplink, "--tap", name)
    assert refused.status == 3 and is_plain(refused.out) and is_plain(refused.err)
    os.close(holder)
    assert command.nlraw("cleanup", "-n", pod.path, "-u", uplink, "-m", name).status == 0
    assert names(pod) == before


# ---------------------------------------------------------------- forgers

# Sends what the kernel might answer to every netlink port of the namespace, for every sequence
# number that may be the next.
FORGER = """
import socket, struct, sys, time

forger = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
forger.setblocking(False)
forger.bind((0, 0))

def ports():
    with open("/proc/self/net/netlink") as file:
        rows = [line.split() for line in file.read().splitlines()[1:]]
    return {int(row[2]) for row in rows if row[1] == "0"} | {int(sys.argv[1])}

def message(type, flags, sequence, port, payload):
    return struct.pack("=IHHII", 16 + len(payload), type, flags, sequence, port) + payload

print("ready", flush=True)
sent, refused, end = 0, 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    now = int(time.time())
    for port in ports() - {0, forger.getsockname()[0]}:
        for sequence in range(now - 4, now + 30):
            request = struct.pack("=IHHII", 16, 18, 5, sequence, port)
            errors = [struct.pack("=i", code) + request for code in (0, -1, -19)]
            forged = [message(2, 0, sequence, port, error) for error in errors]
            forged.append(message(3, 2, sequence, port, struct.pack("=i", 0)))
            forged.append(message(16, 2, sequence, port, bytes(16)))
            forged.append(message(4, 2, sequence, port, b""))
            forged.append(bytes([255]) * 64)
            try:
                for datagram in forged:
                    forger.sendto(datagram, (port, 0))
                    sent += 1
            except BlockingIOError:  # its buffer is full
                pass
            except ConnectionRefusedError:
                # by the kernel, for one who is connected to it; or nobody has the port now
                refused += 1
print(sent, refused, flush=True)
"""
SECONDS = 6


def check_setup(pod):
    assert nlraw.setup(netns=pod.path).tap.ifname == TAP
    assert TAP.encode() in names(pod)


def check_scan(pod):
    expected = {TAP: "orphan"} if TAP.encode() in names(pod) else {}
    assert {found.ifname: found.verdict for found in nlraw.scan(netns=pod.path)} == expected


def check_cleanup(pod):
    assert nlraw.cleanup(netns=pod.path).outcome in ("clean", "cleaned")
    assert TAP.encode() not in names(pod)


@pytest.mark.slow
def test_under_a_flood_of_forged_answers_each_result_is_right(pod):
    pod.add_tap("vm0", redirect=False)
    pod.hold("vm0")
    before = pod.state()
    forger = pod.child(FORGER, str(nlraw.route.PORT), str(SECONDS))
    ends, slowest, end = collections.Counter(), 0.0, time.monotonic() + SECONDS - 1
    while time.monotonic() < end:
        for check in (check_setup, check_scan, check_cleanup, check_scan):
            began = time.monotonic()
            check(pod)
            ends[check.__name__] += 1
            slowest = max(slowest, time.monotonic() - began)
    sent, refused = map(int, forger.read().split())
    told = "%s, the slowest took %.3f s, beside %d forged answers, and %d refused" % (
        dict(ends),
        slowest,
        sent,
        refused,
    )
    print(told)
    assert refused > 1000 and slowest < 1, told
    nlraw.cleanup(netns=pod.path)
    assert pod.state() == before

# SPDX-License-Identifier: Apache-2.0
"""The self-test: what it says if all is well and if something is missing.

It is run by root and by others; it leaves nothing.
"""

import json
import os
import re
import shutil
import sys
import time

import pytest

from lib import pods
from lib.command import MODULE, PACKAGE, Marked, nlraw
from nlraw import cli, link, selftest, tap, tc, verdict
from nlraw import pod as pod_module
from nlraw.exchange import Request
from nlraw.listener import Listener

STEPS = [
    "make a network namespace",
    "create an uplink (veth)",
    "create a persistent TAP (tun)",
    "put an ingress qdisc on both (ingress)",
    "redirect each to the other (u32, mirred)",
    "hold the TAP, as a VMM does",
    "a cleanup is refused and changes nothing",
    "kill the holder: an orphan is left",
    "clean up",
    "a second cleanup finds nothing",
    "kernel features",
]
FEATURES = ["kernel filter", "extended ACK", "carrier counters", "tun", "ingress", "mirred"]
FEATURES.append("watch")


def told(done):
    """The steps that a self-test told in JSON, by name, and whether it said that all is well."""
    document = json.loads(done.out)
    assert list(document) == ["ok", "steps"]
    return {step["step"]: step for step in document["steps"]}, document["ok"]


def skip_without(*programs):
    reasons = [pods.missing()] + [
        "no %s of util-linux" % program for program in programs if shutil.which(program) is None
    ]
    if any(reasons):
        pytest.skip("; ".join(filter(None, reasons)))


def assert_stopped_at(steps, name):
    """One step failed with a remedy; those before it went well, and those after it were not run."""
    names = list(steps)[: list(steps).index("kernel features")]
    at = names.index(name)
    assert [steps[step]["ok"] for step in names] == [True] * at + [False] * (len(names) - at)
    assert [step for step in names if steps[step]["remedy"]] == [name]
    assert steps[name]["seen"] and not any(steps[step]["seen"] for step in names[at + 1 :])


# ---------------------------------------------------------------- as root


@pytest.fixture
def inside(pod):
    """The command, run by root in the namespace of a pod."""
    return ("ip", "netns", "exec", pod.name) + MODULE


def test_root_is_told_that_all_is_well(inside):
    status, out, err = nlraw("selftest", argv=inside)
    assert (status, err) == (0, "")
    assert re.findall(r"^ok +[0-9.]+ ms  (.*)$", out, re.MULTILINE) == STEPS[:-1]
    for feature in FEATURES:
        assert re.search(r"^ +%s +yes$" % feature, out, re.MULTILINE)
    assert out.splitlines()[-1] == "This host has what nlraw needs."


def test_a_host_that_cannot_watch_has_what_the_rest_needs(inside):
    skip_without("setpriv")
    lacks = "-net_broadcast"
    dropped = ("setpriv", "--bounding-set=" + lacks, "--inh-caps=" + lacks)
    status, out, err = nlraw("selftest", argv=inside, before=dropped)
    assert (status, err) == (0, "")
    assert re.search(r"^ +watch +no: .*CAP_NET_BROADCAST$", out, re.MULTILINE)
    assert out.splitlines()[-1] == "This host has what nlraw needs."
    steps, ok = told(nlraw("selftest", "-j", argv=inside, before=dropped))
    assert ok and steps["kernel features"]["ok"] is None
    assert "CAP_NET_BROADCAST" in steps["kernel features"]["seen"][-1]


def test_events_that_are_not_heard_are_found_out(pod, monkeypatch):
    monkeypatch.setattr(selftest, "_HEARD", 0.1)
    monkeypatch.setattr(Listener, "read_events", lambda self, most: ({}, False))
    assert play(pod)["kernel features"]["seen"][-1].endswith("no: an event was not heard")


def test_the_story_tells_what_is_seen(inside):
    out = nlraw("selftest", argv=inside).out
    for seen in (
        "tap0_urunc is in use: carrier on",
        "clean up tap0_urunc: in use (carrier on), nothing was changed",
        "tap0_urunc is an orphan: carrier off",
        "u32 filter removed from eth0",
        "ingress qdisc removed from eth0",
        "link tap0_urunc deleted",
    ):
        assert seen in out


def test_json_of_the_story(inside):
    done = nlraw("selftest", "--json", argv=inside)
    steps, ok = told(done)
    assert (done.status, done.err, ok, list(steps)) == (0, "", True, STEPS)
    assert [step["ok"] for step in steps.values()] == [True] * (len(STEPS) - 1) + [None]
    for step in steps.values():
        assert list(step) == ["step", "ok", "seconds", "seen", "remedy"]
        assert 0 <= step["seconds"] < 10 and step["remedy"] is None
    assert [line.split("  ")[0] for line in steps["kernel features"]["seen"]] == FEATURES


def test_the_callers_namespace_is_the_same_before_and_after(pod, inside):
    pod.add_orphan()
    before, machine = pod.state(), sorted(os.listdir("/sys/class/net"))
    assert nlraw("selftest", argv=inside).status == 0
    assert pod.state() == before
    assert sorted(os.listdir("/sys/class/net")) == machine


@pytest.mark.parametrize("streams, status", [("", 0), (">&-", 1), (">/dev/full", 1), ("2>&-", 0)])
def test_no_process_is_left(inside, streams, status):
    mark = Marked()
    assert nlraw("selftest", argv=inside, streams=streams, env=mark.env).status == status
    assert mark.alive() == []


IN_USER_NAMESPACE = (
    "import sys; from nlraw.cli import selftest_in_user_namespace; "
    "sys.exit(selftest_in_user_namespace([]))"
)


def test_in_a_user_namespace_too_a_story_that_cannot_be_told_is_1():
    done = nlraw(argv=(sys.executable, "-c", IN_USER_NAMESPACE), streams=">/dev/full")
    assert done == (
        1,
        "",
        "nlraw: the result could not be written: stdout: No space left on device\n",
    )


def test_the_holder_ends_with_a_story_that_is_broken_off(pod, monkeypatch):
    mark = Marked()
    for name, value in mark.env.items():
        monkeypatch.setenv(name, value)
    story = selftest.play()
    assert pod.run(
        lambda: next(step for step in story if step.step == "hold the TAP, as a VMM does")
    ).ok
    deadline = time.monotonic() + 5
    # Popen returns before the new program's environment can be read in /proc
    while not mark.alive():
        assert time.monotonic() < deadline
    assert len(mark.alive()) == 1
    story.close()
    assert mark.alive() == []


# ---------------------------------------------------------------- as an ordinary user

# In a mount namespace of its own: the interpreter, nlraw and a TUN node, all where any user gets at
# them.
ROOM = """set -e
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/python
mount --bind "$1" /mnt/python
cp -R "$2" /mnt/nlraw
mknod /mnt/tun c 10 200
chmod "$3" /mnt/tun
mount --bind /mnt/tun /dev/net/tun
cd /mnt
python=/mnt/python/$4
shift 4
LD_LIBRARY_PATH=/mnt/python/lib PYTHONPATH=/mnt exec \\
    setpriv --reuid 1000 --regid 1000 --clear-groups "$python" -m nlraw "$@"
"""


def ordinary_user(tun_mode):
    """The command, run by uid 1000, where /dev/net/tun has that mode."""
    skip_without("unshare", "mount", "setpriv")
    interpreter = os.path.relpath(os.path.realpath(sys.executable), sys.base_prefix)
    room = ("unshare", "--mount", "--net", "sh", "-c", ROOM, "sh")
    return room + (sys.base_prefix, PACKAGE, tun_mode, interpreter)


def test_an_ordinary_user_is_told_that_all_is_well():
    mark = Marked()
    status, out, err = nlraw("selftest", argv=ordinary_user("666"), env=mark.env)
    assert (status, err) == (0, "")
    assert "uid 1000 and gid 1000 mapped to themselves" in out
    assert (
        re.findall(r"^ok .* ms  (.*)$", out, re.MULTILINE)
        == ["enter a user namespace"] + STEPS[:-1]
    )
    assert out.splitlines()[-1] == "This host has what nlraw needs."
    assert mark.alive() == []


def test_an_ordinary_user_gets_json_too():
    done = nlraw("selftest", "-j", argv=ordinary_user("666"))
    steps, ok = told(done)
    assert (done.status, ok, list(steps)) == (0, True, ["enter a user namespace"] + STEPS)


def test_a_tun_node_that_is_closed_to_the_user_is_named_with_the_remedy():
    done = nlraw("selftest", "--json", argv=ordinary_user("600"))
    steps, ok = told(done)
    assert (done.status, ok) == (1, False)
    assert_stopped_at(steps, "create a persistent TAP (tun)")
    failed = steps["create a persistent TAP (tun)"]
    assert failed["seen"] == [
        "open /dev/net/tun: Permission denied; "
        "let this user open it (chmod 666 /dev/net/tun), or run this as root"
    ]
    assert "chmod 666 /dev/net/tun" in failed["remedy"]
    assert "module" not in failed["remedy"] and "CONFIG_" not in failed["remedy"]


def test_what_is_missing_stands_out_in_the_text():
    status, out, _ = nlraw("selftest", argv=ordinary_user("600"))
    lines = out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("FAILED"))
    assert lines[at].endswith("  create a persistent TAP (tun)")
    assert "Permission denied" in lines[at + 1] and "remedy: " in lines[at + 2]
    assert [line.split(None, 2)[2] for line in lines if line.startswith("not run")] == STEPS[3:-1]
    assert re.search(r"^ +tun +no, or not seen$", out, re.MULTILINE)
    assert (status, lines[-1]) == (1, "A check failed: see FAILED above.")


# ---------------------------------------------------------------- where namespaces are forbidden

LIMIT = 'echo 0 >"$1" || exit 77; shift; exec "$@"'


def forbidden(kind, *privileges):
    """Run the command as root of a user namespace that allows no more user namespaces."""
    skip_without("unshare", "setpriv")
    limit = "/proc/sys/user/max_%s_namespaces" % kind
    return ("unshare", "-Urn", "sh", "-c", LIMIT, "sh", limit) + privileges + MODULE


@pytest.mark.parametrize(
    "kind, privileges, step",
    [
        ("user", ("setpriv", "--bounding-set=-all", "--inh-caps=-all"), "enter a user namespace"),
        ("net", (), "make a network namespace"),
    ],
    ids=["user namespaces, and no privilege", "network namespaces"],
)
def test_a_kind_of_namespace_that_is_forbidden_is_named_with_the_remedy(kind, privileges, step):
    done = nlraw("selftest", "--json", argv=forbidden(kind, *privileges))
    if done.status == 77:
        pytest.skip("no limit can be set here: " + done.err)
    steps, ok = told(done)
    assert (done.status, ok) == (1, False)
    assert_stopped_at(steps, step)
    words = {"net": "create network namespace: ", "user": "create user, network namespaces: "}
    assert steps[step]["seen"][0].startswith(words[kind])
    assert "user.max_*_namespaces" in steps[step]["seen"][0]
    assert "user.max_user_namespaces" in steps[step]["remedy"]


# ---------------------------------------------------------------- where the kernel lacks something


def play(pod):
    """The steps of a story that is played in this process, by name."""
    return pod.run(lambda: {told.step: told.fields() for told in selftest.play()})


def asking_for(name, other, function):
    """A request that names a kind which no kernel has."""

    def ask(*arguments):
        asked = function(*arguments)
        assert name in asked.payload
        return Request(
            asked.type,
            asked.flags,
            asked.payload.replace(name, other),
            asked.fixed,
            asked.step,
            asked.object,
        )

    return ask


LACKS = [
    (link, "create_veth", b"veth", "create an uplink (veth)", "CONFIG_VETH"),
    (
        tc,
        "create_ingress",
        b"ingress",
        "put an ingress qdisc on both (ingress)",
        "CONFIG_NET_SCH_INGRESS",
    ),
    (
        tc,
        "create_redirect",
        b"u32",
        "redirect each to the other (u32, mirred)",
        "CONFIG_NET_CLS_U32",
    ),
    (
        tc,
        "create_redirect",
        b"mirred",
        "redirect each to the other (u32, mirred)",
        "CONFIG_NET_ACT_MIRRED",
    ),
]


@pytest.mark.parametrize(
    "module, function, kind, step, remedy", LACKS, ids=["veth", "ingress", "u32", "mirred"]
)
def test_a_kind_that_the_kernel_lacks_is_named_with_the_remedy(
    pod, monkeypatch, module, function, kind, step, remedy
):
    monkeypatch.setattr(
        module, function, asking_for(kind, b"x" * len(kind), getattr(module, function))
    )
    steps = play(pod)
    assert list(steps) == STEPS
    assert_stopped_at(steps, step)
    assert remedy in steps[step]["remedy"]


def test_a_missing_tun_node_is_named_with_the_remedy(pod, monkeypatch):
    monkeypatch.setattr(tap, "DEVICE", "/dev/net/nlraw-test-nowhere")
    steps = play(pod)
    assert_stopped_at(steps, "create a persistent TAP (tun)")
    assert "mknod /dev/net/tun c 10 200" in steps["create a persistent TAP (tun)"]["remedy"]
    assert "tun               no, or not seen" in steps["kernel features"]["seen"]


def test_a_lack_is_1(pod, monkeypatch, capsys):
    monkeypatch.setattr(tap, "DEVICE", "/dev/net/nlraw-test-nowhere")
    assert pod.run(lambda: cli.main(["selftest"])) == 1
    assert "\nFAILED " in capsys.readouterr().out


@pytest.mark.parametrize("wrong, step", [("in-use", STEPS[2]), ("orphan", STEPS[5])])
def test_a_wrong_verdict_is_found_out(pod, monkeypatch, wrong, step):
    monkeypatch.setattr(verdict, "judge", lambda *_: wrong)
    steps = play(pod)
    assert_stopped_at(steps, step)
    assert steps[step]["seen"][0].startswith("the verdict is %s, not " % wrong)


@pytest.mark.parametrize(
    "outcome, seen",
    [
        ("cleaned", "the cleanup was not refused, though the TAP is held"),
        ("in-use", "the cleanup was refused, but the namespace has changed"),
    ],
)
def test_a_cleanup_that_removes_a_tap_in_use_is_found_out(pod, monkeypatch, outcome, seen):
    real = pod_module.remove

    def remove(connection, target):
        report = real(connection, target)
        if report.outcome == "in-use":
            connection.change(link.delete(report.taps[0].ifindex, pods.TAP))[0].answer()
            report = report.replace(outcome=outcome)
        return report

    monkeypatch.setattr(pod_module, "remove", remove)
    steps = play(pod)
    assert_stopped_at(steps, "a cleanup is refused and changes nothing")
    assert steps["a cleanup is refused and changes nothing"]["seen"] == (seen,)

# SPDX-License-Identifier: Apache-2.0
"""The README's commands and programs, run as they stand there on a node."""

import json
import os
import re
import sys

import pytest

import nlraw
from lib import command, pods, readme

# In a mount namespace of its own: a /run with three pods, the copy where the README has it, and
# `python3` as the one under test.
NODE = """
set -eu
python=$1 package=$2 shift=$3
shift 3
mkdir -p "$shift/bin" "$shift/opt/nlraw"
ln -sf "$python" "$shift/bin/python3"
cp -r "$package" "$shift/opt/nlraw/"
printf '#!/bin/sh\nexec python3 -I /opt/nlraw/nlraw "$@"\n' >"$shift/bin/nlraw"
chmod +x "$shift/bin/nlraw"
ln -sfn "$package" "$shift/nlraw"
mount -t tmpfs tmpfs /run
mkdir /run/netns
for pod; do
    : >"/run/netns/${pod%%=*}"
    mount --bind "/proc/${pod##*=}/ns/net" "/run/netns/${pod%%=*}"
done
mount --bind "$shift/opt" /opt
PATH=$shift/bin:$PATH
cd "$shift"
. ./commands
"""


@pytest.fixture
def node(make_pod, tmp_path):
    """A function that runs a shell's text on a node whose pod1 to pod3 have an orphan each.

    Returns status, stdout and stderr. ``pods`` are others, by name.
    """
    reason = pods.missing()
    if reason is not None:
        pytest.skip(reason)
    made = {}
    for number in (1, 2, 3):
        pod = made["pod%d" % number] = make_pod()
        pod.add_orphan()
    idle = {name: pod.child() for name, pod in made.items()}

    def run(text, with_pods=True, **variables):
        (tmp_path / "commands").write_text("set -eu\n" + text)
        pinned = ["%s=%d" % (name, child.pid) for name, child in idle.items() if with_pods]
        argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", NODE, "sh"]
        argv += [sys.executable, command.PACKAGE, str(tmp_path)]
        env = command.environment(**variables)
        return command.attempt(*argv + pinned, env=env, timeout=command.PATIENCE)

    run.pods = made
    return run


def json_of(done):
    assert done.status == 0, done.err
    return json.loads(done.out)


def test_the_first_command_is_the_selftest(node):
    done = node(readme.blocks("", "sh")[0])
    assert done.status == 0, done.err
    assert "This host has what nlraw needs." in done.out


def test_the_copies_of_install_run_by_the_commands_beside_them(node):
    _, copy, one_file = readme.block("Install", "sh", "/opt/nlraw").splitlines()  # pip: packaging
    commands = re.findall(r"^\|.*\| `([^`]+)` \|$", readme.sections()["Install"], re.MULTILINE)
    assert commands == ["nlraw", "python3 -I /opt/nlraw/nlraw", "python3 -I nlraw.pyz"]
    text = "rm -r /opt/nlraw\n%s\n%s\n" % (copy, one_file)
    done = node(text + "".join("%s --version\n" % each for each in commands))
    assert done.status == 0, done.err
    assert done.out == "nlraw %s\n" % nlraw.__version__ * 3


@pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no /dev/net/tun")
def test_try_it_breaks_a_pod_and_mends_it(node):
    (text,) = readme.blocks("Try it", "sh")
    done = node(text, with_pods=False)
    assert done.status == 0, done.err
    assert re.findall("in use|would clean|cleaned", done.out)[-3:] == [
        "in use",
        "would clean",
        "cleaned",
    ]
    assert "Device or resource busy" in done.err and done.err.count("busy") == 1


def test_setup_prints_what_the_page_lists(node):
    (text,) = readme.blocks("You write a runtime", "sh")
    if "--print" not in command.nlraw("setup", "--help").out:
        pytest.skip("this nlraw's setup has no --print")
    as_json, form = text.splitlines()
    document = json_of(node(as_json + "\n", POD="pod1"))
    listed = re.findall(r"`((?:tap|uplink)\.\w+|pairs)`", readme.sections()["You write a runtime"])
    assert len(listed) > 9
    for name in listed:
        found = document
        for key in name.split("."):
            found = found[key]
    done = node(form + "\n", POD="pod2")
    assert done.status == 0, done.err
    assert [line.split()[0].partition("=")[0] for line in done.out.splitlines()] == [
        "-netdev",
        "ip",
    ]


def test_an_image_runs_its_copy(node):
    (text,) = readme.blocks("You build an image", "sh")
    if sys.version_info < (3, 7):  # whose compileall has no such option
        text = text.replace("--invalidation-mode unchecked-hash", "")
    done = node(text + "python3 -I image/opt/nlraw/nlraw scan -n pod1\n")
    assert done.status == 0, done.err
    assert pods.TAP in done.out


@pytest.mark.parametrize("number", [0, 1])
def test_the_python_of_the_library(node, tmp_path, number):
    (tmp_path / "example.py").write_text(readme.blocks("You write Python", "python")[number])
    done = node("python3 example.py\n")
    assert done.status == 0, done.err
    assert pods.TAP in done.out
    assert (pods.TAP in node.pods["pod1"].links()) == (number == 1)


def test_the_runbook_mends_one_pod_and_changes_no_other(node):
    (text,) = [text for where, _, text in readme.fenced() if where.startswith("Runbook")]
    states = {name: pod.state() for name, pod in node.pods.items()}
    look, end = text.rsplit("\n", 2)[0], text.splitlines()[-1]
    done = node(look + "\n")
    assert done.status == 0, done.err
    assert {name: pod.state() for name, pod in node.pods.items()} == states
    assert "3 namespaces: 3 to be cleaned; 3 orphans to be deleted\n" in done.out
    found = re.findall("^/run/netns/(pod.)  tap0_urunc  orphan +to be deleted$", done.out, re.M)
    assert sorted(found) == ["pod1"] * 3 + ["pod2", "pod3"]  # the sweep, then the scan and cleanup
    assert done.out.count("\n/run/netns/pod1: would clean (uplink eth0)\n") == 2
    assert re.search(r"^\d+:.*:/", done.out, re.MULTILINE), "no cgroup of a process"
    done = node(end + "\n")
    assert done.status == 0, done.err
    assert [pods.TAP in pod.links() for pod in node.pods.values()] == [False, True, True]

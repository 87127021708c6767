# SPDX-License-Identifier: Apache-2.0
"""The README's commands and programs, run as they stand there on a node of three pods."""

import json
import sys

import pytest

from lib import command, pods, readme

# In a mount namespace of its own: a /run with three pods, the copy where the README has it, and
# `python3` as the one under test.
NODE = """
set -eu
python=$1 package=$2 shift=$3
shift 3
mkdir -p "$shift/bin" "$shift/opt/nlraw"
ln -sf "$python" "$shift/bin/python3"
cp -r "$package" "$shift/opt/nlraw/nlraw"
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

    Returns status, stdout and stderr.
    """
    reason = pods.missing()
    if reason is not None:
        pytest.skip(reason)
    made = {}
    for number in (1, 2, 3):
        pod = made["pod%d" % number] = make_pod()
        pod.add_orphan()
    idle = {name: pod.child() for name, pod in made.items()}

    def run(text, **variables):
        (tmp_path / "commands").write_text("set -eu\n" + text)
        pinned = ["%s=%d" % (name, child.pid) for name, child in idle.items()]
        argv = [
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            NODE,
            "sh",
            sys.executable,
            command.PACKAGE,
            str(tmp_path),
        ]
        return command.attempt(
            *argv + pinned, env=command.environment(**variables), timeout=command.PATIENCE
        )

    run.pods = made
    return run


def json_of(done):
    assert done.status == 0, done.err
    return json.loads(done.out)


def test_the_first_command_is_the_selftest(node):
    done = node(readme.blocks("", "sh")[0])
    assert done.status == 0, done.err
    assert "This host has what nlraw needs." in done.out


def test_the_quick_start_of_each_user(node):
    operator, author, builder = readme.blocks("Quick start", "sh")
    done = node(operator)
    assert done.status == 0, done.err
    assert "3 namespaces, 3 orphans, 0 deleted" in done.out
    assert json_of(node(author))["outcome"] == "created"
    if sys.version_info < (3, 7):  # whose compileall has no such option
        builder = builder.replace("--invalidation-mode unchecked-hash", "")
    done = node(builder + "python3 -I image/opt/nlraw/nlraw scan -n pod1\n")
    assert done.status == 0, done.err
    assert pods.TAP in done.out


def test_the_commands_of_use_do_what_stands_beside_them(node):
    commands, _, folder = readme.blocks(
        "Use", "sh"
    )  # the one of an installed copy is tried in test_vendored.py
    scan, dry_run, cleanup, setup, sweep = commands.splitlines()
    states = {name: pod.state() for name, pod in node.pods.items()}
    for line, word in ((scan, "would clean"), (dry_run, "would clean"), (setup, '"created"')):
        done = node(line + "\n")
        assert done.status == 0, done.err
        assert word in done.out, done.out
        if line in (scan, dry_run):
            assert {name: pod.state() for name, pod in node.pods.items()} == states
    for line in (cleanup, folder, sweep):
        done = node(line + "\n")
        assert done.status == 0, done.err
    assert [pods.TAP in pod.links() for pod in node.pods.values()] == [False, False, False]


def test_setup_prints_what_the_readme_shows(node):
    (command_,) = readme.blocks("For whoever writes a runtime", "sh")
    (printed,) = readme.blocks("For whoever writes a runtime", "json")
    told, example = json_of(node(command_, POD="pod1")), json.loads(printed)
    assert list(told) == list(example)
    assert [list(told[part]) for part in ("tap", "uplink")] == [
        list(example[part]) for part in ("tap", "uplink")
    ]
    assert (told["netns"], told["outcome"], told["error"]) == (
        example["netns"],
        example["outcome"],
        example["error"],
    )


@pytest.mark.parametrize("number", [0, 1])
def test_the_python_of_the_library(node, tmp_path, number):
    (tmp_path / "example.py").write_text(readme.blocks("Library", "python")[number])
    done = node("python3 example.py\n")
    assert done.status == 0, done.err
    assert pods.TAP in done.out
    assert (pods.TAP in node.pods["pod1"].links()) == (number == 1)

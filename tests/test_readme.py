# SPDX-License-Identifier: Apache-2.0
"""Every fenced block of the README is run or validated, here or by the test named here."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import command
import pods
import readme

# The tree that the README is of, wherever the nlraw under test lies.
TREE = os.path.dirname(readme.PATH)

# Who tries the blocks of a section, by the language of the block.
TRIED = {
    ("", "text"): "a drawing",
    ("", "sh"): "here",
    ("Quick start", "sh"): "here",
    ("Use", "sh"): "here",
    ("For whoever writes a runtime", "sh"): "here",
    ("For whoever writes a runtime", "json"): "here",
    ("Library", "python"): "here",
    ("As an OCI hook", "sh"): "test_live_runtimes.py",
    ("As an OCI hook", "json"): "test_live_runtimes.py",
    ("One file", "sh"): "test_bundle.py",
    ("On a node", "ini"): "test_live_node.py",
    ("On a node", "yaml"): "test_live_node.py",
    ("Vendoring", "sh"): "test_vendored.py",
    ("How fast", "sh"): ".ci/run, with a venv elsewhere",
    ("How it is tested", "sh"): "here, as far as the tests and options named are there",
    ("Contributing", "sh"): "here, likewise",
}


def fenced():
    """The blocks of the README: heading, language, text."""
    with open(readme.PATH, encoding="utf-8") as file:
        lines = file.read().splitlines(True)
    heading, language, text = "", None, ""
    for line in lines:
        if language is None and line.startswith("## "):
            heading = line[3:].strip()
        elif line.startswith("```") and language is None:
            language, text = line[3:].strip(), ""
        elif line.startswith("```"):
            yield heading, language, text
            language = None
        elif language is not None:
            text += line


BLOCKS = list(fenced())


def test_every_block_is_tried_by_somebody():
    assert {(heading, language) for heading, language, _ in BLOCKS} <= set(TRIED)


@pytest.mark.parametrize(
    "name", sorted({name for name in TRIED.values() if name.startswith("test_")})
)
def test_who_is_named_reads_the_readme(name):
    with open(os.path.join(TREE, "tests", name), encoding="utf-8") as file:
        assert re.search(r"\breadme\b|README\.md", file.read())


def test_every_link_within_the_tree_leads_somewhere():
    with open(readme.PATH, encoding="utf-8") as file:
        text = file.read()
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", text)
    assert targets
    anchors = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for target in targets:
        path, _, anchor = target.partition("#")
        assert not path or os.path.exists(os.path.join(TREE, path)), target
        assert not anchor or path or anchor in anchors, target


# ---------------------------------------------------------------- commands, on a node of three pods


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
        return subprocess.run(
            argv + pinned,
            env=command.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            timeout=60,
        )

    run.pods = made
    return run


def shown(heading, language="sh"):
    return [text for where, kind, text in BLOCKS if (where, kind) == (heading, language)]


def json_of(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_first_command_is_the_selftest(node):
    done = node(shown("")[0])
    assert done.returncode == 0, done.stderr
    assert "This host has what nlraw needs." in done.stdout


@pytest.mark.slow
def test_the_quick_start_of_each_user(node):
    operator, author, builder = shown("Quick start")
    done = node(operator)
    assert done.returncode == 0, done.stderr
    assert "3 namespaces, 3 orphans, 0 deleted" in done.stdout
    assert json_of(node(author))["outcome"] == "created"
    if sys.version_info < (3, 7):  # whose compileall has no such option
        builder = builder.replace("--invalidation-mode unchecked-hash", "")
    done = node(builder + 'cd image/opt/nlraw && python3 -I -c "%s" scan -n pod1\n' % START)
    assert done.returncode == 0, done.stderr
    assert pods.TAP in done.stdout


START = "import sys; sys.path.insert(0, '.'); from nlraw.cli import program; program()"


@pytest.mark.slow
def test_the_commands_of_use_do_what_stands_beside_them(node):
    commands, _, folder = shown("Use")  # the one of an installed copy is tried in test_vendored.py
    scan, dry_run, cleanup, setup, sweep = commands.splitlines()
    states = {name: pod.state() for name, pod in node.pods.items()}
    for line, word in ((scan, "would clean"), (dry_run, "would clean"), (setup, '"created"')):
        done = node(line + "\n")
        assert done.returncode == 0, done.stderr
        assert word in done.stdout, done.stdout
        if line in (scan, dry_run):
            assert {name: pod.state() for name, pod in node.pods.items()} == states
    for line in (cleanup, folder, sweep):
        done = node(line + "\n")
        assert done.returncode == 0, done.stderr
    assert [pods.TAP in pod.links() for pod in node.pods.values()] == [False, False, False]


@pytest.mark.slow
def test_setup_prints_what_the_readme_shows(node):
    (command_,) = shown("For whoever writes a runtime")
    (printed,) = shown("For whoever writes a runtime", "json")
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


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_the_python_of_the_library(node, tmp_path, number):
    (tmp_path / "example.py").write_text(shown("Library", "python")[number])
    done = node("python3 example.py\n")
    assert done.returncode == 0, done.stderr
    assert pods.TAP in done.stdout
    assert (pods.TAP in node.pods["pod1"].links()) == (number == 1)


# ---------------------------------------------------------------- commands of those who work on it


def test_what_is_named_for_tests_is_there():
    with open(readme.PATH, encoding="utf-8") as file:
        text = file.read()
    named = set(re.findall(r"\b(?:tests/)?(test_\w+\.py)", text)) | set(
        re.findall(r"\btests/(\w+\.py)", text)
    )
    assert named
    for name in named:
        assert os.path.exists(os.path.join(TREE, "tests", name)), name
    for name in re.findall(r"-m long (?:-s )?tests/(\w+\.py)", text):
        with open(os.path.join(TREE, "tests", name), encoding="utf-8") as file:
            assert "pytest.mark.long" in file.read(), name
    for name in re.findall(r"python3? -m (bench\w*(?:\.\w+)?)", text):
        assert os.path.exists(os.path.join(TREE, *name.split("."))) or os.path.exists(
            os.path.join(TREE, *name.split(".")) + ".py"
        )


def test_the_gate_installs_what_the_readme_says_the_benches_take():
    (text,) = shown("How fast")
    packages = (
        re.search(r"no-install-recommends (.*?)\n/usr", text, re.DOTALL)
        .group(1)
        .replace("\\\n", " ")
        .split()
    )
    with open(os.path.join(TREE, ".ci", "run"), encoding="utf-8") as file:
        gate = file.read()
    assert not [
        package for package in packages if not re.search(r"\b%s\b" % re.escape(package), gate)
    ]


@pytest.mark.skipif(not shutil.which("awk"), reason="needs awk, as the gate does")
def test_the_gate_runs_the_test_line():
    (line,) = [text for text in shown("How it is tested") if "pytest" in text][:1]
    awk = re.search(
        r"awk '\n(.*?)' README.md",
        open(os.path.join(TREE, ".ci", "run"), encoding="utf-8").read(),
        re.DOTALL,
    )
    found = subprocess.check_output(["awk", awk.group(1), readme.PATH], universal_newlines=True)
    assert found == line

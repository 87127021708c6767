# SPDX-License-Identifier: Apache-2.0
"""Every fenced block of the README is tried by a test, and what it names is there."""

import os
import re
import shutil

import pytest

from lib import command, readme

TREE = readme.TREE

# Who tries the blocks of a section, by the language of the block.
TRIED = {
    ("", "text"): "a drawing",
    ("", "sh"): "repo/once/test_readme.py",
    ("Quick start", "sh"): "repo/once/test_readme.py",
    ("Use", "sh"): "repo/once/test_readme.py",
    ("For whoever writes a runtime", "sh"): "repo/once/test_readme.py",
    ("For whoever writes a runtime", "json"): "repo/once/test_readme.py",
    ("Library", "python"): "repo/once/test_readme.py",
    ("As an OCI hook", "sh"): "live/once/test_runtimes.py",
    ("As an OCI hook", "json"): "live/once/test_runtimes.py",
    ("One file", "sh"): "repo/test_bundle.py",
    ("On a node", "ini"): "repo/once/test_deployment.py",
    ("On a node", "yaml"): "repo/once/test_deployment.py",
    ("Vendoring", "sh"): "repo/test_vendored.py",
    ("How fast", "sh"): ".ci/run, with a venv elsewhere",
    ("How it is tested", "sh"): "here, as far as the tests and options named are there",
    ("Contributing", "sh"): "here, likewise",
}


def test_every_block_is_tried_by_somebody():
    assert {(heading, language) for heading, language, _ in readme.fenced()} <= set(TRIED)


@pytest.mark.parametrize("name", sorted({name for name in TRIED.values() if name.endswith(".py")}))
def test_who_is_named_reads_the_readme(name):
    with open(os.path.join(TREE, "tests", name), encoding="utf-8") as file:
        assert re.search(r"\breadme\b", file.read())


def test_every_link_within_the_tree_leads_somewhere():
    text = readme.text()
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


# ---------------------------------------------------------------- commands of those who work on it


def test_what_is_named_for_tests_is_there():
    text = readme.text()
    named = set(re.findall(r"\btests/[\w/]+(?:\.\w+)?", text))
    assert named
    for name in named:
        assert os.path.exists(os.path.join(TREE, name)), name
    assert not re.search(r"(?<!/)\btest_\w+\.py", text), "a test is named without its folder"
    assert not re.search(r"-m ['\"]?(?:not )?(?:long|slow)\b", text), "a folder says it"
    for name in re.findall(r"python3? -m (bench\w*(?:\.\w+)?)", text):
        assert os.path.exists(os.path.join(TREE, *name.split("."))) or os.path.exists(
            os.path.join(TREE, *name.split(".")) + ".py"
        )


def test_the_gate_installs_what_the_readme_says_the_benches_take():
    (text,) = readme.blocks("How fast", "sh")
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
    (line,) = [text for text in readme.blocks("How it is tested", "sh") if "pytest" in text][:1]
    awk = re.search(
        r"awk '\n(.*?)' README.md",
        open(os.path.join(TREE, ".ci", "run"), encoding="utf-8").read(),
        re.DOTALL,
    )
    found = command.run("awk", awk.group(1), readme.PATH)
    assert found == line

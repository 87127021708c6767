# SPDX-License-Identifier: Apache-2.0
"""Every fenced block of every page is tried by a test, and what a page names is there."""

import os
import re
import shutil

import pytest

from lib import command, readme

TREE = readme.TREE
RUNBOOK = "Runbook: a pod is stuck with `Device or resource busy`"

# Who tries the blocks of a section, by page, section and language.
ONCE, DEPLOYMENT = "repo/once/test_readme.py", "repo/once/test_deployment.py"
SYSTEMD, RUNTIMES = "repo/once/test_systemd.py", "live/once/test_runtimes.py"
HERE = "here, as far as the tests and options named are there"
TRIED = {
    (readme.README, "", "text"): "a drawing",
    (readme.README, "", "sh"): ONCE,
    (readme.README, "Install", "sh"): ONCE,
    (readme.README, "Try it", "sh"): ONCE,
    (readme.README, "You run Kubernetes", "sh"): "%s %s %s" % (SYSTEMD, DEPLOYMENT, RUNTIMES),
    (readme.README, "You run Kubernetes", "toml"): DEPLOYMENT,
    (readme.README, "You write a runtime", "sh"): ONCE,
    (readme.README, "You build an image", "sh"): ONCE + " repo/test_vendored.py",
    (readme.README, "You write Python", "python"): ONCE,
    (readme.README, RUNBOOK, "sh"): ONCE,
    (readme.DEPLOY, "A sweep once a minute", "sh"): SYSTEMD,
    (readme.DEPLOY, "The log", "sh"): SYSTEMD,
    (readme.DEPLOY, "The hook", "sh"): RUNTIMES,
    (readme.TESTS, "", "sh"): HERE,
    (readme.TESTS, "The tests, tested", "sh"): HERE + "; .ci/run",
    (readme.TESTS, "On other kernels, byte orders and Pythons", "sh"): HERE,
    (readme.BENCH, "", "sh"): ".ci/run, with a venv elsewhere",
}


def test_every_block_is_tried_by_somebody():
    found = {
        (page, heading, language)
        for page in readme.PAGES
        for heading, language, _ in readme.fenced(page)
    }
    assert found == set(TRIED)


@pytest.mark.parametrize(
    "name", sorted({name for names in TRIED.values() for name in re.findall(r"\S+\.py", names)})
)
def test_who_is_named_reads_the_pages(name):
    with open(os.path.join(TREE, "tests", name), encoding="utf-8") as file:
        assert re.search(r"\breadme\.", file.read())


def test_every_page_is_known():
    # a crawl of the tree would see what is not ours: a virtual environment, what pytest leaves
    folders = ["", ".github", "bench", "nlraw", "nlraw/deploy", "tests"]
    found = {
        os.path.join(folder, name)
        for folder in folders
        for name in os.listdir(os.path.join(TREE, folder))
        if name.endswith(".md")
    }
    assert found == {*readme.PAGES, "CHANGELOG.md", "bench/results.md"}


def test_a_reader_has_the_readme_read_in_ten_minutes():
    assert len(readme.text().encode("utf-8")) <= 15000


@pytest.mark.parametrize("page", readme.PAGES)
def test_no_line_but_that_of_a_table_is_wider_than_a_reader_likes(page):
    text = re.sub("<!-- bench: begin -->.*?<!-- bench: end -->", "", readme.text(page), flags=re.S)
    wide = [line for line in text.splitlines() if len(line) > 100 and line[:1] not in ("|", "!")]
    assert wide == []


def anchors(page):
    return {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", readme.text(page), re.MULTILINE)
    }


@pytest.mark.parametrize("page", readme.PAGES)
def test_every_link_within_the_tree_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", readme.text(page)):
        path, _, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        assert os.path.exists(os.path.join(TREE, path)), target
        assert not anchor or anchor in anchors(path), target


# ---------------------------------------------------------------- the workflows


def test_the_workflows_run_the_parts_of_the_gate():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    with open(os.path.join(TREE, ".github", "workflows", "gate.yml"), encoding="utf-8") as file:
        workflow = yaml.safe_load(file)
    (job,) = workflow["jobs"].values()
    with open(os.path.join(TREE, ".ci", "run"), encoding="utf-8") as file:
        (parts,) = re.findall(r'\[ "\$#" -gt 0 \] \|\| set -- (.+)', file.read())
    assert job["strategy"]["matrix"]["part"] == parts.split()
    (gate,) = [step for step in job["steps"] if step.get("run", "").startswith(".ci/run")]
    assert gate["run"] == ".ci/run ${{ matrix.part }}"
    assert job["steps"][-1]["with"]["path"] == gate["env"]["NLRAW_RESULTS"]
    assert workflow[True] == {"push": None, "pull_request": None}  # YAML 1.1 reads "on" as true
    assert workflow["permissions"] == {"contents": "read"}


# ---------------------------------------------------------------- commands of those who work on it


def test_what_is_named_for_tests_is_there():
    text = "".join(map(readme.text, readme.PAGES))
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


@pytest.mark.parametrize("page", readme.PAGES)
def test_the_tools_have_the_options_and_files_that_a_page_names(page):
    lines = re.findall(r"\bpython3? (tests/tools/\w+\.py)([^#`\n]*)", readme.text(page))
    assert lines or page not in (readme.TESTS, ".github/CONTRIBUTING.md")
    for tool, arguments in lines:
        with open(os.path.join(TREE, tool), encoding="utf-8") as file:
            source = file.read()
        for option in re.findall(r"--\w+", arguments):
            assert 'add_argument("%s"' % option in re.sub(r"\(\s+", "(", source), (tool, option)
        for module in arguments.split() if tool.endswith("mutants.py") else []:
            assert os.path.exists(os.path.join(TREE, "nlraw", module + ".py")), module


def test_the_gate_installs_what_the_page_says_the_benches_take():
    (text,) = readme.blocks("", "sh", readme.BENCH)
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
    line = readme.block("", "sh", "pytest")
    assert readme.blocks("", "sh", readme.TESTS) == [line]
    awk = re.search(
        r"awk '\n(.*?)' README.md",
        open(os.path.join(TREE, ".ci", "run"), encoding="utf-8").read(),
        re.DOTALL,
    )
    found = command.run("awk", awk.group(1), os.path.join(TREE, readme.README))
    assert found == line


def test_the_gate_runs_the_line_for_coverage():
    with open(os.path.join(TREE, ".ci", "run"), encoding="utf-8") as file:
        assert "grep '^coverage run' %s)" % readme.TESTS in file.read()
    assert re.findall("^coverage run", readme.text(readme.TESTS), re.MULTILINE) == ["coverage run"]

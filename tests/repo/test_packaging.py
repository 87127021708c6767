# SPDX-License-Identifier: Apache-2.0
"""What is packed, and what the package says of itself."""

import pathlib
import re
import zipfile

import pytest

import nlraw

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SOURCES = sorted((ROOT / "nlraw").glob("*.py"))


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_source_compiles_here(source):
    text = source.read_text(encoding="utf-8")
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    compile(text, str(source), "exec")


def test_newest_change_is_this_version():
    headings = re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == nlraw.__version__


def test_a_copy_of_the_folder_has_the_licence_and_the_version():
    assert read("nlraw/LICENSE") == read("LICENSE")
    assert read("nlraw/VERSION") == nlraw.__version__ + "\n"


def test_nothing_is_required():
    try:
        import tomllib
    except ImportError:  # before 3.11; pytest brings tomli there
        tomllib = pytest.importorskip("tomli", reason="no TOML parser")
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert project["requires-python"] == ">=3.6"
    assert project["dependencies"] == []


def test_wheel(tmp_path, monkeypatch):
    backend = pytest.importorskip("flit_core.buildapi", reason="flit_core is not installed")
    monkeypatch.chdir(ROOT)
    name = backend.build_wheel(str(tmp_path))
    info, data = ("nlraw-{}.{}/".format(nlraw.__version__, kind) for kind in ("dist-info", "data"))
    assert name == "nlraw-{}-py3-none-any.whl".format(nlraw.__version__)

    with zipfile.ZipFile(str(tmp_path / name)) as wheel:
        packed = set(wheel.namelist())
        metadata = wheel.read(info + "METADATA").decode("utf-8").split("\n\n")[0].splitlines()
        scripts = wheel.read(info + "entry_points.txt").decode("utf-8").split()
    assert {path for path in packed if not path.startswith((info, data))} == {
        str(path.relative_to(ROOT))
        for path in (ROOT / "nlraw").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {path[len(data) :] for path in packed if path.startswith(data)} == {
        "data/share/man/man1/nlraw.1",
        "data/share/bash-completion/completions/nlraw",
    }
    assert info + "licenses/LICENSE" in packed
    assert {
        "License-Expression: Apache-2.0",
        "Requires-Python: >=3.6",
        "Author: nlraw maintainers",
    } <= set(metadata)
    assert [
        line for line in metadata if line.startswith("Requires-Dist:") and "extra ==" not in line
    ] == []
    assert scripts == ["[console_scripts]", "nlraw=nlraw.cli:program"]

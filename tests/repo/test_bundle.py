# SPDX-License-Identifier: Apache-2.0
"""One file of the whole package: the same bytes each time, and the same program."""

import os
import shutil
import sys
import zipfile

import pytest

from lib import command, pods
from lib.command import PACKAGE

CACHES_NONE = pytest.mark.skipif(
    sys.version_info < (3, 7), reason="3.6 can trust no bytecode in a zip"
)


def make(path, folder=PACKAGE, env=()):
    """Make the bundle of a folder, as somebody does who stands beside it; return its path."""
    argv = [sys.executable, "-m", "nlraw.bundle", str(path)]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    options = {"env": dict(plain, **dict(env)), "timeout": command.PATIENCE}
    command.run(*argv, cwd=os.path.dirname(str(folder)), **options)
    return str(path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make(tmp_path_factory.mktemp("bundle") / "nlraw.pyz")


def run(bundle, *arguments, before=()):
    return command.nlraw(*arguments, argv=tuple(before) + (sys.executable, "-I", bundle))


def rewritten(bundle, path, change):
    """A copy of a bundle, each file's bytes as ``change(name, bytes)`` gives them."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(str(path), "w") as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), change(name, old.read(name)))
    return str(path)


def content(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONHASHSEED": "1"},
        {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        {"PYTHONDONTWRITEBYTECODE": "1"},
    ],
    ids=" ".join,
)
def test_the_same_sources_make_the_same_bytes(bundle, tmp_path, env):
    folder = tmp_path / "elsewhere" / "nlraw"
    shutil.copytree(
        PACKAGE,
        str(folder),
        ignore=shutil.ignore_patterns("__pycache__"),
        copy_function=shutil.copyfile,
    )
    for name in os.listdir(str(folder)):
        os.utime(str(folder / name), (1, 1))
    assert content(make(tmp_path / "other.pyz", folder, env)) == content(bundle)


def test_the_file_fits_into_a_config_map(bundle):
    assert os.path.getsize(str(bundle)) < 1 << 20  # the most that Kubernetes takes


def test_the_zip_holds_every_file_and_compresses_what_no_start_reads(bundle):
    with zipfile.ZipFile(bundle) as packed:
        entries = packed.infolist()
        for name in packed.namelist():
            if name.startswith("nlraw/") and name.endswith(".py"):
                assert packed.read(name) == content(os.path.join(os.path.dirname(PACKAGE), name))
    names = [entry.filename for entry in entries]
    assert names == sorted(names)
    sources = {"nlraw/" + name for name in os.listdir(PACKAGE) if name.endswith(".py")}
    others = {
        os.path.relpath(os.path.join(parent, name), os.path.dirname(PACKAGE))
        for parent, _, files in os.walk(PACKAGE)
        for name in files
        if not name.endswith((".py", ".pyc"))
    }
    assert "nlraw/deploy/nlraw-watch.service" in others
    assert {name for name in names if not name.endswith((".py", ".pyc"))} == others
    assert {name for name in names if name.endswith(".py")} == sources | {"__main__.py"}
    assert {name[:-1] for name in names if name.endswith(".pyc")} == (
        sources if sys.version_info >= (3, 7) else set()
    )
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    compressed = {
        entry.filename for entry in entries if entry.compress_type == zipfile.ZIP_DEFLATED
    }
    deployed = {name for name in others if name.startswith("nlraw/deploy/")}
    assert compressed == (sources | others) - deployed
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED}


@CACHES_NONE
def test_its_maker_needs_no_zlib_to_run_it(bundle):
    code = "import runpy, sys; sys.modules['zlib'] = None; sys.argv[:] = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    argv = (sys.executable, "-I", "-c", code, bundle)
    assert command.nlraw("--version", argv=argv) == run(bundle, "--version")


def test_it_is_the_same_program(bundle):
    for arguments in (
        ["--version"],
        ["--help"],
        ["sweep", "--help"],
        ["frobnicate"],
        [],
        ["scan", "-n", "/nonexistent"],
    ):
        assert run(bundle, *arguments) == command.nlraw(*arguments)


@CACHES_NONE
def test_its_maker_does_not_compile_the_sources_again(bundle, tmp_path):
    def change(name, data):
        return (
            b"raise SystemExit('compiled')"
            if name.startswith("nlraw/") and name.endswith(".py")
            else data
        )

    assert run(rewritten(bundle, tmp_path / "changed.pyz", change), "--version") == run(
        bundle, "--version"
    )


@CACHES_NONE
def test_another_python_compiles_the_sources(bundle, tmp_path):
    def change(name, data):
        return b"\0\0\r\n" + data[4:] if name.endswith(".pyc") else data

    assert run(rewritten(bundle, tmp_path / "changed.pyz", change), "--version") == run(
        bundle, "--version"
    )


@CACHES_NONE
def test_a_python_that_checks_all_bytecode_finds_it_right(bundle, tmp_path):
    def change(name, data):
        return b"raise SystemExit('compiled')" if name == "nlraw/cli.py" else data

    argv = (sys.executable, "-I", "--check-hash-based-pycs", "always")
    assert command.nlraw("--version", argv=argv + (bundle,)) == run(bundle, "--version")
    done = command.nlraw(
        "--version", argv=argv + (rewritten(bundle, tmp_path / "changed.pyz", change),)
    )
    assert (done.status, done.err) == (1, "compiled\n")


def test_it_removes_an_orphan(bundle, pod):
    before = pod.state()
    pod.add_orphan()
    done = run(bundle, "cleanup", "-n", pod.name)
    assert (done.status, done.err) == (0, "")
    assert pod.state() == before


def test_it_refuses_while_the_tap_is_in_use(bundle, pod):
    pod.add_tap()
    pod.hold()
    assert (
        run(bundle, "cleanup", "-n", "current", before=("ip", "netns", "exec", pod.name)).status
        == 3
    )
    assert pods.TAP in pod.links()


def test_it_plays_the_story(bundle, make_pod):
    done = run(bundle, "selftest")
    assert (done.status, done.err) == (0, ""), done.out


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="needs root, and setpriv of util-linux",
)
def test_it_plays_the_story_in_a_user_namespace_where_it_needs_one(bundle):
    done = run(bundle, "selftest", before=("setpriv", "--inh-caps=-all", "--bounding-set=-all"))
    assert "enter a user namespace" in done.out


@pytest.mark.parametrize("arguments", [(), ("one", "two"), ("--halp",), ("",)])
def test_its_maker_says_how_it_is_called(arguments, tmp_path):
    done = command.nlraw(*arguments, argv=command.BUNDLE)
    assert (done.status, done.out) == (2, "")
    words = "nlraw: bundle: one FILE is needed; see `python3 -m nlraw.bundle --help`\n"
    assert done.err == words


@pytest.mark.parametrize("argument", ["-h", "--help"])
def test_its_maker_has_a_help(argument):
    done = command.nlraw(argument, argv=command.BUNDLE)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("usage: python3 -m nlraw.bundle FILE\n\nPacks ")


def test_a_file_that_cannot_be_written_is_named():
    done = command.nlraw("/nonexistent/nlraw.pyz", argv=command.BUNDLE)
    words = "No such file or directory; make its directory first\n"
    assert done == (1, "", "nlraw: write bundle to /nonexistent/nlraw.pyz: " + words)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["a directory", "a FIFO"])
def test_only_a_regular_file_is_replaced(tmp_path, make):
    path = str(tmp_path / "nlraw.pyz")
    make(path)
    before = os.stat(path)
    words = "nlraw: write bundle to %s: it exists and is not a regular file\n" % path
    assert command.nlraw(path, argv=command.BUNDLE) == (2, "", words)
    assert os.stat(path).st_ino == before.st_ino
    assert os.listdir(str(tmp_path)) == ["nlraw.pyz"]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "nlraw.pyz"
    path.write_text("old")
    limited = ("sh", "-c", 'ulimit -f 64; exec "$0" "$@"') + command.BUNDLE
    assert command.nlraw(str(path), argv=limited).status != 0
    assert path.read_text() == "old"
    assert command.nlraw(str(path), argv=command.BUNDLE).status == 0
    assert path.read_bytes()[:2] == b"PK"
    assert [each.name for each in tmp_path.iterdir()] == ["nlraw.pyz"]


def test_a_bundle_cannot_make_another(bundle, tmp_path):
    argv = (
        sys.executable,
        "-S",
        "-c",
        "import runpy, sys; sys.path[:0] = [sys.argv.pop(1)]; "
        "runpy._run_module_as_main('nlraw.bundle')",
    )
    done = command.nlraw(bundle, str(tmp_path / "other.pyz"), argv=argv)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("nlraw: read %s" % bundle)

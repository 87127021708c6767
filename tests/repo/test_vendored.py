# SPDX-License-Identifier: Apache-2.0
"""A copy of the folder inside another package, used by itself."""

import os
import platform
import shutil
import subprocess
import sys

import pytest

from lib import command, readme
from lib.vendor import NAME, stage, suite, vendor


def test_a_test_that_fails_against_the_copy_is_seen(tmp_path):
    directory = stage(tmp_path)
    with open(os.path.join(str(directory), *(NAME.split(".") + ["report.py"])), "a") as file:
        file.write("\nRecord.fields = None\n")
    status, printed = suite(directory, ["unit/test_report.py"])
    assert status == 1, printed


# ---------------------------------------------------------------- by itself


def isolated(directory, *options):
    """The argv that starts the copy, where no nlraw can be imported."""
    code = "import sys; sys.path.insert(0, %r); from %s.cli import program; program()" % (
        str(directory),
        NAME,
    )
    absent = "import importlib.util as u; assert u.find_spec('nlraw') is None; "
    return (sys.executable, "-I", "-S") + options + ("-c", absent + code)


def test_it_works_where_no_nlraw_can_be_imported(tmp_path, make_pod):
    vendor(tmp_path)
    argv = isolated(tmp_path)
    (tmp_path / "none").mkdir()
    for arguments in (
        ["--help"],
        ["scan", "-j"],
        ["sweep", "--dir", str(tmp_path / "none")],
        ["selftest"],
    ):
        done = command.nlraw(*arguments, argv=argv)
        assert (done.status, done.err) == (0, "")
    pod = make_pod()
    before = pod.state()
    pod.add_orphan()
    for name in ("setup", "cleanup"):
        arguments = [name, "-n", "current", "--json"]
        done = command.nlraw(*arguments, argv=("ip", "netns", "exec", pod.name) + argv)
        assert (done.status, done.err) == (0, "")
    assert pod.state() == before


def test_it_is_run_by_its_own_name(tmp_path):
    vendor(tmp_path)
    done = command.nlraw(
        "--version", argv=(sys.executable, "-m", NAME), env={"PYTHONPATH": str(tmp_path)}
    )
    assert (done.status, done.out.split()[0], done.err) == (0, "nlraw", "")


def test_every_module_can_be_imported_by_its_own_name(tmp_path):
    copy = vendor(tmp_path)
    names = [
        name[: -len(".py")]
        for name in os.listdir(copy)
        if name.endswith(".py") and not name.startswith("__")
    ]
    code = "import sys; sys.path.insert(0, %r); import %s; " % (
        str(tmp_path),
        ", ".join(NAME + "." + name for name in names),
    )
    code += "print([name for name in sys.modules if name.split('.')[0] == 'nlraw'])"
    assert command.run(sys.executable, "-I", "-S", "-c", code) == "[]\n"


# ---------------------------------------------------------------- read-only images


def break_source(copy):
    """Make the copy's sources newer, older or other than its bytecode, so that compiling fails."""
    for name in os.listdir(copy):
        if name.endswith(".py"):
            path = os.path.join(copy, name)
            with open(path, "a") as file:
                file.write("\nraise SystemExit('compiled')\n")
            os.utime(path, (1, 1))


@pytest.mark.skipif(
    sys.version_info < (3, 7), reason="3.6 knows bytecode by the time of its source alone"
)
def test_the_readmes_compileall_makes_bytecode_that_outlives_the_times_of_files(tmp_path):
    line = readme.block("You build an image", "sh", "compileall").splitlines()[-1]
    copy = vendor(tmp_path)
    program, folder = line.split()[0], line.split()[-1]
    assert (program, folder) == ("python3", "image/opt/nlraw")
    command.run(sys.executable, *line.split()[1:-1], "runtime/_vendor/nlraw", cwd=str(tmp_path))
    break_source(copy)
    assert command.nlraw("--version", argv=isolated(tmp_path)).status == 0


def test_without_it_other_times_make_bytecode_useless(tmp_path):
    copy = vendor(tmp_path)
    command.run(sys.executable, "-m", "compileall", "-q", copy)
    break_source(copy)
    assert command.nlraw("--version", argv=isolated(tmp_path)).err == "compiled\n"


# ---------------------------------------------------------------- stray files

STRAY = "raise SystemExit('a stray file was imported: ' + __name__)\n"

# What commands import while they run. What `python -m` takes is imported before any code of ours
# runs.
STRAYS = "ctypes json select subprocess threading".split()

# Before 3.7 importing nlraw imports all that a cleanup takes.
if sys.version_info >= (3, 7) and platform.python_implementation() == "CPython":
    STRAYS += "struct fcntl _socket".split()


@pytest.fixture
def strays(tmp_path):
    """A current directory with files in it that are called as modules are."""
    (tmp_path / "strays").mkdir()
    for name in STRAYS:
        (tmp_path / "strays" / (name + ".py")).write_text(STRAY)
    if platform.python_implementation() == "PyPy":
        argv = [sys.executable, "-m", "this"]
        if subprocess.call(
            argv, cwd=str(tmp_path / "strays"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ):
            pytest.skip("this PyPy itself does not start there")
    return tmp_path / "strays"


def in_directory(directory, *argv):
    """The argv of a command line that is run there."""
    return ("env", "-C", str(directory)) + argv


@pytest.mark.parametrize(
    "arguments", ["scan --json", "cleanup", "sweep --json --dir .", "selftest"]
)
def test_stray_files_of_the_current_directory_are_not_imported(strays, pod, arguments):
    argv = in_directory(strays, "ip", "netns", "exec", pod.name, *command.MODULE)
    more = ["-n", pod.path] if arguments.split()[0] in ("scan", "cleanup") else []
    done = command.nlraw(*(arguments.split() + more), argv=argv)
    assert (done.status, done.err) == (0, "")


def test_nor_are_they_where_the_package_lies_in_that_directory_too(strays, pod):
    shutil.copytree(command.PACKAGE, str(strays / "nlraw"))
    argv = in_directory(strays, "ip", "netns", "exec", pod.name, sys.executable, "-m", "nlraw")
    done = command.nlraw(
        "scan", "--json", "-n", pod.path, argv=argv, env={"PYTHONPATH": "/nonexistent"}
    )
    assert (done.status, done.err) == (0, "")


@pytest.mark.skipif(
    platform.python_implementation() == "PyPy", reason="PyPy itself does not start there"
)
def test_a_current_directory_that_is_gone_is_no_obstacle(tmp_path):
    shell = ("sh", "-c", 'mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"', str(tmp_path / "gone"))
    assert command.nlraw("--version", argv=shell + command.MODULE).status == 0


@pytest.fixture
def more_strays(strays):
    for name in ("struct", "fcntl", "errno", "_socket", "stat", "contextlib"):
        (strays / (name + ".py")).write_text(STRAY)
    return strays


def run_by_path(options, path, *arguments, cwd="/"):
    argv = in_directory(cwd, sys.executable, *options)
    return command.nlraw(*arguments, argv=argv + (str(path),))


@pytest.mark.parametrize("options", [[], ["-I"], ["-I", "-S"]], ids=" ".join)
@pytest.mark.parametrize("file", ["", "__main__.py"])
def test_a_path_imports_no_stray_file_that_lies_beside_the_folder(more_strays, pod, options, file):
    """As a copy in /tmp has them, where anybody may put a file."""
    folder = more_strays / "nlraw"
    shutil.copytree(command.PACKAGE, str(folder))
    path = os.path.join(str(folder), file).rstrip("/")
    for name, cwd in ((path, "/"), (os.path.relpath(path, str(more_strays)), more_strays)):
        for arguments in (["scan", "--json", "-n", pod.path], ["cleanup", "-n", pod.path]):
            done = run_by_path(options, name, *arguments, cwd=cwd)
            assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize("file", ["", "__main__.py"])
def test_a_folder_of_another_name_is_the_same_program(tmp_path, file):
    shutil.copytree(command.PACKAGE, str(tmp_path / "nlraw-copy"))
    path = os.path.join(str(tmp_path / "nlraw-copy"), file)
    for arguments in (["--version"], ["selftest", "--help"], ["frobnicate"]):
        assert run_by_path(["-I"], path, *arguments) == command.nlraw(*arguments)


@pytest.mark.parametrize("file", ["nlraw", "nlraw/__main__.py"])
def test_a_path_without_a_copy_is_one_line_and_no_traceback(tmp_path, file):
    done = run_by_path(["-I", "-S"], tmp_path / file, "hook")
    assert done.status == 2 and done.err.count("\n") == 1
    assert str(tmp_path / file) in done.err


@pytest.mark.parametrize("options", [["-I"], ["-I", "-S"]], ids=" ".join)
@pytest.mark.parametrize("missing", ["cli.py", "errors.py", "oci.py"])
def test_an_incomplete_copy_is_one_line_and_no_traceback(tmp_path, missing, options):
    shutil.copytree(command.PACKAGE, str(tmp_path / "nlraw"))
    shutil.rmtree(str(tmp_path / "nlraw" / "__pycache__"), ignore_errors=True)
    (tmp_path / "nlraw" / missing).unlink()
    done = run_by_path(options, tmp_path / "nlraw", "hook")
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith("nlraw: ") and missing[: -len(".py")] in done.err
    if missing != "oci.py" or sys.version_info >= (3, 7):  # 3.6 does not say whose name is missing
        assert done.err.endswith("; this copy of nlraw is incomplete\n")


def test_nor_does_an_installed_copy(more_strays, pod, tmp_path):
    home = str(tmp_path / "installed")
    command.run(sys.executable, "-m", "venv", "--without-pip", "--symlinks", home)
    python = os.path.join(home, "bin", "python3")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = command.run(python, "-I", "-c", where)
    shutil.copytree(command.PACKAGE, os.path.join(found.strip(), "nlraw"))
    argv = in_directory(more_strays, python, "-I", "-m", "nlraw")
    done = command.nlraw("cleanup", "-n", pod.path, argv=argv)
    assert (done.status, done.err) == (0, "")

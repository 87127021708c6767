# SPDX-License-Identifier: Apache-2.0
"""A copy of the folder inside another package: `runtime._vendor.nlraw`.

The suite runs against one when pytest is started in a directory that `vendor` made: `SHIM` is what
a test, and a test's child, finds there as nlraw. All of it:

    python -m pytest -m long tests/test_vendored.py -s
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys

import pytest

import command
import readme

NAME = "runtime._vendor.nlraw"
TESTS = os.path.dirname(os.path.abspath(__file__))

# nlraw.py: imported, it is the copy, each module under its one true name; run, it is `python -m` of
# the copy.
SHIM = """
import importlib, os, runpy, sys
if __name__ == "__main__":
    runpy.run_module("%(name)s", None, "__main__", True)
else:
    package = importlib.import_module("%(name)s")
    for file in os.listdir(os.path.dirname(package.__file__)):
        name, extension = os.path.splitext(file)
        if extension == ".py" and not name.startswith("__"):
            sys.modules["nlraw." + name] = importlib.import_module("%(name)s." + name)
    sys.modules["nlraw"] = package
""" % {"name": NAME}

# What needs no kernel. In some seconds ordinary runs of the suite try that on the copy, a little
# that does, and some children.
PURE = (
    "test_cli test_errors test_exchange test_inet test_link test_orphans test_report test_tc "
    "test_wire"
)
SOME = PURE + " test_live_route test_live_selftest"

# Of the sources or of the distribution, and the same whatever the name.
SAME = "test_packaging test_vendored test_bundle"


def vendor(directory, shim=False):
    """Put a copy of the package into a directory, below the package `runtime`.

    Return the copy's path.
    """
    copy = os.path.join(str(directory), *NAME.split("."))
    shutil.copytree(command.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (os.path.dirname(copy), os.path.dirname(os.path.dirname(copy))):
        open(os.path.join(folder, "__init__.py"), "w").close()
    if shim:
        with open(os.path.join(str(directory), "nlraw.py"), "w") as file:
            file.write(SHIM)
    return copy


def files(names):
    return [os.path.join(TESTS, name + ".py") for name in names.split()]


def suite(directory, *arguments):
    """Run tests against the copy in a directory; return how pytest ended and what it printed."""
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "vendored_only",
    ] + list(arguments)
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PYTEST"))
    }
    done = subprocess.run(
        argv,
        cwd=str(directory),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    return done.returncode, done.stdout


# A plugin of pytest: nothing but the copy may have been loaded, wherever else an nlraw may be
# installed.
GUARD = """
import sys
def pytest_sessionfinish():
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "nlraw":
            assert module.__name__ == name.replace("nlraw", "%s", 1), name
    assert "%s" in sys.modules
""" % (NAME, NAME)


@pytest.fixture
def stage(tmp_path):
    """A directory in which pytest tries the copy."""
    vendor(tmp_path, shim=True)
    (tmp_path / "vendored_only.py").write_text(GUARD)
    return tmp_path


@pytest.mark.slow
def test_a_part_of_the_suite_passes_against_a_vendored_copy(stage):
    status, told = suite(stage, "-m", "not slow and not long", *files(SOME))
    assert status == 0, told


@pytest.mark.long
def test_the_suite_passes_against_a_vendored_copy(stage):
    ignored = ["--ignore=" + path for path in files(SAME)]
    status, told = suite(stage, TESTS, *ignored)
    print("\n" + told)
    assert status == 0


def test_a_test_that_fails_against_the_copy_is_seen(stage):
    with open(os.path.join(str(stage), *(NAME.split(".") + ["report.py"])), "a") as file:
        file.write("\nRecord.fields = None\n")
    status, told = suite(stage, os.path.join(TESTS, "test_report.py"))
    assert status == 1, told


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
    for arguments in (["setup", "--json"], ["cleanup", "--json"]):
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
    assert subprocess.check_output([sys.executable, "-I", "-S", "-c", code]) == b"[]\n"


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
    (line,) = [
        line
        for block in readme.blocks("Vendoring", "sh")
        for line in block.splitlines()
        if "compileall" in line
    ]
    copy = vendor(tmp_path)
    program, folder = line.split()[0], line.split()[-1]
    assert (program, folder) == ("python3", "runtime/_vendor/nlraw")
    subprocess.run([sys.executable] + line.split()[1:], cwd=str(tmp_path), check=True)
    break_source(copy)
    assert command.nlraw("--version", argv=isolated(tmp_path)).status == 0


def test_without_it_other_times_make_bytecode_useless(tmp_path):
    copy = vendor(tmp_path)
    subprocess.run([sys.executable, "-m", "compileall", "-q", copy], check=True)
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


def readme_line(word, pod, python=sys.executable):
    """The README's isolated form with a word in it, for this Python and a pod of ours."""
    (line,) = [
        line for block in readme.blocks("Use", "sh") for line in block.splitlines() if word in line
    ]
    argv = shlex.split(line)
    assert argv[:2] == ["python3", "-I"] and argv[-1] == "pod1"
    return [python] + argv[1:-1] + [pod.path]


def test_the_isolated_form_for_a_folder_imports_no_stray_file_at_all(more_strays, pod):
    argv = [
        part.replace("/opt/nlraw", command.ROOT) for part in readme_line("sys.path.insert", pod)
    ]
    done = command.nlraw(argv=in_directory(more_strays, *argv))
    assert (done.status, done.err) == (0, "")


def test_nor_does_the_one_for_an_installed_copy(more_strays, pod, tmp_path):
    home = str(tmp_path / "installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", home], check=True)
    python = os.path.join(home, "bin", "python3")
    found = subprocess.check_output(
        [python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    )
    shutil.copytree(command.PACKAGE, os.path.join(found.decode().strip(), "nlraw"))
    done = command.nlraw(argv=in_directory(more_strays, *readme_line("-I -m nlraw", pod, python)))
    assert (done.status, done.err) == (0, "")

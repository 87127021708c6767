# SPDX-License-Identifier: Apache-2.0
"""A copy of the folder inside another package: `runtime._vendor.nlraw`.

The suite runs against one when pytest is started in a directory that `stage` made: `SHIM` is what a
test, and a test's child, finds there as nlraw.
"""

import os
import shutil
import subprocess
import sys

from lib import command, readme

NAME = "runtime._vendor.nlraw"
TESTS = os.path.join(readme.TREE, "tests")

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


def suite(directory, names, without=()):
    """Run tests, by paths below tests/, against the copy in a directory.

    Return how pytest ended and what it printed.
    """
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "vendored_only"]
    argv += [os.path.join(TESTS, name) for name in names]
    argv += ["--ignore=" + os.path.join(TESTS, name) for name in without]
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PYTEST"))
    }
    done = command.attempt(*argv, cwd=str(directory), env=env, stderr=subprocess.STDOUT)
    return done.status, done.out


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


def stage(directory):
    """Make a directory one in which pytest tries the copy; return it."""
    vendor(directory, shim=True)
    (directory / "vendored_only.py").write_text(GUARD)
    return directory

# SPDX-License-Identifier: Apache-2.0
"""Run the command line: `python3 -m nlraw`, or by its path `python3 -I /opt/nlraw/nlraw`.

By path, this file is a program too: `python3 -I -S /opt/nlraw/nlraw/__main__.py` starts in two
thirds of the time, because Python then imports no `runpy`. Python searches neither the current
directory nor the one above this folder: what lies there may be anybody's.
"""

import posix
import sys


def _become_package() -> None:
    """Make this folder the package `nlraw`, and this file a module of it."""
    folder = __file__.rpartition("/")[0] or "."
    spec = type(sys.__spec__)
    loader = type(globals()["__loader__"])("nlraw", folder + "/__init__.py")
    package = sys.modules["nlraw"] = type(sys)("nlraw")
    package.__spec__ = spec("nlraw", loader, origin=loader.path, is_package=True)
    package.__spec__.submodule_search_locations = [folder]
    package.__path__ = [folder]
    package.__package__ = "nlraw"
    package.__file__ = loader.path
    package.__loader__ = loader
    _drop_first_entry(folder)
    loader.exec_module(package)
    # where a relative import starts: which of the two counts depends on the version of Python
    globals().update(__package__="nlraw", __spec__=spec("nlraw.__main__", None))


def _drop_first_entry(directory: str) -> None:
    """Remove the first entry of `sys.path` if it is this directory: then Python added it."""
    try:
        first, own = posix.stat(sys.path[0] or "."), posix.stat(directory)
    except (OSError, IndexError):  # a zip, or a directory that is gone
        return
    if (first.st_dev, first.st_ino) == (own.st_dev, own.st_ino):
        del sys.path[0]


def _run() -> None:
    from .cli import program

    program()


if __package__:
    _drop_first_entry(".")
else:
    _become_package()
_run()

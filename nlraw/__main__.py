# SPDX-License-Identifier: Apache-2.0
#
# `python3 -m nlraw`; and by its path, `python3 -I /opt/nlraw/nlraw`. This file is a program too:
# `python3 -I -S /opt/nlraw/nlraw/__main__.py` starts in two thirds of the time, because Python then
# imports no runpy. A program by its path is compiled at each start: so this file is short.
#
# Python must search neither the current directory nor the one above this folder for modules,
# because anybody's files may lie there. `-I` and `-P` leave out the first, and making this folder
# the package the second.
import posix
import sys

folder = __file__.rpartition("/")[0] or "."
try:  # drop the first entry of sys.path if Python added it: this folder, or the current directory
    if posix.stat(sys.path[0] or ".") == posix.stat("." if __package__ else folder):
        del sys.path[0]
except (OSError, IndexError):  # a zip, or a directory that is gone
    pass
if not __package__:
    package = sys.modules["nlraw"] = type(sys)("nlraw")
    package.__path__ = [folder]
    type(globals()["__loader__"])("nlraw", folder + "/__init__.py").exec_module(package)
    # where relative imports start: which of the two counts depends on the version of Python
    __package__, __spec__ = "nlraw", type(sys.__spec__)("nlraw.__main__", None)

from .cli import program  # noqa: E402

program()

# SPDX-License-Identifier: Apache-2.0
#
# `python3 -m nlraw`; and by its path, `python3 -I /opt/nlraw/nlraw`. This file is a program too:
# `python3 -I -S /opt/nlraw/nlraw/__main__.py` starts in two thirds of the time, because Python then
# imports no runpy. A program by its path is compiled at each start: so this file is short.
#
# By path, this folder becomes the package. Python does not search the folder above it, because
# anybody's files may lie there.
import sys

try:
    if not __package__:
        folder = __file__.rpartition("/")[0] or "."
        if sys.path[:1] == [folder]:
            del sys.path[0]
        package = sys.modules["nlraw"] = type(sys)("nlraw")
        package.__path__ = [folder]
        type(globals()["__loader__"])("nlraw", folder + "/__init__.py").exec_module(package)
        # where relative imports start: which of the two counts depends on the version of Python
        __package__, __spec__ = "nlraw", type(sys.__spec__)("nlraw.__main__", None)
    from .cli import program
except ImportError as error:
    is_ours = (error.name or "").startswith(__package__ or "nlraw")
    sys.exit("nlraw: start: %s%s" % (error, "; this copy of nlraw is incomplete" * is_ours))

program()

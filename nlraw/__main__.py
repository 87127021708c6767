# SPDX-License-Identifier: Apache-2.0
#
# `python3 -m nlraw`; and by its path, `python3 -I /opt/nlraw/nlraw`. This file is a program too:
# `python3 -I -S /opt/nlraw/nlraw/__main__.py` starts in two thirds of the time, because Python then
# imports no runpy. A program by its path is compiled at each start: so this file is short.
#
# Python must search neither the current directory nor the one above this folder for modules,
# because anybody's files may lie there. `-I` and `-P` leave out the first, and importing this
# package from its own folder the second.
import sys

if __package__:
    import posix

    try:
        if sys.path[:1] in ([""], [posix.getcwd()]):
            del sys.path[0]
    except OSError:  # the current directory is gone
        pass
else:
    # importlib.util, which takes longer to import, has it from there
    from _frozen_importlib_external import spec_from_file_location as _spec

    here = __file__.rpartition("/")[0] or "."
    if sys.path[:1] == [here]:
        del sys.path[0]
    package = sys.modules["nlraw"] = type(sys)("nlraw")
    spec = _spec("nlraw", here + "/__init__.py", submodule_search_locations=[here])
    package.__spec__, package.__path__ = spec, [here]
    spec.loader.exec_module(package)  # type: ignore[union-attr]
    # where relative imports start: which of the two counts depends on the version of Python
    __package__, __spec__ = "nlraw", type(sys.__spec__)("nlraw.__main__", None)

from .cli import program

program()

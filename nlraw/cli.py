# SPDX-License-Identifier: Apache-2.0
"""The program: start fast, run a command line, end. `commands` has the commands.

Most of the time that a command takes is the start of Python. What saves time there, and would
surprise in a library, is here: `program` is only called in a process of its own.
"""

import gc
import posix
import sys
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Callable, NoReturn, Optional, Sequence

ModuleSpec: "Any" = type(sys.__spec__)  # importlib.machinery.ModuleSpec; that import takes longer

FAILED, USAGE, INTERRUPTED = 1, 2, 130

# More bytes than any module's cache has, and few enough that malloc() need not ask the kernel.
LARGEST = 64 << 10


def program() -> "NoReturn":
    """Run `main` and end the process at once, without the interpreter's finalization.

    All output is flushed by then. Collecting garbage and finalizing take a sixth of a cold start.
    """
    gc.disable()
    try:
        _leave_out_current_directory()
        use_caches(__name__.rpartition(".")[0], __file__.rpartition("/")[0])
    except KeyboardInterrupt:
        posix._exit(INTERRUPTED)
    posix._exit(main())


def _leave_out_current_directory() -> None:
    """Do not search the current directory for modules, as `python -m` does: it may be anybody's."""
    try:
        if sys.path[:1] in ([""], [posix.getcwd()]):
            del sys.path[0]
    except OSError:  # the current directory is gone
        pass


def main(arguments: "Optional[Sequence[str]]" = None) -> int:
    """Run a command line, by default that of the process, and return the exit status."""

    def run() -> int:
        from . import commands

        return commands.run(sys.argv[1:] if arguments is None else arguments)

    return _ended(run)


def selftest_in_user_namespace(arguments: "Sequence[str]") -> int:
    """Run the self-test in the child that `selftest` starts; ``arguments`` may hold "--json"."""

    def run() -> int:
        from . import commands

        return commands.selftest_in_user_namespace("--json" in arguments)

    return _ended(run)


def _ended(run: "Callable[[], int]") -> int:
    """Run a function that returns an exit status; print an error, and return its status."""
    try:
        from .errors import Error, Invalid
        from .output import ERROR, Unwritten, complain
    except (OSError, ImportError, MemoryError) as error:  # Python itself lacks something
        words = "nlraw: start: %s\n" % _in_words(error)
        posix.write(2, words.encode("utf-8", "surrogateescape"))
        return FAILED
    try:
        return run()
    except Invalid as error:
        complain(str(error), ERROR)
        return USAGE
    except Error as error:
        complain(str(error), ERROR)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Unwritten as error:
        complain("the result could not be written: %s" % error, ERROR)
        return FAILED
    except (OSError, ImportError, MemoryError) as error:
        complain("run the command: " + _in_words(error), ERROR)
        return FAILED


def _in_words(error: Exception) -> str:
    """What an error of Python says, without the number of an OSError, and what to do about it."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    file = getattr(error, "filename", None)
    if file:
        words += ": %s" % file
    if isinstance(error, ImportError) and error.name:
        if error.name.startswith(__name__.rpartition(".")[0]):
            return words + "; this copy of nlraw is incomplete"
        return words + "; install all of Python's standard library (Debian: libpython3-stdlib)"
    return words


# ---------------------------------------------------------------- the import of modules


def use_caches(package: str, folder: str) -> None:
    """Import the modules of a package from their bytecode caches, if this Python writes them."""
    try:
        from _frozen_importlib_external import MAGIC_NUMBER
    except ImportError:  # not CPython
        return
    if sys.version_info >= (3, 7) and not sys.flags.optimize:
        sys.meta_path.insert(0, Finder(package, folder, MAGIC_NUMBER))


class Finder:
    """Finds the modules of a package by their valid bytecode caches, and loads them.

    Python's own finder executes 270,000 instructions for an empty module, this one 120,000: for
    twenty modules the difference is a tenth of an interpreter's start. The caches are those that
    Python writes (PEP 3147, PEP 552). A module whose cache is missing, outdated or of another kind
    is left to Python's own finder, which renews the cache. The methods are those of importlib.abc's
    MetaPathFinder and ResourceLoader.
    """

    def __init__(self, package: str, folder: str, magic: bytes) -> None:
        self._prefix = package + "."
        self._source = folder + "/%s.py"
        self._cache = "%s/__pycache__/%%s.%s.pyc" % (folder, sys.implementation.cache_tag)
        self._magic = magic + bytes(4)  # no flags: the source's time and size follow

    def find_spec(self, name: str, path: object = None, target: object = None) -> "Any":
        """Return the spec of a module whose cache is valid, else None."""
        if not name.startswith(self._prefix):
            return None
        module = name[len(self._prefix) :]
        source = self._source % module
        try:
            found = posix.stat(source)
            fd = posix.open(self._cache % module, posix.O_RDONLY | posix.O_CLOEXEC)
            try:
                data = posix.read(fd, LARGEST)
            finally:
                posix.close(fd)
        except OSError:
            return None
        written = (int(found.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little")
        size = (found.st_size & 0xFFFFFFFF).to_bytes(4, "little")
        if data[:16] != self._magic + written + size or len(data) == LARGEST:
            return None
        spec = ModuleSpec(name, self, origin=source)
        spec.loader_state = data
        return spec

    def create_module(self, spec: object) -> None:
        """Leave it to Python to create the module."""

    def exec_module(self, module: "ModuleType") -> None:
        """Execute the bytecode of a module that `find_spec` has found."""
        spec: Any = module.__spec__
        module.__file__ = spec.origin
        code, spec.loader_state = loads(memoryview(spec.loader_state)[16:]), None
        exec(code, module.__dict__)

    def get_data(self, path: str) -> bytes:
        """Return the content of a file in the package's folder. Raises OSError."""
        with open(path, "rb") as file:
            return file.read()

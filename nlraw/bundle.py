# SPDX-License-Identifier: Apache-2.0
"""Pack the package into one file that Python runs: `python3 -m nlraw.bundle nlraw.pyz`.

Then `python3 -I nlraw.pyz scan` runs it anywhere. The file is a zip of the sources and of their
bytecode, because Python cannot cache bytecode beside a module in a zip. The bytecode is for the
version of Python that made the file. Another version ignores it and compiles the sources at each
start: the result is the same, but a start takes about four times as long.

The file must fit into a Kubernetes ConfigMap (1 MiB). So the bytecode has no docstrings, and the
sources and texts are compressed. What a start by the Python that made the file reads is not: it
needs no zlib.

The same Python with the same zlib makes the same bytes from the same sources, on every machine at
any time:

- names are sorted, times are fixed;
- a child process compiles, with a fixed hash seed: the order of a set depends on the seed, and the
  output of marshal on the number of references to an object;
- PyPy writes no references: which ones its marshal finds differs from run to run.
"""

import io
import marshal
import os
import subprocess
import sys
import zipfile
from importlib import util

from .errors import UNWRITABLE, Error, Invalid, refused
from .output import Unwritten, complain, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Sequence

MAIN = b"""\
from nlraw.cli import program

program()
"""

HELP = """\
usage: python3 -m nlraw.bundle FILE

Packs nlraw into one file that Python runs: `python3 -I FILE scan`. Make it with the Python that
will run it. Another version runs it too, but starts about four times as slowly.
"""

# The child: reads a dict of sources by name, writes a dict of their code objects, marshalled.
COMPILE = """\
import marshal, sys
sources = marshal.load(sys.stdin.buffer)
version = 2 if sys.implementation.name == "pypy" else marshal.version
for name, source in sources.items():
    sources[name] = marshal.dumps(compile(source, name, "exec", optimize=2), version)
marshal.dump(sources, sys.stdout.buffer)
"""

# PEP 552. The lowest bit: a hash of the source follows. The second bit is 0: it is not checked.
UNCHECKED_HASH = 1


def files() -> "Dict[str, bytes]":
    """Return the files of the zip, by name: all of this folder, and what runs it."""
    folder = os.path.dirname(os.path.abspath(__file__))
    sources, packed = {}, {"__main__.py": MAIN}
    for parent, _, names in os.walk(folder, onerror=_raise):
        below = parent[len(folder) :].replace(os.sep, "/")
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                if name.endswith(".py"):
                    sources["nlraw%s/%s" % (below, name)] = file.read()
                elif not name.endswith(".pyc"):
                    packed["nlraw%s/%s" % (below, name)] = file.read()
    packed.update(sources)
    # 3.6 compares the time of the source, which for a zip depends on the time zone of the reader.
    if sys.version_info >= (3, 7):
        packed.update(_bytecode(sources))
    return packed


def _raise(error: OSError) -> None:
    raise error


def _bytecode(sources: "Dict[str, bytes]") -> "Dict[str, bytes]":
    child = [sys.executable, "-s", "-S", "-c", COMPILE]
    env = {"PYTHONHASHSEED": "0"}
    compiled = marshal.loads(subprocess.check_output(child, input=marshal.dumps(sources), env=env))
    mark = util.MAGIC_NUMBER + UNCHECKED_HASH.to_bytes(4, "little")
    return {
        name + "c": mark + util.source_hash(sources[name]) + code for name, code in compiled.items()
    }


def _zip(packed: "Dict[str, bytes]") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as bundle:
        for name in sorted(packed):
            entry = zipfile.ZipInfo(name)  # dated 1980, the first year that a zip can represent
            entry.create_system = 3  # Unix
            entry.external_attr = 0o644 << 16
            is_read = name.endswith(".pyc") or name.startswith(("__main__", "nlraw/deploy/"))
            entry.compress_type = zipfile.ZIP_STORED if is_read else zipfile.ZIP_DEFLATED
            bundle.writestr(entry, packed[name])
    return made.getvalue()


def write(path: str) -> None:
    """Write the bundle to a path. Raises `Refused`, and `Invalid` if no regular file is there."""
    step, new = "write bundle to", "%s.%d.tmp" % (path, os.getpid())
    if os.path.exists(path) and not os.path.isfile(path):
        raise Invalid("it exists and is not a regular file", step, path)
    try:
        content = _zip(files())
    except OSError as error:
        raise refused(error, "read", str(error.filename)) from None
    try:
        with open(new, "wb") as file:
            file.write(content)
        os.rename(new, path)  # atomic: a process that starts it meanwhile runs the old one
    except OSError as error:
        if os.path.exists(new):
            os.unlink(new)
        raise refused(error, step, path, UNWRITABLE) from None


def main(arguments: "Sequence[str]") -> int:
    """Write the bundle to the only argument; return the exit status."""
    try:
        if list(arguments) in (["-h"], ["--help"]):
            say(HELP, end="")
        elif len(arguments) != 1 or not arguments[0] or arguments[0].startswith("-"):
            raise Invalid("one FILE is needed; see `python3 -m nlraw.bundle --help`", "bundle")
        else:
            write(arguments[0])
    except (Error, Unwritten) as error:
        complain(str(error))
        return 2 if isinstance(error, Invalid) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

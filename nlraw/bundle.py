# SPDX-License-Identifier: Apache-2.0
"""Make one file of the package: `python3 -m nlraw.bundle nlraw.pyz`, then `python3 -I nlraw.pyz scan` anywhere.

The file is a zip of the sources and, since bytecode cannot be cached beside a module in a zip, of their bytecode for the Python
that makes it. Another version ignores that and compiles the sources each time, which is right, and takes some four times as long.

The same Python makes the same bytes of the same sources, wherever and whenever. So names are sorted, times fixed, nothing
is compressed (each zlib does it its own way), and the compiling is done in a child in which nothing else has happened: how
marshal writes an object depends on who else refers to it, and the order of a set on the hash seed.
"""

import io
import marshal
import os
import subprocess
import sys
import zipfile
from importlib import util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Sequence

MAIN = b"""\
from nlraw.cli import program

program()
"""

# Reads sources by name, writes their code objects, each as marshal has it.
COMPILE = """\
import marshal, sys
sources = marshal.load(sys.stdin.buffer)
compiled = {name: marshal.dumps(compile(source, name, "exec")) for name, source in sources.items()}
marshal.dump(compiled, sys.stdout.buffer)
"""

# The first bit: a hash of the source follows, not its time; the second, unset: trust it unseen (PEP 552).
UNCHECKED_HASH = 1


def files() -> "Dict[str, bytes]":
    """What is in the zip: its names, each with its bytes."""
    folder = os.path.dirname(os.path.abspath(__file__))
    sources = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".py"):
            with open(os.path.join(folder, name), "rb") as file:
                sources["nlraw/" + name] = file.read()
    packed = dict(sources, **{"__main__.py": MAIN})
    if sys.version_info >= (3, 7):  # 3.6 wants the time of the source, which in a zip depends on the reader's time zone
        child = [sys.executable, "-s", "-S", "-c", COMPILE]
        compiled = subprocess.check_output(child, input=marshal.dumps(sources), env={"PYTHONHASHSEED": "0"})
        for name, code in marshal.loads(compiled).items():
            head = util.MAGIC_NUMBER + UNCHECKED_HASH.to_bytes(4, "little") + util.source_hash(sources[name])
            packed[name + "c"] = head + code
    return packed


def main(arguments: "Sequence[str]") -> None:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise SystemExit("usage: python3 -m nlraw.bundle FILE")
    path, new = arguments[0], "%s.%d.tmp" % (arguments[0], os.getpid())
    try:
        packed, made = files(), io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as bundle:
            for name in sorted(packed):
                entry = zipfile.ZipInfo(name)  # of 1980, the first year that a zip can tell
                entry.create_system = 3  # Unix
                entry.external_attr = 0o644 << 16
                bundle.writestr(entry, packed[name])
        with open(new, "wb") as file:
            file.write(made.getvalue())
        os.rename(new, path)  # as a whole: whoever starts it meanwhile runs the one before
    except OSError as error:
        if os.path.exists(new):
            os.unlink(new)
        raise SystemExit("nlraw.bundle: %s" % error) from None


if __name__ == "__main__":
    main(sys.argv[1:])

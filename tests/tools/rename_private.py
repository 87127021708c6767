# SPDX-License-Identifier: Apache-2.0
"""Rename every private name of the package, in a copy of the tree, and run tests there.

    python tests/tools/rename_private.py [PYTEST ARGUMENT...]

Tests know the contract, not the rooms: what fails here reaches into a private name. The exit status
is that of pytest; the arguments are its own, by default the directories of the suite.
"""

import ast
import io
import os
import shutil
import subprocess
import sys
import tempfile
import tokenize

TREE = os.path.abspath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))

# Names of modules, and those that ctypes wants.
KEPT = {"_type_", "_flags_", "_restype_", "_socket", "_thread", "_ctypes", "_json", "_weakref"}


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name not in KEPT | {"_"}


def defined(source):
    """The private names that a source defines: functions, classes, variables, attributes, slots."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__slots__" for target in node.targets
        ):
            found.update(each.value for each in ast.walk(node) if isinstance(each, ast.Constant))
    return {name for name in found if isinstance(name, str) and is_private(name)}


def renamed(source, names):
    """The source with these names changed, also where a string is just one of them."""
    lines = source.splitlines(True)
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(source).readline))):
        text = token.string
        is_name = token.type == tokenize.NAME and text in names
        is_string = token.type == tokenize.STRING and text.strip("'\"") in names
        if is_name or is_string:
            (row, start), (_, end) = token.start, token.end
            line = lines[row - 1]
            new = text.replace("_", "_renamed_", 1)
            lines[row - 1] = line[:start] + new + line[end:]
    return "".join(lines)


def main(arguments):
    with tempfile.TemporaryDirectory(prefix="nlraw-renamed-") as place:
        copy = os.path.join(place, "tree")
        shutil.copytree(TREE, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__"))
        package = os.path.join(copy, "nlraw")
        sources = {}
        for name in sorted(os.listdir(package)):
            if name.endswith(".py"):
                with open(os.path.join(package, name), encoding="utf-8") as file:
                    sources[name] = file.read()
        names = set().union(*map(defined, sources.values()))
        for name, source in sources.items():
            with open(os.path.join(package, name), "w", encoding="utf-8") as file:
                file.write(renamed(source, names))
        print("%d private names are renamed" % len(names), flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        return subprocess.call(command + arguments, cwd=copy)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

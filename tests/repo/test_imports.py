# SPDX-License-Identifier: Apache-2.0
"""The house of nlraw: imports go one way, the pure files touch no system, one file prints.

Read from the source, so that an import inside a function counts, and one for the type checker alone
too.
"""

import ast
import os
import subprocess
import sys

import pytest

import nlraw
from lib.house import ORDER, PURE

PACKAGE = os.path.dirname(os.path.abspath(nlraw.__file__))

SYSTEM = {
    "socket",
    "_socket",
    "os",
    "posix",
    "ctypes",
    "time",
    "fcntl",
    "select",
    "subprocess",
    "threading",
    "_thread",
}

FILES = sorted(entry[: -len(".py")] for entry in os.listdir(PACKAGE) if entry.endswith(".py"))


def source(name):
    with open(os.path.join(PACKAGE, name + ".py"), encoding="utf-8") as file:
        return file.read()


def imports(text):
    """``(own, foreign)``: files of nlraw and other top-level modules that a source imports."""
    own, foreign = set(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            foreign.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            foreign.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1, "nlraw has no folders"
            if node.module is not None:
                own.add(node.module)
            else:  # what is no file is a name of the package itself
                own.update(
                    alias.name if alias.name in ORDER else "__init__" for alias in node.names
                )
    return own, foreign


def test_the_reader_of_imports_sees_all_there_are():
    text = """
import os.path
TYPE_CHECKING = False
if TYPE_CHECKING:
    import typing
    from .cli import main
def function():
    import json
    from . import wire, __version__
    class Inner:
        from .link import Link
    try:
        from select import poll
    except ImportError:
        pass
"""
    own, foreign = imports(text)
    assert own == {"cli", "wire", "link", "__init__"}
    assert foreign == {"os", "typing", "json", "select"}


def test_every_file_has_its_place_in_the_order():
    assert not set(FILES) - set(ORDER)
    assert set(PURE) <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_only_from_files_above_it(name):
    own, foreign = imports(source(name))
    above = set(ORDER[: ORDER.index(name)])
    if name == "commands":
        above.add("__init__")  # for the version
    assert not own - above
    assert "nlraw" not in foreign, "an absolute import breaks a vendored copy"


def reached(name):
    """A file, and all that it imports, and what these import in turn."""
    found, left = set(), [name]
    while left:
        file = left.pop()
        if file not in found:
            found.add(file)
            left += imports(source(file))[0]
    return found


@pytest.mark.parametrize("name", PURE)
def test_nothing_above_the_purity_line_touches_the_system(name):
    foreign = {each for file in reached(name) for each in imports(source(file))[1]}
    assert not foreign & SYSTEM


@pytest.mark.parametrize("name", PURE)
def test_what_is_above_the_purity_line_imports_next_to_nothing(name):
    json = {"json", "_json"} if name == "oci" else set()
    assert imports(source(name))[1] <= {"_struct", "errno", "typing"} | json


@pytest.mark.parametrize("name", ["verdict", "plan"])
def test_the_policy_is_pure_with_all_that_it_imports(name):
    assert reached(name) <= set(PURE)


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_longer_or_wider_than_a_reader_likes(name):
    lines = source(name).splitlines()
    assert len(lines) <= 400
    assert max(map(len, lines)) <= 100


def prints(text):
    """What of ``print``, ``sys.stdout`` and ``sys.stderr`` a source names, by line."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and node.id == "print":
            found.append((node.lineno, "print"))
        elif isinstance(node, ast.Attribute) and node.attr in (
            "stdout",
            "stderr",
            "__stdout__",
            "__stderr__",
        ):
            if isinstance(node.value, ast.Name) and node.value.id == "sys":
                found.append((node.lineno, "sys." + node.attr))
        elif isinstance(node, ast.ImportFrom) and node.module == "sys":
            found += [
                (node.lineno, alias.name)
                for alias in node.names
                if alias.name in ("stdout", "stderr")
            ]
    return sorted(found)


def test_the_reader_of_prints_sees_all_there_are():
    text = "print(1)\nsys.stderr.write('')\nfrom sys import stdout\nprocess.stdout\nprint"
    assert prints(text) == [(1, "print"), (2, "sys.stderr"), (3, "stdout"), (5, "print")]


@pytest.mark.parametrize("name", [name for name in FILES if name != "output"])
def test_only_the_output_of_the_command_line_prints(name):
    assert prints(source(name)) == []


@pytest.mark.parametrize("name", FILES)
def test_every_file_begins_with_its_licence(name):
    assert source(name).splitlines()[0] == "# SPDX-License-Identifier: Apache-2.0"


def modules_after(statements):
    """The modules that statements load into a bare interpreter, beyond its own."""
    code = (
        "import sys; sys.path[:0] = [%r]; before = set(sys.modules); %s; "
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-I", "-S", "-c", code % (os.path.dirname(PACKAGE), statements)]
    return set(subprocess.check_output(command).decode("ascii").split())


SLOW = (
    "ctypes json typing enum dataclasses argparse re socket logging threading subprocess "
    "collections inspect select signal"
)


def test_importing_nlraw_loads_nothing_that_is_slow_to_load():
    loaded = modules_after("import nlraw; nlraw.scan, nlraw.cleanup, nlraw.setup, nlraw.sweep")
    assert {"nlraw.pod", "nlraw.provision", "nlraw.node"} <= loaded
    assert not loaded & set(SLOW.split())


needs_lazy_imports = pytest.mark.skipif(
    sys.version_info < (3, 7), reason="before 3.7 a package cannot wait with its imports (PEP 562)"
)


@needs_lazy_imports
def test_importing_nlraw_loads_nothing_before_it_is_used():
    for program, used in (
        ("", set()),
        ("; nlraw.TapInUse", {"nlraw.errors"}),
        ("; nlraw.Report", {"nlraw.errors", "nlraw.report"}),
    ):
        own = {name for name in modules_after("import nlraw" + program) if name[:5] == "nlraw"}
        assert own == {"nlraw"} | used


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError):
        nlraw.nothing


def test_all_that_is_promised_is_there():
    assert all(getattr(nlraw, name) for name in nlraw.__all__)


@needs_lazy_imports
def test_a_cleanup_imports_only_what_it_needs():
    loaded = modules_after("from nlraw.cli import program")
    own = {module[len("nlraw.") :] for module in loaded if module.startswith("nlraw.")}
    assert not own & {"node", "provision", "tap", "selftest"}
    assert not own & {"inet", "neighbour", "nexthop", "guest", "facts", "uplinks"}  # of a setup
    assert not loaded & {"os", "stat"} - modules_after("pass")


def test_what_finds_suggestions_and_holders_is_imported_for_a_mistake_and_for_who_only():
    loaded = modules_after("from nlraw import cli; cli.main(['scan', '--help'])")
    assert not loaded & {"nlraw.mistakes", "nlraw.holders"}


def test_importing_nlraw_loads_no_command_line_and_no_selftest():
    assert not modules_after("import nlraw") & {"nlraw.cli", "nlraw.selftest", "nlraw.metrics"}


@pytest.mark.parametrize("name", PURE)
def test_the_pure_half_works_without_the_rest(name):
    """As a vendored copy of it would: in a package of another name, whose __init__ is empty."""
    loaded = modules_after(
        "package = type(sys)('vendored'); package.__path__ = [%r]; sys.modules['vendored'] = "
        "package; import vendored.%s" % (PACKAGE, name)
    )
    assert {
        module[len("vendored.") :] for module in loaded if module.startswith("vendored.")
    } <= set(PURE)
    assert not loaded & SYSTEM

# SPDX-License-Identifier: Apache-2.0
"""nlraw.cli: the import of modules from their bytecode caches."""

import os
import py_compile
import subprocess
import sys

import pytest

from nlraw import cli

PROGRAM = """
import sys
sys.dont_write_bytecode = True
sys.path[:0] = [%r, %r]
from nlraw import cli
cli.use_caches("sample", %r)
import sample.module
print(sample.module.VALUE, type(sample.module.__loader__).__name__, sample.module.__file__)
"""

ROOT = os.path.dirname(os.path.dirname(cli.__file__))

needs_caches = pytest.mark.skipif(
    sys.implementation.name != "cpython" or sys.version_info < (3, 7),
    reason="only CPython from 3.7 on writes caches of this kind (PEP 552)",
)
pytestmark = needs_caches


@pytest.fixture
def source(tmp_path):
    """A module of a package, with a cache."""
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "__init__.py").write_text("")
    path = tmp_path / "sample" / "module.py"
    path.write_text("VALUE = 1\n")
    py_compile.compile(str(path), doraise=True)
    return path


def loaded(source, *flags):
    """The value in the module, and the kind of loader that has loaded it."""
    program = PROGRAM % (ROOT, str(source.parent.parent), str(source.parent))
    argv = [sys.executable, *flags, "-I", "-S", "-c", program]
    value, loader, path = subprocess.check_output(argv, universal_newlines=True).split()
    assert path == str(source)
    return int(value), loader


def cache_of(source):
    (found,) = (source.parent / "__pycache__").glob("module.*.pyc")
    return found


def test_a_module_with_a_cache_is_loaded_from_it(source):
    assert loaded(source) == (1, "Finder")


def test_the_loader_reads_other_files_of_the_package_too(source):
    (source.parent / "data").write_bytes(b"\xff\n")
    finder = cli.Finder("sample", str(source.parent), b"")
    assert finder.get_data(str(source.parent / "data")) == b"\xff\n"
    with pytest.raises(FileNotFoundError):
        finder.get_data(str(source.parent / "none"))


def test_the_source_is_compiled_without_a_cache(source):
    cache_of(source).unlink()
    assert loaded(source) == (1, "SourceFileLoader")


def test_a_cache_that_is_older_than_the_source_is_not_used(source):
    times = os.stat(str(source))
    source.write_text("VALUE = 2\n")
    os.utime(str(source), (times.st_atime, times.st_mtime + 5))
    assert loaded(source) == (2, "SourceFileLoader")


def test_a_cache_of_a_source_of_another_size_is_not_used(source):
    times = os.stat(str(source))
    source.write_text("VALUE = 22\n")
    os.utime(str(source), ns=(times.st_atime_ns, times.st_mtime_ns))
    assert loaded(source) == (22, "SourceFileLoader")


@pytest.mark.parametrize("offset", [0, 4, 8, 12], ids=["magic", "flags", "time", "size"])
def test_a_cache_with_another_header_is_not_used(source, offset):
    data = bytearray(cache_of(source).read_bytes())
    data[offset] ^= 2
    cache_of(source).write_bytes(bytes(data))
    assert loaded(source) == (1, "SourceFileLoader")


def test_a_cache_that_may_not_have_been_read_whole_is_not_used(source):
    source.write_text("VALUE = 3\nTEXT = %r\n" % ("x" * cli.LARGEST))
    py_compile.compile(str(source), doraise=True)
    assert loaded(source) == (3, "SourceFileLoader")


def test_an_optimizing_interpreter_uses_its_own_finder(source):
    assert loaded(source, "-O") == (1, "SourceFileLoader")


def test_modules_of_other_packages_are_left_alone(source):
    finder = cli.Finder("sample", str(source.parent), b"\0\0\0\0")
    assert finder.find_spec("other.module") is None
    assert finder.find_spec("sampled") is None
    assert finder.find_spec("sample.nothing") is None

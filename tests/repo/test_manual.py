# SPDX-License-Identifier: Apache-2.0
"""The manual page and bash's completion are those of the tables, and work."""

import os
import re
import shutil
import subprocess

import pytest

from lib import command
from nlraw import commands
from tools import manual

DATA = os.path.join(command.PACKAGE, "data")


@pytest.mark.parametrize("name", [manual.PAGE, manual.COMPLETION])
def test_it_is_what_the_tables_make(name):
    with open(os.path.join(DATA, name)) as file:
        assert file.read() == manual.made()[name], "run python3 tests/tools/manual.py"


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_troff_finds_the_page_right():
    argv = ["groff", "-man", "-ww", "-z", os.path.join(DATA, manual.PAGE)]
    assert command.attempt(*argv, stderr=subprocess.STDOUT) == (0, "", None)


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_the_page_names_every_command_and_option():
    argv = ["groff", "-man", "-Tascii", "-P-c", "-rLL=200n", os.path.join(DATA, manual.PAGE)]
    text = command.run(*argv)
    plain = re.sub(".\b", "", text)
    for name, each in commands.COMMANDS.items():
        assert "nlraw %s [OPTION...]" % name in plain
        for option in each.options:
            assert "--" + option.name in plain


BASH = """
. "$0"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_nlraw
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words, cwd="/"):
    argv = ["bash", "--norc", "-euc", BASH, os.path.join(DATA, manual.COMPLETION)]
    return command.run(*argv + ["nlraw"] + list(words), cwd=cwd).split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_values(tmp_path):
    (tmp_path / "one.prom").write_text("")
    (tmp_path / "folder").mkdir()
    assert completed("s") == [name for name in commands.COMMANDS if name.startswith("s")]
    assert completed("cleanup", "--k") == ["--keep-in-use"]
    assert completed("deploy", "nlraw-w") == ["nlraw-watch.service", "nlraw-watch.yaml"]
    assert completed("sweep", "--metrics", "o", cwd=str(tmp_path)) == ["one.prom"]
    assert completed("sweep", "--dir", "", cwd=str(tmp_path)) == ["folder"]
    assert completed("scan", "-n", "curr") == ["current"]
    assert completed("scan", "--match", "") == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_name_in_run_netns_is_never_run():
    name = "$(touch ran)"
    script = 'mount -t tmpfs tmpfs /run; mkdir /run/netns; : >"/run/netns/$0"; cd /run; exec "$@"'
    argv = ["unshare", "-m", "sh", "-euc", script, name, "bash", "--norc", "-euc", BASH + "ls"]
    out = command.run(*argv + [os.path.join(DATA, manual.COMPLETION), "nlraw", "scan", "-n", ""])
    assert out.splitlines() == [name, "current", "netns"]

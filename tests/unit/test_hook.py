# SPDX-License-Identifier: Apache-2.0
"""nlraw.hook without a container: whatever comes on stdin, it ends with a word and a status."""

import os
import sys
import tempfile
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from nlraw import cli, syslog
from nlraw.container import LIMIT
from unit.test_oci import ALMOST, JSON, RUNC, as_bytes, changed


def run(data):
    """Run `nlraw hook` in this process with bytes on stdin: exit status, stdout and stderr."""
    temporary = tempfile.TemporaryFile
    with temporary() as file, temporary() as out, temporary() as err:
        file.write(data)
        file.seek(0)
        kept = [os.dup(fd) for fd in range(3)]
        streams = sys.stdout, sys.stderr
        for fd, stream in enumerate((file, out, err)):
            os.dup2(stream.fileno(), fd)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        try:
            with mock.patch.object(syslog, "log", lambda priority, text: None):
                status = cli.main(("hook", "-m", "nlraw-nothing", "-u", "none"))
        finally:
            sys.stdout, sys.stderr = streams
            for fd, former in enumerate(kept):
                os.dup2(former, fd)
                os.close(former)
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


# No process and no namespace of others is ever meant.
NOWHERE = [
    "/nlraw-test-nowhere/net",
    "/proc/self/ns/net",
    "/proc/thread-self/ns/mnt",
    "/",
    "/dev/null",
    "/etc/hostname",
    "",
]
STATES = st.fixed_dictionaries(
    {
        "id": st.text(max_size=8) | JSON,
        "status": st.sampled_from(["creating", "created", "running", "stopped", "", "paused"])
        | JSON,
        "pid": st.sampled_from([None, 0, -1, os.getpid(), 4194304, 2**40, True, "1", 1.0, [], {}]),
        "bundle": st.sampled_from(["/nlraw-test-nowhere", "", "b", "/\0", "/dev", "/\ud800"])
        | JSON,
        "annotations": JSON,
    }
)


def spoilt(state, at, data):
    """The text of a state, which names no process, with one byte of it replaced."""
    text = as_bytes(changed(state, pid=None))
    return text[:at] + data + text[at + 1 :]


@given(
    st.binary()
    | ALMOST.map(lambda text: text.encode("utf-8"))
    | JSON.filter(lambda value: not isinstance(value, dict) or "pid" not in value).map(as_bytes)
    | STATES.map(as_bytes)
    | st.builds(spoilt, STATES, st.integers(0, 200), st.binary(max_size=2))
)
@example(b"\0" * (LIMIT + 1))
@example(as_bytes(changed(RUNC, id="\x1b[31m\udcff\ud800", pid=os.getpid())))
@example(b"")
def test_whatever_comes_on_stdin_it_ends_with_a_word_and_a_known_status(data):
    status, out, err = run(data)
    assert status in (0, 1)
    assert out.startswith(b"container ") if status == 0 else err.startswith(b"nlraw: ")
    assert all(32 <= byte < 127 or byte == 10 for byte in out + err)

# SPDX-License-Identifier: Apache-2.0
"""Reader of tests/golden/*.txt: datagrams as a live kernel sent them, in annotated hex.

tests/tools/capture.py writes them.

    # a comment
    datagram
    0000:  2c 00 00 00 10 00 02 00 ...        # a comment
    0010:    08 00 01 00 74 75 6e 00          # indented: an attribute within an attribute

The number before the colon is the offset in the datagram. It is checked, so that a line can be
neither lost nor moved. All were captured on a little-endian machine.
"""

import os
import sys

import pytest

from lib import build
from nlraw import exchange

DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "golden")

needs_little_endian = pytest.mark.skipif(
    sys.byteorder != "little",
    reason="the captures are of a little-endian kernel; rtnetlink is in the host's byte order",
)


def names():
    """The captures there are."""
    return sorted(
        entry[: -len(".txt")] for entry in os.listdir(DIRECTORY) if entry.endswith(".txt")
    )


def datagrams(name):
    """The datagrams of one capture, in the order in which they came."""
    with open(os.path.join(DIRECTORY, name + ".txt"), encoding="ascii") as file:
        return parse(file.read())


def parse(text):
    """Annotated hex to datagrams."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#", 1)[0].strip()
        if line == "datagram":
            found.append(b"")
        elif line:
            offset, digits = line.split(":")
            if int(offset, 16) != len(found[-1]):
                raise ValueError(
                    "line %d: offset %s where %04x belongs" % (number, offset, len(found[-1]))
                )
            found[-1] += bytes.fromhex(digits)
    return found


def messages(name):
    """The messages of one capture, those that end it (DONE, ERROR) too."""
    return [message for datagram in datagrams(name) for message in build.messages(datagram)]


def play(name, *requests):
    """The replies to requests, as an `Exchange` reads them out of a capture."""
    first = messages(name)[0]
    conversation = exchange.Exchange(requests, first.port, first.sequence)
    for datagram in datagrams(name):
        assert conversation.receive(datagram)
    assert conversation.is_finished
    return conversation.replies

# SPDX-License-Identifier: Apache-2.0
"""What the README shows: the tests run, or validate, what stands there, not a copy of it."""

import os
import re

# The tree that the README is of, wherever the nlraw under test lies.
TREE = os.path.abspath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))
PATH = os.path.join(TREE, "README.md")


def text():
    with open(PATH, encoding="utf-8") as file:
        return file.read()


def sections():
    """The text under each heading of the second level, by heading."""
    parts = re.split(r"^## (.+)\n", text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def fenced():
    """Yield the fenced blocks: heading, which is "" ahead of the first one, language, text."""
    heading, language, block = "", None, ""
    for line in text().splitlines(True):
        if language is None and line.startswith("## "):
            heading = line[3:].strip()
        elif line.startswith("```") and language is None:
            language, block = line[3:].strip(), ""
        elif line.startswith("```"):
            yield heading, language, block
            language = None
        elif language is not None:
            block += line


def blocks(heading, language):
    """The fenced blocks of one language in a section, in their order."""
    return [block for where, kind, block in fenced() if (where, kind) == (heading, language)]


def file(name):
    """The file whose name is the comment in a block's first line."""
    (found,) = [block for _, _, block in fenced() if block.startswith("# %s\n" % name)]
    return found

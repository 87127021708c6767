# SPDX-License-Identifier: Apache-2.0
"""What the pages show: the tests run, or validate, what stands there, not a copy of it."""

import os
import re

# The tree that the pages are of, wherever the nlraw under test lies.
TREE = os.path.abspath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))
README = "README.md"
DEPLOY, TESTS, BENCH = "nlraw/deploy/README.md", "tests/README.md", "bench/README.md"
PAGES = [README, DEPLOY, TESTS, BENCH, ".github/CONTRIBUTING.md", ".github/SECURITY.md"]


def text(page=README):
    with open(os.path.join(TREE, page), encoding="utf-8") as file:
        return file.read()


def sections(page=README):
    """The text under each heading of the second level, by heading."""
    parts = re.split(r"^## (.+)\n", text(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def fenced(page=README):
    """Yield the fenced blocks: heading, which is "" ahead of the first one, language, text."""
    heading, language, block = "", None, ""
    for line in text(page).splitlines(True):
        if language is None and line.startswith("## "):
            heading = line[3:].strip()
        elif line.startswith("```") and language is None:
            language, block = line[3:].strip(), ""
        elif line.startswith("```"):
            yield heading, language, block
            language = None
        elif language is not None:
            block += line


def blocks(heading, language, page=README):
    """The fenced blocks of one language in a section, in their order."""
    return [block for where, kind, block in fenced(page) if (where, kind) == (heading, language)]


def block(heading, language, word, page=README):
    """The one fenced block of a section that has a word in it."""
    (found,) = [each for each in blocks(heading, language, page) if word in each]
    return found

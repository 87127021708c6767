# SPDX-License-Identifier: Apache-2.0
"""What the README shows: the tests run, or validate, what stands there, not a copy of it."""

import os
import re

PATH = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "README.md")


def sections():
    """The text under each heading of the second level, by heading."""
    with open(PATH, encoding="utf-8") as file:
        parts = re.split(r"^## (.+)\n", file.read(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def blocks(heading, language):
    """The fenced blocks of one language in a section, in their order."""
    return re.findall(
        r"^```%s\n(.*?)^```$" % re.escape(language), sections()[heading], re.MULTILINE | re.DOTALL
    )


def file(name):
    """The file whose name is the comment in a block's first line."""
    with open(PATH, encoding="utf-8") as text:
        (found,) = re.findall(
            r"^```\w+\n(# %s\n.*?)^```$" % re.escape(name), text.read(), re.MULTILINE | re.DOTALL
        )
    return found

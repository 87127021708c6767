# SPDX-License-Identifier: Apache-2.0
"""Options and commands: the parser and the help. The tables are in `cli`.

Parser, usage errors and help read the same tables. This is not argparse, because importing that
takes longer than a whole cleanup.
"""

import sys

from .errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, List, Optional, Sequence, Tuple

    # The options given, by name: their values in order. A switch has none.
    Options = Dict[str, List[str]]


class Option:
    """An option of a command.

    ``letter`` is its short name ("" for none), ``name`` the long one. ``value`` is the word for its
    value in the help, "" for a switch. One with a value may be given once, or often if ``many``.
    ``help`` may have several lines.
    """

    __slots__ = ("letter", "name", "value", "help", "many")

    def __init__(self, letter: str, name: str, value: str, help: str, many: bool = False) -> None:
        self.letter = letter
        self.name = name
        self.value = value
        self.help = help
        self.many = many

    def __str__(self) -> str:
        names = "-%s, --%s" % (self.letter, self.name) if self.letter else "    --%s" % self.name
        return names + (" " + self.value if self.value else "")


class Command:
    """A command: its help in one line and in a paragraph, its options, and its function."""

    __slots__ = ("summary", "text", "options", "run")

    def __init__(
        self,
        summary: str,
        text: str,
        options: "Sequence[Option]",
        run: "Callable[[Options], int]",
    ) -> None:
        self.summary = summary
        self.text = text
        self.options = options
        self.run = run


# ---------------------------------------------------------------- help


def list_commands(commands: "Dict[str, Command]") -> str:
    """Return a line on each command."""
    lines = ["  %-9s %s" % (name, command.summary) for name, command in commands.items()]
    return "\n".join(lines)


def help_on(name: str, command: Command) -> str:
    """Return the help of one command."""
    width = max(len(str(option)) for option in command.options)
    indent = "\n" + " " * (width + 4)
    lines = [
        "  %-*s  %s" % (width, option, option.help.replace("\n", indent))
        for option in command.options
    ]
    form = "usage: nlraw %s [OPTION...]\n\n%s\n\noptions:\n%s\n"
    return form % (name, command.text, "\n".join(lines))


# ---------------------------------------------------------------- the parser


def parse(name: str, command: Command, arguments: "Sequence[str]") -> "Options":
    """Parse the arguments of a command. Raises `Invalid`."""
    known = {"--" + option.name: option for option in command.options}
    known.update({"-" + option.letter: option for option in command.options if option.letter})
    options: Options = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, joined = _split(argument)
        option = known.get(flag)
        if option is None:
            what = "no such option" if argument.startswith("-") else "unexpected argument"
            words = "%s; see `nlraw %s --help`" % (what, name)
            raise Invalid(words, name, argument)
        values = options.setdefault(option.name, [])
        if option.value:
            if joined is None and not rest:
                words = "this option needs a value, %s" % option.value
                raise Invalid(words, name, argument)
            if values and not option.many:
                raise Invalid("this option can be given only once", name, argument)
            values.append(rest.pop(0) if joined is None else joined)
        elif joined is not None:
            if flag.startswith("--") or joined.startswith("-"):
                raise Invalid("this option takes no value", name, argument)
            rest.insert(0, "-" + joined)  # switches in one word, as in -jN
    return options


def _split(argument: str) -> "Tuple[str, Optional[str]]":
    """Split an argument into the option and the rest of the word, None if it has no rest."""
    if argument.startswith("--"):
        flag, equals, value = argument.partition("=")
        return flag, value if equals else None
    return argument[:2], argument[2:] or None


# ---------------------------------------------------------------- values of options


def text(given: "Options", name: str, default: str) -> str:
    """Return the value of an option as text (see `decode`)."""
    return decode(given[name][0]) if name in given else default


def optional_text(given: "Options", name: str) -> "Optional[str]":
    """Return the value of an option as text, None if it is not given."""
    return decode(given[name][0]) if name in given else None


def number(given: "Options", name: str) -> "Optional[int]":
    """Return the value of an option as a number, None if it is not given. Raises `Invalid`."""
    if name not in given:
        return None
    digits = given[name][0]
    if not digits.isdecimal() or len(digits) > 10:
        raise Invalid("a number is needed", "check --%s" % name, digits)
    return int(digits)


def decode(argument: str) -> str:
    """Decode the bytes of an argument as UTF-8, whatever the locale decoded them as.

    A byte that is not UTF-8 becomes a lone surrogate.
    """
    data = argument.encode(sys.getfilesystemencoding(), "surrogateescape")
    return data.decode("utf-8", "surrogateescape")

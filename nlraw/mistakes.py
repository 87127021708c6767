# SPDX-License-Identifier: Apache-2.0
"""Usage errors with a suggestion. This is imported only when there is a mistake.

It does not use difflib, which Debian's python3-minimal lacks.
"""

from .errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Collection, Iterable, List, Mapping, Optional

# What others call our commands and options.
COMMANDS_ELSEWHERE = {
    "list": "scan",
    "ls": "scan",
    "show": "scan",
    "status": "scan",
    "remove": "cleanup",
    "rm": "cleanup",
    "del": "cleanup",
    "delete": "cleanup",
    "gc": "cleanup",
    "create": "setup",
    "add": "setup",
    "agent": "watch",
    "daemon": "watch",
    "monitor": "watch",
    "install": "deploy",
    "print": "deploy",
    "test": "selftest",
    "check": "selftest",
    "version": "--version",
}
OPTIONS_ELSEWHERE = {
    "namespace": "netns",
    "ns": "netns",
    "pid": "netns",
    "name": "match",
    "pattern": "match",
    "ignore": "exclude",
    "skip": "exclude",
    "interface": "uplink",
    "iface": "uplink",
    "dev": "uplink",
    "device": "uplink",
    "timeout": "wait",
    "user": "owner",
    "check": "dry-run",
    "simulate": "dry-run",
    "directory": "dir",
    "interval": "resync",
}

# The longest word to compare: the time grows with the product of the two lengths.
LONGEST = 40


def unknown_command(word: str, commands: "Iterable[str]") -> Invalid:
    """The error for a first argument that is no command."""
    if word.startswith("--"):
        meant = nearest(word[2:], ("version", "help"))
        if meant:
            return Invalid("there is no such option; did you mean `--%s`?" % meant, word)
    if word.startswith("-"):
        words = "the command comes first, as in `nlraw scan -n pod1`; see `nlraw --help`"
        return Invalid(words, word)
    if word == "bundle":
        return Invalid("there is no such command; it is `python3 -m nlraw.bundle FILE`", word)
    names = list(commands) + ["--version"]
    meant = COMMANDS_ELSEWHERE.get(word)
    if meant not in names:
        meant = nearest(word, commands)
    advice = "did you mean `%s`?" % meant if meant else "see `nlraw --help`"
    return Invalid("there is no such command; " + advice, word)


def unknown_argument(
    command: str, argument: str, flags: "Mapping[str, Collection[str]]"
) -> Invalid:
    """The error for an argument that is no option; ``flags`` are the options of each command."""
    what = "no such option" if argument.startswith("-") else "unexpected argument"
    flag = argument.partition("=")[0] if argument.startswith("--") else argument[:2]
    others = ["`%s`" % other for other in flags if flag in flags[other]]
    meant = None if others else _meant(argument, list(flags[command]))
    advice = "did you mean `%s`?" % meant if meant else "see `nlraw %s --help`" % command
    if others:
        names = " and ".join([", ".join(others[:-1])] * bool(others[1:]) + others[-1:])
        advice = "%s %s it" % (names, "have" if others[1:] else "has")
    return Invalid("%s; %s" % (what, advice), command, argument)


def _meant(argument: str, flags: "List[str]") -> "Optional[str]":
    """The likely meaning of an argument that is no option; None if there is none."""
    names = [flag[2:] for flag in flags if flag.startswith("--")]
    if argument.startswith("-"):
        if len(argument) == 2:
            return argument.swapcase() if argument.swapcase() in flags else None
        word = argument.lstrip("-").partition("=")[0]
        found = OPTIONS_ELSEWHERE.get(word)
        if found not in names:
            found = nearest(word, names)
        return found and "--" + found
    if argument in names:
        return "--" + argument
    if not needs_no_quotes(argument):
        return None
    if "-n" in flags:
        return "-n " + argument
    if "--dir" in flags and "/" in argument:
        return "--dir " + argument
    return "nlraw scan -n " + argument


def needs_no_quotes(argument: str) -> bool:
    """True for a word that a shell does not change, such as most PIDs, paths and names."""
    return bool(argument) and all(
        "a" <= char.lower() <= "z" or char in "0123456789-_./:@+," for char in argument
    )


def nearest(word: str, names: "Iterable[str]") -> "Optional[str]":
    """The name that begins with a misspelt word, or is nearest to it; None if none is near."""
    if not 2 <= len(word) <= LONGEST:
        return None
    best, least = None, max(1, len(word) // 3) + 1
    for name in names:
        changes = 1 if name.startswith(word) else distance(word, name)
        if changes < least:
            best, least = name, changes
    return best


def distance(one: str, other: str) -> int:
    """The number of changes that turn one word into the other (optimal string alignment).

    A change inserts, deletes or replaces a character, or swaps two that are side by side.
    """
    before: List[int] = []
    row = list(range(len(other) + 1))
    for i, char in enumerate(one):
        above, row = row, [i + 1]
        for j, goal in enumerate(other):
            cost = min(above[j] + (char != goal), above[j + 1] + 1, row[j] + 1)
            if i and j and char == other[j - 1] and one[i - 1] == goal:
                cost = min(cost, before[j - 1] + 1)
            row.append(cost)
        before = above
    return row[-1]

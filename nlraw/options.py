# SPDX-License-Identifier: Apache-2.0
"""Options: their table, the parser and the help. The table of commands is in `commands`.

Parser, usage errors and help read the same tables. This is not argparse, because importing that
takes longer than a whole cleanup.
"""

import sys

from . import verdict
from .errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, List, Optional, Sequence, Tuple

    # The options given, by name: their values in order. A switch has none.
    Options = Dict[str, List[str]]

# The value of -n for the current namespace.
CURRENT = "current"

# The largest value of an option in seconds: a day.
LONGEST_WAIT = 86400


class Option:
    """An option of a command.

    ``letter`` is its short name ("" for none), ``name`` the long one. ``value`` is the word for its
    value in the help, "" for a switch. An option with a value may be given once, or if ``many``
    several times. ``help`` may have several lines.
    """

    __slots__ = ("letter", "name", "value", "help", "many")

    def __init__(self, letter: str, name: str, value: str, help: str, many: bool = False) -> None:
        self.letter = letter
        self.name = name
        self.value = value
        self.help = help
        self.many = many

    def brief(self) -> str:
        """Return the beginning of the help, up to its first semicolon or parenthesis."""
        return self.help.replace("\n", " ").partition(";")[0].partition(" (")[0]

    def __str__(self) -> str:
        names = "-%s, --%s" % (self.letter, self.name) if self.letter else "    --%s" % self.name
        return names + (" " + self.value if self.value else "")


class Command:
    """A command: its help in one line and in a paragraph, its options, and its function.

    ``operand`` is the word for an argument that is no option, "" if the command takes none. A user
    may leave it out. Its value is in `Options` under that word.
    """

    __slots__ = ("summary", "text", "options", "run", "operand")

    def __init__(
        self,
        summary: str,
        text: str,
        options: "Sequence[Option]",
        run: "Callable[[Options], int]",
        operand: str = "",
    ) -> None:
        self.summary = summary
        self.text = text
        self.options = options
        self.run = run
        self.operand = operand


# ---------------------------------------------------------------- the table


_NETNS = "a PID, a path, a name as in `ip netns`, or current%s"
NETNS = Option("n", "netns", "NETNS", _NETNS % " (required)")
NETNSES = Option("n", "netns", "NETNS", _NETNS % ";\nmay be repeated (required)", many=True)
SCANNED = Option("n", "netns", "NETNS", _NETNS % ";\nmay be repeated (default: current)", many=True)
MATCH = Option(
    "m",
    "match",
    "GLOB",
    "names of TAPs, with * and ?; may be repeated (default: %s)" % verdict.MATCH,
    many=True,
)
EXCLUDE = Option(
    "",
    "exclude",
    "GLOB",
    "names of TAPs to leave alone; may be repeated (default: none)",
    many=True,
)
UPLINKS = Option(
    "u",
    "uplink",
    "NAME",
    "the pod's interface towards the node; may be repeated;\n"
    "auto: the device of the default route; none: require no uplink, and\n"
    "leave redirects whose target is gone (default: %s)" % verdict.UPLINK,
    many=True,
)
CONNECTED = Option(
    "u",
    "uplink",
    "NAME",
    "the pod's interface towards the node; may be repeated: each gets a TAP;\n"
    "auto: the device of the default route; none: require no uplink, and\n"
    "make a TAP without redirects (default: %s)" % verdict.UPLINK,
    many=True,
)
KEEP_IN_USE = Option(
    "", "keep-in-use", "", "remove the orphans beside a TAP in use, and leave that TAP alone"
)
WAIT = Option("", "wait", "SECONDS", "wait this long for a TAP in use to be released (default: 0)")
WHO = Option("", "who", "", "name the processes that hold a TAP in use")
INCLUDE_NODE = Option(
    "", "include-node", "", "clean up the namespace of this command too, for VMs without pods"
)
JSON = Option("j", "json", "", "print one JSON document")
VERBOSE = Option("v", "verbose", "", "show what the kernel reports about each TAP")
JSON_LINES = Option(
    "j", "json", "", "print each report as a line of JSON, as in `sweep --json`, with the time"
)
DRY_RUN = Option("N", "dry-run", "", "report what would be done, and change nothing")
TAP = Option(
    "",
    "tap",
    "NAME",
    "the name of the TAP; may be repeated, one for each uplink. If only one is\n"
    "given, it is counted up: tap0_urunc, tap1_urunc (default: %s)" % verdict.TAP,
    many=True,
)
OWNER = Option(
    "",
    "owner",
    "USER",
    "the user who may attach to the TAP without privilege, a name or a number\n"
    "(default: the caller)",
)
GROUP = Option(
    "",
    "group",
    "GROUP",
    "the group that may attach, a name or a number; if an owner is set too,\n"
    "both must match (default: the caller's; none with --owner)",
)
ADDRESS = Option(
    "", "address", "CIDR", "an address to put on the TAP, such as 10.9.8.1/24 (default: none)"
)
MULTI_QUEUE = Option(
    "", "multi-queue", "", "make TAPs with several queues; a VMM must request several, too"
)
PRINT = Option(
    "",
    "print",
    "FORM",
    "print a configuration instead of the report: qemu, firecracker or\n"
    "cloud-hypervisor for the VMM, cmdline for the guest's kernel (ip=);\n"
    "may be repeated: one line for each; with --json, the JSON comes first",
    many=True,
)
DIR = Option(
    "", "dir", "DIR", "search this directory, not the usual ones; may be repeated", many=True
)
PROC = Option("", "proc", "", "visit the namespaces of all processes instead")
INCLUDE_FRESH = Option("", "include-fresh", "", "remove fresh orphans too (see above)")
JOBS = Option("", "jobs", "N", "how many namespaces to clean up at a time (default: 64)")
METRICS = Option(
    "", "metrics", "FILE", "write the totals to this file, for Prometheus' textfile collector"
)
RESYNC = Option(
    "",
    "resync",
    "SECONDS",
    "look at every namespace this often, even without events (default: 30)",
)
GRACE = Option(
    "",
    "grace",
    "SECONDS",
    "remove an orphan only after it has been one for this long, for VMs that\n"
    "come back to their TAP (default: 0)",
)
ANNOTATION = Option(
    "",
    "annotation",
    "KEY=GLOB",
    "act only for a container with this annotation, and remove fresh orphans\n"
    "too; may be repeated: all must match",
    many=True,
)
REFUSE = Option("", "refuse", "", "refuse the start while a TAP is in use (exit status 3)")
HELP = Option("h", "help", "", "show this help")

# The options of each command, in the order of its help.
SCAN = (SCANNED, MATCH, EXCLUDE, UPLINKS, WHO, VERBOSE, JSON, HELP)
CLEANUP = (NETNSES, MATCH, EXCLUDE, UPLINKS, KEEP_IN_USE, WAIT, WHO, DRY_RUN, VERBOSE, JSON, HELP)
_TAPS = (TAP, OWNER, GROUP, ADDRESS, MULTI_QUEUE)
SETUP = (NETNS, CONNECTED) + _TAPS + (MATCH, EXCLUDE, WAIT, WHO, PRINT, VERBOSE, JSON, HELP)
_WHERE_AND_HOW = (DIR, PROC, INCLUDE_NODE, INCLUDE_FRESH, KEEP_IN_USE, JOBS)
SWEEP = _WHERE_AND_HOW + (MATCH, EXCLUDE, UPLINKS, DRY_RUN, METRICS, VERBOSE, JSON, HELP)
_HOW = (INCLUDE_NODE, INCLUDE_FRESH, KEEP_IN_USE, JOBS, RESYNC, GRACE)
WATCH = (DIR,) + _HOW + (MATCH, EXCLUDE, UPLINKS, METRICS, VERBOSE, JSON_LINES, HELP)
HOOK = (ANNOTATION, REFUSE, KEEP_IN_USE, WAIT, MATCH, EXCLUDE, UPLINKS, WHO, VERBOSE, HELP)
DEPLOY = (HELP,)
SELFTEST = (JSON, HELP)


# ---------------------------------------------------------------- help


_OVERVIEW = """\
usage: nlraw COMMAND [OPTION...]

Removes orphan TAPs. A container runtime that runs each pod in a VM connects the VM by a TAP. If the
program that runs the VM, the VMM, dies, the TAP stays in the pod's network namespace: an orphan.

commands:
%s

Try `nlraw selftest` first, then `nlraw scan -n NETNS`, then `nlraw cleanup -n NETNS`.
`nlraw COMMAND --help` shows the options of a command.

exit status: 0 done, or nothing to do; 1 the system refused, or part of the work failed; 2 usage;
3 a TAP is in use, and nothing was changed there
"""


def overview(commands: "Dict[str, Command]") -> str:
    """Return the help of the program, with a line on each command."""
    lines = ["  %-9s %s" % (name, command.summary) for name, command in commands.items()]
    return _OVERVIEW % "\n".join(lines)


def help_on(name: str, command: Command) -> str:
    """Return the help of one command."""
    width = max(len(str(option)) for option in command.options)
    indent = "\n" + " " * (width + 4)
    lines = [
        "  %-*s  %s" % (width, option, option.help.replace("\n", indent))
        for option in command.options
    ]
    form = "usage: nlraw %s [OPTION...]%s\n\n%s\n\noptions:\n%s\n"
    operand = " [%s]" % command.operand if command.operand else ""
    return form % (name, operand, command.text, "\n".join(lines))


# ---------------------------------------------------------------- the parser


def parse(name: str, commands: "Dict[str, Command]", arguments: "Sequence[str]") -> "Options":
    """Parse the arguments of the command of that name. Raises `Invalid`."""
    command = commands[name]
    known = _by_flag(command)
    options: Options = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, joined = _split(argument)
        option = known.get(flag)
        if option is None:
            if argument and not argument.startswith("-") and command.operand:
                if command.operand in options:
                    raise Invalid("only one %s can be given" % command.operand, name, argument)
                options[command.operand] = [argument]
                continue
            from .mistakes import unknown_argument

            flags = {other: _by_flag(commands[other]) for other in commands}
            raise unknown_argument(name, argument, flags)
        if _is_long_name(argument, option):
            words = "a long option has two dashes; did you mean `-%s`?" % argument
            raise Invalid(words, name, argument)
        values = options.setdefault(option.name, [])
        if option.value:
            if joined is None and not rest:
                words = "this option needs a value: %s, %s" % (option.value, option.brief())
                raise Invalid(words, name, argument)
            if values and not option.many:
                raise Invalid("this option can be given only once", name, argument)
            values.append(rest.pop(0) if joined is None else joined)
        elif joined is not None:
            if flag.startswith("--") or joined.startswith("-"):
                raise Invalid("this option takes no value", name, argument)
            rest.insert(0, "-" + joined)  # switches in one word, as in -jN
    return options


def _by_flag(command: Command) -> "Dict[str, Option]":
    """The options of a command, by what stands for them on a command line."""
    known = {"--" + option.name: option for option in command.options}
    known.update({"-" + option.letter: option for option in command.options if option.letter})
    return known


def _split(argument: str) -> "Tuple[str, Optional[str]]":
    """Split an argument into the option and the rest of the word, None if it has no rest."""
    if argument.startswith("--"):
        flag, equals, value = argument.partition("=")
        return flag, value if equals else None
    return argument[:2], argument[2:] or None


def _is_long_name(argument: str, option: Option) -> bool:
    """True for a long name with one dash, such as -netns, which would be read as `-n etns`."""
    return argument.partition("=")[0] == "-" + option.name and len(option.name) > 1


# ---------------------------------------------------------------- values of options


def text(given: "Options", name: str, default: str) -> str:
    """Return the value of an option as text (see `decode`)."""
    return decode(given[name][0]) if name in given else default


def texts(given: "Options", name: str, default: "Sequence[str]" = ()) -> "Tuple[str, ...]":
    """Return the values of an option as text."""
    return tuple(map(decode, given[name])) if name in given else tuple(default)


def optional_text(given: "Options", name: str) -> "Optional[str]":
    """Return the value of an option as text, None if it is not given."""
    return decode(given[name][0]) if name in given else None


def number(given: "Options", name: str) -> "Optional[int]":
    """Return the value of an option as a number, None if it is not given. Raises `Invalid`."""
    if name not in given:
        return None
    digits = given[name][0]
    if not digits.isdecimal() or len(digits) > 10:
        words = "a whole number of at most 10 digits is needed, such as 64"
        raise Invalid(words, "check --%s" % name, digits)
    return int(digits)


def account(given: "Options", name: str) -> "Optional[int]":
    """Return the value of --owner or --group as a number, None if it is not given.

    The name of a user or a group is looked up in the user database. Raises `Invalid`.
    """
    word = optional_text(given, name)
    if word is None or word.isdecimal():
        return number(given, name)
    kind = "user" if name == "owner" else "group"
    try:
        if kind == "user":
            from pwd import getpwnam

            return getpwnam(word).pw_uid
        from grp import getgrnam

        return getgrnam(word).gr_gid
    except ImportError:
        words = "a number is needed, because this Python cannot look up names"
    except (KeyError, ValueError):  # no such name; one that this locale cannot encode
        words = "there is no such %s; give another name, or a number" % kind
    raise Invalid(words, "check --%s" % name, word)


def wait(given: "Options") -> float:
    """Return the value of --wait in seconds, 0 if it is not given. Raises `Invalid`."""
    return seconds(given, "wait", 0.0)


def seconds(given: "Options", name: str, default: float) -> float:
    """Return the value of an option in seconds. Raises `Invalid`."""
    if name not in given:
        return default
    digits = given[name][0]
    whole, _, fraction = digits.partition(".")
    is_decimal = bool(whole + fraction) and not (whole + fraction).strip("0123456789")
    if not is_decimal or len(digits) > 20 or float(digits) > LONGEST_WAIT:
        words = "a number of seconds from 0 to %d is needed, such as 5 or 0.5" % LONGEST_WAIT
        raise Invalid(words, "check --%s" % name, digits)
    return float(digits)


def decode(argument: str) -> str:
    """Decode the bytes of an argument as UTF-8, in every locale.

    A byte that is not UTF-8 becomes a lone surrogate.
    """
    data = argument.encode(sys.getfilesystemencoding(), "surrogateescape")
    return data.decode("utf-8", "surrogateescape")

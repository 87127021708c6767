# SPDX-License-Identifier: Apache-2.0
"""The command line: arguments in; text, JSON and an exit status out. The only file that prints.

The options stand in one table, which the parser, the usage errors and the help all read. It does not use
argparse: importing that takes longer than a whole cleanup.
"""

import gc
import posix
import sys
from errno import EAGAIN, errorcode
from io import RawIOBase

from . import __version__, netns, orphans
from .errors import Error, Invalid, TapInUse
from .report import Record, Report, Setup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Iterable, List, NoReturn, Optional, Sequence

    from .node import Sweep
    from .selftest import Step

    Options = Dict[str, List[str]]

DONE, FAILED, USAGE, IN_USE = 0, 1, 2, 3


class Option:
    """An option: its letter ("" for none), its name, the word for its value in the help ("" for a switch), and its help.

    One with a value may be given once, unless ``many``.
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
    """A command: what it does in one line and in a paragraph, its options, and the function that does it."""

    __slots__ = ("summary", "text", "options", "run")

    def __init__(self, summary: str, text: str, options: "Sequence[Option]", run: "Callable[[Options], int]") -> None:
        self.summary = summary
        self.text = text
        self.options = options
        self.run = run


_NETNS = "a PID, a path, or a name as in `ip netns`%s (default: the current one)"
NETNS = Option("n", "netns", "NETNS", _NETNS % "")
NETNSES = Option("n", "netns", "NETNS", _NETNS % "; may be repeated", many=True)
MATCH = Option("m", "match", "GLOB", "which interface names, with * and ? (default: %s)" % orphans.MATCH)
UPLINK = Option(
    "u",
    "uplink",
    "NAME",
    "the container interface; auto: that of the default route; none: require none, touch no TC on any (default: %s)"
    % orphans.UPLINK,
)
JSON = Option("j", "json", "", "one JSON document on stdout, with iproute2's key names where it has one")
DRY_RUN = Option("N", "dry-run", "", "say what would be done, and change nothing")
TAP = Option("", "tap", "NAME", "the TAP's name (default: %s)" % orphans.TAP)
OWNER = Option("", "owner", "UID", "who may attach to the TAP without privilege (default: the caller)")
GROUP = Option("", "group", "GID", "likewise; where both are set, only who is both (default: the caller's, none with --owner)")
ADDRESS = Option("", "address", "CIDR", "an address to put on the TAP, such as 10.9.8.1/24 (default: none)")
DIR = Option("", "dir", "DIR", "look here instead; may be repeated", many=True)
PROC = Option("", "proc", "", "look at the namespaces of all processes instead")
INCLUDE_FRESH = Option("", "include-fresh", "", "remove fresh orphans too")
JOBS = Option("", "jobs", "N", "namespaces to clean up at a time (default: 64)")
METRICS = Option("", "metrics", "FILE", "replace this file with what was done, for the textfile collector of Prometheus")
HELP = Option("h", "help", "", "show this help")


# ---------------------------------------------------------------- the commands


def scan(options: "Options") -> int:
    """`nlraw scan`: what a cleanup would find, in use or not."""
    return _each_namespace(options, orphans.survey)


def cleanup(options: "Options") -> int:
    """`nlraw cleanup`."""
    dry_run = "dry-run" in options
    return _each_namespace(options, lambda netns, match, uplink: orphans.cleanup(netns, match, uplink, dry_run))


def _each_namespace(options: "Options", act: "Callable[[Optional[str], str, str], Report]") -> int:
    """Act on one namespace after the other, each on its own, and report."""
    match, uplink = _interface(options, "match", orphans.MATCH), _interface(options, "uplink", orphans.UPLINK)
    reports: List[Report] = []
    statuses = set()
    names: List[Optional[str]] = [None]
    if "netns" in options:
        names = [_text(name) for name in options["netns"]]
    for name in names:
        try:
            report, status = act(name, match, uplink), DONE
        except Error as error:
            if not isinstance(error.report, Report):  # refused before any namespace was looked at
                raise
            report, status = error.report, IN_USE if isinstance(error, TapInUse) else FAILED
            complain(_told(error, report.netns))
        reports.append(report)
        statuses.add(status)
    # only now: what cannot be written must not keep the others from being cleaned up
    if "json" in options:
        say(in_json(reports if len(reports) > 1 else reports[0]))
    else:
        say("\n".join(map(in_text, reports)))
    return next(status for status in (FAILED, IN_USE, DONE) if status in statuses)


def _told(error: Error, netns: str) -> str:
    return str(error) if error.object == netns else "%s: %s" % (netns, error)


def setup(options: "Options") -> int:
    """`nlraw setup`."""
    from . import provision

    if sys.stdout is None:  # what a VMM is configured with has nowhere to go
        raise _Unwritten("stdout is closed; nothing was done")
    try:
        made = provision.setup(
            netns=_first(options, "netns"),
            tap=_interface(options, "tap", orphans.TAP),
            owner=_number(options, "owner"),
            group=_number(options, "group"),
            address=_first(options, "address"),
            match=_interface(options, "match", orphans.MATCH),
            uplink=_interface(options, "uplink", orphans.UPLINK),
        )
        status = DONE
    except Error as error:
        if not isinstance(error.report, Setup):  # refused before the namespace was looked at
            raise
        made, status = error.report, IN_USE if isinstance(error, TapInUse) else FAILED
        complain(_told(error, made.netns))
    for found in dict.fromkeys(made.ahead):
        complain("%s: a foreign %s filter on %s sees packets before the redirect does" % (made.netns, found.kind, found.dev))
    say(in_json(made) if "json" in options else setup_in_text(made))
    return status


def sweep(options: "Options") -> int:
    """`nlraw sweep`; where stderr is a terminal, with a line of progress on it."""
    import time

    from .node import sweep as sweep_node

    begin = time.monotonic()
    swept = sweep_node(
        dirs=options.get("dir"),
        proc="proc" in options,
        match=_interface(options, "match", orphans.MATCH),
        uplink=_interface(options, "uplink", orphans.UPLINK),
        include_fresh="include-fresh" in options,
        jobs=_number(options, "jobs"),
        dry_run="dry-run" in options,
        progress=_progress() if sys.stderr is not None and sys.stderr.isatty() else None,
    )
    for report in swept.namespaces:
        if report.error is not None:
            complain(_told(report.error, report.netns))
    status = FAILED if swept.totals.failed else DONE
    if "metrics" in options:
        from . import metrics

        try:
            metrics.write(options["metrics"][0], metrics.text(swept.totals, time.monotonic() - begin, time.time()))
        except Error as error:  # what was done is told all the same
            complain(str(error))
            status = FAILED
    say(in_json(swept) if "json" in options else sweep_in_text(swept))
    return status


def _progress() -> "Callable[[str, int, int], None]":
    """What writes a line of progress on a terminal, from the first second on, and takes it away in the end."""
    import time

    begin = time.monotonic() + 1.0
    shown: List[float] = []

    def tell(doing: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total and shown:
            shown.clear()
            _hint("\r\x1b[K")
        elif done < total and now > (shown[-1] + 0.1 if shown else begin):
            shown[:] = [now]
            _hint("\r\x1b[Knlraw: %s %d of %d namespaces" % (doing, done, total))

    return tell


def hook(options: "Options") -> int:
    """`nlraw hook`. Whether a container may start is for the TAPs to say: what cannot be written changes no exit status."""
    from . import hook as runtime

    target = orphans.Target(_interface(options, "match", orphans.MATCH), _interface(options, "uplink", orphans.UPLINK))
    if sys.stdin is None:
        raise Error("it is closed", runtime.READ_STATE, runtime.STDIN)
    state = runtime.read_state(0)
    namespace, why = runtime.find(state)
    container = "container %s: " % escape(state.id)
    status = DONE
    if namespace is None:
        told = "%s; nothing to do" % why
    else:
        try:
            told = in_text(runtime.clean(namespace, target))
        except Error as error:
            report = error.report
            if not isinstance(report, Report):
                report = orphans.failure(namespace.path, target, error)
            complain("container %s: %s" % (state.id, _told(error, namespace.path)))
            told, status = in_text(report), IN_USE if isinstance(error, TapInUse) else FAILED
    try:
        say(container + told)
    except _Unwritten:
        _hint("nlraw: %s%s\n" % (container, told))
    return status


def selftest(options: "Options") -> int:
    """`nlraw selftest`, in a child where the caller needs a user namespace first."""
    from . import selftest as story

    if story.needs_user_namespace():
        return story.play_in_child(["--json"] if "json" in options else [])
    return _tell(story.play(), "json" in options)


def selftest_in_user_namespace(arguments: "Sequence[str]") -> int:
    """What that child runs."""
    from . import selftest as story

    return _ended(lambda: _tell(story.play(own_user_namespace=True), "--json" in arguments))


def _tell(story: "Iterable[Step]", as_json: bool) -> int:
    """Print each step when it is done."""
    steps = []
    for step in story:
        steps.append(step)
        if not as_json:
            say(step_in_text(step))
    ok = all(step.ok is not False for step in steps)
    if as_json:
        say(in_json({"ok": ok, "steps": steps}))
    else:
        say("This host has what nlraw needs." if ok else "This host lacks something: see FAILED above.")
    return DONE if ok else FAILED


COMMANDS = {
    "scan": Command(
        "list matching TAPs and their verdicts; change nothing",
        "A TAP whose carrier is on is in use; one whose carrier is off is an orphan: its VMM is gone. The outcome is the\n"
        "one that a cleanup would have. Exit status 0 also where a TAP is in use.",
        (NETNSES, MATCH, UPLINK, JSON, HELP),
        scan,
    ),
    "cleanup": Command(
        "remove orphan TAPs, their TC state first",
        "Removes every matching TAP that nobody holds, with the redirects to it on the uplink, and redirects of which the\n"
        "target is gone. If any matching TAP is in use nothing is changed, and the exit status is 3. Without the uplink\n"
        "nothing is touched. One VM per namespace is assumed.",
        (NETNSES, MATCH, UPLINK, DRY_RUN, JSON, HELP),
        cleanup,
    ),
    "setup": Command(
        "clean up, then create the TAP and its redirects for the next VM",
        "Create-only: fails where the name is taken, and takes away again what it made if a step fails. Prints what a VMM is\n"
        "configured with. If a matching TAP is in use nothing is changed, and the exit status is 3.",
        (NETNS, TAP, OWNER, GROUP, ADDRESS, MATCH, UPLINK, JSON, HELP),
        setup,
    ),
    "sweep": Command(
        "clean up every namespace of a node",
        "Visits every namespace under %s.\n"
        "One with a TAP in use is left alone, which is no error. A fresh orphan, to which no second open ever attached, is\n"
        "spared: its VM may be starting right now. Where the VMM inherits the creating descriptor every orphan looks fresh;\n"
        "give --include-fresh there. Where one namespace fails the others go on, and the exit status is 1."
        % ", ".join(netns.DIRECTORIES),
        (DIR, PROC, INCLUDE_FRESH, JOBS, MATCH, UPLINK, DRY_RUN, METRICS, JSON, HELP),
        sweep,
    ),
    "hook": Command(
        "clean up as a hook of an OCI runtime, which writes the container's state to stdin",
        "As createRuntime (or prestart): a cleanup of the container's network namespace, which refuses the start, by exit\n"
        "status 3, while a TAP there is in use. As poststop: a cleanup after the VM; no exit status changes anything then.\n"
        "The namespace is that of the container's process, or the one in the bundle's config.json; of a stopped container\n"
        "the latter alone. With the host's network, which is the hook's own, or with no namespace left, nothing is done.\n"
        "Bad input is exit status 1. Start it with `python3 -I` and the full path of everything: see the README.",
        (MATCH, UPLINK, HELP),
        hook,
    ),
    "selftest": Command(
        "play the whole story in a throwaway namespace; say what this host can do",
        "Builds a pod-like namespace, lets a VMM's stand-in die, shows the orphan, cleans up. Needs root, or a user who may\n"
        "create user namespaces. Nothing outside the namespaces that it makes is touched.",
        (JSON, HELP),
        selftest,
    ),
}

_TEXT = """\
usage: nlraw COMMAND [OPTION...]

Removes orphan TAPs: what a VM-based container runtime leaves in a pod's network namespace when its VMM dies.

commands:
%s

Try `nlraw selftest` first, then `nlraw scan -n NETNS`, then `nlraw cleanup -n NETNS`.
`nlraw COMMAND --help` shows the options of a command.

exit status: 0 done, or nothing to do; 1 the system refused, or part of the work failed; 2 usage; 3 a TAP is in use,
and nothing was changed there
"""


def overview() -> str:
    """What `nlraw --help` prints."""
    return _TEXT % "\n".join("  %-9s %s" % (name, command.summary) for name, command in COMMANDS.items())


def help_on(name: str) -> str:
    """What `nlraw COMMAND --help` prints."""
    command = COMMANDS[name]
    width = max(len(str(option)) for option in command.options)
    options = "\n".join("  %-*s  %s" % (width, option, option.help) for option in command.options)
    return "usage: nlraw %s [OPTION...]\n\n%s\n\noptions:\n%s\n" % (name, command.text, options)


# ---------------------------------------------------------------- arguments in


def parse(name: str, arguments: "Sequence[str]") -> "Options":
    """The options given to a command, each name with its values in order; a switch has none. Raises `Invalid`."""
    known = {"--" + option.name: option for option in COMMANDS[name].options}
    known.update({"-" + option.letter: option for option in COMMANDS[name].options if option.letter})
    options: Options = {}
    rest = list(arguments)
    while rest:
        given = rest.pop(0)
        if given.startswith("--"):
            flag, joined, value = given.partition("=")
        else:
            flag, value = given[:2], given[2:]
            joined = value
        option = known.get(flag)
        if option is None:
            what = "no such option" if given.startswith("-") else "unexpected argument"
            raise Invalid("%s; see `nlraw %s --help`" % (what, name), name, given)
        values = options.setdefault(option.name, [])
        if option.value:
            if not joined and not rest:
                raise Invalid("this option needs a value, %s" % option.value, name, given)
            if values and not option.many:
                raise Invalid("this option can be given only once", name, given)
            values.append(value if joined else rest.pop(0))
        elif joined and (flag.startswith("--") or value.startswith("-")):
            raise Invalid("this option takes no value", name, given)
        elif joined:
            rest.insert(0, "-" + value)  # switches in one word, as in -jN
    return options


def _first(options: "Options", name: str) -> "Optional[str]":
    return _text(options[name][0]) if name in options else None


def _interface(options: "Options", name: str, default: str) -> str:
    return _text(options[name][0]) if name in options else default


def _text(argument: str) -> str:
    """The bytes of an argument, whatever the locale took them for, as UTF-8; those that are none as lone surrogates."""
    return argument.encode(sys.getfilesystemencoding(), "surrogateescape").decode("utf-8", "surrogateescape")


def _number(options: "Options", name: str) -> "Optional[int]":
    if name not in options:
        return None
    if not options[name][0].isdecimal() or len(options[name][0]) > 10:
        raise Invalid("a number is needed", "check --%s" % name, options[name][0])
    return int(options[name][0])


def program() -> "NoReturn":
    """`main`, as a process of its own, which ends with it.

    By then all is written. What Python would still do is look for garbage and take itself apart, a sixth of a cold start.
    """
    gc.disable()
    posix._exit(main())


def main(arguments: "Optional[Sequence[str]]" = None) -> int:
    """Run a command line (that of the process by default) and return the exit status."""
    return _ended(lambda: _run(sys.argv[1:] if arguments is None else arguments))


def _ended(run: "Callable[[], int]") -> int:
    """The exit status of what is run: what it returns, or that of what it raises, with a word on stderr."""
    try:
        return run()
    except Invalid as error:
        complain(str(error))
        return USAGE
    except Error as error:
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        return 130
    except (OSError, ImportError, MemoryError) as error:  # something that Python needs, and was still to be loaded or allocated
        complain("run the command: %s" % (str(error) or type(error).__name__))
        return FAILED
    except _Unwritten as error:
        complain("the result could not be written: %s" % error)
        return FAILED


def _run(arguments: "Sequence[str]") -> int:
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help", "help"):
        say(overview(), end="")
    elif name in ("-V", "--version"):
        say("nlraw %s" % __version__)
    elif name not in COMMANDS:
        raise Invalid("there is no such command; see `nlraw --help`" if name else "a command is needed; see `nlraw --help`", name)
    else:
        options = parse(name, arguments[1:])
        if "help" not in options:
            return COMMANDS[name].run(options)
        say(help_on(name), end="")
    return DONE


# ---------------------------------------------------------------- text and JSON out


def escape(text: str) -> str:
    """Text that any terminal takes for nothing but text: printable ASCII, all other bytes as ``\\xNN``, a backslash doubled."""
    return "".join(char if " " <= char <= "~" and char != "\\" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    byte = "\udc80" <= char <= "\udcff"  # one that is no UTF-8; other lone surrogates come from no file or device
    data = char.encode("utf-8", "surrogateescape" if byte else "surrogatepass")
    return "\\\\" if char == "\\" else "".join("\\x%02x" % number for number in data)


_OUTCOMES = {
    "clean": "clean, nothing to remove",
    "cleaned": "cleaned",
    "would-clean": "would clean",
    "in-use": "in use, nothing to be changed",
    "skipped": "skipped, there is no uplink",
    "failed": "failed",
}


def in_text(report: "Report") -> str:
    """A report for people: a line on the namespace, then one for each TAP and each TC object."""
    uplink = "" if report.uplink is None else " %s" if report.outcome == "skipped" else " (uplink %s)"
    if uplink:
        uplink %= escape(report.uplink or "")
    rows = []
    for tap in report.taps:
        spared = tap.fresh and report.outcome in ("clean", "cleaned")
        fate = ", deleted" if tap.deleted else ", spared" if spared else ""
        verdict = tap.verdict + (" (fresh)" if tap.fresh else "") + fate
        carrier = "unknown" if tap.carrier is None else "on" if tap.carrier else "off"
        facts = "ifindex %d, carrier %s, operstate %s, %s" % (tap.ifindex, carrier, tap.operstate, ",".join(tap.flags))
        rows.append((escape(tap.ifname), verdict, facts))
    fate = "to be removed" if report.outcome == "would-clean" else "removed"
    rows += [(escape(found.dev), "%s %s" % (escape(found.kind), found.object), fate) for found in report.tc_removed]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)] if rows else []
    lines = ["  %-*s  %-*s  %s" % (widths[0], row[0], widths[1], row[1], row[2]) for row in rows]
    return "\n".join(["%s: %s%s" % (escape(report.netns), _OUTCOMES[report.outcome], uplink)] + lines)


def sweep_in_text(swept: "Sweep") -> str:
    """What a sweep saw and did, for people: the namespaces in which there was something, and the sums."""
    told = [report for report in swept.namespaces if report.taps or report.tc_removed or report.outcome == "failed"]
    totals = ", ".join("%s %s" % (number, name.replace("_", " ")) for name, number in swept.totals.fields().items())
    return "\n".join([in_text(report) for report in told] + [totals])


def setup_in_text(made: Setup) -> str:
    """What a setup made, for people: a line on the namespace, then what a VMM is configured with."""
    lines = ["%s: %s" % (escape(made.netns), made.outcome)]
    if made.cleanup is not None and made.cleanup.outcome != "clean":
        lines += ["  before that: " + line for line in in_text(made.cleanup).splitlines()]
    for role, device in (("TAP", made.tap), ("uplink", made.uplink)):
        if device is not None:
            facts = ["%s %s" % (name, escape(str(value))) for name, value in device.fields().items() if value is not None]
            lines.append("  %-6s  %s" % (role, ", ".join(facts)))
    return "\n".join(lines)


def step_in_text(step: "Step") -> str:
    """One step of the self-test for people: how it went, how long it took, and what was seen."""
    mark = "ok" if step.ok else "" if step.ok is None else "FAILED" if step.remedy else "not run"
    took = "%.1f ms" % (step.seconds * 1e3) if step.seconds else ""
    seen = list(step.seen) + (["remedy: " + step.remedy] if step.remedy else [])
    return "\n".join(["%-7s %9s  %s" % (mark, took, escape(step.step))] + [" " * 19 + escape(line) for line in seen])


def in_json(value: "object") -> str:
    """A report, or a list of them, as one JSON document in ASCII; bytes that are no UTF-8 are lone surrogates in it.

    By hand, as the module json does it: Debian's python3-minimal lacks that, and importing it takes longer than a cleanup.
    """
    if isinstance(value, Error):
        name = None if value.errno is None else errorcode.get(value.errno, str(value.errno))
        value = {"step": value.step, "object": value.object, "errno": name, "message": value.message}
    elif isinstance(value, Record):
        value = {name: field for name, field in value.fields().items() if name != "ahead"}  # see `Setup`
    if isinstance(value, dict):
        return "{%s}" % ", ".join("%s: %s" % (in_json(name), in_json(field)) for name, field in value.items())
    if isinstance(value, (list, tuple)):
        return "[%s]" % ", ".join(map(in_json, value))
    if isinstance(value, str):
        return '"%s"' % "".join(map(_json_character, value))
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    raise TypeError(value)


def _json_character(char: str) -> str:
    if " " <= char <= "~":
        return "\\" + char if char in '"\\' else char
    data = char.encode("utf-16-be", "surrogatepass")  # beyond 16 bits two of them
    return "".join("\\u%02x%02x" % pair for pair in zip(data[::2], data[1::2]))


class _Unwritten(Exception):
    """What a command had to say could not be written to stdout."""


def say(text: str, end: str = "\n") -> None:
    """Print a result on stdout at once, all of it. Raises `_Unwritten` where that fails, or stdout is closed."""
    if sys.stdout is None:
        raise _Unwritten("stdout is closed")
    try:
        if isinstance(getattr(sys.stdout, "buffer", None), RawIOBase):
            _write_unbuffered((text + end).encode(sys.stdout.encoding, "backslashreplace"))
        else:
            sys.stdout.write(text + end)
            sys.stdout.flush()
    except OSError as error:
        sys.stdout = open("/dev/null", "w")  # or the interpreter tries again when it ends
        raise _Unwritten(error.strerror) from None


def _write_unbuffered(rest: bytes) -> None:
    """Write all of it. Under `python -u` what there is no room for would be left out in silence (io.RawIOBase.write())."""
    while rest:
        written = sys.stdout.buffer.write(rest)
        if not written:
            raise OSError(EAGAIN, posix.strerror(EAGAIN))
        rest = rest[written:]


def complain(text: str) -> None:
    """Print anything but a result on stderr. Where that fails nobody listens, and the work goes on."""
    _hint("nlraw: " + escape(text) + "\n")


def _hint(text: str) -> None:
    if sys.stderr is not None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            sys.stderr = open("/dev/null", "w")

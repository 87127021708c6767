# SPDX-License-Identifier: Apache-2.0
"""The commands: a table of them, and the functions that run them.

The table of options is in `options`. Each command gets a report, prints it, and derives the exit
status from it. A command imports what it needs when it runs: most of the time that a command takes
is its start.
"""

from . import __version__, options, output, verdict
from .errors import Error, Invalid, Refused
from .netns import DIRECTORIES
from .options import Command
from .output import ERROR, WARNING, complain, say
from .verdict import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Iterable, List, Optional, Sequence, Union

    from .guest import Setup
    from .options import Options
    from .report import Report
    from .selftest import Check

DONE, FAILED, IN_USE = 0, 1, 3


# ---------------------------------------------------------------- the commands


def scan(given: "Options") -> int:
    """Run `nlraw scan`: report what a cleanup would do. A TAP in use is no error."""
    from .pod import preview_of

    names: List[Optional[str]] = _namespaces(given) if "netns" in given else [None]
    who = "who" in given
    return _each_namespace(given, names, lambda netns, target: preview_of(netns, target, who))


def cleanup(given: "Options") -> int:
    """Run `nlraw cleanup`."""
    _need_namespace(given, "cleanup")
    from .pod import clean_up
    from .transport import Patience

    dry_run, who = "dry-run" in given, "who" in given
    wait = options.wait(given)
    patience = Patience()  # one for the command, however many namespaces have a busy writer port

    def act(netns: "Optional[str]", target: Target) -> "Report":
        return clean_up(netns, target, dry_run, patience=patience, wait=wait, who=who)

    return _each_namespace(given, _namespaces(given), act)


def _need_namespace(given: "Options", command: str) -> None:
    """Raise `Invalid` if no namespace is named: on a node, the current one is the node's."""
    if "netns" not in given:
        words = "a namespace is needed: -n with a PID, path or name (`ip netns`), or `-n current`"
        raise Invalid(words, command)


def _namespaces(given: "Options") -> "List[Optional[str]]":
    """The namespaces named; None is the current one."""
    return [None if name == options.CURRENT else name for name in options.texts(given, "netns")]


def _each_namespace(
    given: "Options",
    names: "Sequence[Optional[str]]",
    act: "Callable[[Optional[str], Target], Report]",
) -> int:
    """Act on each namespace, then print the reports. No failure ends it early."""
    target = _target(given)
    reports = []
    for name in names:
        report = act(name, target)
        output.complain_about(report, uplinks=target.uplinks)
        reports.append(report)
    # not earlier: output that fails must not keep other namespaces from being cleaned up
    if "json" in given:
        say(output.in_json(reports if len(reports) > 1 else reports[0]))
    elif len(reports) == 1 and output.is_bare(reports[0]):
        say(output.head(reports[0]))
    else:
        from .text import in_text

        say(in_text(reports, "verbose" in given, has_colour=output.has_colour()))
    return _status(reports)


def setup(given: "Options") -> int:
    """Run `nlraw setup`."""
    _need_namespace(given, "setup")
    from .provision import set_up
    from .text import setup_in_text
    from .wanted import Wanted

    output.need_stdout()  # the caller cannot configure a VMM without the result
    forms = _forms(given)
    wanted = Wanted(
        _target(given),
        tap=options.texts(given, "tap", [verdict.TAP]),
        owner=options.account(given, "owner"),
        group=options.account(given, "group"),
        address=options.optional_text(given, "address"),
        multi_queue="multi-queue" in given,
    )
    made = set_up(_namespaces(given)[0], wanted, wait=options.wait(given), who="who" in given)
    output.complain_about_setup(made)
    lines = [output.in_json(made)] if "json" in given else []
    if forms:
        from . import vmm

        for words in vmm.all_unsaid(forms, made):
            complain("%s: %s" % (made.netns, words))
        lines += vmm.lines(forms, made)
    elif not lines:
        lines = [setup_in_text(made, "verbose" in given)]
    try:
        if lines:
            say("\n".join(lines))
    except output.Unwritten as error:
        names = ", ".join([pair.tap.ifname for pair in made.pairs]) or "nothing"
        raise output.Unwritten("%s; made and left there: %s" % (error, names)) from None
    return _status([made])


def _forms(given: "Options") -> "Sequence[str]":
    """The forms that --print names. Raises `Invalid`."""
    forms = options.texts(given, "print")
    if forms:
        from . import vmm

        for form in forms:
            vmm.check(form, "multi-queue" in given)
    return forms


def sweep(given: "Options") -> int:
    """Run `nlraw sweep`. A dry run is not logged."""
    if "dry-run" in given:
        return _sweep(given)
    try:
        return _sweep(given)
    except Refused as error:
        from . import syslog

        syslog.log_too(ERROR, str(error))
        raise


def _sweep(given: "Options") -> int:
    import time

    from . import node

    begin = time.monotonic()
    uplinks = options.texts(given, "uplink", [verdict.UPLINK])
    is_dry = "dry-run" in given
    swept = node.sweep(
        dirs=given.get("dir"),
        proc="proc" in given,
        match=options.texts(given, "match", [verdict.MATCH]),
        uplink=uplinks,
        include_fresh="include-fresh" in given,
        jobs=options.number(given, "jobs"),
        dry_run=is_dry,
        progress=output.progress(),
        exclude=options.texts(given, "exclude"),
        keep_in_use="keep-in-use" in given,
        include_node="include-node" in given,
    )
    for report in swept.namespaces:
        if is_dry:
            output.complain_about(report, uplinks=uplinks)
        elif output.is_news(report):
            from . import syslog

            syslog.publish(report, uplinks)
    if "metrics" in given:
        from . import metrics

        seconds = time.monotonic() - begin
        try:
            metrics.write(given["metrics"][0], metrics.text(swept.totals, seconds, time.time()))
        except Error as error:  # a full disk must not look like an orphan that stays
            words = "%s; the sweep itself is done" % error
            complain(words)
            if not is_dry:
                from . import syslog

                syslog.log_too(WARNING, words)
    if "json" in given:
        say(output.in_json(swept))
    elif is_dry or "verbose" in given or not output.is_journal():
        from .text import sweep_in_text

        # in the journal, rows would say again what the log says
        spares_fresh = "include-fresh" not in given
        say(sweep_in_text(swept, "verbose" in given, spares_fresh, output.has_colour()))
    return _status(swept.namespaces)


def watch(given: "Options") -> int:
    """Run `nlraw watch` until a signal ends it."""
    from . import service

    return service.run(given, _target)


def hook(given: "Options") -> int:
    """Run `nlraw hook`. A runtime refuses the container's start for any status but 0."""
    from . import hook as oci_hook

    report = oci_hook.run(given, _target)
    return DONE if report is None else _status([report])


def deploy(given: "Options") -> int:
    """Run `nlraw deploy`."""
    from . import deployment

    deployment.run(options.optional_text(given, "NAME"))
    return DONE


def selftest(given: "Options") -> int:
    """Run `nlraw selftest`, in a child if the caller needs a user namespace first."""
    from . import selftest as story

    if story.needs_user_namespace():
        return story.play_in_child(["--json"] if "json" in given else [])
    return _print_checks(story.play(), "json" in given)


def selftest_in_user_namespace(as_json: bool) -> int:
    """Run the self-test in the child that `selftest` starts."""
    from . import selftest as story

    return _print_checks(story.play(own_user_namespace=True), as_json)


def _print_checks(story: "Iterable[Check]", as_json: bool) -> int:
    """Print the checks: as text each one when it is done, as JSON all at the end."""
    checks = []
    for check in story:
        checks.append(check)
        if not as_json:
            say(output.check_in_text(check))
    ok = all(check.ok is not False for check in checks)
    if as_json:
        say(output.in_json({"ok": ok, "steps": checks}))
    else:
        say("This host has what nlraw needs." if ok else "A check failed: see FAILED above.")
    return DONE if ok else FAILED


def _target(given: "Options", spare_fresh: bool = False) -> Target:
    return Target(
        match=options.texts(given, "match", [verdict.MATCH]),
        uplink=options.texts(given, "uplink", [verdict.UPLINK]),
        exclude=options.texts(given, "exclude"),
        spare_fresh=spare_fresh,
        keep_in_use="keep-in-use" in given,
    )


def _status(reports: "Iterable[Union[Report, Setup]]") -> int:
    """Return the exit status: 1 if a namespace failed, else 3 if a TAP in use is an error, else 0.

    A scan and a sweep only report a TAP in use: their reports have no error then.
    """
    outcomes = {report.outcome for report in reports if report.error is not None}
    return FAILED if "failed" in outcomes else IN_USE if "in-use" in outcomes else DONE


COMMANDS = {
    "scan": Command(
        "list matching TAPs and their verdicts; change nothing",
        "Lists the TAPs whose names match, and what a cleanup would remove. Changes nothing.\n"
        "A TAP that a program holds has its carrier on: it is in use. A TAP whose carrier is off\n"
        "is an orphan. The exit status is 0 even if a TAP is in use.",
        options.SCAN,
        scan,
    ),
    "cleanup": Command(
        "remove orphan TAPs, their TC state first",
        "Removes every matching TAP that nobody holds and the redirects to it. Also removes\n"
        "redirects on the uplinks whose target is gone. If a matching TAP is in use, nothing is\n"
        "changed and the exit status is 3; --keep-in-use removes the orphans beside it. If there\n"
        "is no uplink, nothing is touched. One VM per namespace is assumed.",
        options.CLEANUP,
        cleanup,
    ),
    "setup": Command(
        "clean up, then create the TAP and its redirects for the next VM",
        "Cleans up as `nlraw cleanup` does, then makes a TAP for each uplink, all or none. If a\n"
        "matching TAP is in use, nothing is changed and the exit status is 3. Never reuses a TAP:\n"
        "fails if a name is taken. If a step fails, removes all that it made. Prints what the VMM\n"
        "needs.",
        options.SETUP,
        setup,
    ),
    "sweep": Command(
        "clean up every namespace of a node",
        "Cleans up every namespace in %s,\n"
        "but not the node's own: that of this command and that of process 1. A namespace with a\n"
        "TAP in use is left alone; this is no error. A fresh orphan is one to which nobody has\n"
        "attached since it was made. It is spared, because its VM may be starting right now. If\n"
        "your VMM inherits the TAP's descriptor, every orphan is fresh: give --include-fresh. If\n"
        "one namespace fails, the others go on and the exit status is 1. Changes, failures and\n"
        "warnings go to the system log too." % ", ".join(DIRECTORIES),
        options.SWEEP,
        sweep,
    ),
    "watch": Command(
        "remove an orphan when its VMM dies: an agent for a node",
        "Listens to the namespaces that `nlraw sweep` cleans up, and cleans one up when a program\n"
        "lets go of a TAP in it. Finds new namespaces when they appear. Also looks at all of them\n"
        "from time to time. A namespace with a TAP in use is left alone. A fresh orphan, to which\n"
        "nobody has attached since it was made, is spared. Prints a line for each removal, TAP in\n"
        "use and failure. Changes, failures and warnings go to the system log too. SIGTERM ends\n"
        "it; SIGHUP makes it look at every namespace. Needs CAP_SYS_ADMIN, CAP_NET_ADMIN and, to\n"
        "listen, CAP_NET_BROADCAST. Without the last one it looks every 5 seconds.",
        options.WATCH,
        watch,
    ),
    "hook": Command(
        "clean up as a hook of an OCI runtime, which writes the container's state to stdin",
        "Cleans up the container's network namespace, at the stages createRuntime (or prestart)\n"
        "and poststop. The hook runs for every container of a pod. So a TAP in use is left alone\n"
        "and the start goes on, unless --refuse is given. A fresh orphan, to which nobody has\n"
        "attached since it was made, is spared, unless --annotation names the VM's container.\n"
        "The host's network is never touched. Changes, refusals, doubts and failures go to the\n"
        "system log too. For bad input the exit status is 1. `nlraw deploy` prints its files.",
        options.HOOK,
        hook,
    ),
    "deploy": Command(
        "print a file for systemd, Kubernetes or a container runtime",
        "Prints the file of that name, with the paths of this Python and of this copy of nlraw.\n"
        "Without a name, lists the files and where each belongs. Changes nothing.",
        options.DEPLOY,
        deploy,
        "NAME",
    ),
    "selftest": Command(
        "make and remove an orphan in a temporary namespace; report what this host can do",
        "Builds a pod-like namespace, kills a process that holds the TAP as a VMM does, shows the\n"
        "orphan, and cleans up. Needs root, or a user who may create user namespaces. Touches\n"
        "nothing outside the namespaces that it makes.",
        options.SELFTEST,
        selftest,
    ),
}


def help_on(name: str) -> str:
    """Return what `nlraw COMMAND --help` prints."""
    return options.help_on(name, COMMANDS[name])


def parse(name: str, arguments: "Sequence[str]") -> "Options":
    """Parse the arguments of the command of that name. Raises `Invalid`."""
    return options.parse(name, COMMANDS, arguments)


# ---------------------------------------------------------------- run


def _run(name: str, given: "Options") -> int:
    try:
        return COMMANDS[name].run(given)
    except output.Unwritten as error:
        if name not in ("cleanup", "sweep") or "dry-run" in given:
            raise
        raise output.Unwritten("%s; the %s itself has ended" % (error, name)) from None


def run(arguments: "Sequence[str]") -> int:
    """Run a command line and return the exit status; raises `Error`, and what Python raises."""
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help", "help"):
        say(options.overview(COMMANDS), end="")
    elif name in ("-V", "--version"):
        say("nlraw %s" % __version__)
    elif not name:
        raise Invalid("a command is needed; see `nlraw --help`")
    elif name not in COMMANDS:
        from .mistakes import unknown_command

        raise unknown_command(name, COMMANDS)
    else:
        given = parse(name, arguments[1:])
        if "help" not in given:
            return _run(name, given)
        say(help_on(name), end="")
    return DONE

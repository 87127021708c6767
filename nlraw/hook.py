# SPDX-License-Identifier: Apache-2.0
"""The hook of an OCI runtime: read the container's state, and clean up its network namespace.

`container` finds the namespace, `oci` interprets what the runtime writes. Runtimes drop what a
successful hook prints. So changes, refusals, doubts and failures go to the system log too; `syslog`
is imported only then.
"""

import posix
import sys

from . import oci, options, output
from .container import Container, LeftAlone, read, shorten
from .errors import Error, Invalid
from .oci import State
from .report import Report
from .verdict import check_pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Iterable, List, Optional, Tuple, Union

    from .container import Wanted
    from .options import Options
    from .verdict import Target


def run(given: "Options", target_of: "Callable[[Options, bool], Target]") -> "Optional[Report]":
    """Run the command. Return the report, None if there was nothing to do; raises `Error`.

    The report's error is None if a TAP in use is no reason to refuse the start. ``target_of`` makes
    a target from the options and from a bool: whether fresh orphans are spared. Moves the calling
    thread into the container's namespace for good.
    """
    title = ""
    try:
        wanted = parse_annotations(options.texts(given, "annotation"))
        target = target_of(given, not wanted)
        if "refuse" in given and target.keep_in_use:
            raise Invalid("--refuse and --keep-in-use exclude each other", "check options")
        wait = options.wait(given)
        state = read_state()
        title = "container %s: " % shorten(state.id)
        container = Container(state)
        container.check(wanted)
        with container.namespace() as namespace:
            from .pod import clean_up_in

            report = clean_up_in(namespace, target, wait=wait, who="who" in given, moves=True)
    except LeftAlone as reason:
        if reason.is_doubt:
            _log(title, reason)
        _say(output.escape("%s%s; nothing to do" % (title, reason)))
        return None
    except Error as error:
        _log(title, error)
        raise
    is_left_alone = report.outcome == "in-use" and "refuse" not in given
    # a TAP in use that is left alone is logged only if the VM's own container has ended
    is_due = not is_left_alone or (wanted and state.status not in oci.ALIVE)
    if is_due and output.is_news(report):
        from . import syslog

        syslog.log_report(report, title, target.uplinks)
    if is_left_alone:
        output.complain("%s%s: %s; left alone" % (title, report.netns, report.error))
        report = report.replace(error=None)
    output.complain_about(report, title, target.uplinks)
    if output.is_bare(report):
        _say(output.escape(title) + output.head(report))
    else:
        from .text import in_text

        _say(in_text([report], "verbose" in given, not wanted, prefix=title))
    return report


def read_state() -> State:
    """Read the container's state from stdin; raises `Error`.

    A terminal is refused at once: a person who starts the hook by hand need not wait.
    """
    if sys.stdin is None:
        raise Error("it is closed", oci.READ_STATE, oci.STDIN)
    if posix.isatty(0):
        words = "it is a terminal; a container runtime writes the container's state here"
        raise Error(words, oci.READ_STATE, oci.STDIN)
    data = read(0, oci.READ_STATE, oci.STDIN)
    try:
        return oci.state(data)
    except Error as error:
        words = "%s; `runc state ID` prints a state" % error.message
        raise Error(words, error.step, error.object) from None


def parse_annotations(texts: "Iterable[str]") -> "Wanted":
    """Return the annotations in texts of the form KEY=GLOB. Raises `Invalid`."""
    found: List[Tuple[str, str]] = []
    for text in texts:
        key, equals, pattern = text.partition("=")
        if not key or not equals:
            raise Invalid("KEY=GLOB is needed", "check --annotation", text)
        check_pattern(pattern)
        found.append((key, pattern))
    return found


def _log(title: str, what: "Union[LeftAlone, Error]") -> None:
    """Log a doubt or a failure."""
    from . import syslog

    priority = output.ERROR if isinstance(what, Error) else output.WARNING
    syslog.log(priority, title + str(what))


def _say(result: str) -> None:
    """Print a result. If that fails, it goes to stderr, and the exit status stays the same."""
    try:
        output.say(result)
    except output.Unwritten:
        # each line: others write to the runtime's log too
        output.hint("".join(["nlraw: %s\n" % line for line in result.splitlines()]))

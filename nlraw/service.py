# SPDX-License-Identifier: Apache-2.0
"""`nlraw watch` as a process: its signals, output, log, metrics and service manager.

The agent itself is in `agent`.
"""

import gc
import signal
import sys
import time

from . import metrics, options, output, syslog
from .agenda import JOBS, RESYNC, check
from .agent import Agent
from .errors import Error, Refused
from .known import Quota
from .notify import Manager
from .text import count, lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, List, Tuple

    from .options import Options
    from .syslog import Entry
    from .verdict import Target
    from .workers import Outcome

# Minimum seconds between two writes of the metrics, and of the status.
TICK = 1.0

# The most bytes to keep while nobody reads stdout, and the seconds until the next attempt.
UNSAID, SAY_AGAIN = 1 << 20, 0.1

# The log lines about one namespace: how many at once, and how many more per second.
LINES, LINES_PER_SECOND = 20.0, 0.1

# Seconds for which a thread may keep the interpreter if others wait; Python's default is 5 ms.
SWITCH = 0.001


def run(given: "Options", target_of: "Callable[[Options, bool], Target]") -> int:
    """Run the command until SIGTERM or SIGINT; return the exit status. Raises `Error`.

    ``target_of`` makes a target from the options and from a bool: whether fresh orphans are spared.
    """
    jobs = options.number(given, "jobs")
    resync = options.seconds(given, "resync", RESYNC)
    grace = options.seconds(given, "grace", 0.0)
    target = target_of(given, "include-fresh" not in given)
    check(jobs, resync, grace)
    gc.enable()  # `cli.program` disables it, for commands that end soon
    sys.setswitchinterval(SWITCH)
    log = Log()
    try:
        agent = Agent(
            target,
            given.get("dir"),
            "include-node" in given,
            jobs or JOBS,
            resync,
            grace,
            log.note,
        )
        # never closed: one of its threads may wait for the kernel, and the process ends anyway
        return _Service(given, agent, log).run()
    except Refused as error:
        syslog.log_too(output.ERROR, str(error))
        raise


class Log:
    """The lines in the system log, few for each namespace.

    Root in a namespace can cause removals and failures without end. A line above the quota waits
    until there is room again, unless a later one takes its place. ``record`` is `syslog.record`.
    """

    def __init__(self, record: "Callable[..., None]" = syslog.record) -> None:
        self._record = record
        self._quotas: Dict[str, Quota] = {}  # by namespace; "" is for the agent itself
        self._waiting: Dict[str, Tuple[Entry, int]] = {}  # with the number of lines left out

    def note(self, text: str) -> None:
        """Log a warning about the agent itself; print it on stderr too if that is another place."""
        self.add("", (output.WARNING, text), time.monotonic())
        if output.can_say(is_complaint=True) and not output.is_journal(is_complaint=True):
            output.complain(text)

    def add(self, subject: str, entry: "Entry", now: float) -> None:
        """Log a line about a namespace now, or later."""
        quota = self._quotas.setdefault(subject, Quota(LINES, LINES_PER_SECOND, now))
        left_out = self._waiting[subject][1] + 1 if subject in self._waiting else 0
        self._waiting[subject] = entry, left_out
        if left_out == 0 and quota.left(now) >= 1.0:
            self._send(subject, now)

    def flush(self, now: float) -> float:
        """Log the lines for which there is room by now; return when to call this again."""
        due = float("inf")
        for subject in list(self._waiting):
            at = self._quotas[subject].due(1.0, now)
            if at <= now:
                self._send(subject, now)
            else:
                due = min(due, at)
        return due

    def _send(self, subject: str, now: float) -> None:
        (priority, text), left_out = self._waiting.pop(subject)
        self._quotas[subject].spend(1.0, now)
        if left_out:
            text = "(%d lines before this one were left out) %s" % (left_out, text)
        self._record(priority, text, waits=False)

    def end(self, now: float) -> None:
        """Log the lines that wait."""
        for subject in list(self._waiting):
            self._send(subject, now)

    def forget(self, now: float) -> None:
        """Forget the namespaces that have their whole quota."""
        for subject, quota in list(self._quotas.items()):
            if subject not in self._waiting and quota.left(now) >= quota.most:
                del self._quotas[subject]


class _Service:
    def __init__(self, given: "Options", agent: Agent, log: Log) -> None:
        self._agent = agent
        self._log = log
        self._as_json = "json" in given
        self._is_verbose = "verbose" in given
        # in the journal, rows would say again what the log says
        self._has_rows = self._as_json or self._is_verbose or not output.is_journal()
        self._prints = True
        self._metrics = given["metrics"][0] if "metrics" in given else None
        self._uplinks = options.texts(given, "uplink")
        self._manager = Manager()
        self._is_ending = False
        self._unsaid: List[str] = []
        self._has_news = True  # for the metrics and the status
        self._is_reloading = False
        self._is_ready = False
        self._written = self._alive = time.monotonic() - TICK
        self._resyncs = 0
        self._complaint = ""

    def run(self) -> int:
        signal.set_wakeup_fd(self._agent.waker)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, self._reload)
        self._get_ready()
        try:
            while not self._is_ending:
                self._report(self._agent.step(self._tick()))
            self._manager.stopping()
        finally:
            left = self._agent.finish()
        self._report(left)
        self._log.end(time.monotonic())
        self._has_news = True
        self._write(time.monotonic())
        return 0

    def _end(self, number: int, frame: "object") -> None:
        self._is_ending = True
        self._agent.stop()

    def _reload(self, number: int, frame: "object") -> None:
        self._is_reloading = True
        self._agent.resync()

    # ------------------------------------------------------------ periodic work

    def _tick(self) -> float:
        """Do what is due besides the agent's work; return when to call this again."""
        now = time.monotonic()
        due = self._log.flush(now)
        if self._is_reloading:
            self._is_reloading = False
            self._manager.reloading()
            self._get_ready()
        if self._manager.watchdog is not None:
            if now - self._alive >= self._manager.watchdog:
                self._alive = now
                self._manager.alive()
            due = self._alive + self._manager.watchdog
        if self._agent.watched.resyncs != self._resyncs:
            self._resyncs = self._agent.watched.resyncs
            self._has_news = True
            self._log.forget(now)
        if self._unsaid:
            due = min(due, now + SAY_AGAIN)
        if self._has_news and (self._metrics is not None or self._manager.address is not None):
            if now - self._written >= TICK:
                self._write(now)
            else:
                due = min(due, self._written + TICK)
        return min(due, now + 86400.0)

    def _write(self, now: float) -> None:
        """Write the metrics and the status."""
        self._has_news = False
        self._written = now
        if self._is_ready:
            self._manager.status(self._status())
        else:
            self._get_ready()
        if self._metrics is None:
            return
        try:
            metrics.write(self._metrics, self._agent.watched.text(time.time()))
            self._complaint = ""
        except Error as error:  # the watch goes on
            if str(error) != self._complaint:
                self._complaint = str(error)
                self._log.note(self._complaint)

    def _get_ready(self) -> None:
        """Report READY=1 to the manager; try again later if it did not take it."""
        self._is_ready = self._manager.ready(self._status())
        self._has_news = self._has_news or not self._is_ready

    def _status(self) -> str:
        known = count(len(self._agent.agenda.known), "namespace")
        return "%s watched, %s removed" % (known, count(self._agent.watched.deleted, "orphan"))

    # ------------------------------------------------------------ lines

    def _report(self, outcomes: "List[Outcome]") -> None:
        """Print the outcomes if stdout takes them: the agent does not wait for a reader."""
        for outcome in outcomes:
            self._has_news = True
            if self._has_rows:
                self._unsaid.append(self._text(outcome))
            entry = syslog.entry(outcome.report, uplinks=self._uplinks)
            if entry is not None:
                self._log.add(outcome.report.netns, entry, time.monotonic())
            if output.can_say(is_complaint=True) and not output.is_journal(is_complaint=True):
                # the reason of a failure is on stdout too
                output.complain_about(outcome.report, uplinks=self._uplinks)
        while self._unsaid and output.can_say():
            try:
                output.say(self._unsaid.pop(0))
            except output.Unwritten as error:  # the watch goes on
                if self._prints:
                    self._log.note("results are not printed from now on: %s" % error)
                self._prints = False
        lost = 0
        while sum(map(len, self._unsaid)) > UNSAID:
            del self._unsaid[0]
            lost += 1
        if lost:
            self._log.note("stdout is not read: %d results were not printed" % lost)

    def _text(self, outcome: "Outcome") -> str:
        if not self._as_json:
            return "\n".join(lines(outcome.report, self._is_verbose))
        return output.in_json(dict(outcome.report.document(), time=round(outcome.time, 6)))

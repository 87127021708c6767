# SPDX-License-Identifier: Apache-2.0
"""One namespace of many: look at it now, clean it up later, perhaps on another thread."""

import errno
import os

from . import netns
from .connection import Connection
from .errors import GONE, BadNamespace, Error, Refused
from .netns import Namespace
from .observe import groups_of
from .removal import Removal
from .snapshot import failure
from .transport import Allowance, Patience
from .verdict import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional, Type

    from .report import Report

# What the lists of one namespace may take: bytes, and seconds of processor time.
BYTES = 5 << 20
SECONDS = 0.5

# These mean that a shared resource is used up: such visits are repeated at the end, one by one.
_CROWDED = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)


class Visit:
    """One namespace: `look` at it, and `clean_up` if there ``is_work``.

    Both move the calling thread into the namespace, for good. ``report`` stays None if there is no
    namespace, or no longer. ``open_namespace`` opens it, ``connect`` a connection in it.
    """

    __slots__ = (
        "path",
        "target",
        "report",
        "is_work",
        "_patience",
        "_connect",
        "_open_namespace",
        "_namespace",
        "_connection",
        "_removal",
    )

    def __init__(
        self,
        path: str,
        target: Target,
        patience: Patience,
        connect: "Type[Connection]" = Connection,
        open_namespace: "Callable[[str], Namespace]" = Namespace,
    ) -> None:
        self.path = path
        self.target = target
        self.report: Optional[Report] = None
        self.is_work = False
        self._patience = patience
        self._connect = connect
        self._open_namespace = open_namespace
        self._namespace: Optional[Namespace] = None
        self._connection: Optional[Connection] = None
        self._removal: Optional[Removal] = None

    def look(self, dry_run: bool) -> None:
        """Look and plan; descriptor and socket stay open while there is work."""
        try:
            self.report = self._reporting(lambda: self._prepare(dry_run))
        finally:
            if not self.is_work:
                self.close()

    def clean_up(self) -> None:
        """Carry out the plan. If `is_crowded`, call it again: the journal is kept."""
        self.is_work = False
        try:
            self.report = self._reporting(self._finish)
        finally:
            self._close_connection()
            if not self.is_crowded:
                self.close()

    def _prepare(self, dry_run: bool) -> "Optional[Report]":
        self._namespace = self._open_namespace(self.path)
        here = self._namespace.enter()
        self._connection = self._connect(
            here,
            exclusive=not dry_run,
            groups=groups_of(self.target),
            patience=Patience(0),
            allowance=Allowance(bytes=BYTES, seconds=SECONDS),
        )
        self._removal = Removal(self._connection, self.target)
        report = self._removal.prepare(dry_run)
        self.is_work = report is None
        return report

    def _finish(self) -> "Report":
        assert self._namespace is not None
        assert self._connection is not None and self._removal is not None
        here = self._namespace.enter()
        if self._connection.is_exclusive:
            return self._removal.finish()
        # without the port another writer may have changed everything
        with self._connect(
            here,
            exclusive=True,
            groups=groups_of(self.target),
            patience=self._patience,
            allowance=Allowance(bytes=BYTES, seconds=SECONDS),
        ) as connection:
            self._removal.connection = connection
            return self._removal.run()

    def _reporting(self, act: "Callable[[], Optional[Report]]") -> "Optional[Report]":
        """Run `act`; turn what fails into the ``error`` of a report. "in-use" is no error here."""
        try:
            report = act()
        except BadNamespace:
            return None
        except Error as error:
            if error.step == netns.OPEN and error.errno in GONE:
                return None
            return failure(self.path, self.target, error)
        except MemoryError:
            refusal = Refused(errno.ENOMEM, os.strerror(errno.ENOMEM), "clean up", self.path)
            if self._removal is None:
                return failure(self.path, self.target, refusal)
            return self._removal.report("failed", refusal)
        if report is not None and report.outcome == "in-use":
            return report.replace(error=None)
        return report

    @property
    def has_turn(self) -> bool:
        """True if it holds the writer port of its namespace: `clean_up` waits for nobody."""
        return self._connection is not None and self._connection.is_exclusive

    @property
    def is_crowded(self) -> bool:
        """True if it failed because it lacked a resource that other visits hold."""
        error = self.report.error if self.report is not None else None
        return error is not None and error.errno in _CROWDED

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def close(self) -> None:
        """Close descriptor and socket, and release what was read: only the report stays."""
        self._close_connection()
        if self._namespace is not None:
            self._namespace.close()
        self._namespace = self._connection = self._removal = None
        error = None if self.report is None else self.report.error
        if error is not None:  # its frames hold what was read
            error.__traceback__ = error.__context__ = None

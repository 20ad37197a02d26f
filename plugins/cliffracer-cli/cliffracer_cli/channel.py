"""`Channel`: a worker's line to its parent, a socket that stands where stdin would.

JSON lines. The parent sends `Instructions` first; the worker may send `{"need": [settings]}`, which the
parent answers with `{"urls": {...}}` or `{"error": "..."}`, and sends `{"ready": grace_s}` once it serves.
Nothing secret stands on a command line this way, and the end of the line tells of the parent's death.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from cliffracer_core.errors import StartupError

__all__ = ["STARTING_GRACE_S", "Answer", "Channel", "Report"]

T = TypeVar("T")

STARTING_GRACE_S = 15.0
"""What stopping may take of a worker that has not said so: it is still starting."""


class Report(msgspec.Struct, omit_defaults=True):
    """From the worker."""

    need: list[str] = []
    ready: float | None = None
    """Seconds that stopping may take."""


class Answer(msgspec.Struct, omit_defaults=True):
    """From the parent, to `need`."""

    urls: dict[str, str] = {}
    error: str | None = None


class Channel:
    """The worker's end. Blocks, and is used before the event loop runs."""

    def __init__(self) -> None:
        """Take over stdin. Raises StartupError where no parent has put a socket there."""
        if not stat.S_ISSOCK(os.fstat(0).st_mode):
            raise _no_parent()
        self._socket = socket.socket(fileno=os.dup(0))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)  # the program's own code finds an empty stdin
        os.close(null)
        self._grace_s = STARTING_GRACE_S
        self._lines = self._socket.makefile("rb")

    def receive(self, type: type[T]) -> T:
        """Wait for the next line. Raises StartupError where the parent is gone."""
        line = self._lines.readline()
        if not line:
            raise _no_parent()
        return msgspec.json.decode(line, type=type)

    def send(self, report: Report) -> None:
        """Tell the parent."""
        self._grace_s = report.ready or self._grace_s
        self._socket.sendall(msgspec.json.encode(report) + b"\n")

    def urls(self, settings: Iterable[str]) -> Mapping[str, str]:
        """Ask for the URLs of embedded servers. Raises StartupError where one does not start."""
        self.send(Report(need=list(settings)))
        answer = self.receive(Answer)
        if answer.error is not None:
            raise StartupError(answer.error)
        return answer.urls

    def stop_with_parent(self) -> None:
        """From now on, where the parent dies: stop as on SIGTERM, and end in time in any case."""

        def watch() -> None:
            try:
                while self._lines.readline():
                    pass
            except OSError:
                pass  # reset: gone as well
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(self._grace_s)
            os._exit(1)

        threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _no_parent() -> StartupError:
    return StartupError("worker has no parent; start it with 'cliffracer run --workers N'")

"""`Ledger`: a file in which services write what they began and how it ended, for others to read."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Literal, Self

import msgspec

from cliffracer_core import ServiceInfo, get_env

__all__ = ["Entry", "Ledger", "Step"]

Step = Literal["began", "done", "cancelled", "failed"]


class Entry(msgspec.Struct, frozen=True):
    """One step of one call."""

    what: str
    """The handler."""
    id: str
    """What it was asked about."""
    step: Step
    attempt: int
    pid: int
    at: float
    """Seconds on `time.monotonic()`, which is one clock for all processes of a machine."""


class Ledger:
    """A provider that appends lines to a file; several processes may share it.

    What was written survives a `kill -9`: each line is one `write` to a file opened for appending.

    Args:
        path: the file; the environment variable LEDGER where None.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._file = -1

    def bind(self, service: ServiceInfo, name: str) -> Self:
        """See `cliffracer_core.Provider`."""
        return type(self)(self._path)

    async def open(self) -> None:
        """Open the file, made where it is missing."""
        path = self._path or get_env("LEDGER", required=True)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    @contextlib.contextmanager
    def keep(self, what: str, id: str, attempt: int = 1) -> Iterator[None]:
        """Write that something began, and how it ended."""
        self._write(what, id, "began", attempt)
        step: Step = "cancelled"
        try:
            yield
            step = "done"
        except Exception:
            step = "failed"
            raise
        finally:
            self._write(what, id, step, attempt)

    def _write(self, what: str, id: str, step: Step, attempt: int) -> None:
        entry = Entry(what, id, step, attempt, os.getpid(), time.monotonic())
        os.write(self._file, msgspec.json.encode(entry) + b"\n")

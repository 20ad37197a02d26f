"""`Bench`: the parent's side: starts workers, talks with them, and ends them by their own process ids."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Bench", "Worker", "WorkerError"]

ROOT = Path(__file__).resolve().parent.parent
_NOT_OURS = ("CLIFFRACER_", "NATS_", "PYTHON", "BENCH_")
_ENDS_WITHIN_S = 15.0


class WorkerError(Exception):
    """A worker ended, failed or was silent; the message has the end of what it wrote."""


class Worker:
    """One running part; a context manager that ends it."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: str, pass_fds: Sequence[int]) -> None:
        self._name = " ".join(command[-3:-1])
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # `close` closes it
        self._unread = b""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=env, cwd=folder,
            pass_fds=pass_fds,
        )  # fmt: skip

    def hear(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """Return the next facts. Raises WorkerError."""
        pipe = self._process.stdout
        assert pipe is not None
        until = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
                raise WorkerError(f"{self._name}: silent for {timeout_s:g} s\n{self._tail()}")
            piece = os.read(pipe.fileno(), 65536)
            if not piece:
                raise WorkerError(f"{self._name}: ended with status {self._process.wait(5)}\n{self._tail()}")
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        facts: dict[str, Any] = json.loads(line)
        return facts

    def say(self, word: str) -> None:
        """Send a word."""
        pipe = self._process.stdin
        assert pipe is not None
        pipe.write(f"{word}\n".encode())
        pipe.flush()

    def _tail(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-1500:].decode("utf-8", "replace")

    def close(self) -> None:
        """Let it end, and insist after 15 s."""
        process = self._process
        with contextlib.suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
        for insist in (lambda: None, process.terminate, process.kill):
            insist()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_ENDS_WITHIN_S)
                break
        process.stdout.close()  # type: ignore[union-attr]  # it is a pipe
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Bench:
    """What a measure works with.

    Args:
        python: the interpreter of all workers.
        seconds: how long one sample lasts, roughly.
        full: the sizes that the targets name, where the usual ones are smaller.
        env: of all workers, beside this process's own.
        folder: an empty one, in which the workers run.
    """

    def __init__(self, python: str, seconds: float, *, full: bool, env: Mapping[str, str], folder: Path) -> None:
        self.python = python
        self.seconds = seconds
        self.full = full
        self.folder = folder
        self.counts: dict[str, int] = {}
        """How many durable messages a contestant can handle in `seconds`, from its rehearsal."""
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_OURS)}
        self.env |= {"PYTHONPATH": str(ROOT), **env}

    def worker(
        self,
        part: str,
        contestant: str,
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        **options: object,
    ) -> Worker:
        """Start `part` (`module:function` in this package) as `contestant`."""
        command = [self.python, "-m", "benchmarks.worker", part, contestant, json.dumps(options)]
        return Worker(command, {**self.env, **(env or {})}, str(self.folder), pass_fds)

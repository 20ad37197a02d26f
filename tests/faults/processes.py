"""`Worker`: a service in a process of its own, as its parent sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Self

import msgspec

from .workers.serving import Sign

__all__ = ["Worker"]

PACKAGES = Path(__file__).parent.parent
STARTS_WITHIN_S = 60.0
ENDS_WITHIN_S = 30.0
_NOT_OURS = ("CLIFFRACER_", "NATS_", "PYTHON", "COVERAGE_")


class Worker:
    """One process; made by `start`, and ended by its own process id."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.pid = process.pid
        self.signs: list[Sign] = []
        """Every change of `service.ready`, oldest first."""
        self._process = process
        self._errors = errors
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, module: str, errors: Path, environment: dict[str, str]) -> Self:
        """Run `python -m faults.workers.<module>`; it may not be ready when this returns.

        Args:
            module: which worker.
            errors: takes what it writes on stderr; it runs in that file's folder.
            environment: in addition to this process's own, without the settings that stand there.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)}
        with errors.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"faults.workers.{module}",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=file, cwd=errors.parent,
                start_new_session=True, env={**kept, "PYTHONPATH": str(PACKAGES), **environment},
            )  # fmt: skip
        return cls(process, errors)

    async def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None  # `start` asked for it
        async for line in pipe:
            self.signs.append(msgspec.json.decode(line, type=Sign))
            self._changed.set()
        await self._process.wait()
        self._changed.set()

    @property
    def ready(self) -> bool:
        """What it said last."""
        return bool(self.signs) and self.signs[-1].ready

    @property
    def errors(self) -> str:
        """What it wrote on stderr."""
        return self._errors.read_text("utf-8", "replace")

    async def until(self, ready: bool, timeout_s: float = STARTS_WITHIN_S) -> Sign:
        """Return what it said when it became ready, or ceased to be.

        Raises:
            AssertionError: it ended, or did not say so in time; with what it wrote on stderr.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self.ready is not ready:
                    assert self._process.returncode is None, f"it ended with {self._process.returncode}: {self.errors}"
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not ready={ready} within {timeout_s:g} s: {self.errors}") from None
        return self.signs[-1]

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.terminate()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): what is sent to it waits in its sockets."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # until its last thread stands still

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def ended(self, timeout_s: float = ENDS_WITHIN_S) -> int:
        """Return its exit code, negative for the signal that ended it, once it has ended."""
        async with asyncio.timeout(timeout_s):
            code = await self._process.wait()
            await self._reading
        assert self._process.stdin is not None  # `start` asked for it
        self._process.stdin.close()
        return code

    async def close(self) -> None:
        """End it where it still runs."""
        if self._process.returncode is None:
            self.kill()
        await self.ended()

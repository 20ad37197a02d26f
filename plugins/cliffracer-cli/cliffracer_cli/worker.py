"""`Worker`: one child process, as its parent sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Self

import msgspec

from cliffracer_core.errors import CliffracerError

from .channel import STARTING_GRACE_S, Answer, Report
from .instructions import Instructions, Urls

__all__ = ["Worker"]


class Worker:
    """A process that runs `cliffracer _worker`; made by `start`."""

    def __init__(self, process: asyncio.subprocess.Process, connection: asyncio.StreamWriter) -> None:
        self.pid = process.pid
        self.ready = asyncio.Event()
        """Set once all its services have started."""
        self._process = process
        self._connection = connection
        self._grace_s = STARTING_GRACE_S
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, instructions: Instructions, urls: Urls, environment: Mapping[str, str]) -> Self:
        """Start a process, in a session of its own: Ctrl-C reaches the parent alone, which passes it on once.

        Args:
            instructions: what it runs.
            urls: starts the embedded servers it asks for; called in a thread.
            environment: set in addition to this process's own.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cliffracer_cli", "_worker", *instructions.targets,
                stdin=theirs.fileno(), start_new_session=True, env={**os.environ, **environment},
            )  # fmt: skip
        reader, writer = await asyncio.open_connection(sock=ours)
        worker = cls(process, writer)
        writer.write(msgspec.json.encode(instructions) + b"\n")
        worker._listening = asyncio.create_task(worker._listen(reader, urls))
        return worker

    async def _listen(self, reader: asyncio.StreamReader, urls: Urls) -> None:
        with contextlib.suppress(ConnectionResetError):
            async for line in reader:
                report = msgspec.json.decode(line, type=Report)
                if report.need:
                    self._connection.write(msgspec.json.encode(await _answer(urls, report.need)) + b"\n")
                if report.ready is not None:
                    self._grace_s = report.ready
                    self.ready.set()

    async def wait(self) -> int:
        """Return its exit code once it has ended; 128 and the signal's number where one ended it."""
        code = await self._process.wait()
        if self._listening is not None:  # what it said last counts; a process that it left behind does not
            await asyncio.wait({self._listening}, timeout=1.0)
            self._listening.cancel()
        self._connection.close()
        return 128 - code if code < 0 else code

    async def stop(self) -> int:
        """Ask it to finish (SIGTERM), end it where that takes longer than it should, and return its exit code."""
        self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._grace_s):
                code = await self.wait()
        except TimeoutError:
            self.kill()
            code = await self.wait()
        return 0 if code == 128 + signal.SIGTERM else code  # it was still importing, and had nothing to finish

    def kill(self) -> None:
        """End it at once."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


async def _answer(urls: Urls, settings: list[str]) -> Answer:
    try:
        return Answer(urls=dict(await asyncio.to_thread(urls, settings)))
    except CliffracerError as error:
        return Answer(error=error.message)

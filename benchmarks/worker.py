"""One process that plays one part of a measure: `python -m benchmarks.worker PART CONTESTANT OPTIONS`.

Facts go to the parent as lines of JSON; words come back, one a line. When the parent is gone, the words end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
from collections.abc import Callable
from importlib import import_module

__all__ = ["Station", "private_bytes"]


class Station:
    """What a part is given: who plays it, where the server is, and the line to the parent."""

    def __init__(self, contestant: str, url: str) -> None:
        self.contestant = contestant
        self.url = url
        self._out = os.fdopen(os.dup(1), "w")  # what a library prints must not stand between
        self._words: asyncio.StreamReader | None = None

    def say(self, **facts: object) -> None:
        """Send facts to the parent."""
        self._out.write(json.dumps(facts) + "\n")
        self._out.flush()

    async def hear(self) -> str:
        """Return the parent's next word; empty when it wants no more."""
        if self._words is None:
            words = asyncio.StreamReader()
            loop = asyncio.get_running_loop()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
            self._words = words
        return (await self._words.readline()).decode().strip()


def private_bytes() -> int:
    """Return what this process has written for itself alone, after a collection of garbage.

    Private_Clean is left out: pages of files, which become private or shared as other processes come and go.
    """
    gc.collect()
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Private_Dirty:"))


def main() -> None:
    """Play the part under uvloop where it is installed."""
    part, contestant, options = sys.argv[1:4]
    module, _, name = part.partition(":")
    play = getattr(import_module(f"benchmarks.{module}"), name)
    station = Station(contestant, os.environ.get("BENCH_URL", ""))
    os.dup2(2, 1)
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        factory = import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(play(station, **json.loads(options)))


if __name__ == "__main__":
    main()

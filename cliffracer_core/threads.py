"""Threads for synchronous handlers that cannot keep the process alive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

__all__ = ["Threads"]


class Threads:
    """A pool of daemon threads, started as needed.

    The standard library's pool joins its threads when the interpreter ends: one hung handler would hold
    a stopped service for good, past its grace time.

    Args:
        limit: threads at most.
        name: prefix of their names.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._started = 0
        self._idle = threading.Semaphore(0)
        self._work: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call a function in one of the threads, now or when one is free; call this from one thread only."""
        future: Future[Any] = Future()
        self._work.put((future, function, arguments))
        if not self._idle.acquire(blocking=False) and self._started < self._limit:
            self._started += 1
            threading.Thread(target=self._run, name=f"{self._name}_{self._started}", daemon=True).start()
        return future

    def close(self) -> None:
        """Let each thread end with the call it is in; waits for none."""
        for _ in range(self._started):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, function, arguments = work
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*arguments))
                except BaseException as error:
                    future.set_exception(error)
            del work, future, function, arguments  # an idle thread must keep no handler's values alive
            self._idle.release()

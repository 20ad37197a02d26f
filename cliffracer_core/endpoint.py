"""The way in of a call that a transport brings: a slot, then a task of its own."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Generic, TypeVar

from .compiled import Handler
from .limits import Run, Waiting
from .scope import EAGER, Task

__all__ = ["Endpoint"]

T = TypeVar("T")


class Endpoint(Generic[T]):
    """Run one call of a handler for each thing (a message, a delivery) that arrives.

    What is done once per call here and in `_serve` is written out in place of function calls: each would
    cost every call about as much as reading the clock does.

    Args:
        handler: what to run.
        queue_size: how many may wait for a slot.
    """

    def __init__(self, handler: Handler, queue_size: int) -> None:
        self.handler = handler
        self._chain = handler.chain
        self._gate = handler.gate
        self._scope = handler.scope
        self._name = handler.declaration.name
        self._queue_size = queue_size
        self._loop = handler.scope.loop
        self._clean = handler.scope.clean
        self._later = self._start  # one bound method for all that wait

    def take(self, what: T) -> None:
        """Begin a call, now or when there is a slot; never blocks."""
        gate = self._gate
        if gate.free > 0 and not gate.waiting:  # `gate.take()`
            gate.free -= 1
            run = Run()
            if EAGER:
                serving = self._serve(what, run, None)
                task = Task(serving, loop=self._loop, context=self._clean.copy(), eager_start=True)
                if not run.over and not task.done():
                    self._waits(what, run, task)
            else:
                serving = self._serve(what, run, time.monotonic())
                run.task = Task(serving, loop=self._loop, context=self._clean.copy())
        elif not gate.wait(Waiting(self._later, what, time.monotonic()), self._queue_size):
            self._refuse(what)
        else:
            self._queued(what)

    def _start(self, what: T, received: float) -> None:
        run = Run()
        task = self._scope.spawn(self._serve(what, run, received))
        if not EAGER:
            run.task = task
        elif not run.over and not task.done():
            self._waits(what, run, task)

    async def _serve(self, what: T, run: Run, received: float | None) -> None:
        """Run the call and answer; ends `run` and frees the slot in every case.

        Args:
            what: the thing.
            run: made for it.
            received: when it came, on `time.monotonic()`; None where that is now.
        """
        raise NotImplementedError

    def _waits(self, what: T, run: Run, task: asyncio.Task[Any]) -> None:
        """Hear that the call waits for something: only then can it be stopped."""
        self._scope.register(run, task)

    def _queued(self, what: T) -> None:
        """Hear that it waits for a slot."""

    def _refuse(self, what: T) -> None:
        """Hear that there was not even room to wait."""

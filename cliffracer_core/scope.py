"""What the handlers of one running service share: its loop, deadlines, clean context and running calls."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from .context import MessageContext, enter_call, leave_calls
from .deadlines import Deadlines, Expiring
from .limits import Gate, Run

__all__ = ["EAGER", "Scope", "Task", "refused"]

logger = logging.getLogger("cliffracer")

EAGER = sys.version_info >= (3, 12)
"""A task runs at once, up to where it first waits."""
_BRIEF = 256
Task: Callable[..., asyncio.Task[Any]] = asyncio.Task


class Scope:
    """What the handlers of one running service share: its loop, deadlines, clean context and running calls."""

    def __init__(self, service: str, *, timeout_s: float, max_timeout_s: float, queue_size: int = 1000) -> None:
        self.service = service
        self.timeout_s = timeout_s
        self.max_timeout_s = max_timeout_s
        self.queue_size = queue_size
        """Calls of entry points that may wait for a slot, per handler."""
        self.loop = asyncio.get_running_loop()
        self.deadlines: Deadlines[Run] = Deadlines(self.loop)
        self.runs = self.deadlines.entries
        """Calls that wait for something, by their reply token where they have one."""
        self.brief: list[Run] = []
        """Calls without a time limit that are most likely over in a moment; those that are stay until `tidy`."""
        self.brief_limit = _BRIEF
        self.timers: Deadlines[Expiring] = Deadlines(self.loop)
        """What else has to happen at a point in time."""
        self.given_up: dict[str, float] = {}
        """Reply tokens of callers who gave up a call that did not run here, and when, on `time.monotonic()`."""
        self.gates: list[Gate] = []
        self.closing = False
        """The grace time is over: what still waits for a slot is refused, not run."""
        self.clean = contextvars.copy_context()
        """What every call's own context is a copy of."""
        self.clean.run(leave_calls)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine in a task of its own with a copy of the clean context.

        The loop holds the task only weakly: what outlives its first step must be held by what it waits for.
        """
        if EAGER:
            return Task(coroutine, loop=self.loop, context=self.clean.copy(), eager_start=True)
        return Task(coroutine, loop=self.loop, context=self.clean.copy())

    def start(self, coroutine: Coroutine[Any, Any, Any], run: Run) -> None:
        """Run a call as `spawn` does; it calls `begin` first and `end` in every case.

        Only a call that waits for something is kept in `runs`: nothing can stop any other.
        """
        task = self.spawn(coroutine)
        if not EAGER:
            run.task = task
        elif not run.over and not task.done():
            self.register(run, task)

    def begin(self, run: Run, context: MessageContext) -> None:
        """Make a call the current task's, to be stopped at its deadline; then await its chain.

        Raises:
            asyncio.CancelledError: the service stops, and starts no more calls.
        """
        if self.closing:
            raise refused(run)
        enter_call(context)
        if context.deadline is not None:
            run.deadline = context.deadline
            if context.deadline < self.deadlines.next_at:
                self.deadlines.watch(context.deadline)
        if run.task is not None:
            self.register(run, run.task, context.reply_to)

    def register(self, run: Run, task: asyncio.Task[Any] | None, token: str | None = None) -> None:
        """Let a call that waits be found, and stopped, until `end`."""
        run.task = task
        key = run.key = run if token is None or token in self.runs else token
        self.runs[key] = run

    def tidy(self) -> None:
        """Drop the calls in `brief` that are over, once they are the greater part."""
        self.brief = [run for run in self.brief if not run.over]
        self.brief_limit = _BRIEF + 2 * len(self.brief)

    def end(self, run: Run) -> None:
        """Forget a call: nothing can stop it any more."""
        run.over = True
        if run.task is not None:
            run.task = None
            key, run.key = run.key, None  # which may be the run itself
            self.runs.pop(key, None)  # gone where the service stopped before an attended call did

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return all(gate.idle for gate in self.gates)

    async def finish(self, until: float) -> None:
        """Wait until nothing runs or waits, or loop time `until` has come; then cancel what is left."""
        try:
            try:
                while not self.idle and self.loop.time() < until:
                    await asyncio.sleep(0.002)
            finally:  # also where the process stood still until the stop itself had no time left
                self._cut()
            until = self.loop.time() + 1.0
            while not self.idle and self.loop.time() < until:
                await asyncio.sleep(0.002)
        finally:
            self.deadlines.close()
            self.timers.close()

    def _cut(self) -> None:
        self.closing = True
        self.tidy()
        if not self.idle:
            cut = len(self.runs) + len(self.brief) + sum(len(gate.waiting) for gate in self.gates)
            logger.warning("service %r: %d calls were cut at the end of the grace time", self.service, cut)
        for gate in self.gates:
            gate.refuse_waiting()
        for run in [*self.runs.values(), *self.brief]:
            run.stop("shutdown")


def refused(run: Run) -> asyncio.CancelledError:
    """Return what a call raises that would begin while its service stops."""
    run.reason = "shutdown"
    return asyncio.CancelledError()

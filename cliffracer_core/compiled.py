"""A compiled handler, and the ways to call it that need no transport."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence

from .context import MessageContext, create_correlation_id, enter_call, running_call
from .errors import Cancelled, CliffracerError, DeadlineExceeded, Overloaded
from .handlers import Declaration
from .interfaces import Call, Middleware
from .limits import Gate, Run, Waiting
from .scope import Scope, refused
from .threads import Threads
from .validation import Arguments

__all__ = ["FATAL", "Handler", "stopped"]

FATAL = (KeyboardInterrupt, GeneratorExit)
"""What ends the process, or a coroutine that is thrown away; all else that a handler raises is its failure."""


class Handler:
    """A compiled handler: its chain, arguments and limit; made by `compile_handler`."""

    def __init__(
        self,
        declaration: Declaration,
        arguments: Arguments,
        chain: Call,
        layers: Sequence[Middleware],
        gate: Gate,
        scope: Scope,
        pool: Threads | None,
        streams: bool = False,
    ) -> None:
        self.declaration = declaration
        self.arguments = arguments
        self.chain = chain
        self.layers = layers
        self.gate = gate
        self.scope = scope
        self.pool = pool
        self.streams = streams
        """It is an async generator: its reply is what it yields."""

    @property
    def name(self) -> str:
        """`<service>.<handler>`."""
        return self.declaration.where

    def explain(self) -> list[str]:
        """Name the steps of the chain in, outermost first."""
        steps = [f"{layer.stage} {layer.name}" for layer in self.layers]
        observers = sum(layer.stage == "observe" for layer in self.layers)
        return [*steps[:observers], "decode", *steps[observers:], self.name]

    def close(self) -> None:
        """Let the threads of a synchronous handler end; waits for none."""
        if self.pool is not None:
            self.pool.close()

    async def invoke(
        self,
        *,
        kind: str,
        arguments: Mapping[str, object] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        subject: str = "",
        timeout_s: float | None = None,
        state: Mapping[str, object] | None = None,
    ) -> object:
        """Run one call for an entry point; see `interfaces.Entry`."""
        limit = min(timeout_s or self.scope.timeout_s, self.scope.max_timeout_s)
        context = MessageContext(
            kind=kind,
            service=self.scope.service,
            handler=self.declaration.name,
            subject=subject or self.name,
            pattern=subject or self.name,
            body=body,
            headers=dict(headers or {}),
            correlation_id=(headers or {}).get("X-Correlation-ID") or create_correlation_id(),
            deadline=time.monotonic() + limit,
            state=dict(state or {}),
        )
        if arguments is not None:
            context.arguments = self.arguments.convert(arguments)
        future: asyncio.Future[object] = self.scope.loop.create_future()
        run = Run()
        start = Waiting(lambda what, since: self.scope.start(self._invoked(context, run, future), run))
        self.gate.enter(start, sys.maxsize)
        try:
            return await future
        except asyncio.CancelledError:
            run.stop("caller")
            raise

    async def attend(self, context: MessageContext) -> object:
        """Run a call that lasts as long as a connection; see `interfaces.Entry`."""
        scope, run = self.scope, Run()
        before = running_call()
        try:
            scope.begin(run, context)
            if run.task is None:
                scope.register(run, asyncio.current_task())
            return await self.chain(context)
        except asyncio.CancelledError:
            if run.reason is None or (run.task is not None and run.task.uncancel() > 0):
                raise
            raise stopped(run, self.name) from None
        finally:
            scope.end(run)
            enter_call(before)

    async def _invoked(self, context: MessageContext, run: Run, future: asyncio.Future[object]) -> None:
        try:
            if future.done():
                return  # given up while it waited for a slot
            self.scope.begin(run, context)
            result = await self.chain(context)
        except asyncio.CancelledError:
            if not future.done():
                future.set_exception(stopped(run, self.name))
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        except FATAL:
            raise
        except BaseException as error:  # SystemExit, or a panic in a library written in Rust
            if not future.done():
                future.set_exception(RuntimeError(f"{self.name} raised {type(error).__name__}"))
        else:
            if not future.done():
                future.set_result(result)
        finally:
            self.scope.end(run)
            self.gate.leave()

    async def call(self, context: MessageContext) -> object:
        """Run one call in the current task; see `interfaces.Entry`."""
        scope, gate, run = self.scope, self.gate, Run()
        before = running_call()
        taken = False
        try:
            if scope.closing:  # from here as `scope.begin` and `scope.register`
                raise refused(run)
            enter_call(context)
            deadline = context.deadline
            if deadline is not None:
                run.deadline = deadline
                if deadline < scope.deadlines.next_at:
                    scope.deadlines.watch(deadline)
            run.task = asyncio.current_task(scope.loop)
            scope.runs[run] = run
            if gate.free > 0 and not gate.waiting:  # `gate.take()`, as below `gate.leave()`: each call pays for it
                gate.free -= 1
                taken = True
            else:
                taken = await self._slot()
            return await self.chain(context)
        except asyncio.CancelledError:
            if run.reason is None or (run.task is not None and run.task.uncancel() > 0):
                raise  # whoever runs the task wants it to end
            raise stopped(run, self.name) from None
        finally:
            run.over = True
            if run.task is not None:
                run.task = None
                scope.runs.pop(run, None)  # gone where the service gave the call up before it ended
            if taken:
                if gate.waiting:
                    gate.leave()
                else:
                    gate.free += 1
            enter_call(before)

    async def _slot(self) -> bool:
        """Wait for a slot and take it.

        Raises:
            Overloaded: too many wait already, or the service stops.
        """
        future: asyncio.Future[None] = self.scope.loop.create_future()

        def start(what: object, since: float) -> None:
            if future.done():
                self.gate.leave()
            else:
                future.set_result(None)

        if not self.gate.wait(Waiting(start), self.scope.queue_size):
            raise self.overloaded(self.scope.queue_size)
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():
                self.gate.leave()
            raise
        if self.scope.closing:
            self.gate.leave()
            raise Overloaded(f"{self.name} was not begun: its service stops; call again")
        return True

    def overloaded(self, queue_size: int) -> Overloaded:
        """Say that no more calls are taken just now."""
        return Overloaded(f"{self.name} runs {self.gate.limit} calls and {queue_size} wait; try later")


def stopped(run: Run, where: str) -> CliffracerError:
    """Say in an error of ours why a call was cancelled."""
    if run.reason == "deadline":
        return DeadlineExceeded(f"{where} ran past its deadline and was cancelled")
    if run.reason == "shutdown":
        return Overloaded(f"{where} was cut: its service stops; call again")
    return Cancelled(f"{where} was cancelled")

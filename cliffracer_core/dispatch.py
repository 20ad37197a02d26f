"""Compile a handler, and the one path of a call.

    transport -> Handler -> observe -> decode -> guard -> shape -> the function -> encode -> transport

Everything that can be known at start is: what runs per message is plain calls of closures.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from .context import MessageContext, create_correlation_id, enter_call, running_call
from .errors import Cancelled, CliffracerError, ConfigurationError, DeadlineExceeded, Overloaded
from .generators import check_generator, into_stream
from .handlers import Declaration, ErrorHandler, Recovery, RpcOptions
from .interfaces import Call, Middleware, Resolver
from .limits import Gate, Run
from .messages import CONTENT_TYPE, codec_for
from .scope import Scope
from .threads import Threads
from .validation import Arguments

__all__ = ["FATAL", "Handler", "compile_handler", "sort_layers"]

logger = logging.getLogger("cliffracer")

FATAL = (KeyboardInterrupt, GeneratorExit)
"""What ends the process, or a coroutine that is thrown away; all else that a handler raises is its failure."""

_STAGES = {"observe": 0, "guard": 1, "shape": 2}
_asdict = msgspec.structs.asdict


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
        self.gate.enter(lambda: self.scope.start(self._invoked(context, run, future), run, None), sys.maxsize)
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
            scope.begin(run, context)
            if run.task is None:
                run.task = asyncio.current_task(scope.loop)
                run.key = run
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
                del scope.runs[run.key]
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

        def start() -> None:
            if future.done():
                self.gate.leave()
            else:
                future.set_result(None)

        if not self.gate.wait(start, self.scope.queue_size):
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


def compile_handler(
    declaration: Declaration,
    layers: Sequence[tuple[str, Middleware]],
    injectables: Mapping[type, Resolver],
    errors: ErrorHandler,
    scope: Scope,
    *,
    concurrency: int,
) -> Handler:
    """Turn a declaration into a `Handler`.

    Args:
        declaration: the handler.
        layers: plugin name and middleware, in any order.
        injectables: parameter types that are given, and how.
        errors: the service's own error handlers.
        scope: the running service.
        concurrency: the service's limit per handler, where the marks set none.

    Raises:
        ConfigurationError: the signature cannot be served.
    """
    options = [each.options for each in declaration.marks if each.kind in ("rpc", "event")]
    arguments = Arguments(
        declaration.where,
        declaration.function,
        strict=any(isinstance(each, RpcOptions) and each.strict for each in options),
        whole_body=any(
            each.kind == "event" or (each.kind == "rpc" and each.options.pattern) for each in declaration.marks
        ),
        injectables=injectables.keys(),
    )
    if arguments.whole and any(isinstance(each, RpcOptions) and each.pattern is None for each in options):
        raise ConfigurationError(
            f"handler {declaration.where!r}: {arguments.whole!r} would be the whole body of an event or a pattern and "
            f"a named argument of @rpc; use two handlers"
        )
    limit = min([each.concurrency for each in options if each.concurrency] or [concurrency])
    gate = Gate(limit, scope.loop)
    scope.gates.append(gate)
    function, pool = declaration.function, None
    streams = check_generator(declaration)
    if streams:
        function = into_stream(function, declaration.where)
    elif not inspect.iscoroutinefunction(function):
        pool = Threads(limit, declaration.where)
        function = _in_thread(function, pool, gate)
    ordered = sort_layers(layers)
    observers = sum(layer.stage == "observe" for layer in ordered)
    chain = _innermost(function, arguments, injectables)
    if len(ordered) > observers:
        chain = _decode_before(_wrap(chain, ordered[observers:]), arguments)
    recoveries = [each.options for each in declaration.marks if each.kind == "handle_errors"]
    if recoveries or errors:
        chain = _recover(chain, recoveries, errors)
    return Handler(declaration, arguments, _wrap(chain, ordered[:observers]), ordered, gate, scope, pool, streams)


def sort_layers(layers: Sequence[tuple[str, Middleware]]) -> list[Middleware]:
    """Sort by stage, order and plugin, and give each layer a name that says whose it is."""
    ranked = sorted(layers, key=lambda each: (_STAGES[each[1].stage], each[1].order, each[0]))
    return [
        Middleware(layer.stage, layer.order, layer.wrap, f"{plugin}:{layer.name or layer.wrap.__name__}")
        for plugin, layer in ranked
    ]


def _wrap(call: Call, layers: Sequence[Middleware]) -> Call:
    for layer in reversed(layers):
        call = layer.wrap(call)
    return call


def _innermost(function: Callable[..., Any], arguments: Arguments, injectables: Mapping[type, Resolver]) -> Call:
    decode, quick, whole = _decoder(arguments), arguments.quick, arguments.whole
    given = [(name, _for_parameter(injectables[type], name)) for name, type in arguments.injected.items()]

    def call(context: MessageContext) -> Awaitable[object]:
        values = context.arguments
        if values is None:
            try:
                if CONTENT_TYPE in context.headers:
                    values = decode(context)
                elif whole is None:
                    values = context.arguments = _asdict(quick(context.body))
                else:
                    values = context.arguments = {whole: quick(context.body)}
            except Exception:
                values = decode(context)  # says in words of ours what is wrong, or knows better
        awaitable: Awaitable[object] = function(**values)
        return awaitable

    def call_with_given(context: MessageContext) -> Awaitable[object]:
        values = context.arguments
        if values is None:
            values = decode(context)
        awaitable: Awaitable[object] = function(**values, **{name: resolve(context) for name, resolve in given})
        return awaitable

    return call_with_given if given else call


def _for_parameter(resolve: Resolver, name: str) -> Resolver:
    bind = getattr(resolve, "for_parameter", None)
    return resolve if bind is None else bind(name)  # see `ParameterResolver`


def _decode_before(next: Call, arguments: Arguments) -> Call:
    decode = _decoder(arguments)

    def call(context: MessageContext) -> Awaitable[object]:
        if context.arguments is None:
            decode(context)
        return next(context)

    return call


def _decoder(arguments: Arguments) -> Callable[[MessageContext], dict[str, object]]:
    """Return what decodes a call's body into its arguments."""

    def decode(context: MessageContext) -> dict[str, object]:
        values = context.arguments = arguments.decode(context.body, codec_for(context.headers))
        return values

    return decode


def _recover(next: Call, recoveries: Sequence[Recovery], errors: ErrorHandler) -> Call:
    async def call(context: MessageContext) -> object:
        try:
            return await next(context)
        except Exception as error:
            for recovery in recoveries:
                if isinstance(error, recovery.errors):
                    return recovery.default
            return await errors.handle(error)

    return call


def _in_thread(function: Callable[..., Any], pool: Threads, gate: Gate) -> Callable[..., Any]:
    """Run a synchronous handler in its pool; its slot stays taken until the thread has ended."""

    def run(arguments: dict[str, Any]) -> object:
        try:
            return function(**arguments)
        except StopIteration as error:  # a Future cannot carry one
            raise RuntimeError("handler raised StopIteration") from error

    async def call(**arguments: Any) -> object:
        loop = asyncio.get_running_loop()
        future: Future[Any] = pool.submit(contextvars.copy_context().run, run, arguments)
        try:
            result = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.running():
                gate.thread_stuck()
                future.add_done_callback(functools.partial(_thread_ended, loop, gate))
            raise
        return await result if inspect.isawaitable(result) else result

    return call


def _thread_ended(loop: asyncio.AbstractEventLoop, gate: Gate, _: Future[Any]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for the slot
        loop.call_soon_threadsafe(gate.thread_ended)

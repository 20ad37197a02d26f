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
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from .context import MessageContext, create_correlation_id, enter_call, leave_calls
from .errors import Cancelled, CliffracerError, ConfigurationError, DeadlineExceeded, Overloaded
from .generators import check_generator, into_stream
from .handlers import Declaration, ErrorHandler, Recovery, RpcOptions
from .interfaces import Call, Middleware, Resolver
from .limits import Deadlines, Gate, Run
from .messages import codec_for
from .threads import Threads
from .validation import Arguments

__all__ = ["FATAL", "Handler", "Scope", "compile_handler", "sort_layers"]

logger = logging.getLogger("cliffracer")

FATAL = (KeyboardInterrupt, GeneratorExit)
"""What ends the process, or a coroutine that is thrown away; all else that a handler raises is its failure."""

_STAGES = {"observe": 0, "guard": 1, "shape": 2}
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class Scope:
    """What the handlers of one running service share: its loop, deadlines, clean context and running calls."""

    def __init__(self, service: str, *, timeout_s: float, max_timeout_s: float) -> None:
        self.service = service
        self.timeout_s = timeout_s
        self.max_timeout_s = max_timeout_s
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.loop)
        self.runs: dict[object, Run] = {}
        self.given_up: dict[str, float] = {}
        """Reply tokens of callers who gave up a call that did not run here, and when, on `time.monotonic()`."""
        self.gates: list[Gate] = []
        self.closing = False
        """The grace time is over: what still waits for a slot is refused, not run."""
        self._clean = contextvars.copy_context()
        self._clean.run(leave_calls)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine in a task of its own with a copy of the clean context.

        The loop holds the task only weakly: what outlives its first step must be in `runs` or held by
        what it waits for.
        """
        asyncio.Task(coroutine, loop=self.loop, context=self._clean.copy(), **_EAGER)

    def key(self, reply_to: str | None, run: Run) -> object:
        """Return what a run is found by: its reply token, where that is there and not taken."""
        return run if reply_to is None or reply_to in self.runs else reply_to

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return all(gate.idle for gate in self.gates)

    async def finish(self, until: float) -> None:
        """Wait until nothing runs or waits, or loop time `until` has come; then cancel what is left."""
        while not self.idle and self.loop.time() < until:
            await asyncio.sleep(0.002)
        self.closing = True
        if not self.idle:
            cut = len(self.runs) + sum(len(gate.waiting) for gate in self.gates)
            logger.warning("service %r: %d calls were cut at the end of the grace time", self.service, cut)
        for gate in self.gates:
            gate.refuse_waiting()
        for run in list(self.runs.values()):
            run.stop("shutdown")
        until = self.loop.time() + 1.0
        while not self.idle and self.loop.time() < until:
            await asyncio.sleep(0.002)
        self.deadlines.close()


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

    async def run(self, context: MessageContext, key: object, run: Run) -> object:
        """Run the chain on the current task until the context's deadline; `key` finds the run meanwhile."""
        bucket = self.begin(context, key, run)
        try:
            return await self.chain(context)
        finally:
            self.end(key, run, bucket)

    def begin(self, context: MessageContext, key: object, run: Run) -> int | None:
        """Make a call the current task's, found by `key`, stopped at its deadline; then await `chain`.

        Returns:
            What `end` takes.

        Raises:
            asyncio.CancelledError: the service stops, and starts no more calls.
        """
        scope = self.scope
        if scope.closing:
            run.reason = "shutdown"
            raise asyncio.CancelledError
        run.task = asyncio.current_task()
        enter_call(context)
        scope.runs[key] = run
        deadline = context.deadline
        return None if deadline is None else scope.deadlines.add(deadline, run, run.expire)

    def end(self, key: object, run: Run, bucket: int | None) -> None:
        """Forget a call that `begin` began."""
        if bucket is not None:
            self.scope.deadlines.discard(bucket, run)
        del self.scope.runs[key]

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
        self.gate.enter(lambda: self.scope.spawn(self._invoked(context, run, future)), sys.maxsize)
        try:
            return await future
        except asyncio.CancelledError:
            run.stop("caller")
            raise

    async def attend(self, context: MessageContext) -> object:
        """Run a call as long as a connection on the current task; see `interfaces.Entry`."""
        run = Run()
        return await self.run(context, run, run)

    async def _invoked(self, context: MessageContext, run: Run, future: asyncio.Future[object]) -> None:
        try:
            if future.done():
                return  # given up while it waited for a slot
            result = await self.run(context, run, run)
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
            self.gate.leave()


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
    decode = arguments.decode
    given = [(name, _for_parameter(injectables[type], name)) for name, type in arguments.injected.items()]

    async def call(context: MessageContext) -> object:
        values = context.arguments
        if values is None:
            values = context.arguments = decode(context.body, codec_for(context.headers))
        return await function(**values)

    async def call_with_given(context: MessageContext) -> object:
        values = context.arguments
        if values is None:
            values = context.arguments = decode(context.body, codec_for(context.headers))
        return await function(**values, **{name: resolve(context) for name, resolve in given})

    return call_with_given if given else call


def _for_parameter(resolve: Resolver, name: str) -> Resolver:
    bind = getattr(resolve, "for_parameter", None)
    return resolve if bind is None else bind(name)  # see `ParameterResolver`


def _decode_before(next: Call, arguments: Arguments) -> Call:
    decode = arguments.decode

    async def call(context: MessageContext) -> object:
        if context.arguments is None:
            context.arguments = decode(context.body, codec_for(context.headers))
        return await next(context)

    return call


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

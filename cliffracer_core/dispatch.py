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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from .compiled import Handler
from .context import MessageContext
from .errors import ConfigurationError
from .generators import check_generator, into_stream
from .handlers import Declaration, ErrorHandler, Recovery, RpcOptions
from .interfaces import Call, Middleware, Resolver
from .limits import Gate
from .messages import CONTENT_TYPE, codec_for
from .scope import Scope
from .threads import Threads
from .validation import Arguments

__all__ = ["compile_handler", "sort_layers"]

logger = logging.getLogger("cliffracer")

_STAGES = {"observe": 0, "guard": 1, "shape": 2}
_asdict, _astuple = msgspec.structs.asdict, msgspec.structs.astuple


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
    ordered = [
        name for name, each in inspect.signature(function).parameters.items() if each.kind is not each.KEYWORD_ONLY
    ]
    in_order = inspect.iscoroutinefunction(function) and ordered == list(arguments.struct.__struct_fields__)

    def call(context: MessageContext) -> Awaitable[object]:
        values = context.arguments
        if values is None:
            values = decode(context)
        awaitable: Awaitable[object] = function(**values, **{name: resolve(context) for name, resolve in given})
        return awaitable

    def call_in_order(context: MessageContext) -> Awaitable[object]:
        awaitable: Awaitable[object]
        if context.arguments is None and CONTENT_TYPE not in context.headers:
            try:
                body = quick(context.body)
            except Exception:
                pass  # what follows says in words of ours what is wrong, or knows better
            else:  # by position, which takes half the time of a call by name
                if whole is None:
                    context.arguments = _asdict(body)
                    awaitable = function(*_astuple(body))
                else:
                    context.arguments = {whole: body}
                    awaitable = function(body)
                return awaitable
        values = context.arguments
        if values is None:
            values = decode(context)
        awaitable = function(**values)
        return awaitable

    return call_in_order if in_order else call


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

"""The kernel's own plugin, under the same hooks as any other: memory, the context, auth and metrics layers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from .context import MessageContext
from .errors import CliffracerError
from .hookspecs import hookimpl
from .interfaces import Authenticator, Call, MetricsSink, Middleware, Resolver, StoreFactory, TransportFactory

__all__ = ["authenticate", "measure"]


@hookimpl
def cliffracer_register_transports() -> Sequence[TransportFactory]:
    """Offer `memory://`."""
    from .memory import TRANSPORTS  # with the first start, not with the kernel

    return TRANSPORTS


@hookimpl
def cliffracer_register_stores() -> Sequence[StoreFactory]:
    """Offer `memory://`."""
    from .memory import STORES

    return STORES


@hookimpl
def cliffracer_register_injectables() -> Mapping[type, Resolver]:
    """Give handlers the call's context."""
    return {MessageContext: lambda context: context}


def authenticate(authenticators: Sequence[Authenticator]) -> Middleware:
    """Make the guard that asks authenticators in order and puts the identity into the context."""

    def wrap(next: Call) -> Call:
        async def call(context: MessageContext) -> object:
            if context.identity is None:
                for each in authenticators:
                    context.identity = await each.authenticate(context.headers)
                    if context.identity is not None:
                        break
            return await next(context)

        return call

    return Middleware("guard", -1000, wrap, "authenticate")


def measure(sinks: Sequence[MetricsSink], where: str) -> Middleware:
    """Make the observer that counts and times each call for the metrics sinks."""

    def wrap(next: Call) -> Call:
        async def call(context: MessageContext) -> object:
            started = time.perf_counter()
            outcome = "ok"
            try:
                return await next(context)
            except BaseException as error:
                outcome = type(error).code if isinstance(error, CliffracerError) else type(error).__name__
                raise
            finally:
                labels = {"handler": where, "kind": context.kind, "outcome": outcome}
                for sink in sinks:
                    sink.record("calls", 1.0, labels)
                    sink.record("seconds", time.perf_counter() - started, labels)

        return call

    return Middleware("observe", -1000, wrap, "measure")

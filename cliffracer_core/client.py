"""Calling without being a service: `ClientProxy`, and typed clients made from a service's class."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Self, TypeVar, cast

from .assembly import load_plugins, make_transports, opened, options_url, resolve_settings, service_info
from .caller import Caller
from .config import ServiceConfig
from .context import MessageContext
from .errors import ConnectionError, describe
from .handlers import RpcOptions, marks_of, snake_case
from .scatter import ReplicaReply
from .stream_in import DEFAULT_WINDOW
from .subjects import validate_subject
from .validation import Arguments

__all__ = ["ClientProxy", "TypedClient", "client"]

logger = logging.getLogger("cliffracer")

S = TypeVar("S")


class ClientProxy:
    """Send requests and events without a service around it.

    Connects with the first use, or on `async with`, which also closes it.

    Args:
        transport: an installed transport's scheme (`nats`) or a URL; the configured transport where None.
        options: for a scheme, what its URL is made of: `host`, `port`, `username`, `password`, or `url`.
        timeout: seconds a request may take; the configured default where None.
        plugins: further plugins by name.

    For example:

        async with ClientProxy(transport="nats", options={"host": "localhost"}) as proxy:
            user = await proxy.send("user.create", {"name": "Ada"})
    """

    def __init__(
        self,
        transport: str | None = None,
        options: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
        plugins: Mapping[str, object] | None = None,
    ) -> None:
        self._choice = transport
        self._options = dict(options or {})
        self._timeout = timeout
        self._extra = plugins
        self._stack = contextlib.AsyncExitStack()
        self._caller: Caller | None = None
        self._opening: asyncio.Lock | None = None
        self._closed = False

    async def connect(self) -> Caller:
        """Connect where that has not happened, and return what sends.

        Raises:
            ConnectionError: nobody there, or it was closed.
            ConfigurationError: no installed plugin serves the transport.
        """
        if self._closed:
            raise ConnectionError("client is closed; make a new ClientProxy")
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._caller is None:
                self._caller = await self._open()
        return self._caller

    async def _open(self) -> Caller:
        plugins = load_plugins(self._extra)
        values: dict[str, Any] = {}
        if self._choice is not None:
            values["transport"] = options_url(plugins, self._choice, self._options)
        settings = resolve_settings(plugins, ServiceConfig("client", **values))
        info = service_info(settings)
        transports = make_transports(plugins, settings, info)
        await self._stack.enter_async_context(opened(transports, "transport", _log_close))
        return Caller(
            settings.kernel.name,
            transports,
            timeout_s=self._timeout or settings.kernel.timeout,
            content_type=settings.kernel.content_type,
            ask=lambda declaration: plugins.ask("cliffracer_register_outgoing", declaration=declaration, service=info),
        )

    @property
    def caller(self) -> Caller:
        """What sends, for `client(Service, proxy.caller)`. Raises ConnectionError before it is connected."""
        if self._caller is None:
            raise ConnectionError("client is not connected; use 'async with ClientProxy(...)' or await connect()")
        return self._caller

    async def send(
        self, pattern: str, data: object = None, *, returns: Any = None, timeout: float | None = None
    ) -> Any:
        """Send a request on `rpc.<pattern>` and return the reply; errors as `Caller.call`."""
        subject = "rpc." + validate_subject(pattern)
        caller = await self.connect()
        return await caller.request(subject, {} if data is None else data, returns=returns, timeout=timeout)

    async def stream(
        self,
        pattern: str,
        data: object = None,
        *,
        returns: Any = None,
        timeout: float | None = None,
        window: int = DEFAULT_WINDOW,
    ) -> AsyncGenerator[Any, None]:
        """Send a request on `rpc.<pattern>` and yield its streamed reply item by item; see `Caller.stream`."""
        subject = "rpc." + validate_subject(pattern)
        caller = await self.connect()
        items = caller.request_stream(
            subject, {} if data is None else data, returns=returns, timeout=timeout, window=window
        )
        async with contextlib.aclosing(items):
            async for item in items:
                yield item

    async def call_all(
        self,
        pattern: str,
        data: object = None,
        *,
        returns: Any = None,
        count: int | None = None,
        quiet_s: float | None = 0.25,
        timeout: float | None = None,
    ) -> list[ReplicaReply]:
        """Call `<service>.<method>` at every replica and return what they answered; see `Caller.call_all`."""
        service, _, method = pattern.partition(".")
        caller = await self.connect()
        return await caller.call_all(
            service, method, data, returns=returns, count=count, quiet_s=quiet_s, timeout=timeout
        )

    async def emit(self, pattern: str, data: object = None, *, durable: bool = False) -> None:
        """Publish an event on `pattern`; with `durable` it is stored when this returns. Errors as `Caller.publish`."""
        caller = await self.connect()
        await caller.publish(pattern, data, durable=durable)

    async def close(self) -> None:
        """Send what is buffered and disconnect; safe to call twice."""
        self._closed = True
        async with self._opening or asyncio.Lock():  # one who connects just now comes to an end first
            self._caller = None
            await self._stack.aclose()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


def _log_close(text: str, error: BaseException) -> None:
    logger.warning("%s: %s", text, describe(error))


class TypedClient:
    """Call a service through the methods of its class; made by `client`."""

    def __init__(self, service: type, caller: Caller, timeout: float | None) -> None:
        self._service = service
        self._caller = caller
        self._timeout = timeout
        self._name = str(getattr(service, "name", None) or snake_case(service.__name__))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._service, name, None)
        marks = [each.options for each in marks_of(function) if isinstance(each.options, RpcOptions)]
        if function is None or not marks:
            raise AttributeError(f"service {self._name!r} has no request handler {name!r}")
        method = _typed_method(self, name, function, marks[0])
        setattr(self, name, method)
        return method


def _typed_method(
    proxy: TypedClient, name: str, function: Callable[..., Any], options: RpcOptions
) -> Callable[..., Any]:
    where = f"{proxy._name}.{name}"
    method = inspect.getattr_static(proxy._service, name).__get__(proxy, proxy._service)  # static and class methods too
    signature = inspect.signature(method)
    arguments = Arguments(
        where, method, whole_body=options.pattern is not None, injectables=(MessageContext,), checked=False
    )
    subject = f"rpc.{options.pattern or where}"
    known = frozenset(signature.parameters)
    ordered = [each.name for each in signature.parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]

    def payload(positional: tuple[Any, ...], named: dict[str, Any]) -> object:
        given = dict(zip(ordered, positional, strict=False))
        if len(given) < len(positional) or not given.keys().isdisjoint(named) or not known.issuperset(named):
            signature.bind_partial(*positional, **named)  # raises the TypeError that says what is wrong
        return arguments.pack(given | named)

    rest: dict[str, Any] = {"returns": arguments.returns, "timeout": proxy._timeout, "transport": options.transport}

    async def call(*positional: Any, **named: Any) -> Any:
        return await proxy._caller.request(subject, payload(positional, named), **rest)

    def stream(*positional: Any, **named: Any) -> AsyncGenerator[Any, None]:
        return proxy._caller.request_stream(subject, payload(positional, named), **rest)

    return functools.wraps(function)(stream if arguments.streams else call)


class _ClientAttribute:
    """What `client` leaves on a class: a descriptor that gives each instance a client over its own caller."""

    def __init__(self, service: type, timeout: float | None) -> None:
        self._service = service
        self._timeout = timeout

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        key = f"{self._name} (client)"  # under the name itself it would hide this descriptor, and outlive its caller
        made: TypedClient | None = instance.__dict__.get(key)
        if made is None or made._caller is not instance.caller:
            made = instance.__dict__[key] = TypedClient(self._service, instance.caller, self._timeout)
        return made


def client(service: type[S], caller: Caller | None = None, *, timeout: float | None = None) -> S:
    """Make a typed client of a service from its class, one that type checkers read as the class itself.

    As a class attribute (`payments = client(Payments)`) it calls as the service it stands in; in a
    script it takes a `caller`, such as `proxy.caller`.

    Args:
        service: the class; its methods give names, arguments and result types.
        caller: who calls.
        timeout: seconds per call; the caller's default where None.
    """
    if caller is None:
        return cast(S, _ClientAttribute(service, timeout))
    return cast(S, TypedClient(service, caller, timeout))

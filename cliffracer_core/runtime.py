"""One service from start to stop, step by step; what fails is undone in reverse.

Start: settings, transports, stores, providers, lifespans, handlers, listeners, timers, ready.
Stop runs the same steps backwards, within `shutdown_grace_s` in all.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .assembly import (
    load_plugins,
    make_stores,
    make_transports,
    once,
    opened,
    resolve_settings,
    security_of,
    service_info,
)
from .blueprint import Blueprint
from .builtin import authenticate, measure
from .caller import Caller
from .compiled import Handler
from .config import Settings
from .declare import check_capabilities, check_declarations, gather
from .dispatch import compile_handler
from .errors import CliffracerError, ConfigurationError, StartupError, describe
from .handlers import Declaration, marks_of
from .injection import Builder
from .interfaces import (
    Check,
    Entry,
    EntryPoint,
    HttpServer,
    Middleware,
    Provider,
    Route,
    ServiceInfo,
    Signature,
    Store,
    Transport,
    Wiring,
)
from .listening import Listening
from .plugins import Plugins
from .scope import Scope

__all__ = ["Runtime"]

logger = logging.getLogger("cliffracer")


class Runtime:
    """A running service. `start` and `stop` are called once each."""

    settings: Settings
    info: ServiceInfo
    scope: Scope
    caller: Caller
    wiring: Wiring
    health_checks: Mapping[str, Check]

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.ready = False
        self.handlers: dict[str, Handler] = {}
        self._adopted: dict[str, Handler] = {}
        self.transports: dict[str, Transport] = {}
        self.stores: dict[str, Store] = {}
        given = blueprint.plugins
        self.plugins = given if isinstance(given, Plugins) else load_plugins(given)
        self.providers: dict[str, Provider] = {}
        self._opened = contextlib.AsyncExitStack()
        self._resources = contextlib.AsyncExitStack()
        self._lifespans = contextlib.AsyncExitStack()
        self.listening: Listening | None = None
        self._servers: list[HttpServer] = []
        self._entries: list[EntryPoint] = []
        self._undo: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._grace_s = 10.0
        self._stop_by: float | None = None

    async def start(self) -> None:
        """Start step by step.

        Raises:
            CliffracerError: a step failed; the message names service and step, and all before it is undone.
        """
        steps: list[tuple[str, Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]] = [
            ("settings", self.compile, self._end_settings),
            ("transports", self._begin_transports, self._opened.aclose),
            ("providers", self._begin_providers, self._resources.aclose),
            ("lifespans", self._begin_lifespans, self._lifespans.aclose),
            ("handlers", self._begin_handlers, self._end_handlers),
            ("listeners", self._begin_listeners, self._end_listeners),
            ("timers", self._begin_timers, self._end_timers),
            ("ready", self._begin_ready, self._end_ready),
        ]
        for name, begin, end in steps:
            self._undo.append((name, end))
            try:
                await begin()
            except BaseException as error:
                await self.stop()
                named = self._named(name, error)
                raise named from (error.__cause__ if named is error else error)

    def _named(self, step: str, error: BaseException) -> BaseException:
        where = f"service {self.blueprint.config.name!r}, step {step!r}"
        if isinstance(error, CliffracerError):
            error.message = f"{where}: {error.message}"
            error.args = (error.message,)
            return error
        if isinstance(error, Exception):
            return StartupError(f"{where}: {type(error).__name__}: {error}; see the cause")
        return error

    async def stop(self) -> None:
        """Stop in reverse order; a step that fails or takes too long is logged, and the next one runs."""
        self.ready = False
        loop = asyncio.get_running_loop()
        if self._stop_by is None:
            self._stop_by = loop.time() + self._grace_s
        while self._undo:
            name, end = self._undo.pop()
            try:
                async with asyncio.timeout_at(max(self._stop_by, loop.time() + 0.2)):
                    await end()
            except Exception as error:
                logger.error("service %r, stop of step %r: %s", self.blueprint.config.name, name, describe(error))

    async def compile(self) -> None:
        """Resolve settings and compile every handler; the first step of a start, without any I/O.

        Raises:
            ConfigurationError, PluginError: something is declared or set wrongly.
        """
        plan = self.blueprint
        self.settings = resolve_settings(
            self.plugins, plan.config, class_values=plan.class_values, overrides=plan.overrides
        )
        kernel = self.settings.kernel
        self._grace_s = kernel.shutdown_grace_s
        self.info = service_info(self.settings)
        self.scope = Scope(
            kernel.name, timeout_s=kernel.timeout, max_timeout_s=kernel.max_timeout_s, queue_size=kernel.queue_size
        )
        self.builder = Builder(plan.injectables, plan.replace)
        self._ask_once()
        implied = dict(pair for _, pair in self.plugins.ask("cliffracer_register_handler_names"))
        for declaration in gather(
            plan.owner, plan.functions, plan.controllers, self.builder, kernel.name, plan.errors, implied
        ):
            self.handlers[declaration.name] = self._compile(declaration)
        declarations = [handler.declaration for handler in self.handlers.values()]
        check_declarations(declarations, self.plugins)
        self.transports = make_transports(self.plugins, self.settings, self.info)
        self.stores = make_stores(self.plugins, self.settings, self.info)
        self.caller = Caller(
            kernel.name,
            self.transports,
            timeout_s=kernel.timeout,
            content_type=kernel.content_type,
            ask=lambda declaration: self.plugins.ask(
                "cliffracer_register_outgoing", declaration=declaration, service=self.info
            ),
        )
        self.wiring = Wiring(
            service=self.info,
            declarations=declarations,
            security=security_of(self.plugins, declarations, self.info),
            signatures={name: _signature(handler) for name, handler in self.handlers.items()},
            transports=self.transports,
            stores=self.stores,
            ready=lambda: self.ready,
            providers=self.providers,
            health=self.health,
            timeout_s=self.settings.kernel.timeout,
            grace_s=self._grace_s,
            attributes=self.blueprint.attributes,
            adopt=self._adopt,
        )

    def _ask_once(self) -> None:
        ask = self.plugins.ask
        self._injectables = once("injectable type", ask("cliffracer_register_injectables"))
        self._authenticators = [each for _, each in ask("cliffracer_register_authenticators", service=self.info)]
        self._sinks = [each for _, each in ask("cliffracer_register_metrics_sinks", service=self.info)]
        checks = once("health check", ask("cliffracer_register_health_checks", service=self.info))
        self.health_checks = {
            name: check if isinstance(check, Check) else Check(run=check) for name, check in checks.items()
        }

    def _compile(self, declaration: Declaration) -> Handler:
        layers: list[tuple[str, Middleware]] = list(
            self.plugins.ask("cliffracer_register_middleware", declaration=declaration, service=self.info)
        )
        if self._authenticators:
            layers.append(("core", authenticate(self._authenticators)))
        if self._sinks:
            layers.append(("core", measure(self._sinks, declaration.where)))
        return compile_handler(
            declaration, layers, self._injectables, self.blueprint.errors, self.scope,
            concurrency=self.settings.kernel.concurrency,
        )  # fmt: skip

    def _adopt(self, name: str, function: Callable[..., Any]) -> tuple[Entry, Signature]:
        declaration = Declaration(self.info.name, name, function, marks_of(function), inspect.getdoc(function) or "")
        check_declarations([declaration], self.plugins)
        handler = self._compile(declaration)
        old = self._adopted.get(name)
        if old is not None:
            old.close()
            if old.gate.idle:
                self.scope.gates.remove(old.gate)
        self._adopted[name] = handler
        return handler, _signature(handler)

    async def _end_settings(self) -> None:
        for handler in (*self.handlers.values(), *self._adopted.values()):
            handler.close()

    async def health(self) -> dict[str, Mapping[str, object]]:
        """Ask every health check, all at once; see `CliffracerService.health`."""

        async def ask(check: Check) -> Mapping[str, object] | None:
            try:
                return await asyncio.wait_for(check.run(), check.timeout_s)
            except TimeoutError as error:
                return {"error": str(error) or f"no answer within {check.timeout_s:g} s"}
            except (Exception, CliffracerError) as error:
                return {"error": describe(error)}

        report: dict[str, Mapping[str, object]] = {
            f"transport {name}": {"connected": each.connected} for name, each in self.transports.items()
        }
        answers = await asyncio.gather(*map(ask, self.health_checks.values()))
        found = zip(self.health_checks, answers, strict=True)
        return report | {name: answer for name, answer in found if answer is not None}

    def explain(self, name: str) -> dict[str, list[str]]:
        """Return the chains around a handler: `in`, and `call` and `publish` on the way out.

        Raises:
            ConfigurationError: there is no such handler.
        """
        if name not in self.handlers:
            known = ", ".join(sorted(self.handlers))
            raise ConfigurationError(f"service {self.info.name!r} has no handler {name!r}; it has {known}")
        return {
            "in": self.handlers[name].explain(),
            "call": [*self.caller.call_layers, "encode"],
            "publish": [*self.caller.publish_layers, "encode"],
        }

    async def _begin_transports(self) -> None:
        await self._opened.enter_async_context(opened(self.transports, "transport", self._log))
        await self._opened.enter_async_context(opened(self.stores, "store", self._log))
        for handler in self.handlers.values():
            check_capabilities(handler.declaration, self.transports)

    async def _begin_providers(self) -> None:
        owner = self.blueprint.owner
        for name in self.blueprint.replace:
            if isinstance(name, str) and not hasattr(type(owner), name) and name not in self.builder.known:
                known = ", ".join(sorted(each for each in vars(type(owner)) if not each.startswith("_"))) or "none"
                raise ConfigurationError(
                    f"replace names {name!r}, which is no attribute of the class and nothing it injects; it has {known}"
                )
        for name in dict.fromkeys(name for cls in reversed(type(owner).__mro__) for name in vars(cls)):
            template = getattr(type(owner), name, None)
            resource = self.blueprint.replace.get(name, template)
            if isinstance(resource, Provider) and not isinstance(resource, type):
                resource = self.providers[name] = resource.bind(self.info, name)
                await resource.open()
                self._resources.push_async_callback(resource.close)
            elif resource is template:
                continue
            setattr(owner, name, resource)
        for built in list(self.builder.built.values()):
            if callable(getattr(built, "open", None)) and callable(getattr(built, "close", None)):
                await built.open()  # type: ignore[attr-defined]  # asked for on the line before
                self._resources.push_async_callback(built.close)  # type: ignore[attr-defined]

    async def _begin_lifespans(self) -> None:
        for _, lifespan in self.plugins.ask("cliffracer_register_lifespans", service=self.info):
            await self._lifespans.enter_async_context(lifespan(self.wiring))

    async def _begin_handlers(self) -> None:
        kernel = self.settings.kernel
        self.listening = Listening(
            self.scope, self.transports, self._sinks, queue_size=kernel.queue_size, event_buffer=kernel.event_buffer,
            instance=self.info.id,
        )  # fmt: skip
        await self.listening.start(self.handlers.values())

    async def _end_handlers(self) -> None:
        if self.listening is not None:
            await self.listening.stop((self._stop_by or 0.0) - 0.2 * self._grace_s)

    async def _begin_listeners(self) -> None:
        routes: list[tuple[Route, Handler]] = []
        for handler in self.handlers.values():
            for hook in ("cliffracer_register_routes", "cliffracer_register_websocket_routes"):
                routes += [
                    (route, handler)
                    for _, route in self.plugins.ask(hook, declaration=handler.declaration, service=self.info)
                ]
        found = [route for route, _ in routes]
        servers = list(
            self.plugins.ask("cliffracer_register_http_server", service=self.info, wiring=self.wiring, routes=found)
        )
        if not routes and not servers:
            return
        asgi = [each for _, each in self.plugins.ask("cliffracer_register_asgi_middleware", service=self.info)]
        if len(servers) != 1:
            names = ", ".join(repr(plugin) for plugin, _ in servers) or "none"
            raise ConfigurationError(
                f"routes need exactly one HTTP server, offered by: {names}; install cliffracer-http"
            )
        self._servers.append(servers[0][1])
        await servers[0][1].start(self.wiring, routes, asgi)

    async def _end_listeners(self) -> None:
        for server in self._servers:
            await server.stop()

    async def _begin_timers(self) -> None:
        for handler in self.handlers.values():
            for _, entry in self.plugins.ask(
                "cliffracer_register_entry_points", declaration=handler.declaration, service=self.info
            ):
                self._entries.append(entry)
                await entry.start(handler)

    async def _end_timers(self) -> None:
        for entry in reversed(self._entries):
            await entry.stop()

    async def _begin_ready(self) -> None:
        self.ready = True
        logger.info("service %r is ready: %s", self.info.name, ", ".join(sorted(self.handlers)) or "no handlers")
        list(self.plugins.ask("cliffracer_on_ready", service=self.info))

    async def _end_ready(self) -> None:
        for error in self.plugins.tell("cliffracer_on_stopping", service=self.info):
            self._log("a plugin did not hear of the stop", error)

    def _log(self, text: str, error: BaseException) -> None:
        logger.error("service %r: %s: %s", self.blueprint.config.name, text, describe(error))


def _signature(handler: Handler) -> Signature:
    arguments = handler.arguments
    return Signature(arguments.schema_type, arguments.returns, handler.streams, arguments.injected)

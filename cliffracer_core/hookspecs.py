"""Every hook, grouped by area: the plugin author's manual.

A plugin is a module with functions of these names under `@hookimpl`, or a class with such methods, which
is instantiated once per process start and may keep state. It is found through the entry-point group
`cliffracer`; the entry point's name is the plugin's name:

    [project.entry-points.cliffracer]
    greeter = "cliffracer_greeter.plugin"

All hooks are synchronous and run while a service starts, never per message. What they return may be
asynchronous. Plugins are asked in the order of their names; a hook that raises stops the start with a
`PluginError` that names the plugin and the hook. A plugin may leave out arguments it does not need.

`cliffracer_register_<noun>` collects typed objects, `cliffracer_on_<event>` notifies. An area marked
*provisional* may change until a plugin of this project ships that uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pluggy

from .handlers import Declaration, Mark
from .interfaces import (
    Authenticator,
    Check,
    EntryPoint,
    HealthCheck,
    HttpServer,
    Lifespan,
    MetricsSink,
    Middleware,
    OutgoingDeclaration,
    Resolver,
    Route,
    Section,
    Security,
    ServiceAttribute,
    ServiceInfo,
    StoreFactory,
    TransportFactory,
    Wiring,
)

__all__ = ["PROVISIONAL", "hookimpl", "hookspec"]

PROJECT = "cliffracer"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

# --- settings ---------------------------------------------------------------------------------------


@hookspec
def cliffracer_register_settings() -> Sequence[Section]:
    """Offer sections of settings; asked at each start of a service or client, before any other hook. Since 0.1.

    Returns:
        Sections, usually one under the plugin's own name. Two plugins that claim one section or flat
        name stop the start. The resolved Struct is in `ServiceInfo.settings[name]`.
    """
    raise NotImplementedError


@hookspec
def cliffracer_register_service_attributes() -> Mapping[str, ServiceAttribute]:
    """Offer attributes of service objects, such as `service.app` or the decorator `service.get`. Since 0.1.

    Asked once for each service object, when it is first asked for an attribute it does not have; the
    plugins loaded then are those it starts with. What a class itself defines is never replaced.

    Returns:
        Name to a function that takes the service, which need not be running, and makes the value. It is
        called at most once for each service object; what it made is in `Wiring.attributes`. Two plugins
        that offer one name fail where an attribute is asked for.
    """
    raise NotImplementedError


# --- transport --------------------------------------------------------------------------------------


@hookspec
def cliffracer_register_transports() -> Sequence[TransportFactory]:
    """Offer transports by URL scheme; asked once, before services connect. Since 0.1.

    Returns:
        Factories. `create` is called once per service and configured transport and must do no I/O;
        import the client library there, not in `plugin.py`. One scheme twice stops the start.
    """
    raise NotImplementedError


# --- persistence ------------------------------------------------------------------------------------


@hookspec
def cliffracer_register_stores() -> Sequence[StoreFactory]:
    """Offer stores by URL scheme; asked once, before services connect. Since 0.1.

    Returns:
        Factories, under the same rules as transports.
    """
    raise NotImplementedError


# --- handlers ---------------------------------------------------------------------------------------


@hookspec
def cliffracer_register_middleware(declaration: Declaration, service: ServiceInfo) -> Sequence[Middleware]:
    """Wrap a handler; asked once per handler and plugin, at start. Since 0.1.

    Args:
        declaration: the handler, with its marks; look for your own with `declaration.find(owner)`.
        service: whose it is, with your section in `service.settings`.

    Returns:
        Layers, sorted by stage, order and plugin name; an empty sequence adds nothing to the chain.
    """
    raise NotImplementedError


@hookspec
def cliffracer_register_outgoing(declaration: OutgoingDeclaration, service: ServiceInfo) -> Sequence[Middleware]:
    """Wrap what a service sends; asked once per service and kind (`call`, `publish`), at start. Since 0.1.

    Returns:
        Layers around the send; each step takes an `Outgoing` and returns the reply.
    """
    raise NotImplementedError


@hookspec
def cliffracer_register_handler_names() -> Mapping[str, Mark]:
    """Make methods handlers by their names, such as `on_websocket_message`; asked once per service. Since 0.1.

    Returns:
        Name to the mark a method of that name has without a decorator. Of two plugins that name one, the
        later by name wins.
    """
    raise NotImplementedError


@hookspec
def cliffracer_register_injectables() -> Mapping[type, Resolver]:
    """Offer types that handlers may ask for by annotation; asked once, before handlers compile. Since 0.1.

    Returns:
        Type to a function that takes the call's `MessageContext` and gives the value.
    """
    raise NotImplementedError


@hookspec
def cliffracer_register_entry_points(declaration: Declaration, service: ServiceInfo) -> Sequence[EntryPoint]:
    """Call a handler from elsewhere (timers, other queues); asked once per handler. Since 0.1.

    Returns:
        Entry points, started after the handlers listen and stopped before anything else.
    """
    raise NotImplementedError


# --- HTTP -------------------------------------------------------------------------------------------


@hookspec
def cliffracer_register_routes(declaration: Declaration, service: ServiceInfo) -> Sequence[Route]:
    """Find the HTTP routes of a handler; asked once per handler. Since 0.1.

    Returns:
        Routes. Where any plugin returns one, a plugin must offer the server. A route whose plugin serves it
        itself has `options={"endpoint": make}`, where `make(entry)` returns an async function of `scope`,
        `receive`, `send` and the values in the path, by name.
    """
    raise NotImplementedError


@hookspec
def cliffracer_register_asgi_middleware(service: ServiceInfo) -> Sequence[Callable[..., Any]]:
    """Offer ASGI middleware factories, outermost first; asked once per service. Since 0.1. Provisional."""
    raise NotImplementedError


@hookspec
def cliffracer_register_http_server(
    service: ServiceInfo, wiring: Wiring, routes: Sequence[Route]
) -> Sequence[HttpServer]:
    """Offer an HTTP server; asked once per service, also where it has no routes. Since 0.1.

    Args:
        service: whose routes they are.
        wiring: what the server's `start` is given too.
        routes: what all plugins found; where there are any, one plugin must offer a server.

    Returns:
        At most one server in all; two stop the start.
    """
    raise NotImplementedError


# --- websocket --------------------------------------------------------------------------------------


@hookspec
def cliffracer_register_websocket_routes(declaration: Declaration, service: ServiceInfo) -> Sequence[Route]:
    """Find the websocket routes of a handler; asked once per handler. Since 0.1.

    Returns:
        Routes with `methods=("WEBSOCKET",)` and an `endpoint` as for HTTP routes, served with the others.
    """
    raise NotImplementedError


# --- auth -------------------------------------------------------------------------------------------


@hookspec
def cliffracer_register_authenticators(service: ServiceInfo) -> Sequence[Authenticator]:
    """Offer authenticators; asked once per service. Since 0.1. Provisional.

    Returns:
        Authenticators, asked in order for each call until one knows the identity; where none does the
        call goes on without one, and guards decide. An AuthenticationError refuses the call.
    """
    raise NotImplementedError


@hookspec
def cliffracer_register_security(declaration: Declaration, service: ServiceInfo) -> Sequence[Security]:
    """Say how a handler's callers are let in, for documents; asked once per handler, at start. Since 0.1. Provisional.

    Returns:
        Ways to be let in, any of which will do, those of other plugins too; in `Wiring.security`. They guard nothing:
        that is for a `Middleware`. Two schemes of one name that differ stop the start.
    """
    raise NotImplementedError


# --- metrics ----------------------------------------------------------------------------------------


@hookspec
def cliffracer_register_metrics_sinks(service: ServiceInfo) -> Sequence[MetricsSink]:
    """Offer sinks; asked once per service. Since 0.1. Provisional.

    Returns:
        Sinks, each of which gets what the kernel counts: `calls` and `seconds` per handler and outcome,
        `dropped` events. Without a sink nothing is counted.
    """
    raise NotImplementedError


# --- lifecycle --------------------------------------------------------------------------------------


@hookspec
def cliffracer_register_lifespans(service: ServiceInfo) -> Sequence[Lifespan]:
    """Offer async context managers around a service's running time; asked once per service. Since 0.1.

    Returns:
        Functions from `Wiring` to a context manager; entered in order after providers are open and left
        in reverse after handlers have stopped. One that raises on entry stops the start.
    """
    raise NotImplementedError


@hookspec
def cliffracer_register_health_checks(service: ServiceInfo) -> Mapping[str, HealthCheck | Check]:
    """Offer named health checks; asked once per service, called by `service.health()`. Since 0.1.

    Returns:
        Name to a check. It has 5 s, or what its `Check` says; all run at once.
    """
    raise NotImplementedError


@hookspec
def cliffracer_on_ready(service: ServiceInfo) -> None:
    """Hear that a service is ready; called once, after all else has started. Since 0.1.

    A failure stops the start and undoes it.
    """
    raise NotImplementedError


@hookspec
def cliffracer_on_stopping(service: ServiceInfo) -> None:
    """Hear that a service begins to stop; called once, before anything else stops. Since 0.1.

    A failure is logged and the stop goes on.
    """
    raise NotImplementedError


# --- pluginmanager ----------------------------------------------------------------------------------


@hookspec
def cliffracer_add_hookspecs(pluginmanager: pluggy.PluginManager) -> None:
    """Add hooks of one's own; called once, when all plugins are registered. Since 0.1.

    Call `pluginmanager.add_hookspecs(module)`. Others implement such hooks under
    `@hookimpl(optionalhook=True)`, so that they still load where the offering plugin is missing.
    """
    raise NotImplementedError


PROVISIONAL = frozenset(
    name
    for name, function in list(globals().items())
    if name.startswith("cliffracer_") and "Provisional." in (function.__doc__ or "")
)
"""Hooks that may still change: no plugin of this project uses them yet."""

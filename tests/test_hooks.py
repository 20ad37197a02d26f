"""Every hook on a running service, and the rule that a hook has docs, a test and a plugin that uses it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pluggy
import pytest

from cliffracer_core import (
    AuthenticationError,
    AuthorizationError,
    ClientProxy,
    CliffracerService,
    ConfigurationError,
    ConnectionError,
    Identity,
    MessageContext,
    Middleware,
    PluginError,
    Section,
    ServiceConfig,
    ServiceInfo,
    StartupError,
    ValidationError,
    event,
    hookimpl,
    hookspec,
    hookspecs,
    mark,
    rpc,
)
from cliffracer_core.handlers import Declaration, Mark
from cliffracer_core.interfaces import (
    Check,
    Entry,
    Outgoing,
    OutgoingDeclaration,
    Route,
    Security,
    StoreFactory,
    TransportFactory,
    Wiring,
)
from cliffracer_core.memory import MemoryStore, MemoryTransport
from cliffracer_core.testing import Collector, unique

ROOT = Path(__file__).parent.parent
HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("cliffracer_"))


@pytest.fixture(autouse=True)
def kernel_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIFFRACER_PLUGINS", "")
    monkeypatch.chdir(tmp_path)


class ShopSettings(msgspec.Struct, frozen=True):
    currency: str = "EUR"


class Session:
    """What a plugin injects."""

    def __init__(self, owner: str) -> None:
        self.owner = owner


def get(path: str) -> Callable[[Any], Any]:
    """A plugin's decorator."""
    return lambda function: mark(function, "shop", "route", path)


def socket(path: str) -> Callable[[Any], Any]:
    return lambda function: mark(function, "shop", "socket", path)


def every(period: str) -> Callable[[Any], Any]:
    return lambda function: mark(function, "shop", "timer", period)


class Server:
    """An HTTP server without a port: a test calls its routes."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.asgi: Sequence[Any] = ()
        self.entries: dict[tuple[str, str], Entry] = {}

    async def start(self, wiring: Wiring, routes: Sequence[tuple[Route, Entry]], asgi: Sequence[Any]) -> None:
        self.log.append("server starts")
        self.asgi = asgi
        self.entries = {(route.methods[0], route.path): entry for route, entry in routes}

    async def stop(self) -> None:
        self.log.append("server stops")

    async def request(self, method: str, path: str, **options: Any) -> object:
        return await self.entries[method, path].invoke(kind="http", subject=path, **options)


class Timer:
    """An entry point whose ticks a test makes."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.entry: Entry | None = None

    async def start(self, entry: Entry) -> None:
        self.log.append("timer starts")
        self.entry = entry

    async def stop(self) -> None:
        self.log.append("timer stops")


class TokenAuthenticator:
    """Knows `Authorization: Bearer <name>`."""

    async def authenticate(self, headers: Mapping[str, str]) -> Identity | None:
        token = headers.get("Authorization")
        if token is None:
            return None
        if not token.startswith("Bearer "):
            raise AuthenticationError("header 'Authorization' holds no bearer token")
        return Identity(id=token.removeprefix("Bearer "))


class KeyAuthenticator:
    """Knows `X-API-Key`; asked only where the one before did not know."""

    def __init__(self) -> None:
        self.asked = 0

    async def authenticate(self, headers: Mapping[str, str]) -> Identity | None:
        self.asked += 1
        return Identity(id="key") if "X-API-Key" in headers else None


class Sink:
    def __init__(self) -> None:
        self.taken: list[tuple[str, float, dict[str, str]]] = []

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self.taken.append((name, value, dict(labels)))


class Till:
    """What a plugin makes for a service."""

    def __init__(self, service: Any) -> None:
        self.service = service


class Everything:
    """A plugin that implements every hook there is."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.asked: list[str] = []
        self.server = Server(self.log)
        self.timer = Timer(self.log)
        self.key_authenticator = KeyAuthenticator()
        self.sink = Sink()
        self.wiring: Wiring | None = None
        self.transport = MemoryTransport(f"memory://{unique()}")
        self.store = MemoryStore(f"memory://{unique()}")
        self.ill = False
        self.scheme: dict[str, object] = {"type": "http", "scheme": "bearer"}

    @hookimpl
    def cliffracer_register_settings(self) -> Sequence[Section]:
        self.asked.append("cliffracer_register_settings")
        return [Section(name="shop", type=ShopSettings, flat={"shop_currency": "currency"})]

    @hookimpl
    def cliffracer_register_transports(self) -> Sequence[TransportFactory]:
        self.asked.append("cliffracer_register_transports")
        return [TransportFactory(schemes=("shop",), create=self.make_transport)]

    def make_transport(self, url: str, service: ServiceInfo) -> MemoryTransport:
        self.log.append(f"transport {url} for {service.name}, {service.settings['shop']}")
        return self.transport

    @hookimpl
    def cliffracer_register_stores(self) -> Sequence[StoreFactory]:
        self.asked.append("cliffracer_register_stores")
        return [StoreFactory(schemes=("shop",), create=lambda url, service: self.store)]

    @hookimpl
    def cliffracer_register_middleware(self, declaration: Declaration) -> Sequence[Middleware]:
        self.asked.append(f"cliffracer_register_middleware {declaration.where}")
        if declaration.name != "buy":
            return []
        return [
            Middleware("shape", 0, self.layer("shape 0"), "inner"),
            Middleware("guard", 5, self.layer("guard 5")),
            Middleware("guard", -5, self.layer("guard -5")),
            Middleware("observe", 0, self.layer("observe 0")),
        ]

    def layer(self, name: str) -> Callable[[Any], Any]:
        """Make a layer that says what it sees on the way in, and how the call ended on the way out."""

        def wrap(next: Any) -> Any:
            self.log.append(f"wrap {name}")

            async def call(context: MessageContext) -> object:
                self.log.append(f"{name}: {context.arguments and sorted(context.arguments)}")
                context.state["seen"] = [*context.state.get("seen", []), name]  # type: ignore[misc]  # a list of ours
                try:
                    return await next(context)
                finally:
                    self.log.append(f"{name} ends")

            return call

        return wrap

    @hookimpl
    def cliffracer_register_outgoing(self, declaration: OutgoingDeclaration) -> Sequence[Middleware]:
        self.asked.append(f"cliffracer_register_outgoing {declaration.kind} of {declaration.service}")

        def wrap(next: Any) -> Any:
            async def send(outgoing: Outgoing) -> object:
                outgoing.headers["X-Sent-By"] = f"{outgoing.service} {outgoing.kind}"
                return await next(outgoing)

            return send

        return [Middleware("observe", 0, wrap, "stamp")]

    @hookimpl
    def cliffracer_register_injectables(self) -> Mapping[type, Callable[[MessageContext], object]]:
        self.asked.append("cliffracer_register_injectables")
        return {Session: lambda context: Session(context.identity.id if context.identity else "nobody")}

    @hookimpl
    def cliffracer_register_handler_names(self) -> Mapping[str, Mark]:
        self.asked.append("cliffracer_register_handler_names")
        return {"on_delivery": Mark("shop", "delivery")}

    @hookimpl
    def cliffracer_register_entry_points(self, declaration: Declaration) -> Sequence[Timer]:
        self.asked.append(f"cliffracer_register_entry_points {declaration.where}")
        return [self.timer for _ in declaration.find("shop", "timer")]

    @hookimpl
    def cliffracer_register_routes(self, declaration: Declaration) -> Sequence[Route]:
        self.asked.append(f"cliffracer_register_routes {declaration.where}")
        return [Route(path=each.options, declaration=declaration) for each in declaration.find("shop", "route")]

    @hookimpl
    def cliffracer_register_websocket_routes(self, declaration: Declaration) -> Sequence[Route]:
        self.asked.append(f"cliffracer_register_websocket_routes {declaration.where}")
        return [Route(path=each.options, methods=("WEBSOCKET",)) for each in declaration.find("shop", "socket")]

    @hookimpl
    def cliffracer_register_asgi_middleware(self, service: ServiceInfo) -> Sequence[Callable[..., Any]]:
        self.asked.append("cliffracer_register_asgi_middleware")
        return [Server, Timer]

    @hookimpl
    def cliffracer_register_http_server(self, wiring: Wiring, routes: Sequence[Route]) -> Sequence[Server]:
        self.asked.append("cliffracer_register_http_server")
        return [self.server] if routes else []

    @hookimpl
    def cliffracer_register_service_attributes(self) -> Mapping[str, Callable[[Any], object]]:
        self.asked.append("cliffracer_register_service_attributes")
        return {"till": Till, "get": lambda service: lambda path: service.handler(get(path))}

    @hookimpl
    def cliffracer_register_authenticators(self, service: ServiceInfo) -> Sequence[Any]:
        self.asked.append("cliffracer_register_authenticators")
        return [TokenAuthenticator(), self.key_authenticator]

    @hookimpl
    def cliffracer_register_security(self, declaration: Declaration) -> Sequence[Security]:
        self.asked.append(f"cliffracer_register_security {declaration.where}")
        if declaration.name != "price":
            return []
        return [Security(name="till", scheme=self.scheme, scopes=["clerk"]), Security()]

    @hookimpl
    def cliffracer_register_metrics_sinks(self, service: ServiceInfo) -> Sequence[Sink]:
        self.asked.append("cliffracer_register_metrics_sinks")
        return [self.sink]

    @hookimpl
    def cliffracer_register_lifespans(self, service: ServiceInfo) -> Sequence[Any]:
        self.asked.append("cliffracer_register_lifespans")
        return [self.lifespan("first"), self.lifespan("second")]

    def lifespan(self, name: str) -> Any:
        @contextlib.asynccontextmanager
        async def around(wiring: Wiring) -> AsyncIterator[None]:
            self.wiring = wiring
            self.log.append(
                f"{name} begins, ready {wiring.ready()}, connected {wiring.transports['default'].connected}"
            )
            yield
            self.log.append(f"{name} ends, ready {wiring.ready()}, connected {wiring.transports['default'].connected}")

        return around

    @hookimpl
    def cliffracer_register_health_checks(self, service: ServiceInfo) -> Mapping[str, Any]:
        self.asked.append("cliffracer_register_health_checks")
        return {"stock": self.check}

    async def check(self) -> Mapping[str, object]:
        if self.ill:
            raise ConnectionError("stock is gone")
        return {"items": 3}

    @hookimpl
    def cliffracer_on_ready(self, service: ServiceInfo) -> None:
        self.asked.append("cliffracer_on_ready")
        self.log.append(f"ready {service.name} {service.version}")

    @hookimpl
    def cliffracer_on_stopping(self, service: ServiceInfo) -> None:
        self.asked.append("cliffracer_on_stopping")
        self.log.append(f"stopping {service.name}")

    @hookimpl
    def cliffracer_add_hookspecs(self, pluginmanager: pluggy.PluginManager) -> None:
        self.asked.append("cliffracer_add_hookspecs")
        pluginmanager.add_hookspecs(ShopHooks)


def connected(plugin: Everything) -> bool:
    return plugin.transport.connected


class ShopHooks:
    """Hooks that the plugin above offers to others."""

    @hookspec
    def cliffracer_register_discounts(self, service: ServiceInfo) -> Sequence[int]:
        """Offer discounts."""
        raise NotImplementedError


class Shop(CliffracerService):
    version = "1.0.0"

    def __init__(self, plugin: Any, **values: Any) -> None:
        config = ServiceConfig("shop", transport="shop://h", store="shop://h", **values)
        super().__init__(config, plugins=plugin if isinstance(plugin, dict) else {"shop": plugin})
        self.seen: Collector[Any] = Collector()

    @rpc
    async def buy(self, item: str, context: MessageContext, session: Session) -> list[Any]:
        return [item, session.owner, context.identity and context.identity.id, context.state.get("seen")]

    @get("/price")
    async def price(self, item: str, factor: float = 1.0) -> float:
        return len(item) * factor

    @socket("/live")
    async def live(self, text: str) -> str:
        return text.upper()

    @every("1m")
    async def restock(self, context: MessageContext) -> str:
        return f"{context.kind} {context.subject}"

    @rpc
    async def sender(self, context: MessageContext) -> str:
        return context.headers["X-Sent-By"]

    @event("bought")
    async def on_bought(self, item: str, context: MessageContext) -> None:
        self.seen((item, context.headers["X-Sent-By"]))

    @rpc
    async def fail(self) -> None:
        raise AuthorizationError("no")


# --- each hook --------------------------------------------------------------------------------------


async def test_hooks_are_asked_as_documented_when_a_service_starts_and_stops() -> None:
    """Settings first; what is per service once, what is per handler once for each; ready last, stopping at the stop."""
    plugin = Everything()
    handlers = ("buy", "price", "live", "restock", "sender", "on_bought", "fail")
    async with Shop(plugin):
        assert plugin.asked[-1] == "cliffracer_on_ready"
    assert plugin.asked[:2] == ["cliffracer_add_hookspecs", "cliffracer_register_settings"]
    assert plugin.asked[-1] == "cliffracer_on_stopping"
    per_handler = ("middleware", "entry_points", "routes", "websocket_routes", "security")
    expected = {f"cliffracer_register_{what} shop.{handler}" for what in per_handler for handler in handlers}
    expected |= {f"cliffracer_register_outgoing {kind} of shop" for kind in ("call", "publish")}
    once = set(HOOKS) - {f"cliffracer_register_{what}" for what in (*per_handler, "outgoing", "service_attributes")}
    assert sorted(plugin.asked) == sorted(expected | once)


async def test_section_reaches_the_plugin_when_settings_are_registered() -> None:
    """A registered section is resolved, flat names too, and stands in ServiceInfo."""
    plugin = Everything()
    async with Shop(plugin, shop_currency="GBP") as service:
        assert service.info.settings["shop"] == ShopSettings("GBP")
    assert "transport shop://h for shop, ShopSettings(currency='GBP')" in plugin.log


async def test_service_uses_them_when_transports_and_stores_are_registered() -> None:
    """A URL's scheme leads to the plugin that serves it, and what it makes is opened and closed."""
    plugin = Everything()
    async with Shop(plugin) as service:
        assert service.runtime.transports == {"default": plugin.transport}
        assert service.runtime.stores == {"default": plugin.store}
        assert connected(plugin)
        assert await plugin.store.put("k", b"v") > 0
    assert not connected(plugin)
    with pytest.raises(ConnectionError):
        await plugin.store.put("k", b"v")


async def test_layers_nest_by_stage_and_order_when_several_are_registered() -> None:
    """Observe, decode, guard by order, shape, handler, and out again; each layer is wrapped once, innermost first."""
    plugin = Everything()
    async with Shop(plugin) as service:
        assert [each for each in plugin.log if each.startswith("wrap")] == [
            "wrap shape 0", "wrap guard 5", "wrap guard -5", "wrap observe 0",
        ]  # fmt: skip
        plugin.log.clear()
        reply = await service.rpc_call("shop", "buy", item="tea")
        assert reply == ["tea", "nobody", None, ["observe 0", "guard -5", "guard 5", "shape 0"]]
        assert plugin.log == [
            "observe 0: None", "guard -5: ['item']", "guard 5: ['item']", "shape 0: ['item']",
            "shape 0 ends", "guard 5 ends", "guard -5 ends", "observe 0 ends",
        ]  # fmt: skip


async def test_chain_is_explained_when_asked() -> None:
    """`explain` names each layer with its plugin, where decoding happens, and what wraps calls and publishes."""
    async with Shop(Everything()) as service:
        explained = await service.explain("buy")
    assert explained["in"] == [
        "observe core:measure", "observe shop:wrap", "decode", "guard core:authenticate", "guard shop:wrap",
        "guard shop:wrap", "shape shop:inner", "shop.buy",
    ]  # fmt: skip
    assert explained["call"] == explained["publish"] == ["observe shop:stamp", "encode"]


async def test_plugin_name_decides_when_stage_and_order_are_the_same() -> None:
    """Two layers of one stage and order nest by the names of their plugins, whoever was given first."""

    def named(name: str) -> Any:
        class Plugin:
            @hookimpl
            def cliffracer_register_middleware(self) -> Sequence[Middleware]:
                return [Middleware("guard", -1000, lambda next: next, name)]

            @hookimpl
            def cliffracer_register_authenticators(self) -> Sequence[Any]:
                return [KeyAuthenticator()]

        return Plugin()

    service = CliffracerService(ServiceConfig("s"), plugins={"zeta": named("z"), "alpha": named("a")})

    @service.rpc
    async def find() -> None: ...

    explained = await service.explain("find")
    assert explained["in"] == ["decode", "guard alpha:a", "guard core:authenticate", "guard zeta:z", "s.find"]


async def test_nothing_is_added_when_a_plugin_returns_no_layer() -> None:
    """A handler that no plugin wraps is decoded and called, and nothing else."""

    class Nothing:
        @hookimpl
        def cliffracer_register_middleware(self, declaration: Declaration) -> Sequence[Middleware]:
            return ()

    service = CliffracerService(ServiceConfig("s"), plugins={"nothing": Nothing()})

    @service.rpc
    async def find() -> None: ...

    assert (await service.explain("find"))["in"] == ["decode", "s.find"]


async def test_wrong_arguments_are_seen_by_observers_only_when_decoding_fails() -> None:
    """Decoding stands behind the observe stage: what measures sees the failure, what guards never runs."""
    plugin = Everything()
    async with Shop(plugin) as service:
        plugin.log.clear()
        with pytest.raises(ValidationError, match="argument 'item'"):
            await service.rpc_call("shop", "buy", item=5)
        assert plugin.log == ["observe 0: None", "observe 0 ends"]


async def test_what_is_sent_is_wrapped_when_outgoing_layers_are_registered() -> None:
    """Calls and publishes of a service, and of a client, pass through the outgoing layers."""
    plugin = Everything()
    async with Shop(plugin) as service:
        assert await service.rpc_call("shop", "sender") == "shop call"
        await service.publish("bought", {"item": "tea"})
        assert await service.seen.at_least(1) == [("tea", "shop publish")]


async def test_client_is_wrapped_too_when_outgoing_layers_are_registered() -> None:
    """A ClientProxy asks the same hook, as the service `client`."""
    plugin = Everything()
    async with Shop(plugin):
        other = Everything()
        other.transport = MemoryTransport(plugin.transport._url)
        async with ClientProxy("shop://h", plugins={"shop": other}) as client:
            assert await client.send("shop.sender") == "client call"


async def test_identity_is_in_the_context_when_an_authenticator_knows_it() -> None:
    """The first authenticator that knows the caller decides, and injected values see the identity."""
    plugin = Everything()
    async with Shop(plugin) as service:

        async def buy(**headers: str) -> Any:
            return (await service.caller.call("shop", "buy", {"item": "tea"}, headers=headers))[1:3]

        assert await buy(Authorization="Bearer ada") == ["ada", "ada"]
        assert plugin.key_authenticator.asked == 0
        assert await buy(**{"X-API-Key": "k"}) == ["key", "key"]
        assert await buy() == ["nobody", None]
        assert plugin.key_authenticator.asked == 2


async def test_call_is_refused_when_an_authenticator_raises() -> None:
    """Wrong credentials refuse the call before any other guard, and the caller gets the error."""
    plugin = Everything()
    async with Shop(plugin) as service:
        plugin.log.clear()
        with pytest.raises(AuthenticationError, match="no bearer token"):
            await service.caller.call("shop", "buy", {"item": "tea"}, headers={"Authorization": "Basic eve"})
        assert plugin.log == ["observe 0: None", "observe 0 ends"]


async def test_identity_stays_when_something_outside_has_set_it() -> None:
    """An observer that knows the caller already spares the authenticators."""
    plugin = Everything()

    class Outside:
        @hookimpl
        def cliffracer_register_middleware(self, declaration: Declaration) -> Sequence[Middleware]:
            def wrap(next: Any) -> Any:
                async def call(context: MessageContext) -> object:
                    context.identity = Identity(id="outside")
                    return await next(context)

                return call

            return [Middleware("observe", 0, wrap)]

    async with Shop({"shop": plugin, "outside": Outside()}) as service:
        assert (await service.rpc_call("shop", "buy", item="tea"))[2] == "outside"
    assert plugin.key_authenticator.asked == 0


async def test_ways_in_are_in_the_wiring_when_plugins_describe_them() -> None:
    """What plugins say of a handler's callers is there for documents, of a service that does not run too."""
    plugin = Everything()
    wiring = await Shop(plugin).wiring()
    (bearer, nothing) = wiring.security["price"]
    assert (bearer.name, bearer.scheme, bearer.scopes) == ("till", {"type": "http", "scheme": "bearer"}, ["clerk"])
    assert nothing.name == ""
    assert list(wiring.security) == ["price"]


async def test_start_fails_when_one_scheme_is_described_in_two_ways() -> None:
    """The error names both plugins and the scheme."""
    one, other = Everything(), Everything()
    other.scheme = {"type": "http", "scheme": "basic"}

    class Only:
        @hookimpl
        def cliffracer_register_security(self, declaration: Declaration) -> Sequence[Security]:
            return other.cliffracer_register_security(declaration)

    with pytest.raises(PluginError, match=r"'shop' and 'zoo' describe the security scheme 'till'"):
        await Shop({"shop": one, "zoo": Only()}).start()


async def test_calls_are_counted_when_sinks_are_registered() -> None:
    """Each call is one `calls` and its `seconds`, labelled with handler, kind and outcome, errors by their code."""
    plugin = Everything()
    async with Shop(plugin) as service:
        await service.rpc_call("shop", "sender")
        with pytest.raises(AuthorizationError):
            await service.rpc_call("shop", "fail")
        await service.publish("bought", {"item": "tea"})
        await service.seen.at_least(1)
    labels = [
        {"handler": "shop.sender", "kind": "rpc", "outcome": "ok"},
        {"handler": "shop.fail", "kind": "rpc", "outcome": "permission_denied"},
        {"handler": "shop.on_bought", "kind": "event", "outcome": "ok"},
    ]
    assert [(name, given) for name, _, given in plugin.sink.taken] == [
        (name, each) for each in labels for name in ("calls", "seconds")
    ]
    assert all(value == 1.0 if name == "calls" else value >= 0 for name, value, _ in plugin.sink.taken)


async def test_outcome_is_the_class_when_an_error_is_not_ours() -> None:
    """An unexpected error is counted by its class, without its message."""
    plugin = Everything()
    service = CliffracerService(ServiceConfig("s"), plugins={"shop": plugin})

    @service.rpc
    async def broken() -> None:
        raise KeyError("s3cret")

    async with service:
        with pytest.raises(Exception, match="internal error"):
            await service.rpc_call("s", "broken")
    assert plugin.sink.taken[0] == ("calls", 1.0, {"handler": "s.broken", "kind": "rpc", "outcome": "KeyError"})


async def test_handler_runs_when_an_entry_point_invokes_it() -> None:
    """A timer calls the compiled handler with a kind and subject of its own, and is stopped with the service."""
    plugin = Everything()
    async with Shop(plugin):
        assert plugin.timer.entry is not None
        assert plugin.timer.entry.name == "shop.restock"
        assert await plugin.timer.entry.invoke(kind="timer", arguments={}) == "timer shop.restock"
    assert plugin.sink.taken[0][2] == {"handler": "shop.restock", "kind": "timer", "outcome": "ok"}
    assert plugin.log.count("timer stops") == 1


async def test_routes_are_served_when_a_plugin_offers_the_server() -> None:
    """The server gets each route with its handler, ASGI middleware in order, and calls run through the whole chain."""
    plugin = Everything()
    async with Shop(plugin):
        server = plugin.server
        assert sorted(server.entries) == [("GET", "/price"), ("WEBSOCKET", "/live")]
        assert server.asgi == [Server, Timer]
        assert await server.request("GET", "/price", arguments={"item": "tea", "factor": 2.0}) == 6.0
        assert await server.request("GET", "/price", body=b'{"item": "tea"}') == 3.0
        assert await server.request("WEBSOCKET", "/live", arguments={"text": "hi"}) == "HI"
        with pytest.raises(ValidationError, match="argument 'factor'"):
            await server.request("GET", "/price", arguments={"item": "tea", "factor": "x"})
        with pytest.raises(AuthenticationError):
            await server.request("GET", "/price", arguments={"item": "x"}, headers={"Authorization": "Basic x"})


@pytest.mark.parametrize(("servers", "named"), [(0, "none"), (2, "'a', 'shop'")])
async def test_start_fails_when_routes_have_not_exactly_one_server(servers: int, named: str) -> None:
    """Routes without a server, or with two, stop the start; who offers one is named, and what to install."""

    class Second:
        @hookimpl
        def cliffracer_register_http_server(self, service: ServiceInfo) -> Sequence[Server]:
            return [Server([])]

    class Without(Everything):
        @hookimpl
        def cliffracer_register_http_server(self, wiring: Wiring, routes: Sequence[Route]) -> Sequence[Server]:
            return [self.server] if servers else []

    plugin = Without()
    with pytest.raises(
        ConfigurationError, match=f"exactly one HTTP server, offered by: {named}; install cliffracer-http"
    ):
        await Shop({"shop": plugin, **({"a": Second()} if servers else {})}).start()
    assert plugin.log[-2:] == [f"{name} ends, ready False, connected True" for name in ("second", "first")]
    assert not plugin.transport.connected


async def test_no_server_starts_when_there_are_no_routes() -> None:
    """A service without routes starts no HTTP server; plugins are asked, for one may serve something else."""
    plugin = Everything()
    async with CliffracerService(ServiceConfig("s"), plugins={"shop": plugin}):
        assert "server starts" not in plugin.log
    assert plugin.asked.count("cliffracer_register_http_server") == 1
    assert "cliffracer_register_asgi_middleware" not in plugin.asked


async def test_method_is_a_handler_when_a_plugin_names_it() -> None:
    """A method of that name has the plugin's mark, beside those of its decorators; others, and values, do not."""
    seen: list[Declaration] = []

    class Watching(Everything):
        @hookimpl
        def cliffracer_register_routes(self, declaration: Declaration) -> Sequence[Route]:
            seen.append(declaration)
            return []

    class Named(CliffracerService):
        @rpc
        async def on_delivery(self, item: str) -> str:
            return item

        async def on_departure(self) -> None: ...

    class Value(CliffracerService):
        on_delivery = "a value"

    config = ServiceConfig("named", transport="shop://h", store="shop://h")
    async with Named(config, plugins={"shop": Watching()}) as service:
        assert await service.rpc_call("named", "on_delivery", item="box") == "box"
    assert [(each.name, [mark.kind for mark in each.marks]) for each in seen] == [("on_delivery", ["rpc", "delivery"])]
    seen.clear()
    async with Value(config, plugins={"shop": Watching()}):
        assert seen == []


async def test_attribute_is_made_once_when_a_plugin_offers_it() -> None:
    """It is made for the service on first use, kept over restarts, and the server is handed it."""
    plugin = Everything()
    service: Any = Shop(plugin)
    till = service.till
    assert till.service is service
    async with service:
        assert service.till is till
        assert plugin.wiring is not None
        assert plugin.wiring.attributes == {"till": till}
    async with service:
        assert service.till is till
    assert plugin.asked.count("cliffracer_register_service_attributes") == 1


async def test_plugins_stay_when_an_attribute_is_first_used_while_running() -> None:
    """It is made by the very plugins that the service started with, which the next start keeps."""
    service: Any = Shop(Everything())
    async with service:
        running = service.runtime.plugins
        till = service.till
    async with service:
        assert service.runtime.plugins is running
        assert service.till is till


async def test_decorator_adds_a_handler_when_it_is_an_attribute() -> None:
    """`@service.get(...)` of a plugin is as good as one of the kernel's decorators."""
    plugin = Everything()
    service: Any = CliffracerService(ServiceConfig("s"), plugins={"shop": plugin})

    async def late() -> str:
        return "late"

    assert service.get("/late")(late) is late
    async with service:
        assert await plugin.server.request("GET", "/late") == "late"


def test_attribute_of_the_class_wins_when_a_plugin_offers_the_name_too() -> None:
    """What a program defines is never replaced."""

    class Own(CliffracerService):
        till = "mine"

    assert Own(plugins={"shop": Everything()}).till == "mine"


def test_attribute_error_says_what_there_is_when_no_plugin_offers_the_name() -> None:
    """A misspelt attribute is an AttributeError as ever, and so is one used before `super().__init__()`."""
    service: Any = Shop(Everything())
    with pytest.raises(AttributeError, match="'Shop' object has no attribute 'tll'; installed plugins offer get, till"):
        _ = service.tll
    with pytest.raises(AttributeError, match="has no attribute '_till'$"):
        _ = service._till

    class Early(CliffracerService):
        def __init__(self) -> None:
            self.till.open()  # type: ignore[attr-defined]  # the point of the test
            super().__init__()

    with pytest.raises(AttributeError, match=r"no attribute 'till'; call super\(\).__init__\(\) before"):
        Early()


def test_attribute_is_refused_when_two_plugins_offer_it() -> None:
    """Which one is meant is not guessed."""

    class Rival:
        @hookimpl
        def cliffracer_register_service_attributes(self) -> Mapping[str, Callable[[Any], object]]:
            return {"till": Till}

    service: Any = CliffracerService(ServiceConfig("s"), plugins={"a": Everything(), "b": Rival()})
    with pytest.raises(PluginError, match="plugin 'b' offers attribute 'till'.*CLIFFRACER_DISABLE=b"):
        _ = service.till


async def test_resolver_knows_its_parameter_when_it_asks_for_it() -> None:
    """`for_parameter` is called once for each parameter, at start, and what it returns gives the value."""

    class Named:
        def __call__(self, context: MessageContext) -> object:
            raise AssertionError("the parameter is known")

        def for_parameter(self, name: str) -> Callable[[MessageContext], object]:
            asked.append(name)
            return lambda context: Session(name)

    class Sessions:
        @hookimpl
        def cliffracer_register_injectables(self) -> Mapping[type, Callable[[MessageContext], object]]:
            return {Session: Named()}

    asked: list[str] = []
    service = CliffracerService(ServiceConfig("s"), plugins={"sessions": Sessions()})

    @service.rpc
    async def both(left: Session, right: Session) -> list[str]:
        return [left.owner, right.owner]

    async with service:
        for _ in range(2):
            assert await service.rpc_call("s", "both") == ["left", "right"]
    assert asked == ["left", "right"]


async def test_steps_are_in_order_when_a_service_starts_and_stops() -> None:
    """Lifespans before listeners, timers and ready; the stop runs the same way back, lifespans in reverse."""
    plugin = Everything()
    async with Shop(plugin):
        pass
    assert [each for each in plugin.log if not each.startswith(("wrap", "transport"))] == [
        "first begins, ready False, connected True",
        "second begins, ready False, connected True",
        "server starts",
        "timer starts",
        "ready shop 1.0.0",
        "stopping shop",
        "timer stops",
        "server stops",
        "second ends, ready False, connected True",
        "first ends, ready False, connected True",
    ]


async def test_wiring_is_complete_when_a_lifespan_begins() -> None:
    """A lifespan gets service, declarations, transports and stores, and can ask whether the service is ready."""
    plugin = Everything()
    async with Shop(plugin) as service:
        wiring = plugin.wiring
        assert wiring is not None
        assert wiring.service == service.info
        assert [each.name for each in wiring.declarations][:2] == ["buy", "price"]
        assert wiring.transports["default"] is plugin.transport
        assert wiring.stores["default"] is plugin.store
        assert wiring.ready()
    assert not wiring.ready()


async def test_start_is_undone_when_a_lifespan_raises() -> None:
    """A lifespan that fails stops the start with service and step; those before it are left, in reverse."""
    plugin = Everything()

    @contextlib.asynccontextmanager
    async def failing(wiring: Wiring) -> AsyncIterator[None]:
        if wiring.service.name == "shop":
            raise ZeroDivisionError("no stock")
        yield

    class Failing:
        @hookimpl
        def cliffracer_register_lifespans(self, service: ServiceInfo) -> Sequence[Any]:
            return [failing]

    with pytest.raises(StartupError, match="service 'shop', step 'lifespans': ZeroDivisionError: no stock"):
        await Shop({"shop": plugin, "zz": Failing()}).start()
    assert [each.split(",")[0] for each in plugin.log[-2:]] == ["second ends", "first ends"]
    assert not plugin.transport.connected


async def test_health_tells_of_each_check_when_asked() -> None:
    """Facts of every check and transport; a check that raises says so and spoils no other."""
    plugin = Everything()
    async with Shop(plugin) as service:
        assert await service.health() == {"transport default": {"connected": True}, "stock": {"items": 3}}
        plugin.ill = True
        assert (await service.health())["stock"] == {"error": "connection_error: stock is gone"}
    assert plugin.asked.count("cliffracer_register_health_checks") == 1


async def test_check_has_its_own_time_when_it_says_so() -> None:
    """All checks run at once; one that takes longer than its limit is unwell, and holds up no other."""

    class Slow:
        @hookimpl
        def cliffracer_register_health_checks(self, service: ServiceInfo) -> Mapping[str, Any]:
            return {
                "fast": Check(run=self.fast),
                **{f"slow{number}": Check(run=self.slow, timeout_s=0.2) for number in range(20)},
            }

        async def slow(self) -> Mapping[str, object]:
            await asyncio.sleep(60)
            return {}

        async def fast(self) -> Mapping[str, object]:
            return {"fast": True}

    async with CliffracerService(ServiceConfig("s"), plugins={"slow": Slow()}) as service:
        async with asyncio.timeout(3):  # one after the other they would take 4 s
            report = await service.health()
    assert report["fast"] == {"fast": True}
    assert {str(facts) for name, facts in report.items() if name.startswith("slow")} == {
        "{'error': 'no answer within 0.2 s'}"
    }


async def test_start_is_undone_when_a_plugin_refuses_to_be_ready() -> None:
    """A failing `cliffracer_on_ready` stops the start, names the plugin, and undoes all."""

    class NotReady:
        @hookimpl
        def cliffracer_on_ready(self, service: ServiceInfo) -> None:
            raise ValueError("not today")

    plugin = Everything()
    with pytest.raises(
        PluginError, match="step 'ready': plugin 'zz': hook cliffracer_on_ready failed: ValueError: not"
    ):
        await Shop({"shop": plugin, "zz": NotReady()}).start()
    assert plugin.log[-3:] == [
        "server stops",
        *(f"{name} ends, ready False, connected True" for name in ("second", "first")),
    ]


async def test_stop_goes_on_when_a_plugin_fails_to_hear_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """A failing `cliffracer_on_stopping` is logged with its plugin; everything else stops all the same."""

    class Deaf:
        @hookimpl
        def cliffracer_on_stopping(self, service: ServiceInfo) -> None:
            raise ValueError("what?")

    plugin = Everything()
    service = Shop({"shop": plugin, "deaf": Deaf()})
    await service.start()
    await service.stop()
    assert "plugin 'deaf': hook cliffracer_on_stopping failed" in caplog.text
    assert "server stops" in plugin.log
    assert "stopping shop" in plugin.log
    assert not plugin.transport.connected


async def test_other_plugins_answer_when_a_plugin_adds_hooks_of_its_own() -> None:
    """A hook added by one plugin is asked like the kernel's, plugin by plugin."""

    class Discounts:
        @hookimpl(optionalhook=True)
        def cliffracer_register_discounts(self, service: ServiceInfo) -> Sequence[int]:
            return [10, 20]

    service = Shop({"shop": Everything(), "discounts": Discounts()})
    async with service:
        plugins = service.runtime.plugins
        answers = list(plugins.ask("cliffracer_register_discounts", service=service.info))
        assert answers == [("discounts", 10), ("discounts", 20)]
        assert plugins.infos["discounts"].registered == {"cliffracer_register_discounts": ["int"]}


# --- the rule ---------------------------------------------------------------------------------------


def implemented() -> set[str]:
    """Return the hooks that shipped plugins, the kernel's own included, implement."""
    files = [ROOT / "cliffracer_core" / "builtin.py", *ROOT.glob("plugins/*/cliffracer_*/**/*.py")]
    return {name for file in files for name in re.findall(r"def (cliffracer_\w+)\(", file.read_text())}


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_has_docs_and_a_test_when_it_exists(hook: str) -> None:
    """Each hook has a heading in docs/hooks.md, says when it is asked and since when, and is exercised above."""
    assert f"\n### `{hook}`\n" in (ROOT / "docs" / "hooks.md").read_text()
    assert re.search(rf"@hookimpl\n    def {hook}\(self", Path(__file__).read_text())
    assert re.search(r"Since \d+\.\d+\.", getattr(hookspecs, hook).__doc__)
    assert hasattr(Everything, hook)


def test_no_other_hook_is_documented_when_it_does_not_exist() -> None:
    """docs/hooks.md has headings for the hooks there are."""
    headings = re.findall(r"^### `(\w+)`$", (ROOT / "docs" / "hooks.md").read_text(), re.MULTILINE)
    assert sorted(headings) == HOOKS


def test_hook_is_provisional_when_no_shipped_plugin_uses_it() -> None:
    """A hook is implemented by a plugin of this project, or it is marked provisional; and not both."""
    assert set(HOOKS) - implemented() == hookspecs.PROVISIONAL

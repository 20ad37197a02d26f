"""The face users see: a class whose methods are handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, Unpack, overload

from . import handlers
from .assembly import load_plugins
from .blueprint import Blueprint
from .caller import Caller
from .config import ServiceConfig
from .errors import ConfigurationError, ConnectionError, PluginError, StartupError
from .handlers import ErrorHandler, EventArguments, marks_of, snake_case
from .interfaces import ServiceAttribute, ServiceInfo, Store, Wiring
from .plugins import Plugins
from .process import run_until_signal
from .runtime import Runtime

__all__ = ["CliffracerService"]

F = TypeVar("F", bound=Callable[..., Any])


class CliffracerService:
    """A service: typed methods, called over any transport.

    Subclass it and decorate methods, or make one and decorate functions with `@service.rpc`.

    Args:
        config: settings in code; by default the class attributes `name`, `version` and `description`.
        plugins: further plugins by name, or a loaded `Plugins` to share.
        overrides: settings from a command line; stronger than the environment, weaker than `config`.
        replace: objects by attribute name or class, used in place of providers and injectables (tests).

    Class attributes:
        controllers: `@Controller()` classes whose handlers this service has too.
        injectables: `@Injectable()` classes that a bare `inject()` may name.
    """

    name: str = ""
    version: str = ""
    description: str = ""
    controllers: ClassVar[Sequence[type]] = ()
    injectables: ClassVar[Sequence[type]] = ()

    def __init__(
        self,
        config: ServiceConfig | None = None,
        *,
        plugins: Plugins | Mapping[str, object] | None = None,
        overrides: Mapping[str, object] | None = None,
        replace: Mapping[Any, object] | None = None,
    ) -> None:
        cls = type(self)
        name = cls.name or snake_case(cls.__name__)
        self.config = config or ServiceConfig(name)
        self.name = self.config.name
        self.errors = ErrorHandler()
        values = {"version": cls.version, "description": cls.description}
        self._blueprint = Blueprint(
            owner=self,
            config=self.config,
            class_values={key: value for key, value in values.items() if value},
            controllers=cls.controllers,
            injectables=cls.injectables,
            errors=self.errors,
            plugins=plugins,
            overrides=overrides or {},
            replace=replace or {},
        )
        self._runtime: Runtime | None = None
        self._starter: asyncio.Task[object] | None = None
        self._interrupted = False

    async def start(self) -> None:
        """Start; ready when this returns.

        Raises:
            CliffracerError: a step failed; what was done is undone, and `start` may be called again.
        """
        if self._runtime is not None:
            raise ConfigurationError(f"service {self.name!r} is running; stop it first")
        self._runtime = runtime = Runtime(self._blueprint)
        self._starter, self._interrupted = asyncio.current_task(), False
        try:
            await runtime.start()
        except BaseException as error:
            self._runtime = None
            if self._interrupted and self._starter is not None and isinstance(error, asyncio.CancelledError):
                self._starter.uncancel()
                raise StartupError(f"service {self.name!r} was stopped while it started") from None
            raise
        finally:
            self._starter = None

    async def stop(self) -> None:
        """Stop gracefully: take no more, finish what runs, within `shutdown_grace_s`; safe to call twice.

        A start that is still on its way is cancelled and undone.
        """
        starter = self._starter
        if starter is not None and starter is not asyncio.current_task():
            self._interrupted = True
            starter.cancel()
            while self._starter is starter:
                await asyncio.sleep(0.002)
        if self._runtime is not None:
            await self._runtime.stop()
            self._runtime = None

    def run(self) -> None:
        """Start, run until SIGTERM or SIGINT, stop; blocks."""
        asyncio.run(run_until_signal(self))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    @property
    def overrides(self) -> Mapping[str, object]:
        """Settings from a command line; may be set until `start`."""
        return self._blueprint.overrides

    @overrides.setter
    def overrides(self, settings: Mapping[str, object]) -> None:
        self._blueprint.overrides = settings

    @property
    def ready(self) -> bool:
        """Whether it is started, not stopping, and connected."""
        runtime = self._runtime
        return runtime is not None and runtime.ready and all(each.connected for each in runtime.transports.values())

    @property
    def runtime(self) -> Runtime:
        """The running service: settings, transports, stores, compiled handlers. Raises ConnectionError."""
        if self._runtime is None:
            raise ConnectionError(f"service {self.name!r} is not running; use 'async with service' or await start()")
        return self._runtime

    @property
    def caller(self) -> Caller:
        """What sends this service's calls and events. Raises ConnectionError while it is not running."""
        return self.runtime.caller

    def store(self, name: str = "default") -> Store:
        """Return one of the configured stores. Raises ConfigurationError for a name that is not configured."""
        stores = self.runtime.stores
        if name not in stores:
            raise ConfigurationError(f"store {name!r} is not configured; known are {sorted(stores)}: set store={{...}}")
        return stores[name]

    @property
    def info(self) -> ServiceInfo:
        """Name, version, id and settings of the running service."""
        return self.runtime.info

    async def rpc_call(self, service: str, method: str, /, **arguments: object) -> Any:
        """Call a method of another service with named arguments; result and errors as `Caller.call`."""
        return await self.caller.call(service, method, arguments)

    async def publish(
        self,
        subject: str,
        data: object = None,
        *,
        durable: bool = False,
        headers: Mapping[str, str] | None = None,
        message_id: str | None = None,
        transport: str = "default",
        outbox: bool | str = False,
    ) -> None:
        """Publish an event; with `durable` it is stored when this returns. Arguments and errors as `Caller.publish`."""
        await self.caller.publish(
            subject, data, durable=durable, headers=headers, message_id=message_id, transport=transport, outbox=outbox
        )

    call_rpc = rpc_call
    publish_event = publish

    async def health(self) -> dict[str, Mapping[str, object]]:
        """Ask every health check, all at once; a name whose entry has `error` is unwell."""
        return await self.runtime.health()

    async def explain(self, handler: str) -> dict[str, list[str]]:
        """Return the compiled chains of a handler: `in`, and `call` and `publish` on the way out.

        Works on a service that does not run, and connects to nothing.

        Raises:
            ConfigurationError: there is no such handler, or the service is declared wrongly.
        """
        if self._runtime is not None:
            return self._runtime.explain(handler)
        runtime = Runtime(self._blueprint)
        try:
            await runtime.compile()
            return runtime.explain(handler)
        finally:
            await runtime.stop()

    async def wiring(self) -> Wiring:
        """Return what plugins work with: settings, declarations and signatures of the handlers.

        Works on a service that does not run, and connects to nothing; its transports are then not open.

        Raises:
            ConfigurationError: the service is declared wrongly.
        """
        if self._runtime is not None:
            return self._runtime.wiring
        runtime = Runtime(self._blueprint)
        try:
            await runtime.compile()
            return runtime.wiring
        finally:
            await runtime.stop()

    @overload
    def rpc(self, function: F, /) -> F: ...
    @overload
    def rpc(
        self,
        /,
        *,
        timeout: float | None = None,
        concurrency: int | None = None,
        transport: str = "default",
        idempotent: bool = False,
    ) -> Callable[[F], F]: ...
    def rpc(self, function: Any = None, /, **options: Any) -> Any:
        """Make a function an RPC method of this service; see `handlers.rpc`."""
        return self._add(handlers.rpc(**options), function)

    @overload
    def validated_rpc(self, function: F, /) -> F: ...
    @overload
    def validated_rpc(
        self,
        /,
        *,
        timeout: float | None = None,
        concurrency: int | None = None,
        transport: str = "default",
        idempotent: bool = False,
    ) -> Callable[[F], F]: ...
    def validated_rpc(self, function: Any = None, /, **options: Any) -> Any:
        """Make a function an RPC method that refuses unknown arguments; see `handlers.validated_rpc`."""
        return self._add(handlers.validated_rpc(**options), function)

    def event(self, pattern: str, **options: Unpack[EventArguments]) -> Callable[[F], F]:
        """Make a function an event handler of this service; see `handlers.event`."""
        return self.handler(handlers.event(pattern, **options))

    def broadcast(self, pattern: str, **options: Any) -> Callable[[F], F]:
        """Make a function a handler of events at every replica; see `handlers.broadcast`."""
        return self.handler(handlers.broadcast(pattern, **options))

    def error_handler(self, error: type[Exception]) -> Callable[[F], F]:
        """Make `function(error)` the reply wherever a handler of this service raises `error`."""
        return self.errors.error_handler(error)

    def handler(self, decorator: Callable[[F], F]) -> Callable[[F], F]:
        """Turn any handler decorator, a plugin's too, into one that adds the function to this service."""

        def decorate(function: F) -> F:
            return self._add(decorator, function)  # type: ignore[no-any-return]  # a function in, the same out

        return decorate

    if not TYPE_CHECKING:  # a misspelt attribute stays an error for type checkers; see ADR 0008

        def __getattr__(self, name: str) -> object:
            """Make an attribute that a plugin offers (`cliffracer_register_service_attributes`)."""
            plan = self.__dict__.get("_blueprint")
            if plan is None or name.startswith("_"):
                hint = "" if name.startswith("_") else "; call super().__init__() before it is used"
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")
            makers = self._attribute_makers()
            if name not in makers:
                known = ", ".join(sorted(makers)) or "nothing"
                raise AttributeError(
                    f"{type(self).__name__!r} object has no attribute {name!r}; installed plugins offer {known}"
                )
            value = makers[name](self)
            plan.attributes[name] = value
            setattr(self, name, value)
            return value

    def _attribute_makers(self) -> Mapping[str, ServiceAttribute]:
        plan = self._blueprint
        if not isinstance(plan.plugins, Plugins):
            plan.plugins = load_plugins(plan.plugins) if self._runtime is None else self._runtime.plugins
        makers: dict[str, ServiceAttribute] = {}
        for plugin, (name, make) in plan.plugins.ask("cliffracer_register_service_attributes"):
            if name in makers:
                raise PluginError(
                    f"plugin {plugin!r} offers attribute {name!r} of services, as another plugin does; "
                    f"disable one with CLIFFRACER_DISABLE={plugin}"
                )
            makers[name] = make
        return makers

    def _add(self, decorator: Callable[[Any], Any], function: Callable[..., Any] | None) -> Any:
        if function is None:
            return self.handler(decorator)
        marked = decorator(function)
        entry = (function.__name__, marked, marks_of(marked))
        self._blueprint.functions[:] = [each for each in self._blueprint.functions if each[1] is not marked]
        self._blueprint.functions.append(entry)
        return marked

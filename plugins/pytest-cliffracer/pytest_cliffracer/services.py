"""Starting services for one test."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from cliffracer_core import CliffracerService, Plugins, ServiceConfig

__all__ = ["ServiceFactory"]

S = TypeVar("S", bound="CliffracerService")


class ServiceFactory:
    """Start services in a test's own loop, and stop them after it; what the fixture `cliffracer_service` gives.

    Args:
        transport: URL of the transport of services that are given none.
    """

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self._loop = asyncio.get_running_loop()
        self._running = AsyncExitStack()

    async def __call__(
        self,
        service: type[S] | S,
        *,
        config: ServiceConfig | None = None,
        replace: Mapping[Any, object] | None = None,
        plugins: Plugins | Mapping[str, object] | None = None,
        transport: str | Mapping[str, str] | None = None,
    ) -> S:
        """Start a service and return it.

        Args:
            service: its class; or a service that was made already, as in function style.
            config: settings; those of the class without it.
            replace: objects used in place of providers (by attribute name) and injectables (by name or class).
            plugins: further plugins by name.
            transport: URL, or URLs by name; else that of `config`, else the fixture `cliffracer_transport`.

        Raises:
            ConfigurationError: an argument that does not fit, or the test runs in another loop than its fixtures.
            CliffracerError: the service could not start.
        """
        self._check_loop()
        given: dict[str, Any] = {"config": config, "replace": replace, "plugins": plugins}
        options = {name: value for name, value in given.items() if value is not None}
        made = _make(service, options) if isinstance(service, type) else _made(service, options)
        if transport is None:
            transport = config.values.get("transport") if config is not None else None  # type: ignore[assignment]  # ServiceConfig has checked it
        self._set(made.config.values, "transport", transport or self.transport)
        await made.start()
        self._running.push_async_callback(made.stop)
        return made

    async def stop(self) -> None:
        """Stop all that were started, the last one first; one that fails does not keep the others."""
        await self._running.aclose()

    def _set(self, values: dict[str, object], name: str, value: object) -> None:
        """Change a setting until `stop`: a module's `ServiceConfig` may outlive the test."""
        before = dict(values)
        values[name] = value

        def restore() -> None:
            values.clear()
            values.update(before)

        self._running.callback(restore)

    def _check_loop(self) -> None:
        from cliffracer_core.errors import ConfigurationError

        if asyncio.get_running_loop() is not self._loop:
            raise ConfigurationError(
                "fixture 'cliffracer_service' lives in another event loop than this test; give both one scope "
                "with asyncio_default_fixture_loop_scope and asyncio_default_test_loop_scope"
            )


def _make(cls: type[S], options: Mapping[str, Any]) -> S:
    from cliffracer_core.errors import ConfigurationError

    try:
        return cls(**options)
    except TypeError as error:
        raise ConfigurationError(
            f"service class {cls.__name__!r} cannot be made with {sorted(options)}: {error}; "
            f"let its __init__ take **options and pass them on to super().__init__"
        ) from error


def _made(service: S, options: Mapping[str, Any]) -> S:
    from cliffracer_core.errors import ConfigurationError

    if options:
        raise ConfigurationError(
            f"service {service.name!r} was made already and takes no {sorted(options)}; give its class, "
            f"or set them where it is made"
        )
    return service

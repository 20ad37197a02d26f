"""From what hooks are given, which is data only, to services that answer and count."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from cliffracer_core.errors import ConfigurationError
from cliffracer_core.handlers import Declaration, RpcOptions
from cliffracer_core.interfaces import ServiceInfo, Signature, Wiring
from cliffracer_core.requests import QUEUE_GROUP

from .instance import Instance
from .protocol import EndpointInfo
from .responder import answering
from .schemas import endpoint_metadata
from .settings import DiscoverySettings
from .stats import HandlerStats

if TYPE_CHECKING:
    from cliffracer_core.service import CliffracerService

__all__ = ["Announcer", "reset_stats", "settings_of"]

logger = logging.getLogger("cliffracer.discovery")


class Announcer:
    """The services under one set of plugins: several, and each perhaps several times."""

    def __init__(self) -> None:
        # by the identity of the Declaration, which lives as long as the compiled handler that holds the value
        self._stats: WeakValueDictionary[int, HandlerStats] = WeakValueDictionary()
        self._instances: dict[str, Instance] = {}

    def stats(self, declaration: Declaration) -> HandlerStats | None:
        """Make the statistics of a handler that is being compiled; None where it answers no requests."""
        if not _requests(declaration):
            return None
        made = self._stats[id(declaration)] = HandlerStats()
        return made

    @contextlib.asynccontextmanager
    async def announced(self, wiring: Wiring) -> AsyncIterator[None]:
        """Answer for a service while the block runs.

        Raises:
            ConfigurationError: the transport that is set does not exist, or the version is no semantic one.
        """
        service, settings = wiring.service, settings_of(wiring.service)
        transport = wiring.transports.get(settings.transport)
        if transport is None:
            raise ConfigurationError(
                f"setting 'discovery.transport' is {settings.transport!r}; configured are {sorted(wiring.transports)}"
            )
        capabilities = transport.capabilities
        if not (capabilities.fanout and capabilities.request):
            text = "service %r: not discoverable, transport %r has no fan-out or no requests"
            logger.info(text, service.name, settings.transport)
            yield
            return
        endpoints = [
            each
            for declaration in wiring.declarations
            for each in self._endpoints(declaration, wiring.signatures[declaration.name], settings)
        ]
        instance = Instance(service, endpoints, window=settings.window, max_payload=capabilities.max_payload)
        self._instances[service.id] = instance
        try:
            async with answering(instance, transport, wiring.ready):
                yield
        finally:
            del self._instances[service.id]

    def _endpoints(
        self, declaration: Declaration, signature: Signature, settings: DiscoverySettings
    ) -> Sequence[tuple[EndpointInfo, HandlerStats]]:
        requests = [each for each in _requests(declaration) if each.transport == settings.transport]
        if not requests:
            return ()
        metadata = endpoint_metadata(declaration, signature)
        stats = self._stats[id(declaration)]
        return [
            (
                EndpointInfo(
                    name=declaration.name,
                    subject=f"rpc.{options.pattern or declaration.where}",
                    queue_group=QUEUE_GROUP,
                    metadata=metadata,
                ),
                stats,
            )
            for options in requests
        ]

    def reset(self, service: ServiceInfo) -> None:
        """Start a service's statistics from zero. Raises ConfigurationError where there are none."""
        instance = self._instances.get(service.id)
        if instance is None:
            raise ConfigurationError(f"service {service.name!r} keeps no statistics; set discovery={{'enabled': True}}")
        instance.reset()


def reset_stats(service: CliffracerService) -> None:
    """Start a running service's statistics from zero; `started` becomes now, as in other implementations.

    Raises:
        ConnectionError: the service is not running.
        ConfigurationError: discovery is disabled for it.
    """
    for plugin in service.runtime.plugins.manager.get_plugins():
        announcer = getattr(plugin, "announcer", None)
        if isinstance(announcer, Announcer):
            announcer.reset(service.info)
            return
    raise ConfigurationError(f"service {service.name!r} runs without discovery; take it out of CLIFFRACER_DISABLE")


def settings_of(service: ServiceInfo) -> DiscoverySettings:
    """Return the section `discovery`; defaults where there is none."""
    settings = service.settings.get("discovery")
    return settings if isinstance(settings, DiscoverySettings) else DiscoverySettings()


def _requests(declaration: Declaration) -> list[RpcOptions]:
    return [each.options for each in declaration.find("core") if isinstance(each.options, RpcOptions)]

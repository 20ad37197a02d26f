"""Hook implementations."""

from __future__ import annotations

from collections.abc import Sequence

from cliffracer_core.handlers import Declaration
from cliffracer_core.hookspecs import hookimpl
from cliffracer_core.interfaces import Lifespan, Middleware, Section, ServiceInfo

from .announcer import Announcer, settings_of
from .settings import DiscoverySettings

__all__ = ["Discovery"]


class Discovery:
    """The plugin of one process start: what its middleware counts, its lifespan reports."""

    def __init__(self) -> None:
        self.announcer = Announcer()

    @hookimpl
    def cliffracer_register_settings(self) -> Sequence[Section]:
        """Offer the section `discovery`."""
        return [Section(name="discovery", type=DiscoverySettings)]

    @hookimpl
    def cliffracer_register_middleware(self, declaration: Declaration, service: ServiceInfo) -> Sequence[Middleware]:
        """Count and time requests; near the outside, so that all that happens to them is seen."""
        stats = self.announcer.stats(declaration) if settings_of(service).enabled else None
        return [] if stats is None else [Middleware("observe", -900, stats.wrap, "stats")]

    @hookimpl
    def cliffracer_register_lifespans(self, service: ServiceInfo) -> Sequence[Lifespan]:
        """Answer while the service is ready."""
        return [self.announcer.announced] if settings_of(service).enabled else []

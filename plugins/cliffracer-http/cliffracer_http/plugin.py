"""Hook implementations."""

from __future__ import annotations

from collections.abc import Sequence

from cliffracer_core.hookspecs import hookimpl
from cliffracer_core.interfaces import Section

from .settings import HttpSettings

__all__ = ["Http"]


class Http:
    """The plugin of one process start."""

    @hookimpl
    def cliffracer_register_settings(self) -> Sequence[Section]:
        """Offer the section `http`, and the flat names `http_host` and `http_port`."""
        return [
            Section(
                name="http",
                type=HttpSettings,
                flat={"http_host": "host", "http_port": "port"},
                secrets=frozenset({"guard_token", "tls_key_password"}),
            )
        ]

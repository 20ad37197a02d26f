"""`EmbeddedServers`: the servers that plugins offer for development, each started when it is first needed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from cliffracer_core.assembly import load_plugins, mask_url
from cliffracer_core.errors import ConfigurationError

from .devnote import remove_note, write_note
from .hookspecs import EmbeddedServer

__all__ = ["EmbeddedServers"]

logger = logging.getLogger("cliffracer.cli")


class EmbeddedServers:
    """Servers by the setting they are for. A context manager, which ends those that run.

    Args:
        offers: what there is; of several for one setting the first counts.
    """

    def __init__(self, offers: Iterable[EmbeddedServer]) -> None:
        self._offers: dict[str, EmbeddedServer] = {}
        for offer in offers:
            self._offers.setdefault(offer.setting, offer)
        self._urls: dict[str, str] = {}
        self._running = contextlib.ExitStack()

    @classmethod
    def installed(cls) -> Self:
        """Return those that the installed plugins offer.

        Raises:
            PluginError: a plugin is broken.
            ConfigurationError: there is none.
        """
        plugins = load_plugins()
        servers = cls(
            [each for _, each in plugins.ask("cliffracer_register_embedded_servers")]
            if plugins.is_active("cli")
            else []
        )
        if not servers.settings:
            raise ConfigurationError(
                "no installed plugin has an embedded server; pip install 'cliffracer-nats[embedded]', "
                "or use 'cliffracer run'"
            )
        return servers

    @property
    def settings(self) -> list[str]:
        """The settings there is a server for."""
        return list(self._offers)

    def urls(self, settings: Iterable[str]) -> Mapping[str, str]:
        """Return the URL for each of these settings, starting what does not run yet.

        Raises:
            CliffracerError: one is not installed completely, or does not start.
        """
        wanted = [setting for setting in settings if setting in self._offers]
        for setting in wanted:
            if setting not in self._urls:
                offer = self._offers[setting]
                self._urls[setting] = url = self._running.enter_context(offer.start())
                logger.info("embedded %s for setting %r runs at %s", offer.name, setting, mask_url(url))
                write_note(self._urls)
        return {setting: self._urls[setting] for setting in wanted}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._urls:
            remove_note()
        self._running.close()

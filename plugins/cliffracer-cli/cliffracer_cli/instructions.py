"""`Instructions`: what to run, as the command line said it; a worker gets it from its parent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from cliffracer_core.assembly import load_plugins, resolve_settings
from cliffracer_core.plugins import Plugins
from cliffracer_core.service import CliffracerService

from .overrides import nested, read_overrides
from .targets import load_service

__all__ = ["Instructions", "Urls", "configure_services", "load_services"]

Urls = Callable[[Iterable[str]], Mapping[str, str]]
"""Start embedded servers for settings and return their URLs."""


class Instructions(msgspec.Struct, kw_only=True):
    """What to run."""

    targets: list[str]
    transport: str | None = None
    settings: dict[str, str] = {}
    offered: list[str] = []
    """Settings for which there is an embedded server."""
    log_level: str = "info"
    uvloop: bool | None = None
    """None: where it is installed."""
    traceback: bool = False
    show_pid: bool = False
    shares_ports: bool = False
    """Other processes run the same, on the same ports."""

    @property
    def overrides(self) -> dict[str, str]:
        """All settings given, as text."""
        return self.settings if self.transport is None else {**self.settings, "transport": self.transport}


def load_services(instructions: Instructions) -> list[CliffracerService]:
    """Load the targets. Errors as `load_service`."""
    return [load_service(target) for target in instructions.targets]


def configure_services(services: Sequence[CliffracerService], instructions: Instructions, urls: Urls) -> None:
    """Give services their settings from the command line and from embedded servers.

    Args:
        services: unstarted.
        instructions: what the command line said.
        urls: asked for the URLs of those offered settings that nothing else sets.

    Raises:
        CliffracerError: a setting is wrong, or an embedded server does not start.
    """
    plugins = load_plugins()
    overrides = read_overrides(plugins, instructions.overrides)
    if instructions.shares_ports:
        overrides = _sharing_ports(plugins, overrides)
    for service in services:
        service.overrides = overrides
        if instructions.offered:
            sources = resolve_settings(plugins, service.config, overrides=overrides).sources
            unset = [setting for setting in instructions.offered if not _is_set(setting, sources)]
            found = urls(unset) if unset else {}
            merged = {**overrides}
            for section, value in nested(found).items():
                merged[section] = {**_mapping(merged.get(section)), **value} if isinstance(value, dict) else value
            service.overrides = merged


def _sharing_ports(plugins: Plugins, overrides: Mapping[str, object]) -> dict[str, object]:
    """Set `reuse_port` in every section that has it: so a plugin that listens says that it can."""
    shared = dict(overrides)
    for _, section in plugins.ask("cliffracer_register_settings"):
        if "reuse_port" in section.type.__struct_fields__:
            shared[section.name] = {"reuse_port": True, **_mapping(shared.get(section.name))}
    return shared


def _is_set(setting: str, sources: Mapping[str, str]) -> bool:
    """Tell whether a setting is given; of a section, its `host` says as much as its URL."""
    section, dot, _ = setting.rpartition(".")
    return setting in sources or (bool(dot) and f"{section}.host" in sources)


def _mapping(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, Mapping) else {}

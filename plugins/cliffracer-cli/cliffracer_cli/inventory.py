"""What is installed: each plugin, what it registered, and its settings with their present values."""

from __future__ import annotations

import os
from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points
from importlib.metadata import version as installed_version

import msgspec

from cliffracer_core.assembly import load_plugins, mask_url, resolve_settings
from cliffracer_core.config import ServiceConfig, Settings
from cliffracer_core.errors import CliffracerError
from cliffracer_core.interfaces import Section
from cliffracer_core.plugins import GROUP, Plugins

from .failures import failure_line

__all__ = ["Inventory", "PluginEntry", "SettingEntry", "take_inventory"]

_PREFIX = "cliffracer_"


class SettingEntry(msgspec.Struct, kw_only=True):
    """A setting; secrets are masked."""

    name: str
    value: object
    source: str
    """`default`, `the command line`, a file, or an environment variable."""


class PluginEntry(msgspec.Struct, kw_only=True):
    """A plugin."""

    name: str
    distribution: str
    version: str
    state: str
    """`active`, `disabled` or `failed`."""
    error: str | None = None
    registered: dict[str, list[str]] = {}
    """Hook to what it gave; empty for hooks that are asked only while a service starts."""
    settings: list[SettingEntry] = []


class Inventory(msgspec.Struct, kw_only=True):
    """All plugins; `error` says which setting is wrong."""

    plugins: list[PluginEntry]
    error: str | None = None

    @property
    def sound(self) -> bool:
        """Whether a service could start with these plugins and settings."""
        return self.error is None and all(each.state != "failed" for each in self.plugins)


def take_inventory(service: str | None = None) -> Inventory:
    """Look at every installed plugin; what is broken is reported, not raised.

    Args:
        service: also read the settings files' tables for this service.
    """
    entries, plugins = _load()
    core = PluginEntry(
        name="core", distribution="cliffracer-core", version=installed_version("cliffracer-core"), state="active"
    )
    sections: dict[str, list[Section]] = {}
    for entry in (core, *entries):
        if entry.state == "active":
            try:
                sections[entry.name] = _ask(plugins, entry)
            except CliffracerError as error:
                entry.state, entry.error = "failed", failure_line(error)
    try:
        settings = resolve_settings(plugins, ServiceConfig(service or "cliffracer"))
    except CliffracerError as error:
        return Inventory(plugins=[core, *entries], error=failure_line(error))
    core.settings = _entries("", settings.kernel, frozenset({"transport", "store"}), settings)
    for entry in entries:
        for section in sections.get(entry.name, []):
            entry.settings += _entries(section.name, settings.sections[section.name], section.secrets, settings)
    return Inventory(plugins=[core, *entries])


def _load() -> tuple[list[PluginEntry], Plugins]:
    """Load the plugins; where that fails, one by one to see which are to blame, and then the others."""
    points = sorted(entry_points(group=GROUP), key=lambda each: each.name)
    entries = [_entry(point) for point in points]
    try:
        return entries, load_plugins()
    except CliffracerError as error:
        first = error
    for entry in entries:
        if entry.state == "active":
            try:
                load_plugins(environment={"CLIFFRACER_PLUGINS": entry.name})
            except CliffracerError as error:
                entry.state, entry.error = "failed", failure_line(error)
    if all(entry.state != "failed" for entry in entries):
        raise first  # it is about no one plugin, such as an unknown name in CLIFFRACER_PLUGINS
    healthy = [entry.name for entry in entries if entry.state == "active"]
    return entries, load_plugins(environment={"CLIFFRACER_PLUGINS": ",".join(healthy)})


def _entry(point: EntryPoint) -> PluginEntry:
    disabled = [each.strip() for each in os.environ.get("CLIFFRACER_DISABLE", "").split(",")]
    only = os.environ.get("CLIFFRACER_PLUGINS")
    selected = point.name not in disabled and (only is None or point.name in [each.strip() for each in only.split(",")])
    return PluginEntry(
        name=point.name,
        distribution=point.dist.name if point.dist else "?",
        version=point.dist.version if point.dist else "?",
        state="active" if selected else "disabled",
    )


def _ask(plugins: Plugins, entry: PluginEntry) -> list[Section]:
    """Note what a plugin registered, asking the hooks that can be asked without a service; return its sections."""
    plugin = plugins.manager.get_plugin(entry.name)
    sections: list[Section] = []
    for caller in plugins.manager.get_hookcallers(plugin) or []:
        if not caller.name.startswith(_PREFIX):
            continue
        entry.registered[caller.name.removeprefix(_PREFIX)] = []
        if caller.spec is not None and not caller.spec.argnames:
            items = [item for name, item in plugins.ask(caller.name) if name == entry.name]
            labels = plugins.infos[entry.name].registered.get(caller.name, [])
            entry.registered[caller.name.removeprefix(_PREFIX)] = list(dict.fromkeys(labels))
            sections += [item for item in items if isinstance(item, Section)]
    return sections


def _entries(section: str, values: msgspec.Struct, secrets: Collection[str], settings: Settings) -> list[SettingEntry]:
    found = []
    for field, value in msgspec.structs.asdict(values).items():
        name = f"{section}.{field}" if section else field
        if name != "name":
            shown = _masked(value) if field in secrets else value
            found.append(SettingEntry(name=name, value=shown, source=settings.sources.get(name, "default")))
    return found


def _masked(value: object) -> object:
    """Keep of a secret only where it leads to: a URL without credentials and query."""
    match value:
        case None | "":
            return value
        case dict():
            return {key: _masked(each) for key, each in value.items()}
        case str() if "://" in value:
            return ",".join(mask_url(part.partition("?")[0]) for part in value.split(","))
    return "***"

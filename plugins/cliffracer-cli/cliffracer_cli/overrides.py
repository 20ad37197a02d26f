"""`--set key=value`: settings from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cliffracer_core.config import KernelSettings, Settings, from_text
from cliffracer_core.interfaces import Section
from cliffracer_core.plugins import Plugins

__all__ = ["nested", "overruled", "read_overrides"]


def read_overrides(plugins: Plugins, texts: Mapping[str, str]) -> dict[str, object]:
    """Turn texts into values of the settings' types.

    Args:
        plugins: whose sections there are.
        texts: by name; a section's field as `nats.url`. A list is JSON or has commas, a table is JSON.

    Returns:
        What the command line says, by name, sections as mappings. Names that nobody knows are left as
        they are, for the kernel to refuse with the nearest known one.

    Raises:
        ConfigurationError: a text that the setting's type does not take.
    """
    hints = _hints([section for _, section in plugins.ask("cliffracer_register_settings")])
    overrides: dict[str, Any] = {}
    for key, text in texts.items():
        what = f"setting {key!r} from the command line"
        value = from_text(text, hints[key], what) if key in hints else text
        _put(overrides, key, value)
    return overrides


def nested(values: Mapping[str, object]) -> dict[str, object]:
    """Turn `{"nats.url": ...}` into `{"nats": {"url": ...}}`."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        _put(result, key, value)
    return result


def _put(values: dict[str, Any], key: str, value: object) -> None:
    section, _, field = key.partition(".")
    if field:
        values.setdefault(section, {})[field] = value
    else:
        values[key] = value


def overruled(overrides: Mapping[str, object], settings: Settings) -> dict[str, str]:
    """Return the settings that the command line gave in vain, with the stronger source of each."""
    keys = [
        key
        for section, value in overrides.items()
        for key in ([f"{section}.{field}" for field in value] if isinstance(value, Mapping) else [section])
    ]
    given = "the command line"
    return {key: settings.sources[key] for key in keys if settings.sources.get(key, given) != given}


def _hints(sections: list[Section]) -> dict[str, Any]:
    hints = {field.name: field.type for field in msgspec.structs.fields(KernelSettings)}
    for section in sections:
        fields = {field.name: field.type for field in msgspec.structs.fields(section.type)}
        hints |= {f"{section.name}.{name}": type for name, type in fields.items()}
        hints |= {flat: fields[name] for flat, name in section.flat.items()}
    return hints

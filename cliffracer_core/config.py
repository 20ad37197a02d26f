"""Settings: where they come from, which wins, and what is wrong with them.

Sources, later ones win: defaults, `cliffracer.toml` (or `[tool.cliffracer]` in pyproject.toml; there
`[services.<name>]` overrides for one service), the environment, the command line, arguments in code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .errors import ConfigurationError
from .interfaces import Section
from .subjects import validate_token
from .validation import validate_timeout

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KernelSettings", "ServiceConfig", "Settings", "from_text", "get_env", "resolve"]

T = TypeVar("T")
Layer = tuple[str, Mapping[str, object]]

_PREFIX = "CLIFFRACER_"
_RESERVED = frozenset({"CLIFFRACER_DISABLE", "CLIFFRACER_PLUGINS", "CLIFFRACER_CONFIG"})
_ELSEWHERE = {
    "nats": "cliffracer-nats", "http": "cliffracer-http", "websocket": "cliffracer-websocket",
    "db": "cliffracer-db", "auth": "cliffracer-auth", "metrics": "cliffracer-metrics",
    "batch_size": "cliffracer-resilience", "connection_pool_size": "cliffracer-db",
    "enable_auth": "cliffracer-auth", "enable_metrics": "cliffracer-metrics",
}  # fmt: skip


class KernelSettings(msgspec.Struct, kw_only=True, frozen=True):
    """The kernel's own settings of one service."""

    name: str
    version: str = "0.0.0"
    description: str = ""
    metadata: dict[str, str] = {}
    transport: str | dict[str, str] = "memory://"
    """URL of the default transport, or URLs by name, one of them `default`."""
    store: str | dict[str, str] = "memory://"
    timeout: float = 30.0
    """Seconds a call may take where nobody says otherwise."""
    max_timeout_s: float = 300.0
    """What a caller may ask for at most."""
    concurrency: int = 100
    """Calls running at once, per handler."""
    queue_size: int = 1000
    """Requests that may wait, per handler, before `Overloaded`."""
    event_buffer: int = 65536
    """Core events that may wait, per handler, before one is dropped and counted."""
    shutdown_grace_s: float = 10.0
    content_type: str = "application/json"
    """How calls and events are encoded on the way out."""


_FIELDS = {field.name: field.type for field in msgspec.structs.fields(KernelSettings)}


class ServiceConfig:
    """What a program says about a service in code; the strongest source of settings.

    Args:
        name: letters, digits, `_` and `-`.
        **values: fields of `KernelSettings`, a plugin's section (`nats={"url": ...}` or its Struct), or
            a flat name a plugin registered (`nats_url=...`). Checked when the service starts, against
            the plugins installed then.

    Raises:
        InvalidSubject: the name is none.
        ConfigurationError: a kernel setting of a wrong type or range.
    """

    def __init__(self, name: str, **values: object) -> None:
        self.name = validate_token(name, "service name")
        self.values: dict[str, object] = {"name": name, **values}
        _kernel({key: value for key, value in self.values.items() if key in _FIELDS})

    def __repr__(self) -> str:
        return f"ServiceConfig(name={self.name!r}, ...)"


class Settings(msgspec.Struct, frozen=True):
    """All settings of one service, resolved; `sources` says where each that is no default came from."""

    kernel: KernelSettings
    sections: dict[str, msgspec.Struct]
    sources: dict[str, str]

    def urls(self, what: str) -> dict[str, str]:
        """Return name to URL of the `transport` or `store` setting."""
        value = getattr(self.kernel, what)
        return {"default": value} if isinstance(value, str) else dict(value)


def resolve(
    config: ServiceConfig,
    sections: Sequence[Section] = (),
    *,
    class_values: Mapping[str, object] | None = None,
    overrides: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    ignored: Collection[str] = (),
) -> Settings:
    """Merge all sources.

    Args:
        config: arguments in code.
        sections: what the installed plugins registered.
        class_values: attributes of the service class (`version`, `description`); weaker than files.
        overrides: the command line.
        environment: the process's own where None.
        ignored: names of disabled plugins; settings for them are skipped, not refused.

    Raises:
        ConfigurationError: an unknown key (with the nearest known one) or a value of the wrong type.
    """
    known = _Known(sections, ignored)
    environ = os.environ if environment is None else environment
    layers: list[Layer] = [
        ("the class", class_values or {}),
        *_files(config.name, environ),
        *_environment(known, environ),
        ("the command line", overrides or {}),
        ("code", config.values),
    ]
    merged: dict[str, dict[str, object]] = {"": {}}
    sources: dict[str, str] = {}
    for source, values in layers:
        for section, fields in known.sort(source, values).items():
            merged.setdefault(section, {}).update(fields)
            sources.update({f"{section}.{field}" if section else field: source for field in fields})
    resolved: dict[str, msgspec.Struct] = {
        section.name: _build(section.type, merged.get(section.name, {}), section.name, sources) for section in sections
    }
    return Settings(_kernel(merged[""], sources), resolved, sources)


class _Known:
    """Which keys there are."""

    def __init__(self, sections: Sequence[Section], ignored: Collection[str]) -> None:
        self.sections = {section.name: section for section in sections}
        self.flat = {flat: (section, field) for section in sections for flat, field in section.flat.items()}
        self.ignored = ignored
        self.names = [*_FIELDS, *self.sections, *self.flat]

    def sort(self, source: str, values: Mapping[str, object]) -> dict[str, dict[str, object]]:
        """Put each key of one layer under its section, the kernel's under an empty name."""
        result: dict[str, dict[str, object]] = {"": {}}
        for key, value in values.items():
            if key in self.sections:
                section = self.sections[key]
                fields = _as_mapping(section, value, source)
                for field in fields:
                    if field not in section.type.__struct_fields__:
                        raise _unknown(f"{key}.{field}", source, [f"{key}.{n}" for n in section.type.__struct_fields__])
                result.setdefault(key, {}).update(fields)
            elif key in self.flat:
                section, field = self.flat[key]
                result.setdefault(section.name, {})[field] = value
            elif key in _FIELDS:
                result[""][key] = value
            elif not self._is_disabled(key):
                raise _unknown(key, source, self.names)
        for section in self.sections.values():
            url = result.get(section.name, {}).get(section.transport_field or "")
            if isinstance(url, list | tuple) and all(isinstance(each, str) for each in url):
                url = ",".join(url)
            if url and "transport" not in result[""]:
                result[""]["transport"] = url
        return result

    def _is_disabled(self, key: str) -> bool:
        plugin = _owner(key).removeprefix("cliffracer-") or key.partition("_")[0]
        return key in self.ignored or plugin in self.ignored


def _owner(key: str) -> str:
    """Return the distribution of this project that has a setting, as far as it is known here."""
    return _ELSEWHERE.get(key) or _ELSEWHERE.get(key.partition("_")[0].partition(".")[0], "")


def _as_mapping(section: Section, value: object, source: str) -> dict[str, object]:
    if isinstance(value, section.type):
        return msgspec.structs.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise ConfigurationError(
        f"setting {section.name!r} from {source} is no table; "
        f"give {section.type.__name__}(...) or a mapping of its fields"
    )


def _unknown(key: str, source: str, known: Sequence[str]) -> ConfigurationError:
    import difflib  # with the first mistake, not with the kernel

    near = difflib.get_close_matches(key, known, n=1)
    owner = _owner(key)
    installed = {each.partition(".")[0] for each in known}
    if owner and owner.removeprefix("cliffracer-") not in installed:
        remedy = f"it belongs to {owner}: install that, or remove the setting"
    elif near:
        remedy = f"did you mean {near[0]!r}?"
    else:
        remedy = f"known here are {', '.join(sorted(known))}"
    return ConfigurationError(f"setting {key!r} from {source} is not known; {remedy}")


def _kernel(values: Mapping[str, object], sources: Mapping[str, str] | None = None) -> KernelSettings:
    settings = _build(KernelSettings, values, "", sources or {})
    for field in ("timeout", "max_timeout_s", "shutdown_grace_s"):
        try:
            validate_timeout(getattr(settings, field))
        except Exception as error:
            raise ConfigurationError(f"setting {field!r}: {error}") from None
    if settings.concurrency < 1 or settings.queue_size < 0 or settings.event_buffer < 0:
        raise ConfigurationError("settings 'concurrency' (from 1), 'queue_size', 'event_buffer' (from 0) are too low")
    for field in ("transport", "store"):
        urls = getattr(settings, field)
        if isinstance(urls, dict) and "default" not in urls:
            raise ConfigurationError(f"setting {field!r} names {sorted(urls)} and no 'default'; name one of them so")
    return settings


S = TypeVar("S", bound=msgspec.Struct)


def _build(type: type[S], values: Mapping[str, object], section: str, sources: Mapping[str, str]) -> S:
    try:
        return msgspec.convert(dict(values), type, strict=True)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `")
        field = path.rpartition("$.")[2].rstrip("`")
        text = text[:1].lower() + text[1:]
        if not field:
            raise ConfigurationError(f"settings of section {section!r}: {text}") from None
        name = f"{section}.{field}" if section else field
        key = field.partition(".")[0].partition("[")[0]
        source = sources.get(f"{section}.{key}" if section else key, "code")
        raise ConfigurationError(f"setting {name!r} from {source}: {text}") from None


def _files(name: str, environ: Mapping[str, str]) -> list[Layer]:
    from pathlib import Path  # with the first start, not with the kernel

    chosen = environ.get("CLIFFRACER_CONFIG")
    path = Path(chosen) if chosen else Path("cliffracer.toml")
    table: Any = None
    if chosen or path.is_file():
        table = _read_toml(path)
    elif Path("pyproject.toml").is_file():
        path = Path("pyproject.toml")
        table = _read_toml(path)
    if path.name == "pyproject.toml" and table:
        table = table.get("tool", {}).get("cliffracer")
    if not table:
        return []
    table = dict(_table(path, "tool.cliffracer", table))
    services = _table(path, "services", table.pop("services", {}))
    chosen_service = _table(path, f"services.{name}", services.get(name, {}))
    return [(path.name, table), (f"{path.name} [services.{name}]", chosen_service)]


def _table(path: Path, name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"setting {name!r} from {path.name} is no table; write it as [{name}]")
    return value


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib  # with the first file, not with the kernel

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"settings file {str(path)!r} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"settings file {str(path)!r} is not valid TOML: {error}") from error


def _environment(known: _Known, environ: Mapping[str, str]) -> list[Layer]:
    layers: list[Layer] = []
    for variable, text in sorted(environ.items(), key=_weakest_first):
        ours = variable.startswith(_PREFIX) and variable not in _RESERVED
        key, _, field = variable.removeprefix(_PREFIX).lower().partition("__") if ours else (variable.lower(), "", "")
        section = known.sections.get(key)
        hint: Any = None
        if not ours and not (variable.isupper() and key in known.flat):
            continue
        if key in known.flat:
            owner, name = known.flat[key]
            hint = _hint(owner.type, name)
        elif field and section is not None and field in section.type.__struct_fields__:
            hint = _hint(section.type, field)
        elif not field:
            hint = _FIELDS.get(key, str)
        value = text if hint is None else from_text(text, hint, f"setting from {variable}")
        layers.append((variable, {key: {field: value}} if field else {key: value}))
    return layers


def _weakest_first(variable: tuple[str, str]) -> tuple[bool, bool, str]:
    """Order flat names before sections before the kernel's own, so that CLIFFRACER_TRANSPORT beats NATS_URL."""
    name = variable[0]
    return name.startswith(_PREFIX), name.removeprefix(_PREFIX).lower() in _FIELDS, name


def _hint(type: type[msgspec.Struct], field: str) -> Any:
    return next(each.type for each in msgspec.structs.fields(type) if each.name == field)


def from_text(text: str, hint: Any, what: str) -> object:
    """Read a setting's value from text: JSON for lists and tables, commas for lists of words.

    Raises:
        ConfigurationError: `what` and the reason.
    """
    plain, words = (lambda: text), (lambda: [part.strip() for part in text.split(",")])
    json: Callable[[], object] = lambda: msgspec.json.decode(text)  # noqa: E731
    failure: Exception | None = None
    for read in (json, plain, words) if text.startswith("{") else (plain, json, words):
        try:
            return msgspec.convert(read(), hint, strict=False)
        except msgspec.MsgspecError as error:
            failure = failure or error
    text = str(failure)
    raise ConfigurationError(f"{what}: {text[:1].lower()}{text[1:]}") from None


def get_env(
    name: str,
    default: Any = None,
    *,
    required: bool = False,
    type: Callable[[str], Any] = str,
) -> Any:
    """Read an environment variable.

    Args:
        name: its name.
        default: what is returned where it is not set.
        required: raise where it is not set and there is no default.
        type: what turns its text into a value; `bool` reads 1/0, true/false, yes/no, on/off.

    Raises:
        ConfigurationError: it is missing, or `type` does not take it; the value is not shown.
    """
    text = os.environ.get(name)
    if text is None:
        if required and default is None:
            raise ConfigurationError(f"environment variable {name!r} is not set; set it, or give a default")
        return default
    if type is bool:
        flags = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        if text.lower() not in flags:
            raise ConfigurationError(f"environment variable {name!r} is no flag; write true or false")
        return flags[text.lower()]
    try:
        return type(text)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"environment variable {name!r} is no {getattr(type, '__name__', type)}; correct it"
        ) from error

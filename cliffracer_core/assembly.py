"""From installed plugins and settings to transports and stores; what services and clients start with."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, TypeVar

from . import builtin
from .config import ServiceConfig, Settings, resolve
from .context import create_correlation_id
from .errors import ConfigurationError, PluginError
from .handlers import Declaration
from .interfaces import Section, Security, ServiceInfo, Store, StoreFactory, Transport, TransportFactory
from .plugins import Plugins

__all__ = [
    "load_plugins",
    "make_stores",
    "make_transports",
    "mask_url",
    "once",
    "opened",
    "options_url",
    "resolve_settings",
]
__all__ += ["security_of", "service_info"]

T = TypeVar("T", Transport, Store)

BUILTIN: Mapping[str, ModuleType] = {"core": builtin}


def load_plugins(extra: Mapping[str, object] | None = None, *, environment: Mapping[str, str] | None = None) -> Plugins:
    """Load the kernel's own plugin, the installed ones, and `extra` ones by name."""
    return Plugins(BUILTIN, extra, environment=environment)


def resolve_settings(
    plugins: Plugins,
    config: ServiceConfig,
    *,
    class_values: Mapping[str, object] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Merge all sources of settings, checked against the sections that plugins registered.

    Raises:
        PluginError: two plugins claim one section or flat name.
        ConfigurationError: as `config.resolve`.
    """
    owners: dict[str, str] = {}
    sections: list[Section] = []
    for plugin, section in plugins.ask("cliffracer_register_settings"):
        for name in (section.name, *section.flat):
            if name in owners:
                raise PluginError(
                    f"plugins {owners[name]!r} and {plugin!r} both register the setting {name!r}; "
                    f"disable one with CLIFFRACER_DISABLE={plugin}"
                )
            owners[name] = plugin
        sections.append(section)
    return resolve(config, sections, class_values=class_values, overrides=overrides, ignored=plugins.disabled)


def service_info(settings: Settings) -> ServiceInfo:
    """Make the plain data that hooks get, with a new instance id."""
    kernel = settings.kernel
    return ServiceInfo(
        name=kernel.name,
        version=kernel.version,
        description=kernel.description,
        id=create_correlation_id(),
        metadata=kernel.metadata,
        settings=settings.sections,
    )


def make_transports(plugins: Plugins, settings: Settings, service: ServiceInfo) -> dict[str, Transport]:
    """Make, unopened, each configured transport by name. Raises ConfigurationError."""
    factories = _factories(plugins, "cliffracer_register_transports")
    return {name: _make("transport", name, url, factories, service) for name, url in settings.urls("transport").items()}


def make_stores(plugins: Plugins, settings: Settings, service: ServiceInfo) -> dict[str, Store]:
    """Make, unopened, each configured store by name. Raises ConfigurationError."""
    factories = _factories(plugins, "cliffracer_register_stores")
    return {name: _make("store", name, url, factories, service) for name, url in settings.urls("store").items()}


def security_of(
    plugins: Plugins, declarations: Iterable[Declaration], service: ServiceInfo
) -> dict[str, list[Security]]:
    """Ask how the callers of each handler are let in; by its name. Raises PluginError."""
    schemes: dict[str, tuple[str, Mapping[str, object]]] = {}
    found: dict[str, list[Security]] = {}
    for declaration in declarations:
        for plugin, each in plugins.ask("cliffracer_register_security", declaration=declaration, service=service):
            owner, scheme = schemes.setdefault(each.name, (plugin, each.scheme))
            if scheme != each.scheme:
                raise PluginError(
                    f"plugins {owner!r} and {plugin!r} describe the security scheme {each.name!r} in two ways; "
                    "give one of them another name"
                )
            found.setdefault(declaration.name, []).append(each)
    return found


def _factories(plugins: Plugins, hook: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    owners: dict[str, str] = {}
    for plugin, factory in plugins.ask(hook):
        for scheme in factory.schemes:
            if scheme in owners:
                raise PluginError(
                    f"plugins {owners[scheme]!r} and {plugin!r} both serve {scheme!r}; "
                    f"disable one with CLIFFRACER_DISABLE={plugin}"
                )
            owners[scheme] = plugin
            found[scheme] = factory
    return found


def _make(
    what: str, name: str, url: str, factories: Mapping[str, TransportFactory | StoreFactory], service: ServiceInfo
) -> Any:
    scheme, separator, _ = url.partition("://")
    factory = factories.get(scheme)
    if not separator or factory is None:
        wanted = scheme if re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) else "nats"
        raise ConfigurationError(
            f"{what} {name!r}: nothing installed serves {mask_url(url)!r}; "
            f"known are {', '.join(f'{each}://' for each in sorted(factories))}; install cliffracer-{wanted}"
        )
    return factory.create(url, service)


def mask_url(url: str) -> str:
    """Return a URL, or a comma-separated list, without what stands before `@`."""
    parts = re.split(r",(?=[a-zA-Z0-9+.-]+://)", url)  # any other comma may stand in a password
    return ",".join(re.sub(r"^([a-zA-Z0-9+.-]+://)?.*@", r"\1***@", part) for part in parts)


def options_url(plugins: Plugins, transport: str, options: Mapping[str, object]) -> str:
    """Build a transport's URL from `ClientProxy` arguments: a URL, or a scheme and host, port, user, password.

    Raises:
        ConfigurationError: no installed plugin serves the scheme.
    """
    if "://" in transport:
        return transport
    factory = _factories(plugins, "cliffracer_register_transports").get(transport)
    if factory is None:
        raise ConfigurationError(f"transport {transport!r} is not installed; install cliffracer-{transport}")
    if factory.options_url is not None:
        return str(factory.options_url(options))
    if "url" in options:
        return str(options["url"])
    from urllib.parse import quote, urlsplit  # with the first URL, not with the kernel

    user = str(options.get("username") or options.get("user") or "")
    password = str(options.get("password") or "")
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    port = f":{options['port']}" if "port" in options else ""
    url = f"{transport}://{login}{options.get('host', '')}{port}"
    urlsplit(url)
    return url


@contextlib.asynccontextmanager
async def opened(things: Mapping[str, T], what: str, log: Callable[[str, BaseException], None]) -> AsyncIterator[None]:
    """Open all, and close all that were opened, in reverse, whatever happens.

    Args:
        things: transports or stores by name.
        what: `transport` or `store`, for errors.
        log: hears of a close that failed; it never masks another error.

    Raises:
        CliffracerError: what `open` raised, named.
    """
    done: list[tuple[str, T]] = []
    try:
        for name, thing in things.items():
            done.append((name, thing))
            await thing.open()
        yield
    finally:
        for name, thing in reversed(done):
            try:
                await thing.close()
            except Exception as error:
                log(f"{what} {name!r} did not close", error)


def once(what: str, offers: Iterable[tuple[str, tuple[Any, Any]]]) -> dict[Any, Any]:
    """Gather what plugins offer under names or types, each of them offered by one plugin alone."""
    found: dict[Any, tuple[str, Any]] = {}
    for plugin, (key, value) in offers:
        if key in found:
            name = key.__name__ if isinstance(key, type) else key
            raise ConfigurationError(
                f"plugins {found[key][0]!r} and {plugin!r} both offer {what} {name!r}; "
                f"disable one with CLIFFRACER_DISABLE={plugin}"
            )
        found[key] = (plugin, value)
    return {key: value for key, (_, value) in found.items()}

"""Finding plugins, asking them, and saying who answered what.

Hooks are asked plugin by plugin, because pluggy's own list of results loses who said what.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from . import hookspecs
from .errors import CliffracerError, PluginError
from .interfaces import Middleware, Route, Section, Security, StoreFactory, TransportFactory

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

__all__ = ["PluginInfo", "Plugins"]

GROUP = "cliffracer"
_ITEMS: Mapping[str, type] = {
    "cliffracer_register_settings": Section,
    "cliffracer_register_transports": TransportFactory,
    "cliffracer_register_stores": StoreFactory,
    "cliffracer_register_middleware": Middleware,
    "cliffracer_register_outgoing": Middleware,
    "cliffracer_register_routes": Route,
    "cliffracer_register_websocket_routes": Route,
    "cliffracer_register_security": Security,
}
"""What the hooks' sequences hold, where that is a class."""


class PluginInfo:
    """Where a plugin came from and what it registered so far, hook by hook."""

    def __init__(self, name: str, distribution: str = "", version: str = "") -> None:
        self.name = name
        self.distribution = distribution
        self.version = version
        self.registered: dict[str, list[str]] = {}


class Plugins:
    """The plugins of one process.

    Args:
        builtin: the kernel's own by name; they cannot be disabled.
        extra: plugins given in code by name; used in scripts and tests.
        environment: read for `CLIFFRACER_DISABLE` (names to block before import) and `CLIFFRACER_PLUGINS`
            (names to load; empty means the kernel alone); the process's own where None.

    Raises:
        PluginError: one that cannot be imported or registered, or two of one name.
    """

    def __init__(
        self,
        builtin: Mapping[str, object],
        extra: Mapping[str, object] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        environ = os.environ if environment is None else environment
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.infos: dict[str, PluginInfo] = {}
        only = environ.get("CLIFFRACER_PLUGINS")
        self.disabled: Collection[str] = set(_names(environ.get("CLIFFRACER_DISABLE", "")))
        """Installed plugins that were left out; settings for them are no error."""
        for name, plugin in builtin.items():
            self._register(PluginInfo(name, "cliffracer-core"), plugin)
        for point in _installed(only, self.disabled):
            info = PluginInfo(
                point.name, point.dist.name if point.dist else "?", point.dist.version if point.dist else "?"
            )
            self._register(info, _import(point, info))
        if only is not None:
            self.disabled = {*self.disabled, *(each.name for each in _entry_points())} - self.infos.keys()
        for name, plugin in (extra or {}).items():
            self._register(PluginInfo(name, "given in code"), plugin)
        self._notify_added()

    def _register(self, info: PluginInfo, plugin: object) -> None:
        if info.name in self.infos:
            raise PluginError(
                f"two plugins are named {info.name!r}: {self.infos[info.name].distribution} and {info.distribution}; "
                f"uninstall one, or disable both with CLIFFRACER_DISABLE={info.name}"
            )
        for name in dir(plugin):
            if not name.startswith("cliffracer_"):
                continue  # asking any other attribute could wake it: a service loads its plugins
            function = getattr(plugin, name)
            marked = hasattr(function, "cliffracer_impl") or hasattr(function, "cliffracer_spec")
            if callable(function) and not marked:
                raise PluginError(f"plugin {info.name!r}: {name} has the name of a hook and no @hookimpl; add it")
        try:
            self.manager.register(plugin, name=info.name)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(_broken(info, "does not fit its hooks", error)) from error
        self.infos[info.name] = info

    def _notify_added(self) -> None:
        list(self.ask("cliffracer_add_hookspecs", pluginmanager=self.manager))
        try:
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            name = self.manager.get_name(error.plugin) or "?"
            raise PluginError(_broken(self.infos[name], "implements a hook that does not exist", error)) from error

    def is_active(self, name: str) -> bool:
        """Tell whether a plugin of this name is loaded."""
        return name in self.infos

    def ask(self, hook: str, **arguments: Any) -> Iterator[tuple[str, Any]]:
        """Yield plugin name and item for all that the plugins return, in the order of their names.

        A sequence's items come one by one; a mapping's as (key, value) pairs.

        Raises:
            PluginError: the plugin failed, returned neither, or items of another class.
        """
        for implementation in self._implementations(hook):
            name = implementation.plugin_name
            items = _items(name, hook, _call(implementation, hook, arguments))
            wanted = _ITEMS.get(hook, object)
            for item in items:
                if not isinstance(item, wanted):
                    raise PluginError(
                        f"plugin {name!r}: hook {hook} returned {type(item).__name__!r} among its items; "
                        f"return {wanted.__name__} objects"
                    )
                self._note(name, hook, _label(item))
                yield name, item

    def tell(self, hook: str, **arguments: Any) -> list[CliffracerError]:
        """Call every plugin's hook, also after one has failed; return what failed."""
        errors: list[CliffracerError] = []
        for implementation in self._implementations(hook):
            try:
                _call(implementation, hook, arguments)
            except CliffracerError as error:
                errors.append(error)
        return errors

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        return sorted(getattr(self.manager.hook, hook).get_hookimpls(), key=lambda each: each.plugin_name)

    def _note(self, plugin: str, hook: str, label: str) -> None:
        known = self.infos[plugin].registered.setdefault(hook, [])
        if label not in known:  # a hook is asked again for each handler
            known.append(label)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points  # with the first start, not with the kernel

    return entry_points(group=GROUP)


def _installed(only: str | None, disabled: Collection[str]) -> list[EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in sorted(_entry_points(), key=lambda each: each.name):
        if point.name in disabled or (only is not None and point.name not in _names(only)):
            continue
        other = found.get(point.name)
        if other is not None and (other.dist and other.dist.name) != (point.dist and point.dist.name):
            raise PluginError(
                f"two plugins are named {point.name!r}: {other.dist and other.dist.name} and "
                f"{point.dist and point.dist.name}; uninstall one, or disable both with CLIFFRACER_DISABLE={point.name}"
            )
        found[point.name] = point
    missing = [name for name in _names(only or "") if name not in found and name not in disabled]
    if missing:
        raise PluginError(f"CLIFFRACER_PLUGINS names {missing[0]!r}, which is not installed; known are {sorted(found)}")
    return list(found.values())


def _import(point: EntryPoint, info: PluginInfo) -> object:
    """Import a plugin; of a class one instance is made for each set of plugins, which may keep state."""
    try:
        plugin = point.load()
        return plugin() if isinstance(plugin, type) else plugin
    except Exception as error:
        raise PluginError(_broken(info, "cannot be imported", error)) from error


def _broken(info: PluginInfo, what: str, error: Exception) -> str:
    cause = " ".join(str(error).split())
    return (
        f"plugin {info.name!r} ({info.distribution} {info.version}) {what}: {type(error).__name__}: {cause}; "
        f"reinstall or upgrade it, or disable it with CLIFFRACER_DISABLE={info.name}"
    )


def _call(implementation: pluggy.HookImpl, hook: str, arguments: Mapping[str, Any]) -> object:
    try:
        return implementation.function(*(arguments[each] for each in implementation.argnames))
    except CliffracerError:
        raise
    except Exception as error:
        name = implementation.plugin_name
        raise PluginError(f"plugin {name!r}: hook {hook} failed: {type(error).__name__}: {error}") from error


def _items(name: str, hook: str, result: object) -> Sequence[Any]:
    if result is None:
        return ()
    if isinstance(result, Mapping):
        return list(result.items())
    if isinstance(result, Sequence) and not isinstance(result, str | bytes):
        return result
    raise PluginError(
        f"plugin {name!r}: hook {hook} returned {type(result).__name__!r}; return a sequence or a mapping"
    )


def _label(item: Any) -> str:
    if isinstance(item, tuple) and item:
        item = item[0]
    for attribute in ("schemes", "name", "path"):
        value = getattr(item, attribute, None)
        if value:
            return value if isinstance(value, str) else ", ".join(value)
    return getattr(item, "__name__", type(item).__name__)

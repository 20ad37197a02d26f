"""Build controllers and injectables: constructor parameters whose default is `inject()`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .errors import ConfigurationError
from .handlers import Wanted, is_injectable, snake_case

__all__ = ["Builder"]


class Builder:
    """Build objects of one service; of each injectable class there is one instance.

    Args:
        injectables: classes that a bare `inject()` may name by their snake-case name.
        replaced: ready objects by name or class, used in place of what would be built.
    """

    def __init__(self, injectables: Iterable[type], replaced: Mapping[Any, object]) -> None:
        self._by_name = {snake_case(each.__name__): each for each in injectables}
        self._replaced = replaced
        self.known = set(self._by_name)
        """Names that something is injected by, as far as it was built."""
        self._building: list[type] = []
        self.built: dict[type, object] = {}

    def build(self, cls: type) -> object:
        """Return the instance of a class, with what its constructor asks for.

        Raises:
            ConfigurationError: a parameter names nothing known, or two classes need each other.
        """
        self.known.add(snake_case(cls.__name__))
        for key in (cls, snake_case(cls.__name__)):
            if key in self._replaced:
                return self._replaced[key]
        if cls in self.built:
            return self.built[cls]
        if cls in self._building:
            chain = " -> ".join(each.__name__ for each in [*self._building, cls])
            raise ConfigurationError(f"injectables need each other: {chain}; break the circle")
        self._building.append(cls)
        try:
            instance: object = cls(**self._arguments(cls))
        finally:
            self._building.pop()
        self.built[cls] = instance
        return instance

    def _arguments(self, cls: type) -> dict[str, object]:
        constructor: Callable[..., Any] = cls.__init__  # type: ignore[misc]  # only its signature is read
        wanted = {
            name: parameter.default
            for name, parameter in inspect.signature(constructor).parameters.items()
            if isinstance(parameter.default, Wanted)
        }
        if not wanted:
            return {}
        try:
            hints = typing.get_type_hints(constructor)
        except NameError as error:
            raise ConfigurationError(
                f"constructor of {cls.__name__}: {error}; import the type at module level"
            ) from None
        return {name: self._find(cls, name, each, hints) for name, each in wanted.items()}

    def _find(self, cls: type, name: str, wanted: Wanted, hints: Mapping[str, Any]) -> object:
        self.known.add(name)
        if name in self._replaced:
            return self._replaced[name]
        target = wanted.type or hints.get(name) or self._by_name.get(name)
        if target in self._replaced:
            return self._replaced[target]
        if not isinstance(target, type) or not is_injectable(target):
            known = ", ".join(sorted(self._by_name)) or "none"
            raise ConfigurationError(
                f"constructor of {cls.__name__}: nothing to inject for {name!r} (known by name: {known}); "
                f"annotate it with an @Injectable() class, or list that class in the service's 'injectables'"
            )
        return self.build(target)

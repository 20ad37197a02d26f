"""What a program says about a service before it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from .config import ServiceConfig
from .handlers import ErrorHandler, Mark
from .plugins import Plugins

__all__ = ["Blueprint"]


class Blueprint(msgspec.Struct, kw_only=True):
    """What a program said about a service before it starts."""

    owner: Any
    """The service object: its methods are handlers, its class holds providers."""
    config: ServiceConfig
    class_values: Mapping[str, object] = {}
    functions: list[tuple[str, Callable[..., Any], tuple[Mark, ...]]] = []
    controllers: Sequence[type] = ()
    injectables: Sequence[type] = ()
    errors: ErrorHandler
    plugins: Plugins | Mapping[str, object] | None = None
    overrides: Mapping[str, object] = {}
    replace: Mapping[Any, object] = {}
    attributes: dict[str, object] = {}
    """What plugins made as attributes of the service object."""

"""The examples of a docstring, where the types of a route take them."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from .model import RouteModel, encoded_names
from .pieces import Json
from .responses import is_response

__all__ = ["Examples", "examples_of", "numbered"]

logger = logging.getLogger("cliffracer.http")


class Examples(msgspec.Struct):
    """The examples of a docstring that this route's types take."""

    arguments: list[Json]
    results: list[Any]

    def of(self, name: str) -> Any:
        """Return the first example of an argument, `UNSET` without one."""
        return next((each[name] for each in self.arguments if name in each), msgspec.UNSET)


def examples_of(model: RouteModel) -> Examples:
    """Return the examples of a route; of one that does not fit, a warning is logged."""
    types: dict[str, Any] = {each.name: each.type for each in (*model.parameters, *model.form) if each.where != "file"}
    found = Examples([], [])
    if model.body is not None:
        whole = model.body.whole
        types |= {whole: model.body.type} if whole else dict(encoded_names(model.body.type).values())
    for each in model.docs.examples:
        try:
            if isinstance(each.arguments, dict):
                for name, value in each.arguments.items():
                    if name in types:
                        msgspec.convert(value, types[name])
                found.arguments.append(each.arguments)
            if each.result is not msgspec.UNSET:
                if not is_response(model.returns):
                    msgspec.convert(each.result, model.returns)
                found.results.append(each.result)
        except (msgspec.ValidationError, ValueError, OverflowError, TypeError) as error:
            logger.warning("%s: an example in its docstring does not fit: %s", model.where, error)
    return found


def numbered(values: list[Any]) -> Json:
    """Return values as OpenAPI's map of examples."""
    return {f"example{number}": {"value": value} for number, value in enumerate(values, 1)}

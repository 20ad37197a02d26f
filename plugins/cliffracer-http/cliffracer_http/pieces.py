"""What the parts of the OpenAPI document share."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

__all__ = ["BINARY", "Json", "members_of"]

Json = dict[str, Any]
"""A JSON object."""
BINARY: Mapping[str, str] = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
"""A file; of its two names, one is OpenAPI's, and the other is what older tools look for."""


def members_of(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, extras left out; of what is none, itself."""
    if typing.get_origin(hint) is typing.Annotated:
        return members_of(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(each for part in typing.get_args(hint) for each in members_of(part))
    return (hint,)

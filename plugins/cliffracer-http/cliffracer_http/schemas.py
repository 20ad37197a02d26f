"""JSON Schemas of many types at once, so that what they share is described once."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect as shapes

from .formats import add_formats

__all__ = ["BINARY", "Json", "Schema", "Schemas", "encoded", "members_of"]

Json = dict[str, Any]
"""A JSON object."""
Schema = dict[str, Any]
"""A JSON Schema (draft 2020-12)."""
BINARY: Mapping[str, str] = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
"""A file; of its two names, one is OpenAPI's, and the other is what older tools look for."""
_REFERENCE = "#/components/schemas/{name}"


class Schemas:
    """Types to be described: `add` gives a schema that is empty until `fill` is called."""

    def __init__(self) -> None:
        self._wanted: list[tuple[Any, Schema, Mapping[str, Any]]] = []

    def add(self, type: Any, **more: Any) -> Schema:
        """Return what will be the schema of a type, with `more` beside it; what is UNSET or empty is left out."""
        schema: Schema = {}
        kept = {name: value for name, value in more.items() if value is not msgspec.UNSET and value != ""}
        self._wanted.append((type, schema, kept))
        return schema

    def fill(self) -> dict[str, Schema]:
        """Fill in all schemas and return those that they share, by name; a type that has none says nothing."""
        types = [each if _describable(each) else Any for each, _, _ in self._wanted]
        schemas, components = msgspec.json.schema_components(types, schema_hook=_named, ref_template=_REFERENCE)
        seen: set[str] = set()
        for (_, schema, more), found, info in zip(self._wanted, schemas, shapes.multi_type_info(types), strict=True):
            add_formats(found, info, components, seen)
            schema.update(found)
            schema.update(more)
        return dict(sorted(components.items()))

    def object(self, struct: type[msgspec.Struct], descriptions: Mapping[str, str]) -> Schema:
        """Return the schema of a Struct that was made for one route, described where it is used."""
        hints = typing.get_type_hints(struct, include_extras=True)
        fields = msgspec.structs.fields(struct)
        properties = {
            each.encode_name: self.add(
                hints[each.name], default=_default(each), description=descriptions.get(each.name, "")
            )
            for each in fields
        }
        schema: Schema = {"type": "object", "properties": properties}
        required = [each.encode_name for each in fields if each.required]
        return {**schema, "required": required} if required else schema


def encoded(value: object) -> Any:
    """Return a value as JSON has it; UNSET where it has none."""
    try:
        return msgspec.to_builtins(value, str_keys=True)
    except (TypeError, ValueError, RecursionError):
        return msgspec.UNSET


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.required:
        return msgspec.UNSET
    return encoded(field.default_factory() if field.default is msgspec.NODEFAULT else field.default)


def _named(cls: type) -> Schema:
    return {"title": getattr(cls, "__name__", str(cls))}


def _describable(type: Any) -> bool:
    try:
        msgspec.json.schema(type, schema_hook=_named)
    except Exception:  # msgspec raises several kinds; what cannot be described can still be sent
        return False
    return not isinstance(shapes.type_info(type), shapes.CustomType)


def members_of(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, extras left out; of what is none, itself."""
    if typing.get_origin(hint) is typing.Annotated:
        return members_of(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(each for part in typing.get_args(hint) for each in members_of(part))
    return (hint,)

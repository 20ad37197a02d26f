"""What msgspec's schemas leave open: that a text is a moment, or a decimal number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import inspect as shapes

__all__ = ["add_formats"]

_DECIMAL = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_OBJECTS = (shapes.StructType, shapes.TypedDictType, shapes.DataclassType, shapes.NamedTupleType)
_MEMBERS = (shapes.DateTimeType, shapes.TimeType, shapes.DecimalType)


def add_formats(schema: dict[str, Any], info: shapes.Type, components: Mapping[str, Any], seen: set[str]) -> None:
    """Add them to a schema, and to those it refers to.

    Args:
        schema: of the type; changed in place.
        info: what msgspec knows of the type.
        components: all shared schemas, by name; changed in place.
        seen: the names of those that are done; grows.
    """
    while isinstance(info, shapes.Metadata):
        info = info.type
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in seen:
            return
        seen.add(name)
        schema = components[name]
    if isinstance(info, _MEMBERS):
        _settle(schema, info)
        return
    for part, inner in _parts(schema, info):
        if isinstance(part, dict):
            add_formats(part, inner, components, seen)


def _settle(schema: dict[str, Any], info: shapes.Type) -> None:
    if isinstance(info, shapes.DecimalType):
        schema.setdefault("pattern", _DECIMAL)
    else:
        schema.setdefault("format", "time" if isinstance(info, shapes.TimeType) else "date-time")


def _parts(schema: dict[str, Any], info: shapes.Type) -> list[tuple[Any, shapes.Type]]:
    """Pair the schemas in a schema with the types in its type."""
    if isinstance(info, _OBJECTS):
        properties, positions = schema.get("properties"), schema.get("prefixItems", ())
        if properties is not None:
            return [(properties.get(each.encode_name), each.type) for each in info.fields]
        tags = len(positions) - len(info.fields)
        return [(part, each.type) for part, each in zip(positions[tags:], info.fields, strict=True)]
    if isinstance(info, shapes.CollectionType):
        return [(schema.get("items"), info.item_type)]
    if isinstance(info, shapes.TupleType):
        return list(zip(schema.get("prefixItems", ()), info.item_types, strict=True))
    if isinstance(info, shapes.DictType):
        return [(schema.get("additionalProperties"), info.value_type)]
    if isinstance(info, shapes.UnionType):
        return _members(schema.get("anyOf", []), info)
    return []


def _members(options: list[Any], info: shapes.UnionType) -> list[tuple[Any, shapes.Type]]:
    """Pair a union's members as msgspec orders them: plain ones, those told apart by a tag, None."""
    plain: list[shapes.Type] = []
    tagged: list[shapes.Type] = []
    for each in info.types:
        real: shapes.Type = each
        while isinstance(real, shapes.Metadata):
            real = real.type
        if isinstance(real, shapes.StructType) and not real.array_like:
            tagged.append(real)
        elif not isinstance(real, shapes.NoneType):
            plain.append(each)
    pairs = list(zip(options, plain, strict=False))
    rest = options[len(plain) :]
    if len(tagged) > 1 and rest and "anyOf" in rest[0]:
        rest = rest[0]["anyOf"]
    return [*pairs, *zip(rest, tagged, strict=False)]

"""JSON Schemas (draft 2020-12) of many types at once, so that what they share is described once.

They are msgspec's, and say in addition that a text is a moment, or a decimal number.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect as shapes

from .errors import ConfigurationError

__all__ = ["Schema", "Schemas", "encoded"]

Schema = dict[str, Any]
_DECIMAL = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_OBJECTS = (shapes.StructType, shapes.TypedDictType, shapes.DataclassType, shapes.NamedTupleType)
_OPEN = (shapes.DateTimeType, shapes.TimeType, shapes.DecimalType)


class Schemas:
    """Types to be described: `add` gives a schema that is empty until `fill` is called.

    Args:
        reference: how one schema refers to another, by its name.
    """

    def __init__(self, reference: str = "#/components/schemas/{name}") -> None:
        self._reference = reference
        self._wanted: list[tuple[Any, Schema, Mapping[str, Any]]] = []

    def add(self, type: Any, **more: Any) -> Schema:
        """Return what will be the schema of a type, with `more` beside it; what is UNSET or empty is left out."""
        schema: Schema = {}
        kept = {name: value for name, value in more.items() if value is not msgspec.UNSET and value != ""}
        self._wanted.append((type, schema, kept))
        return schema

    def fill(self) -> dict[str, Schema]:
        """Fill in all schemas and return those that they share, by name; a type that has none says nothing.

        Raises:
            ConfigurationError: two types have one name, module included.
        """
        types = [each if _describable(each) else Any for each, _, _ in self._wanted]
        try:
            schemas, components = msgspec.json.schema_components(
                types, schema_hook=_named, ref_template=self._reference
            )
        except KeyError as error:
            raise ConfigurationError(
                f"two types are both {error.args[0]!r}, which cannot be told apart in a document; rename one"
            ) from None
        seen: set[str] = set()
        for (_, schema, more), found, info in zip(self._wanted, schemas, shapes.multi_type_info(types), strict=True):
            _add_formats(found, info, components, seen)
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


def _add_formats(schema: dict[str, Any], info: shapes.Type, components: Mapping[str, Any], seen: set[str]) -> None:
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
    if isinstance(info, _OPEN):
        _settle(schema, info)
        return
    for part, inner in _parts(schema, info):
        if isinstance(part, dict):
            _add_formats(part, inner, components, seen)


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
        return _of_union(schema.get("anyOf", []), info)
    return []


def _of_union(options: list[Any], info: shapes.UnionType) -> list[tuple[Any, shapes.Type]]:
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

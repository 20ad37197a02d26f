"""JSON Schemas to Python types: msgspec Structs, enumerations and the annotations that name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .contracts import Failure, Schema, alternatives, resolved
from .naming import class_name, docstring, identifier, unique_name

__all__ = ["UNSET", "Types", "literal"]

_PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_FORMATS = {
    "date-time": "datetime.datetime",
    "date": "datetime.date",
    "time": "datetime.time",
    "duration": "datetime.timedelta",
    "uuid": "uuid.UUID",
    "decimal": "decimal.Decimal",
}
UNSET = "msgspec.UNSET"
_TAKEN = {"AsyncGenerator", "Caller", "CliffracerError", "RPCError", "Struct", "Enum", "Literal", "Any"}
_TAKEN |= {"None", "True", "False"}


class Types:
    """The types of one generated module.

    Args:
        taken: names that classes must not have.
    """

    def __init__(self, taken: tuple[str, ...] = ()) -> None:
        self._names = {*_TAKEN, *taken}
        self._known: dict[str, str] = {}
        self._open: set[str] = set()
        self.blocks: list[list[str]] = []
        """The source of each class."""
        self.errors: dict[str, str] = {}
        """The classes of the service's own errors, by their code on the wire."""

    def annotation(self, schema: Schema, definitions: Mapping[str, Schema], hint: str) -> str:
        """Return the annotation for a schema, having written the classes that it names.

        Args:
            schema: any; what msgspec could not decode is `Any`.
            definitions: what its `$ref` name.
            hint: a name for a class that the schema gives none.
        """
        reference = schema.get("$ref")
        if reference is not None:
            hint = str(reference).rpartition("/")[2]
        schema = resolved(schema, definitions)
        if "enum" in schema or "const" in schema:
            return self._enumeration(schema, None if reference is None else hint)
        parts = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(schema.get("type"), list):
            parts = [{**schema, "type": each} for each in schema["type"]]
        if parts:
            return self._union(parts, definitions, hint)
        match schema.get("type"):
            case "object":
                return self._object(schema, definitions, hint)
            case "array":
                return self._array(schema, definitions, hint)
            case "string" if schema.get("contentEncoding") == "base64":
                return "bytes"
            case "string":
                return _FORMATS.get(str(schema.get("format")), "str")
        return _PLAIN.get(str(schema.get("type")), "Any")

    def _union(self, parts: list[Schema], definitions: Mapping[str, Schema], hint: str) -> str:
        members = [self.annotation(each, definitions, hint) for each in parts]
        if "Any" in members or not _can_be_told([each for part in parts for each in alternatives(part, definitions)]):
            return "Any"
        return " | ".join(sorted(dict.fromkeys(members), key=lambda each: each == "None"))

    def _enumeration(self, schema: Schema, name: str | None) -> str:
        values = [schema["const"]] if "const" in schema else list(schema["enum"])
        plain = [each for each in values if isinstance(each, str | int) and not isinstance(each, bool)]
        if plain != values or not values:
            return "Any"
        if name is None:
            return f"Literal[{', '.join(map(literal, values))}]"
        key = f"enum {_text(schema)}"
        if key not in self._known:
            self._known[key] = chosen = self._claim(schema, name)
            members: dict[str, object] = {}
            for value in values:
                members[unique_name(identifier(str(value)).upper(), {*members, "NAME", "VALUE"})] = value
            lines = [
                f"class {chosen}(enum.Enum):",
                *docstring(str(schema.get("description", "")), "    ", "One of these"),
            ]
            self.blocks.append([*lines, "", *(f"    {key} = {literal(value)}" for key, value in members.items())])
        return self._known[key]

    def _array(self, schema: Schema, definitions: Mapping[str, Schema], hint: str) -> str:
        first = schema.get("prefixItems")
        if first:
            if schema.get("minItems") != len(first) or self._nests(schema, definitions):
                return "list[Any]"
            return f"tuple[{', '.join(self.annotation(each, definitions, hint) for each in first)}]"
        items = schema.get("items")
        return f"list[{self.annotation(items, definitions, f'{hint}Item') if isinstance(items, Mapping) else 'Any'}]"

    def _nests(self, schema: Schema, definitions: Mapping[str, Schema]) -> bool:
        """Tell whether an array holds itself, which no tuple can."""
        return _text(schema) in {_text(each) for each in _reachable(schema["prefixItems"], definitions).values()}

    def _object(self, schema: Schema, definitions: Mapping[str, Schema], hint: str) -> str:
        if not schema.get("properties") and "title" not in schema:
            values = schema.get("additionalProperties")
            inner = self.annotation(values, definitions, f"{hint}Value") if isinstance(values, Mapping) else "Any"
            return f"dict[str, {inner}]"
        key = f"object {_text(schema)} {_text(_reachable(schema, definitions))}"
        if key not in self._known:
            self._known[key] = self._claim(schema, hint)  # before its fields, which may name it
            self._struct(self._known[key], schema, definitions)
        return self._known[key]

    def _claim(self, schema: Schema, hint: str) -> str:
        return self.claim(str(schema.get("title") or hint))

    def error(self, failure: Failure) -> None:
        """Write the class of an error of the service's own."""
        name = self.errors[failure.type] = self.claim(failure.name or failure.type)
        status = failure.status if 400 <= failure.status <= 599 else 500
        options = f"RPCError, status={status}" + (", retryable=True" if failure.retryable else "")
        doc = docstring(failure.doc, "    ", f"{name}, as the service raises it")
        self.blocks.append([f"class {name}({options}):", *doc, "", f"    code = {literal(failure.type)}"])

    def claim(self, text: str) -> str:
        """Return a class name that resembles the text and that nothing else in the module has."""
        name = unique_name(class_name(text), self._names)
        self._names.add(name)
        return name

    def _struct(self, name: str, schema: Schema, definitions: Mapping[str, Schema]) -> None:
        tag = _tag(schema, definitions)
        options = "kw_only=True"
        if tag is not None:
            options += f", tag_field={literal(tag[0])}, tag={literal(tag[1])}"
        lines = [
            f"class {name}(msgspec.Struct, {options}):",
            *docstring(str(schema.get("description", "")), "    ", f"{name}, as the service gives or takes it"),
        ]
        fields = self.fields(schema, definitions, name)
        body = [
            f"    {field}: {annotation}{'' if default is None and wire == field else _default(default, field, wire)}"
            for wire, field, annotation, default in fields
            if tag is None or wire != tag[0]
        ]
        self.blocks.append([*lines, "", *body] if body else lines)

    def tag_of(self, schema: Schema, definitions: Mapping[str, Schema]) -> str | None:
        """Return the property that its Struct sends by itself."""
        tag = _tag(schema, definitions)
        return None if tag is None else tag[0]

    def fields(
        self, schema: Schema, definitions: Mapping[str, Schema], owner: str
    ) -> list[tuple[str, str, str, str | None]]:
        """Return an object's fields: name on the wire, name in Python, annotation, default as source or None."""
        found: list[tuple[str, str, str, str | None]] = []
        required = schema.get("required", ())
        for wire, each in schema.get("properties", {}).items():
            if not wire.isprintable() or {"\\", '"'} & {*wire}:
                continue  # msgspec has no such names
            name = unique_name(identifier(wire, "field"), {field for _, field, _, _ in found})
            annotation = self.annotation(each, definitions, f"{owner} {wire}")
            default = None if wire in required else _default_source(each, annotation)
            if default == UNSET and annotation != "Any":
                annotation = f"{annotation} | msgspec.UnsetType"
            found.append((wire, name, annotation, default))
        return found


def _default(default: str | None, field: str, wire: str) -> str:
    """Return what stands behind a field's annotation."""
    if field == wire:
        return f" = {default}"
    factory = {"[]": "default_factory=list, ", "{}": "default_factory=dict, ", None: ""}
    return f" = msgspec.field({factory.get(default, f'default={default}, ')}name={literal(wire)})"


def _default_source(schema: Schema, annotation: str) -> str:
    """Return a default as source; one that has no plain literal, or that the schema keeps, is left to the service."""
    if "default" not in schema:
        return UNSET
    value, members = schema["default"], annotation.split(" | ")
    if value is None and ("None" in members or annotation == "Any"):
        return "None"
    plain = {str: "str", bool: "bool", int: "int", float: "float"}.get(type(value))
    if plain is not None and (plain in members or (plain == "int" and "float" in members)):
        return literal(value)
    if annotation.startswith("Literal[") and isinstance(value, str | int):
        return literal(value)
    if (value == [] and annotation.startswith("list[")) or (value == {} and annotation.startswith("dict[")):
        return "[]" if value == [] else "{}"
    return UNSET


def _tag(schema: Schema, definitions: Mapping[str, Schema]) -> tuple[str, Any] | None:
    """Return name and value of the first required property that has one value only: msgspec's tag."""
    for wire, each in schema.get("properties", {}).items():
        found = resolved(each, definitions)
        values = [found["const"]] if "const" in found else found.get("enum", ())
        if len(values) == 1 and type(values[0]) in (str, int) and wire in schema.get("required", ()):
            return wire, values[0]
    return None


def _can_be_told(members: list[Schema]) -> bool:
    """Tell whether msgspec can tell a union's members apart: by their JSON type, and objects by one tag."""
    kinds = [_kind(each) for each in members]
    tags = [_tag(each, {}) for each in members if _kind(each) == "object"]
    named = {tag[0] for tag in tags if tag is not None}
    tagged = len(tags) < 2 or (None not in tags and len(named) == 1 and len(set(tags)) == len(tags))
    return tagged and all(kinds.count(each) < 2 for each in ("string", "array", "integer", "number", "boolean"))


def _kind(schema: Schema) -> str:
    values = schema.get("enum", [schema["const"]] if "const" in schema else ())
    if values:
        return "string" if isinstance(values[0], str) else "integer"
    return str(schema.get("type"))


def _reachable(schema: object, definitions: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return the definitions that a schema names, directly or through others, by name."""
    found: dict[str, Schema] = {}
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            waiting += each.values()
            name = str(each.get("$ref", "")).removeprefix("#/$defs/")
            if name in definitions and name not in found:
                found[name] = definitions[name]
                waiting.append(definitions[name])
        elif isinstance(each, list | tuple):
            waiting += each
    return dict(sorted(found.items()))


def literal(value: object) -> str:
    """Return a literal as formatters write it."""
    if isinstance(value, str):
        return ascii(value) if '"' in value else '"' + ascii(value)[1:-1].replace("\\'", "'") + '"'
    return repr(value)


def _text(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()

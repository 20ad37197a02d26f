"""Everything that is wrong with a request's values, after the one fast pass said that something is."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import inspect as shapes

from cliffracer_core.errors import ValidationError

from .model import Parameter, encoded_names

__all__ = ["body_errors", "fractional", "infinite_errors", "parameter_errors", "refuse"]

_MOST = 50
_AT = re.compile(r"(.*) - at `(?:key` in `)?\$(.*)`", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[([^\]]+)\]")
Fault = dict[str, object]


def refuse(faults: list[Fault]) -> ValidationError:
    """Make the error that lists all faults; its text is the first one's."""
    first = faults[0]
    named = first.get("parameter") or str(first.get("pointer", "")).removeprefix("#").lstrip("/").replace("/", ".")
    text = f"{first['in']} parameter {named!r}" if "parameter" in first else f"body, {named!r}" if named else "body"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    details: dict[str, object] = {"errors": faults}
    if named:
        details["field"] = named
    return ValidationError(f"{text}: {first['detail']}{more}", details=details)


def parameter_errors(parameters: Iterable[Parameter], values: Mapping[str, object]) -> list[Fault]:
    """Check values one by one, as text a client sent; `values` are by the handler's names."""
    faults: list[Fault] = []
    for each in parameters:
        if each.name not in values:
            if each.required:
                faults.append(_fault("it is missing", each.alias, each.where))
            continue
        try:
            msgspec.convert(values[each.name], each.type, strict=False)
        except (msgspec.ValidationError, ValueError, OverflowError) as error:
            inner = _field_errors(each, values[each.name]) if each.spread else []
            faults += inner or [_fault(_split(error)[0], each.alias, each.where)]
    return faults


def _field_errors(parameter: Parameter, values: object) -> list[Fault]:
    """Check the fields of an object that were given one by one."""
    faults: list[Fault] = []
    if not isinstance(values, Mapping):
        return faults
    required = _required(parameter.type)
    for alias, (_, hint) in encoded_names(parameter.type).items():
        if alias in values:
            try:
                msgspec.convert(values[alias], hint, strict=False)
            except (msgspec.ValidationError, ValueError, OverflowError) as error:
                detail, path = _split(error)
                faults.append(_fault(detail, alias + path, parameter.where))
        elif alias in required:
            faults.append(_fault("it is missing", alias, parameter.where))
    return faults


def _fault(detail: str, alias: str, where: str) -> Fault:
    return {"detail": detail, "in": where, "parameter": alias}


def fractional(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Return those in which a `float` may stand, for `infinite_errors`."""
    return [each for each in parameters if _holds_float(each.type)]


def _holds_float(type: Any) -> bool:
    try:
        return b'"number"' in msgspec.json.encode(msgspec.json.schema(type, schema_hook=lambda cls: {}))
    except TypeError:
        return False


def infinite_errors(parameters: Iterable[Parameter], values: Mapping[str, object]) -> list[Fault]:
    """Find NaN and infinity, which text can say, and neither JSON nor a schema's `number` can."""
    wrong = [each for each in parameters if not _is_finite(values[each.name])]
    return [_fault("expected a finite number", each.alias, each.where) for each in wrong]


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, msgspec.Struct):
        return all(_is_finite(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list | tuple | set | frozenset) or all(map(_is_finite, value))


def body_errors(value: object, type: Any) -> list[Fault]:
    """Check a decoded body part by part; empty where nothing is wrong."""
    faults: list[Fault] = []
    _walk(value, type, "", faults)
    return faults


def _walk(value: object, type: Any, pointer: str, faults: list[Fault]) -> None:
    try:
        msgspec.convert(value, type)
        return
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError) as error:
        problem = error
    before = len(faults)
    names = encoded_names(type) if isinstance(value, dict) else {}
    if names and isinstance(value, dict):
        required = _required(type)
        for alias, (_, hint) in names.items():
            if len(faults) < _MOST and alias in value:
                _walk(value[alias], hint, f"{pointer}/{_escape(alias)}", faults)
            elif len(faults) < _MOST and alias in required:
                faults.append(_body_fault("it is missing", f"{pointer}/{_escape(alias)}"))
    elif isinstance(value, list):
        inner = _item_type(type)
        for index, item in enumerate(value):
            if inner is None or len(faults) >= _MOST:
                break
            _walk(item, inner, f"{pointer}/{index}", faults)
    if len(faults) == before and len(faults) < _MOST:
        detail, path = _split(problem)
        faults.append(_body_fault(detail, pointer + path))


def _body_fault(detail: str, pointer: str) -> Fault:
    return {"detail": detail, "in": "body", "pointer": f"#{pointer}"}


def _required(type: Any) -> set[str]:
    info = shapes.type_info(type)
    parts = info.types if isinstance(info, shapes.UnionType) else (info,)
    return {field.encode_name for part in parts for field in getattr(part, "fields", ()) if field.required}


def _item_type(type: Any) -> Any:
    if typing.get_origin(type) is typing.Annotated:
        return _item_type(typing.get_args(type)[0])
    arguments = typing.get_args(type)
    origin = typing.get_origin(type)
    if origin in (list, set, frozenset) or (origin is tuple and arguments[1:] == (...,)):
        return arguments[0]
    return None


def _split(error: Exception) -> tuple[str, str]:
    """Return msgspec's text in the house's wording, and the path in it as a JSON pointer."""
    match = _AT.fullmatch(str(error))
    text, path = match.groups() if match else (str(error), "")
    steps = [name or ("" if index == "..." else index) for name, index in _STEP.findall(path)]
    return text[:1].lower() + text[1:], "".join(f"/{_escape(step)}" for step in steps if step)


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")

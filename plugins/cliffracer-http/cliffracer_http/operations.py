"""One route as an operation of OpenAPI 3.1: parameters, body, responses."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from cliffracer_core.schemas import Schema, Schemas, encoded

from .examples import Examples, examples_of, numbered
from .model import BodyModel, Parameter, RouteModel, encoded_names
from .outcomes import failures_of, success_of
from .pieces import BINARY, Json, members_of

__all__ = ["operation_of"]

_HEADERS_OF_OPENAPI = ("accept", "content-type", "authorization")
"""OpenAPI has other places for these; as parameters they are ignored."""


def operation_of(model: RouteModel, schemas: Schemas) -> Json:
    """Describe a route; its schemas are filled in by `schemas.fill()`."""
    examples = examples_of(model)
    operation: Json = {"tags": list(model.tags or (model.service,)), "operationId": model.handler}
    if model.summary:
        operation["summary"] = model.summary
    if model.description:
        operation["description"] = model.description
    parameters = [each for parameter in model.parameters for each in _parameters(parameter, model, schemas, examples)]
    if model.keyed:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    if parameters:
        operation["parameters"] = parameters
    body = _body(model, schemas, examples)
    if body is not None:
        operation["requestBody"] = body
    operation["responses"] = {**success_of(model, schemas, examples), **failures_of(model, schemas)}
    if model.deprecated:
        operation["deprecated"] = True
    return operation


def _parameters(parameter: Parameter, model: RouteModel, schemas: Schemas, examples: Examples) -> Iterator[Json]:
    if parameter.spread and encoded_names(parameter.type):
        example = examples.of(parameter.name)
        yield from _spread(parameter, schemas, example if isinstance(example, dict) else {})
        return
    if parameter.where == "header" and parameter.alias in _HEADERS_OF_OPENAPI:
        return
    schema = schemas.add(_given(parameter.type), default=_default(parameter))
    found: Json = {"name": parameter.alias, "in": parameter.where, "schema": schema}
    if parameter.required:
        found["required"] = True
    if parameter.spread:
        found |= {"style": "form", "explode": True}
    description = parameter.description or model.docs.arguments.get(parameter.name, "")
    if description:
        found["description"] = description
    example = examples.of(parameter.name)
    if example is not msgspec.UNSET:
        found["example"] = example
    yield found


def _spread(parameter: Parameter, schemas: Schemas, example: Mapping[str, Any]) -> Iterator[Json]:
    """Describe the fields of an object that stand in the query one by one."""
    for name, type, required, default in _fields(parameter):
        found: Json = {"name": name, "in": parameter.where, "schema": schemas.add(_given(type), default=default)}
        if required:
            found["required"] = True
        if name in example:
            found["example"] = example[name]
        yield found


def _fields(parameter: Parameter) -> Iterator[tuple[str, Any, bool, Any]]:
    """Yield name, type, whether it is required, and default, of each field of an object."""
    schema = msgspec.json.schema(parameter.type, schema_hook=lambda cls: {"title": cls.__name__})
    parts = [schema, *schema.get("$defs", {}).values()]
    for alias, (_, hint) in encoded_names(parameter.type).items():
        owner: Schema = next((part for part in parts if alias in part.get("properties", {})), {})
        required = parameter.required and alias in owner.get("required", ())
        default = owner.get("properties", {}).get(alias, {}).get("default")
        yield alias, hint, required, msgspec.UNSET if default is None else default


def _default(parameter: Parameter) -> Any:
    return msgspec.UNSET if parameter.required or parameter.default is None else encoded(parameter.default)


def _given(hint: Any) -> Any:
    """Return a type of text without None, which nobody can send as text; elsewhere `null` is read as None."""
    if str not in members_of(hint):
        return hint
    if typing.get_origin(hint) is typing.Annotated:
        return typing.Annotated[(_given(hint.__origin__), *hint.__metadata__)]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.Union[tuple(each for each in typing.get_args(hint) if each is not type(None))]  # noqa: UP007
    return hint


def _body(model: RouteModel, schemas: Schemas, examples: Examples) -> Json | None:
    if model.form:
        return _form(model, schemas, examples)
    body = model.body
    if body is None:
        return None
    content: Json = {}
    if body.raw:
        content = {"*/*": {"schema": {}}}
    else:
        schema = (
            schemas.object(body.type, model.docs.arguments)
            if body.whole is None
            else schemas.add(body.type, default=msgspec.UNSET if body.required else encoded(body.default))
        )
        given = _body_examples(body, examples)
        content = {each: {"schema": schema} for each in body.content_types}
        for each in content if given else ():
            content[each]["examples"] = given
    found: Json = {"content": content}
    if body.required:
        found["required"] = True
    description = body.description or model.docs.arguments.get(body.whole or "", "")
    return {"description": description, **found} if description else found


def _body_examples(body: BodyModel, examples: Examples) -> Json:
    if body.whole is not None:
        values = [each[body.whole] for each in examples.arguments if body.whole in each]
    else:
        names = {name: alias for alias, (name, _) in encoded_names(body.type).items()}
        values = [{names[key]: value for key, value in each.items() if key in names} for each in examples.arguments]
    return numbered([each for each in values if each != {}])


def _form(model: RouteModel, schemas: Schemas, examples: Examples) -> Json:
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for each in model.form:
        description = each.description or model.docs.arguments.get(each.name, "")
        if each.where == "file":
            file: Schema = dict(BINARY)
            properties[each.alias] = {"type": "array", "items": file} if each.many else file
            if description:
                properties[each.alias]["description"] = description
        elif each.spread and encoded_names(each.type):
            fields = list(_fields(each))
            properties |= {name: schemas.add(_given(type), default=default) for name, type, _, default in fields}
            required += [name for name, _, needed, _ in fields if needed]
            continue
        else:
            properties[each.alias] = schemas.add(
                _given(each.type), default=_default(each), description=description, example=examples.of(each.name)
            )
        if each.required:
            required.append(each.alias)
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    kinds = (
        ("multipart/form-data",) if model.multipart else ("application/x-www-form-urlencoded", "multipart/form-data")
    )
    found: Json = {"content": {each: {"schema": schema} for each in kinds}}
    return {**found, "required": True} if required else found

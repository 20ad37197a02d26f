"""One route as an operation of OpenAPI 3.1: parameters, body, responses."""

from __future__ import annotations

import logging
import types
import typing
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from cliffracer_core.errors import CliffracerError, ValidationError

from .model import BodyModel, Parameter, RouteModel, encoded_names
from .negotiation import EVENT_STREAM
from .problems import PROBLEM_TYPE, Problem
from .responses import (
    Event,
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Reply,
    Response,
)
from .schemas import BINARY, Schema, Schemas, encoded
from .streaming import LINES

__all__ = ["Json", "operation_of"]

logger = logging.getLogger("cliffracer.http")

Json = dict[str, Any]
_ENCODINGS = ("application/json", "application/msgpack")
_CORRELATION = {"X-Correlation-ID": {"$ref": "#/components/headers/CorrelationId"}}
_HEADERS_OF_OPENAPI = ("accept", "content-type", "authorization")
"""OpenAPI has other places for these; as parameters they are ignored."""


def operation_of(model: RouteModel, schemas: Schemas) -> Json:
    """Describe a route; its schemas are filled in by `schemas.fill()`."""
    examples = _fitting(model)
    operation: Json = {"tags": list(model.tags or (model.service,)), "operationId": model.handler}
    if model.summary:
        operation["summary"] = model.summary
    if model.description:
        operation["description"] = model.description
    parameters = [each for parameter in model.parameters for each in _parameters(parameter, model, schemas, examples)]
    if parameters:
        operation["parameters"] = parameters
    body = _body(model, schemas, examples)
    if body is not None:
        operation["requestBody"] = body
    operation["responses"] = {**_success(model, schemas, examples), **_failures(model, schemas)}
    if model.deprecated:
        operation["deprecated"] = True
    return operation


class _Fitting(msgspec.Struct):
    """The examples of a docstring that this route's types take."""

    arguments: list[Json]
    results: list[Any]

    def of(self, name: str) -> Any:
        """Return the first example of an argument, `UNSET` without one."""
        return next((each[name] for each in self.arguments if name in each), msgspec.UNSET)


def _fitting(model: RouteModel) -> _Fitting:
    types: dict[str, Any] = {each.name: each.type for each in (*model.parameters, *model.form) if each.where != "file"}
    found = _Fitting([], [])
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
                if not _is_response(model.returns):
                    msgspec.convert(each.result, model.returns)
                found.results.append(each.result)
        except (msgspec.ValidationError, ValueError, OverflowError, TypeError) as error:
            logger.warning("%s: an example in its docstring does not fit: %s", model.where, error)
    return found


def _parameters(parameter: Parameter, model: RouteModel, schemas: Schemas, examples: _Fitting) -> Iterator[Json]:
    if parameter.spread and encoded_names(parameter.type):
        example = examples.of(parameter.name)
        yield from _spread(parameter, schemas, example if isinstance(example, dict) else {})
        return
    if parameter.where == "header" and parameter.alias in _HEADERS_OF_OPENAPI:
        return
    schema = schemas.add(parameter.type, default=msgspec.UNSET if parameter.required else encoded(parameter.default))
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
        found: Json = {"name": name, "in": parameter.where, "schema": schemas.add(type, default=default)}
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
        owner = next((part for part in parts if alias in part.get("properties", {})), {})
        required = parameter.required and alias in owner.get("required", ())
        default = owner.get("properties", {}).get(alias, {}).get("default", msgspec.UNSET)
        yield alias, hint, required, default


def _body(model: RouteModel, schemas: Schemas, examples: _Fitting) -> Json | None:
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


def _body_examples(body: BodyModel, examples: _Fitting) -> Json:
    if body.whole is not None:
        values = [each[body.whole] for each in examples.arguments if body.whole in each]
    else:
        names = {name: alias for alias, (name, _) in encoded_names(body.type).items()}
        values = [{names[key]: value for key, value in each.items() if key in names} for each in examples.arguments]
    return _numbered([each for each in values if each != {}])


def _numbered(values: list[Any]) -> Json:
    return {f"example{number}": {"value": value} for number, value in enumerate(values, 1)}


def _form(model: RouteModel, schemas: Schemas, examples: _Fitting) -> Json:
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
            properties |= {name: schemas.add(type, default=default) for name, type, _, default in fields}
            required += [name for name, _, needed, _ in fields if needed]
            continue
        else:
            default = msgspec.UNSET if each.required else encoded(each.default)
            properties[each.alias] = schemas.add(
                each.type, default=default, description=description, example=examples.of(each.name)
            )
        if each.required:
            required.append(each.alias)
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    kinds = ("multipart/form-data",) if model.multipart else ("application/x-www-form-urlencoded", "multipart/form-data")
    found: Json = {"content": {each: {"schema": schema} for each in kinds}}
    return {**found, "required": True} if required else found


def _success(model: RouteModel, schemas: Schemas, examples: _Fitting) -> Json:
    code = str(model.status_code)
    response: Json = {
        "description": model.docs.returns or HTTPStatus(model.status_code).phrase, "headers": dict(_CORRELATION)
    }  # fmt: skip
    members = _members(model.returns)
    if members and all(_is_response(each, RedirectResponse) for each in members):
        return {"3XX": {**response, "description": model.docs.returns or "Redirect", "headers": {
            **_CORRELATION, "Location": {"schema": {"type": "string"}}}}}  # fmt: skip
    content = {} if model.without_body else _content(model, schemas)
    given = _numbered(examples.results)
    for media_type, each in content.items():
        if given and media_type in _ENCODINGS:
            each["examples"] = given
    if content:
        response["content"] = content
    found: Json = {code: response}
    if model.method in ("GET", "HEAD") and any(_is_response(each, Reply) for each in members):
        found["304"] = {"description": "Not Modified: the client has this version", "headers": dict(_CORRELATION)}
    return found


def _content(model: RouteModel, schemas: Schemas) -> Json:
    if model.streams:
        return _stream(model, schemas)
    members = _members(model.returns)
    responses = [each for each in members if _is_response(each, Response)]
    values = [each for each in members if each not in responses]
    content: Json = {}
    for each in responses:
        media_type = {HTMLResponse: "text/html", PlainTextResponse: "text/plain"}.get(each)
        content[media_type or "*/*"] = {"schema": {"type": "string"}} if media_type else {}
    if not values:
        return content
    if model.media_type is not None:
        text = all(each in (str, bytes) for each in values)
        return {**content, model.media_type: {"schema": {"type": "string"} if text else schemas.add(model.returns)}}
    plain: Any = Any if any(_is_response(each, Reply) for each in values) else typing.Union[tuple(values)]  # noqa: UP007
    schema = schemas.add(model.returns if not responses and plain is not Any else plain)
    return {**content, **{each: {"schema": schema} for each in _ENCODINGS}}


def _stream(model: RouteModel, schemas: Schemas) -> Json:
    """Describe what is sent item by item; OpenAPI 3.1 has no word for the schema of one."""
    item = schemas.add(Any if model.returns is Event else model.returns)
    events = {"schema": {"type": "string", "description": "Server-sent events"}, "x-item-schema": item}
    if model.media_type is not None:
        return {model.media_type: {"schema": {"type": "string"}, "x-item-schema": item}}
    if model.returns is Event:
        return {EVENT_STREAM: events}
    if model.returns is bytes:
        return {"application/octet-stream": {"schema": {}}, EVENT_STREAM: events}
    if model.returns is str:
        return {"text/plain": {"schema": {"type": "string"}}, EVENT_STREAM: events}
    lines = {"schema": {"type": "string", "description": "One JSON text a line"}, "x-item-schema": item}
    return {LINES: lines, EVENT_STREAM: events}


def _failures(model: RouteModel, schemas: Schemas) -> Json:
    """Describe the errors of this route by status, and all others as `default`."""
    texts: dict[int, list[str]] = {}
    checked = bool(model.parameters or model.form or model.body)
    if checked:
        texts[400] = ["The request does not fit; `errors` lists everything that is wrong with it"]
    if model.form or model.body:
        texts[413] = ["The body is too long"]
        if model.body is None or not model.body.raw:
            texts[415] = ["The body is of a content type that is not taken here"]
    for error in model.errors:
        status = error.status if issubclass(error, CliffracerError) else 500
        if issubclass(error, ValidationError) and status == 400 and checked:
            continue
        doc = (error.__doc__ or "").strip().partition("\n")[0]
        texts.setdefault(status, []).append(model.docs.raises.get(error.__name__) or doc or error.__name__)
    found: Json = {}
    for status, lines in sorted(texts.items()):
        found[str(status)] = _problem(". ".join(each.rstrip(".") for each in lines), schemas)
    return {**found, "default": {"$ref": "#/components/responses/Problem"}}


def _problem(description: str, schemas: Schemas) -> Json:
    content = {PROBLEM_TYPE: {"schema": schemas.add(Problem)}}
    return {"description": description, "headers": dict(_CORRELATION), "content": content}


def _members(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) is typing.Annotated:
        return _members(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(each for part in typing.get_args(hint) for each in _members(part))
    return (hint,)


def _is_response(hint: Any, *kinds: type) -> bool:
    return isinstance(hint, type) and issubclass(hint, kinds or (Response, Reply))

"""What an operation of OpenAPI answers: its success, its errors."""

from __future__ import annotations

import typing
from http import HTTPStatus
from typing import Any

from cliffracer_core.errors import CliffracerError, ValidationError
from cliffracer_core.schemas import Schemas

from .examples import Examples, is_response, numbered
from .model import RouteModel
from .negotiation import EVENT_STREAM
from .pieces import Json, members_of
from .problems import PROBLEM_TYPE, Problem
from .responses import Event, HTMLResponse, PlainTextResponse, RedirectResponse, Reply, Response
from .streaming import LINES

__all__ = ["failures_of", "success_of"]

_ENCODINGS = ("application/json", "application/msgpack")
_CORRELATION = {"X-Correlation-ID": {"$ref": "#/components/headers/CorrelationId"}}


def success_of(model: RouteModel, schemas: Schemas, examples: Examples) -> Json:
    """Describe a route's success, by status."""
    code = str(model.status_code)
    response: Json = {
        "description": model.docs.returns or HTTPStatus(model.status_code).phrase, "headers": dict(_CORRELATION)
    }  # fmt: skip
    members = members_of(model.returns)
    if members and all(is_response(each, RedirectResponse) for each in members):
        return {"3XX": {**response, "description": model.docs.returns or "Redirect", "headers": {
            **_CORRELATION, "Location": {"schema": {"type": "string"}}}}}  # fmt: skip
    content = {} if model.without_body else _content(model, schemas)
    given = numbered(examples.results)
    for media_type, each in content.items():
        if given and media_type in _ENCODINGS:
            each["examples"] = given
    if content:
        response["content"] = content
    found: Json = {code: response}
    if model.method in ("GET", "HEAD") and any(is_response(each, Reply) for each in members):
        found["304"] = {"description": "Not Modified: the client has this version", "headers": dict(_CORRELATION)}
    return found


def _content(model: RouteModel, schemas: Schemas) -> Json:
    if model.streams:
        return _stream(model, schemas)
    members = members_of(model.returns)
    responses = [each for each in members if is_response(each, Response)]
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
    plain: Any = Any if any(is_response(each, Reply) for each in values) else typing.Union[tuple(values)]  # noqa: UP007
    schema = schemas.add(model.returns if not responses and plain is not Any else plain)
    return {**content, **{each: {"schema": schema} for each in _ENCODINGS}}


def _stream(model: RouteModel, schemas: Schemas) -> Json:
    """Describe what is sent item by item; OpenAPI 3.1 has no word for the schema of one."""
    item = schemas.add(Any if model.returns is Event else model.returns)
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": item}
    events = {"x-item-schema": {"type": "object", "properties": {"data": data}}}
    if model.media_type is not None:
        return {model.media_type: events if model.media_type.startswith(EVENT_STREAM) else {"x-item-schema": item}}
    if model.returns is Event:
        return {EVENT_STREAM: events}
    if model.returns is bytes:
        return {"application/octet-stream": {}, EVENT_STREAM: events}
    if model.returns is str:
        return {"text/plain": {"schema": {"type": "string"}}, EVENT_STREAM: events}
    return {LINES: {"x-item-schema": item}, EVENT_STREAM: events}


def failures_of(model: RouteModel, schemas: Schemas) -> Json:
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
    if model.security:
        texts.setdefault(401, ["It is not known who asks"])
        texts.setdefault(403, ["Who asks may not do this"])
    found: Json = {}
    for status, lines in sorted(texts.items()):
        found[str(status)] = _problem(". ".join(each.rstrip(".") for each in lines), schemas)
    return {**found, "default": {"$ref": "#/components/responses/Problem"}}


def _problem(description: str, schemas: Schemas) -> Json:
    content = {PROBLEM_TYPE: {"schema": schemas.add(Problem)}}
    return {"description": description, "headers": dict(_CORRELATION), "content": content}

"""JSON Schemas of a handler's arguments and result, and its errors, as texts for an endpoint's metadata."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from cliffracer_core.docstrings import parse_docstring, raised_errors
from cliffracer_core.errors import describe
from cliffracer_core.handlers import Declaration
from cliffracer_core.interfaces import Signature
from cliffracer_core.schemas import Schemas

__all__ = ["SCHEMA_KEYS", "endpoint_metadata"]

logger = logging.getLogger("cliffracer.discovery")

SCHEMA_KEYS = ("schema.request", "schema.response")


def endpoint_metadata(declaration: Declaration, signature: Signature) -> dict[str, str]:
    """Describe a handler: `schema.request` and `schema.response`, and `doc` where it has a docstring.

    A handler that streams its reply has `stream`, and as its response the schema of one item. One whose docstring
    names errors under `Raises:` has `errors`: a JSON array of objects with `type` (the code on the wire), `name`,
    `status`, `retryable` and `doc`.

    Returns:
        Texts by key. Schemas are compact JSON (draft 2020-12); a type that has none gives `{}`.
    """
    types = (signature.arguments, signature.returns)
    metadata = {key: _schema(declaration, each) for key, each in zip(SCHEMA_KEYS, types, strict=True)}
    if signature.streams:
        metadata["stream"] = "true"
    if declaration.doc:
        metadata["doc"] = declaration.doc
    errors = _errors(declaration)
    if errors:
        metadata["errors"] = msgspec.json.encode(errors).decode()
    return metadata


def _errors(declaration: Declaration) -> list[dict[str, object]]:
    docs = parse_docstring(declaration.doc)
    return [
        {
            "type": each.code,
            "name": each.__name__,
            "status": each.status,
            "retryable": each.retryable,
            "doc": (each.__doc__ or "").strip().partition("\n")[0],
        }
        for each in raised_errors(declaration.function, docs)
    ]


def _schema(declaration: Declaration, type: Any) -> str:
    try:
        schemas = Schemas("#/$defs/{name}")
        schema = schemas.add(type)
        shared = schemas.fill()
        return msgspec.json.encode({**schema, **({"$defs": shared} if shared else {})}).decode()
    except Exception as error:  # msgspec raises several kinds; what cannot be described can still be called
        logger.debug("%s: %r has no JSON Schema: %s", declaration.where, type, describe(error))
        return "{}"

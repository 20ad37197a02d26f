"""JSON Schemas of a handler's arguments and result, as texts for an endpoint's metadata."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from cliffracer_core.errors import describe
from cliffracer_core.handlers import Declaration
from cliffracer_core.interfaces import Signature

__all__ = ["SCHEMA_KEYS", "endpoint_metadata"]

logger = logging.getLogger("cliffracer.discovery")

SCHEMA_KEYS = ("schema.request", "schema.response")


def endpoint_metadata(declaration: Declaration, signature: Signature) -> dict[str, str]:
    """Describe a handler: `schema.request` and `schema.response`, and `doc` where it has a docstring.

    A handler that streams its reply has `stream`, and as its response the schema of one item.

    Returns:
        Texts by key. Schemas are compact JSON (draft 2020-12); a type that has none gives `{}`.
    """
    types = (signature.arguments, signature.returns)
    metadata = {key: _schema(declaration, each) for key, each in zip(SCHEMA_KEYS, types, strict=True)}
    if signature.streams:
        metadata["stream"] = "true"
    if declaration.doc:
        metadata["doc"] = declaration.doc
    return metadata


def _schema(declaration: Declaration, type: Any) -> str:
    try:
        return msgspec.json.encode(msgspec.json.schema(type)).decode()
    except Exception as error:  # msgspec raises several kinds; what cannot be described can still be called
        logger.debug("%s: %r has no JSON Schema: %s", declaration.where, type, describe(error))
        return "{}"

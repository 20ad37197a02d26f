"""Errors as problem details (RFC 9457), the same for routes, unknown paths and what is added to `service.app`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException

from cliffracer_core.errors import CliffracerError, EncodingError, to_body
from cliffracer_core.messages import JSON

from .edge import CORRELATION_HEADER

__all__ = ["PROBLEM_TYPE", "Problem", "problem_of", "send_problem"]

logger = logging.getLogger("cliffracer.http")

PROBLEM_TYPE = "application/problem+json"
_RETRY = (429, 503)
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "message_too_large", 416: "range_not_satisfiable"}
"""Of what Starlette raises."""
Header = tuple[bytes, bytes]


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The body of every error response."""

    type: str = msgspec.field(default_factory=lambda: "about:blank")
    title: str
    status: int
    detail: str = ""
    code: str = ""
    """The error's name on the wire, as in RPC."""
    retryable: bool = False
    correlation_id: str = ""
    errors: list[dict[str, object]] = []
    """What is wrong with the request, part by part: `detail`, `in`, and a JSON `pointer` or a `parameter`."""
    details: dict[str, object] = {}


def problem_of(error: BaseException, service: str, correlation_id: str) -> tuple[Problem, list[Header]]:
    """Translate an error into what a client may see, and the headers that go with it."""
    if isinstance(error, HTTPException):
        given = [(name.lower().encode(), value.encode("latin-1")) for name, value in (error.headers or {}).items()]
        title = _title(error.status_code)
        detail = "" if error.detail == title else str(error.detail)
        return _problem(error.status_code, detail, correlation_id, code=_CODES.get(error.status_code, "")), given
    body = to_body(error, service, correlation_id)
    details = dict(body.details)
    errors = details.pop("errors", [])
    status = body.code if 400 <= body.code <= 599 else 500
    problem = _problem(status, body.message, correlation_id, code=body.type)
    problem.retryable = body.retryable
    problem.errors = errors if isinstance(errors, list) else []
    problem.details = details
    return problem, _headers(error, status)


def _problem(status: int, detail: str, correlation_id: str, *, code: str) -> Problem:
    return Problem(title=_title(status), status=status, detail=detail, code=code, correlation_id=correlation_id)


def _title(status: int) -> str:
    if status == 499:
        return "Client Closed Request"
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _headers(error: BaseException, status: int) -> list[Header]:
    details: Mapping[str, object] = getattr(error, "details", {})
    allowed = details.get("allowed")
    if status == 405 and isinstance(allowed, list):
        return [(b"allow", ", ".join(allowed).encode("ascii"))]
    if status == 401:
        return [(b"www-authenticate", b"Bearer")]
    if status in _RETRY and isinstance(error, CliffracerError) and error.retryable:
        return [(b"retry-after", b"1")]
    return []


async def send_problem(
    send: Any, error: BaseException, service: str, correlation_id: str, *, where: str = "", head: bool = False
) -> None:
    """Answer with a problem; an unexpected error is logged with its trace, and masked."""
    if not isinstance(error, CliffracerError | HTTPException):
        logger.error("%s failed; correlation id %s", where or service, correlation_id, exc_info=error)
    problem, headers = problem_of(error, service, correlation_id)
    try:
        body = JSON.encode(problem)
    except EncodingError:
        problem.details = {}
        body = JSON.encode(problem)
    await send(
        {
            "type": "http.response.start",
            "status": problem.status,
            "headers": [
                (b"content-type", PROBLEM_TYPE.encode()),
                (b"content-length", b"%d" % len(body)),
                (CORRELATION_HEADER, correlation_id.encode("ascii")),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"" if head else body})

"""The OpenAPI 3.1 document of the services behind one port."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cliffracer_core.interfaces import Security, ServiceInfo, Wiring
from cliffracer_core.schemas import Schemas

from .health_docs import HEALTH_TAG, health_paths
from .matcher import parameters_of
from .model import RouteModel, models_of
from .operations import operation_of
from .pieces import Json
from .problems import PROBLEM_TYPE, Problem
from .settings import settings_of

__all__ = ["Described", "described", "openapi_document"]

_METHODS = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")
"""Those that OpenAPI 3.1 knows; a route in another method is left out."""

Described = tuple[ServiceInfo, Sequence[RouteModel]]
"""A service and its routes."""


def described(wiring: Wiring) -> Described:
    """Return a service's routes from its declarations; it need not be running.

    Raises:
        ConfigurationError: a route that cannot be served.
    """
    prefix = settings_of(wiring.service).prefix
    models = [
        model
        for declaration in wiring.declarations
        for model in models_of(
            declaration, wiring.signatures[declaration.name], prefix, wiring.security.get(declaration.name, ())
        )
    ]
    return wiring.service, models


def openapi_document(services: Sequence[Described], *, servers: Sequence[str] = ()) -> Json:
    """Describe services as OpenAPI 3.1, as plain data.

    Args:
        services: those behind one port, each with its routes; several are described as one.
        servers: base URLs; by default the address the document came from.
    """
    schemas = Schemas()
    paths: dict[str, Json] = {}
    schemes: Json = {}
    names: set[str] = set()
    tags: dict[str, str] = {}
    for info, models in services:
        shown = [each for each in models if each.include_in_schema and each.method in _METHODS]
        for model in shown:
            operation = operation_of(model, schemas)
            operation["operationId"] = _unique(names, model)
            if model.security:
                operation["security"] = [_requirement(each, model.service, schemes) for each in model.security]
            paths.setdefault(_path(model.path), {})[model.method.lower()] = operation
            for tag in operation["tags"]:
                tags.setdefault(tag, info.description if tag == info.name else "")
    _add_health(paths, names, tags)
    problem = schemas.add(Problem)
    components = schemas.fill()
    return {
        "openapi": "3.1.0",
        "info": _info([info for info, _ in services]),
        "servers": [{"url": each} for each in servers or ("/",)],
        "tags": [{"name": name, **({"description": text} if text else {})} for name, text in tags.items()],
        "paths": paths,
        "components": {
            **({"securitySchemes": schemes} if schemes else {}),
            "schemas": components,
            "parameters": {
                "IdempotencyKey": {
                    "name": "Idempotency-Key",
                    "in": "header",
                    "description": "Names a request, where the service remembers them: sent again under the same key "
                    "it does not run again, and gets the first response. Another request under it is a 422, one that "
                    "comes while the first runs a 409. At most 255 printable characters of ASCII",
                    "schema": {"type": "string"},
                }
            },
            "headers": {
                "CorrelationId": {
                    "description": "Names all that follows from this request; the request's own where it has one",
                    "schema": {"type": "string"},
                }
            },
            "responses": {
                "Problem": {
                    "description": "Any other error",
                    "headers": {"X-Correlation-ID": {"$ref": "#/components/headers/CorrelationId"}},
                    "content": {PROBLEM_TYPE: {"schema": problem}},
                }
            },
        },
    }


def _add_health(paths: dict[str, Json], names: set[str], tags: dict[str, str]) -> None:
    """Describe the health pages, where no route stands in their place."""
    for path, operations in health_paths().items():
        if path not in paths:
            operation = operations["get"]
            while operation["operationId"] in names:
                operation["operationId"] += "_page"
            paths[path] = operations
            tags.setdefault(HEALTH_TAG, "For orchestrators, and for people")


def _requirement(security: Security, service: str, schemes: Json) -> Json:
    """Return a way to be let in, its scheme in `schemes`; a name that another service means otherwise gets a prefix."""
    if not security.name:
        return {}
    name, scheme = security.name, dict(security.scheme)
    if schemes.setdefault(name, scheme) != scheme:
        name = f"{service}.{name}"
        schemes[name] = scheme
    return {name: list(security.scopes)}


def _info(services: Sequence[ServiceInfo]) -> dict[str, Any]:
    if len(services) == 1:
        (info,) = services
        about = {"title": info.name, "version": info.version}
        return {**about, "description": info.description} if info.description else about
    lines = [f"- {each.name} {each.version}{f': {each.description}' if each.description else ''}" for each in services]
    versions = sorted({each.version for each in services}) or ["0"]
    title = ", ".join(each.name for each in services) or "nothing"
    return {"title": title, "version": ", ".join(versions), "description": "\n".join(lines)}


def _path(path: str) -> str:
    """Return a path with plain parameters: OpenAPI has no word for one that takes several segments."""
    for name, rest in parameters_of(path):
        if rest:
            path = path.replace(f"{{{name}:path}}", f"{{{name}}}")
    return path


def _unique(names: set[str], model: RouteModel) -> str:
    name = next(each for each in _candidates(model) if each not in names)
    names.add(name)
    return name


def _candidates(model: RouteModel) -> Iterator[str]:
    """Yield names of an operation: its handler's, that with the service's, then numbered."""
    yield model.handler
    yield f"{model.service}.{model.handler}"
    number = 2
    while True:
        yield f"{model.service}.{model.handler}.{number}"
        number += 1

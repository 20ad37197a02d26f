"""The health pages as operations of OpenAPI 3.1."""

from __future__ import annotations

from .health import HEALTH_PATHS
from .pieces import Json

__all__ = ["HEALTH_TAG", "health_paths"]

HEALTH_TAG = "health"
_STATES = ("healthy", "not ready", "disconnected", "degraded")
_ABOUT = {
    "/health": ("health", "Tell how the service is, with 200 as long as it answers", _STATES),
    "/health/live": ("health_live", "Tell that the process answers", ("alive",)),
    "/health/ready": ("health_ready", "Tell whether requests should be sent here", ("ready", *_STATES[1:])),
    "/health/detailed": ("health_detailed", "Tell how each part is; guarded off loopback", ("healthy", "unhealthy")),
}
_ALSO_503 = ("/health/ready", "/health/detailed")


def health_paths() -> dict[str, Json]:
    """Return the health pages by path; what they refer to is in every document."""
    return {path: {"get": _operation(path)} for path in HEALTH_PATHS}


def _operation(path: str) -> Json:
    name, summary, states = _ABOUT[path]
    properties: Json = {
        "status": {"type": "string", "enum": list(states)},
        "service": {"type": "string", "description": "Where one service is here"},
        "services": {"type": "object", "description": "Where several are here, by name"},
    }
    schema: Json = {"type": "object", "properties": properties, "required": ["status"]}
    answer: Json = {
        "headers": {"X-Correlation-ID": {"$ref": "#/components/headers/CorrelationId"}},
        "content": {"application/json": {"schema": schema}},
    }
    responses: Json = {"200": {"description": "It is" if path in _ALSO_503 else "OK", **answer}}
    if path in _ALSO_503:
        responses["503"] = {"description": "It is not", **answer}
    responses["default"] = {"$ref": "#/components/responses/Problem"}
    return {"tags": [HEALTH_TAG], "operationId": name, "summary": summary, "responses": responses}

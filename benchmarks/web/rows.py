"""The rows of the table and what each must reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ROWS", "Row"]


@dataclass(frozen=True)
class Row:
    """One row: a number per contestant, and what Cliffracer's must be beside the others'."""

    name: str
    title: str
    unit: str
    targets: Mapping[str, float] = field(default_factory=dict)
    """Peer to the ratio to reach: at least where more is better, else at most."""
    more_is_better: bool = True
    value: float | None = None
    """To be reached without comparison, at most."""


def _rows(server: str, method: str, title: str, targets: Mapping[str, float]) -> list[Row]:
    name = f"{method.lower()}_{server}"
    return [
        Row(name, f"{title}, {server}", "requests/s", targets),
        Row(f"{name}_p99", f"{title}, {server}, p99", "us", {"fastapi": 1.0}, more_is_better=False),
        Row(
            f"{name}_cpu",
            f"{title}, {server}, processor",
            "us CPU",
            {who: 1 / ratio for who, ratio in targets.items()},
            more_is_better=False,
        ),
    ]


_GET, _POST = "GET with a path parameter", "POST with a validated body"
ROWS = {
    row.name: row
    for row in (
        *_rows("uvicorn", "GET", _GET, {"bare": 0.72, "fastapi": 2.9, "litestar": 1.7, "blacksheep": 1.0}),
        *_rows("uvicorn", "POST", _POST, {"bare": 0.7, "fastapi": 2.5, "litestar": 1.6, "blacksheep": 1.0}),
        *_rows("hypercorn", "GET", _GET, {"bare": 0.85, "fastapi": 1.4}),
        *_rows("hypercorn", "POST", _POST, {}),
        Row("middleware_layers", "a further middleware of a handler", "% CPU", more_is_better=False, value=2),
        Row("middleware_cors", "CORS", "% CPU", more_is_better=False, value=2),
        Row(
            "middleware_compression", "compression, of a client that wants none", "% CPU", more_is_better=False, value=2
        ),
        Row("memory", "memory growth", "kB", more_is_better=False, value=1000),
    )
}

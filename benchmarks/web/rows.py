"""The rows of the table for HTTP, and what each must reach."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.rows import Row, by_name

__all__ = ["ROWS"]


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
ROWS = by_name(
    (
        *_rows("uvicorn", "GET", _GET, {"bare": 0.72, "fastapi": 2.9, "litestar": 1.7, "blacksheep": 1.0}),
        *_rows("uvicorn", "POST", _POST, {"bare": 0.7, "fastapi": 2.5, "litestar": 1.6, "blacksheep": 1.0}),
        *_rows("hypercorn", "GET", _GET, {"bare": 0.85, "fastapi": 1.4}),
        *_rows("hypercorn", "POST", _POST, {}),
        *(
            Row(f"middleware_{name}", title, "% CPU", more_is_better=False, value=2, grows=True)
            for name, title in (
                ("layers", "a further middleware of a handler"),
                ("cors", "CORS"),
                ("compression", "compression, of a client that wants none"),
            )
        ),
        Row("memory", "memory growth", "kB", more_is_better=False, value=1000, grows=True),
    )
)

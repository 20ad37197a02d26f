"""Who takes part: one module each, an ASGI application with the same two routes.

`GET /items/{number}` and `POST /items` answer with the number plus one and the same text, as JSON.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["COLUMNS", "application"]

COLUMNS = {
    "bare": "bare ASGI", "fastapi": "FastAPI", "litestar": "Litestar", "blacksheep": "BlackSheep",
    "cliffracer": "Cliffracer",
}  # fmt: skip


def application(name: str) -> Any:
    """Import a peer and make its application; only then are its libraries loaded."""
    return import_module(f"{__name__}.{name}_app").make()

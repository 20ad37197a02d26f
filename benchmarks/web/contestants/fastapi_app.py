"""FastAPI, as its documentation shows it: pydantic models in and out."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.payload import TEXT

__all__ = ["make"]


class Item(BaseModel):
    number: int
    text: str


def make() -> Any:
    app = FastAPI()

    @app.get("/items/{number}")
    async def find(number: int) -> Item:
        return Item(number=number + 1, text=TEXT)

    @app.post("/items")
    async def create(item: Item) -> Item:
        return Item(number=item.number + 1, text=item.text)

    return app

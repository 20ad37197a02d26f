"""Litestar with msgspec Structs, which it is built around."""

from typing import Any  # no postponed annotations: it resolves them without knowing what stands in a function

import msgspec
from litestar import Litestar, get, post

from benchmarks.payload import TEXT

__all__ = ["make"]


class Item(msgspec.Struct):
    number: int
    text: str


@get("/items/{number:int}")
async def find(number: int) -> Item:
    return Item(number=number + 1, text=TEXT)


@post("/items", status_code=200)
async def create(data: Item) -> Item:
    return Item(number=data.number + 1, text=data.text)


def make() -> Any:
    return Litestar([find, create], openapi_config=None)

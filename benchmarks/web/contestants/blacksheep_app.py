"""BlackSheep with dataclasses, as its documentation shows it."""

from dataclasses import dataclass
from typing import Any

from blacksheep import Application, FromJSON

from benchmarks.payload import TEXT

__all__ = ["make"]


@dataclass
class Item:
    number: int
    text: str


def make() -> Any:
    app = Application()

    @app.router.get("/items/{number}")
    async def find(number: int) -> Item:
        return Item(number + 1, TEXT)

    @app.router.post("/items")
    async def create(data: FromJSON[Item]) -> Item:
        return Item(data.value.number + 1, data.value.text)

    return app

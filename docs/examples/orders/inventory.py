"""Inventory: how many there are of each thing, and who may have them."""

import csv
from pathlib import Path

from model import OutOfStock, Quantity, UnknownSku

from cliffracer_core import CliffracerService, get_env, rpc

STOCK = Path(get_env("STOCK_FILE", Path(__file__).with_name("stock.csv")))


class Inventory(CliffracerService):
    """Keeps the stock, in memory."""

    name = "inventory"
    version = "1.0.0"
    description = "How many there are of each thing"

    def __init__(self) -> None:
        super().__init__()
        with STOCK.open(encoding="utf-8", newline="") as file:
            self.stock = {row["sku"]: int(row["stock"]) for row in csv.DictReader(file)}

    @rpc
    async def reserve(self, sku: str, quantity: Quantity) -> int:
        """Set goods aside and return how many are left."""
        if sku not in self.stock:
            raise UnknownSku(f"nothing is sold as {sku!r}")
        if self.stock[sku] < quantity:
            raise OutOfStock(f"{quantity} of {sku!r} wanted, {self.stock[sku]} left")
        self.stock[sku] -= quantity
        return self.stock[sku]

    @rpc
    async def release(self, sku: str, quantity: Quantity) -> int:
        """Take goods back and return how many there are then."""
        self.stock[sku] += quantity
        return self.stock[sku]


if __name__ == "__main__":
    Inventory().run()

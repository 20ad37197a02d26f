"""Orders: what customers talk to."""

from decimal import Decimal

from billing import Billing
from inventory import Inventory
from model import Accepted, DuplicateOrder, Order, Receipt, Refused

from cliffracer_core import CliffracerError, CliffracerService, client, rpc


class Orders(CliffracerService):
    """Takes orders: has the goods reserved and the card charged, and tells whom it may concern."""

    name = "orders"
    version = "1.0.0"
    description = "Takes orders"

    inventory = client(Inventory)
    billing = client(Billing)

    def __init__(self) -> None:
        super().__init__()
        self.placed: set[str] = set()

    @rpc
    async def place(self, order: Order) -> Receipt:
        """Take an order, or refuse it with the reason."""
        if order.id in self.placed:
            raise DuplicateOrder(f"order {order.id!r} was placed before")
        self.placed.add(order.id)
        try:
            total = await self._reserve_and_charge(order)
        except Refused as error:  # said again in our own name; a callee's error that is passed on is an RPCError
            self.placed.discard(order.id)
            raise type(error)(error.message) from error
        except CliffracerError:
            self.placed.discard(order.id)
            raise
        accepted = Accepted(order.id, order.customer, order.email, total, order.currency)
        await self.publish("order.accepted", accepted, durable=True, message_id=order.id)
        return Receipt(order.id, total, order.currency)

    async def _reserve_and_charge(self, order: Order) -> Decimal:
        await self.inventory.reserve(order.sku, order.quantity)
        total = order.price * order.quantity
        try:
            await self.billing.charge(order.card, total, order.currency)
        except CliffracerError:
            await self.inventory.release(order.sku, order.quantity)
            raise
        return total


if __name__ == "__main__":
    Orders().run()

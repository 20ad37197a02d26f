"""Billing: charges cards, and writes an invoice for each order that was accepted."""

from decimal import Decimal

from model import Accepted, Currency, Invoice, PaymentDeclined

from cliffracer_core import CliffracerService, MessageContext, event, rpc

DECLINED = "4000-0002"  # the test card that every bank declines


class Billing(CliffracerService):
    """Keeps the invoices, in memory."""

    name = "billing"
    version = "1.0.0"
    description = "Charges cards and writes invoices"

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[str, Invoice] = {}

    @rpc
    async def charge(self, card: str, total: Decimal, currency: Currency) -> None:
        """Charge a card."""
        if card == DECLINED:
            raise PaymentDeclined(f"the bank declined {total} {currency}")

    @event("order.accepted", durable=True)
    async def write_invoice(self, order: Accepted, context: MessageContext) -> None:
        """Write an invoice. The event is stored until this returns, and may come twice: the order's id tells."""
        self.written[order.order_id] = Invoice(order.order_id, order.total, order.currency, context.correlation_id)

    @rpc
    async def invoices(self) -> list[Invoice]:
        """Return all invoices."""
        return list(self.written.values())


if __name__ == "__main__":
    Billing().run()

"""What the three services share: the shapes they exchange and the errors they answer with."""

from decimal import Decimal
from typing import Annotated

from msgspec import Meta, Struct

from cliffracer_core import ServiceError

Email = Annotated[str, Meta(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", max_length=254)]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$")]
Quantity = Annotated[int, Meta(ge=1, le=1000)]


class Order(Struct):
    """What a customer sends. A value that does not fit is refused before any handler runs."""

    id: Annotated[str, Meta(min_length=1)]
    customer: str
    email: Email
    sku: str
    quantity: Quantity
    price: Decimal
    currency: Currency
    card: str


class Receipt(Struct):
    """What the customer gets back."""

    order_id: str
    total: Decimal
    currency: Currency


class Accepted(Struct):
    """The event `order.accepted`."""

    order_id: str
    customer: str
    email: Email
    total: Decimal
    currency: Currency


class Invoice(Struct):
    """What billing wrote for an accepted order."""

    order_id: str
    total: Decimal
    currency: Currency
    correlation_id: str


class Refused(ServiceError):
    """An order cannot be taken."""


class UnknownSku(Refused, code="unknown_sku", status=404):
    """The shop sells no such thing."""


class OutOfStock(Refused, code="out_of_stock", status=409):
    """Not enough of it is left."""


class PaymentDeclined(Refused, code="payment_declined", status=402):
    """The card's bank said no."""


class DuplicateOrder(Refused, code="duplicate_order", status=409):
    """An order of this id was placed before."""

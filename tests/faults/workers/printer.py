"""Printer: prints documents, some of which take a while."""

from __future__ import annotations

import asyncio

import msgspec

from cliffracer_core import CliffracerService, MessageContext, event

from .ledger import Ledger
from .serving import serve

RETRIES = 2


class Document(msgspec.Struct, frozen=True):
    """Something to print."""

    title: str
    seconds: float = 0.0
    """How long printing takes."""


class Printer(CliffracerService):
    """Prints each document at least once."""

    name = "printer"
    version = "1.0.0"
    ledger = Ledger()

    @event("document.sent", durable=True, retries=RETRIES, ack_wait_s=1.0, backoff_s=0.1)
    async def print_document(self, document: Document, context: MessageContext) -> None:
        """Print a document."""
        with self.ledger.keep("print", document.title, context.attempt):
            await asyncio.sleep(document.seconds)


if __name__ == "__main__":
    serve(Printer)

"""Run three services on a NATS server of their own, place 200 orders, and check what became of each.

uv run docs/examples/orders/main.py
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from cliffracer_discovery import InfoResponse, discover
from cliffracer_nats import embedded_nats
from customers import Customers
from expected import Row, expected, read
from report import Report, in_words, make_report

from cliffracer_core import ClientProxy

Process = subprocess.Popen[bytes]
HERE = Path(__file__).parent
SERVICES = ("billing", "inventory", "orders")
WAIT_S = 10.0


@contextmanager
def processes(nats_url: str) -> Iterator[dict[str, Process]]:
    """Run each service as a process of its own; at the end ask each to stop (SIGTERM) and wait until it has."""
    environment = {**os.environ, "NATS_URL": nats_url}
    running = {name: subprocess.Popen([sys.executable, HERE / f"{name}.py"], env=environment) for name in SERVICES}
    try:
        yield running
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            try:
                process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def find_services(proxy: ClientProxy, running: dict[str, Process]) -> list[InfoResponse]:
    """Ask who is there, until all are whose process runs: a service answers once it is ready."""
    until = time.monotonic() + WAIT_S
    while True:
        found = await discover(proxy, quiet_s=0.05)
        alive = sum(process.poll() is None for process in running.values())
        if len(found) >= alive or time.monotonic() > until:
            return found
        await asyncio.sleep(0.02)


async def place_orders(
    nats_url: str, running: dict[str, Process], rows: list[Row], at_once: int, show: Callable[[str], None]
) -> Report:
    """Wait for the services, place the orders, and say what became of them."""
    async with ClientProxy(nats_url) as proxy:
        services = await find_services(proxy, running)
        customers = Customers(proxy, lambda: show(f"{len(customers.seconds)} of {len(rows)} orders answered"))
        started = time.perf_counter()
        await customers.place_all(rows, at_once)
        seconds = time.perf_counter() - started
        invoices = await customers.invoices(WAIT_S)
    stock = read(HERE / "stock.csv")
    return make_report(services, customers, invoices, rows, expected(rows, stock), seconds)


def main() -> int:
    """Return 0 if all became what it should."""
    parser = argparse.ArgumentParser(description="Three services, one NATS server, 200 orders.")
    parser.add_argument("--orders", type=Path, default=HERE / "orders.csv", metavar="CSV", help="other orders to place")
    parser.add_argument("--at-once", type=int, choices=range(1, 201), default=20, metavar="N", help="1 to 200 (20)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()

    def show(text: str) -> None:
        if sys.stdout.isatty() and not options.json:
            print(f"\r\x1b[K{text}", end="", flush=True)

    rows = read(options.orders)
    show("starting a NATS server and three services")
    with embedded_nats() as nats, processes(nats.url) as running:
        report = asyncio.run(place_orders(nats.url, running, rows, options.at_once, show))
    report.judge({name: process.returncode for name, process in running.items()})
    show("")
    print(msgspec.json.encode(report).decode() if options.json else in_words(report))
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())

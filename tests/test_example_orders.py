"""The orders example, which is the README's first command: it works, and it notices when it does not."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ORDERS = Path(__file__).parent.parent / "docs" / "examples" / "orders"
OUTCOMES = {
    "accepted": 139,
    "duplicate_order": 6,
    "invalid card": 2,
    "invalid currency": 4,
    "invalid customer": 2,
    "invalid email": 7,
    "invalid price": 3,
    "invalid quantity": 7,
    "out_of_stock": 12,
    "payment_declined": 13,
    "unknown_sku": 5,
}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ORDERS / "main.py"), *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_all_orders_end_as_the_data_says() -> None:
    """Each kind of order ends as counted by hand; every accepted one is invoiced; all processes end cleanly."""
    done = run("--json")
    assert done.stderr == ""
    assert done.returncode == 0
    report = report_of(done)
    assert report["ok"] is True
    assert report["outcomes"] == {name: {"expected": count, "got": count} for name, count in OUTCOMES.items()}
    assert report["invoices"] == {"expected": 139, "got": 139}
    assert report["calls"] == 200
    assert 0 < report["p50_ms"] <= report["p99_ms"]
    assert report["exit_statuses"] == {"billing": 0, "inventory": 0, "orders": 0}
    assert report["services"]["orders"] == ["rpc.orders.place"]


def test_the_table_is_for_people() -> None:
    """Without --json it prints a table and its verdict, and no progress where nobody watches."""
    done = run("--at-once", "1")
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "all as expected"
    assert "\r" not in done.stdout
    assert all(f"  {name:<30}{count:>8}{count:>8}" in done.stdout for name, count in OUTCOMES.items())


def test_it_fails_when_a_service_misbehaves(tmp_path: Path) -> None:
    """An inventory that counts another stock than the shop has is found out."""
    with (ORDERS / "stock.csv").open(encoding="utf-8", newline="") as file:
        rows = [{**row, "stock": "1000"} for row in csv.DictReader(file)]
    stock = tmp_path / "stock.csv"
    with stock.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    done = run("--json", STOCK_FILE=str(stock))
    assert done.returncode == 1
    report = report_of(done)
    assert report["ok"] is False
    assert report["outcomes"]["out_of_stock"] == {"expected": 12, "got": 0}


def test_it_fails_when_a_service_does_not_start() -> None:
    """A process that ends with an error is found out, though the others go on."""
    done = run("--json", STOCK_FILE="/nowhere/stock.csv")
    assert done.returncode == 1
    report = report_of(done)
    assert report["exit_statuses"] == {"billing": 0, "inventory": 1, "orders": 0}
    assert "inventory" not in report["services"]


def test_help_names_the_options() -> None:
    """--help says what there is."""
    done = run("--help")
    assert done.returncode == 0
    assert all(option in done.stdout for option in ("--orders", "--at-once", "--json"))

"""What must become of each order: worked out from the files alone, by none of the services' code."""

import csv
from collections import Counter
from decimal import Decimal, InvalidOperation
from pathlib import Path

Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """Read a CSV file with a header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def expected(orders: list[Row], stock: list[Row]) -> Counter[str]:
    """Count outcomes: `accepted`, an error's code, or `invalid <field>`."""
    outcomes: Counter[str] = Counter()
    left = {row["sku"]: int(row["stock"]) for row in stock}
    seen: set[str] = set()
    for row in orders:
        outcome = _invalid(row) or _refused(row, left, seen)
        if outcome == "accepted":
            left[row["sku"]] -= int(row["quantity"])
            seen.add(row["id"])
        outcomes[outcome] += 1
    return outcomes


def _invalid(row: Row) -> str:
    host = row["email"].rpartition("@")[2]
    good = {
        **{field: text != "" for field, text in row.items()},
        "email": row["email"].count("@") == 1 and row["email"][0] != "@" and "." in host and " " not in row["email"],
        "quantity": row["quantity"].isdecimal() and int(row["quantity"]) > 0,
        "price": _is_number(row["price"]),
        "currency": len(row["currency"]) == 3 and row["currency"].isascii() and row["currency"].isupper(),
    }
    return next((f"invalid {field}" for field, fits in good.items() if not fits), "")


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False


def _refused(row: Row, left: dict[str, int], seen: set[str]) -> str:
    """Scarce things are wanted one at a time, so how many orders get one does not depend on which comes first."""
    if row["id"] in seen:
        return "duplicate_order"
    if row["sku"] not in left:
        return "unknown_sku"
    if left[row["sku"]] < int(row["quantity"]):
        return "out_of_stock"
    return "payment_declined" if row["card"] == "4000-0002" else "accepted"

"""What came of it all: as figures, and in words."""

from collections import Counter
from decimal import Decimal

from cliffracer_discovery import InfoResponse
from customers import Customers
from expected import Row
from model import Invoice
from msgspec import Struct


class Count(Struct):
    """How many there should be, and how many there are."""

    expected: int
    got: int


class Report(Struct, kw_only=True):
    """The figures, which `--json` prints."""

    ok: bool = False
    services: dict[str, list[str]]
    """The subjects each service answers on, as discovery found them."""
    outcomes: dict[str, Count]
    invoices: Count
    """Durable events handled: an invoice for each accepted order, with its total and correlation id."""
    calls: int
    seconds: float
    p50_ms: float
    p99_ms: float
    exit_statuses: dict[str, int] = {}

    def judge(self, exit_statuses: dict[str, int]) -> None:
        """Say whether all is as it should be, now that the processes have ended."""
        self.exit_statuses = exit_statuses
        counts = [*self.outcomes.values(), self.invoices]
        self.ok = (
            all(count.got == count.expected for count in counts)
            and self.services.keys() == exit_statuses.keys()
            and set(exit_statuses.values()) == {0}
        )


def make_report(
    services: list[InfoResponse],
    customers: Customers,
    invoices: list[Invoice],
    rows: list[Row],
    expected: Counter[str],
    seconds: float,
) -> Report:
    """Compare what happened with what should have."""
    got = customers.outcomes
    totals = {
        row["id"]: Decimal(row["price"]) * int(row["quantity"]) for row in rows if row["id"] in customers.accepted
    }
    right = [
        each for each in invoices if each.total == totals.get(each.order_id) and each.correlation_id == each.order_id
    ]
    return Report(
        services={each.name: [endpoint.subject for endpoint in each.endpoints] for each in services},
        outcomes={name: Count(expected[name], got[name]) for name in sorted({*expected, *got})},
        invoices=Count(len(totals), len(right)),
        calls=len(rows),
        seconds=round(seconds, 3),
        p50_ms=customers.percentile_ms(50),
        p99_ms=customers.percentile_ms(99),
    )


def in_words(report: Report) -> str:
    """Render a report for people."""
    lines = ["services found"]
    lines += [f"  {name:<30}{', '.join(subjects)}" for name, subjects in report.services.items()]
    lines += ["", f"{'orders':<32}{'expected':>8}{'got':>8}"]
    for name, count in {**report.outcomes, "invoiced by a durable event": report.invoices}.items():
        wrong = "" if count.got == count.expected else "   <- wrong"
        lines += [f"  {name:<30}{count.expected:>8}{count.got:>8}{wrong}"]
    lines += [
        "",
        f"{report.calls} calls in {report.seconds:.2f} s: p50 {report.p50_ms} ms, p99 {report.p99_ms} ms",
        "exit status " + ", ".join(f"{name} {status}" for name, status in report.exit_statuses.items()),
        "all as expected" if report.ok else "NOT as expected",
    ]
    return "\n".join(lines)

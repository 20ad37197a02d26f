"""From samples to the table: medians, ratios, reached or not."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping

from .rows import ROWS, Row

__all__ = ["Report", "Result", "as_figure", "as_line", "as_ratio"]

Samples = Mapping[str, Mapping[str, list[float]]]
_HEADERS = ("measure", "unit", "nats-py or base", "FastStream", "Cliffracer", "of base", "of FastStream", "target", "")


@dataclasses.dataclass(frozen=True)
class Result:
    """One row, computed."""

    row: Row
    medians: Mapping[str, float]
    ratio_to_base: float | None
    ratio_to_faststream: float | None
    reached: bool | None
    """None where there is no target, or something was not measured."""


class Report:
    """The samples of one interpreter.

    Args:
        samples: row, contestant, one number a round.
        python: its version.
        eager: whether it has eager tasks.
        versions: of the distributions in its environment.
        load: load average before and after.
        failures: what went wrong.
    """

    def __init__(
        self,
        samples: Samples,
        python: str,
        *,
        eager: bool,
        versions: Mapping[str, str],
        load: tuple[float, float],
        failures: list[str],
    ) -> None:
        self.samples = samples
        self.python = python
        self.eager = eager
        self.versions = versions
        self.load = load
        self.failures = failures

    def results(self) -> Iterator[Result]:
        """Compute each row that was measured."""
        for name, row in ROWS.items():
            medians = {who: statistics.median(found) for who, found in self.samples.get(name, {}).items() if found}
            if medians:
                yield self._result(row, medians)

    def _result(self, row: Row, medians: Mapping[str, float]) -> Result:
        ours = medians.get("cliffracer")
        to_base = _ratio(ours, medians.get(row.base))
        to_faststream = _ratio(ours, medians.get("faststream"))
        if row.name.startswith("memory"):
            to_base = to_faststream = None  # a growth may be nothing, or less
        compared = [
            (found, wanted)
            for found, wanted in zip((to_base, to_faststream, ours), row.targets(self.eager), strict=True)
            if wanted is not None
        ]
        checks = [
            found >= wanted if row.more_is_better else found <= wanted
            for found, wanted in compared
            if found is not None
        ]
        reached = all(checks) if checks and len(checks) == len(compared) else None
        return Result(row, medians, to_base, to_faststream, reached)

    def table(self) -> list[list[str]]:
        """Return headers and cells."""
        return [list(_HEADERS), *(self._cells(result) for result in self.results())]

    def _cells(self, result: Result) -> list[str]:
        row, medians = result.row, result.medians
        base = as_figure(medians.get(row.base))
        return [
            row.title,
            row.unit,
            base if row.base == "nats-py" or row.base not in medians else f"{base} ({row.base})",
            as_figure(medians.get("faststream")),
            as_figure(medians.get("cliffracer")),
            as_ratio(result.ratio_to_base),
            as_ratio(result.ratio_to_faststream),
            self._target(row),
            {True: "reached", False: "not reached", None: ""}[result.reached],
        ]

    def _target(self, row: Row) -> str:
        to_base, to_faststream, value = row.targets(self.eager)
        parts = [as_ratio(to_base)] if to_base is not None else []
        parts += [f"{as_ratio(to_faststream)} FastStream"] if to_faststream is not None else []
        parts += [f"{value:g}"] if value is not None else []
        return f"{'at least' if row.more_is_better else 'at most'} {', '.join(parts)}" if parts else ""

    def text(self) -> str:
        """Return the table in columns."""
        table = self.table()
        widths = [max(len(line[column]) for line in table) for column in range(len(_HEADERS))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table
        )

    def markdown(self) -> str:
        """Return versions, table, failures and every sample."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        header, *lines = self.table()
        before, after = self.load
        parts = [
            f"## Python {self.python}",
            f"{versions}. Load average {before:.1f} before, {after:.1f} after.",
            "\n".join([as_line(header), as_line(["---"] * len(header)), *map(as_line, lines)]),
        ]
        if self.failures:
            parts.append("Failed:\n\n" + "\n".join(f"- {_short(each)}" for each in self.failures))
        parts.append("Every sample, round by round:")
        parts.append("\n".join(["| row | contestant | samples |", "| --- | --- | --- |", *self._samples()]))
        return "\n\n".join(parts) + "\n"

    def _samples(self) -> Iterator[str]:
        for name, contestants in self.samples.items():
            for who, found in contestants.items():
                yield as_line([name, who, ", ".join(map(as_figure, found))])


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def _short(failure: str) -> str:
    """Keep who failed and the last line, which names the error; what stands between names paths."""
    lines = failure.strip().splitlines()
    return lines[0] if len(lines) == 1 else f"{lines[0]}: {lines[-1].strip()}"


def as_figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"


def as_ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} x"


def as_line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"

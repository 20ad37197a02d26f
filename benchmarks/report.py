"""From samples to the table: medians, ratios, reached or not."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence

from .rows import OURS, Row

__all__ = ["Facts", "Report", "Samples"]

Samples = Mapping[str, Mapping[str, Sequence[float]]]
"""Row, contestant, one number a round."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """Under which conditions the samples of a report were taken."""

    python: str
    """Version of the interpreter."""
    eager: bool
    """Whether it has eager tasks."""
    versions: Mapping[str, str]
    """Of the distributions in its environment."""
    load: tuple[float, float]
    """Load average before and after."""


class Report:
    """The samples of one interpreter.

    Args:
        samples: what was measured.
        rows: of the table, by name.
        columns: contestant to heading; the first one is the base of each row that names no other.
        facts: under which conditions.
        failures: what went wrong.
    """

    def __init__(
        self,
        samples: Samples,
        rows: Mapping[str, Row],
        columns: Mapping[str, str],
        facts: Facts,
        failures: Sequence[str] = (),
    ) -> None:
        self.samples = samples
        self.rows = rows
        self.columns = columns
        self.facts = facts
        self.failures = failures

    def table(self) -> list[list[str]]:
        """Return headers and cells."""
        others = [heading for who, heading in self.columns.items() if who != OURS]
        header = ["measure", "unit", *self.columns.values(), *(f"of {each}" for each in others), "target", ""]
        return [header, *(self._cells(row) for name, row in self.rows.items() if self.samples.get(name))]

    def _cells(self, row: Row) -> list[str]:
        medians = {who: statistics.median(found) for who, found in self.samples[row.name].items() if found}
        ours = medians.get(OURS)
        ratios = {
            who: ours / median
            for who, median in medians.items()
            if ours is not None and median and who != OURS and not row.grows
        }
        first, *more = self.columns
        base = row.base or first
        shown = [base, *(who for who in more if who != OURS)]
        figures = {who: _figure(medians.get(who)) for who in [*shown, OURS]}
        if row.base and base in medians:
            figures[base] += f" ({base})"
        return [
            row.title, row.unit,
            *(figures[base if who == first else who] for who in self.columns),
            *(_ratio(ratios.get(who)) for who in shown),
            self._target(row), self._verdict(row, ratios, ours),
        ]  # fmt: skip

    def _heading(self, who: str, row: Row) -> str:
        return who if who == row.base else self.columns[who]

    def _target(self, row: Row) -> str:
        targets = row.targets_of(eager=self.facts.eager)
        parts = [f"{_ratio(ratio)} {self._heading(who, row)}" for who, ratio in targets.items()]
        parts += [f"{row.value:,g}"] if row.value is not None else []
        return f"at {'least' if row.more_is_better else 'most'} {', '.join(parts)}" if parts else ""

    def _verdict(self, row: Row, ratios: Mapping[str, float], ours: float | None) -> str:
        """Say which targets are not reached; nothing where one was not measured."""
        targets = row.targets_of(eager=self.facts.eager)
        if ours is None or not (targets or row.value is not None) or any(who not in ratios for who in targets):
            return ""
        if row.unit == "% CPU" and ours < 0:
            return "lost in noise"  # nothing is faster for doing more
        sign = 1 if row.more_is_better else -1
        missed = [self._heading(who, row) for who, wanted in targets.items() if sign * (ratios[who] - wanted) < 0]
        if row.value is not None and sign * (ours - row.value) < 0:
            missed.append(f"{row.value:,g}")
        return f"not reached: {', '.join(missed)}" if missed else "reached"

    def text(self) -> str:
        """Return the table in columns."""
        table = self.table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table
        )

    def markdown(self) -> str:
        """Return versions, table, failures and every sample."""
        header, *lines = self.table()
        versions = ", ".join(f"{name} {number}" for name, number in self.facts.versions.items())
        before, after = self.facts.load
        parts = [
            f"## Python {self.facts.python}",
            f"{versions}. Load average {before:.1f} before, {after:.1f} after.",
            "\n".join([_line(header), _line(["---"] * len(header)), *map(_line, lines)]),
        ]
        if self.failures:
            parts.append("Failed:\n\n" + "\n".join(f"- {_short(each)}" for each in self.failures))
        parts.append("Every sample, round by round:")
        parts.append("\n".join(["| row | contestant | samples |", "| --- | --- | --- |", *self._samples()]))
        return "\n\n".join(parts) + "\n"

    def _samples(self) -> Iterator[str]:
        for name, contestants in self.samples.items():
            for who, found in contestants.items():
                yield _line([name, who, ", ".join(map(_figure, found))])


def _short(failure: str) -> str:
    """Keep who failed and the last line, which names the error; what stands between names paths."""
    lines = failure.strip().splitlines()
    return lines[0] if len(lines) == 1 else f"{lines[0]}: {lines[-1].strip()}"


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} x"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

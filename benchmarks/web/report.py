"""From samples to the table: medians, ratios, reached or not."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping

from benchmarks.report import as_figure, as_line, as_ratio

from .contestants import OURS, PEERS
from .rows import ROWS, Row

__all__ = ["Report"]

Samples = Mapping[str, Mapping[str, list[float]]]


class Report:
    """The samples of one interpreter.

    Args:
        samples: row, contestant, one number a round.
        python: its version.
        versions: of the distributions in its environment.
        load: load average before and after.
        failures: what went wrong.
    """

    def __init__(
        self, samples: Samples, python: str, versions: Mapping[str, str], load: tuple[float, float], failures: list[str]
    ) -> None:
        self.samples = samples
        self.python = python
        self.versions = versions
        self.load = load
        self.failures = failures

    def table(self) -> list[list[str]]:
        """Return headers and cells."""
        others = [each for each in PEERS if each != OURS]
        header = ["measure", "unit", *PEERS, *(f"of {each}" for each in others), "target", ""]
        return [header, *(self._cells(row, others) for name, row in ROWS.items() if name in self.samples)]

    def _cells(self, row: Row, others: list[str]) -> list[str]:
        medians = {who: statistics.median(found) for who, found in self.samples[row.name].items()}
        ours = medians.get(OURS)
        grows = row.value is not None  # a growth may be nothing, or less: no ratio
        ratios = {who: ours / medians[who] for who in others if ours is not None and medians.get(who) and not grows}
        return [
            row.title, row.unit,
            *(as_figure(medians.get(who)) for who in PEERS),
            *(as_ratio(ratios.get(who)) for who in others),
            _target(row), _verdict(row, ratios, ours),
        ]  # fmt: skip

    def text(self) -> str:
        """Return the table in columns."""
        table = self.table()
        widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table
        )

    def markdown(self) -> str:
        """Return versions, table, failures and every sample."""
        header, *lines = self.table()
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        parts = [
            f"## Python {self.python}",
            f"{versions}. Load average {self.load[0]:.1f} before, {self.load[1]:.1f} after.",
            "\n".join([as_line(header), as_line(["---"] * len(header)), *map(as_line, lines)]),
        ]
        if self.failures:
            parts.append("Failed:\n\n" + "\n".join(f"- {each.splitlines()[0]}" for each in self.failures))
        parts.append("Every sample, round by round:")
        parts.append("\n".join(["| row | contestant | samples |", "| --- | --- | --- |", *self._samples()]))
        return "\n\n".join(parts) + "\n"

    def _samples(self) -> Iterator[str]:
        for name, contestants in self.samples.items():
            for who, found in contestants.items():
                yield as_line([name, who, ", ".join(map(as_figure, found))])


def _target(row: Row) -> str:
    if row.value is not None:
        return f"at most {row.value:g}"
    if not row.targets:
        return ""
    parts = ", ".join(f"{as_ratio(ratio)} {who}" for who, ratio in row.targets.items())
    return f"at {'least' if row.more_is_better else 'most'} {parts}"


def _verdict(row: Row, ratios: Mapping[str, float], ours: float | None) -> str:
    """Say which targets are not reached; nothing where one was not measured."""
    if row.unit == "% CPU" and ours is not None and ours < 0:
        return "lost in noise"  # nothing is faster for doing more
    if row.value is not None:
        return "" if ours is None else "reached" if ours <= row.value else "not reached"
    if not row.targets or any(who not in ratios for who in row.targets):
        return ""
    missed = [
        who
        for who, ratio in row.targets.items()
        if (ratios[who] < ratio if row.more_is_better else ratios[who] > ratio)
    ]
    return f"not reached: {', '.join(missed)}" if missed else "reached"

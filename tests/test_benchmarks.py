"""The benchmark commands: each measures in a tiny form, and the report says what the samples say."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FULL = os.environ.get("CLIFFRACER_FAULTS") == "full"
Samples = dict[str, dict[str, list[float]]]


def run(module: str, *options: str) -> Samples:
    """Run a command for one round; returns its samples. Results files stay as they are."""
    before = {path: path.read_bytes() for path in (ROOT / "benchmarks").glob("results*.md")}
    done = subprocess.run(
        [sys.executable, "-m", module, "--rounds", "1", "--json", *options],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in (ROOT / "benchmarks").glob("results*.md")} == before
    (report,) = json.loads(done.stdout)
    assert report["python"] in done.stderr
    samples: Samples = report["samples"]
    assert samples
    assert all(len(found) == 1 for contestants in samples.values() for found in contestants.values())
    return samples


def test_nats_is_measured() -> None:
    """Calls are made and checked by raw client and Cliffracer; what is left out is not there."""
    samples = run(
        "benchmarks", "--only", "rpc_64", "idle_plugin", "--contestant", "nats-py", "cliffracer", "--seconds", "0.2"
    )
    assert samples.keys() == {"rpc_64", "idle_plugin"}
    assert samples["rpc_64"].keys() == {"nats-py", "cliffracer"}
    assert all(found[0] > 100 for found in samples["rpc_64"].values())


@pytest.mark.skipif(shutil.which("wrk") is None or find_spec("httptools") is None, reason="no wrk, or no httptools")
def test_http_is_measured() -> None:
    """Requests are answered by a bare application and Cliffracer."""
    samples = run(
        "benchmarks.web", "--only", "get_uvicorn", "--contestant", "bare", "cliffracer", "--seconds", "1"
    )  # fmt: skip
    assert samples.keys() == {"get_uvicorn", "get_uvicorn_p99", "get_uvicorn_cpu"}
    assert all(found[0] > 100 for found in samples["get_uvicorn"].values())


def test_postgresql_is_measured() -> None:
    """Rows are written and read, streamed and relayed, by Cliffracer and raw psycopg; in full, by SQLAlchemy, too."""
    peers = ["core", "orm"] if FULL and find_spec("sqlalchemy") and find_spec("asyncpg") else []
    only = ["get", "create", "create_many", "stream", "relay"] if FULL else ["get", "create_many", "relay"]
    samples = run(
        "benchmarks.db", "--seconds", "0.1", "--rows", "3000", "--events", "200", "--no-results",
        "--only", *only, "--contestant", "psycopg", *peers, "cliffracer",
    )  # fmt: skip
    assert {name.partition("_")[0] for name in samples} == {name.partition("_")[0] for name in only}
    assert {"get_cpu", "create_many_cpu", "relay_one_key"} <= samples.keys()
    assert samples["create_many"].keys() == {"psycopg", *peers, "cliffracer"}
    assert all(found[0] > 10 for name in ("get", "create_many") for found in samples[name].values())


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, which is in the repository and in no distribution."""
    monkeypatch.syspath_prepend(ROOT)

    class Modules:
        rows = importlib.import_module("benchmarks.rows")
        report = importlib.import_module("benchmarks.report")

    return Modules


def report_of(benchmarks: Any, row: dict[str, Any], samples: dict[str, list[float]], *, eager: bool = True) -> Any:
    rows = benchmarks.rows.by_name([benchmarks.rows.Row("r", "a row", **{"unit": "calls/s", **row})])
    facts = benchmarks.report.Facts("3.13", eager, {"x": "1"}, (0.0, 0.0))
    columns = {"raw": "base", "peer": "Peer", "cliffracer": "Cliffracer"}
    return benchmarks.report.Report({"r": samples}, rows, columns, facts)


@pytest.mark.parametrize(
    ("row", "samples", "cells"),
    [
        (
            {"targets": {"raw": 0.5, "peer": 3}},
            {"raw": [90, 100, 2000], "peer": [10], "cliffracer": [40, 60, 50]},
            ["100", "10", "50", "0.50 x", "5.00 x", "at least 0.50 x base, 3.00 x Peer", "reached"],
        ),
        (
            {"targets": {"raw": 0.5, "peer": 6}},
            {"raw": [100], "peer": [10], "cliffracer": [49]},
            ["100", "10", "49", "0.49 x", "4.90 x", "at least 0.50 x base, 6.00 x Peer", "not reached: base, Peer"],
        ),
        (
            {"targets": {"raw": 2}, "more_is_better": False, "value": 8},
            {"raw": [4], "cliffracer": [8.5]},
            ["4", "", "8.5", "2.12 x", "", "at most 2.00 x base, 8", "not reached: base, 8"],
        ),
        (
            {"base": "task", "value": 1000, "more_is_better": False},
            {"task": [10], "cliffracer": [20]},
            ["10 (task)", "", "20", "2.00 x", "", "at most 1,000", "reached"],
        ),
        (
            {"grows": True, "value": 5, "more_is_better": False},
            {"raw": [0], "cliffracer": [-1]},
            ["0", "", "-1", "", "", "at most 5", "reached"],
        ),
        (
            {"grows": True, "value": 5, "more_is_better": False, "unit": "% CPU"},
            {"cliffracer": [-1]},
            ["", "", "-1", "", "", "at most 5", "lost in noise"],
        ),
        ({"targets": {"raw": 1}}, {"cliffracer": [5]}, ["", "", "5", "", "", "at least 1.00 x base", ""]),
        ({"targets": {"raw": 1}}, {"raw": [5]}, ["5", "", "", "", "", "at least 1.00 x base", ""]),
    ],
)  # fmt: skip
def test_a_row_says_what_was_reached(
    benchmarks: Any, row: dict[str, Any], samples: dict[str, list[float]], cells: list[str]
) -> None:
    """Medians, ratios and targets; no verdict where something to compare with was not measured."""
    header, line = report_of(benchmarks, row, samples).table()
    assert header == ["measure", "unit", "base", "Peer", "Cliffracer", "of base", "of Peer", "target", ""]
    assert line[2:] == cells


def test_targets_are_others_before_eager_tasks(benchmarks: Any) -> None:
    """A row with targets of its own for Python 3.11 is judged by those there."""
    row, samples = {"targets": {"raw": 2}, "lazy": {"raw": 1}}, {"raw": [10.0], "cliffracer": [15.0]}
    assert report_of(benchmarks, row, samples).table()[1][-1] == "not reached: base"
    assert report_of(benchmarks, row, samples, eager=False).table()[1][-1] == "reached"


def test_results_have_every_sample_and_no_path_of_a_failure(benchmarks: Any) -> None:
    """The file holds table and samples; of a failure it keeps who failed and the last line."""
    report = report_of(benchmarks, {}, {"raw": [1, 2.5, 3000], "cliffracer": [4]})
    report.failures = ['get, raw: failed\n  File "/somewhere/private.py"\nValueError: no']
    text = report.markdown()
    assert "| r | raw | 1, 2.5, 3,000 |" in text
    assert "| a row | calls/s | 2.5 |" in text
    assert "- get, raw: failed: ValueError: no\n" in text
    assert "private.py" not in text

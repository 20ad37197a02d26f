"""Import: a whole process that imports one thing and ends."""

from __future__ import annotations

import statistics
import subprocess
import time

from benchmarks.bench import Bench, WorkerError

IMPORTS = {
    "python": "",
    "asyncio+msgspec+pluggy": "import asyncio, msgspec, pluggy",
    "faststream": "import faststream.nats",
    "cliffracer": "import cliffracer_core",
}
_MEMORY = """
with open("/proc/self/smaps_rollup") as file:
    print(*(line.split()[1] for line in file if line.startswith(("Rss:", "Private_Dirty:"))))
"""
RUNS = 5


def sample(bench: Bench, contestant: str) -> dict[str, float]:
    """Milliseconds from start to end of the process, and memory in kB at its end; medians of five after one more.

    Memory is what is resident, and of that what the process has written for itself alone.
    """
    found: list[tuple[float, ...]] = []
    for run in range(RUNS + 1):
        begun = time.perf_counter()
        done = subprocess.run(
            [bench.python, "-c", IMPORTS[contestant] + _MEMORY],
            env={**bench.env, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": ""},  # as for whoever installed it
            cwd=bench.folder, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        took_ms = (time.perf_counter() - begun) * 1000
        if done.returncode:
            raise WorkerError(f"import of {contestant}: {done.stderr[-1500:]}")
        if run:  # the first one may compile
            kibibytes = map(int, done.stdout.split())
            found.append((took_ms, *(each * 1.024 for each in kibibytes)))
    medians = map(statistics.median, zip(*found, strict=True))
    return dict(zip(("import_time", "import_resident", "import_private"), medians, strict=True))

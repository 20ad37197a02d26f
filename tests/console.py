"""Console blocks of the pages, run as their reader would run them, in a terminal that has a background."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

__all__ = ["PYTEST_OPTIONS", "Session", "matches"]

TIMEOUT_S = 30.0
PYTEST_OPTIONS = ("-p", "no:schemathesis", "-p", "no:hypothesispytest", "-p", "no:anyio")
"""A reader's pytest does not load what this repository has for itself; that takes longer than all else it does."""


def steps(body: str) -> list[tuple[str, str]]:
    """Split a block into commands, each with what it prints."""
    parts = re.split(r"^\$ (.*)\n", body, flags=re.M)
    assert not parts[0].strip(), "a console block starts with '$ command'"
    return list(zip(parts[1::2], parts[2::2], strict=True))


def matches(expected: str, printed: str, *, start: bool = False) -> bool:
    """Tell whether a command printed what a page says: `...` is any text in a line, alone it is any lines.

    Args:
        expected: as the page shows it.
        printed: by the command.
        start: more may follow.
    """
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line.rstrip()).replace(r"\.\.\.", ".*") + r" *\n"
        for line in expected.splitlines()
    )
    text = "".join(f"{line}\n" for line in printed.splitlines())
    return (re.match if start else re.fullmatch)(pattern, text) is not None


class Session:
    """A terminal in a page's folder; a context manager that ends what runs in its background.

    `uv run` is left out: what the page would install is installed here.

    Args:
        folder: where it begins.
    """

    def __init__(self, folder: Path) -> None:
        self.home = self.folder = folder
        self._background: subprocess.Popen[str] | None = None
        self._printed = ""
        self._reading: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._background is not None and self._background.poll() is None:
            self._background.kill()
        self._forget()

    def _start(self, command: str) -> subprocess.Popen[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CLIFFRACER_", "COV", "NATS_"))}
        here = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "src",
            "PYTEST_ADDOPTS": " ".join(PYTEST_OPTIONS),
            "PYTHONUNBUFFERED": "1",
            "XDG_RUNTIME_DIR": str(self.home),
            "COLUMNS": "120",
        }
        return subprocess.Popen(
            command.replace("uv run ", ""),
            shell=True,
            executable="/bin/bash",
            cwd=self.folder,
            env=kept | here,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, body: str, where: str) -> None:
        """Run each command; one that shows no output has to succeed."""
        for command, expected in steps(body):
            if command.startswith("cd "):
                self.folder = self.folder / command.removeprefix("cd ")
                continue
            status, printed = self._run(command)
            if expected.strip():
                assert matches(expected, printed), f"{where}: {command!r} printed\n{printed}\nand not\n{expected}"
            else:
                assert status == 0, f"{where}: {command!r} ended with {status}\n{printed}"

    def run_until(self, body: str, where: str) -> None:
        """Run commands again and again until they print what the page says."""
        end = time.monotonic() + TIMEOUT_S
        for command, expected in steps(body):
            while not matches(expected, printed := self._run(command)[1]):
                assert time.monotonic() < end, f"{where}: {command!r} still prints\n{printed}\nand not\n{expected}"
                time.sleep(0.1)

    def _run(self, command: str) -> tuple[int, str]:
        process = self._start(command)
        try:
            printed, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return process.returncode, printed

    def run_in_background(self, body: str, where: str) -> None:
        """Stop what ran there, start a command, and go on once it has printed what the page says."""
        self.stop(where)
        ((command, expected),) = steps(body)
        self._background = process = self._start(f"exec {command}")
        self._printed = ""
        self._reading = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reading.start()
        end = time.monotonic() + TIMEOUT_S
        while not matches(expected, self._printed, start=True):
            text = f"{where}: {command!r} printed\n{self._printed}\nand not\n{expected}"
            assert process.poll() is None, text
            assert time.monotonic() < end, text
            time.sleep(0.02)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._printed += line

    def stop(self, where: str) -> None:
        """End what runs in the background as Ctrl-C does; it has to end well."""
        if self._background is not None:
            os.killpg(self._background.pid, signal.SIGINT)
            status = self._background.wait(TIMEOUT_S)
            assert status in (0, 130), f"{where}: what ran in the background ended with {status}\n{self._printed}"
        self._forget()

    def _forget(self) -> None:
        if self._background is not None and self._reading is not None and self._background.stdout is not None:
            self._background.wait(TIMEOUT_S)
            self._reading.join(TIMEOUT_S)
            self._background.stdout.close()
        self._background = self._reading = None

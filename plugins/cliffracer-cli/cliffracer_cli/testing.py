"""`CommandLine`: a `cliffracer` process under test; for this plugin's tests and those of others' commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

__all__ = ["CommandLine", "clean_environment", "fake_plugin"]

TIMEOUT_S = 30.0


def clean_environment(directory: Path, **variables: str) -> dict[str, str]:
    """Return this process's environment without settings of Cliffracer, with `variables`, and warnings as errors."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("CLIFFRACER_") and key != "NATS_URL" and not key.startswith("COV")
    }
    own = {"PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1", "XDG_RUNTIME_DIR": str(directory)}
    return {**kept, **own, **variables}


class CommandLine:
    """A `cliffracer` process, as a context manager that ends it.

    Args:
        *arguments: the command line's.
        directory: where it runs; its notes are kept there too.
        environment: more variables.
        stdin: text it reads.
    """

    def __init__(
        self, *arguments: str, directory: Path, environment: Mapping[str, str] | None = None, stdin: str = ""
    ) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
            # a shell that runs the tests in its background ignores Ctrl-C for all that they start
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cliffracer_cli", *arguments],
            cwd=directory,
            env=clean_environment(directory, **(environment or {})),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.out: list[str] = []
        self.err: list[str] = []
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self._process.stdout, self.out), (self._process.stderr, self.err))
        ]
        for thread in self._threads:
            thread.start()
        assert self._process.stdin is not None
        self._process.stdin.write(stdin)
        self._process.stdin.close()

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._changed:
                lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, text: str, *, times: int = 1) -> list[str]:
        """Return the lines on stderr and stdout that contain `text`, once there are so many.

        Raises:
            AssertionError: it ended before, or 30 s passed.
        """

        def found() -> list[str]:
            return [line for line in [*self.err, *self.out] if text in line]

        def done() -> bool:
            return len(found()) >= times or not any(thread.is_alive() for thread in self._threads)

        with self._changed:
            self._changed.wait_for(done, TIMEOUT_S)
            if len(found()) < times:
                raise AssertionError(f"{text!r} came {len(found())} times, not {times}:\n" + "\n".join(self.err))
            return found()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def ctrl_c(self) -> None:
        """Do what a terminal does on Ctrl-C: send SIGINT to the process and all of its group."""
        os.killpg(self.pid, signal.SIGINT)

    def wait(self) -> int:
        """Return its exit code, and let `out` and `err` be complete."""
        code = self._process.wait(TIMEOUT_S)
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        return code

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def json(self) -> Any:
        """Wait, and return what it printed."""
        assert self.wait() == 0, self.err
        return json.loads("\n".join(self.out))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


def fake_plugin(directory: Path, name: str, source: str) -> None:
    """Make a plugin that is installed for processes with `directory` on their path, as the working one is.

    Args:
        directory: where the module `plugin_<name>` and the distribution's metadata are written.
        name: the plugin's; its distribution is `cliffracer-<name>`, version 1.2.3.
        source: of the module.
    """
    (directory / f"plugin_{name}.py").write_text(source)
    metadata = directory / f"cliffracer_{name}-1.2.3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: cliffracer-{name}\nVersion: 1.2.3\n")
    (metadata / "entry_points.txt").write_text(f"[cliffracer]\n{name} = plugin_{name}\n")

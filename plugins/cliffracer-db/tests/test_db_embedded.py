from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from cliffracer_cli.testing import CommandLine
from cliffracer_db import EmbeddedPostgres, embedded_postgres
from cliffracer_db.plugin import DbPlugin

from cliffracer_core.errors import ConfigurationError, StartupError
from cliffracer_core.testing import eventually

pytest_plugins = ["pytester"]

APP = """
from cliffracer_core import CliffracerService, rpc
from cliffracer_db import Database
from psycopg import sql

class Shop(CliffracerService):
    name = "shop"
    db = Database()

    @rpc
    async def database(self) -> str:
        (row,) = await self.db.select(sql.SQL("select version() as v"))
        return row["v"]
"""


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = (
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] if Path(f"/proc/{pid}").exists() else "Z"
    )
    return state == "Z"


def test_server_listens_on_loopback_and_wants_its_password(postgres_server: EmbeddedPostgres) -> None:
    """A TCP port on 127.0.0.1 alone, PostgreSQL 18, no entry without the generated password."""
    with psycopg.connect(postgres_server.url) as connection:
        rows = connection.execute("select current_setting('listen_addresses'), current_setting('server_version')")
        assert [value[:9] for value in rows.fetchone() or ()] == ["127.0.0.1", "18.4"]
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_server.url.replace(postgres_server.password, "wrong"))
    assert postgres_server.password not in postgres_server.log


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that the server's user can reach, too, where this process is root; pytest's own are private."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_what_was_committed_stays_when_it_is_killed_or_kept(reachable: Path) -> None:
    """Data outlives stop, kill -9 and, in a directory of one's own, the block; a temporary one is removed."""
    with embedded_postgres(directory=reachable / "data") as server:
        port = server.port
        with psycopg.connect(server.url) as connection:
            connection.execute("create table t (n int)")
        for number, again in enumerate((server.restart, server.kill, server.stop)):
            again()
            server.start()
            with psycopg.connect(server.url) as connection:
                connection.execute("insert into t values (%s)", [number])
        assert server.port == port
    with embedded_postgres(directory=reachable / "data") as server, psycopg.connect(server.url) as connection:
        assert connection.execute("select count(*) from t").fetchone() == (3,)
    with embedded_postgres() as server:
        place = server.directory
    assert not place.exists()
    with pytest.raises(StartupError):
        _ = server.pid


def test_error_has_the_end_of_the_log_when_it_does_not_start() -> None:
    """A setting that the server refuses is named."""
    with pytest.raises(StartupError, match="nonsense"), embedded_postgres(settings={"nonsense": "1"}):
        pass


def test_database_is_not_used_again_when_it_cannot_be_emptied(postgres_server: EmbeddedPostgres) -> None:
    """One that was given back is the next one's, empty; one that is gone is nobody's."""
    first = postgres_server.create_database()
    with psycopg.connect(first) as connection:
        connection.execute("create table t (n int)")
        postgres_server.give_back_database(first)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    assert postgres_server.create_database() == first
    with psycopg.connect(first) as connection:
        assert connection.execute("select to_regclass('t')").fetchone() == (None,)
        connection.execute("create table t (n int)")
    with psycopg.connect(postgres_server.superuser_url, autocommit=True) as connection:
        connection.execute(f"drop database {first.rpartition('/')[2]}")
    postgres_server.give_back_database(first)
    assert postgres_server.create_database() != first


async def test_server_ends_when_its_owner_is_killed() -> None:
    """`kill -9` of the process that started it ends server and directory."""
    code = (
        "import sys, time; from cliffracer_db import embedded_postgres\n"
        "with embedded_postgres() as s: print(s.pid, s.directory, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:  # noqa: ASYNC220
        assert owner.stdout is not None
        pid, directory = owner.stdout.readline().split()
        assert not gone(int(pid))
        owner.send_signal(signal.SIGKILL)
    await eventually(lambda: gone(int(pid)) and not Path(directory).exists())


def test_nothing_is_offered_when_the_wheel_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without [embedded] `cliffracer dev` has no server for the database; a program gets an error with the remedy."""
    assert [each.setting for each in DbPlugin().cliffracer_register_embedded_servers()] == ["db.url"]
    monkeypatch.setattr("cliffracer_db.plugin.find_spec", lambda name: None)
    monkeypatch.setattr("cliffracer_db.embedded.find_spec", lambda name: None)
    assert DbPlugin().cliffracer_register_embedded_servers() == []
    with pytest.raises(ConfigurationError, match=r"cliffracer-db\[embedded\]"), embedded_postgres():
        pass


def test_dev_runs_a_database_for_a_service_that_names_none(tmp_path: Path) -> None:
    """`cliffracer dev` gives the service an embedded PostgreSQL, which `call` and `db` find."""
    (tmp_path / "app.py").write_text(APP)
    with CommandLine("dev", "app:Shop", "--no-reload", directory=tmp_path) as dev:
        dev.wait_for("is ready")
        with CommandLine("call", "shop.database", directory=tmp_path) as call:
            assert call.wait() == 0
            assert "PostgreSQL 18" in "".join(call.out)
        with CommandLine("db", "status", "app:Shop", directory=tmp_path) as status:
            status.wait()
            assert "no directory 'migrations'" in "".join(status.err)


def test_dev_uses_the_database_that_is_named(tmp_path: Path, postgres_server: EmbeddedPostgres) -> None:
    """With DB_HOST set no server is started."""
    (tmp_path / "app.py").write_text(APP)
    environment = {
        "DB_HOST": "127.0.0.1", "DB_PORT": str(postgres_server.port), "DB_USER": "app",
        "DB_PASSWORD": postgres_server.password,
    }  # fmt: skip
    with CommandLine("dev", "app:Shop", "--no-reload", directory=tmp_path, environment=environment) as dev:
        dev.wait_for("is ready")
        assert "embedded postgresql" not in "".join(dev.err)


def test_fixtures_give_each_test_an_empty_database(pytester: pytest.Pytester) -> None:
    """`postgres_url` is a database of the test's own, on one server for the session that ends with it."""
    pytester.makepyfile(
        """
        import psycopg, pytest
        from pathlib import Path

        @pytest.mark.parametrize("n", range(3))
        def test_one(postgres_url, postgres_server, n):
            with psycopg.connect(postgres_url) as connection:
                connection.execute("create table t (n int); create schema s create table u (n int)")
                connection.execute("create type e as enum ('x'); create sequence q")
                connection.execute("create function f() returns int language sql as 'select 1'")
            open_still = psycopg.connect(postgres_url)  # which stands in nobody's way
            with Path("pids").open("a") as file:
                print(postgres_server.pid, file=file)
        """
    )
    pytester.runpytest_subprocess("-p", "no:schemathesis", "-p", "no:hypothesispytest").assert_outcomes(passed=3)
    (pid,) = {int(line) for line in (pytester.path / "pids").read_text().split()}
    deadline = time.monotonic() + 5
    while not gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)

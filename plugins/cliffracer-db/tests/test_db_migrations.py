from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cliffracer_cli.main import main
from cliffracer_db import Database, DbSettings, Repository, StatementTimeout
from cliffracer_db.catalogue import difference
from cliffracer_db.migrations import Migrations, new_migration
from cliffracer_db.models import table_of
from psycopg import sql

from cliffracer_core import CliffracerService, ServiceConfig
from cliffracer_core.errors import CliffracerError, ConfigurationError, DatabaseError

from .db_models import Everything, Org, User, make_tables

NUMBERS = "create table numbers (n int);\ninsert into numbers values (1), (2);\n"


def write(directory: Path, **files: str) -> Migrations:
    for name, text in files.items():
        (directory / name.replace("__", ".")[1:]).write_text(textwrap.dedent(text))
    return Migrations(directory, "shop", wait_s=20)


async def numbers(db: Database) -> list[int]:
    return [row["n"] for row in await db.select(sql.SQL("select n from numbers order by n"))]


async def test_each_file_is_applied_once_in_order(db: Database, tmp_path: Path) -> None:
    """SQL with several statements and percent signs, and Python with the database, in one line of numbers."""
    migrations = write(
        tmp_path,
        _0001_numbers__sql=NUMBERS + "comment on table numbers is '100% sure';",
        _0002_more__py="""
            from psycopg import sql

            async def migrate(db):
                assert db.in_transaction
                await db.execute(sql.SQL("insert into numbers values (%s)"), [3])
        """,
    )
    assert [each.number for each in await migrations.migrate(db)] == [1, 2]
    assert await migrations.migrate(db) == []
    write(tmp_path, _0010_last__sql="update numbers set n = n * 10")
    assert [each.name for each in await migrations.migrate(db)] == ["last"]
    assert await numbers(db) == [10, 20, 30]
    assert all(each.applied_at and not each.problem for each in await migrations.status(db))
    assert [each.number for each in await Migrations(tmp_path, "other").status(db) if each.applied_at] == []


async def test_failed_file_leaves_nothing_and_those_before_it_stay(db: Database, tmp_path: Path) -> None:
    """The error names the file and the server's reason; a corrected file is applied by the next run."""
    migrations = write(
        tmp_path, _0001_numbers__sql=NUMBERS, _0002_bad__sql="insert into numbers values (3);\nselect nonsense;"
    )
    with pytest.raises(DatabaseError, match=r"0002_bad.sql.*nonsense"):
        await migrations.migrate(db)
    assert await numbers(db) == [1, 2]
    assert [bool(each.applied_at) for each in await migrations.status(db)] == [True, False]
    write(tmp_path, _0002_bad__sql="insert into numbers values (3);")
    await migrations.migrate(db)
    assert await numbers(db) == [1, 2, 3]


async def test_replicas_that_start_at_once_apply_each_file_once(postgres_url: str, tmp_path: Path) -> None:
    """Eight processes' worth of pools migrate together: one applies, the others wait and find it done."""
    write(
        tmp_path,
        _0001_numbers__sql="create table numbers (n int); select pg_sleep(0.2);",
        _0002_one__sql="insert into numbers values (1)",
    )
    databases = [Database(DbSettings(url=postgres_url, application_name=f"a{n}")) for n in range(8)]
    for each in databases:
        await each.open()
    done = await asyncio.gather(*(Migrations(tmp_path, "shop").migrate(each) for each in databases))
    assert sorted(len(each) for each in done) == [0] * 7 + [2]
    assert await numbers(databases[0]) == [1]
    for each in databases:
        await each.close()


async def test_service_migrates_when_it_starts(postgres_url: str, tmp_path: Path) -> None:
    """With `migrate_on_start` the tables are there before handlers run; two replicas do it once."""
    new_migration(tmp_path, "orgs", Org.get_create_table_sql())

    class Orgs(CliffracerService):
        name = "orgs"
        orgs = Repository(Org)

    section = {"url": postgres_url, "migrations": str(tmp_path), "migrate_on_start": True}
    services = [Orgs(ServiceConfig("orgs", db=section)) for _ in range(2)]
    await asyncio.gather(*(each.start() for each in services))
    assert await services[0].orgs.count() == 0
    for each in services:
        await each.stop()


async def test_index_is_built_concurrently_when_the_file_says_no_transaction(db: Database, tmp_path: Path) -> None:
    """A file marked so runs statement by statement outside a transaction, while others wait for the lock."""
    migrations = write(
        tmp_path,
        _0001_numbers__sql=NUMBERS,
        _0002_index__sql="""\
            -- cliffracer: no transaction
            create index concurrently numbers_a on numbers (n);
            -- a second one; of a statement's own
            create index concurrently numbers_b on numbers (n); create function one() returns int as $$
                begin return ';'::text = ';';
                end
            $$ language plpgsql;
            select pg_sleep(0.3)
        """,
    )
    assert db.settings is not None
    # as long as they take, whatever else is limited
    impatient = [DbSettings(url=db.settings.url, statement_timeout_s=0.2, application_name=each) for each in "ab"]
    async with Database(impatient[0]) as one, Database(impatient[1]) as other:
        await asyncio.gather(migrations.migrate(one), migrations.migrate(other))
        shown = sql.SQL("select current_setting('statement_timeout') as one, current_setting('lock_timeout') as two")
        assert await one.select(shown) == await other.select(shown) == [{"one": "200ms", "two": "10s"}]
    assert len(await db.select(sql.SQL("select 1 from pg_indexes where tablename = 'numbers'"))) == 2


async def test_migration_is_tried_again_when_a_lock_is_not_to_be_had(db: Database, tmp_path: Path) -> None:
    """It gives way to a running transaction after `lock_timeout_s`, and succeeds once that has ended."""
    migrations = write(tmp_path, _0001_numbers__sql=NUMBERS)
    await migrations.migrate(db)
    write(tmp_path, _0002_column__sql="alter table numbers add column x int")
    impatient = Migrations(tmp_path, "shop", lock_timeout_s=0.05)
    assert db.settings is not None
    async with Database(DbSettings(url=db.settings.url, application_name="other")) as other:
        async with other.transaction():
            await other.execute(sql.SQL("select * from numbers"))
            task = asyncio.create_task(impatient.migrate(db))
            done, _ = await asyncio.wait({task}, timeout=0.5)
            assert not done
        assert len(await task) == 1


async def test_waiting_ends_when_another_migrates_for_too_long(db: Database, tmp_path: Path) -> None:
    """Who waits for the lock longer than `wait_s` gives up with an error."""
    write(tmp_path, _0001_slow__sql="select pg_sleep(1)")
    task = asyncio.create_task(Migrations(tmp_path, "shop").migrate(db))
    await asyncio.sleep(0)
    assert db.settings is not None
    async with Database(DbSettings(url=db.settings.url, application_name="other")) as other:
        held = sql.SQL("select 1 from pg_locks where locktype = 'advisory'")
        while not await other.select(held):
            await asyncio.sleep(0.01)
        with pytest.raises(StatementTimeout, match="another process migrates 'shop'"):
            await Migrations(tmp_path, "shop", wait_s=0.2).migrate(other)
    assert len(await task) == 1


async def test_wrong_files_are_refused(db: Database, tmp_path: Path) -> None:
    """No directory, a bad name, one number twice, a changed file, a late number, a Python file without function."""
    with pytest.raises(ConfigurationError, match="cliffracer db new"):
        await Migrations(tmp_path / "none", "shop").migrate(db)
    migrations = write(tmp_path, _0002_numbers__sql=NUMBERS)
    await migrations.migrate(db)
    for name, text, named in (
        ("1_x.sql", "", "not named as"),
        ("0002_other.sql", "", "one number"),
        ("0001_early.sql", "select 1", "later number"),
        ("0003_empty.py", "", "async def migrate"),
        ("0003_raises.py", "async def migrate(db): raise ValueError('why')", "0003_raises.py.*ValueError: why"),
        ("0003_broken.py", "async def migrate(db)", "0003_broken.py.*SyntaxError"),
        ("0003_latin.sql", "select 'gr\udcfcn'", "0003_latin.sql.*utf-8"),
        ("0003_commits.sql", "create table gone (n int);\nCOMMIT work; select 1", "ends a transaction"),
        ("0003_undoes.sql", "create table gone (n int); -- commit;\n/* ; */ rollback", "ends a transaction"),
        ("0002_numbers.sql", "select 2", "changed after"),
    ):
        before = (tmp_path / name).read_text() if (tmp_path / name).exists() else None
        (tmp_path / name).write_text(text, errors="surrogateescape")
        with pytest.raises(CliffracerError, match=named):
            await migrations.migrate(db)
        if before is None:
            (tmp_path / name).unlink()
    assert await db.select(sql.SQL("select to_regclass('gone') as gone")) == [{"gone": None}]
    assert [each.problem for each in await migrations.status(db)] == ["changed"]
    (tmp_path / "0002_numbers.sql").unlink()
    assert [each.problem for each in await migrations.status(db)] == ["missing"]
    with pytest.raises(ConfigurationError):
        new_migration(tmp_path, "../x", "")


# --- diff ---


async def test_diff_is_empty_when_the_tables_were_made_by_the_models(db: Database) -> None:
    """Every kind of column, constraint, default and index comes back from the catalogue as the model says."""
    tables = [table_of(each) for each in (User, Org, Everything)]
    made = await difference(db, tables)
    assert made.index('"orgs"') < made.index('"users"')
    await db.execute(sql.SQL(made))
    assert await difference(db, tables) == ""
    assert await db.select(sql.SQL("select 1 from pg_namespace where nspname = 'cliffracer_diff'")) == []


async def test_diff_is_empty_after_it_was_applied(db: Database) -> None:
    """New and changed columns, defaults, checks, references and indexes are brought to what the model says."""
    await make_tables(db, Org, User, Everything)
    await db.execute(
        sql.SQL(
            "alter table users drop column age, drop constraint users_email_key, alter name drop not null,"
            "  drop constraint users_name_max_length, drop constraint users_org_id_fkey, add column extra int;"
            "alter table users add constraint users_name_max_length check (char_length(name) <= 7);"
            "drop index users_org_id_idx; create index users_extra on users (extra);"
            "alter table everything alter active drop default, alter rate set default 7, drop column day,"
            "  alter integer type integer;"
            # of another type than the model's, with what was made for that: default, CHECK, unique, index
            "alter table everything drop constraint everything_size_values, alter size type text using size::text,"
            "  alter size set default '1', add constraint everything_size_max_length check (char_length(size) < 9),"
            "  add constraint everything_size_key unique (size);"
            "create index everything_size_idx on everything (size)"
        )
    )
    await db.execute(sql.SQL("alter table everything alter chosen set default 'red', alter maybe set not null"))
    tables = [table_of(each) for each in (User, Org, Everything)]
    text = await difference(db, tables)
    assert not [line for line in text.splitlines() if "drop column" in line and not line.startswith("--")]
    await db.execute(sql.SQL(text))
    left = await difference(db, tables)
    assert left.splitlines() == [
        '-- only the database has constraint "everything_size_key" of "everything"; to be rid of it: '
        'alter table "everything" drop constraint if exists "everything_size_key";',
        '-- only the database has index "everything_size_idx" of "everything"; to be rid of it: '
        'drop index if exists "everything_size_idx";',
        '-- only the database has column "extra" of "users"; when no release reads it: '
        'alter table "users" drop column "extra";',
        '-- only the database has index "users_extra" of "users"; to be rid of it: drop index if exists "users_extra";',
    ]
    await db.execute(sql.SQL("".join(line.partition(": ")[2] for line in left.splitlines())))
    assert await difference(db, tables) == ""


# --- the command line ---

APP = """
from typing import Annotated
from msgspec import Meta
from cliffracer_core import CliffracerService
from cliffracer_db import DatabaseModel, Repository

class User(DatabaseModel):
    __tablename__ = "users"
    name: Annotated[str, Meta(max_length=FIELD)]

class Users(CliffracerService):
    name = "users"
    users = Repository(User)
"""


Run = Callable[..., str]


@pytest.fixture
def cliffracer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """The command line, in this process and in a directory of its own; returns what it wrote."""
    for name in os.environ:
        if name.startswith(("CLIFFRACER_", "DB_", "DATABASE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions of a file within one second

    def run(*arguments: str, code: int = 0) -> str:
        for name in ("app", "bare"):
            sys.modules.pop(name, None)
        ended = main(arguments)
        written = "".join(capsys.readouterr())
        assert ended == code, written
        return written

    yield run
    for name in ("app", "bare"):
        sys.modules.pop(name, None)


def test_commands_take_a_model_to_the_database_and_its_change(
    postgres_url: str, tmp_path: Path, cliffracer: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diff --write, migrate, status and diff again, for a new table and for a changed one."""
    url = ("--url", postgres_url)
    (tmp_path / "app.py").write_text(APP.replace("FIELD", "10"))
    assert "migrations/0001_users.sql" in cliffracer("db", "diff", "app:Users", *url, "--write", "users")
    assert "pending" in cliffracer("db", "status", "app:Users", *url, code=1)
    assert "applied 0001_users.sql" in cliffracer("db", "migrate", "app:Users", *url)
    assert "nothing to apply" in cliffracer("db", "migrate", "app:Users", *url)
    assert "agree" in cliffracer("db", "diff", "app:Users", *url)
    (tmp_path / "app.py").write_text(APP.replace("FIELD", "20"))
    assert "<= 20" in cliffracer("db", "diff", "app:Users", *url, code=1)
    assert "0002_wider.sql" in cliffracer("db", "diff", "app:Users", *url, "--write", "wider")
    monkeypatch.setenv("CLIFFRACER_DB__URL", postgres_url)
    assert '"number":2' in cliffracer("db", "migrate", "app:Users", "--json")
    assert '"problem":""' in cliffracer("db", "status", "app:Users", "--json")
    assert "agree" in cliffracer("db", "diff", "app:Users")
    (tmp_path / "cliffracer.toml").write_text("[db]\nmigrations = 'elsewhere'\n")
    assert "no directory 'elsewhere'" in cliffracer("db", "status", "app:Users", *url, code=3)
    program = [sys.executable, "-m", "cliffracer_cli", "db", "new", "by_hand", "--python"]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60)
    assert "0003_by_hand.py" in done.stdout


def test_commands_say_what_is_missing(tmp_path: Path, cliffracer: Run) -> None:
    """No database, nobody there, no models: one line and the exit code."""
    (tmp_path / "app.py").write_text(APP.replace("FIELD", "10"))
    (tmp_path / "bare.py").write_text(
        "from cliffracer_core import CliffracerService\nclass Bare(CliffracerService): ..."
    )
    assert "DB_HOST" in cliffracer("db", "diff", "app:Users", code=3)
    nowhere = "postgresql://127.0.0.1:1/x"
    assert "cannot be reached" in cliffracer("db", "diff", "app:Users", "--url", nowhere, code=4)
    assert "no repository" in cliffracer("db", "diff", "bare:Bare", "--url", nowhere, code=3)

"""`DbSettings`, the plugin's section."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import msgspec

from cliffracer_core.errors import ConfigurationError
from cliffracer_core.interfaces import ServiceInfo

__all__ = ["SECRETS", "DbSettings", "parse_url", "settings_of"]

SECRETS = frozenset({"url", "user", "password"})
_SCHEMES = ("postgresql", "postgres")


class DbSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach PostgreSQL; a pool of connections is shared by all that have the same settings in a process."""

    url: str = ""
    """`postgresql://user:password@host:5432/name`; what it says wins over the fields below."""
    host: str = "localhost"
    port: int = 5432
    name: str = "postgres"
    """Of the database."""
    user: str = ""
    """Where it is empty, the one libpq chooses: PGUSER, or the process's own."""
    password: str = ""
    pool_min_size: int = 1
    """Connections that are kept open."""
    pool_max_size: int = 10
    pool_timeout_s: float = 5.0
    """How long a call waits for a connection before `PoolExhausted`."""
    max_waiting: int = 0
    """Calls that may wait for a connection; further ones are refused at once. 0: no limit."""
    max_idle_s: float = 600.0
    """After so long without use a connection above `pool_min_size` is closed."""
    max_lifetime_s: float = 3600.0
    connect_timeout_s: float = 5.0
    statement_timeout_s: float = 30.0
    """After so long PostgreSQL ends a statement; 0: never."""
    lock_timeout_s: float = 10.0
    """How long a statement waits for a lock; 0: for ever."""
    idle_in_transaction_timeout_s: float = 60.0
    """After so long without a statement PostgreSQL ends a transaction; 0: never."""
    pgbouncer: bool = False
    """The URL is that of pgbouncer in transaction mode: nothing is prepared, and no session parameter is set."""
    application_name: str = "cliffracer"
    outbox: bool = False
    """Keep an outbox for `publish(..., outbox=True)`, and send what is in it."""
    outbox_poll_s: float = 1.0
    """How long an event waits at most where no notification of it came."""
    outbox_lease_s: float = 10.0
    """After so long without renewal another replica sends the outbox."""
    inbox_keep_s: float = 604800.0
    """How long a call or an event of an idempotent handler is remembered."""
    migrations: str = "migrations"
    """Directory of the service's migrations, below the working directory."""
    migrate_on_start: bool = False
    """Apply them before handlers listen; of replicas that start at once one does."""

    def __post_init__(self) -> None:
        if not 0 <= self.pool_min_size <= self.pool_max_size or self.pool_max_size < 1:
            raise ValueError("pool_max_size must be at least 1, and no less than pool_min_size")
        for name in (
            "pool_timeout_s",
            "connect_timeout_s",
            "max_idle_s",
            "max_lifetime_s",
            "outbox_poll_s",
            "outbox_lease_s",
            "inbox_keep_s",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")
        if self.url:
            parse_url(self.url)

    @property
    def place(self) -> str:
        """Host, port and database, to be shown."""
        if not self.url:
            return f"{self.host}:{self.port}/{self.name}"
        parts = urlsplit(self.url)
        return f"{parts.hostname or 'localhost'}:{parts.port or 5432}/{unquote(parts.path.strip('/'))}"

    def conninfo(self) -> str:
        """Return libpq's connection string; what the URL says of itself wins.

        Raises:
            ConfigurationError: the URL is none that libpq understands.
        """
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        options = "" if self.pgbouncer else " ".join(f"-c {name}={value}" for name, value in self._session().items())
        fields: dict[str, str | int | None] = {
            "connect_timeout": max(1, round(self.connect_timeout_s)), "application_name": self.application_name,
            "options": options or None,
        }  # fmt: skip
        if self.url:
            given = self.url.replace("postgres://", "postgresql://", 1)
        else:
            given = make_conninfo(
                host=self.host, port=self.port, dbname=self.name, user=self.user or None, password=self.password or None
            )
        try:
            said = conninfo_to_dict(given)
        except ProgrammingError:  # whose message may show the password
            raise ConfigurationError(
                "db.url is none that PostgreSQL's library understands; look at what stands after '?', and write "
                "characters such as '@' and '%' in the password as '%40' and '%25'"
            ) from None
        if said.get("options") and fields["options"]:
            said["options"] = f"{fields['options']} {said['options']}"  # of two, the later wins
        return make_conninfo(given, **{name: said.get(name) or value for name, value in fields.items() if value})

    def _session(self) -> dict[str, object]:
        return {
            "TimeZone": "UTC",
            "client_connection_check_interval": 1000,  # a query whose client is gone ends
            "statement_timeout": round(self.statement_timeout_s * 1000),
            "lock_timeout": round(self.lock_timeout_s * 1000),
            "idle_in_transaction_session_timeout": round(self.idle_in_transaction_timeout_s * 1000),
        }


def parse_url(url: str) -> str:
    """Check a database's URL and return it.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises for what is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError("db.url is no PostgreSQL URL; write 'postgresql://user:password@host:5432/name'")
    return url


def settings_of(service: ServiceInfo) -> DbSettings:
    """Return a service's section `db`."""
    section = service.settings.get("db")
    return section if isinstance(section, DbSettings) else DbSettings()

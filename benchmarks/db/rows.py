"""The rows of the table for PostgreSQL, and what each must reach."""

from __future__ import annotations

from benchmarks.rows import Row, by_name

__all__ = ["ROWS"]

ROWS = by_name((
    Row("get", "get by id", "rows/s", {"psycopg": 0.85, "orm": 4}),
    Row("get_cpu", "get by id, processor of the client", "us CPU", more_is_better=False),
    Row("create", "create", "rows/s", {"psycopg": 0.85, "orm": 5}),
    Row("create_cpu", "create, processor of the client", "us CPU", more_is_better=False),
    Row("create_many", "create 10,000 prebuilt models", "rows/s", {"psycopg": 0.8, "core": 2.5, "orm": 15}),
    Row("create_many_cpu", "create 10,000, processor of the client", "ms CPU", more_is_better=False),
    Row("stream", "stream 1,000,000 rows", "rows/s"),
    Row("stream_memory", "stream, most memory beyond what was used before", "kB", more_is_better=False, value=20_000,
        grows=True),
    Row("relay", "outbox to JetStream, 1,000 keys", "events/s", value=10_000),
    Row("relay_one_key", "outbox to JetStream, one key", "events/s"),
))  # fmt: skip

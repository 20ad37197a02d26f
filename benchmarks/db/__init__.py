"""PostgreSQL: Cliffracer beside raw psycopg and SQLAlchemy: `python -m benchmarks.db`."""

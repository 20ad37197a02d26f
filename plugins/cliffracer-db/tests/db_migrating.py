"""A process that migrates, and prints how many files it applied: `python db_migrating.py URL DIRECTORY`."""

from __future__ import annotations

import asyncio
import os
import sys

from cliffracer_db import Database, DbSettings
from cliffracer_db.migrations import Migrations


async def main(url: str, directory: str) -> None:
    async with Database(DbSettings(url=url, application_name=f"replica-{os.getpid()}")) as db:
        print(len(await Migrations(directory, "shop").migrate(db)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

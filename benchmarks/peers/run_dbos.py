"""DBOS Transact: async workflows of async steps on SQLite. `plain`: its default, a rollback journal; `wal`: WAL, set by us.

Both with synchronous=FULL, and each step's output committed before the next step.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import sys
import tempfile
import time
from importlib.metadata import version

import dbos
from dbos import DBOS
from work import SLEEP, measure, tell

stamps = []


@DBOS.step()
async def noop(i):
    stamps.append(time.perf_counter())
    return i


@DBOS.step()
async def nap(i):
    await asyncio.sleep(SLEEP)
    return i


@DBOS.workflow()
async def chain(n):
    for i in range(n):
        await noop(i)


@DBOS.workflow()
async def fan(n):
    await noop(0)
    await asyncio.gather(*[nap(i) for i in range(n)])
    await noop(1)


async def many(plans, n):
    await asyncio.gather(*[chain(n) for _ in range(plans)])


async def main(folder):
    DBOS(config={"name": "benchmark", "system_database_url": f"sqlite:///{folder}/d.sqlite", "log_level": "ERROR"})
    DBOS.launch()
    found = await measure(chain, many, fan, stamps)
    import sqlalchemy

    with dbos._dbos._get_dbos_instance()._sys_db.engine.connect() as connection:
        told = [
            connection.execute(sqlalchemy.text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")
        ]

    tell(note=f"dbos {version('dbos')}, journal_mode={told[0]}, synchronous={told[1]}", **found)
    DBOS.destroy()


directory = tempfile.mkdtemp(prefix="autoglm-benchmark-")

try:
    if sys.argv[1] == "wal":
        sqlite3.connect(f"{directory}/d.sqlite").execute("PRAGMA journal_mode=WAL")

    asyncio.run(main(directory))
finally:
    shutil.rmtree(directory, ignore_errors=True)

"""A table is watched from the command line, and its changes are told also after everything was killed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.acceptance.running import dev_file, eventually, fresh_home, millrace, started
from tests.acceptance.test_steering import ok, refused

TABLE = "CREATE TABLE orders (id int PRIMARY KEY, status text)"


@pytest.fixture
def home() -> Iterator[Path]:
    with fresh_home() as folder:
        yield folder


def run(home: Path, *statements: str) -> None:
    """Statements in the embedded database."""

    async def execute() -> None:
        connection = await asyncpg.connect(host=str(home / "postgres"), user="postgres", database="millrace")
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(execute())


def shown(home: Path) -> Any:
    return ok(millrace(home, "changes", "show", "orders_db_change", "--json"))


def test_a_table_is_watched_paused_resumed_and_watched_no_more(home: Path) -> None:
    with started(home, "dev") as dev:
        eventually(lambda: dev_file(home))
        run(home, TABLE)
        refused(millrace(home, "changes", "watch", "nothing"), "TABLE_UNKNOWN")
        said = millrace(home, "changes", "watch", "orders", "--column", "status", "--operation", "update")
        assert (said.code, said.out) == (0, "Changes of orders are events of orders_db_change.\n")
        run(home, "INSERT INTO orders VALUES (1, 'new')", "UPDATE orders SET status = 'won'")
        eventually(lambda: shown(home)["eventsStored"] == 1)
        assert millrace(home, "changes", "pause", "orders_db_change").code == 0
        run(home, "UPDATE orders SET status = 'lost'")
        # Killed without a word: the servers that it started end with it.
        dev.kill()
        dev.wait()
    (home / "dev.json").unlink()
    with started(home, "dev"):
        eventually(lambda: dev_file(home))
        assert "PAUSED" in millrace(home, "changes", "list").out
        assert (shown(home)["status"], shown(home)["eventsStored"]) == ("PAUSED", 1)
        assert millrace(home, "changes", "resume", "orders_db_change").out == "orders_db_change goes on.\n"
        run(home, "UPDATE orders SET status = 'new'")
        eventually(lambda: shown(home)["eventsStored"] == 3)
        table = millrace(home, "changes", "show", "orders_db_change").out
        assert "monitored columns  status" in table
        assert millrace(home, "changes", "unwatch", "orders_db_change").code == 0
        assert ok(millrace(home, "changes", "list", "--json")) == []


def test_the_sql_of_the_outbox_is_printed_for_whoever_may_run_it(home: Path) -> None:
    said = millrace(home, "changes", "watch", "sales.orders", "--method", "outbox", "--print-sql")
    assert said.code == 0
    assert 'ON "sales"."orders"' in said.out
    assert "GRANT SELECT, UPDATE, DELETE ON public.millrace_outbox" in said.out
    refused(millrace(home, "changes", "watch", "orders", "--print-sql"), "SQL_UNKNOWN")

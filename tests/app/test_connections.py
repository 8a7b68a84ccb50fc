"""Databases of users are named in the configuration, and their secrets stay there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr, ValidationError

from app.connections.opening import Connections
from app.connections.selecting import columns_of, read_query, rows_of, try_query
from app.db.session import Connection
from app.errors import AppError, Invalid
from app.settings import Settings
from tests.app.shop import dsn
from tests.conftest import MakeDatabase

SLOW = "SELECT pg_sleep(60)::text AS slept"


@pytest.fixture(scope="module")
async def url(make_empty_database: MakeDatabase) -> str:
    return await make_empty_database()


@pytest.fixture
async def admin(url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(dsn(url))
    await connection.execute("DROP TABLE IF EXISTS goods; CREATE TABLE goods (id int, at timestamptz)")
    await connection.execute(
        "INSERT INTO goods SELECT n, timestamptz '2026-01-01 00:00Z' + n * interval '1 day' "
        "FROM generate_series(1, 3) AS n"
    )
    yield connection
    await connection.close()


@pytest.fixture
def connections(url: str) -> Connections:
    return Connections(None, {"shop": SecretStr(dsn(url))})


async def asked(connections: Connections, text: str, cursor: Any = None, within: float = 10) -> list[Any]:
    async with (
        connections.reading("shop", within) as connection,
        aclosing(rows_of(connection, "shop", read_query(text), cursor)) as rows,
    ):
        return [row async for row in rows]


async def refusal(connections: Connections, text: str, cursor: Any = None, within: float = 10) -> AppError:
    with pytest.raises(AppError) as refused:
        await asked(connections, text, cursor, within)
    return refused.value


async def nobody_left(admin: Connection) -> bool:
    """Whether none of Millrace's connections to the database is there, at the latest after five seconds."""
    for _ in range(50):
        if not await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'millrace'"
        ):
            return True
        await asyncio.sleep(0.1)
    return False


def test_a_connection_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_CONNECTIONS__SHOP", "postgresql://reader:hunter2@db/shop")
    settings = Settings()
    assert settings.connections["shop"].get_secret_value() == "postgresql://reader:hunter2@db/shop"
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("name", "url", "said"),
    [
        ("SHOP", "mysql://reader:hunter2@db/shop", "begins with postgresql://"),
        ("9TO5", "postgresql://reader:hunter2@db/shop", "letters, digits and underscores"),
    ],
)
def test_a_connection_that_is_none_is_refused_without_its_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, said: str
) -> None:
    monkeypatch.setenv(f"MILLRACE_CONNECTIONS__{name}", url)
    with pytest.raises(ValidationError) as refused:
        Settings()
    [problem] = refused.value.errors(include_input=False, include_context=False)
    assert said in problem["msg"]
    assert "hunter2" not in problem["msg"]


async def test_an_unknown_connection_is_told_with_those_that_there_are_and_none_of_their_urls() -> None:
    connections = Connections(None, {"erp": SecretStr("postgresql://me:hunter2@db/erp")})
    with pytest.raises(Invalid) as refused:
        await connections.open("crm")
    assert refused.value.code == "CONNECTION_UNKNOWN"
    assert "There is no connection crm; there are erp, millrace." in refused.value.message
    assert "hunter2" not in refused.value.message


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("postgresql://me:hunter2@127.0.0.1:1/erp", "CONNECTION_UNREACHABLE"),
        ("postgresql://me:hunter2/x@127.0.0.1:1/erp", "CONNECTION_INVALID"),
        ("postgresql://me:hunter2@127.0.0.1:one/erp", "CONNECTION_INVALID"),
        ("postgresql://me:hunter2@127.0.0.1:1/erp?sslmode=hunter2", "CONNECTION_INVALID"),
        ("postgresql://me:hunter2@127.0.0.1:1/erp?target_session_attrs=hunter2", "CONNECTION_INVALID"),
        ("postgresql+asyncpg://me:hunter2@127.0.0.1:one/erp", "CONNECTION_INVALID"),
        ("postgresql+asyncpg://me:hunter2@127.0.0.1:1/erp?ssl=hunter2", "CONNECTION_INVALID"),
    ],
    ids=["away", "slash", "port", "sslmode", "attributes", "driver-port", "driver-ssl"],
)
async def test_no_failure_of_opening_shows_a_password(url: str, code: str) -> None:
    with pytest.raises(AppError) as refused:
        await Connections(None, {"erp": SecretStr(url)}).open("erp")
    assert refused.value.code == code
    failure: BaseException | None = refused.value
    while failure is not None:
        assert "hunter2" not in str(failure)
        failure = failure.__cause__ or (None if failure.__suppress_context__ else failure.__context__)


@pytest.mark.usefixtures("admin")
async def test_a_url_may_be_in_the_words_of_the_driver(url: str) -> None:
    async with Connections(None, {"shop": SecretStr(url)}).reading("shop") as connection:
        assert await connection.fetchval("SELECT count(*) FROM goods") == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nothing FROM goods", "nothing"),
        ("SELECT 1; SELECT 2", "multiple commands"),
        ("DELETE FROM goods RETURNING id", "Only a query"),
        ("SHOW server_version", "Only a query"),
        ("WITH gone AS (DELETE FROM goods RETURNING id) SELECT id FROM gone", "data-modifying"),
        ("SELECT 1 AS id) AS a; DELETE FROM goods; SELECT * FROM (SELECT 1 AS id", "syntax error"),
        ("SELECT 1 AS a, 2 AS a", "each differently"),
        ("SELECT * INTO others FROM goods", "Only a query"),
        ("SELECT id FROM goods FOR UPDATE", "read-only"),
        ("SELECT id FROM goods WHERE id > $1", "no parameters"),
        ("SELECT id FROM goods WHERE id > :cursor AND id < $2", "no parameters"),
    ],
)
async def test_what_is_no_query_is_refused_before_anything_is_read(
    connections: Connections, admin: Connection, text: str, said: str
) -> None:
    with pytest.raises(Invalid) as refused:
        async with connections.reading("shop") as connection:
            await try_query(connection, "shop", read_query(text))
    assert refused.value.code == "QUERY_REFUSED"
    assert said in refused.value.message
    assert await admin.fetchval("SELECT count(*) FROM goods") == 3


async def test_a_function_that_writes_is_refused_though_it_stands_in_a_query(
    connections: Connections, admin: Connection
) -> None:
    await admin.execute(
        "CREATE OR REPLACE FUNCTION clear() RETURNS int LANGUAGE sql AS 'DELETE FROM goods WHERE true RETURNING id'"
    )
    error = await refusal(connections, "SELECT clear() AS id")
    assert (error.code, "read-only" in error.message) == ("QUERY_REFUSED", True)


async def test_a_query_that_its_user_may_not_ask_is_told_as_that(
    url: str, connections: Connections, admin: Connection
) -> None:
    await admin.execute("DROP ROLE IF EXISTS stranger; CREATE ROLE stranger LOGIN")
    foreign = Connections(None, {"shop": SecretStr(dsn(url).replace("postgres@", "stranger@"))})
    with pytest.raises(AppError) as refused:
        async with foreign.reading("shop") as connection:
            await try_query(connection, "shop", read_query("SELECT * FROM goods WHERE at > :cursor"))
    assert refused.value.code == "CONNECTION_NOT_PERMITTED"
    await admin.execute("DROP ROLE stranger")


async def test_millraces_own_database_is_read_as_the_user_that_is_configured_for_it(
    monkeypatch: pytest.MonkeyPatch, url: str, admin: Connection
) -> None:
    await admin.execute("CREATE TABLE IF NOT EXISTS webhook (secret text)")
    await admin.execute("DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN; GRANT SELECT ON goods TO reader")
    monkeypatch.setenv("MILLRACE_CONNECTIONS__MILLRACE", dsn(url).replace("postgres@", "reader@"))
    own = Connections(url, Settings().connections)
    async with own.reading("millrace") as connection:
        assert await try_query(connection, "millrace", read_query("SELECT id FROM goods")) == ["id"]
    # Also where no plan of PostgreSQL's names the table.
    for text in (
        "SELECT secret FROM webhook",
        "SELECT query_to_xml('SELECT secret FROM webhook', true, true, '') AS x",
    ):
        with pytest.raises(AppError) as refused:
            async with (
                own.reading("millrace") as connection,
                aclosing(rows_of(connection, "millrace", read_query(text))) as rows,
            ):
                await anext(rows)
        assert refused.value.code == "CONNECTION_NOT_PERMITTED"
    # What Millrace does there itself it does as itself.
    async with own.opened("millrace") as connection:
        assert await connection.fetchval("SELECT current_user") == "postgres"
    await admin.execute("DROP OWNED BY reader; DROP ROLE reader; DROP TABLE webhook")


@pytest.mark.parametrize(
    ("condition", "cursor", "expected"),
    [
        ("id > :cursor", 1, [2, 3]),
        ("id > :cursor", 1.0, [2, 3]),
        ("id > :cursor", "2", [3]),
        ("at > :cursor", "2026-01-03T00:00:00+00:00", [3]),
        ("id = ANY(:cursor)", [1, 3], [1, 3]),
        ("id = (:cursor::jsonb ->> 'a')::int", {"a": 2}, [2]),
        (":cursor::bool", True, [1, 2, 3]),
        (":cursor::int IS NULL", None, [1, 2, 3]),
        ("':cursor' <> E'it\\'s :cursor' -- :cursor; not", None, [1, 2, 3]),
    ],
)
@pytest.mark.usefixtures("admin")
async def test_a_cursor_is_read_as_a_literal_of_its_type_would_be(
    connections: Connections, condition: str, cursor: Any, expected: list[int]
) -> None:
    found = await asked(connections, f"SELECT id FROM goods WHERE {condition}\nORDER BY id;", cursor)
    assert [row["id"] for row in found] == expected


@pytest.mark.parametrize("cursor", ["soon", {"a": 1}, [["a"]]])
@pytest.mark.usefixtures("admin")
async def test_a_cursor_that_does_not_fit_is_refused(connections: Connections, cursor: Any) -> None:
    kind = "ANY(:cursor)" if isinstance(cursor, list) else ":cursor"
    assert (await refusal(connections, f"SELECT id FROM goods WHERE id = {kind}", cursor)).code == "QUERY_REFUSED"


@pytest.mark.usefixtures("admin")
async def test_the_columns_of_a_query_are_known_before_it_is_asked(connections: Connections) -> None:
    async with connections.reading("shop") as connection:
        assert await columns_of(connection, "shop", read_query(f"SELECT *, ({SLOW}) FROM goods")) == [
            "id",
            "at",
            "slept",
        ]


async def test_a_query_that_takes_too_long_is_called_off(connections: Connections, admin: Connection) -> None:
    error = await refusal(connections, SLOW, within=0.3)
    assert (error.code, error.status) == ("QUERY_TIMED_OUT", 503)
    assert await nobody_left(admin)


async def test_a_query_that_nobody_waits_for_any_more_leaves_no_connection_open(
    connections: Connections, admin: Connection
) -> None:
    for moment in (0.0, 0.002, 0.01, 0.03, 0.3):
        asking = asyncio.create_task(asked(connections, SLOW))
        await asyncio.sleep(moment)
        asking.cancel()
        # Once more while it is being closed.
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await nobody_left(admin), moment


async def test_a_connection_that_ends_in_the_middle_is_told(connections: Connections, admin: Connection) -> None:
    asking = asyncio.create_task(refusal(connections, SLOW))
    while not await admin.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'millrace' AND query LIKE '%pg_sleep%'"
    ):
        await asyncio.sleep(0.05)
    assert (await asking).code == "CONNECTION_UNREACHABLE"


@pytest.mark.usefixtures("admin")
async def test_a_cursor_of_a_type_that_is_no_single_value_is_refused_with_what_to_write(
    connections: Connections,
) -> None:
    error = await refusal(connections, "SELECT id FROM goods WHERE id <@ :cursor::int4range", "[1,3)")
    assert (error.code, "write :cursor::text::int4range" in error.message) == ("QUERY_REFUSED", True)
    found = await asked(connections, "SELECT id FROM goods WHERE id <@ :cursor::text::int4range ORDER BY id", "[1,3)")
    assert [row["id"] for row in found] == [1, 2]

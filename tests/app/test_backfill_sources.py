"""Files and queries as sources of a backfill: read again they give the same rows."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from app.backfills.mapping import Loadable
from app.backfills.rows import BadRow
from app.backfills.sources import Source, check_unchanged, fingerprint, read_source
from app.errors import AppError, Invalid
from app.settings import DatabaseSettings, Settings

QUERY = "SELECT id AS request_id, who, amount, at, more FROM requests ORDER BY id"


def of_file(file: Path, **fields: Any) -> Source:
    kind = "ndjson" if file.suffix == ".ndjson" else "csv"
    return Source.model_validate({"kind": kind, "file": str(file), "sha256": fingerprint(file), **fields})


@pytest.fixture(scope="module")
async def connections(postgres_url: str) -> Settings:
    """Settings with a connection `crm` to a table of 1,200 requests."""
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    await connection.execute(
        """
        CREATE TABLE requests (id int, who text, amount numeric, at timestamptz, more jsonb);
        INSERT INTO requests
            SELECT n, 'who ' || n, n * 0.5, '2026-01-01T00:00Z'::timestamptz + n * interval '1 hour',
                jsonb_build_object('n', n)
            FROM generate_series(1, 1200) AS n
        """
    )
    await connection.close()
    return Settings(connections={"crm": SecretStr(postgres_url)})


async def rows_of(source: Source, settings: Settings) -> list[Loadable | BadRow]:
    """Read on a thread of its own, as the command line does: there is no loop yet."""
    return await asyncio.to_thread(lambda: list(read_source(source, settings)))


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "requests.csv"
    file.write_bytes("\ufeffid;who\r\n1;Zoë\r\n".encode())
    assert list(read_source(of_file(file, eventId="id"), Settings())) == [Loadable(2, {"id": "1", "who": "Zoë"}, "1")]


def test_bytes_that_are_not_utf_8_make_one_row_bad(tmp_path: Path) -> None:
    file = tmp_path / "requests.csv"
    file.write_bytes(b"id,who\n1,\xff\n2,Ann\n")
    bad, good = read_source(of_file(file), Settings())
    assert isinstance(bad, BadRow)
    assert (bad.number, bad.code, good.number) == (2, "TEXT_INVALID", 3)


def test_a_limit_counts_rows_of_the_time_that_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "requests.ndjson"
    file.write_text("".join(f'{{"at": "2026-01-{day:02}"}}\n' for day in range(1, 29)))
    found = list(read_source(of_file(file, time="at", since="2026-01-10", limit=3), Settings()))
    assert [one.number for one in found] == [10, 11, 12]


def test_a_file_that_has_been_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    file = tmp_path / "requests.csv"
    file.write_text("id\n1\n")
    source = of_file(file)
    check_unchanged(source)
    file.write_text("id\n0\n1\n")
    with pytest.raises(Invalid) as refused:
        check_unchanged(source)
    assert refused.value.code == "SOURCE_CHANGED"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        fingerprint(tmp_path / "nothing.csv")
    assert refused.value.code == "FILE_NOT_READABLE"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"context": {"a": "b"}, "map": "__trigger__"}, "MAPPING_INVALID"),
        ({"since": "2026-01-01"}, "TIME_INVALID"),
        ({"time": "at", "since": "yesterday"}, "TIME_INVALID"),
        ({"map": "("}, "MAPPING_INVALID"),
    ],
)
def test_a_source_that_contradicts_itself_is_refused(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as refused:
        Source.model_validate({"kind": "csv", **fields}).mapping()
    assert refused.value.code == code


async def test_a_query_gives_every_row_in_its_order(connections: Settings) -> None:
    source = Source(kind="sql", connection="crm", query=QUERY, event_id="request_id", time="at", since="2026-01-02")
    found = await rows_of(source, connections)
    assert [one.number for one in found] == list(range(24, 1201))
    assert found[1] == Loadable(
        25,
        {
            "request_id": 25,
            "who": "who 25",
            "amount": 12.5,
            "at": "2026-01-02T01:00:00+00:00",
            "more": {"n": 25},
        },
        "25",
    )


async def test_a_query_is_read_no_further_than_it_is_needed(connections: Settings) -> None:
    endless = "SELECT generate_series(1, 1000000000) AS n"
    found = await rows_of(Source(kind="sql", connection="crm", query=endless, limit=3), connections)
    assert [one.number for one in found] == [1, 2, 3]


async def test_a_row_is_the_same_json_as_an_event_of_its_change(connections: Settings) -> None:
    nested = "[" * 150 + "]" * 150
    query = f"""
        SELECT 1e400::numeric AS huge, 9007199254740993 AS big, 9.90 AS price, 'NaN'::float8 AS none,
            '{{"a": 12345678901234567890123, "b": 1e400, "c": 1, "c": 2}}'::json AS document, '{nested}'::json AS deep,
            interval '1 day' AS span, int4range(1, 5) AS range, '\\x00ff'::bytea AS bytes,
            timestamp '2026-01-02 03:04' AS at, ARRAY[1.5, NULL] AS list
        -- Comments and the end of the statement may follow.
        ;
    """
    (row,) = await rows_of(Source(kind="sql", connection="crm", query=query), connections)
    assert isinstance(row, Loadable)
    deep = row.context.pop("deep")
    for _ in range(99):
        (deep,) = deep
    assert isinstance(deep[0], str)
    assert row.context == {
        "huge": "1" + "0" * 400,
        "big": "9007199254740993",
        "price": 9.9,
        "none": "NaN",
        "document": {"a": "12345678901234567890123", "b": "1e400", "c": 2},
        "span": "P1D",
        "range": "[1,5)",
        "bytes": "\\x00ff",
        "at": "2026-01-02T03:04:00",
        "list": [1.5, None],
    }


async def test_a_row_that_cannot_be_stored_is_bad_and_the_rest_goes_on(connections: Settings) -> None:
    query = """SELECT n AS id, '{"a": "\\u0000"}'::json AS a FROM generate_series(1, 1) AS n UNION ALL SELECT 2, '{}'"""
    bad, good = await rows_of(Source(kind="sql", connection="crm", query=query), connections)
    assert isinstance(bad, BadRow)
    assert (bad.code, good) == ("TEXT_INVALID", Loadable(2, {"id": 2, "a": {}}))


async def test_the_database_of_millrace_can_be_asked(database_url: str) -> None:
    settings = Settings(database=DatabaseSettings(url=SecretStr(database_url)))
    source = Source(kind="sql", query="SELECT 1 AS one UNION ALL SELECT 2 ORDER BY one")
    assert [one.number for one in await rows_of(source, settings)] == [1, 2]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("DELETE FROM requests RETURNING id", "QUERY_REFUSED"),
        ("SELECT * FROM nothing", "QUERY_REFUSED"),
        ("SELECT 1; SELECT 2", "QUERY_REFUSED"),
        ("SELECT 1 AS a, 2 AS a", "QUERY_REFUSED"),
        ("WITH gone AS (DELETE FROM requests RETURNING id) SELECT id FROM gone", "QUERY_REFUSED"),
        ("SELECT 1 AS a", "COLUMN_UNKNOWN"),
        ("SELECT 1 / (n - 700) AS id FROM generate_series(1, 1000) AS n", "QUERY_REFUSED"),
    ],
)
async def test_a_query_that_cannot_be_read_is_refused(connections: Settings, query: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        await rows_of(Source(kind="sql", connection="crm", query=query, event_id="id"), connections)
    assert refused.value.code == code


async def test_a_connection_that_nobody_configured_is_refused_and_urls_stay_secret() -> None:
    with pytest.raises(AppError) as unknown:
        await rows_of(Source(kind="sql", connection="erp", query="SELECT 1 AS a"), Settings())
    assert unknown.value.code == "CONNECTION_UNKNOWN"
    nobody = Settings(connections={"erp": SecretStr("postgresql://me:geheim@127.0.0.1:9/erp")})
    with pytest.raises(AppError) as unreachable:
        await rows_of(Source(kind="sql", connection="erp", query="SELECT 1 AS a"), nobody)
    assert unreachable.value.code == "CONNECTION_UNREACHABLE"
    assert "geheim" not in unreachable.value.message


@pytest.mark.parametrize(("name", "url"), [("Big", "postgresql://x"), ("erp", "mysql://me:geheim@x")])
def test_a_connection_that_is_none_is_refused_without_its_secret(name: str, url: str) -> None:
    with pytest.raises(ValueError, match="connection") as refused:
        Settings(connections={name: SecretStr(url)})
    assert "geheim" not in str(refused.value)

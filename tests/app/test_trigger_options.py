"""Options of a trigger's properties: those of the form, and those that are rows of a table."""

from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from app.db.session import Database
from app.settings import Settings
from app.temporal import Temporal
from tests.app.conftest import Serve
from tests.app.scenes import Json, active_template, ok, refused
from tests.conftest import MakeDatabase

TABLE = 'Odd "table"; DROP TABLE x'


@pytest.fixture(scope="module")
async def shop(make_empty_database: MakeDatabase) -> str:
    """Somebody's own database, with a table of an odd name."""
    url = await make_empty_database()
    connection = await asyncpg.connect(url.replace("postgresql+asyncpg://", "postgresql://"))
    quoted = '"' + TABLE.replace('"', '""') + '"'
    await connection.execute(
        f"CREATE TABLE {quoted} "
        '(id integer PRIMARY KEY, "la""bel" text, region text, rank numeric, live boolean, more json)'
    )
    await connection.executemany(
        f"INSERT INTO {quoted} VALUES ($1::int, $2, $3, $1::int, $4)",
        [(1, "Ann", "EU", True), (2, "Bob_", "US", True), (3, "Cyd", "EU", False), (4, "O'Neill %", None, True)],
    )
    await connection.execute("DROP ROLE IF EXISTS passer_by; CREATE ROLE passer_by LOGIN")
    await connection.close()
    return url


@pytest.fixture(scope="module")
async def api(serve: Serve, settings: Settings, database: Database, temporal: Temporal, shop: str) -> httpx.AsyncClient:
    stranger = SecretStr(shop.replace("postgres@", "passer_by@"))
    connections = {
        "shop": SecretStr(shop),
        "stranger": stranger,
        "away": SecretStr("postgresql://u:geheim@127.0.0.1:1/x"),
    }
    return await serve(settings.model_copy(update={"connections": connections}), database, temporal)


def rows(**fields: Any) -> Json:
    source = {"type": "database", "connection": "shop", "table": TABLE, "valueColumn": "id", "labelColumn": 'la"bel'}
    return source | {"cache": False} | fields


def choice(name: str, source: Json | None, **more: Any) -> Json:
    described = {"name": name, "displayName": name, "type": "options", **more}
    return described if source is None else described | {"dataSource": source}


async def trigger(api: httpx.AsyncClient, *properties: Json) -> str:
    key = f"t_{uuid4().hex}"
    body = {"key": key, "name": "T", "category": "external", "source": "manual", "properties": properties}
    await ok(await api.post("/registry/triggers", json=body), 201)
    return f"/registry/triggers/{key}"


async def resolved(api: httpx.AsyncClient, source: Json) -> list[Any]:
    path = await trigger(api, choice("p", source))
    found = await ok(await api.get(f"{path}/options", params={"property": "p"}))
    return [one["value"] for one in found["results"]]


async def test_static_options_are_given_as_they_stand(api: httpx.AsyncClient) -> None:
    listed = [{"name": "One", "value": 1}, {"name": "Two", "value": "2"}]
    inner = {"name": "c", "displayName": "C", "type": "collection", "options": [choice("in", None, options=listed)]}
    path = await trigger(api, choice("a", {"type": "static", "options": listed}), inner)
    for name in ("a", "c.in"):
        found = await ok(await api.get(f"{path}/options", params={"property": name}))
        assert [(one["name"], one["value"]) for one in found["results"]] == [("One", 1), ("Two", "2")]
    refused(await api.get(f"{path}/options", params={"property": "c"}), 404, "OPTIONS_NOT_FOUND")
    refused(await api.get(f"{path}/options", params={"property": "a.b"}), 404, "OPTIONS_NOT_FOUND")


async def test_rows_of_a_table_are_options_whatever_the_table_is_called(api: httpx.AsyncClient) -> None:
    path = await trigger(api, choice("p", rows(orderBy="rank", descending=True)))
    found = await ok(await api.get(f"{path}/options", params={"property": "p"}))
    assert [(one["value"], one["name"]) for one in found["results"]] == [
        (4, "O'Neill %"),
        (3, "Cyd"),
        (2, "Bob_"),
        (1, "Ann"),
    ]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"field": "region", "operator": "=", "value": "EU"}, [1, 3]),
        ({"field": "region", "operator": "!=", "value": "EU"}, [2, 4]),
        ({"field": "region", "operator": "is_null"}, [4]),
        ({"field": "region", "operator": "is_not_null"}, [1, 2, 3]),
        ({"field": "region", "operator": "in", "value": ["EU", "US"]}, [1, 2, 3]),
        ({"field": "region", "operator": "not_in", "value": ["EU"]}, [2, 4]),
        ({"field": "region", "operator": "is_empty"}, [4]),
        ({"field": "region", "operator": "is_not_empty"}, [1, 2, 3]),
        ({"field": "id", "operator": ">", "value": 2}, [3, 4]),
        ({"field": "id", "operator": "gte", "value": 2.0}, [2, 3, 4]),
        ({"field": "id", "operator": "<", "value": 2}, [1]),
        ({"field": "id", "operator": "lte", "value": 2}, [1, 2]),
        ({"field": "rank", "operator": "between", "value": [1.5, 3]}, [2, 3]),
        ({"field": "rank", "operator": "notBetween", "value": [2, 3]}, [1, 4]),
        ({"field": "live", "operator": "=", "value": False}, [3]),
        ({"field": '["la\\"bel"]', "operator": "contains", "value": "_"}, [2]),
        ({"field": '["la\\"bel"]', "operator": "not_contains", "value": "n"}, [2, 3]),
        ({"field": '["la\\"bel"]', "operator": "starts_with", "value": "o'n"}, [4]),
        ({"field": '["la\\"bel"]', "operator": "ends_with", "value": "%"}, [4]),
        ({"field": "region", "operator": "=", "value": "' OR true --"}, []),
        (
            {
                "combinator": "OR",
                "conditions": [
                    {"field": "id", "operator": "=", "value": 4},
                    {
                        "combinator": "AND",
                        "conditions": [
                            {"field": "region", "operator": "=", "value": "EU"},
                            {"field": "live", "operator": "isTrue"},
                        ],
                    },
                ],
            },
            [1, 4],
        ),
    ],
)
async def test_rows_are_chosen_by_a_filter_over_their_columns(
    api: httpx.AsyncClient, where: Json, expected: list[int]
) -> None:
    assert await resolved(api, rows(where=where, orderBy="id")) == expected


async def test_options_that_depend_on_others_are_loaded_with_their_values(api: httpx.AsyncClient) -> None:
    where = {"field": "region", "operator": "=", "value": "{{region}}"}
    options = {"loadOptionsMethod": "people", "loadOptionsDependsOn": ["region"]}
    region = {"name": "region", "displayName": "Region", "type": "string"}
    path = await trigger(api, region, choice("who", rows(where=where), typeOptions=options))
    load = f"{path}/load-options"
    found = await ok(await api.post(load, json={"method": "people", "values": {"region": "US"}}))
    assert [one["value"] for one in found["results"]] == [2]
    refused(await api.post(load, json={"method": "people"}), 422, "OPTIONS_VALUE_MISSING")
    refused(await api.get(f"{path}/options", params={"property": "who"}), 422, "OPTIONS_VALUE_MISSING")
    refused(await api.post(load, json={"method": "nobody"}), 404, "OPTIONS_NOT_FOUND")
    numbered = choice("n", rows(where=where | {"field": "id"}), typeOptions=options)
    other = await trigger(api, region, numbered)
    odd = {"method": "people", "values": {"region": "x'; DROP TABLE x; --"}}
    refused(await api.post(f"{other}/load-options", json=odd), 422, "OPTIONS_VALUE_INVALID")


async def test_options_are_searched_page_by_page(api: httpx.AsyncClient) -> None:
    mode = {"name": "list", "displayName": "List", "type": "list", "dataSource": rows(orderBy="id")}
    mode["typeOptions"] = {"searchListMethod": "find"}
    path = await trigger(api, {"name": "r", "displayName": "R", "type": "resourceLocator", "modes": [mode]})
    first = await ok(await api.post(f"{path}/search", json={"method": "find", "text": "n", "limit": 1}))
    assert [one["name"] for one in first["results"]] == ["Ann"]
    again = {"method": "find", "text": "n", "limit": 1, "paginationToken": first["paginationToken"]}
    second = await ok(await api.post(f"{path}/search", json=again))
    assert ([one["name"] for one in second["results"]], second["paginationToken"]) == (["O'Neill %"], None)
    broken = {"method": "find", "paginationToken": "x"}
    refused(await api.post(f"{path}/search", json=broken), 422, "CURSOR_INVALID")


async def test_rows_are_remembered_as_long_as_the_source_says(api: httpx.AsyncClient, shop: str) -> None:
    quoted = '"' + TABLE.replace('"', '""') + '"'
    cached = await trigger(api, choice("p", rows(cache=True, cacheTtl=600)))
    fresh = await trigger(api, choice("p", rows()))
    for path in (cached, fresh):
        await ok(await api.get(f"{path}/options", params={"property": "p"}))
    connection = await asyncpg.connect(shop.replace("postgresql+asyncpg://", "postgresql://"))
    await connection.execute(f"INSERT INTO {quoted} VALUES (9, 'New')")
    sizes = [
        len((await ok(await api.get(f"{path}/options", params={"property": "p"})))["results"])
        for path in (cached, fresh)
    ]
    await connection.execute(f"DELETE FROM {quoted} WHERE id = 9")
    await connection.close()
    assert sizes == [4, 5]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"table": "nobody"}, "TABLE_UNKNOWN"),
        ({"valueColumn": "nobody"}, "COLUMN_UNKNOWN"),
        ({"orderBy": "nobody"}, "COLUMN_UNKNOWN"),
        ({"orderBy": "more"}, "QUERY_REFUSED"),
        ({"where": {"field": "nobody", "operator": "=", "value": "{{any}}"}}, "COLUMN_UNKNOWN"),
        ({"connection": "nobody"}, "CONNECTION_UNKNOWN"),
        ({"connection": "stranger"}, "CONNECTION_NOT_PERMITTED"),
        ({"schema": "pg_catalog", "table": "pg_authid", "valueColumn": "rolpassword"}, "TABLE_NOT_READABLE"),
        ({"connection": "millrace", "table": "trigger_event", "valueColumn": "id"}, "TABLE_NOT_READABLE"),
    ],
)
async def test_what_is_not_there_or_not_for_reading_is_refused_when_it_is_saved(
    api: httpx.AsyncClient, fields: Json, code: str
) -> None:
    body = {"key": f"t_{uuid4().hex}", "name": "T", "category": "external", "source": "manual"}
    mode = {"name": "list", "displayName": "List", "type": "list", "dataSource": rows(**fields)}
    locator = {"name": "r", "displayName": "R", "type": "resourceLocator", "modes": [mode]}
    group = {"name": "g", "displayName": "G", "values": [choice("p", rows(**fields))]}
    groups = {"name": "f", "displayName": "F", "type": "fixedCollection", "options": [group]}
    wrong = {"properties": [choice("p", rows()), locator, groups]}
    problem = refused(await api.post("/registry/triggers", json=body | wrong), 422, "PROPERTY_FORM_INVALID")
    assert [(one["path"], one["code"]) for one in problem["problems"]] == [
        ("properties[1].modes[0].dataSource", code),
        ("properties[2].options[0].values[0].dataSource", code),
    ]
    path = await trigger(api, choice("p", rows()))
    refused(await api.patch(path, json=wrong), 422, "PROPERTY_FORM_INVALID")


async def test_options_of_a_group_are_found_by_property_and_by_method(api: httpx.AsyncClient) -> None:
    inner = choice("p", rows(orderBy="id"), typeOptions={"loadOptionsMethod": "people"})
    group = {"name": "g", "displayName": "G", "values": [inner]}
    path = await trigger(api, {"name": "f", "displayName": "F", "type": "fixedCollection", "options": [group]})
    found = await ok(await api.get(f"{path}/options", params={"property": "f.g.p"}))
    assert found == await ok(await api.post(f"{path}/load-options", json={"method": "people"}))
    assert [one["value"] for one in found["results"]] == [1, 2, 3, 4]


async def test_options_of_a_database_that_is_away_are_saved_with_a_warning(api: httpx.AsyncClient) -> None:
    body = {"key": f"t_{uuid4().hex}", "name": "T", "category": "external", "source": "manual"}
    properties = [choice("p", rows(connection="away")), choice("q", rows(connection="away"))]
    saved = await ok(await api.post("/registry/triggers", json=body | {"properties": properties}), 201)
    (warning,) = saved["warnings"]
    assert warning["code"] == "CONNECTION_UNREACHABLE"
    path = f"/registry/triggers/{body['key']}"
    problem = refused(await api.get(f"{path}/options", params={"property": "p"}), 503, "CONNECTION_UNREACHABLE")
    assert "geheim" not in str([warning, problem])


async def test_a_table_that_has_gone_since_is_told(api: httpx.AsyncClient, shop: str) -> None:
    connection = await asyncpg.connect(shop.replace("postgresql+asyncpg://", "postgresql://"))
    await connection.execute("CREATE TABLE brief (id int)")
    path = await trigger(api, choice("p", rows(table="brief", labelColumn="id")))
    await connection.execute("DROP TABLE brief")
    await connection.close()
    refused(await api.get(f"{path}/options", params={"property": "p"}), 422, "TABLE_UNKNOWN")


async def test_a_trigger_that_is_made_again_under_its_key_is_the_first_though_its_table_has_gone(
    api: httpx.AsyncClient, shop: str
) -> None:
    connection = await asyncpg.connect(shop.replace("postgresql+asyncpg://", "postgresql://"))
    await connection.execute("CREATE TABLE brief (id int)")
    body = {"key": f"t_{uuid4().hex}", "name": "T", "category": "external", "source": "manual"}
    body |= {"properties": [choice("p", rows(table="brief", labelColumn="id"))]}
    headers = {"Idempotency-Key": uuid4().hex}
    first = await ok(await api.post("/registry/triggers", json=body, headers=headers), 201)
    await connection.execute("DROP TABLE brief")
    await connection.close()
    assert await ok(await api.post("/registry/triggers", json=body, headers=headers), 201) == first
    refused(await api.post("/registry/triggers", json=body | {"name": "U"}, headers=headers), 409,
            "IDEMPOTENCY_CONFLICT")  # fmt: skip


async def test_templates_of_millrace_itself_can_be_options(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    source = {"type": "database", "table": "workflow_template", "valueColumn": "slug", "cache": False}
    assert template["slug"] in await resolved(api, source)


@pytest.mark.parametrize(
    "where",
    [
        {"field": "a", "operator": "regex", "value": "x"},
        {"field": "a.b", "operator": "exists"},
        {"type": "expr", "expr": {"src": "__trigger__.a"}},
    ],
)
async def test_a_filter_that_rows_cannot_be_chosen_by_is_refused_when_it_is_saved(
    api: httpx.AsyncClient, where: Json
) -> None:
    body = {"key": f"t_{uuid4().hex}", "name": "T", "category": "external", "source": "manual"}
    properties = [choice("p", rows(where=where))]
    refused(await api.post("/registry/triggers", json=body | {"properties": properties}), 422, "PROPERTY_FORM_INVALID")

"""Bodies and addresses that nobody should send, and parts that are down: each a coded answer."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import uuid4

import httpx
import pytest
from fastapi import Depends, FastAPI, Query
from structlog.testing import capture_logs
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter

from app.addresses import refuse_wrong_parameters
from app.db.migrate import migrate
from app.db.session import Database
from app.errors import AppError, Invalid, Unavailable
from app.main import check_listen
from app.problem_details import answer_with_problems
from app.settings import ApiSettings, DatabaseSettings, Settings, TemporalSettings
from app.temporal import Temporal
from app.untrusted import check_json
from tests.app.conftest import Serve
from tests.app.scenes import PLAIN, Json, active_template, create_template, link, ok, purchase, refused
from tests.app.tiny_workflow import running_worker

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "JSON_INVALID"),
        (b"", 422, "REQUEST_INVALID"),
        (b"[]", 422, "REQUEST_INVALID"),
        (b"null", 422, "REQUEST_INVALID"),
        (b'"text"', 422, "REQUEST_INVALID"),
        (b'{"name": NaN}', 400, "JSON_INVALID"),
        (b'{"name": -Infinity}', 400, "JSON_INVALID"),
        (b'{"name": 1e999}', 400, "JSON_INVALID"),
        (b'{"name": ' + b"9" * 5000 + b"}", 400, "JSON_INVALID"),
        (b'{"name": "\xff"}', 400, "JSON_INVALID"),
        ('{"name": "utf-16"}'.encode("utf-16"), 400, "JSON_INVALID"),
        (b'{"name": "a\\u0000b"}', 422, "TEXT_NOT_STORABLE"),
        (b'{"name": "a\\ud800b"}', 422, "TEXT_NOT_STORABLE"),
        (b'{"a\\u0000b": 1}', 422, "TEXT_NOT_STORABLE"),
        (b'{"name": "a", "name": "b"}', 422, "JSON_MEMBER_REPEATED"),
        (b'{"name": "a", "tags": [{"x": 1, "x": 1}]}', 422, "JSON_MEMBER_REPEATED"),
        (b'{"name": "a\x00b"}', 400, "JSON_INVALID"),
        (b"[" * 100_000, 400, "JSON_TOO_DEEP"),
        (b'{"a":' * 30_000 + b"1" + b"}" * 30_000, 400, "JSON_TOO_DEEP"),
        (b"[" * 101 + b"]" * 101, 400, "JSON_TOO_DEEP"),
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(
    api: httpx.AsyncClient, body: bytes, status: int, code: str
) -> None:
    refused(await api.post("/templates", content=body, headers=JSON), status, code)
    await ok(await api.get("/templates"))


async def test_a_body_of_another_media_type_is_refused(api: httpx.AsyncClient) -> None:
    for headers in ({"content-type": "text/plain"}, {}):
        answer = await api.post("/templates", content=b'{"name": "N"}', headers=headers)
        refused(answer, 422, "REQUEST_INVALID")


def test_what_only_looks_like_an_escape_is_text() -> None:
    check_json(b'{"path": "C:\\\\u0000", "emoji": "\\ud83d\\ude00", "deep": ' + b"[" * 99 + b"]" * 99 + b"}")
    with pytest.raises(AppError, match="deeper"):
        check_json(b'{"deep": ' + b"[" * 100 + b"]" * 100 + b"}")


async def test_text_that_is_stored_comes_back_as_it_was(api: httpx.AsyncClient) -> None:
    text = "C:\\u0000 \u0001 \U0001f600 ' -- ; DROP TABLE"
    template = await create_template(api, description=text)
    assert (await ok(await api.get(f"/templates/{template['id']}")))["description"] == text


async def test_an_oversized_body_is_refused(api: httpx.AsyncClient) -> None:
    body = json.dumps({"name": "N", "description": "x" * 200_000}).encode()
    refused(await api.post("/templates", content=body, headers=JSON), 413, "BODY_TOO_LARGE")

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    # Without a content-length, as it streams in.
    refused(await api.post("/templates", content=pieces(), headers=JSON), 413, "BODY_TOO_LARGE")
    # By its content-length, before any of it has come.
    reader, writer = await asyncio.open_connection(api.base_url.host, api.base_url.port)
    writer.write(
        b"POST /api/v1/templates HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: 999999999\r\n\r\n"
    )
    assert b" 413 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_an_oversized_definition_is_refused_and_not_stored(
    serve: Serve, settings: Settings, database: Database, temporal: Temporal
) -> None:
    roomy = settings.model_copy(update={"api": ApiSettings()})
    api = await serve(roomy, database, temporal)
    template = await create_template(api)
    definition: dict[str, Any] = {**PLAIN, "output": {"type": "const", "value": "x" * 1_100_000}}
    answer = await api.post(
        f"/templates/{template['id']}/versions", json={"version": "1.0.0", "definition": definition}
    )
    problem = refused(answer, 422, "DEFINITION_INVALID")
    assert problem["problems"][0]["rule"] == "SIZE_LIMIT"
    page = await ok(await api.get(f"/templates/{template['id']}/versions"))
    assert page["items"] == []


@pytest.mark.parametrize(
    "path", ["/templates?text=%00", "/templates/a%00b", "/links/PRODUCT/%00", "/registry/actions/%00"]
)
async def test_an_address_with_nul_characters_is_refused(api: httpx.AsyncClient, path: str) -> None:
    refused(await api.get(path), 422, "TEXT_NOT_STORABLE")


async def test_unknown_routes_and_methods_are_problems_too(api: httpx.AsyncClient) -> None:
    refused(await api.get("/no/such/route"), 404, "NOT_FOUND")
    answer = await api.put("/templates", json={})
    refused(answer, 405, "METHOD_NOT_ALLOWED")
    assert "POST" in answer.headers["allow"]


async def test_every_wrong_field_is_named(api: httpx.AsyncClient) -> None:
    body = {"name": 7, "tags": ["ok", 3], "colour": "red"}
    problem = refused(await api.post("/templates", json=body), 422, "REQUEST_INVALID")
    assert {item["path"] for item in problem["problems"]} == {"body.name", "body.tags[1]", "body.colour"}


@pytest.mark.parametrize(
    "path",
    ["/templates?nam=x", "/executions?runtimestatus=FAILED", "/links?limit=5&x=1", "/registry/actions?page=2"],
)
async def test_a_query_parameter_that_does_not_exist_is_refused(api: httpx.AsyncClient, path: str) -> None:
    refused(await api.get(path), 422, "REQUEST_INVALID")


async def test_a_mistyped_query_parameter_is_named_with_the_one_that_was_meant(api: httpx.AsyncClient) -> None:
    problem = refused(await api.get("/executions?runtimeStats=FAILED&rootID=x"), 422, "REQUEST_INVALID")
    assert {item["path"]: item["message"] for item in problem["problems"]} == {
        "query.runtimeStats": "There is no such parameter; did you mean runtimeStatus?",
        "query.rootID": "There is no such parameter; did you mean rootId?",
    }


async def test_a_query_parameter_of_one_value_that_is_repeated_is_refused(api: httpx.AsyncClient) -> None:
    path = "/executions?runtimeStatus=FAILED&runtimeStatus=COMPLETED&limit=5"
    problem = refused(await api.get(path), 422, "REQUEST_INVALID")
    [found] = problem["problems"]
    assert (found["path"], found["code"]) == ("query.runtimeStatus", "PARAMETER_REPEATED")


async def test_a_query_parameter_that_is_a_list_may_be_repeated() -> None:
    app = FastAPI(dependencies=[Depends(refuse_wrong_parameters)])
    answer_with_problems(app)

    @app.get("/lamps")
    async def lamps(
        street: Annotated[list[str] | None, Query()] = None,
        colour: Annotated[set[int] | None, Query()] = None,
        lit: bool = False,
    ) -> Json:
        return {"street": street, "colour": sorted(colour or ()), "lit": lit}

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://lamps") as client:
        found = await ok(await client.get("/lamps?street=a&colour=1&street=b&colour=2&lit=true"))
        assert found == {"street": ["a", "b"], "colour": [1, 2], "lit": True}
        refused(await client.get("/lamps?lit=true&lit=true"), 422, "REQUEST_INVALID")


async def test_a_header_that_is_too_long_is_refused(api: httpx.AsyncClient) -> None:
    for name in ("Idempotency-Key", "X-Millrace-Actor"):
        answer = await api.post("/templates/t/execute", json={}, headers={name: "x" * 500})
        refused(answer, 422, "REQUEST_INVALID")


async def test_a_bug_is_answered_without_its_details(serve: Serve, settings: Settings, database: Database) -> None:
    class BrokenTemporal(Temporal):
        async def assure(self) -> None:
            raise RuntimeError("secret detail")

    api = await serve(settings, database, BrokenTemporal(settings.temporal, pydantic_data_converter))
    template = await active_template(api)
    with capture_logs() as logged:
        answer = await api.post(f"/templates/{template['id']}/execute", json={})
    refused(answer, 500, "INTERNAL")
    assert "secret" not in answer.text
    failures = [event for event in logged if event["event"] == "request_failed"]
    assert [event["exc_info"] for event in failures] == [True]
    page = await ok(await api.get("/executions", params={"template": template["slug"]}))
    assert page["items"] == []


@pytest.fixture(scope="module")
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


async def test_postgres_down_is_said(serve: Serve, settings: Settings, temporal: Temporal, closed_port: int) -> None:
    database = Database(f"postgresql://nobody@127.0.0.1:{closed_port}/none", DatabaseSettings(connect_timeout=1))
    api = await serve(settings, database, temporal)
    for path in ("/templates", "/executions", "/links", "/registry/actions"):
        refused(await api.get(path), 503, "DATABASE_UNAVAILABLE")
    answer = await api.post("/triggers/product-purchases", json=purchase("e"))
    refused(answer, 503, "DATABASE_UNAVAILABLE")
    ready = await api.get("http://" + api.base_url.netloc.decode() + "/health/ready")
    assert ready.status_code == 503
    assert ready.json() == {
        "status": "DOWN",
        "parts": {
            "database": {"status": "DOWN", "code": "DATABASE_UNAVAILABLE"},
            "temporal": {"status": "UP", "code": None},
        },
        "worker": False,
    }
    await database.close()


async def test_a_postgres_that_does_not_answer_is_said_in_time(
    serve: Serve, settings: Settings, temporal: Temporal
) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    mute = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    database = Database(f"postgresql://nobody@127.0.0.1:{port}/none", DatabaseSettings(connect_timeout=0.5))
    api = await serve(settings, database, temporal)
    refused(await api.get("/templates"), 503, "DATABASE_UNAVAILABLE")
    await database.close()
    mute.close()


async def test_a_connection_lost_to_postgres_is_made_anew(
    api: httpx.AsyncClient, database: Database, database_url: str
) -> None:
    await ok(await api.get("/templates"))
    other = Database(database_url)
    async with other.engine.begin() as connection:
        await connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await other.close()
    await asyncio.sleep(0.1)
    await ok(await api.get("/templates"))


async def test_the_api_starts_while_temporal_is_down_and_says_so(
    serve: Serve, settings: Settings, database: Database, closed_port: int
) -> None:
    nowhere = TemporalSettings(address=f"127.0.0.1:{closed_port}", connect_timeout=1)
    api = await serve(settings, database, Temporal(nowhere, pydantic_data_converter))
    template = await active_template(api)
    entity_id = await link(api, template)
    answer = await api.post("/triggers/product-purchases", json=purchase(entity_id))
    refused(answer, 503, "TEMPORAL_UNAVAILABLE")
    page = await ok(await api.get("/executions", params={"template": template["slug"]}))
    assert page["items"] == []
    base = "http://" + api.base_url.netloc.decode()
    ready = await api.get(f"{base}/health/ready")
    assert (ready.status_code, ready.json()["parts"]["temporal"]["status"]) == (503, "DOWN")
    assert (await api.get(f"{base}/health/live")).json() == {"status": "UP"}


async def test_a_service_that_has_what_it_needs_is_ready(api: httpx.AsyncClient) -> None:
    ready = await api.get("http://" + api.base_url.netloc.decode() + "/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "UP")
    assert ready.json()["worker"] is False


async def test_that_no_worker_polls_is_said_by_the_start_and_by_readiness_until_one_does(
    serve: Serve, settings: Settings, database: Database, temporal_address: str, converter: DataConverter
) -> None:
    queue = f"tests-{uuid4()}"
    own = settings.model_copy(update={"temporal": settings.temporal.model_copy(update={"task_queue": queue})})
    api = await serve(own, database, Temporal(own.temporal, converter))
    template = await active_template(api)
    entity_id = await link(api, template)
    ready = "http://" + api.base_url.netloc.decode() + "/health/ready"

    async def start() -> Json:
        return await ok(await api.post(f"/templates/{template['id']}/execute", json={}), 202)

    async def becomes(worker: bool) -> None:
        for _ in range(100):
            if (await api.get(ready)).json()["worker"] is worker:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"readiness does not say worker: {worker}")

    await becomes(worker=False)
    started = await start()
    assert (started["status"], started["problem"]["code"]) == ("STARTED", "WORKER_UNAVAILABLE")
    body = purchase(entity_id)
    triggered = await ok(await api.post("/triggers/product-purchases", json=body), 202)
    assert triggered["problem"]["code"] == "WORKER_UNAVAILABLE"
    assert "problem" not in await ok(await api.post("/triggers/product-purchases", json=body))
    async with running_worker(temporal_address, queue, converter):
        await becomes(worker=True)
        assert "problem" not in await start()


async def test_without_a_worker_steps_are_not_known_and_that_is_said(
    serve: Serve, settings: Settings, database: Database, converter: DataConverter
) -> None:
    alone = settings.temporal.model_copy(update={"task_queue": "nobody-polls-here"})
    api = await serve(settings, database, Temporal(alone, converter))
    template = await active_template(api)
    started = await ok(await api.post(f"/templates/{template['id']}/execute", json={}), 202)
    path = f"/executions/{started['executionId']}"

    async def completion() -> httpx.Response:
        return await api.post(f"{path}/steps/s/complete", json={})

    read, steps, completed = await asyncio.gather(api.get(path), api.get(f"{path}/steps"), completion())
    assert (await ok(read))["waitingFor"] is None
    assert read.json()["problem"]["code"] == "WORKER_UNAVAILABLE"
    assert read.json()["runtimeStatus"] == "IN_PROGRESS"
    refused(steps, 503, "WORKER_UNAVAILABLE")
    refused(completed, 503, "WORKER_UNAVAILABLE")
    assert 9 < completed.elapsed.total_seconds() < 13


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_the_api_listens_on_loopback(host: str) -> None:
    check_listen(Settings(api=ApiSettings(host=host)))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "", "example.org", "localhost.example"])
def test_the_api_refuses_to_listen_beyond_loopback_unless_told_to(host: str) -> None:
    with pytest.raises(Invalid, match="no authentication"):
        check_listen(Settings(api=ApiSettings(host=host)))
    check_listen(Settings(api=ApiSettings(host=host, allow_remote=True)))


async def test_a_migration_of_a_database_that_is_down_says_so(closed_port: int) -> None:
    with pytest.raises(Unavailable):
        await migrate(f"postgresql://nobody@127.0.0.1:{closed_port}/none")


@pytest.mark.parametrize(
    ("method", "headers", "code"),
    [
        ("GET", {"Host": "evil.example"}, "HOST_REFUSED"),
        ("POST", {"Origin": "https://evil.example"}, "ORIGIN_REFUSED"),
        ("POST", {"Origin": "null"}, "ORIGIN_REFUSED"),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, "ORIGIN_REFUSED"),
    ],
)
async def test_a_page_of_another_site_can_neither_read_nor_change_anything(
    api: httpx.AsyncClient, method: str, headers: dict[str, str], code: str
) -> None:
    answer = await api.request(method, "/templates", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, code)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/executions/nope", "EXECUTION_NOT_FOUND"),
        ("/dead-letters/nope", "DEAD_LETTER_NOT_FOUND"),
        ("/versions/nope", "VERSION_NOT_FOUND"),
        ("/trigger-events/nope", "TRIGGER_EVENT_NOT_FOUND"),
        ("/subscriptions/nope", "SUBSCRIPTION_NOT_FOUND"),
        ("/webhook-endpoints/nope", "WEBHOOK_ENDPOINT_NOT_FOUND"),
        ("/backfills/nope", "BACKFILL_NOT_FOUND"),
        ("/schedules/nope", "SCHEDULE_NOT_FOUND"),
        ("/change-sources/nope", "CHANGE_SOURCE_NOT_FOUND"),
    ],
)
async def test_an_id_that_is_none_is_the_id_of_nothing(api: httpx.AsyncClient, path: str, code: str) -> None:
    refused(await api.get(path), 404, code)


async def test_what_is_wrong_is_said_without_the_name_of_an_exception(api: httpx.AsyncClient) -> None:
    body = {"name": "Orders", "path": "orders", "verification": {"scheme": "HMAC"}, "secret": "long enough"}
    problem = refused(await api.post("/webhook-endpoints", json=body), 422, "REQUEST_INVALID")
    assert problem["problems"][0]["message"] == "the scheme HMAC needs a header"

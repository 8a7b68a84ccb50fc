"""Live changes of executions: what a listener hears, in order, and what it costs."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse
from temporalio.converter import DataConverter

from app.db.session import Database
from app.db.tables import WorkflowExecution, new_id
from app.executions.following import Change, Followers, Subscription
from app.executions.reconciler import reconcile_once
from app.main import create_app
from app.settings import Settings
from app.temporal import Temporal
from tests.app.conftest import Serve, served
from tests.app.scenes import Json, active_template, ok, refused
from tests.wire_cutter import relayed

pytestmark = pytest.mark.usefixtures("stand_in")


@pytest.fixture(scope="module")
async def template(api: httpx.AsyncClient) -> Json:
    template = await active_template(api)
    return await ok(await api.get(f"/templates/{template['id']}"))


async def _start(api: httpx.AsyncClient, template: Json, do: str = "wait") -> str:
    answer = await api.post(f"/templates/{template['id']}/execute", json={"context": {"do": do}})
    return str((await ok(answer, 202))["executionId"])


@asynccontextmanager
async def _following(api: httpx.AsyncClient, execution_id: str, **headers: str) -> AsyncIterator["_Listener"]:
    async with aconnect_sse(api, "GET", f"/executions/{execution_id}/events", headers=headers) as source:
        yield _Listener(source)


class _Listener:
    def __init__(self, source: EventSource) -> None:
        self._events = source.aiter_sse()

    async def next(self, within: float = 10.0) -> tuple[str, Any]:
        event = await self.whole(within)
        return event.event, json.loads(event.data)

    async def whole(self, within: float = 10.0) -> ServerSentEvent:
        async with asyncio.timeout(within):
            return await anext(self._events)

    async def until(self, name: str) -> Any:
        while True:
            event, data = await self.next()
            if event == name:
                return data

    async def is_over(self) -> bool:
        async with asyncio.timeout(10):
            return [event async for event in self._events] == []


async def test_a_snapshot_comes_first_then_what_changes_then_the_end(api: httpx.AsyncClient, template: Json) -> None:
    execution_id = await _start(api, template)
    async with _following(api, execution_id) as listener:
        event, snapshot = await listener.next()
        assert event == "snapshot"
        assert snapshot["execution"] == await ok(await api.get(f"/executions/{execution_id}"))
        assert snapshot["steps"] == (await ok(await api.get(f"/executions/{execution_id}/steps")))["steps"]
        await ok(await api.post(f"/executions/{execution_id}/steps/confirm/complete", json={"outcome": "approved"}))
        heard = [await listener.next() for _ in range(3)]
        assert [event for event, _ in heard] == ["waiting", "status", "end"]
        assert heard[0][1] == {"waitingFor": [], "paused": None}
        assert heard[1][1]["runtimeStatus"] == "COMPLETED"
        assert heard[2][1] == {"runtimeStatus": "COMPLETED", "output": {"confirmed": True}}
        assert await listener.is_over()


async def test_an_execution_that_is_over_is_a_snapshot_and_an_end(api: httpx.AsyncClient, template: Json) -> None:
    execution_id = await _start(api, template, "fail")
    async with _following(api, execution_id) as listener:
        assert await listener.until("end") == {
            "runtimeStatus": "FAILED",
            "error": {"code": "NO_STOCK", "message": "nothing left", "stepId": "note"},
        }
    async with _following(api, execution_id) as listener:
        assert [(await listener.next())[0] for _ in range(2)] == ["snapshot", "end"]
        assert await listener.is_over()


async def test_a_terminated_run_is_heard_of(api: httpx.AsyncClient, template: Json, temporal: Temporal) -> None:
    execution_id = await _start(api, template)
    async with _following(api, execution_id) as listener:
        await listener.next()
        client = await temporal.client()
        await client.get_workflow_handle(f"execution/{execution_id}").terminate("by hand")
        assert (await listener.until("end"))["runtimeStatus"] == "TERMINATED"


async def test_every_event_has_an_id_and_who_comes_back_gets_a_fresh_snapshot(
    api: httpx.AsyncClient, template: Json
) -> None:
    execution_id = await _start(api, template)
    async with _following(api, execution_id) as listener:
        first = await listener.whole()
    assert first.id
    async with _following(api, execution_id, **{"Last-Event-ID": first.id}) as listener:
        assert (await listener.whole()).event == "snapshot"
        await ok(await api.post(f"/executions/{execution_id}/cancel"), 202)
        while (last := await listener.whole()).event != "end":
            pass
    answer = await api.get(f"/executions/{execution_id}/events", headers={"Last-Event-ID": last.id})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_an_unknown_execution_is_refused_before_anything_is_streamed(api: httpx.AsyncClient) -> None:
    refused(await api.get(f"/executions/{uuid4()}/events"), 404, "EXECUTION_NOT_FOUND")


async def test_a_silent_stream_says_that_it_is_alive(
    serve: Serve, settings: Settings, database: Database, temporal: Temporal, template: Json
) -> None:
    lively = settings.model_copy(deep=True)
    lively.api.heartbeat = 0.2
    api = await serve(lively, database, temporal)
    execution_id = await _start(api, template)
    async with api.stream("GET", f"/executions/{execution_id}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        comments = 0
        async with asyncio.timeout(10):
            async for line in response.aiter_lines():
                comments += line.startswith(":")
                if comments == 3:
                    break


async def test_many_listeners_share_one_follower_and_it_ends_with_the_last(
    settings: Settings, database: Database, temporal: Temporal, template: Json, api: httpx.AsyncClient
) -> None:
    app = create_app(settings, database, temporal)
    followers: Followers = app.state.followers
    execution_id = await _start(api, template)
    async with served(app) as own:
        listening = [await _open(own, execution_id) for _ in range(12)]
        assert len(followers) == 1
        assert {event for event, _ in [await one.next() for one, _ in listening]} == {"snapshot"}
        for _, close in listening[1:]:
            await close()
        assert len(followers) == 1
        await listening[0][1]()
        for _ in range(100):
            if len(followers) == 0:
                break
            await asyncio.sleep(0.02)
        assert len(followers) == 0


async def _open(api: httpx.AsyncClient, execution_id: str) -> tuple[_Listener, Any]:
    manager = _following(api, execution_id)
    listener = await manager.__aenter__()

    async def close() -> None:
        await manager.__aexit__(None, None, None)

    return listener, close


async def test_a_follower_asks_nothing_while_nothing_happens(
    settings: Settings, database: Database, template: Json, api: httpx.AsyncClient, converter: DataConverter
) -> None:
    class Watched(Temporal):
        asked = 0

        async def client(self) -> Any:
            self.asked += 1
            return await super().client()

    watched = Watched(settings.temporal, converter)
    followers = Followers(database, watched)
    execution_id = await _start(api, template)
    async with followers.listen(UUID(execution_id)) as subscription:
        first = await subscription.next()
        assert first is not None
        assert first.event == "snapshot"
        await asyncio.sleep(1)
        before = watched.asked
        await asyncio.sleep(3)
        assert watched.asked == before
    await followers.close()


async def test_the_end_of_the_process_ends_every_stream(
    settings: Settings, database: Database, temporal: Temporal, template: Json, api: httpx.AsyncClient
) -> None:
    app = create_app(settings, database, temporal)
    execution_id = await _start(api, template)
    async with served(app) as own, _following(own, execution_id) as listener:
        await listener.next()
        await app.state.followers.close()
        assert await listener.is_over()
        async with _following(own, execution_id) as late:
            assert await late.is_over()


async def test_an_execution_that_has_not_begun_is_followed_into_its_run(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, template: Json
) -> None:
    execution_id = new_id()
    async with database.transaction() as session:
        session.add(
            WorkflowExecution(
                id=execution_id,
                name="later",
                version_id=UUID(template["activeVersionId"]),
                template_id=UUID(template["id"]),
                root_id=execution_id,
                context={"do": "wait"},
            )
        )
    async with _following(api, str(execution_id)) as listener:
        _, snapshot = await listener.next()
        assert snapshot["execution"]["runtimeStatus"] == "NOT_STARTED"
        assert {step["status"] for step in snapshot["steps"]} == {"NOT_STARTED"}
        await reconcile_once(database, temporal, timedelta(0))
        assert (await listener.until("status"))["runtimeStatus"] == "IN_PROGRESS"
        await ok(await api.post(f"/executions/{execution_id}/cancel"), 202)
        assert (await listener.until("end"))["runtimeStatus"] == "CANCELLED"


async def test_temporal_going_away_is_told_and_so_is_its_return(
    serve: Serve,
    settings: Settings,
    database: Database,
    temporal_address: str,
    template: Json,
    api: httpx.AsyncClient,
    converter: DataConverter,
) -> None:
    async with relayed(temporal_address) as relay:
        changed = settings.model_copy(deep=True)
        changed.temporal.address, changed.temporal.connect_timeout = relay.address, 1
        own = await serve(changed, database, Temporal(changed.temporal, converter))
        execution_id = await _start(api, template)
        async with _following(own, execution_id) as listener:
            await listener.next()
            await relay.cut()
            async with asyncio.timeout(40):
                status = await listener.until("status")
            assert status["problem"]["code"] == "TEMPORAL_UNAVAILABLE"
            await relay.mend()
            async with asyncio.timeout(40):
                status = await listener.until("status")
            assert (status["runtimeStatus"], status["problem"]) == ("IN_PROGRESS", None)


async def test_a_slow_listener_gets_a_snapshot_instead_of_what_it_missed() -> None:
    slow = Subscription()
    snapshot = Change("snapshot", "{}", "s")
    for number in range(600):
        slow.tell([Change("step", "{}", str(number))], snapshot)
    slow.tell([Change("end", "{}", "x-end")], snapshot)
    slow.end()
    heard = []
    while (change := await slow.next()) is not None:
        heard.append(change)
    assert len(heard) < 501
    assert heard[0] is snapshot
    assert (heard[-2].event, heard[-1].event) == ("step", "end")

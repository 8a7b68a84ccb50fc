"""What is put right after something was down: once, in order, and whatever the moment."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from app.background import reconcile_forever
from app.contracts import ChildToRegister, CloseExecution, RegisterChildren
from app.db.session import Database
from app.db.tables import RecordStatus, WorkflowExecution, new_id
from app.executions.ending import CANCEL_UNCONFIRMED
from app.executions.lifecycle import close_execution, mark_started, register_children
from app.executions.reconciler import Sweep, reconcile_once
from app.settings import ReconcilerSettings, Settings
from app.temporal import Temporal
from tests.app.conftest import Serve
from tests.app.scenes import Json, active_template, link, ok, purchase, refused
from tests.wire_cutter import Relay, relayed

NOW = timedelta(0)


@pytest.fixture
async def relay(temporal_address: str) -> AsyncIterator[Relay]:
    async with relayed(temporal_address) as relay:
        yield relay


@pytest.fixture
async def cut_off(
    serve: Serve, settings: Settings, database: Database, relay: Relay, converter: DataConverter
) -> httpx.AsyncClient:
    """An API whose wire to Temporal goes through the relay, and which has used it a moment ago."""
    changed = settings.model_copy(deep=True)
    changed.temporal.address = relay.address
    changed.temporal.connect_timeout = 1
    temporal = Temporal(changed.temporal, converter)
    await temporal.assure()
    return await serve(changed, database, temporal)


async def _row(database: Database, execution_id: str | UUID) -> WorkflowExecution:
    async with database.transaction() as session:
        row = await session.get(WorkflowExecution, UUID(str(execution_id)))
    assert row is not None
    return row


async def _left_created(database: Database, template: Json, **fields: object) -> UUID:
    execution_id = new_id()
    async with database.transaction() as session:
        row = WorkflowExecution(
            id=execution_id,
            name="Left",
            version_id=UUID(template["activeVersionId"]),
            template_id=UUID(template["id"]),
            root_id=execution_id,
            context={"left": True},
            trigger={"source": "manual", "actor": None},
        )
        for name, value in fields.items():
            setattr(row, name, value)
        session.add(row)
    return execution_id


@pytest.fixture(scope="module")
async def template(api: httpx.AsyncClient) -> Json:
    template = await active_template(api)
    return await ok(await api.get(f"/templates/{template['id']}"))


async def _exists(client: Client, execution_id: UUID | str) -> bool:
    try:
        await client.get_workflow_handle(f"execution/{execution_id}").describe()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True


async def test_temporal_going_down_after_the_row_was_committed_loses_nothing(
    cut_off: httpx.AsyncClient,
    relay: Relay,
    database: Database,
    temporal: Temporal,
    template: Json,
    temporal_client: Client,
) -> None:
    entity_id = await link(cut_off, template)
    body = purchase(entity_id)
    # Temporal has answered within the last second; its absence shows only when the start is sent.
    await ok(await cut_off.post("/triggers/product-purchases", json=purchase(entity_id)), 202)
    await relay.cut()
    answer = await ok(await cut_off.post("/triggers/product-purchases", json=body), 202)
    execution_id = answer["executionId"]
    assert (answer["matched"], answer["status"]) == (True, "CREATED")
    row = await _row(database, execution_id)
    assert (row.status, row.started_at) == ("CREATED", None)
    assert not await _exists(temporal_client, execution_id)

    # The same event again gets the same execution, though Temporal is down.
    repeated = await ok(await cut_off.post("/triggers/product-purchases", json=body))
    assert repeated == {name: answer[name] for name in ("eventRecordId", "matched", "executionId", "status")}

    passes = await asyncio.gather(*(reconcile_once(database, temporal, NOW) for _ in range(3)))
    assert sum(found.started for found in passes) == 1
    assert (await _row(database, execution_id)).status == "STARTED"
    assert await _exists(temporal_client, execution_id)
    assert (await reconcile_once(database, temporal, NOW)).started == 0


async def test_temporal_down_before_anything_was_stored_is_said_and_nothing_is_stored(
    cut_off: httpx.AsyncClient, relay: Relay, template: Json
) -> None:
    entity_id = await link(cut_off, template)
    await relay.cut()
    await asyncio.sleep(1.1)
    answer = await cut_off.post("/triggers/product-purchases", json=purchase(entity_id))
    refused(answer, 503, "TEMPORAL_UNAVAILABLE")
    answer = await cut_off.post(f"/templates/{template['id']}/execute", json={})
    refused(answer, 503, "TEMPORAL_UNAVAILABLE")
    page = await ok(await cut_off.get("/executions", params={"entityType": "PRODUCT", "entityId": entity_id}))
    assert page["items"] == []
    await relay.mend()
    await ok(await cut_off.post("/triggers/product-purchases", json=purchase(entity_id)), 202)


async def test_records_can_be_read_while_temporal_is_down(
    cut_off: httpx.AsyncClient, relay: Relay, template: Json
) -> None:
    started = await ok(await cut_off.post(f"/templates/{template['id']}/execute", json={}), 202)
    await relay.cut()
    path = f"/executions/{started['executionId']}"
    read = await ok(await cut_off.get(path))
    assert (read["status"], read["runtimeStatus"], read["waitingFor"]) == ("STARTED", None, None)
    assert read["problem"]["code"] == "TEMPORAL_UNAVAILABLE"
    tree = await ok(await cut_off.get(f"{path}/tree"))
    assert (tree["tree"]["status"], tree["tree"]["runtimeStatus"]) == ("STARTED", None)
    page = await ok(await cut_off.get("/executions", params={"rootId": started["executionId"]}))
    assert page["items"][0]["runtimeStatus"] is None
    refused(await cut_off.post(f"{path}/cancel"), 503, "TEMPORAL_UNAVAILABLE")
    answer = await cut_off.post(f"{path}/steps/s/complete", json={})
    refused(answer, 503, "TEMPORAL_UNAVAILABLE")


async def test_a_row_that_is_too_young_is_left_to_whoever_wrote_it(
    database: Database, temporal: Temporal, template: Json
) -> None:
    execution_id = await _left_created(database, template)
    await reconcile_once(database, temporal, timedelta(seconds=60))
    assert (await _row(database, execution_id)).status == "CREATED"
    await reconcile_once(database, temporal, NOW)
    assert (await _row(database, execution_id)).status == "STARTED"


async def test_the_oldest_rows_are_started_first(database: Database, temporal: Temporal, template: Json) -> None:
    moment = datetime.now(UTC) - timedelta(hours=1)
    second = await _left_created(database, template, created_at=moment + timedelta(seconds=1))
    first = await _left_created(database, template, created_at=moment)
    assert (await reconcile_once(database, temporal, NOW)).started == 2
    started = [(await _row(database, execution_id)).started_at for execution_id in (first, second)]
    assert started[0] is not None
    assert started[1] is not None
    assert started[0] < started[1]


async def test_a_run_whose_start_was_answered_to_nobody_counts_as_started(
    database: Database, temporal: Temporal, template: Json, temporal_client: Client
) -> None:
    execution_id = await _left_created(database, template)
    await temporal_client.start_workflow(template["slug"], id=f"execution/{execution_id}", task_queue="nobody")
    assert (await reconcile_once(database, temporal, NOW)).started == 1
    assert (await _row(database, execution_id)).status == "STARTED"


async def test_a_start_that_temporal_will_never_take_is_given_up_with_the_reason(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, template: Json
) -> None:
    # A search attribute that no server takes.
    trigger = {"source": "manual", "entityType": "PRODUCT", "entityId": "x" * 3_000}
    execution_id = await _left_created(database, template, trigger=trigger)
    after = await _left_created(database, template)
    found = await reconcile_once(database, temporal, NOW)
    assert (found.started, found.refused) == (1, 1)
    row = await _row(database, execution_id)
    assert (row.status, row.started_at) == ("FAILED_TO_START", None)
    assert "INVALID_ARGUMENT" in (row.status_reason or "")
    assert (await _row(database, after)).status == "STARTED"
    read = await ok(await api.get(f"/executions/{execution_id}"))
    assert (read["runtimeStatus"], read["error"]["code"]) == ("NOT_STARTED", "FAILED_TO_START")
    refused(await api.post(f"/executions/{execution_id}/cancel"), 409, "EXECUTION_ENDED")
    answer = await api.post(f"/executions/{execution_id}/steps/s/complete", json={})
    refused(answer, 409, "EXECUTION_ENDED")
    assert (await reconcile_once(database, temporal, NOW)).refused == 0


async def test_an_execution_cancelled_before_it_was_started_never_starts(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, template: Json, temporal_client: Client
) -> None:
    execution_id = await _left_created(database, template)
    answer = await ok(await api.post(f"/executions/{execution_id}/cancel"), 202)
    assert answer["status"] == "COMPLETED"
    assert (await reconcile_once(database, temporal, NOW)).started == 0
    assert not await _exists(temporal_client, execution_id)
    read = await ok(await api.get(f"/executions/{execution_id}"))
    assert (read["status"], read["runtimeStatus"], read["waitingFor"]) == ("COMPLETED", "CANCELLED", [])
    assert "problem" not in read
    refused(await api.post(f"/executions/{execution_id}/cancel"), 409, "EXECUTION_ENDED")


async def test_a_cancel_waits_for_a_start_that_is_under_way(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client
) -> None:
    execution_id = await _left_created(database, template)
    async with database.driver() as connection, connection.transaction():
        assert await mark_started(connection, execution_id)
        cancelling = asyncio.create_task(api.post(f"/executions/{execution_id}/cancel"))
        await asyncio.sleep(0.3)
        assert not cancelling.done()
        await temporal_client.start_workflow(template["slug"], id=f"execution/{execution_id}", task_queue="nobody")
    assert (await ok(await cancelling, 202))["status"] == "STARTED"


async def test_a_cancel_while_temporal_is_down_is_made_good_later(
    cut_off: httpx.AsyncClient,
    relay: Relay,
    database: Database,
    temporal: Temporal,
    template: Json,
    temporal_client: Client,
) -> None:
    execution_id = await _left_created(database, template)
    # The start reached Temporal, its answer reached nobody.
    handle = await temporal_client.start_workflow(template["slug"], id=f"execution/{execution_id}", task_queue="nobody")
    await relay.cut()
    await ok(await cut_off.post(f"/executions/{execution_id}/cancel"), 202)
    row = await _row(database, execution_id)
    assert (row.status, row.closed_as, row.status_reason) == ("COMPLETED", "CANCELLED", CANCEL_UNCONFIRMED)
    await reconcile_once(database, temporal, NOW)
    history = await handle.fetch_history()
    assert any(event.HasField("workflow_execution_cancel_requested_event_attributes") for event in history.events)
    assert (await _row(database, execution_id)).status_reason == "cancelled"


async def test_the_row_of_a_run_that_was_terminated_is_closed(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, template: Json, temporal_client: Client
) -> None:
    started = await ok(await api.post(f"/templates/{template['id']}/execute", json={}), 202)
    execution_id = started["executionId"]
    running = await ok(await api.post(f"/templates/{template['id']}/execute", json={}), 202)
    await temporal_client.get_workflow_handle(f"execution/{execution_id}").terminate("by hand")
    for _ in range(50):
        await reconcile_once(database, temporal, NOW)
        row = await _row(database, execution_id)
        if row.status == RecordStatus.COMPLETED:
            break
        await asyncio.sleep(0.1)
    assert (row.status, row.closed_as) == ("COMPLETED", "TERMINATED")
    assert row.ended_at is not None
    assert (await _row(database, running["executionId"])).status == "STARTED"
    read = await ok(await api.get(f"/executions/{execution_id}"))
    assert (read["runtimeStatus"], read["error"]["code"]) == ("TERMINATED", "TERMINATED")


async def test_children_of_an_ended_parent_that_never_started_are_closed(
    database: Database, temporal: Temporal, template: Json
) -> None:
    parent = await _left_created(database, template)
    async with database.transaction() as session:
        answer = await register_children(
            session,
            RegisterChildren(
                parent_id=parent,
                root_id=parent,
                step_id="s",
                attempt=1,
                template_ref=template["slug"],
                children=[ChildToRegister(key="s#1", context={})],
            ),
        )
    close = CloseExecution(execution_id=parent, closed_as="CANCELLED", ended_at=datetime.now(UTC).isoformat())
    async with database.driver() as connection:
        assert await close_execution(connection, close)
    await reconcile_once(database, temporal, NOW)
    child = await _row(database, answer.children[0].execution_id)
    assert (child.status, child.closed_as) == ("COMPLETED", "CANCELLED")


async def test_the_search_for_closed_runs_goes_through_all_rows_page_by_page(
    database: Database, temporal: Temporal, template: Json, temporal_client: Client
) -> None:
    rows = [await _left_created(database, template, status="STARTED", started_at=datetime.now(UTC)) for _ in range(101)]
    last = max(rows)
    handle = await temporal_client.start_workflow(template["slug"], id=f"execution/{last}", task_queue="nobody")
    await handle.terminate()
    sweep = Sweep()
    for _ in range(50):
        await reconcile_once(database, temporal, NOW, sweep)
        if (await _row(database, last)).status == RecordStatus.COMPLETED:
            break
        await asyncio.sleep(0.05)
    assert (await _row(database, last)).closed_as == "TERMINATED"


async def test_the_background_task_outlives_errors(
    database: Database, relay: Relay, settings: Settings, template: Json, converter: DataConverter
) -> None:
    changed = settings.temporal.model_copy(update={"address": relay.address, "connect_timeout": 1})
    await relay.cut()
    running = asyncio.create_task(
        reconcile_forever(database, Temporal(changed, converter), ReconcilerSettings(interval=0.05, grace=0))
    )
    execution_id = await _left_created(database, template)
    await asyncio.sleep(0.3)
    assert (await _row(database, execution_id)).status == "CREATED"
    await relay.mend()
    for _ in range(100):
        if (await _row(database, execution_id)).status == "STARTED":
            break
        await asyncio.sleep(0.05)
    assert (await _row(database, execution_id)).status == "STARTED"
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


class Fatal(Temporal):
    """Ends every connection to the database before the start is sent, as often as it is told to."""

    victim: Database
    armed = False

    async def client(self) -> Client:
        if self.armed:
            self.armed = False
            await _end_connections(self.victim)
        return await super().client()

    async def assure(self) -> None:
        """Says nothing against it, so that the start is what meets the fault."""


async def _end_connections(database: Database) -> None:
    other = Database(database.engine.url.render_as_string(hide_password=False))
    async with other.engine.begin() as connection:
        await connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await other.close()


async def test_postgres_going_down_while_temporal_is_asked_loses_nothing(
    serve: Serve,
    settings: Settings,
    database: Database,
    temporal: Temporal,
    template: Json,
    temporal_client: Client,
    converter: DataConverter,
) -> None:
    fatal = Fatal(settings.temporal, converter)
    fatal.victim = database
    api = await serve(settings, database, fatal)
    fatal.armed = True
    answer = await ok(await api.post(f"/templates/{template['id']}/execute", json={}), 202)
    assert answer["status"] == "CREATED"
    # The run has begun; only the row has not heard of it.
    assert await _exists(temporal_client, answer["executionId"])
    assert (await _row(database, answer["executionId"])).status == "CREATED"
    assert (await reconcile_once(database, temporal, NOW)).started == 1
    assert (await _row(database, answer["executionId"])).status == "STARTED"

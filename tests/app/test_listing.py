"""Lists by runtime status: full pages, in order, of closed rows and of runs that ended without saying so."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from temporalio.converter import DataConverter

from app.contracts import CloseExecution
from app.db.session import Database
from app.db.tables import WorkflowExecution, new_id
from app.executions.lifecycle import close_execution
from app.settings import Settings
from app.temporal import Temporal
from tests.app.conftest import Serve
from tests.app.scenes import Json, active_template, ok
from tests.wire_cutter import relayed

pytestmark = pytest.mark.usefixtures("stand_in")


async def _close(database: Database, execution_id: str, closed_as: str) -> None:
    request = CloseExecution.model_validate(
        {"executionId": execution_id, "closedAs": closed_as, "endedAt": datetime.now(UTC).isoformat()}
    )
    async with database.driver() as connection:
        assert await close_execution(connection, request)


async def _pages(api: httpx.AsyncClient, template: Json, runtime_status: str, limit: int) -> list[list[Json]]:
    params = {"template": template["slug"], "runtimeStatus": runtime_status, "limit": str(limit)}
    pages = []
    while True:
        page = await ok(await api.get("/executions", params=params))
        pages.append(page["items"])
        if page["nextCursor"] is None:
            return pages
        params["cursor"] = page["nextCursor"]


@pytest.fixture(scope="module")
async def mixed(api: httpx.AsyncClient, database: Database, template: Json) -> dict[str, list[str]]:
    """Executions in turn: waiting, failed with a closed row, failed with an open row, completed; the newest first."""
    made: dict[str, list[str]] = {"IN_PROGRESS": [], "FAILED": [], "COMPLETED": []}
    for number in range(24):
        do, status = [("wait", "IN_PROGRESS"), ("fail", "FAILED"), ("fail", "FAILED"), ("finish", "COMPLETED")][
            number % 4
        ]
        path = f"/templates/{template['id']}/execute" + ("" if do == "wait" else "?wait=20")
        answer = (await api.post(path, json={"context": {"do": do}})).json()
        made[status].insert(0, answer["executionId"])
        if number % 4 == 1 or (number % 8 == 3):
            await _close(database, answer["executionId"], status)
    for _ in range(100):
        # Visibility comes a moment later.
        counts = [sum(map(len, await _pages(api, template, status, 50))) for status in made]
        if counts == [6, 12, 6]:
            break
        await asyncio.sleep(0.1)
    return made


@pytest.mark.parametrize("status", ["IN_PROGRESS", "FAILED", "COMPLETED"])
@pytest.mark.parametrize("limit", [1, 4, 5, 12, 50])
async def test_every_page_is_full_but_the_last_and_nothing_is_left_out_or_shown_twice(
    api: httpx.AsyncClient, template: Json, mixed: dict[str, list[str]], status: str, limit: int
) -> None:
    pages = await _pages(api, template, status, limit)
    assert [item["id"] for page in pages for item in page] == mixed[status]
    assert all(len(page) == limit for page in pages[:-1])
    assert 0 < len(pages[-1]) <= limit
    assert {item["runtimeStatus"] for page in pages for item in page} == {status}


async def test_a_status_that_nothing_has_is_an_empty_last_page(
    api: httpx.AsyncClient, template: Json, mixed: dict[str, list[str]]
) -> None:
    assert mixed
    assert await _pages(api, template, "TIMED_OUT", 5) == [[]]
    assert await _pages(api, template, "NOT_STARTED", 5) == [[]]


async def test_a_page_reaches_past_hundreds_of_runs_of_another_status(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api)
    failed = (await api.post(f"/templates/{template['id']}/execute?wait=20", json={"context": {"do": "fail"}})).json()
    template = await ok(await api.get(f"/templates/{template['id']}"))
    async with database.transaction() as session:
        for _ in range(1_200):
            execution_id = new_id()
            session.add(
                WorkflowExecution(
                    id=execution_id,
                    root_id=execution_id,
                    name="open",
                    version_id=UUID(template["activeVersionId"]),
                    template_id=UUID(template["id"]),
                    context={},
                    status="STARTED",
                    started_at=datetime.now(UTC),
                )
            )
    for _ in range(50):
        [page] = await _pages(api, template, "FAILED", 2)
        if page:
            break
        await asyncio.sleep(0.1)
    assert [item["id"] for item in page] == [failed["executionId"]]
    pages = await _pages(api, template, "IN_PROGRESS", 100)
    assert [len(page) for page in pages] == [100] * 12
    async with database.transaction() as session:
        await session.execute(text("DELETE FROM workflow_execution WHERE name = 'open'"))


async def test_while_temporal_is_away_closed_rows_are_listed_and_open_ones_have_no_status(
    serve: Serve,
    settings: Settings,
    database: Database,
    template: Json,
    mixed: dict[str, list[str]],
    temporal_address: str,
    converter: DataConverter,
) -> None:
    async with relayed(temporal_address) as relay:
        changed = settings.model_copy(deep=True)
        changed.temporal.address, changed.temporal.connect_timeout = relay.address, 1
        temporal = Temporal(changed.temporal, converter)
        await temporal.assure()
        alone = await serve(changed, database, temporal)
        await relay.cut()
        failed = [item["id"] for page in await _pages(alone, template, "FAILED", 5) for item in page]
        assert failed == mixed["FAILED"][1::2]
        [started] = await _pages(alone, template, "IN_PROGRESS", 100)
        assert {item["runtimeStatus"] for item in started} == {None}
        assert {item["status"] for item in started} == {"STARTED"}
        assert set(mixed["IN_PROGRESS"]) < {item["id"] for item in started}


async def test_children_are_left_out_when_only_roots_are_asked_for(
    api: httpx.AsyncClient, database: Database, template: Json
) -> None:
    owner = await ok(await api.get(f"/templates/{template['id']}"))
    root, child = new_id(), new_id()
    async with database.transaction() as session:
        for execution_id, parent in ((root, None), (child, root)):
            session.add(
                WorkflowExecution(
                    id=execution_id,
                    name="of a family",
                    version_id=UUID(owner["activeVersionId"]),
                    template_id=UUID(owner["id"]),
                    parent_id=parent,
                    root_id=root,
                    context={},
                )
            )
            await session.flush()
    whole = await ok(await api.get("/executions", params={"rootId": str(root)}))
    assert {one["id"] for one in whole["items"]} == {str(root), str(child)}
    roots = await ok(await api.get("/executions", params={"rootId": str(root), "rootsOnly": "true"}))
    assert [one["id"] for one in roots["items"]] == [str(root)]

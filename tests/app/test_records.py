"""Rows that runs write about their steps: whatever comes twice, late or out of order, they say what is true."""

from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select
from sqlmodel import col

from app.contracts import CloseExecution, IncidentRecord, RecordSteps, TaskRecord
from app.db.session import Database
from app.db.tables import HumanTask, Incident, WorkflowExecution, new_id
from app.executions.lifecycle import close_execution
from app.executions.reconciler import reconcile_once
from app.executions.records import record_steps
from app.temporal import Temporal
from tests.app.scenes import Json, active_template, ok, refused
from tests.app.test_reconciler import NOW


def at(second: int) -> str:
    return f"2026-05-01T10:00:{second:02}+00:00"


@pytest.fixture(scope="module")
async def template(api: httpx.AsyncClient) -> Json:
    template = await active_template(api)
    return await ok(await api.get(f"/templates/{template['id']}"))


@pytest.fixture
async def execution(database: Database, template: Json) -> UUID:
    execution_id = new_id()
    async with database.transaction() as session:
        session.add(
            WorkflowExecution(
                id=execution_id,
                name="E",
                version_id=UUID(template["activeVersionId"]),
                template_id=UUID(template["id"]),
                root_id=execution_id,
                context={},
                status="STARTED",
            )
        )
    return execution_id


def opened(second: int, key: str = "approve#1", **fields: Any) -> TaskRecord:
    return TaskRecord(key=key, step_id="approve", visit=1, status="OPEN", at=at(second), **fields)


def closed(second: int, status: str = "COMPLETED", key: str = "approve#1", **fields: Any) -> TaskRecord:
    return TaskRecord.model_validate(
        {"key": key, "stepId": "approve", "visit": 1, "status": status, "at": at(second), **fields}
    )


async def record(database: Database, execution: UUID, *records: TaskRecord | IncidentRecord) -> None:
    tasks = [one for one in records if isinstance(one, TaskRecord)]
    incidents = [one for one in records if isinstance(one, IncidentRecord)]
    async with database.transaction() as session:
        await record_steps(session, RecordSteps(execution_id=execution, tasks=tasks, incidents=incidents))


async def task(database: Database, execution: UUID) -> HumanTask:
    async with database.transaction() as session:
        statement = select(HumanTask).where(col(HumanTask.execution_id) == execution)
        return (await session.execute(statement)).scalar_one()


async def claim(database: Database, execution: UUID) -> None:
    async with database.transaction() as session:
        found = (await session.execute(select(HumanTask).where(col(HumanTask.execution_id) == execution))).scalar_one()
        found.status, found.claimed_by, found.draft = "CLAIMED", "ann", {"half": "done"}


async def test_a_task_is_written_whole_and_closed_with_its_outcome(database: Database, execution: UUID) -> None:
    given = {
        "name": "Approve",
        "type": "HUMAN_CONFIRM",
        "assignee": "ann",
        "candidate_groups": ["sales", "desk"],
        "due_at": at(59),
        "form": {"schema": {"type": "object"}},
    }
    await record(database, execution, opened(1, item=3, **given))
    row = await task(database, execution)
    assert (row.status, row.visit, row.item, row.name, row.type) == ("OPEN", 1, 3, "Approve", "HUMAN_CONFIRM")
    assert (row.assignee, row.candidate_groups, row.form) == ("ann", ["sales", "desk"], given["form"])
    assert row.due_at is not None
    assert (row.opened_at.second, row.due_at.second, row.closed_at) == (1, 59, None)
    await record(database, execution, closed(2, item=3, outcome={"outcome": "approved"}))
    row = await task(database, execution)
    assert (row.status, row.outcome, row.assignee, row.form) == (
        "COMPLETED",
        {"outcome": "approved"},
        "ann",
        given["form"],
    )
    assert row.closed_at is not None
    assert row.closed_at.second == 2


@pytest.mark.parametrize("late", [[1], [1, 2], [2], [2, 1]])
async def test_records_that_come_again_change_nothing(database: Database, execution: UUID, late: list[int]) -> None:
    records = {1: opened(1, assignee="ann"), 2: closed(2, outcome=1)}
    await record(database, execution, records[1], records[2])
    await record(database, execution, *(records[number] for number in late))
    row = await task(database, execution)
    assert (row.status, row.outcome, row.opened_at.second) == ("COMPLETED", 1, 1)


async def test_a_task_opened_and_closed_at_the_same_moment_is_closed(database: Database, execution: UUID) -> None:
    for _ in range(2):
        await record(database, execution, opened(1), closed(1, "CANCELLED"))
    assert (await task(database, execution)).status == "CANCELLED"


async def test_a_task_that_is_opened_anew_later_forgets_who_claimed_it(database: Database, execution: UUID) -> None:
    await record(database, execution, opened(1, assignee="ann"))
    await claim(database, execution)
    await record(database, execution, closed(2, outcome=1))
    await record(database, execution, opened(3))
    row = await task(database, execution)
    assert (row.status, row.claimed_by, row.draft, row.outcome, row.closed_at) == ("OPEN", None, None, None, None)
    assert (row.opened_at.second, row.assignee) == (3, "ann")


async def test_a_repeated_opening_leaves_a_claim_and_a_later_one_only_reassigns(
    database: Database, execution: UUID
) -> None:
    await record(database, execution, opened(1, assignee="ann", candidate_groups=["sales"]))
    await claim(database, execution)
    await record(database, execution, opened(1, assignee="ann"))
    assert (await task(database, execution)).status == "CLAIMED"
    await record(database, execution, opened(2, assignee="bob"))
    row = await task(database, execution)
    assert (row.status, row.claimed_by, row.assignee, row.candidate_groups) == ("CLAIMED", "ann", "bob", ["sales"])
    assert row.opened_at.second == 1


async def test_a_closing_whose_opening_was_lost_is_kept(database: Database, execution: UUID) -> None:
    await record(database, execution, closed(2, "EXPIRED"))
    await record(database, execution, opened(1))
    assert (await task(database, execution)).status == "EXPIRED"


async def test_text_that_no_row_can_hold_does_not_keep_a_task_from_being_written(
    database: Database, execution: UUID
) -> None:
    await record(database, execution, opened(1, name="a\0b", form={"k\0": ["\ud800"]}))
    row = await task(database, execution)
    assert (row.name, row.form) == ("a\ufffdb", {"k\ufffd": ["\ufffd"]})


def parked(second: int, **fields: Any) -> IncidentRecord:
    given = {"code": "NO_STOCK", "message": "nothing left", **fields}
    return IncidentRecord(key="reserve#1", step_id="reserve", visit=1, at=at(second), **given)


def resolved(second: int, resolution: str = "RETRIED", actor: str | None = "ann") -> IncidentRecord:
    return IncidentRecord.model_validate(
        {
            "key": "reserve#1",
            "stepId": "reserve",
            "visit": 1,
            "at": at(second),
            "resolution": resolution,
            "actor": actor,
        }
    )


async def test_each_time_that_a_step_is_parked_is_an_incident_of_its_own(
    api: httpx.AsyncClient, database: Database, execution: UUID, template: Json
) -> None:
    story = [parked(1), resolved(2), parked(3, code="TIMED_OUT")]
    await record(database, execution, *story)
    # Late and twice: the first resolution must not resolve what was parked after it.
    for one in (*story, *story[::-1]):
        await record(database, execution, one)
    page = await ok(await api.get(f"/executions/{execution}/incidents"))
    assert [(one["code"], one["resolution"], one["actor"]) for one in page["items"]] == [
        ("TIMED_OUT", None, None),
        ("NO_STOCK", "RETRIED", "ann"),
    ]
    [still_open] = (await ok(await api.get("/incidents", params={"open": "true", "executionId": str(execution)})))[
        "items"
    ]
    assert (still_open["template"], still_open["stepId"], still_open["rootId"]) == (
        template["slug"],
        "reserve",
        str(execution),
    )
    others = await ok(
        await api.get("/incidents", params={"template": template["slug"], "code": "NO_STOCK", "open": "true"})
    )
    assert others["items"] == []
    refused(await api.get(f"/executions/{new_id()}/incidents"), 404, "EXECUTION_NOT_FOUND")


async def test_what_a_closed_execution_left_open_is_closed_by_the_reconciler_and_may_open_again_later(
    database: Database, temporal: Temporal, execution: UUID
) -> None:
    await record(database, execution, opened(1), parked(1))
    await reconcile_once(database, temporal, NOW)
    assert (await task(database, execution)).status == "OPEN"
    close = {"executionId": execution, "closedAs": "TERMINATED", "endedAt": at(5)}
    async with database.transaction() as session:
        (await session.get_one(WorkflowExecution, execution)).started_at = datetime.fromisoformat(at(0))
    async with database.driver() as connection:
        assert await close_execution(connection, CloseExecution.model_validate(close))
    await reconcile_once(database, temporal, NOW)
    row = await task(database, execution)
    assert row.closed_at is not None
    assert (row.status, row.closed_at.second) == ("CANCELLED", 5)
    async with database.transaction() as session:
        statement = select(Incident).where(col(Incident.execution_id) == execution)
        incident = (await session.execute(statement)).scalar_one()
    assert incident.resolution == "WITHDRAWN"
    # Late records of the run that ended change nothing; those of one that goes on do.
    await record(database, execution, opened(4))
    assert (await task(database, execution)).status == "CANCELLED"
    await record(database, execution, opened(6))
    assert (await task(database, execution)).status == "OPEN"

"""The life of rows, and the rows of children."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import event, func, select
from sqlmodel import col
from temporalio.api.common.v1 import Payload

from app.contracts import ChildToRegister, CloseExecution, RegisterChildren, RegisteredChildren, child_id
from app.db.payload_tables import PayloadBlob
from app.db.session import Database
from app.db.tables import WorkflowExecution, new_id
from app.executions.lifecycle import close_execution, mark_started, register_children
from tests.app.scenes import (
    PLAIN,
    Json,
    activate,
    active_template,
    create_draft,
    create_template,
    ok,
    with_input_schema,
)


async def _parent(database: Database, template: Json) -> UUID:
    parent_id = new_id()
    async with database.transaction() as session:
        session.add(
            WorkflowExecution(
                id=parent_id,
                name="P",
                version_id=UUID(template["activeVersionId"]),
                template_id=UUID(template["id"]),
                root_id=parent_id,
                context={},
            )
        )
    return parent_id


@pytest.fixture(scope="module")
async def template(api: httpx.AsyncClient) -> Json:
    template = await active_template(api, name="Child process")
    return await ok(await api.get(f"/templates/{template['id']}"))


@pytest.fixture
async def parent(database: Database, template: Json) -> UUID:
    return await _parent(database, template)


def _request(parent: UUID, contexts: list[Any], **fields: Any) -> RegisterChildren:
    children = [ChildToRegister(key=f"ship#1/item/{index}", context=context) for index, context in enumerate(contexts)]
    return RegisterChildren(
        **{
            "parent_id": parent,
            "root_id": parent,
            "step_id": "ship",
            "attempt": 1,
            "children": children,
            **fields,
        }
    )


async def _register(database: Database, request: RegisterChildren) -> RegisteredChildren:
    async with database.transaction() as session:
        return await register_children(session, request)


async def _rows(database: Database, parent: UUID) -> list[WorkflowExecution]:
    async with database.transaction() as session:
        statement = select(WorkflowExecution).where(col(WorkflowExecution.parent_id) == parent)
        return list((await session.execute(statement)).scalars())


async def test_children_get_rows_with_their_parent_root_version_and_context(
    database: Database, template: Json, parent: UUID
) -> None:
    request = _request(parent, [{"n": 0}, {"n": 1}], template_ref=template["slug"])
    answer = await _register(database, request)
    ids = [child_id(str(parent), f"ship#1/item/{index}", 1) for index in range(2)]
    assert [child.execution_id for child in answer.children] == ids
    assert [child.code for child in answer.children] == [None, None]
    rows = {row.id: row for row in await _rows(database, parent)}
    for index, execution_id in enumerate(ids):
        row = rows[execution_id]
        assert (row.status, row.root_id, row.context) == ("CREATED", parent, {"n": index})
        assert (row.name, str(row.version_id)) == ("Child process", template["activeVersionId"])
    [version] = answer.versions
    assert (version.template, version.version, version.definition) == (template["slug"], "1.0.0", None)
    async with database.transaction() as session:
        blob = await session.get_one(PayloadBlob, version.definition_sha256)
    assert json.loads(Payload.FromString(blob.bytes).data) == PLAIN
    assert version.template_name == "Child process"


async def test_registering_again_changes_nothing_and_keeps_the_version(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api)
    template = await ok(await api.get(f"/templates/{template['id']}"))
    parent = await _parent(database, template)
    first = await _register(database, _request(parent, [{"n": 0}], template_ref=template["id"]))
    newer = await activate(api, template, version="2.0.0")
    again = await _register(database, _request(parent, [{"n": 9}, {}], template_ref=template["id"]))
    assert again.children[0] == first.children[0]
    assert str(again.children[1].version_id) == newer["id"]
    assert {version.version for version in again.versions} == {"1.0.0", "2.0.0"}
    rows = {row.id: row for row in await _rows(database, parent)}
    assert rows[first.children[0].execution_id].context == {"n": 0}


async def test_a_child_keeps_its_row_when_the_template_is_no_longer_active(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api)
    template = await ok(await api.get(f"/templates/{template['id']}"))
    parent = await _parent(database, template)
    request = _request(parent, [{}], template_ref=template["slug"])
    first = await _register(database, request)
    await ok(await api.post(f"/templates/{template['id']}/pause"))
    assert (await _register(database, request)).children == first.children


async def test_the_same_children_registered_at_once_are_written_once(
    database: Database, template: Json, parent: UUID
) -> None:
    request = _request(parent, [{"n": n} for n in range(20)], template_ref=template["slug"])
    answers = await asyncio.gather(*(_register(database, request) for _ in range(4)))
    assert all(answer.children == answers[0].children for answer in answers)
    assert len(await _rows(database, parent)) == 20


async def test_another_attempt_is_another_child(database: Database, template: Json, parent: UUID) -> None:
    first = await _register(database, _request(parent, [{}], template_ref=template["slug"]))
    second = await _register(database, _request(parent, [{}], template_ref=template["slug"], attempt=2))
    assert first.children[0].execution_id != second.children[0].execution_id


async def test_a_definition_that_the_parent_knows_is_not_named_again(
    database: Database, template: Json, parent: UUID
) -> None:
    known = UUID(template["activeVersionId"])
    request = _request(parent, [{}], version_ref=str(known), known_versions=[known])
    [version] = (await _register(database, request)).versions
    assert (version.version_id, version.definition_sha256) == (known, None)


async def test_a_child_that_cannot_be_has_a_code_and_no_row(
    api: httpx.AsyncClient, database: Database, template: Json, parent: UUID
) -> None:
    inactive, paused = await create_template(api), await active_template(api)
    draft = await create_draft(api, inactive)
    await ok(await api.post(f"/templates/{paused['id']}/pause"))
    cases: list[tuple[dict[str, str], str]] = [
        ({"template_ref": "no-such"}, "CHILD_NOT_FOUND"),
        ({"template_ref": str(new_id())}, "CHILD_NOT_FOUND"),
        ({"version_ref": str(new_id())}, "CHILD_NOT_FOUND"),
        ({"version_ref": f"{template['slug']}@9.0.0"}, "CHILD_NOT_FOUND"),
        ({"version_ref": "no-version"}, "CHILD_NOT_FOUND"),
        ({"template_ref": inactive["slug"]}, "CHILD_NOT_ACTIVE"),
        ({"template_ref": paused["id"]}, "CHILD_NOT_ACTIVE"),
        ({"version_ref": draft["id"]}, "CHILD_NOT_PUBLISHED"),
        ({"version_ref": f"{inactive['slug']}@1.0.0"}, "CHILD_NOT_PUBLISHED"),
    ]
    for reference, code in cases:
        answer = await _register(database, _request(parent, [{}, {}], **reference))
        assert [child.code for child in answer.children] == [code, code], reference
        assert all(child.version_id is None and child.message for child in answer.children)
        assert answer.versions == []
    assert await _rows(database, parent) == []


async def test_only_the_children_whose_input_does_not_fit_are_refused(
    api: httpx.AsyncClient, database: Database, parent: UUID
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    strict = await active_template(api, with_input_schema(schema))
    contexts = [{"n": 1}, {"n": "one"}, {"text": "a\0b"}, {"text": "\ud800"}, {"n": 2}]
    answer = await _register(database, _request(parent, contexts, template_ref=strict["slug"]))
    codes = [child.code for child in answer.children]
    assert codes == [None, *["CHILD_INPUT_INVALID"] * 3, None]
    assert "context.n" in (answer.children[1].message or "")
    assert "context.text" in (answer.children[2].message or "")
    assert len(await _rows(database, parent)) == 2


async def test_registering_costs_the_same_statements_however_many_children(database: Database, template: Json) -> None:
    counts = []
    for size in (1, 1500):
        parent = await _parent(database, template)
        request = _request(parent, [{"n": n} for n in range(size)], template_ref=template["slug"])
        statements: list[str] = []

        def note(*arguments: object, into: list[str] = statements) -> None:
            into.append(str(arguments[2]))

        event.listen(database.engine.sync_engine, "before_cursor_execute", note)
        await _register(database, request)
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)
        counts.append(len(statements))
        async with database.transaction() as session:
            count = select(func.count()).where(col(WorkflowExecution.parent_id) == parent)
            assert (await session.execute(count)).scalar_one() == size
    assert counts[0] == counts[1] <= 6


def _close(execution_id: UUID, closed_as: str = "COMPLETED") -> CloseExecution:
    return CloseExecution.model_validate(
        {"executionId": execution_id, "closedAs": closed_as, "endedAt": datetime.now(UTC).isoformat()}
    )


async def test_a_row_is_started_once_and_closed_once(database: Database, parent: UUID) -> None:
    async with database.driver() as connection:
        assert await mark_started(connection, parent)
    async with database.driver() as connection:
        assert await mark_started(connection, parent)
        assert await close_execution(connection, _close(parent))
        assert not await close_execution(connection, _close(parent, "FAILED"))
        assert not await mark_started(connection, parent)
    async with database.transaction() as session:
        row = await session.get(WorkflowExecution, parent)
    assert row is not None
    assert (row.status, row.closed_as) == ("COMPLETED", "COMPLETED")
    assert row.started_at is not None
    assert row.ended_at is not None


async def test_a_run_that_is_over_before_its_row_says_started_is_closed_all_the_same(
    database: Database, parent: UUID
) -> None:
    async with database.driver() as connection:
        assert await close_execution(connection, _close(parent, "FAILED"))
    async with database.driver() as connection:
        assert not await mark_started(connection, parent)
    async with database.transaction() as session:
        row = await session.get(WorkflowExecution, parent)
    assert row is not None
    assert (row.status, row.closed_as) == ("COMPLETED", "FAILED")


async def test_an_unknown_execution_is_neither_started_nor_closed(database: Database) -> None:
    async with database.driver() as connection:
        assert not await mark_started(connection, new_id())
        assert not await close_execution(connection, _close(new_id()))

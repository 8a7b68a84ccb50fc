"""Models, migrations and the database's own rules."""

from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import SQLModel

from app.db.migrate import check, downgrade, migrate
from app.db.session import Database
from app.db.tables import WorkflowExecution, WorkflowTemplate, WorkflowTemplateVersion, new_id
from tests.conftest import MakeDatabase


async def test_the_tables_and_the_migrations_agree(database_url: str) -> None:
    await check(database_url)


async def test_check_constraints_are_named_as_the_models_name_them(database: Database) -> None:
    expected = {
        str(constraint.name)
        for table in SQLModel.metadata.tables.values()
        for constraint in table.constraints
        if str(constraint.name).startswith("ck_")
    }
    async with database.transaction() as session:
        found = await session.execute(text("SELECT conname FROM pg_constraint WHERE contype = 'c'"))
        named = {name for name in found.scalars() if name.startswith("ck_")}
    assert named == expected


async def test_every_migration_can_be_taken_back_and_made_again(make_empty_database: MakeDatabase) -> None:
    url = await make_empty_database()
    await migrate(url)
    await downgrade(url, "-1")
    await migrate(url)
    await downgrade(url, "base")
    database = Database(url)
    async with database.transaction() as session:
        left = await session.execute(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'")
        )
        assert left.scalars().all() == []
        functions = await session.execute(text("SELECT count(*) FROM pg_proc WHERE proname = 'keep_published_version'"))
        assert functions.scalar_one() == 0
    await database.close()
    await migrate(url)
    await check(url)


async def _template(database: Database, status: str = "PUBLISHED") -> WorkflowTemplateVersion:
    async with database.transaction() as session:
        template = WorkflowTemplate(slug=f"t-{new_id().hex}", name="T")
        session.add(template)
        await session.flush()
        version = WorkflowTemplateVersion(
            template_id=template.id,
            version="1.0.0",
            definition={"steps": []},
            definition_hash="0",
            status=status,
        )
        session.add(version)
    return version


@pytest.mark.parametrize(
    "change",
    [
        "definition = '{}'",
        "definition_hash = '1'",
        "version = '2.0.0'",
        "status = 'DRAFT'",
        "published_at = now()",
        "template_id = gen_random_uuid()",
    ],
)
@pytest.mark.parametrize("status", ["PUBLISHED", "DEPRECATED"])
async def test_the_database_refuses_to_change_what_is_published(database: Database, change: str, status: str) -> None:
    version = await _template(database, status)
    statement = text(f"UPDATE workflow_template_version SET {change} WHERE id = :id")
    with pytest.raises(DBAPIError, match="only a draft can be changed"):
        async with database.engine.begin() as connection:
            await connection.execute(statement, {"id": version.id})


@pytest.mark.parametrize("change", ["definition = '{}'", "version = '2.0.0'", "status = 'PUBLISHED'"])
async def test_the_database_lets_a_draft_be_changed(database: Database, change: str) -> None:
    version = await _template(database, "DRAFT")
    async with database.engine.begin() as connection:
        changed = await connection.execute(
            text(f"UPDATE workflow_template_version SET {change} WHERE id = :id"), {"id": version.id}
        )
    assert changed.rowcount == 1


async def test_a_published_version_can_be_deprecated_and_published_again(database: Database) -> None:
    version = await _template(database)
    statement = text("UPDATE workflow_template_version SET status = :status WHERE id = :id")
    async with database.engine.begin() as connection:
        for status in ("DEPRECATED", "PUBLISHED"):
            await connection.execute(statement, {"id": version.id, "status": status})


async def test_a_template_cannot_have_another_templates_version_active(database: Database) -> None:
    mine, other = await _template(database), await _template(database)
    statement = text("UPDATE workflow_template SET active_version_id = :version WHERE id = :template")
    with pytest.raises(IntegrityError, match="fk_workflow_template_active_version"):
        async with database.engine.begin() as connection:
            await connection.execute(statement, {"version": other.id, "template": mine.template_id})


async def test_the_latest_view_shows_the_active_version(database: Database) -> None:
    version = await _template(database)
    async with database.engine.begin() as connection:
        view = text("SELECT version_id, definition FROM workflow_latest_json WHERE template_id = :id")
        assert (await connection.execute(view, {"id": version.template_id})).all() == []
        await connection.execute(
            text("UPDATE workflow_template SET active_version_id = :version WHERE id = :template"),
            {"version": version.id, "template": version.template_id},
        )
        rows = (await connection.execute(view, {"id": version.template_id})).all()
    assert [row.version_id for row in rows] == [version.id]


def _execution(version: WorkflowTemplateVersion, **fields: Any) -> WorkflowExecution:
    execution_id = new_id()
    return WorkflowExecution(
        **{
            "id": execution_id,
            "name": "E",
            "version_id": version.id,
            "template_id": version.template_id,
            "root_id": execution_id,
            "context": {},
            **fields,
        }
    )


async def _insert(database: Database, row: WorkflowExecution) -> None:
    async with database.engine.begin() as connection:
        values = row.model_dump(exclude={"created_at", "updated_at"})
        await connection.execute(insert(WorkflowExecution).values(**values))


async def test_deleting_a_root_deletes_its_descendants(database: Database) -> None:
    version = await _template(database)
    root = _execution(version)
    child = _execution(version, parent_id=root.id, root_id=root.id)
    grandchild = _execution(version, parent_id=child.id, root_id=root.id)
    async with database.transaction() as session:
        for row in (root, child, grandchild):
            session.add(row)
            await session.flush()
    async with database.engine.begin() as connection:
        await connection.execute(text("DELETE FROM workflow_execution WHERE id = :id"), {"id": root.id})
        left = await connection.execute(
            text("SELECT count(*) FROM workflow_execution WHERE root_id = :id"), {"id": root.id}
        )
    assert left.scalar_one() == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "RUNNING"},
        {"status": "COMPLETED"},
        {"closed_as": "COMPLETED"},
        {"root_id": None},
    ],
)
async def test_the_database_refuses_a_row_that_contradicts_itself(database: Database, fields: dict[str, Any]) -> None:
    version = await _template(database)
    with pytest.raises(IntegrityError):
        await _insert(database, _execution(version, **fields))


async def test_an_idempotency_key_is_unique_within_its_template_only(database: Database) -> None:
    mine, other = await _template(database), await _template(database)
    async with database.transaction() as session:
        session.add(_execution(mine, idempotency_key="k"))
        session.add(_execution(other, idempotency_key="k"))
    with pytest.raises(IntegrityError, match="uq_workflow_execution_template_id_idempotency_key"):
        await _insert(database, _execution(mine, idempotency_key="k"))


async def test_a_url_without_a_driver_is_taken(database_url: str) -> None:
    database = Database(database_url.replace("postgresql+asyncpg://", "postgres://"))
    await database.ping()
    await database.close()

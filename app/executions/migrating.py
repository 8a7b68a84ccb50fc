"""Migration: an open execution goes on with another version of its template, if its run says that it can."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy import select, update
from sqlmodel import col

from app.audit.service import audited_once, of_execution
from app.db.session import Database
from app.db.statuses import LineageKind, LineageStatus
from app.db.tables import ExecutionLineage, VersionStatus, WorkflowExecution, WorkflowTemplateVersion, new_id
from app.errors import AppError, Conflict, Invalid, NotFound
from app.executions import runs, updates
from app.executions.control import OPEN, Caller, not_yet_started
from app.executions.control_schemas import MigrateRequest, MigrateView, MigrationFindingView
from app.executions.queries import ExecutionRow
from app.executions.reading import get_row
from app.run_contracts import MigrationReport, MigrationRequest
from app.temporal import Temporal
from app.versions.queries import definition_text, find_version, step_ids

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Move:
    """An execution that is to go on with a version; `definition` is the version's, to the letter."""

    row: ExecutionRow
    version: WorkflowTemplateVersion
    definition: str
    asked: MigrationRequest


async def migrate_execution(
    database: Database,
    temporal: Temporal,
    execution_id: UUID,
    request: MigrateRequest,
    caller: Caller,
    *,
    own_mapping: bool = True,
) -> MigrateView:
    """Asks the run whether it can go on with the version and, unless it is a dry run, lets it.

    With `own_mapping` the mapping is for this execution alone, and may name no step that its version does not have;
    one for many may.

    Raises MAPPING_UNKNOWN, EXECUTION_ENDED, NOT_YET_STARTED, VERSION_NOT_FOUND, VERSION_NOT_PUBLISHED,
    VERSION_OF_OTHER_TEMPLATE, VERSION_UNCHANGED, IDEMPOTENCY_CONFLICT, MIGRATION_NEEDS_MAPPING, MIGRATION_IMPOSSIBLE
    (with every finding), WORKER_UNAVAILABLE.
    """
    row = await get_row(database, execution_id)
    if request.dry_run:
        move = await _move_of(database, temporal, row, request, caller, own_mapping)
        return _view(execution_id, move.version, await _tried(temporal, move))
    said = request.model_dump(mode="json", by_alias=True, exclude={"reason", "dry_run"})
    key = caller.update_id("migrate")
    deed = of_execution("MIGRATE", execution_id, caller.actor, said, request.reason, key)
    async with audited_once(database, deed) as done:
        if done is not None and done.after is not None:
            async with database.transaction() as session:
                made = await find_version(session, UUID(done.after["versionId"]))
            if made is not None:
                return _view(execution_id, made, MigrationReport(verdict="SAFE", migrated=True))
        deed.before = {"versionId": str(row.version_id), "version": row.version}
        move = await _move_of(database, temporal, row, request, caller, own_mapping)
        version = move.version
        # First without doing it: a refusal of the run itself has one sentence, this has every finding.
        report = await _tried(temporal, move)
        if report.verdict != "SAFE":
            raise _refused(report)
        report = await _migrate(database, temporal, move, request.reason)
        deed.after = {"versionId": str(version.id), "version": version.version}
    log.info("execution_migrated", execution_id=str(execution_id), version=version.version)
    return _view(execution_id, version, report)


async def _move_of(
    database: Database,
    temporal: Temporal,
    row: ExecutionRow,
    request: MigrateRequest,
    caller: Caller,
    own_mapping: bool,
) -> Move:
    if row.status not in OPEN:
        raise runs.ended()
    async with database.transaction() as session:
        version = await find_version(session, request.version_id)
        if version is None:
            raise NotFound("version", request.version_id)
        definition = await definition_text(session, version.id)
        known = await step_ids(session, row.template_id, [row.version_id]) if own_mapping and request.mapping else None
    if version.template_id != row.template_id:
        raise Invalid("VERSION_OF_OTHER_TEMPLATE", f"Version {version.id} is not one of template {row.template}.")
    if version.status == VersionStatus.DRAFT:
        raise Conflict("VERSION_NOT_PUBLISHED", f"{version.version} is a draft; publish it first.")
    if version.id == row.version_id:
        raise Conflict("VERSION_UNCHANGED", f"The execution runs {version.version} already.")
    if known is not None:
        _refuse_unknown(sorted(request.mapping.keys() - known), f"{row.template} {row.version}")
    if await runs.find_run(temporal, row.id) is None:
        raise not_yet_started()
    asked = MigrationRequest(
        version_id=version.id,
        version=version.version,
        mapping=request.mapping,
        dry_run=request.dry_run,
        actor=caller.actor,
    )
    return Move(row, version, definition, asked)


async def check_mapping_of_many(database: Database, version_id: UUID, mapped: Collection[str]) -> None:
    """A mapping for executions of several versions. Raises MAPPING_UNKNOWN for steps that no version has.

    A version that is not there is what each of the executions is refused for.
    """
    async with database.transaction() as session:
        version = await find_version(session, version_id)
        known = frozenset(mapped) if version is None else await step_ids(session, version.template_id)
    _refuse_unknown(sorted(frozenset(mapped) - known), "any version")


def _refuse_unknown(names: list[str], where: str) -> None:
    if names:
        problems = [{"path": f"mapping.{name}", "message": f"{where} has no such step"} for name in names]
        raise Invalid("MAPPING_UNKNOWN", f"The mapping names steps that are not there: {', '.join(names)}.", problems)


async def _tried(temporal: Temporal, move: Move) -> MigrationReport:
    asked = move.asked.model_copy(update={"dry_run": True})
    return await updates.migrate(temporal, move.row.id, asked, move.definition)


async def _migrate(database: Database, temporal: Temporal, move: Move, note: str | None) -> MigrationReport:
    """The run first, then its row. Should this process die in between, the reconciler asks the run what it runs."""
    lineage = ExecutionLineage(
        id=new_id(),
        execution_id=move.row.id,
        kind=LineageKind.MIGRATE,
        status=LineageStatus.PENDING,
        actor=move.asked.actor,
        note=note,
        from_version_id=move.row.version_id,
        to_version_id=move.version.id,
        mapping=move.asked.mapping,
    )
    async with database.transaction() as session:
        session.add(lineage)
    try:
        report = await updates.migrate(temporal, move.row.id, move.asked, move.definition, f"migrate:{lineage.id}")
    except AppError as error:
        if error.status < 500:
            await _settle(database, lineage.id, False, f"{error.code}: {error.message}")
        raise
    if not report.migrated:
        await _settle(database, lineage.id, False, report.verdict)
        raise _refused(report)
    await _settle(database, lineage.id, True, note)
    return report


async def settle_pending(database: Database, temporal: Temporal, lineage_id: UUID) -> None:
    """Finds out from the run whether a migration was carried out, and lets the row say so."""
    async with database.transaction() as session:
        lineage = await session.get(ExecutionLineage, lineage_id)
    if lineage is None or lineage.status != LineageStatus.PENDING:
        return
    dump = await runs.find_state(temporal, lineage.execution_id)
    migrated = dump is not None and dump.version_id == lineage.to_version_id
    await _settle(database, lineage_id, migrated, lineage.note if migrated else "the run did not take it")


async def _settle(database: Database, lineage_id: UUID, migrated: bool, note: str | None) -> None:
    async with database.transaction() as session:
        statement = select(ExecutionLineage).where(col(ExecutionLineage.id) == lineage_id).with_for_update()
        lineage = (await session.execute(statement)).scalar_one()
        lineage.status = LineageStatus.DONE if migrated else LineageStatus.REFUSED
        lineage.note = note
        if migrated:
            await session.execute(
                update(WorkflowExecution)
                .where(col(WorkflowExecution.id) == lineage.execution_id)
                .values(version_id=lineage.to_version_id)
            )


def _refused(report: MigrationReport) -> AppError:
    problems = [
        {"path": finding.step_id, "message": finding.reason, "code": finding.code} for finding in report.findings
    ]
    said = "steps must be mapped" if report.verdict == "NEEDS_MAPPING" else "it cannot go on with this version"
    return AppError(f"MIGRATION_{report.verdict}", 409, f"The execution was not migrated: {said}.", problems)


def _view(execution_id: UUID, version: WorkflowTemplateVersion, report: MigrationReport) -> MigrateView:
    return MigrateView(
        execution_id=execution_id,
        version_id=version.id,
        version=version.version,
        verdict=report.verdict,
        findings=[MigrationFindingView(**finding.model_dump()) for finding in report.findings],
        migrated=report.migrated,
    )

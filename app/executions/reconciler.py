"""What brings rows and runs together again after something was down.

Rows left CREATED are started, once; rows of runs that have closed without saying so are closed; what was decided of
a closed execution (a retry) or of a running one (a migration) is finished; what ended executions left is put away.
Any number of processes may do this at the same time.
"""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from asyncpg import Record
from sqlalchemy import func, select, update
from sqlalchemy.orm import aliased
from sqlmodel import col

from app.contracts import CloseExecution, DeadLetterRecord, ExecutionStart, readable
from app.db.session import Database
from app.db.statuses import LineageKind
from app.db.tables import ClosedAs, RecordStatus, WorkflowExecution
from app.errors import Invalid, Unavailable
from app.executions.abandoned_tasks import close_abandoned
from app.executions.ending import CANCEL_UNCONFIRMED
from app.executions.failed_runs import find_dead_letters
from app.executions.lifecycle import close_execution
from app.executions.lineage import Pages
from app.executions.migrating import settle_pending
from app.executions.orphans import end_orphans
from app.executions.queries import find_left_created, list_open, list_started_before
from app.executions.reopening import begin
from app.executions.runs import RuntimeStatus, cancel_run, find_run, find_runs
from app.executions.starting import Launch, launch_locked
from app.executions.tidying import close_left_open, purge_dead_letters
from app.executions.updates import UPDATE_WITHIN
from app.temporal import Temporal, check_namespace

log = structlog.get_logger(__name__)

# Long enough for every replica of Temporal's own database to know of a start.
LOST_AFTER = timedelta(minutes=10)
LOST = "RUN_NOT_FOUND: Temporal has no run of this execution"

BATCH = 20
REOPENING = (LineageKind.RETRY, LineageKind.RESUME)
MIGRATION = (LineageKind.MIGRATE,)
# Until then whoever asked for a migration may still be waiting for the answer.
LONGEST_UPDATE = timedelta(seconds=UPDATE_WITHIN)
PAGE = 100


@dataclass(slots=True)
class Sweep:
    """How far the search for closed runs has come; each pass looks at one page of open rows (`after`), at one of the
    executions with open human tasks (`after_tasks`), and at one page of the
    runs that wait `to_begin` and of the migrations that wait `to_settle`.

    A run that Temporal does not know is lost when its execution began longer ago than `lost_after`.
    """

    after: UUID | None = None
    after_tasks: UUID | None = None
    lost_after: timedelta = LOST_AFTER
    to_begin: Pages = field(default_factory=Pages)
    to_settle: Pages = field(default_factory=Pages)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a pass has done: how many it started, refused for good, and closed.

    `leftovers` are human tasks and incidents that were open in their rows alone, and have been closed.
    """

    started: int
    refused: int
    closed: int
    reopened: int = 0
    leftovers: int = 0

    def counts(self) -> dict[str, int]:
        """All of it by name."""
        return asdict(self)


async def reconcile_once(
    database: Database,
    temporal: Temporal,
    older_than: timedelta,
    sweep: Sweep | None = None,
    keep_dead_letters: timedelta = timedelta(days=30),
) -> Reconciled:
    """One pass: starts roots left CREATED for longer than `older_than`, then closes rows of closed runs, and so on.

    Raises `Unavailable` when PostgreSQL or Temporal cannot be reached.
    """
    sweep = sweep or Sweep()
    await temporal.assure()
    started, refused = await _start_left_created(database, temporal, older_than)
    await _confirm_cancels(database, temporal)
    closed = await _close_never_started(database)
    reopened = await _finish_turns(database, temporal, older_than, sweep)
    closed += await _close_closed_runs(database, temporal, sweep)
    leftovers, sweep.after_tasks = await close_abandoned(database, temporal, older_than, sweep.after_tasks)
    # Once in each round of the sweep: these look at every row that could be left over.
    if sweep.after is None:
        await end_orphans(database, temporal)
        leftovers += await _put_away(database, keep_dead_letters)
    done = Reconciled(started, refused, closed, reopened, leftovers)
    if any(done.counts().values()):
        log.info("executions_reconciled", **done.counts())
    return done


async def _finish_turns(database: Database, temporal: Temporal, older_than: timedelta, sweep: Sweep) -> int:
    """Begins runs of executions that were reopened, and finds out what became of migrations; how many began."""
    before = datetime.now(UTC) - older_than
    begun = 0
    async with database.transaction() as session:
        to_begin = await sweep.to_begin.following(session, REOPENING, before, BATCH)
        to_settle = await sweep.to_settle.following(session, MIGRATION, before - LONGEST_UPDATE, BATCH)
    for lineage_id in to_begin:
        try:
            begun += await begin(database, temporal, lineage_id) is not None
        except Invalid:
            # Refused for good: its row has been closed again, and the log says why.
            continue
    for lineage_id in to_settle:
        try:
            await settle_pending(database, temporal, lineage_id)
        except Unavailable as error:
            # No worker: the run cannot be asked yet, which is no reason to leave the rest undone.
            log.warning("migration_unsettled", lineage_id=str(lineage_id), code=error.code)
    return begun


async def _put_away(database: Database, keep_dead_letters: timedelta) -> int:
    """Closes tasks and incidents of executions that have ended, and deletes old dead letters; how many it closed."""
    async with database.transaction() as session:
        closed = await close_left_open(session)
        purged = await purge_dead_letters(session, keep_dead_letters)
    if closed or purged:
        log.info("leftovers_put_away", tasks_and_incidents=closed, dead_letters=purged)
    return closed


async def _start_left_created(database: Database, temporal: Temporal, older_than: timedelta) -> tuple[int, int]:
    created_before = datetime.now(UTC) - older_than
    counts: Counter[RecordStatus] = Counter()
    while True:
        # One row a transaction: what Temporal has answered is committed before it is asked again.
        async with database.driver() as connection, connection.transaction():
            found = await find_left_created(connection, created_before)
            if found is None:
                return counts[RecordStatus.STARTED], counts[RecordStatus.FAILED_TO_START]
            launched = await launch_locked(connection, temporal, _launch_of(found))
        counts[launched.status] += 1


def _launch_of(row: Record) -> Launch:
    trigger = json.loads(row["trigger"] or "{}")
    start = ExecutionStart(
        execution_id=row["id"],
        name=row["name"],
        root_id=row["id"],
        template_id=row["template_id"],
        template=row["slug"],
        version_id=row["version_id"],
        version=row["version"],
        context=json.loads(row["context"]),
        trigger=trigger or None,
        entity_type=trigger.get("entityType"),
        entity_id=trigger.get("entityId"),
        local_actions=row["local_actions"],
        long_actions=row["long_actions"],
    )
    return Launch(start, row["template_name"], row["definition"])


async def _confirm_cancels(database: Database, temporal: Temporal) -> None:
    """Ends runs of executions that were cancelled while nobody could say whether they had started."""
    async with database.transaction() as session:
        statement = (
            select(col(WorkflowExecution.id))
            .where(col(WorkflowExecution.status_reason) == CANCEL_UNCONFIRMED)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        ids = (await session.execute(statement)).scalars().all()
        for execution_id in ids:
            await cancel_run(temporal, execution_id, "cancelled before it was started")
        await session.execute(
            update(WorkflowExecution).where(col(WorkflowExecution.id).in_(ids)).values(status_reason="cancelled")
        )


async def _close_never_started(database: Database) -> int:
    """Children whose parent ended before it had started them will never be started."""
    parent = aliased(WorkflowExecution)
    statement = (
        update(WorkflowExecution)
        .where(
            col(WorkflowExecution.status) == RecordStatus.CREATED,
            col(WorkflowExecution.parent_id) == parent.id,
            col(parent.status) == RecordStatus.COMPLETED,
            col(WorkflowExecution.detached).is_(False),
        )
        .values(
            status=RecordStatus.COMPLETED,
            status_reason="the parent ended before it had started this",
            ended_at=func.now(),
            closed_as=ClosedAs.CANCELLED,
        )
        .returning(col(WorkflowExecution.id))
        .execution_options(synchronize_session=False)
    )
    async with database.transaction() as session:
        return len((await session.execute(statement)).all())


async def _close_closed_runs(database: Database, temporal: Temporal, sweep: Sweep) -> int:
    async with database.transaction() as session:
        ids = await list_open(session, after=sweep.after, limit=PAGE)
    sweep.after = ids[-1] if len(ids) == PAGE else None
    runs = await find_runs(temporal, ids)
    running = [execution_id for execution_id, run in runs.items() if run.status == RuntimeStatus.IN_PROGRESS]
    failed = [execution_id for execution_id, run in runs.items() if run.status == RuntimeStatus.FAILED]
    letters = await find_dead_letters(database, temporal, failed)
    closed = 0
    async with database.transaction() as session:
        # A child that could not say so itself: Postgres was away when it began.
        await session.execute(
            update(WorkflowExecution)
            .where(col(WorkflowExecution.id).in_(running), col(WorkflowExecution.status) == RecordStatus.CREATED)
            .values(status=RecordStatus.STARTED, started_at=func.now())
        )
    async with database.driver() as connection:
        for execution_id, run in runs.items():
            if run.status == RuntimeStatus.IN_PROGRESS or run.closed_at is None:
                continue
            letter = letters.get(execution_id)
            request = CloseExecution.model_validate(
                {
                    "executionId": execution_id,
                    "closedAs": run.status.value,
                    "reason": _reason(letter),
                    "endedAt": run.closed_at.isoformat(),
                    "deadLetter": letter,
                }
            )
            # Visibility lags: the run that it shows may be one that a retry has followed since.
            closed += await close_execution(connection, request, run.run_id)
    missing = [execution_id for execution_id in ids if execution_id not in runs]
    return closed + await _close_lost(database, temporal, missing, sweep.lost_after)


def _reason(letter: DeadLetterRecord | None) -> str:
    """What a run failed with may be what no row can hold: it must not keep the other rows open."""
    return "closed by the reconciler" if letter is None else readable(f"{letter.code}: {letter.message}")


async def _close_lost(database: Database, temporal: Temporal, missing: Collection[UUID], lost_after: timedelta) -> int:
    """Closes rows whose run Temporal has lost, as TERMINATED.

    That visibility does not list a run only means that it has to be asked for by name; and that no run is found means
    nothing unless the namespace is there.
    """
    started_before = datetime.now(UTC) - lost_after
    async with database.transaction() as session:
        old = await list_started_before(session, missing, started_before) if missing else []
    if not old:
        return 0
    await check_namespace(await temporal.client())
    lost = [execution_id for execution_id in old if await find_run(temporal, execution_id) is None]
    closed = 0
    async with database.driver() as connection:
        for execution_id in lost:
            log.error("run_lost", execution_id=str(execution_id))
            ended_at = datetime.now(UTC).isoformat()
            close = CloseExecution(execution_id=execution_id, closed_as="TERMINATED", reason=LOST, ended_at=ended_at)
            closed += await close_execution(connection, close)
    return closed

"""How an execution begins: its row is committed first, then Temporal is asked, then the row says STARTED.

Nothing is lost and nothing starts twice: the row carries the idempotency key, the workflow id is the row's id,
and the row stays locked while Temporal is asked, so that neither a cancel nor the reconciler can come between.
"""

import asyncio
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from temporalio.common import (
    RawValue,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from app.canonical import canonical_json
from app.contracts import (
    ATTRIBUTE_ENTITY_ID,
    ATTRIBUTE_ENTITY_TYPE,
    ATTRIBUTE_ROOT,
    ATTRIBUTE_TEMPLATE,
    ATTRIBUTE_VERSION,
    SEARCH_ATTRIBUTES,
    ExecutionStart,
    summary,
    workflow_id,
)
from app.db.session import Connection
from app.db.session import translated as database_errors
from app.db.statuses import AtRest
from app.db.tables import RecordStatus, TemplateStatus, VersionStatus, new_id
from app.errors import AppError, Conflict, Invalid, Postponed, Unavailable
from app.executions.queries import Earlier, Target, find_earlier
from app.payloads.content import definition_payload
from app.temporal import Temporal, translated, unreachable
from engine.errors import EngineError
from engine.schema import violations

log = structlog.get_logger(__name__)

INSERT = """
    INSERT INTO workflow_execution
        (id, name, version_id, template_id, root_id, context, trigger, status, idempotency_key, request_hash)
    VALUES ($1, $2, $3, $4, $1, $5::text::jsonb, $6::text::jsonb, 'CREATED', $7, $8)
    ON CONFLICT (template_id, idempotency_key) DO NOTHING
    RETURNING id
"""
# The commit need not wait for the disk: a row that a crash sets back to CREATED is found by the reconciler, which is
# then told that the run has started already.
CLAIM = """
    UPDATE workflow_execution
    SET status = 'STARTED', started_at = coalesce(started_at, now()), updated_at = now()
    WHERE id = $1 AND status IN ('CREATED', 'STARTED')
    RETURNING set_config('synchronous_commit', 'off', true)
"""
GIVE_UP = """
    UPDATE workflow_execution
    SET status = 'FAILED_TO_START', status_reason = $2, started_at = NULL, updated_at = now()
    WHERE id = $1
"""

_ONCE = WorkflowIDReusePolicy.REJECT_DUPLICATE
_AGAIN = WorkflowIDReusePolicy.ALLOW_DUPLICATE
_NEVER = frozenset({RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.OUT_OF_RANGE})


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What somebody wants started. `key` makes repetitions one; `version` is the pinned number, if any."""

    context: dict[str, Any]
    trigger: dict[str, Any]
    name: str | None
    key: str | None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The execution that a request got: a new one to launch, or the one it got before (`launch` None)."""

    execution_id: UUID
    status: RecordStatus
    launch: "Launch | None" = None


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything Temporal is given; the definition is JSON as text.

    Only an execution that is taken up `again` may use its workflow id a second time.
    """

    start: ExecutionStart
    template_name: str
    definition: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A new execution, ready to be written; its context is JSON as text."""

    launch: Launch
    context: str
    request_hash: str


@dataclass(frozen=True, slots=True)
class Launched:
    """What became of a launch; `reason` is there when it was refused for good."""

    status: RecordStatus
    reason: str | None = None


class StartRefused(Exception):
    """Temporal will never take this start."""


async def accept(
    connection: Connection, temporal: Temporal, target: Target, request: StartRequest, most_bytes: int
) -> Accepted:
    """Writes the row of a new execution, or finds the one that the request's key was used for.

    Raises IDEMPOTENCY_CONFLICT, TEMPLATE_NOT_ACTIVE, TEMPLATE_PAUSED, TEMPLATE_ARCHIVED, VERSION_NOT_FOUND,
    VERSION_NOT_PUBLISHED, CONTEXT_TOO_LARGE, CONTEXT_INVALID, TEMPORAL_UNAVAILABLE.
    """
    if target.earlier is not None:
        return repeated(target.earlier, hash_of(request))
    prepared = prepare(target, request, most_bytes)
    await temporal.assure()
    start = prepared.launch.start
    written = await connection.fetchval(
        INSERT,
        start.execution_id,
        start.name,
        start.version_id,
        start.template_id,
        prepared.context,
        canonical_json(request.trigger),
        request.key,
        prepared.request_hash,
    )
    if written is None:
        # The same request came twice at once, and the other one was first.
        earlier = await find_earlier(connection, target.template_id, request.key or "")
        return repeated(earlier, prepared.request_hash)
    return Accepted(start.execution_id, RecordStatus.CREATED, prepared.launch)


def prepare(target: Target, request: StartRequest, most_bytes: int) -> Prepared:
    """A new execution of the target, checked and not yet written.

    Raises `Postponed` where the template is PAUSED and queues what would start it, and TEMPLATE_NOT_ACTIVE,
    TEMPLATE_PAUSED, TEMPLATE_ARCHIVED, VERSION_NOT_FOUND, VERSION_NOT_PUBLISHED, CONTEXT_TOO_LARGE, CONTEXT_INVALID.
    """
    definition = _startable(target, request)
    context = canonical_json(request.context)
    _check_context(target.input_schema, request.context, len(context.encode()), most_bytes)
    return Prepared(_new_launch(target, request, definition), context, _hash(request, context))


def hash_of(request: StartRequest) -> str:
    """What tells a repetition from another request with the same key."""
    return _hash(request, canonical_json(request.context))


def check_start(target: Target, request: StartRequest, most_bytes: int) -> None:
    """Raises what `accept` would raise for good because of the target or the context; writes nothing."""
    with suppress(Postponed):
        _startable(target, request)
    size = len(canonical_json(request.context).encode())
    _check_context(target.input_schema, request.context, size, most_bytes)


async def launch(connection: Connection, temporal: Temporal, launch: Launch) -> Launched:
    """Starts what `accept` wrote. Never raises because something is down: the row is stored.

    STARTED; CREATED when Temporal could not be reached (the reconciler starts it later); FAILED_TO_START when
    it never will be; COMPLETED when somebody cancelled it first.
    """
    try:
        with database_errors():
            async with connection.transaction():
                return await launch_locked(connection, temporal, launch)
    except Unavailable as error:
        log.warning("start_postponed", execution_id=str(launch.start.execution_id), code=error.code)
        return Launched(RecordStatus.CREATED)


async def launch_locked(connection: Connection, temporal: Temporal, launch: Launch) -> Launched:
    """Sets the row STARTED, asks Temporal, and leaves the commit to the caller: until then the row is locked.

    Raises `Unavailable` when Temporal cannot be reached; the caller's rollback leaves the row CREATED.
    """
    execution_id = launch.start.execution_id
    if await connection.fetchval(CLAIM, execution_id) is None:
        return Launched(RecordStatus.COMPLETED)
    try:
        await start_run(temporal, launch)
    except StartRefused as refusal:
        log.error("start_refused", execution_id=str(execution_id), reason=str(refusal))
        await connection.execute(GIVE_UP, execution_id, str(refusal))
        return Launched(RecordStatus.FAILED_TO_START, str(refusal))
    return Launched(RecordStatus.STARTED)


async def start_run(temporal: Temporal, launch: Launch) -> str | None:
    """Starts the Temporal workflow, and gives the run's id; None for one that runs already, which counts as started.

    Raises `StartRefused` for what no repetition would change, `Unavailable` for everything else.
    """
    try:
        return await _start_workflow(temporal, launch)
    except RPCError as error:
        if error.status not in _NEVER:
            raise unreachable() from error
        if not await temporal.refresh_attributes():
            raise StartRefused(f"{error.status.name}: {error.message}") from error
        # A search attribute had been taken away meanwhile; without it the start may well be accepted.
        return await _start_workflow_again(temporal, launch)


async def _start_workflow_again(temporal: Temporal, launch: Launch) -> str | None:
    try:
        return await _start_workflow(temporal, launch)
    except RPCError as error:
        raise StartRefused(f"{error.status.name}: {error.message}") from error


async def _start_workflow(temporal: Temporal, launch: Launch) -> str | None:
    client = await temporal.start_client()
    has_attributes = temporal.attributes == frozenset(SEARCH_ATTRIBUTES)
    start = launch.start.model_copy(update={"has_search_attributes": has_attributes})
    try:
        # A worker's client is patient, and tries again for longer than a caller waits.
        with translated():
            async with asyncio.timeout(temporal.timeout.total_seconds()):
                handle = await client.start_workflow(
                    start.template,
                    args=[start, _as_stored(launch.definition)],
                    id=workflow_id(start.execution_id),
                    task_queue=temporal.settings.task_queue,
                    id_reuse_policy=_AGAIN if launch.again else _ONCE,
                    static_summary=_summary(launch),
                    search_attributes=_search_attributes(start, temporal.attributes),
                    rpc_timeout=temporal.timeout,
                    request_eager_start=temporal.beside_worker,
                )
    except WorkflowAlreadyStartedError:
        log.info("run_found_started", execution_id=str(start.execution_id))
        return None
    temporal.note_answer()
    return handle.first_execution_run_id


def repeated(earlier: Earlier, request_hash: str) -> Accepted:
    """The execution that a key was used for. Raises IDEMPOTENCY_CONFLICT when that was another request."""
    if earlier.request_hash != request_hash:
        raise Conflict("IDEMPOTENCY_CONFLICT", f"The key was used for another request: execution {earlier.id}.")
    return Accepted(earlier.id, earlier.status)


def _hash(request: StartRequest, context_text: str) -> str:
    entity = [request.trigger.get("entityType"), request.trigger.get("entityId")]
    rest = canonical_json({"entity": entity, "name": request.name, "version": request.version})
    return hashlib.sha256(f"{rest}\n{context_text}".encode()).hexdigest()


def _startable(target: Target, request: StartRequest) -> str:
    """The definition to run, as stored; raises when there is none that may be."""
    if target.template_status in (TemplateStatus.PAUSED, TemplateStatus.ARCHIVED):
        status = target.template_status
        error = Invalid(f"TEMPLATE_{status}", f"Template {target.template} is {status}.")
        queued = status == TemplateStatus.PAUSED and target.when_paused == AtRest.QUEUE
        raise Postponed(error) if queued else error
    if target.definition is None:
        if request.version is not None:
            raise AppError("VERSION_NOT_FOUND", 404, f"Template {target.template} has no version {request.version}.")
        raise Invalid("TEMPLATE_NOT_ACTIVE", f"Template {target.template} has no active version.")
    if target.version_status == VersionStatus.DRAFT:
        raise Conflict("VERSION_NOT_PUBLISHED", f"{target.version} is a draft; publish it first.")
    return target.definition


def _check_context(schema: dict[str, Any] | None, context: dict[str, Any], size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise AppError("CONTEXT_TOO_LARGE", 413, f"A context may have {most_bytes} bytes; this has {size}.")
    if schema is None:
        return
    try:
        found = violations(schema, context, at="context")
    except EngineError as error:
        raise Invalid("INPUT_SCHEMA_INVALID", f"The version's inputSchema cannot be used: {error}") from error
    if found:
        raise Invalid(
            "CONTEXT_INVALID",
            f"The context does not fit the version's inputSchema: {found[0].path}: {found[0].message}",
            [{"path": item.path, "message": item.message} for item in found],
        )


def _new_launch(target: Target, request: StartRequest, definition: str) -> Launch:
    execution_id = new_id()
    assert target.version_id is not None
    start = ExecutionStart(
        execution_id=execution_id,
        name=request.name or target.template_name,
        root_id=execution_id,
        template_id=target.template_id,
        template=target.template,
        version_id=target.version_id,
        version=target.version or "",
        context=request.context,
        trigger=request.trigger,
        entity_type=request.trigger.get("entityType"),
        entity_id=request.trigger.get("entityId"),
        local_actions=target.local_actions,
        long_actions=target.long_actions,
    )
    return Launch(start, target.template_name, definition)


def _as_stored(definition: str) -> RawValue:
    """The definition's own text as a payload: it is neither read nor written again on its way.

    The data converter leaves it in payload storage, which costs a statement for each definition, process and hour.
    """
    return RawValue(definition_payload(definition))


def _summary(launch: Launch) -> str:
    start = launch.start
    named = "" if start.name == launch.template_name else f"{start.name} · "
    text = f"{named}{launch.template_name} v{start.version}"
    if start.entity_type is not None:
        text += f" · {start.entity_type} {start.entity_id}"
    return summary(text)


def _search_attributes(start: ExecutionStart, usable: frozenset[str]) -> TypedSearchAttributes:
    values = {
        ATTRIBUTE_TEMPLATE: start.template,
        ATTRIBUTE_VERSION: start.version,
        ATTRIBUTE_ROOT: str(start.root_id),
        ATTRIBUTE_ENTITY_TYPE: start.entity_type,
        ATTRIBUTE_ENTITY_ID: start.entity_id,
    }
    return TypedSearchAttributes(
        [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
            for name, value in values.items()
            if value is not None and name in usable
        ]
    )

"""`POST /backfills/upload`: a backfill of a whole file, which is the request's body."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.requests import ClientDisconnect

from app.backfills.queries import find_progress
from app.backfills.schemas import BackfillCreate, BackfillView, backfill_view
from app.backfills.sources import Source
from app.backfills.uploading import FORMATS, Upload, format_of, too_large, upload_backfill
from app.db.statuses import EntityType
from app.dependencies import CallerPart, DatabasePart, SettingsPart, TemporalPart
from app.errors import Invalid
from app.problem_details import problem_responses
from app.wire import Name

UPLOAD = "/backfills/upload"

router = APIRouter(tags=["backfills"], responses=problem_responses(404, 409, 413, 415, 422, 503))

Column = Annotated[str | None, Query(min_length=1, max_length=1_000)]
Text = Annotated[str | None, Query(min_length=1, max_length=100)]
EXAMPLES = {
    "csv": "id,service,who\n1,SL,Ann\n2,SL,Bob\n",
    "ndjson": '{"id": 1, "who": "Ann"}\n{"id": 2, "who": "Bob"}\n',
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file: CSV with a header, or a JSON object on each line; UTF-8.",
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}, "example": EXAMPLES[kind]}
            for media_type, kind in FORMATS.items()
        },
    }
}


async def read_mapping(
    *,
    request: Request,
    delimiter: Annotated[str | None, Query(min_length=1, max_length=1, description="of a CSV")] = None,
    entity_id: Annotated[Column, Query(alias="entityId", description="the column of the entity's id")] = None,
    event_id: Annotated[Column, Query(alias="eventId", description="the column of the event's own id")] = None,
    name_column: Annotated[Column, Query(alias="nameColumn", description="the column of the executions' names")] = None,
    context: Annotated[
        list[str] | None, Query(max_length=500, description="`NAME=COLUMN` or a column; all columns without it")
    ] = None,
    expression: Annotated[
        str | None, Query(alias="map", min_length=1, max_length=8_192, description="JSONata that gives the context")
    ] = None,
    time: Annotated[Column, Query(description="the column of the time, ISO 8601")] = None,
    since: Annotated[Text, Query(description="no row before this time, ISO 8601")] = None,
    until: Annotated[Text, Query(description="no row from this time on, ISO 8601")] = None,
    rows: Annotated[int | None, Query(alias="limit", ge=1, description="so many rows at most")] = None,
) -> Source:
    """How the rows are read. Raises MEDIA_TYPE_UNKNOWN, MAPPING_INVALID."""
    kind = format_of(request.headers.get("content-type", ""))
    if delimiter is not None and kind != "csv":
        raise Invalid("MAPPING_INVALID", "Only a CSV has a delimiter.")
    return Source(
        kind=kind,
        delimiter=delimiter,
        entity_id=entity_id,
        event_id=event_id,
        name=name_column,
        context=dict(map(_pair, context or [])),
        map=expression,
        time=time,
        since=since,
        until=until,
        limit=rows,
    )


@router.post(
    UPLOAD,
    status_code=201,
    summary="Start executions for the rows of a file",
    name="uploadBackfill",
    response_model=BackfillView,
    openapi_extra=BODY,
)
async def upload(
    *,
    request: Request,
    source: Annotated[Source, Depends(read_mapping)],
    name: Annotated[Name, Query(description="what the backfill is called")],
    template: Annotated[str | None, Query(min_length=1, max_length=100, description="its slug or id")] = None,
    entity_type: Annotated[EntityType | None, Query(alias="entityType", description="what its rows are about")] = None,
    rate: Annotated[float | None, Query(gt=0, le=10_000, description="starts a second")] = None,
    concurrency: Annotated[int | None, Query(ge=1, le=1_000_000, description="open executions at once")] = None,
    start: Annotated[bool, Query(description="with false it is LOADING until it is started")] = True,
    database: DatabasePart,
    temporal: TemporalPart,
    settings: SettingsPart,
    caller: CallerPart,
) -> Any:
    """The whole file is taken, or nothing: a sender who goes away in the middle leaves no backfill behind. Rows that
    cannot be read are INVALID, with their line and the reason. A repetition with the same `Idempotency-Key` and the
    same file is answered with what the first has made.

    Codes: TARGET_MISSING, ENTITY_MISSING, TEMPLATE_NOT_FOUND, TEMPLATE_ARCHIVED, MAPPING_INVALID, TIME_INVALID,
    BODY_EMPTY, HEADER_INVALID, COLUMN_UNKNOWN, BODY_TOO_LARGE, MEDIA_TYPE_UNKNOWN, IDEMPOTENCY_CONFLICT.
    """
    most = settings.backfills.max_upload_bytes
    claimed = request.headers.get("content-length", "")
    if claimed.isdecimal() and int(claimed) > most:
        raise too_large(most)
    about = {"name": name, "template": template, "entityType": entity_type, "rate": rate, "concurrency": concurrency}
    wanted = Upload(BackfillCreate.model_validate(about), source, start)
    try:
        found = await upload_backfill(database, temporal, wanted, request.stream(), most, caller)
    except ClientDisconnect:
        # Nobody is there to be told.
        return Response(status_code=400)
    async with database.transaction() as session:
        progress = await find_progress(session, [found[0]])
    return backfill_view(found, progress[found[0].id])


def _pair(text: str) -> tuple[str, str]:
    name, _, column = text.partition("=")
    if not name.strip():
        raise Invalid("MAPPING_INVALID", f"A context is NAME=COLUMN, or a column: {text[:100]!r}.")
    return name.strip(), column.strip() or name.strip()

"""A whole file as the body of one request becomes a backfill: all of it, or nothing.

The body is written to a file before the database is asked for anything, so that a sender who is slow, or goes away,
holds no transaction open and leaves nothing behind.
"""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import IO, Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.repeating import Asked, find_made
from app.backfills.loading import MAKE, check_target, insert_rows
from app.backfills.mapping import Loadable, Mapping, mapped_rows
from app.backfills.queries import BackfillAndSlug
from app.backfills.rows import LARGEST_ROW, BadRow, csv_rows, ndjson_rows
from app.backfills.schemas import BackfillCreate, RowTaken
from app.backfills.service import get_backfill, make_backfill, start_backfill
from app.backfills.sources import Source
from app.canonical import canonical_json
from app.db.session import Connection, Database
from app.errors import AppError, Invalid
from app.executions.control import Caller
from app.temporal import Temporal

FORMATS: dict[str, Literal["csv", "ndjson"]] = {
    "text/csv": "csv",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
}
IN_MEMORY = 1024 * 1024
MOST_ROWS = 1_000
MOST_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """What is to become of a file: a backfill, whose rows are read as `source` says, and started unless told not to."""

    backfill: BackfillCreate
    source: Source
    start: bool


def format_of(content_type: str) -> Literal["csv", "ndjson"]:
    """What a body is by its media type. Raises MEDIA_TYPE_UNKNOWN (415)."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in FORMATS:
        message = f"A file of rows is {', '.join(FORMATS)}; this is {media_type[:100] or 'of no type'}."
        raise AppError("MEDIA_TYPE_UNKNOWN", 415, message)
    return FORMATS[media_type]


def too_large(most_bytes: int) -> AppError:
    """413: a file of more than so many bytes."""
    return AppError("BODY_TOO_LARGE", 413, f"A file of rows may have {most_bytes} bytes.")


def check_upload(upload: Upload) -> Mapping:
    """What is made of a row. Raises TARGET_MISSING, ENTITY_MISSING, MAPPING_INVALID, TIME_INVALID."""
    check_target(upload.backfill.template, upload.backfill.entity_type)
    if upload.backfill.template is None and upload.source.entity_id is None:
        raise Invalid("ENTITY_MISSING", "Say in which column the entity is: entityId.")
    return upload.source.mapping()


async def upload_backfill(
    database: Database, temporal: Temporal, upload: Upload, body: AsyncIterator[bytes], most_bytes: int, caller: Caller
) -> BackfillAndSlug:
    """A backfill with the rows of a file; a repetition with the caller's key, of the same file, gives the one there is.

    Raises BODY_TOO_LARGE (413), BODY_EMPTY, HEADER_INVALID, COLUMN_UNKNOWN, what `check_upload` and making and starting
    a backfill raise, and what `body` raises when the sender goes away: then there is no backfill.
    """
    mapping = check_upload(upload)
    with SpooledTemporaryFile(max_size=IN_MEMORY) as file:
        sha256 = await _keep(body, file, most_bytes)
        upload = Upload(upload.backfill, upload.source.model_copy(update={"sha256": sha256}), upload.start)
        async with database.transaction() as session:
            return await _made(session, temporal, upload, mapping, file, caller)


async def _made(
    session: AsyncSession, temporal: Temporal, upload: Upload, mapping: Mapping, file: IO[bytes], caller: Caller
) -> BackfillAndSlug:
    kept = upload.source.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    request = upload.backfill.model_copy(update={"source": kept})
    said = request.model_dump(mode="json", by_alias=True) | {"start": upload.start}
    asked = Asked("CREATE_BACKFILL", "BACKFILL", caller.actor, caller.key, said)
    earlier = await find_made(session, asked)
    if earlier is not None:
        return await get_backfill(session, UUID(earlier))
    found = await make_backfill(session, request, asked)
    connection = (await (await session.connection()).get_raw_connection()).driver_connection
    assert connection is not None
    await connection.execute(MAKE, str(found[0].id))
    await _load(connection, found, _chunks(_rows(upload.source, mapping, file)))
    if upload.start:
        return await start_backfill(session, temporal, found[0].id, caller.actor)
    return found


async def _keep(body: AsyncIterator[bytes], file: IO[bytes], most_bytes: int) -> str:
    """Writes a body to a file, which stands at its beginning then; the SHA-256 of it."""
    sha256, size = hashlib.sha256(), 0
    async for part in body:
        size += len(part)
        if size > most_bytes:
            raise too_large(most_bytes)
        sha256.update(part)
        await asyncio.to_thread(file.write, part)
    if not size:
        raise Invalid("BODY_EMPTY", "The request has no body; the file is its body.")
    file.seek(0)
    return sha256.hexdigest()


def _rows(source: Source, mapping: Mapping, file: IO[bytes]) -> Iterator[Loadable | BadRow]:
    # As for files that the command line reads: what is not UTF-8 becomes a bad row.
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reads = csv_rows(lines, source.delimiter, mapping.columns()) if source.kind == "csv" else ndjson_rows(lines)
    return mapped_rows(reads, mapping, source.limit)


def _chunks(rows: Iterator[Loadable | BadRow]) -> Iterator[list[RowTaken]]:
    chunk: list[RowTaken] = []
    size = 0
    for row in rows:
        taken, more = _taken(row)
        chunk.append(taken)
        size += more
        if len(chunk) == MOST_ROWS or size > MOST_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _taken(row: Loadable | BadRow) -> tuple[RowTaken, int]:
    """A row as it is loaded, and about how many bytes it has."""
    said = row.context if isinstance(row, Loadable) else row.raw
    size = len(canonical_json(said).encode(errors="replace"))
    if size > LARGEST_ROW:
        return _taken(BadRow(row.number, "ROW_TOO_LARGE", f"A row may have {LARGEST_ROW} bytes."))
    return RowTaken.model_construct(**{each.name: getattr(row, each.name) for each in fields(row)}), size


async def _load(connection: Connection, found: BackfillAndSlug, chunks: Iterator[list[RowTaken]]) -> None:
    """Reading and mapping is done in a thread: this one answers others meanwhile."""
    backfill = found[0]
    while taken := await asyncio.to_thread(lambda: list(islice(chunks, 1))):
        await insert_rows(connection, backfill.id, taken[0], by_link=backfill.template_id is None)

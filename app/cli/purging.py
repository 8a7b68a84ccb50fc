"""`millrace purge`: deletes now what retention would delete in its own time."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from app.cli.api_client import acting
from app.cli.output import AsJson, out, print_json
from app.settings import Settings


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("purge")(purge)


@dataclass(frozen=True, slots=True)
class Purged:
    """What was deleted, or with a dry run would be; `bytes` are those of the stored values, known of a dry run only."""

    dead_letters: int
    events: int
    versions: int
    values: int
    backfill_rows: int
    bytes: int | None


def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters, events and rows of backfills that are old enough, and versions and stored values that nobody
    can need any more.

    How old is configured: MILLRACE_RECONCILER__DEAD_LETTER_DAYS, MILLRACE_INBOX__KEEP_DAYS,
    MILLRACE_BACKFILLS__KEEP_DAYS, MILLRACE_PAYLOADS__KEEP_DAYS. APIs do the same by themselves; this is for when the
    room is needed now. It works on the database, not over the API.
    """
    from app.cli import serving
    from app.observability import configure_logging

    settings = Settings()
    configure_logging(settings.log)
    purged = asyncio.run(_purge(serving.complete_settings(settings), dry_run=dry_run))
    if as_json:
        found = {
            "deadLetters": purged.dead_letters,
            "events": purged.events,
            "versions": purged.versions,
            "values": purged.values,
            "backfillRows": purged.backfill_rows,
            "bytes": purged.bytes,
            "dryRun": dry_run,
        }
        print_json({name: value for name, value in found.items() if value is not None})
        return
    size = "" if purged.bytes is None else f" ({purged.bytes:,} bytes)"
    verb = "would go" if dry_run else "are gone"
    rows = f"{purged.dead_letters} dead letter(s), {purged.events} event(s), {purged.versions} version(s)"
    more = f"{purged.backfill_rows} row(s) of backfills and {purged.values} stored value(s){size}"
    out.print(f"{rows}, {more} {verb}.")


async def _purge(settings: Settings, *, dry_run: bool) -> Purged:
    from app.audit.service import Deed, audited
    from app.backfills.retention import count_old_rows, delete_old_rows
    from app.cli import serving
    from app.db.session import Database
    from app.dead_letters.queries import count_dead_letters, delete_dead_letters
    from app.inbox.queries import count_old_events, delete_old_events
    from app.payloads.retention import count_purgeable, keep_for, purge_blobs
    from app.versions.retention import find_prunable, prune_versions

    now = datetime.now(UTC)
    before = now - timedelta(days=settings.reconciler.dead_letter_days)
    rows_before = now - timedelta(days=settings.backfills.keep_days)
    events_before = now - timedelta(days=settings.inbox.keep_days)
    database = Database(serving.database_url(settings), settings.database)
    try:
        async with serving.temporal_of(settings) as temporal:
            keep = await keep_for(temporal, settings.payloads)
        if dry_run:
            async with database.transaction() as session:
                letters = await count_dead_letters(session, before, None)
                events = await count_old_events(session, events_before)
                versions = len(await find_prunable(session))
            rows = await count_old_rows(database, rows_before)
            values, size = await count_purgeable(database, keep)
            return Purged(letters, events, versions, values, rows, size)
        async with audited(database, Deed("PURGE", "RETENTION", None, acting().get("X-Millrace-Actor"))) as deed:
            async with database.transaction() as session:
                letters = await delete_dead_letters(session, before, None)
                events = await delete_old_events(session, events_before)
            versions = await prune_versions(database)
            rows = await delete_old_rows(database, rows_before)
            purged = Purged(letters, events, versions, await purge_blobs(database, keep), rows, None)
            deed.after = {
                "deadLetters": letters,
                "events": events,
                "versions": versions,
                "values": purged.values,
                "backfillRows": rows,
            }
        return purged
    finally:
        await database.close()

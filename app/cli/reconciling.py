"""`millrace reconcile`: does now what the APIs do every few seconds, and says what it has mended."""

import asyncio
from collections import Counter
from datetime import timedelta

import typer

from app.cli.api_client import acting
from app.cli.output import AsJson, print_fields, print_json
from app.settings import Settings


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("reconcile")(reconcile)


def reconcile(as_json: AsJson = False) -> None:
    """Bring rows, runs, schedules and the inbox together now, and print what was mended.

    APIs do the same by themselves, a page at a time; this goes over everything once. It works on the database and on
    Temporal, not over the API. Rows that are younger than MILLRACE_RECONCILER__GRACE seconds are let be.
    """
    from app.cli import serving
    from app.observability import configure_logging

    settings = Settings()
    configure_logging(settings.log)
    mended = asyncio.run(_reconcile(serving.complete_settings(settings)))
    if as_json:
        print_json(mended)
        return
    print_fields(
        {
            "executions started": mended["started"],
            "refused for good": mended["refused"],
            "executions closed": mended["closed"],
            "reopened ones begun": mended["reopened"],
            "tasks and incidents closed": mended["leftovers"],
            "schedules repaired": mended["schedules"],
            "events delivered": mended["events"],
        }
    )


async def _reconcile(settings: Settings) -> dict[str, int]:
    from app.audit.service import Deed, audited
    from app.cli import serving
    from app.db.session import Database
    from app.executions.reconciler import Sweep, reconcile_once
    from app.inbox.calling import call_queued
    from app.inbox.delivering import deliver_due
    from app.schedules.reconciling import reconcile_schedules

    patience = settings.reconciler
    sweep = Sweep(lost_after=timedelta(seconds=patience.lost_after))
    keep = timedelta(days=patience.dead_letter_days)
    database = Database(serving.database_url(settings), settings.database)
    mended: Counter[str] = Counter()
    try:
        async with (
            serving.temporal_of(settings) as temporal,
            audited(database, Deed("RECONCILE", "INSTALLATION", None, acting().get("X-Millrace-Actor"))) as deed,
        ):
            more = True
            while more:
                done = await reconcile_once(database, temporal, timedelta(seconds=patience.grace), sweep, keep)
                mended.update(done.counts())
                more = sweep.after is not None or sweep.after_tasks is not None
            schedules = await reconcile_schedules(database, temporal)
            mended["schedules"] = schedules.pushed + schedules.deleted
            await call_queued(database, settings.limits)
            more = True
            while more:
                delivered = await deliver_due(database, temporal, settings)
                mended["events"] += delivered
                more = delivered == settings.inbox.batch
            names = ("started", "refused", "closed", "reopened", "leftovers", "schedules", "events")
            deed.after = {name: mended[name] for name in names}
            return {name: mended[name] for name in names}
    finally:
        await database.close()

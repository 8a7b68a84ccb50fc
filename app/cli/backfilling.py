"""What `millrace backfill` does: it loads rows, starts the backfill and follows it to its end."""

import csv
import json
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from app.backfills.mapping import Loadable
from app.backfills.rows import BadRow
from app.backfills.sources import Source, check_unchanged, fingerprint, read_source
from app.cli.api_client import Api, acting, open_api, segment, with_own_database
from app.cli.backfill_loading import Checked, as_sent, check, load, patiently
from app.cli.backfill_progress import follow
from app.cli.backfills import print_backfill
from app.cli.output import err, print_fields, print_json, print_table
from app.errors import Invalid
from app.settings import OWN_CONNECTION, Settings

SHOWN_PROBLEMS = 10


def resume(api: str | None, backfill_id: str, detach: bool, bad_rows: Path | None, as_json: bool) -> None:
    """Goes on with a backfill where it was."""
    with open_api(api) as calls:
        _go_on(calls, backfill_id, detach, bad_rows, as_json)


def start(
    api: str | None,
    source: Source,
    body: dict[str, Any],
    key: str | None,
    detach: bool,
    bad_rows: Path | None,
    as_json: bool,
) -> None:
    """Makes a backfill of the source's rows. A source that cannot be read at all leaves none behind."""
    with open_api(api) as calls:
        with closing(_rows(source)) as rows:
            next(rows, None)
        kept = source.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        made = calls.post("/backfills", {**body, "source": kept}, headers=acting(key))
        _go_on(calls, made["id"], detach, bad_rows, as_json)


def _go_on(calls: Api, backfill_id: str, detach: bool, bad_rows: Path | None, as_json: bool) -> None:
    """Loads what is not loaded yet, starts it, and follows it to its end."""
    path = f"/backfills/{segment(backfill_id)}"
    found = calls.get(path)
    try:
        if found["status"] == "LOADING":
            source = Source.model_validate(found["source"])
            check_unchanged(source)
            if source.file is not None or source.query is not None:
                load(calls, path, _rows(source), found["lastNumber"] or 0, found["name"])
            found = patiently(lambda: calls.post(f"{path}/start"))
        if not detach:
            found = follow(calls, path, found, quiet=as_json)
    except KeyboardInterrupt:
        _say_how_to_go_on(backfill_id, found["status"])
        raise typer.Exit(130) from None
    if bad_rows is not None:
        statuses = ["INVALID", "REFUSED"]
        _write_bad_rows(bad_rows, calls.pages(f"{path}/rows", status=statuses, limit=100))
    if as_json:
        print_json(found)
    else:
        print_backfill(found)
        if detach:
            _say_how_to_go_on(backfill_id, found["status"])
    if not detach and (found["status"] != "COMPLETED" or found["rows"]["refused"] or found["rows"]["invalid"]):
        raise typer.Exit(1)


def _rows(source: Source) -> Generator[Loadable | BadRow, None, None]:
    """The rows of a source; those of a query in Millrace's own database also while it is a `millrace dev`'s."""
    settings = Settings()
    own = source.kind == "sql" and (source.connection or OWN_CONNECTION) == OWN_CONNECTION
    if own and OWN_CONNECTION not in settings.connections:
        settings = with_own_database(settings)
    return read_source(source, settings)


def try_out(api: str | None, source: Source, target: dict[str, str], bad_rows: Path | None, as_json: bool) -> None:
    """Checks every row and shows what is wrong with them."""
    with open_api(api) as calls:
        found: Checked = check(calls, target, _rows(source))
    if bad_rows is not None:
        _write_bad_rows(bad_rows, found.bad)
    if as_json:
        print_json(
            {
                "rows": found.rows,
                "valid": found.valid,
                "repeated": found.repeated,
                "problems": dict(found.codes),
                "first": [
                    {name: one[name] for name in ("number", "code", "message")} for one in found.bad[:SHOWN_PROBLEMS]
                ],
            }
        )
    else:
        print_fields({"rows": found.rows, "would start": found.valid, "started before": found.repeated} | found.codes)
        shown = [(one["number"], one["code"], one["message"]) for one in found.bad[:SHOWN_PROBLEMS]]
        print_table(("row", "code", "reason"), shown, empty="every row would be taken")
    if found.bad:
        raise typer.Exit(1)


def _write_bad_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    try:
        with file.open("w", encoding="utf-8", newline="") as written:
            lines = csv.writer(written)
            lines.writerow(("number", "code", "reason", "row"))
            for row in rows:
                said = row.get("raw") if row.get("raw") is not None else as_sent(row)
                lines.writerow((row["number"], row["code"], row["message"], json.dumps(said, ensure_ascii=False)))
    except OSError as error:
        raise Invalid("FILE_NOT_WRITABLE", f"{file}: {error.strerror or error}") from error


def _say_how_to_go_on(backfill_id: str, status: str) -> None:
    if status == "LOADING":
        says = f"Its rows are not all loaded. Go on: millrace backfill --resume {backfill_id}"
    else:
        says = (
            f"It goes on without this terminal. Watch it: millrace backfill --resume {backfill_id}\n"
            f"Also: millrace backfills pause|resume|cancel|show {backfill_id}"
        )
    err.print(Text(says), soft_wrap=True)


def source_of(
    file: Path | None, sql: str | None, connection: str | None, written: str | None, delimiter: str | None
) -> Source:
    """The file or the query that was named."""
    if (file is None) == (sql is None):
        raise typer.BadParameter("name a FILE, or a query with --sql")
    if file is None:
        return Source(kind="sql", query=sql, connection=connection)
    if connection is not None:
        raise typer.BadParameter("--connection is for --sql")
    kind = written or ("ndjson" if file.suffix in {".ndjson", ".jsonl"} else "csv")
    if delimiter is not None and (len(delimiter) != 1 or kind != "csv"):
        raise typer.BadParameter("--delimiter is one character, of a CSV")
    whole = file.resolve()
    return Source(
        kind="csv" if kind == "csv" else "ndjson", file=str(whole), sha256=fingerprint(whole), delimiter=delimiter
    )


def name_of(source: Source) -> str:
    """What a backfill is called that nobody gave a name."""
    return Path(source.file).name[:200] if source.file else "query"

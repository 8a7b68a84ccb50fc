"""`millrace backfill` as a user runs it, over a file, a query and a live event."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.running import dev_file, eventually, fresh_home, millrace, started

DEFINITION = {
    "schemaVersion": 1,
    "inputSchema": {"type": "object", "required": ["who"], "properties": {"who": {"type": "string", "minLength": 1}}},
    "steps": [
        {"id": "start", "type": "START", "name": "Start"},
        {"id": "note", "type": "SYS_SET", "name": "Note", "assignments": [
            {"targetPath": "noted", "value": {"type": "const", "value": True}}
        ]},
        {"id": "end", "type": "END", "name": "End"},
    ],
    "stepTransitions": [
        {"id": "t1", "fromStepId": "start", "toStepId": "note"},
        {"id": "t2", "fromStepId": "note", "toStepId": "end"},
    ],
}  # fmt: skip
REQUESTS = (
    'id;service;who;at\n1;SL;Ann;2026-01-01\n2;SL;;2026-01-02\n3;SL\n4;NO;Bob;2026-01-03\n5;SL;"Z\noë";2026-01-04\n'
)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The home of a running stack with one template, to which the service SL is linked."""
    with fresh_home() as folder, started(folder, "dev"):
        eventually(lambda: dev_file(folder))
        file = folder / "past.json"
        file.write_text(json.dumps(DEFINITION))
        said = millrace(folder, "publish", str(file), "--slug", "past", "--version", "1.0.0", "--activate")
        assert said.code == 0, said.err
        assert millrace(folder, "link", "SERVICE_CATALOG", "SL", "past").code == 0
        (folder / "requests.csv").write_text(REQUESTS)
        yield folder


BY_LINK = ("--entity-type", "SERVICE_CATALOG", "--entity-id", "service", "--event-id", "id", "--context", "who")


def _backfills(home: Path) -> Any:
    return millrace(home, "backfills", "list", "--json").json()


def _codes(file: Path) -> list[tuple[str, str]]:
    with file.open(newline="") as written:
        return [(row["number"], row["code"]) for row in csv.DictReader(written)]


def test_a_dry_run_counts_and_names_what_would_be_refused_and_starts_nothing(home: Path) -> None:
    bad = home / "bad-dry.csv"
    said = millrace(
        home, "backfill", str(home / "requests.csv"), *BY_LINK, "--dry-run", "--bad-rows", str(bad), "--json"
    )
    assert said.code == 1
    found = said.json()
    assert (found["rows"], found["valid"], found["repeated"]) == (5, 2, 0)
    assert found["problems"] == {"CONTEXT_INVALID": 1, "COLUMNS_WRONG": 1, "UNLINKED": 1}
    assert sorted(_codes(bad)) == [("3", "CONTEXT_INVALID"), ("4", "COLUMNS_WRONG"), ("5", "UNLINKED")]
    assert _backfills(home) == []


def test_a_file_is_started_row_by_row_and_bad_rows_are_written_to_a_file(home: Path) -> None:
    bad = home / "bad.csv"
    words = (*BY_LINK, "--bad-rows", str(bad), "--json")
    said = millrace(home, "backfill", str(home / "requests.csv"), *words)
    assert said.code == 1, said.err
    found = said.json()
    assert (found["status"], found["rows"]["started"], found["lastNumber"]) == ("COMPLETED", 2, 6)
    assert _codes(bad) == [("3", "CONTEXT_INVALID"), ("4", "COLUMNS_WRONG"), ("5", "UNLINKED")]
    rows = millrace(home, "backfills", "rows", found["id"], "--status", "STARTED", "--json").json()
    assert [(one["number"], one["context"]) for one in rows] == [(2, {"who": "Ann"}), (6, {"who": "Z\noë"})]

    # The same requests again: those that were started are known by their own ids.
    again = millrace(home, "backfill", str(home / "requests.csv"), *words).json()
    assert (again["rows"]["started"], again["rows"]["repeated"]) == (0, 2)

    # What is over can be looked at again, and not be changed.
    assert millrace(home, "backfill", "--resume", found["id"], "--json").json()["rows"] == found["rows"]
    refused = millrace(home, "backfills", "pause", found["id"])
    assert (refused.code, refused.err.split(":")[0]) == (1, "BACKFILL_OVER")


def test_a_query_of_a_configured_connection_is_a_source(home: Path) -> None:
    connection = {"MILLRACE_CONNECTIONS__CRM": _url_of_the_embedded_server(home)}
    query = "SELECT n AS id, 'who ' || n AS who FROM generate_series(1, 12) AS n ORDER BY n"
    words = ("--sql", query, "--connection", "crm", "--template", "past", "--map", '{"who": __trigger__.who & "!"}')
    said = millrace(home, "backfill", *words, "--name", "From the CRM", "--concurrency", "4", "--json", **connection)
    assert said.code == 0, said.err
    assert said.json()["rows"]["started"] == 12
    rows = millrace(home, "backfills", "rows", said.json()["id"], "--json").json()
    assert rows[0]["context"] == {"who": "who 1!"}
    shown = millrace(home, "backfills", "show", said.json()["id"])
    assert "12 started" in shown.out
    assert "From the CRM" in millrace(home, "backfills", "list").out


def test_a_query_of_millraces_own_database_finds_the_one_that_runs_here(home: Path) -> None:
    query = "SELECT 'who ' || slug AS who FROM workflow_template ORDER BY id"
    words = ("--sql", query, "--template", "past", "--json")
    for named in ((), ("--connection", "millrace")):
        said = millrace(home, "backfill", *words, *named)
        assert said.code == 0, said.err
        assert said.json()["rows"]["started"] == 1
    dry = millrace(home, "backfill", *words, "--dry-run")
    assert dry.json()["valid"] == 1


def test_refused_rows_are_retried_when_what_refused_them_is_mended(home: Path) -> None:
    file = home / "waiting.csv"
    file.write_text("service,who\nRT,Ann\nRT,Bob\n")
    words = ("--entity-type", "SERVICE_CATALOG", "--entity-id", "service")
    said = millrace(home, "backfill", str(file), *words, "--json")
    assert (said.code, said.json()["rows"]["refused"]) == (1, 2)
    backfill_id = said.json()["id"]
    assert millrace(home, "link", "SERVICE_CATALOG", "RT", "past").code == 0
    wrong = millrace(home, "backfills", "retry", backfill_id, "--code", "CONTEXT_INVALID")
    assert (wrong.code, wrong.err.split(":")[0]) == (1, "NOTHING_TO_RETRY")
    assert millrace(home, "backfills", "retry", backfill_id, "--code", "UNLINKED", "--key", "once").code == 0
    over = millrace(home, "backfill", "--resume", backfill_id, "--json")
    assert (over.code, over.json()["rows"]["started"]) == (0, 2)
    assert millrace(home, "backfills", "retry", backfill_id, "--code", "UNLINKED", "--key", "once").code == 0
    assert millrace(home, "backfills", "retry", backfill_id).code == 1


def test_a_file_that_was_uploaded_over_http_is_started_by_the_command(home: Path) -> None:
    query = {"name": "Uploaded", "template": "past", "start": "false"}
    address = f"{dev_file(home)['api']}/api/v1/backfills/upload"
    made = httpx.post(address, params=query, content=b"who\nAnn\nBob\n", headers={"Content-Type": "text/csv"})
    assert made.status_code == 201, made.text
    said = millrace(home, "backfill", "--resume", made.json()["id"], "--json")
    assert said.code == 0, said.err
    assert said.json()["rows"]["started"] == 2


def test_a_detached_backfill_is_paused_resumed_and_cancelled(home: Path) -> None:
    file = home / "many.csv"
    file.write_text("who\n" + "Ann\n" * 200)
    words = ("--template", "past", "--rate", "2", "--detach")
    said = millrace(home, "backfill", str(file), *words)
    assert said.code == 0, said.err
    backfill_id = _backfills(home)[0]["id"]
    assert f"--resume {backfill_id}" in said.err
    assert "is PAUSED" in millrace(home, "backfills", "pause", backfill_id).out
    assert "is RUNNING" in millrace(home, "backfills", "resume", backfill_id).out
    assert "is CANCELLED" in millrace(home, "backfills", "cancel", backfill_id).out
    assert millrace(home, "backfill", "--resume", backfill_id).code == 1


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("requests.csv",),
        ("requests.csv", "--sql", "SELECT 1", "--template", "past"),
        ("requests.csv", "--entity-type", "PRODUCT"),
        ("requests.csv", "--template", "past", "--entity-id", "id"),
        ("requests.csv", "--template", "past", "--connection", "crm"),
        ("requests.csv", "--template", "past", "--delimiter", ";;"),
    ],
    ids=" ".join,
)
def test_words_that_contradict_each_other_are_a_mistake_of_usage(home: Path, words: tuple[str, ...]) -> None:
    said = millrace(home, "backfill", *(str(home / word) if word.endswith(".csv") else word for word in words))
    assert said.code == 2, said.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("requests.csv", "--template", "nothing"), "TEMPLATE_NOT_FOUND"),
        (("requests.csv", "--template", "past", "--event-id", "number"), "COLUMN_UNKNOWN"),
        (("nothing.csv", "--template", "past"), "FILE_NOT_READABLE"),
        (("requests.csv", "--template", "past", "--map", "__context__.a"), "MAPPING_INVALID"),
        (("--sql", "SELECT 1 AS a", "--connection", "erp", "--template", "past"), "CONNECTION_UNKNOWN"),
        (("--resume", "01a1fc2c-15f8-74f3-b370-5e5f51682991"), "BACKFILL_NOT_FOUND"),
    ],
    ids=str,
)
def test_what_cannot_be_begun_is_refused_and_leaves_no_backfill(home: Path, words: tuple[str, ...], code: str) -> None:
    before = len(_backfills(home))
    said = millrace(home, "backfill", *(str(home / word) if word.endswith(".csv") else word for word in words))
    assert (said.code, said.err.split(":")[0]) == (1, code)
    assert len(_backfills(home)) == before


def _url_of_the_embedded_server(home: Path) -> str:
    url: str = dev_file(home)["database"]
    return url.replace("+asyncpg", "")

"""What the command line shows, against a running `millrace dev`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.running import dev_file, eventually, fresh_home, millrace, started
from tests.acceptance.test_steering import execute, ok, publish, refused, waits
from tests.documents import confirm, delay, expr, form, line, put

LONG_TEXT = "x" * 3_000


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with fresh_home() as folder, started(folder, "dev"):
        eventually(lambda: dev_file(folder))
        publish(folder, "large", "1.0.0", line(put("note", text=LONG_TEXT), output=expr("__context__")))
        waiting = confirm("check", forEach={"iterable": {"type": "EXPRESSION", "expr": {"src": "[1, 2]"}}})
        publish(folder, "asking", "1.0.0", line(waiting, delay("rest", "PT1H")))
        publish(folder, "asking", "1.1.0", line(waiting, delay("rest", "PT2H")))
        yield folder


def test_a_large_output_is_cut_in_the_table_and_whole_where_it_is_asked_for(home: Path) -> None:
    execution_id = execute(home, "large")
    eventually(lambda: "output" in ok(millrace(home, "executions", "show", execution_id, "--json")))
    shown = millrace(home, "executions", "show", execution_id).out
    assert LONG_TEXT not in shown
    assert "--json has them all" in shown
    assert ok(millrace(home, "executions", "show", execution_id, "--output")) == {"text": LONG_TEXT}
    other = execute(home, "asking")
    refused(millrace(home, "executions", "show", other, "--output"), "NO_OUTPUT")


def test_what_is_waited_for_names_the_item_and_ids_are_whole_when_piped(home: Path) -> None:
    execution_id = execute(home, "asking")
    waits(home, execution_id, "PERSON")
    shown = millrace(home, "executions", "show", execution_id).out
    rows = [row.split() for row in shown.splitlines() if row.startswith("PERSON")]
    assert [row[:4] for row in rows] == [["PERSON", "check", "1", "0"], ["PERSON", "check", "1", "1"]]
    [step] = [row for row in shown.splitlines() if row.startswith("check")]
    assert "0 of 2" in step
    listed = millrace(home, "executions", "list").out.splitlines()
    assert all(len(row.split()[0]) == 36 for row in listed[1:]), "an id a row, and a row a line"

    assert millrace(home, "executions", "pause", execution_id).code == 0
    assert "paused" in millrace(home, "executions", "show", execution_id).out
    paused = ok(millrace(home, "executions", "show", execution_id, "--json"))["paused"]
    assert paused["by"]


def test_what_does_not_fit_a_form_is_told_with_its_path(home: Path) -> None:
    schema = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
    publish(home, "form", "1.0.0", line(form("ask", schema)))
    execution_id = execute(home, "form")
    waits(home, execution_id, "PERSON")
    said = millrace(home, "executions", "complete", execution_id, "ask", "--data", '{"amount": "3"}', "--json")
    assert said.code == 1
    problem = json.loads(said.err)
    assert (problem["code"], [one["path"] for one in problem["problems"]]) == ("FORM_INVALID", ["data.amount"])


def test_a_skipped_timer_says_who_did_not_want_to_wait(home: Path) -> None:
    execution_id = execute(home, "asking")
    waits(home, execution_id, "PERSON")
    for item in ("0", "1"):
        assert millrace(home, "executions", "complete", execution_id, "check", "--item", item).code == 0
    waits(home, execution_id, "TIMER")
    assert millrace(home, "executions", "skip-timer", execution_id, "rest", "--reason", "late").code == 0
    shown = millrace(home, "executions", "step", execution_id, "rest").out
    assert "SKIPPED" in shown
    assert "SKIP_TIMER" in shown
    [visit] = ok(millrace(home, "executions", "step", execution_id, "rest", "--json"))["visits"]
    request, timer = visit["calls"]
    assert (request["kind"], request["answer"], timer["status"]) == ("CONTROL", "APPLIED", "SKIPPED")
    assert timer["who"] == request["who"]
    assert "CANCELLED" not in shown


def test_versions_are_listed_and_named_by_their_number(home: Path) -> None:
    listed = ok(millrace(home, "versions", "list", "asking", "--json"))
    assert [(one["version"], one["active"]) for one in listed] == [("1.1.0", True), ("1.0.0", False)]
    assert "1.1.0" in millrace(home, "versions", "list", "asking").out
    publish(home, "moving", "1.0.0", line(delay("rest", "PT1H")))
    execution_id = execute(home, "moving")
    waits(home, execution_id, "TIMER")
    publish(home, "moving", "1.1.0", line(delay("rest", "PT1H"), put("note", moved=True)))
    report = ok(millrace(home, "executions", "migrate", execution_id, "moving@1.1.0", "--dry-run", "--json"))
    assert (report["verdict"], report["version"]) == ("SAFE", "1.1.0")
    refused(millrace(home, "executions", "migrate", execution_id, "moving@9.9.9"), "VERSION_NOT_FOUND")
    words = ("executions", "bulk", "migrate", "--version", "moving@1.0.0", "--to", "moving@1.1.0", "--dry-run")
    [found] = ok(millrace(home, *words, "--json"))
    assert found["executionId"] == execution_id


def test_lists_leave_children_out_when_roots_are_asked_for(home: Path) -> None:
    listed = ok(millrace(home, "executions", "list", "--roots", "--json"))
    assert listed
    assert all(one["parentId"] is None for one in listed)


def test_a_purge_counts_before_it_deletes(home: Path) -> None:
    nothing = {"deadLetters": 0, "events": 0, "versions": 0, "values": 0, "backfillRows": 0}
    assert ok(millrace(home, "purge", "--dry-run", "--json")) == nothing | {"bytes": 0, "dryRun": True}
    assert ok(millrace(home, "purge", "--json")) == nothing | {"dryRun": False}
    said = millrace(home, "purge").out
    assert "0 dead letter(s), 0 event(s), 0 version(s), 0 row(s) of backfills and 0 stored value(s) are gone." in said
    events = ok(millrace(home, "executions", "audit", "--action", "PURGE", "--json"))
    assert events[0]["after"] == nothing


def test_a_reconciliation_says_what_it_has_mended(home: Path) -> None:
    mended = ok(millrace(home, "reconcile", "--json"))
    assert set(mended) == {"started", "refused", "closed", "reopened", "leftovers", "schedules", "events"}
    assert "schedules repaired" in millrace(home, "reconcile").out
    events = ok(millrace(home, "executions", "audit", "--action", "RECONCILE", "--json"))
    assert len(events) == 2
    assert set(events[0]["after"]) == set(mended)

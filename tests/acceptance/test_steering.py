"""Steering from the command line, against a running `millrace dev` and the real interpreter."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.api_client import Api
from tests.acceptance.running import Said, dev_file, eventually, fresh_home, millrace, started
from tests.documents import confirm, line, put, step

# Nothing listens there, and http.request may not go there either: it fails at once, and for good.
REFUSED = {"actionKey": "http.request", "parameters": {"method": "GET", "url": "http://127.0.0.1:1/"}}
LONG = line(
    step("wait", "SYS_WAIT_SIGNAL", signal="go"),
    step("rest", "SYS_DELAY", duration="PT1H"),
    step("call", "SYS_ACTION", onFailure="INCIDENT", **REFUSED),
)
AWAITING = line(
    step(
        "wait", "SYS_WAIT_SIGNAL", signal="paid", correlationKey={"type": "expr", "expr": {"src": "__context__.order"}}
    )
)
BRITTLE = line(put("note", noted=True), step("call", "SYS_ACTION", **REFUSED), confirm("check"))
BRITTLE_MENDED = line(put("note", noted=True), confirm("check"), put("stamp", stamped=True))


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with fresh_home() as folder, started(folder, "dev"):
        eventually(lambda: dev_file(folder))
        for slug, definition in (
            ("long", LONG),
            ("brittle", BRITTLE),
            ("asking", line(confirm("check"))),
            ("awaiting", AWAITING),
        ):
            publish(folder, slug, "1.0.0", definition)
        yield folder


def publish(home: Path, slug: str, version: str, definition: dict[str, Any]) -> str:
    """Publishes a version, and gives its id."""
    file = home / f"{slug}-{version}.json"
    file.write_text(json.dumps({"schemaVersion": 1, **definition}))
    said = ok(millrace(home, "publish", str(file), "--slug", slug, "--version", version, "--activate", "--json"))
    return str(said["id"])


def ok(said: Said) -> Any:
    assert said.code == 0, said.err + said.out
    return said.json()


def refused(said: Said, code: str) -> None:
    assert (said.code, said.err.split(":")[0]) == (1, code), said.err + said.out


def seen(home: Path, execution_id: str) -> dict[str, Any]:
    with Api(dev_file(home)["api"]) as api:
        found: dict[str, Any] = api.get(f"/executions/{execution_id}")
    return found


def becomes(home: Path, execution_id: str, status: str) -> dict[str, Any]:
    eventually(lambda: seen(home, execution_id)["runtimeStatus"] == status)
    return seen(home, execution_id)


def waits(home: Path, execution_id: str, *kinds: str) -> None:
    eventually(lambda: {one["kind"] for one in seen(home, execution_id)["waitingFor"] or []} == set(kinds))


def execute(home: Path, slug: str) -> str:
    return str(ok(millrace(home, "execute", slug, "--json"))["executionId"])


def started_with(home: Path, order: str) -> str:
    """An execution that waits for the payment of an order."""
    file = home / f"{order}.json"
    file.write_text(json.dumps({"order": order}))
    return str(ok(millrace(home, "execute", "awaiting", str(file), "--json"))["executionId"])


def test_a_signal_a_skipped_timer_and_a_resolved_incident_lead_to_the_end(home: Path) -> None:
    execution_id = execute(home, "long")
    waits(home, execution_id, "SIGNAL")
    refused(millrace(home, "executions", "signal", execution_id, "go", "{nonsense"), "JSON_INVALID")
    refused(millrace(home, "executions", "skip-timer", execution_id, "rest"), "NO_TIMER")
    answer = ok(millrace(home, "executions", "signal", execution_id, "go", '{"n": 1}', "--key", "k", "--json"))
    assert answer["status"] == "DELIVERED"
    again = ok(millrace(home, "executions", "signal", execution_id, "go", '{"n": 1}', "--key", "k", "--json"))
    assert again == answer
    waits(home, execution_id, "TIMER")
    assert millrace(home, "executions", "skip-timer", execution_id, "rest").code == 0

    waits(home, execution_id, "INCIDENT")
    words = ("incidents", "list", "--execution", execution_id, "--json")
    [incident] = eventually(lambda: ok(millrace(home, *words)))
    assert (incident["stepId"], incident["code"], incident["template"]) == ("call", "HTTP_ADDRESS_REFUSED", "long")
    shown = millrace(home, "executions", "show", execution_id).out
    assert f"HTTP_ADDRESS_REFUSED: {incident['message']}" in shown
    assert millrace(home, "executions", "incident", execution_id, "call", "retry").code == 0
    eventually(lambda: [one["resolution"] for one in ok(millrace(home, *words, "--resolved"))] == ["RETRIED"])
    waits(home, execution_id, "INCIDENT")
    done = millrace(home, "executions", "incident", execution_id, "call", "complete", "--output", '{"status": 200}')
    assert done.code == 0, done.err
    becomes(home, execution_id, "COMPLETED")
    refused(millrace(home, "executions", "incident", execution_id, "call", "fail"), "EXECUTION_ENDED")

    events = ok(millrace(home, "executions", "audit", execution_id, "--json"))
    assert [(event["action"], event["result"]) for event in events] == [
        ("FAIL_INCIDENT", "EXECUTION_ENDED"),
        ("COMPLETE_INCIDENT", "APPLIED"),
        ("RETRY_INCIDENT", "APPLIED"),
        ("SKIP_TIMER", "APPLIED"),
        ("SIGNAL", "REPEATED"),
        ("SIGNAL", "DELIVERED"),
        ("SKIP_TIMER", "NO_TIMER"),
    ]
    assert all(event["actor"] for event in events)
    assert "SKIP_TIMER" in millrace(home, "executions", "audit", execution_id).out


def test_a_paused_execution_starts_nothing_until_it_is_resumed(home: Path) -> None:
    execution_id = execute(home, "long")
    waits(home, execution_id, "SIGNAL")
    assert ok(millrace(home, "executions", "pause", execution_id, "--json"))["status"] == "APPLIED"
    assert "already" in millrace(home, "executions", "pause", execution_id).out
    eventually(lambda: "RESUME" in {one["kind"] for one in seen(home, execution_id)["waitingFor"]})
    assert ok(millrace(home, "executions", "resume", execution_id, "--json"))["status"] == "APPLIED"
    waits(home, execution_id, "SIGNAL")
    assert millrace(home, "executions", "cancel", execution_id, "--no-compensate", "--reason", "enough").code == 0
    becomes(home, execution_id, "CANCELLED")
    refused(millrace(home, "executions", "pause", execution_id), "EXECUTION_ENDED")


def test_a_failed_run_is_a_dead_letter_until_it_is_taken_up_again_with_an_output_by_hand(home: Path) -> None:
    execution_id = execute(home, "brittle")
    becomes(home, execution_id, "FAILED")
    letters = eventually(lambda: ok(millrace(home, "dead-letters", "list", "--template", "brittle", "--json")))
    [letter] = [one for one in letters if one["executionId"] == execution_id]
    assert (letter["stepId"], letter["code"], letter["retriedAt"]) == ("call", "HTTP_ADDRESS_REFUSED", None)
    shown = ok(millrace(home, "dead-letters", "show", execution_id, "--state", "--json"))
    assert shown["state"]["run"]["execution_id"] == execution_id

    retried = ok(millrace(home, "dead-letters", "retry", execution_id, "--reason", "perhaps now", "--json"))
    assert retried["runId"] != retried["previousRunId"]
    eventually(lambda: _failed_again(home, execution_id, letter["createdAt"]))

    where = ("executions", "resume-from", execution_id)
    refused(millrace(home, *where, "nowhere"), "STEP_NOT_FOUND")
    refused(millrace(home, *where, "check"), "STEP_NOT_RUN")
    assert millrace(home, *where, "call", "--output", '{"status": 200}').code == 0
    waits(home, execution_id, "PERSON")
    refused(millrace(home, "executions", "retry", execution_id), "EXECUTION_OPEN")
    assert millrace(home, "executions", "complete", execution_id, "check").code == 0
    becomes(home, execution_id, "COMPLETED")
    eventually(lambda: seen(home, execution_id)["status"] == "COMPLETED")
    refused(millrace(home, "executions", "retry", execution_id), "NOTHING_FAILED")
    assert ok(millrace(home, "dead-letters", "purge", "--id", execution_id, "--json"))["purged"] == 1
    refused(millrace(home, "dead-letters", "show", execution_id), "DEAD_LETTER_NOT_FOUND")


def _failed_again(home: Path, execution_id: str, before: str) -> bool:
    shown = ok(millrace(home, "dead-letters", "show", execution_id, "--json"))
    return bool(shown["createdAt"] > before and shown["retriedAt"] is None)


def test_an_open_execution_goes_on_with_a_version_that_mends_it(home: Path) -> None:
    execution_id = execute(home, "asking")
    waits(home, execution_id, "PERSON")
    mended = publish(home, "asking", "2.0.0", BRITTLE_MENDED)
    unfit = publish(home, "asking", "3.0.0", line(put("other", done=True)))
    tried = millrace(home, "executions", "migrate", execution_id, unfit, "--dry-run", "--json")
    assert tried.code == 1
    assert tried.json()["verdict"] != "SAFE"
    assert tried.json()["findings"][0]["stepId"] == "check"
    assert millrace(home, "executions", "migrate", execution_id, unfit).code == 1
    assert ok(millrace(home, "executions", "migrate", execution_id, mended, "--json"))["migrated"] is True
    assert seen(home, execution_id)["version"] == "2.0.0"
    assert millrace(home, "executions", "complete", execution_id, "check").code == 0
    becomes(home, execution_id, "COMPLETED")
    steps = ok(millrace(home, "executions", "show", execution_id, "--json"))["steps"]
    assert {one["id"]: one["status"] for one in steps}["stamp"] == "COMPLETED"


def test_one_command_steers_all_that_match(home: Path) -> None:
    made = [execute(home, "long") for _ in range(3)]
    for execution_id in made:
        waits(home, execution_id, "SIGNAL")
    tried = ok(millrace(home, "executions", "bulk", "terminate", "--template", "long", "--dry-run", "--json"))
    assert {one["executionId"] for one in tried} >= set(made)
    words = ("executions", "bulk", "signal", "--signal", "go", "--payload", "1")
    said = ok(millrace(home, *words, *(part for one in made for part in ("--id", one)), "--json"))
    assert {one["result"] for one in said} == {"DELIVERED"}
    for execution_id in made:
        waits(home, execution_id, "TIMER")
    said = ok(millrace(home, "executions", "bulk", "terminate", "--template", "long", "--all", "--json"))
    assert {one["executionId"] for one in said} >= set(made)
    for execution_id in made:
        assert seen(home, execution_id)["runtimeStatus"] == "TERMINATED"
    again = millrace(home, "executions", "bulk", "terminate", "--id", made[0])
    assert (again.code, "EXECUTION_ENDED" in again.out) == (1, True)
    refused(millrace(home, "executions", "bulk", "cancel"), "FILTER_EMPTY")
    assert millrace(home, "executions", "bulk", "forget").code == 2

    replayed = ok(millrace(home, "executions", "replay", made[0], "--json"))
    waits(home, replayed["executionId"], "SIGNAL")
    assert ok(millrace(home, "executions", "terminate", replayed["executionId"], "--json"))["terminated"] == 1


def test_a_webhook_resumes_the_execution_that_waits_for_it_by_its_key(home: Path) -> None:
    with Api(dev_file(home)["api"]) as api:
        endpoint = {
            "name": "Payments",
            "path": "payments",
            "verification": {"scheme": "NONE"},
            "triggerKey": "payments",
        }
        api.post("/webhook-endpoints", endpoint)
        subscription = {
            "triggerKey": "payments",
            "mode": "RESUME",
            "signal": "paid",
            "correlationKey": "{{body.order}}",
        }
        template = next(one["id"] for one in api.pages("/templates") if one["slug"] == "awaiting")
        api.post("/subscriptions", {**subscription, "templateId": template})
        ids = {order: started_with(home, order) for order in ("o-1", "o-2")}
        for order, execution_id in ids.items():
            waits(home, execution_id, "SIGNAL")
            (wait,) = seen(home, execution_id)["waitingFor"]
            assert (wait["signal"], wait["correlationKey"]) == ("paid", order)
        api.post("/hooks/payments", {"order": "o-2"})
        becomes(home, ids["o-2"], "COMPLETED")
        waits(home, ids["o-1"], "SIGNAL")

"""The command line against a running `millrace dev`, from a file to a finished execution."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.cli.api_client import Api
from app.cli.demo_partner import Partner, listening_partner
from app.cli.demo_story import read_definition, read_register
from tests.acceptance.running import EXAMPLES, Said, dev_file, eventually, fresh_home, millrace, started

REQUEST = str(EXAMPLES / "payloads" / "open311-service-request.json")
PURCHASE = str(EXAMPLES / "payloads" / "stripe-checkout-session-completed.json")


@pytest.fixture(scope="module")
def partner() -> Iterator[Partner]:
    with listening_partner(read_register()) as listening:
        yield listening


@pytest.fixture(scope="module")
def home(partner: Partner) -> Iterator[Path]:
    """The home of a running stack, with two published templates, one of them linked."""
    allowed = json.dumps([f"127.0.0.1:{partner.port}"])
    with fresh_home() as folder, started(folder, "dev", MILLRACE_HTTP_ACTION__ALLOWED_PRIVATE_HOSTS=allowed):
        eventually(lambda: dev_file(folder))
        for slug in ("customer-notice", "streetlight-repair"):
            file = folder / f"{slug}.json"
            file.write_text(json.dumps(read_definition(slug, partner.url, "1.0.0")))
            said = millrace(folder, "publish", str(file), "--slug", slug, "--version", "1.0.0", "--activate")
            assert said.code == 0, said.err
        yield folder


def _ok(said: Said) -> Any:
    assert said.code == 0, said.err
    return said.json()


def _seen(home: Path, execution_id: str) -> dict[str, Any]:
    with Api(dev_file(home)["api"]) as api:
        found: dict[str, Any] = api.get(f"/executions/{execution_id}")
    return found


def _becomes(home: Path, execution_id: str, status: str) -> None:
    eventually(lambda: _seen(home, execution_id)["runtimeStatus"] == status)


def test_a_service_request_runs_to_its_end_through_a_person(home: Path) -> None:
    linked = _ok(millrace(home, "link", "SERVICE_CATALOG", "SL-OUT", "streetlight-repair", "--json"))
    assert linked["template"] == "streetlight-repair"
    answer = _ok(millrace(home, "trigger", "service-request", REQUEST, "--json"))
    execution_id = answer["executionId"]

    again = _ok(millrace(home, "trigger", "service-request", REQUEST, "--json"))
    assert again["executionId"] == execution_id

    eventually(lambda: _seen(home, execution_id)["waitingFor"])
    (waiting,) = _ok(millrace(home, "executions", "show", execution_id, "--json"))["waitingFor"]
    assert (waiting["stepId"], waiting["kind"]) == ("approve", "PERSON")
    refused = millrace(home, "executions", "complete", execution_id, "approve", "--outcome", "perhaps")
    assert (refused.code, refused.err.split(":")[0]) == (1, "OUTCOME_UNKNOWN")
    done = _ok(millrace(home, "executions", "complete", execution_id, "approve", "--outcome", "approved", "--json"))
    assert done["output"]["outcome"] == "approved"
    _becomes(home, execution_id, "COMPLETED")

    tree = _ok(millrace(home, "executions", "tree", execution_id, "--json"))["tree"]
    (child,) = tree["children"]
    assert (child["template"], child["parentId"]) == ("customer-notice", execution_id)
    shown = millrace(home, "executions", "show", execution_id)
    assert "Place the work order" in shown.out
    drawn = millrace(home, "executions", "tree", execution_id).out
    assert "Notice for SR-638344" in drawn
    assert execution_id in drawn
    assert child["id"] in drawn

    listed = _ok(millrace(home, "executions", "list", "--entity-id", "SL-OUT", "--json"))
    assert [one["id"] for one in listed] == [execution_id]
    late = millrace(home, "executions", "complete", execution_id, "approve", "--outcome", "approved")
    assert late.code == 1


def test_an_execution_is_followed_to_its_end_and_its_steps_looked_into(home: Path) -> None:
    execution_id = _ok(millrace(home, "execute", "streetlight-repair", REQUEST, "--json"))["executionId"]
    eventually(lambda: _seen(home, execution_id)["waitingFor"])
    words = ("executions", "show", execution_id, "--follow")
    with ThreadPoolExecutor() as beside:
        told = beside.submit(millrace, home, *words)
        documents = beside.submit(millrace, home, *words, "--json")
        time.sleep(2)
        _ok(millrace(home, "executions", "complete", execution_id, "approve", "--outcome", "approved", "--json"))
    assert (told.result().code, documents.result().code) == (0, 0)
    lines = told.result().out.splitlines()
    assert any("waits for PERSON at approve" in line or "approve  ACTION_REQUIRED" in line for line in lines)
    assert any("approve  COMPLETED" in line for line in lines)
    assert lines[-1].endswith("COMPLETED")
    heard = [json.loads(line) for line in documents.result().out.splitlines()]
    assert (heard[0]["event"], heard[-1]["event"]) == ("snapshot", "end")
    assert heard[-1]["data"]["runtimeStatus"] == "COMPLETED"

    approved = _ok(millrace(home, "executions", "step", execution_id, "approve", "--json"))
    [person] = [call for visit in approved["visits"] for call in visit["calls"] if call["kind"] == "PERSON"]
    assert person["output"]["outcome"] == "approved"
    shown = millrace(home, "executions", "step", execution_id, "approve")
    assert "complete_step" in shown.out
    unknown = millrace(home, "executions", "step", execution_id, "nowhere")
    assert (unknown.code, unknown.err.split(":")[0]) == (1, "STEP_NOT_FOUND")


def test_following_an_execution_that_was_cancelled_leaves_with_1(home: Path) -> None:
    execution_id = _ok(millrace(home, "execute", "streetlight-repair", REQUEST, "--json"))["executionId"]
    assert millrace(home, "executions", "cancel", execution_id).code == 0
    followed = millrace(home, "executions", "show", execution_id, "--follow")
    assert followed.code == 1
    assert followed.out.splitlines()[-1].split("  ")[1] == "CANCELLED"
    unknown = millrace(home, "executions", "show", "00000000-0000-7000-8000-000000000000", "--follow", "--json")
    assert (unknown.code, json.loads(unknown.err)["code"]) == (1, "EXECUTION_NOT_FOUND")
    listed = _ok(millrace(home, "executions", "list", "--runtime-status", "CANCELLED", "--json"))
    assert execution_id in [one["id"] for one in listed]


def test_an_execution_is_cancelled_with_what_it_waits_for(home: Path) -> None:
    answer = _ok(millrace(home, "execute", "streetlight-repair", REQUEST, "--json"))
    execution_id = answer["executionId"]
    eventually(lambda: _seen(home, execution_id)["waitingFor"])
    assert millrace(home, "executions", "cancel", execution_id).code == 0
    _becomes(home, execution_id, "CANCELLED")
    second = millrace(home, "executions", "cancel", execution_id)
    assert (second.code, second.err.split(":")[0]) == (1, "EXECUTION_ENDED")


def test_execute_waits_for_the_output_and_starts_a_key_once(home: Path, tmp_path: Path) -> None:
    context = tmp_path / "context.json"
    context.write_text(json.dumps({"to": "desk@example.org", "subject": "Hello", "text": "It works."}))
    words = ("execute", "customer-notice", str(context), "--key", "once", "--wait", "30", "--json")
    first, second = (_ok(millrace(home, *words)) for _ in range(2))
    assert first["output"]["messageId"].startswith("M-")
    assert second["executionId"] == first["executionId"]
    context.write_text(json.dumps({"to": "desk@example.org", "subject": "Hello", "text": "Something else."}))
    other = millrace(home, *words)
    assert (other.code, json.loads(other.err)["code"]) == (1, "IDEMPOTENCY_CONFLICT")


def test_an_execution_that_fails_while_waited_for_leaves_with_1(home: Path, tmp_path: Path) -> None:
    definition = read_definition("customer-notice", "http://127.0.0.1:1", "1.0.0")
    file = tmp_path / "definition.json"
    file.write_text(json.dumps(definition))
    published = millrace(home, "publish", str(file), "--slug", "lost-notice", "--version", "1.0.0", "--activate")
    assert published.code == 0, published.err
    context = tmp_path / "context.json"
    context.write_text(json.dumps({"to": "a@example.org", "subject": "s", "text": "t"}))
    failed = millrace(home, "execute", "lost-notice", str(context), "--wait", "30")
    assert failed.code == 1
    assert "HTTP_ADDRESS_REFUSED" in failed.out


def test_a_draft_is_replaced_and_a_published_version_never(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "definition.json"
    broken = read_definition("customer-notice", "http://127.0.0.1:1", "1.0.0")
    broken["steps"][1]["actionKey"] = "no.such.action"
    file.write_text(json.dumps(broken))
    words = ("publish", str(file), "--slug", "drafted", "--version", "0.1.0")
    refused = millrace(home, *words)
    assert (refused.code, refused.err.split(":")[0]) == (1, "DEFINITION_INVALID")
    assert "steps[1].actionKey" in refused.err
    file.write_text((EXAMPLES / "customer-notice.json").read_text())
    assert millrace(home, *words).code == 0
    taken = millrace(home, *words)
    assert (taken.code, taken.err.split(":")[0]) == (1, "VERSION_EXISTS")
    active = _ok(millrace(home, "activate", "drafted", "0.1.0", "--json"))
    assert active["active"] is True
    unknown = millrace(home, "activate", "drafted", "9.9.9")
    assert (unknown.code, unknown.err.split(":")[0]) == (1, "VERSION_NOT_FOUND")


def test_an_event_without_a_link_starts_nothing_and_is_no_error(home: Path) -> None:
    answer = millrace(home, "trigger", "product-purchase", PURCHASE)
    assert (answer.code, "nothing was started" in answer.out) == (0, True)


def test_validation_against_the_api_knows_actions_and_children(home: Path) -> None:
    api = dev_file(home)["api"]
    good = _ok(millrace(home, "validate", str(EXAMPLES / "customer-notice.json"), "--api", api, "--json"))
    assert good == {"valid": True, "problems": []}
    bad = millrace(home, "validate", str(EXAMPLES / "maintenance-plan.json"), "--api", api)
    assert bad.code == 1
    assert "CHILD_EXISTS" in bad.out


def test_a_second_dev_in_the_same_home_is_refused(home: Path) -> None:
    second = millrace(home, "dev")
    assert (second.code, second.err.split(":")[0].split()[-1]) == (1, "HOME_IN_USE")


def test_migrating_a_database_that_is_up_to_date_changes_nothing(home: Path) -> None:
    assert _ok(millrace(home, "migrate", "--json")) == {"migrated": True}


def test_the_ids_of_refusals_are_machine_readable(home: Path) -> None:
    unknown = millrace(home, "executions", "show", "00000000-0000-7000-8000-000000000000", "--json")
    assert (unknown.code, unknown.out) == (1, "")
    assert json.loads(unknown.err)["code"] == "EXECUTION_NOT_FOUND"


def test_actions_are_listed_with_what_they_declare(home: Path) -> None:
    (listed,) = _ok(millrace(home, "actions", "--json"))
    assert (listed["key"], listed["policies"]["local"]) == ("http.request", False)
    assert "as activities" in millrace(home, "actions").out

"""What operators do, one by one and to many, on the command line."""

import httpx
import pytest
from temporalio.client import Client

from app.db.session import Database
from tests.app.scenes import Json, active_template
from tests.app.steering import FakeRepair, asked, failed, start
from tests.app.test_cli_subscribing import answered, millrace, said

pytestmark = pytest.mark.usefixtures("stand_in")


@pytest.fixture(scope="module")
def repair() -> FakeRepair:
    return FakeRepair()


@pytest.fixture
async def template(api: httpx.AsyncClient) -> Json:
    return await active_template(api)


async def test_a_step_of_many_is_steered(api: httpx.AsyncClient, template: Json, temporal_client: Client) -> None:
    ids = [await start(api, template) for _ in range(2)]
    words = ("--template", template["slug"], "--step", "confirm")
    skipped = await answered(api, "executions", "bulk", "skip-timer", *words)
    assert {(one["executionId"], one["result"]) for one in skipped} == {(one, "APPLIED") for one in ids}
    await answered(api, "executions", "bulk", "resume-step", *words, "--data", '{"n": 1}', "--visit", "1")
    named = ("--id", ids[0], "--step", "confirm")
    await answered(api, "executions", "bulk", "incident", *named, "--action", "retry", "--parameters", "null")
    await answered(api, "executions", "bulk", "incident", *named, "--action", "complete", "--output", '"done"')
    told = await asked(temporal_client, ids[0])
    assert [(one["what"], one["data"], one["edit_parameters"], one["output"]) for one in told] == [
        ("SKIP_TIMER", None, False, None),
        ("RESUME_STEP", {"n": 1}, False, None),
        ("RETRY_INCIDENT", None, True, None),
        ("COMPLETE_INCIDENT", None, False, "done"),
    ]
    assert told[1]["visit"] == 1
    for deed in ("skip-timer", "incident"):
        code, _, err = await millrace(api, "executions", "bulk", deed, "--template", template["slug"])
        assert (code, err.split(":")[0]) == (1, "OPTION_MISSING")


@pytest.mark.parametrize(
    ("deed", "option"),
    [
        ("cancel", ("--step", "confirm")),
        ("retry", ("--item", "0")),
        ("terminate", ("--no-compensate",)),
        ("replay", ("--context", "{}")),
    ],
)
async def test_an_option_that_a_deed_to_many_does_not_take_is_refused(
    api: httpx.AsyncClient, template: Json, temporal_client: Client, deed: str, option: tuple[str, ...]
) -> None:
    execution_id = await start(api, template)
    code, _, err = await millrace(api, "executions", "bulk", deed, "--id", execution_id, *option)
    assert (code, err.split(":")[0]) == (1, "OPTION_MISPLACED")
    assert option[0].replace("--no-", "--") in err
    assert await asked(temporal_client, execution_id) == []
    assert (await answered(api, "executions", "show", execution_id))["status"] == "STARTED"


async def test_who_means_all_names_no_limit_and_who_does_not_is_told_that_more_match(
    api: httpx.AsyncClient, template: Json
) -> None:
    for _ in range(3):
        await start(api, template)
    words = ("executions", "bulk", "skip-timer", "--step", "confirm", "--template", template["slug"])
    code, _, err = await millrace(api, *words, "--all", "--limit", "2")
    assert (code, err.split(":")[0]) == (1, "OPTION_MISPLACED")
    assert "2 match, and there are more: --all" in await said(api, *words, "--limit", "2", "--dry-run")
    assert "2 of 2 done, and there are more: --all" in await said(api, *words, "--limit", "2")
    assert "3 of 3 done.\n" in await said(api, *words, "--all")


async def test_failed_executions_are_replayed_and_go_on_from_a_step(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client
) -> None:
    execution_id = await failed(api, database, template, temporal_client, {"wait": False})
    words = ("executions", "bulk", "replay", "--template", template["slug"], "--name", "again")
    [replayed] = await answered(api, *words)
    assert (await answered(api, "executions", "show", replayed["replayId"]))["name"] == "again"
    _, out, _ = await millrace(api, *words, "--id", execution_id)
    assert "replay" in out
    many = ("executions", "bulk", "resume-from", "--id", execution_id, "--step", "note", "--output", "null")
    [resumed] = await answered(api, *many, "--context", '{"a": 1}', "--reason", "by hand")
    assert resumed["result"] == "STARTED"
    result = await temporal_client.get_workflow_handle(f"execution/{execution_id}").result()
    point = {"step_id": "note", "output": None, "context": {"a": 1}, "reason": "by hand"}
    assert result["state"]["from"] == point


async def test_an_output_of_null_is_an_output(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client
) -> None:
    execution_id = await failed(api, database, template, temporal_client, {"wait": False})
    await answered(api, "executions", "resume-from", execution_id, "note", "--output", "null")
    result = await temporal_client.get_workflow_handle(f"execution/{execution_id}").result()
    assert result["state"]["from"] == {"step_id": "note", "output": None}
    [turn] = await answered(api, "executions", "lineage", execution_id)
    assert (turn["kind"], turn["stepId"], turn["closedAs"]) == ("RESUME", "note", "FAILED")
    assert "RESUME" in await said(api, "executions", "lineage", execution_id)

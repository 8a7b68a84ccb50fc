"""Whatever the API can do with what comes in, the command line can do: an operation without a command is a gap."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import typer

from app.cli.main import app

COVERED = {
    "templates", "triggers", "trigger events", "schedules", "backfills", "webhooks", "subscriptions", "row changes",
    "dead letters", "executions", "control", "bulk control", "incidents", "audit",
}  # fmt: skip
# By operation; several where each does a part.
COMMANDS = {
    "executeTemplate": "execute",
    "listExecutions": "executions list",
    "getExecution": "executions show",
    "getExecutionSteps": "executions show",
    "followExecution": "executions show",
    "getExecutionTree": "executions tree",
    "getExecutionStep": "executions step",
    "completeStep": "executions complete",
    "sendSignal": "executions signal",
    "pauseExecution": "executions pause",
    "resumeExecution": "executions resume",
    "cancelExecution": "executions cancel",
    "terminateExecution": "executions terminate",
    "resumeStep": "executions resume-step",
    "skipTimer": "executions skip-timer",
    "resolveIncident": "executions incident",
    "replayExecution": "executions replay",
    "retryExecution": "executions retry",
    "resumeFrom": "executions resume-from",
    "migrateExecution": "executions migrate",
    "getExecutionLineage": "executions lineage",
    "cancelExecutions": "executions bulk",
    "terminateExecutions": "executions bulk",
    "pauseExecutions": "executions bulk",
    "resumeExecutions": "executions bulk",
    "signalExecutions": "executions bulk",
    "retryExecutions": "executions bulk",
    "migrateExecutions": "executions bulk",
    "replayExecutions": "executions bulk",
    "resumeExecutionsFrom": "executions bulk",
    "skipTimers": "executions bulk",
    "resumeSteps": "executions bulk",
    "resolveIncidents": "executions bulk",
    "listIncidents": "incidents list",
    "getExecutionIncidents": "incidents list",
    "listAuditEvents": "executions audit",
    "getExecutionAudit": "executions audit",
    "createTemplate": "templates create",
    "listTemplates": "templates list",
    "getTemplate": "templates show",
    "changeTemplate": "templates change",
    "deleteTemplate": "templates delete",
    "pauseTemplate": "templates pause",
    "resumeTemplate": "templates resume",
    "archiveTemplate": "templates archive",
    "triggerServiceRequest": "trigger service-request",
    "triggerProductPurchase": "trigger product-purchase",
    "listTriggerEvents": "events list",
    "getTriggerEvent": "events show",
    "redeliverTriggerEvent": "events redeliver",
    "createSchedule": "schedules create",
    "listSchedules": "schedules list",
    "previewSchedule": "schedules preview",
    "getSchedule": "schedules show",
    "changeSchedule": "schedules change",
    "deleteSchedule": "schedules delete",
    "pauseSchedule": "schedules pause",
    "resumeSchedule": "schedules resume",
    "runSchedule": "schedules run",
    "listScheduleTimes": "schedules next",
    "listScheduleRuns": "schedules runs",
    "listDeadLetters": "dead-letters list",
    "getDeadLetter": "dead-letters show",
    "purgeDeadLetters": "dead-letters purge",
    "retryDeadLetter": "dead-letters retry",
    "uploadBackfill": "backfill",
    "createBackfill": "backfill",
    "checkBackfillRows": "backfill",
    "loadBackfillRows": "backfill",
    "listBackfills": "backfills list",
    "getBackfill": "backfills show",
    "listBackfillRows": "backfills rows",
    "startBackfill": "backfills start",
    "pauseBackfill": "backfills pause",
    "resumeBackfill": "backfills resume",
    "cancelBackfill": "backfills cancel",
    "retryBackfill": "backfills retry",
    "createTrigger": "triggers create",
    "listTriggers": "triggers list",
    "getTrigger": "triggers show",
    "changeTrigger": "triggers change",
    "deleteTrigger": "triggers delete",
    "testTrigger": "triggers fire",
    "listTriggerOptions": "triggers options",
    "loadTriggerOptions": "triggers options",
    "searchTriggerOptions": "triggers options",
    "createSubscription": "subscriptions create",
    "listSubscriptions": "subscriptions list",
    "getSubscription": "subscriptions show",
    "changeSubscription": "subscriptions change",
    "deleteSubscription": "subscriptions delete",
    "activateSubscription": "subscriptions activate",
    "deactivateSubscription": "subscriptions deactivate",
    "explainSubscription": "subscriptions explain",
    "createWebhookEndpoint": "webhooks create",
    "listWebhookEndpoints": "webhooks list",
    "getWebhookEndpoint": "webhooks show",
    "changeWebhookEndpoint": "webhooks change",
    "deleteWebhookEndpoint": "webhooks delete",
    "rotateWebhookSecret": "webhooks rotate",
    "watchTable": "changes watch",
    "listChangeSources": "changes list",
    "getChangeSource": "changes show",
    "unwatchTable": "changes unwatch",
    "pauseChangeSource": "changes pause",
    "resumeChangeSource": "changes resume",
    "postChanges": "changes post",
}
# Whoever sends a webhook is no user of the command line.
APART = {"receiveWebhook"}


def _commands(command: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, found in command.commands.items():
        if hasattr(found, "commands"):
            yield from _commands(found, f"{before}{name} ")
        else:
            yield f"{before}{name}", found


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    return dict(_commands(typer.main.get_command(app)))


async def test_every_operation_on_what_comes_in_has_a_command(api: httpx.AsyncClient, commands: dict[str, Any]) -> None:
    described = (await api.get("http://" + api.base_url.netloc.decode() + "/openapi.json")).json()
    operations = [one for methods in described["paths"].values() for one in methods.values()]
    ours = {one["operationId"] for one in operations if COVERED & {*one["tags"]}} - APART
    registered = {one["operationId"] for one in operations if "Trigger" in one["operationId"]}
    assert (ours | registered) == COMMANDS.keys()
    assert {*COMMANDS.values()} <= commands.keys()


def test_every_command_that_asks_the_api_can_answer_in_json(commands: dict[str, Any]) -> None:
    def options(command: Any) -> set[str]:
        return {name for parameter in command.params for name in parameter.opts}

    assert [name for name, one in commands.items() if "--api" in options(one) and "--json" not in options(one)] == []


async def test_every_command_that_makes_something_takes_a_key_where_the_api_does(
    api: httpx.AsyncClient, commands: dict[str, Any]
) -> None:
    described = (await api.get("http://" + api.base_url.netloc.decode() + "/openapi.json")).json()
    keyed = [
        one["operationId"]
        for methods in described["paths"].values()
        for one in methods.values()
        if any(parameter["name"] == "Idempotency-Key" for parameter in one.get("parameters", ()))
    ]
    without = [
        command
        for name in keyed
        if (command := COMMANDS.get(name))
        and not any("--key" in parameter.opts for parameter in commands[command].params)
    ]
    assert without == []

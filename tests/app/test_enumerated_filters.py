"""Lists that are narrowed by one word of several refuse any other: an empty list would say that there is nothing."""

from typing import Any

import httpx
import pytest

from tests.app.scenes import ok, refused

# What anybody may have named: people, templates, codes, keys.
OPEN_WORDS = {
    "actor", "category", "chunk", "code", "connection", "cursor", "entityId", "property", "paginationToken", "result",
    "segment", "stepId", "table", "tag", "template", "text", "trigger", "triggerKey", "correlationKey",
}  # fmt: skip
ENUMERATED = [
    ("/audit", "action", "REDELIVER"),
    ("/audit", "entityKind", "WEBHOOK_ENDPOINT"),
    ("/backfills", "status", "RUNNING"),
    ("/change-sources", "status", "FAILED"),
    ("/executions", "entityType", "PRODUCT"),
    ("/executions", "runtimeStatus", "COMPLETED"),
    ("/executions", "status", "STARTED"),
    ("/links", "entityType", "SERVICE_CATALOG"),
    ("/registry/triggers", "category", "email"),
    ("/registry/triggers", "source", "row-change"),
    ("/schedules", "kind", "POLL"),
    ("/subscriptions", "status", "INACTIVE"),
    ("/templates", "status", "PAUSED"),
    ("/trigger-events", "entityType", "PRODUCT"),
    ("/trigger-events", "source", "webhook"),
    ("/trigger-events", "status", "UNMATCHED"),
]


@pytest.mark.parametrize(("path", "name", "known"), ENUMERATED, ids=lambda value: str(value).strip("/"))
async def test_a_word_that_nothing_can_have_is_refused_with_those_that_there_are(
    api: httpx.AsyncClient, path: str, name: str, known: str
) -> None:
    await ok(await api.get(path, params={name: known}))
    (finding,) = refused(await api.get(path, params={name: "NO_SUCH_WORD"}), 422, "REQUEST_INVALID")["problems"]
    assert finding["path"] == f"query.{name}"
    assert repr(known) in finding["message"]


async def test_every_other_parameter_of_a_list_is_a_number_a_time_an_id_or_a_word_of_the_users_own(
    api: httpx.AsyncClient,
) -> None:
    """So that a filter that is added is thought about."""
    document = await ok(await api.get("http://" + api.base_url.netloc.decode() + "/openapi.json"))
    enumerated = {(path, name) for path, name, _ in ENUMERATED}
    for path, methods in document["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", ()):
            place = (path.removeprefix("/api/v1"), parameter["name"])
            if parameter["in"] == "query" and place not in enumerated and _takes_any_text(parameter["schema"]):
                assert parameter["name"] in OPEN_WORDS, place


def _takes_any_text(schema: Any) -> bool:
    if "anyOf" in schema:
        return any(_takes_any_text(one) for one in schema["anyOf"])
    return schema.get("type") == "string" and "enum" not in schema and "format" not in schema

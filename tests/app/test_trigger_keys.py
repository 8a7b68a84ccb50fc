"""One rule for the keys of triggers, wherever one is named; what one way in takes, every other takes too."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.trigger_keys import as_trigger_key
from tests.app.scenes import Json, active_template, ok, refused, webhook

TARGET: Json = {"spec": {"intervals": [{"every": 3600}]}, "paused": True}
ALLOWED = ["Orders (north) · 7", "_orders", "größe", "a b", "{x}", "-"]
REFUSED = ["", " a", "a ", "a/b", "a\nb", "a\tb", "a\x7fb", "x" * 201]


def asking(api: httpx.AsyncClient, key: str) -> list[tuple[str, Json]]:
    """Each request that names a trigger, but for subscriptions, whose trigger is there before."""
    return [
        ("/registry/triggers", {"key": key, "name": "Orders", "category": "webhook", "source": "webhook"}),
        (
            "/webhook-endpoints",
            {"name": "n", "path": uuid4().hex, "verification": {"scheme": "NONE"}, "triggerKey": key},
        ),
        ("/schedules", {"name": f"s-{uuid4().hex}", "target": {"triggerKey": key}, **TARGET}),
    ]


@pytest.mark.parametrize("key", ALLOWED)
async def test_a_key_that_one_way_in_takes_all_take(api: httpx.AsyncClient, key: str) -> None:
    for path, body in asking(api, key):
        await ok(await api.post(path, json=body), 201)
    template = await active_template(api)
    body = {"templateId": template["id"], "triggerKey": key}
    assert (await ok(await api.post("/subscriptions", json=body), 201))["triggerKey"] == key
    assert (await ok(await api.get(f"/registry/triggers/{key}")))["key"] == key


@pytest.mark.parametrize("key", REFUSED, ids=range(len(REFUSED)))
async def test_a_key_that_one_way_in_refuses_all_refuse_with_the_same_words(api: httpx.AsyncClient, key: str) -> None:
    body = {"templateId": "any", "triggerKey": key}
    found: set[Any] = set()
    for path, asked in [*asking(api, key), ("/subscriptions", body)]:
        problem = refused(await api.post(path, json=asked), 422, "REQUEST_INVALID")
        found |= {(each["code"], each["message"]) for each in problem["problems"]}
    endpoint = await webhook(api)
    problem = refused(
        await api.patch(f"/webhook-endpoints/{endpoint['id']}", json={"triggerKey": key}), 422, "REQUEST_INVALID"
    )
    found |= {(each["code"], each["message"]) for each in problem["problems"]}
    assert len(found) == 1
    assert next(iter(found))[0] == "TRIGGER_KEY_INVALID"


@pytest.mark.parametrize(
    ("text", "key"), [("a/b_db_change", "a_b_db_change"), (" odd\n", "odd_"), ("/", "_"), ("x" * 300, "x" * 200)]
)
def test_of_any_name_of_a_table_a_key_is_made(text: str, key: str) -> None:
    assert as_trigger_key(text) == key

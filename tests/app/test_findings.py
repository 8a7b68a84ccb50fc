"""What is wrong with a filter is told in one form, wherever the filter is saved."""

from uuid import uuid4

import httpx

from tests.app.scenes import Json, active_template, refused

BROKEN: Json = {"operator": "AND", "conditions": [{"field": "after.x", "operator": "~", "value": 1}]}
WHERE = "conditions[0].operator"


async def test_a_filter_that_is_not_valid_is_refused_alike_wherever_it_is_saved(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    subscription = {"templateId": template["id"], "triggerKey": "manual", "filter": BROKEN}
    form = [{"name": "which", "displayName": "Which", "type": "filter"}]
    trigger = {"key": f"t-{uuid4().hex}", "name": "T", "category": "manual", "source": "manual", "properties": form}
    assert (await api.post("/registry/triggers", json=trigger)).status_code == 201
    asked = [
        ("/subscriptions", subscription, "FILTER_INVALID", f"filter.{WHERE}"),
        ("/change-sources", {"table": "orders", "filter": BROKEN}, "FILTER_INVALID", f"body.filter.{WHERE}"),
        (
            "/subscriptions",
            {"templateId": template["id"], "triggerKey": trigger["key"], "properties": {"which": BROKEN}},
            "PROPERTIES_INVALID",
            f"properties.which.{WHERE}",
        ),
    ]
    for path, body, code, place in asked:
        (finding,) = refused(await api.post(path, json=body), 422, code)["problems"]
        assert set(finding) == {"path", "code", "message"}
        assert (finding["path"], finding["code"]) == (place, "FILTER_OPERATOR_EXISTS")
        assert finding["message"].startswith("there is no operator '~'")


async def test_a_finding_without_a_code_of_its_own_has_that_of_the_refusal(api: httpx.AsyncClient) -> None:
    body = {"name": "n", "path": "a", "verification": {"scheme": "NONE"}, "maxBytes": 2**40}
    (finding,) = refused(await api.post("/webhook-endpoints", json=body), 422, "WEBHOOK_LIMIT")["problems"]
    assert finding["code"] == "WEBHOOK_LIMIT"

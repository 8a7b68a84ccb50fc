"""What the API changes the command line changes: templates, schedules, triggers, subscriptions, webhooks."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.app.clockwork import HOURLY, create_schedule
from tests.app.scenes import Json, active_template
from tests.app.test_cli_subscribing import answered, millrace, said


def written(folder: Path, document: Any) -> str:
    file = folder / f"{uuid4().hex}.json"
    file.write_text(json.dumps(document))
    return str(file)


async def refused_with(api: httpx.AsyncClient, *words: str) -> tuple[int, str]:
    code, out, err = await millrace(api, *words)
    assert out == ""
    return code, err.split(":")[0]


async def test_a_template_is_created_limited_paused_and_deleted(api: httpx.AsyncClient) -> None:
    slug = f"t-{uuid4().hex}"
    made = await answered(
        api, "templates", "create", "Orders", "--slug", slug, "--tag", "a", "--starts-per-minute", "5"
    )
    assert (made["slug"], made["tags"]) == (slug, ["a"])
    assert made["limits"] == {"startsPerMinute": 5, "openExecutions": None, "whenFull": "REFUSE"}
    words = ("templates", "change", slug, "--when-paused", "queue", "--open-executions", "7", "--when-full", "queue")
    changed = await answered(api, *words)
    assert changed["whenPaused"] == "QUEUE"
    assert changed["limits"] == {"startsPerMinute": 5, "openExecutions": 7, "whenFull": "QUEUE"}
    assert "5 starts a minute, 7 open; QUEUE when full" in await said(api, "templates", "show", slug)
    assert slug in await said(api, "templates", "list", "--tag", "a", "--text", slug)
    assert (await answered(api, "templates", "change", slug, "--no-limits"))["limits"] is None
    assert await refused_with(api, "templates", "pause", slug) == (1, "TEMPLATE_NOT_ACTIVE")
    assert (await answered(api, "templates", "archive", slug))["status"] == "ARCHIVED"
    assert await answered(api, "templates", "delete", slug) == {"deleted": slug}
    assert await refused_with(api, "templates", "show", slug) == (1, "TEMPLATE_NOT_FOUND")


async def test_a_template_is_paused_and_resumed(api: httpx.AsyncClient) -> None:
    slug = (await active_template(api))["slug"]
    assert (await answered(api, "templates", "pause", slug))["status"] == "PAUSED"
    assert "ACTIVE" in await said(api, "templates", "resume", slug)


async def test_a_start_that_is_queued_names_the_event_that_waits(api: httpx.AsyncClient) -> None:
    slug = (await active_template(api))["slug"]
    await answered(api, "templates", "change", slug, "--when-paused", "queue")
    await answered(api, "templates", "pause", slug)
    queued = await said(api, "execute", slug)
    waiting = (await answered(api, "events", "list", "--status", "PENDING", "--limit", "1"))[0]
    assert "QUEUED" in queued
    assert waiting["id"] in queued


async def test_a_schedule_that_was_read_is_changed_and_sent_back(api: httpx.AsyncClient, tmp_path: Path) -> None:
    made = await create_schedule(api, {"cron": ["0 * * * *"], "timeZone": "Europe/Berlin"}, maxExecutions=3)
    read = await answered(api, "schedules", "show", made["name"])
    assert await answered(api, "schedules", "change", made["name"], written(tmp_path, read)) == read
    changed = await answered(api, "schedules", "change", made["name"], "--cron", "30 1 * * *", "--unlimited")
    assert changed["spec"] == {"cron": ["30 1 * * *"], "timeZone": "Europe/Berlin"}
    assert changed["maxExecutions"] is None
    file = written(tmp_path, {"note": "by night"})
    name = f"s-{uuid4().hex}"
    words = ("schedules", "change", made["name"], file, "--overlap", "allow_all", "--name", name)
    changed = await answered(api, *words)
    assert (changed["note"], changed["overlap"], changed["name"]) == ("by night", "ALLOW_ALL", name)
    assert await answered(api, "schedules", "runs", name) == []
    assert await answered(api, "schedules", "delete", name) == {"deleted": name}


async def test_options_go_over_what_a_file_says_and_leave_the_rest_of_it(
    api: httpx.AsyncClient, tmp_path: Path
) -> None:
    made = await create_schedule(api, {"cron": ["0 * * * *"], "timeZone": "Europe/Berlin"})
    file = written(tmp_path, {"spec": {"intervals": [{"every": "PT1H"}]}})
    changed = await answered(api, "schedules", "change", made["name"], file, "--time-zone", "Asia/Tokyo")
    assert changed["spec"] == {"intervals": [{"every": 3600.0}], "timeZone": "Asia/Tokyo"}
    limits = written(tmp_path, {"limits": {"startsPerMinute": 5, "whenFull": "QUEUE"}})
    template = await answered(api, "templates", "create", "Orders", limits, "--open-executions", "2")
    assert template["limits"] == {"startsPerMinute": 5, "openExecutions": 2, "whenFull": "QUEUE"}
    changed = await answered(api, "templates", "change", template["slug"], limits, "--starts-per-minute", "3")
    assert changed["limits"] == {"startsPerMinute": 3, "openExecutions": None, "whenFull": "QUEUE"}


async def test_a_preview_without_a_specification_says_what_it_needs(api: httpx.AsyncClient) -> None:
    _, _, said_of_it = await millrace(api, "schedules", "preview")
    assert "--cron" in said_of_it
    assert "change" not in said_of_it


async def test_a_specification_is_previewed(api: httpx.AsyncClient, tmp_path: Path) -> None:
    words = ("schedules", "preview", "--cron", "0 9 * * MON", "--after", "2027-01-01T00:00:00Z", "--count", "2")
    assert await answered(api, *words) == ["2027-01-04T09:00:00Z", "2027-01-11T09:00:00Z"]
    times = await answered(api, "schedules", "preview", written(tmp_path, HOURLY), "--count", "3")
    assert len(times) == 3
    made = await create_schedule(api, HOURLY)
    following = await answered(
        api, "schedules", "next", made["name"], "--count", "1", "--after", "2030-01-01T00:00:00Z"
    )
    assert following == ["2030-01-01T01:00:00Z"]


async def _subscribed(api: httpx.AsyncClient, tmp_path: Path) -> tuple[str, Json]:
    key = f"t_{uuid4().hex}"
    options = [{"name": "Won", "value": "won"}, {"name": "Lost", "value": "lost"}]
    form = [{"name": "outcome", "displayName": "Outcome", "type": "options", "options": options}]
    trigger = {"key": key, "name": "Deals", "category": "external", "source": "manual", "properties": form}
    await said(api, "triggers", "create", written(tmp_path, trigger), "--key", "once")
    await said(api, "triggers", "create", written(tmp_path, trigger), "--key", "once")
    template = await active_template(api)
    made = await answered(api, "subscriptions", "create", template["slug"], key, "--key", "once")
    assert await answered(api, "subscriptions", "create", template["slug"], key, "--key", "once") == made
    return key, made


async def test_a_trigger_and_its_subscription_are_changed(api: httpx.AsyncClient, tmp_path: Path) -> None:
    key, made = await _subscribed(api, tmp_path)
    changed = await answered(api, "triggers", "change", key, "--name", "Won deals", "--category", "database")
    assert (changed["name"], changed["category"], len(changed["properties"])) == ("Won deals", "database", 1)
    file = written(tmp_path, {"samplePayload": {"n": 1}})
    assert "Won deals" in await said(api, "triggers", "change", key, file)
    options = await answered(api, "triggers", "options", key, "--property", "outcome")
    assert [one["value"] for one in options] == ["won", "lost"]
    assert await refused_with(api, "triggers", "options", key, "--property", "nothing") == (1, "OPTIONS_NOT_FOUND")
    condition = '{"field": "n", "operator": "=", "value": 1}'
    words = ("subscriptions", "change", made["id"], "--filter", condition, "--description", "Only one")
    changed = await answered(api, *words)
    assert (changed["filterText"], changed["description"]) == ("n = 1", "Only one")
    assert (await answered(api, "subscriptions", "change", made["id"], "--filter", "null"))["filter"] is None
    wrong = ("subscriptions", "change", made["id"], "--mode", "resume")
    assert await refused_with(api, *wrong) == (1, "SUBSCRIPTION_INVALID")
    assert await answered(api, "subscriptions", "delete", made["id"]) == {"deleted": made["id"]}
    assert await answered(api, "triggers", "delete", key) == {"deleted": key}


async def test_an_endpoint_is_changed_switched_off_and_made_once_under_its_key(api: httpx.AsyncClient) -> None:
    path = f"cli-{uuid4().hex}"
    words = ("webhooks", "create", "Orders", path, "--scheme", "none", "--key", "once")
    made = await answered(api, *words)
    assert await answered(api, *words) == made
    changed = await answered(api, "webhooks", "change", made["id"], "--disable", "--method", "put", "--name", "Other")
    assert (changed["enabled"], changed["methods"], changed["name"]) == (False, ["PUT"], "Other")
    assert (await answered(api, "webhooks", "change", made["id"], "--enable"))["enabled"] is True
    template = await active_template(api)
    changed = await answered(api, "webhooks", "change", made["id"], "--template", template["slug"])
    assert (changed["templateId"], changed["template"]) == (template["id"], template["slug"])
    assert await answered(api, "webhooks", "delete", made["id"]) == {"deleted": made["id"]}


async def test_changes_are_posted_and_a_table_is_watched_no_more(api: httpx.AsyncClient, tmp_path: Path) -> None:
    table = f"t{uuid4().hex[:20]}"
    words = ("changes", "watch", table, "--connection", "shop", "--method", "posted", "--key", table)
    made = await answered(api, *words)
    assert await answered(api, *words) == made
    event = {"op": "c", "before": None, "after": {"id": 1}, "source": {"table": table, "schema": "public"}}
    words = ("changes", "post", f"@{written(tmp_path, event)}", "--key", uuid4().hex)
    assert (await answered(api, *words))["stored"] == 1
    assert "1 repeated" in await said(api, *words)
    assert await answered(api, "changes", "unwatch", made["key"]) == {"deleted": made["key"]}


async def test_events_are_listed_by_when_they_came(api: httpx.AsyncClient) -> None:
    assert await answered(api, "events", "list", "--received-after", "2100-01-01T00:00:00Z") == []
    assert await refused_with(api, "events", "list", "--received-before", "yesterday") == (1, "REQUEST_INVALID")


@pytest.mark.parametrize(
    "words",
    [
        ("templates", "change", "x"),
        ("templates", "change", "x", "--no-limits", "--open-executions", "1"),
        ("schedules", "change", "x"),
        ("schedules", "change", "x", "--unlimited", "--max-executions", "1"),
        ("schedules", "preview"),
        ("triggers", "change", "x"),
        ("triggers", "options", "x"),
        ("triggers", "options", "x", "--property", "a", "--method", "b"),
        ("triggers", "options", "x", "--property", "a", "--text", "b"),
        ("subscriptions", "change", "x"),
        ("webhooks", "change", "x"),
    ],
    ids=" ".join,
)
async def test_a_command_that_says_nothing_or_contradicts_itself_is_a_mistake_of_usage(
    api: httpx.AsyncClient, words: tuple[str, ...]
) -> None:
    code, out, _ = await millrace(api, *words)
    assert (code, out) == (2, "")

"""Triggers and subscriptions on the command line."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.app.scenes import active_template


async def millrace(api: httpx.AsyncClient, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command against the running API."""
    url = str(api.base_url).removesuffix("/api/v1/")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "app.cli.main", *words, "--api", url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def said(api: httpx.AsyncClient, *words: str) -> str:
    code, out, err = await millrace(api, *words)
    assert code == 0, err
    return out


async def answered(api: httpx.AsyncClient, *words: str) -> Any:
    return json.loads(await said(api, *words, "--json"))


async def test_a_trigger_is_created_subscribed_to_tried_and_deleted(api: httpx.AsyncClient, tmp_path: Path) -> None:
    template, key = await active_template(api), f"deals_{uuid4().hex}"
    file = tmp_path / "trigger.json"
    sample = {"after": {"status": "won"}}
    file.write_text(
        json.dumps({"key": key, "name": "Deals", "category": "external", "source": "manual", "samplePayload": sample})
    )
    assert "Deals" in await said(api, "triggers", "create", str(file))
    assert key in await said(api, "triggers", "list", "--text", key)
    assert "won" in await said(api, "triggers", "show", key)
    won = '{"field": "after.status", "operator": "=", "value": "won"}'
    made = await answered(api, "subscriptions", "create", template["slug"], key, "--filter", won, "--inactive")
    assert made["status"] == "INACTIVE"
    assert "INACTIVE" in await said(api, "triggers", "fire", key, "--dry-run")
    assert "ACTIVE" in await said(api, "subscriptions", "activate", made["id"])
    assert 'after.status = "won"' in await said(api, "subscriptions", "list", "--trigger", key)
    assert "It matches." in await said(api, "subscriptions", "explain", made["id"], "--payload", json.dumps(sample))
    lost = await said(api, "subscriptions", "explain", made["id"], "--payload", '{"after": {"status": "lost"}}')
    assert "It does not match." in lost
    assert "lost" in lost
    event = await answered(api, "triggers", "fire", key)
    explained = await answered(api, "subscriptions", "explain", made["id"], "--event", event["eventRecordId"])
    assert explained["holds"]
    code, _, err = await millrace(api, "triggers", "delete", key)
    assert (code, "TRIGGER_IN_USE" in err) == (1, True)
    assert "INACTIVE" in await said(api, "subscriptions", "deactivate", made["id"])
    assert template["slug"] in await said(api, "subscriptions", "show", made["id"])
    await said(api, "subscriptions", "delete", made["id"])
    await said(api, "triggers", "delete", key)
    code, _, err = await millrace(api, "triggers", "show", key)
    assert (code, "TRIGGER_NOT_FOUND" in err) == (1, True)


async def test_a_subscription_that_resumes_is_made_by_options_and_warned_of(api: httpx.AsyncClient) -> None:
    template, key = await active_template(api), "webhook_generic"
    how = ("--mode", "resume", "--signal", "paid", "--correlation-key", "{{ body.id }}")
    made = await answered(api, "subscriptions", "create", template["slug"], key, *how)
    assert (made["mode"], made["signal"], made["correlationKey"]) == ("RESUME", "paid", "{{ body.id }}")
    told = await said(api, "subscriptions", "change", made["id"], "--correlation-key", "{{ body.order }}")
    assert "{{ body.order }}" in told
    assert "SIGNAL_UNKNOWN" in told
    payload = '{"body": {"order": 1}}'
    assert "SIGNAL_UNKNOWN" in await said(api, "subscriptions", "explain", made["id"], "--payload", payload)
    assert "SIGNAL_UNKNOWN" in await said(api, "triggers", "fire", key, "--dry-run", "--payload", payload)

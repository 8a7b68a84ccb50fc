"""Schedules as the description of the API shows them."""

from typing import Any

SPEC: dict[str, Any] = {"cron": ["30 22 * * MON-FRI"], "timeZone": "Europe/Berlin"}
SPECS: list[Any] = [
    SPEC,
    {"intervals": [{"every": "PT15M"}], "jitter": "PT1M"},
    {"calendars": [{"hour": [9], "dayOfMonth": [1]}], "exclude": [{"month": [8]}], "timeZone": "America/New_York"},
]
CREATED: list[Any] = [
    {
        "name": "nightly-report",
        "spec": SPEC,
        "overlap": "SKIP",
        "target": {
            "templateId": "report",
            "context": {"day": {"type": "expr", "expr": "$substringBefore(__trigger__.triggerTime, 'T')"}},
            "name": "Nightly report",
        },
    },
    {
        "name": "new-orders",
        "spec": {"intervals": [{"every": "PT1M"}]},
        "target": {"triggerKey": "shop.order"},
        "poll": {
            "source": {"type": "SQL", "connection": "shop", "query": "SELECT id, total FROM orders WHERE id > :cursor"},
            "id": "$string(__trigger__.item.id)",
            "cursor": "$max([__trigger__.cursor, __trigger__.items.id])",
        },
    },
]
CHANGED: list[Any] = [
    {"spec": {"cron": ["0 23 * * *"], "timeZone": "Europe/Berlin"}, "maxExecutions": None},
    {"paused": True, "note": "stocktaking"},
]

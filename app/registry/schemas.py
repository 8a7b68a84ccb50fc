"""Actions on the wire."""

from datetime import datetime
from typing import Any

from app.wire import Given


class ActionView(Given):
    """What a step can call; the schemas are JSON Schema."""

    key: str
    version: str
    description: str | None
    parameters_schema: dict[str, Any]
    output_schema: dict[str, Any] | None
    policies: dict[str, Any]
    updated_at: datetime


class ActionList(Given):
    """Every action that a worker has announced."""

    items: list[ActionView]

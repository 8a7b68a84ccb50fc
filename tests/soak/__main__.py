"""`python -m tests.soak` runs every scenario; `python -m tests.soak kills steps` only those.

Each prints its figures as one line of JSON, and fails when what must hold does not.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from app.observability import configure_logging
from app.settings import LogSettings
from tests.soak import backfill, kills, outages, ways_in, wide

Scenario = Callable[[], Awaitable[dict[str, Any]]]

SCENARIOS: dict[str, Scenario] = {
    "kills": kills.run,
    "steps": wide.many_steps,
    "batch": wide.many_children,
    "postgres": outages.postgres_away,
    "temporal": outages.temporal_restarted,
    "backfill": backfill.run,
    "ways-in": ways_in.run,
}


def main() -> None:
    """Runs what is asked for, one after the other."""
    configure_logging(LogSettings(level="ERROR"))
    wanted = sys.argv[1:] or list(SCENARIOS)
    unknown = [name for name in wanted if name not in SCENARIOS]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    for name in wanted:
        print(json.dumps({"scenario": name, **asyncio.run(SCENARIOS[name]())}), flush=True)


if __name__ == "__main__":
    main()

"""Where executions stood still: for the slow ones, the longest gap in their history and what stood on its two sides."""

import itertools
from collections.abc import Iterable
from typing import Any

from temporalio.client import Client

# Seconds. The timeouts after which Temporal gives up on a worker are ten: a run that took nearly so long may show one.
SLOW = 5.0


async def stalls(client: Client, runs: Iterable[str]) -> list[dict[str, Any]]:
    """Each of the runs, by workflow id, with its longest gap: `{run, seconds, after, before}`."""
    found = []
    for run in runs:
        events = (await client.get_workflow_handle(run).fetch_history()).events
        gaps = [
            ((later.event_time.ToDatetime() - earlier.event_time.ToDatetime()).total_seconds(), earlier, later)
            for earlier, later in itertools.pairwise(events)
        ]
        seconds, earlier, later = max(gaps, key=lambda gap: gap[0])
        found.append({"run": run, "seconds": seconds, "after": _name(earlier), "before": _name(later)})
    return found


def _name(event: Any) -> str:
    return str(event.WhichOneof("attributes")).removesuffix("_event_attributes")

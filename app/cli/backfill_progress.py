"""A backfill as it goes on: a bar on a terminal, otherwise a line every few seconds."""

import time
from collections import deque
from datetime import timedelta
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from app.cli.api_client import Api
from app.cli.backfill_loading import patiently
from app.cli.output import err

LOOK_EVERY = 0.5
SAY_EVERY = 5.0
# Seconds over which the rate is taken.
RECENT = 20.0
OVER = frozenset({"COMPLETED", "CANCELLED", "FAILED"})


class Speed:
    """How fast rows have been settled lately; `now` is a monotonic clock in seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now: float, settled: int) -> None:
        """So many are settled now."""
        self._seen.append((now, settled))
        while len(self._seen) > 2 and now - self._seen[0][0] > RECENT:
            self._seen.popleft()

    def rate(self) -> float:
        """Rows a second."""
        (began, before), (now, settled) = self._seen[0], self._seen[-1]
        return (settled - before) / (now - began) if now > began else 0.0


def follow(calls: Api, path: str, found: dict[str, Any], quiet: bool) -> dict[str, Any]:
    """Shows a backfill on standard error until it is over; how it is then. With `quiet` it says nothing."""
    speed = Speed()
    shown = not quiet and err.is_terminal
    said = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[says]}"),
    )
    with Progress(*columns, console=err, disable=not shown) as bar:
        task = bar.add_task(found["name"], total=found["rows"]["total"], says="")
        while True:
            now = time.monotonic()
            settled = found["rows"]["total"] - found["rows"]["pending"]
            speed.note(now, settled)
            says = described(found, speed.rate())
            bar.update(task, completed=settled, total=found["rows"]["total"], says=says)
            over = found["status"] in OVER
            if not shown and not quiet and (over or now - said > SAY_EVERY):
                err.print(f"{settled} of {found['rows']['total']} · {says}", soft_wrap=True)
                said = now
            if over:
                return found
            time.sleep(LOOK_EVERY)
            found = patiently(lambda: calls.get(path))


def described(found: dict[str, Any], rate: float) -> str:
    """Rate, time that is left, and rows by what became of them."""
    parts = [] if found["status"] == "RUNNING" else [found["status"]]
    if found["status"] == "RUNNING" and rate > 0:
        left = timedelta(seconds=round(found["rows"]["pending"] / rate))
        parts.append(f"{rate:.1f}/s, {left} left")
    counts = {name: found["rows"][name] for name in ("started", "repeated", "refused", "invalid")}
    parts += [f"{count} {name}" for name, count in counts.items() if count]
    if found["open"]:
        parts.append(f"{found['open']} open")
    return " · ".join(parts)

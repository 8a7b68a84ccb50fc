"""The five steps in DBOS. Runs in `bench/.venv`, as a program that is told on standard input what to do.

`python -m bench.dbos_steps URL` keeps its state in the PostgreSQL database of the URL. For each line `COUNT AT_ONCE` it
runs that many workflows, so many at a time, and prints `{"seconds", "latencies"}` as JSON; at the end of input it ends.
"""

import asyncio
import json
import logging
import sys
import time

from dbos import DBOS  # type: ignore[import-not-found]

STEPS = 5


@DBOS.step()  # type: ignore[untyped-decorator]
async def add(value: int, by: int) -> dict[str, int]:
    """Adds."""
    return {"value": value + by}


@DBOS.workflow()  # type: ignore[untyped-decorator]
async def five_steps(given: dict[str, int]) -> int:
    """Takes `{n}`, gives n + 5."""
    value = given["n"]
    for _ in range(STEPS):
        value = (await add(value, 1))["value"]
    return value


async def _block(count: int, at_once: int) -> dict[str, object]:
    left = iter(range(count))
    latencies: list[float] = []

    async def caller() -> None:
        for number in left:
            began = time.perf_counter()
            handle = await DBOS.start_workflow_async(five_steps, {"n": number})
            if await handle.get_result() != number + STEPS:
                raise AssertionError(f"{number} gave something else")
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(caller())
    return {"seconds": time.perf_counter() - began, "latencies": latencies}


async def _serve() -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        count, at_once = map(int, line.split())
        print(json.dumps(await _block(count, at_once)), flush=True)


def main() -> None:
    """Does what it is told, with a database of its own."""
    logging.disable(logging.WARNING)
    DBOS(config={"name": "bench", "system_database_url": sys.argv[1], "run_admin_server": False, "log_level": "ERROR"})
    DBOS.launch()
    try:
        asyncio.run(_serve())
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    main()

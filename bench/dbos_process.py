"""DBOS in its own environment and process, told block by block what to run."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

PYTHON = Path(__file__).parent / ".venv" / "bin" / "python"
_ROOT = Path(__file__).resolve().parent.parent
_DATABASE = "dbos"
_LONGEST_LINE = 2**20


class Dbos:
    """The running process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def block(self, count: int, at_once: int) -> dict[str, Any]:
        """Runs so many workflows, so many at a time: `{seconds, latencies}`, all in seconds.

        Raises RuntimeError with its last words when the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{count} {at_once}\n".encode())
        line = await self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            said = (await self._process.stderr.read()).decode(errors="replace")
            raise RuntimeError(f"DBOS has ended: {said[-500:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def dbos(millrace_url: str) -> AsyncIterator[Dbos | None]:
    """DBOS on the same PostgreSQL server as Millrace, in a database of its own; None when it is not installed."""
    if not PYTHON.exists():
        yield None
        return
    server, _, rest = millrace_url.replace("+asyncpg", "").rpartition("/millrace?")
    process = await asyncio.create_subprocess_exec(
        *(PYTHON, "-m", "bench.dbos_steps", f"{server}/{_DATABASE}?{rest}"),
        cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    try:
        yield Dbos(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()

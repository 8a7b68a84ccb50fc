"""How the processes that serve are run: on uvloop where there is one; the garbage collector looks less often."""

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

if sys.platform == "win32":
    _new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
else:
    from uvloop import new_event_loop as _new_loop

Result = TypeVar("Result")

# Objects. A workflow task makes thousands that die by themselves; with Python's own 700 the collector takes a tenth
# of a worker's time. What it is there for, the cycles of a run that has left the cache, are few and small.
_BETWEEN_COLLECTIONS = 20_000


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """`asyncio.run` for a process that serves. What has been imported so far is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_BETWEEN_COLLECTIONS, 20, 50)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(work)

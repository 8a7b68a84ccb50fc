"""Five short, idempotent steps: through Millrace, by hand with ordinary and with local activities, and in DBOS.

Millrace is measured twice: started as by an API in another process, and eagerly, as with `worker.py --with-api`.
"""

import statistics
from functools import partial

from bench.by_hand import BY_HAND_LOCAL, BY_HAND_OUTSIDE
from bench.dbos_process import Dbos, dbos
from bench.figures import Figure, Say
from bench.load import Side, add_block, take_turns
from bench.runs import AT_ONCE, SHORT_SLUG, Sides, both_sides, slow_runs
from bench.servers import database_url, own_servers

BLOCKS = 4
BLOCK_SIZE = 60
REACH_RATE = 1.5


async def measure(say: Say) -> list[Figure]:
    """Rates and latencies, two ways of starting against three others; the events of one run."""
    figures: list[Figure] = []
    say("starting PostgreSQL, Temporal and DBOS")
    async with (
        own_servers("bench-millrace") as settings,
        both_sides(settings) as sides,
        dbos(database_url(settings)) as other,
    ):
        for eager in (False, True):
            started = "eager start" if eager else "start from elsewhere"
            for name, called, reach in (
                (BY_HAND_OUTSIDE, "by hand, ordinary", REACH_RATE),
                (BY_HAND_LOCAL, "by hand, local", None),
            ):
                say(f"{BLOCKS * BLOCK_SIZE} executions on each side, {AT_ONCE} at a time: {called}, {started}")
                ours, theirs = await take_turns(
                    partial(sides.millrace, SHORT_SLUG, eager),
                    partial(sides.by_hand, name),
                    blocks=BLOCKS,
                    size=BLOCK_SIZE,
                    at_once=AT_ONCE,
                )
                figures += [_rate(ours, theirs, called, started, reach), _latency(ours, theirs, called, started)]
        figures.append(await _one_at_a_time(sides, say))
        figures.append(await _against_dbos(sides, other, say))
        await sides.check_rows()
        events = statistics.median(await sides.events(sides.of_millrace))
        figures.append(Figure("local", "events in history, median", f"{events:.0f}", numbers={"events": events}))
        figures.append(await slow_runs("local", sides))
    return figures


async def _one_at_a_time(sides: Sides, say: Say) -> Figure:
    """What an eager start gains from the request to the output, where nothing else waits."""
    say(f"{BLOCKS * BLOCK_SIZE} executions each way, one at a time: eager start or not")
    eager, elsewhere = (partial(sides.millrace, SHORT_SLUG, how) for how in (True, False))
    ours, theirs = await take_turns(eager, elsewhere, blocks=BLOCKS, size=BLOCK_SIZE, at_once=1)
    mine, other = ours.milliseconds(0.50), theirs.milliseconds(0.50)
    return Figure(
        part="local",
        case="request to output, p50, one at a time",
        millrace=f"eager {mine:.1f} ms",
        beside=f"start from elsewhere {other:.1f} ms",
        ratio=f"{mine / other:.2f} ×",
        numbers={"eager": ours.numbers(), "elsewhere": theirs.numbers(), "ratio": mine / other},
    )


async def _against_dbos(sides: Sides, other: Dbos | None, say: Say) -> Figure:
    """Blocks in the order 1 2 2 1 …, after a warm-up of each."""
    case = f"five short steps, {AT_ONCE} at a time, eager start"
    if other is None:
        return Figure("local", case, "", "DBOS is not installed")
    say(f"{BLOCKS * BLOCK_SIZE} executions on each side, {AT_ONCE} at a time: DBOS")
    theirs = Side()
    await other.block(AT_ONCE * 2, AT_ONCE)

    async def turn() -> None:
        done = await other.block(BLOCK_SIZE, AT_ONCE)
        theirs.seconds += done["seconds"]
        theirs.latencies += done["latencies"]
        theirs.blocks.append(BLOCK_SIZE / done["seconds"])

    ours = Side()
    for block in range(BLOCKS):
        for mine in (True, False) if block % 2 == 0 else (False, True):
            if mine:
                await add_block(ours, partial(sides.millrace, SHORT_SLUG, True), BLOCK_SIZE, AT_ONCE)
            else:
                await turn()
    return _rate(ours, theirs, "DBOS", "eager start", None)


def _rate(ours: Side, theirs: Side, called: str, started: str, reach: float | None) -> Figure:
    ratio = ours.rate / theirs.rate
    by_block = [mine / other for mine, other in zip(ours.blocks, theirs.blocks, strict=True)]
    return Figure(
        part="local",
        case=f"five short steps, {AT_ONCE} at a time, {started}",
        millrace=f"{ours.rate:.1f} /s",
        beside=f"{called} {theirs.rate:.1f} /s",
        ratio=f"{ratio:.2f} × ({min(by_block):.2f} to {max(by_block):.2f})",
        goal="" if reach is None else f"≥ {reach} ×",
        reached=None if reach is None else ratio >= reach,
        numbers={"millrace": ours.numbers(), "beside": theirs.numbers(), "ratioByBlock": by_block},
    )


def _latency(ours: Side, theirs: Side, called: str, started: str) -> Figure:
    mine, other = ours.milliseconds(0.50), theirs.milliseconds(0.50)
    most, others_most = max(ours.latencies) * 1e3, max(theirs.latencies) * 1e3
    return Figure(
        part="local",
        case=f"latency, p50 and longest, {started}",
        millrace=f"{mine:.0f}, {most:.0f} ms",
        beside=f"{called} {other:.0f}, {others_most:.0f} ms",
        ratio=f"{mine / other:.2f} ×",
        numbers={"ratio": mine / other, "longestMilliseconds": [most, others_most]},
    )

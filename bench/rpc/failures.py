"""What a client's calls see when tasks fail: real processes, real signals, and nobody who tells the client.

Each scene: clients call at a steady pace, a fault begins, and all goes on for some seconds. Counted are calls that failed,
by whether they began before or after the second that a client has to find out, and the picks of those that are ill.
"""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from bench.rows import Row, figure, median_row, spread
from bench.rpc.callers import AioClient, Call, Client, SyncClient
from bench.rpc.channels import FAR, NEAR, Servers, aio_channel_to, servers, sync_channel_to
from bench.rpc.scenes import PHANTOM, WELL, Scene, Set, scenes
from bench.stage import Stage, progress

TASKS: Final = 4  # in each of two datacenters
# How long a client has to find out.
NOTICE_S: Final = 1.0
_LOOK_S: Final = 0.01
# Ways to call: blocking, blocking with second copies of late calls, asyncio.
PLAIN, HEDGED, ASYNCIO = "", ", hedging", ", asyncio"


@dataclass(frozen=True, slots=True)
class Size:
    """Each scene `repeats` times: `before_s` without the fault and `after_s` with it."""

    repeats: int
    before_s: float
    after_s: float


FULL: Final = Size(5, 2.0, 6.0)
QUICK: Final = Size(1, 0.5, 3.0)


class Sample(NamedTuple):
    """Picks of one channel so far: of the faulty tasks, and of all."""

    at_s: float
    faulty: int
    total: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one client in one scene, once."""

    calls: int  # begun later than NOTICE_S after the fault
    late: Counter[str]  # those of them that failed, by status
    early_calls: int  # begun before that, and after the fault
    early: int  # those of them that failed
    last_s: float  # from the fault to the last pick of a faulty task; 0: there was none
    part: float  # of all picks after NOTICE_S, those of faulty tasks


async def rows(size: Size) -> list[Row]:
    """All of them; some eight minutes."""
    found = []
    async with Stage("failures") as stage:
        there = await servers(stage, {NEAR: TASKS, FAR: TASKS})
        await WELL(Set(stage, there, ()), list(there.workers))
        for scene in scenes(TASKS):
            played: dict[str, list[Outcome]] = {}
            for number in range(size.repeats):
                progress(f"failures: {scene.name}, {number + 1} of {size.repeats}")
                for way, outcome in (await _play(stage, there, scene, size)).items():
                    played.setdefault(way, []).append(outcome)
            for way, outcomes in played.items():
                found += scene_rows(scene, way, outcomes)
    return found


async def _play(stage: Stage, there: Servers, scene: Scene, size: Size) -> dict[str, Outcome]:
    """One scene, once; all ways to call at the same time."""
    faulty = there.tasks(NEAR)[: scene.tasks] or [PHANTOM]
    clients = _clients(there, with_asyncio=scene.asyncio)
    on = Set(stage, there, list(clients.values()))
    for client in clients.values():
        client.start()
    await asyncio.sleep(size.before_s)
    samples: dict[str, list[Sample]] = {way: [] for way in clients}
    watches = [asyncio.create_task(_watch(client, faulty, samples[way])) for way, client in clients.items()]
    await asyncio.sleep(0)
    fault_s = time.monotonic()
    try:
        await scene.begin(on, faulty)
        await asyncio.sleep(fault_s + size.after_s - time.monotonic())
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*(client.stop() for client in clients.values()))
        await scene.end(on, faulty)
    return {way: outcome_of(client.calls, samples[way], fault_s) for way, client in clients.items()}


def _clients(there: Servers, *, with_asyncio: bool) -> dict[str, Client]:
    found: dict[str, Client] = {
        PLAIN: SyncClient(sync_channel_to(there, idempotent=True)),
        HEDGED: SyncClient(sync_channel_to(there, idempotent=True, hedging=True)),
    }
    if with_asyncio:
        found[ASYNCIO] = AioClient(aio_channel_to(there, idempotent=True))
    return found


async def _watch(client: Client, faulty: Collection[str], samples: list[Sample]) -> None:
    while True:
        samples.append(Sample(time.monotonic(), *client.picks(faulty)))
        await asyncio.sleep(_LOOK_S)


def outcome_of(calls: Sequence[Call], samples: Sequence[Sample], fault_s: float) -> Outcome:
    """What the calls and the picks of one client say; `samples` in order, the first one before the fault."""
    noticed_s = fault_s + NOTICE_S
    after = [call for call in calls if call.began_s >= fault_s]
    late = [call for call in after if call.began_s > noticed_s]
    picked = [two.at_s for one, two in pairwise(samples) if two.faulty > one.faulty]
    then = next((sample for sample in samples if sample.at_s > noticed_s), samples[-1])
    faulty, total = samples[-1].faulty - then.faulty, samples[-1].total - then.total
    return Outcome(
        calls=len(late),
        late=Counter(call.failed for call in late if call.failed),
        early_calls=len(after) - len(late),
        early=sum(bool(call.failed) for call in after) - sum(bool(call.failed) for call in late),
        last_s=max(0.0, picked[-1] - fault_s) if picked else 0.0,
        part=faulty / total if total else 0.0,
    )


def scene_rows(scene: Scene, way: str, outcomes: Sequence[Outcome]) -> list[Row]:
    """Failed calls of all repeats together, and the picks."""
    name = f"failures: {scene.name}{way}"
    failed = _failed_row(f"{name}: failed, begun after {NOTICE_S:g} s", outcomes)
    if scene.lasting:
        parts = [100.0 * outcome.part for outcome in outcomes]
        fair = 100.0 * scene.tasks / TASKS
        part = Row(
            f"{name}: its part of the picks after {NOTICE_S:g} s",
            statistics.median(parts),
            "%",
            f"{spread(parts)}; fair {figure(fair)}",
        )
        return [failed, part]
    return [failed, median_row(f"{name}: until the last pick", [outcome.last_s for outcome in outcomes], "s")]


def _failed_row(name: str, outcomes: Sequence[Outcome]) -> Row:
    calls, late = (
        sum(outcome.calls for outcome in outcomes),
        sum((outcome.late for outcome in outcomes), Counter[str]()),
    )
    if not calls:
        return Row(name, None, "calls", "none began: every thread waited for an answer", at_most=0.0)
    codes = "".join(f", {code} {count}" for code, count in sorted(late.items()))
    early, of = sum(outcome.early for outcome in outcomes), sum(outcome.early_calls for outcome in outcomes)
    return Row(
        name, late.total(), "calls", f"of {calls}{codes}; before {early} of {of}; n={len(outcomes)}", at_most=0.0
    )

"""A thousand watchers of 20 endpoints each, and a tenth of the endpoints changes at once.

Through Discovery (what RPC clients and DNS frontends read) and through BNS's own Watch: the changed tasks restart, each
agent telling one after the other, all agents at once; and, through Discovery, they fall ill and recover, all at once.
Latency runs from the agent's message to the moment when a watcher's process read the news. The deltas are the endpoints
in all messages; the least is one for each watcher of each changed endpoint.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.load.fleet import Fleet
from bench.planet.control import Operator
from bench.rows import Json, Row, quantile, spread
from bench.stage import BenchError, Replica, Stage, Worker, cpu_s, progress
from bns.model import HealthStatus

VISIBLE_GOAL_S = 1.0
DELTAS_GOAL = 1.2
ENDPOINTS = 20
# Two load processes read the streams: one interpreter's lock would be what is measured.
PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Size:
    """`jobs` of ENDPOINTS tasks each, spread over ten agents; `watchers` streams; every roll `rolls` times."""

    watchers: int
    jobs: int
    rolls: int

    @property
    def fleet(self) -> Fleet:
        return Fleet(1, 10, self.jobs * ENDPOINTS // 10, tasks_per_job=ENDPOINTS)

    @property
    def changed_per_agent(self) -> int:
        return self.fleet.tasks_per_agent // 10


FULL = Size(watchers=1000, jobs=50, rolls=5)
QUICK = Size(watchers=40, jobs=10, rolls=1)


@dataclass(frozen=True, slots=True)
class Roll:
    """What one roll showed. Seconds, one for each watcher and changed endpoint."""

    latencies_s: Sequence[float]
    deltas: int
    messages: int
    plans: int
    kilobytes: float
    cpu_s: float

    @property
    def over_least(self) -> float:
        return self.deltas / len(self.latencies_s)


async def rows(size: Size) -> list[Row]:
    async with Stage("fanout") as stage:
        etcd = await stage.etcd()
        replica = await stage.replica("control", etcd)
        fleet = size.fleet
        async with Operator(replica.address) as operator:
            await operator.apply(fleet.resources())
        agents = await stage.worker("agents", "bench.load.registrants")
        progress(f"fan-out: registering {fleet.tasks} tasks")
        await agents.ask("connect", address=replica.address, fleet=asdict(fleet))
        readers = [await stage.worker(f"watchers{i}", "bench.load.watchers") for i in range(PROCESSES)]
        services = [f"service{job}" for job in range(size.jobs)]
        prefixes = [f"/bns/us-east1/bench/job{job}/" for job in range(size.jobs)]
        scene = _Scene(size, replica, agents, readers)
        result = await scene.measure("Discovery, restarts", "discovery", services, ["restart"])
        result += await scene.measure("Discovery, health", "discovery", services, ["ill", "well"])
        return result + await scene.measure("BNS Watch, restarts", "bns", prefixes, ["restart"])


class _Scene:
    def __init__(self, size: Size, replica: Replica, agents: Worker, readers: Sequence[Worker]) -> None:
        self._size = size
        self._replica = replica
        self._agents = agents
        self._readers = readers
        self._shift = 0

    async def measure(self, what: str, api: str, targets: Sequence[str], changes: Sequence[str]) -> list[Row]:
        """Opens the streams, makes each of `changes` again and again, closes them."""
        progress(f"fan-out: {what}: opening {self._size.watchers} streams")
        share = self._size.watchers // len(self._readers)
        await asyncio.gather(
            *(
                reader.ask(
                    "open", address=self._replica.address, api=api, targets=targets, count=share, first=i * share
                )
                for i, reader in enumerate(self._readers)
            )
        )
        rolls = [await self._roll(change, len(targets)) for _ in range(self._size.rolls) for change in changes]
        await asyncio.gather(*(reader.ask("close") for reader in self._readers))
        return self._rows(what, rolls)

    def _rows(self, what: str, rolls: Sequence[Roll]) -> list[Row]:
        name = f"fan-out, {self._size.watchers} watchers x {ENDPOINTS}, 10 % roll, {what}"
        p50s, p99s = ([quantile(roll.latencies_s, q) for roll in rolls] for q in (0.5, 0.99))
        over = [roll.over_least for roll in rolls]
        worst = max(max(roll.latencies_s) for roll in rolls)
        used = [roll.cpu_s for roll in rolls]
        return [
            Row(f"{name}: visible, p50", quantile(p50s, 0.5), "s", f"{spread(p50s)} rolls"),
            Row(
                f"{name}: visible, p99",
                quantile(p99s, 0.5),
                "s",
                f"{spread(p99s)} rolls, worst {worst:.2f}",
                VISIBLE_GOAL_S,
            ),
            Row(f"{name}: deltas over the least", max(over), "x", f"{spread(over)} rolls", DELTAS_GOAL),
            Row(f"{name}: CPU of the control plane a roll", quantile(used, 0.5), "s", f"{spread(used)} rolls"),
        ]

    async def _roll(self, change: str, targets: int) -> Roll:
        await asyncio.gather(*(reader.ask("begin") for reader in self._readers))
        used_s = cpu_s(self._replica.pid)
        told = (await self._make(change))["told"]
        assert isinstance(told, list)
        expected = len(told) * self._size.watchers // targets // len(self._readers)
        answers = await asyncio.gather(*(reader.ask("collect", expected=expected) for reader in self._readers))
        used_s = cpu_s(self._replica.pid) - used_s
        roll = _evaluate(told, answers, 1 if change == "restart" else 2, self._size.watchers // targets, used_s)
        progress(
            f"fan-out: {change}: {len(roll.latencies_s)} deltas due, {roll.deltas} sent in {roll.messages} messages,"
            f" {roll.plans} plans, {roll.kilobytes:.0f} kB; p50 {quantile(roll.latencies_s, 0.5):.3f} s,"
            f" p99 {quantile(roll.latencies_s, 0.99):.3f} s"
        )
        return roll

    async def _make(self, change: str) -> Json:
        count = self._size.changed_per_agent
        if change == "restart":
            self._shift += 1
            return await self._agents.ask("restart", per_agent=count, shift=1)
        health = HealthStatus.UNHEALTHY if change == "ill" else HealthStatus.HEALTHY
        return await self._agents.ask("health", per_agent=count, health=int(health))


def _evaluate(told: object, answers: Sequence[Json], column: int, watchers_each: int, used_s: float) -> Roll:
    """`column` of what was seen (2: port, 3: health) has to become what was told. Raises BenchError when it did not."""
    assert isinstance(told, list)
    seen: dict[tuple[str, int], dict[int, float]] = {}
    deltas = 0
    for answer in answers:
        assert isinstance(answer["seen"], list)
        deltas += len(answer["seen"])
        for one in answer["seen"]:
            seen.setdefault((one[1], one[1 + column]), {}).setdefault(one[0], one[4])
    latencies_s = []
    for task, value, sent_s, _ in told:
        arrived = seen.get((task, value), {})
        if len(arrived) != watchers_each:
            raise BenchError(f"{task} became {value}, and {len(arrived)} of {watchers_each} watchers were told")
        latencies_s += [at_s - sent_s for at_s in arrived.values()]
    messages, plans, size = (sum(int(str(answer[key])) for answer in answers) for key in ("messages", "plans", "size"))
    return Roll(latencies_s, deltas, messages, plans, size / 1e3, used_s)

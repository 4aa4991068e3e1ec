"""Load process: agents that hold a Register session and a report stream each. Commands: connect, restart, health.

Unlike `reporters` these register their tasks themselves, can move them to another port (a task that restarted) and can
say that their health changed.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import grpc
import grpc.aio

from bench.load.fleet import Fleet, Voice
from bench.load.worker import Json, run
from bns.model import HealthStatus, Task
from bns.registration import Identity, Registration
from bns.transport import aio_channel
from gslb.v1 import report_pb2, report_pb2_grpc

PERIOD_S = 5.0
ATTACH_TIMEOUT_S = 30.0
REGISTER_TIMEOUT_S = 60.0
# [task, its new port or health, when that was sent (monotonic), when it was acknowledged]
Told = tuple[str, int, float, float]


@dataclass(slots=True)
class _Agent:
    voice: Voice
    records: dict[str, Task]
    session: Registration
    call: "grpc.aio.StreamStreamCall[report_pb2.LoadReport, report_pb2.ReportAck]"
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # a report and its acknowledgement

    def some(self, count: int) -> Sequence[str]:
        """`count` tasks, spread evenly over all jobs of this agent."""
        tasks = self.voice.machine.tasks
        return tasks[:: len(tasks) // count][:count]

    async def report(self, only: Collection[str] | None = None) -> float:
        """Sends a report and waits for its acknowledgement; when it was sent."""
        async with self.turn:
            message = self.voice.report(only)
            sent_s = time.monotonic()
            await self.call.write(message)
            ack = await self.call.read()
        if not isinstance(ack, report_pb2.ReportAck) or not ack.accepted:
            raise ConnectionError(f"a report was refused: {ack}")
        return sent_s


class Registrants:
    """The agents of a fleet."""

    def __init__(self) -> None:
        self._agents: list[_Agent] = []
        self._channels: list[grpc.aio.Channel] = []
        self._beat: asyncio.Task[None] | None = None

    async def connect(self, request: Json) -> Json:
        """Registers every task and reports it healthy; from then on whole reports go out each period."""
        fleet = Fleet(**request["fleet"])  # type: ignore[arg-type]  # made by dataclasses.asdict
        address = str(request["address"])
        self._channels.append(aio_channel(address))
        records = {task.name: replace(task, agent="", machine="") for task in fleet.records()}
        rng, first = random.Random(2), time.monotonic_ns()
        for machine in fleet.machines():
            identity = Identity(machine.agent, machine.datacenter, f"m-{machine.number}", "bench-boot")
            call = report_pb2_grpc.ReportsStub(self._channels[0]).ReportLoad()  # type: ignore[call-arg]  # written to
            agent = _Agent(
                Voice(machine, PERIOD_S, first, rng),
                {name: records[name] for name in machine.tasks},
                Registration([address], identity),
                call,
            )
            agent.session.start()
            self._agents.append(agent)
        await asyncio.gather(*(self._settle(agent) for agent in self._agents))
        self._beat = asyncio.create_task(self._beat_for_ever())
        return {"tasks": fleet.tasks}

    async def _settle(self, agent: _Agent) -> None:
        await agent.session.wait_attached(ATTACH_TIMEOUT_S)
        tasks = agent.records.values()
        await asyncio.gather(*(agent.session.register(task, REGISTER_TIMEOUT_S) for task in tasks))
        await agent.report()

    async def _beat_for_ever(self) -> None:
        while True:
            for agent in self._agents:
                await asyncio.sleep(PERIOD_S / len(self._agents))
                await agent.report()

    async def restart(self, request: Json) -> Json:
        """`per_agent` tasks of each agent come back at another port: all agents at once, each task after the other."""
        count, shift = int(str(request["per_agent"])), int(str(request["shift"]))

        async def roll(agent: _Agent) -> list[Told]:
            told: list[Told] = []
            for name in agent.some(count):
                old = agent.records[name]
                task = agent.records[name] = replace(old, port=old.port + shift, pid=old.pid + shift)
                sent_s = time.monotonic()
                await agent.session.register(task, REGISTER_TIMEOUT_S)
                told.append((name, task.port, sent_s, time.monotonic()))
            return told

        return await self._by_all(roll)

    async def health(self, request: Json) -> Json:
        """`per_agent` tasks of each agent change their health, all at once."""
        count, health = int(str(request["per_agent"])), HealthStatus(int(str(request["health"])))

        async def turn(agent: _Agent) -> list[Told]:
            names = agent.some(count)
            agent.voice.ill = {} if health is HealthStatus.HEALTHY else dict.fromkeys(names, health)
            sent_s = await agent.report(names)
            return [(name, int(health), sent_s, time.monotonic()) for name in names]

        return await self._by_all(turn)

    async def _by_all(self, work: Callable[[_Agent], Awaitable[list[Told]]]) -> Json:
        told = await asyncio.gather(*(work(agent) for agent in self._agents))
        return {"told": [one for part in told for one in part]}


if __name__ == "__main__":
    registrants = Registrants()
    run({"connect": registrants.connect, "restart": registrants.restart, "health": registrants.health})

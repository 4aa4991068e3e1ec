"""Load process: the report streams of many agents. Commands: connect, run."""

import asyncio
import random
import time

import grpc
import grpc.aio

from bench.load.fleet import Fleet, Voice
from bench.load.worker import Json, run
from bns.transport import aio_channel
from gslb.v1 import report_pb2, report_pb2_grpc

AGENTS_PER_CHANNEL = 25
Call = grpc.aio.StreamStreamCall[report_pb2.LoadReport, report_pb2.ReportAck]


class Reporters:
    """The agents of a fleet, each with a stream of its own; a connection carries several, to spare this process."""

    def __init__(self) -> None:
        self._voices: list[Voice] = []
        self._calls: list[Call] = []
        self._channels: list[grpc.aio.Channel] = []
        self._readers: list[asyncio.Task[None]] = []
        self._period_s = 5.0
        self._sent = 0
        self._acked = 0
        self._refused = 0

    async def connect(self, request: Json) -> Json:
        """Opens a stream for each agent and sends a first whole report; answers when all are acknowledged."""
        fleet = Fleet(**request["fleet"])  # type: ignore[arg-type]  # made by dataclasses.asdict
        self._period_s = float(str(request["period_s"]))
        rng, first = random.Random(1), time.monotonic_ns()
        self._voices = [Voice(machine, self._period_s, first, rng) for machine in fleet.machines()]
        for number in range(len(self._voices)):
            if number % AGENTS_PER_CHANNEL == 0:
                self._channels.append(aio_channel(str(request["address"])))
            stub = report_pb2_grpc.ReportsStub(self._channels[-1])
            call: Call = stub.ReportLoad()  # type: ignore[call-arg]  # written to, not iterated
            self._calls.append(call)
            self._readers.append(asyncio.create_task(self._read(call)))
        for number in range(len(self._voices)):
            await self._send(number)
        await self._all_acked()
        return {**self._counts()}

    async def run(self, request: Json) -> Json:
        """Each agent reports once a period, spread evenly over it, for `seconds`; answers with the counts of that."""
        seconds = float(str(request["seconds"]))
        before = self._counts()
        started_s = time.monotonic()
        gap_s = self._period_s / len(self._voices)
        latest_s, turn = 0.0, 0
        while turn * gap_s < seconds:
            late_s = time.monotonic() - (started_s + turn * gap_s)
            latest_s = max(latest_s, late_s)
            if late_s < 0:
                await asyncio.sleep(-late_s)
            await self._send(turn % len(self._voices))
            turn += 1
        elapsed_s = time.monotonic() - started_s
        await self._all_acked()
        after = self._counts()
        return {
            **{name: after[name] - before[name] for name in after},
            "elapsed_s": elapsed_s,
            "latest_s": latest_s,
        }

    async def _send(self, number: int) -> None:
        await self._calls[number].write(self._voices[number].report())
        self._sent += 1

    async def _read(self, call: Call) -> None:
        while isinstance(ack := await call.read(), report_pb2.ReportAck):
            self._acked += 1
            self._refused += not ack.accepted

    async def _all_acked(self) -> None:
        async with asyncio.timeout(60.0):
            while self._acked < self._sent:
                await asyncio.sleep(0.01)

    def _counts(self) -> dict[str, int]:
        return {"sent": self._sent, "acked": self._acked, "refused": self._refused}


if __name__ == "__main__":
    reporters = Reporters()
    run({"connect": reporters.connect, "run": reporters.run})

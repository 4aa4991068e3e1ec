"""A node agent for tests: in this process or as a real one, and tasks that attach to it."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio

from agents.node import Agent, Settings
from bns.spawn import dies_with_us
from bns.v1 import agent_pb2, agent_pb2_grpc, bns_pb2

# Listens on a free port of 127.0.0.1, says which, and burns CPU or sleeps.
SERVER = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print(server.getsockname()[1], flush=True)
while True:
    time.sleep(0.5)
"""


class Server:
    """A real process that listens."""

    def __init__(self, port: int = 0) -> None:
        command = dies_with_us([sys.executable, "-c", SERVER, str(port)])
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def server(port: int = 0):
    """A Server that ends with the test."""
    running = Server(port)
    try:
        yield running
    finally:
        running.close()


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Agent]:
    """An agent in this process; ends with a goodbye."""
    agent = Agent(settings)
    await agent.start()
    run = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        agent.stop()
        await run


class Attached:
    """A task's stream to its agent, and what came back on it."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1)])
        self.call = agent_pb2_grpc.NodeAgentStub(self._channel).Attach()
        self.answers: list[agent_pb2.AttachResponse] = []
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            async for answer in self.call:
                self.answers.append(answer)
        self.code = await self.call.code()
        self.details = await self.call.details()

    async def task(self, name: str, port: int, pid: int = 0, **fields) -> "Attached":
        record = bns_pb2.TaskRecord(name=name, address="127.0.0.1", port=port, pid=pid, **fields)
        await self.send(task=record)
        return self

    async def send(self, **kind) -> None:
        await self.call.write(agent_pb2.AttachRequest(**kind))

    @property
    def last(self) -> agent_pb2.AttachResponse:
        return self.answers[-1] if self.answers else agent_pb2.AttachResponse()

    async def close(self) -> None:
        """The stream breaks."""
        self.call.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._channel.close()


class AgentProcess:
    """`python -m gslb agent` as a process."""

    def __init__(self, directory: Path, control: list[str], *extra: str, name: str = "agent-1") -> None:
        self.socket = directory / f"{name}.sock"
        self.log = directory / f"{name}.log"
        arguments = [
            sys.executable, "-m", "gslb", "agent",
            "--name", name, "--datacenter", "dc1", "--control", ",".join(control),
            "--socket", str(self.socket), "--machine-id", "machine-1", "--period", "1", *extra,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                dies_with_us(arguments), stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"}
            )

    @property
    def text(self) -> str:
        return self.log.read_text()

    async def exit_code(self, timeout_s: float = 15.0) -> int:
        return await asyncio.to_thread(self.process.wait, timeout_s)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

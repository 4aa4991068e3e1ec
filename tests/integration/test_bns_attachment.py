"""A task attached to an agent's socket, with an agent of three screens that says what the test wants."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from bns.attachment import AgentAttachment, AttachmentState, Counters, agent_target
from bns.errors import AddressError, BadRecordError, RefusedError, UnavailableError
from bns.model import HealthStatus
from bns.transport import add_port, server_options
from bns.v1 import agent_pb2, agent_pb2_grpc, bns_pb2
from tests.support.bns import task

NAME = "/bns/us-east1/shakespeare/backend/0"


class Agent(agent_pb2_grpc.NodeAgentServicer):
    """Remembers what it was told. `refusal`: what it answers to a task."""

    def __init__(self) -> None:
        self.heard: list[agent_pb2.AttachRequest] = []
        self.streams = 0
        self.refusal = ""

    def kinds(self) -> list[str | None]:
        return [request.WhichOneof("kind") for request in self.heard]

    def Attach(  # noqa: N802 - gRPC's name
        self, request_iterator: Iterator[agent_pb2.AttachRequest], context: grpc.ServicerContext
    ) -> Iterator[agent_pb2.AttachResponse]:
        self.streams += 1
        for request in request_iterator:
            self.heard.append(request)
            match request.WhichOneof("kind"):
                case "task" if self.refusal:
                    yield agent_pb2.AttachResponse(registered=False, error=self.refusal)
                    context.abort(grpc.StatusCode.ALREADY_EXISTS, self.refusal)
                case "task":
                    yield agent_pb2.AttachResponse(registered=True, health=bns_pb2.HEALTH_STATUS_HEALTHY)
                case "lame_duck":
                    yield agent_pb2.AttachResponse(registered=True, health=bns_pb2.HEALTH_STATUS_DRAINING)
                case "detach":
                    yield agent_pb2.AttachResponse(registered=False)
                    return


@contextmanager
def running(agent: Agent, path: Path) -> Iterator[None]:
    server = grpc.server(futures.ThreadPoolExecutor(4), options=server_options())
    agent_pb2_grpc.add_NodeAgentServicer_to_server(agent, server)
    add_port(server, f"unix:{path}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait(10)


def eventually(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    pytest.fail("it did not come true")


def test_attach_count_go_lame_and_detach(tmp_path: Path) -> None:
    agent, path = Agent(), tmp_path / "agent.sock"
    seen: list[AttachmentState] = []
    with running(agent, path):
        attachment = AgentAttachment(
            str(path),
            task(NAME),
            counters=lambda: Counters(ok=(1, 2, 3, 4), error=(0, 0, 0, 5), in_flight=6),
            period_s=0.05,
            on_change=seen.append,
        )
        attachment.start()
        attachment.wait_registered(10)
        assert attachment.state.health is HealthStatus.HEALTHY
        eventually(lambda: agent.kinds().count("counters") >= 3)
        attachment.lame_duck()
        eventually(lambda: attachment.state.health is HealthStatus.DRAINING)
        assert attachment.detach(10) is True
    assert agent.heard[0].task.name == NAME
    counters = next(request.counters for request in agent.heard if request.WhichOneof("kind") == "counters")
    assert (list(counters.ok), list(counters.error), counters.in_flight) == ([1, 2, 3, 4], [0, 0, 0, 5], 6)
    assert agent.kinds()[-1] == "detach"
    assert agent.streams == 1
    assert [state.registered for state in seen] == [True, True, False]


def test_it_attaches_before_the_agent_is_there_and_after_it_was_restarted(tmp_path: Path) -> None:
    agent, path = Agent(), tmp_path / "agent.sock"
    attachment = AgentAttachment(f"unix:{path}", task(NAME), period_s=0.05)
    attachment.start()
    with pytest.raises(UnavailableError, match=rf"agent at unix:{path} did not register {NAME} in 0\.3 s"):
        attachment.wait_registered(0.3)
    with running(agent, path):
        attachment.wait_registered(20)
        attachment.lame_duck()
        eventually(lambda: "lame_duck" in agent.kinds())
    eventually(lambda: not attachment.state.attached)
    assert attachment.state.health is HealthStatus.DRAINING, "what was known last"
    second = Agent()
    with running(second, path):
        eventually(lambda: second.kinds()[:2] == ["task", "lame_duck"])
        attachment.close()
    assert "detach" not in second.kinds()


def test_a_refusal_is_told_and_tried_again(tmp_path: Path) -> None:
    agent, path = Agent(), tmp_path / "agent.sock"
    agent.refusal = f"task {NAME} is held by agent 'node-9'"
    with running(agent, path), AgentAttachment(str(path), task(NAME)) as attachment:
        with pytest.raises(RefusedError, match="node-9"):
            attachment.wait_registered(10)
        agent.refusal = ""
        eventually(lambda: attachment.state.registered)


def test_detach_does_not_wait_for_an_agent_that_is_away(tmp_path: Path) -> None:
    attachment = AgentAttachment(str(tmp_path / "absent.sock"), task(NAME))
    attachment.start()
    eventually(lambda: attachment.state.problem != "the agent was not asked yet")
    assert attachment.detach(10) is False
    assert attachment.detach(10) is False


async def test_from_asyncio(tmp_path: Path) -> None:
    agent, path = Agent(), tmp_path / "agent.sock"
    with running(agent, path):
        attachment = AgentAttachment(str(path), task(NAME))
        attachment.start()
        await asyncio.gather(attachment.registered(10), attachment.registered(10))
        assert await attachment.detached(10)


def test_bad_arguments_are_named_at_once() -> None:
    with pytest.raises(BadRecordError, match="port 0"):
        AgentAttachment("/run/agent.sock", task(NAME, 0))
    with pytest.raises(AddressError, match="path"):
        AgentAttachment("unix:", task(NAME))
    assert agent_target("/run/agent.sock") == "unix:/run/agent.sock"
    assert agent_target("127.0.0.1:80") == "127.0.0.1:80"

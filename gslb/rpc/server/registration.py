"""Makes a server known: attaches it to its machine's node agent, which registers it in BNS and watches its health."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from bns.attachment import AgentAttachment, AttachmentState
from bns.errors import BnsError
from bns.model import ProbeKind, ProbeSpec, Task
from gslb.rpc.client.errors import ConfigurationError
from gslb.rpc.server.load import Load

GRPC_PROBE = ProbeSpec(kind=ProbeKind.GRPC)


class Registration:
    """One task's registration, for as long as the process serves; an agent that is away is attached to again, for ever.

    `task`: /bns/DATACENTER/USER/JOB/TASK. `address`: an IPv4 or IPv6 literal that others reach. `port`: of the service.
    `named_ports`: further ports, such as {"http": 8080}. `cpu_cores`: what it may use; capacity is judged against it.
    `probe`: how the agent finds out its health; gRPC health by default. `agent`: the agent's socket; default BNS_AGENT.
    Its counters (`load`) go to the agent each second. Raises ConfigurationError.
    """

    def __init__(  # noqa: PLR0913  # a task has that many properties
        self,
        task: str,
        address: str,
        port: int,
        *,
        load: Load,
        named_ports: Mapping[str, int] | None = None,
        cpu_cores: float = 1.0,
        probe: ProbeSpec = GRPC_PROBE,
        metadata: Mapping[str, str] | None = None,
        agent: str | None = None,
    ) -> None:
        socket = agent or os.environ.get("BNS_AGENT", "")
        if not socket:
            raise ConfigurationError(
                f'task {task}: no node agent: give agent="/path/of/its/socket" or set BNS_AGENT in the environment'
            )
        record = Task(
            name=task,
            address=address,
            port=port,
            named_ports=dict(named_ports or {}),
            metadata=dict(metadata or {}),
            start_time=datetime.now(UTC),
            cpu_cores=cpu_cores,
            probe=probe,
            pid=os.getpid(),
        )
        try:
            self._attachment = AgentAttachment(socket, record, counters=load.counters)
        except BnsError as error:
            raise ConfigurationError(f"registration: {error}") from error
        self.task = record
        self._attachment.start()

    @property
    def state(self) -> AttachmentState:
        """What the agent said last: registered, refused, away."""
        return self._attachment.state

    def wait_registered(self, timeout_s: float) -> None:
        """Blocks until the task is registered. Raises bns.errors.RefusedError or UnavailableError; it goes on trying."""
        self._attachment.wait_registered(timeout_s)

    async def registered(self, timeout_s: float) -> None:
        """As `wait_registered`, without blocking the event loop."""
        await self._attachment.registered(timeout_s)

    def lame_duck(self) -> None:
        """The task still serves and asks for no more: readers are told that it is DRAINING."""
        self._attachment.lame_duck()

    def close(self, timeout_s: float = 5.0) -> bool:
        """Deregisters the task; blocks at most `timeout_s`. Whether the agent confirmed it."""
        return self._attachment.detach(timeout_s)

    def abandon(self) -> None:
        """Ends without deregistering, as a crash would: the agent keeps the task and finds out its health."""
        self._attachment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.close()

"""A task with our connection to it: what the sync and the asyncio channels have in common."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from gslb.rpc.policy.member import Member

# gRPC's own health service: any answer at all shows that the task is there, so it need not know the method.
PROBE_METHOD = "/grpc.health.v1.Health/Check"

# How busy a task is, in a line (`gslb.rpc.policy.report`): servers made with `gslb.rpc.server.report` have it.
LOAD_METHOD = "/gslb.rpc.Load/Get"

ProbeDone = Callable[[bool], None]  # whether it answered
LoadSaid = Callable[[grpc.StatusCode, bytes], None]  # the status; with OK, the line


@dataclass(slots=True, eq=False)
class Link(Member):
    """One task; the connection is dialled when it is first used."""

    @abstractmethod
    def probe(self, timeout_s: float, done: ProbeDone, *, patient: bool = True) -> None:
        """Dials and asks something cheap in the background; calls `done` once, from any thread.

        `patient`: dials until the time is up; else the first refusal is the answer.
        """

    @abstractmethod
    def ask_load(self, timeout_s: float, said: LoadSaid, question: bytes = b"") -> None:
        """Asks how busy it is; calls `said` once, from any thread, or never if the connection is closed meanwhile.

        `question`: what the server may count its clients by (`gslb.rpc.policy.clients`).
        """

    @abstractmethod
    def shut(self) -> None:
        """Closes the connection; calls on it end. From any thread, any number of times."""


def answered(code: grpc.StatusCode) -> bool:
    """Whether a probe that ended so reached the task: a status that it sent itself, whichever."""
    return code not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}

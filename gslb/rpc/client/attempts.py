"""One logical call: which task it tries, and whether it may try another one."""

import time
from collections.abc import Callable, Iterable
from typing import Generic

import grpc

from gslb.model import limits
from gslb.rpc import context
from gslb.rpc.client import spans
from gslb.rpc.client.chooser import affinity_of
from gslb.rpc.client.core import L, ServiceCore
from gslb.rpc.policy.failure import Failure, classify, may_repeat

# Asks a call that has ended for its trailers.
Trailers = Callable[[], Iterable[context.Metadatum] | None]
# The task's own word on the request, good or bad.
_OWN_ANSWERS = frozenset({Failure.ANSWERED, Failure.ERRED, Failure.SHED, Failure.DENIED})


class Attempts(Generic[L]):
    """Counts the call once as demand, then hands out tasks until one answers, time is up or nothing may be repeated."""

    __slots__ = (
        "_core", "_idempotent", "_key", "_open", "_sent", "_started_s", "_trace", "_tried", "deadline_s", "metadata",
    )  # fmt: skip

    def __init__(
        self,
        core: ServiceCore[L],
        method: str,
        timeout_s: float | None,
        metadata: Iterable[context.Metadatum] | None,
    ) -> None:
        settings = core.settings
        sent, self._trace = spans.outgoing(settings, method, metadata)
        self._sent, criticality, _ = sent
        self.metadata = self._sent  # of the attempt under way
        self.deadline_s = context.deadline_of(timeout_s)
        self._core = core
        self._idempotent = settings.idempotent(method)
        self._key = affinity_of(self.metadata, settings.affinity) if settings.affinity else ""
        self._tried: list[L] = []
        self._open = False  # an attempt is under way
        self._started_s = time.monotonic()
        core.count(criticality, self._started_s)

    def first(self) -> L | None:
        """The task to ask first; None: there is nobody yet, wait."""
        link = self._core.begin(self._tried, self._key)
        if link is not None:
            if self._trace is not None:
                self.metadata = self._trace.attempt(link.endpoint, len(self._tried), self._sent)
            self._tried.append(link)
            self._open = True
            self._started_s = time.monotonic()
        return link

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, >= 0; None: there is none."""
        if self.deadline_s is None:
            return None
        return max(0.0, self.deadline_s - time.monotonic())

    def wait_s(self) -> float:
        """How long to wait for a first plan."""
        remaining_s = self.remaining_s()
        return limits.FIRST_PLAN_WAIT_S if remaining_s is None else remaining_s

    def succeeded(self, trailers: Trailers | None = None) -> None:
        """The last task answered with OK."""
        self._finish(None, trailers=trailers)
        self._note(None, grpc.StatusCode.OK)
        self.over()

    def abandoned(self) -> None:
        """The caller gave up, or never got as far as sending: says nothing about the task."""
        self._finish(None, cancelled=True)
        self._note(None, grpc.StatusCode.CANCELLED)
        self.over()

    def over(self, code: grpc.StatusCode | None = None, details: str = "") -> None:
        """No other attempt follows. `code`: what the call ends with before any; None: with the last one's end."""
        if self._trace is not None:
            self._trace.over(code, details)

    def _note(self, failure: Failure | None, code: grpc.StatusCode, details: str = "") -> None:
        if self._trace is not None:
            self._trace.attempt_over(failure, code, details)

    def _finish(self, failure: Failure | None, *, cancelled: bool = False, trailers: Trailers | None = None) -> None:
        # Once for each attempt, whoever notices first that it is over.
        if self._open:
            self._open = False
            core, link = self._core, self._tried[-1]
            core.finish(link, failure, cancelled=cancelled, took_s=time.monotonic() - self._started_s)
            if core.listening and trailers is not None:
                core.hear(link, trailers() or ())

    def failed(
        self, code: grpc.StatusCode, details: str, *, repeatable: bool = True, trailers: Trailers | None = None
    ) -> L | None:
        """The last task's attempt ended so; the next task to ask, None: the failure stands.

        `repeatable`: the caller still has the request whole, and nothing of the response was handed on.
        """
        link = self._tried[-1]
        if code is grpc.StatusCode.CANCELLED:
            self.abandoned()
            return None
        now_s = time.monotonic()
        failure = classify(code.name, details, link.target, now_s - self._started_s)
        self._finish(failure, trailers=trailers)
        self._note(failure, code, details)
        if not repeatable or not self._again(failure, now_s):
            if failure not in _OWN_ANSWERS:
                self._core.counts.failures += 1
            self.over()
            return None
        following = self.first()
        if following is None:
            self.over()
        return following

    def _again(self, failure: Failure, now_s: float) -> bool:
        return (
            may_repeat(failure, idempotent=self._idempotent)
            and len(self._tried) < limits.ATTEMPTS_MAX
            and (self.deadline_s is None or now_s < self.deadline_s)
            and not self._core.closed
            and self._core.may_retry(failure)
        )

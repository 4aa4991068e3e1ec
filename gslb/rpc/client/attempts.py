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
from gslb.rpc.client.protection import Outcome, Retry
from gslb.rpc.policy.failure import Failure, Refusal, classify, may_repeat, refusal_of

# Asks a call that has ended for its trailers.
Trailers = Callable[[], Iterable[context.Metadatum] | None]
# The task's own word on the request, good or bad.
_OWN_ANSWERS = frozenset({Failure.ANSWERED, Failure.ERRED, Failure.SHED, Failure.DENIED})


class Attempts(Generic[L]):
    """Counts the call once as demand, then hands out tasks until one answers, time is up or nothing may be repeated.

    `held_back`: why no task may be asked at all, because it would only refuse; empty: go on.
    """

    __slots__ = (
        "_core", "_criticality", "_key", "_method", "_most", "_open", "_paid", "_sent", "_started_s", "_trace",
        "_trace_id", "_tried", "deadline_s", "held_back", "metadata",
    )  # fmt: skip

    def __init__(
        self,
        core: ServiceCore[L],
        method: str,
        timeout_s: float | None,
        metadata: Iterable[context.Metadatum] | None,
    ) -> None:
        settings = core.settings
        if spans.begin is None:
            sent, self._trace = context.outgoing(metadata, settings.criticality), None
        else:
            sent, self._trace = spans.traced(spans.begin, settings, method, metadata)
        self._sent, self._criticality, self._trace_id = sent.identified() if core.ranks else sent
        self.metadata = self._sent  # of the attempt under way
        now_s = time.monotonic()
        self.deadline_s = context.deadline_of(timeout_s, now_s)
        self._core = core
        self._method = method
        self._key = affinity_of(self.metadata, settings.affinity) if settings.affinity else ""
        self._most = limits.ATTEMPTS_MAX
        self._tried: list[L] = []
        self._open = False  # an attempt is under way
        self._paid = False  # it is a retry out of the budget
        self._started_s = now_s
        self.held_back = core.count(self._criticality, self._trace_id, now_s)

    @property
    def _idempotent(self) -> bool:
        return self._core.settings.idempotent(self._method)

    def rival(self, *, overdue: bool = False) -> "Attempts[L] | None":
        """A second copy of the call, for one attempt at another task; None: it must not be sent, or there is nobody.

        `overdue`: for so long that it is as good as failed, and the copy a retry.
        """
        if not self._idempotent or not self._core.take_hedge(self._tried, overdue=overdue):
            return None
        second: Attempts[L] = object.__new__(Attempts)
        for name in Attempts.__slots__:
            setattr(second, name, getattr(self, name))
        second._tried = list(self._tried)
        second._trace = self._trace.beside() if self._trace is not None else None
        second._most = 0
        second._open = second._paid = False
        return second

    def late_in_s(self) -> float | None:
        """After how many seconds a second copy may go out; None: never."""
        return self._core.hedge_in_s(self.remaining_s()) if self._idempotent else None

    def first(self) -> L | None:
        """The task to ask first; None: there is nobody yet, wait."""
        tried = self._tried
        link = self._core.begin(tried, self._key)
        if link is not None:
            sent = (*self._sent, (context.ATTEMPT_KEY, str(len(tried)))) if tried else self._sent
            self.metadata = sent if self._trace is None else self._trace.attempt(link.endpoint, len(tried), sent)
            tried.append(link)
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
        if self._trace is not None:
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

    def _finish(
        self,
        failure: Failure | None,
        *,
        cancelled: bool = False,
        refused: Refusal = Refusal.NO,
        trailers: Trailers | None = None,
    ) -> None:
        # Once for each attempt, whoever notices first that it is over.
        if self._open:
            self._open = False
            core, link = self._core, self._tried[-1]
            core.finish(link, Outcome(failure, cancelled, refused, self._criticality, self._started_s, self._trace_id))
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
        refused = refusal_of(failure, details)
        self._finish(failure, refused=refused, trailers=trailers)
        self._note(failure, code, details)
        may = may_repeat(failure, idempotent=self._idempotent)
        if self._paid and may and refused is Refusal.NO:
            self._core.retried_in_vain()
        if not (may and repeatable and self._again(failure, now_s)):
            if failure not in _OWN_ANSWERS:
                self._core.counts.failures += 1
            self.over()
            return None
        following = self.first()
        if following is None:
            self.over()
        return following

    def _again(self, failure: Failure, now_s: float) -> bool:
        if (
            len(self._tried) >= self._most
            or (self.deadline_s is not None and now_s >= self.deadline_s)
            or self._core.closed
        ):
            return False
        retry = self._core.may_retry(failure)
        self._paid = retry is Retry.PAID
        return retry is not Retry.NO

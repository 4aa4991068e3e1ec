"""What a server does, counted: requests by criticality and outcome, and those under way.

The counts go to the node agent each second (through `Registration`) and to Prometheus; they are what capacity and health
are judged by.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bns.attachment import Counters
from gslb.model.criticality import Criticality


class Load:
    """Counters of one server; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ok = [0] * len(Criticality)
        self._error = [0] * len(Criticality)
        self._in_flight = 0
        self._busy_s = time.monotonic()

    def begin(self) -> None:
        """A request came in."""
        with self._lock:
            self._in_flight += 1
            self._busy_s = time.monotonic()

    def end(self, criticality: Criticality, *, ok: bool) -> None:
        """It was answered; `ok`: not with a failure of the server's own making."""
        with self._lock:
            self._in_flight -= 1
            self._busy_s = time.monotonic()
            (self._ok if ok else self._error)[criticality] += 1

    @contextmanager
    def request(self, criticality: Criticality = Criticality.CRITICAL) -> Iterator[None]:
        """Counts the body as one request, for servers that do not speak gRPC; an exception is an error."""
        self.begin()
        ok = False
        try:
            yield
            ok = True
        finally:
            self.end(criticality, ok=ok)

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._in_flight

    def idle_s(self) -> float:
        """Seconds since the last request came in or went out; 0 while one is under way."""
        with self._lock:
            return 0.0 if self._in_flight else time.monotonic() - self._busy_s

    def counters(self) -> Counters:
        """All of it, as the node agent takes it."""
        with self._lock:
            return Counters(ok=tuple(self._ok), error=tuple(self._error), in_flight=self._in_flight)

"""One daemon thread that runs short callbacks later: back-offs, probes, deadlines of calls that wait for a plan."""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Timers:
    """`after(delay_s, callback)`; the thread starts with the first use. Callbacks must be short and not block."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._wake = threading.Condition()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def after(self, delay_s: float, callback: Callable[[], None]) -> bool:
        """Runs `callback` on the timers' thread in `delay_s`, unless closed before. False: closed already."""
        with self._wake:
            if self._closed:
                return False
            heapq.heappush(self._heap, (time.monotonic() + delay_s, next(self._order), callback))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._wake.notify()
            return True

    def close(self) -> None:
        """Drops what is pending and ends the thread; waits for a running callback, at most 1 s."""
        with self._wake:
            self._closed = True
            self._heap.clear()
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    def _next(self) -> Callable[[], None] | None:
        with self._wake:
            while not self._closed:
                if not self._heap:
                    self._wake.wait()
                    continue
                wait_s = self._heap[0][0] - time.monotonic()
                if wait_s <= 0:
                    return heapq.heappop(self._heap)[2]
                self._wake.wait(wait_s)
            return None

    def _run(self) -> None:
        while (callback := self._next()) is not None:
            try:
                callback()
            except Exception:  # one bad callback must not end everybody's timers
                log.exception("a timer's callback failed")

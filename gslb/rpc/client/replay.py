"""The requests of a client stream, kept so that another task can be sent them again.

gRPC pulls requests on a thread of its own, one for each attempt. A thread of an abandoned attempt may be stuck in the
caller's iterator; what it gets in the end goes to the attempt that is current then. Nothing is lost, and nothing is
sent twice to the same task.
"""

import threading
from collections.abc import Iterator
from enum import Enum

from gslb.model import limits


class _Step(Enum):
    """What an attempt's iterator does next when there is no request at hand."""

    END = "end"
    PULL = "pull"


class Replay:
    """Shares one iterator among attempts. Up to `most` requests are kept; beyond that there is no second attempt."""

    def __init__(self, source: Iterator[object], most: int = limits.REPLAY_MESSAGES_MAX) -> None:
        self._source = iter(source)
        self._most = most
        self._changed = threading.Condition()
        self._kept: list[object] = []
        self._dropped = 0  # requests that were sent and are not kept any more
        self._pulling = False
        self._ended = False
        self._error: BaseException | None = None
        self._current = 0
        self._committed = False

    def attempt(self) -> Iterator[object]:
        """All requests from the first on, for a new attempt."""
        with self._changed:
            self._current += 1
            return self._requests(self._current)

    def hold(self) -> bool:
        """Ends the iterator of the present attempt. Whether another attempt can be given every request."""
        with self._changed:
            self._current += 1
            self._changed.notify_all()
            return not self._committed and self._dropped == 0

    def commit(self) -> None:
        """There will be no other attempt: nothing need be kept."""
        with self._changed:
            self._committed = True

    def _requests(self, attempt: int) -> Iterator[object]:
        position = 0
        while True:
            step = self._step(attempt, position)
            if step is _Step.END:
                return
            if step is _Step.PULL:
                self._pull()
                continue
            position += 1
            yield step

    def _step(self, attempt: int, position: int) -> object:
        """The request at `position`, or what to do to get it."""
        with self._changed:
            while True:
                if attempt != self._current:
                    return _Step.END
                if position - self._dropped < len(self._kept):
                    item = self._kept[position - self._dropped]
                    self._trim(position + 1)
                    return item
                if self._error is not None:
                    raise self._error
                if self._ended:
                    return _Step.END
                if not self._pulling:
                    self._pulling = True
                    return _Step.PULL
                self._changed.wait()

    def _trim(self, taken: int) -> None:
        """Forgets what was taken, when nobody will ask again or too much would be kept."""
        if self._committed or len(self._kept) > self._most:
            del self._kept[: taken - self._dropped]
            self._dropped = taken

    def _pull(self) -> None:
        """Takes one request from the caller's iterator; it may block, so nothing is locked meanwhile."""
        item: object = None
        ended, error = False, None
        try:
            item = next(self._source)
        except StopIteration:
            ended = True
        except BaseException as raised:  # noqa: BLE001  # it is raised again where gRPC expects it
            error = raised
        with self._changed:
            self._pulling = False
            if ended or error is not None:
                self._ended, self._error = ended, error
            else:
                self._kept.append(item)
            self._changed.notify_all()

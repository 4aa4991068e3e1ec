"""Takes down every step of the balancer, off the planning path.

The planner hands over what is immutable anyway and never waits: a queue of a few steps, and what does not fit is dropped
and counted. A thread turns steps into records and appends them to the ring. Whatever goes wrong with the disk stays
here: it is counted, logged once an outage, and shown by `gslb check`; after a gap a record with everything follows.
"""

import logging
import threading
import time
from importlib import metadata
from pathlib import Path
from queue import Full, Queue
from typing import Final

from gslb.recorder.errors import RecordingError
from gslb.recorder.frames import Encoder, Step
from gslb.recorder.ring import Bounds, Ring

log = logging.getLogger(__name__)

QUEUE_MAX: Final = 8
RETRY_S: Final = 10.0
CLOSE_S: Final = 2.0
# What a step's bits depend on.
_PACKAGES: Final = ("gslb", "numpy", "highspy")


class Recorder:
    """Counters may be read from any thread."""

    def __init__(self, directory: Path, bounds: Bounds, replica: str) -> None:
        self.directory = directory
        self.recorded = 0
        self.dropped = 0  # the disk was too slow for them
        self.failed = 0  # they could not be written
        self.trouble = ""  # why nothing is written now; empty: it is
        self._ring = Ring(directory, bounds, {"replica": replica, "versions": _versions()})
        self._queue: Queue[Step | None] = Queue(QUEUE_MAX)
        self._encoder = Encoder()
        self._last: int | None = None  # number of the last step written
        self._retry_s = 0.0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._ring.size

    @property
    def idle(self) -> bool:
        """Whether every step that was taken is written or given up."""
        return not self._queue.unfinished_tasks

    def offer(self, step: Step) -> None:
        """Takes a step down when there is time; never waits."""
        try:
            self._queue.put_nowait(step)
        except Full:
            self.dropped += 1

    def close(self) -> None:
        """Writes what is waiting and ends; gives up on a disk that hangs."""
        try:
            self._queue.put(None, timeout=CLOSE_S)
        except Full:
            return
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while (step := self._queue.get()) is not None:
            try:
                self._record(step)
            except (OSError, RecordingError) as error:
                self._fail(f"{self.directory}: {getattr(error, 'strerror', None) or error}")
            except Exception as error:
                # A bug of ours must not end the thread, or the counters would tell of a slow disk.
                log.debug("a step could not be recorded", exc_info=True)
                self._fail(f"{type(error).__name__}: {error}")
            finally:
                self._queue.task_done()
            del step
        self._ring.close()

    def _record(self, step: Step) -> None:
        if self.trouble and time.monotonic() < self._retry_s:
            self.failed += 1
            return
        key = self._last is None or step.number != self._last + 1 or self._ring.wants_key(step.at_s)
        self._last = None
        self._ring.append(step.number, step.at_s, self._encoder.encode(step, key=key), key=key)
        self._last = step.number
        self.recorded += 1
        if self.trouble:
            log.info("steps are recorded again, %d were not", self.failed)
            self.trouble = ""

    def _fail(self, why: str) -> None:
        self.failed += 1
        self._last = None
        self._retry_s = time.monotonic() + RETRY_S
        if not self.trouble:
            log.warning("steps are not recorded, plans go on: %s", why)
        self.trouble = why


def _versions() -> str:
    return ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "?"

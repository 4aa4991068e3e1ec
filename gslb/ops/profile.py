"""A bounded sampling profiler: where do this process's threads spend their time right now?

Samples every thread's stack at a fixed rate and prints collapsed stacks (one line a stack, with its count), the format
that flame-graph tools read. One profile at a time; the cost is a few per cent of one core while it runs.
"""

import sys
import threading
import time
from collections import Counter
from types import FrameType

SAMPLE_INTERVAL_S = 0.01
STACK_DEPTH_MAX = 60

_busy = threading.Lock()


class ProfileBusyError(RuntimeError):
    """Another profile is being taken in this process."""


def sample_stacks(seconds: float) -> str:
    """Collapsed stacks of all threads over `seconds`, most frequent first. Raises ProfileBusyError."""
    if not _busy.acquire(blocking=False):
        raise ProfileBusyError("another profile is running in this process: try again when it has ended")
    try:
        counts: Counter[str] = Counter()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        me = threading.get_ident()
        samples = max(1, round(seconds / SAMPLE_INTERVAL_S))
        for _ in range(samples):
            for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way to see all threads
                if ident != me:
                    counts[_collapse(names.get(ident, "thread"), frame)] += 1
            time.sleep(SAMPLE_INTERVAL_S)
    finally:
        _busy.release()
    lines = [f"{stack} {count}" for stack, count in counts.most_common()]
    return "\n".join([f"# {samples} samples of every thread at {SAMPLE_INTERVAL_S * 1e3:g} ms", *lines]) + "\n"


def _collapse(thread: str, frame: FrameType | None) -> str:
    parts: list[str] = []
    while frame is not None and len(parts) < STACK_DEPTH_MAX:
        code = frame.f_code
        parts.append(f"{code.co_qualname}:{frame.f_lineno}")
        frame = frame.f_back
    return ";".join([thread, *reversed(parts)])

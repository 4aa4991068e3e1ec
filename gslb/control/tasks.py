"""Loops that go on whatever happens in them, and their end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from bns.etcd.errors import EtcdError

log = logging.getLogger(__name__)

RESTART_S = 1.0
END_TRIES = 5
END_TRY_S = 0.5


async def for_ever(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """One loop must not end the others, nor itself: what goes wrong in it is logged, and it starts again."""
    while True:
        try:
            await loop()
        except EtcdError as error:
            log.warning("%s goes on after: %s", name, error)
        except Exception:
            log.exception("%s failed and starts again", name)
        await asyncio.sleep(RESTART_S)


async def end_all(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancels and waits, with an end to the waiting: a cancellation can get lost in a library that was just busy."""
    pending = set(tasks)
    for _ in range(END_TRIES):
        for task in pending:
            task.cancel()
        if pending:
            _, pending = await asyncio.wait(pending, timeout=END_TRY_S)
    for task in pending:
        log.error("%s does not end and is left behind", task.get_name())

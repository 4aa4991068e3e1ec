"""The requests of an asyncio client stream, kept so that another task can be sent them again.

They come from the caller's iterator, or from `write`. A task of our own pulls the iterator, because gRPC's consumer may
be cancelled in the midst of a pull, which would end an async generator for good.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable

from gslb.model import limits

Requests = AsyncIterable[object] | Iterable[object]


class AioReplay:
    """Shares requests among attempts. Up to `most` are kept; beyond that there is no second attempt."""

    def __init__(self, source: Requests | None, most: int = limits.REPLAY_MESSAGES_MAX) -> None:
        self.written = source is None  # by the caller's `write`
        self._source = source
        self._most = most
        self._event = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._kept: list[object] = []
        self._dropped = 0  # requests that were sent and are not kept any more
        self._taken = 0  # by gRPC, of the attempt that got furthest
        self._wanted = 0
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        self._current = 0
        self._committed = False

    def attempt(self) -> AsyncIterator[object]:
        """All requests from the first on, for a new attempt."""
        self._current += 1
        return self._requests(self._current)

    def hold(self) -> bool:
        """Ends the iterator of the present attempt. Whether another attempt can be given every request."""
        self._current += 1
        self._notify()
        return not self._committed and self._dropped == 0

    def commit(self) -> None:
        """There will be no other attempt: nothing need be kept."""
        self._committed = True

    def close(self) -> None:
        """The call is over."""
        self._closed = True
        self._committed = True
        if self._pump is not None:
            self._pump.cancel()
        self._notify()

    async def write(self, item: object) -> bool:
        """Hands a request to gRPC; returns when it was taken. False: the call ended before."""
        if self._ended:
            raise asyncio.InvalidStateError("RPC is half closed after calling done_writing().")
        if self._closed:
            return False
        self._kept.append(item)
        position = self._dropped + len(self._kept)
        self._notify()
        while self._taken < position and not self._closed:
            await self._event.wait()
        return self._taken >= position

    def end(self) -> None:
        """No further request comes."""
        self._ended = True
        self._notify()

    def _notify(self) -> None:
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def _requests(self, attempt: int) -> AsyncIterator[object]:
        position = 0
        while attempt == self._current and not self._closed:
            if position - self._dropped < len(self._kept):
                item = self._kept[position - self._dropped]
                position += 1
                self._trim(position)
                yield item
                # gRPC comes back when it has sent the request.
                self._taken = max(self._taken, position)
                self._notify()
            elif self._error is not None:
                raise self._error
            elif self._ended:
                return
            else:
                self._want(position + 1)
                await self._event.wait()

    def _trim(self, taken: int) -> None:
        if self._committed or len(self._kept) > self._most:
            del self._kept[: taken - self._dropped]
            self._dropped = taken

    def _want(self, count: int) -> None:
        self._wanted = max(self._wanted, count)
        if self._source is not None and self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._pull(self._source))
        else:
            # Not `_notify`: the caller is about to wait for the very event.
            self._event.set()
            self._event = asyncio.Event()

    async def _pull(self, source: Requests) -> None:
        """Takes requests from the caller's iterator, each when it is wanted."""
        try:
            async for item in _each(source):
                self._kept.append(item)
                self._notify()
                while self._dropped + len(self._kept) >= self._wanted:
                    await self._event.wait()
        except Exception as error:  # noqa: BLE001  # it is raised again where gRPC expects it
            self._error = error
        self._ended = True
        self._notify()


async def _each(source: Requests) -> AsyncIterator[object]:
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item

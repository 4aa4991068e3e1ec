"""Requests of a client stream, shared among attempts: sync and asyncio."""

import asyncio
import queue
import threading

import pytest

from gslb.rpc.client.aio_replay import AioReplay
from gslb.rpc.client.replay import Replay


class TestReplay:
    def test_a_second_attempt_gets_all_from_the_start(self) -> None:
        replay = Replay(iter([1, 2, 3]))
        first = replay.attempt()
        assert [next(first), next(first)] == [1, 2]
        assert replay.hold()
        assert list(replay.attempt()) == [1, 2, 3]
        assert list(first) == []

    def test_a_pull_that_is_stuck_gives_its_request_to_the_next_attempt(self) -> None:
        line: queue.Queue[int | None] = queue.Queue()
        replay = Replay(iter(line.get, None))
        line.put(1)
        first = replay.attempt()
        assert next(first) == 1
        got: list[object] = []
        stuck = threading.Thread(target=lambda: got.extend(first), daemon=True)
        stuck.start()
        assert replay.hold()
        second = replay.attempt()
        # What is kept does not wait for the source.
        assert next(second) == 1
        line.put(2)
        line.put(None)
        assert list(second) == [2]
        stuck.join(5)
        assert got == []

    def test_beyond_the_most_there_is_no_second_attempt(self) -> None:
        replay = Replay(iter(range(10)), most=3)
        first = replay.attempt()
        assert [next(first) for _ in range(5)] == [0, 1, 2, 3, 4]
        assert not replay.hold()

    def test_committed_nothing_is_kept(self) -> None:
        replay = Replay(iter(range(1000)))
        first = replay.attempt()
        next(first)
        replay.commit()
        assert list(first) == list(range(1, 1000))
        assert replay._kept == []
        assert not replay.hold()

    def test_an_error_of_the_source_is_raised(self) -> None:
        def source():
            yield 1
            raise KeyError("source")

        replay = Replay(source())
        first = replay.attempt()
        assert next(first) == 1
        with pytest.raises(KeyError):
            next(first)


class TestAioReplay:
    async def test_a_second_attempt_gets_all_from_the_start(self) -> None:
        async def source():
            for i in range(3):
                await asyncio.sleep(0)
                yield i

        replay = AioReplay(source())
        first = replay.attempt()
        assert await anext(first) == 0
        assert replay.hold()
        assert [item async for item in replay.attempt()] == [0, 1, 2]
        assert [item async for item in first] == []

    async def test_plain_iterables(self) -> None:
        replay = AioReplay([1, 2])
        assert [item async for item in replay.attempt()] == [1, 2]

    async def test_a_consumer_that_is_cancelled_does_not_end_the_source(self) -> None:
        gate = asyncio.Event()

        async def source():
            yield 1
            await gate.wait()
            yield 2

        replay = AioReplay(source())
        first = replay.attempt()
        assert await anext(first) == 1
        waiting = asyncio.create_task(anext(first))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert replay.hold()
        second = replay.attempt()
        assert await anext(second) == 1
        gate.set()
        assert await anext(second) == 2

    async def test_the_source_is_pulled_only_as_it_is_wanted(self) -> None:
        pulled = []

        def source():
            for i in range(100):
                pulled.append(i)
                yield i

        replay = AioReplay(source())
        first = replay.attempt()
        assert await anext(first) == 0
        await asyncio.sleep(0.01)
        assert len(pulled) <= 2

    async def test_write_returns_when_taken_and_says_when_the_call_is_over(self) -> None:
        replay = AioReplay(None)
        writing = asyncio.create_task(replay.write(b"1"))
        await asyncio.sleep(0.01)
        assert not writing.done()
        view = replay.attempt()
        assert await anext(view) == b"1"
        following = asyncio.create_task(anext(view))
        assert await asyncio.wait_for(writing, 5)
        replay.close()
        with pytest.raises(StopAsyncIteration):
            await following
        assert not await replay.write(b"2")

    async def test_nothing_is_written_after_the_end(self) -> None:
        replay = AioReplay(None)
        replay.end()
        with pytest.raises(asyncio.InvalidStateError):
            await replay.write(b"1")

    async def test_beyond_the_most_there_is_no_second_attempt(self) -> None:
        replay = AioReplay(range(10), most=3)
        first = replay.attempt()
        assert [await anext(first) for _ in range(5)] == [0, 1, 2, 3, 4]
        assert not replay.hold()

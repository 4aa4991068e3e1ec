"""Who asks, and what a handler takes: names from metadata and certificates, coroutines measured step by step."""

import asyncio
import time

import pytest

from gslb.rpc.server.caller import caller_of, declared, named
from gslb.rpc.server.metering import metered


def burn(cpu_s: float) -> None:
    until_s = time.thread_time() + cpu_s
    while time.thread_time() < until_s:
        pass


class Context:
    def __init__(self, metadata=(), **auth) -> None:
        self._metadata, self._auth = metadata, auth

    def invocation_metadata(self):
        return self._metadata

    def auth_context(self):
        return self._auth


class TestCaller:
    def test_what_a_client_says(self) -> None:
        assert declared((("a", "b"), ("gslb-caller", "web"))) == "web"
        assert declared((("gslb-caller", b"web"),)) == "web"
        assert declared(()) == ""

    @pytest.mark.parametrize("bad", ["", "*", "Web", "a b", "x" * 64, "-a", "wéb", "web\n"])
    def test_what_is_no_name_is_nobody(self, bad: str) -> None:
        assert declared((("gslb-caller", bad),)) == ""
        assert named(bad) == ""

    def test_a_channel_says_it_in_its_user_agent_and_a_call_in_its_metadata(self) -> None:
        agent = ("user-agent", "gslb-caller/web-2 mine/1 grpc-python/1.76.0 grpc-c/51.0.0 (linux; chttp2)")
        assert caller_of(Context((agent,))) == "web-2"
        assert caller_of(Context((agent, ("gslb-caller", "batch")))) == "batch"
        assert caller_of(Context((agent, ("gslb-caller", "no name")))) == ""
        assert declared((agent,)) == "", "over HTTP anybody's browser may say so"

    @pytest.mark.parametrize(
        "agent", ["", "gslb-caller", "gslb-caller/", "gslb-caller/Web", "x gslb-caller/web", "gslb-caller/" + "x" * 64,
                  "gslb-caller/web-", "gslb-caller/a b/c/", "gslb-caller/web/1", "gslb-caller/web\n"],
    )  # fmt: skip
    def test_what_is_no_user_agent_of_ours_says_nothing(self, agent: str) -> None:
        assert caller_of(Context((("user-agent", agent),))) == ("a" if agent.startswith("gslb-caller/a b") else "")

    def test_a_certificate_wins(self) -> None:
        said = (("gslb-caller", "web"),)
        assert caller_of(Context(said)) == "web"
        assert caller_of(Context(said, x509_common_name=[b"batch"])) == "batch"
        assert caller_of(Context(said, x509_subject_alternative_name=[b"spiffe://x/ns/prod/mail"])) == "mail"
        assert caller_of(Context(said, x509_common_name=[b"Ann Smith"])) == ""


class TestMetered:
    async def test_only_its_own_steps_count(self) -> None:
        charges: list[float] = []

        async def handler() -> str:
            burn(0.02)
            await asyncio.sleep(0.05)
            burn(0.02)
            return "done"

        async def other() -> None:
            for _ in range(10):
                burn(0.01)
                await asyncio.sleep(0)

        result, _ = await asyncio.gather(metered(handler(), charges.append), other())
        assert result == "done"
        assert 0.04 <= sum(charges) <= 0.06
        assert len(charges) == 2

    async def test_errors_and_values_pass(self) -> None:
        charges: list[float] = []

        async def failing() -> None:
            await asyncio.sleep(0)
            raise ValueError("as asked")

        with pytest.raises(ValueError, match="as asked"):
            await metered(failing(), charges.append)
        assert len(charges) == 2
        event = asyncio.Event()
        waiting = asyncio.create_task(asyncio.wait_for(metered(event.wait(), charges.append), 5))
        await asyncio.sleep(0)
        event.set()
        assert await waiting is True

    async def test_a_cancellation_reaches_the_handler_and_its_end_counts(self) -> None:
        charges: list[float] = []
        ended = []

        async def handler() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                burn(0.02)
                ended.append(True)

        async def run() -> None:
            await metered(handler(), charges.append)

        task = asyncio.create_task(run())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]
        assert sum(charges) >= 0.02

    async def test_what_catches_a_cancellation_goes_on(self) -> None:
        async def handler() -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                return "went on"
            return "slept"

        async def run() -> str:
            return await metered(handler(), lambda _: None)

        task = asyncio.create_task(run())
        await asyncio.sleep(0.01)
        task.cancel()
        assert await task == "went on"

    async def test_async_generators(self) -> None:
        charges: list[float] = []

        async def responses():
            for i in range(3):
                burn(0.01)
                await asyncio.sleep(0)
                yield i

        source, seen = responses(), []
        while True:
            try:
                seen.append(await metered(anext(source), charges.append))
            except StopAsyncIteration:
                break
        assert seen == [0, 1, 2]
        assert 0.03 <= sum(charges) <= 0.05

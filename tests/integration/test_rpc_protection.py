"""What clients do on their own to spare a service and themselves: real servers, both kinds of channels."""

import asyncio
import random
import signal
import threading
import time
from collections.abc import Iterator

import grpc
import pytest

import gslb.rpc
import gslb.rpc.aio
from gslb.model import limits
from gslb.rpc.client.errors import ConfigurationError
from gslb.rpc.policy.hedge import WARM_ANSWERS
from tests.support.echo import SERVICE, UNARY, Planet, name_of, wait_until

US0, US1, US2 = "us-east1/u/echo/0", "us-east1/u/echo/1", "us-east1/u/echo/2"
REFUSAL = b"abort:RESOURCE_EXHAUSTED:overloaded; don't retry"


class SyncCaller:
    """Calls through a blocking channel."""

    def __init__(self, **given) -> None:
        self.channel = gslb.rpc.channel(SERVICE, locality="us-east1", **given)
        self._stub = self.channel.unary_unary(UNARY)

    def call(self, request: bytes, timeout_s: float = 5.0) -> bytes:
        return self._stub(request, timeout=timeout_s)

    def future(self, request: bytes, timeout_s: float = 5.0):
        return self._stub.future(request, timeout=timeout_s)

    def explain(self) -> dict:
        return self.channel.explain()

    def close(self) -> None:
        self.channel.close()


class AioCaller:
    """Calls through an asyncio channel, in a loop of its own thread."""

    def __init__(self, **given) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def make():
            return gslb.rpc.aio.channel(SERVICE, locality="us-east1", **given)

        try:
            self.channel = self._run(make())
        except BaseException:
            self._end()
            raise
        self._stub = self.channel.unary_unary(UNARY)

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def call(self, request: bytes, timeout_s: float = 5.0) -> bytes:
        return self.future(request, timeout_s).result(30)

    def future(self, request: bytes, timeout_s: float = 5.0):
        async def ask() -> bytes:
            return await self._stub(request, timeout=timeout_s)

        return asyncio.run_coroutine_threadsafe(ask(), self._loop)

    def explain(self) -> dict:
        return self.channel.explain()

    def close(self) -> None:
        self._run(self.channel.close())
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


@pytest.fixture
def planet() -> Iterator[Planet]:
    made = Planet([US0, US1, US2])
    made.serve({"us-east1": 1.0})
    yield made
    gslb.rpc.close_all()
    made.close()


both = pytest.mark.parametrize("kind", [SyncCaller, AioCaller])


def task(caller, name: str) -> dict:
    return next(one for one in caller.explain()["endpoints"] if one["task"] == f"/bns/{name}")


@both
class TestHoldingBack:
    def test_refused_calls_stop_going_out_and_come_back(self, planet: Planet, kind) -> None:
        caller = kind(control=planet.control)
        try:
            caller.call(b"x")
            details = []
            until_s = time.monotonic() + 8 * limits.THROTTLE_WINDOW_S
            while time.monotonic() < until_s:
                with pytest.raises(grpc.RpcError) as caught:
                    caller.call(REFUSAL)
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                details.append(caught.value.details())
                time.sleep(0.005)
            held_back = [text for text in details if "held back by this client" in text]
            assert len(held_back) > 0.5 * len(details)
            assert held_back[-1].startswith("overloaded; don't retry: ")
            assert "CRITICAL calls" in held_back[-1]
            explained = caller.explain()
            assert explained["held_back"]["CRITICAL"] == len(held_back)
            assert explained["sent_fraction"]["CRITICAL"] < 0.5
            assert explained["sent_fraction"]["SHEDDABLE"] == 1.0  # nobody asked

            def whole() -> bool:
                for _ in range(20):
                    try:
                        caller.call(b"x")
                    except grpc.RpcError as error:
                        if "held back by this client" not in error.details():
                            raise
                return caller.explain()["sent_fraction"]["CRITICAL"] == 1.0

            wait_until(whole, 30)
            assert all(name_of(caller.call(b"x")) for _ in range(50))
        finally:
            caller.close()

    def test_answers_that_are_too_large_hold_nobody_back(self, planet: Planet, kind) -> None:
        caller = kind(control=planet.control, options=[("grpc.max_receive_message_length", 64)])
        try:
            until_s = time.monotonic() + 3 * limits.THROTTLE_WINDOW_S
            while time.monotonic() < until_s:
                with pytest.raises(grpc.RpcError) as caught:
                    caller.call(b"x" * 100)
                assert "larger than max" in caught.value.details()
            assert caller.explain()["sent_fraction"]["CRITICAL"] == 1.0
        finally:
            caller.close()


@both
def test_a_task_that_fails_a_third_of_its_requests_is_left_out_for_a_while(planet: Planet, kind) -> None:
    caller = kind(control=planet.control, idempotent=True)
    rng = random.Random(7)
    try:

        def ask() -> None:
            # Many at a time: errors count as load, and a client with little else under way asks such a task hardly at all.
            asked = [f"erring:/bns/{US0}".encode() if rng.random() < 1 / 3 else b"sleep:0.01" for _ in range(60)]
            for future in [caller.future(request) for request in asked]:
                try:
                    future.result(30)
                except grpc.RpcError as error:  # more of them than the budget pays
                    if error.code() is not grpc.StatusCode.INTERNAL:
                        raise

        def left_out() -> bool:
            ask()
            return caller.explain()["ejected"] == [f"/bns/{US0}"]

        wait_until(left_out, 4 * limits.EJECT_WINDOW_S)
        assert task(caller, US0)["ejected"]
        assert not task(caller, US0)["usable"]
        picks = task(caller, US0)["picks"]
        for _ in range(5):
            ask()
        assert task(caller, US0)["picks"] == picks
        # Only for a while: somebody must find out that it is well again.
        wait_until(
            lambda: (ask(), caller.explain()["ejected"] == [])[1], limits.EJECT_BASE_S + 3 * limits.EJECT_WINDOW_S
        )
        wait_until(lambda: (ask(), task(caller, US0)["picks"] > picks)[1], 10)
    finally:
        caller.close()


@both
class TestSecondCopies:
    def test_a_call_to_a_task_that_stands_still_is_answered_by_another(self, planet: Planet, kind) -> None:
        caller = kind(control=planet.control, idempotent=True, hedging=True)
        try:
            for _ in range(WARM_ANSWERS + 50):
                caller.call(b"sleep:0.002")
            took = []
            for _ in range(12):
                planet.tasks[US0].send_signal(signal.SIGSTOP)
                try:
                    for _ in range(3):
                        began_s = time.monotonic()
                        assert name_of(caller.call(b"sleep:0.002", timeout_s=20.0)) in {US1, US2}
                        took.append(time.monotonic() - began_s)
                finally:
                    planet.tasks[US0].send_signal(signal.SIGCONT)
                for _ in range(60):
                    caller.call(b"sleep:0.002")
            assert max(took) < 5.0, took  # and not twenty, however busy this machine is
            assert (
                0 < caller.explain()["hedges"] <= 60
            )  # a twentieth of a thousand calls, and what is paid like retries
            wait_until(lambda: all(one["in_flight"] == 0 for one in caller.explain()["endpoints"]))
        finally:
            caller.close()

    def test_a_late_error_waits_for_the_other_copy_and_both_failing_is_an_error(self, planet: Planet, kind) -> None:
        caller = kind(control=planet.control, idempotent=True, hedging=True)
        try:
            for _ in range(WARM_ANSWERS + 50):
                caller.call(b"x")
            with pytest.raises(grpc.RpcError) as caught:
                caller.call(b"abort:NOT_FOUND:nowhere")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert caught.value.details() == "nowhere"
            with pytest.raises(grpc.RpcError) as caught:
                caller.call(b"sleep:5", timeout_s=0.2)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert caller.explain()["hedges"] >= 1
        finally:
            caller.close()

    def test_a_cancelled_call_takes_both_copies_with_it(self, planet: Planet, kind) -> None:
        caller = kind(control=planet.control, idempotent=True, hedging=True)
        try:
            for _ in range(WARM_ANSWERS + 50):
                caller.call(b"x")
            future = caller.future(b"sleep:20", timeout_s=20.0)
            wait_until(lambda: sum(one["in_flight"] for one in caller.explain()["endpoints"]) == 2)
            assert future.cancel()
            wait_until(lambda: sum(one["in_flight"] for one in caller.explain()["endpoints"]) == 0)
            assert future.cancelled()
        finally:
            caller.close()

    def test_what_may_not_be_executed_twice_is_sent_once(self, planet: Planet, kind) -> None:
        caller = kind(control=planet.control, idempotent=lambda method: method != UNARY, hedging=True)
        try:
            for _ in range(WARM_ANSWERS + 50):
                caller.call(b"x")
            caller.call(b"sleep:0.5")
            assert caller.explain()["hedges"] == 0
        finally:
            caller.close()

    def test_a_channel_of_nothing_that_may_be_repeated_refuses(self, planet: Planet, kind) -> None:
        with pytest.raises(ConfigurationError, match="hedging=True sends calls twice"):
            kind(control=planet.control, hedging=True)


@both
def test_a_retry_says_so_to_the_server(planet: Planet, kind) -> None:
    caller = kind(control=planet.control, idempotent=True)
    try:
        caller.call(b"x")
        planet.tasks[US0].kill()
        planet.tasks[US1].kill()
        seen = [caller.call(b"meta").decode() for _ in range(10)]
        assert any("('gslb-attempt', '1')" in text or "('gslb-attempt', '2')" in text for text in seen), seen
        assert "gslb-attempt" not in seen[-1]
    finally:
        caller.close()


@both
class TestATaskThatStandsStill:
    def test_is_left_out_within_a_second_and_back_when_it_answers(self, planet: Planet, kind) -> None:
        caller = kind(control=planet.control, idempotent=True)
        try:
            for _ in range(50):
                caller.call(b"x")
            planet.tasks[US0].send_signal(signal.SIGSTOP)
            stopped_s = time.monotonic()
            waiting = []

            def left_out() -> bool:
                # Together: one after the other, all but the first would go where nobody waits.
                waiting.extend(caller.future(b"sleep:0.01", timeout_s=60.0) for _ in range(9))
                return task(caller, US0)["stalled"]

            wait_until(left_out, 20)
            took_s = time.monotonic() - stopped_s
            picks = task(caller, US0)["picks"]
            for _ in range(300):
                assert name_of(caller.call(b"x")) in {US1, US2}
            assert task(caller, US0)["picks"] == picks
            planet.tasks[US0].send_signal(signal.SIGCONT)
            assert all(name_of(future.result(60)) for future in waiting)
            wait_until(lambda: not task(caller, US0)["stalled"], 10)
            wait_until(lambda: (caller.call(b"x"), task(caller, US0)["picks"] > picks)[1], 10)
            assert took_s < 10.0  # less than one on a machine with nothing else to do
        finally:
            caller.close()

    def test_a_call_that_waited_in_vain_is_reason_enough(self, planet: Planet, kind) -> None:
        caller = kind(control=planet.control, idempotent=True)
        try:
            for _ in range(50):
                caller.call(b"x")  # connected to all
            planet.tasks[US0].send_signal(signal.SIGSTOP)
            failed = 0
            for _ in range(60):
                try:
                    caller.call(b"x", timeout_s=limits.WITNESS_TIMEOUT_MIN_S + 0.2)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                        raise
                    failed += 1
                    wait_until(lambda: task(caller, US0)["stalled"], 10)
            assert failed == 1
        finally:
            planet.tasks[US0].send_signal(signal.SIGCONT)
            caller.close()

    def test_one_that_is_slow_stays(self, planet: Planet, kind) -> None:
        caller = kind(control=planet.control, idempotent=True)
        try:
            slow = [caller.future(b"sleep:1.5", timeout_s=10.0) for _ in range(12)]
            until_s = time.monotonic() + 1.2
            while time.monotonic() < until_s:
                caller.call(b"x")
                assert not any(one["stalled"] for one in caller.explain()["endpoints"])
            assert all(name_of(future.result(30)) for future in slow)
        finally:
            caller.close()

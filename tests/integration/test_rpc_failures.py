"""What clients see when tasks and control replicas die: real processes, real signals."""

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

import gslb.rpc
from bns.model import HealthStatus
from gslb.model import limits
from gslb.rpc.client.connection import ControlConnection, Identity
from tests.support.echo import (
    BIDI,
    CLIENT_STREAM,
    SERVER_STREAM,
    SERVICE,
    UNARY,
    ControlReplica,
    EchoTask,
    Planet,
    name_of,
    wait_until,
)

US0, US1, EU0 = "us-east1/u/echo/0", "us-east1/u/echo/1", "europe-west1/u/echo/0"


@pytest.fixture
def planet() -> Iterator[Planet]:
    made = Planet([US0, US1, EU0])
    made.serve({"us-east1": 1.0})
    yield made
    gslb.rpc.close_all()
    made.close()


class Load:
    """Threads that call for ever; counts what came back, and when something failed."""

    def __init__(self, channel, threads: int = 8) -> None:
        self._stub = channel.unary_unary(UNARY)
        self._stop = threading.Event()
        self.answers: list[tuple[float, str]] = []
        self.errors: list[tuple[float, grpc.RpcError]] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                response = self._stub(b"sleep:0.01", timeout=10)
                self.answers.append((time.monotonic(), name_of(response)))
            except grpc.RpcError as error:
                self.errors.append((time.monotonic(), error))

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)


def answered_by(load: Load, since_s: float) -> Counter[str]:
    return Counter(name for at_s, name in list(load.answers) if at_s >= since_s)


class TestTasks:
    def test_kill_costs_no_idempotent_call(self, planet: Planet) -> None:
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1", idempotent=True) as channel:
            load = Load(channel)
            wait_until(lambda: set(answered_by(load, 0)) == {US0, US1})
            killed_s = time.monotonic()
            planet.tasks[US0].kill()
            time.sleep(2)
            load.end()
            assert load.errors == []
            assert set(answered_by(load, killed_s + 1)) == {US1}
            assert len(answered_by(load, killed_s + 1)) > 0
            assert planet.replicas[0].observed()[f"/bns/{US0}"][1] > 0

    def test_kill_breaks_only_calls_in_flight_that_may_not_be_repeated(self, planet: Planet) -> None:
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1") as channel:
            load = Load(channel)
            wait_until(lambda: set(answered_by(load, 0)) == {US0, US1})
            killed_s = time.monotonic()
            planet.tasks[US0].kill()
            time.sleep(2)
            load.end()
            assert len(load.errors) <= 8
            assert all(at_s < killed_s + 1 for at_s, _ in load.errors)
            assert all(error.code() is grpc.StatusCode.UNAVAILABLE for _, error in load.errors)

    def test_a_sinkhole_attracts_nothing_and_costs_no_idempotent_call(self, planet: Planet) -> None:
        """A task that fails at once has nothing in flight, which must not make it everybody's choice."""
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1", idempotent=True) as channel:
            stub = channel.unary_unary(UNARY)
            for _ in range(400):
                assert name_of(stub(f"erring:/bns/{US0}".encode(), timeout=10)) == US1
            picks = {task["task"]: task["picks"] for task in channel.explain()["endpoints"]}
            assert picks[f"/bns/{US0}"] < 0.15 * picks[f"/bns/{US1}"], picks
            # Well again, and forgiven.
            wait_until(lambda: all(task["burden"] == 0.0 for task in channel.explain()["endpoints"]), 40)
            names = Counter(name_of(stub(b"x", timeout=10)) for _ in range(200))
            assert names[US0] > 50

    def test_errors_of_requests_that_may_not_be_repeated_are_the_caller_s(self, planet: Planet) -> None:
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1") as channel:
            stub = channel.unary_unary(UNARY)
            codes = []
            for _ in range(40):
                try:
                    stub(f"erring:/bns/{US0}".encode(), timeout=10)
                except grpc.RpcError as error:
                    codes.append(error.code())
            assert set(codes) == {grpc.StatusCode.INTERNAL}
            assert 0 < len(codes) < 15

    def test_idempotent_by_method(self, planet: Planet) -> None:
        with gslb.rpc.channel(
            SERVICE, control=planet.control, locality="us-east1", idempotent=lambda method: method == UNARY
        ) as channel:
            channel.unary_unary(UNARY)(b"x")
            unary = channel.unary_unary(UNARY).future(b"sleep:1")
            stream = channel.unary_stream(SERVER_STREAM)(b"sleep:1")
            wait_until(lambda: sum(link.in_flight for link in channel.core.links()) == 2)
            time.sleep(0.2)
            for name in (US0, US1):
                planet.tasks[name].kill()
            assert name_of(unary.result(timeout=10)) == EU0
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    def test_a_dead_task_costs_no_call_of_any_arity(self, planet: Planet) -> None:
        """Calls that were never sent go elsewhere, idempotent or not."""
        planet.tasks[US0].kill()
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1") as channel:
            for _ in range(6):
                # Each turn begins with the dead task in the choice.
                for link in channel.core.links():
                    link.down = False
                channel.core.on_view(channel.core.view(), planet_catalog(channel))
                assert channel.unary_unary(UNARY)(b"a").endswith(b"a")
                assert channel.unary_unary(UNARY).future(b"a").result(10).endswith(b"a")
                assert len(list(channel.unary_stream(SERVER_STREAM)(b"count:3"))) == 3
                assert channel.stream_unary(CLIENT_STREAM)(iter([b"a", b"b"])).endswith(b" a,b")
                assert channel.stream_unary(CLIENT_STREAM).future(iter([b"a", b"b"])).result(10).endswith(b" a,b")
                assert len(list(channel.stream_stream(BIDI)(iter([b"a", b"b"])))) == 2
                call = channel.unary_stream(SERVER_STREAM)(b"count:0")
                assert call.code() is grpc.StatusCode.OK
            assert channel.explain()["failures"] == 0
            assert channel.explain()["retries"] > 0

    async def test_a_dead_task_costs_no_asyncio_call_of_any_arity(self, planet: Planet) -> None:
        planet.tasks[US0].kill()
        async with gslb.rpc.aio_channel(SERVICE, control=planet.control, locality="us-east1") as channel:
            await channel.channel_ready()
            for _ in range(6):
                for link in channel.core.links():
                    link.down = False
                channel.core.on_view(channel.core.view(), planet_catalog(channel))
                responses = await asyncio.gather(*(channel.unary_unary(UNARY)(b"a") for _ in range(20)))
                assert {name_of(response) for response in responses} == {US1}
                assert len([item async for item in channel.unary_stream(SERVER_STREAM)(b"count:3")]) == 3
                assert (await channel.stream_unary(CLIENT_STREAM)([b"a", b"b"])).endswith(b" a,b")
                assert len([item async for item in channel.stream_stream(BIDI)([b"a", b"b"])]) == 2
                call = channel.stream_stream(BIDI)()
                await call.write(b"a")
                assert (await call.read()).endswith(b"a")
                await call.done_writing()
                assert await call.code() is grpc.StatusCode.OK
                call = channel.unary_unary(UNARY)(b"a")
                assert await call.code() is grpc.StatusCode.OK
            assert channel.explain()["failures"] == 0
            assert channel.explain()["retries"] > 0

    async def test_kill_costs_no_idempotent_asyncio_call(self, planet: Planet) -> None:
        async with gslb.rpc.aio_channel(
            SERVICE, control=planet.control, locality="us-east1", idempotent=True
        ) as channel:
            stub = channel.unary_unary(UNARY)
            calls = [stub(b"sleep:0.5", timeout=10) for _ in range(40)]
            await asyncio.sleep(0.2)
            planet.tasks[US0].kill()
            more = [stub(b"x", timeout=10) for _ in range(100)]
            responses = await asyncio.gather(*calls, *more)
            assert {name_of(response) for response in responses} == {US1}

    def test_a_whole_datacenter_dies(self, planet: Planet) -> None:
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1", idempotent=True) as channel:
            load = Load(channel)
            wait_until(lambda: set(answered_by(load, 0)) == {US0, US1})
            for name in (US0, US1):
                planet.tasks[name].kill()
            killed_s = time.monotonic()
            time.sleep(1.5)
            load.end()
            assert load.errors == []
            assert set(answered_by(load, killed_s + 0.5)) == {EU0}

    def test_a_task_comes_back(self, planet: Planet) -> None:
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1", idempotent=True) as channel:
            stub = channel.unary_unary(UNARY)
            port = planet.tasks[US0].port
            planet.tasks[US0].close()
            for _ in range(50):
                stub(b"x")
            # Long enough away that background probes fail and are made again.
            wait_until(lambda: any(link.down and link.failures >= 3 for link in channel.core.links()), 30)
            planet.tasks[US0] = EchoTask(f"/bns/{US0}", port)
            wait_until(lambda: not any(link.down for link in channel.core.links()), 15)
            assert {name_of(stub(b"x")) for _ in range(50)} == {US0, US1}

    def test_nobody_is_there_the_error_says_so_and_soon(self, planet: Planet) -> None:
        for task in planet.tasks.values():
            task.kill()
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1") as channel:
            started_s = time.monotonic()
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(UNARY)(b"x", timeout=30)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - started_s < 10
            assert channel.explain()["panic"]

    def test_an_outage_is_not_multiplied(self, planet: Planet) -> None:
        for task in planet.tasks.values():
            task.kill()
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1", idempotent=True) as channel:
            stub = channel.unary_unary(UNARY)
            for _ in range(500):
                with pytest.raises(grpc.RpcError):
                    stub(b"x", timeout=5)
            told = channel.explain()
            assert told["retries"] <= 0.1 * 500 + limits.RETRY_RESERVE + 20
            assert told["retries_refused"] > 0

    def test_drain_stops_picks_and_disturbs_nobody(self, planet: Planet) -> None:
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1") as channel:
            stub = channel.unary_unary(UNARY)
            stub(b"x")
            slow = [stub.future(b"sleep:1.5", timeout=20) for _ in range(10)]
            wait_until(lambda: all(link.in_flight for link in channel.core.links() if "us-east1" in link.endpoint.task))
            planet.serve({"us-east1": 1.0}, {US0: HealthStatus.DRAINING})
            wait_until(lambda: any(link.endpoint.health is HealthStatus.DRAINING for link in channel.core.links()))
            assert {name_of(stub(b"x")) for _ in range(100)} == {US1}
            assert {name_of(future.result(20)) for future in slow} == {US0, US1}
            planet.serve({"us-east1": 1.0})
            wait_until(lambda: {name_of(stub(b"x")) for _ in range(50)} == {US0, US1})

    def test_a_drained_datacenter_gets_nothing(self, planet: Planet) -> None:
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1") as channel:
            stub = channel.unary_unary(UNARY)
            assert name_of(stub(b"x")) in {US0, US1}
            planet.serve(
                {"us-east1": 0.0, "europe-west1": 1.0}, {US0: HealthStatus.DRAINING, US1: HealthStatus.DRAINING}
            )
            wait_until(lambda: channel.explain()["shares"] == {"europe-west1": 1.0})
            assert {name_of(stub(b"x")) for _ in range(50)} == {EU0}

    def test_connections_of_tasks_that_left_are_closed_after_their_calls(self, planet: Planet) -> None:
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1") as channel:
            stub = channel.unary_unary(UNARY)
            stub(b"x")
            slow = [stub.future(b"sleep:1", timeout=20) for _ in range(6)]
            leaving = next(link for link in channel.core.links() if link.endpoint.task == f"/bns/{US0}")
            wait_until(lambda: leaving.in_flight > 0)
            planet.serve({"us-east1": 1.0}, without=[US0])
            wait_until(lambda: leaving.leaving)
            assert {name_of(future.result(20)) for future in slow} == {US0, US1}
            wait_until(lambda: leaving._shut)
            assert {name_of(stub(b"x")) for _ in range(30)} == {US1}


def planet_catalog(channel):
    return channel.core._catalog


class TestControlPlane:
    def test_gone_for_good(self, planet: Planet) -> None:
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1", idempotent=True) as channel:
            stub = channel.unary_unary(UNARY)
            stub(b"x")
            for replica in planet.replicas:
                replica.close()
            wait_until(lambda: "no contact" in channel.explain()["control"])
            assert {name_of(stub(b"x")) for _ in range(100)} == {US0, US1}
            # And what dies meanwhile is found out without it.
            planet.tasks[US0].kill()
            assert {name_of(stub(b"x")) for _ in range(100)} == {US1}

    def test_a_replica_dies_and_the_other_takes_over(self, planet: Planet) -> None:
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1") as channel:
            stub = channel.unary_unary(UNARY)
            stub(b"x")
            wait_until(lambda: any(replica.listeners() for replica in planet.replicas))
            heard = next(replica for replica in planet.replicas if replica.listeners())
            other = next(replica for replica in planet.replicas if replica is not heard)
            heard.close()
            wait_until(lambda: other.listeners() == 1)
            planet.serve({"europe-west1": 1.0})
            wait_until(lambda: channel.explain()["shares"] == {"europe-west1": 1.0})
            assert name_of(stub(b"x")) == EU0
            revived = ControlReplica(planet.world, heard.port)
            planet.replicas.append(revived)
            wait_until(lambda: len(revived.reports) > 0, 15)

    @pytest.mark.parametrize("cold", [0, 1])
    def test_a_replica_that_is_cold_is_left(self, planet: Planet, cold: int) -> None:
        """It takes the stream and the reports, and sends no view. The client may begin with either replica."""
        planet.replicas[cold].cold = True
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1") as channel:
            assert name_of(channel.unary_unary(UNARY)(b"x", timeout=20)) in {US0, US1}

    def test_a_replica_that_hangs_is_left(self, planet: Planet) -> None:
        """It is listened to, and then neither sends nor acknowledges anything, while its connection stays up."""
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1") as channel:
            channel.unary_unary(UNARY)(b"x", timeout=20)
            wait_until(lambda: all(replica.reports for replica in planet.replicas))
            heard = next(replica for replica in planet.replicas if replica.listeners())
            heard.mute = True
            planet.serve({"europe-west1": 1.0})
            wait_until(lambda: channel.explain()["shares"] == {"europe-west1": 1.0}, 20)

    def test_demand_goes_to_every_replica_once_per_logical_call(self, planet: Planet) -> None:
        planet.tasks[US0].kill()
        with gslb.rpc.channel(
            SERVICE, control=planet.control, locality="us-east1", caller="frontend", idempotent=True
        ) as channel:
            stub = channel.unary_unary(UNARY)
            for _ in range(100):
                stub(b"x")
            list(channel.unary_stream(SERVER_STREAM)(b"count:1"))
            with pytest.raises(grpc.RpcError):
                stub(b"abort:NOT_FOUND")
            control = gslb.rpc.control(planet.control, locality="us-east1")
            control.report_edge("shakespeare-gfe", "north-america", attempts=7)
            for replica in planet.replicas:
                wait_until(lambda replica=replica: ("shakespeare-gfe", "north-america", "", 2) in replica.demand())
                assert replica.demand()[SERVICE, "us-east1", "frontend", 2] == 102
                assert replica.demand()["shakespeare-gfe", "north-america", "", 2] == 7
                ok, failed = replica.observed()[f"/bns/{US1}"]
                assert (ok, failed) == (102, 0)
                assert replica.observed()[f"/bns/{US0}"][1] > 0
                seqs = [report.seq for report in replica.reports]
                assert seqs == sorted(set(seqs))
                assert len({report.boot_id for report in replica.reports}) == 1
                assert {report.datacenter for report in replica.reports} <= {"", "us-east1"}

    def test_what_was_counted_last_is_reported_when_all_closes(self, planet: Planet) -> None:
        channel = gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1")
        stub = channel.unary_unary(UNARY)
        wait_until(lambda: all(replica.reports for replica in planet.replicas))
        for _ in range(10):
            stub(b"x")
        channel.close()
        gslb.rpc.close_all()
        for replica in planet.replicas:
            wait_until(lambda replica=replica: replica.demand().get((SERVICE, "us-east1", "", 2)) == 10)

    def test_snapshot_serves_without_contact(self, planet: Planet, tmp_path: Path) -> None:
        path = tmp_path / "view"
        addresses = planet.control.split(",")
        first = ControlConnection(addresses, Identity("us-east1"), snapshot_path=path)
        with gslb.rpc.channel(SERVICE, control=first, locality="us-east1") as channel:
            channel.unary_unary(UNARY)(b"x")
            wait_until(path.exists)
        first.close()
        for replica in planet.replicas:
            replica.close()
        second = ControlConnection(addresses, Identity("us-east1"), snapshot_path=path)
        with gslb.rpc.channel(SERVICE, control=second, locality="us-east1") as channel:
            assert name_of(channel.unary_unary(UNARY)(b"x", timeout=5)) in {US0, US1}
        second.close()

    @pytest.mark.parametrize("content", [b"", b"GSLBVIEWgarbage", b"\x00" * 100])
    def test_a_bad_snapshot_is_no_reason_to_fail(self, planet: Planet, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "view"
        path.write_bytes(content)
        control = ControlConnection(planet.control.split(","), Identity("us-east1"), snapshot_path=path)
        with gslb.rpc.channel(SERVICE, control=control, locality="us-east1") as channel:
            assert name_of(channel.unary_unary(UNARY)(b"x", timeout=10)) in {US0, US1}
        control.close()

    def test_one_connection_for_all_channels(self, planet: Planet) -> None:
        planet.serve({"us-east1": 1.0}, service="other")
        with (
            gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1") as one,
            gslb.rpc.channel("other", control=planet.control, locality="us-east1") as two,
        ):
            one.unary_unary(UNARY)(b"x")
            two.unary_unary(UNARY)(b"x")
            assert sum(replica.listeners() for replica in planet.replicas) == 1
        control = gslb.rpc.control(planet.control, locality="us-east1")
        assert control.view("other").plan is not None
        assert set(control.catalog().datacenters) == {"us-east1", "europe-west1", "asia-east1"}

    def test_stopped_and_woken(self, planet: Planet) -> None:
        """A task that is stopped and woken again keeps its place: nobody fails."""
        with gslb.rpc.channel(SERVICE, control=planet.control, locality="us-east1") as channel:
            load = Load(channel, threads=4)
            wait_until(lambda: set(answered_by(load, 0)) == {US0, US1})
            planet.tasks[US0].send_signal(signal.SIGSTOP)
            time.sleep(1)
            planet.tasks[US0].send_signal(signal.SIGCONT)
            woken_s = time.monotonic()
            wait_until(lambda: US0 in answered_by(load, woken_s + 0.5))
            load.end()
            assert load.errors == []

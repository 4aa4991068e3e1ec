"""A datacenter dies together with every control plane: clients go where there is room, by what they hold already.

Servers are processes and die by SIGKILL; the plan is the balancer's own.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import gslb.rpc
from bns.model import HealthStatus
from gslb.balancer.contingency import peak_after
from gslb.balancer.inputs import Inputs, TaskState
from gslb.balancer.state import BalancerState
from gslb.balancer.step import step
from gslb.model.meta import Meta
from gslb.model.plan import Plan
from gslb.model.resources import Backend, Catalog, Datacenter, Service
from tests.integration.test_rpc_failures import Load
from tests.support.echo import PLACES, SERVICE, UNARY, EchoTask, Planet, name_of, wait_until

# Tasks, and rps of each. Without us-east1 there is room for all, and not in one place.
HOUSES = {"us-east1": (6, 100.0), "europe-west1": (2, 150.0), "asia-east1": (2, 150.0)}
DEMAND_RPS = 450.0
LOST = "us-east1"

pytestmark = pytest.mark.timeout(120)


def _tasks() -> list[str]:
    return [f"{datacenter}/u/echo/{i}" for datacenter, (count, _) in HOUSES.items() for i in range(count)]


def _plan() -> Plan:
    """What the balancer says to this demand, all of it in us-east1."""
    service = Service(Meta(SERVICE), tuple(Backend(f"/bns/{name}/u/echo", rps) for name, (_, rps) in HOUSES.items()))
    states = tuple(
        TaskState(f"/bns/{name}", name.split("/")[0], f"/bns/{name.rpartition('/')[0]}", HealthStatus.HEALTHY)
        for name in _tasks()
    )
    catalog = Catalog({name: Datacenter(Meta(name), "r", at) for name, at in PLACES.items()}, {}, {SERVICE: service})
    inputs = Inputs(catalog, {SERVICE: states}, {SERVICE: {LOST: DEMAND_RPS}})
    plan = step(BalancerState(), inputs, now_s=1e9)[1].services[SERVICE].plan
    assert plan is not None
    return plan


@pytest.fixture
def planet() -> Iterator[Planet]:
    made = Planet(_tasks())
    made.world.publish([task.endpoint() for task in made.tasks.values()], _plan())
    yield made
    gslb.rpc.close_all()
    made.close()


def _answers(load: Load, from_s: float, to_s: float) -> Counter[str]:
    """Answers by datacenter in a window of time."""
    return Counter(name.split("/")[0] for at_s, name in list(load.answers) if from_s <= at_s < to_s)


def test_the_balancer_has_a_place_for_everybody() -> None:
    plan = _plan()
    assert plan.shares[LOST][LOST] > 0.9
    assert set(plan.contingencies[LOST][LOST]) == {"europe-west1", "asia-east1"}
    assert peak_after(plan, LOST)[1] <= 1.001


def test_requests_rehome_within_a_second_and_return_little_by_little(planet: Planet) -> None:
    planned = _plan().contingencies[LOST][LOST]
    with gslb.rpc.channel(SERVICE, control=planet.control, locality=LOST, idempotent=True) as channel:
        load = Load(channel)
        us = [name for name in planet.tasks if name.startswith(LOST)]
        wait_until(lambda: sum(_answers(load, 0, 1e12).values()) > 200, 30)
        for replica in planet.replicas:
            replica.close()
        ports = {name: planet.tasks[name].port for name in us}
        for name in us:
            planet.tasks[name].process.kill()
        killed_s = time.monotonic()
        wait_until(lambda: sum(_answers(load, killed_s + 1.0, 1e12).values()) > 1500, 30)
        found = _answers(load, killed_s + 1.0, time.monotonic())
        assert load.errors == []
        assert found[LOST] == 0
        total = sum(found.values())
        for heir, part in planned.items():
            assert found[heir] / total == pytest.approx(part, abs=0.06), (found, planned)

        # Tasks are back at once, their share is not.
        for name in us:
            planet.tasks[name].close()
        with ThreadPoolExecutor(len(us)) as starters:
            revived = starters.map(lambda name: EchoTask(f"/bns/{name}", ports[name]), us)
            planet.tasks.update(zip(us, revived, strict=True))
        wait_until(lambda: _answers(load, killed_s + 1.0, 1e12)[LOST] > 0, 30)
        back_s = min(at_s for at_s, name in list(load.answers) if at_s > killed_s + 1.0 and name.startswith(LOST))
        wait_until(lambda: channel.explain()["kept"] == {}, 40)
        whole_s = time.monotonic()
        assert whole_s - back_s > 5
        early = _answers(load, back_s, back_s + 1.5)
        assert early[LOST] < 0.5 * sum(early.values())
        time.sleep(1.0)
        load.end()
        late = _answers(load, whole_s, 1e12)
        assert late[LOST] > 0.85 * sum(late.values())
        assert load.errors == []


def test_tasks_that_nobody_asked_yet_are_out_too(planet: Planet) -> None:
    """A quiet client must not find out task by task: four that do not answer speak for all six."""
    with gslb.rpc.channel(SERVICE, control=planet.control, locality=LOST, idempotent=True) as channel:
        stub = channel.unary_unary(UNARY)
        stub(b"x")
        for name, task in planet.tasks.items():
            if name.startswith(LOST):
                task.process.kill()
        stub(b"x", timeout=10)
        stub(b"x", timeout=10)
        wait_until(
            lambda: all(link.down for link in channel.core.links() if link.endpoint.datacenter == LOST), timeout_s=5
        )
        asked = sum(link.picks > 0 for link in channel.core.links() if link.endpoint.datacenter == LOST)
        assert asked < HOUSES[LOST][0]
        assert LOST not in channel.explain()["shares"]


def test_single_tasks_that_die_move_nothing_between_datacenters(planet: Planet) -> None:
    with gslb.rpc.channel(SERVICE, control=planet.control, locality=LOST, idempotent=True) as channel:
        load = Load(channel)
        wait_until(lambda: sum(_answers(load, 0, 1e12).values()) > 100, 30)
        for i in range(3):
            planet.tasks[f"{LOST}/u/echo/{i}"].process.kill()
        killed_s = time.monotonic()
        wait_until(lambda: sum(_answers(load, killed_s + 1.0, 1e12).values()) > 500, 30)
        load.end()
        found = _answers(load, killed_s + 1.0, 1e12)
        assert found[LOST] > 0.9 * sum(found.values())
        assert channel.explain()["kept"] == {}
        assert load.errors == []


def test_a_datacenter_that_falls_silent_is_left_too(planet: Planet) -> None:
    """No connection is refused and none breaks, as when a line is cut: calls that wait in vain make clients ask."""
    with gslb.rpc.channel(SERVICE, control=planet.control, locality=LOST, idempotent=True) as channel:
        stub = channel.unary_unary(UNARY)
        stub(b"x")
        for name, task in planet.tasks.items():
            if name.startswith(LOST):
                task.send_signal(signal.SIGSTOP)
        waiting = [stub.future(b"x", timeout=1.5) for _ in range(12)]
        assert grpc.StatusCode.DEADLINE_EXCEEDED in {call.code() for call in waiting}
        wait_until(lambda: LOST not in channel.explain()["shares"], 10)
        assert {name_of(stub(b"x", timeout=5)).split("/")[0] for _ in range(40)} == {"europe-west1", "asia-east1"}
        for name, task in planet.tasks.items():
            if name.startswith(LOST):
                task.send_signal(signal.SIGCONT)
        wait_until(lambda: channel.explain()["shares"].get(LOST, 0.0) > 0.5, 40)


async def test_asyncio_clients_too(planet: Planet) -> None:
    planned = _plan().contingencies[LOST][LOST]
    async with gslb.rpc.aio_channel(SERVICE, control=planet.control, locality=LOST, idempotent=True) as channel:
        stub = channel.unary_unary(UNARY)
        assert name_of(await stub(b"x")).startswith(LOST)
        for replica in planet.replicas:
            replica.close()
        for name, task in planet.tasks.items():
            if name.startswith(LOST):
                task.process.kill()
        first = await asyncio.gather(*(stub(b"x", timeout=10) for _ in range(50)))
        assert not any(name_of(answer).startswith(LOST) for answer in first)
        await asyncio.sleep(0.5)
        assert LOST not in channel.explain()["shares"]
        found = Counter(
            name_of(answer).split("/")[0] for answer in await asyncio.gather(*(stub(b"x") for _ in range(600)))
        )
        for heir, part in planned.items():
            assert found[heir] / 600 == pytest.approx(part, abs=0.1)

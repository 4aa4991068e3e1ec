"""A drain on a real replica follows the callers to those whom they call: what is shown, and what is refused."""

import asyncio
import contextlib
import os
import subprocess
import sys

import grpc
import pytest

from gslb.v1 import admin_pb2, config_pb2
from tests.support.control import FakeAgent, FakeClient, Operator, ReplicaProcess, datacenter, eventually, service

pytestmark = pytest.mark.timeout(180)

US, EU, ASIA = "us-east1", "europe-west1", "asia-east1"
FRONTEND = {US: 60, EU: 40}
REQUESTS = {"frontend": 1, "backend": 2}  # for each of the frontend's


def planet(cpu_cores: float):
    """A frontend in three datacenters; its backend, two requests for each of its own, shares the CPU of one in Europe."""
    europe = datacenter(EU)
    europe.datacenter.cpu_cores = cpu_cores
    services = [service("frontend", rps=100.0), service("backend", rps=200.0)]
    for resource in services:
        for backend in resource.service.backends:
            backend.request_cpu_s = 0.1
    return [datacenter(US), datacenter(ASIA), europe, *services]


async def dry_run(operator, target):
    request = admin_pb2.DrainRequest(scope=config_pb2.DRAIN_SCOPE_SERVICE, target=target, reason="test", dry_run=True)
    return await operator.admin.Drain(request, timeout=20)


@contextlib.asynccontextmanager
async def shop(etcd, directory):
    """A replica that leads, agents and clients: frontends in two places ask the backends there for twice as much."""
    replica = ReplicaProcess("r0", etcd.address, directory).start()
    addresses = [replica.address]
    clients, agents = [], []
    try:
        async with Operator(replica.address) as operator:

            async def warm():
                try:
                    return (await operator.status()).leading
                except grpc.aio.AioRpcError:
                    return False

            await eventually(warm, "the replica leads")
            await operator.apply(*planet(0.0))
            agents = [await FakeAgent(place, addresses, job).start() for place in (US, EU, ASIA) for job in JOBS]
            for place, rps in FRONTEND.items():
                load = {"frontend": rps, "backend": 2 * rps}
                clients.append(await FakeClient(place, addresses, load, callers={"backend": "frontend"}).start())
            yield replica, operator
    finally:
        for one in clients:
            await one.stop()
        for one in agents:
            await one.kill()
        replica.stop()


def left_in(cpu_cores, service, *places):
    """The service of the planet, with its backends in these places only."""
    found = next(one for one in planet(cpu_cores) if one.meta.name == service)
    kept = [one for one in found.service.backends if any(f"/{place}/" in one.job for place in places)]
    del found.service.backends[:]
    found.service.backends.extend(kept)
    return found


async def test_backends_follow_a_drained_frontend_and_a_drain_is_refused_where_they_do_not_fit(etcd, tmp_path):
    async with shop(etcd, tmp_path) as (replica, operator):
        await backends_follow(replica, operator)
        # The backend is left in Europe only, and the frontend's 6 cores more are too much there: 20 + 10 of 26.
        places = [one for one in planet(26.0) if one.meta.name not in {"backend", "frontend"}]
        await operator.apply(*places, left_in(26.0, "backend", EU))
        await operator.apply(left_in(26.0, "frontend", US, EU))
        await a_drain_is_refused(replica, operator)


async def backends_follow(replica, operator):
    async def loaded():
        reply = await dry_run(operator, f"frontend@{US}")
        effects = {(one.service, one.datacenter): one for one in reply.effects}
        wanted = {(name, place): each * rps for place, rps in FRONTEND.items() for name, each in REQUESTS.items()}
        settled = all(key in effects and abs(effects[key].load_before_rps - rps) < 1 for key, rps in wanted.items())
        # What still is a guest there from before does not follow the frontend.
        return effects if settled and effects["backend", US].load_after_rps < 1 else None

    # Who came first to serve gives the load of others back little by little.
    effects = await eventually(loaded, "demand is known and served nearby", 60)
    assert effects["frontend", US].why == "drained"
    assert effects["backend", US].why == "called by frontend"
    assert effects["frontend", US].load_after_rps == 0
    before, after = (
        sum(getattr(one, name) for (called, _), one in effects.items() if called == "backend")
        for name in ("load_before_rps", "load_after_rps")
    )
    assert abs(after - before) < 0.01 * before
    for place in (EU, ASIA):
        # Where the frontend's load goes, its backend's goes: twice as much.
        assert abs(effects["backend", place].load_after_rps - 2 * effects["frontend", place].load_after_rps) < 5
    shown = await asyncio.to_thread(command, replica.address, "--dry-run")
    assert "called by frontend" in shown.stdout, shown
    assert shown.returncode == 0, shown


async def a_drain_is_refused(replica, operator):
    async def refused():
        reply = await dry_run(operator, f"frontend@{US}")
        return [line for line in reply.violations if line.startswith("service backend:")]

    (line,) = await eventually(refused, "the backend does not fit")
    assert f"CPU of {EU}" in line
    assert "called by frontend" in line
    done = await asyncio.to_thread(command, replica.address)
    assert done.returncode == 1
    assert "is refused" in done.stderr
    assert "service backend: demand" in done.stderr
    kinds = await operator.admin.Get(admin_pb2.GetRequest(kind="drain"))
    assert not kinds.resources, "a refusal changes nothing"


JOBS = ("frontend", "backend")


def command(address, *flags):
    return subprocess.run(
        [
            *(sys.executable, "-m", "gslb", "drain", "service", f"frontend@{US}"),
            *("--reason", "test", *flags),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "GSLB_CONTROL": address},
    )

"""A datacenter dies with every control plane: the frontend sees it and answers by the plan's contingency."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from dns_frontend.limits import PROBE_BASELINE_S
from gslb.steer.view import ServiceView
from gslb.wire.snapshot import to_update
from tests.integration.test_dns_survival import ask
from tests.support.dns import (
    OCTETS,
    WAIT_S,
    ControlPlane,
    addresses_in,
    endpoints,
    plan,
    reader_view,
    running,
    until,
    view_of,
)

pytestmark = pytest.mark.timeout(90)

US, EU, ASIA = ({f"127.{OCTETS[name]}.0.1", f"127.{OCTETS[name]}.0.2"} for name in OCTETS)


class Houses:
    """A TCP listener for every endpoint, all on one port."""

    def __init__(self) -> None:
        self.servers: dict[str, asyncio.Server] = {}
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self, addresses: set[str]) -> None:
        for address in sorted(addresses):
            server = await asyncio.start_server(self._accept, address, self.port)
            self.port = self.port or server.sockets[0].getsockname()[1]
            self.servers[address] = server

    async def close(self, addresses: set[str]) -> None:
        for address in addresses & self.servers.keys():
            server = self.servers.pop(address)
            server.close()
            await server.wait_closed()

    def _accept(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        writer.close()

    async def forget(self) -> None:
        """Leaves no connection for the collector to complain about."""
        await asyncio.sleep(0.02)  # those that were accepted in the last moment
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def view(self) -> ServiceView:
        """All endpoints at the listeners' port; whoever is in America is to go to Asia if America is lost."""
        members = {
            task: replace(endpoint, port=self.port) for task, endpoint in endpoints(dict.fromkeys(OCTETS, 2)).items()
        }
        planned = replace(plan(), contingencies={"us-east1": {"na": {"asia-east1": 1.0}}})
        return view_of(planned=planned, members=members)


@asynccontextmanager
async def houses() -> AsyncIterator[Houses]:
    made = Houses()
    await made.open(US | EU | ASIA)
    try:
        yield made
    finally:
        await made.close(US | EU | ASIA)
        await made.forget()


async def test_a_datacenter_that_came_a_little_later_is_known_soon() -> None:
    plane = ControlPlane()
    address = await plane.start()
    async with houses() as standing, running(address, default_locality="na") as made:
        whole = standing.view()
        early = {task: one for task, one in whole.endpoints.items() if one.datacenter != "us-east1"}
        plane.serve(reader_view(whole.with_endpoints(early)))
        await until(lambda: made.prober.absence.reached == set(OCTETS) - {"us-east1"})
        plane.push(to_update(reader_view(whole)))
        # Long before everybody's turn comes again.
        assert WAIT_S < PROBE_BASELINE_S / 2
        await until(lambda: made.prober.absence.reached == set(OCTETS))
    await plane.stop()


async def test_by_the_contingency_while_no_control_plane_is_heard_and_back_after() -> None:
    plane = ControlPlane()
    address = await plane.start()
    async with houses() as standing, running(address, default_locality="na") as made:
        plane.serve(reader_view(standing.view()))
        await until(lambda: made.prober.absence.reached == set(OCTETS))
        dns = made.addresses.dns[0]

        async def answers() -> set[str]:
            return addresses_in(await ask(dns))

        async def become(wanted: set[str]) -> None:
            for _ in range(200):
                if await answers() <= wanted:
                    return
                await asyncio.sleep(0.1)
            raise AssertionError(f"answers are {await answers()}, not of {wanted}")

        await become(US)
        # With a control plane it is that one's business, whatever probes see.
        await standing.close(US)
        await asyncio.sleep(3.0)
        assert await answers() <= US
        await plane.stop()
        await become(ASIA)
        assert made.prober.absence.lost == {"us-east1"}

        await standing.open(US)
        await become(US)
        await standing.close(US)
        await become(ASIA)
        # A control plane that is heard again has the last word.
        await plane.start(address)
        plane.serve(reader_view(standing.view()))
        await become(US)
        await plane.stop()


async def test_a_frontend_that_reaches_nobody_changes_nothing() -> None:
    plane = ControlPlane()
    address = await plane.start()
    async with houses() as standing, running(address, default_locality="na") as made:
        plane.serve(reader_view(standing.view()))
        await until(lambda: made.prober.absence.reached == set(OCTETS))
        await plane.stop()
        await standing.close(US | EU | ASIA)
        await asyncio.sleep(5.0)
        assert made.prober.absence.lost == frozenset()
        assert addresses_in(await ask(made.addresses.dns[0])) <= US

"""Fixtures: a real etcd for each test that asks for one.

Tests are fast with etcd because it is told to be: short elections, no fsync. Every fixture is fresh, so that no test
sees another's keys, and removes its data (64 MB of preallocated log per member).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from bns.etcd.client import Client
from bns.etcd.embedded import Cluster, EmbeddedEtcd, Options

TEST_OPTIONS = Options(unsafe_no_fsync=True)
CLUSTER_OPTIONS = Options(heartbeat_ms=50, election_ms=500, unsafe_no_fsync=True)


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EmbeddedEtcd]:
    """A fresh etcd of one member: `.address`, `.kill()`, `.start()`, `.pause()`, ..."""
    server = EmbeddedEtcd(tmp_path / "etcd", TEST_OPTIONS)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        server.remove_data()


@pytest.fixture
def etcd_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A fresh etcd of three members: `.addresses`, `.members[i]`."""
    cluster = Cluster(tmp_path / "etcd", 3, CLUSTER_OPTIONS)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()
        cluster.remove_data()


@pytest_asyncio.fixture
async def etcd_client(etcd: EmbeddedEtcd) -> AsyncIterator[Client]:
    """A client of `etcd`."""
    async with Client([etcd.address]) as client:
        yield client


async def until(condition: Callable[[], object], timeout_s: float = 60.0, what: str = "the condition") -> None:
    """Wait until `condition()` is true; fail when that takes longer than `timeout_s`."""
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        if asyncio.get_running_loop().time() > deadline_s:
            pytest.fail(f"{what} did not come true in {timeout_s:.0f} s")
        await asyncio.sleep(0.02)

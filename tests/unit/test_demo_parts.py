"""The demo's own small parts: its layout, its data directories, its resolver's view of an answer."""

import asyncio
import fcntl
import random
from ipaddress import IPv4Network
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest

from gslb.config.load import load
from gslb.demo import directory, resolver
from gslb.demo.checks.search import scan
from gslb.demo.layout import JOBS, SITES, WEB_NAME, site_of_address
from gslb.demo.ports import any_free, first_free, is_free
from gslb.demo.resolver import ResolveError, Resolver
from gslb.geo.cidr import CidrMap
from gslb.model.resources import ClientArea, Service

PLANET = Path(directory.__file__).with_name("planet.yaml")


def test_every_task_has_an_address_of_its_own_in_its_datacenter() -> None:
    places = [(site, job, i) for site in SITES for job, count in JOBS.items() for i in range(count)]
    addresses = [site.task_address(job, i) for site, job, i in places]
    assert len(set(addresses)) == len(places) == 24
    assert all(site_of_address(site.task_address(job, i)) == site.name for site, job, i in places)
    assert site_of_address("192.0.2.1") == ""
    assert site_of_address("127.9.0.1") == ""


def test_the_planet_s_areas_hold_the_demo_s_clients_and_its_jobs_are_the_demo_s() -> None:
    resources = load(PLANET.read_text(), str(PLANET))
    areas = CidrMap.build(r for r in resources if isinstance(r, ClientArea))
    assert not areas.problems
    for site in SITES:
        network = IPv4Network(site.client_subnet(0))
        assert areas.lookup(network.network_address).locality == site.area
    jobs = {backend.job for r in resources if isinstance(r, Service) for backend in r.backends}
    assert jobs == {site.task_name(job, 0).rpartition("/")[0] for site in SITES for job in JOBS}


def test_directories_of_ended_demos_are_removed_and_no_others(tmp_path: Path) -> None:
    alive, ended = directory.create(tmp_path), directory.create(tmp_path)
    ended.leave()
    (tmp_path / "gslb-demo-foreign").mkdir()
    assert directory.remove_abandoned(tmp_path) == [ended.path]
    assert alive.path.is_dir()
    assert (tmp_path / "gslb-demo-foreign").is_dir()
    alive.remove()
    assert not alive.path.exists()


def test_a_running_demo_holds_its_lock(tmp_path: Path) -> None:
    own = directory.create(tmp_path)
    with (own.path / "lock").open("r+") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    own.remove()


async def test_demos_start_one_after_the_other(tmp_path: Path) -> None:
    order: list[str] = []

    async def start(name: str) -> None:
        async with directory.starting(tmp_path):
            order.append(f"{name} begins")
            await asyncio.sleep(0.3)
            order.append(f"{name} is up")

    await asyncio.gather(start("one"), start("two"))
    assert order == ["one begins", "one is up", "two begins", "two is up"]


def test_free_ports_are_free_on_every_address() -> None:
    hosts = ["127.0.0.1", "127.1.2.3"]
    port = first_free(hosts, any_free("127.0.0.1"))
    assert all(is_free(host, port) for host in hosts)


def test_the_query_names_the_client_s_network() -> None:
    query = resolver.client_subnet_query(WEB_NAME, IPv4Network("127.101.3.0/24"), 7)
    read = dns.message.from_wire(query.to_wire())
    assert read.id == 7
    assert [option.to_wire() for option in read.options] == [bytes([0, 1, 24, 0, 127, 101, 3])]


async def test_a_server_that_is_not_there_is_a_clear_error() -> None:
    asked = Resolver([f"127.0.0.1:{any_free('127.0.0.1')}"], "127.101.0.0/24", random.Random(1))
    with pytest.raises(ResolveError, match=r"did not answer for www\.shakespeare\.example"):
        await asked.resolve(WEB_NAME, now_s=0.0)
    assert asked.failures == 1


def test_answers_with_errors_or_garbage_are_refused() -> None:
    query = resolver.client_subnet_query(WEB_NAME, IPv4Network("127.101.3.0/24"), 7)
    failed = dns.message.make_response(query)
    failed.set_rcode(dns.rcode.SERVFAIL)
    with pytest.raises(ResolveError, match="answered SERVFAIL with 0 address sets"):
        resolver._read("127.0.0.1:53", failed.to_wire(), query)
    other = dns.message.make_response(resolver.client_subnet_query(WEB_NAME, IPv4Network("127.101.3.0/24"), 8))
    with pytest.raises(ResolveError, match="answered NOERROR"):
        resolver._read("127.0.0.1:53", other.to_wire(), query)
    with pytest.raises(ResolveError, match="malformed"):
        resolver._read("127.0.0.1:53", b"\x00\x01", query)


def test_the_scan_knows_words_from_parts_of_words(tmp_path: Path) -> None:
    (tmp_path / "a_gut.txt").write_text("Love, lovely love's 'love' glove\nlove-love\n")
    assert scan(tmp_path, "love") == [("a", 1), ("a", 1), ("a", 2), ("a", 2)]

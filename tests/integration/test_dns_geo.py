"""A frontend with a geo database: who is where, the exact scope, reloads that drop nothing, explain and the commands."""

import asyncio
import ipaddress
import json

import dns.asyncquery
import dns.edns
import dns.message
import pytest
from click.testing import CliRunner

from dns_frontend.local import Files
from gslb.cli.main import main as gslb
from tests.support.dns import addresses_in, running, subnet_of
from tests.support.mmdb import dbip, maxmind, mmdb

CONFIG = """
datacenters:
  us-east1: {latitude: 33.2, longitude: -80.0}
  europe-west1: {latitude: 50.4, longitude: 3.8}
  asia-east1: {latitude: 24.0, longitude: 120.5}
areas:
  home: {latitude: 50.0, longitude: 10.0, cidrs: [10.0.0.0/8]}
services:
  www:
    dns_names: [www.example.com]
    port: 0
    addresses:
      us-east1: [192.0.2.1]
      europe-west1: [192.0.2.2]
      asia-east1: [192.0.2.3]
"""
US, EU, ASIA = {"192.0.2.1"}, {"192.0.2.2"}, {"192.0.2.3"}
NETWORKS = {
    "1.0.0.0/8": maxmind("CN", 35.0, 105.0),
    "1.2.0.0/16": maxmind("DE", 52.5, 13.4),
    "11.0.0.0/8": dbip("US"),
    "2001:db8::/32": dbip("JP"),
}


@pytest.fixture
def files(tmp_path):
    config, geo = tmp_path / "dns.yaml", tmp_path / "geo.mmdb"
    config.write_text(CONFIG)
    geo.write_bytes(mmdb(NETWORKS))
    return Files(config=config, geo=geo)


async def ask(frontend, subnet: str) -> dns.message.Message:
    network = ipaddress.ip_network(subnet)
    option = dns.edns.ECSOption(str(network.network_address), network.prefixlen)
    query = dns.message.make_query("www.example.com", "A", use_edns=0, options=[option])
    host, _, port = frontend.addresses.dns[0].rpartition(":")
    return await dns.asyncquery.udp(query, host, 5.0, int(port))


@pytest.mark.parametrize("threads", [0, 1])
async def test_clients_are_sent_to_what_is_near(files, threads):
    async with running(alone=True, files=files, threads=threads) as made:
        for subnet, expected, scope in (
            ("1.2.3.0/24", EU, 16),
            ("1.3.3.0/24", ASIA, 16),
            ("1.200.0.0/24", ASIA, 9),
            ("11.0.0.0/24", US, 8),
            ("10.1.0.0/24", EU, 8),  # the operator's word goes first
            ("2001:db8:9::/48", ASIA, 32),
        ):
            message = await ask(made, subnet)
            assert addresses_in(message) == expected, subnet
            assert subnet_of(message).scopelen == scope, subnet


async def test_a_reload_takes_the_new_map_and_refuses_a_bad_one(files):
    async with running(alone=True, files=files) as made:
        files.geo.write_bytes(mmdb({"1.0.0.0/8": maxmind("US", 40.0, -75.0)}))
        assert not (await made.reload()).problems
        assert addresses_in(await ask(made, "1.2.3.0/24")) == US
        files.geo.write_bytes(b"not a database")
        (problem,) = (await made.reload()).problems
        assert str(files.geo) in problem
        assert "no metadata" in problem
        assert addresses_in(await ask(made, "1.2.3.0/24")) == US, "the last good one stays"
        files.geo.unlink()
        (problem,) = (await made.reload()).problems
        assert "No such file" in problem
        assert addresses_in(await ask(made, "1.2.3.0/24")) == US


async def test_no_query_is_dropped_while_a_map_is_read(files):
    rows = {f"{20 + i // 65536}.{i // 256 % 256}.{i % 256}.0/24": dbip("US" if i % 2 else "DE") for i in range(20_000)}
    new = mmdb(NETWORKS | rows)
    async with running(alone=True, files=files) as made:
        files.geo.write_bytes(new)
        reload = asyncio.create_task(made.reload())
        asked = 0
        while not reload.done() or not asked:
            assert addresses_in(await ask(made, "1.2.3.0/24")) == EU
            asked += 1
        assert not (await reload).problems
        assert addresses_in(await ask(made, "20.0.1.0/24")) == US
        assert addresses_in(await ask(made, "20.0.2.0/24")) == EU


async def test_explain_names_the_file_and_the_prefix(files):
    async with running(alone=True, files=files) as made:
        for client, prefix, source, locality, scope in (
            ("1.2.3.4", "1.2.0.0/16", "geo.mmdb", "europe-west1", 16),
            ("10.1.2.3", "10.0.0.0/8", "client areas", "home", 8),
        ):
            arguments = ["explain", "dns", "www.example.com", "--from", client, "--frontend", made.addresses.grpc]
            result = await asyncio.to_thread(CliRunner().invoke, gslb, [*arguments, "-o", "json"])
            assert result.exit_code == 0, result.output
            (row,) = json.loads(result.stdout)
            assert (row["matched_prefix"], row["matched_source"]) == (prefix, source)
            assert (row["locality"], row["chosen"], row["scope"]) == (locality, "europe-west1", scope)
            assert prefix in row["reason"]
        result = await asyncio.to_thread(CliRunner().invoke, gslb, [*arguments[:4], "1.2.3.4", *arguments[5:]])
        assert "DE 52.5,13.4, nearest europe-west1 at 7" in result.stdout


def test_install_and_lookup(tmp_path):
    source, target = tmp_path / "new.mmdb", tmp_path / "var" / "geo.mmdb"
    source.write_bytes(mmdb(NETWORKS))
    result = CliRunner().invoke(gslb, ["geo", "install", str(source), "--to", str(target)])
    assert result.exit_code == 0, result.output
    assert target.read_bytes() == source.read_bytes()
    assert "Test-City of 2023-11-14, " in result.stdout
    source.write_bytes(source.read_bytes()[:200])
    result = CliRunner().invoke(gslb, ["geo", "install", str(source), "--to", str(target)])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert str(source) in result.stderr
    assert [path.name for path in target.parent.iterdir()] == ["geo.mmdb"]
    result = CliRunner().invoke(gslb, ["geo", "lookup", "1.2.3.4", "-o", "json"], env={"GSLB_GEO": str(target)})
    (row,) = json.loads(result.stdout)
    assert (row["prefix"], row["country"], row["latitude"], row["by"]) == ("1.2.0.0/16", "DE", 52.5, "coordinates")
    result = CliRunner().invoke(gslb, ["geo", "lookup", "9.9.9.9", "--db", str(target), "-o", "json"])
    assert json.loads(result.stdout)[0]["by"] == ""
    assert CliRunner().invoke(gslb, ["geo", "lookup", "nobody", "--db", str(target)]).exit_code == 2


async def test_a_bad_map_at_the_start_is_one_line(files):
    files.geo.write_bytes(b"nothing")
    with pytest.raises(Exception, match="no metadata") as caught:
        async with running(alone=True, files=files):
            pass
    assert "\n" not in str(caught.value)

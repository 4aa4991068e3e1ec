"""The servers: ours, the echo, and others from the system's packages, each with the same names and answers.

A peer that is not installed is named and left out. Each runs in one thread on loopback, in the foreground, as a child.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.dns import world
from bench.stage import BenchError, Stage
from bns.etcd.embedded import free_port


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs. `threads` of it answer."""

    label: str
    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class Peer:
    """How to run one: `command` makes its files in a directory and gives its command line."""

    label: str
    program: str
    command: Callable[[Path, int], Sequence[str]]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        return _found(self.program) is not None

    def start(self, stage: Stage) -> Server:
        """Raises BenchError when the program is not there."""
        program = _found(self.program)
        if program is None:
            raise BenchError(f"{self.program} is not installed")
        port = free_port()
        directory = stage.directory / self.label.replace(" ", "-")
        directory.mkdir()
        return Server(self.label, port, stage.program(self.label, [program, *self.command(directory, port)]))


def _found(program: str) -> str | None:
    return shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")


def ours(stage: Stage, label: str, threads: int, *flags: str) -> Server:
    """`gslb dns` from a file, without a control plane; without a rate limit unless `flags` say one."""
    port = free_port()
    config = stage.directory / "config.yaml"
    if not config.exists():
        world.write_config(config)
    arguments = ["gslb", "dns", "--listen", f"127.0.0.1:{port}", "--config", str(config)]
    return Server(
        label,
        port,
        stage.python(label, *arguments, "--threads", str(threads), "--processes", "1", *(flags or ("--rrl-rate", "0"))),
    )


def compiled(stage: Stage, name: str) -> Path:
    """A C program of this directory. Raises BenchError without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchError("there is no C compiler (cc)")
    made = stage.directory / f"bench-{name}"
    stage.run([compiler, "-O2", "-o", str(made), str(Path(__file__).parent / f"{name}.c")])
    return made


def echo(stage: Stage) -> Server:
    """Every datagram back as it came: what the kernel allows."""
    port = free_port()
    return Server("echo", port, stage.program("echo", [str(compiled(stage, "echo")), str(port)]))


def _gdnsd(directory: Path, port: int) -> Sequence[str]:
    zones = directory / "zones"
    zones.mkdir()
    order = list(world.PLACES)
    nets = "\n".join(
        f"      {network} => [{', '.join([name, *(other for other in order if other != name)])}]"
        for name, (_, network, _) in world.PLACES.items()
    )
    addresses = "\n".join(f"      {name} => {address}" for name, (address, _, _) in world.PLACES.items())
    (directory / "config").write_text(
        f"""options => {{
  listen => 127.0.0.1
  dns_port => {port}
  udp_threads => 1
  tcp_threads => 1
  run_dir => {directory}/run
  state_dir => {directory}/state
}}
plugins => {{ geoip => {{
  maps => {{ world => {{
    datacenters => [{", ".join(order)}]
    nets => {{
{nets}
    }}
  }} }}
  resources => {{ www => {{
    map => world
    service_types => up
    dcmap => {{
{addresses}
    }}
  }} }}
}} }}
"""
    )
    records = "".join(f"{name.partition('.')[0]} DYNA geoip!www\n" for name in world.names())
    soa = "@ SOA ns1 hostmaster 1 3600 600 604800 60\n@ NS ns1\nns1 A 127.0.0.1\n"
    (zones / world.ZONE).write_text(f"$TTL {world.TTL_S}\n{soa}{records}")
    return ["-c", str(directory), "start"]


def _zone_text(records: str) -> str:
    soa = f"@ IN SOA ns1.{world.ZONE}. hostmaster.{world.ZONE}. 1 3600 600 604800 60\n"
    return f"$ORIGIN {world.ZONE}.\n$TTL {world.TTL_S}\n{soa}@ IN NS ns1\nns1 IN A 127.0.0.1\n{records}"


def _records(address: str) -> str:
    return "".join(f"{name.partition('.')[0]} IN A {address}\n" for name in world.names())


def _knot(directory: Path, port: int) -> Sequence[str]:
    """mod-geoip in the mode of subnets."""
    (directory / "zone").write_text(_zone_text(""))
    lines = []
    for name in world.names():
        lines.append(f"{name}:\n")
        lines += [f"  - net: {network}\n    A: {address}\n" for address, network, _ in world.PLACES.values()]
    (directory / "geo.conf").write_text("".join(lines))
    (directory / "knot.conf").write_text(
        f"""server:
    rundir: {directory}
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    edns-client-subnet: on
database:
    storage: {directory}
mod-geoip:
  - id: world
    config-file: {directory}/geo.conf
    ttl: {world.TTL_S}
    mode: subnet
template:
  - id: default
    storage: {directory}
    module: mod-geoip/world
zone:
  - domain: {world.ZONE}
    file: zone
"""
    )
    return ["-c", str(directory / "knot.conf")]


def _powerdns(directory: Path, port: int) -> Sequence[str]:
    """The geoip backend, whose expressions choose by country or network; without a database every client is unknown."""
    records = "\n".join(f"    {name}:\n      - a: {world.PLACES['europe-west1'].address}" for name in world.names())
    (directory / "geo.yaml").write_text(
        f"""domains:
- domain: {world.ZONE}
  ttl: {world.TTL_S}
  records:
    {world.ZONE}:
      - soa: ns1.{world.ZONE} hostmaster.{world.ZONE} 1 3600 600 604800 60
      - ns: ns1.{world.ZONE}
{records}
  services: {{}}
"""
    )
    return [
        f"--config-dir={directory}",
        "--launch=geoip",
        f"--geoip-zones-file={directory}/geo.yaml",
        "--geoip-database-files=",
        "--local-address=127.0.0.1",
        f"--local-port={port}",
        f"--socket-dir={directory}",
        "--receiver-threads=1",
        "--distributor-threads=1",
        "--reuseport=no",
        "--edns-subnet-processing=yes",
        "--guardian=no",
        "--daemon=no",
        "--loglevel=3",
    ]


def _bind(directory: Path, port: int) -> Sequence[str]:
    """A view for each network."""
    views = []
    for name, (address, network, _) in world.PLACES.items():
        (directory / f"{name}.zone").write_text(_zone_text(_records(address)))
        zone = f'zone "{world.ZONE}" {{ type primary; file "{directory}/{name}.zone"; }};'
        views.append(f'view "{name}" {{ match-clients {{ {network}; }}; {zone} }};\n')
    (directory / "named.conf").write_text(
        f"""options {{
  directory "{directory}"; pid-file "{directory}/pid"; session-keyfile "{directory}/key"; lock-file none;
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  recursion no; minimal-responses yes; dnssec-validation no;
}};
controls {{ }};
{"".join(views)}"""
    )
    return ["-g", "-n", "1", "-c", str(directory / "named.conf")]


def _nsd(directory: Path, port: int) -> Sequence[str]:
    """No geography: the same records for everybody, as a mark."""
    (directory / "zone").write_text(_zone_text(_records(world.PLACES["europe-west1"].address)))
    (directory / "nsd.conf").write_text(
        f"""server:
    ip-address: 127.0.0.1@{port}
    server-count: 1
    username: ""
    chroot: ""
    zonesdir: "{directory}"
    database: ""
    pidfile: "{directory}/pid"
    xfrdfile: "{directory}/xfrd"
    zonelistfile: "{directory}/zonelist"
    rrl-ratelimit: 0
remote-control:
    control-enable: no
zone:
    name: {world.ZONE}
    zonefile: zone
"""
    )
    return ["-d", "-c", str(directory / "nsd.conf")]


PEERS: Sequence[Peer] = (
    Peer("gdnsd geoip", "gdnsd", _gdnsd),
    Peer("knot mod-geoip", "knotd", _knot),
    Peer("pdns geoip", "pdns_server", _powerdns),
    Peer("bind9 views", "named", _bind),
    Peer("nsd static", "nsd", _nsd),
)

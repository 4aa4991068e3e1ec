"""Bad input: each kind gets one clear line with the value and what to do, and changes nothing."""

import asyncio
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
import yaml

from bns.etcd.client import Client
from bns.etcd.embedded import free_port
from bns.spawn import dies_with_us
from gslb.v1 import admin_pb2, config_pb2
from tests.support.cli import Planet, Ran, busy_port, end, gslb_in_child, in_child, until
from tests.support.control import ReplicaProcess

pytestmark = pytest.mark.xdist_group("cli")

SERVICE = """kind: Service
name: mail
spec:
  backends:
    - {job: /bns/us-east1/post/mail, task_capacity_rps: 10}
"""
DRAIN = """kind: Drain
name: old
spec:
  scope: datacenter
  target: europe-west1
  reason: long ago
  starts_at: 2020-01-01T00:00:00Z
  expires_at: 2020-01-01T01:00:00Z
"""
# What is given -> what is said, after `Error: `; FILE:LINE where a line is to blame.
UNKNOWN_FIELD = SERVICE.replace("spec:\n", "spec:\n  ttl: 3\n")
NO_CAPACITY = "stdin:5: spec.backends[0].task_capacity_rps: {} is out of range: give what one healthy task can serve"
FILES = {
    "malformed YAML": ("kind: Service\nname: [mail\n", "stdin:3: not YAML: "),
    "not a mapping": ("- a\n- b\n", "stdin:1: a document must be a mapping: begin with `kind:`, `name:` and `spec:`"),
    "nothing at all": ("---\n", "stdin:1: there is nothing in it: write documents of kind Datacenter"),
    "an unknown kind": ("kind: Servce\nname: x\n", "stdin:1: there is no kind 'Servce': did you mean 'Service'?"),
    "an unknown field": (UNKNOWN_FIELD, "stdin:4: spec.ttl: no such field: did you mean 'ttl_s'?"),
    "an unknown field of a backend": (
        SERVICE.replace("rps: 10", "rps: 10, port: 8"),
        "spec.backends[0].port: no such field: known are job, task_capacity_rps, mode",
    ),
    "a bad name": (
        SERVICE.replace("name: mail", "name: Mail_Server"),
        "stdin:2: name: 'Mail_Server' is not a DNS label: use ",
    ),
    "a bad job": (SERVICE.replace("/bns/us-east1/post/mail", "/bns/us-east1/mail"), "stdin:5: spec.backends[0].job: "),
    "a name given twice": (f"{SERVICE}---\n{SERVICE}", "stdin:7: Service 'mail' stands at line 1 already: keep one"),
    "a job given twice": (
        SERVICE + "    - {job: /bns/us-east1/post/mail, task_capacity_rps: 10}\n",
        "stdin:6: spec.backends[1].job: '/bns/us-east1/post/mail' is listed twice: keep one",
    ),
    "a job of another service": (
        SERVICE.replace("post/mail", "shop/api"),
        "service mail: job '/bns/us-east1/shop/api' serves 'api' already",
    ),
    "no capacity": (SERVICE.replace("rps: 10", "rps: 0"), NO_CAPACITY.format(0)),
    "negative capacity": (SERVICE.replace("rps: 10", "rps: -3"), NO_CAPACITY.format(-3)),
    "capacity that is no number": (SERVICE.replace("rps: 10", "rps: .nan"), NO_CAPACITY.format("nan")),
    "an unknown datacenter": (
        SERVICE.replace("us-east1", "mars"),
        "service mail: job '/bns/mars/post/mail' is in datacenter 'mars', which is not known: apply a Datacenter of that name",
    ),
    "an expired drain": (DRAIN, "drain old: expires_at 2020-01-01T01:00:00+00:00 is over: give a later one"),
    "a drain that ends before it begins": (
        DRAIN.replace("2020-01-01T01", "2019-01-01T01"),
        "stdin:8: spec.expires_at: 2019-01-01T01:00:00+00:00 is not after starts_at 2020-01-01T00:00:00+00:00",
    ),
    "a drain without an end": (DRAIN.rsplit("\n", 2)[0] + "\n", "spec.expires_at: missing: give when it ends, in UTC"),
    "a drain of what is not there": (
        DRAIN.replace("europe-west1", "mars").replace("2020", "2090"),
        "there is no datacenter 'mars'",
    ),
    "coordinates beyond the globe": (
        "{kind: Datacenter, name: x, spec: {region: r, latitude: 91, longitude: 0}}",
        "stdin:1: spec.latitude: 91 is out of range: give the latitude in degrees",
    ),
    "a locality's name twice": (
        "{kind: ClientArea, name: us-east1, spec: {latitude: 0, longitude: 0}}",
        "area us-east1: a datacenter has the same name",
    ),
    "a network that is none": (
        "{kind: ClientArea, name: a, spec: {latitude: 0, longitude: 0, cidrs: [198.51.100.7/24]}}",
        "stdin:1: spec.cidrs[0]: '198.51.100.7/24' has bits set beyond its prefix: write 198.51.100.0/24",
    ),
    "somebody else's service": (
        SERVICE.replace("name: mail", "name: web\nowner: thief"),
        "service 'web' belongs to owner 'shop', not to 'thief': ask that owner, or give it another name",
    ),
}


def error_line(ran: Ran) -> str:
    """The one line that says what is wrong."""
    lines = ran.err.splitlines()
    assert lines[-1].startswith("Error: "), ran
    assert len([line for line in lines if not line.startswith(("Usage:", "Try ")) and line]) == 1, ran
    return lines[-1].removeprefix("Error: ")


@pytest.mark.parametrize("what", FILES)
def test_a_bad_file_changes_nothing(planet: Planet, what: str) -> None:
    text, message = FILES[what]
    before = planet.export()
    for command in (("apply",), ("apply", "--dry-run"), ("import",)):
        if what == "an expired drain" and command == ("import",):
            continue  # an old export has such, and they are left out
        ran = planet.gslb(*command, "-f", "-", text=text)
        assert (ran.code, ran.out) == (1, ""), (command, ran)
        assert message in error_line(ran), command
    assert planet.export() == before


def test_every_mistake_in_a_file_is_told_at_once(planet: Planet) -> None:
    ran = planet.apply(UNKNOWN_FIELD.replace("name: mail", "name: M").replace("rps: 10", "rps: 0"))
    assert ran.code == 1
    assert [line.split(":")[1] for line in ran.err.removeprefix("Error: ").splitlines()] == ["2", "4", "6"]


def test_files_that_cannot_be_read(planet: Planet) -> None:
    ran = planet.gslb("apply", "-f", "/no/such.yaml")
    assert (ran.code, error_line(ran)) == (
        1,
        "/no/such.yaml: No such file or directory: name a file, a directory, or - for stdin",
    )
    path = planet.directory / "latin1.yaml"
    path.write_bytes(b"kind: Datacenter\nname: caf\xe9\n")
    assert error_line(planet.gslb("apply", "-f", str(path))) == f"{path}:2: not UTF-8 text: save the file as UTF-8"


# What is said over gRPC by whoever does not use our command.


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("bad label", ["Bad_Name", "is not a DNS label"]),
        ("bad capacity", ["task_capacity_rps", "-1", "out of range"]),
        ("bad datacenter", ["mars", "not known"]),
    ],
)
def test_the_admin_api_checks_again(planet: Planet, text: str, fragments: list[str]) -> None:
    resource = config_pb2.Resource(service=config_pb2.Service())
    resource.meta.name = "Bad_Name" if text == "bad label" else "raw"
    resource.service.backends.add(
        job=f"/bns/{'mars' if text == 'bad datacenter' else 'us-east1'}/x/raw",
        task_capacity_rps=-1 if text == "bad capacity" else 1,
    )
    before = planet.export()
    with planet.admin() as admin, pytest.raises(grpc.RpcError) as raised:
        admin.Apply(admin_pb2.ApplyRequest(resources=[resource]), timeout=10)
    wanted = grpc.StatusCode.FAILED_PRECONDITION if text == "bad datacenter" else grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.code() is wanted
    assert all(fragment in raised.value.details() for fragment in fragments)
    assert planet.export() == before


# Names


def bns(planet: Planet, *arguments: str, **env: str) -> Ran:
    return in_child(sys.executable, "-m", "bns", *arguments, env={**planet.env, "BNS_AGENT": "", **env})


def owner(planet: Planet, name: str) -> str:
    (row,) = planet.gslb("get", "tasks", name, "-o", "wide").ok().table()
    return row[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("/bns/us-east1/shop/web", "127.0.0.1:1"), 2, "'/bns/us-east1/shop/web'"),
        (("/bns/us-east1/shop/We_b/0", "127.0.0.1:1"), 2, "'We_b'"),
        (("/bns/us-east1/shop/new/0", "127.0.0.1"), 2, "address '127.0.0.1': write it as HOST:PORT"),
        (("/bns/us-east1/shop/new/0", "127.0.0.1:70000"), 2, "127.0.0.1:70000"),
        (("/bns/us-east1/shop/new/0", "host.example:80"), 2, "host.example"),
        (("/bns/us-east1/shop/web/0", "127.0.0.1:1"), 1, "/bns/us-east1/shop/web/0"),
    ],
)
def test_a_registration_that_is_refused(planet: Planet, arguments: tuple[str, ...], code: int, message: str) -> None:
    before = bns(planet, "ls").ok().out
    marker = planet.directory / "command-ran"
    ran = bns(planet, "register", *arguments, "--", "touch", str(marker))
    assert (ran.code, ran.out) == (code, ""), ran
    assert message in error_line(ran)
    assert not marker.exists()
    agents = [row[0] for row in planet.gslb("get", "agents").ok().table()]
    assert agents == ["agent-europe-west1", "agent-us-east1"]  # no session is left of the one who was refused
    assert bns(planet, "ls").ok().out == before


def test_a_task_of_two_agents_stays_with_the_first(planet: Planet) -> None:
    name = "/bns/us-east1/shop/web/0"
    assert owner(planet, name) == "agent-us-east1"
    # Asked directly: the refusal names the task and who has it.
    ran = bns(planet, "register", name, "127.0.0.1:1", "--", "true")
    assert ran.code == 1
    assert "agent-us-east1" in error_line(ran)
    # Another node agent with the task in its file: it says so, and looks after the others.
    tasks = [{"name": task, "address": "127.0.0.1", "port": 9} for task in (name, "/bns/us-east1/shop/second/0")]
    config = planet.file(yaml.safe_dump({"tasks": tasks}), "second.yaml")
    log = planet.directory / "second.log"
    command = [
        *(sys.executable, "-m", "gslb", "agent", "--name", "second", "--datacenter", "us-east1", "--config", config),
        *("--control", planet.control, "--socket", str(planet.directory / "second.sock"), "--machine-id", "second"),
    ]
    with log.open("wb") as file:
        child = subprocess.Popen(dies_with_us(command), stdout=file, stderr=file)
    try:
        until(lambda: name in log.read_text() and "agent-us-east1" in log.read_text(), "the second agent is refused")
        until(lambda: "/bns/us-east1/shop/second/0" in planet.gslb("get", "tasks").out, "its other task is registered")
        assert owner(planet, name) == "agent-us-east1"
    finally:
        end(child)
    until(lambda: "/bns/us-east1/shop/second/0" not in planet.gslb("get", "tasks").out, "it has deregistered")


def test_an_agents_file_with_every_mistake(planet: Planet) -> None:
    path = planet.file(
        "tasks:\n"
        "- {name: /bns/us-east1/x/y/0, address: 127.0.0.1, port: 1}\n"
        "- {name: /bns/us-east1/x/y/0, address: 127.0.0.1, port: 1}\n"
        "- {name: /bns/mars/x/y/0, address: 127.0.0.1, port: 1}\n"
        "- {name: /bns/us-east1/x/y/1, adress: 127.0.0.1, port: 0}\n"
        "- {name: /bns/us-east1/x/y/2, address: 127.0.0.1, port: 1, cpu_cores: -1}\n",
        "mistakes.yaml",
    )
    flags = ("--name", "a", "--datacenter", "us-east1", "--control", planet.control, "--socket", "x.sock")
    for more in ((), ("--check-config",)):
        ran = gslb_in_child("agent", *flags, "--config", path, *more)
        assert (ran.code, ran.out) == (1, "")
        for line, message in (
            (3, "task /bns/us-east1/x/y/0 is already at line 2"),
            (4, "task /bns/mars/x/y/0 is of datacenter 'mars'; this agent serves 'us-east1'"),
            (5, "unknown field 'adress' in the task: did you mean 'address'?"),
            (5, "port 0 is not from 1 to 65535"),
            (6, "cpu_cores -1 is not above 0"),
        ):
            assert f"{path}:{line}: {message}" in ran.err


# etcd and ports


def test_an_etcd_that_is_not_there(planet: Planet, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    replica = ReplicaProcess("lonely", nowhere, tmp_path).start()
    try:
        env = {"GSLB_CONTROL": replica.address}
        until(lambda: "etcd" in gslb_in_child("check", env=env).out, "it answers")
        check = gslb_in_child("check", env=env)
        assert f"etcd does not answer at {nowhere}" in check.out
        assert "it has never answered" in check.out
        ran = gslb_in_child("apply", "-f", "-", env=env, text=SERVICE)
        assert (ran.code, ran.out) == (1, "")
        assert f"etcd does not answer, so nothing was changed: etcd does not answer at {nowhere}" in error_line(ran)
        assert f"etcd at {nowhere} has not answered yet" in replica.words()
        assert replica.process.poll() is None  # it is waited for
    finally:
        assert replica.stop() == 0
    ran = bns(planet, "elect", "x", "--etcd", nowhere, "--", "true")
    assert (ran.code, ran.out) == (1, "")
    assert f"etcd at {nowhere} cannot be used: " in error_line(ran)
    assert "is it running, and is --etcd right?" in ran.err


SERVE = ("serve", "--etcd", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
DNS = ("dns", "--control", "127.0.0.1:1", "--listen", "127.0.0.1:0")
AGENT = ("agent", "--name", "a", "--datacenter", "us-east1", "--control", "127.0.0.1:1", "--socket", "{dir}/a.sock")


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (SERVE, "--listen"),
        (SERVE, "--http"),
        (("dns", "--control", "127.0.0.1:1"), "--listen"),
        (DNS, "--grpc"),
        (DNS, "--http"),
        (AGENT, "--http"),
    ],
)
def test_a_port_in_use(command: tuple[str, ...], flag: str, tmp_path: Path) -> None:
    taken, address = busy_port()
    with taken:
        arguments = [part.format(dir=tmp_path) for part in command]
        ran = gslb_in_child(*arguments, flag, address)
    assert (ran.code, ran.out) == (1, ""), ran
    line = error_line(ran)
    assert f"'{address}'" in line
    assert "Address already in use; choose another" in line


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ((*SERVE, "--listen", "0.0.0.0:0"), 1, "will not listen on '0.0.0.0:0': it is off loopback, which needs TLS"),
        ((*SERVE, "--listen", "nonsense"), 1, "address 'nonsense': write it as HOST:PORT"),
        ((*SERVE, "--etcd", "nonsense"), 2, "address 'nonsense': write it as HOST:PORT"),
        ((*SERVE, "--role", "king"), 2, "'king': give cell"),
        ((*SERVE, "--tls-cert", "a.pem"), 2, "give both --tls-cert and --tls-key, or neither"),
        ((*DNS, "--listen", "127.0.0.1"), 1, "'127.0.0.1'"),
        ((*AGENT, "--name", "A_"), 2, "--name 'A_' is not a DNS label"),
        ((*AGENT, "--period", "60"), 2, "60"),
        ((*AGENT, "--config", "/no/such.yaml"), 1, "/no/such.yaml: cannot be read: No such file or directory"),
        ((*AGENT[:-1], "/no/such/dir/a.sock"), 1, "'/no/such/dir' is no directory: make it, or name another path"),
    ],
)  # fmt: skip
def test_flags_that_make_no_sense(command: tuple[str, ...], code: int, message: str, tmp_path: Path) -> None:
    ran = gslb_in_child(*[part.format(dir=tmp_path) for part in command])
    assert (ran.code, ran.out) == (code, ""), ran
    assert message in error_line(ran)


# Records in etcd


def test_bad_records_are_quarantined_and_shown_and_the_rest_goes_on(planet: Planet) -> None:
    keys = {
        b"/gslb/config/service/shop/broken": b"\xff\xffnot a protobuf",
        b"/gslb/config/nonsense": b"x",
        b"/bns/us-east1/shop/web/9": b"\xff\xffnot a protobuf",
    }

    async def put() -> None:
        async with Client([planet.etcd.address]) as etcd:
            for key, value in keys.items():
                await etcd.put(key, value)

    async def remove() -> None:
        async with Client([planet.etcd.address]) as etcd:
            for key in keys:
                await etcd.delete(key)

    before = planet.export()
    asyncio.run(put())
    try:
        until(lambda: planet.gslb("check").code == 1, "check sees them")
        until(lambda: all(key.decode() in planet.gslb("check").out for key in keys), "each is shown")
        errors = [line for line in planet.gslb("check").out.splitlines() if line.startswith("error")]
        assert len(errors) == len(keys), errors
        assert all("quarantined" in line for line in errors)
        # The rest goes on: reading, planning, changing.
        assert planet.export() == before
        planet.apply(SERVICE).ok()
        planet.gslb("drain", "datacenter", "europe-west1", "--reason", "x", "--dry-run").ok()
        assert [row[0] for row in planet.gslb("top").ok().table()] == ["api", "mail", "web", "web"]
        planet.gslb("delete", "service", "mail").ok()
    finally:
        asyncio.run(remove())
    until(lambda: planet.gslb("check").code == 0, "all is well again")

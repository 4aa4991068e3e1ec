"""`gslb apply`, `delete`, `drain` and `undrain` on a real planet: what they change, and what they refuse."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.cli import Planet, gslb_in_child, until

pytestmark = pytest.mark.xdist_group("cli")

ASIA = """---
kind: Datacenter
name: asia-east1
spec: {region: asia, latitude: 24.1, longitude: 120.5}
"""


def zone(name: str, ttl_s: int) -> str:
    """Something that no plan hangs on, of a name that no other test uses: generations go on over deletions."""
    return f"""---
kind: Zone
name: {name}
spec:
  records: |
    @ {ttl_s} IN SOA ns1.example. admin.example. 1 3600 600 86400 60
    @ {ttl_s} IN NS ns1.example.
"""


def service(name: str, datacenter: str) -> str:
    """Of the name "mail" in all these modules: when most services vanish in half a minute, plans are held."""
    return f"""---
kind: Service
name: {name}
spec:
  backends:
    - {{job: /bns/{datacenter}/x/{name}, task_capacity_rps: 10}}
"""


def actions(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()[1:]]


# Apply and delete


def test_apply_says_what_it_did(planet: Planet) -> None:
    assert actions(planet.apply(zone("lakes", 10)).ok().out) == [["zone", "lakes", "created", "1"]]
    assert actions(planet.apply(zone("lakes", 10)).ok().out) == [["zone", "lakes", "unchanged", "1"]]
    assert actions(planet.apply(zone("lakes", 12)).ok().out) == [["zone", "lakes", "changed", "2"]]
    assert [row[:3] for row in actions(planet.apply(zone("lakes", 12) + ASIA).ok().out)] == [
        ["zone", "lakes", "unchanged"],
        ["datacenter", "asia-east1", "created"],
    ]
    rows = json.loads(planet.apply(zone("lakes", 13), "-o", "json").ok().out)
    assert rows == [{"kind": "zone", "name": "lakes", "action": "changed", "generation": 3}]


def test_a_name_that_was_deleted_goes_on_counting(planet: Planet) -> None:
    planet.apply(zone("again", 1)).ok()
    deleted = planet.gslb("delete", "zone", "again").ok()
    assert (deleted.out, deleted.err) == ("", "zone again deleted\n")
    _, _, action, generation = actions(planet.apply(zone("again", 1)).ok().out)[0]
    assert action == "created"
    assert int(generation) >= 3  # its deletion was a change too


def test_apply_changes_all_or_nothing(planet: Planet) -> None:
    before = planet.export()
    ran = planet.apply(zone("whole", 10) + service("lost", "mars"))
    assert (ran.code, ran.out) == (1, "")
    assert "mars" in ran.err
    assert planet.export() == before


def test_dry_run_checks_and_changes_nothing(planet: Planet) -> None:
    before = planet.export()
    ran = planet.apply(zone("dry", 10), "--dry-run").ok()
    assert actions(ran.out) == [["zone", "dry", "created", "1"]]
    assert ran.err == "dry run: nothing was changed\n"
    assert planet.export() == before
    assert planet.apply(service("dry", "mars"), "--dry-run").code == 1


def test_apply_reads_files_directories_and_stdin(planet: Planet) -> None:
    directory = planet.directory / "config"
    directory.mkdir()
    (directory / "b.yaml").write_text(zone("files", 10))
    (directory / "a.yaml").write_text(ASIA)
    (directory / "notes.txt").write_text("not YAML: [")
    assert [row[1] for row in actions(planet.gslb("apply", "-f", str(directory)).ok().out)] == ["asia-east1", "files"]
    ran = planet.gslb("apply", "-f", str(directory / "a.yaml"), "-f", "-", text=zone("files", 11)).ok()
    assert [row[1:3] for row in actions(ran.out)] == [["asia-east1", "unchanged"], ["files", "changed"]]
    in_child = gslb_in_child("apply", "-f", "-", env=planet.env, text=zone("files", 12))
    assert actions(in_child.ok().out) == [["zone", "files", "changed", actions(in_child.out)[0][3]]]
    empty = planet.directory / "empty"
    empty.mkdir()
    ran = planet.gslb("apply", "-f", str(empty))
    assert (ran.code, ran.out) == (1, "")
    assert str(empty) in ran.err
    assert "nothing was changed" in ran.err


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("datacenter", "us-east1", "datacenter 'us-east1' is in use: 4 tasks are registered under /bns/us-east1/"),
        ("service", "nope", "there is no service 'nope'"),
    ],
)
def test_delete_refuses_what_is_in_use_or_not_there(planet: Planet, kind: str, name: str, message: str) -> None:
    before = planet.export()
    ran = planet.gslb("delete", kind, name)
    assert (ran.code, ran.out) == (1, "")
    assert message in ran.err
    assert planet.export() == before


def test_a_datacenter_that_a_service_names_stays(planet: Planet) -> None:
    planet.apply(ASIA + service("mail", "asia-east1")).ok()
    ran = planet.gslb("delete", "datacenter", "asia-east1")
    assert ran.code == 1
    assert "service mail: job '/bns/asia-east1/x/mail' is in datacenter 'asia-east1'" in ran.err
    planet.gslb("delete", "service", "mail").ok()
    planet.gslb("delete", "dc", "asia-east1").ok()
    assert "asia-east1" not in planet.gslb("get", "datacenters").ok().out


# Drains


def drained(planet: Planet) -> list[str]:
    return [row[0] for row in planet.gslb("get", "drains").ok().table()]


def test_a_drain_moves_the_plan_and_undrain_moves_it_back(planet: Planet) -> None:
    ran = planet.gslb("drain", "datacenter", "europe-west1", "--for", "2h", "--reason", "network work").ok()
    assert [row[:2] for row in ran.table()] == [["web", "europe-west1"], ["web", "us-east1"]]
    assert "europe-west1 is drained until " in ran.err
    assert "to end it earlier: gslb undrain datacenter europe-west1" in ran.err
    row = planet.gslb("get", "drains").ok().table()[0]
    assert row[:3] == ["datacenter-europe-west1", "datacenter", "europe-west1"]
    assert row[4:] == ["network", "work", "ann"]

    def shares(locality: str) -> dict[str, float]:
        rows = json.loads(planet.gslb("get", "plans", "web", "-o", "json").ok().out)
        return next(row["shares"] for row in rows if row["locality"] == locality)

    until(lambda: shares("europe-west1") == {"us-east1": 1.0}, "everything goes to us-east1")
    top = json.loads(planet.gslb("top", "web", "-o", "json").ok().out)
    assert [one["drain"] for one in top] == ["", "datacenter-europe-west1"]
    # What is drained is said to drain, to whoever resolves it.
    health = {row[0]: row[2] for row in planet.gslb("get", "tasks", "/bns/europe-west1").ok().table()}
    assert set(health.values()) == {"DRAINING"}
    ended = planet.gslb("undrain", "datacenter", "europe-west1").ok()
    assert (ended.out, ended.err) == ("", "drain datacenter-europe-west1 ended\n")
    until(lambda: "europe-west1" in shares("europe-west1"), "europe-west1 serves again")
    assert drained(planet) == []
    planet.settle()


def test_dry_run_shows_the_load_after_it(planet: Planet) -> None:
    arguments = ("drain", "datacenter", "europe-west1", "--reason", "x", "--dry-run")
    ran = planet.gslb(*arguments).ok()
    assert ran.err == "dry run: nothing was drained\n"
    assert "50%" in ran.out.replace(" ", "")  # of us-east1's capacity
    rows = {row["datacenter"]: row for row in json.loads(planet.gslb(*arguments, "-o", "json").ok().out)}
    assert rows["europe-west1"]["capacity_after_rps"] == 0.0
    assert rows["europe-west1"]["load_after_rps"] == pytest.approx(0.0, abs=0.1)
    assert rows["us-east1"]["load_after_rps"] == pytest.approx(100.0, rel=0.1)
    assert drained(planet) == []


def test_a_drain_is_refused_with_rule_and_numbers(planet: Planet) -> None:
    before = planet.export()
    task = ("drain", "task", "/bns/us-east1/shop/api/0", "--reason", "slow disk")
    ran = planet.gslb(*task)
    assert (ran.code, ran.out) == (1, "")
    assert "draining task /bns/us-east1/shop/api/0 is refused; with --override it is done all the same" in ran.err
    assert "rps > 28.5 rps that remain (60 - 30 drained, 5 % headroom)" in ran.err
    ran = planet.gslb("drain", "datacenter", "us-east1", "--reason", "power")
    assert ran.code == 1
    assert "service api: no task would remain (2 registered, all drained)" in ran.err
    ran = planet.gslb(*task, "--dry-run").ok()
    assert "would be refused: service api: demand" in ran.err
    assert planet.export() == before

    ran = planet.gslb(*task, "--override").ok()
    assert "overridden: service api: demand" in ran.err
    drain = json.loads(planet.gslb("get", "drains", "-o", "json").ok().out)[0]
    assert (drain["spec"]["overridden"], drain["spec"]["reason"]) == (True, "slow disk")
    assert "overrides the capacity rule" in planet.gslb("check").out


@pytest.mark.parametrize(
    ("scope", "target"),
    [
        ("service", "web@europe-west1"),
        ("job", "/bns/europe-west1/shop/web"),
        ("task", "/bns/us-east1/shop/web/1"),
        ("region", "eu"),
        ("machine", "machine-europe-west1"),
    ],
)
def test_every_scope_can_be_drained_and_undrained_by_name(planet: Planet, scope: str, target: str) -> None:
    planet.gslb("drain", scope, target, "--reason", "x", "--for", "90s").ok()
    (name,) = drained(planet)
    assert planet.gslb("undrain", name).ok().err == f"drain {name} ended\n"
    assert drained(planet) == []


@pytest.mark.parametrize(("scope", "target"), [("region", "eu"), ("machine", "machine-europe-west1")])
def test_a_ramped_drain_of_a_wide_scope_takes_its_time_and_then_all(planet: Planet, scope: str, target: str) -> None:
    def capacity() -> float:
        rows = json.loads(planet.gslb("top", "web", "-o", "json").ok().out)
        return next(float(row["capacity_rps"]) for row in rows if row["datacenter"] == "europe-west1")

    def health() -> set[str]:
        return {row[2] for row in planet.gslb("get", "tasks", "/bns/europe-west1").ok().table()}

    whole = 200.0  # two tasks of 100 rps each
    until(lambda: capacity() == whole, "the drains of other tests are over")
    ran = planet.gslb("drain", scope, target, "--over", "15s", "--for", "90s", "--reason", "x").ok()
    assert "its capacity falls little by little until " in ran.err
    assert "DRAINING" not in health()  # while there is something left of it
    until(lambda: capacity() == 0.0, "nothing is left of it")
    until(lambda: health() == {"DRAINING"}, "its tasks are said to drain")
    # Asking for it again, more slowly, gives nothing back.
    planet.gslb("drain", scope, target, "--over", "60s", "--for", "90s", "--reason", "y").ok()
    time.sleep(1.5)
    assert capacity() == 0.0
    planet.gslb("undrain", scope, target).ok()
    until(lambda: capacity() == whole, "all of it is back")
    planet.settle()


@pytest.mark.parametrize(
    ("scope", "target"),
    [
        ("datacenter", "mars"),
        ("region", "oz"),
        ("service", "nope"),
        ("service", "api@europe-west1"),
        ("job", "/bns/us-east1/shop/nope"),
        ("task", "/bns/us-east1/shop/web/7"),
        ("machine", "nope"),
    ],
)
def test_there_is_nothing_of_that_name_to_drain(planet: Planet, scope: str, target: str) -> None:
    ran = planet.gslb("drain", scope, target, "--reason", "x")
    assert (ran.code, ran.out) == (1, "")
    assert f"there is no {scope} {target!r} to drain: `" in ran.err
    ran = planet.gslb("undrain", scope, target)
    assert ran.code == 1
    assert f"there is no drain of {scope} {target!r}; drains now: none" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("datacenter", "europe-west1", "--reason", "x", "--for", "73h"), 1, "give 1 s to 72 h"),
        (("datacenter", "europe-west1", "--reason", "x", "--for", "0.5s"), 1, "a drain of 0.5 s: give 1 s to 72 h"),
        (("datacenter", "europe-west1", "--reason", "x", "--for", "0s"), 2, "'0s' is no time at all"),
        (
            ("datacenter", "europe-west1", "--reason", "x", "--for", "1m", "--over", "2m"),
            1,
            "a ramp of 120 s in a drain",
        ),
        (("datacenter", "europe-west1", "--reason", "x", "--over", "slowly"), 2, "'slowly' is no duration"),
        (("datacenter", "europe-west1", "--reason", "x", "--for", "soon"), 2, "'soon' is no duration"),
        (("datacenter", "europe-west1", "--reason", "  "), 1, "a drain needs a reason"),
        (("datacenter", "europe-west1"), 2, "Missing option '--reason'"),
        (("datacenter", "europe west", "--reason", "x"), 1, "europe west"),
        (("task", "/bns/us-east1/shop/web", "--reason", "x"), 1, "/bns/us-east1/shop/web"),
        (("datacenter", "europe-west1", "--reason", "x" * 501), 1, "at most 500"),
    ],
)
def test_a_drain_that_makes_no_sense(planet: Planet, arguments: tuple[str, ...], code: int, message: str) -> None:
    ran = planet.gslb("drain", *arguments)
    assert (ran.code, ran.out) == (code, ""), ran
    assert message in ran.err
    assert drained(planet) == []


def test_a_drain_ends_by_itself(planet: Planet) -> None:
    planet.gslb("drain", "datacenter", "europe-west1", "--reason", "x", "--for", "2s").ok()
    assert drained(planet) == ["datacenter-europe-west1"]

    def over() -> bool:
        rows = json.loads(planet.gslb("top", "web", "-o", "json").ok().out)
        return [row["drain"] for row in rows] == ["", ""]

    until(over, "the drain is over")


def test_draining_again_moves_the_end(planet: Planet) -> None:
    for hours in (1, 2):
        planet.gslb("drain", "datacenter", "europe-west1", "--reason", f"for {hours}", "--for", f"{hours}h").ok()
    (drain,) = json.loads(planet.gslb("get", "drains", "-o", "json").ok().out)
    ends = datetime.fromisoformat(drain["spec"]["expires_at"])
    assert abs(ends - datetime.now(UTC) - timedelta(hours=2)) < timedelta(minutes=1)
    assert drain["spec"]["reason"] == "for 2"

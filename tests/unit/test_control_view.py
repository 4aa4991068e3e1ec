"""Folding what etcd says: quarantine, tombstones, plans that only advance; and tasks, health and drains into endpoints."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bns.etcd.ops import KeyValue
from bns.model import HealthStatus, Task
from bns.view import BnsView, TaskIndex
from gslb.balancer.coverage import coverage_of
from gslb.control import keys
from gslb.control.fanout.hub import Hub
from gslb.control.ingest.board import HealthBoard
from gslb.control.view.config import Config, ConfigFolder
from gslb.control.view.leaders import LeaderFolder, encode_candidate
from gslb.control.view.plans import PlanFolder
from gslb.control.view.world import World
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Backend, Catalog, Datacenter, Drain, DrainScope, Service, Zone
from gslb.v1 import report_pb2
from gslb.wire.codec import plan_to_bytes, resource_to_bytes

NOW = datetime(2026, 1, 1, tzinfo=UTC)
H, X, D, U = HealthStatus.HEALTHY, HealthStatus.UNHEALTHY, HealthStatus.DRAINING, HealthStatus.UNKNOWN


def dc(name, **meta):
    return Datacenter(Meta(name, **meta), "na", Coordinates(1, 2))


def kv(resource, revision, key=None):
    from gslb.model.resources import kind_of

    key = key or keys.config_key(kind_of(resource), resource.meta)
    return KeyValue(key=key, value=resource_to_bytes(resource), mod_revision=revision)


class TestConfig:
    def test_a_bad_record_leaves_the_last_good_one(self):
        folder = ConfigFolder()
        good = kv(dc("us"), 5)
        folder.snapshot([good, kv(dc("eu"), 6)])
        assert set(folder.seal().catalog.datacenters) == {"us", "eu"}
        folder.put(KeyValue(key=good.key, value=b"\xff", mod_revision=7))
        config = folder.seal()
        assert set(config.catalog.datacenters) == {"us", "eu"}
        assert set(config.quarantined) == {good.key}
        folder.put(kv(dc("us"), 8))
        assert not folder.seal().quarantined

    def test_a_record_under_anothers_key_is_quarantined(self):
        folder = ConfigFolder()
        folder.put(kv(dc("us"), 5, key=b"/gslb/config/datacenter/default/eu"))
        config = folder.seal()
        assert not config.catalog.datacenters
        assert "belongs under" in next(iter(config.quarantined.values()))

    def test_bad_records_at_the_start_do_not_keep_the_rest_out(self):
        folder = ConfigFolder()
        bad = [KeyValue(key=keys.CONFIG + b"x/%d" % n, value=b"\xff" * n, mod_revision=n + 1) for n in range(5)]
        folder.snapshot([*bad, kv(dc("us"), 9)])
        config = folder.seal()
        assert set(config.catalog.datacenters) == {"us"}
        assert len(config.quarantined) == 5
        folder.delete(bad[0].key)
        assert len(folder.seal().quarantined) == 4

    def test_readers_are_told_of_what_was_deleted_last_and_is_not_there_again(self, monkeypatch):
        monkeypatch.setattr("gslb.model.limits.TOMBSTONES_TOLD_MAX", 2)
        folder = ConfigFolder()
        drain = Drain(
            Meta("d", deleted_at=NOW), DrainScope.DATACENTER, "us", "why", "me", NOW, NOW + timedelta(hours=1)
        )
        gone = [kv(dc(name, deleted_at=NOW), revision) for revision, name in enumerate(("a", "b", "c", "us"), 5)]
        other_owner = kv(dc("us", owner="ops"), 20)
        folder.snapshot([*gone, other_owner, kv(Zone(Meta("z"), "@ IN NS ns1"), 21), kv(drain, 22)])
        told = [(one.meta.name, one.meta.deleted_at is None) for one in folder.seal().for_readers()]
        assert told == [("us", True), ("z", True), ("b", False), ("c", False)]

    def test_only_a_tombstone_takes_a_name_away(self):
        folder = ConfigFolder()
        us, eu = kv(dc("us"), 5), kv(dc("eu"), 6)
        folder.snapshot([us, eu])
        folder.delete(us.key)
        folder.put(kv(dc("eu", deleted_at=NOW), 7))
        folder.delete(eu.key)
        config = folder.seal()
        assert set(config.catalog.datacenters) == {"us"}
        assert config.vanished == {us.key}
        assert config.stored[us.key].mod_revision == 0
        folder.put(kv(dc("us"), 9))
        assert not folder.seal().vanished

    def test_an_emptied_etcd_takes_nothing_away(self):
        folder = ConfigFolder()
        folder.snapshot([kv(dc("us"), 5), kv(Zone(Meta("example.com"), "@ 60 IN TXT x"), 6)])
        folder.snapshot([])
        config = folder.seal()
        assert set(config.catalog.datacenters) == {"us"}
        assert set(config.catalog.zones) == {"example.com"}
        assert len(config.vanished) == 2

    def test_of_two_owners_of_one_name_one_is_taken(self):
        folder = ConfigFolder()
        folder.snapshot([kv(dc("us", owner="zoe"), 5), kv(dc("us", owner="adam"), 6)])
        assert folder.seal().catalog.datacenters["us"].meta.owner == "adam"


def plan(version, epoch=1, incarnation=1, share=1.0):
    return Plan("s", Stamp(incarnation, epoch, version), shares={"us": {"us": share, "eu": 1 - share}})


def plan_kv(made, revision):
    return KeyValue(key=keys.plan_key("s"), value=plan_to_bytes(made), mod_revision=revision)


class TestPlans:
    def test_plans_only_advance(self):
        folder = PlanFolder()
        assert folder.put(plan_kv(plan(3), 10)) == "s"
        assert folder.put(plan_kv(plan(2, epoch=1), 11)) == ""
        assert folder.plans["s"].plan.stamp == Stamp(1, 1, 3)
        assert folder.mod_revision("s") == 11, "what the next write has to compare"
        assert folder.put(plan_kv(plan(1, epoch=2), 12)) == "s"
        assert folder.put(plan_kv(plan(1, incarnation=2), 13)) == "s"

    def test_a_damaged_plan_is_quarantined(self):
        folder = PlanFolder()
        folder.put(plan_kv(plan(3), 10))
        broken = bytearray(plan_to_bytes(plan(4)))
        broken[-1] ^= 1
        assert folder.put(KeyValue(key=keys.plan_key("s"), value=bytes(broken), mod_revision=11)) == ""
        assert folder.plans["s"].plan.stamp.version == 3
        assert keys.plan_key("s") in folder.quarantined
        assert folder.put(plan_kv(plan(5), 12)) == "s"
        assert not folder.quarantined

    def test_the_own_write_is_known_before_the_watch_tells(self):
        folder = PlanFolder()
        assert folder.put(plan_kv(plan(3), 10)) == "s"
        assert folder.put(plan_kv(plan(3), 10)) == ""

    def test_an_emptied_etcd_keeps_plans_served(self):
        folder = PlanFolder()
        folder.put(plan_kv(plan(3), 10))
        assert folder.snapshot([]) == set()
        assert folder.plans["s"].plan.stamp.version == 3
        assert folder.mod_revision("s") == 0
        # etcd counts anew, and an older plan in it is not served.
        assert folder.snapshot([plan_kv(plan(2), 1)]) == set()
        assert folder.mod_revision("s") == 1


def test_leaders_and_their_clocks():
    folder = LeaderFolder()
    first = KeyValue(key=keys.LEADERS + b"1", value=encode_candidate("r1", "a:1", 100.0), create_revision=5)
    second = KeyValue(key=keys.LEADERS + b"2", value=encode_candidate("r2", "b:1", 130.0), create_revision=9)
    folder.snapshot([first])
    folder.put(second, utc_s=101.0)
    folder.put(KeyValue(key=keys.LEADERS + b"3", value=b"\xff{", create_revision=11), utc_s=1.0)
    assert folder.leader.address == "a:1"
    assert folder.leader.skew_s is None
    assert folder.candidates[second.key].skew_s == pytest.approx(29.0)
    folder.delete(first.key)
    assert folder.leader.replica == "r2"


class Made:
    """A world over tasks that a test may change."""

    def __init__(self, *names, **spec):
        self.hub = Hub("r")
        self.view = BnsView()
        self.board = HealthBoard(lambda: self.view.tasks)
        self.world = World(self.hub, self.board, lambda: self.view)
        self.service = Service(Meta("s"), (Backend("/bns/us/u/s", 50.0), Backend("/bns/eu/u/s", 100.0)), **spec)
        self.configure(self.service)
        self.seq = 0
        self.register(*names)

    def configure(self, *services, **catalog):
        datacenters = {name: dc(name) for name in ("us", "eu")}
        made = Catalog(datacenters=datacenters, services={one.name: one for one in services}, **catalog)
        self.world.set_config(Config(catalog=made))
        self.world.flush(0.0)

    def register(self, *names, now=0.0, **fields):
        self._change({name: Task(name, "127.0.0.1", 80, agent="m", **fields) for name in names}, now)

    def deregister(self, *names, now=0.0):
        self._change(dict.fromkeys(names), now)

    def _change(self, changes, now):
        self.view = replace(self.view, tasks=self.view.tasks.with_changes(changes))
        self.world.registered(changes)
        self.world.judged(self.board.registered(changes, now))
        self.world.flush(now)

    def report(self, place="us", now=0.0, **health):
        self.seq += 1
        names = [f"/bns/{place}/u/s/{key}" for key in health]
        report = report_pb2.LoadReport(
            agent="m", datacenter=place, boot_id="b", seq=self.seq, period_s=1.0, task=names,
            health=[int(one) for one in health.values()], ok_critical_rps=[7.0] * len(names),
        )  # fmt: skip
        self.world.judged(self.board.fold(report, now))
        return self.world.flush(now)

    @property
    def served(self):
        return {task.rsplit("/", 1)[1]: one.health for task, one in self.hub.record("s").endpoints.items()}


def us(*numbers):
    return [f"/bns/us/u/s/{n}" for n in numbers]


class TestWorld:
    def test_endpoints_follow_registration_and_health(self):
        made = Made(*us("a", "b"))
        assert made.served == {"a": U, "b": U}
        assert made.report(a=H, b=X) == {"s"}
        assert made.served == {"a": H, "b": X}
        assert made.report(a=H, b=X) == frozenset()
        (state, *_) = made.world.states_of("s", 2.0, fresh=True)
        assert (state.health, state.ok_rps, state.report_age_s) == (H, 7.0, 2.0)
        assert made.hub.record("s").endpoints[us("a")[0]].weight == 50.0

    def test_tasks_of_other_jobs_change_nothing(self):
        made = Made(*us("a"))
        before = made.hub.record("s").revision
        made.register("/bns/us/u/other/1", "/bns/mars/u/s/1")
        assert made.hub.record("s").revision == before

    def test_named_ports(self):
        made = Made(port_name="grpc")
        made.register(*us("a"), named_ports={"grpc": 99})
        made.register(*us("b"))
        assert {one.port for one in made.hub.record("s").endpoints.values()} == {99}
        assert made.world.unported() == {"s": tuple(us("b"))}

    @pytest.mark.parametrize(
        ("scope", "target", "drained"),
        [
            (DrainScope.DATACENTER, "us", {"a", "b"}),
            (DrainScope.REGION, "na", {"a", "b", "e"}),
            (DrainScope.SERVICE, "s", {"a", "b", "e"}),
            (DrainScope.SERVICE, "s@eu", {"e"}),
            (DrainScope.SERVICE, "t", set()),
            (DrainScope.JOB, "/bns/us/u/s", {"a", "b"}),
            (DrainScope.TASK, "/bns/us/u/s/a", {"a"}),
        ],
    )
    def test_drains(self, scope, target, drained):
        made = Made(*us("a", "b"), "/bns/eu/u/s/e")
        made.report(a=H, b=H)
        made.report("eu", e=H)
        drain = Drain(Meta("d"), scope, target, "why", "me", NOW, NOW + timedelta(hours=1))
        changed = made.world.set_coverage(coverage_of([drain], made.world.catalog))
        made.world.flush(1.0)
        assert {name for name, health in made.served.items() if health is D} == drained
        if scope is not DrainScope.SERVICE:
            assert {name.rsplit("/", 1)[1] for name in changed} == drained, "BNS's readers are told of the task itself"
            assert made.world.health_of(us("a")[0]) is (D if "a" in drained else H)
        assert made.world.set_coverage(coverage_of([drain], made.world.catalog)) is None
        made.world.set_coverage(coverage_of([], made.world.catalog))
        made.world.flush(2.0)
        assert set(made.served.values()) == {H}

    def test_half_may_go_and_more_is_held_for_a_while(self):
        made = Made(*us(*"abcdefgh"))
        made.deregister(*us(*"abcd"))
        assert set(made.served) == set("efgh")
        assert not made.world.held()
        made.deregister(*us("e"), now=5.0)
        assert set(made.served) == set("efgh"), "five of eight within half a minute"
        assert "removal budget" in made.world.held()["s"]
        made.world.look_at_held()
        made.world.flush(100.0)
        assert set(made.served) == set("fgh"), "a real shrinking goes through in the end"
        assert not made.world.held()

    def test_all_gone_is_never_served(self):
        made = Made(*us("a"))
        made.deregister(*us("a"))
        made.world.look_at_held()
        made.world.flush(10_000.0)
        assert set(made.served) == {"a"}
        made.register(*us("z"), now=10_001.0)
        assert "z" in made.served

    def test_a_job_that_the_owner_took_out_is_not_missing(self):
        made = Made(*us("a"), "/bns/eu/u/s/e")
        made.configure(replace(made.service, backends=made.service.backends[1:]))
        assert set(made.served) == {"e"}
        assert not made.world.held()

    def test_a_deleted_service_goes_and_a_missing_one_stays(self):
        made = Made(*us("a"))
        made.world.set_config(Config(catalog=Catalog()))
        assert made.hub.knows("s")
        tombstone = replace(made.service, meta=Meta("s", deleted_at=NOW))
        folder = ConfigFolder()
        folder.put(kv(tombstone, 5))
        made.world.set_config(folder.seal())
        assert not made.hub.knows("s")
        assert made.world.states_of("s", 0.0) == ()


def test_a_hundred_thousand_tasks_are_cheap_to_hear_of():
    """Reports that say the same cost columns, not tasks: far below a second for 20,000 (the goal for one core)."""
    names = [f"/bns/us/u/s/{n}" for n in range(20_000)]
    view = BnsView(tasks=TaskIndex().with_changes({name: Task(name, "127.0.0.1", 80, agent="m") for name in names}))
    board = HealthBoard(lambda: view.tasks)
    board.registered(names, 0.0)
    report = report_pb2.LoadReport(
        agent="m", datacenter="us", boot_id="b", seq=1, period_s=5.0, task=names, health=[1] * len(names),
        cpu_utilization=[0.5] * len(names), ok_critical_rps=[1.0] * len(names),
    )  # fmt: skip
    assert len(board.fold(report, 0.0)) == len(names)
    report.seq = 2
    started = time.process_time()
    assert board.fold(report, 1.0) == frozenset()
    assert time.process_time() - started < 1.0

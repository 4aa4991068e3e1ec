"""Policies in a channel's core: which rule, who may be picked, what is heard, who is asked for their load."""

import random
from collections import Counter
from dataclasses import dataclass, field

import grpc
import pytest
from typing_extensions import override

from bns.model import HealthStatus
from gslb.model import limits
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.meta import Meta
from gslb.model.plan import Plan, Stamp
from gslb.model.resources import Backend, Catalog, Service
from gslb.rpc.client.api import ChannelOptions, settings_of
from gslb.rpc.client.chooser import KEY_MAX_CHARS, Chooser, affinity_of, report_in
from gslb.rpc.client.core import ServiceCore
from gslb.rpc.client.errors import ConfigurationError
from gslb.rpc.client.explain import explain
from gslb.rpc.client.link import Link, LoadSaid, ProbeDone
from gslb.rpc.client.protection import Outcome
from gslb.rpc.client.settings import Settings
from gslb.rpc.policy.choice import Report
from gslb.rpc.policy.failure import Failure
from gslb.rpc.policy.probing import Probing
from gslb.rpc.policy.report import KEY, encode
from gslb.rpc.policy.rules import NAMES
from gslb.rpc.policy.table import build_table
from gslb.steer.view import ServiceView


@dataclass(slots=True, eq=False)
class TestedLink(Link):
    """A task that is asked for its load on paper."""

    __test__ = False
    asked: list[LoadSaid] = field(default_factory=list)

    @override
    def probe(self, timeout_s: float, done: ProbeDone, *, patient: bool = True) -> None:
        """Nobody answers."""

    @override
    def ask_load(self, timeout_s: float, said: LoadSaid, question: bytes = b"") -> None:
        self.asked.append(said)

    @override
    def shut(self) -> None:
        """Nothing to close."""


class TestedFeed:
    """A control connection whose timers run at once, and on demand."""

    __test__ = False

    def __init__(self) -> None:
        self.timers = self

    def after(self, delay_s, callback) -> bool:
        if delay_s == 0.0:
            callback()
        return True

    def attach(self, core) -> None: ...
    def detach(self, core) -> None: ...

    def describe(self) -> str:
        return "a test"

    def unknown(self, service: str) -> bool:
        return False


def view_of(tasks: dict[str, int], *, critical: bool = False, down: tuple[str, ...] = ()) -> ServiceView:
    """A service with so many tasks by datacenter, its shares even."""
    endpoints = {}
    for place, (datacenter, count) in enumerate(tasks.items()):
        for i in range(count):
            task = f"/bns/{datacenter}/u/j/{i}"
            health = HealthStatus.UNHEALTHY if task in down else HealthStatus.HEALTHY
            endpoints[task] = ServiceEndpoint(task, f"127.{place}.0.{i + 1}", 80, health)
    backends = tuple(Backend(f"/bns/{datacenter}/u/j", 100.0) for datacenter in tasks)
    shares = {"here": {datacenter: 1 / len(tasks) for datacenter in tasks}}
    service = Service(Meta("s"), backends, latency_critical=critical)
    return ServiceView.build("s", service, Plan("s", Stamp(1, 1, 1), shares=shares), endpoints)


def core_of(view: ServiceView, **given) -> ServiceCore[TestedLink]:
    core: ServiceCore[TestedLink] = ServiceCore(
        Settings("s", "here", "test", lambda _method: True, **given), TestedFeed(), TestedLink
    )
    core.on_view(view, Catalog())
    return core


def picked(core: ServiceCore[TestedLink], calls: int, key: str = "") -> Counter[str]:
    """Where calls go that end at once."""
    counts: Counter[str] = Counter()
    for _ in range(calls):
        link = core.begin([], key)
        assert link is not None
        counts[link.endpoint.task] += 1
        core.finish(link, Outcome())
    return counts


# What a channel is asked for


@pytest.mark.parametrize("name", NAMES)
def test_every_policy_may_be_asked_for_by_name(name: str) -> None:
    given = ChannelOptions(policy=name)
    if name == "ring_hash":
        given["affinity"] = "user-id"
    assert settings_of("s", given).policy == name


def test_affinity_alone_means_a_ring() -> None:
    settings = settings_of("s", ChannelOptions(affinity="user-id"))
    assert (settings.policy, settings.affinity) == ("ring_hash", "user-id")
    assert (settings_of("s", {}).policy, settings_of("s", {}).affinity) == ("", "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"policy": "fastest"}, "no policy is called 'fastest'; there are round_robin, least_request"),
        ({"policy": ""}, "no policy is called ''"),
        ({"policy": "ring_hash"}, "give affinity="),
        ({"affinity": "User-Id"}, "'User-Id' is no key of gRPC metadata"),
        ({"affinity": "x" * 65}, "is no key of gRPC metadata"),
        ({"affinity": ""}, "is no key of gRPC metadata"),
        ({"policy": "prequal", "affinity": "user-id"}, "policy prequal knows no affinity"),
    ],
)
def test_what_cannot_be_is_refused(given: ChannelOptions, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_of("s", given)
    assert said in str(caught.value)


# Which policy is in force


def test_the_configuration_decides_where_the_channel_does_not() -> None:
    plain, critical = view_of({"a": 3}), view_of({"a": 3}, critical=True)
    core = core_of(plain)
    assert core.policy() == "least_request"
    picked(core, 5)
    assert core.counts.probes == 0
    core.on_view(critical, Catalog())
    assert core.policy() == "prequal"
    picked(core, 5)
    assert core.counts.probes > 0
    core.on_view(plain, Catalog())
    assert core.policy() == "least_request"
    assert set(picked(core, 50)) == set(plain.endpoints)
    assert core_of(critical, policy="round_robin").policy() == "round_robin"
    assert core_of(critical, policy="least_request").policy() == "least_request"


# Who is picked


@pytest.mark.parametrize("name", NAMES)
def test_every_policy_follows_the_shares_and_the_health_of_tasks(name: str) -> None:
    core = core_of(view_of({"a": 3, "b": 2}), policy=name)
    counts = sum((picked(core, 10, str(i)) for i in range(60)), Counter())
    assert sum(count for task, count in counts.items() if task.startswith("/bns/a/")) == pytest.approx(300, rel=0.35)
    core.on_view(view_of({"a": 3, "b": 2}, down=("/bns/a/u/j/0",)), Catalog())
    assert "/bns/a/u/j/0" not in picked(core, 200)
    link = core.begin([])
    assert link is not None
    core.finish(link, Outcome(Failure.NEVER_SENT))
    assert link.endpoint.task not in picked(core, 200)
    core.on_view(view_of({"b": 2}), Catalog())
    assert set(picked(core, 200)) <= {"/bns/b/u/j/0", "/bns/b/u/j/1"}


@pytest.mark.parametrize("name", NAMES)
def test_a_retry_goes_to_a_task_that_was_not_tried_as_long_as_there_is_one(name: str) -> None:
    core = core_of(view_of({"a": 2, "b": 2}), policy=name)
    for _ in range(50):
        tried: list[TestedLink] = []
        for _ in range(4):
            link = core.begin(tried, "some key")
            assert link is not None
            assert link not in tried
            tried.append(link)
        assert tried[0].endpoint.datacenter == tried[1].endpoint.datacenter != tried[2].endpoint.datacenter
        again = core.begin(tried, "some key")
        assert again in tried
        for each in [*tried, again]:
            core.finish(each, Outcome())


def test_a_key_stays_at_its_task_and_in_its_datacenter_and_only_the_keys_of_a_lost_task_move() -> None:
    view = view_of({"a": 4, "b": 4})
    core = core_of(view, policy="ring_hash", affinity="user-id")
    homes = {key: picked(core, 5, key) for key in map(str, range(200))}
    assert all(len(home) == 1 for home in homes.values())
    # A view that says the same again moves nobody; nor does another client see another ring.
    core.on_view(view, Catalog())
    other = core_of(view, policy="ring_hash", affinity="user-id")
    assert all(picked(core, 1, key).keys() == picked(other, 1, key).keys() == homes[key].keys() for key in homes)
    lost = "/bns/a/u/j/1"
    core.on_view(view_of({"a": 4, "b": 4}, down=(lost,)), Catalog())
    moved = [key for key, home in homes.items() if picked(core, 1, key).keys() != home.keys()]
    assert sorted(moved) == sorted(key for key, home in homes.items() if lost in home)
    assert moved
    assert len(picked(core, 100)) > 4


def test_rules_keep_what_they_know_while_nothing_changes_for_them() -> None:
    view = view_of({"a": 4, "b": 4})
    core = core_of(view, policy="prequal")
    for link in core.links():
        core.hear(link, ((KEY, "rif=1"),))  # not what prequal listens to
    first = core.begin([])
    assert first is not None
    for link in core.links():
        for said in link.asked:
            said(grpc.StatusCode.OK, encode(Report(3, 0.25)).encode())
    known = {link.endpoint.task: dict(core.knows(link)) for link in core.links() if core.knows(link)}
    assert known
    assert all(knows["latency_s"] == 0.25 for knows in known.values())
    core.on_view(view, Catalog())
    assert {link.endpoint.task for link in core.links() if core.knows(link)} == set(known)
    # Gone for a while, back again: forgotten.
    core.on_view(view_of({"c": 1}), Catalog())
    core.on_view(view, Catalog())
    assert not any(core.knows(link) for link in core.links())


# What is heard


def test_reports_are_for_the_rules_that_listen() -> None:
    assert {name for name in NAMES if core_of(view_of({"a": 2}), policy=name).listening} == {
        "weighted_round_robin", "adaptive", "load_interpretation",
    }  # fmt: skip


def test_what_a_task_says_reaches_its_rule_and_what_is_no_report_does_not() -> None:
    core = core_of(view_of({"a": 2, "b": 2}), policy="weighted_round_robin")
    one, two, *_ = core.links()
    core.hear(one, (("other", "1"), (KEY, "rps=100 util=0.5")))
    core.hear(two, ((KEY, "x" * 300), (KEY, "rps=1 util=1")))
    core.hear(two, (("other", "rps=1 util=1"),))
    assert core.knows(one)["weight"] == pytest.approx(200.0)
    assert core.knows(two) == {}
    assert core.counts.reports == 1
    shown = {task["task"]: task["knows"] for task in explain(core)["endpoints"]}
    assert shown[one.endpoint.task]["weight"] == pytest.approx(200.0)
    assert shown[two.endpoint.task] == {}
    assert report_in(((KEY, b"rps=8"),)) == Report(rps=8)


def test_a_liar_does_not_get_more_than_its_weight_may_be() -> None:
    tasks = core_of(view_of({"a": 4}), policy="weighted_round_robin")
    table = build_table(tasks.view(), {link.endpoint.task: link for link in tasks.links()}, "here", Catalog())
    chooser: Chooser[TestedLink] = Chooser("weighted_round_robin")
    chooser.assign(table, {"a"}, 0.0)
    liar, *others = tasks.links()
    for now_s in (0.0, 11.0):
        chooser.reported(liar, Report(rps=1e9, utilization=1e-300), now_s)
        chooser.reported(liar, Report(rps=1e9, utilization=1e-9), now_s)
        for link in others:
            chooser.reported(link, Report(rps=10, utilization=0.5), now_s)
    rng = random.Random(1).random
    counts = Counter(chooser.pick(table, [], "", rng, 11.0).endpoint.task for _ in range(1300))
    assert counts[liar.endpoint.task] == pytest.approx(1000, abs=5)
    assert all(counts[link.endpoint.task] == pytest.approx(100, abs=5) for link in others)


# Whom to ask


def test_probes_follow_picks_and_who_knows_no_such_question_is_asked_ever_more_rarely() -> None:
    core = core_of(view_of({"a": 3}), policy="prequal")
    picked(core, 20)
    # One at a time each, however many picks.
    assert [len(link.asked) for link in core.links()] == [1, 1, 1]
    for link in core.links():
        link.asked[0](grpc.StatusCode.UNIMPLEMENTED, b"")
    picked(core, 20)
    assert [len(link.asked) for link in core.links()] == [1, 1, 1]
    assert (core.counts.probes, core.counts.probes_failed) == (3, 3)
    # Nobody is the worse for it.
    assert not any(link.down or link.burden for link in core.links())


def test_an_answer_that_is_no_report_is_none() -> None:
    core = core_of(view_of({"a": 2}), policy="prequal")
    picked(core, 1)
    asked = [link for link in core.links() if link.asked]
    for link in asked:
        link.asked[0](grpc.StatusCode.OK, b"x" * 4096)
    assert core.counts.probes_failed == len(asked) > 0
    assert not any(core.knows(link) for link in core.links())


def test_a_channel_that_closes_hears_no_more() -> None:
    core = core_of(view_of({"a": 2}), policy="prequal")
    picked(core, 1)
    core.close()
    for link in [*core.links()]:
        for said in link.asked:
            said(grpc.StatusCode.OK, b"rif=1")
    assert core.begin([]) is None
    assert core.pick() is None


@pytest.mark.parametrize("policy", ["prequal", "adaptive"])
def test_tasks_that_cannot_say_how_busy_they_are_get_their_share_beside_those_that_can(policy: str) -> None:
    """As while servers are renewed one after the other: the first two must not get everything."""
    core = core_of(view_of({"a": 10}), policy=policy)
    core._rng = random.Random(1).random
    able = {link.endpoint.task for link in core.links()[:2]}
    counts: Counter[str] = Counter()
    for i in range(1000):
        link = core.begin([])
        assert link is not None
        counts[link.endpoint.task] += i >= 100
        for each in core.links():
            for said in each.asked:
                if each.endpoint.task in able:
                    said(grpc.StatusCode.OK, b"lat=0.01")
                else:
                    said(grpc.StatusCode.UNIMPLEMENTED, b"")
            each.asked.clear()
        core.finish(link, Outcome())
    assert sum(counts[task] for task in able) == pytest.approx(180, abs=60), counts
    # Which of the two is the rule's to say.
    assert min(count for task, count in counts.items() if task not in able) > 40
    # One that is merely stuck gets nothing while others answer.
    chooser = core._chooser
    chooser.answered(core.links()[0], grpc.StatusCode.DEADLINE_EXCEEDED, b"", random.random, 0.0)
    assert core.links()[0] not in chooser._wordless
    # Renewed, it is one of the others.
    for each in core.links()[2:]:
        chooser.answered(each, grpc.StatusCode.OK, b"rif=1", random.random, 0.0)
    assert not chooser._mutes


class TestProbing:
    def test_who_is_silent_is_asked_after_growing_pauses_and_who_answers_again_at_once(self) -> None:
        core = core_of(view_of({"a": 2}))
        one, two = core.links()
        probing: Probing[TestedLink] = Probing()
        pauses = []
        now_s = 100.0
        for _ in range(12):
            assert probing.admit([one], now_s) == [one]
            probing.failed(one, now_s, 1.0, unknown=True)
            since_s = now_s
            while not probing.admit([one], now_s):
                now_s += 0.5
            probing.failed(one, now_s, 1.0, unknown=True)
            pauses.append(now_s - since_s)
            now_s += 1000.0
        assert pauses[0] == limits.LOAD_PROBE_UNKNOWN_MIN_S
        assert pauses[-1] == limits.LOAD_PROBE_UNKNOWN_MAX_S
        assert pauses == sorted(pauses)
        assert probing.admit([one, two], now_s) == [one, two]
        probing.ended(one)
        assert probing.admit([one, two], now_s) == [one]
        probing.failed(two, now_s, 0.0, unknown=False)
        assert probing.admit([two], now_s + limits.LOAD_PROBE_BACKOFF_MIN_S / 2) == [two]

    def test_bounded_in_number_and_rate_and_those_that_never_end_give_their_places_back(self) -> None:
        links = core_of(view_of({"a": 100})).links()
        probing: Probing[TestedLink] = Probing()
        assert len(probing.admit(links, 10.0)) == limits.LOAD_PROBES_MAX
        assert probing.admit(links, 10.1) == []
        later_s = 10.0 + 2 * limits.LOAD_PROBE_TIMEOUT_S
        assert len(probing.admit(links, later_s)) == limits.LOAD_PROBES_MAX
        asked = 0
        for i in range(1000):
            for link in probing.admit(links, later_s + 10 + i / 1000):
                asked += 1
                probing.ended(link)
        assert asked <= limits.LOAD_PROBES_PER_S + limits.LOAD_PROBES_MAX
        assert asked > limits.LOAD_PROBES_PER_S / 2

    def test_those_that_left_are_forgotten(self) -> None:
        one, two = core_of(view_of({"a": 2})).links()
        probing: Probing[TestedLink] = Probing()
        probing.admit([one, two], 1.0)
        probing.failed(one, 1.0, 0.5, unknown=True)
        probing.keep({two})
        probing.failed(one, 1.0, 0.5, unknown=True)
        assert probing.admit([one, two], 1.0) == [one]


# Keys


def test_the_key_of_a_request_is_the_value_in_its_metadata_and_short() -> None:
    metadata = (("a", "1"), ("user-id", "ann"), ("user-id", "bob"))
    assert affinity_of(metadata, "user-id") == "ann"
    assert affinity_of(metadata, "x") == ""
    assert affinity_of((("id-bin", b"\xff\x00"),), "id-bin") == "\udcff\x00"
    long = [affinity_of((("k", "x" * 5000 + str(i)),), "k") for i in range(3)]
    assert len(set(long)) == 3
    assert all(len(key) <= KEY_MAX_CHARS for key in long)

"""New tasks get their share little by little."""

from collections import Counter
from dataclasses import replace

import pytest

from bns.model import HealthStatus
from gslb.model import limits
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.resources import Catalog
from gslb.rpc.client.protection import Outcome
from gslb.rpc.policy.member import Member
from gslb.rpc.policy.slow_start import weigh
from gslb.steer.view import ServiceView
from gslb.wire.endpoints import decode_endpoint, encode_endpoint
from tests.unit.test_rpc_chooser import TestedLink, core_of, picked, view_of

WALL_S = 1.8e9


def members(*ages_s: float | None, known_s: float = 0.0) -> list[Member]:
    """Tasks of one datacenter that have run for so long at the wall clock's WALL_S; None: nobody knows."""
    return [
        Member(
            ServiceEndpoint(f"/bns/dc/u/j/{i}", "127.0.0.1", 1 + i, HealthStatus.HEALTHY, 40.0,
                            0.0 if age_s is None else WALL_S - age_s),
            known_s=known_s,
        )
        for i, age_s in enumerate(ages_s)
    ]  # fmt: skip


def weights(tasks: list[Member], now_s: float, wall_s: float = WALL_S) -> list[float]:
    weigh(tasks, now_s, wall_s)
    return [round(task.weight, 6) for task in tasks]


def test_a_new_task_rises_from_a_tenth_to_the_whole_in_steps() -> None:
    tasks = members(0.0, 1000.0, None)
    assert [weights(tasks, age_s, WALL_S + age_s)[0] for age_s in (0.0, 2.9, 3.0, 6.0, 15.5, 29.9, 30.0, 500.0)] == [
        4.0, 4.0, 4.0, 8.0, 20.0, 36.0, 40.0, 40.0,
    ]  # fmt: skip
    assert weights(tasks, 0.0)[1:] == [40.0, 40.0]
    assert weigh(tasks, 0.0, WALL_S)
    assert not weigh(tasks, 30.0, WALL_S + 30.0)


def test_where_most_are_new_all_weigh_the_same() -> None:
    assert weights(members(0.0, 5.0, 100.0), 0.0) == [40.0, 40.0, 40.0]
    assert weights(members(0.0, 5.0, 100.0, 100.0), 0.0) == [4.0, 4.0, 40.0, 40.0]
    assert weights(members(0.0), 0.0) == [40.0]


@pytest.mark.parametrize("age_s", [-1e12, -5.0, 0.0])
def test_a_wrong_clock_makes_nobody_new_for_longer_than_he_is_known(age_s: float) -> None:
    tasks = members(age_s, 1000.0, 1000.0, known_s=50.0)
    assert weights(tasks, 50.0)[0] == 4.0
    assert weights(tasks, 80.0, WALL_S)[0] == 40.0


def test_a_task_that_is_started_anew_is_new_again() -> None:
    task, *_ = tasks = members(500.0, 1000.0, 1000.0)
    assert weights(tasks, 500.0)[0] == 40.0
    task.update(replace(task.endpoint, health=HealthStatus.UNHEALTHY), 510.0)
    assert weights(tasks, 510.0)[0] == 40.0
    task.update(replace(task.endpoint, started_s=WALL_S + 10.0), 510.0)
    assert weights(tasks, 510.0, WALL_S + 10.0)[0] == 4.0
    assert weights(tasks, 540.0, WALL_S + 40.0)[0] == 40.0


def test_the_time_goes_over_the_wire_and_nonsense_is_no_time() -> None:
    endpoint = ServiceEndpoint("/bns/dc/u/j/0", "127.0.0.1", 80, HealthStatus.HEALTHY, 1.0, 1.8e9 + 0.25)
    assert decode_endpoint(encode_endpoint(endpoint)) == endpoint
    for nonsense in (float("nan"), float("inf"), -5.0):
        said = decode_endpoint(encode_endpoint(replace(endpoint, started_s=nonsense)))
        assert said == replace(endpoint, started_s=0.0)


class Late:
    """Timers that run when they are told to; what is due at once (probes), or looks for the silent, is forgotten."""

    def __init__(self) -> None:
        self.due: list = []
        self.open = True

    def after(self, delay_s, callback) -> bool:
        if self.open and delay_s not in {0.0, limits.STALL_LOOK_S}:
            self.due.append((delay_s, callback))
        return self.open


def _with_a_new_task(view: ServiceView, started_s: float) -> ServiceView:
    endpoints = dict(view.endpoints)
    endpoints["/bns/a/u/j/0"] = replace(endpoints["/bns/a/u/j/0"], started_s=started_s)
    return view.with_endpoints(endpoints)


@pytest.mark.parametrize("policy", ["least_request", "weighted_round_robin", "adaptive", "load_interpretation"])
def test_a_channel_gives_a_new_task_little_at_first_and_looks_again(policy: str, monkeypatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    monkeypatch.setattr("time.time", lambda: WALL_S + now_s)
    view = view_of({"a": 4})
    core = core_of(view, policy=policy)
    core._feed.timers = late = Late()
    core.on_view(_with_a_new_task(view, WALL_S + now_s), Catalog())
    early = _together(core)
    assert early["/bns/a/u/j/0"] < 0.12 * early.total(), early
    ((delay_s, callback),) = late.due
    assert delay_s == limits.SLOW_START_STEP_S
    # The next look is the only thing that tells the channel.
    now_s += limits.SLOW_START_S
    callback()
    late_counts = _together(core)
    assert late_counts["/bns/a/u/j/0"] > 0.15 * late_counts.total(), late_counts
    assert len(late.due) == 1


def test_without_timers_nobody_stays_small() -> None:
    view = view_of({"a": 4})
    core = core_of(view)
    core._feed.timers = late = Late()
    late.open = False
    core.on_view(_with_a_new_task(view, 4e9), Catalog())
    assert {link.weight for link in core.links()} == {1.0}
    assert picked(core, 10)


def _together(core, calls: int = 2000) -> Counter[str]:
    """Where calls go that are under way four at a time."""
    counts: Counter[str] = Counter()
    for _ in range(calls // 4):
        links: list[TestedLink] = [core.begin([]) for _ in range(4)]
        for link in links:
            counts[link.endpoint.task] += 1
            core.finish(link, Outcome())
    return counts

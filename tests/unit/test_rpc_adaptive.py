"""Our own rule, and the room that servers find out about themselves."""

import math
import random
from collections import Counter

import pytest

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.rpc.policy.adaptive import AGE_S, FRESHEST, PROBES, ROOM_SPREAD, Adaptive
from gslb.rpc.policy.choice import Report
from gslb.rpc.policy.member import Member
from gslb.rpc.policy.room import ROOM_MIN, Room
from gslb.rpc.policy.selfload import SelfLoad

RNG = random.Random(1).random


def adaptive(*reports: Report, count: int = 10) -> tuple[Adaptive[Member], list[Member]]:
    tasks = [
        Member(ServiceEndpoint(f"/bns/dc/u/j/{i}", "127.0.0.1", 1000 + i, HealthStatus.HEALTHY)) for i in range(count)
    ]
    rule: Adaptive[Member] = Adaptive()
    rule.assign(tasks, 0.0)
    for task, report in zip(tasks, reports, strict=False):
        rule.reported(task, report, 1.0)
    return rule, tasks


def test_the_least_used_part_of_its_room_wins_not_the_fewest_in_flight():
    rule, tasks = adaptive(Report(3, room=4), Report(5, room=12), Report(4, room=5))
    assert rule.pick(RNG, 1.0) is tasks[1]


def test_own_picks_count_until_the_next_report():
    rule, tasks = adaptive(Report(1, room=10), Report(3, room=10))
    assert [tasks.index(rule.pick(RNG, 1.0)) for _ in range(4)].count(0) in {2, 3}
    rule.reported(tasks[0], Report(0, room=10), 1.1)
    assert rule.pick(RNG, 1.1) is tasks[0]


def test_errors_count_as_load():
    rule, tasks = adaptive(Report(0, room=10), Report(4, room=10))
    tasks[0].burden = 10.0
    assert rule.pick(RNG, 1.0) is tasks[1]


def test_only_the_freshest_are_chosen_among_and_old_words_are_forgotten():
    rule, tasks = adaptive(Report(0, room=10), *[Report(9, room=10)] * FRESHEST)
    assert rule.pick(RNG, 1.0) is not tasks[0]
    assert len({rule.pick(RNG, 1.0 + 2 * AGE_S) for _ in range(300)}) == 10


def test_a_liar_gains_no_more_than_the_spread_and_its_own_requests_count():
    rule, tasks = adaptive(Report(4, room=8), Report(4, room=8), Report(0, room=1e300))
    tasks[2].in_flight = int(8 * ROOM_SPREAD)
    rule.reported(tasks[2], Report(0, room=1e300), 1.0)
    assert rule.pick(RNG, 1.0) is not tasks[2]


@pytest.mark.parametrize("lie", [Report(math.nan, room=5), Report(-3, room=5), Report(math.inf, room=5)])
def test_reports_without_sense_are_ignored(lie):
    rule, tasks = adaptive(Report(2, room=5), Report(3, room=5), lie)
    assert rule.pick(RNG, 1.0) is tasks[0]


@pytest.mark.parametrize("room", [0.0, math.nan, math.inf, -1.0])
def test_without_a_room_the_mean_is_taken(room):
    rule, tasks = adaptive(Report(4, room=8), Report(5, room=8), Report(3, room=room))
    assert rule.pick(RNG, 1.0) is tasks[2]


def test_a_task_that_left_is_not_picked_though_it_was_heard_of():
    rule, tasks = adaptive(Report(0, room=9), Report(5, room=9), Report(6, room=9))
    rule.assign(tasks[1:], 1.0)
    rule.reported(tasks[0], Report(0, room=9), 1.0)
    assert rule.pick(RNG, 1.0) is tasks[1]


def test_probes_are_different_tasks_and_in_time_all():
    rule, tasks = adaptive()
    seen: Counter[Member] = Counter()
    for _ in range(300):
        asked = rule.probes(RNG, 0.0)
        assert len(set(asked)) == PROBES
        seen.update(asked)
    assert set(seen) == set(tasks)


# Room


def fed(room: Room, seconds: float, under_way: float, cores: float, use: float = 1.0) -> float:
    """`under_way` requests, each of which could use `use` of a core, on that many cores."""
    for _ in range(int(seconds * 100)):
        room.passed(0.01, 0.01 * under_way, 0.01 * min(cores, under_way * use))
    return room.requests


@pytest.mark.parametrize("use", [1.0, 0.1])
def test_a_stretched_server_finds_its_room_whatever_part_of_a_request_is_cpu(use):
    room = Room()
    fed(room, 1.0, 3, 4.0 * use, use)
    assert fed(room, 1.0, 8, 4.0 * use, use) == pytest.approx(4.0, rel=0.02)


def test_room_that_is_found_is_forgotten_slowly_and_only_while_it_is_used():
    room = Room()
    fed(room, 1.0, 3, 4.0)
    low = fed(room, 1.0, 8, 4.0)
    assert fed(room, 5.0, 1, 12.0) == pytest.approx(low, rel=0.03)
    assert 1.3 * low < fed(room, 5.0, 3, 12.0) < 1.8 * low


def test_a_server_that_gets_nothing_still_has_room_for_one():
    room = Room()
    fed(room, 1.0, 3, 4.0)
    assert fed(room, 2.0, 50, 0.0) == pytest.approx(ROOM_MIN)
    room.passed(0.0, 1.0, 1.0)
    assert math.isfinite(room.requests)


# What a server says of latency


def test_latency_is_the_median_at_about_the_present_load():
    load = SelfLoad()
    assert load.latency_s() == 0.0
    for seen, latency_s in [(0, 0.01)] * 6 + [(8, 0.1), (8, 0.2), (9, 0.3), (8, 0.15), (7, 0.25)]:
        load.began(0.0)
        load.ended(seen, latency_s, 1.0)
    assert load.latency_s() == 0.01
    for _ in range(8):
        load.began(2.0)
    assert load.latency_s() == 0.2

"""The client's protection: throttling, hedges, ejection, slow start, deadlines, what a failed retry costs."""

import random
from statistics import mean

import pytest

from gslb.model import limits
from gslb.model.criticality import Criticality
from gslb.rpc.policy.budget import RetryBudget
from gslb.rpc.policy.deadline import earliest, expired, left_s
from gslb.rpc.policy.failure import OVER_QUOTA, OVERLOADED_HERE, Failure, Refusal, refusal_of
from gslb.rpc.policy.hedge import WARM_ANSWERS, Hedging
from gslb.rpc.policy.outlier import Outliers
from gslb.rpc.policy.rank import rank_of
from gslb.rpc.policy.slow_start import admits_at_most, slow_start_factor
from gslb.rpc.policy.throttle import WINDOW_MAX_S, Throttle

CRITICAL, SHEDDABLE = Criticality.CRITICAL, Criticality.SHEDDABLE


class Loop:
    """A client with a constant rate before a service that accepts the lowest ranks, up to a part of what is wanted."""

    def __init__(self, rate: int = 200, rank: float | None = None) -> None:
        self.throttle = Throttle()
        self.rng = random.Random(1)
        self.now_s = 0.0
        self.rate = rate
        self.rank = rank

    def run(self, seconds: float, accepts: float) -> tuple[float, float]:
        """The parts of the calls that were sent and that were accepted, over the last second."""
        sent = accepted = 0
        last_s = self.now_s + seconds - 1.0
        for _ in range(int(seconds * self.rate)):
            self.now_s += 1.0 / self.rate
            rank = self.rng.random() if self.rank is None else self.rank
            if not self.throttle.admit(CRITICAL, rank, self.rng.random(), self.now_s):
                continue
            refused = rank >= accepts
            self.throttle.ended(CRITICAL, self.now_s, self.now_s, refused=refused, rank=rank)
            if self.now_s > last_s:
                sent += 1
                accepted += not refused
        return sent / self.rate, accepted / self.rate


class TestThrottle:
    def test_a_service_that_accepts_all_gets_all(self) -> None:
        assert Loop().run(10.0, 1.0) == pytest.approx((1.0, 1.0), abs=0.01)

    def test_an_overloaded_service_is_offered_little_more_than_it_accepts(self) -> None:
        loop = Loop(rate=1000)
        loop.run(5.0, 0.1)
        rounds = [loop.run(3.0, 0.1) for _ in range(8)]
        assert mean(accepted for _, accepted in rounds) == pytest.approx(0.1, rel=0.15)
        assert mean(sent for sent, _ in rounds) <= 0.1 * limits.THROTTLE_EXCESS * 1.25

    def test_it_falls_within_two_windows_and_is_back_within_ten_seconds(self) -> None:
        loop = Loop(rate=1000)
        loop.run(3.0, 1.0)
        assert loop.run(2 * limits.THROTTLE_WINDOW_S + 1.0, 0.1)[0] < 0.2
        loop.run(60.0, 0.1)
        assert loop.run(10.0, 1.0)[1] > 0.95

    def test_a_client_whose_calls_all_have_one_rank_learns_that_it_is_over(self) -> None:
        loop = Loop(rate=100, rank=0.95)
        assert loop.run(30.0, 0.5)[0] < 0.1
        assert loop.run(15.0, 1.0)[1] > 0.95

    def test_a_slow_client_goes_on_asking(self) -> None:
        """One call in five seconds: each of them is also the one that goes whatever happens."""
        throttle = Throttle()
        for i in range(20):
            assert throttle.admit(CRITICAL, 0.99, 0.99, 5.0 * i)
            throttle.ended(CRITICAL, 5.0 * i, 5.0 * i, refused=True)

    def test_the_refusal_of_a_call_that_only_went_out_to_ask_says_nothing_of_the_others(self) -> None:
        throttle = Throttle()
        for i in range(40):  # down to some tenths
            if throttle.admit(CRITICAL, i % 10 / 10, 0.5, 0.1 * i):
                throttle.ended(CRITICAL, 0.1 * i, 0.1 * i, refused=i % 10 >= 4, rank=i % 10 / 10)
        before = throttle.fraction(CRITICAL)
        assert 0.2 < before < 0.8
        for i in range(20):
            now_s = 10.0 + 5.0 * i
            assert throttle.admit(CRITICAL, 0.99, 0.99, now_s)
            throttle.ended(CRITICAL, now_s, now_s, refused=True, rank=0.99)
        assert throttle.fraction(CRITICAL) >= before / 2  # what was refused before the first of them
        for i in range(20):
            now_s = 200.0 + 5.0 * i
            assert throttle.admit(CRITICAL, 0.99, 0.99, now_s)
            throttle.ended(CRITICAL, now_s, now_s, refused=False, rank=0.99)
        assert throttle.fraction(CRITICAL) == 1.0

    def test_classes_know_nothing_of_each_other(self) -> None:
        throttle = Throttle()
        for i in range(3000):
            now_s = i / 100
            for level, refused in ((CRITICAL, False), (SHEDDABLE, True)):
                if throttle.admit(level, 0.5, 0.5, now_s):
                    throttle.ended(level, now_s, now_s, refused=refused)
        assert throttle.fraction(CRITICAL) == 1.0
        assert throttle.fraction(SHEDDABLE) == limits.THROTTLE_FLOOR
        assert throttle.held_back()[CRITICAL] == 0

    def test_answers_to_calls_of_an_older_window_are_not_counted(self) -> None:
        throttle = Throttle()
        throttle.admit(CRITICAL, 0.5, 0.5, 10.0)
        throttle.ended(CRITICAL, 9.0, 10.5, refused=True)
        throttle.admit(CRITICAL, 0.5, 0.5, 12.0)
        assert throttle.fraction(CRITICAL) == 1.0

    def test_slow_answers_make_the_window_longer_within_bounds(self) -> None:
        throttle = Throttle()
        for _ in range(200):
            throttle.ended(CRITICAL, 0.0, 60.0, refused=False)
        assert throttle.window_s == WINDOW_MAX_S

    def test_what_counts_as_a_refusal(self) -> None:
        assert refusal_of(Failure.SHED, "") is Refusal.FULL
        assert refusal_of(Failure.SHED, f"{OVER_QUOTA}: caller") is Refusal.QUOTA
        assert refusal_of(Failure.REFUSED, OVERLOADED_HERE) is Refusal.FULL
        assert refusal_of(Failure.REFUSED, "the connection is draining") is Refusal.NO
        assert refusal_of(Failure.ERRED, OVERLOADED_HERE) is Refusal.NO
        assert refusal_of(None, "") is Refusal.NO


class TestRank:
    def test_even_and_the_same_everywhere(self) -> None:
        ranks = [rank_of(f"{random.Random(i).getrandbits(128):032x}") for i in range(10_000)]
        assert all(0.0 <= rank < 1.0 for rank in ranks)
        assert [sum(k / 10 <= rank < (k + 1) / 10 for rank in ranks) for k in range(10)] == pytest.approx(
            [1000] * 10, abs=120
        )
        assert rank_of("4bf92f3577b34da6a3ce929d0e0e4736") == pytest.approx(0.3657, abs=1e-4)

    def test_any_text_has_one(self) -> None:
        assert 0.0 <= rank_of("\ud800\u20ac") < 1.0


class TestRetriesInVain:
    def test_a_total_outage_costs_less_than_a_tenth_more(self) -> None:
        """A minute at 50 rps in which everything fails, after a minute of health that filled the budget."""
        budget = RetryBudget()
        retries = 0
        for i in range(6000):
            now_s = i / 50
            budget.request(now_s)
            for _ in range(2 if i >= 3000 else 0):
                if budget.take(now_s):
                    retries += 1
                    budget.in_vain(now_s)
        assert retries <= 300


class TestHedging:
    def warm(self, seed: int = 1) -> Hedging:
        hedging, rng = Hedging(), random.Random(seed)
        for i in range(5000):
            hedging.request(i / 1000)
            hedging.answered(rng.expovariate(100.0))
        return hedging

    def test_waits_for_the_95th_percentile(self) -> None:
        """Of an exponential distribution with a mean of 10 ms that is 30 ms."""
        found = mean(self.warm(seed).delay_s(None, 5.0) or 0.0 for seed in range(20))
        assert found == pytest.approx(0.030, rel=0.15)

    def test_none_before_enough_is_known_none_past_the_deadline_none_after_a_refusal(self) -> None:
        cold = Hedging()
        for _ in range(WARM_ANSWERS - 1):
            cold.answered(0.01)
        assert cold.delay_s(None, 1.0) is None
        hedging = self.warm()
        assert hedging.delay_s(0.001, 5.0) is None
        hedging.refused(5.0)
        assert hedging.delay_s(None, 6.0) is None
        assert hedging.delay_s(None, 11.0) is not None

    def test_the_budget_holds_when_every_call_is_late(self) -> None:
        hedging, hedges = self.warm(), 0
        for i in range(10_000):
            hedging.request(5.0 + i / 1000)
            hedges += hedging.take(5.0 + i / 1000)
        assert hedges <= 10_000 * limits.HEDGE_BUDGET_FRACTION * 2

    def test_no_reserve(self) -> None:
        assert not Hedging().take(100.0)


class TestOutliers:
    TASKS = tuple(f"/bns/a/u/j/{i}" for i in range(10))

    def window(self, outliers: Outliers, rates: dict[str, float], now_s: float) -> frozenset[str]:
        for task in self.TASKS:
            errors = round(100 * rates.get(task, 0.0))
            for i in range(100):
                outliers.ended(task, now_s, error=i < errors)
        return outliers.look(self.TASKS, now_s)

    def test_one_that_fails_more_than_the_others_is_out_for_longer_each_time(self) -> None:
        outliers, bad = Outliers(), self.TASKS[3]
        assert self.window(outliers, {bad: 0.3}, 0.0) == {bad}
        assert outliers.ejected(limits.EJECT_BASE_S - 0.1) == {bad}
        assert outliers.ejected(limits.EJECT_BASE_S) == frozenset()
        assert self.window(outliers, {bad: 0.3}, 20.0) == {bad}
        assert outliers.ejected(20.0 + 2 * limits.EJECT_BASE_S - 0.1) == {bad}

    def test_the_ceiling_holds_and_the_worst_go_first(self) -> None:
        rates = {task: 0.5 + 0.05 * i for i, task in enumerate(self.TASKS[:4])}
        out = self.window(Outliers(), rates, 0.0)
        assert out == set(self.TASKS[1:4])

    def test_when_all_fail_nobody_is_out(self) -> None:
        assert self.window(Outliers(), dict.fromkeys(self.TASKS, 0.8), 0.0) == frozenset()

    def test_a_small_difference_and_a_few_requests_say_nothing(self) -> None:
        assert self.window(Outliers(), {self.TASKS[0]: 0.05}, 0.0) == frozenset()
        few = Outliers()
        for task in self.TASKS:
            few.ended(task, 0.0, error=task == self.TASKS[0])
        assert few.look(self.TASKS, 0.0) == frozenset()

    def test_a_lone_task_stays_and_one_that_left_is_forgotten(self) -> None:
        outliers = Outliers()
        for _ in range(100):
            outliers.ended("only", 0.0, error=True)
        assert outliers.look(["only"], 0.0) == frozenset()
        assert outliers.look([], 1.0) == frozenset()

    def test_good_windows_are_forgiving(self) -> None:
        outliers, bad = Outliers(), self.TASKS[0]
        self.window(outliers, {bad: 1.0}, 0.0)
        self.window(outliers, {}, 100.0)
        self.window(outliers, {bad: 1.0}, 200.0)
        assert outliers.ejected(200.0 + limits.EJECT_BASE_S) == frozenset()


class TestSlowStart:
    def test_rises_to_the_whole(self) -> None:
        assert slow_start_factor(0.0) == limits.SLOW_START_LEAST
        assert slow_start_factor(limits.SLOW_START_S) == 1.0
        assert slow_start_factor(1.0, 0.0) == 1.0

    def test_a_server_takes_at_least_one(self) -> None:
        assert admits_at_most(0.0, 4) == 1
        assert admits_at_most(limits.SLOW_START_S / 2, 40) == 20
        assert admits_at_most(1e9, 40) == 40


class TestDeadline:
    def test_arithmetic(self) -> None:
        assert earliest(None, None) is None
        assert earliest(3.0, None) == earliest(None, 3.0) == earliest(5.0, 3.0) == 3.0
        assert left_s(None, 1.0) is None
        assert left_s(3.0, 1.0) == 2.0
        assert left_s(3.0, 5.0) == 0.0
        assert expired(3.0, 3.0)
        assert not expired(3.0, 2.9)
        assert not expired(None, 1e9)

"""The server's protection: the level of admission, the line, the guard that puts both together."""

import random

import pytest

from gslb.model.criticality import Criticality
from gslb.rpc.policy.admission import OPEN, PATIENCE_S, Admission
from gslb.rpc.policy.guard import LONGEST, Fate, Guard
from gslb.rpc.policy.line import Line, Ticket

PLUS, CRITICAL, SHED_PLUS, SHED = Criticality


def ticket(level: Criticality = CRITICAL, now_s: float = 0.0, *, rank: float = 0.5, **more) -> Ticket:
    return Ticket(level, rank, now_s, **more)


def window(
    admission: Admission,
    now_s: float,
    mix: dict[Criticality, int],
    *,
    waited_s: float,
    capacity: int,
    used: float = 1.0,
) -> dict[Criticality, int]:
    """One second of arrivals, of which `capacity` are finished; how many of each class got in."""
    rng = random.Random(now_s)
    admission.due(now_s)
    got = dict.fromkeys(mix, 0)
    for level, count in mix.items():
        for _ in range(count):
            if admission.admits(level, rng.random()):
                got[level] += 1
                admission.begun(level, waited_s)
    for _ in range(min(capacity, sum(got.values()))):
        admission.done(0.001)
    assert admission.due(now_s + 1.0)
    admission.turn(now_s + 1.0, used)
    return got


class TestAdmission:
    def test_open_until_requests_wait(self) -> None:
        admission = Admission()
        for i in range(5):
            window(admission, float(i), {CRITICAL: 500, SHED: 500}, waited_s=0.01, capacity=1000)
        assert admission.level == OPEN

    def test_the_least_critical_are_refused_within_one_window(self) -> None:
        admission = Admission()
        mix = {PLUS: 50, CRITICAL: 450, SHED_PLUS: 500, SHED: 1000}
        window(admission, 0.0, mix, waited_s=0.5, capacity=1000)
        got = window(admission, 1.0, mix, waited_s=0.0, capacity=1000)
        assert got[SHED] == 0
        assert got[CRITICAL] == 450
        assert got[PLUS] == 50
        assert 350 <= got[SHED_PLUS] <= 500
        assert sum(got.values()) == pytest.approx(950, abs=60)

    def test_what_is_too_long_for_sheddable_requests_is_not_for_critical_ones(self) -> None:
        admission = Admission()
        for i in range(5):
            got = window(admission, float(i), {CRITICAL: 900, SHED: 200}, waited_s=2 * PATIENCE_S[SHED], capacity=300)
        assert got[CRITICAL] == 900
        assert got[SHED] == 0
        got = window(admission, 9.0, {CRITICAL: 900}, waited_s=2 * PATIENCE_S[CRITICAL], capacity=300)
        assert window(admission, 10.0, {CRITICAL: 900}, waited_s=0.0, capacity=300)[CRITICAL] < 350

    def test_it_rises_to_what_the_executor_has_room_for(self) -> None:
        admission = Admission(level=CRITICAL + 0.1)
        seconds = 0
        while admission.level < SHED_PLUS and seconds < 20:
            # Nine tenths of the capacity is wanted: what gets in is what is used.
            window(
                admission,
                float(seconds),
                {CRITICAL: 900},
                waited_s=0.0,
                capacity=1000,
                used=0.9 * (admission.level - 1),
            )
            seconds += 1
        assert seconds <= 6
        got = window(admission, 30.0, {CRITICAL: 900}, waited_s=0.0, capacity=1000, used=0.9)
        assert got[CRITICAL] > 800

    def test_clients_that_hold_back_do_not_open_it(self) -> None:
        """Nine tenths are not even sent, as clients throttle; what comes fills the executor: the level stays there."""
        admission = Admission(level=CRITICAL + 0.1)
        rng = random.Random(1)
        for i in range(20):
            admission.due(float(i))
            for _ in range(1000):
                if admission.admits(CRITICAL, 0.12 * rng.random()):
                    admission.begun(CRITICAL, 0.01)
                    admission.done(0.001)
            admission.turn(i + 1.0, 0.95)
        assert admission.level < CRITICAL + 0.25

    def test_a_line_that_does_not_move_is_overload(self) -> None:
        admission = Admission()
        admission.due(0.0)
        admission.admits(SHED, 0.5)
        admission.turn(1.0, 1.0, oldest_s=1.0)
        assert admission.overloaded
        assert admission.level < OPEN

    def test_slow_work_may_wait_longer_and_overload_teaches_no_patience(self) -> None:
        admission = Admission()
        for i in range(50):
            admission.due(float(i))
            admission.admits(SHED, 0.5)
            admission.begun(SHED, 0.0)
            admission.done(0.04)
            admission.turn(i + 1.0, 0.5)
        calm_s = admission.patience_s(SHED)
        assert 0.06 <= calm_s <= 0.09
        admission.due(50.0)
        admission.admits(SHED, 0.5)
        admission.begun(SHED, 5.0)
        admission.done(9.0)
        admission.turn(51.0, 1.0)
        assert admission.patience_s(SHED) == calm_s


class TestLine:
    def test_the_most_critical_first_and_in_order(self) -> None:
        line = Line(10)
        tickets = [ticket(level) for level in (SHED, CRITICAL, PLUS, CRITICAL)]
        for one in tickets:
            assert line.join(one) is None
        assert [line.first() for _ in range(5)] == [tickets[2], tickets[1], tickets[3], tickets[0], None]

    def test_full_means_the_newest_of_the_least_critical_goes(self) -> None:
        line = Line(2)
        first, second, third = ticket(SHED), ticket(SHED), ticket(CRITICAL)
        assert line.join(first) is line.join(second) is None
        assert line.join(third) is second
        late = ticket(SHED)
        assert line.join(late) is late
        assert len(line) == 2


class TestGuard:
    def test_slots_then_the_line_then_the_next(self) -> None:
        guard = Guard(1)
        one, two = ticket(), ticket()
        assert guard.arrive(one, 0.0) == [(one, Fate.BEGIN)]
        assert guard.arrive(two, 0.0) == [(two, Fate.WAIT)]
        assert guard.finish(one, 0.01) == [(two, Fate.BEGIN)]
        assert two.began_s == 0.01
        assert guard.finish(two, 0.02) == []
        assert guard.in_flight == 0

    def test_work_whose_deadline_passed_is_never_begun(self) -> None:
        guard = Guard(1)
        one, two = ticket(), ticket(deadline_s=0.5)
        guard.arrive(one, 0.0)
        guard.arrive(two, 0.0)
        assert guard.finish(one, 0.6) == [(two, Fate.EXPIRED)]
        late = ticket(now_s=1.0, deadline_s=0.9)
        assert guard.arrive(late, 1.0) == [(late, Fate.EXPIRED)]
        assert guard.expired == 2
        assert guard.in_flight == 0

    def test_who_waited_far_too_long_is_refused(self) -> None:
        guard = Guard(1)
        one, two = ticket(), ticket(SHED)
        guard.arrive(one, 0.0)
        guard.arrive(two, 0.0)
        after_s = LONGEST * PATIENCE_S[SHED] + 0.01
        assert guard.finish(one, after_s) == [(two, Fate.REFUSED_EVERYWHERE)]
        assert guard.refused == [0, 0, 0, 1]

    def test_the_line_is_bounded_and_makes_room_for_the_critical(self) -> None:
        guard = Guard(1)
        guard.arrive(ticket(), 0.0)
        for _ in range(guard.line.most):
            guard.arrive(ticket(SHED), 0.0)
        assert guard.arrive(ticket(SHED), 0.0)[0].fate is Fate.REFUSED_EVERYWHERE
        decisions = guard.arrive(ticket(CRITICAL), 0.0)
        assert [decision.fate for decision in decisions] == [Fate.WAIT, Fate.REFUSED_EVERYWHERE]
        assert len(guard.line) == guard.line.most

    def test_who_leaves_the_line_takes_nobodys_turn(self) -> None:
        guard = Guard(1)
        one, two = ticket(), ticket()
        guard.arrive(one, 0.0)
        guard.arrive(two, 0.0)
        assert guard.leave(two, 0.1)
        assert not guard.leave(two, 0.1)
        assert guard.finish(one, 0.2) == []

    def test_a_retry_is_told_not_to_try_again_and_so_are_all_when_many_come(self) -> None:
        guard = Guard(1, admission=Admission(level=1.0))
        assert guard.arrive(ticket(CRITICAL), 0.0)[0].fate is Fate.REFUSED
        assert guard.arrive(ticket(CRITICAL, attempt=1), 0.0)[0].fate is Fate.REFUSED_EVERYWHERE
        guard.arrive(ticket(PLUS), 1.1)
        assert guard.arrive(ticket(CRITICAL), 1.2)[0].fate is Fate.REFUSED_EVERYWHERE

    def test_who_all_but_gets_in_may_try_another_task_however_many_retry(self) -> None:
        def refused(level: float, criticality: Criticality, rank: float, attempt: int = 0) -> Fate:
            guard = Guard(1, admission=Admission(level=level))
            guard._everywhere = (True, True, True, True)
            one = Ticket(criticality, rank, 0.0, None, attempt)
            return guard.arrive(one, 0.0)[0].fate

        assert refused(1.5, CRITICAL, 0.55) is Fate.REFUSED
        assert refused(1.5, CRITICAL, 0.62) is Fate.REFUSED_EVERYWHERE
        assert refused(1.5, CRITICAL, 0.55, attempt=1) is Fate.REFUSED_EVERYWHERE
        # Whole classes above the level, and those that can wait, are refused everywhere.
        assert refused(0.5, CRITICAL, 0.0) is Fate.REFUSED_EVERYWHERE
        assert refused(2.5, Criticality.SHEDDABLE_PLUS, 0.55) is Fate.REFUSED_EVERYWHERE

    def test_a_restarted_server_takes_little_at_first(self) -> None:
        guard = Guard(10, started_s=100.0, ramp_s=10.0)
        fates = [guard.arrive(ticket(now_s=100.0), 100.0)[0].fate for _ in range(10)]
        assert fates.count(Fate.BEGIN) == 1
        begun = [decision for decision in guard.advance(100.3) if decision.fate is Fate.BEGIN]
        assert len(begun) == 0
        later = Guard(10, started_s=100.0, ramp_s=10.0)
        assert sum(later.arrive(ticket(now_s=105.0), 105.0)[0].fate is Fate.BEGIN for _ in range(10)) == 5

    def test_requests_in_overload_are_marked_for_a_lesser_answer(self) -> None:
        guard = Guard(1)
        guard.admission.overloaded = True
        one = ticket()
        guard.arrive(one, 0.0)
        assert one.degraded

    def test_the_fates_add_up(self) -> None:
        """A random day: every ticket is begun once or refused once, never both, and no slot is lost."""
        rng = random.Random(7)
        guard, now_s = Guard(3, ramp_s=2.0), 0.0
        waiting: set[Ticket] = set()
        running: list[Ticket] = []
        for _ in range(20_000):
            now_s += rng.expovariate(200.0)
            if rng.random() < 0.6:
                one = ticket(rng.choice(list(Criticality)), now_s, rank=rng.random(), deadline_s=now_s + rng.random())
                decided = guard.arrive(one, now_s)
            elif running:
                decided = guard.finish(running.pop(rng.randrange(len(running))), now_s)
            elif waiting and rng.random() < 0.1:
                gone = rng.choice(sorted(waiting, key=lambda one: one.arrived_s))
                waiting.discard(gone)
                assert guard.leave(gone, now_s)
                continue
            else:
                decided = guard.advance(now_s)
            for one, fate in decided:
                if fate is Fate.WAIT:
                    waiting.add(one)
                    continue
                waiting.discard(one)
                if fate is Fate.BEGIN:
                    assert one.deadline_s is None or now_s < one.deadline_s
                    running.append(one)
            assert len(running) == guard.in_flight <= 3
            assert len(waiting) == len(guard.line) <= guard.line.most

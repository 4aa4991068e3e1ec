"""While calls are under way somebody listens, and asks who is silent."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from typing_extensions import override

from gslb.model import limits
from gslb.model.resources import Catalog
from gslb.rpc.client.core import ServiceCore
from gslb.rpc.client.link import ProbeDone
from gslb.rpc.client.protection import Outcome
from gslb.rpc.client.settings import Settings
from gslb.rpc.policy.failure import Failure
from tests.unit.test_rpc_chooser import TestedFeed, TestedLink, view_of

TICK_S = 0.01


@dataclass(slots=True, eq=False)
class Asked(TestedLink):
    """A task that can be asked whether it is there."""

    __test__ = False
    questions: list[ProbeDone] = field(default_factory=list)

    @override
    def probe(self, timeout_s: float, done: ProbeDone, *, patient: bool = True) -> None:
        self.questions.append(done)


class Clock(TestedFeed):
    """Timers of a clock that is moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.now_s = 100.0
        self._due: list[tuple[float, Callable[[], None]]] = []
        monkeypatch.setattr("time.monotonic", lambda: self.now_s)

    @override
    def after(self, delay_s, callback) -> bool:
        self._due.append((self.now_s + delay_s, callback))
        return True

    def wait(self, for_s: float) -> None:
        until_s = self.now_s + for_s
        while self.now_s < until_s:
            self.now_s = min(until_s, self.now_s + TICK_S)
            for due in [due for due in self._due if due[0] <= self.now_s]:
                self._due.remove(due)
                due[1]()

    @property
    def idle(self) -> bool:
        return not self._due


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def core_of(clock: Clock, tasks: int = 8, datacenters: str = "a") -> ServiceCore[Asked]:
    settings = Settings("svc", "us", "test", lambda method: True)
    core: ServiceCore[Asked] = ServiceCore(settings, clock, Asked)
    core.on_view(view_of(dict.fromkeys(datacenters, tasks)), Catalog())
    return core


def begun(core: ServiceCore[Asked]) -> Asked:
    link = core.begin([])
    assert link is not None
    return link


def test_a_task_with_one_silent_call_is_asked_and_left_out_until_it_answers(clock: Clock) -> None:
    core = core_of(clock)
    link = begun(core)
    clock.wait(limits.STALL_S - TICK_S)
    assert not link.questions
    clock.wait(limits.STALL_LOOK_S + 2 * TICK_S)
    (done,) = link.questions
    done(False)
    assert link.stalled
    assert not any(begun(core) is link for _ in range(100))
    clock.wait(limits.STALL_AGAIN_S + TICK_S)
    assert len(link.questions) == 2
    link.questions[-1](True)
    assert not link.stalled
    assert any(begun(core) is link for _ in range(200))


def test_one_that_is_slow_is_waited_for_twice_as_long_each_time(clock: Clock) -> None:
    core = core_of(clock)
    link = begun(core)
    asked_s: list[float] = []
    for _ in range(6000):
        clock.wait(TICK_S)
        if len(link.questions) > len(asked_s):
            asked_s.append(clock.now_s)
            link.questions[-1](True)
    pauses_s = [round(after - before, 2) for before, after in pairwise([100.0, *asked_s])]
    # Up to a limit, which the last ones may have reached.
    assert all(after >= min(2 * before - 0.12, limits.STALL_PATIENCE_MAX_S) for before, after in pairwise(pauses_s)), (
        pauses_s
    )
    assert len(asked_s) <= 9
    assert not link.stalled
    # Answers make it impatient again, in steps.
    for _ in range(10):
        core.finish(link, Outcome())
        link.in_flight += 1
    assert link.patience_s == limits.STALL_S


def test_whoever_takes_long_for_an_answer_is_waited_for_as_long(clock: Clock) -> None:
    core = core_of(clock)
    slow = begun(core)
    clock.wait(0.45)
    slow.questions[-1](False)
    assert slow.stalled
    clock.wait(0.5)
    # A request is as good as the question, and sooner.
    core.finish(slow, Outcome())
    assert not slow.stalled
    assert any(begun(core) is slow for _ in range(200))
    assert slow.patience_s == pytest.approx(0.95)
    asked = len(slow.questions)
    clock.wait(0.9)
    assert len(slow.questions) == asked
    clock.wait(0.3)
    assert len(slow.questions) == asked + 1


def test_whoever_answers_somebody_else_meanwhile_is_there(clock: Clock) -> None:
    core = core_of(clock, tasks=1)
    first, second = begun(core), begun(core)
    clock.wait(0.5)
    (done,) = first.questions
    core.finish(second, Outcome())
    done(False)
    assert not first.stalled


def test_a_call_that_was_given_up_and_the_next_one_are_no_answer(clock: Clock) -> None:
    core = core_of(clock, tasks=1)
    link = begun(core)
    clock.wait(0.5)
    (done,) = link.questions
    core.finish(link, Outcome(Failure.TIMED_OUT))
    clock.wait(TICK_S)
    assert begun(core) is link
    core.on_view(view_of({"a": 4}), Catalog())
    done(False)
    assert link.stalled


def test_nobody_is_asked_and_nobody_listens_while_no_call_is_under_way(clock: Clock) -> None:
    core = core_of(clock)
    for _ in range(20):
        link = begun(core)
        clock.wait(0.05)
        core.finish(link, Outcome())
    clock.wait(1.0)
    assert clock.idle
    assert not any(known.questions for known in core.links())


def test_never_more_than_a_part_of_the_tasks_is_left_out(clock: Clock) -> None:
    core = core_of(clock, tasks=2, datacenters="abcde")
    _all_silent(core, clock)
    assert sum(link.stalled for link in core.links()) == int(limits.EJECT_TASKS_MAX_FRACTION * 10)
    assert not any(link.down for link in core.links())


def test_a_datacenter_that_says_nothing_any_more_is_gone(clock: Clock) -> None:
    core = core_of(clock, tasks=6)
    while not all(link.proved for link in core.links()):
        core.finish(begun(core), Outcome())
    _all_silent(core, clock)
    assert all(link.down for link in core.links())


def test_one_that_has_not_said_anything_yet_may_be_slow(clock: Clock) -> None:
    core = core_of(clock, tasks=6)
    _all_silent(core, clock)
    assert not any(link.down for link in core.links())
    assert sum(link.stalled for link in core.links()) == 1


def _all_silent(core: ServiceCore[Asked], clock: Clock) -> None:
    """Every task has a call, and is asked in vain."""
    while any(not link.in_flight for link in core.links()):
        begun(core)
    clock.wait(0.45)
    for link in core.links():
        link.questions[-1](False)


def test_a_closed_channel_looks_no_more(clock: Clock) -> None:
    core = core_of(clock)
    link = begun(core)
    core.close()
    clock.wait(2.0)
    assert not link.questions
    assert clock.idle

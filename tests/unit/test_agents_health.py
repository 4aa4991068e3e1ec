"""The health of a task as stories: what happened -> what is reported."""

import random

import pytest

from agents import limits
from agents.health import state
from agents.health.schedule import Schedule
from agents.health.state import Health

# one letter an event; rise 2, fall 2 everywhere
EVENTS = {
    "+": lambda h: state.probed(h, True, "ok", rise=2, fall=2),
    "-": lambda h: state.probed(h, False, "bad", rise=2, fall=2),
    "x": lambda h: state.process_gone(h, "process 7 ended", final=True),
    "o": lambda h: state.process_gone(h, "process 7 ended", final=False),
    "s": state.stream_lost,
    "r": state.stream_back,
    "d": lambda h: state.lame_duck(h, True),
    "u": lambda h: state.lame_duck(h, False),
    "n": lambda _: Health(),  # a new process attached
}
# events -> the status after each, by its first letter; (U)NKNOWN (H)EALTHY (B)ad = UNHEALTHY (D)RAINING
STORIES = {
    "the first success is enough": ("+", "H"),
    "a slow starter is not judged by its first failures alone": ("-+", "UH"),
    "a starter that does not come up is unhealthy, and used at its first success": ("---+", "UBBH"),
    "one failure is forgiven": ("+-+-+", "HHHHH"),
    "fall failures in a row are not": ("+--", "HHB"),
    "recovery needs rise successes in a row": ("+--+-++", "HHBBBBH"),
    "the process ends: at once": ("+x", "HB"),
    "whoever answers on the port of an ended process is somebody else": ("+x++++", "HBBBBB"),
    "a new process attaches": ("+xn+", "HBUH"),
    "without a stream that could say so, probes bring it back": ("+o++", "HBBH"),
    "a broken stream and one failure": ("+s-", "HHB"),
    "a broken stream and a success: the process lives": ("+s+-", "HHHH"),
    "back in time": ("+sr-", "HHHH"),
    "lame duck": ("+d+u", "HDDH"),
    "lame duck before any verdict": ("d+", "DD"),
    "a lame duck that fails is unhealthy": ("+d--", "HDDB"),
    "a lame duck that ends is unhealthy": ("+dx", "HDB"),
    "still a lame duck after recovery": ("+d--++", "HDDBBD"),
}
LETTERS = {"UNKNOWN": "U", "HEALTHY": "H", "UNHEALTHY": "B", "DRAINING": "D"}


@pytest.mark.parametrize("story", STORIES)
def test_story(story: str) -> None:
    events, expected = STORIES[story]
    health, seen = Health(), ""
    for event in events:
        health = EVENTS[event](health)
        seen += LETTERS[health.status.name]
    assert seen == expected


def test_reasons_say_what_was_seen() -> None:
    health = EVENTS["-"](EVENTS["s"](EVENTS["+"](Health())))
    assert health.reason == "its stream to the agent broke; bad"
    assert EVENTS["x"](health).reason == "process 7 ended"
    assert EVENTS["d"](EVENTS["+"](Health())).reason.startswith("lame duck")


def test_any_history_ends_well() -> None:
    """Whatever happened, a new process that answers is HEALTHY, and one that ends is UNHEALTHY."""
    rng = random.Random(7)
    for _ in range(2000):
        health = Health()
        for event in rng.choices("+-xosrdu", k=rng.randrange(20)):
            health = EVENTS[event](health)
        assert EVENTS["x"](health).status.name == "UNHEALTHY"
        assert EVENTS["+"](EVENTS["n"](health)).status.name == "HEALTHY"


def test_starts_are_spread_and_soon() -> None:
    schedule = Schedule(random.Random(1))
    for index in range(1000):
        schedule.add(f"t{index}", 100.0, 10.0)
    at_once = schedule.take(100.0, 10_000)
    half = schedule.take(100.0 + limits.PROBE_START_SPREAD_S / 2, 10_000)
    rest = schedule.take(100.0 + limits.PROBE_START_SPREAD_S, 10_000)
    assert len(at_once) < 20
    assert 400 < len(at_once) + len(half) < 600
    assert len(at_once) + len(half) + len(rest) == 1000


def test_later_probes_keep_their_interval_and_do_not_fall_into_step() -> None:
    schedule = Schedule(random.Random(1))
    for index in range(100):
        schedule.add(f"t{index}", 0.0, 1.0)
    now, probes, instants = 0.0, 0, set()
    while now < 60.0:
        for name in schedule.take(now, 1000):
            schedule.done(name, now, 1.0)
            probes += 1
            instants.add(now)
        due = schedule.next_due()
        assert due is not None
        now = max(due, now)
    assert 5400 < probes < 6700
    assert len(instants) > probes / 2


def test_hurry_and_never_two_at_once() -> None:
    schedule = Schedule(random.Random(1))
    schedule.add("t", 0.0, 10.0)
    (name,) = schedule.take(10.0, 9)
    assert schedule.next_due() is None
    schedule.hurry(name, 10.0)  # while it runs
    assert schedule.take(10.0, 9) == []
    schedule.done(name, 11.0, 10.0)
    assert schedule.take(11.0, 9) == ["t"]  # right after it
    schedule.done(name, 12.0, 10.0)
    assert schedule.take(20.0, 9) == []
    schedule.hurry(name, 20.0)
    assert schedule.take(20.0, 9) == ["t"]


def test_room_and_removal() -> None:
    schedule = Schedule(random.Random(1))
    for name in "abc":
        schedule.add(name, 0.0, 1.0)
    schedule.remove("a")
    taken = schedule.take(5.0, 1)
    assert len(taken) == 1
    taken += schedule.take(5.0, 9)
    assert sorted(taken) == ["b", "c"]
    schedule.remove("b")
    schedule.done("b", 6.0, 1.0)
    schedule.hurry("b", 6.0)
    assert "b" not in schedule
    assert schedule.next_due() is None

"""Which datacenters a frontend without a control plane takes to be lost, and what it serves then."""

from gslb.steer.absence import BACK_AFTER_ROUNDS, LOST_AFTER_ROUNDS, Absence, Outcome, without
from tests.support.dns import endpoints, view_of

UP, DOWN, HALF = Outcome(4, 0), Outcome(0, 4), Outcome(1, 3)


def after(absence: Absence, *rounds: dict[str, Outcome]) -> Absence:
    for outcomes in rounds:
        absence = absence.after(outcomes)
    return absence


REACHED = Absence().baseline({"us": UP, "eu": UP})


def test_silent_twice_while_another_answers() -> None:
    assert LOST_AFTER_ROUNDS == 2
    assert after(REACHED, {"us": DOWN, "eu": UP}).lost == frozenset()
    assert after(REACHED, {"us": DOWN, "eu": UP}, {"us": DOWN, "eu": HALF}).lost == {"us"}
    assert after(REACHED, *[{"us": DOWN, "eu": UP}, {"us": HALF, "eu": UP}] * 3).lost == frozenset()


def test_who_reaches_nobody_doubts_itself() -> None:
    assert after(REACHED, *[{"us": DOWN, "eu": DOWN}] * 10).lost == frozenset()
    lost = after(REACHED, *[{"us": DOWN, "eu": UP}] * 2)
    assert after(lost, *[{"us": DOWN, "eu": DOWN}] * 10).lost == {"us"}


def test_what_was_never_reached_from_here_is_not_judged() -> None:
    assert after(Absence(), *[{"us": DOWN, "eu": UP}] * 10).lost == frozenset()


def test_back_after_several_good_rounds_or_with_the_control_plane() -> None:
    lost = after(REACHED, *[{"us": DOWN, "eu": UP}] * 2)
    almost = after(lost, *[{"us": UP, "eu": UP}] * (BACK_AFTER_ROUNDS - 1))
    assert almost.lost == {"us"}
    assert after(almost, {"us": UP, "eu": UP}).lost == frozenset()
    assert after(almost, {"us": DOWN, "eu": UP}, {"us": UP, "eu": UP}).lost == {"us"}, "good rounds count on end"
    assert lost.baseline({"us": DOWN, "eu": UP}).lost == frozenset()


def test_the_lost_are_not_served_wherever_there_are_others() -> None:
    both = view_of(members=endpoints({"us-east1": 2, "europe-west1": 1}))
    only = view_of(members=endpoints({"us-east1": 2}))
    served = without({"both": both, "only": only}, frozenset({"us-east1"}))
    assert set(served["both"].serving) == {"europe-west1"}
    assert served["only"] is only
    assert without({"both": both}, frozenset({"asia-east1"}))["both"] is both

"""When a client thinks that a datacenter is gone, where its share goes then, and how it comes back."""

import random

import pytest

from gslb.model import limits
from gslb.model.plan import Plan, Stamp
from gslb.rpc.policy.failure import Failure
from gslb.rpc.policy.presence import Presence, Sight
from gslb.rpc.policy.suspicion import ASKED, GONE_AFTER, WINDOW_S, Suspicion, Verdict, sample
from gslb.steer.choice import ceded
from gslb.steer.view import ServiceView
from tests.unit.test_rpc_policy import CATALOG, member, table_for


class TestSuspicion:
    def test_one_failure_says_nothing_and_a_second_asks_once(self) -> None:
        suspicion = Suspicion()
        assert not suspicion.cases
        assert suspicion.failed("us", "a", 0.0) is Verdict.NOTHING
        assert suspicion.failed("us", "a", 0.1) is Verdict.NOTHING, "the same task twice corroborates nothing"
        assert suspicion.failed("us", "b", 0.2) is Verdict.ASK
        assert suspicion.failed("us", "c", 0.3) is Verdict.NOTHING
        assert suspicion.failed("us", "d", 0.4) is Verdict.GONE
        assert not suspicion.cases

    def test_an_answer_ends_it(self) -> None:
        suspicion = Suspicion()
        for task in "abc":
            suspicion.failed("us", task, 0.0)
        suspicion.answered("us")
        assert not suspicion.cases
        assert suspicion.failed("us", "d", 0.1) is Verdict.NOTHING

    def test_other_datacenters_and_old_failures_do_not_count(self) -> None:
        suspicion = Suspicion()
        suspicion.failed("us", "a", 0.0)
        assert suspicion.failed("eu", "x", 0.0) is Verdict.NOTHING
        suspicion.answered("eu")
        assert suspicion.failed("us", "b", WINDOW_S + 0.1) is Verdict.NOTHING

    def test_waiting_in_vain_is_reason_to_ask_and_no_proof(self) -> None:
        suspicion = Suspicion()
        verdicts = [suspicion.failed("us", f"t{i}", 0.0, unreached=False) for i in range(20)]
        assert verdicts.count(Verdict.ASK) == 1
        assert Verdict.GONE not in verdicts
        asked = [suspicion.failed("us", f"asked{i}", 0.5) for i in range(ASKED)]
        assert asked[-1] is Verdict.GONE

    def test_a_sample_is_of_different_ones(self) -> None:
        rng = random.Random(1).random
        seen = set()
        for _ in range(100):
            drawn = sample(range(10), rng)
            assert len(set(drawn)) == ASKED
            seen.update(drawn)
        assert seen == set(range(10))
        assert sample([1], rng) == [1]
        assert sample([], rng) == []
        assert ASKED + 1 >= GONE_AFTER - 1


class TestPresence:
    def test_half_of_the_tasks_are_a_datacenter(self) -> None:
        assert Sight(4, 4).worth == Sight(4, 2).worth == 1.0
        assert Sight(10, 4, room=1.25).worth == pytest.approx(0.5)
        assert Sight(10, 4, room=5.0).worth == 1.0
        assert Sight(10, 1, room=1.0).worth == pytest.approx(0.1)
        assert Sight(10, 0, room=9.0).worth == 0.0

    def test_it_falls_at_once_and_rises_by_a_tenth_a_second(self) -> None:
        presence = Presence()
        assert presence.look({"us": Sight(4, 4), "eu": Sight(2, 2)}, 100.0) == {}
        assert presence.look({"us": Sight(4, 0), "eu": Sight(2, 2)}, 200.0) == {"us": 0.0}
        assert not presence.rising, "nobody there answers: there is nothing to wait for"
        assert presence.look({"us": Sight(4, 4), "eu": Sight(2, 2)}, 200.0) == {"us": 0.0}
        assert presence.rising
        seen = []
        now_s = 200.0
        while presence.rising:
            now_s += limits.RETURN_TICK_S
            seen.append(presence.look({"us": Sight(4, 4), "eu": Sight(2, 2)}, now_s).get("us", 1.0))
            assert now_s < 300
        assert seen == sorted(seen)
        assert seen[0] == pytest.approx(0.05)
        assert now_s - 200.0 == pytest.approx(10.0, abs=0.6)
        assert presence.kept == {}

    def test_time_without_an_answer_is_no_part_of_the_return(self) -> None:
        """It was away for minutes, and nobody looked meanwhile."""
        presence = Presence()
        presence.look({"us": Sight(2, 0)}, 100.0)
        assert presence.look({"us": Sight(2, 1)}, 400.0) == {"us": 0.0}
        assert presence.look({"us": Sight(2, 2)}, 400.5) == {"us": pytest.approx(0.05)}

    def test_what_the_control_plane_takes_out_and_gives_back_returns_as_slowly(self) -> None:
        presence = Presence()
        presence.look({"us": Sight(4, 0), "eu": Sight(2, 2)}, 0.0)
        assert presence.look({"eu": Sight(2, 2)}, 1.0) == {}
        assert presence.look({"us": Sight(4, 4), "eu": Sight(2, 2)}, 60.0) == {"us": 0.0}
        assert presence.rising
        assert presence.look({"us": Sight(4, 4), "eu": Sight(2, 2)}, 64.0) == {"us": pytest.approx(0.4)}

    def test_who_takes_connections_and_answers_nothing_gets_a_twentieth(self) -> None:
        presence = Presence()
        presence.look({"us": Sight(2, 0)}, 0.0)
        silent, serving = Sight(2, 2, proved=False), Sight(2, 2)
        presence.look({"us": silent}, 1.0)
        assert presence.look({"us": silent}, 1.3) == {"us": pytest.approx(0.03)}
        assert presence.look({"us": silent}, 9.0) == {"us": limits.RETURN_UNPROVED}
        assert presence.look({"us": serving}, 9.5) == {"us": pytest.approx(limits.RETURN_UNPROVED + 0.05)}
        # One that is going up already is not put back.
        assert presence.look({"us": silent}, 9.6) == {"us": pytest.approx(limits.RETURN_UNPROVED + 0.05)}

    def test_where_nobody_asks_a_datacenter_comes_back_all_the_same(self) -> None:
        presence = Presence()
        silent = Sight(2, 2, proved=False)
        presence.look({"us": Sight(2, 0)}, 0.0)
        presence.look({"us": silent}, 1.0)
        before = 1.0 + limits.RETURN_UNPROVED_S - 0.1
        assert presence.look({"us": silent}, before) == {"us": limits.RETURN_UNPROVED}
        assert presence.look({"us": silent}, before + 1.0) == {"us": pytest.approx(limits.RETURN_UNPROVED + 0.1)}
        # Lost again, it begins anew.
        presence.look({"us": Sight(2, 0)}, before + 2.0)
        presence.look({"us": silent}, before + 3.0)
        assert presence.look({"us": silent}, before + 12.0) == {"us": limits.RETURN_UNPROVED}

    def test_an_answer_proves_a_task_until_a_probe_has_to_bring_it_back(self) -> None:
        one = member("near/u/j/0")
        assert not one.proved
        one.note(None)
        assert one.proved
        one.note(Failure.BROKEN)
        one.probed(ok=True)
        assert not one.proved
        one.note(Failure.ANSWERED)
        assert one.proved

    def test_a_clock_that_stands_still_or_goes_back_raises_nobody(self) -> None:
        presence = Presence()
        presence.look({"us": Sight(4, 0)}, 10.0)
        assert presence.look({"us": Sight(4, 4)}, 5.0) == {"us": 0.0}


class TestCeded:
    MEMBERS = ("near/u/j/0", "mid/u/j/0", "far/u/j/0")
    PLANNED = {"near": {"near": {"far": 0.75, "mid": 0.25}}}  # noqa: RUF012

    def _shares(self, shares: dict[str, float], kept: dict[str, float], planned=None) -> dict[str, float]:
        members = [member(name) for name in self.MEMBERS]
        view = _view(members, shares, planned)
        return dict(ceded(view, "near", shares, kept, CATALOG))

    def test_by_the_contingency(self) -> None:
        shares = self._shares({"near": 0.8, "mid": 0.2}, {"near": 0.5}, self.PLANNED)
        assert shares == pytest.approx({"near": 0.4, "mid": 0.3, "far": 0.3})

    def test_without_one_in_proportion_else_to_the_next(self) -> None:
        assert self._shares({"near": 0.8, "mid": 0.2}, {"near": 0.25}) == pytest.approx({"near": 0.2, "mid": 0.8})
        assert self._shares({"near": 1.0}, {"near": 0.0}) == pytest.approx({"mid": 1.0})

    def test_heirs_are_whole_and_without_any_all_stays(self) -> None:
        assert self._shares({"near": 1.0}, {"near": 0.0, "far": 0.5}, self.PLANNED) == pytest.approx({"mid": 1.0})
        everybody = {"near": 0.1, "mid": 0.1, "far": 0.1}
        assert self._shares({"near": 0.8, "mid": 0.2}, everybody) == pytest.approx({"near": 0.8, "mid": 0.2})

    def test_nothing_ceded_is_the_same_object(self) -> None:
        shares = {"near": 1.0}
        members = [member(name) for name in self.MEMBERS]
        assert ceded(_view(members, shares, None), "near", shares, {"far": 0.5}, CATALOG) is shares


def _view(members, shares, planned):
    plan = Plan("s", Stamp(1, 1, 1), shares={"near": shares}, contingencies=planned or {})
    return ServiceView.build("s", plan=plan, endpoints={one.endpoint.task: one.endpoint for one in members})


def test_a_table_without_exceptions_is_as_before() -> None:
    members = [member("near/u/j/0"), member("far/u/j/0")]
    assert table_for(members, {"near": 0.75, "far": 0.25}).shares == {"near": 0.75, "far": 0.25}

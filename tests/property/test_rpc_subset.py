"""Subsets of tasks: full, even, and moved no more than must be, whatever comes and goes."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gslb.rpc.policy.subset import HOLD_S, Change, Subset
from gslb.sim.replicas.connections import Connections


def fleet(clients: int, tasks: int, size: int, seed: int) -> Connections:
    found = Connections(random.Random(seed), size)
    found.set_tasks(f"t{i}" for i in range(tasks))
    found.add_clients(f"c{i}" for i in range(clients))
    found.settle()
    return found


SIZES = {"clients": st.integers(1, 60), "tasks": st.integers(1, 60), "size": st.integers(1, 20), "seed": st.integers()}


@settings(max_examples=25, deadline=None)
@given(**SIZES, churn=st.lists(st.tuples(st.sampled_from("tcx"), st.integers(1, 60)), max_size=3))
def test_subsets_are_full_even_and_of_existing_tasks_after_any_churn(clients, tasks, size, seed, churn):
    found = fleet(clients, tasks, size, seed)
    for turn, (what, count) in enumerate(churn):
        if what == "t":
            found.set_tasks(f"t{i}" for i in range(count))
            found.hold()
        elif what == "c":
            found.remove_clients([name for i, name in enumerate(list(found.clients)) if i > 0 and i < count])
        else:
            found.add_clients(f"x{turn}-{i}" for i in range(count))
        found.settle()
    for client in found.clients.values():
        assert len(client.usable) == len(client.chosen) == min(size, len(found.tasks))
    counts = found.counts()
    assert sum(counts) == sum(len(client.chosen) for client in found.clients.values())
    # One connection, or a twentieth, above the mean; the odd one is a comparison that has not been drawn yet.
    assert max(counts) <= max(found.mean() + 2, 1.1 * found.mean())
    before = {name: set(client.chosen) for name, client in found.clients.items()}
    found.settle()
    moved = sum(len(before[name] - client.chosen) for name, client in found.clients.items())
    assert moved <= 0.02 * sum(counts) + 2


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(), lost=st.integers(1, 4))
def test_one_move_is_enough_for_each_connection_that_must_move(seed, lost):
    found = fleet(60, 60, 12, seed)
    found.made = 0
    found.set_tasks(f"t{i}" for i in range(60 - lost))
    found.hold()
    found.set_tasks(f"t{i}" for i in range(60 - lost))
    least = found.excess()
    found.settle()
    assert least <= found.made <= 1.5 * least + 3


def test_a_restarted_task_gets_its_clients_back_and_nobody_else_moves():
    found = fleet(60, 60, 12, 1)
    before = {name: set(client.chosen) for name, client in found.clients.items()}
    clients = found.per_task["t7"]
    found.made = 0
    found.set_tasks(f"t{i}" for i in range(60) if i != 7)
    found.settle()
    assert found.made == 0
    found.set_tasks(f"t{i}" for i in range(60))
    found.settle()
    assert found.made == clients
    assert {name: client.chosen for name, client in found.clients.items()} == before


def test_the_places_of_a_task_that_stays_away_are_filled():
    subset = Subset(3)
    subset.tasks(["a", "b", "c", "d"], 0.0)
    assert subset.decide({"a": 1, "b": 1, "c": 1, "d": 9}) == Change(("a", "b", "c"))
    assert subset.tasks(["b", "c", "d"], 1.0) == ()
    assert (subset.vacancies, subset.usable) == (0, {"b", "c"})
    assert subset.tasks(["b", "c", "d"], 1.0 + HOLD_S) == ("a",)
    assert subset.vacancies == 1
    assert subset.decide({"d": 9}) == Change(("d",))


def test_places_are_not_held_when_most_are_away():
    subset = Subset(3)
    subset.tasks(["a", "b", "c", "d", "e"], 0.0)
    subset.decide({"a": 1, "b": 1, "c": 1})
    subset.tasks(["a", "d", "e"], 1.0)
    assert subset.vacancies == 2
    subset.decide({"d": 1, "e": 1})
    subset.tasks(["a", "b", "c", "d", "e"], 2.0)
    left = [subset.decide(dict.fromkeys("abcde", 1)).leave for _ in range(3)]
    assert [len(tasks) for tasks in left] == [1, 1, 0]
    assert len(subset.usable) == 3

"""However changes come, a view is what a fresh list would be; whoever vanishes, a job keeps half of its names."""

from hypothesis import given, settings
from hypothesis import strategies as st

from bns.fanout import prefixes_of
from bns.model import Agent, Task
from bns.names import check_prefix
from bns.paging import PageToken, parse_page_token
from bns.reaping import ReaperState, ReapPolicy, decide, note_removed, observe
from bns.view import AgentKey, BnsView, Change, TaskIndex, Unreadable, fold

NAMES = st.sampled_from(
    [f"/bns/{dc}/u/{job}/{n}" for dc in ("a", "a-b") for job in ("j", "j-1", "k") for n in range(4)]
)
AGENTS = st.sampled_from(["x", "y", ""])


def tasks() -> st.SearchStrategy[Task]:
    return st.builds(Task, name=NAMES, address=st.just("127.0.0.1"), port=st.integers(1, 3), agent=AGENTS)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    kind = draw(st.sampled_from(["put", "put", "delete", "bad", "agent", "agent gone", "bad agent"]))
    if kind == "put":
        made = draw(tasks())
        return Change(made.name, made)
    if kind == "delete":
        return Change(draw(NAMES), None)
    if kind == "bad":
        return Change(draw(NAMES), Unreadable(draw(st.sampled_from(["junk", "worse"]))))
    name = draw(st.sampled_from(["x", "y"]))
    key = f"/bns-agent/a/{name}"
    if kind == "agent":
        return Change(key, Agent(name, "a", "m", "b", draw(st.sampled_from(["s1", "s2"]))))
    return Change(key, None if kind == "agent gone" else Unreadable("junk"))


@settings(deadline=None)
@given(st.lists(st.lists(changes(), max_size=6), max_size=12))
def test_a_view_is_what_the_changes_add_up_to(batches: list[list[Change]]) -> None:
    view = BnsView()
    good: dict[str, Task] = {}
    agents: dict[AgentKey, Agent] = {}
    bad: dict[str, str] = {}
    for revision, batch in enumerate(batches, 1):
        before = dict(good)
        kept = view
        kept_tasks = dict(kept.tasks)
        view, changed = fold(view, batch, revision)
        for change in batch:
            if isinstance(change.value, Unreadable):
                bad[change.key] = change.value.reason
                continue
            bad.pop(change.key, None)
            parts = change.key.split("/")
            if isinstance(change.value, Task):
                good[change.key] = change.value
            elif isinstance(change.value, Agent):
                agents[parts[2], parts[3]] = change.value
            elif parts[1] == "bns":
                good.pop(change.key, None)
            else:
                agents.pop((parts[2], parts[3]), None)
        assert dict(view.tasks) == good
        assert len(view.tasks) == len(good)
        assert dict(view.agents) == agents
        assert dict(view.quarantined) == bad
        assert view.revision == revision
        assert changed == {name for name in good.keys() | before.keys() if good.get(name) != before.get(name)}
        assert dict(kept.tasks) == kept_tasks, "the view before is as it was"
        check_indexes(view.tasks, good)


def check_indexes(index: TaskIndex, good: dict[str, Task]) -> None:
    for task in good.values():
        assert index.job(task.job)[task.name] is index[task.name]
        assert task.name in index.owned_by(task.datacenter, task.agent)
    assert sum(len(names) for names in index.owners.values()) == len(good)
    assert all(index.owners.values())
    assert all(index.jobs.values())
    for prefix in ("/bns/", "/bns/a", "/bns/a/u/j", "/bns/a-b/u", "/bns/a/u/j/0"):
        checked = check_prefix(prefix)
        expected = sorted(
            name for name in good if name == checked or (checked.endswith("/") and name.startswith(checked))
        )
        assert [task.name for task in index.under(checked)] == expected
        for name in good:
            assert (checked in prefixes_of(name)) == (name in expected)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(NAMES, st.sampled_from(["x", "y", "z"]), min_size=1),
    st.lists(st.tuples(st.sets(st.sampled_from(["x", "y", "z"])), st.booleans(), st.floats(0.0, 40.0)), max_size=40),
    st.floats(0.1, 1.0),
)
def test_a_job_never_loses_more_than_its_budget(
    held: dict[str, str], looks: list[tuple[set[str], bool, float]], fraction: float
) -> None:
    policy = ReapPolicy(after_s=60.0, budget_fraction=fraction, window_s=30.0)
    index = TaskIndex().with_changes({name: Task(name, "127.0.0.1", 1, agent=agent) for name, agent in held.items()})
    jobs = {name.rpartition("/")[0] for name in held}
    state, now_s = ReaperState(), 0.0
    sizes: list[tuple[float, dict[str, int]]] = []
    for away, reachable, step_s in looks:
        now_s += step_s
        absent = {owner for owner in index.owners if owner[1] in away}
        state = observe(state, absent if reachable else None, now_s)
        sizes.append((now_s, {job: len(index.job(job)) for job in jobs}))
        decision = decide(state, index, now_s, policy)
        for name in decision.remove:
            assert index[name].agent in away, "whoever is there keeps what it has"
        state = note_removed(state, decision.remove, now_s, policy)
        index = index.with_changes(dict.fromkeys(decision.remove))
        for at_s, then in sizes:
            if now_s - at_s < policy.window_s:
                for job, size in then.items():
                    assert size - len(index.job(job)) <= size * fraction
        assert all(len(index.job(job)) >= 1 for job in jobs)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_a_page_token_that_is_not_ours_is_refused_and_ours_survives(text: str) -> None:
    try:
        found = parse_page_token(text)
    except ValueError:
        return
    assert parse_page_token(found.encode()) == found


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1), NAMES)
def test_page_tokens_survive(revision: int, name: str) -> None:
    assert parse_page_token(PageToken(revision, name).encode()) == PageToken(revision, name)

"""For every invariant of the design a planted bug, and the test that goes red for it.

A copy of the sources is patched, one line at a time, and the test runs on it in a process of its own. So each test named
here is known to be able to fail, and for the reason that it is there for. Whoever changes a patched line changes the table.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

# Several of them start an etcd; none takes more than a few seconds of CPU.
pytestmark = [pytest.mark.xdist_group("planted"), pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
COPIED = ("agents", "bns", "dns_frontend", "examples", "gslb", "tests")
TIMEOUT_S = 240
# Which input breaks it is of no interest here, so nothing is made smaller.
PROFILE = """
from hypothesis import Phase as _Phase, settings as _settings
_settings.register_profile("planted", phases=[_Phase.generate], derandomize=True, deadline=None, database=None)
"""

PUBLISH, PLAN = "tests/integration/test_control_publish.py", "tests/property/test_balancer_plan.py"
STEP, SAFETY = "tests/unit/test_balancer_step.py", "tests/unit/test_balancer_safety.py"
QUOTAS = "tests/property/test_quota.py"
DRAINS, CALLEES = "tests/unit/test_balancer_drains.py", "tests/unit/test_balancer_callees.py"
RAMPS, VIEW, READER = (
    "tests/unit/test_balancer_ramps.py",
    "tests/unit/test_control_view.py",
    "tests/unit/test_wire_reader.py",
)


@dataclass(frozen=True, slots=True)
class Bug:
    """`old` stands once in `file`; with `new` in its place, `test` fails."""

    rule: str  # number of the invariant, or the property
    what: str
    file: str
    old: str
    new: str
    test: str


BUGS = (
    Bug(
        "1",
        "plans are written without the leader's fence",
        "gslb/control/publish.py",
        "[leadership.fence(), *(",
        "[*(",
        f"{PUBLISH}::test_a_deposed_leader_that_wakes_up_overwrites_nothing",
    ),
    Bug(
        "1",
        "the version of a plan is not compared",
        "gslb/control/publish.py",
        '*(compare_mod(write.key, "==", write.mod_revision) for write in chunk)',
        "",
        f"{PUBLISH}::test_the_version_is_compared_even_by_a_true_leader",
    ),
    Bug(
        "2",
        "no panic: with nobody healthy there is no capacity",
        "gslb/balancer/capacity.py",
        "        return willing if any(willing) else tuple(site.declared_rps for site in self.datacenters)",
        "        return usable",
        f"{STEP}::test_a_drain_of_everything_still_leaves_an_answer",
    ),
    Bug(
        "2",
        "a reader takes an update that empties a service",
        "gslb/wire/reader.py",
        "    if not target and held.endpoints:",
        "    if False:",
        f"{READER}::test_endpoints_never_become_empty_by_an_update",
    ),
    Bug(
        "2",
        "an empty plan passes",
        "gslb/balancer/safety.py",
        "    if not plan.shares:",
        "    if False:",
        SAFETY,
    ),
    Bug(
        "3",
        "names may vanish without limit",
        "gslb/balancer/safety.py",
        "        if missing > allowed:",
        "        if False:",
        f"{SAFETY}::test_half_of_the_names_may_go_in_a_window_and_not_one_more",
    ),
    Bug(
        "3",
        "what an operator deleted counts as vanished",
        "gslb/balancer/step.py",
        "services.without(inputs.deleted.services)",
        "services",
        f"{STEP}::test_services_that_an_operator_deleted_go_at_once_however_many",
    ),
    Bug(
        "3",
        "beside a deletion everything that vanished goes too",
        "gslb/balancer/step.py",
        "if names.lost_services else set()",
        "if names.lost_services and not inputs.deleted.services else set()",
        f"{STEP}::test_what_vanished_beside_deletions_is_still_held",
    ),
    Bug(
        "quotas",
        "a part of the quota is handed out twice",
        "gslb/balancer/quota.py",
        "(1.0 - ROOM) * min(1.0, part) + ROOM / count",
        "min(1.0, part) + ROOM / count",
        f"{QUOTAS}::test_shares_that_are_parts_sum_up_to_the_quota",
    ),
    Bug(
        "quotas",
        "who was over his quota is let go at once",
        "gslb/balancer/quota.py",
        "    elif now_s - client.calm_s >= HOLD_S:",
        "    else:",
        "tests/unit/test_balancer_quota.py::TestStanding::test_it_is_left_step_by_step_after_a_calm_time",
    ),
    Bug(
        "quotas",
        "what was saved up is spent beyond the quota",
        "gslb/rpc/policy/quota.py",
        "            self.tokens = min(self.tokens, 0.0)",
        "            pass",
        "tests/unit/test_rpc_quota.py::TestRequests::test_who_turns_out_to_be_over_has_saved_nothing",
    ),
    Bug(
        "quotas",
        "what a request took is not owed",
        "gslb/rpc/policy/quota.py",
        "            self._spend(cpu_s)",
        "            self._spend(0.5 * cpu_s)",
        "tests/unit/test_rpc_quota.py::TestCpu::test_what_requests_take_is_known_afterwards_and_owed",
    ),
    Bug(
        "quotas",
        "a replica that has just started gives shares at once",
        "gslb/control/quotas.py",
        "        if now_s < self._settled_s or not self._known:",
        "        if not self._known:",
        "tests/unit/test_control_quotas.py::test_before_it_has_settled_it_listens_and_gives_no_shares",
    ),
    Bug(
        "demand",
        "what speaks for a rise is forgotten with each report",
        "gslb/balancer/demand.py",
        "max(0.0, before.surplus + excess",
        "max(0.0, excess",
        "tests/unit/test_balancer_demand.py::test_a_rise_that_no_single_report_shows_is_seen_when_it_lasts",
    ),
    Bug(
        "capacity",
        "whatever a drained datacenter uses is its idle CPU",
        "gslb/balancer/learning.py",
        "    if peer_idle is not None and seen > ",
        "    if False and seen > ",
        "tests/unit/test_balancer_learning.py::test_what_runs_beside_a_job_is_no_idle_cpu_where_others_know_theirs",
    ),
    Bug(
        "4",
        "an agent's silence alone is a death",
        "gslb/balancer/verdict.py",
        "    return previous if evidence.reported is None else evidence.reported",
        "    return HealthStatus.TIMEOUT",
        "tests/unit/test_control_verdict.py::test_silence_alone_never_takes_a_healthy_task_out",
    ),
    Bug(
        "4",
        "a failing witness is not believed",
        "gslb/balancer/verdict.py",
        "    if evidence.witness is Witness.FAILING or (evidence.lost and evidence.witness is Witness.NONE):",
        "    if False:",
        "tests/unit/test_control_verdict.py::test_table",
    ),
    Bug(
        "4",
        "recovery bypasses the ramps",
        "gslb/balancer/damping.py",
        "    growth: Vector = GROWTH_PER_PERIOD * periods * used_rps",
        "    growth: Vector = 100 * used_rps",
        "tests/unit/test_balancer_damping.py::test_a_drained_datacenter_is_empty_at_once_and_returns_in_bounded_steps",
    ),
    Bug(
        "5",
        "a DNS frontend starts without its snapshot",
        "dns_frontend/server.py",
        "            found = load(path)",
        "            return",
        "tests/integration/test_dns_survival.py::test_a_restart_answers_from_disk_without_anybody",
    ),
    Bug(
        "6",
        "a cold replica answers",
        "gslb/control/fanout/servicer.py",
        "            if not (self._hub.warm and subscriber.subscribed):",
        "            if not subscriber.subscribed:",
        "tests/integration/test_control_command.py::test_a_cold_replica_answers_nobody_until_the_agents_have_spoken",
    ),
    Bug(
        "7",
        "a drain is admitted without headroom",
        "gslb/balancer/drains.py",
        "    remaining = after * (1 - limits.DRAIN_HEADROOM_FRACTION)",
        "    remaining = after",
        f"{DRAINS}::test_the_refusal_names_the_rule_and_the_numbers",
    ),
    Bug(
        "7",
        "a drain may take the last healthy task",
        "gslb/balancer/drains.py",
        "    if before > 0 and after == 0:",
        "    if False:",
        f"{DRAINS}::test_the_last_healthy_task_is_not_drained",
    ),
    Bug(
        "7",
        "drains in force are forgotten when another one is judged",
        "gslb/balancer/drains.py",
        "coverage_of([*others, drain], inputs.catalog)",
        "coverage_of([drain], inputs.catalog)",
        f"{PLAN}::test_a_hundred_thousand_random_drain_states_never_admit_an_unsafe_one[0]",
    ),
    Bug(
        "7",
        "callees do not follow their callers",
        "gslb/balancer/callees.py",
        "            moved[callee] = _added(base, changes)",
        "            moved[callee] = base",
        f"{CALLEES}::test_draining_the_frontend_moves_all_that_it_calls_and_what_those_call",
    ),
    Bug(
        "7",
        "a callee that does not fit is no reason to refuse",
        "gslb/balancer/drains.py",
        "        if remaining < demand and room.rps < was * (1 - SAME_ROOM_FRACTION):",
        "        if False:",
        f"{CALLEES}::test_a_drain_is_refused_when_a_callee_does_not_fit_beside_those_who_arrive",
    ),
    Bug(
        "7",
        "a drain has no end",
        "gslb/model/resources.py",
        "        return self.starts_at <= now < self.expires_at",
        "        return self.starts_at <= now",
        f"{DRAINS}::test_drains_hold_from_their_start_until_they_expire",
    ),
    Bug(
        "7",
        "what expires returns onto ill tasks",
        "gslb/balancer/capacity.py",
        "        healthy = task.health is HealthStatus.HEALTHY\n",
        "        healthy = task.health is not HealthStatus.DRAINING\n",
        f"{RAMPS}::test_a_drain_that_expires_onto_ill_tasks_returns_nothing",
    ),
    Bug(
        "8",
        "a bad record takes the good one away",
        "gslb/control/view/config.py",
        "            self._quarantined[kv.key] = str(error)\n",
        "            self._quarantined[kv.key] = str(error)\n            self._stored.pop(kv.key, None)\n",
        f"{VIEW}::TestConfig::test_a_bad_record_leaves_the_last_good_one",
    ),
    Bug(
        "8",
        "a damaged plan is taken",
        "gslb/wire/plans.py",
        "    if plan.checksum != checksum_of(plan):",
        "    if False:",
        "tests/property/test_wire_codec.py::test_damaged_plans_are_refused_by_their_checksum",
    ),
    Bug(
        "9",
        "as many reporters are remembered as come",
        "gslb/balancer/demand.py",
        "        if known is None and len(self._reporters) >= REPORTERS_MAX:",
        "        if False:",
        "tests/unit/test_balancer_demand.py::test_memory_is_bounded_in_reporters_and_rows",
    ),
    Bug(
        "10",
        "retries have no budget",
        "gslb/rpc/policy/budget.py",
        "            self.reserve -= 1.0\n",
        "            pass\n",
        "tests/unit/test_rpc_policy.py",
    ),
    Bug(
        "10",
        "waits have no jitter",
        "gslb/rpc/policy/backoff.py",
        "    return whole * (0.5 + 0.5 * u)",
        "    return whole",
        "tests/unit/test_rpc_policy.py",
    ),
    Bug(
        "11",
        "a name may be as long as it likes",
        "dns_frontend/responder/message.py",
        "    if at - HEADER_OCTETS > NAME_MAX_OCTETS:",
        "    if False:",
        "tests/unit/test_dns_messages.py",
    ),
    Bug(
        "11, a drained scope gets nothing",
        "the drain of a job covers nothing",
        "gslb/balancer/coverage.py",
        "            or self.by_job.get(task.job)\n",
        "",
        f"{STEP}::test_every_scope_that_covers_all_tasks_empties_the_datacenter",
    ),
    Bug(
        "demand is conserved",
        "crumbs that the ramp drops are lost",
        "gslb/balancer/damping.py",
        "    rows: Matrix = kept / kept.sum(axis=1, keepdims=True)",
        "    rows: Matrix = kept * 0.999",
        "tests/unit/test_balancer_damping.py",
    ),
    Bug(
        "never over capacity while feasible",
        "a plan counts on twice the capacity that there is",
        "gslb/balancer/replan.py",
        "    plannable = plannable_rps(used, float(demand.sum()))",
        "    plannable = 2 * plannable_rps(used, float(demand.sum()))",
        f"{PLAN}::test_nobody_is_beyond_his_capacity_while_there_is_room_elsewhere",
    ),
    Bug(
        "never over capacity while feasible",
        "growth is ramped even where somebody is overfull meanwhile",
        "gslb/balancer/damping.py",
        "    return float(min(max(allowed.min(initial=1.0), needed.max(initial=0.0)), 1.0))",
        "    return float(min(allowed.min(initial=1.0), 1.0))",
        f"{PLAN}::test_nobody_is_beyond_his_capacity_while_there_is_room_elsewhere",
    ),
    Bug(
        "contingencies fit",
        "a contingency is made as if callers stayed where they are",
        "gslb/balancer/step.py",
        "Calls(moves, backing.get(name))",
        "Calls(None, backing.get(name))",
        "tests/property/test_balancer_following.py::test_no_survivor_is_overfull_after_a_loss_that_moves_the_callers_too",
    ),
    Bug(
        "contingencies fit",
        "a contingency counts a front door's room, whatever is behind it",
        "gslb/balancer/step.py",
        "Calls(moves, backing.get(name))",
        "Calls(moves, None)",
        "tests/property/test_balancer_following.py::test_a_loss_fills_no_front_door_whose_house_is_full",
    ),
    Bug(
        "contingencies fit",
        "contingencies are held as long as the plan, however much demand grew within its band",
        "gslb/balancer/service_step.py",
        "if not contingency.fits(today, plan):",
        "if False:",
        "tests/unit/test_balancer_contingency.py::test_a_plan_that_is_held_for_more_demand_still_says_where_the_lost_fit",
    ),
    Bug(
        "the same inputs give the same plan",
        "datacenters are summed up in the order in which they come",
        "gslb/balancer/capacity.py",
        "for name in sorted(sums))",
        "for name in sums)",
        f"{PLAN}::test_the_same_inputs_give_the_same_plan_in_whatever_order_they_come",
    ),
    Bug(
        "shares sum to 1",
        "shares that do not are not noticed",
        "gslb/balancer/safety.py",
        "    if abs(total - 1) > limits.SHARE_SUM_TOLERANCE:",
        "    if False:",
        SAFETY,
    ),
    Bug(
        "every published plan passes safety",
        "the rules are not asked",
        "gslb/balancer/replan.py",
        "    violations = plan_violations(plan, network.localities, names)\n    if violations:",
        "    violations = plan_violations(plan, network.localities, names)\n    if False:",
        f"{STEP}::test_a_plan_that_breaks_a_rule_is_held_and_says_so",
    ),
    Bug(
        "bad input",
        "a number that is no rate ends the step",
        "gslb/balancer/service_step.py",
        "    except FAULTS as fault:",
        "    except KeyboardInterrupt as fault:",
        f"{PLAN}::test_wild_numbers_never_raise",
    ),
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources and their tests, to be patched."""
    made = tmp_path_factory.mktemp("planted")
    for name in COPIED:
        shutil.copytree(ROOT / name, made / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    shutil.copy(ROOT / "pyproject.toml", made)
    with (made / "tests/conftest.py").open("a") as conftest:
        conftest.write(PROFILE)
    return made


def run(copy: Path, test: str) -> subprocess.CompletedProcess[str]:
    options = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=planted", "--tb=line")
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", *options, test]
    return subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.rule}: {bug.what}")
def test_a_planted_bug_is_found(copy: Path, bug: Bug) -> None:
    path = copy / bug.file
    source = path.read_text()
    assert source.count(bug.old) == 1, f"{bug.file} has changed: {bug.old!r} stands there {source.count(bug.old)} times"
    planted = source.replace(bug.old, bug.new)
    compile(planted, bug.file, "exec")
    path.write_text(planted)
    try:
        done = run(copy, bug.test)
    finally:
        path.write_text(source)
    said = done.stdout + done.stderr
    # 1: tests ran, and some failed; anything else is no verdict.
    assert done.returncode == 1, f"{bug.test} does not notice that {bug.what}:\n{said[-2000:]}"
    assert " failed" in said, said[-2000:]


def test_without_a_bug_nothing_fails(copy: Path) -> None:
    """Or the copy itself would be what fails: the quick ones of those tests, on the sources as they are."""
    quick = sorted({bug.test for bug in BUGS if bug.test.startswith("tests/unit/")})
    options = ("-q", "-p", "no:cacheprovider", "--hypothesis-profile=planted")
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *quick],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_every_invariant_of_the_design_has_its_bug() -> None:
    numbers = {int(bug.rule.split(",")[0]) for bug in BUGS if bug.rule[0].isdigit()}
    assert numbers == set(range(1, 12))

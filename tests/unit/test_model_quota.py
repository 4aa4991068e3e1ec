"""A service's quotas as their owner writes them."""

import pytest

from gslb.config.dump import dump
from gslb.config.errors import ConfigError
from gslb.config.load import load
from gslb.model.quota import Quota, Unit
from gslb.wire.codec import resource_from_bytes, resource_to_bytes

SERVICE = """
kind: Service
name: search
spec:
  backends:
    - {job: /bns/us-east1/u/search, task_capacity_rps: 10}
  quotas:
%s
"""


def quotas_of(*lines: str) -> str:
    return SERVICE % "\n".join(f"    - {line}" for line in lines)


def test_both_units_and_everybody_else() -> None:
    (service,) = load(
        quotas_of("{caller: web, rps: 100}", "{caller: batch, cpu_cores: 2.5}", "{caller: '*', rps: 7}"), "f.yaml"
    )
    assert service.quotas == (Quota("web", rps=100.0), Quota("batch", cpu_cores=2.5), Quota("*", rps=7.0))
    assert [(quota.unit, quota.rate) for quota in service.quotas] == [
        (Unit.RPS, 100.0),
        (Unit.CPU, 2.5),
        (Unit.RPS, 7.0),
    ]
    assert resource_from_bytes(resource_to_bytes(service)) == service
    assert load(dump([service]), "again.yaml") == [service]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{caller: web}"], "spec.quotas[0]: 'web' has rps 0 and cpu_cores 0: give one of the two, above 0"),
        (["{caller: web, rps: 1, cpu_cores: 1}"], "'web' has rps 1 and cpu_cores 1: give one of the two"),
        (["{caller: web, rps: 1}", "{caller: web, rps: 2}"], "spec.quotas[1]: 'web' is listed twice: keep one"),
        (["{caller: web, rps: -1}"], "spec.quotas[0].rps: -1 is out of range"),
        (["{caller: web, rps: .nan}"], "spec.quotas[0].rps: nan is out of range"),
        (["{caller: Web, rps: 1}"], "spec.quotas[0].caller: "),
        (["{rps: 1}"], "spec.quotas[0].caller: missing"),
        (["{caller: web, cpu: 1}"], "no such field: known are caller, rps, cpu_cores"),
    ],
)
def test_what_is_refused(lines: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(quotas_of(*lines), "f.yaml")
    assert any(message in problem for problem in caught.value.problems), caught.value.problems

"""Lines of `gslb check` that need no running planet."""

import pytest

from gslb.balancer.sharing import Shared, Use
from gslb.control.admin.findings import ERROR, OK, WARNING, shared_findings
from gslb.v1 import admin_pb2

CPU = Shared("us-east1", "CPU", 16.0, "cores")


@pytest.mark.parametrize(
    ("used", "severity", "words"),
    [(8.0, OK, "8 of 16 cores, 50%"), (15.9, WARNING, "goes elsewhere"), (17.0, ERROR, "it is not enough for all")],
)
def test_what_services_share_is_told_with_its_numbers(
    used: float, severity: admin_pb2.Severity.ValueType, words: str
) -> None:
    (finding,) = shared_findings([Use(CPU, used)])
    assert (finding.severity, finding.subject) == (severity, "CPU of us-east1")
    assert words in finding.message

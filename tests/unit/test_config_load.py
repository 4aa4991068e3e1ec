"""Configuration files: what is read, and one clear line with its place for everything that is not."""

import time
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest

from gslb.config.errors import ConfigError
from gslb.config.load import load
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.resources import (
    Backend,
    CapacityMode,
    ClientArea,
    Datacenter,
    DemandSource,
    Drain,
    DrainScope,
    Service,
    Zone,
)

PLANET = """\
# A planet.
kind: Datacenter
name: us-east1
spec: {region: na, latitude: 33.196, longitude: -80, uplink_mbps: 1e4}
---
kind: ClientArea
name: north-america
owner: sre
spec:
  latitude: 39.0
  longitude: -98.0
  cidrs:
  - 10.1.0.0/16
  - "2001:db8::/32"
---
---
kind: Service
name: shakespeare-gfe
spec:
  backends:
  - {job: /bns/us-east1/shakespeare/gfe, task_capacity_rps: 30}
  - job: /bns/asia-east1/shakespeare/gfe
    task_capacity_rps: 12.5
    mode: utilization
    target_utilization: 0.65
  source: edge
  dns_names: [www.shakespeare.example]
  ttl_s: 20
  addresses_per_answer: 3
  max_utilization: 0.75
  port_name: http
---
kind: Drain
name: power
spec:
  scope: datacenter
  target: us-east1
  reason: "power maintenance: PDU 3"
  starts_at: 2026-11-21T12:00:00Z
  expires_at: 2026-11-21T16:00:00+02:00
---
kind: Zone
name: shakespeare.example
meta: {generation: 4, updated_at: 2026-11-21T12:00:00Z, principal: ann}
spec:
  records: |
    $TTL 300
    @ SOA ns1 hostmaster 1 7200 900 1209600 60
"""
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, "f.yaml")
    assert str(caught.value).splitlines()[: len(caught.value.problems)] == list(caught.value.problems)
    return list(caught.value.problems)


def test_every_kind_is_read() -> None:
    assert load(PLANET, "planet.yaml") == [
        Datacenter(Meta("us-east1"), "na", Coordinates(33.196, -80.0), 10_000.0),
        ClientArea(
            Meta("north-america", "sre"),
            Coordinates(39.0, -98.0),
            (ip_network("10.1.0.0/16"), ip_network("2001:db8::/32")),
        ),
        Service(
            Meta("shakespeare-gfe"),
            (
                Backend("/bns/us-east1/shakespeare/gfe", 30.0),
                Backend("/bns/asia-east1/shakespeare/gfe", 12.5, CapacityMode.UTILIZATION, 0.65),
            ),
            DemandSource.EDGE,
            0.75,
            ("www.shakespeare.example",),
            20,
            3,
            "http",
        ),
        Drain(
            Meta("power"),
            DrainScope.DATACENTER,
            "us-east1",
            "power maintenance: PDU 3",
            "",
            NOON,
            datetime(2026, 11, 21, 14, tzinfo=UTC),
        ),
        Zone(
            Meta("shakespeare.example", "default", 4, NOON, None, "ann"),
            "$TTL 300\n@ SOA ns1 hostmaster 1 7200 900 1209600 60\n",
        ),
    ]


SERVICE = "kind: Service\nname: a\nspec:\n  backends: [{job: /bns/x/y/z, task_capacity_rps: 1}]\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        # Not YAML
        ("a: [", "f.yaml:2: not YAML: did not find expected node content"),
        ("\tkind: x", "f.yaml:1: not YAML: found character that cannot start any token"),
        ("kind: Zone\nname: a\x07b\n", "f.yaml:2: not YAML: it has a character that YAML does not allow"),
        (b"kind: Zone\nname: \xff\n", "f.yaml:2: not UTF-8 text"),
        ("kind: Zone\nname: \ud800\n", "f.yaml:2: not UTF-8 text"),
        ("", "f.yaml:1: there is nothing in it: write documents of kind Datacenter"),
        ("---\n# only a comment\n---\n", "f.yaml:1: there is nothing in it"),
        # Not a document of ours
        ("- 1", "f.yaml:1: a document must be a mapping"),
        ("name: x", "f.yaml:1: 'kind' is missing: give one of Datacenter, ClientArea, Service"),
        ("\nkind: [Service]", "f.yaml:2: 'kind' is missing"),
        ("kind: service", "f.yaml:1: there is no kind 'service': did you mean 'Service'?"),
        ("kind: Pod", "f.yaml:1: there is no kind 'Pod': known are Datacenter, ClientArea"),
        ("kind: Zone\nname: a.b\n", "f.yaml:1: spec: missing: give the fields of the Zone"),
        ("kind: Zone\nname: a.b\nspec: 3", "f.yaml:3: spec: '3' is not a mapping: give one with records"),
        # Names
        ("kind: Zone\nspec: {records: x}", "f.yaml:1: name: missing: give the origin of the zone"),
        ("kind: Zone\nname: A.b\nspec: {records: x}", "f.yaml:2: name: 'A.b' must be written in lower case"),
        (SERVICE.replace("name: a", "name: A_b"), "f.yaml:2: name: 'A_b' is not a DNS label: use 1 to 63 of a-z"),
        (SERVICE.replace("name: a", "name: 12"), "f.yaml:2: name: 12 is read as a number, text is wanted: put it in"),
        (SERVICE.replace("name: a", "name: no"), "f.yaml:2: name: no is read as true or false, text is wanted"),
        (SERVICE.replace("name: a", "name:"), "f.yaml:2: name: has no value: give the name, or remove the line"),
        (SERVICE.replace("name: a", "name: [a]"), "f.yaml:2: name: a list is not text: give the name"),
        # Fields
        (SERVICE + "  backend: []", "f.yaml:5: spec.backend: no such field: did you mean 'backends'?"),
        (SERVICE + "  x: []", "f.yaml:5: spec.x: no such field: known are backends, source, max_utilization"),
        (SERVICE + "  [x]: 1", "f.yaml:5: spec.: no such field"),
        (SERVICE + "  ttl_s: 5\n  ttl_s: 6", "f.yaml:6: spec.ttl_s: stands at line 5 already: keep one"),
        (SERVICE + "  ttl_s: 0", "f.yaml:5: spec.ttl_s: 0 is out of range: give how long a DNS answer may be kept"),
        (SERVICE + "  ttl_s: 1.5", "f.yaml:5: spec.ttl_s: '1.5' is not a whole number"),
        (SERVICE + f"  ttl_s: {'9' * 5000}", "f.yaml:5: spec.ttl_s: '9999"),
        (SERVICE + "  ttl_s: '30'", "f.yaml:5: spec.ttl_s: '30' is text, a whole number is wanted: remove the quotes"),
        (SERVICE + "  source: dsn", "f.yaml:5: spec.source: 'dsn' is not one of rpc, edge, dns"),
        (SERVICE + "  max_utilization: .nan", "f.yaml:5: spec.max_utilization: nan is out of range"),
        (SERVICE + "  max_utilization: 1.01", "f.yaml:5: spec.max_utilization: 1.01 is out of range"),
        (SERVICE + "  max_utilization: 80%", "f.yaml:5: spec.max_utilization: '80%' is not a number"),
        (SERVICE + "  dns_names: x.y", "f.yaml:5: spec.dns_names: 'x.y' is not a list: begin each item with `- `"),
        (SERVICE + "  dns_names: [x]", "f.yaml:5: spec.dns_names[0]: 'x' is not a DNS name"),
        (
            SERVICE + "  dns_names: [x.y.]",
            "f.yaml:5: spec.dns_names[0]: 'x.y.' must be written in lower case and without",
        ),
        (SERVICE + "  dns_names:\n  - x.y\n  - x.y", "f.yaml:7: spec.dns_names[1]: 'x.y' is listed twice: keep one"),
        ("kind: Service\nname: a\nspec: {backends: []}", "f.yaml:3: spec.backends: has 0 items: give the jobs"),
        (SERVICE.replace("rps: 1", "rps: 0"), "f.yaml:4: spec.backends[0].task_capacity_rps: 0 is out of range: give"),
        (SERVICE.replace("rps: 1", "rps: -.inf"), "f.yaml:4: spec.backends[0].task_capacity_rps: -inf is out of range"),
        (SERVICE.replace("rps: 1", "rps: 1e999"), "f.yaml:4: spec.backends[0].task_capacity_rps: inf is out of range"),
        (SERVICE.replace("/bns/x", "/gns/x"), "f.yaml:4: spec.backends[0].job: '/gns/x/y/z' is not of the form /bns/"),
        (
            (
                "kind: Service\nname: a\nspec:\n  backends:\n  - {job: /bns/x/y/a, task_capacity_rps: 1}\n"
                "  - {job: /bns/x/y/b, task_capacity_rps: 1}\n"
            ),
            "f.yaml:6: spec.backends[1].job: '/bns/x/y/b' and '/bns/x/y/a' are both in datacenter 'x'",
        ),
        (
            "kind: Datacenter\nname: a\nspec:\n  region: na\n  longitude: 2\n  latitude: 90.5",
            "f.yaml:6: spec.latitude: 90.5 is out of range: give the latitude in degrees (north positive), at least -90",
        ),
        ("kind: Datacenter\nname: a\nspec:\n  region: na\n  latitude: 2\n", "f.yaml:3: spec.longitude: missing: give"),
        (
            "kind: ClientArea\nname: a\nspec:\n  latitude: 1\n  longitude: 2\n  cidrs:\n  - 10.0.0.1/8",
            "f.yaml:7: spec.cidrs[0]: '10.0.0.1/8' has bits set beyond its prefix: write 10.0.0.0/8",
        ),
        (
            "kind: ClientArea\nname: a\nspec:\n  latitude: 1\n  longitude: 2\n  cidrs: [10.0.0.0/33]",
            "f.yaml:6: spec.cidrs[0]: '10.0.0.0/33' is not a network",
        ),
        # Several documents
        (
            "kind: Zone\nname: a.b\nspec: {records: x}\n---\nkind: Zone\nname: a.b\nspec: {records: y}",
            "f.yaml:5: Zone 'a.b' stands at line 1 already: keep one",
        ),
        # Dangers
        ("a: &a [x]\nb: *a", "f.yaml:2: the alias *a is not read: write the value out"),
        ("kind: !!python/object/apply:os.system [x]", "f.yaml:1: the tag 'tag:yaml.org,2002:python/object/apply:os.sy"),
        ("kind: !x Service", "f.yaml:1: the tag '!x' is not read: remove it"),
        ("a: " + "[" * 2000, "f.yaml:1: nested deeper than 16 levels"),
        ("- " * 2000, "f.yaml:1: nested deeper than 16 levels"),
    ],
)
def test_a_mistake_is_one_line_that_names_its_place(text: str | bytes, line: str) -> None:
    found = problems(text)
    assert found[0].startswith(line)
    assert len(found) == 1
    assert len(found[0]) < 400


DRAIN = """\
kind: Drain
name: d
spec:
  scope: {scope}
  target: {target}
  reason: {reason}
  starts_at: {starts}
  expires_at: {ends}
"""


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"scope": "planet"}, "f.yaml:4: spec.scope: 'planet' is not one of datacenter, service, job, task, region"),
        ({"target": "US"}, "f.yaml:5: spec.target: datacenter 'US' is not a DNS label"),
        ({"scope": "job", "target": "/bns/a/b"}, "f.yaml:5: spec.target: '/bns/a/b' is not of the form /bns/DATACENT"),
        ({"scope": "task", "target": "/bns/a/b/c"}, "f.yaml:5: spec.target: '/bns/a/b/c' is not of the form"),
        ({"scope": "service", "target": "a@B"}, "f.yaml:5: spec.target: 'B' is not a DNS label"),
        ({"scope": "machine", "target": "a b"}, "f.yaml:5: spec.target: 'a b' is not a machine"),
        ({"reason": '" "'}, "f.yaml:6: spec.reason: is empty: say it in words"),
        ({"reason": '"a\\nb"'}, "f.yaml:6: spec.reason: 'a\\nb' has control characters"),
        ({"reason": "x" * 501}, "f.yaml:6: spec.reason: 'xxx"),
        ({"starts": "2026-11-21"}, "f.yaml:7: spec.starts_at: '2026-11-21' has no time zone: write it in UTC as"),
        ({"ends": "tomorrow"}, "f.yaml:8: spec.expires_at: 'tomorrow' is not a time: write it in UTC as 2026-"),
        ({"ends": "0001-01-01T00:00:00+23:59"}, "f.yaml:8: spec.expires_at: '0001-01-01T00:00:00+23:59' is not a time"),
        ({"ends": "9999-12-31T00:00:00Z"}, "f.yaml:8: spec.expires_at: 9999-12-31T00:00:00+00:00 is not between the"),
        ({"ends": "2026-11-21T12:00:00Z"}, "f.yaml:8: spec.expires_at: 2026-11-21T12:00:00+00:00 is not after starts"),
        (
            {"ends": "2026-11-24T12:00:01Z"},
            "f.yaml:8: spec.expires_at: 2026-11-24T12:00:01+00:00 is more than 72 hours",
        ),
    ],
)
def test_a_drain_that_cannot_be(changes: dict[str, str], line: str) -> None:
    good = {
        "scope": "datacenter",
        "target": "us-east1",
        "reason": "why",
        "starts": "2026-11-21T12:00:00Z",
        "ends": "2026-11-21T13:00:00Z",
    }
    assert len(load(DRAIN.format(**good), "f.yaml")) == 1
    found = problems(DRAIN.format(**{**good, **changes}))
    assert found[0].startswith(line)
    assert len(found) == 1


def test_all_mistakes_of_a_file_are_reported_together_in_order() -> None:
    found = problems(
        "kind: Datacenter\nname: US\nspec: {region: na, latitude: 91, longitude: x}\n---\n"
        "kind: Servise\n---\n" + SERVICE + "  ttl_s: -1\n  sauce: rpc\n"
    )
    assert [problem.split(": ")[0] for problem in found] == [
        "f.yaml:2",
        "f.yaml:3",
        "f.yaml:3",
        "f.yaml:5",
        "f.yaml:11",
        "f.yaml:12",
    ]


def test_a_file_of_nothing_but_mistakes_is_cut_short() -> None:
    found = problems("\n---\n".join(f"kind: x{i}" for i in range(200)))
    assert len(found) == 50
    with pytest.raises(ConfigError, match=r"\.\.\. and 150 more"):
        load("\n---\n".join(f"kind: x{i}" for i in range(200)), "f.yaml")


def test_an_alias_bomb_costs_nothing() -> None:
    layers = "\n".join(f"l{i + 1}: &l{i + 1} [{', '.join([f'*l{i}'] * 9)}]" for i in range(9))
    began = time.monotonic()
    found = problems(f"l0: &l0 [x,x,x,x,x,x,x,x,x]\n{layers}\n")
    assert "the alias *l0 is not read" in found[0]
    assert time.monotonic() - began < 5


def test_a_file_over_the_limit_is_refused_before_it_is_read() -> None:
    assert problems("#" * (16 * 1024 * 1024 + 1))[0].startswith("f.yaml: 16777217 bytes: at most 16777216 are read")

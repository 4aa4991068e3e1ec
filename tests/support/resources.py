"""Hypothesis strategies of good model values."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

from hypothesis import strategies as st

from bns.model import HealthStatus
from gslb.model.endpoint import ServiceEndpoint
from gslb.model.geography import Coordinates
from gslb.model.meta import Meta
from gslb.model.plan import Plan, Stamp
from gslb.model.quota import ANYBODY, Quota
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

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
DATACENTERS = ("asia-east1", "europe-west1", "southamerica-east1", "us-east1")
EPOCH = datetime(1972, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, 8_000 * 365 * 86_400 * 1_000_000).map(lambda micros: EPOCH + timedelta(microseconds=micros))
LINES = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1, max_size=60).filter(
    lambda text: text.isprintable() and text.strip()
)
POSITIVE = st.floats(1e-3, 1e6)
FRACTIONS = st.floats(0.01, 1.0)

METAS = st.builds(Meta, LABELS, LABELS, st.integers(0, 2**63 - 1), st.none() | TIMES, st.none() | TIMES, LINES)
COORDINATES = st.builds(Coordinates, st.floats(-90, 90), st.floats(-180, 180))
JOBS = st.tuples(LABELS, LABELS, LABELS).map(lambda parts: "/bns/" + "/".join(parts))
DNS_NAMES = st.lists(LABELS, min_size=2, max_size=4).map(".".join)
NETWORKS = st.ip_addresses().flatmap(
    lambda ip: st.integers(0, ip.max_prefixlen).map(lambda bits: ip_network(f"{ip}/{bits}", strict=False))
)
CALLERS = st.just(ANYBODY) | LABELS
QUOTAS = st.builds(Quota, CALLERS, rps=POSITIVE) | st.builds(Quota, CALLERS, cpu_cores=POSITIVE)
BACKENDS = st.builds(Backend, JOBS, POSITIVE, st.sampled_from(CapacityMode), FRACTIONS)


@st.composite
def drains(draw: st.DrawFn) -> Drain:
    scope = draw(st.sampled_from(DrainScope))
    job = draw(JOBS)
    target = {
        DrainScope.JOB: job,
        DrainScope.TASK: job + "/0",
        DrainScope.SERVICE: "frontend@us-east1",
    }.get(scope, "us-east1")
    starts_at = draw(TIMES)
    lasts = draw(st.integers(1, 72 * 3600))
    return Drain(
        draw(METAS),
        scope,
        target,
        draw(LINES),
        draw(LINES),
        starts_at,
        starts_at + timedelta(seconds=lasts),
        draw(st.booleans()),
    )


@st.composite
def zones(draw: st.DrawFn) -> Zone:
    meta = draw(METAS)
    origin = draw(DNS_NAMES)
    lines = draw(st.lists(LINES, max_size=5))
    records = "\n".join(lines) + draw(st.sampled_from(("", "\n", "\n\n", "\n\tx ; y\n")))
    return Zone(Meta(origin, meta.owner, meta.generation, meta.updated_at, meta.deleted_at, meta.principal), records)


RESOURCES = st.one_of(
    st.builds(Datacenter, METAS, LABELS, COORDINATES, st.floats(0, 1e9)),
    st.builds(ClientArea, METAS, COORDINATES, st.lists(NETWORKS, unique=True, max_size=5).map(tuple)),
    st.builds(
        Service,
        METAS,
        st.lists(BACKENDS, min_size=1, max_size=4, unique_by=lambda backend: backend.datacenter).map(tuple),
        st.sampled_from(DemandSource),
        FRACTIONS,
        st.lists(DNS_NAMES, unique=True, max_size=3).map(tuple),
        st.integers(1, 86_400),
        st.integers(1, 16),
        st.just("") | LABELS,
        quotas=st.lists(QUOTAS, unique_by=lambda quota: quota.caller, max_size=4).map(tuple),
        alpn=st.lists(st.sampled_from(("h3", "h2", "http/1.1", "acme-tls/1")), unique=True).map(tuple),
    ).map(lambda service: service if service.dns_names else replace(service, alpn=())),
    drains(),
    zones(),
)


@st.composite
def shares(draw: st.DrawFn, datacenters: tuple[str, ...] = DATACENTERS) -> dict[str, float]:
    """Shares of some of these datacenters, above zero, that sum to 1."""
    names = draw(st.lists(st.sampled_from(datacenters), min_size=1, unique=True))
    weights = [draw(st.integers(1, 1000)) for _ in names]
    return {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True)}


STAMPS = st.builds(Stamp, st.integers(1, 9), st.integers(1, 99), st.integers(1, 99))
LOCALITIES = (*DATACENTERS, "north-america", "europe")


@st.composite
def plans(draw: st.DrawFn, service: str = "backend", stamps: st.SearchStrategy[Stamp] | None = None) -> Plan:
    rows = draw(st.dictionaries(st.sampled_from(LOCALITIES), shares(), min_size=1))
    lost = draw(st.none() | st.sampled_from(DATACENTERS))
    rest = tuple(name for name in DATACENTERS if name != lost)
    contingencies = {lost: draw(st.dictionaries(st.sampled_from(LOCALITIES), shares(rest)))} if lost else {}
    rates = st.floats(0, 1e6)
    return Plan(
        service,
        draw(STAMPS if stamps is None else stamps),
        rows,
        {locality: draw(rates) for locality in rows},
        {name: draw(rates) for name in DATACENTERS},
        {name: draw(rates) for name in DATACENTERS},
        contingencies,
        draw(st.floats(0, 4e9).map(lambda seconds: round(seconds, 3))),
        draw(st.lists(LINES, max_size=3).map(tuple)),
    )


ENDPOINTS = st.builds(
    ServiceEndpoint,
    st.builds(
        lambda datacenter, index: f"/bns/{datacenter}/u/backend/{index}",
        st.sampled_from(DATACENTERS),
        st.integers(0, 3),
    ),
    st.sampled_from(("127.0.0.1", "10.1.2.3", "::1", "2001:db8::7")),
    st.integers(1, 65_535),
    st.sampled_from(HealthStatus),
    st.sampled_from((0.5, 1.0, 3.0)),
)
ENDPOINT_MAPS = st.lists(ENDPOINTS, max_size=10).map(lambda many: {endpoint.task: endpoint for endpoint in many})

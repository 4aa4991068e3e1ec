"""The fields of every kind of resource: the one table behind YAML, JSON Schema and wire decoding. PURE."""

from collections.abc import Mapping
from enum import Enum

from gslb.model import grammar, limits
from gslb.model.fields import Field, Form
from gslb.model.resources import CapacityMode, DemandSource, DrainScope, Objective, Policy


def _names(choices: type[Enum]) -> tuple[str, ...]:
    return tuple(str(member.value) for member in choices)


_LATITUDE = Field(
    "latitude", Form.NUMBER, "the latitude in degrees (north positive)", required=True, minimum=-90, maximum=90
)
_LONGITUDE = Field(
    "longitude", Form.NUMBER, "the longitude in degrees (east positive)", required=True, minimum=-180, maximum=180
)

LINK = (
    Field("locality", Form.TEXT, "where the path comes from", required=True, grammar=grammar.LABEL),
    Field(
        "mbps",
        Form.NUMBER,
        "what it carries of all services together, in Mbit/s",
        required=True,
        minimum=0,
        maximum=1e9,
        above=True,
    ),
)

DATACENTER = (
    Field("region", Form.TEXT, "the region, such as na or eu", required=True, grammar=grammar.LABEL),
    _LATITUDE,
    _LONGITUDE,
    Field("uplink_mbps", Form.NUMBER, "the uplink in Mbit/s (0: no limit)", default=0.0, minimum=0, maximum=1e9),
    Field(
        "cpu_cores", Form.NUMBER, "the CPU cores that services share (0: no limit)", default=0.0, minimum=0, maximum=1e9
    ),
    Field(
        "links",
        Form.LIST,
        "the paths to here that carry only so much",
        default=(),
        minimum=0,
        maximum=limits.LINKS_PER_DATACENTER_MAX,
        items=Field("link", Form.OBJECT, "a path from a locality", fields=LINK),
    ),
)

AREA = (
    _LATITUDE,
    _LONGITUDE,
    Field(
        "cidrs",
        Form.LIST,
        "the networks of the area's clients",
        default=(),
        minimum=0,
        maximum=limits.CIDRS_PER_AREA_MAX,
        items=Field("cidr", Form.TEXT, "a network of clients", grammar=grammar.CIDR),
    ),
)

BACKEND = (
    Field("job", Form.TEXT, "the job, /bns/DATACENTER/USER/JOB", required=True, grammar=grammar.JOB),
    Field(
        "task_capacity_rps",
        Form.NUMBER,
        "what one healthy task can serve, in requests per second",
        required=True,
        minimum=0,
        maximum=limits.TASK_CAPACITY_MAX_RPS,
        above=True,
    ),
    Field(
        "mode",
        Form.TEXT,
        "where capacity comes from",
        default=CapacityMode.RATE.value,
        choices=_names(CapacityMode),
    ),
    Field(
        "target_utilization",
        Form.NUMBER,
        "the fraction of its cpu_cores that a task may use (mode utilization)",
        default=limits.MAX_UTILIZATION_DEFAULT,
        minimum=0,
        maximum=1,
        above=True,
    ),
    Field(
        "request_cpu_s",
        Form.NUMBER,
        "the CPU seconds of the datacenter's cpu_cores that a request takes",
        default=0.0,
        minimum=0,
        maximum=limits.REQUEST_CPU_MAX_S,
    ),
    Field(
        "request_mbit",
        Form.NUMBER,
        "the megabits that a request sends over the datacenter's uplink",
        default=0.0,
        minimum=0,
        maximum=limits.REQUEST_MAX_MBIT,
    ),
    Field(
        "guaranteed_rps",
        Form.NUMBER,
        "what other services cannot take from it where they share a limit",
        default=0.0,
        minimum=0,
        maximum=limits.RATE_MAX_RPS,
    ),
)

QUOTA = (
    Field(
        "caller",
        Form.TEXT,
        "the service that calls; `*`: everybody without a quota of his own, together",
        required=True,
        grammar=grammar.CALLER,
    ),
    Field(
        "rps",
        Form.NUMBER,
        "the requests per second that it may have served, over all tasks",
        default=0.0,
        minimum=0,
        maximum=limits.RATE_MAX_RPS,
    ),
    Field(
        "cpu_cores",
        Form.NUMBER,
        "the CPU seconds per second that its requests may take, over all tasks",
        default=0.0,
        minimum=0,
        maximum=limits.CPU_CORES_MAX,
    ),
)

SERVICE = (
    Field(
        "backends",
        Form.LIST,
        "the jobs that serve it",
        required=True,
        minimum=1,
        maximum=limits.DATACENTERS_MAX,
        items=Field("backend", Form.OBJECT, "a job with its capacity", fields=BACKEND),
    ),
    Field(
        "source",
        Form.TEXT,
        "where its demand is read from",
        default=DemandSource.RPC.value,
        choices=_names(DemandSource),
    ),
    Field(
        "max_utilization",
        Form.NUMBER,
        "the fraction of capacity beyond which load spills over",
        default=limits.MAX_UTILIZATION_DEFAULT,
        minimum=0,
        maximum=1,
        above=True,
    ),
    Field(
        "dns_names",
        Form.LIST,
        "the DNS names that browsers use",
        default=(),
        minimum=0,
        maximum=limits.DNS_NAMES_PER_SERVICE_MAX,
        items=Field("dns_name", Form.TEXT, "a DNS name", grammar=grammar.DNS_NAME),
    ),
    Field(
        "ttl_s",
        Form.INTEGER,
        "how long a DNS answer may be kept, in seconds",
        default=limits.TTL_DEFAULT_S,
        minimum=1,
        maximum=limits.TTL_MAX_S,
    ),
    Field(
        "addresses_per_answer",
        Form.INTEGER,
        "the number of addresses in a DNS answer",
        default=limits.ADDRESSES_PER_ANSWER_DEFAULT,
        minimum=1,
        maximum=limits.ADDRESSES_PER_ANSWER_MAX,
    ),
    Field(
        "port_name",
        Form.TEXT,
        "the named port that clients use; empty: the main one",
        default="",
        grammar=grammar.OPTIONAL_LABEL,
    ),
    Field(
        "policy",
        Form.TEXT,
        "what is preferred where there is room",
        default=Policy.NEAREST.value,
        choices=_names(Policy),
    ),
    Field(
        "failover",
        Form.LIST,
        "the datacenters of policy failover, the first choice first",
        default=(),
        minimum=0,
        maximum=limits.DATACENTERS_MAX,
        items=Field("datacenter", Form.TEXT, "a datacenter", grammar=grammar.LABEL),
    ),
    Field(
        "objective",
        Form.TEXT,
        "what a request wants: the least round-trip time, or the least transfer time",
        default=Objective.LATENCY.value,
        choices=_names(Objective),
    ),
    Field(
        "latency_critical",
        Form.BOOLEAN,
        "whether clients ask its tasks for their load ahead of need (policy prequal), unless told otherwise",
        default=False,
    ),
    Field(
        "quotas",
        Form.LIST,
        "how much each client may ask of it; others are not limited",
        default=(),
        minimum=0,
        maximum=limits.QUOTAS_PER_SERVICE_MAX,
        items=Field("quota", Form.OBJECT, "a client with its quota", fields=QUOTA),
    ),
    Field(
        "alpn",
        Form.LIST,
        "what its endpoints speak over TLS; given: its DNS names get HTTPS records (RFC 9460)",
        default=(),
        minimum=0,
        maximum=limits.ALPN_PER_SERVICE_MAX,
        items=Field("protocol", Form.TEXT, "a protocol's ALPN name", grammar=grammar.ALPN),
    ),
)

DRAIN = (
    Field("scope", Form.TEXT, "what kind of thing is drained", required=True, choices=_names(DrainScope)),
    Field("target", Form.TEXT, "the name of what is drained", required=True, grammar=grammar.SAID),
    Field("reason", Form.TEXT, "why", required=True, grammar=grammar.SAID),
    Field("author", Form.TEXT, "who drains", default="", grammar=grammar.LINE),
    Field("starts_at", Form.TIME, "when it begins, in UTC", required=True),
    Field("expires_at", Form.TIME, "when it ends, in UTC", required=True),
    Field("overridden", Form.BOOLEAN, "whether it was admitted in spite of the capacity rule", default=False),
    Field(
        "ramp_s",
        Form.NUMBER,
        "how long its capacity takes to fall to nothing, in seconds (0: at once)",
        default=0.0,
        minimum=0,
        maximum=limits.DRAIN_MAX_S,
    ),
)

ZONE = (Field("records", Form.TEXT, "RFC 1035 master-file text", required=True, grammar=grammar.RECORDS),)

# By the names of `gslb.model.resources.KINDS`.
SPECS: Mapping[str, tuple[Field, ...]] = {
    "datacenter": DATACENTER,
    "area": AREA,
    "service": SERVICE,
    "drain": DRAIN,
    "zone": ZONE,
}

# The name of each kind at the head of a YAML document.
TITLES: Mapping[str, str] = {
    "datacenter": "Datacenter",
    "area": "ClientArea",
    "service": "Service",
    "drain": "Drain",
    "zone": "Zone",
}

_LABEL_NAME = Field("name", Form.TEXT, "the name", required=True, grammar=grammar.LABEL)
_ZONE_NAME = Field("name", Form.TEXT, "the origin of the zone", required=True, grammar=grammar.ZONE_NAME)
OWNER = Field("owner", Form.TEXT, "who owns it", default="default", grammar=grammar.LABEL)

# What the system itself writes of a resource's history.
HISTORY = (
    Field("generation", Form.INTEGER, "the count of its changes", default=0, minimum=0, maximum=2**63 - 1),
    Field("updated_at", Form.TIME, "when it last changed, in UTC"),
    Field("deleted_at", Form.TIME, "when it was deleted, in UTC"),
    Field("principal", Form.TEXT, "who made the last change", default="anonymous", grammar=grammar.SAID),
)


def name_field(kind: str) -> Field:
    """What a resource of this kind may be called: a zone by its origin, everything else by a DNS label."""
    return _ZONE_NAME if kind == "zone" else _LABEL_NAME


def meta_fields(kind: str) -> tuple[Field, ...]:
    """Everything in a resource's Meta."""
    return (name_field(kind), OWNER, *HISTORY)

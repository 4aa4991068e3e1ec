"""What is dumped is read back as the same; the JSON Schema says what `load` does."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gslb.config.dump import as_document, dump
from gslb.config.errors import ConfigError
from gslb.config.jsonschema import json_schema
from gslb.config.load import load
from gslb.model.meta import Meta
from gslb.model.resources import Resource, Zone, kind_of
from tests.support.resources import RESOURCES
from tests.unit.test_config_load import PLANET

MANY = st.lists(RESOURCES, min_size=1, max_size=4, unique_by=lambda resource: (kind_of(resource), resource.meta.name))


@given(MANY)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_dump_and_load_round_trip(resources: list[Resource]) -> None:
    assert load(dump(resources, history=True), "dump.yaml") == resources


@given(MANY)
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_without_history_only_what_people_wrote_is_dumped(resources: list[Resource]) -> None:
    text = dump(resources)
    assert "\nmeta:" not in text
    loaded = load(text, "dump.yaml")
    assert [(kind_of(r), r.meta) for r in loaded] == [(kind_of(r), Meta(r.meta.name, r.meta.owner)) for r in resources]


def test_a_zone_stays_readable() -> None:
    zone = Zone(Meta("example.com"), "$TTL 300\n@ SOA ns1 h 1 2 3 4 5\n")
    assert "  records: |\n    $TTL 300\n    @ SOA" in dump([zone])


@given(st.text(max_size=200))
@settings(max_examples=300)
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        load(text, "f.yaml")
    except ConfigError:
        return
    raise AssertionError(f"{text!r} was taken for a configuration")


@given(
    st.integers(0, len(PLANET)), st.integers(0, 12), st.text(st.sampled_from("\n :-{}[]&*!|>'\"#%@\t0a.~"), max_size=6)
)
@settings(max_examples=400, deadline=None)
def test_a_damaged_file_is_read_or_refused_with_places(at: int, removed: int, put: str) -> None:
    damaged = PLANET[:at] + put + PLANET[at + removed :]
    try:
        resources = load(damaged, "f.yaml")
    except ConfigError as error:
        lines = damaged.count("\n") + 2
        for problem in error.problems:
            name, line, rest = problem.split(":", 2)
            assert name == "f.yaml"
            assert 1 <= int(line) <= lines
            assert "\n" not in rest
            assert len(rest) > 5
        return
    assert load(dump(resources, history=True), "again.yaml") == resources


def _conforms(schema: dict, value: object) -> bool:  # type: ignore[type-arg]
    """As much of JSON Schema as our schema uses for structure: types, required, known fields, enum, const."""
    types = {"string": str, "number": (int, float), "integer": int, "boolean": bool, "array": list, "object": dict}
    if "const" in schema:
        return value == schema["const"]
    if not isinstance(value, types[schema["type"]]):
        return False
    if isinstance(value, dict):
        known = schema["properties"]
        return (
            set(value) <= set(known)
            and set(schema["required"]) <= set(value)
            and all(_conforms(known[name], item) for name, item in value.items())
        )
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(_conforms(schema["items"], item) for item in value)
    return value in schema.get("enum", [value])


def test_the_schema_is_json_and_describes_every_document() -> None:
    schema = json.loads(json.dumps(json_schema(), allow_nan=False))
    for resource in load(PLANET, "planet.yaml"):
        document = json.loads(json.dumps(as_document(resource, history=True)))
        fitting = [branch["title"] for branch in schema["oneOf"] if _conforms(branch, document)]
        assert fitting == [document["kind"]]
        del document["spec"]
        assert not any(_conforms(branch, document) for branch in schema["oneOf"])


def test_the_schema_has_the_bounds_and_words_of_the_table() -> None:
    service = next(branch for branch in json_schema()["oneOf"] if branch["title"] == "Service")  # type: ignore[union-attr]
    spec = service["properties"]["spec"]["properties"]  # type: ignore[index,call-overload]
    assert spec["ttl_s"] == {
        "type": "integer",
        "description": "how long a DNS answer may be kept, in seconds",
        "default": 30,
        "minimum": 1,
        "maximum": 86400,
    }
    assert spec["max_utilization"]["exclusiveMinimum"] == 0
    assert spec["source"]["enum"] == ["rpc", "edge", "dns"]
    assert spec["backends"]["items"]["required"] == ["job", "task_capacity_rps"]

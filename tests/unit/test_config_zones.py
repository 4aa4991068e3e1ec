"""Zones in configuration files: their own files are read, and what is wrong in them is told with its place."""

from pathlib import Path

import pytest

from dns_frontend.zone.dump import zone_text
from dns_frontend.zone.master import parse_zone
from gslb.cli.zones import ZoneFiles
from gslb.config.errors import ConfigError
from gslb.config.load import load
from gslb.model.resources import Zone
from tests.support.corpus import zones

HEAD = "$TTL 300\n@ SOA ns1 host 7 3600 600 604800 60\n@ NS ns1\n"
DOCUMENT = "kind: Zone\nname: z.test\nspec:\n  file: zones/z\n"


def write(directory: Path, text: str, **others: str) -> None:
    (directory / "zones").mkdir(exist_ok=True)
    for name, content in {"z": text, **others}.items():
        (directory / "zones" / name).write_text(content)


def read(directory: Path, text: str = DOCUMENT) -> Zone:
    (found,) = load(text, "f.yaml", ZoneFiles(directory))
    assert isinstance(found, Zone)
    return found


def refusal(directory: Path, text: str = DOCUMENT) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, "f.yaml", ZoneFiles(directory))
    (problem,) = caught.value.problems
    return problem


def test_a_file_is_sent_as_it_is(tmp_path):
    write(tmp_path, HEAD + "; a comment\n")
    assert read(tmp_path).records == HEAD + "; a comment\n"


def test_a_file_that_includes_others_is_sent_as_one(tmp_path):
    write(tmp_path, HEAD + "$INCLUDE part sub\n", part="x A 127.0.0.1\n")
    records = read(tmp_path).records
    assert "INCLUDE" not in records
    assert "x.sub.z.test. 300 IN A 127.0.0.1\n" in records


@pytest.mark.parametrize("origin", zones())
def test_a_zone_written_out_is_the_same_zone(origin):
    data = zones()[origin]
    assert parse_zone(origin, zone_text(data)) == data


def test_mistakes_are_told_with_both_places(tmp_path):
    write(tmp_path, HEAD + "x A 1.2.3\n")
    assert refusal(tmp_path).startswith(f"f.yaml:4: spec.file: {tmp_path}/zones/z:4: ")
    assert "No such file" in refusal(tmp_path, DOCUMENT.replace("zones/z", "none"))
    inline = "kind: Zone\nname: z.test\nspec:\n  records: |\n    @ NS a\n"
    assert refusal(tmp_path, inline).startswith("f.yaml:4: spec.records: z.test:")
    write(tmp_path, HEAD)
    both = DOCUMENT + '  records: ""\n'
    assert "keep one of them" in refusal(tmp_path, both)


def test_other_mistakes_are_told_as_ever(tmp_path):
    write(tmp_path, HEAD)
    assert "spec" in refusal(tmp_path, "kind: Zone\nname: z.test\n")
    assert "records" in refusal(tmp_path, "kind: Zone\nname: z.test\nspec: {}\n")
    with pytest.raises(ConfigError, match="no such field"):
        load(DOCUMENT, "f.yaml")

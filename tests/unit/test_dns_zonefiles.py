"""Zone files: what they may include, what is told about mistakes, and where."""

import os
import re
from pathlib import Path

import pytest

from dns_frontend import limits
from dns_frontend.zone.master import BadZoneError, guess_origin
from dns_frontend.zone.name import from_text
from dns_frontend.zone.rtype import RType
from dns_frontend.zonefiles import load_unnamed_zone, load_zone

HEAD = "$TTL 300\n@ SOA ns1 host 7 3600 600 604800 60\n@ NS ns1\nns1 A 127.0.0.1\n"


def write(directory: Path, **files: str) -> Path:
    """The file `zone` in a directory of its own, and others with it; `a__b` is a/b."""
    root = directory / "zones"
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "zone"


def test_included_files_leave_origin_ttl_and_owner_as_they_were(tmp_path):
    path = write(
        tmp_path,
        zone=HEAD + "$INCLUDE part sub\n  TXT still-ns1\n$INCLUDE part\nafter A 127.0.0.3\n",
        part="$TTL 9\n$ORIGIN deeper\nx A 127.0.0.2\n",
    )
    reading = load_zone("z.test", path)
    assert reading.included == 2
    assert set(reading.data.nodes) == {
        from_text(name) for name in ("z.test", "ns1.z.test", "after.z.test", "x.deeper.sub.z.test", "x.deeper.z.test")
    }
    assert RType.TXT in reading.data.nodes[from_text("ns1.z.test")]
    assert reading.data.nodes[from_text("x.deeper.z.test")][RType.A].ttl_s == 9
    assert reading.data.nodes[from_text("after.z.test")][RType.A].ttl_s == 300


def test_paths_are_relative_to_the_including_file(tmp_path):
    path = write(tmp_path, zone=HEAD + "$INCLUDE a/one\n", a__one="$INCLUDE b/two\n", a__b__two="x A 127.0.0.2\n")
    assert from_text("x.z.test") in load_zone("z.test", path).data.nodes


@pytest.mark.parametrize("wanted", ["../secret", "/etc/passwd", "link", "a/../../secret", "~/secret"])
def test_files_outside_the_zones_directory_are_not_read(tmp_path, wanted):
    path = write(tmp_path, zone=HEAD + f"$INCLUDE {wanted}\n", other="")
    (tmp_path / "secret").write_text("x A 127.0.0.2\n")
    (path.parent / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(BadZoneError, match=r"zone:5: .*(not below|No such file)"):
        load_zone("z.test", path)


def test_a_file_that_includes_itself_is_refused(tmp_path):
    path = write(tmp_path, zone=HEAD + "$INCLUDE loop\n", loop="$INCLUDE loop\n")
    with pytest.raises(BadZoneError, match=r"loop:1: .* deep"):
        load_zone("z.test", path)
    wide = write(tmp_path, zone=HEAD + "$INCLUDE leaf\n" * (limits.INCLUDES_MAX + 1), leaf="\n")
    with pytest.raises(BadZoneError, match="more than 1000 files"):
        load_zone("z.test", wide)


def test_a_mistake_in_an_included_file_is_told_with_that_files_line(tmp_path):
    path = write(tmp_path, zone=HEAD + "$INCLUDE part\n", part="\n; fine\nx A 1.2.3\n")
    with pytest.raises(BadZoneError, match=r"/part:3: "):
        load_zone("z.test", path)


def test_what_is_no_text_file_is_refused(tmp_path):
    path = write(tmp_path, zone="")
    path.write_bytes(HEAD.encode() + b'x TXT "\xff"\n')
    with pytest.raises(BadZoneError, match=r"zone:5: not UTF-8"):
        load_zone("z.test", path)
    with pytest.raises(BadZoneError, match="No such file"):
        load_zone("z.test", tmp_path / "none")
    with pytest.raises(BadZoneError, match=r"not a regular file|directory"):
        load_zone("z.test", tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadZoneError, match="not a regular file"):
        load_zone("z.test", tmp_path / "pipe")


def test_a_zone_is_too_large_together_with_what_it_includes(tmp_path, monkeypatch):
    monkeypatch.setattr("dns_frontend.zone.reading.ZONE_TEXT_MAX_CHARS", 500)
    path = write(tmp_path, zone=HEAD + "$INCLUDE part\n" * 3, part=";" + "x" * 200)
    with pytest.raises(BadZoneError, match=r"zone:6: .*more than 500 characters"):
        load_zone("z.test", path)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("$ORIGIN a.test.\n", "a.test."),
        ("; c\n$TTL 1\n$origin\tb.test. ; comment\n", "b.test."),
        ("c.test. 300 IN SOA a b 1 2 3 4 5", "c.test."),
        ("d.test. SOA a b (", "d.test."),
        ("; x.test. SOA a\n@ SOA a b 1 2 3 4 5", ""),
        ("$ORIGIN relative\n", ""),
        ("", ""),
    ],
)
def test_a_zone_may_say_what_it_is_called(text, origin):
    assert guess_origin(text) == origin


def test_a_zone_without_a_name_is_asked_for_one(tmp_path):
    path = write(tmp_path, zone=HEAD)
    with pytest.raises(BadZoneError, match="--origin"):
        load_unnamed_zone(path)
    path.write_text("$ORIGIN z.test.\n" + HEAD)
    origin, reading = load_unnamed_zone(path)
    assert (origin, reading.warnings) == ("z.test.", ())


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("x A 1.2.3.4\nx 9 A 1.2.3.5", r"zone:6: x\.z\.test\. A has two TTLs"),
        ("@ MX 1 mail", r"zone:5: z\.test\. MX: mail\.z\.test\. has neither"),
        ("@ MX 1 mail\nmail CNAME ns1", r"zone:5: .*is a CNAME"),
        ("sub NS ns.sub", r"zone:5: sub\.z\.test\. NS: ns\.sub\.z\.test\. has neither"),
        ("sub NS ns1\nx.sub TXT hidden", r"zone:6: .*not served.*delegation sub"),
        ("d DNAME e\nx.d A 1.2.3.4", r"zone:6: .*not served.*DNAME d"),
        ("*.w NS ns1", r"zone:5: .*wildcard"),
    ],
)
def test_what_is_probably_not_meant_is_told(tmp_path, line, warning):
    reading = load_zone("z.test", write(tmp_path, zone=HEAD + line + "\n"))
    assert len(reading.warnings) == 1
    assert re.search(warning, reading.warnings[0])


def test_the_zones_of_the_corpus_warn_of_what_they_do_on_purpose():
    path = Path(__file__).parents[1] / "data/zones/rich.example.zone"
    assert len(load_zone("rich.example", path).warnings) == 3

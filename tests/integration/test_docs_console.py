"""Every command that a tutorial or how-to shows works as it is written, and leaves nothing running."""

from pathlib import Path

import pytest

from tests.support.cli import Planet
from tests.support.docs import ROOT, Step, follow, steps_of, with_free_ports
from tests.support.mmdb import dbip, mmdb

pytestmark = [pytest.mark.xdist_group("cli"), pytest.mark.timeout(400)]

DOCUMENTS = sorted([*(ROOT / "docs/tutorial").glob("*.md"), *(ROOT / "docs/how-to").glob("*.md")])
# They start everything that they need themselves.
SELF_CONTAINED = {
    "balanced-service.md",
    "bring-a-geo-database.md",
    "explain-an-answer.md",
    "first-service.md",
    "harden-dns.md",
    "run-behind-anycast.md",
    "run-the-control-plane.md",
    "serve-a-zone.md",
    "trace-calls.md",
}


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if path.name not in SELF_CONTAINED], ids=lambda p: p.name
)
def test_on_a_planet(document: Path, planet: Planet, tmp_path: Path) -> None:
    environment = {name: value for name, value in planet.env.items() if name != "BNS_AGENT"}
    assert follow(document, tmp_path, environment) >= 3


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name in SELF_CONTAINED], ids=lambda p: p.name)
def test_by_itself(document: Path, tmp_path: Path) -> None:
    # What a reader has downloaded.
    (tmp_path / "dbip-country.mmdb").write_bytes(mmdb({"203.0.113.0/24": dbip("DE"), "192.0.0.0/8": dbip("US")}))
    assert follow(document, tmp_path, {}) >= 10


# The checker itself: what it would overlook, no document's test could see.


def test_steps_are_read_with_what_they_show() -> None:
    text = "# T\n```console\n$ cat <<'E'\nx: $ y\nE\n$ a b\nout  1 ... 2\n\nmore\n```\n```sh\n$ not this\n```\n"
    assert steps_of(text) == [Step(3, "cat <<'E'\nx: $ y\nE", ()), Step(6, "a b", ("out  1 ... 2", "more"))]


def test_what_is_not_printed_is_missed() -> None:
    step = Step(1, "x", ("a  b", "c ... d", "Error: no"))
    assert step.missing("x a b\nc 1 2 d\nError:  no\n") == []
    assert step.missing("a\nb\nc\nd") == ["a  b", "c ... d", "Error: no"]
    assert step.fails
    assert not Step(1, "x", ("fine",)).fails


def test_a_wrong_document_fails(tmp_path: Path) -> None:
    document = tmp_path / "wrong.md"
    for body, complaint in (
        ("$ echo yes\nno\n", "does not show 'no'"),
        ("$ false\n", "exit status 1"),
        ("$ echo Error: x\nError: x\n", "exit status 0"),
        ("$ sleep 100 &\n", "leaves running"),
    ):
        document.write_text(f"```console\n{body}```\n")
        with pytest.raises(AssertionError, match=complaint):
            follow(document, tmp_path, {})
    document.write_text("```console\n$ cd / && X=1\n$ pwd; echo $X\n/\n1\n$ (exit 3)\nError:\n```\n")
    with pytest.raises(AssertionError, match="does not show 'Error:'"):
        follow(document, tmp_path, {})


def test_ports_are_replaced_alike() -> None:
    text = with_free_ports("serve 127.0.0.1:9001 and :9001, run 8101 --bind 127.0.0.1 8101, 90011 stays")
    words = text.split()
    assert words[1].removeprefix("127.0.0.1:") == words[3].removeprefix(":").rstrip(",")
    assert words[5] == words[8].rstrip(",")
    assert "9001" not in words[1]
    assert words[9] == "90011"

"""The reference says what the code does: flags, fields and keys are compared with it; links and unit files work."""

import asyncio
import re
import shlex
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from bns.etcd.client import Client
from gslb.cli.main import main as gslb
from gslb.cli.reference import configuration_page
from gslb.config.load import load
from gslb.model.resources import kind_of
from gslb.model.schema import SPECS
from tests.support.cli import Planet, in_child
from tests.support.docs import ROOT

pytestmark = pytest.mark.xdist_group("cli")

DOCS = ROOT / "docs"
RENEW = "run `python -m gslb.cli.reference docs/reference`"
UNITS = sorted((ROOT / "deploy").glob("*.service"))


def test_the_commands_are_current(tmp_path: Path) -> None:
    # In a process of its own: click keeps a command's help option as it was first asked for, by whatever test.
    shutil.copy(DOCS / "reference/configuration.md", tmp_path)
    in_child(sys.executable, "-m", "gslb.cli.reference", str(tmp_path)).ok()
    assert (DOCS / "reference/cli.md").read_text() == (tmp_path / "cli.md").read_text(), RENEW


def test_the_fields_are_current() -> None:
    page = (DOCS / "reference/configuration.md").read_text()
    assert page == configuration_page(page), RENEW
    for fields in SPECS.values():
        for field in fields:
            assert f"| `spec.{field.name}` |" in page
    with pytest.raises(ValueError, match="there is no place for the fields of all"):
        configuration_page("# nothing")


def test_the_example_of_the_reference_is_read() -> None:
    page = (DOCS / "reference/configuration.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert {kind_of(resource) for resource in load(example, "example")} == {"datacenter", "area", "service", "zone"}


# etcd's keys

ANY = re.compile(r"\b[A-Z]{3,}\b")


def patterns() -> dict[str, re.Pattern[str]]:
    """The documented keys, each upper-case word of which stands for anything without a slash."""
    page = (DOCS / "reference/etcd-keys.md").read_text()
    keys = re.findall(r"^\| `(/[^`]+)` \|", page, flags=re.MULTILINE)
    return {key: re.compile(ANY.sub("[^/]+", key)) for key in keys}


def test_every_key_in_etcd_is_documented_and_the_other_way_round(planet: Planet) -> None:
    planet.gslb("import", "-f", "-", "--new-incarnation", text=planet.export()).ok()

    async def keys() -> list[str]:
        async with Client([planet.etcd.address]) as etcd:
            return [kv.key.decode() for prefix in (b"/gslb", b"/bns") for kv in (await etcd.scan(prefix))[0]]

    elected = in_child(
        sys.executable, "-m", "bns", "elect", "x", "--", "sh", "-c", "echo $BNS_ELECTION_KEY", env=planet.env
    )
    found = [*asyncio.run(keys()), elected.ok().out.strip()]
    for key in found:
        assert any(pattern.fullmatch(key) for pattern in patterns().values()), f"{key} is not documented"
    for documented, pattern in patterns().items():
        assert any(pattern.fullmatch(key) for key in found), f"{documented} is documented, and nothing is there"


# Links


def pages() -> list[Path]:
    return sorted(page for page in DOCS.rglob("*.md") if page.parent.name != "adr")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_index_has_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    missing = [str(page.relative_to(DOCS)) for page in pages() if page != DOCS / "README.md"]
    assert [page for page in missing if f"]({page})" not in index] == []


# deploy/


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_flags_of_a_unit_are_flags_of_its_command(unit: Path) -> None:
    parser = RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(unit)
    program, name, flags = parser["Service"]["ExecStart"].split()
    assert (Path(program).name, flags) == ("gslb", "$FLAGS")
    assert parser["Service"]["EnvironmentFile"] == f"/etc/gslb/{unit.stem}.env"
    settings = dict(
        line.split("=", 1) for line in unit.with_suffix(".env").read_text().splitlines() if line and line[0] != "#"
    )
    arguments = shlex.split(settings["FLAGS"])
    assert arguments
    command = gslb.commands.get(name) or gslb.get_command(
        gslb.make_context("gslb", ["--help"], resilient_parsing=True), name
    )
    assert command is not None
    given = command.make_context(name, arguments).params
    # Whoever listens off loopback, or speaks to who does, shows a certificate.
    assert given["tls_cert"]
    assert given["tls_ca"]


@pytest.mark.conformance
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit_and_finds_it_hardened(unit: Path, tmp_path: Path) -> None:
    here = tmp_path / unit.name
    here.write_text(unit.read_text().replace("/opt/gslb/bin/gslb", str(Path(sys.executable).with_name("gslb"))))
    verified = in_child("systemd-analyze", "verify", "--man=no", str(here))
    assert [line for line in verified.err.splitlines() if unit.stem in line] == []
    assert verified.code == 0, verified
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", str(here)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout.splitlines()[-1:]

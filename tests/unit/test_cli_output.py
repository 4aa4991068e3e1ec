"""The `gslb` command's own small parts: durations, tables, kinds, help; the rest is tested against a real replica."""

import json

import click
import pytest
import yaml
from click.testing import CliRunner

from gslb.cli.drain import parse_duration_s
from gslb.cli.kinds import kind_named
from gslb.cli.main import main
from gslb.cli.output import Column, show, table


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("1d", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "2 h", "1h 30m", "two hours", "1e3s"])
def test_what_is_no_duration_is_named(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no duration: write 90s"):
        parse_duration_s(text)


def test_tables_align_and_dash_the_unknown() -> None:
    rows = [{"a": "x", "n": 1.25, "z": None}, {"a": "long name", "n": 10.0, "z": float("nan")}]
    assert table(rows, [Column("name", "a"), Column("rps", "n"), Column("cpu", "z")]).splitlines() == [
        "NAME        RPS  CPU",
        "x           1.2  -",
        "long name  10.0  -",
    ]


def test_wide_shows_more_and_data_forms_show_all(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"a": 1, "b": [1, 2], "c": float("nan")}]
    columns = [Column("a", "a"), Column("b", "b", wide=True)]
    show("table", rows, columns)
    assert capsys.readouterr().out == "A\n1\n"
    show("wide", rows, columns)
    assert capsys.readouterr().out == "A  B\n1  1,2\n"
    show("json", rows, columns)
    assert json.loads(capsys.readouterr().out) == [{"a": 1, "b": [1, 2], "c": None}]
    show("yaml", rows, columns)
    assert yaml.safe_load(capsys.readouterr().out) == [{"a": 1, "b": [1, 2], "c": None}]


def test_kinds_have_the_names_people_type() -> None:
    assert [kind_named(text) for text in ("services", "svc", "DC", "area", "ClientArea")] == [
        "service", "service", "datacenter", "area", "area",
    ]  # fmt: skip
    with pytest.raises(click.UsageError, match="'pod' is no kind of resource: use one of area, datacenter"):
        kind_named("pod")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["drain", "rack", "r1", "--reason", "x"], "'rack' is not one of 'datacenter'"),
        (["drain", "datacenter", "us-east1"], "Missing option '--reason'"),
        (["drain", "datacenter", "us-east1", "--reason", "x", "--for", "soon"], "'soon' is no duration"),
        (["get", "pods"], "'pods' is nothing to get"),
        (["get", "services", "-o", "xml"], "'xml' is not one of 'table'"),
        (["get", "services", "--control", "nonsense"], "--control: address 'nonsense'"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)  # fmt: skip
def test_bad_usage_is_exit_2_on_stderr(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not result.stdout


def test_a_control_plane_that_is_not_there_is_exit_1() -> None:
    result = CliRunner().invoke(main, ["get", "services", "--control", "127.0.0.1:1"])
    assert result.exit_code == 1
    assert "no control-plane replica answers at 127.0.0.1:1: is one running?" in result.stderr


def test_every_command_has_help() -> None:
    context = click.Context(main)
    names = main.list_commands(context)
    assert {"apply", "get", "describe", "delete", "drain", "undrain", "explain", "top", "check"} <= set(names)
    for name in names:
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0, (name, result.output)
        assert "Usage:" in result.stdout

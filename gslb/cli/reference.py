"""Writes docs/reference/: cli.md from the commands' own help, the tables of configuration.md from the table of fields.

    python -m gslb.cli.reference docs/reference

A test compares what is there with what this would write.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from bns.cli import main as bns
from gslb.cli.main import main as gslb
from gslb.model.fields import Field, Form
from gslb.model.schema import HISTORY, OWNER, SPECS, name_field

WIDTH = 100
BEGIN, END = "<!-- fields of {}: made by gslb.cli.reference -->", "<!-- end -->"
CLI_HEAD = """# Commands

What `gslb --help` and `bns --help` say, command by command. (Made by `python -m gslb.cli.reference docs/reference`.)

Data goes to stdout, messages to stderr. Exit status: 0 success; 1 refused or failed; 2 bad usage. Completion of commands and
flags in your shell:

```sh
eval "$(_GSLB_COMPLETE=bash_source gslb)"    # or zsh_source, fish_source; _BNS_COMPLETE for bns
```
"""


def cli_page() -> str:
    """docs/reference/cli.md."""
    parts = [CLI_HEAD]
    for name, group in (("gslb", gslb), ("bns", bns)):
        for path, text in _helps(group, _context(group, name)):
            parts.append(f"{'#' * min(2 + path.count(' '), 4)} {path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _helps(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Full name and help of a command, and of those under it."""
    yield context.command_path, command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            member = command.get_command(context, name)
            assert member is not None
            yield from _helps(member, _context(member, name, context))


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    settings = {**command.context_settings, "terminal_width": WIDTH}
    return click.Context(command, parent=parent, info_name=name, **settings)


def configuration_page(page: str) -> str:
    """docs/reference/configuration.md with its tables made anew. Raises ValueError when a place for one is missing."""
    for kind, table in tables().items():
        begin = BEGIN.format(kind)
        before, found, rest = page.partition(f"{begin}\n")
        _, ended, after = rest.partition(END)
        if not (found and ended):
            raise ValueError(f"there is no place for the fields of {kind}: write {begin} and {END} where they belong")
        page = f"{before}{begin}\n\n{table}\n{END}{after}"
    return page


def tables() -> dict[str, str]:
    """The fields as Markdown tables: by kind, and what all kinds have in common."""
    common = _table([*_rows((name_field("service"), OWNER)), *_rows(HISTORY, "meta.")])
    return {"all": common, **{kind: _table([*_rows(fields, "spec.")]) for kind, fields in SPECS.items()}}


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = [("field", "is", "meaning", "when left out", "bounds"), ("---",) * 5, *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


def _rows(fields: tuple[Field, ...], prefix: str = "") -> Iterator[tuple[str, ...]]:
    for field in fields:
        yield (f"`{prefix}{field.name}`", field.form.value, field.doc, _default(field), _bounds(field))
        yield from _rows(field.fields, f"{prefix}{field.name}.")
        if field.items is not None:
            yield from _rows(field.items.fields, f"{prefix}{field.name}[].")


def _default(field: Field) -> str:
    if field.required:
        return "**refused**"
    match field.default:
        case None | () | "":
            return "nothing"
        case bool():
            return str(field.default).lower()
        case int() | float():
            return f"{field.default:g}"
        case _:
            return str(field.default)


def _bounds(field: Field) -> str:
    """What a value may be, in words."""
    words = [f"{field.grammar.title}"] if field.grammar else []
    if field.items is not None and field.items.grammar is not None:
        words.append(f"each {field.items.grammar.title}")
    if field.choices:
        words.append(", ".join(f"`{choice}`" for choice in field.choices))
    size = " items" if field.form is Form.LIST else ""
    if field.minimum > float("-inf") and (field.minimum > 0 or not size):
        words.append(f"{'above' if field.above else 'at least'} {_number(field.minimum)}{size}")
    if field.maximum < float("inf"):
        words.append(f"at most {_number(field.maximum)}{size}")
    return ", ".join(words)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) < 1e15 else "2^63 - 1"


def main(arguments: list[str]) -> None:
    """Writes both pages into the directory that is given."""
    directory = Path(arguments[0])
    (directory / "cli.md").write_text(cli_page())
    page = directory / "configuration.md"
    page.write_text(configuration_page(page.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])

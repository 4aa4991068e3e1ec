"""Stories: plain text, blocks of commands and what they printed when somebody last looked and agreed.

    # Words for the reader.

    command ...
    command ...
    ----
    what the commands print

A block ends with an empty line. The form is that of etcd-io/raft's testdata: `--rewrite` writes what is printed
today, and the difference is reviewed like code. Comments stay where they are. PURE.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from gslb.sim.errors import StoryError

RULE: Final = "----"
LINES_MAX: Final = 5_000


@dataclass(frozen=True, slots=True)
class Line:
    """A command and where it stands."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """Comments before it, commands (with comments between them), and their output."""

    commands: tuple[Line, ...]
    output: tuple[str, ...] = ()
    ruled: bool = False  # whether it has a RULE: blocks of comments alone have none


@dataclass(frozen=True, slots=True)
class Story:
    """A file's blocks."""

    name: str
    blocks: tuple[Block, ...]


def parse(text: str, name: str) -> Story:
    """Raises StoryError for a text that is no story."""
    lines = text.splitlines()
    if len(lines) > LINES_MAX:
        raise StoryError(f"{name}: {len(lines)} lines: at most {LINES_MAX}; split the story")
    blocks: list[Block] = []
    commands: list[Line] = []
    output: list[str] | None = None
    for number, line in enumerate([*lines, ""], 1):
        if not line.strip():
            if commands or output is not None:
                blocks.append(Block(tuple(commands), tuple(output or ()), output is not None))
            commands, output = [], None
        elif output is not None:
            output.append(line.rstrip())
        elif line.rstrip() == RULE:
            if not commands:
                raise StoryError(f"{name}:{number}: {RULE} without a command above it: write one, or take it out")
            output = []
        else:
            commands.append(Line(number, line.rstrip()))
    return Story(name, tuple(blocks))


def render(story: Story) -> str:
    """The text of a story; `parse` of it gives the same story."""
    return "\n\n".join("\n".join(_lines(block)) for block in story.blocks) + "\n"


def _lines(block: Block) -> Iterable[str]:
    yield from (line.text for line in block.commands)
    if block.ruled:
        yield RULE
        yield from block.output


def play(story: Story, execute: Callable[[str], Iterable[str]]) -> Story:
    """The story with what `execute` prints for each command. Raises StoryError with the command's place."""
    blocks = []
    for block in story.blocks:
        printed: list[str] = []
        wanted = [line for line in block.commands if not line.text.lstrip().startswith("#")]
        for line in wanted:
            try:
                # An empty line would end the block.
                printed += [text for text in execute(line.text.strip()) if text.strip()]
            except StoryError as error:
                raise StoryError(f"{story.name}:{line.number}: {error}") from error
        blocks.append(replace(block, output=tuple(printed), ruled=bool(wanted)))
    return replace(story, blocks=tuple(blocks))

"""`gslb sim`: play a story on a simulated planet."""

import difflib
import sys
from pathlib import Path

import click

from gslb.sim import chart, story
from gslb.sim.canvas import CANVASES, Canvas
from gslb.sim.commands import Stage
from gslb.sim.errors import StoryError

STORY_MAX_BYTES = 1_000_000


@click.command(short_help="Play a story on a simulated planet.")
@click.argument("path", metavar="STORY", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rewrite", is_flag=True, help="Write what is printed today into STORY.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.png|OUT.svg",
    help="Draw what happened; .png needs gslb[plot].",
)
def sim(path: Path, rewrite: bool, plot: Path | None) -> None:
    """Play STORY: the production balancer, steering and RPC policy on a planet under a virtual clock.

    Prints how the outcome differs from what the story says; exit code 1 when it does, or when an `expect` is missed.
    With --plot, demand, load, capacity, shares and utilization over time are drawn, with what was done when.
    """
    canvas = _canvas(plot)
    if path.stat().st_size > STORY_MAX_BYTES:
        raise click.UsageError(f"{path} is larger than {STORY_MAX_BYTES} bytes: that is no story")
    before = path.read_text(encoding="utf-8")
    stage = Stage()
    try:
        after = story.render(story.play(story.parse(before, str(path)), stage.execute))
    except StoryError as error:
        raise click.ClickException(str(error)) from error
    if plot is not None and canvas is not None:
        plot.write_bytes(chart.draw(stage.world, path.stem, canvas))
        click.echo(f"wrote {plot}", err=True)
    same = before == after
    if rewrite and not same:
        path.write_text(after, encoding="utf-8")
        click.echo(f"wrote {path}", err=True)
    _say(path, before, after, stage.missed)
    sys.exit(1 if stage.missed or not (same or rewrite) else 0)


def _canvas(plot: Path | None) -> type[Canvas] | None:
    """What paints the kind of picture that is asked for; told before the story is played, which may take a while."""
    if plot is None:
        return None
    canvas = CANVASES.get(plot.suffix)
    if canvas is None:
        kinds = " or ".join(CANVASES)
        raise click.UsageError(f"--plot {plot}: pictures end in {kinds}; name it {plot.with_suffix('.png')}")
    try:
        canvas(1, 1)
    except StoryError as error:
        raise click.ClickException(f"--plot {plot}: {error}") from error
    return canvas


def _say(path: Path, before: str, after: str, missed: int) -> None:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), f"{path} says", "today", lineterm="")
    for line in lines:
        click.echo(line)
    if before == after:
        click.echo(f"{path}: as it says")
    if missed:
        click.echo(f"{path}: {missed} expectations missed", err=True)

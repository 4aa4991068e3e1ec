"""`gslb replay`: run a recorded step of the balancer again, as it was and as it might have been."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from gslb.balancer.callees import loads
from gslb.cli.drain import parse_duration_s
from gslb.cli.output import Column, say, show, with_format
from gslb.cli.recordings import AtReplica, InDirectory, Recordings
from gslb.cli.session import Session, with_session
from gslb.model.errors import InvalidValueError
from gslb.recorder.errors import RecordingError
from gslb.recorder.outcome import Load, Outcome, compare, loads_of, run
from gslb.recorder.play import Replayed, replay
from gslb.recorder.ring import SegmentInfo
from gslb.recorder.segment import Reader
from gslb.recorder.whatif import FORMS, Moment, suppose

# Of a table at most so many lines, the largest; -o json has all.
LINES_MAX = 40
FILES = (
    Column("from", "from"), Column("to", "to"), Column("steps", "steps"), Column("bytes", "size"),
    Column("replica", "replica"), Column("file", "name", wide=True), Column("versions", "versions", wide=True),
    Column("note", "note"),
)  # fmt: skip
PLANNED = (
    Column("service", "service"), Column("datacenter", "datacenter"), Column("capacity", "capacity_before_rps"),
    Column("load", "before_rps"), Column("used", "used_before", percent=True),
)  # fmt: skip
PLACES = (
    Column("datacenter", "datacenter"), Column("capacity", "capacity_before_rps"),
    Column("-> after", "capacity_after_rps"), Column("load", "before_rps"), Column("-> at once", "at_once_rps"),
    Column("-> settled", "settled_rps"), Column("used", "used_before", percent=True),
    Column("-> settled", "used_after", percent=True),
)  # fmt: skip
LOADS = (Column("service", "service"), *PLACES)
MOVES = (
    Column("service", "service"), Column("locality", "locality"), Column("rps moved", "rps"),
    Column("shares", "before_text"), Column("-> at once", "at_once_text"), Column("-> settled", "settled_text"),
)  # fmt: skip
DIFFERENCES = (
    Column("at", "at"), Column("service", "service"), Column("field", "field"), Column("recorded", "recorded"),
    Column("again", "again"),
)  # fmt: skip


@click.command(short_help="Run a recorded moment again, as it was or as it might have been.")
@click.option("--at", "moment", default="now", show_default=True, metavar="TIME",
              help="UTC as 2026-11-21T17:05:00Z, or -5m, or now: the last step before it.")  # fmt: skip
@click.option("--what-if", "what_ifs", multiple=True, metavar="CHANGE", help=f"May be repeated: {FORMS}.")
@click.option("--list", "listing", is_flag=True, help="Show what is recorded.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), default=None, metavar="DIR",
              help="Read this directory (--recorder of `gslb serve`) instead of asking a replica.")  # fmt: skip
@with_format
@with_session
def replay_command(
    session: Session,
    moment: str,
    what_ifs: tuple[str, ...],
    listing: bool,
    directory: Path | None,
    output: str,
) -> None:
    """Run a step of the balancer again on what it was given then, and say whether it decides the same.

    With --what-if the step runs on what it was given and all that is supposed: where load would have gone at once, and
    in the end; which alarms; which losses could no longer have been survived. Nothing is changed anywhere.

    \b
    gslb replay --at -5m
    gslb replay --at 2026-11-21T17:05:00Z --what-if "drain datacenter europe-west1"
    gslb replay --what-if "lose datacenter us-east1" --what-if "demand europe x2"

    Exit code 1 when a step decides, without what-ifs, anything else than it did.
    """
    recordings: Recordings = InDirectory(directory) if directory else AtReplica(session)
    if listing:
        _list(recordings, output)
        return
    at_s = parse_time_s(moment, time.time())
    info = _choose(recordings.files(), at_s)
    reader = Reader(recordings.read(info))
    try:
        played = replay(reader.records(), at_s)
    except RecordingError as error:
        raise click.ClickException(f"{info.name}: {error}") from error
    for note in reader.notes:
        say(f"{info.name}: {note}")
    _say_step(info, played, at_s)
    document = {**_document(info, played), "what_ifs": list(what_ifs)}
    if what_ifs:
        _suppose(played, what_ifs, document, output)
    elif output in {"json", "yaml"}:
        show(output, [document], ())
    else:
        show(output, _some(document["loads"], "before_rps"), PLANNED)
    if not played.identical:
        say("the decision differs from what was recorded:")
        if output in {"table", "wide"}:
            show(output, _differences(played), DIFFERENCES)
        say(f"recorded with {info.versions}")
        sys.exit(1)


def parse_time_s(text: str, now_s: float) -> float:
    """ISO 8601 (UTC when it names no zone), `-5m` or `now` -> UTC seconds since the epoch. Raises click.UsageError."""
    if text == "now":
        return now_s
    if text.startswith("-"):
        try:
            return now_s - parse_duration_s(text[1:])
        except click.BadParameter as error:
            raise click.UsageError(f"--at {text}: {error.message}, with a minus before it") from error
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.UsageError(f"--at {text!r} is no time: write 2026-11-21T17:05:00Z, -5m or now") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def shown_time(at_s: float) -> str:
    """UTC, to the millisecond."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _list(recordings: Recordings, output: str) -> None:
    files = recordings.files()
    rows = [
        {**asdict(one), **({"from": shown_time(one.from_s), "to": shown_time(one.to_s)} if one.steps else {})}
        for one in files
    ]
    show(output, rows, FILES)
    say(f"{sum(one.steps for one in files)} steps in {len(files)} files, {sum(one.size for one in files)} bytes")


def _choose(files: Sequence[SegmentInfo], at_s: float) -> SegmentInfo:
    usable = [one for one in files if one.steps]
    for one in files:
        if one.note and not one.steps:
            say(f"{one.name} is passed over: {one.note}")
    if not usable:
        raise click.ClickException("nothing is recorded yet: a replica records with --recorder, from its first plan on")
    before = [one for one in usable if one.from_s <= at_s]
    if not before:
        first = shown_time(min(one.from_s for one in usable))
        raise click.ClickException(f"nothing is recorded of {shown_time(at_s)}: the recording begins at {first}")
    return max(before, key=lambda one: one.from_s)


def _say_step(info: SegmentInfo, played: Replayed, at_s: float) -> None:
    recorded = played.recorded
    say(
        f"step {recorded.number} of {info.replica or '?'} at {shown_time(recorded.at_s)}, "
        f"{max(0.0, at_s - recorded.at_s):.1f} s before {shown_time(at_s)}"
    )
    if played.identical:
        since = shown_time(played.since_s)
        say(f"run again with the {played.steps - 1} before it since {since}: every decision is identical, bit for bit")


def _document(info: SegmentInfo, played: Replayed) -> dict[str, object]:
    recorded = played.recorded
    return {
        "step": recorded.number,
        "at": shown_time(recorded.at_s),
        "replica": info.replica,
        "steps_run_again": played.steps,
        "identical": played.identical,
        "differences": _differences(played),
        "loads": [_load_row(load) for load in loads_of(played.decision)],
        "alarms": list(played.decision.alarms),
    }


def _suppose(played: Replayed, what_ifs: tuple[str, ...], document: dict[str, object], output: str) -> None:
    """Runs what is supposed and shows what is otherwise."""
    moment = Moment(played.state, played.recorded.inputs, played.recorded.at_s)
    try:
        supposed = suppose(moment, what_ifs)
    except InvalidValueError as error:
        raise click.UsageError(str(error)) from error
    outcome = compare(played.decision, run(supposed, loads(played.decision, moment.inputs.demand)))
    document.update(
        refusals=list(supposed.refusals),
        datacenters=_places(outcome.loads),
        loads=[_load_row(load) for load in outcome.loads],
        moves=[asdict(move) for move in outcome.moves],
        **{key: list(getattr(outcome, key)) for key in ("alarms_new", "alarms_gone", "losses_new", "losses_gone")},
        settles=outcome.settles,
        settled_s=outcome.settled_s,
    )
    if output in {"json", "yaml"}:
        show(output, [document], ())
        return
    _show_tables(outcome, output)
    _say_outcome(outcome, supposed.refusals)


def _show_tables(outcome: Outcome, output: str) -> None:
    moved = [load for load in outcome.loads if load.moved]
    show(output, _places(outcome.loads), PLACES)
    if moved:
        click.echo()
        show(output, _some([_load_row(load) for load in moved], "moved_rps"), LOADS)
    if outcome.moves:
        click.echo()
        rows = [
            {
                **asdict(move),
                "before_text": _shares(move.before),
                "at_once_text": _shares(move.at_once),
                "settled_text": _shares(move.settled),
            }
            for move in outcome.moves
        ]
        show(output, _some(rows, "rps"), MOVES)


def _say_outcome(outcome: Outcome, refusals: Sequence[str]) -> None:
    if not (outcome.moves or any(load.moved for load in outcome.loads)):
        say("nothing would have moved")
    elif outcome.settles:
        say(f"settled after {outcome.settled_s:.0f} s")
    else:
        say(f"not settled after {outcome.settled_s:.0f} s: what is shown is how far it got")
    for title, lines in (
        ("a drain would have been refused", refusals),
        ("new alarm", outcome.alarms_new),
        ("alarm gone", outcome.alarms_gone),
        ("no longer survivable", outcome.losses_new),
        ("survivable again", outcome.losses_gone),
    ):
        for line in lines[:LINES_MAX]:
            say(f"{title}: {line}")
        if len(lines) > LINES_MAX:
            say(f"{title}: and {len(lines) - LINES_MAX} more; -o json has them")


def _places(loads: Sequence[Load]) -> list[dict[str, object]]:
    """Sums over all services by datacenter."""
    sums: dict[str, dict[str, float]] = {}
    for load in loads:
        place = sums.setdefault(load.datacenter, {})
        for key in ("capacity_before_rps", "capacity_after_rps", "before_rps", "at_once_rps", "settled_rps"):
            place[key] = place.get(key, 0.0) + getattr(load, key)
    return [{"datacenter": name, **sums[name], **_used(sums[name])} for name in sorted(sums)]


def _load_row(load: Load) -> dict[str, object]:
    row = asdict(load)
    moved_rps = max(abs(load.at_once_rps - load.before_rps), abs(load.settled_rps - load.before_rps))
    return {**row, **_used(row), "moved_rps": moved_rps}


def _used(row: Mapping[str, float]) -> dict[str, float | None]:
    """Load over capacity, None where there is none."""
    return {
        "used_before": _ratio(row["before_rps"], row["capacity_before_rps"]),
        "used_after": _ratio(row["settled_rps"], row["capacity_after_rps"]),
    }


def _ratio(load_rps: float, capacity_rps: float) -> float | None:
    return load_rps / capacity_rps if capacity_rps > 0 else None


def _shares(shares: Mapping[str, float]) -> str:
    return " ".join(f"{name}:{100 * share:.1f}%" for name, share in sorted(shares.items())) or "-"


def _some(rows: object, key: str) -> list[dict[str, object]]:
    """The first lines by `key`, in the order that they had; the rest is said to be left out."""
    assert isinstance(rows, list)
    if len(rows) <= LINES_MAX:
        return rows
    say(f"the {LINES_MAX} largest of {len(rows)}; -o json has all")
    kept = {id(row) for row in sorted(rows, key=lambda row: -row[key])[:LINES_MAX]}
    return [row for row in rows if id(row) in kept]


def _differences(played: Replayed) -> list[dict[str, object]]:
    return [{**asdict(one), "at": shown_time(one.at_s)} for one in played.differences]

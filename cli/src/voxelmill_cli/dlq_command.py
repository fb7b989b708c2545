"""`voxelmill dlq list|show|replay|drop`: their options, and how they answer."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from voxelmill_cli.console import cell, say
from voxelmill_cli.counting import counting
from voxelmill_cli.errors import CommandError
from voxelmill_cli.interrupts import Interrupted
from voxelmill_cli.options import DEFAULT_DATA, DataOption, JsonOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from voxelmill_cli.dlq import Wanted
    from voxelmill_shared.dead_letters import Letter, Progress

dlq_app = typer.Typer(
    name="dlq", no_args_is_help=True, help="Messages that failed for good: look at them, try them again, give them up.",
    rich_markup_mode=None,
)  # fmt: skip

HandlesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="HANDLE…", help="which, by their handles or the beginnings of these")
]
ServiceOption = Annotated[list[str] | None, typer.Option("--service", help="of this service; may be repeated")]
ErrorOption = Annotated[list[str] | None, typer.Option("--error", help="of this error class; may be repeated")]
SeriesOption = Annotated[
    list[str] | None, typer.Option("--series", help="about this Series Instance UID; may be repeated")
]
SinceOption = Annotated[str | None, typer.Option("--since", help="that died since: 30m, 2h, 7d, or 2026-01-31T12:00")]
AllOption = Annotated[bool, typer.Option("--all", help="every dead letter")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="say which, and change nothing")]
LimitOption = Annotated[int, typer.Option(min=0, help="how many letters are listed one by one")]
RateOption = Annotated[float, typer.Option(min=0, max=100_000, help="letters a second; 0: as fast as it goes")]


@dlq_app.command("list")
def list_command(
    service: ServiceOption = None,
    error: ErrorOption = None,
    series: SeriesOption = None,
    since: SinceOption = None,
    limit: LimitOption = 20,
    data: DataOption = DEFAULT_DATA,
    as_document: JsonOption = False,
) -> None:
    """Count the dead letters of each queue, with the oldest and the error classes, and list them."""
    from voxelmill_cli import dlq  # noqa: PLC0415 - a wrong option or `--help` is answered at once
    from voxelmill_cli.app import call, call_sync, out, print_json  # noqa: PLC0415 - app imports this module

    selection = call_sync(dlq.read_selection, service or (), error or (), series or (), since)
    letters: list[Letter] = call(dlq.list_letters(data.absolute(), selection))
    if as_document:
        print_json(
            {"queues": dlq.summary_document(letters), "letters": [dlq.as_document(letter) for letter in letters]}
        )
        return
    _print_counts(out, letters)
    _print_letters(out, letters, limit)


@dlq_app.command("show")
def show_command(
    handle: Annotated[str, typer.Argument(help="the letter's handle, or its beginning")],
    log: Annotated[
        Path | None, typer.Option("--log", help="a file or folder of the services' logs; else those of `make up`")
    ] = None,
    data: DataOption = DEFAULT_DATA,
    as_document: JsonOption = False,
) -> None:
    """Show one dead letter: why it died, each attempt, its event, its object, and the log lines of its trace."""
    from voxelmill_cli.app import call, out, print_json  # noqa: PLC0415 - app imports this module
    from voxelmill_cli.dlq_show import print_letter, show  # noqa: PLC0415 - as above

    found = call(show(data.absolute(), handle, log))
    if as_document:
        print_json(found)
    else:
        print_letter(out, found)


@dlq_app.command("replay")
def replay_command(
    handles: HandlesArgument = None,
    service: ServiceOption = None,
    error: ErrorOption = None,
    series: SeriesOption = None,
    since: SinceOption = None,
    everything: AllOption = False,
    dry_run: DryRunOption = False,
    rate: RateOption = 50.0,
    data: DataOption = DEFAULT_DATA,
    as_document: JsonOption = False,
) -> None:
    """Put dead letters back onto the queues that they came from, to be tried anew."""
    from voxelmill_cli.app import call, call_sync  # noqa: PLC0415 - app imports this module
    from voxelmill_cli.dlq import find  # noqa: PLC0415 - as above

    wanted = call_sync(_wanted, handles, service, error, series, since, everything)
    letters: list[Letter] = call(find(data.absolute(), wanted))
    _settle(letters, data, rate, as_document=as_document, dry_run=dry_run, drop=False)


@dlq_app.command("drop")
def drop_command(
    handles: HandlesArgument = None,
    service: ServiceOption = None,
    error: ErrorOption = None,
    series: SeriesOption = None,
    since: SinceOption = None,
    everything: AllOption = False,
    dry_run: DryRunOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    data: DataOption = DEFAULT_DATA,
    as_document: JsonOption = False,
) -> None:
    """Give dead letters up: nothing brings them back. It is written into the audit trail."""
    from voxelmill_cli.app import call, call_sync, out  # noqa: PLC0415 - app imports this module
    from voxelmill_cli.dlq import find  # noqa: PLC0415 - as above

    wanted = call_sync(_wanted, handles, service, error, series, since, everything)
    letters: list[Letter] = call(find(data.absolute(), wanted))
    if letters and not yes and not dry_run:
        call_sync(_ask, out, letters, as_document)
    _settle(letters, data, 0.0, as_document=as_document, dry_run=dry_run, drop=True)


def _wanted(
    handles: Sequence[str] | None,
    service: Sequence[str] | None,
    error: Sequence[str] | None,
    series: Sequence[str] | None,
    since: str | None,
    everything: bool,
) -> Wanted:
    from voxelmill_cli import dlq  # noqa: PLC0415 - as above

    selection = dlq.read_selection(service or (), error or (), series or (), since)
    ways = [bool(handles), not selection.is_empty, everything]
    if sum(ways) != 1:
        said = "say which: HANDLE…, or --service, --error, --series and --since, or --all"
        raise CommandError(said if not any(ways) else f"handles, filters and --all exclude each other; {said}")
    return dlq.Wanted(tuple(handles or ()), selection)


def _ask(out: Console, letters: Sequence[Letter], as_document: bool) -> None:
    """Go on if somebody at the terminal agrees.

    Raises
    ------
    CommandError
        If not, or if there is nobody to be asked.
    """
    if as_document or not sys.stdin.isatty():
        raise CommandError(f"{_count(letters)} would be given up for good, and nobody can be asked; say --yes if so")
    _print_counts(out, letters)
    if not typer.confirm(f"Give up {_count(letters)} for good?"):
        raise CommandError("nothing was dropped", 1)


def _settle(
    letters: Sequence[Letter], data: Path, rate: float, *, as_document: bool, dry_run: bool, drop: bool
) -> None:
    from voxelmill_cli import dlq  # noqa: PLC0415 - as above
    from voxelmill_cli.app import call, out, print_json  # noqa: PLC0415 - as above
    from voxelmill_shared.account import whoami  # noqa: PLC0415 - likewise
    from voxelmill_shared.dead_letters import Order  # noqa: PLC0415 - likewise

    verb = "dropped" if drop else "replayed"
    if dry_run:
        if as_document:
            documents = [dlq.as_document(letter) for letter in letters]
            print_json({"dry_run": True, "queues": dlq.summary_document(letters), "letters": documents})
        else:
            _print_counts(out, letters)
            _print_letters(out, letters, len(letters))
            say(out, f"{_count(letters)} would be {verb}; nothing was changed")
        return
    states: list[Progress] = []
    with counting(out, verb, "dead letters", quiet=as_document) as told:

        def remember(progress: Progress) -> None:
            states[:] = [progress]
            told(progress.done + progress.gone, progress.total)

        try:
            call(dlq.settle(data.absolute(), letters, Order(whoami(), rate, remember), drop=drop))
        except Interrupted as error:
            done = states[0].done if states else 0
            rest = "the others are where they were; start it again and it goes on"
            error.line = f"interrupted: {done} of {len(letters)} dead letters were {verb}, {rest}"
            raise
    done, gone = (states[0].done, states[0].gone) if states else (0, 0)
    if as_document:
        print_json({"dry_run": False, verb: done, "gone": gone, "queues": dlq.summary_document(letters)})
        return
    say(out, f"{done} of {_count(letters)} {verb}")
    if gone:
        say(out, f"{gone} had been settled by somebody else meanwhile")


def _count(letters: Sequence[Any]) -> str:
    return "1 dead letter" if len(letters) == 1 else f"{len(letters)} dead letters"


def _print_counts(out: Console, letters: Sequence[Letter]) -> None:
    from voxelmill_shared.dead_letters import summarise  # noqa: PLC0415 - as above

    if not letters:
        say(out, "no dead letters")
        return
    table = Table(show_edge=False)
    for heading in ("queue", "letters", "oldest", "by error class"):
        table.add_column(heading, overflow="fold")
    for queue in summarise(letters):
        lines = [cell(f"{count} {name}") for name, count in queue.by_error_class.items()]
        oldest = f"{queue.oldest:%Y-%m-%d %H:%MZ}" if queue.oldest else "unknown"
        table.add_row(cell(queue.queue), str(queue.count), oldest, Text("\n").join(lines))
    out.print(table)


def _print_letters(out: Console, letters: Sequence[Letter], limit: int) -> None:
    from voxelmill_cli.dlq import short_handles  # noqa: PLC0415 - as above

    names = short_handles(letters)
    for letter in letters[:limit]:
        when = letter.dead_at.isoformat(timespec="seconds") if letter.dead_at else "at an unknown time"
        replays = f", replayed {letter.replays} times" if letter.replays else ""
        about = letter.about or letter.message_type or f"{letter.size} bytes that are no event"
        say(
            out,
            f"{names[letter.handle]}  {letter.queue}  {when}  {about}: {letter.error_class}: {letter.reason}{replays}",
        )
    if len(letters) > limit > 0:
        say(out, f"… {len(letters) - limit} more; --limit shows more of them, filters show fewer")

"""`voxelmill audit verify|export`: their options, and how they answer."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import Annotated

import typer
from rich.console import Console

from voxelmill_cli.counting import counting
from voxelmill_cli.options import DEFAULT_DATA, DataOption, JsonOption

audit_app = typer.Typer(
    name="audit", no_args_is_help=True, help="Who did what, on what, when: hold the trail to its chain, and export it.",
    rich_markup_mode=None,
)  # fmt: skip


@audit_app.command()
def verify(
    since_head: Annotated[
        str | None, typer.Option("--since-head", metavar="NUMBER:HASH", help="a head that was written down before")
    ] = None,
    data: DataOption = DEFAULT_DATA,
    as_document: JsonOption = False,
) -> None:
    """Go through the audit trail and name every record that was changed, removed, put in or moved."""
    from voxelmill_cli import audit  # noqa: PLC0415 - a wrong option or `--help` is answered at once
    from voxelmill_cli.app import call, call_sync, out, print_json  # noqa: PLC0415 - app imports this module
    from voxelmill_shared.catalog.verification import Head  # noqa: PLC0415 - as above

    noted = call_sync(Head.parse, since_head) if since_head is not None else None
    with counting(Console(stderr=True), "verifying", "records", quiet=as_document) as progress:
        found = call(audit.verify(data, noted, progress))
    if as_document:
        print_json(found)
    else:
        audit.print_verification(out, found)
    raise typer.Exit(found["exit_code"])


@audit_app.command()
def export(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="the file to write [default: standard output]")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="recorded then or later: 2026-01-31T12:00+01:00")] = None,
    until: Annotated[str | None, typer.Option("--until", help="recorded before")] = None,
    series: Annotated[str | None, typer.Option("--series", help="about this Series Instance UID")] = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Write the audit trail as FHIR R4 AuditEvent resources, one JSON document a line (NDJSON)."""
    from voxelmill_cli import audit  # noqa: PLC0415 - a wrong option or `--help` is answered at once
    from voxelmill_cli.app import call, call_sync, out  # noqa: PLC0415 - app imports this module
    from voxelmill_cli.console import say  # noqa: PLC0415 - as above

    since_time = call_sync(audit.read_time, since) if since is not None else None
    until_time = call_sync(audit.read_time, until) if until is not None else None
    with counting(Console(stderr=True), "exporting", "records", quiet=False) as progress:
        found = call(audit.export(data, output, since=since_time, until=until_time, series=series, progress=progress))
    if output is not None:
        say(out, f"{found['output']}: {found['records']} AuditEvents of FHIR R4")

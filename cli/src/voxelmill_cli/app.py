"""The command `voxelmill`: what it takes, and how it answers. The work stands in the modules beside this one.

They are imported by the commands that need them, so that a wrong option or `--help` is answered at once.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from voxelmill_cli.audit_command import audit_app
from voxelmill_cli.bucket.command import bucket_app
from voxelmill_cli.dlq_command import dlq_app
from voxelmill_cli.errors import (
    EXIT_INPUT_FAILED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    CommandError,
    explain,
    report,
)
from voxelmill_cli.interrupts import interruptible
from voxelmill_cli.keys_command import keys_app
from voxelmill_cli.options import (
    DEFAULT_DATA,
    DataOption,
    JsonOption,
    MaxErrorOption,
    ModelOption,
    OrganOption,
    QualityOption,
    ReductionOption,
    ResolutionOption,
    TaskOption,
)
from voxelmill_cli.output import OUTPUT, open_output, output_at_end
from voxelmill_cli.storage.command import storage_app
from voxelmill_cli.weights import weights_app
from voxelmill_shared.errors import TransientError, VoxelmillError
from voxelmill_shared.plan import MeshFormat, ModelName, Organ, Plan, Quality
from voxelmill_shared.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from voxelmill_cli.run import RunSummary

app = typer.Typer(
    name="voxelmill",
    help="Event-driven medical-image processing: DICOM and NIfTI in; previews, segmentation, meshes and an index out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(audit_app)
app.add_typer(bucket_app)
app.add_typer(dlq_app)
app.add_typer(keys_app)
app.add_typer(storage_app)
app.add_typer(weights_app)
out = Console()


def fail(line: str, exit_code: int) -> typer.Exit:
    """Write one line to standard error; raise what is returned."""
    report(line, exit_code)
    return typer.Exit(exit_code)


@contextmanager
def explained() -> Iterator[None]:
    """Turn Voxelmill's errors and the system's into one line and an exit code."""
    try:
        yield
    except CommandError as error:
        raise fail(str(error), error.exit_code) from None
    except TransientError as error:
        raise fail(f"{error}; see `voxelmill doctor`", EXIT_UNREACHABLE) from None
    except VoxelmillError as error:
        # Those that are ValueErrors too say that an address is written wrong.
        raise fail(str(error), EXIT_USAGE if isinstance(error, ValueError) else EXIT_INPUT_FAILED) from None
    except OSError as error:
        if error.errno is None or error.filename == OUTPUT:
            raise
        raise fail(explain(error), EXIT_INPUT_FAILED) from None


def call(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, or until a signal; see `explained`."""
    with explained():
        return asyncio.run(interruptible(work))


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
    log_level: Annotated[
        str, typer.Option(envvar="VOXELMILL_LOG_LEVEL", help="log lines on standard error: DEBUG to ERROR")
    ] = "ERROR",
) -> None:
    """Set up what every command has."""
    if version:
        out.print(__version__, highlight=False)
        raise typer.Exit
    from voxelmill_shared import logs  # noqa: PLC0415 - see the module's docstring

    try:
        logs.configure(log_level)
    except ValueError as error:
        raise fail(str(error), EXIT_USAGE) from None


def parse_formats(text: str) -> tuple[MeshFormat, ...]:
    """Read `stl,ply`.

    Raises
    ------
    typer.BadParameter
        If a word is no format, or there is none.
    """
    try:
        formats = tuple(dict.fromkeys(MeshFormat(word.strip().lower()) for word in text.split(",") if word.strip()))
    except ValueError as error:
        raise typer.BadParameter(f"{error}; use {', '.join(MeshFormat)}", param_hint="--format") from None
    if not formats:
        raise typer.BadParameter(f"names no format; use {', '.join(MeshFormat)}", param_hint="--format")
    return formats


FormatOption = Annotated[str, typer.Option("--format", help="mesh files to write: stl,ply,obj,glb,mz3")]


@app.command("run")
def run_command(
    source: Annotated[str, typer.Argument(help="a folder, a file, a zip or tar, or s3://bucket/prefix")],
    output: Annotated[str, typer.Option("--output", "-o", help="a folder, or s3://bucket/prefix")],
    organ: OrganOption = Organ.ALL,
    model: ModelOption = ModelName.THRESHOLD,
    task: TaskOption = "",
    resolution: ResolutionOption = None,
    quality: QualityOption = Quality.NORMAL,
    reduction_percent: ReductionOption = 90,
    max_error_mm: MaxErrorOption = None,
    formats: FormatOption = "stl,ply,obj,glb",
    keep_local: Annotated[bool, typer.Option(help="keep the local copy when the output is a bucket")] = False,
    cleanup_input: Annotated[bool, typer.Option(help="delete the input when all of it is done")] = False,
    as_document: JsonOption = False,
) -> None:
    """Put a source through every service and lay the results out in a folder."""
    plan = Plan(
        model=model,
        organ=organ,
        quality=quality,
        reduction_percent=reduction_percent,
        max_error_mm=max_error_mm,
        formats=parse_formats(formats),
        task=task,
        resolution=resolution,
    )
    from voxelmill_cli.model import ready  # noqa: PLC0415 - see the module's docstring
    from voxelmill_cli.report import as_json, print_summary  # noqa: PLC0415 - likewise

    plan = call_sync(ready, plan)
    summary = work_through(
        source, output, plan, keep_local=keep_local, cleanup_input=cleanup_input, as_document=as_document
    )
    if as_document:
        print_json(as_json(summary))
    else:
        print_summary(out, summary)
    raise typer.Exit(summary.exit_code)


def work_through(
    source: str,
    output: str,
    plan: Plan,
    *,
    as_document: bool,
    keep_local: bool = False,
    cleanup_input: bool = False,
) -> RunSummary:
    """Run with the display that fits, and give the summary."""
    from voxelmill_cli.progress import open_display  # noqa: PLC0415 - see the module's docstring
    from voxelmill_cli.run import RunRequest, run  # noqa: PLC0415 - likewise

    request = RunRequest(source, output, plan, keep_local=keep_local, cleanup_input=cleanup_input)
    with open_display(out, json=as_document) as display:
        summary: RunSummary = call(run(request, display))
    return summary


def print_json(document: Any) -> None:
    """Print one JSON document."""
    readable = sys.stdout.encoding.lower().replace("-", "") == "utf8"  # else only the escapes of JSON are JSON
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=not readable) + "\n")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="the folder for the phantom and its results")] = Path(
        "demo-output"
    ),
    model: ModelOption = ModelName.THRESHOLD,
    resolution: ResolutionOption = None,
    serve: Annotated[
        bool | None, typer.Option("--serve/--no-serve", help="show the results on a page until Ctrl-C [on a terminal]")
    ] = None,
    as_document: JsonOption = False,
) -> None:
    """Make a phantom chest CT, put it through every service, and say where to look."""
    from voxelmill_cli.demo import (  # noqa: PLC0415 - see the docstring
        make_phantom,
        print_demo,
        print_how_to_serve,
        truth_table,
    )
    from voxelmill_cli.model import ready  # noqa: PLC0415 - likewise
    from voxelmill_cli.report import as_json  # noqa: PLC0415 - likewise
    from voxelmill_cli.serving import serve_results  # noqa: PLC0415 - likewise

    plan = call_sync(ready, Plan(model=model, resolution=resolution))
    phantom, folder = call_sync(make_phantom, output, out if not as_document else None)
    summary = work_through(str(folder), str(output), plan, as_document=as_document)
    if as_document:
        print_json({**as_json(summary), "truth": truth_table(phantom, summary)})
    else:
        print_demo(out, phantom, summary)
        if serve or (serve is None and out.is_terminal and sys.stdin.isatty()):
            call(serve_results(summary.state, folder.absolute(), out))
        else:
            print_how_to_serve(out, output)
    raise typer.Exit(summary.exit_code)


def call_sync(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a plain function; see `explained`. A signal ends it where it stands."""
    with explained():
        return function(*arguments)


@app.command()
def up(
    data: DataOption = DEFAULT_DATA,
    organ: OrganOption = Organ.ALL,
    model: ModelOption = ModelName.THRESHOLD,
    task: TaskOption = "",
    resolution: ResolutionOption = None,
    quality: QualityOption = Quality.NORMAL,
    reduction_percent: ReductionOption = 90,
    max_error_mm: MaxErrorOption = None,
    port: Annotated[int, typer.Option(envvar="VOXELMILL_PORT", min=0, max=65535, help="the gateway's port")] = 8000,
) -> None:
    """Run every service in one process; whatever is put into DATA/inbox is worked on."""
    from voxelmill_cli.model import ready  # noqa: PLC0415 - see the module's docstring
    from voxelmill_cli.up import serve_folder  # noqa: PLC0415 - likewise

    plan = Plan(
        model=model,
        organ=organ,
        quality=quality,
        reduction_percent=reduction_percent,
        max_error_mm=max_error_mm,
        task=task,
        resolution=resolution,
    )
    call_sync(ready, plan)
    call(serve_folder(data.absolute(), plan, port, out))


@app.command()
def status(
    subject: Annotated[str | None, typer.Argument(help="a Series Instance UID, or a job")] = None,
    digest: Annotated[
        str | None, typer.Option("--object", metavar="DIGEST", help="an object, as logs and audit records name it")
    ] = None,
    data: DataOption = DEFAULT_DATA,
    as_document: JsonOption = False,
) -> None:
    """Show what became of every series, of one, or of one object."""
    from voxelmill_cli.status import (  # noqa: PLC0415 - see the module's docstring
        print_object,
        print_status,
        read_object,
        read_status,
    )

    if subject is not None and digest is not None:
        raise fail("a series or job, or an object with --object, not both", EXIT_USAGE)
    found = call(read_object(data, digest) if digest is not None else read_status(data, subject))
    if as_document:
        print_json(found)
    elif digest is not None:
        print_object(out, found)
    else:
        print_status(out, found)


@app.command()
def doctor(data: DataOption = DEFAULT_DATA, as_document: JsonOption = False) -> None:
    """Say what is reachable, what is missing, and the command that mends it."""
    from voxelmill_cli.doctor import examine, print_findings  # noqa: PLC0415 - see the module's docstring

    findings = call(examine(data))
    if as_document:
        print_json([finding.as_dict() for finding in findings])
    else:
        print_findings(out, findings)
    if any(finding.needed and not finding.good for finding in findings):
        raise typer.Exit(EXIT_UNREACHABLE)


@app.command("reconcile")
def reconcile_command(
    data: DataOption = DEFAULT_DATA,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only look, announce nothing")] = False,
    as_document: JsonOption = False,
) -> None:
    """List the inbox now, and announce what no notification told of."""
    from voxelmill_cli.reconcile import print_pass, reconcile  # noqa: PLC0415 - see the module's docstring

    with nullcontext() if as_document else out.status("listing the inbox"):  # on a terminal alone
        found = call(reconcile(data.absolute(), dry_run=dry_run))
    if as_document:
        print_json(found)
    else:
        print_pass(out, found)
    raise typer.Exit(found["exit_code"])


@app.command("pseudonym")
def pseudonym_command(
    asked: Annotated[str, typer.Argument(metavar="VALUE", help="a pseudonym, a Patient ID, a UID, or a copy's key")],
    project: Annotated[
        str | None, typer.Option("--project", help="whose mapping; if not given VOXELMILL_INGEST_PROJECT, or default")
    ] = None,
    data: DataOption = DEFAULT_DATA,
    as_document: JsonOption = False,
) -> None:
    """Show what stands for what in de-identified copies. Needs the project's key, and is written down."""
    from voxelmill_cli.pseudonym import disclose, print_disclosed  # noqa: PLC0415 - see the module's docstring

    found = call(disclose(data.absolute(), asked, project))
    if as_document:
        print_json(found)
    else:
        print_disclosed(out, found)


def _not_built(name: str, instead: str) -> None:
    @app.command(name, hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def command(_: typer.Context) -> None:
        raise fail(f"`voxelmill {name}` is not built yet; {instead}", EXIT_USAGE)


_not_built("watch", "`voxelmill status` shows where every series is")


def main() -> None:
    """Be the command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = open_output(sys.stdout)
    try:
        app()
    except SystemExit as ended:
        said = getattr(ended.__context__, "format_message", None)
        with output_at_end(ended.code):
            if ended.code and said is not None and "--json" in sys.argv[1:]:  # typer itself has refused the usage
                print_json({"error": said(), "exit_code": ended.code})
        raise
    except OSError as error:
        if error.filename != OUTPUT:
            raise
        with output_at_end(0):
            raise

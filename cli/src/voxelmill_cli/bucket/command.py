"""`voxelmill bucket connect`: its options, the question that it asks, and how it answers."""

from __future__ import annotations

import sys
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from voxelmill_cli.bucket.target import EXCHANGE, BucketTarget, ExchangeType, StoreKind
from voxelmill_cli.console import say
from voxelmill_cli.errors import EXIT_DONE, CommandError

if TYPE_CHECKING:
    from rich.console import Console

    from voxelmill_cli.bucket.connect import Connection, ConnectRequest
    from voxelmill_cli.bucket.steps import ConnectionPlan

bucket_app = typer.Typer(name="bucket", no_args_is_help=True, help="Set buckets up.", rich_markup_mode=None)


@bucket_app.callback()
def _bucket() -> None:
    """Set buckets up."""  # without a callback typer would take the only command for the whole


@bucket_app.command()
def connect(
    address: Annotated[str, typer.Argument(metavar="s3://BUCKET[/PREFIX]", help="where users put objects")],
    kind: Annotated[StoreKind | None, typer.Option(help="the server, if it is not to be found out")] = None,
    broker: Annotated[
        str | None,
        typer.Option(
            envvar=["VOXELMILL_AMQP_NOTIFICATIONS_URL", "VOXELMILL_BROKER_URL"],
            show_envvar=False,
            help="the RabbitMQ that the store publishes to (Ceph, MinIO, RustFS) [default: ingest's]",
        ),
    ] = None,
    push_endpoint: Annotated[
        str | None, typer.Option(help="the same broker as the store reaches it, if that is another address")
    ] = None,
    exchange: Annotated[
        str, typer.Option(envvar="VOXELMILL_AMQP_NOTIFICATIONS_EXCHANGE", show_envvar=False, help="on that broker")
    ] = EXCHANGE,
    exchange_type: Annotated[
        ExchangeType, typer.Option(envvar="VOXELMILL_AMQP_NOTIFICATIONS_EXCHANGE_TYPE", show_envvar=False)
    ] = ExchangeType.TOPIC,
    topic: Annotated[str | None, typer.Option(help="Ceph's topic [default: voxelmill-BUCKET]")] = None,
    arn: Annotated[str | None, typer.Option(help="the target's name in MinIO or RustFS")] = None,
    queue: Annotated[str | None, typer.Option(help="the SQS queue (AWS) [default: voxelmill-BUCKET]")] = None,
    dead_letter_queue: Annotated[
        str | None, typer.Option(help="an SQS queue for what is received again and again (AWS)")
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="an origin whose pages upload by presigned URLs; may be given again")
    ] = None,
    abort_multipart_days: Annotated[
        int, typer.Option(min=0, max=3650, help="abort uploads that nobody completes; 0 leaves the lifecycle alone")
    ] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan and do nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do it without asking")] = False,
    as_document: Annotated[bool, typer.Option("--json", help="print one JSON document and nothing else")] = False,
) -> None:
    """Set a store up so that what is put into the bucket reaches ingest; settings of others are kept."""
    from voxelmill_cli.app import call_sync, out, print_json  # noqa: PLC0415 - app imports this module
    from voxelmill_cli.bucket.connect import ConnectRequest  # noqa: PLC0415 - boto3 is slow to import

    def run() -> Connection:
        request = ConnectRequest(
            target=BucketTarget.parse(address),
            kind=kind,
            broker_url=broker,
            push_url=push_endpoint,
            exchange=exchange,
            exchange_type=exchange_type,
            topic=topic,
            arn=arn,
            queue=queue,
            dead_letter_queue=dead_letter_queue,
            cors_origins=tuple(cors_origin or ()),
            abort_multipart_days=abort_multipart_days,
        )
        return _run(request, out, dry_run=dry_run, yes=yes, as_document=as_document)

    connection: Connection = call_sync(run)
    if as_document:
        print_json(connection.as_document())
    elif connection.progress is None and connection.plan.changes and not dry_run:
        say(out, "nothing was done")
    else:
        _print_result(out, connection)
    raise typer.Exit(EXIT_DONE)


def _run(request: ConnectRequest, out: Console, *, dry_run: bool, yes: bool, as_document: bool) -> Connection:
    from voxelmill_cli.bucket.connect import connect as carry_out  # noqa: PLC0415 - as above

    def tell(line: str) -> None:
        if not as_document:
            say(out, line)

    def agree(endpoint: str, plan: ConnectionPlan) -> bool:
        tell(f"{request.target.address} on {plan.kind.product} ({endpoint}):")
        for line in plan.lines():
            tell(f"  {line}")
        for note in plan.notes:
            tell(note)
        if dry_run:
            return False
        if not plan.changes or yes:
            return True
        if as_document or not sys.stdin.isatty():
            raise CommandError(f"{request.target.address}: nothing was done; add --yes to do it, or --dry-run")
        return typer.confirm("Do it?")

    return carry_out(request, agree, tell)


def _print_result(out: Console, connection: Connection) -> None:
    plan = connection.plan
    if not plan.changes:
        say(out, "nothing is to be done here")
    elif connection.progress is None:
        say(out, "nothing was done (--dry-run)")
    say(out, "Settings of ingest:")
    for name, value in plan.variables().items():
        say(out, f"  {name}={quote(value) if ' ' in value else value}")

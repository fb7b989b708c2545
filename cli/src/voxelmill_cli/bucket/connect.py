"""Connecting a bucket: which server it is, what it takes, and doing it."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxelmill_cli.bucket import advice
from voxelmill_cli.bucket.administration import Administration
from voxelmill_cli.bucket.aws import AwsConnection, default_queue
from voxelmill_cli.bucket.ceph import EXCHANGE_NOTE, FIRST_NOTE, CephConnection
from voxelmill_cli.bucket.exchange import NotificationExchange, check_broker, has_password, without_password
from voxelmill_cli.bucket.minio import ROUTING_KEY, MinioConnection
from voxelmill_cli.bucket.steps import ConnectionPlan, Progress, carry_out
from voxelmill_cli.bucket.target import EXCHANGE, BucketTarget, ExchangeType, StoreKind, kind_by_headers, kind_by_host
from voxelmill_cli.bucket.upkeep import upkeep_steps
from voxelmill_cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from voxelmill_cli.bucket.steps import Step


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """What the user asks for; None where the command chooses.

    Parameters
    ----------
    kind
        The server, if it is not to be found out.
    broker_url, push_url
        The broker of the notifications as this machine reaches it, and as the store does if that is another address.
    exchange, exchange_type, topic, arn
        For stores that publish to RabbitMQ.
    queue, dead_letter_queue
        For AWS.
    cors_origins
        Origins of pages that upload by presigned URLs; CORS is left alone without.
    abort_multipart_days
        0 leaves the lifecycle alone.
    """

    target: BucketTarget
    kind: StoreKind | None = None
    broker_url: str | None = None
    push_url: str | None = None
    exchange: str = EXCHANGE
    exchange_type: ExchangeType = ExchangeType.TOPIC
    topic: str | None = None
    arn: str | None = None
    queue: str | None = None
    dead_letter_queue: str | None = None
    cors_origins: Sequence[str] = ()
    abort_multipart_days: int = 7

    def refuse_unused(self, kind: StoreKind) -> None:
        """Refuse options that this kind of server has no use for.

        Raises
        ------
        CommandError
            If one was given.
        """
        publishes = {StoreKind.CEPH, StoreKind.MINIO, StoreKind.RUSTFS}
        for option, given, kinds in (
            ("--queue", self.queue, {StoreKind.AWS}),
            ("--dead-letter-queue", self.dead_letter_queue, {StoreKind.AWS}),
            ("--topic", self.topic, {StoreKind.CEPH}),
            ("--arn", self.arn, {StoreKind.MINIO, StoreKind.RUSTFS}),
            ("--push-endpoint", self.push_url, publishes),
            ("--cors-origin", self.cors_origins, set(StoreKind) - {StoreKind.GCS}),
        ):
            if given and kind not in kinds:
                raise CommandError(f"{option} has no meaning for {kind.product}; leave it out")


@dataclass(frozen=True, slots=True)
class Connection:
    """What came of it. `progress` is None where nothing was done."""

    request: ConnectRequest
    endpoint: str
    plan: ConnectionPlan
    progress: Progress | None

    def as_document(self) -> dict[str, Any]:
        """Give it as data."""
        done = self.progress.done if self.progress else []
        return {
            "bucket": self.request.target.address,
            "kind": str(self.plan.kind),
            "endpoint": self.endpoint,
            "carried_out": self.progress is not None,
            "steps": [
                {
                    "number": number,
                    "title": step.title,
                    "state": step.state.name.lower(),
                    "detail": step.detail,
                    "done": number in done,
                }
                for number, step in enumerate(self.plan.steps, start=1)
            ],
            "variables": self.plan.variables(),
            "notes": list(self.plan.notes),
            "warnings": list(self.progress.warnings) if self.progress else [],
        }


def connect(
    request: ConnectRequest,
    agree: Callable[[str, ConnectionPlan], bool],
    told: Callable[[str], Any],
) -> Connection:
    """Look, ask, and do it.

    Parameters
    ----------
    agree
        Is shown the store's address and what would be done; whether to do it. Asked only if there is something to do.
    told
        Takes a line for each step that is done.

    Raises
    ------
    CommandError
        If the server cannot be told or reached, refuses, or a step failed.
    """
    with closing(Administration(request.target)) as administration:
        endpoint = administration.endpoint
        plan = _plan(request, administration, _kind(request, administration))
        agreed = agree(endpoint, plan)
        progress = carry_out(plan, told) if agreed else None
        return Connection(request, endpoint, plan, progress)


def _kind(request: ConnectRequest, administration: Administration) -> StoreKind:
    kind = request.kind or kind_by_host(administration.endpoint)
    if kind is StoreKind.GCS:  # nothing is asked of it, so no credentials are needed
        return kind
    headers = administration.look()
    kind = kind or kind_by_headers(headers)
    if kind is None:
        said = f" (it calls itself {headers['server']!r})" if "server" in headers else ""
        raise CommandError(
            f"{administration.endpoint}: cannot tell which server this is{said}; give --kind {'|'.join(StoreKind)}"
        )
    if kind is StoreKind.AWS and "x-amz-bucket-region" in headers:
        administration.move(headers["x-amz-bucket-region"])
    return kind


def _plan(request: ConnectRequest, administration: Administration, kind: StoreKind) -> ConnectionPlan:
    request.refuse_unused(kind)
    target = request.target
    match kind:
        case StoreKind.GCS:
            notes = advice.gcs_notes(target, request.abort_multipart_days)
            return ConnectionPlan(kind, advice.gcs_steps(target), lambda: _variables(request, {}), notes)
        case StoreKind.SPACES:
            steps, notes = (
                [advice.spaces_step()],
                ["DigitalOcean Spaces has no notifications: ingest lists the bucket."],
            )
            own: Callable[[], dict[str, str]] = _polling
        case StoreKind.SEAWEEDFS:
            steps, notes, own = [advice.seaweedfs_step()], advice.seaweedfs_notes(target), dict
        case StoreKind.AWS:
            aws = AwsConnection(
                administration, request.queue or default_queue(target.bucket), request.dead_letter_queue
            )
            steps, notes, own = aws.steps(), [], aws.variables
        case StoreKind.CEPH | StoreKind.MINIO | StoreKind.RUSTFS:
            steps, notes, own = _publishing(request, administration, kind)
    # What does not depend on notifications comes first: the bucket is ready when the first one is sent.
    steps = [*upkeep_steps(administration, request.cors_origins, request.abort_multipart_days), *steps]
    return ConnectionPlan(kind, steps, lambda: _variables(request, own()), notes)


def _publishing(
    request: ConnectRequest, administration: Administration, kind: StoreKind
) -> tuple[list[Step], list[str], Callable[[], dict[str, str]]]:
    """Plan for a store that publishes to RabbitMQ."""
    broker_url = check_broker(request.broker_url or "")
    exchange = NotificationExchange(broker_url, request.exchange, request.exchange_type)
    push_url = check_broker(request.push_url or broker_url)
    topic = request.topic or default_queue(request.target.bucket)

    def variables() -> dict[str, str]:
        found = {"VOXELMILL_AMQP_NOTIFICATIONS_EXCHANGE": exchange.name}
        if exchange.exchange_type is not ExchangeType.TOPIC:
            found["VOXELMILL_AMQP_NOTIFICATIONS_EXCHANGE_TYPE"] = str(exchange.exchange_type)
        if exchange.exchange_type is ExchangeType.DIRECT:
            found["VOXELMILL_AMQP_NOTIFICATIONS_ROUTING_KEY"] = topic if kind is StoreKind.CEPH else ROUTING_KEY
        if broker_url != os.environ.get("VOXELMILL_BROKER_URL"):
            found["VOXELMILL_AMQP_NOTIFICATIONS_URL"] = without_password(broker_url)
        return found

    notes = []
    if has_password(broker_url):
        notes.append("passwords are shown as ***")
    if kind is StoreKind.CEPH:
        ceph = CephConnection(administration, exchange, push_url, topic)
        return ceph.steps(), [FIRST_NOTE, EXCHANGE_NOTE, *notes], variables
    minio = MinioConnection(administration, kind, exchange, push_url, request.arn)
    return minio.steps(), [*minio.notes(), *notes], variables


def _variables(request: ConnectRequest, own: dict[str, str]) -> dict[str, str]:
    return {"VOXELMILL_INBOX_URL": request.target.address, **own}


def _polling() -> dict[str, str]:
    return {"VOXELMILL_RECONCILE_SECONDS": str(advice.POLLING_SECONDS)}

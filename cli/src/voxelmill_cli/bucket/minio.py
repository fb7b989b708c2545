"""MinIO and RustFS tell by AMQP: the target is a setting of the server, the notification configuration names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxelmill_cli.bucket import rules
from voxelmill_cli.bucket.administration import Administration, RefusedError
from voxelmill_cli.bucket.exchange import NotificationExchange, as_push_endpoint, without_password
from voxelmill_cli.bucket.notifying import notification_step, write_entry
from voxelmill_cli.bucket.steps import Step, StepState
from voxelmill_cli.bucket.target import StoreKind
from voxelmill_cli.errors import EXIT_INPUT_FAILED, CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping

SECTION = "QueueConfigurations"
TARGET = "VOXELMILL"
ROUTING_KEY = "voxelmill"
QUEUE_FOLDER = "/var/lib/voxelmill-notifications"


class MinioConnection:
    """The steps for a bucket of MinIO or RustFS.

    Parameters
    ----------
    push_url
        The broker as the store reaches it.
    arn
        The target's name in the store; as the variables make it if None.
    """

    def __init__(
        self,
        administration: Administration,
        kind: StoreKind,
        exchange: NotificationExchange,
        push_url: str,
        arn: str | None,
    ) -> None:
        self._administration = administration
        self._kind = kind
        self._exchange = exchange
        self._push_url = as_push_endpoint(push_url)
        self._arn = arn or default_arn(kind, administration.region)

    def steps(self) -> list[Step]:
        """Look at what stands. The target itself cannot be seen: the store says whether it has it when it is named."""
        entry = rules.notification("QueueArn", self._arn, self._administration.target.prefix, encoded=False)
        configuration = notification_step(self._administration, SECTION, entry, lambda: self._write(entry))
        steps = [self._exchange.step()]
        if configuration.act is not None:
            title = f"target {self._arn} of the server"
            detail = f"set the variables below on {self._kind.product} and restart it"
            steps.append(Step(title, StepState.BY_HAND, detail))
        return [*steps, configuration]

    def notes(self) -> list[str]:
        """What to set on the server."""
        settings = server_settings(self._kind, self._push_url, self._exchange)
        return [
            f"{self._kind.product} itself must have (on every node, before its start):",
            *(f"  {name}={value}" for name, value in settings.items()),
            f"  ({QUEUE_FOLDER}: a folder of the server's own disk, where it keeps what the broker did not take)",
        ]

    def _write(self, entry: rules.Document) -> None:
        try:
            write_entry(self._administration, SECTION, entry)
        except RefusedError as error:
            if error.denied or error.status != 400:
                raise
            line = (
                f"{self._kind.product} has no target {self._arn} ({error.code}); set the variables shown above on the "
                "server, restart it and run this again, or give --arn as the server names its target"
            )
            raise CommandError(line, EXIT_INPUT_FAILED) from error


def default_arn(kind: StoreKind, region: str) -> str:
    """Name the target that `server_settings` makes. RustFS has the names of its targets in small letters."""
    return (
        f"arn:rustfs:sqs:{region}:{TARGET.lower()}:amqp"
        if kind is StoreKind.RUSTFS
        else f"arn:minio:sqs::{TARGET}:amqp"
    )


def server_settings(kind: StoreKind, push_url: str, exchange: NotificationExchange) -> Mapping[str, str]:
    """Return the server's own variables; the broker's password is left to whoever sets them.

    Sources: "AMQP Notification Settings" of MinIO's documentation; `rustfs-config`, `notify/amqp.rs`.
    """
    values = {
        "ENABLE": "on",
        "URL": without_password(push_url),
        "EXCHANGE": exchange.name,
        "ROUTING_KEY": ROUTING_KEY,
        "QUEUE_DIR": QUEUE_FOLDER,
        "QUEUE_LIMIT": "100000",
    }
    if kind is StoreKind.RUSTFS:
        values |= {"MANDATORY": "on", "PERSISTENT": "on"}
        return {f"RUSTFS_NOTIFY_AMQP_{name}_{TARGET}": value for name, value in values.items()}
    values |= {
        "EXCHANGE_TYPE": exchange.exchange_type,
        "DURABLE": "on",
        "DELIVERY_MODE": "2",
        "PUBLISHER_CONFIRMS": "on",
    }
    return {f"MINIO_NOTIFY_AMQP_{name}_{TARGET}": value for name, value in values.items()}

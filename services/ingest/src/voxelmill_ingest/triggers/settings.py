"""Which sources of notifications an ingest process listens to. None of them is on by default."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations of validators
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, FilePath, NonNegativeFloat, SecretStr, ValidationInfo, field_validator

from voxelmill_ingest.settings import IngestSettings
from voxelmill_ingest.triggers.sns import TOPIC
from voxelmill_shared.transport.topology import ForeignExchange

SHORTEST_TOKEN = 16


class IngestProcessSettings(IngestSettings):
    """Ingest's settings and those of its triggers.

    The commands that run every service in one process read `IngestSettings` alone: a run of one folder must never take
    the notifications of an installation.
    """

    reconcile_seconds: NonNegativeFloat = Field(
        300.0, description="the pause between two listings of the inbox, for what no notification told of; 0: never"
    )

    amqp_notifications_exchange: str = Field(
        "", max_length=127, description="the exchange that MinIO, RustFS or Ceph publishes to; empty: none"
    )
    amqp_notifications_exchange_type: Literal["topic", "fanout", "direct"] = Field(
        "topic", description="its type (Ceph: topic)"
    )
    amqp_notifications_routing_key: str = Field(
        "#", max_length=255, description="what of it is taken: a pattern, or the exact key for a direct exchange"
    )
    amqp_notifications_url: SecretStr | None = Field(
        None, description="its broker, amqp://…; the installation's own if empty"
    )

    sqs_queue_url: str = Field("", description="the SQS queue that the bucket's events end in; empty: none")
    sqs_receivers: int = Field(4, ge=1, le=64, description="how many requests for messages wait at a time")
    sqs_visibility_seconds: int = Field(
        60, ge=1, le=43_200, description="how long a message in hand is hidden from other replicas"
    )

    notification_token: SecretStr | None = Field(
        None, description="what senders must know to push to /notifications; without it there is no such address"
    )
    notification_sns_topic: str = Field("", description="the ARN of the SNS topic that may push; empty: none")

    seaweedfs_filer: str = Field(
        "", description="host:port of the gRPC of the filer whose stream is read (its HTTP port + 10000); empty: none"
    )
    seaweedfs_filer_ca: FilePath | None = Field(
        None, description="PEM file of the authority that signed the filer's certificate; without it, no TLS"
    )
    seaweedfs_filer_cert: FilePath | None = Field(None, description="PEM file of our own certificate, if it asks")
    seaweedfs_filer_key: FilePath | None = Field(None, validate_default=True, description="PEM file of the key to that")

    @field_validator("amqp_notifications_exchange")
    @classmethod
    def _not_our_own(cls, value: str) -> str:
        if value.startswith("voxelmill."):
            raise ValueError(f"{value} is Voxelmill's own; name the exchange that the store publishes to")
        return value

    @field_validator("amqp_notifications_routing_key")
    @classmethod
    def _exact_for_direct(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("amqp_notifications_exchange_type") == "direct" and {"#", "*"}.intersection(value):
            raise ValueError("a direct exchange knows no patterns; give the routing key that the store publishes with")
        return value

    @field_validator("amqp_notifications_url", mode="after")
    @classmethod
    def _a_rabbitmq(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        value = _given(value)
        if value is None:
            broker = urlsplit(str(info.data.get("broker_url", ""))).scheme
            if info.data.get("amqp_notifications_exchange") and broker not in {"amqp", "amqps"}:
                raise ValueError(
                    "the installation's own broker is no RabbitMQ; give the one that the store publishes to"
                )
            return None
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in {"amqp", "amqps"} or not parts.hostname:
            raise ValueError("write amqp://user:password@host:port/vhost")
        return value

    @field_validator("sqs_queue_url")
    @classmethod
    def _a_queue(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.count("/") < 2):
            raise ValueError("write https://sqs.REGION.amazonaws.com/ACCOUNT/NAME, the queue's URL and not its ARN")
        return value

    @field_validator("notification_token")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        value = _given(value)
        if value is not None and len(value.get_secret_value()) < SHORTEST_TOKEN:
            raise ValueError(f"shorter than {SHORTEST_TOKEN} characters; `openssl rand -hex 32` makes a good one")
        return value

    @field_validator("notification_sns_topic")
    @classmethod
    def _a_topic(cls, value: str) -> str:
        if value and TOPIC.fullmatch(value) is None:
            raise ValueError("write arn:aws:sns:REGION:ACCOUNT:NAME")
        return value

    @field_validator("seaweedfs_filer_ca", "seaweedfs_filer_cert", "seaweedfs_filer_key", mode="before")
    @classmethod
    def _no_file(cls, value: object) -> object:
        return None if value == "" else value  # as `_given`

    @field_validator("seaweedfs_filer")
    @classmethod
    def _a_filer(cls, value: str, info: ValidationInfo) -> str:
        if value and (re.fullmatch(r"[^\s/]+:\d{1,5}", value) is None):
            raise ValueError("write host:port, the filer's gRPC (its HTTP port + 10000)")
        if value and not str(info.data.get("inbox_url", "")).lower().startswith("s3://"):
            raise ValueError(
                "a filer tells of buckets, and VOXELMILL_INBOX_URL is none; write s3://bucket or unset this"
            )
        return value

    @field_validator("seaweedfs_filer_key")
    @classmethod
    def _a_pair(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        ca, certificate = info.data.get("seaweedfs_filer_ca"), info.data.get("seaweedfs_filer_cert")
        if (certificate is None) != (value is None) or (value is not None and ca is None):
            raise ValueError("a certificate, its key and the authority of the filer's go together; set all three")
        return value

    def sources(self) -> tuple[str, ...]:
        """The sources of notifications that are on, by their names in the metrics."""
        on = {
            "amqp": self.amqp_notifications_exchange,
            "sqs": self.sqs_queue_url,
            "http": self.notification_token,
            "seaweedfs": self.seaweedfs_filer,
        }
        return tuple(name for name, setting in on.items() if setting)

    def notifications_exchange(self) -> ForeignExchange:
        """The exchange that the store publishes to."""
        return ForeignExchange(
            self.amqp_notifications_exchange,
            self.amqp_notifications_exchange_type,
            self.amqp_notifications_routing_key,
        )


def _given(value: SecretStr | None) -> SecretStr | None:
    """Take an empty text for none: compose files hand on variables that are not set as empty ones."""
    return value if value and value.get_secret_value() else None
